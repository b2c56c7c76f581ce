//! Clients cannot keep others waiting, block the server, or occupy its places silently.

mod common;

use std::io::{Read, Write};
use std::net::Shutdown;
use std::time::{Duration, Instant};

use bitnet_server::ApiKey;
use common::{Running, attention, ttt};
use serde_json::{Value, json};
use test_support::http::Stream;

const TEXT: &str = "/v1/completions";
const VECTORS: &str = "/v1/embeddings";

/// A text that cannot end by itself.
fn endless(tokens: usize) -> Value {
    json!({"prompt": "Once upon a time", "max_tokens": tokens, "logit_bias": {"0": -100}})
}

/// A text of very many tokens.
fn long_text() -> String {
    "The cat sat on the mat and the dog. ".repeat(6000)
}

/// A schema that takes seconds to build, if the library lets it.
fn costly() -> Value {
    let schema = json!({"type": "array", "items": {"type": "integer", "multipleOf": 999_983}});
    json!({"prompt": "x", "max_tokens": 5,
        "response_format": {"type": "json_schema", "json_schema": {"name": "x", "schema": schema}}})
}

#[test]
fn constraints_keep_no_plain_request_waiting() {
    let server = Running::start(ttt(), |o| {
        o.constraint_threads = 1;
        o.constraint_queue = 4;
        o.constraint_timeout = Duration::from_secs(2);
    });
    let costly: Vec<_> = (0..16)
        .map(|_| {
            let client = server.client.clone();
            std::thread::spawn(move || client.post(TEXT, &costly()).unwrap())
        })
        .collect();
    // While they are being built, or after they were rejected.
    for _ in 0..5 {
        server.client.post(TEXT, &json!({"prompt": "x", "max_tokens": 2})).unwrap().ok();
        server.client.post(VECTORS, &json!({"input": "x"})).unwrap().ok();
        server.client.get("/v1/models").unwrap().ok();
    }
    let mut busy = 0.0;
    for reply in costly.into_iter().map(|thread| thread.join().unwrap()) {
        let error = &reply.json()["error"];
        match reply.status {
            400 => assert_eq!(error["param"], "response_format", "{error}"),
            429 => {
                assert_eq!((reply.header("retry-after"), &error["code"]), (Some("1"), &json!("rate_limit_exceeded")));
                busy += 1.0;
            }
            other => panic!("{other}: {error}"),
        }
    }
    let failed = server.metric("bitnet_constraint_failed_total");
    assert_eq!((server.metric("bitnet_constraint_refused_total"), failed + busy), (busy, 16.0));
    assert_eq!(server.metric("bitnet_constraint_queue_length"), 0.0);
}

#[test]
fn a_plain_request_passes_long_prompts_and_long_answers() {
    let server = Running::start(ttt(), |o| {
        o.max_sessions = 2;
        o.short_sessions = 1;
        o.max_tokens = Some(10_000_000);
    });
    let send = |body: &Value| {
        let mut connection = server.client.connect().unwrap();
        connection.write_all(&server.client.request("POST", TEXT, body.to_string().as_bytes())).unwrap();
        connection
    };
    let plain = json!({"prompt": "Once upon a time", "max_tokens": 4});
    // Only one of the long prompts is read, though there are two places.
    let long: Vec<_> = (0..3).map(|_| send(&json!({"prompt": long_text(), "max_tokens": 1}))).collect();
    server.wait_for("bitnet_active_sequences", 1.0);
    server.wait_for("bitnet_queue_length", 2.0);
    server.client.post(TEXT, &plain).unwrap().ok();
    // A long answer takes the other place, and short texts still have one of their own.
    let mut answers: Vec<_> = (0..2).map(|_| send(&endless(10_000_000))).collect();
    server.wait_for("bitnet_active_sequences", 2.0);
    server.wait_for("bitnet_queue_length", 3.0);
    server.client.post(TEXT, &plain).unwrap().ok();
    assert_eq!((server.metric("bitnet_active_sequences"), server.metric("bitnet_queue_length")), (2.0, 3.0));
    // One that is not read any more leaves its turn to the next.
    let mut long = long;
    long.clear();
    server.wait_for("bitnet_active_sequences", 2.0);
    server.wait_for("bitnet_queue_length", 0.0);
    answers.clear();
    server.wait_for("bitnet_active_sequences", 0.0);
}

