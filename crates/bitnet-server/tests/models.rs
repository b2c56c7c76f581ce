//! Several models in one server: which of them are in memory, who waits, and which one leaves.

mod common;

use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bitnet::Model;
use bitnet_server::{LoadFailure, Models, Options, ServerError, Service};
use common::{Running, texts, ttt};
use serde_json::{Value, json};

const TEXT: &str = "/v1/completions";

fn load() -> Result<Model, LoadFailure> {
    Ok(Model::builder().threads(1).chat_template("chatml").load_bytes(bitnet::TINY_MODEL)?)
}

/// Bytes of its weights.
fn weight() -> u64 {
    let engine = ttt().engine().clone();
    (engine.packed_bytes() + engine.head_bytes()) as u64
}

/// Models that are loaded on demand, whose files seem to have so many bytes, and how often each was loaded.
fn on_demand(names: &[&str], bytes: u64) -> (Models, Arc<Vec<AtomicUsize>>) {
    let counts: Arc<Vec<AtomicUsize>> = Arc::new(names.iter().map(|_| AtomicUsize::new(0)).collect());
    let mut models = Models::new();
    for (i, name) in names.iter().enumerate() {
        let counts = counts.clone();
        models.add_on_demand(*name, bytes, move || {
            counts[i].fetch_add(1, SeqCst);
            load()
        });
    }
    (models, counts)
}

fn ask(model: &str) -> Value {
    json!({"model": model, "prompt": "Once upon a time", "max_tokens": 8, "seed": 1})
}

/// The names of the models in memory.
fn loaded(server: &Running) -> Vec<String> {
    let all = server.client.get("/v1/models").unwrap().ok();
    let here = all["data"].as_array().unwrap().iter().filter(|model| model["loaded"] == true);
    let openai: Vec<String> = here.map(|model| model["id"].as_str().unwrap().to_owned()).collect();
    let all = server.client.get("/api/ps").unwrap().ok();
    let ollama = all["models"].as_array().unwrap().iter().map(|m| m["model"].as_str().unwrap().replace(":latest", ""));
    assert_eq!(openai, ollama.collect::<Vec<_>>());
    openai
}

#[test]
fn a_model_is_loaded_once_when_it_is_named() {
    let (mut models, counts) = on_demand(&["b", "c"], weight());
    models.add("a", ttt());
    assert_eq!(models.len(), 3);
    let server = Running::start(models, |_| {});
    assert_eq!(loaded(&server), ["a"]);
    let tags = server.client.get("/api/tags").unwrap().ok();
    let names: Vec<&str> = tags["models"].as_array().unwrap().iter().map(|m| m["name"].as_str().unwrap()).collect();
    assert_eq!(names, ["b:latest", "c:latest", "a:latest"]);
    assert_eq!(tags["models"][0]["details"]["family"], "");
    // Many ask for the same one at once.
    let answers: Vec<Value> = std::thread::scope(|scope| {
        let asks: Vec<_> = (0..6).map(|_| scope.spawn(|| server.client.post(TEXT, &ask("c")).unwrap().ok())).collect();
        asks.into_iter().map(|ask| ask.join().unwrap()).collect()
    });
    let expected = server.client.post(TEXT, &ask("a")).unwrap().ok();
    assert!(answers.iter().all(|answer| texts(answer) == texts(&expected) && answer["model"] == "c"));
    assert_eq!((counts[0].load(SeqCst), counts[1].load(SeqCst)), (0, 1));
    assert_eq!(loaded(&server), ["c", "a"]);
    assert_eq!((server.metric("bitnet_models_loaded"), server.metric("bitnet_model_loads_total")), (2.0, 1.0));
    // Without a name the first one answers; the other interface names them with a version.
    let first = server.client.post(TEXT, &json!({"prompt": "x", "max_tokens": 1})).unwrap().ok();
    assert_eq!(first["model"], "b");
    let other = json!({"model": "c:latest", "prompt": "Once upon a time", "raw": true, "stream": false, "options": {"num_predict": 8, "seed": 1}});
    assert_eq!(server.client.post("/api/generate", &other).unwrap().ok()["response"], texts(&expected)[0].as_str());
    let shown = server.client.post("/api/show", &json!({"name": "a"})).unwrap().ok();
    assert_eq!(shown["capabilities"], json!(["completion"]));
    assert!(server.client.get("/v1/models/c").unwrap().ok()["parameters"].as_u64().unwrap() > 1_000_000);
    // Another one is not there, in any interface.
    for (path, body) in
        [(TEXT, ask("z")), ("/api/generate", ask("z")), ("/v1/embeddings", json!({"model": "z", "input": "x"}))]
    {
        let reply = server.client.post(path, &body).unwrap();
        let text = reply.text();
        assert!(
            reply.status == 404 && ["\\\"b\\\"", "\\\"c\\\"", "\\\"a\\\""].iter().all(|name| text.contains(name)),
            "{text}"
        );
    }
    assert_eq!(server.client.get("/v1/models/z").unwrap().json()["error"]["code"], "model_not_found");
}

