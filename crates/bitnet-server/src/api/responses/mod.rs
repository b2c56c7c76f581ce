//! `POST /v1/responses`: OpenAI's newer interface for conversations, without the parts that would make a server keep
//! them: a request has all items of its conversation.

mod answer;
mod input;

use std::sync::Arc;

use axum::extract::{Request, State};
use axum::response::Response;
use loader::chat::RenderOptions;
use serde_json::{Map, Value, json};

use super::tools::{Choice, Tools, list};
use super::{ApiError, Asked, Draft, Fields, GenerationParams, generated, quoted, take_model};
use crate::state::{App, Site};
use answer::Answer;

/// Answers a conversation.
pub(crate) async fn responses(State(site): State<Arc<Site>>, request: Request) -> Result<Response, ApiError> {
    generated(site, request, plan).await
}

pub(in crate::api) fn plan(app: &App, mut fields: Fields) -> Result<Asked, ApiError> {
    take_model(&mut fields, app)?;
    let instructions = fields.text("instructions")?;
    let messages = input::messages(&mut fields, instructions.as_deref(), app)?;
    refuse(&mut fields)?;
    let metadata = match fields.take("metadata") {
        None => json!({}),
        Some(metadata @ Value::Object(_)) => metadata,
        Some(_) => return Err(fields.wrong("metadata", "it must be an object")),
    };
    let format = text(&mut fields)?;
    let mut params = GenerationParams::take(&mut fields, app, &["max_output_tokens"], 1, usize::MAX)?;
    format.constrain(&mut params)?;
    let choice = Choice::take(&mut fields, "{\"type\": \"function\", \"name\": ...}", |value| value["name"].as_str())?;
    let told = choice_json(&choice);
    let flat = list(&mut fields)?;
    let several = fields.boolean_or("parallel_tool_calls", true)?;
    fields.finish()?;
    let shown: Value = flat.clone().into();
    let nested = flat.into_iter().enumerate().map(|(i, value)| tool(i, value)).collect::<Result<Vec<_>, _>>()?;
    let tools = Tools::new(app, &mut params, choice, nested, several)?;
    let sampling = params.sampling();
    let request = json!({
        "instructions": instructions,
        "max_output_tokens": params.asked_tokens(),
        "metadata": metadata,
        "parallel_tool_calls": several,
        "temperature": rounded(sampling.temperature),
        "text": { "format": format.json() },
        "tool_choice": told,
        "tools": shown,
        "top_p": rounded(sampling.top_p),
    });
    let mut render = RenderOptions::default();
    let calling = tools.as_ref().map(|tools| tools.calling);
    render.tools = tools.map(|tools| tools.list);
    let ids = app.model.encode_chat_with(&messages, &render).map_err(of_input)?;
    let answer = Box::new(Answer::new(app, request, calling));
    Draft::new(app, params, vec![ids], "input", answer).map(Asked::from)
}

/// A number without the digits that only its type has.
fn rounded(value: f32) -> f64 {
    (f64::from(value) * 1e6).round() / 1e6
}

/// The library's error about a conversation.
fn of_input(error: bitnet::Error) -> ApiError {
    if matches!(error, bitnet::Error::Chat(_)) {
        return ApiError::field("input", ApiError::from(error).message());
    }
    error.into()
}

/// Refuses the fields whose effect this server lacks, with the way out.
fn refuse(fields: &mut Fields) -> Result<(), ApiError> {
    let kept = "this server keeps no conversations: send the items so far as input";
    for (field, message) in [
        ("previous_response_id", kept),
        ("conversation", kept),
        ("prompt", "this server keeps no prompts: send instructions and input"),
    ] {
        if fields.take(field).is_some() {
            return Err(ApiError::unsupported(field, message));
        }
    }
    fields.refuse(&[
        ("background", &[json!(false)]),
        ("include", &[]),
        ("max_tool_calls", &[]),
        ("reasoning", &[json!({"effort": null, "summary": null}), json!({"effort": null}), json!({"effort": "none"})]),
        ("top_logprobs", &[json!(0)]),
        ("truncation", &[json!("disabled")]),
        ("n", &[json!(1)]),
        ("response_format", &[]),
    ])
}

