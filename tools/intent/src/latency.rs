//! How long a call takes: in this process, in a separate process, and over HTTP.

use std::path::Path;
use std::process::Command;
use std::time::Instant;

use bitnet::{GenerateOptions, Model};
use intent::answer::prompt;
use intent::ask::{MOST_TOKENS, ask_with};
use intent::http::Client;
use intent::utterance::{Task, Utterance};
use intent::{IntentError, grammar};
use measure::Samples;
use serde_json::{Value, json};

/// How the measurement is made.
pub(crate) struct Options<'a> {
    /// The model file.
    pub(crate) model: &'a Path,
    /// Threads of the model.
    pub(crate) threads: usize,
    /// A server of the same model.
    pub(crate) url: Option<&'a str>,
    /// Name of the model on the server.
    pub(crate) served_as: &'a str,
    /// The field in which the server takes a grammar in Lark's notation.
    pub(crate) grammar_field: Option<&'a str>,
    /// A connection for each call.
    pub(crate) reconnect: bool,
    /// Starts of a process.
    pub(crate) starts: usize,
}

/// Prints a row for each way to ask about these utterances.
pub(crate) fn measure(o: &Options<'_>, grammars: [&str; 2], utterances: &[Utterance]) -> Result<(), IntentError> {
    println!("{:<44}{:>7}{:>10}{:>10}{:>10}{:>12}", "", "calls", "p50 ms", "p99 ms", "mean ms", "tokens/s");
    for (task, name) in [(Task::Slots, "slots"), (Task::Intent, "intent")] {
        let of_task: Vec<&Utterance> = utterances.iter().filter(|u| u.task == task).collect();
        let grammar = grammars[usize::from(task == Task::Intent)];
        in_process(o, name, Some(grammar), &of_task)?;
        in_process(o, name, None, &of_task)?;
        if o.url.is_some() {
            over_http(o, name, grammar, &of_task)?;
        }
    }
    if o.starts > 0 {
        cold(o)?;
    }
    Ok(())
}

fn row(name: &str, seconds: Vec<f64>, tokens: usize) {
    let seconds = Samples::from(seconds);
    let [p50, p99] = [0.5, 0.99].map(|share| 1e3 * seconds.percentile(share));
    let (mean, rate) = (1e3 * seconds.mean(), tokens as f64 / seconds.sum());
    println!("{name:<44}{:>7}{p50:>10.2}{p99:>10.2}{mean:>10.2}{rate:>12.0}", seconds.len());
}

/// Calls of a function. The first ten are not counted: buffers grow, and caches fill.
fn in_process(o: &Options<'_>, name: &str, grammar: Option<&str>, all: &[&Utterance]) -> Result<(), IntentError> {
    let model = Model::builder().threads(o.threads).load(o.model)?;
    let (mut seconds, mut tokens) = (Vec::new(), 0);
    for (i, u) in all.iter().take(10).chain(all).enumerate() {
        let text = u.said.text();
        let reply = ask_with(&model, grammar, &prompt(u.task, &text), &text, GenerateOptions::default())?;
        if i >= 10 {
            seconds.push(reply.seconds);
            tokens += reply.stats.prompt_tokens + reply.stats.new_tokens;
        }
    }
    let kind = if grammar.is_some() { "grammar" } else { "free" };
    row(&format!("{name}, in process, {kind}, {} threads", o.threads), seconds, tokens);
    Ok(())
}

/// Calls of a server: the same prompts, greedy, at most as many tokens.
fn over_http(o: &Options<'_>, name: &str, grammar: &str, all: &[&Utterance]) -> Result<(), IntentError> {
    let Some(url) = o.url else { return Ok(()) };
    let client = Client::new(url, o.reconnect)?;
    let chat = url.ends_with("/chat/completions");
    let (mut seconds, mut tokens, mut shown) = (Vec::new(), 0, false);
    for (i, u) in all.iter().take(10).chain(all).enumerate() {
        let text = u.said.text();
        let prompt = prompt(u.task, &text);
        let mut body = json!({ "model": o.served_as, "temperature": 0.0, "max_tokens": MOST_TOKENS });
        match chat {
            true => body["messages"] = json!([{ "role": "user", "content": prompt }]),
            false => body["prompt"] = Value::from(prompt),
        }
        if let Some(field) = o.grammar_field {
            body[field] = Value::from(grammar::lark(grammar, &text));
        }
        let body = body.to_string();
        let began = Instant::now();
        let said = client.post(&body)?;
        let took = began.elapsed().as_secs_f64();
        let value: Value = serde_json::from_str(&said)
            .map_err(|e| IntentError::Unreadable { what: url.to_owned(), problem: e.to_string() })?;
        if i >= 10 {
            seconds.push(took);
            tokens += value["usage"]["total_tokens"].as_u64().unwrap_or(0) as usize;
        } else if !shown {
            shown = true;
            println!("  the server answers {}", value["choices"][0]);
        }
    }
    let kind = if o.grammar_field.is_some() { "grammar" } else { "free" };
    let connection = if o.reconnect { "a connection each" } else { "one connection" };
    row(&format!("{name}, HTTP, {kind}, {connection}"), seconds, tokens);
    Ok(())
}

/// Whole processes that load the model, answer once and end.
fn cold(o: &Options<'_>) -> Result<(), IntentError> {
    let io = |place: &Path| {
        let place = place.display().to_string();
        move |source| IntentError::Io { place, source }
    };
    let this = std::env::current_exe().map_err(io(Path::new("this program")))?;
    let mut seconds = Vec::new();
    for _ in 0..o.starts {
        let began = Instant::now();
        let mut command = Command::new(&this);
        command.arg("answer").arg("--model").arg(o.model).arg("play some jazz by miles davis");
        let output = command.output().map_err(io(&this))?;
        if !output.status.success() {
            let problem = String::from_utf8_lossy(&output.stderr).into_owned();
            return Err(IntentError::Unreadable { what: this.display().to_string(), problem });
        }
        seconds.push(began.elapsed().as_secs_f64());
    }
    row("a process that loads, answers once and ends", seconds, 0);
    Ok(())
}