#[test]
fn constraints_share_a_memory_that_is_bounded() {
    // Its automata grow with the text.
    let request = |least: usize| json!({"prompt": "x", "regex": format!("([a-m]|[n-z ]){{{least},3000}}"), "max_tokens": 2900, "stream": true});
    let bytes = "bitnet_constraint_bytes";
    let server = Running::start(ttt(), |_| {});
    let mut stream = server.client.stream(TEXT, &request(10)).unwrap();
    assert!(stream.event().unwrap().is_some());
    let one = server.metric(bytes) as usize;
    assert!(one > 1000, "{one}");
    drop(stream);
    server.wait_for(bytes, 0.0);
    // Half of the memory is for those that begin: room for one, not for two.
    let server = Running::start(ttt(), |o| o.constraint_bytes = 6 * one);
    let streams: Vec<_> = (0..8).map(|i| server.client.stream(TEXT, &request(i)).unwrap()).collect();
    let refused: Vec<_> = streams.iter().filter(|s| s.status == 429).collect();
    assert!(!refused.is_empty() && refused.len() < 8, "{}", refused.len());
    // Requests without a constraint are not affected.
    server.client.post(TEXT, &json!({"prompt": "x", "max_tokens": 2})).unwrap().ok();
    drop(streams);
    server.wait_for(bytes, 0.0);
    let mut whole = request(1);
    whole["stream"] = false.into();
    // Less than any constraint takes when it begins; `one` has grown with the text that was written by then.
    let tight = Running::start(ttt(), |o| o.constraint_bytes = 1000);
    let reply = tight.client.post(TEXT, &whole).unwrap();
    assert_eq!(
        (reply.status, &reply.json()["error"]["code"]),
        (400, &json!("constraint_too_large")),
        "{}",
        reply.text()
    );
    assert_eq!(&reply.json()["error"]["param"], "regex");
    tight.wait_for(bytes, 0.0);
}

#[test]
fn a_constraint_that_is_ready_in_time_is_counted_and_kept() {
    let server = Running::start(ttt(), |_| {});
    let request = json!({"prompt": "Is it big? ", "regex": "(yes|no), it is", "n": 3, "max_tokens": 30});
    for text in common::texts(&server.client.post(TEXT, &request).unwrap().ok()) {
        assert!(["yes, it is", "no, it is"].contains(&text.as_str()), "{text}");
    }
    assert_eq!(server.metric("bitnet_constraint_seconds_count"), 1.0);
    assert_eq!(server.metric("bitnet_constraint_failed_total"), 0.0);
    let wrong = json!({"prompt": "x", "regex": "("});
    assert_eq!(server.client.post(TEXT, &wrong).unwrap().status, 400);
    assert_eq!(server.metric("bitnet_constraint_failed_total"), 1.0);
}

#[test]
fn a_long_text_for_a_vector_lets_others_pass_and_ends_with_its_client() {
    let server = Running::start(ttt(), |o| o.max_embed_tokens = Some(1 << 20));
    let mut connection = server.client.connect().unwrap();
    let body = json!({"input": [long_text(), long_text()]}).to_string();
    connection.write_all(&server.client.request("POST", VECTORS, body.as_bytes())).unwrap();
    server.wait_for("bitnet_active_sequences", 1.0);
    // Texts and short vectors come in between.
    server.client.post(TEXT, &endless(20)).unwrap().ok();
    server.client.post(VECTORS, &json!({"input": ["a", "b"]})).unwrap().ok();
    assert_eq!(server.metric("bitnet_active_sequences"), 1.0, "the long one is still read");
    drop(connection);
    server.wait_for("bitnet_active_sequences", 0.0);
    assert_eq!(server.metric("bitnet_cancelled_total"), 1.0);
    // Each of the two has some 60,000 tokens.
    assert!(server.metric("bitnet_embedded_tokens_total") < 100_000.0);
}

#[test]
fn vectors_of_long_texts_are_those_of_the_library() {
    let model = ttt();
    let server = Running::start(model.clone(), |_| {});
    let texts = [long_text()[..20_000].to_owned(), "short".into(), "Once upon a time".into()];
    let expected = model.embed(&texts, bitnet::EmbedOptions::default()).unwrap();
    let answer = server.client.post(VECTORS, &json!({"input": texts})).unwrap().ok();
    for (entry, vector) in answer["data"].as_array().unwrap().iter().zip(&expected) {
        let numbers: Vec<f32> = serde_json::from_value(entry["embedding"].clone()).unwrap();
        assert_eq!(&numbers, vector);
    }
    // Many vectors come in pieces.
    let many = vec!["a cat"; 2000];
    let answer = server.client.post(VECTORS, &json!({"input": many})).unwrap().ok();
    let data = answer["data"].as_array().unwrap();
    assert_eq!((data.len(), &answer["usage"]["prompt_tokens"]), (2000, &answer["usage"]["total_tokens"]));
    assert!(data.iter().all(|entry| entry["embedding"] == data[0]["embedding"]));
}

