//! `POST /api/chat`.

use std::sync::Arc;

use axum::extract::{Request, State};
use axum::response::Response;
use bitnet::{Message, RenderOptions};
use serde_json::{Value, json};

use super::answer::{Answer, loaded};
use super::options;
use crate::api::answer::Form;
use crate::api::chat::read_messages;
use crate::api::tools::{NO_TOOLS, Tools};
use crate::api::{ApiError, Asked, Draft, Fields, generated, take_model};
use crate::state::{App, Site};

/// Answers a conversation.
pub(crate) async fn chat(State(site): State<Arc<Site>>, request: Request) -> Result<Response, ApiError> {
    generated(site, request, plan).await
}

pub(in crate::api) fn plan(app: &App, mut fields: Fields) -> Result<Asked, ApiError> {
    let name = take_model(&mut fields, app)?;
    let kept = options::keep_alive(&mut fields, app)?;
    let mut params = options::params(&mut fields, app)?;
    let mut render = RenderOptions::default();
    if let Some(think) = options::think(&mut fields)? {
        render.extra.insert("enable_thinking".into(), think.into());
    }
    let tools = Tools::take(&mut fields, app, &mut params)?;
    let calling = tools.as_ref().map(|tools| tools.calling);
    render.tools = tools.map(|tools| tools.list);
    let truncate = fields.boolean_or("truncate", true)?;
    let messages = match fields.take("messages") {
        None => Vec::new(),
        Some(Value::Array(all)) => read_messages(all, app, message)?,
        Some(_) => return Err(fields.wrong("messages", "it must be a list of messages")),
    };
    fields.leave();
    if messages.is_empty() {
        return Ok(Asked::Nothing(loaded(Form::Chat, &name, kept)));
    }
    let ids = encode(app, &messages, &render, truncate)?;
    let answer = Box::new(Answer::new(app, Form::Chat, name, &params, calling, None));
    Draft::new(app, params, vec![ids], "messages", answer).map(Asked::from)
}

/// The tokens of a conversation. With `truncate`, its oldest messages are left out until there is room for an answer,
/// but never those of the system nor the last one.
fn encode(app: &App, messages: &[Message], render: &RenderOptions, truncate: bool) -> Result<Vec<u32>, ApiError> {
    let limit = app.model.context();
    let all = app.model.encode_chat_with(messages, render)?;
    let last = messages.len() - 1;
    if !truncate || all.len() < limit || last == 0 {
        return Ok(all);
    }
    let without = |count: usize| {
        let (old, rest) = messages.split_at(count);
        let kept: Vec<Message> = old.iter().filter(|m| m.role == "system").chain(rest).cloned().collect();
        app.model.encode_chat_with(&kept, render)
    };
    let fewest = without(last)?;
    if fewest.len() >= limit {
        return Ok(fewest);
    }
    // As many of the newest as have room by their texts alone: nothing below reads more than a few contexts.
    let (mut room, mut newest) = (limit, 0_usize);
    for message in messages.iter().rev() {
        let Some(left) = room.checked_sub(app.model.encode(&message.content, false)?.len()) else { break };
        (room, newest) = (left, newest + 1);
    }
    // The fewest that are to be left out. A template may refuse to begin with an answer: then one more is.
    let (mut low, mut high) = ((messages.len() - newest).clamp(1, last), last);
    while low < high {
        let middle = low.midpoint(high);
        match without(middle) {
            Ok(ids) if ids.len() < limit => high = middle,
            _ => low = middle + 1,
        }
    }
    Ok(without(low)?)
}

/// One message; with `tools` it may be the result of a tool, or call some.
fn message(value: Value, name: &str, tools: bool) -> Result<Message, ApiError> {
    let mut fields = Fields::of_value(value, name)?;
    let role = match fields.text("role")?.map(|role| role.to_lowercase()) {
        Some(role) if ["system", "user", "assistant"].contains(&role.as_str()) => role,
        Some(role) if role == "tool" && tools => role,
        Some(role) if role == "tool" => return Err(ApiError::unsupported(fields.name("role"), NO_TOOLS)),
        _ => return Err(fields.wrong("role", "it must be system, user, assistant or tool")),
    };
    fields.refuse(&[("images", &[])])?;
    let mut message = Message::new(role, fields.text("content")?.unwrap_or_default());
    match fields.take("tool_calls") {
        None => {}
        Some(Value::Array(all)) if all.is_empty() => {}
        Some(Value::Array(all)) if tools && message.role == "assistant" => {
            let name = fields.name("tool_calls");
            let calls = all.into_iter().enumerate().map(|(i, call)| tool_call(call, &format!("{name}[{i}]")));
            message.extra.insert("tool_calls".into(), calls.collect::<Result<Vec<Value>, _>>()?.into());
        }
        Some(_) if !tools => return Err(ApiError::unsupported(fields.name("tool_calls"), NO_TOOLS)),
        Some(_) => return Err(fields.wrong("tool_calls", "it must be a list of calls of the assistant")),
    }
    // The names that templates have for them.
    for (field, known_as) in
        [("thinking", "reasoning_content"), ("tool_name", "name"), ("tool_call_id", "tool_call_id")]
    {
        if let Some(text) = fields.text(field)?.filter(|text| !text.is_empty()) {
            message.extra.insert(known_as.into(), text.into());
        }
    }
    fields.leave();
    Ok(message)
}

/// A call in a message, in the form for templates.
fn tool_call(value: Value, name: &str) -> Result<Value, ApiError> {
    let mut fields = Fields::of_value(value, name)?;
    let id = fields.text("id")?;
    let inner = fields.take("function").ok_or_else(|| fields.wrong("function", "it is missing"))?;
    let mut function = Fields::of_value(inner, &fields.name("function"))?;
    let called = function.text("name")?.ok_or_else(|| function.wrong("name", "it is missing"))?;
    let arguments = match function.take("arguments") {
        None => json!({}),
        Some(arguments @ Value::Object(_)) => arguments,
        Some(_) => return Err(function.wrong("arguments", "it must be an object")),
    };
    function.leave();
    fields.leave();
    Ok(json!({ "id": id, "type": "function", "function": { "name": called, "arguments": arguments } }))
}
