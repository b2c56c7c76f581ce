//! Ollama's interface: the texts and vectors of OpenAI's, in the form that clients of Ollama read.

mod common;

use std::io::Write;
use std::time::Duration;

use bitnet::{Message, Model};
use bitnet_server::ApiKey;
use common::{Running, attention, texts, ttt};
use serde_json::{Value, json};
use test_support::http::{Reply, Stream};

const CHAT: &str = "/api/chat";
const TEXT: &str = "/api/generate";

/// `base` with further fields.
fn with(mut base: Value, more: Value) -> Value {
    base.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    base
}

/// The answer to a request that is not streamed.
#[track_caller]
fn whole(server: &Running, path: &str, request: &Value) -> Value {
    server.client.post(path, &with(request.clone(), json!({"stream": false}))).unwrap().ok()
}

/// The lines of a stream.
#[track_caller]
fn lines(server: &Running, path: &str, request: &Value) -> Vec<Value> {
    let reply = server.client.post(path, request).unwrap();
    assert_eq!((reply.status, reply.header("content-type")), (200, Some("application/x-ndjson")), "{}", reply.text());
    assert!(reply.text().ends_with("}\n"));
    reply.text().lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

/// The text of an answer or of a line.
fn said(value: &Value) -> &str {
    value["response"].as_str().or(value["message"]["content"].as_str()).unwrap()
}

/// Checks a stream against the whole answer.
#[track_caller]
fn same_in_lines(server: &Running, path: &str, request: &Value, answer: &Value) {
    let all = lines(server, path, request);
    let (last, pieces) = all.split_last().unwrap();
    assert_eq!(pieces.iter().map(said).collect::<String>(), said(answer));
    assert!(pieces.iter().all(|piece| piece["done"] == false && piece["model"] == answer["model"]));
    assert_eq!((said(last), &last["done"]), ("", &json!(true)));
    for field in ["done_reason", "eval_count", "prompt_eval_count", "context"] {
        assert_eq!(last[field], answer[field], "{field}");
    }
}

#[test]
fn continuations_are_those_of_the_other_interface() {
    for model in [ttt(), attention()] {
        let server = Running::start(model, |_| {});
        let name = server.client.get("/v1/models").unwrap().ok()["data"][0]["id"].as_str().unwrap().to_owned();
        for (seed, temperature) in [(0, 0.0), (3, 0.9), (4, 1.5)] {
            let sampling = json!({"temperature": temperature, "seed": seed, "top_p": 0.9, "top_k": 30, "min_p": 0.01,
                "presence_penalty": 0.3, "frequency_penalty": 0.2, "stop": ["zzz"]});
            let theirs = with(json!({"prompt": "Once upon a time", "max_tokens": 30}), sampling.clone());
            let theirs = server.client.post("/v1/completions", &theirs).unwrap().ok();
            let request = json!({"model": format!("{name}:latest"), "prompt": "Once upon a time", "raw": true,
                "options": with(sampling, json!({"num_predict": 30}))});
            let answer = whole(&server, TEXT, &request);
            assert_eq!(said(&answer), texts(&theirs)[0]);
            assert_eq!(answer["done_reason"], theirs["choices"][0]["finish_reason"]);
            assert_eq!(answer["eval_count"], theirs["usage"]["completion_tokens"]);
            assert_eq!(answer["prompt_eval_count"], theirs["usage"]["prompt_tokens"]);
            assert_eq!((&answer["model"], &answer["done"]), (&request["model"], &json!(true)));
            assert!(answer.get("context").is_none() && answer["load_duration"] == 0);
            let time = |field: &str| answer[field].as_u64().unwrap();
            assert!(time("total_duration") >= time("eval_duration") && answer["prompt_eval_duration"].is_u64());
            same_in_lines(&server, TEXT, &request, &answer);
        }
        // A stop text ends it, and is not part of it.
        let request =
            json!({"prompt": "Once upon a time", "raw": true, "options": {"temperature": 0, "num_predict": 40}});
        let text = said(&whole(&server, TEXT, &request)).to_owned();
        let stop = &text[8..11];
        let cut = whole(
            &server,
            TEXT,
            &with(request, json!({"options": {"temperature": 0, "num_predict": 40, "stop": [stop]}})),
        );
        assert_eq!((said(&cut), &cut["done_reason"]), (text.split(stop).next().unwrap(), &json!("stop")));
    }
}

#[test]
fn conversations_are_those_of_the_other_interface() {
    for model in [ttt(), attention()] {
        let server = Running::start(model.clone(), |_| {});
        let messages = json!([
            {"role": "system", "content": "You tell stories."},
            {"role": "user", "content": "Of a dog!"},
            {"role": "assistant", "content": "No.", "thinking": null, "images": null, "tool_calls": null},
            {"role": "User", "content": "Please!", "images": []},
        ]);
        let theirs = json!([
            {"role": "system", "content": "You tell stories."},
            {"role": "user", "content": "Of a dog!"},
            {"role": "assistant", "content": "No."},
            {"role": "user", "content": "Please!"},
        ]);
        let theirs = json!({"messages": theirs, "temperature": 0.8, "seed": 7, "max_tokens": 25, "logprobs": true, "top_logprobs": 2});
        let theirs = server.client.post("/v1/chat/completions", &theirs).unwrap().ok();
        let request = json!({"messages": messages, "options": {"temperature": 0.8, "seed": 7, "num_predict": 25},
            "logprobs": true, "top_logprobs": 2, "keep_alive": "5m"});
        let answer = whole(&server, CHAT, &request);
        assert_eq!(said(&answer), texts(&theirs)[0]);
        assert_eq!(answer["message"]["role"], "assistant");
        assert_eq!(answer["logprobs"], theirs["choices"][0]["logprobs"]["content"]);
        assert_eq!(answer["prompt_eval_count"], theirs["usage"]["prompt_tokens"]);
        same_in_lines(&server, CHAT, &request, &answer);
        let streamed = lines(&server, CHAT, &request);
        let logprobs: Vec<&Value> = streamed.iter().filter_map(|line| line["logprobs"].as_array()).flatten().collect();
        assert_eq!(logprobs, answer["logprobs"].as_array().unwrap().iter().collect::<Vec<_>>());

        // A prompt with an instruction is a conversation, and the answer tells all its tokens.
        let options = json!({"temperature": 0.8, "seed": 9, "num_predict": 12});
        let talk = json!([{"role": "system", "content": "Tell."}, {"role": "user", "content": "Of a cat."}]);
        let talked = whole(&server, CHAT, &json!({"messages": talk, "options": options}));
        let generated = whole(&server, TEXT, &json!({"prompt": "Of a cat.", "system": "Tell.", "options": options}));
        assert_eq!(said(&generated), said(&talked));
        let prompt = model.encode_chat(&[Message::system("Tell."), Message::user("Of a cat.")]).unwrap();
        let context: Vec<u32> = serde_json::from_value(generated["context"].clone()).unwrap();
        assert_eq!(context[..prompt.len()], prompt);
        assert_eq!(context.len() - prompt.len(), generated["eval_count"].as_u64().unwrap() as usize);
        // It goes on with them.
        let next = json!({"prompt": "More.", "context": context, "options": options});
        let mut tokens = model.encode_chat(&[Message::user("More.")]).unwrap();
        if model.config().bos_token_id == tokens.first().copied() {
            tokens.remove(0);
        }
        let tokens = [context, tokens].concat();
        let answer = whole(&server, TEXT, &next);
        assert_eq!(answer["prompt_eval_count"], tokens.len());
        let theirs = json!({"prompt": tokens, "max_tokens": 12, "temperature": 0.8, "seed": 9});
        assert_eq!(said(&answer), texts(&server.client.post("/v1/completions", &theirs).unwrap().ok())[0]);
        same_in_lines(&server, TEXT, &next, &answer);
    }
}

#[cfg(feature = "constrain")]
#[test]
fn formats_hold() {
    let server = Running::start(ttt(), |_| {});
    let schema = json!({"type": "object", "properties": {"kind": {"enum": ["cat", "dog"]}, "age": {"type": "integer", "maximum": 99}},
        "required": ["kind", "age"], "additionalProperties": false});
    let request =
        json!({"messages": [{"role": "user", "content": "An animal?"}], "format": schema, "options": {"seed": 1}});
    let answer = whole(&server, CHAT, &request);
    let value: Value = serde_json::from_str(said(&answer)).unwrap();
    assert!(value["age"].as_i64().unwrap() <= 99 && ["cat", "dog"].contains(&value["kind"].as_str().unwrap()));
    assert_eq!(answer["done_reason"], "stop");
    same_in_lines(&server, CHAT, &request, &answer);
    let theirs = json!({"messages": request["messages"], "seed": 1,
        "response_format": {"type": "json_schema", "json_schema": {"name": "x", "schema": schema}}});
    assert_eq!(said(&answer), texts(&server.client.post("/v1/chat/completions", &theirs).unwrap().ok())[0]);
    // A token without alternative has a number, too.
    let told = whole(&server, CHAT, &with(request.clone(), json!({"logprobs": true})));
    assert!(told["logprobs"].as_array().unwrap().iter().all(|l| l["logprob"].is_f64()));
    // A text that was cut off says so.
    let cut = whole(&server, CHAT, &with(request.clone(), json!({"options": {"num_predict": 2}})));
    assert_eq!((&cut["done_reason"], &cut["eval_count"]), (&json!("length"), &json!(2)));
    let any =
        json!({"prompt": "An animal: ", "raw": true, "format": "json", "options": {"seed": 1, "num_predict": 400}});
    let answer = whole(&server, TEXT, &any);
    assert!(said(&answer).starts_with('{'), "{answer}");
    whole(&server, TEXT, &with(any, json!({"format": "", "options": {"num_predict": 2}})));
}

/// The message of an error, in the form of this interface.
#[track_caller]
fn error(reply: &Reply) -> String {
    let body = reply.json();
    assert_eq!(body.as_object().unwrap().len(), 1, "{body}");
    body["error"].as_str().unwrap_or_else(|| panic!("{body}")).to_owned()
}

#[test]
fn wrong_fields_are_named_and_unknown_ones_ignored() {
    let server = Running::start(attention(), |_| {});
    let chat = |more: Value| (CHAT, with(json!({"messages": [{"role": "user", "content": "hi"}]}), more));
    let text = |more: Value| (TEXT, with(json!({"prompt": "hi"}), more));
    let option = |more: Value| text(json!({"options": more}));
    let message = |message: Value| (CHAT, json!({"messages": [{"role": "user", "content": "hi"}, message]}));
    let cases = [
        (option(json!({"temperature": "hot"})), "options.temperature"),
        (option(json!({"temperature": -1})), "temperature"),
        (option(json!({"top_p": 2})), "top_p"),
        (option(json!({"temperature": 1e300})), "temperature"),
        (option(json!({"num_predict": "many"})), "options.num_predict"),
        (option(json!({"num_predict": 1.5})), "options.num_predict"),
        (option(json!({"seed": "x"})), "options.seed"),
        (option(json!({"stop": [1]})), "options.stop"),
        (option(json!({"stop": [""]})), "options.stop"),
        (option(json!({"num_ctx": true})), "options.num_ctx"),
        (option(json!({"use_mmap": 1})), "options.use_mmap"),
        (option(json!({"mirostat": 1})), "options.mirostat"),
        (option(json!({"typical_p": 0.5})), "options.typical_p"),
        (option(json!({"repeat_penalty": 0})), "repeat_penalty"),
        (text(json!({"options": [1]})), "options"),
        (text(json!({"stream": "yes"})), "stream"),
        (text(json!({"keep_alive": "forever"})), "keep_alive"),
        (text(json!({"keep_alive": true})), "keep_alive"),
        (text(json!({"images": ["aGk="]})), "images"),
        (text(json!({"suffix": "end"})), "suffix"),
        (text(json!({"template": "{{ .Prompt }}"})), "template"),
        (text(json!({"think": true})), "think"),
        (text(json!({"think": "high"})), "think"),
        (text(json!({"raw": true, "system": "x"})), "raw"),
        (text(json!({"raw": true, "context": [1]})), "raw"),
        (text(json!({"context": "x"})), "context"),
        (text(json!({"context": [99999]})), "context"),
        (text(json!({"context": [1, "x"]})), "context"),
        (text(json!({"prompt": ["hi"]})), "prompt"),
        (text(json!({"prompt": "The cat sat on the mat. ".repeat(60)})), "prompt"),
        (text(json!({"logprobs": true, "top_logprobs": 21})), "top_logprobs"),
        (chat(json!({"messages": "hi"})), "messages"),
        (chat(json!({"messages": [1]})), "messages[0]"),
        (chat(json!({"tools": [{"type": "function", "function": {"name": "f"}}]})), "tools"),
        (chat(json!({"think": true})), "think"),
        (chat(json!({"messages": vec![json!({"role": "user", "content": "x"}); 4097]})), "messages"),
        (message(json!({"role": "king", "content": "x"})), "messages[1].role"),
        (message(json!({"role": "tool", "content": "x"})), "messages[1].role"),
        (message(json!({"role": "user", "content": ["x"]})), "messages[1].content"),
        (message(json!({"role": "user", "content": "x", "images": ["aGk="]})), "messages[1].images"),
        (message(json!({"role": "assistant", "tool_calls": [{"function": {"name": "f"}}]})), "messages[1].tool_calls"),
        (("/api/embed", json!({"input": [1]})), "input"),
        (("/api/embed", json!({"input": ["a", ""]})), "input"),
        (("/api/embed", json!({"input": "a", "dimensions": 3})), "dimensions"),
        (("/api/embed", json!({"input": "a", "options": {"num_ctx": "x"}})), "options.num_ctx"),
        (("/api/embeddings", json!({"prompt": 1})), "prompt"),
    ];
    let mut wrong = Vec::new();
    for ((path, request), field) in &cases {
        let reply = server.client.post(path, request).unwrap();
        if reply.status != 400 || !error(&reply).contains(field) {
            wrong.push(format!("{field}: {request} gave {} {}", reply.status, reply.text()));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    #[cfg(feature = "constrain")]
    for format in [json!("xml"), json!(3), json!({"type": "strange"}), json!(["json"])] {
        let reply = server.client.post(TEXT, &json!({"prompt": "hi", "format": format})).unwrap();
        assert!(reply.status == 400 && error(&reply).contains("format"), "{}", reply.text());
    }
    // Unknown ones, those of loading, and those that ask for nothing.
    let harmless = json!({"prompt": "hi", "colour": "red", "suffix": "", "template": "", "images": [], "think": false,
        "context": [], "keep_alive": -1, "format": null, "options": {"num_predict": 2, "num_ctx": 4096, "num_gpu": 1,
        "num_thread": 8.0, "use_mmap": true, "main_gpu": null, "mirostat": 0, "mirostat_tau": 5.0, "typical_p": 1.0,
        "top_k": -1, "repeat_last_n": -1, "repeat_penalty": 1.1, "seed": -1, "shape": "round"}});
    assert_eq!(whole(&server, TEXT, &harmless)["done"], true);
    // Without a limit, or with one beyond the context, a text may take the rest of it.
    let theirs = json!({"prompt": "hi", "max_tokens": 200, "temperature": 0});
    let theirs = server.client.post("/v1/completions", &theirs).unwrap().ok();
    for limit in [-1, -2, 0, 1_000_000] {
        let request = json!({"prompt": "hi", "raw": true, "options": {"num_predict": limit, "temperature": 0}});
        assert_eq!(said(&whole(&server, TEXT, &request)), texts(&theirs)[0]);
    }
}

#[test]
fn errors_have_their_form_and_status() {
    let server = Running::start(ttt(), |o| o.body_bytes = 20_000);
    let client = &server.client;
    let is = |reply: Reply, status: u16, words: &str| {
        assert_eq!(reply.status, status, "{}", reply.text());
        assert!(error(&reply).contains(words), "{}", reply.text());
    };
    for (path, rest) in
        [(CHAT, json!({"messages": []})), (TEXT, json!({})), ("/api/embed", json!({})), ("/api/show", json!({}))]
    {
        is(client.post(path, &with(json!({"model": "llama3"}), rest)).unwrap(), 404, "\"llama3\" not found");
    }
    is(client.post("/api/show", &json!({"name": "llama3"})).unwrap(), 404, "not found");
    is(client.get("/api/nowhere").unwrap(), 404, "POST /api/chat");
    is(client.get(CHAT).unwrap(), 405, "use POST");
    is(client.post("/api/tags", &json!({})).unwrap(), 405, "use GET");
    is(client.post(TEXT, &json!({"prompt": "x".repeat(30_000)})).unwrap(), 413, "20000");
    is(client.send(&client.request("POST", TEXT, b"{")).unwrap().whole().unwrap(), 400, "JSON");
    let form = format!("POST {TEXT} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nContent-Length: 2\r\n\r\n{{}}");
    is(client.send(form.as_bytes()).unwrap().whole().unwrap(), 415, "Content-Type");
    let stranger = "GET /api/tags HTTP/1.1\r\nHost: evil.example\r\nConnection: close\r\n\r\n";
    is(client.send(stranger.as_bytes()).unwrap().whole().unwrap(), 403, "--allow-host");
    for (method, path, way) in [
        ("POST", "/api/create", "bitnet convert"),
        ("POST", "/api/copy", "--name"),
        ("POST", "/api/push", "uploads no models"),
        ("DELETE", "/api/delete", "bitnet rm"),
        ("POST", "/api/blobs/sha256:00", "bitnet serve -m"),
        ("POST", "/api/pull", "bitnet pull"),
    ] {
        let body = if method == "POST" { json!({"model": "llama3"}).to_string() } else { String::new() };
        is(client.send(&client.request(method, path, body.as_bytes())).unwrap().whole().unwrap(), 501, way);
    }
    // The model that is here need not be downloaded.
    let here = client.post("/api/pull", &json!({"model": "tiny-stories-ttt:latest"})).unwrap();
    assert_eq!((here.status, here.text()), (200, "{\"status\":\"success\"}\n"));
    // Other paths keep their form.
    assert!(client.get("/v1/nowhere").unwrap().json()["error"]["message"].is_string());

    let locked = Running::start(ttt(), |o| o.api_key = Some(ApiKey::new("sesame")));
    let mut client = locked.client.clone();
    is(client.get("/api/tags").unwrap(), 401, "API key");
    is(client.post(CHAT, &json!({})).unwrap(), 401, "API key");
    assert_eq!(client.get("/").unwrap().status, 200);
    client.key = Some("sesame".into());
    client.get("/api/tags").unwrap().ok();

    // Without a template, a prompt is a text that goes on.
    let plain = Running::start(Model::tiny().unwrap(), |_| {});
    let options = json!({"temperature": 0, "num_predict": 8});
    let raw = whole(&plain, TEXT, &json!({"prompt": "Once", "raw": true, "options": options}));
    assert_eq!(said(&whole(&plain, TEXT, &json!({"prompt": "Once", "options": options}))), said(&raw));
    let talk = json!({"messages": [{"role": "user", "content": "hi"}]});
    is(plain.client.post(CHAT, &talk).unwrap(), 400, "no chat template");
    is(plain.client.post(TEXT, &json!({"prompt": "x", "system": "y"})).unwrap(), 400, "no chat template");
}

#[test]
fn the_model_is_described() {
    let model = attention();
    let server = Running::start(model.clone(), |_| {});
    let client = &server.client;
    let tags = client.get("/api/tags").unwrap().ok();
    let entry = &tags["models"][0];
    assert_eq!((&entry["name"], &entry["model"]), (&json!("tinystories-5m:latest"), &json!("tinystories-5m:latest")));
    assert_eq!(entry["size"], model.info().file_bytes);
    let digest = entry["digest"].as_str().unwrap();
    assert!(digest.len() == 64 && digest.bytes().all(|b| b.is_ascii_hexdigit()));
    assert_eq!(entry["details"]["quantization_level"], model.info().ternary_format);
    assert_eq!(entry["details"]["format"], "gguf");
    assert!(entry["modified_at"].as_str().unwrap().starts_with("20"));
    let ps = client.get("/api/ps").unwrap().ok();
    let running = &ps["models"][0];
    assert_eq!((&running["digest"], &running["context_length"]), (&entry["digest"], &json!(200)));
    assert!(running["size"].as_u64().unwrap() > 0 && running["expires_at"].as_str().unwrap().starts_with("23"));
    for request in [json!({"model": "tinystories-5m"}), json!({"name": "tinystories-5m:latest", "verbose": true})] {
        let shown = client.post("/api/show", &request).unwrap().ok();
        assert_eq!(shown["capabilities"], json!(["completion"]));
        assert_eq!(shown["template"], model.chat_template().unwrap().source());
        let architecture = &model.info().architecture;
        assert_eq!(shown["model_info"]["general.architecture"], *architecture);
        assert_eq!(shown["model_info"]["general.parameter_count"], model.config().parameters());
        assert_eq!(shown["model_info"][format!("{architecture}.context_length")], 200);
        assert!(shown["parameters"].as_str().unwrap().contains("temperature"));
    }
    let version = client.get("/api/version").unwrap().ok()["version"].as_str().unwrap().to_owned();
    assert_eq!(version.split('.').filter(|part| part.parse::<u32>().is_ok()).count(), 3);
    let head = client.send(&client.request("HEAD", "/", b"")).unwrap();
    assert_eq!(head.status, 200);
    // Without a text there is nothing to do but to load the model.
    for (path, field) in [(CHAT, "message"), (TEXT, "response")] {
        let loaded = client.post(path, &json!({"model": "tinystories-5m", "keep_alive": 0})).unwrap().ok();
        assert_eq!((&loaded["done"], &loaded["done_reason"]), (&json!(true), &json!("load")));
        assert!(said(&loaded).is_empty() && !loaded[field].is_null());
    }
    // Its name is also known to the other interface.
    client
        .post("/v1/completions", &json!({"model": "tinystories-5m:latest", "prompt": "x", "max_tokens": 1}))
        .unwrap()
        .ok();
}

#[test]
fn vectors_are_those_of_the_other_interface() {
    let server = Running::start(attention(), |_| {});
    let texts = ["a big dog", "they went home"];
    let theirs = server.client.post("/v1/embeddings", &json!({"input": texts})).unwrap().ok();
    let answer = server.client.post("/api/embed", &json!({"model": "tinystories-5m", "input": texts})).unwrap().ok();
    assert_eq!(answer["embeddings"].as_array().unwrap().len(), 2);
    for (i, text) in texts.iter().enumerate() {
        assert_eq!(answer["embeddings"][i], theirs["data"][i]["embedding"]);
        let old = server.client.post("/api/embeddings", &json!({"prompt": text})).unwrap().ok();
        assert_eq!(old["embedding"], theirs["data"][i]["embedding"]);
    }
    assert_eq!(answer["prompt_eval_count"], theirs["usage"]["prompt_tokens"]);
    assert!(answer["total_duration"].as_u64().unwrap() > 0 && answer["model"] == "tinystories-5m");
    let one = server.client.post("/api/embed", &json!({"input": texts[0]})).unwrap().ok();
    assert_eq!(one["embeddings"], json!([theirs["data"][0]["embedding"]]));
    // Nothing gives nothing.
    for input in [json!(""), json!([]), Value::Null] {
        assert_eq!(server.client.post("/api/embed", &json!({"input": input})).unwrap().ok()["embeddings"], json!([]));
    }
    assert_eq!(server.client.post("/api/embeddings", &json!({})).unwrap().ok()["embedding"], json!([]));
    // A long text is cut off at the end, unless that is forbidden.
    let long = "The cat sat on the mat. ".repeat(60);
    let cut = server.client.post("/api/embed", &json!({"input": long})).unwrap().ok();
    assert_eq!(cut["prompt_eval_count"], 200);
    let mut ids = attention().encode_for_embedding(&long).unwrap();
    ids.truncate(200);
    let theirs = server.client.post("/v1/embeddings", &json!({"input": ids})).unwrap().ok();
    assert_eq!(cut["embeddings"][0], theirs["data"][0]["embedding"]);
    let refused = server.client.post("/api/embed", &json!({"input": long, "truncate": false})).unwrap();
    assert!(refused.status == 400 && error(&refused).contains("at most 200"), "{}", refused.text());
}

#[test]
fn long_conversations_lose_their_oldest_messages() {
    let model = attention();
    let server = Running::start(model.clone(), |_| {});
    let mut messages = vec![json!({"role": "system", "content": "Be kind."})];
    for i in 0..30 {
        messages.push(json!({"role": "user", "content": format!("Tell me of number {i}.")}));
        messages.push(json!({"role": "assistant", "content": "It is a nice number."}));
    }
    messages.push(json!({"role": "user", "content": "And the last one?"}));
    let request = json!({"messages": messages, "options": {"temperature": 0, "num_predict": 4}});
    let answer = whole(&server, CHAT, &request);
    // As many of the newest as there is room for, after the instruction.
    let tokens = |from: usize| {
        let kept = messages[..1].iter().chain(&messages[from..]);
        let kept: Vec<Message> = kept.map(|m| serde_json::from_value(m.clone()).unwrap()).collect();
        model.encode_chat(&kept).unwrap().len()
    };
    let from = (1..messages.len()).find(|from| tokens(*from) < 200).unwrap();
    assert!(from > 10);
    assert_eq!(answer["prompt_eval_count"], tokens(from));
    let refused = server.client.post(CHAT, &with(request, json!({"truncate": false}))).unwrap();
    assert!(refused.status == 400 && error(&refused).contains("messages"), "{}", refused.text());
    // Where the last message alone is too long, nothing helps.
    let long = json!({"messages": [messages[0], {"role": "user", "content": "The cat sat on the mat. ".repeat(60)}]});
    assert_eq!(server.client.post(CHAT, &long).unwrap().status, 400);
}

/// Writes everything about tools; a whole answer can be a call.
#[cfg(feature = "constrain")]
const TEMPLATE: &str = "{% if tools %}{% for tool in tools %}{{ tool.function.name }}: <|python_tag|> {% endfor %}{% endif %}\
    {% for m in messages %}{{ m.role }} {{ m.content }}{% for call in m.tool_calls or [] %}{{ call.function.name }}\
    {{ call.function.arguments.city.upper() }}{% endfor %}{{ m.name or '' }}{% endfor %}";

#[cfg(feature = "constrain")]
#[test]
fn calls_of_tools_are_told() {
    let model = Model::builder().threads(1).chat_template(TEMPLATE).load_bytes(bitnet::TINY_MODEL).unwrap();
    let server = Running::start(model, |_| {});
    let tools = json!([{"type": "function", "function": {"name": "weather", "description": "Tells it.",
        "parameters": {"type": "object", "properties": {"city": {"type": "string"}}}}}]);
    let object = |properties: Value| {
        let required: Vec<&String> = properties.as_object().unwrap().keys().collect();
        json!({"type": "object", "properties": properties, "required": required, "additionalProperties": false})
    };
    let city = object(json!({"city": {"enum": ["Bern", "Rome"]}}));
    let call = object(json!({"name": {"const": "weather"}, "arguments": city}));
    let ask = |format: &Value| json!({"messages": [{"role": "user", "content": "Warm?"}], "tools": tools, "format": format, "options": {"seed": 1}});
    let check = |message: &Value| {
        let call = &message["tool_calls"][0];
        assert_eq!((&message["content"], &call["function"]["name"]), (&json!(""), &json!("weather")));
        assert!(["Bern", "Rome"].contains(&call["function"]["arguments"]["city"].as_str().unwrap()));
        assert!(call["id"].as_str().unwrap().starts_with("call_"));
    };
    let answer = whole(&server, CHAT, &ask(&call));
    check(&answer["message"]);
    assert_eq!(answer["done_reason"], "stop");
    let lines = lines(&server, CHAT, &ask(&call));
    assert_eq!(lines.len(), 2, "{lines:?}");
    check(&lines[0]["message"]);
    assert_eq!((&lines[1]["done"], lines[1]["message"].get("tool_calls")), (&json!(true), None));
    // An answer that is not a call is text, also if it looks like one for a while.
    let text = object(json!({"name": {"const": 1}}));
    let answer = whole(&server, CHAT, &ask(&text));
    assert!(said(&answer).contains("name") && answer["message"].get("tool_calls").is_none());
    same_in_lines(&server, CHAT, &ask(&text), &answer);

    let shown = server.client.post("/api/show", &json!({})).unwrap().ok();
    assert_eq!(shown["capabilities"], json!(["completion", "tools"]));
    let count = |messages: Value, tools: &Value| {
        let request = json!({"messages": messages, "tools": tools, "options": {"num_predict": 1}});
        whole(&server, CHAT, &request)["prompt_eval_count"].as_u64().unwrap()
    };
    let warm = json!({"role": "user", "content": "Warm?"});
    let (with, without) = (count(json!([warm]), &tools), count(json!([warm]), &json!([])));
    assert!(with > without);
    let call = json!({"function": {"name": "weather", "arguments": {"city": "Bern"}}});
    let talk = json!([warm, {"role": "assistant", "content": "", "tool_calls": [call]},
        {"role": "tool", "content": "12 degrees", "tool_name": "weather"}]);
    assert!(count(talk, &tools) > with);
    for (wrong, field) in [
        (json!({"function": {"name": "weather", "arguments": "{}"}}), "messages[1].tool_calls[0].function.arguments"),
        (json!({"function": {}}), "messages[1].tool_calls[0].function.name"),
        (json!({}), "messages[1].tool_calls[0].function"),
    ] {
        let talk = json!([warm, {"role": "assistant", "tool_calls": [wrong]}]);
        let reply = server.client.post(CHAT, &json!({"messages": talk, "tools": tools})).unwrap();
        assert!(reply.status == 400 && error(&reply).contains(field), "{}", reply.text());
    }
}

#[test]
fn the_same_limits_hold() {
    let server = Running::start(ttt(), |o| {
        o.max_sessions = 1;
        o.short_sessions = 0;
        o.queue = 2;
        o.max_tokens = Some(10_000_000);
        o.grace = Duration::ZERO;
    });
    let client = &server.client;
    let send = |path: &str, request: &Value| {
        let mut connection = client.connect().unwrap();
        connection.write_all(&client.request("POST", path, request.to_string().as_bytes())).unwrap();
        connection
    };
    // No end token: it never ends by itself.
    let endless =
        json!({"prompt": "Once", "max_tokens": 10_000_000, "stream": true, "logit_bias": {"0": -100, "1": -100}});
    let first = send("/v1/completions", &endless);
    server.wait_for("bitnet_active_sequences", 1.0);
    let ask = json!({"prompt": "Once", "raw": true, "options": {"num_predict": 3}});
    let waiting = [send(TEXT, &ask), send(TEXT, &with(ask.clone(), json!({"stream": false})))];
    server.wait_for("bitnet_queue_length", 2.0);
    let refused = client.post(TEXT, &ask).unwrap();
    assert_eq!((refused.status, refused.header("retry-after")), (429, Some("1")));
    assert!(error(&refused).contains("queue is full"));
    // Clients that are gone free their places.
    drop(waiting);
    server.wait_for("bitnet_queue_length", 0.0);
    // A stream that is broken off ends with an error.
    let stream = send(TEXT, &ask);
    server.wait_for("bitnet_queue_length", 1.0);
    server.handle.shut_down();
    let reply = Stream::read_head(stream).unwrap().whole().unwrap();
    let last: Value = serde_json::from_str(reply.text().lines().last().unwrap()).unwrap();
    assert!(last["error"].as_str().unwrap().contains("shut down"), "{last}");
    drop(first);
}
