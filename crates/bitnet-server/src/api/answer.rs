//! Texts as the JSON of OpenAI's two interfaces, whole or in pieces.

use std::hash::{BuildHasher, RandomState};
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use bitnet::{Model, TokenLogprob};
use loader::chat::{Answered, ToolCall};
use serde_json::{Map, Value, json};

use super::format::{Collected, Format, finite, reason_name};
use super::held::{Calling, Held, read};
use super::{ApiError, now};
use crate::engine::{End, Progress, Usage};
use crate::state::App;

/// Which interface.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Form {
    /// `/v1/chat/completions`.
    Chat,
    /// `/v1/completions`.
    Text,
}

/// A prompt that is a part of its answer.
#[derive(Debug, Default)]
pub(crate) struct Echo {
    pub(crate) text: String,
    /// Tokens at its begin that are not part of the text.
    pub(crate) hidden: usize,
    /// Its tokens, if probabilities are included.
    pub(crate) logprobs: Vec<TokenLogprob>,
}

/// Fields that all parts of an answer share.
#[derive(Debug)]
pub(crate) struct Answer {
    form: Form,
    id: String,
    created: u64,
    name: String,
    model: Model,
    /// Whether probabilities are included.
    logprobs: bool,
    /// Whether a stream ends with the number of tokens.
    include_usage: bool,
    /// Texts for each prompt: the tokens of a prompt count once.
    n: usize,
    /// Characters of each text so far, for `text_offset`.
    offsets: Vec<usize>,
    /// The prompts, if their texts begin with them.
    pub(crate) echo: Vec<Echo>,
    /// How the model calls tools, if it was given some.
    pub(crate) tools: Option<Calling>,
    /// The texts of a stream.
    held: Vec<Held>,
}

/// A call of a tool; with its number in a stream.
fn call_json(call: ToolCall, index: Option<usize>) -> Value {
    let ToolCall { name, arguments } = call;
    let id = call_id();
    let function = json!({ "name": name, "arguments": Value::Object(arguments).to_string() });
    let mut value = json!({ "id": id, "type": "function", "function": function });
    if let Some(index) = index {
        value["index"] = index.into();
    }
    value
}

/// The name of a call.
pub(super) fn call_id() -> String {
    format!("call_{:016x}", unique())
}

/// The probability of a token of a chat.
pub(super) fn logprob_json(model: &Model, logprob: &TokenLogprob) -> Value {
    let one = |token: u32, logprob: Option<f64>| {
        let bytes = token_bytes(model, token);
        json!({ "token": String::from_utf8_lossy(bytes), "logprob": logprob.map(finite), "bytes": bytes })
    };
    let mut entry = one(logprob.token, logprob.logprob);
    entry["top_logprobs"] = logprob.top.iter().map(|(t, p)| one(*t, Some(*p))).collect();
    entry
}

fn token_bytes(model: &Model, token: u32) -> &[u8] {
    model.tokenizer().and_then(|t| t.token_bytes(token)).unwrap_or_default()
}

/// An event of a stream.
fn event(out: &mut String, value: &Value) {
    out.push_str("data: ");
    out.push_str(&value.to_string());
    out.push_str("\n\n");
}

/// A unique number that cannot be guessed.
pub(super) fn unique() -> u64 {
    static COUNT: AtomicU64 = AtomicU64::new(0);
    RandomState::new().hash_one(COUNT.fetch_add(1, Relaxed))
}

impl Answer {
    pub(crate) fn new(app: &App, form: Form, params: &super::GenerationParams) -> Self {
        let kind = if form == Form::Chat { "chatcmpl" } else { "cmpl" };
        Self {
            form,
            id: format!("{kind}-{:016x}", unique()),
            created: now(),
            name: app.name.clone(),
            model: app.model.clone(),
            logprobs: params.logprobs.is_some(),
            include_usage: params.include_usage,
            n: params.n,
            offsets: Vec::new(),
            echo: Vec::new(),
            tools: None,
            held: Vec::new(),
        }
    }

