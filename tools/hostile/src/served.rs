//! The server: hostile requests by several clients, while another one measures how long it waits.

use std::io::{BufRead, BufReader, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use test_support::http::Client;

use crate::error::HostileError;
use crate::kinds::{KINDS, Reader};
use crate::probe::{files, kind_of_file};
use crate::report::{Report, within};
use crate::watch::{end, megabytes, status_of};

/// Hostile requests at once.
const TOGETHER: usize = 16;
/// Longest wait of a client while other requests would run for minutes.
const BESIDE: Duration = Duration::from_secs(5);
/// Longest wait of a client with a plain prompt, in seconds.
const PATIENCE: f64 = 1.0;
/// Memory that the server may take beyond the memory before.
const MEMORY: u64 = 700_000_000;
/// Seconds that `--grace` gives.
const GRACE: u64 = 2;

/// A server that runs until this is dropped.
pub(crate) struct Serving {
    child: Child,
    pub(crate) client: Client,
}

impl Serving {
    /// Starts one with the small model and a chat template.
    pub(crate) fn start(program: &Path, args: &[&str]) -> Result<Self, HostileError> {
        let mut command = Command::new(program);
        let grace = GRACE.to_string();
        command.args(["serve", "--port", "0", "-t", "1", "--template", "chatml", "--grace", &grace]).args(args);
        for name in ["BITNET_MODEL", "BITNET_LOG", "BITNET_API_KEY", "HF_HOME"] {
            command.env_remove(name);
        }
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null());
        let mut child = command.spawn().map_err(HostileError::io("start", program))?;
        let mut line = String::new();
        if let Some(out) = child.stdout.take() {
            BufReader::new(out).read_line(&mut line).map_err(HostileError::io("read what it says", program))?;
        }
        let address = line.split("http://").nth(1).and_then(|rest| rest.split("/v1").next());
        let Some(address) = address.and_then(|a| a.parse::<SocketAddr>().ok()) else {
            end(&mut child);
            return Err(HostileError::Server { problem: format!("it does not say where it listens: {line:?}") });
        };
        Ok(Self { child, client: Client::new(address) })
    }

    /// Whether it still runs.
    pub(crate) fn lives(&mut self) -> bool {
        matches!(self.child.try_wait(), Ok(None))
    }

    /// A figure of its memory in bytes.
    pub(crate) fn memory(&self, name: &str) -> u64 {
        status_of(self.child.id(), name).unwrap_or(0)
    }

    /// Sends a signal, and returns the time until the end.
    fn ends(&mut self, signal: &str) -> Result<Duration, HostileError> {
        let began = Instant::now();
        let pid = self.child.id().to_string();
        Command::new("kill").args([signal, &pid]).status().map_err(HostileError::io("run", "kill"))?;
        while self.lives() && began.elapsed() < Duration::from_secs(60) {
            std::thread::sleep(Duration::from_millis(20));
        }
        Ok(began.elapsed())
    }
}

impl Drop for Serving {
    fn drop(&mut self) {
        end(&mut self.child);
        // Reaped, so that no zombie remains.
        let _ = self.child.wait();
    }
}

/// A plain request, and how long it took.
pub(crate) fn plain(client: &Client) -> Result<Duration, String> {
    let began = Instant::now();
    let body = json!({"prompt": "Once upon a time", "max_tokens": 4, "temperature": 0});
    let reply = client.post("/v1/completions", &body).map_err(|e| e.to_string())?;
    match reply.status {
        200 => Ok(began.elapsed()),
        status => Err(format!("status {status}: {}", String::from_utf8_lossy(&reply.body))),
    }
}

/// A hostile request: whole answer or typed error, as JSON; anything else is a fault.
pub(crate) fn hostile(client: &Client, path: &str, body: &[u8]) -> Result<u16, String> {
    let sent = client.send(&client.request("POST", path, body)).and_then(test_support::http::Stream::whole);
    let reply = sent.map_err(|e| format!("no answer: {e}"))?;
    let value: Value = serde_json::from_slice(&reply.body).map_err(|e| format!("status {}: {e}", reply.status))?;
    let message = value["error"]["message"].as_str().unwrap_or_default();
    if message.len() > 1000 {
        return Err(format!("a message of {} characters", message.len()));
    }
    if message.contains("panicked") || message.contains(".rs:") {
        return Err(format!("a message that tells of the inside: {message}"));
    }
    Ok(reply.status)
}

const COMPLETIONS: &str = "/v1/completions";

