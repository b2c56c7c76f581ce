//! `POST /v1/completions`.

use std::sync::Arc;

use axum::extract::{Request, State};
use axum::response::Response;
use serde_json::{Value, json};

use super::answer::Form;
use super::{Answer, ApiError, Asked, Draft, Fields, GenerationParams, generated, take_model};
use crate::state::App;

/// The default number of new tokens, which is that of OpenAI.
const DEFAULT_TOKENS: usize = 16;

/// Goes on with a text.
pub(crate) async fn completions(State(app): State<Arc<App>>, request: Request) -> Result<Response, ApiError> {
    generated(app, request, plan).await
}

pub(super) fn plan(app: &App, body: &[u8]) -> Result<Asked, ApiError> {
    let mut fields = Fields::of_body(body)?;
    take_model(&mut fields, app)?;
    let prompts = match fields.take("prompt") {
        Some(value) => {
            texts(app, value, "prompt", app.options.max_choices, |text| app.model.encode(text, app.model.adds_bos()))?
        }
        None => return Err(fields.wrong("prompt", "it is missing")),
    };
    let mut params = GenerationParams::take(&mut fields, app, &["max_tokens"], DEFAULT_TOKENS)?;
    params.logprobs = fields.integer("logprobs", 0..=5)?;
    fields.refuse(&[("echo", &[json!(false)]), ("suffix", &[json!("")]), ("best_of", &[json!(1), json!(params.n)])])?;
    fields.finish()?;
    let answer = Box::new(Answer::new(app, Form::Text, &params));
    Draft::new(app, params, prompts, "prompt", answer).map(Asked::from)
}

/// Texts as tokens: a string, a list of them, tokens, or a list of lists of tokens; at most `most` of them.
pub(super) fn texts(
    app: &App,
    value: Value,
    field: &str,
    most: usize,
    encode: impl Fn(&str) -> Result<Vec<u32>, bitnet::Error>,
) -> Result<Vec<Vec<u32>>, ApiError> {
    let wrong = || {
        let must =
            "it must be a string, a list of strings, a list of token ids, or a list of such lists, and not empty";
        ApiError::field(field, must)
    };
    let all = match value {
        Value::String(_) => vec![value],
        Value::Array(all) => match all.first() {
            Some(Value::String(_) | Value::Array(_)) => all,
            Some(Value::Number(_)) => vec![Value::Array(all)],
            _ => return Err(wrong()),
        },
        _ => return Err(wrong()),
    };
    if all.len() > most {
        return Err(ApiError::field(field, format!("{} texts given, at most {most} allowed", all.len())));
    }
    let vocab = app.model.config().vocab_size;
    all.into_iter()
        .map(|one| match one {
            Value::String(text) => Ok(encode(&text)?),
            Value::Array(ids) => ids
                .iter()
                .map(|id| {
                    let number = u32::try_from(id.as_u64().ok_or_else(wrong)?).ok();
                    number.filter(|id| (*id as usize) < vocab).ok_or_else(|| {
                        ApiError::field(field, format!("token {id} is outside the vocabulary of {vocab} tokens"))
                    })
                })
                .collect(),
            _ => Err(wrong()),
        })
        .collect()
}
