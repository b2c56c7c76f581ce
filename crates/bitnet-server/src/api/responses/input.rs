//! `input`: the items of a conversation, as messages for a chat template.

use bitnet::Message;
use serde_json::{Map, Value, json};

use crate::api::chat::MAX_MESSAGES;
use crate::api::tools::{NO_TOOLS, form};
use crate::api::{ApiError, Fields, quoted};
use crate::state::App;

/// Takes `input`: a text, or items. The instructions come first.
pub(super) fn messages(fields: &mut Fields, instructions: Option<&str>, app: &App) -> Result<Vec<Message>, ApiError> {
    const NAME: &str = "input";
    let must = "it must be a string, or a list of at least one item";
    let mut messages: Vec<Message> = instructions.map(Message::system).into_iter().collect();
    match fields.take(NAME) {
        Some(Value::String(text)) => messages.push(Message::user(text)),
        Some(Value::Array(all)) if all.len() > MAX_MESSAGES => {
            return Err(ApiError::field(NAME, format!("{} items given, at most {MAX_MESSAGES} allowed", all.len())));
        }
        Some(Value::Array(all)) if !all.is_empty() => {
            let tools = form(app).is_some();
            for (i, value) in all.into_iter().enumerate() {
                item(&mut messages, value, &format!("{NAME}[{i}]"), tools)?;
            }
        }
        None => return Err(ApiError::field(NAME, format!("it is missing; {must}"))),
        Some(_) => return Err(ApiError::field(NAME, must)),
    }
    Ok(messages)
}

/// One item; with `tools` it may be a call or its result.
fn item(messages: &mut Vec<Message>, value: Value, name: &str, tools: bool) -> Result<(), ApiError> {
    let mut fields = Fields::of_value(value, name)?;
    // Clients send back what they received.
    fields.ignore(&["id", "status"]);
    let kind = fields.text("type")?;
    match kind.as_deref() {
        None | Some("message") => messages.push(message(&mut fields)?),
        Some("function_call" | "function_call_output") if !tools => {
            return Err(ApiError::unsupported(fields.name("type"), NO_TOOLS));
        }
        Some("function_call") => {
            let call = call(&mut fields)?;
            let before = messages.last_mut().filter(|before| before.role == "assistant");
            let calls = |message: &mut Message| {
                let calls = message.extra.entry("tool_calls".to_owned()).or_insert_with(|| json!([]));
                if let Value::Array(calls) = calls {
                    calls.push(call);
                }
            };
            match before {
                Some(before) => calls(before),
                None => {
                    let mut message = Message::new("assistant", "");
                    calls(&mut message);
                    messages.push(message);
                }
            }
        }
        Some("function_call_output") => {
            let Some(id) = fields.text("call_id")? else { return Err(fields.wrong("call_id", "it is missing")) };
            let mut message = Message::new("tool", content(&mut fields, "output")?);
            message.extra.insert("tool_call_id".into(), id.into());
            messages.push(message);
        }
        Some(other) => {
            let message = format!(
                "{} cannot be read; this server reads message, function_call and function_call_output",
                quoted(other)
            );
            return Err(ApiError::unsupported(fields.name("type"), message));
        }
    }
    fields.finish()
}

fn message(fields: &mut Fields) -> Result<Message, ApiError> {
    let role = match fields.text("role")?.as_deref() {
        Some(role @ ("system" | "user" | "assistant")) => role.to_owned(),
        Some("developer") => "system".to_owned(),
        _ => return Err(fields.wrong("role", "it must be system, developer, user or assistant")),
    };
    // Which part of an answer it was changes nothing for a template.
    fields.ignore(&["phase"]);
    Ok(Message::new(role, content(fields, "content")?))
}

/// A call, in the form for templates: arguments are values there.
fn call(fields: &mut Fields) -> Result<Value, ApiError> {
    let Some(id) = fields.text("call_id")? else { return Err(fields.wrong("call_id", "it is missing")) };
    let Some(name) = fields.text("name")? else { return Err(fields.wrong("name", "it is missing")) };
    let arguments = match fields.text("arguments")?.as_deref().map(str::trim) {
        None | Some("") => Map::new(),
        Some(text) => serde_json::from_str(text)
            .map_err(|error| fields.wrong("arguments", format!("it must be the text of a JSON object: {error}")))?,
    };
    Ok(json!({ "id": id, "type": "function", "function": { "name": name, "arguments": arguments } }))
}

/// A text, or a list of parts that are texts.
fn content(fields: &mut Fields, field: &str) -> Result<String, ApiError> {
    match fields.take(field) {
        Some(Value::String(text)) => Ok(text),
        Some(Value::Array(parts)) => {
            let name = fields.name(field);
            let parts = parts.into_iter().enumerate().map(|(i, part)| text_of(part, &format!("{name}[{i}]")));
            Ok(parts.collect::<Result<Vec<_>, _>>()?.concat())
        }
        _ => Err(fields.wrong(field, "it must be a string or a list of text parts")),
    }
}

/// A part: text, or something that this server cannot read.
fn text_of(value: Value, name: &str) -> Result<String, ApiError> {
    let mut fields = Fields::of_value(value, name)?;
    match fields.text("type")?.as_deref() {
        Some("input_text" | "output_text") => {}
        Some(other) => {
            let message = format!("{} cannot be read; this server reads text only", quoted(other));
            return Err(ApiError::unsupported(fields.name("type"), message));
        }
        None => return Err(fields.wrong("type", "it is missing; it must be input_text or output_text")),
    }
    let text = fields.text("text")?.ok_or_else(|| fields.wrong("text", "it is missing"))?;
    fields.ignore(&["annotations", "logprobs"]);
    fields.finish()?;
    Ok(text)
}