/// `tool_choice` as it was asked.
fn choice_json(choice: &Choice) -> Value {
    match choice {
        Choice::Auto => json!("auto"),
        Choice::Never => json!("none"),
        Choice::Any => json!("required"),
        Choice::One(name) => json!({ "type": "function", "name": name }),
    }
}

/// A tool of this interface, in the form of a chat.
fn tool(i: usize, value: Value) -> Result<Value, ApiError> {
    let mut fields = Fields::of_value(value, &format!("tools[{i}]"))?;
    match fields.text("type")?.as_deref() {
        Some("function") => {}
        Some(other) => {
            let message = format!("{} cannot be used; this server has tools of the type function only", quoted(other));
            return Err(ApiError::unsupported(fields.name("type"), message));
        }
        None => return Err(fields.wrong("type", "it is missing; it must be function")),
    }
    let mut function = Map::new();
    for field in ["name", "description", "parameters"] {
        if let Some(value) = fields.take(field) {
            function.insert(field.into(), value);
        }
    }
    // Arguments follow their schema wherever a call is required.
    fields.ignore(&["strict"]);
    fields.finish()?;
    Ok(json!({ "type": "function", "function": function }))
}

/// The form of a text.
enum Text {
    Free,
    /// Any JSON object.
    Object,
    /// JSON of a schema; the whole format as it came.
    Schema(Value),
}

/// `text`: its format.
fn text(fields: &mut Fields) -> Result<Text, ApiError> {
    let Some(value) = fields.take("text") else { return Ok(Text::Free) };
    let mut fields = Fields::of_value(value, "text")?;
    fields.refuse(&[("verbosity", &[json!("medium")])])?;
    let format = fields.take("format");
    fields.finish()?;
    let Some(value) = format else { return Ok(Text::Free) };
    let whole = value.clone();
    let mut format = Fields::of_value(value, "text.format")?;
    let text = match format.text("type")?.as_deref() {
        Some("text") => Text::Free,
        Some("json_object") => Text::Object,
        Some("json_schema") => {
            format.ignore(&["name", "description", "strict"]);
            if format.take("schema").is_none() {
                return Err(format.wrong("schema", "it is missing"));
            }
            Text::Schema(whole)
        }
        _ => return Err(format.wrong("type", "it must be text, json_object or json_schema")),
    };
    format.finish()?;
    Ok(text)
}

impl Text {
    /// As a part of an answer.
    fn json(&self) -> Value {
        match self {
            Self::Free => json!({ "type": "text" }),
            Self::Object => json!({ "type": "json_object" }),
            Self::Schema(whole) => whole.clone(),
        }
    }

    /// Constrains a text to this form.
    #[cfg(feature = "constrain")]
    fn constrain(&self, params: &mut GenerationParams) -> Result<(), ApiError> {
        const FIELD: &str = "text.format";
        let constraint = match self {
            Self::Free => return Ok(()),
            Self::Object => super::params::any_object(),
            Self::Schema(whole) => bitnet::Constraint::json_schema(&whole["schema"]),
        };
        if let Some(other) = params.constrained() {
            return Err(ApiError::field(FIELD, format!("only one of text.format and {other} can be used")));
        }
        params.constrain(FIELD, constraint);
        Ok(())
    }

    /// Without the feature, text only.
    #[cfg(not(feature = "constrain"))]
    fn constrain(&self, _: &mut GenerationParams) -> Result<(), ApiError> {
        match self {
            Self::Free => Ok(()),
            _ => Err(ApiError::unsupported("text.format", "this server was built without constraints")),
        }
    }
}
