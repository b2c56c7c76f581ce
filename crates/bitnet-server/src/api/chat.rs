//! `POST /v1/chat/completions`.

use std::sync::Arc;

use axum::extract::{Request, State};
use axum::response::Response;
use bitnet::Message;
use loader::chat::RenderOptions;
use serde_json::{Map, Value, json};

use super::answer::Form;
use super::tools::{NO_TOOLS, Tools, form};
use super::{Answer, ApiError, Asked, Draft, Fields, GenerationParams, generated, quoted, take_model};
use crate::state::{App, Site};

/// Most messages of a conversation.
pub(super) const MAX_MESSAGES: usize = 4096;

/// Answers a conversation.
pub(crate) async fn chat(State(site): State<Arc<Site>>, request: Request) -> Result<Response, ApiError> {
    generated(site, request, plan).await
}

pub(super) fn plan(app: &App, mut fields: Fields) -> Result<Asked, ApiError> {
    take_model(&mut fields, app)?;
    let messages = messages(&mut fields, app)?;
    // Without a limit an answer may take the rest of the context.
    let limits = ["max_completion_tokens", "max_tokens"];
    let mut params = GenerationParams::take(&mut fields, app, &limits, 1, usize::MAX)?;
    let told = fields.boolean("logprobs")?;
    let top = fields.integer("top_logprobs", 0..=20)?;
    params.logprobs = match (told, top) {
        (false, Some(_)) => return Err(fields.wrong("top_logprobs", "it goes with `logprobs: true` only")),
        (false, None) => None,
        (true, top) => Some(top.unwrap_or(0)),
    };
    let tools = Tools::take(&mut fields, app, &mut params)?;
    fields.refuse(&[
        ("functions", &[]),
        ("function_call", &[json!("none"), json!("auto")]),
        ("modalities", &[json!(["text"])]),
        ("audio", &[]),
        ("prediction", &[]),
        ("reasoning_effort", &[]),
        ("verbosity", &[]),
        ("web_search_options", &[]),
    ])?;
    fields.finish()?;
    let mut options = RenderOptions::default();
    let mut answer = Box::new(Answer::new(app, Form::Chat, &params));
    if let Some(Tools { list, calling }) = tools {
        options.tools = Some(list);
        answer.tools = Some(calling);
    }
    let ids = app.model.encode_chat_with(&messages, &options)?;
    Draft::new(app, params, vec![ids], "messages", answer).map(Asked::from)
}

/// `messages`: the messages with their roles.
pub(super) fn messages(fields: &mut Fields, app: &App) -> Result<Vec<Message>, ApiError> {
    match fields.take("messages") {
        Some(Value::Array(all)) if !all.is_empty() => read_messages(all, app, message),
        None => Err(ApiError::field("messages", "it is missing; it must be a list of at least one message")),
        Some(_) => Err(ApiError::field("messages", "it must be a list of at least one message")),
    }
}

/// The messages of a list; `read` gets each with its name, and whether tools are supported.
pub(super) fn read_messages(
    all: Vec<Value>,
    app: &App,
    read: fn(Value, &str, bool) -> Result<Message, ApiError>,
) -> Result<Vec<Message>, ApiError> {
    if all.len() > MAX_MESSAGES {
        let message = format!("{} messages given, at most {MAX_MESSAGES} allowed", all.len());
        return Err(ApiError::field("messages", message));
    }
    let tools = form(app).is_some();
    all.into_iter().enumerate().map(|(i, m)| read(m, &format!("messages[{i}]"), tools)).collect()
}

