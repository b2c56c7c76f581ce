//! An answer of this interface: an object with items, or a stream of events that build it.

use bitnet::{FinishReason, TokenLogprob};
use loader::chat::{Answered, ToolCall};
use serde_json::{Value, json};

use crate::api::answer::{call_id, unique};
use crate::api::format::{Collected, Format};
use crate::api::held::{Calling, Held, read};
use crate::api::{ApiError, now};
use crate::engine::{End, Progress, Usage};
use crate::state::App;

/// Longest repetition of a request in its answer, in bytes of JSON. A longer one is left out: a stream repeats it three
/// times.
const MAX_REPEATED: usize = 64 << 10;

/// Everything that the parts of an answer share.
#[derive(Debug)]
pub(super) struct Answer {
    id: String,
    created: u64,
    name: String,
    /// The fields of the request that an answer repeats.
    request: Value,
    held: Held,
    calling: Option<Calling>,
    /// Events so far.
    number: u64,
    /// The message that the text of a stream belongs to, and the text so far.
    open: Option<(String, String)>,
    /// Items that are complete.
    output: Vec<Value>,
    /// How the text of a stream ended.
    cut: bool,
}

/// A message.
fn message(id: &str, text: Option<&str>, status: &str) -> Value {
    let content: Vec<Value> = text.map(part).into_iter().collect();
    json!({ "id": id, "type": "message", "status": status, "role": "assistant", "content": content })
}

fn part(text: &str) -> Value {
    json!({ "type": "output_text", "text": text, "annotations": [], "logprobs": [] })
}

/// A call, with its arguments or before them.
fn call(id: &str, call_id: &str, name: &str, arguments: &str, status: &str) -> Value {
    json!({ "id": id, "type": "function_call", "status": status, "call_id": call_id, "name": name, "arguments": arguments })
}

/// The name of an item or of an answer.
fn name(kind: &str) -> String {
    format!("{kind}_{:016x}", unique())
}

fn status(cut: bool) -> &'static str {
    if cut { "incomplete" } else { "completed" }
}

impl Answer {
    /// `request` has the fields that an answer repeats.
    pub(super) fn new(app: &App, mut request: Value, calling: Option<Calling>) -> Self {
        if request.to_string().len() > MAX_REPEATED {
            for (field, nothing) in [("instructions", json!(null)), ("metadata", json!({})), ("tools", json!([]))] {
                request[field] = nothing;
            }
            // A schema may be what is long.
            request["text"] = json!({ "format": { "type": "text" } });
        }
        Self {
            id: name("resp"),
            created: now(),
            name: app.name.clone(),
            request,
            held: Held::new(calling),
            calling,
            number: 0,
            open: None,
            output: Vec::new(),
            cut: false,
        }
    }

    /// The whole object.
    fn object(&self, status: &str, output: &[Value], usage: Option<Usage>) -> Value {
        let mut object = json!({
            "id": self.id,
            "object": "response",
            "created_at": self.created,
            "status": status,
            "background": false,
            "error": null,
            "incomplete_details": null,
            "model": self.name,
            "output": output,
            "previous_response_id": null,
            "reasoning": { "effort": null, "summary": null },
            "service_tier": "default",
            "store": false,
            "top_logprobs": 0,
            "truncation": "disabled",
            "usage": null,
            "user": null,
        });
        if status == "incomplete" {
            object["incomplete_details"] = json!({ "reason": "max_output_tokens" });
        }
        if let Some(Usage { prompt, cached, generated }) = usage {
            object["usage"] = json!({
                "input_tokens": prompt,
                "input_tokens_details": { "cached_tokens": cached },
                "output_tokens": generated,
                "output_tokens_details": { "reasoning_tokens": 0 },
                "total_tokens": prompt + generated,
            });
        }
        if let (Some(object), Some(request)) = (object.as_object_mut(), self.request.as_object()) {
            object.extend(request.clone());
        }
        object
    }

    /// An event of a stream.
    fn event(&mut self, out: &mut String, kind: &str, mut value: Value) {
        value["type"] = kind.into();
        value["sequence_number"] = self.number.into();
        self.number += 1;
        out.push_str("event: ");
        out.push_str(kind);
        out.push_str("\ndata: ");
        out.push_str(&value.to_string());
        out.push_str("\n\n");
    }

    /// An event with the whole object as it is.
    fn whole_event(&mut self, out: &mut String, kind: &str, status: &str, usage: Option<Usage>) {
        let response = self.object(status, &self.output, usage);
        self.event(out, kind, json!({ "response": response }));
    }

