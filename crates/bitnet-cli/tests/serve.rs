//! `bitnet serve`: one line with the address, an orderly end, errors with a way out.
#![cfg(feature = "serve")]

mod common;

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener};
use std::process::{Child, ChildStderr, Command, Stdio};
use std::time::{Duration, Instant};

use common::{Place, arg};
use serde_json::json;
use test_support::http::Client;

/// A server that a test started.
struct Serving {
    child: Child,
    client: Client,
    line: String,
    err: BufReader<ChildStderr>,
}

impl Serving {
    fn start(mut command: Command) -> Self {
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        let err = BufReader::new(child.stderr.take().unwrap());
        let address = line.split("http://").nth(1).and_then(|rest| rest.split("/v1").next());
        let address: SocketAddr = address.unwrap_or_else(|| panic!("{line:?}")).parse().unwrap();
        Self { child, client: Client::new(address), line, err }
    }

    fn signal(&self, signal: &str) {
        let sent = Command::new("kill").args([signal, &self.child.id().to_string()]).status().unwrap();
        assert!(sent.success());
    }

    /// Sends a request and does not wait for its answer.
    fn ask(&self, path: &str, body: &serde_json::Value) -> std::net::TcpStream {
        let mut connection = self.client.connect().unwrap();
        connection.write_all(&self.client.request("POST", path, body.to_string().as_bytes())).unwrap();
        connection
    }

