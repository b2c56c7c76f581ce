//! Clients that go away, too many of them, slow ones, and a server that ends.

mod common;

use std::io::{Read, Write};
use std::time::{Duration, Instant};

use bitnet::{GenerateOptions, Model};
use bitnet_server::{Options, Server, ServerError};
use common::{Running, attention, streamed, ttt};
use serde_json::{Value, json};

const TEXT: &str = "/v1/completions";

/// A text that continues for thousands of tokens: it cannot end by itself.
fn endless() -> Value {
    json!({"prompt": "Once upon a time", "max_tokens": 4000, "stream": true, "logit_bias": {"0": -100}})
}

#[test]
fn a_client_that_goes_away_frees_its_place() {
    let server = Running::start(ttt(), |o| o.max_sessions = 2);
    // While it reads a stream.
    let mut stream = server.client.stream(TEXT, &endless()).unwrap();
    assert!(stream.event().unwrap().is_some());
    assert_eq!(server.metric("bitnet_active_sequences"), 1.0);
    drop(stream);
    server.wait_for("bitnet_active_sequences", 0.0);
    assert_eq!(server.metric("bitnet_cancelled_total"), 1.0);
    // While it waits for a whole answer.
    let mut request = endless();
    request["stream"] = false.into();
    request["n"] = 2.into();
    let mut connection = server.client.connect().unwrap();
    connection.write_all(&server.client.request("POST", TEXT, request.to_string().as_bytes())).unwrap();
    server.wait_for("bitnet_active_sequences", 2.0);
    drop(connection);
    server.wait_for("bitnet_active_sequences", 0.0);
    assert_eq!(server.metric("bitnet_cancelled_total"), 3.0);
    // While it waits for its turn.
    let busy: Vec<_> = (0..2).map(|_| server.client.stream(TEXT, &endless()).unwrap()).collect();
    server.wait_for("bitnet_active_sequences", 2.0);
    let waiting = server.client.stream(TEXT, &endless()).unwrap();
    server.wait_for("bitnet_queue_length", 1.0);
    drop(waiting);
    drop(busy);
    server.wait_for("bitnet_active_sequences", 0.0);
    server.wait_for("bitnet_queue_length", 0.0);
    // None of them has ended.
    assert!(server.metric("bitnet_generated_tokens_total") < 5.0 * 4000.0);
}

#[test]
fn what_finds_no_place_is_told_so_and_those_before_go_on() {
    let server = Running::start(ttt(), |o| {
        o.max_sessions = 1;
        o.short_sessions = 0;
        o.queue = 1;
    });
    let mut first = server.client.stream(TEXT, &endless()).unwrap();
    first.event().unwrap();
    let mut last = endless();
    last["max_tokens"] = 5.into();
    last["seed"] = 3.into();
    let second = server.client.stream(TEXT, &last).unwrap();
    server.wait_for("bitnet_queue_length", 1.0);
    for path in [TEXT, "/v1/embeddings"] {
        let body = if path == TEXT { endless() } else { json!({"input": "x"}) };
        let reply = server.client.post(path, &body).unwrap();
        assert_eq!((reply.status, reply.header("retry-after")), (429, Some("1")));
        let error = &reply.json()["error"];
        assert_eq!((&error["type"], &error["code"]), (&json!("rate_limit_error"), &json!("rate_limit_exceeded")));
    }
    drop(first);
    let text = streamed(&second.events().unwrap(), 1).remove(0);
    let model = ttt();
    let mut options = GenerateOptions::default().sampling(model.default_sampling()).seed(3).max_tokens(5);
    options.logit_bias = vec![(0, -100.0)];
    let expected = model.session().generate("Once upon a time", options).unwrap().finish().unwrap();
    assert_eq!(text, (expected.text.unwrap(), "length".into()));
}