#[test]
fn the_one_without_a_request_for_longest_makes_room_and_none_that_is_used() {
    let weight = weight();
    let (models, counts) = on_demand(&["a", "b", "c"], weight);
    let server = Running::start(models, |o| {
        o.cache_bytes = 0;
        o.memory_limit = Some(2 * weight + weight / 2);
        o.max_tokens = Some(100_000);
        o.model_stay = Duration::ZERO;
    });
    for (name, expected) in [("a", &["a"][..]), ("b", &["a", "b"]), ("a", &["a", "b"])] {
        server.client.post(TEXT, &ask(name)).unwrap().ok();
        assert_eq!(loaded(&server), expected);
    }
    // Each stays ten times as long as its loading took; the next one waits so long.
    server.client.post(TEXT, &ask("c")).unwrap().ok();
    assert_eq!(loaded(&server), ["a", "c"]);
    assert_eq!(server.metric("bitnet_model_unloads_total"), 1.0);
    // A text of `a` is under way: it stays, though `c` was used later.
    let long =
        json!({"model": "a", "prompt": "Once", "max_tokens": 100_000, "stream": true, "logit_bias": {"0": -100}});
    let mut stream = server.client.stream(TEXT, &long).unwrap();
    stream.event().unwrap().unwrap();
    server.client.post(TEXT, &ask("c")).unwrap().ok();
    server.client.post(TEXT, &ask("b")).unwrap().ok();
    assert_eq!(loaded(&server), ["a", "b"]);
    stream.event().unwrap().unwrap();
    drop(stream);
    server.wait_for("bitnet_active_sequences", 0.0);
    let counts: Vec<usize> = counts.iter().map(|count| count.load(SeqCst)).collect();
    assert_eq!(counts, [1, 2, 1]);
}

#[test]
fn requests_for_ever_other_models_cannot_keep_the_machine_loading() {
    let weight = weight();
    let (models, counts) = on_demand(&["a", "b"], weight);
    let server = Running::start(models, |o| {
        o.cache_bytes = 0;
        o.memory_limit = Some(weight + weight / 2);
        o.model_stay = Duration::from_secs(3600);
        o.load_timeout = Duration::from_millis(300);
    });
    // The time for loading may be over before the first one is there.
    while server.client.post(TEXT, &ask("a")).unwrap().status != 200 {}
    for _ in 0..3 {
        let refused = server.client.post(TEXT, &ask("b")).unwrap();
        assert_eq!((refused.status, refused.header("retry-after")), (429, Some("1")), "{}", refused.text());
        // Nor does a client that wants it to leave at once.
        let leave = json!({"model": "a", "prompt": "x", "raw": true, "keep_alive": 0, "options": {"num_predict": 1}});
        server.client.post("/api/generate", &leave).unwrap();
        server.client.post(TEXT, &ask("a")).unwrap().ok();
    }
    assert_eq!((counts[0].load(SeqCst), counts[1].load(SeqCst)), (1, 0));
}

#[test]
fn a_file_that_does_not_load_is_an_error_of_its_requests() {
    let (mut models, _) = on_demand(&["good"], 1);
    let tries = Arc::new(AtomicUsize::new(0));
    let counted = tries.clone();
    models.add_on_demand("bad", 1, move || {
        counted.fetch_add(1, SeqCst);
        Ok(Model::from_bytes(vec![0; 100])?)
    });
    models.add_on_demand("worse", 1, || panic!("a bug"));
    let server = Running::start(models, |_| {});
    for _ in 0..3 {
        let reply = server.client.post(TEXT, &ask("bad")).unwrap();
        assert_eq!(
            (reply.status, &reply.json()["error"]["code"]),
            (500, &json!("model_not_loaded")),
            "{}",
            reply.text()
        );
        assert!(reply.text().contains("bad"));
    }
    assert_eq!(tries.load(SeqCst), 1, "it is not tried again at once");
    assert_eq!(server.client.post("/api/generate", &ask("worse")).unwrap().status, 500);
    server.client.post(TEXT, &ask("good")).unwrap().ok();
    assert_eq!(server.metric("bitnet_model_load_failures_total"), 2.0);
    assert_eq!(server.client.get("/health").unwrap().status, 200);
}

