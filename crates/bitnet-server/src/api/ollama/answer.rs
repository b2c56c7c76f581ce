//! Texts as the JSON of Ollama's interface: one object, or a line for each piece.

use std::time::{Duration, Instant};

use bitnet::{Model, TokenLogprob};
use loader::chat::{Answered, ToolCall};
use serde_json::{Value, json};

use super::time::{nanos, now};
use crate::api::answer::{Form, call_id, logprob_json};
use crate::api::format::{Collected, Format, reason_name};
use crate::api::held::{Calling, Held, read};
use crate::api::{ApiError, GenerationParams};
use crate::dialect::Dialect;
use crate::engine::{End, Progress, Usage};
use crate::state::App;

/// Fields that all parts of an answer share.
#[derive(Debug)]
pub(super) struct Answer {
    form: Form,
    /// The model as the client calls it.
    name: String,
    model: Model,
    /// When the request was read.
    began: Instant,
    /// Whether probabilities are included.
    logprobs: bool,
    /// The tokens of the prompt, if the last part tells all tokens.
    prompt: Option<Vec<u32>>,
    /// How the model calls tools, if it was given some.
    tools: Option<Calling>,
    held: Held,
}

/// A part of an answer; `text` belongs to it.
fn part(form: Form, name: &str, text: &str, done: bool) -> Value {
    match form {
        Form::Chat => {
            let message = json!({ "role": "assistant", "content": text });
            json!({ "model": name, "created_at": now(), "message": message, "done": done })
        }
        Form::Text => json!({ "model": name, "created_at": now(), "response": text, "done": done }),
    }
}

/// The answer to a request without a text: that the model is loaded, or, if it is not `kept`, that it will leave.
pub(super) fn loaded(form: Form, name: &str, kept: bool) -> Value {
    let mut answer = part(form, name, "", true);
    answer["done_reason"] = if kept { "load" } else { "unload" }.into();
    answer
}

/// Calls of tools.
fn calls_json(calls: Vec<ToolCall>) -> Value {
    let call = |(index, ToolCall { name, arguments }): (usize, ToolCall)| {
        let function = json!({ "index": index, "name": name, "arguments": arguments });
        json!({ "id": call_id(), "function": function })
    };
    calls.into_iter().enumerate().map(call).collect()
}

/// A line of a stream.
fn line(out: &mut String, value: &Value) {
    out.push_str(&value.to_string());
    out.push('\n');
}

impl Answer {
    /// For a model called `name`; with `prompt`, the last part tells all tokens.
    pub(super) fn new(
        app: &App,
        form: Form,
        name: String,
        params: &GenerationParams,
        tools: Option<Calling>,
        prompt: Option<Vec<u32>>,
    ) -> Self {
        Self {
            form,
            name,
            model: app.model.clone(),
            began: Instant::now(),
            logprobs: params.logprobs.is_some(),
            prompt,
            tools,
            held: Held::new(tools),
        }
    }

    fn part(&self, text: &str, done: bool) -> Value {
        part(self.form, &self.name, text, done)
    }

    /// The probability of a token. Clients want a number: that of a token without alternative is 1.
    fn logprob(&self, logprob: &TokenLogprob) -> Value {
        let mut value = logprob_json(&self.model, logprob);
        if value["logprob"].is_null() {
            value["logprob"] = json!(0.0);
        }
        value
    }

    /// The last part, with the text that belongs to it.
    fn last(&self, text: &str, end: &End) -> Value {
        let mut last = self.part(text, true);
        last["done_reason"] = reason_name(end.reason).into();
        last["total_duration"] = nanos(self.began.elapsed()).into();
        last["load_duration"] = nanos(Duration::ZERO).into();
        last["prompt_eval_count"] = end.usage.prompt.into();
        last["prompt_eval_duration"] = nanos(end.stats.prefill).into();
        last["eval_count"] = end.usage.generated.into();
        last["eval_duration"] = nanos(end.stats.decode).into();
        if let Some(prompt) = &self.prompt {
            last["context"] = prompt.iter().chain(&end.ids).copied().collect();
        }
        last
    }
}

impl Format for Answer {
    fn whole(self: Box<Self>, collected: Vec<Collected>) -> Box<dyn Iterator<Item = String> + Send> {
        let Some(Collected { text, logprobs, end: Some(end) }) = collected.into_iter().next() else {
            return Box::new(std::iter::empty());
        };
        let Answered { content, calls } = read(self.tools, &text);
        let mut answer = self.last(&content, &end);
        if !calls.is_empty() {
            answer["message"]["tool_calls"] = calls_json(calls);
        }
        let mut all = answer.to_string();
        if !self.logprobs {
            return Box::new(std::iter::once(all));
        }
        // Twenty likely tokens for each one take much room: as text at once, and never all of them as values.
        all.truncate(all.len() - "}".len());
        all.push_str(",\"logprobs\":[");
        let entries = logprobs.into_iter().enumerate().map(move |(at, logprob)| {
            let before = if at == 0 { "" } else { "," };
            format!("{before}{}", self.logprob(&logprob))
        });
        Box::new(std::iter::once(all).chain(entries).chain(std::iter::once("]}".to_owned())))
    }

    fn stream_type(&self) -> &'static str {
        "application/x-ndjson"
    }

    /// A space before a line belongs to its JSON.
    fn nothing(&self) -> &'static str {
        " "
    }

    fn begin(&mut self, _: usize, _: &mut String) {}

    fn piece(&mut self, _: usize, text: &str, logprob: Option<TokenLogprob>, out: &mut String) {
        let text = self.held.push(text);
        if text.is_empty() && logprob.is_none() {
            return;
        }
        let mut part = self.part(&text, false);
        if let Some(logprob) = logprob.filter(|_| self.logprobs) {
            part["logprobs"] = json!([self.logprob(&logprob)]);
        }
        line(out, &part);
    }

    fn done(&mut self, _: usize, end: &End, out: &mut String) {
        let (rest, calls) = self.held.end();
        if !rest.is_empty() {
            line(out, &self.part(&rest, false));
        }
        if !calls.is_empty() {
            let mut part = self.part("", false);
            part["message"]["tool_calls"] = calls_json(calls);
            line(out, &part);
        }
        line(out, &self.last("", end));
    }

    /// Not part of this interface.
    fn progress(&mut self, _: usize, _: &Progress, _: &mut String) {}

    /// The last line of the text has told all.
    fn all_done(&mut self, _: &[Usage], _: &mut String) {}

    fn failed(&mut self, error: &ApiError, out: &mut String) {
        line(out, &error.json_for(Dialect::Ollama));
    }
}
