//! Errors in a request are reported by name; no input of a client is an internal error.

mod common;

use bitnet::GenerateOptions;
use bitnet_server::ApiKey;
use common::{Running, attention, ttt};
use proptest::prelude::*;
use serde_json::{Value, json};

const CHAT: &str = "/v1/chat/completions";
const TEXT: &str = "/v1/completions";
const VECTORS: &str = "/v1/embeddings";

#[test]
fn wrong_fields_are_named() {
    let server = Running::start(attention(), |o| {
        o.max_tokens = Some(100);
        o.max_choices = 4;
    });
    let hi = json!([{"role": "user", "content": "hi"}]);
    let chat = |more: Value| {
        let mut request = json!({"messages": hi});
        request.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        (CHAT, request)
    };
    let text = |more: Value| {
        let mut request = json!({"prompt": "hi"});
        request.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        (TEXT, request)
    };
    let said = |message: Value| (CHAT, json!({"messages": [message]}));
    let cases = [
        ((CHAT, json!({})), "messages"),
        ((CHAT, json!({"messages": []})), "messages"),
        ((CHAT, json!({"messages": "hi"})), "messages"),
        (said(json!("hi")), "messages[0]"),
        (said(json!({"content": "hi"})), "messages[0].role"),
        (said(json!({"role": "king", "content": "hi"})), "messages[0].role"),
        (said(json!({"role": "tool", "content": "hi", "tool_call_id": "1"})), "messages[0].role"),
        (said(json!({"role": "user"})), "messages[0].content"),
        (said(json!({"role": "user", "content": 5})), "messages[0].content"),
        (
            said(json!({"role": "user", "content": [{"type": "image_url", "image_url": {"url": "x"}}]})),
            "messages[0].content[0].type",
        ),
        (said(json!({"role": "user", "content": [{"type": "text"}]})), "messages[0].content[0].text"),
        (said(json!({"role": "assistant", "content": "x", "tool_calls": [{"id": "1"}]})), "messages[0].tool_calls"),
        (chat(json!({"tools": [{"type": "function"}]})), "tools"),
        (chat(json!({"temperature": 2.5})), "temperature"),
        (chat(json!({"temperature": "hot"})), "temperature"),
        (chat(json!({"top_p": -0.1})), "top_p"),
        (chat(json!({"max_tokens": 0})), "max_tokens"),
        (chat(json!({"max_completion_tokens": 101})), "max_completion_tokens"),
        (chat(json!({"max_tokens": 1.5})), "max_tokens"),
        (chat(json!({"n": 5})), "n"),
        (chat(json!({"seed": "x"})), "seed"),
        (chat(json!({"stop": [""]})), "stop"),
        (chat(json!({"stop": 3})), "stop"),
        (chat(json!({"stop": vec!["x"; 17]})), "stop"),
        (chat(json!({"stop": ["x", "y".repeat(1025)]})), "stop"),
        (
            chat(
                json!({"logit_bias": (0..4097).map(|i| (i.to_string(), 1.into())).collect::<serde_json::Map<_, _>>()}),
            ),
            "logit_bias",
        ),
        ((CHAT, json!({"messages": vec![json!({"role": "user", "content": "x"}); 4097]})), "messages"),
        (chat(json!({"stream": "yes"})), "stream"),
        (chat(json!({"stream_options": {"include_usage": true}})), "stream_options"),
        (chat(json!({"stream": true, "stream_options": {"odd": true}})), "stream_options.odd"),
        (chat(json!({"top_logprobs": 3})), "top_logprobs"),
        (chat(json!({"logprobs": true, "top_logprobs": 21})), "top_logprobs"),
        (chat(json!({"logit_bias": {"99999": 1}})), "logit_bias"),
        (chat(json!({"logit_bias": {"1": 101}})), "logit_bias"),
        (chat(json!({"logit_bias": {"-1": 1}})), "logit_bias"),
        (chat(json!({"logit_bias": []})), "logit_bias"),
        (chat(json!({"frequency_penalty": 3})), "frequency_penalty"),
        (chat(json!({"response_format": {"type": "xml"}})), "response_format.type"),
        (chat(json!({"response_format": {"type": "json_schema"}})), "response_format.json_schema"),
        (
            chat(json!({"response_format": {"type": "json_schema", "json_schema": {"name": "x"}}})),
            "response_format.json_schema.schema",
        ),
        (
            chat(json!({"response_format": {"type": "json_schema", "json_schema": {"schema": {"type": "strange"}}}})),
            "response_format",
        ),
        (chat(json!({"response_format": {"type": "json_object"}, "stop": "x"})), "response_format"),
        (chat(json!({"response_format": {"type": "json_object"}, "regex": "x"})), "regex"),
        (chat(json!({"grammar": "start: \"a\"", "regex": "x"})), "regex"),
        (chat(json!({"grammar": "start: ("})), "grammar"),
        (chat(json!({"grammar": {"start": "a"}})), "grammar"),
        (chat(json!({"regex": "("})), "regex"),
        (chat(json!({"colour": "red"})), "colour"),
        (chat(json!({"model": 5})), "model"),
        ((TEXT, json!({})), "prompt"),
        ((TEXT, json!({"prompt": []})), "prompt"),
        ((TEXT, json!({"prompt": {"a": 1}})), "prompt"),
        ((TEXT, json!({"prompt": ["a", 5]})), "prompt"),
        ((TEXT, json!({"prompt": [1, 2, 99999]})), "prompt"),
        ((TEXT, json!({"prompt": [1, -2]})), "prompt"),
        ((TEXT, json!({"prompt": [[]]})), "prompt"),
        ((TEXT, json!({"prompt": ["a", "b", "c", "d", "e"]})), "prompt"),
        ((TEXT, json!({"prompt": ["a", "b", "c"], "n": 2})), "n"),
        (text(json!({"echo": "yes"})), "echo"),
        (text(json!({"max_tokens": 0})), "max_tokens"),
        (chat(json!({"echo": true})), "echo"),
        (text(json!({"suffix": "end"})), "suffix"),
        (text(json!({"best_of": 3})), "best_of"),
        (text(json!({"logprobs": 6})), "logprobs"),
        (text(json!({"logprobs": true})), "logprobs"),
        (text(json!({"messages": []})), "messages"),
        ((VECTORS, json!({})), "input"),
        ((VECTORS, json!({"input": ""})), "input"),
        ((VECTORS, json!({"input": []})), "input"),
        ((VECTORS, json!({"input": ["a", ""]})), "input"),
        ((VECTORS, json!({"input": [[]]})), "input"),
        ((VECTORS, json!({"input": "a", "encoding_format": "int8"})), "encoding_format"),
        ((VECTORS, json!({"input": "a", "dimensions": 3})), "dimensions"),
        ((VECTORS, json!({"input": "a", "prompt": "b"})), "prompt"),
    ];
    let mut wrong = Vec::new();
    for ((path, request), param) in &cases {
        let reply = server.client.post(path, request).unwrap();
        let error = &reply.json()["error"];
        let named = error["param"].as_str() == Some(*param) && error["message"].as_str().is_some_and(|m| m.len() > 5);
        if reply.status != 400 || !named || error["type"] != "invalid_request_error" {
            wrong.push(format!("{param}: {request} gave {} {error}", reply.status));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    // Fields that request nothing are not a reason to reject.
    let harmless = chat(
        json!({"tools": [], "tool_choice": "none", "functions": null, "stop": null, "logit_bias": {}, "max_tokens": 2,
        "modalities": ["text"], "n": 1, "response_format": {"type": "text"}, "presence_penalty": 0, "parallel_tool_calls": true}),
    );
    server.client.post(harmless.0, &harmless.1).unwrap().ok();
    let harmless = text(json!({"echo": false, "suffix": null, "best_of": 1, "max_tokens": 2}));
    server.client.post(harmless.0, &harmless.1).unwrap().ok();
}

#[test]
fn errors_have_the_codes_that_clients_know() {
    let server = Running::start(attention(), |o| o.body_bytes = 20_000);
    let code =
        |reply: test_support::http::Reply| (reply.status, reply.json()["error"]["code"].as_str().map(str::to_owned));
    let is = |status: u16, code: &str| (status, Some(code.to_owned()));
    let client = &server.client;
    let long = "The cat sat on the mat. ".repeat(60);
    assert_eq!(code(client.post(TEXT, &json!({"prompt": long})).unwrap()), is(400, "context_length_exceeded"));
    assert_eq!(code(client.post(VECTORS, &json!({"input": long})).unwrap()), is(400, "context_length_exceeded"));
    let messages = json!([{"role": "user", "content": long}]);
    assert_eq!(code(client.post(CHAT, &json!({"messages": messages})).unwrap()), is(400, "context_length_exceeded"));
    for (path, body) in
        [(TEXT, json!({"prompt": "x", "model": "gpt-4"})), (VECTORS, json!({"input": "x", "model": "a"}))]
    {
        assert_eq!(code(client.post(path, &body).unwrap()), is(404, "model_not_found"));
    }
    assert_eq!(code(client.get("/v1/models/gpt/4").unwrap()), is(404, "model_not_found"));
    assert_eq!(client.get("/v1/models/tinystories-5m").unwrap().ok()["id"], "tinystories-5m");
    assert_eq!(code(client.get("/v1/files").unwrap()), is(404, "unknown_url"));
    assert_eq!(code(client.get(TEXT).unwrap()), is(405, "method_not_allowed"));
    assert_eq!(code(client.post(TEXT, &json!({"prompt": "x".repeat(30_000)})).unwrap()), is(413, "request_too_large"));
    let form = format!("POST {TEXT} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nContent-Length: 2\r\n\r\n{{}}");
    assert_eq!(code(client.send(form.as_bytes()).unwrap().whole().unwrap()), is(415, "wrong_content_type"));
    for body in
        ["", "{", "\u{1}", "[1]", "\"x\"", "{\"prompt\": \"\u{0}\"", "{\"prompt\": 1e999}", "{\"prompt\": \"\\ud800\"}"]
    {
        let reply = client.send(&client.request("POST", TEXT, body.as_bytes())).unwrap().whole().unwrap();
        assert_eq!(reply.status, 400, "{body:?}: {}", reply.text());
    }
    let deep = format!("{{\"prompt\": {}1{}}}", "[".repeat(5000), "]".repeat(5000));
    assert_eq!(
        code(client.send(&client.request("POST", TEXT, deep.as_bytes())).unwrap().whole().unwrap()),
        is(400, "invalid_json")
    );
    let swarm = format!("{{\"prompt\": [{}[0]]}}", "[0],".repeat(1_000_000));
    let large = Running::start(attention(), |_| {});
    let reply = large.client.send(&large.client.request("POST", TEXT, swarm.as_bytes())).unwrap().whole().unwrap();
    assert_eq!(code(reply), is(413, "request_too_large"));
    // No chat template.
    let plain = bitnet::Model::tiny().unwrap();
    assert!(plain.chat_template().is_none());
    let server = Running::start(plain, |_| {});
    let hi = json!({"messages": [{"role": "user", "content": "hi"}]});
    assert_eq!(code(server.client.post(CHAT, &hi).unwrap()), is(400, "no_chat_template"));
}

/// The first inputs of the fuzz target.
#[test]
fn bodies_in_testdata_are_requests() {
    let service = bitnet_server::Service::start(ttt(), bitnet_server::Options::default()).unwrap();
    let mut seen = 0;
    for entry in std::fs::read_dir(test_support::workspace_dir().join("testdata/http")).unwrap() {
        let path = entry.unwrap().path();
        let body = std::fs::read(&path).unwrap();
        let value: Value = serde_json::from_slice(&body).unwrap();
        let has = |field| value.get(field).is_some();
        let endpoint = if has("messages") {
            CHAT
        } else if has("prompt") {
            TEXT
        } else {
            VECTORS
        };
        assert_eq!(service.plan_only(endpoint, &body), 200, "{}", path.display());
        assert_eq!(service.plan_only("/v1/nowhere", &body), 404);
        assert!(service.plan_only(if endpoint == TEXT { CHAT } else { TEXT }, &body) == 400);
        seen += 1;
    }
    assert!(seen >= 6);
}

#[test]
fn what_a_client_sent_comes_back_in_part_only() {
    let server = Running::start(attention(), |_| {});
    let long = "é".repeat(100_000);
    let field = json!({"prompt": "x", long.as_str(): 1});
    let part = json!({"messages": [{"role": "user", "content": [{"type": long, "text": "x"}]}]});
    let schema = json!({"type": "json_schema", "json_schema": {"name": "x", "schema": {"type": long}}});
    let cases = [
        (TEXT, json!({"prompt": "x", "model": long}), 404),
        (TEXT, field, 400),
        (CHAT, part, 400),
        (TEXT, json!({"prompt": "x", "response_format": schema}), 400),
        (TEXT, json!({"prompt": "x", "regex": format!("({long}")}), 400),
        (TEXT, json!({"prompt": "x", "grammar": long}), 400),
    ];
    for (path, body, status) in cases {
        let reply = server.client.post(path, &body).unwrap();
        assert_eq!(reply.status, status, "{}", reply.text());
        assert!(reply.body.len() < 4000, "{} bytes: {}", reply.body.len(), reply.text());
        assert!(!reply.text().contains("panic"), "{}", reply.text());
    }
    for path in
        [format!("/v1/models/{}", "x".repeat(30_000)), format!("/{}", "x".repeat(30_000)), "/v1/models/%ff".into()]
    {
        let reply = server.client.get(&path).unwrap();
        assert!(reply.status == 404 && reply.body.len() < 1000, "{}", reply.text());
        assert!(reply.json()["error"]["message"].is_string());
    }
}

#[test]
fn a_key_opens_and_nothing_else_does() {
    let server = Running::start(ttt(), |o| o.api_key = Some(ApiKey::new("sesame")));
    let mut client = server.client.clone();
    for key in [None, Some(""), Some("sesam"), Some("sesames"), Some("Sesame")] {
        client.key = key.map(str::to_owned);
        for path in ["/v1/models", "/metrics", "/nowhere"] {
            let reply = client.get(path).unwrap();
            assert_eq!((reply.status, reply.header("www-authenticate")), (401, Some("Bearer")));
            assert_eq!(reply.json()["error"]["code"], "invalid_api_key");
        }
        let reply = client.post(TEXT, &json!({"prompt": "x"})).unwrap();
        assert_eq!(reply.status, 401);
    }
    // Health checks need no key.
    assert_eq!(client.get("/health").unwrap().ok()["status"], "ok");
    client.key = Some("sesame".into());
    client.get("/v1/models").unwrap().ok();
    client.post(TEXT, &json!({"prompt": "x", "max_tokens": 1})).unwrap().ok();
    // With a key the host name does not matter.
    let named =
        "GET /v1/models HTTP/1.1\r\nHost: example.org\r\nAuthorization: bearer sesame\r\nConnection: close\r\n\r\n";
    assert_eq!(client.send(named.as_bytes()).unwrap().status, 200);
}

#[test]
fn without_a_key_only_names_of_this_machine_are_answered() {
    let server = Running::start(ttt(), |_| {});
    let get = |host: &str| {
        let request = format!("GET /v1/models HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n");
        server.client.send(request.as_bytes()).unwrap().status
    };
    assert_eq!(["localhost", "localhost:99", "127.0.0.1", "[::1]:8080"].map(get), [200; 4]);
    assert_eq!(["example.org", "127.0.0.1.example.org", "rebound.example:8080"].map(get), [403; 3]);
    // Unreadable or contradictory names.
    for host in [&b"Host: evil\xe9.com\r\n"[..], b"Host: localhost\r\nHost: evil.com\r\n"] {
        let request = [b"GET /v1/models HTTP/1.1\r\nConnection: close\r\n", host, b"\r\n"].concat();
        let reply = server.client.send(&request).unwrap().whole().unwrap();
        assert_eq!((reply.status, &reply.json()["error"]["code"]), (400, &json!("invalid_host")));
    }
    let named = Running::start(ttt(), |o| o.allow_hosts = vec!["Rebound.example".into()]);
    let get = |host: &str| {
        let request = format!("GET /v1/models HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n");
        named.client.send(request.as_bytes()).unwrap().status
    };
    assert_eq!(["localhost", "rebound.example:8080", "example.org"].map(get), [200, 200, 403]);
}

/// Values of every kind under every name, most of them wrong.
fn anything() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        (-3i64..9).prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        "\\PC{0,12}".prop_map(Value::from),
        Just(json!("user")),
        Just(json!("text")),
    ];
    leaf.prop_recursive(3, 16, 4, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            prop::collection::vec((name(), inner), 0..4).prop_map(|m| Value::Object(m.into_iter().collect())),
        ]
    })
}

