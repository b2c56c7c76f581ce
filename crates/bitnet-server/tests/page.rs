//! The page at `/`, and what it is told beyond OpenAI's interface: facts about the model, the memory of a session while
//! it grows, and inner losses.

mod common;

use bitnet::{GenerateOptions, Message, Sequence};
use common::{Running, attention, streamed, ttt};
use serde_json::{Value, json};

/// A request for a file of the page, with further lines of its head.
#[cfg(feature = "page")]
fn get(server: &Running, path: &str, head: &str) -> test_support::http::Stream {
    server.client.send(format!("GET {path} HTTP/1.1\r\nConnection: close\r\n{head}\r\n").as_bytes()).unwrap()
}

#[cfg(feature = "page")]
#[test]
fn the_page_comes_with_its_policy_and_only_if_wanted() {
    let server = Running::start(ttt(), |o| o.page = true);
    let files = [
        ("/", "text/html"),
        ("/assets/app.js", "text/javascript"),
        ("/assets/app.css", "text/css"),
        ("/assets/icon.svg", "image/svg+xml"),
    ];
    for (path, kind) in files {
        let reply = server.client.get(path).unwrap();
        assert_eq!(reply.status, 200, "{path}");
        assert!(reply.header("content-type").unwrap().starts_with(kind), "{path}");
        let policy = reply.header("content-security-policy").unwrap();
        assert!(policy.starts_with("default-src 'none'; script-src 'self'; style-src 'self';"), "{policy}");
        assert!(!policy.contains("unsafe") && policy.contains("frame-ancestors 'none'"), "{policy}");
        assert_eq!(reply.header("x-content-type-options"), Some("nosniff"));
        assert!(reply.headers.iter().all(|h| !h.0.starts_with("access-control")));
        let tag = reply.header("etag").unwrap();
        let again = get(&server, path, &format!("Host: localhost\r\nIf-None-Match: {tag}\r\n"));
        assert_eq!(again.status, 304, "{path}");
    }
    // Nothing of the page is written into it, and nothing comes from elsewhere.
    let html = server.client.get("/").unwrap().text().to_owned();
    assert!(!html.contains("<style") && !html.contains("<script>") && !html.contains("://"), "{html}");
    let reply = server.client.post("/", &json!({})).unwrap();
    assert_eq!((reply.status, &reply.json()["error"]["code"]), (405, &json!("method_not_allowed")));
    assert!(reply.text().contains("use GET"), "{}", reply.text());

    let without = Running::start(ttt(), |_| {});
    for (path, _) in &files[1..] {
        assert_eq!(without.client.get(path).unwrap().status, 404, "{path}");
    }
    assert_eq!(without.client.get("/").unwrap().text(), "bitnet is running");
}

#[cfg(feature = "page")]
#[test]
fn the_page_weakens_no_rule_on_names_and_keys() {
    let server = Running::start(ttt(), |o| o.page = true);
    for path in ["/", "/assets/app.js", "/bitnet/info"] {
        assert_eq!(get(&server, path, "Host: evil.example\r\n").status, 403, "{path}");
        assert_eq!(get(&server, path, "Host: localhost\r\nHost: localhost\r\n").status, 400, "{path}");
        assert_eq!(get(&server, path, "Host: localhost\r\nOrigin: http://evil.example\r\n").status, 200, "{path}");
    }
    let locked = Running::start(ttt(), |o| {
        o.page = true;
        o.api_key = Some(bitnet_server::ApiKey::new("secret"));
    });
    for (path, status) in [("/", 200), ("/assets/app.js", 200), ("/bitnet/info", 401), ("/v1/models", 401), ("/x", 401)]
    {
        assert_eq!(locked.client.get(path).unwrap().status, status, "{path}");
    }
    // A file is there for GET only; anything else needs the key like every request.
    let post = locked.client.post("/assets/app.js/../../v1/completions", &json!({"prompt": "x"})).unwrap();
    assert_eq!(post.status, 401);
}

#[test]
fn facts_about_the_model_are_the_models() {
    for model in [ttt(), attention()] {
        let server = Running::start(model.clone(), |_| {});
        let info = server.client.get("/bitnet/info").unwrap().ok();
        let config = model.config();
        assert_eq!(info["parameters"], config.parameters());
        assert_eq!(info["mixers"].as_array().unwrap().len(), config.num_hidden_layers);
        assert_eq!(info["inner_loss"], config.has_ttt());
        assert_eq!(info["chat"], true);
        let context = (model.context() != usize::MAX).then(|| model.context());
        assert_eq!(info["context"], json!(context));
        // The plan says what a session takes.
        let mut session = model.session();
        session.feed("Once upon a time").unwrap();
        assert_eq!(info["memory"]["constant_bytes"], session.state().constant_bytes());
        let per_token = info["memory"]["bytes_per_token"].as_u64().unwrap() as usize;
        assert_eq!(per_token > 0, session.state().kv_bytes() > 0);
        assert_eq!(session.state().kv_bytes() % per_token.max(1), 0);
    }
}

