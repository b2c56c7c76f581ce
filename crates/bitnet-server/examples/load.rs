//! The number of requests and tokens that a server answers per second, and the waiting times, with 1, 8 and 32 clients.
//!
//! ```text
//! cargo run --release -p bitnet-server --example load -- [--url 127.0.0.1:8080] [--model FILE] [--seconds 5] [--tokens 64]
//!     [--threads N] [--sessions 8] [--clients 1,8,32]
//! ```
//!
//! Without `--url` it starts its own server, on the small model of the library or on `--model`. Each client sends
//! a request, reads the stream to its end, and sends the next one, with another prompt and seed.

use std::error::Error;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use bitnet::Model;
use bitnet_server::{Options, Server};
use measure::Samples;
use serde_json::{Value, json};
use test_support::http::Client;

struct Args {
    url: Option<SocketAddr>,
    model: Option<String>,
    seconds: f64,
    tokens: usize,
    threads: usize,
    sessions: usize,
    clients: Vec<usize>,
}

fn args() -> Result<Args, Box<dyn Error>> {
    let clients = vec![1, 8, 32];
    let mut args = Args {
        url: None,
        model: None,
        seconds: 5.0,
        tokens: 64,
        threads: 0,
        sessions: Options::default().max_sessions,
        clients,
    };
    let mut words = std::env::args().skip(1);
    while let Some(name) = words.next() {
        let value = words.next().ok_or_else(|| format!("{name} needs a value"))?;
        match name.as_str() {
            "--url" => args.url = Some(value.parse()?),
            "--model" => args.model = Some(value),
            "--seconds" => args.seconds = value.parse()?,
            "--tokens" => args.tokens = value.parse()?,
            "--threads" => args.threads = value.parse()?,
            "--sessions" => args.sessions = value.parse()?,
            "--clients" => args.clients = value.split(',').map(str::parse).collect::<Result<_, _>>()?,
            _ => return Err(format!("{name} is not known").into()),
        }
    }
    Ok(args)
}

/// Measurements of one client.
#[derive(Default)]
struct Seen {
    requests: usize,
    tokens: u64,
    refused: usize,
    first: Vec<Duration>,
    /// Time between two pieces of a text.
    next: Vec<Duration>,
}

fn ask(client: &Client, number: usize, tokens: usize, seen: &mut Seen) -> Result<(), Box<dyn Error>> {
    const NAMES: [&str; 8] = ["Anna", "Ben", "Cleo", "Dan", "Eva", "Finn", "Gus", "Hanna"];
    let prompt = format!("Once upon a time, {} had a dog and {} apples.", NAMES[number % 8], 2 + number / 8);
    let request = json!({
        "prompt": prompt, "max_tokens": tokens, "seed": number, "temperature": 0.8,
        "stream": true, "stream_options": {"include_usage": true},
    });
    let began = Instant::now();
    let mut stream = client.stream("/v1/completions", &request)?;
    if stream.status == 429 {
        seen.refused += 1;
        std::thread::sleep(Duration::from_millis(20));
        return Ok(());
    }
    let mut last = began;
    let mut begun = false;
    while let Some(event) = stream.event()? {
        let now = Instant::now();
        if event == "[DONE]" {
            break;
        }
        let value: Value = serde_json::from_str(&event)?;
        if let Some(error) = value.get("error") {
            return Err(error.to_string().into());
        }
        if let Some(n) = value["usage"]["completion_tokens"].as_u64() {
            seen.tokens += n;
        }
        if value["choices"][0]["text"].as_str().is_some_and(|t| !t.is_empty()) {
            let times = if begun { &mut seen.next } else { &mut seen.first };
            times.push(now - last);
            (last, begun) = (now, true);
        }
    }
    seen.requests += 1;
    Ok(())
}

/// Median and 99th percentile, in milliseconds.
fn p50_p99(times: &[Duration]) -> [f64; 2] {
    let ms: Samples = times.iter().map(|t| t.as_secs_f64() * 1e3).collect();
    [0.5, 0.99].map(|share| ms.percentile(share))
}

fn measure(client: &Client, clients: usize, args: &Args) -> Result<(), Box<dyn Error>> {
    let began = Instant::now();
    let end = began + Duration::from_secs_f64(args.seconds);
    let all: Vec<Result<Seen, String>> = std::thread::scope(|scope| {
        let one = |i: usize| -> Result<Seen, String> {
            let mut seen = Seen::default();
            let mut number = i;
            while Instant::now() < end {
                ask(client, number, args.tokens, &mut seen).map_err(|e| e.to_string())?;
                number += clients;
            }
            Ok(seen)
        };
        let threads: Vec<_> = (0..clients).map(|i| scope.spawn(move || one(i))).collect();
        threads.into_iter().map(|t| t.join().unwrap_or_else(|_| Err("a client panicked".into()))).collect()
    });
    let seconds = began.elapsed().as_secs_f64();
    let mut sum = Seen::default();
    for seen in all {
        let seen = seen?;
        sum.requests += seen.requests;
        sum.tokens += seen.tokens;
        sum.refused += seen.refused;
        sum.first.extend(seen.first);
        sum.next.extend(seen.next);
    }
    let ([first_p50, first_p99], [next_p50, next_p99]) = (p50_p99(&sum.first), p50_p99(&sum.next));
    println!(
        "| {clients} | {:.1} | {:.0} | {first_p50:.1} | {first_p99:.1} | {next_p50:.2} | {next_p99:.2} | {} |",
        sum.requests as f64 / seconds,
        sum.tokens as f64 / seconds,
        sum.refused,
    );
    Ok(())
}

fn main() -> Result<(), Box<dyn Error>> {
    let args = args()?;
    let mut own = None;
    let address = match args.url {
        Some(address) => address,
        None => {
            let builder = Model::builder().threads(args.threads);
            let model = match &args.model {
                Some(path) => builder.load(path)?,
                None => builder.load_bytes(bitnet::TINY_MODEL)?,
            };
            let mut options = Options::default();
            options.address.set_port(0);
            options.max_sessions = args.sessions;
            let threads = model.engine().threads();
            let server = Server::bind(model, options)?;
            println!(
                "{}, {threads} threads, {} texts at once, {} tokens each",
                server.service().name(),
                args.sessions,
                args.tokens
            );
            let (address, handle) = (server.address(), server.handle());
            own = Some((handle, std::thread::spawn(|| server.run())));
            address
        }
    };
    let client = Client::new(address);
    println!(
        "| clients | requests/s | tokens/s | first token, p50 ms | p99 ms | next token, p50 ms | p99 ms | refused |"
    );
    println!("|--:|--:|--:|--:|--:|--:|--:|--:|");
    for clients in &args.clients {
        measure(&client, *clients, &args)?;
    }
    if let Some((handle, thread)) = own {
        handle.shut_down();
        thread.join().map_err(|_| "the server panicked")??;
    }
    Ok(())
}
