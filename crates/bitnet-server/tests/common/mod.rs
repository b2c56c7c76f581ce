//! A server in the test's own process, on a free port.
#![allow(dead_code, unreachable_pub)]

use std::sync::OnceLock;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use bitnet::Model;
use bitnet_server::{Handle, Models, Options, Server, ServerError};
use serde_json::Value;
use test_support::http::Client;

/// The model within the library, which has test-time-training layers and no context limit, with a chat template that it
/// never learned.
pub fn ttt() -> Model {
    static MODEL: OnceLock<Model> = OnceLock::new();
    let make = || Model::builder().threads(2).chat_template("chatml").load_bytes(bitnet::TINY_MODEL).unwrap();
    MODEL.get_or_init(make).clone()
}

/// A model of attention, with a context of 200 tokens.
pub fn attention() -> Model {
    static MODEL: OnceLock<Model> = OnceLock::new();
    let make = || {
        let path = test_support::workspace_dir().join("models/tinystories-5m.gguf");
        Model::builder().threads(2).context(200).chat_template("chatml").load(path).unwrap()
    };
    MODEL.get_or_init(make).clone()
}

/// A server that ends with the test.
pub struct Running {
    pub client: Client,
    pub handle: Handle,
    thread: Option<JoinHandle<Result<(), ServerError>>>,
}

impl Running {
    /// Starts one with the defaults, changed by `change`.
    pub fn start(models: impl Into<Models>, change: impl FnOnce(&mut Options)) -> Self {
        let mut options = Options::default();
        options.address.set_port(0);
        options.grace = Duration::from_secs(30);
        change(&mut options);
        let server = Server::bind(models, options).unwrap();
        let (client, handle) = (Client::new(server.address()), server.handle());
        Self { client, handle, thread: Some(std::thread::spawn(|| server.run())) }
    }

    /// Ends it, and returns the result.
    pub fn end(mut self) -> Result<(), ServerError> {
        self.handle.shut_down();
        self.thread.take().unwrap().join().unwrap()
    }

    /// A number of `/metrics`.
    #[track_caller]
    pub fn metric(&self, name: &str) -> f64 {
        let reply = self.client.get("/metrics").unwrap();
        let line =
            reply.text().lines().find(|l| l.starts_with(&format!("{name} "))).unwrap_or_else(|| panic!("{name}"));
        line.rsplit(' ').next().unwrap().parse().unwrap()
    }

    /// Waits until a number of `/metrics` is `value`.
    #[track_caller]
    pub fn wait_for(&self, name: &str, value: f64) {
        let began = Instant::now();
        while self.metric(name) != value {
            assert!(began.elapsed() < Duration::from_secs(20), "{name} is {} and not {value}", self.metric(name));
            std::thread::sleep(Duration::from_millis(5));
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.handle.shut_down();
        if let Some(thread) = self.thread.take() {
            let ended = thread.join();
            // A panic during another one would abort the test.
            if !std::thread::panicking() {
                ended.unwrap().unwrap();
            }
        }
    }
}

/// The text of each choice of an answer.
pub fn texts(answer: &Value) -> Vec<String> {
    let choices = answer["choices"].as_array().unwrap();
    let text = |c: &Value| c["text"].as_str().or(c["message"]["content"].as_str()).unwrap().to_owned();
    choices.iter().map(text).collect()
}

/// The text of each choice of the events of a stream, and why each ended.
pub fn streamed(events: &[Value], choices: usize) -> Vec<(String, String)> {
    let mut all = vec![(String::new(), String::new()); choices];
    for choice in events.iter().flat_map(|e| e["choices"].as_array().unwrap()) {
        let (text, reason) = &mut all[choice["index"].as_u64().unwrap() as usize];
        text.push_str(choice["text"].as_str().or(choice["delta"]["content"].as_str()).unwrap_or_default());
        if let Some(why) = choice["finish_reason"].as_str() {
            assert!(reason.is_empty(), "two ends");
            reason.push_str(why);
        }
    }
    all
}