    /// A whole text, in parts.
    fn choice(&mut self, index: usize, collected: Collected) -> Vec<String> {
        let Collected { text, logprobs, end } = collected;
        let finish_reason = end.map(|end| reason_name(end.reason));
        if self.form == Form::Text {
            let (before, text) = (self.logprobs_of_echo(index), format!("{}{text}", self.echo_of(index)));
            let logprobs = self.logprobs_json(index, &[before, logprobs].concat());
            let choice = json!({ "index": index, "text": text, "logprobs": logprobs, "finish_reason": finish_reason });
            return vec![choice.to_string()];
        }
        let Answered { content, calls } = read(self.tools, &text);
        let mut message = json!({ "role": "assistant", "content": content, "refusal": null });
        let mut finish_reason = json!(finish_reason);
        if !calls.is_empty() {
            message["content"] = if content.is_empty() { Value::Null } else { content.into() };
            message["tool_calls"] = calls.into_iter().map(|call| call_json(call, None)).collect();
            finish_reason = json!("tool_calls");
        }
        let begin = format!("{{\"index\":{index},\"message\":{message},\"logprobs\":");
        if !self.logprobs {
            return vec![format!("{begin}null,\"finish_reason\":{finish_reason}}}")];
        }
        // Twenty likely tokens for each one take much room: as text at once, and never all of them as values.
        let mut parts = vec![format!("{begin}{{\"content\":[")];
        for (at, logprob) in logprobs.iter().enumerate() {
            let before = if at == 0 { "" } else { "," };
            parts.push(format!("{before}{}", logprob_json(&self.model, logprob)));
        }
        parts.push(format!("],\"refusal\":null}},\"finish_reason\":{finish_reason}}}"));
        parts
    }

    /// The prompt of a text, if the text begins with it.
    fn echo_of(&self, index: usize) -> &str {
        self.echo.get(index / self.n.max(1)).map_or("", |echo| &echo.text)
    }

    /// The tokens of that prompt.
    fn logprobs_of_echo(&self, index: usize) -> Vec<TokenLogprob> {
        let echo = self.echo.get(index / self.n.max(1));
        echo.and_then(|echo| echo.logprobs.get(echo.hidden..)).map(<[_]>::to_vec).unwrap_or_default()
    }

    fn plain_piece(&mut self, choice: usize, text: &str, logprob: Option<TokenLogprob>) -> Value {
        let logprobs = logprob.map(|l| self.logprobs_json(choice, &[l]));
        match self.form {
            Form::Chat => self.chunk(choice, json!({ "content": text }), logprobs, None),
            Form::Text => self.chunk(choice, json!(text), logprobs, None),
        }
    }

    /// The end of a stream: the number of tokens.
    fn last(&self, usage: &[Usage]) -> Value {
        let mut chunk = self.around(self.chunk_object(), Vec::new());
        chunk["usage"] = self.usage(usage);
        chunk
    }

    fn chunk_object(&self) -> &'static str {
        if self.form == Form::Chat { "chat.completion.chunk" } else { "text_completion" }
    }

    fn chunk(&self, choice: usize, content: Value, logprobs: Option<Value>, reason: Option<&str>) -> Value {
        let name = if self.form == Form::Chat { "delta" } else { "text" };
        let choice = json!({ "index": choice, name: content, "logprobs": logprobs, "finish_reason": reason });
        self.around(self.chunk_object(), vec![choice])
    }

    fn around(&self, object: &str, choices: Vec<Value>) -> Value {
        json!({
            "id": self.id,
            "object": object,
            "created": self.created,
            "model": self.name,
            "choices": choices,
        })
    }

    /// Counts of tokens over all texts of the request.
    fn usage(&self, usage: &[Usage]) -> Value {
        let of_prompts = usage.iter().step_by(self.n.max(1));
        let prompt: usize = of_prompts.clone().map(|u| u.prompt).sum();
        let cached: usize = of_prompts.map(|u| u.cached).sum();
        let generated: usize = usage.iter().map(|u| u.generated).sum();
        json!({
            "prompt_tokens": prompt,
            "completion_tokens": generated,
            "total_tokens": prompt + generated,
            "prompt_tokens_details": { "cached_tokens": cached },
        })
    }

    fn logprobs_json(&mut self, choice: usize, logprobs: &[TokenLogprob]) -> Value {
        if !self.logprobs {
            return Value::Null;
        }
        if self.form == Form::Chat {
            let content: Vec<Value> = logprobs.iter().map(|l| logprob_json(&self.model, l)).collect();
            return json!({ "content": content, "refusal": null });
        }
        let text = |token: u32| String::from_utf8_lossy(token_bytes(&self.model, token)).into_owned();
        let tokens: Vec<String> = logprobs.iter().map(|l| text(l.token)).collect();
        // Before the first token of a text nothing is known.
        let known = |l: &TokenLogprob| l.logprob.is_some() || !l.top.is_empty();
        let likely = |l: &TokenLogprob| l.top.iter().map(|(t, p)| (text(*t), json!(finite(*p)))).collect();
        let top: Vec<Option<Map<String, Value>>> = logprobs.iter().map(|l| known(l).then(|| likely(l))).collect();
        if self.offsets.len() <= choice {
            self.offsets.resize(choice + 1, 0);
        }
        let mut offset = self.offsets[choice];
        let starts = |l: &TokenLogprob| {
            let start = offset;
            // A character of several tokens counts with the first.
            offset += token_bytes(&self.model, l.token).iter().filter(|byte| !matches!(byte, 0x80..=0xbf)).count();
            start
        };
        let offsets: Vec<usize> = logprobs.iter().map(starts).collect();
        self.offsets[choice] = offset;
        json!({
            "tokens": tokens,
            "token_logprobs": logprobs.iter().map(|l| l.logprob.map(finite)).collect::<Vec<_>>(),
            "top_logprobs": top,
            "text_offset": offsets,
        })
    }
}