    /// Waits until requests are under way.
    fn wait_for(&self, active: usize) {
        let began = Instant::now();
        let line = format!("\nbitnet_active_sequences {active}\n");
        while !self.client.get("/metrics").unwrap().text().contains(&line) {
            assert!(began.elapsed() < Duration::from_secs(20), "there are never {active}");
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    /// Ends it like a service manager, and returns the exit code and its output.
    fn end(mut self, signal: &str) -> (Option<i32>, String) {
        self.signal(signal);
        let mut said = String::new();
        self.err.read_to_string(&mut said).unwrap();
        (self.child.wait().unwrap().code(), said)
    }
}

impl Drop for Serving {
    fn drop(&mut self) {
        // It has ended already, or the test has failed.
        let _ = self.child.kill();
    }
}

#[cfg(all(unix, feature = "tiny-model"))]
#[test]
fn it_says_where_answers_and_ends_well() {
    let p = Place::new();
    for signal in ["-TERM", "-INT"] {
        let serving = Serving::start(p.command(&["serve", "--port", "0", "-t", "1", "--max-sessions", "3"]));
        assert!(serving.line.starts_with("listening at http://127.0.0.1:"), "{:?}", serving.line);
        assert!(serving.line.contains("tiny-stories-ttt, 1 threads, 3 texts at once"), "{:?}", serving.line);
        assert!(!serving.line.contains('\x1b'), "colours in a pipe");
        let request = json!({"model": "tiny-stories-ttt", "prompt": "Once upon a time", "max_tokens": 200, "temperature": 0,
            "stream": true});
        let mut stream = serving.client.stream("/v1/completions", &request).unwrap();
        stream.event().unwrap();
        // A text that has begun is completed.
        let reader = std::thread::spawn(move || stream.events().unwrap());
        let (code, said) = serving.end(signal);
        assert_eq!(code, Some(0), "{said}");
        assert!(said.contains("--template") && !said.contains("panicked"), "{said}");
        assert!(reader.join().unwrap().last().unwrap()["choices"][0]["finish_reason"].is_string());
    }
}

/// Two long texts: one that is generated, one that becomes a vector.
#[cfg(all(unix, feature = "tiny-model"))]
fn busy(serving: &Serving) -> [std::net::TcpStream; 2] {
    let text = json!({"prompt": "Once upon a time", "max_tokens": 100_000_000, "logit_bias": {"0": -100}});
    let vector = json!({"input": "The cat sat on the mat and the dog. ".repeat(20_000)});
    let asked = [serving.ask("/v1/completions", &text), serving.ask("/v1/embeddings", &vector)];
    serving.wait_for(2);
    asked
}

#[cfg(all(unix, feature = "tiny-model"))]
#[test]
fn a_second_signal_ends_it_at_once() {
    let p = Place::new();
    for (first, second, code) in [("-TERM", "-TERM", 143), ("-INT", "-INT", 130), ("-INT", "-TERM", 143)] {
        let options = ["--max-tokens", "100000000", "--max-embed-tokens", "10000000", "--grace", "3000"];
        let serving = Serving::start(p.command(&[&["serve", "--port", "0", "-t", "1"][..], &options].concat()));
        let _asked = busy(&serving);
        serving.signal(first);
        // The first one is seen when nothing more is taken.
        let began = Instant::now();
        while serving.client.get("/health").is_ok_and(|reply| reply.status == 200) {
            assert!(began.elapsed() < Duration::from_secs(20));
            std::thread::sleep(Duration::from_millis(10));
        }
        let (ended, said) = serving.end(second);
        assert_eq!(ended, Some(code), "{said}");
        assert!(began.elapsed() < Duration::from_secs(60) && !said.contains("panicked"), "{said}");
    }
}

#[cfg(all(unix, feature = "tiny-model"))]
#[test]
fn one_signal_ends_it_whatever_runs() {
    let p = Place::new();
    let options = ["--max-tokens", "100000000", "--max-embed-tokens", "10000000", "--grace", "1"];
    let serving = Serving::start(p.command(&[&["serve", "--port", "0", "-t", "1"][..], &options].concat()));
    let mut asked = Vec::from(busy(&serving));
    // Constraints that take long, and a body that never comes whole.
    let schema = json!({"type": "array", "items": {"type": "integer", "multipleOf": 999_983}});
    let constrained = json!({"prompt": "x", "max_tokens": 5,
        "response_format": {"type": "json_schema", "json_schema": {"name": "x", "schema": schema}}});
    asked.extend((0..6).map(|_| serving.ask("/v1/completions", &constrained)));
    let mut half = serving.client.connect().unwrap();
    half.write_all(b"POST /v1/completions HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: 99\r\n\r\n{").unwrap();
    let began = Instant::now();
    let (code, said) = serving.end("-TERM");
    assert_eq!(code, Some(0), "{said}");
    // One second of grace and two more; the rest is for a slow machine.
    assert!(began.elapsed() < Duration::from_secs(30) && !said.contains("panicked"), "{said}");
}

#[cfg(all(unix, feature = "tiny-model"))]
#[test]
fn keys_come_from_the_environment_or_a_file_and_names_from_options() {
    let p = Place::new();
    let mut with_env = p.command(&["serve", "--port", "0", "--name", "mine", "--template", "chatml", "-q"]);
    with_env.env("BITNET_API_KEY", "from env");
    let file = p.write("key", "from file\n");
    let with_file = p.command(&[
        "serve",
        "--port",
        "0",
        "--name",
        "mine",
        "--template",
        "chatml",
        "-q",
        "--api-key-file",
        arg(&file),
    ]);
    for (command, key) in [(with_env, "from env"), (with_file, "from file")] {
        let mut serving = Serving::start(command);
        assert_eq!(serving.client.get("/v1/models").unwrap().status, 401);
        serving.client.key = Some(key.into());
        assert_eq!(serving.client.get("/v1/models").unwrap().ok()["data"][0]["id"], "mine");
        let request = json!({"model": "mine", "messages": [{"role": "user", "content": "hi"}], "max_tokens": 3});
        serving.client.post("/v1/chat/completions", &request).unwrap().ok();
        let (code, said) = serving.end("-TERM");
        assert_eq!((code, said.as_str()), (Some(0), ""));
    }
}

/// Models by name, from options and from a folder; a file that is damaged is an error of its requests, which do not learn
/// where it is.
#[cfg(unix)]
#[test]
fn several_models_are_told_apart_by_their_names() {
    let p = Place::new();
    let models = test_support::workspace_dir().join("models");
    let (folder, empty) = (p.path("models"), p.path("empty"));
    std::fs::create_dir(&folder).unwrap();
    std::fs::create_dir(&empty).unwrap();
    p.write("models/damaged.gguf", "no model");
    std::os::unix::fs::symlink(models.join("tinystories-5m.gguf"), folder.join("second.gguf")).unwrap();
    let first = models.join("tiny-stories.gguf");
    let options =
        ["serve", "--port", "0", "-t", "1", "-m", arg(&first), "--models", arg(&folder), "--memory-limit", "90%"];
    let serving = Serving::start(p.command(&options));
    assert!(serving.line.contains("models tiny-stories, damaged, second, 1 threads"), "{:?}", serving.line);
    let listed = serving.client.get("/v1/models").unwrap().ok();
    let told: Vec<(String, bool)> = listed["data"]
        .as_array()
        .unwrap()
        .iter()
        .map(|m| (m["id"].as_str().unwrap().to_owned(), m["loaded"].as_bool().unwrap()))
        .collect();
    let expected = [("tiny-stories", true), ("damaged", false), ("second", false)];
    assert_eq!(told, expected.map(|(name, loaded)| (name.to_owned(), loaded)));
    let ask = |name: &str| {
        let request = json!({"model": name, "prompt": "Once upon a time", "max_tokens": 4});
        serving.client.post("/v1/completions", &request).unwrap()
    };
    for name in ["second", "tiny-stories"] {
        assert_eq!(ask(name).ok()["model"], name);
    }
    let refused = ask("damaged");
    assert_eq!((refused.status, &refused.json()["error"]["code"]), (500, &json!("model_not_loaded")));
    assert!(!refused.text().contains(arg(&folder)), "{}", refused.text());
    let (code, said) = serving.end("-TERM");
    assert_eq!(code, Some(0), "{said}");
    // Options that do not go together.
    let second = folder.join("second.gguf");
    for (more, words) in [
        (&["--name", "x"][..], "--name"),
        (&["--memory-limit", "5"], "6GiB"),
        (&["--models", arg(&empty)], "no GGUF file"),
    ] {
        let base = ["serve", "--port", "0", "-m", arg(&first), "-m", arg(&second)];
        p.run(&[&base[..], more].concat()).fails(2, words);
    }
    p.run(&["serve", "--port", "0", "-m", arg(&first), "-m", arg(&first)]).fails(1, "different names");
}

#[test]
fn what_is_wrong_is_said_with_a_way_out() {
    let p = Place::new();
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap().port().to_string();
    if cfg!(feature = "tiny-model") {
        p.run(&["serve", "--port", &port]).fails(1, "choose another port");
        p.run(&["serve", "--port", "0", "--host", "0.0.0.0"]).fails(1, "--without-key");
        let mut c = p.command(&["serve", "--port", "0"]);
        common::Done::of(c.env("BITNET_API_KEY", " ").output().unwrap()).fails(1, "empty");
        let mut c = p.command(&["serve", "--port", "0"]);
        common::Done::of(c.env("BITNET_API_KEY", "schlüssel").output().unwrap()).fails(1, "visible ASCII");
        p.run(&["serve", "--port", "0", "--allow-host", "http://box:80"]).fails(1, "http://box:80");
    }
    // An address of documents, which no machine has.
    if cfg!(feature = "tiny-model") {
        p.run(&["serve", "--port", "0", "--host", "203.0.113.1", "--without-key"]).fails(1, "203.0.113.1");
    }
    p.run(&["serve", "--port", "0", "-m", "synthetic:shape.json"]).fails(1, "tokenizer");
    p.run(&["serve", "--port", "0", "-m", "no-such.gguf"]).fails(1, "no-such.gguf");
    assert_eq!(p.run(&["serve", "--max-sessions", "0"]).code, Some(2));
    assert_eq!(p.run(&["serve", "--api-key", "x", "--without-key"]).code, Some(2));
}
