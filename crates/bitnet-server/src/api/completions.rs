//! `POST /v1/completions`.

use std::sync::Arc;

use axum::extract::{Request, State};
use axum::response::Response;
use serde_json::{Value, json};

use super::answer::{Echo, Form};
use super::{Answer, ApiError, Asked, Draft, Fields, GenerationParams, generated, take_model};
use crate::engine::HEAD_COST;
use crate::state::{App, Site};

/// The default number of new tokens, which is that of OpenAI.
const DEFAULT_TOKENS: usize = 16;

/// Most tokens of prompts that all texts of an answer repeat; with their probabilities fewer by [`HEAD_COST`].
const MAX_ECHO_TOKENS: usize = 1 << 16;

/// Goes on with a text.
pub(crate) async fn completions(State(site): State<Arc<Site>>, request: Request) -> Result<Response, ApiError> {
    generated(site, request, plan).await
}

pub(super) fn plan(app: &App, mut fields: Fields) -> Result<Asked, ApiError> {
    take_model(&mut fields, app)?;
    let echo = fields.boolean("echo")?;
    let Some(prompt) = fields.take("prompt") else { return Err(fields.wrong("prompt", "it is missing")) };
    let said = if echo { said(&prompt) } else { Vec::new() };
    let most = app.options.max_choices;
    let prompts = texts(app, prompt, "prompt", most, |text| app.model.encode(text, app.model.adds_bos()))?;
    // A client that wants only the probabilities of a prompt asks for no new token.
    let least = usize::from(!echo);
    let mut params = GenerationParams::take(&mut fields, app, &["max_tokens"], least, DEFAULT_TOKENS)?;
    params.logprobs = fields.integer("logprobs", 0..=5)?;
    fields.refuse(&[("suffix", &[json!("")]), ("best_of", &[json!(1), json!(params.n)])])?;
    fields.finish()?;
    let mut answer = Box::new(Answer::new(app, Form::Text, &params));
    if echo {
        bound_echo(app, &prompts, &params)?;
        answer.echo = prompts.iter().enumerate().map(|(i, ids)| echoed(app, ids, said.get(i))).collect();
    }
    let draft = Draft::new(app, params, prompts, "prompt", answer)?;
    Ok(if echo { draft.with_scores() } else { draft }.into())
}

/// Refuses answers that would repeat too much: each text repeats its prompt.
fn bound_echo(app: &App, prompts: &[Vec<u32>], params: &GenerationParams) -> Result<(), ApiError> {
    // The head is computed for each token whose probability is wanted.
    let cost = if params.logprobs.is_some() { HEAD_COST } else { 1 };
    let limit = app.max_embed_tokens;
    if cost > 1
        && let Some(long) = prompts.iter().find(|ids| ids.len() > limit)
    {
        return Err(ApiError::too_long("prompt", limit, long.len()));
    }
    let tokens = prompts.iter().map(Vec::len).sum::<usize>().saturating_mul(params.n);
    let most = MAX_ECHO_TOKENS / cost;
    match tokens > most {
        true => {
            let message = format!("the texts would repeat {tokens} tokens, at most {most} are allowed; ask for fewer");
            Err(ApiError::field("echo", message))
        }
        false => Ok(()),
    }
}

/// The prompts that are texts.
fn said(prompt: &Value) -> Vec<String> {
    match prompt {
        Value::String(text) => vec![text.clone()],
        Value::Array(all) => all.iter().filter_map(|text| text.as_str().map(str::to_owned)).collect(),
        _ => Vec::new(),
    }
}

/// The part of an answer that repeats a prompt. A token that was put before a text does not belong to it.
fn echoed(app: &App, ids: &[u32], said: Option<&String>) -> Echo {
    match said {
        Some(text) => {
            let begins = app.model.adds_bos() && ids.first().copied() == app.model.config().bos_token_id;
            Echo { text: text.clone(), hidden: usize::from(begins), logprobs: Vec::new() }
        }
        None => {
            let text = app.model.tokenizer().map(|tokenizer| tokenizer.decode(ids, false)).unwrap_or_default();
            Echo { text, hidden: 0, logprobs: Vec::new() }
        }
    }
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