#[test]
fn a_long_prompt_does_not_block_others() {
    let model = ttt();
    let server = Running::start(model, |_| {});
    let mut stream = server.client.stream(TEXT, &endless()).unwrap();
    stream.event().unwrap();
    let long = json!({"prompt": "The cat sat on the mat and the dog. ".repeat(400), "max_tokens": 1});
    let before = server.metric("bitnet_generated_tokens_total");
    let answer = server.client.post(TEXT, &long).unwrap().ok();
    assert!(answer["usage"]["prompt_tokens"].as_u64().unwrap() > 3000);
    // The prompt took some fifty passes, and in each of them the other text got a token.
    assert!(server.metric("bitnet_generated_tokens_total") - before > 40.0);
}

#[test]
fn what_was_said_before_is_not_read_again() {
    let model = attention();
    let server = Running::start(model, |_| {});
    let story = "Once upon a time there was a little dog. He liked to play in the park with his friends.";
    let ask = |prompt: &str| {
        let request = json!({"prompt": prompt, "max_tokens": 8, "temperature": 0});
        server.client.post(TEXT, &request).unwrap().ok()
    };
    let cached = |answer: &Value| answer["usage"]["prompt_tokens_details"]["cached_tokens"].as_u64().unwrap();
    let first = ask(story);
    assert_eq!(cached(&first), 0);
    let again = ask(story);
    assert_eq!(cached(&again) + 1, again["usage"]["prompt_tokens"].as_u64().unwrap());
    assert_eq!(again["choices"], first["choices"]);
    let longer = ask(&format!("{story}{} Then he", first["choices"][0]["text"].as_str().unwrap()));
    assert!(cached(&longer) > again["usage"]["prompt_tokens"].as_u64().unwrap());
    assert_eq!(server.metric("bitnet_cached_prompt_tokens_total") as u64, cached(&again) + cached(&longer));
    // Times are recorded for every text and for every token after its first.
    let generated = server.metric("bitnet_generated_tokens_total");
    assert_eq!(server.metric("bitnet_time_to_first_token_seconds_count"), 3.0);
    assert_eq!(server.metric("bitnet_time_per_output_token_seconds_count"), generated - 3.0);
    let [queued, first] = ["queue", "time_to_first_token"].map(|n| server.metric(&format!("bitnet_{n}_seconds_sum")));
    assert!(queued > 0.0 && first > queued, "{queued} {first}");
}

#[test]
fn slow_clients_are_given_up() {
    let server = Running::start(ttt(), |o| {
        o.read_timeout = Duration::from_millis(300);
        o.head_timeout = Duration::from_millis(300);
    });
    let began = Instant::now();
    // A head that does not end.
    let mut connection = server.client.connect().unwrap();
    connection.write_all(b"POST /v1/completions HTTP/1.1\r\nHost: localhost\r\n").unwrap();
    let mut rest = Vec::new();
    let _ = connection.read_to_end(&mut rest);
    assert!(rest.is_empty() || rest.starts_with(b"HTTP/1.1 408"), "{:?}", String::from_utf8_lossy(&rest));
    // A body that does not come.
    let head = "POST /v1/completions HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: 99\r\n\r\n{\"pro";
    let reply = server.client.send(head.as_bytes()).unwrap().whole().unwrap();
    assert_eq!((reply.status, reply.header("connection")), (408, Some("close")));
    assert!(began.elapsed() < Duration::from_secs(10));
}

#[test]
fn connections_beyond_the_limit_wait() {
    let server = Running::start(ttt(), |o| o.max_connections = 2);
    let mut held: Vec<_> = (0..2).map(|_| server.client.stream(TEXT, &endless()).unwrap()).collect();
    held[0].event().unwrap();
    let mut third = server.client.connect().unwrap();
    third.write_all(&server.client.request("GET", "/health", b"")).unwrap();
    third.set_read_timeout(Some(Duration::from_millis(200))).unwrap();
    assert!(third.read(&mut [0; 1]).is_err(), "it was served");
    held.pop();
    third.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    let mut answer = String::new();
    third.read_to_string(&mut answer).unwrap();
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
}