    /// Adds to the message of a stream, which begins with its first text.
    fn add(&mut self, text: &str, out: &mut String) {
        let index = self.output.len();
        let id = match &mut self.open {
            Some((id, all)) => {
                all.push_str(text);
                id.clone()
            }
            None => {
                let id = name("msg");
                let begun = message(&id, None, "in_progress");
                self.event(out, "response.output_item.added", json!({ "output_index": index, "item": begun }));
                let place = json!({ "item_id": id, "output_index": index, "content_index": 0, "part": part("") });
                self.event(out, "response.content_part.added", place);
                self.open = Some((id.clone(), text.to_owned()));
                id
            }
        };
        if !text.is_empty() {
            let delta =
                json!({ "item_id": id, "output_index": index, "content_index": 0, "delta": text, "logprobs": [] });
            self.event(out, "response.output_text.delta", delta);
        }
    }

    /// Ends the message of a stream.
    fn close(&mut self, out: &mut String) {
        let Some((id, text)) = self.open.take() else { return };
        let index = self.output.len();
        let place = json!({ "item_id": id, "output_index": index, "content_index": 0 });
        let with = |field: &str, value: Value| {
            let mut place = place.clone();
            place[field] = value;
            place
        };
        let mut done = with("text", json!(text));
        done["logprobs"] = json!([]);
        self.event(out, "response.output_text.done", done);
        self.event(out, "response.content_part.done", with("part", part(&text)));
        let item = message(&id, Some(&text), status(self.cut));
        self.event(out, "response.output_item.done", json!({ "output_index": index, "item": item }));
        self.output.push(item);
    }

    /// A call in a stream, whole.
    fn called(&mut self, ToolCall { name: tool, arguments }: ToolCall, out: &mut String) {
        let (id, call_id, index) = (name("fc"), call_id(), self.output.len());
        let arguments = Value::Object(arguments).to_string();
        let begun = call(&id, &call_id, &tool, "", "in_progress");
        self.event(out, "response.output_item.added", json!({ "output_index": index, "item": begun }));
        let delta = json!({ "item_id": id, "output_index": index, "delta": arguments });
        self.event(out, "response.function_call_arguments.delta", delta);
        let done = json!({ "item_id": id, "output_index": index, "name": tool, "arguments": arguments });
        self.event(out, "response.function_call_arguments.done", done);
        let item = call(&id, &call_id, &tool, &arguments, "completed");
        self.event(out, "response.output_item.done", json!({ "output_index": index, "item": item }));
        self.output.push(item);
    }
}

impl Format for Answer {
    fn whole(self: Box<Self>, collected: Vec<Collected>) -> Box<dyn Iterator<Item = String> + Send> {
        let Some(Collected { text, end: Some(end), .. }) = collected.into_iter().next() else {
            return Box::new(std::iter::empty());
        };
        let cut = end.reason == FinishReason::Length;
        let Answered { content, calls } = read(self.calling, &text);
        let mut output = Vec::new();
        if !content.is_empty() || calls.is_empty() {
            output.push(message(&name("msg"), Some(&content), status(cut)));
        }
        output.extend(calls.into_iter().map(|ToolCall { name: tool, arguments }| {
            call(&name("fc"), &call_id(), &tool, &Value::Object(arguments).to_string(), "completed")
        }));
        Box::new(std::iter::once(self.object(status(cut), &output, Some(end.usage)).to_string()))
    }

    fn stream_type(&self) -> &'static str {
        "text/event-stream"
    }

    fn nothing(&self) -> &'static str {
        ": waiting\n\n"
    }

    fn begin(&mut self, _: usize, out: &mut String) {
        self.whole_event(out, "response.created", "in_progress", None);
        self.whole_event(out, "response.in_progress", "in_progress", None);
    }

    fn piece(&mut self, _: usize, text: &str, _: Option<TokenLogprob>, out: &mut String) {
        let text = self.held.push(text).into_owned();
        if !text.is_empty() {
            self.add(&text, out);
        }
    }

    fn done(&mut self, _: usize, end: &End, out: &mut String) {
        self.cut = end.reason == FinishReason::Length;
        let (rest, calls) = self.held.end();
        // An answer has an item, even if it has no text.
        if !rest.is_empty() || (self.open.is_none() && calls.is_empty()) {
            self.add(&rest, out);
        }
        self.close(out);
        for call in calls {
            self.called(call, out);
        }
    }

    /// Not part of this interface.
    fn progress(&mut self, _: usize, _: &Progress, _: &mut String) {}

    fn all_done(&mut self, usage: &[Usage], out: &mut String) {
        let kind = if self.cut { "response.incomplete" } else { "response.completed" };
        self.whole_event(out, kind, status(self.cut), usage.first().copied());
    }

    fn failed(&mut self, error: &ApiError, out: &mut String) {
        let mut response = self.object("failed", &self.output, None);
        let told = error.json();
        let error = &told["error"];
        let code = error["code"].as_str().unwrap_or("server_error");
        response["error"] = json!({ "code": code, "message": error["message"] });
        self.event(out, "response.failed", json!({ "response": response }));
    }
}