#[test]
fn what_takes_more_memory_than_its_file_says_is_decided_again() {
    let weight = weight();
    let (models, counts) = on_demand(&["a", "b"], 1);
    let server = Running::start(models, |o| {
        o.cache_bytes = 0;
        o.memory_limit = Some(weight + weight / 2);
        o.model_stay = Duration::ZERO;
    });
    server.client.post(TEXT, &ask("a")).unwrap().ok();
    server.client.post(TEXT, &ask("b")).unwrap().ok();
    assert_eq!(loaded(&server), ["b"]);
    assert_eq!((counts[0].load(SeqCst), counts[1].load(SeqCst)), (1, 2));
    server.client.post(TEXT, &ask("a")).unwrap().ok();
    assert_eq!((counts[0].load(SeqCst), counts[1].load(SeqCst)), (2, 2));
    // Where there is never enough, that is the answer.
    let (models, _) = on_demand(&["a"], 1);
    let server = Running::start(models, |o| o.memory_limit = Some(weight / 2));
    let reply = server.client.post(TEXT, &ask("a")).unwrap();
    assert!(reply.status == 500 && reply.text().contains("bytes of memory"), "{}", reply.text());
}

#[test]
fn a_client_may_let_a_model_go() {
    let (mut models, _) = on_demand(&["a"], 1);
    models.add("stays", ttt());
    let server = Running::start(models, |o| o.model_stay = Duration::ZERO);
    let ask = |model: &str, keep: Value| {
        let body = json!({"model": model, "prompt": "x", "raw": true, "stream": false, "keep_alive": keep, "options": {"num_predict": 1}});
        server.client.post("/api/generate", &body).unwrap().ok()
    };
    ask("a", json!("5m"));
    assert_eq!(loaded(&server), ["a", "stays"]);
    let ps = server.client.get("/api/ps").unwrap().ok();
    assert_ne!(ps["models"][0]["expires_at"], ps["models"][1]["expires_at"]);
    ask("a", json!(0));
    ask("stays", json!(0));
    server.wait_for("bitnet_models_loaded", 1.0);
    assert_eq!(loaded(&server), ["stays"]);
    let without_text = |model: &str| json!({"model": model, "messages": [], "keep_alive": 0, "stream": false});
    let told = |model: &str| server.client.post("/api/chat", &without_text(model)).unwrap().ok()["done_reason"].clone();
    assert_eq!((told("a"), told("stays")), (json!("unload"), json!("load")));
}

/// A model whose loading waits for a word, and a place to give it.
fn held() -> (Models, Sender<()>, Receiver<()>) {
    let (go, wait) = channel();
    let (began, begun) = channel();
    let both = Mutex::new((wait, began));
    let mut models = Models::from(ttt());
    models.add_on_demand("slow", 1, move || {
        let both = both.lock().unwrap();
        both.1.send(()).unwrap();
        // The other side is gone when the test is over.
        let _ = both.0.recv();
        load()
    });
    (models, go, begun)
}

#[test]
fn others_are_answered_while_a_model_is_loaded() {
    let (models, go, begun) = held();
    let server = Running::start(models, |_| {});
    std::thread::scope(|scope| {
        let slow = scope.spawn(|| server.client.post(TEXT, &ask("slow")).unwrap().ok());
        begun.recv().unwrap();
        let first =
            server.client.post(TEXT, &json!({"prompt": "Once upon a time", "max_tokens": 8, "seed": 1})).unwrap().ok();
        for path in ["/v1/models", "/api/tags", "/health", "/metrics"] {
            assert_eq!(server.client.get(path).unwrap().status, 200);
        }
        assert_eq!(server.metric("bitnet_models_loaded"), 1.0);
        go.send(()).unwrap();
        assert_eq!(texts(&slow.join().unwrap()), texts(&first));
    });
    server.end().unwrap();
}

#[test]
fn the_end_does_not_wait_for_a_model_that_is_loaded() {
    let (models, go, begun) = held();
    let server = Running::start(models, |o| o.grace = Duration::ZERO);
    let client = server.client.clone();
    let slow = std::thread::spawn(move || client.post(TEXT, &ask("slow")));
    begun.recv().unwrap();
    server.end().unwrap();
    if let Ok(reply) = slow.join().unwrap() {
        assert_eq!(reply.status, 503, "{}", reply.text());
    }
    drop(go);
}

#[test]
fn models_that_cannot_be_served_together_are_named() {
    let start = |models: Models, limit: Option<u64>| {
        let mut options = Options::default();
        options.memory_limit = limit;
        Service::start(models, options).err()
    };
    assert!(matches!(start(Models::new(), None), Some(ServerError::NoModels)));
    let (twice, _) = on_demand(&["a", "a"], 1);
    assert!(matches!(start(twice, None), Some(ServerError::SameName { name }) if name == "a"));
    assert!(matches!(start(ttt().into(), Some(1000)), Some(ServerError::Memory { limit: 1000, .. })));
    assert!(Models::default().is_empty());
    let mut loaded = Models::new();
    loaded.add_loaded("a", ttt(), load);
    assert!(start(loaded, None).is_none());
}