#[test]
fn the_memory_of_a_session_is_told_while_it_grows() {
    for model in [ttt(), attention()] {
        let server = Running::start(model.clone(), |_| {});
        let prompt = "Once upon a time there was a little dog who liked to run. ".repeat(8);
        let mut request = json!({"prompt": prompt, "temperature": 0, "max_tokens": 60, "stream": true,
            "logit_bias": {"0": -100}, "stream_options": {"include_state": true, "include_usage": true}});
        let events = server.client.stream("/v1/completions", &request).unwrap().events().unwrap();
        let states: Vec<&Value> = events.iter().map(|e| &e["state"]).filter(|s| !s.is_null()).collect();
        let tokens: Vec<u64> = states.iter().map(|s| s["tokens"].as_u64().unwrap()).collect();
        assert!(tokens.len() >= 4 && tokens.is_sorted(), "{tokens:?}");
        // The prompt is read in parts, and each is told.
        let prompt_tokens = model.encode(&prompt, model.adds_bos()).unwrap().len() as u64;
        assert!(tokens[0] < prompt_tokens, "{tokens:?} of {prompt_tokens}");
        let last = states.last().unwrap();
        let usage = &events.last().unwrap()["usage"];
        assert_eq!(
            (&last["prompt_tokens"], &last["completion_tokens"]),
            (&usage["prompt_tokens"], &usage["completion_tokens"])
        );
        assert!(last["prefill_seconds"].as_f64().unwrap() > 0.0 && last["decode_seconds"].as_f64().unwrap() > 0.0);
        let mut session = model.session();
        let options = GenerateOptions::default().sampling(model.default_sampling()).temperature(0.0).max_tokens(60);
        session.generate(&prompt, options.logit_bias(0, -100.0)).unwrap().finish().unwrap();
        let state = session.state();
        assert_eq!(
            (&last["kv_bytes"], &last["constant_bytes"]),
            (&json!(state.kv_bytes()), &json!(state.constant_bytes()))
        );
        // The text is the same without it, and nothing of it is there.
        let (told, _) = streamed(&events, 1).remove(0);
        request["stream_options"] = json!({});
        let events = server.client.stream("/v1/completions", &request).unwrap().events().unwrap();
        assert!(events.iter().all(|e| e.get("state").is_none()));
        assert_eq!(streamed(&events, 1).remove(0).0, told);
    }
}

#[test]
fn inner_losses_are_the_models_and_need_layers_that_learn() {
    let model = ttt();
    let server = Running::start(model.clone(), |o| o.max_embed_tokens = Some(2000));
    let text = "The cat sat on the mat and looked at the dog. The dog was sad. ".repeat(20);
    let answer = server.client.post("/bitnet/inner-loss", &json!({"prompt": text})).unwrap().ok();
    let ids = model.encode(&text, model.adds_bos()).unwrap();
    let losses = Sequence::new(model.engine(), model.kv_type(), None).feed_watched(&ids).unwrap();
    let (batch, heads) = (model.config().ttt.mini_batch_size, model.config().num_attention_heads);
    assert_eq!((&answer["tokens"], &answer["mini_batch"]), (&json!(ids.len()), &json!(batch)));
    let points = answer["points"].as_array().unwrap();
    assert_eq!(points.len(), ids.len().div_ceil(batch));
    for (i, point) in points.iter().enumerate() {
        assert_eq!(point["at"], i * batch);
        let told: Vec<f32> = point["losses"].as_array().unwrap().iter().map(|l| l.as_f64().unwrap() as f32).collect();
        let mean = |layer: &Vec<f32>| {
            let part = layer.chunks(batch * heads).nth(i).unwrap();
            part.iter().sum::<f32>() / part.len() as f32
        };
        assert_eq!(told, losses.iter().map(mean).collect::<Vec<_>>(), "{i}");
    }
    let messages = json!({"messages": [{"role": "user", "content": "hi"}]});
    let answer = server.client.post("/bitnet/inner-loss", &messages).unwrap().ok();
    let tokens = model.encode_chat(&[Message::user("hi")]).unwrap().len();
    assert_eq!(answer["points"].as_array().unwrap().len(), tokens.div_ceil(batch));
    for (wrong, code) in [
        (json!({}), Value::Null),
        (json!({"prompt": 3}), Value::Null),
        (json!({"prompt": "x", "odd": 1}), json!("unsupported_parameter")),
        (json!({"prompt": "word ".repeat(2100)}), json!("context_length_exceeded")),
    ] {
        let reply = server.client.post("/bitnet/inner-loss", &wrong).unwrap();
        assert_eq!((reply.status, &reply.json()["error"]["code"]), (400, &code), "{wrong}");
    }
    let other = Running::start(attention(), |_| {});
    let reply = other.client.post("/bitnet/inner-loss", &json!({"prompt": "x"})).unwrap();
    assert_eq!((reply.status, &reply.json()["error"]["code"]), (400, &json!("no_inner_loss")));
}