/// A name, the path, the body.
pub(crate) type Sent = (String, &'static str, Vec<u8>);

/// Requests of every kind.
pub(crate) fn requests(inputs: &Path) -> Result<Vec<Sent>, HostileError> {
    let mut all = Vec::new();
    for (name, path) in files(inputs)? {
        if kind_of_file(&name) == Some("request") {
            let body = std::fs::read(&path).map_err(HostileError::io("read", &path))?;
            all.push((name, COMPLETIONS, body));
        }
    }
    for kind in KINDS {
        for variant in kind.variants.iter().step_by(3) {
            let text = (variant.make)(variant.most.min(4_000));
            let constraint = match kind.reader {
                Reader::Lark => json!({"grammar": text}),
                Reader::Regex => json!({"regex": text}),
                Reader::Schema => {
                    let schema = serde_json::from_str(&text).unwrap_or(Value::Null);
                    json!({"response_format": {"type": "json_schema", "json_schema": {"name": "x", "schema": schema}}})
                }
                Reader::Template | Reader::Tokenizer => continue,
            };
            let mut body = json!({"prompt": "Once", "max_tokens": 6, "temperature": 0});
            if let (Some(body), Value::Object(constraint)) = (body.as_object_mut(), constraint) {
                body.extend(constraint);
            }
            all.push((format!("{} {}", kind.name, variant.name), COMPLETIONS, body.to_string().into_bytes()));
        }
    }
    let stops: Vec<String> = (0..16).map(|i| format!("{i}{}", "x".repeat(200_000))).collect();
    let long = "Once upon a time there was a cat. ".repeat(26_000);
    let extra = [
        ("long stop texts", COMPLETIONS, json!({"prompt": "Once", "max_tokens": 60, "stop": stops})),
        ("long text to embed", "/v1/embeddings", json!({"input": long})),
        ("long text to learn from", "/bitnet/inner-loss", json!({"prompt": long})),
        ("many texts to embed", "/v1/embeddings", json!({"input": vec!["Once upon a time"; 2048]})),
        (
            "long prompt",
            COMPLETIONS,
            json!({"prompt": "Once upon a time there was a cat. ".repeat(900), "max_tokens": 1}),
        ),
        ("body of 4 MB", COMPLETIONS, json!({"prompt": long.repeat(4), "max_tokens": 1, "suffix": "none"})),
        (
            "many items",
            "/v1/responses",
            json!({"max_output_tokens": 1, "input": vec![json!({"role": "user", "content": "x"}); 40_000]}),
        ),
        (
            "too long echo",
            COMPLETIONS,
            json!({"prompt": vec![5; 30_000], "max_tokens": 0, "echo": true, "logprobs": 5}),
        ),
        ("long echo", COMPLETIONS, json!({"prompt": vec![5; 8_000], "max_tokens": 0, "echo": true, "logprobs": 5})),
        ("long model name", COMPLETIONS, json!({"prompt": "Once", "model": "m".repeat(100_000)})),
        (
            "many biases",
            COMPLETIONS,
            json!({"prompt": "Once", "max_tokens": 4,
            "logit_bias": (0..50_000).map(|i| (i.to_string(), json!(1))).collect::<serde_json::Map<_, _>>()}),
        ),
        (
            "many messages",
            "/v1/chat/completions",
            json!({"max_tokens": 1,
            "messages": vec![json!({"role": "user", "content": "x"}); 40_000]}),
        ),
    ];
    all.extend(extra.into_iter().map(|(name, path, body)| (name.to_owned(), path, body.to_string().into_bytes())));
    all.push(("deep JSON".to_owned(), COMPLETIONS, [b"[".repeat(100_000), b"]".repeat(100_000)].concat()));
    Ok(all)
}

/// Requests that keep the server busy for minutes, until their clients go.
fn endless() -> [Sent; 4] {
    let long = "Once upon a time there was a cat. ".repeat(120_000);
    let answer =
        |n: usize| json!({"prompt": "Once", "max_tokens": 2000, "n": n, "logit_bias": {"0": -100}, "stream": true});
    let body = |value: Value| value.to_string().into_bytes();
    [
        ("prompts of 4 MB".into(), COMPLETIONS, body(json!({"prompt": long, "max_tokens": 1}))),
        ("long answers".into(), COMPLETIONS, body(answer(1))),
        ("many long answers".into(), COMPLETIONS, body(answer(16))),
        ("texts of 4 MB to embed".into(), "/v1/embeddings", body(json!({"input": vec![&long[..120_000]; 30]}))),
    ]
}

/// All rows.
pub(crate) fn all(report: &mut Report, program: &Path, inputs: &Path) -> Result<(), HostileError> {
    let mut serving = Serving::start(program, &[])?;
    plain(&serving.client).map_err(|problem| HostileError::Server { problem })?;
    for (name, path, body) in requests(inputs)? {
        let row = format!("server {name}");
        if report.wants(&row) {
            let result = together(&mut serving, TOGETHER, path, &body);
            let dead = !serving.lives();
            report.row(&row, result);
            if dead {
                serving = Serving::start(program, &[])?;
            }
        }
    }
    for (name, path, body) in endless() {
        let row = format!("server {name}");
        if report.wants(&row) {
            let result = beside(&mut serving, path, &body);
            let dead = !serving.lives();
            report.row(&row, result);
            if dead {
                serving = Serving::start(program, &[])?;
            }
        }
    }
    drop(serving);
    silent_connections(report, program)?;
    hosts(report, program)?;
    half_closed(report, program)?;
    signals(report, program, inputs)
}

/// Sends one request `count` times at once, with a plain client at the same time.
fn together(serving: &mut Serving, count: usize, path: &str, body: &[u8]) -> Result<String, String> {
    let before = serving.memory("VmRSS");
    let done = AtomicBool::new(false);
    let client = serving.client.clone();
    let began = Instant::now();
    let (statuses, waits) = std::thread::scope(|scope| {
        let others: Vec<_> = (0..count).map(|_| scope.spawn(|| hostile(&client, path, body))).collect();
        let beside = scope.spawn(|| {
            let mut waits = Vec::new();
            while !done.load(Ordering::Relaxed) || waits.is_empty() {
                waits.push(plain(&client));
                std::thread::sleep(Duration::from_millis(20));
            }
            waits
        });
        let statuses: Vec<_> =
            others.into_iter().map(|t| t.join().unwrap_or_else(|_| Err("the client panicked".into()))).collect();
        done.store(true, Ordering::Relaxed);
        (statuses, beside.join().unwrap_or_default())
    });
    let took = began.elapsed();
    if !serving.lives() {
        return Err("the server has ended".to_owned());
    }
    let statuses = statuses.into_iter().collect::<Result<Vec<_>, _>>()?;
    let mut longest = Duration::ZERO;
    for wait in waits {
        longest = longest.max(wait.map_err(|e| format!("a plain request failed: {e}"))?);
    }
    if longest.as_secs_f64() > PATIENCE {
        return Err(format!("a plain request waited {:.2} s", longest.as_secs_f64()));
    }
    let grown = serving.memory("VmRSS").saturating_sub(before);
    if grown > MEMORY {
        return Err(format!("the server grew by {}", megabytes(grown)));
    }
    let (status, worst) = (statuses.first().copied().unwrap_or(0), longest.as_secs_f64() * 1e3);
    Ok(format!("status {status}, all {count} in {:.1} s, a plain request at most {worst:.0} ms", took.as_secs_f64()))
}

/// Sixteen requests that do not end, with a plain client for a while, and another after they are gone.
fn beside(serving: &mut Serving, path: &str, body: &[u8]) -> Result<String, String> {
    let (before, client) = (serving.memory("VmRSS"), serving.client.clone());
    let request = client.request("POST", path, body);
    let (held, longest) = std::thread::scope(|scope| {
        let sends = || {
            let mut stream = client.connect().ok()?;
            // A refusal may come before all is sent.
            let _ = stream.write_all(&request);
            Some(stream)
        };
        let others: Vec<_> = (0..TOGETHER).map(|_| scope.spawn(sends)).collect();
        let began = Instant::now();
        let mut longest = Duration::ZERO;
        while began.elapsed() < BESIDE {
            longest = longest.max(plain(&client)?);
            std::thread::sleep(Duration::from_millis(20));
        }
        Ok((others.into_iter().filter_map(|t| t.join().ok().flatten()).collect::<Vec<_>>(), longest))
    })
    .map_err(|e: String| format!("a plain request failed: {e}"))?;
    let (count, grown) = (held.len(), serving.memory("VmRSS").saturating_sub(before));
    drop(held);
    let longest = longest.max(plain(&client)?);
    match () {
        () if !serving.lives() => Err("the server has ended".to_owned()),
        () if longest.as_secs_f64() > PATIENCE => Err(format!("a plain request waited {:.2} s", longest.as_secs_f64())),
        () if grown > MEMORY => Err(format!("the server grew by {}", megabytes(grown))),
        () => Ok(format!("{count} at once, a plain request at most {:.0} ms", longest.as_secs_f64() * 1e3)),
    }
}

/// Clients that connect and send nothing block no others.
fn silent_connections(report: &mut Report, program: &Path) -> Result<(), HostileError> {
    let name = "server silent connections";
    if !report.wants(name) {
        return Ok(());
    }
    let mut serving = Serving::start(program, &["--max-connections", "64", "--api-key", "right"])?;
    serving.client.key = Some("right".into());
    let silent: Vec<TcpStream> = (0..100).filter_map(|_| serving.client.connect().ok()).collect();
    let half: Vec<TcpStream> = (0..20)
        .filter_map(|_| {
            let mut stream = serving.client.connect().ok()?;
            stream.write_all(b"POST /v1/completions HTTP/1.1\r\nHost: localhost\r\nX-").ok()?;
            Some(stream)
        })
        .collect();
    let waited = plain(&serving.client);
    let held = silent.len() + half.len();
    report.row(
        name,
        match waited {
            Ok(wait) if wait < within(1.0) => {
                Ok(format!("{held} of them, a client with a key waits {:.0} ms", wait.as_secs_f64() * 1e3))
            }
            Ok(wait) => Err(format!("a client with a key waits {:.1} s", wait.as_secs_f64())),
            Err(error) => Err(error),
        },
    );
    Ok(())
}

/// Names under which a web page could reach a server without a key.
fn hosts(report: &mut Report, program: &Path) -> Result<(), HostileError> {
    let name = "server names of other machines";
    if !report.wants(name) {
        return Ok(());
    }
    let serving = Serving::start(program, &[])?;
    let heads: [&[u8]; 5] = [
        b"Host: evil.example\r\n",
        b"Host: evil\xe9.com\r\n",
        b"Host: localhost\r\nHost: evil.example\r\n",
        b"Host: \r\n",
        b"Host: localhost.evil.example:8080\r\n",
    ];
    let mut result = Ok("refused".to_owned());
    for head in heads {
        let bytes = [b"GET /v1/models HTTP/1.1\r\n", head, b"Connection: close\r\n\r\n"].concat();
        let status = serving.client.send(&bytes).map_or(400, |stream| stream.status);
        if !(400..500).contains(&status) {
            result = Err(format!("{:?} gets status {status}", String::from_utf8_lossy(head)));
        }
    }
    report.row(name, result);
    Ok(())
}

/// A client that has sent its request and closes its half still gets the answer.
fn half_closed(report: &mut Report, program: &Path) -> Result<(), HostileError> {
    let name = "server half-closed connection";
    if !report.wants(name) {
        return Ok(());
    }
    let serving = Serving::start(program, &[])?;
    let body = json!({"prompt": "Once upon a time", "max_tokens": 40}).to_string();
    let answer = serving.client.connect().and_then(|mut stream| {
        stream.write_all(&serving.client.request("POST", "/v1/completions", body.as_bytes()))?;
        stream.shutdown(std::net::Shutdown::Write)?;
        test_support::http::Stream::read_head(stream)?.whole()
    });
    report.row(
        name,
        match answer {
            Ok(reply) if reply.status == 200 => Ok("answered".to_owned()),
            Ok(reply) => Err(format!("status {}", reply.status)),
            Err(error) => Err(error.to_string()),
        },
    );
    Ok(())
}

/// A signal ends the process in time, with any request running.
fn signals(report: &mut Report, program: &Path, inputs: &Path) -> Result<(), HostileError> {
    // The requests that would run for long.
    let long = ["many texts to embed", "long prompt"];
    let requests: Vec<_> = requests(inputs)?.into_iter().filter(|(name, ..)| long.contains(&name.as_str())).collect();
    for signal in ["-TERM", "-INT"] {
        let name = format!("server SIG{} under load", signal.trim_start_matches('-'));
        if !report.wants(&name) {
            continue;
        }
        let mut serving = Serving::start(program, &[])?;
        let client = serving.client.clone();
        let ended = std::thread::scope(|scope| {
            for (_, path, body) in requests.iter().cycle().take(2 * TOGETHER) {
                let client = client.clone();
                // Its answer does not matter here.
                scope.spawn(move || hostile(&client, path, body).is_ok());
            }
            std::thread::sleep(Duration::from_millis(300));
            serving.ends(signal)
        })?;
        let limit = Duration::from_secs(GRACE + 2) + within(0.25);
        report.row(
            &name,
            match ended <= limit {
                true => Ok(format!("ended after {:.1} s", ended.as_secs_f64())),
                false => Err(format!("ended after {:.1} s, allowed are {} s", ended.as_secs_f64(), GRACE + 2)),
            },
        );
    }
    Ok(())
}