impl Format for Answer {
    fn scored(&mut self, prompts: Vec<Vec<TokenLogprob>>) {
        for (echo, logprobs) in self.echo.iter_mut().zip(prompts) {
            echo.logprobs = logprobs;
        }
    }

    fn whole(mut self: Box<Self>, collected: Vec<Collected>) -> Box<dyn Iterator<Item = String> + Send> {
        let usage: Vec<Usage> = collected.iter().filter_map(|c| c.end.as_ref()).map(|end| end.usage).collect();
        let object = if self.form == Form::Chat { "chat.completion" } else { "text_completion" };
        // The list of choices is empty and the last field.
        let mut begin = self.around(object, Vec::new()).to_string();
        begin.truncate(begin.len() - "]}".len());
        let end = format!("],\"usage\":{}}}", self.usage(&usage));
        let choices = collected.into_iter().enumerate().flat_map(move |(index, choice)| {
            let mut parts = self.choice(index, choice);
            if index > 0
                && let Some(first) = parts.first_mut()
            {
                first.insert(0, ',');
            }
            parts
        });
        Box::new(std::iter::once(begin).chain(choices).chain(std::iter::once(end)))
    }

    fn stream_type(&self) -> &'static str {
        "text/event-stream"
    }

    fn nothing(&self) -> &'static str {
        ": waiting\n\n"
    }

    fn begin(&mut self, count: usize, out: &mut String) {
        self.held = vec![Held::new(self.tools); count];
        if self.form == Form::Chat {
            for choice in 0..count {
                event(out, &self.chunk(choice, json!({ "role": "assistant", "content": "" }), None, None));
            }
        } else if !self.echo.is_empty() {
            for choice in 0..count {
                let (text, logprobs) = (json!(self.echo_of(choice)), self.logprobs_of_echo(choice));
                let logprobs = self.logprobs_json(choice, &logprobs);
                event(out, &self.chunk(choice, text, Some(logprobs), None));
            }
        }
    }

    fn piece(&mut self, choice: usize, text: &str, logprob: Option<TokenLogprob>, out: &mut String) {
        let text = match self.held.get_mut(choice) {
            Some(held) => held.push(text),
            None => text.into(),
        };
        if !text.is_empty() || logprob.is_some() {
            event(out, &self.plain_piece(choice, &text, logprob));
        }
    }

    fn done(&mut self, choice: usize, end: &End, out: &mut String) {
        let (rest, calls) = self.held.get_mut(choice).map(Held::end).unwrap_or_default();
        let mut reason = reason_name(end.reason);
        if !rest.is_empty() {
            event(out, &self.plain_piece(choice, &rest, None));
        }
        if !calls.is_empty() {
            let calls: Value = calls.into_iter().enumerate().map(|(i, call)| call_json(call, Some(i))).collect();
            event(out, &self.chunk(choice, json!({ "tool_calls": calls }), None, None));
            reason = "tool_calls";
        }
        let nothing = if self.form == Form::Chat { json!({}) } else { json!("") };
        event(out, &self.chunk(choice, nothing, None, Some(reason)));
    }

    /// Not part of OpenAI's interface: how far a text is, and the memory of its session.
    fn progress(&mut self, choice: usize, progress: &Progress, out: &mut String) {
        let mut chunk = self.around(self.chunk_object(), Vec::new());
        let stats = &progress.stats;
        chunk["state"] = json!({
            "index": choice,
            "tokens": progress.tokens,
            "prompt_tokens": progress.prompt,
            "cached_tokens": progress.cached,
            "completion_tokens": progress.generated,
            "kv_bytes": progress.kv_bytes,
            "constant_bytes": progress.constant_bytes,
            "prefill_seconds": stats.map(|s| s.prefill.as_secs_f64()),
            "decode_seconds": stats.map(|s| s.decode.as_secs_f64()),
        });
        event(out, &chunk);
    }

    fn all_done(&mut self, usage: &[Usage], out: &mut String) {
        if self.include_usage {
            event(out, &self.last(usage));
        }
        out.push_str("data: [DONE]\n\n");
    }

    fn failed(&mut self, error: &ApiError, out: &mut String) {
        event(out, &error.json());
    }
}
