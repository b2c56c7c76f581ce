//! `POST /v1/chat/completions`.

use std::sync::Arc;

use axum::extract::{Request, State};
use axum::response::Response;
use bitnet::Message;
use serde_json::{Value, json};

use super::answer::Form;
use super::{Answer, ApiError, Draft, Fields, Wanted, generated, quoted, take_model};
use crate::app::App;

/// Most messages of a conversation.
const MAX_MESSAGES: usize = 4096;

/// Answers a conversation.
pub(crate) async fn chat(State(app): State<Arc<App>>, request: Request) -> Result<Response, ApiError> {
    generated(app, request, plan).await
}

pub(super) fn plan(app: &App, body: &[u8]) -> Result<Draft, ApiError> {
    let mut fields = Fields::of_body(body)?;
    take_model(&mut fields, app)?;
    let messages = messages(&mut fields)?;
    // Without a limit an answer may take what is left of the context.
    let limits = ["max_completion_tokens", "max_tokens"];
    let mut wanted = Wanted::take(&mut fields, app, &limits, usize::MAX)?;
    let told = fields.boolean("logprobs")?;
    let top = fields.integer("top_logprobs", 0..=20)?;
    wanted.logprobs = match (told, top) {
        (false, Some(_)) => return Err(fields.wrong("top_logprobs", "it goes with `logprobs: true` only")),
        (false, None) => None,
        (true, top) => Some(top.unwrap_or(0)),
    };
    fields.refuse(&[
        ("tools", &[]),
        ("tool_choice", &[json!("none"), json!("auto")]),
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
    let ids = app.model.encode_chat(&messages)?;
    let answer = Answer::new(app, Form::Chat, &wanted);
    Draft::new(app, wanted, vec![ids], "messages", answer)
}

/// `messages`: who said what.
fn messages(fields: &mut Fields) -> Result<Vec<Message>, ApiError> {
    match fields.take("messages") {
        Some(Value::Array(all)) if all.len() > MAX_MESSAGES => {
            let message = format!("{} messages are given and at most {MAX_MESSAGES} are allowed", all.len());
            Err(ApiError::field("messages", message))
        }
        Some(Value::Array(all)) if !all.is_empty() => {
            all.into_iter().enumerate().map(|(i, m)| message(m, &format!("messages[{i}]"))).collect()
        }
        None => Err(ApiError::field("messages", "it is missing; it must be a list of at least one message")),
        Some(_) => Err(ApiError::field("messages", "it must be a list of at least one message")),
    }
}

fn message(value: Value, name: &str) -> Result<Message, ApiError> {
    let mut fields = Fields::of_value(value, name)?;
    let role = match fields.text("role")?.as_deref() {
        Some(role @ ("system" | "user" | "assistant")) => role.to_owned(),
        // What newer models call their instruction.
        Some("developer") => "system".to_owned(),
        Some("tool" | "function") => {
            return Err(ApiError::unsupported(fields.name("role"), "this server knows no tools"));
        }
        _ => return Err(fields.wrong("role", "it must be system, user or assistant")),
    };
    let content = match fields.take("content") {
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
    // Clients send back what they got, empty fields included.
    fields.refuse(&[("tool_calls", &[]), ("function_call", &[]), ("audio", &[]), ("refusal", &[])])?;
    fields.ignore(&["annotations"]);
    fields.finish()?;
    Ok(message)
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