#[test]
fn a_server_that_ends_lets_texts_end() {
    let server = Running::start(ttt(), |_| {});
    let client = server.client.clone();
    let mut request = endless();
    request["max_tokens"] = 300.into();
    let mut stream = client.stream(TEXT, &request).unwrap();
    stream.event().unwrap();
    let reader = std::thread::spawn(move || stream.events().unwrap());
    server.end().unwrap();
    let events = reader.join().unwrap();
    assert_eq!(events.last().unwrap()["choices"][0]["finish_reason"], "length");
    assert!(client.get("/health").is_err(), "it still listens");
}

#[test]
fn what_does_not_end_in_time_is_told_so() {
    let server = Running::start(ttt(), |o| {
        o.grace = Duration::ZERO;
        o.max_sessions = 2;
    });
    let client = server.client.clone();
    let mut stream = client.stream(TEXT, &endless()).unwrap();
    stream.event().unwrap();
    let mut request = endless();
    request["stream"] = false.into();
    let whole = {
        let client = client.clone();
        std::thread::spawn(move || client.post(TEXT, &request).unwrap())
    };
    server.wait_for("bitnet_active_sequences", 2.0);
    let reader = std::thread::spawn(move || {
        let mut last = String::new();
        while let Some(event) = stream.event().unwrap() {
            last = event;
        }
        last
    });
    server.end().unwrap();
    let last: Value = serde_json::from_str(&reader.join().unwrap()).unwrap();
    assert_eq!(last["error"]["code"], "server_shutdown");
    let reply = whole.join().unwrap();
    assert_eq!((reply.status, &reply.json()["error"]["code"]), (503, &json!("server_shutdown")));
}

#[test]
fn where_it_cannot_run_it_says_why() {
    let bind = |change: &dyn Fn(&mut Options)| {
        let mut options = Options::default();
        options.address.set_port(0);
        change(&mut options);
        Server::bind(ttt(), options).map(|server| server.address())
    };
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap();
    let error = bind(&|o| o.address = address).unwrap_err();
    assert!(matches!(error, ServerError::PortInUse { .. }) && error.to_string().contains("another port"), "{error}");
    let open = |o: &mut Options| o.address = ([0, 0, 0, 0], 0).into();
    let error = bind(&open).unwrap_err();
    assert!(matches!(error, ServerError::Open { .. }) && error.to_string().contains("API key"), "{error}");
    bind(&|o| {
        open(o);
        o.without_key = true;
    })
    .unwrap();
    bind(&|o| {
        open(o);
        o.api_key = Some(bitnet_server::ApiKey::new("x"));
    })
    .unwrap();
    let empty = bind(&|o| o.api_key = Some(bitnet_server::ApiKey::new(" ")));
    assert!(matches!(empty, Err(ServerError::EmptyKey)));
    let accent = bind(&|o| o.api_key = Some(bitnet_server::ApiKey::new("sésame"))).unwrap_err();
    assert!(matches!(accent, ServerError::KeyCharacter { at: 2 }) && accent.to_string().contains("ASCII"), "{accent}");
    let name = bind(&|o| o.allow_hosts = vec!["http://box".into()]).unwrap_err();
    assert!(matches!(name, ServerError::HostName { .. }) && name.to_string().contains("http://box"), "{name}");
    let none = bind(&|o| o.max_sessions = 0);
    assert!(matches!(none, Err(ServerError::Limit { option: "max_sessions" })));
}

#[test]
fn a_model_without_a_tokenizer_is_refused() {
    use loader::synthetic::Spec;
    let dir = tempfile::tempdir().unwrap();
    let json = dir.path().join("shape.json");
    let shape = r#"{"vocab_size": 200, "hidden_size": 128, "intermediate_size": 256, "num_hidden_layers": 1,
        "num_attention_heads": 2, "max_position_embeddings": 100}"#;
    std::fs::write(&json, shape).unwrap();
    let (spec, path) = (Spec::from_config_file(&json).unwrap(), dir.path().join("model.gguf"));
    assert!(spec.write(&path, std::num::NonZeroUsize::MIN, &mut |_| std::ops::ControlFlow::Continue(())).unwrap());
    let model = Model::load(&path).unwrap();
    let mut options = Options::default();
    options.address.set_port(0);
    assert!(matches!(Server::bind(model, options), Err(ServerError::NoTokenizer)));
}