#[test]
fn texts_for_vectors_have_a_limit_where_the_context_has_none() {
    let server = Running::start(ttt(), |_| {});
    let reply = server.client.post(VECTORS, &json!({"input": ["x", long_text()]})).unwrap();
    let error = &reply.json()["error"];
    assert_eq!((reply.status, &error["code"]), (400, &json!("context_length_exceeded")));
    let message = error["message"].as_str().unwrap();
    assert!(
        message.contains("text 1 has") && message.contains("at most 32768") && message.contains("--max-embed-tokens")
    );
    let server = Running::start(attention(), |o| o.max_embed_tokens = Some(20));
    let longer = json!({"input": "one two three four five six seven eight nine ten. ".repeat(3)});
    assert!(server.client.post(VECTORS, &longer).unwrap().text().contains("at most 20 are"));
}

#[test]
fn silent_connections_make_room() {
    let server = Running::start(ttt(), |o| {
        o.max_connections = 12;
        o.head_timeout = Duration::from_secs(3600);
        o.idle_timeout = Duration::from_secs(3600);
        o.api_key = Some(ApiKey::new("sesame"));
    });
    let mut client = server.client.clone();
    client.key = Some("sesame".into());
    // One that works is not closed, however old it is.
    let mut stream = client.stream(TEXT, &{
        let mut request = endless(3000);
        request["stream"] = true.into();
        request
    });
    let mut silent: Vec<_> = (0..40).map(|_| client.connect().unwrap()).collect();
    // Half a head, too.
    for connection in silent.iter_mut().skip(20) {
        let _ = connection.write_all(b"GET / HTTP/1.1\r\nHost: lo");
    }
    client.get("/v1/models").unwrap().ok();
    client.post(TEXT, &json!({"prompt": "x", "max_tokens": 2})).unwrap().ok();
    let metrics = client.get("/metrics").unwrap();
    let value = |name: &str| {
        let line = metrics.text().lines().find(|l| l.starts_with(&format!("{name} "))).unwrap().to_owned();
        line.rsplit(' ').next().unwrap().parse::<f64>().unwrap()
    };
    assert!(value("bitnet_connections") <= 12.0 && value("bitnet_connections_evicted_total") >= 28.0);
    // The oldest were closed.
    let mut byte = [0; 1];
    assert!(matches!(silent[0].read(&mut byte), Ok(0) | Err(_)));
    assert!(stream.as_mut().unwrap().event().unwrap().is_some());
}

#[test]
fn bodies_that_do_not_come_make_room() {
    let server = Running::start(ttt(), |o| {
        o.max_connections = 4;
        o.head_timeout = Duration::from_millis(300);
        o.read_timeout = Duration::from_secs(3600);
    });
    let head = "POST /v1/completions HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: 99\r\n\r\n{";
    let held: Vec<_> = (0..8)
        .map(|_| {
            let mut connection = server.client.connect().unwrap();
            let _ = connection.write_all(head.as_bytes());
            // Their heads have arrived before the next one asks for a place.
            std::thread::sleep(Duration::from_millis(100));
            connection
        })
        .collect();
    server.client.get("/health").unwrap().ok();
    assert!(server.metric("bitnet_connections_evicted_total") >= 5.0);
    drop(held);
}

#[test]
fn connections_without_a_request_end_in_time() {
    let server = Running::start(ttt(), |o| {
        o.head_timeout = Duration::from_millis(300);
        o.idle_timeout = Duration::from_millis(300);
        o.read_timeout = Duration::from_secs(3600);
    });
    let mut rest = Vec::new();
    // Silent from the begin, after half a head, after one byte at a time.
    server.client.connect().unwrap().read_to_end(&mut rest).unwrap();
    let mut half = server.client.connect().unwrap();
    half.write_all(b"GET /health HT").unwrap();
    half.read_to_end(&mut rest).unwrap();
    let mut slow = server.client.connect().unwrap();
    let mut written = 0;
    for byte in b"GET /health HTTP/1.1\r\nHost: localhost\r\nX-Slow: 0123456789\r\n\r\n" {
        written += usize::from(slow.write_all(&[*byte]).is_ok());
        std::thread::sleep(Duration::from_millis(20));
    }
    let _ = slow.read_to_end(&mut rest);
    assert!(rest.is_empty() && written > 5, "{:?} after {written}", String::from_utf8_lossy(&rest));
    // After an answer.
    let mut idle = server.client.connect().unwrap();
    idle.write_all(b"GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n").unwrap();
    let mut answer = String::new();
    idle.read_to_string(&mut answer).unwrap();
    assert!(answer.starts_with("HTTP/1.1 200") && answer.ends_with('}'), "{answer}");
}