fn name() -> impl Strategy<Value = String> {
    const NAMES: &[&str] = &[
        "messages",
        "prompt",
        "input",
        "model",
        "role",
        "content",
        "type",
        "text",
        "stream",
        "stream_options",
        "include_usage",
        "temperature",
        "top_p",
        "top_k",
        "min_p",
        "n",
        "seed",
        "stop",
        "logprobs",
        "top_logprobs",
        "logit_bias",
        "response_format",
        "json_schema",
        "schema",
        "encoding_format",
        "dimensions",
        "presence_penalty",
        "frequency_penalty",
        "echo",
        "5",
    ];
    prop_oneof![8 => prop::sample::select(NAMES).prop_map(str::to_owned), 1 => "\\PC{0,6}"]
}

#[test]
fn nothing_that_is_sent_is_an_error_of_the_server() {
    let server = Running::start(attention(), |o| {
        o.max_tokens = Some(3);
        o.max_choices = 4;
    });
    let client = server.client.clone();
    const PATHS: &[&str] = &[CHAT, TEXT, VECTORS];
    let path = prop::sample::select(PATHS);
    // Objects that usually have the required fields, and bytes.
    let good = (anything(), prop::collection::vec((name(), anything()), 0..4)).prop_map(|(messages, more)| {
        let mut request = json!({"messages": [{"role": "user", "content": "hi"}], "prompt": "a", "input": "b"});
        let map = request.as_object_mut().unwrap();
        if more.len() == 3 {
            map.insert("messages".into(), messages);
        }
        map.extend(more);
        request.to_string().into_bytes()
    });
    let body = prop_oneof![
        4 => good,
        2 => anything().prop_map(|v| v.to_string().into_bytes()),
        1 => prop::collection::vec(any::<u8>(), 0..200),
    ];
    let drop_others = |path: &str, body: Vec<u8>| -> Vec<u8> {
        // Each endpoint rejects the fields of the others, so they are removed half of the time.
        let Ok(Value::Object(mut map)) = serde_json::from_slice::<Value>(&body) else { return body };
        if map.len() % 2 == 1 {
            let own = match path {
                CHAT => "messages",
                TEXT => "prompt",
                _ => "input",
            };
            for other in ["messages", "prompt", "input"].iter().filter(|n| **n != own) {
                map.remove(*other);
            }
        }
        Value::Object(map).to_string().into_bytes()
    };
    let answered = std::cell::Cell::new(0);
    proptest!(ProptestConfig::with_cases(300), |(path in path, body in body)| {
        let body = drop_others(path, body);
        let reply = client.send(&client.request("POST", path, &body)).unwrap().whole().unwrap();
        prop_assert!(reply.status < 500, "{} {}: {}", path, String::from_utf8_lossy(&body), reply.text());
        match reply.status {
            200 => answered.set(answered.get() + 1),
            _ => prop_assert!(reply.json()["error"]["message"].is_string()),
        }
    });
    assert!(answered.get() > 10, "{}", answered.get());
    // It still works as before.
    let model = attention();
    let expected = model
        .session()
        .generate("x", GenerateOptions::default().temperature(0.0).max_tokens(3))
        .unwrap()
        .finish()
        .unwrap();
    let answer = client.post(TEXT, &json!({"prompt": "x", "temperature": 0, "max_tokens": 3})).unwrap().ok();
    assert_eq!(answer["choices"][0]["text"].as_str(), expected.text.as_deref());
    assert_eq!(client.get("/health").unwrap().ok()["status"], "ok");
}