/// One message; with `tools` it may be the result of a tool, or call some.
fn message(value: Value, name: &str, tools: bool) -> Result<Message, ApiError> {
    let mut fields = Fields::of_value(value, name)?;
    let role = match fields.text("role")?.as_deref() {
        Some(role @ ("system" | "user" | "assistant")) => role.to_owned(),
        // The role of the instruction for newer models.
        Some("developer") => "system".to_owned(),
        Some("tool") if tools => "tool".to_owned(),
        Some("tool" | "function") => return Err(ApiError::unsupported(fields.name("role"), NO_TOOLS)),
        _ => return Err(fields.wrong("role", "it must be system, user, assistant or tool")),
    };
    let calls = match fields.take("tool_calls") {
        Some(Value::Array(all)) if all.is_empty() => None,
        Some(Value::Array(all)) if tools && role == "assistant" => {
            let name = fields.name("tool_calls");
            let calls = all.into_iter().enumerate().map(|(i, call)| tool_call(call, &format!("{name}[{i}]")));
            Some(calls.collect::<Result<Vec<_>, _>>()?)
        }
        Some(_) if !tools => return Err(ApiError::unsupported(fields.name("tool_calls"), NO_TOOLS)),
        Some(_) => return Err(fields.wrong("tool_calls", "it must be a list of calls of the assistant")),
        None => None,
    };
    let content = match fields.take("content") {
        None if calls.is_some() => String::new(),
        Some(Value::String(text)) => text,
        Some(Value::Array(parts)) => {
            let name = fields.name("content");
            let parts = parts.into_iter().enumerate().map(|(i, p)| part(p, &format!("{name}[{i}]")));
            parts.collect::<Result<Vec<_>, _>>()?.concat()
        }
        _ => return Err(fields.wrong("content", "it must be a string or a list of text parts")),
    };
    let mut message = Message::new(role, content);
    if let Some(name) = fields.text("name")? {
        message.extra.insert("name".into(), name.into());
    }
    if let Some(calls) = calls {
        message.extra.insert("tool_calls".into(), calls.into());
    }
    if message.role == "tool"
        && let Some(id) = fields.text("tool_call_id")?
    {
        message.extra.insert("tool_call_id".into(), id.into());
    }
    // Clients send back what they received, including empty fields.
    fields.refuse(&[("function_call", &[]), ("audio", &[]), ("refusal", &[])])?;
    fields.ignore(&["annotations"]);
    fields.finish()?;
    Ok(message)
}

/// A call in a message, in the form for templates: arguments are values there, and text in this interface.
fn tool_call(value: Value, name: &str) -> Result<Value, ApiError> {
    let mut fields = Fields::of_value(value, name)?;
    if !matches!(fields.text("type")?.as_deref(), None | Some("function")) {
        return Err(fields.wrong("type", "it must be function"));
    }
    let id = fields.text("id")?;
    let inner = fields.take("function").ok_or_else(|| fields.wrong("function", "it is missing"))?;
    let mut function = Fields::of_value(inner, &fields.name("function"))?;
    let called = function.text("name")?.ok_or_else(|| function.wrong("name", "it is missing"))?;
    let arguments = match function.text("arguments")?.as_deref().map(str::trim) {
        None | Some("") => json!({}),
        Some(text) => serde_json::from_str::<Map<String, Value>>(text)
            .map_err(|error| function.wrong("arguments", format!("it must be the text of a JSON object: {error}")))?
            .into(),
    };
    function.finish()?;
    fields.ignore(&["index"]);
    fields.finish()?;
    Ok(json!({ "id": id, "type": "function", "function": { "name": called, "arguments": arguments } }))
}

/// A part of a message: text, or something that this server cannot read.
fn part(value: Value, name: &str) -> Result<String, ApiError> {
    let mut fields = Fields::of_value(value, name)?;
    match fields.text("type")?.as_deref() {
        Some("text") => {}
        Some(other) => {
            let message = format!("{} cannot be read; this server reads text only", quoted(other));
            return Err(ApiError::unsupported(fields.name("type"), message));
        }
        None => return Err(fields.wrong("type", "it is missing; it must be text")),
    }
    let text = fields.text("text")?.ok_or_else(|| fields.wrong("text", "it is missing"))?;
    fields.finish()?;
    Ok(text)
}