#[test]
fn a_client_that_ends_its_side_gets_its_answer() {
    let server = Running::start(ttt(), |_| {});
    for stream in [false, true] {
        let mut request = endless(600);
        request["seed"] = 5.into();
        let expected = server.client.post(TEXT, &request).unwrap().ok();
        request["stream"] = stream.into();
        let mut connection = server.client.connect().unwrap();
        connection.write_all(&server.client.request("POST", TEXT, request.to_string().as_bytes())).unwrap();
        connection.shutdown(Shutdown::Write).unwrap();
        let answer = Stream::read_head(connection).unwrap();
        assert_eq!(answer.status, 200);
        let texts = match stream {
            false => common::texts(&answer.whole().unwrap().ok()),
            true => vec![common::streamed(&answer.events().unwrap(), 1).remove(0).0],
        };
        assert_eq!(texts, common::texts(&expected));
    }
    // Errors have their status, and pipelined requests their answers.
    let get = "GET /nowhere HTTP/1.1\r\nHost: localhost\r\n\r\nGET /health HTTP/1.1\r\nHost: localhost\r\n\r\n";
    let mut connection = server.client.connect().unwrap();
    connection.write_all(get.as_bytes()).unwrap();
    connection.shutdown(Shutdown::Write).unwrap();
    let mut answers = String::new();
    connection.read_to_string(&mut answers).unwrap();
    assert!(answers.starts_with("HTTP/1.1 404") && answers.contains("HTTP/1.1 200"), "{answers}");
    assert_eq!(server.metric("bitnet_cancelled_total"), 0.0);
}

#[test]
fn a_client_that_waits_and_is_gone_is_noticed() {
    let server = Running::start(ttt(), |o| {
        o.max_sessions = 1;
        o.max_tokens = Some(10_000_000);
    });
    let connect = |stream: bool| {
        let mut request = endless(10_000_000);
        request["stream"] = stream.into();
        let mut connection = server.client.connect().unwrap();
        connection.write_all(&server.client.request("POST", TEXT, request.to_string().as_bytes())).unwrap();
        connection
    };
    let first = connect(false);
    server.wait_for("bitnet_active_sequences", 1.0);
    // Two that wait for their turn, one whole, one as a stream.
    let waiting = [connect(false), connect(true)];
    server.wait_for("bitnet_queue_length", 2.0);
    // They end their side and are still there; then they are gone.
    waiting.iter().for_each(|c| c.shutdown(Shutdown::Write).unwrap());
    std::thread::sleep(Duration::from_millis(300));
    assert_eq!(server.metric("bitnet_queue_length"), 2.0);
    drop(waiting);
    drop(first);
    server.wait_for("bitnet_active_sequences", 0.0);
    server.wait_for("bitnet_queue_length", 0.0);
    assert_eq!(server.metric("bitnet_connections"), 1.0, "only the one that asks");
}

#[test]
fn heads_that_are_too_large_are_told_so() {
    let server = Running::start(ttt(), |_| {});
    let long = format!("GET /health HTTP/1.1\r\nHost: localhost\r\nX: {}\r\n\r\n", "x".repeat(1 << 20));
    let many = format!("GET /health HTTP/1.1\r\nHost: localhost\r\n{}\r\n", "X: 1\r\n".repeat(500));
    for head in [long, many] {
        let mut connection = server.client.connect().unwrap();
        // The server may close before all is sent.
        let _ = connection.write_all(head.as_bytes());
        assert_eq!(Stream::read_head(connection).unwrap().status, 431);
    }
    let broken = server.client.send(b"G\x00T / HTTP/1.1\r\n\r\n").unwrap();
    assert_eq!(broken.status, 400);
}

#[test]
fn an_end_does_not_wait_for_what_computes_elsewhere() {
    let server = Running::start(ttt(), |o| {
        o.grace = Duration::from_millis(200);
        o.constraint_threads = 1;
        o.constraint_timeout = Duration::from_secs(60);
        o.max_embed_tokens = Some(1 << 20);
    });
    let client = server.client.clone();
    let ask = |path: &'static str, body: Value| {
        let client = client.clone();
        std::thread::spawn(move || client.post(path, &body).map(|reply| reply.status))
    };
    // More of them than threads: the end must not wait for any.
    let mut asked: Vec<_> = (0..3).map(|_| ask(TEXT, costly())).collect();
    asked.push(ask(VECTORS, json!({"input": long_text()})));
    server.wait_for("bitnet_active_sequences", 1.0);
    let began = Instant::now();
    server.end().unwrap();
    assert!(began.elapsed() < Duration::from_secs(10));
    for thread in asked {
        // Notified, or rejected before.
        assert!(thread.join().unwrap().is_ok_and(|status| [503, 400, 429].contains(&status)));
    }
}