#[test]
fn pages_of_allowed_origins_may_use_the_server() {
    let server = Running::start(ttt(), |o| {
        o.api_key = Some(ApiKey::new("sesame"));
        o.cors_origins = vec!["http://localhost:3000".into(), "https://box.example".into()];
    });
    let send = |method: &str, path: &str, head: &str| {
        let request = format!("{method} {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n{head}\r\n");
        server.client.send(request.as_bytes()).unwrap().whole().unwrap()
    };
    let ask = "Access-Control-Request-Method: POST\r\nAccess-Control-Request-Headers: authorization, x-more\r\n";
    for path in [CHAT, "/api/chat", "/v1/models"] {
        for origin in ["http://localhost:3000", "https://box.example"] {
            // The question needs no key, and the request that follows does.
            let asked = send(
                "OPTIONS",
                path,
                &format!("Origin: {origin}\r\n{ask}Access-Control-Request-Private-Network: true\r\n"),
            );
            assert_eq!((asked.status, asked.header("access-control-allow-origin")), (204, Some(origin)));
            assert_eq!(asked.header("access-control-allow-headers"), Some("authorization, x-more"));
            assert!(asked.header("access-control-allow-methods").unwrap().contains("POST"));
            assert_eq!(asked.header("access-control-allow-private-network"), Some("true"));
            let without = send("GET", path, &format!("Origin: {origin}\r\n"));
            assert_eq!((without.status, without.header("access-control-allow-origin")), (401, Some(origin)));
        }
        // Other origins get the answers of before, which no browser shows them.
        for origin in ["http://localhost:3001", "https://localhost:3000", "http://LOCALHOST:3000", "null", "*"] {
            let asked = send("OPTIONS", path, &format!("Origin: {origin}\r\n{ask}"));
            assert_eq!((asked.status, asked.header("access-control-allow-origin")), (401, None), "{origin}");
        }
        // Not a question of a browser.
        assert_eq!(send("OPTIONS", path, "Origin: https://box.example\r\n").status, 401);
    }
    let with_key = "Origin: https://box.example\r\nAuthorization: Bearer sesame\r\n";
    let models = send("GET", "/v1/models", with_key);
    assert_eq!((models.status, models.header("access-control-allow-origin")), (200, Some("https://box.example")));
    assert_eq!(
        (models.header("vary"), models.header("access-control-expose-headers")),
        (Some("origin"), Some("retry-after"))
    );
    assert_eq!(
        send("GET", "/v1/models", "Authorization: Bearer sesame\r\n").header("access-control-allow-origin"),
        None
    );

    // Without a key, the names of this machine still count, and so does the content type.
    let open = Running::start(ttt(), |o| o.cors_origins = vec!["https://box.example".into()]);
    let request = format!(
        "OPTIONS {CHAT} HTTP/1.1\r\nHost: box.example\r\nOrigin: https://box.example\r\nConnection: close\r\n{ask}\r\n"
    );
    assert_eq!(open.client.send(request.as_bytes()).unwrap().whole().unwrap().status, 403);
    // All of them, if that is asked for; the names of this machine count here, too.
    let all = Running::start(ttt(), |o| o.cors_origins = vec!["*".into()]);
    let ask = |host: &str| {
        let request = format!(
            "GET /v1/models HTTP/1.1\r\nHost: {host}\r\nOrigin: https://any.example\r\nConnection: close\r\n\r\n"
        );
        all.client.send(request.as_bytes()).unwrap().whole().unwrap()
    };
    let here = ask("localhost");
    assert_eq!((here.status, here.header("access-control-allow-origin")), (200, Some("*")));
    assert_eq!(ask("any.example").status, 403);
    for wrong in ["null", "box.example", "https://box.example/"] {
        let mut options = bitnet_server::Options::default();
        options.cors_origins = vec![wrong.into()];
        let refused = bitnet_server::Service::start(ttt(), options).err();
        assert!(matches!(refused, Some(bitnet_server::ServerError::Origin { .. })), "{wrong}");
    }
}
