//! `POST /api/generate`.

use std::sync::Arc;

use axum::extract::{Request, State};
use axum::response::Response;
use bitnet::{Message, RenderOptions};
use serde_json::{Value, json};

use super::answer::{Answer, loaded};
use super::options;
use crate::api::answer::Form;
use crate::api::completions::texts;
use crate::api::{ApiError, Asked, Draft, Fields, generated, take_model};
use crate::state::{App, Site};

/// Goes on with a text, or answers it.
pub(crate) async fn generate(State(site): State<Arc<Site>>, request: Request) -> Result<Response, ApiError> {
    generated(site, request, plan).await
}

pub(in crate::api) fn plan(app: &App, mut fields: Fields) -> Result<Asked, ApiError> {
    let name = take_model(&mut fields, app)?;
    let kept = options::keep_alive(&mut fields, app)?;
    let params = options::params(&mut fields, app)?;
    let think = options::think(&mut fields)?;
    let prompt = fields.text("prompt")?.unwrap_or_default();
    let system = fields.text("system")?.filter(|text| !text.is_empty());
    let raw = fields.boolean("raw")?;
    fields.refuse(&[("images", &[]), ("suffix", &[json!("")]), ("template", &[json!("")])])?;
    let before = context(&mut fields, app)?;
    if raw && (system.is_some() || !before.is_empty()) {
        return Err(fields.wrong("raw", "a raw prompt goes without system and context: write them into it"));
    }
    fields.leave();
    if prompt.is_empty() {
        return Ok(Asked::Nothing(loaded(Form::Text, &name, kept)));
    }
    let model = &app.model;
    // Without a template a prompt is the begin of the text, as in Ollama.
    let plain = raw || (model.chat_template().is_none() && model.chat_template_error().is_none() && system.is_none());
    let mut ids = if plain {
        model.encode(&prompt, model.adds_bos() && before.is_empty())?
    } else {
        let mut render = RenderOptions::default();
        if let Some(think) = think {
            render.extra.insert("enable_thinking".into(), think.into());
        }
        let messages: Vec<Message> = system.map(Message::system).into_iter().chain([Message::user(prompt)]).collect();
        model.encode_chat_with(&messages, &render)?
    };
    if !before.is_empty() {
        // A text begins once.
        let begins = ids.first().is_some_and(|first| model.config().bos_token_id == Some(*first));
        ids = before.into_iter().chain(ids.into_iter().skip(usize::from(begins))).collect();
    }
    let tokens = (!raw).then(|| ids.clone());
    let answer = Box::new(Answer::new(app, Form::Text, name, &params, None, tokens));
    Draft::new(app, params, vec![ids], "prompt", answer).map(Asked::from)
}

/// `context`: all tokens of a text that goes on, from the answer to it.
fn context(fields: &mut Fields, app: &App) -> Result<Vec<u32>, ApiError> {
    match fields.take("context") {
        None => Ok(Vec::new()),
        Some(Value::Array(all)) if all.is_empty() => Ok(Vec::new()),
        Some(Value::Array(all)) if all[0].is_number() => {
            let mut texts = texts(app, all.into(), "context", 1, |text| app.model.encode(text, false))?;
            Ok(texts.pop().unwrap_or_default())
        }
        Some(_) => Err(fields.wrong("context", "it must be a list of token ids")),
    }
}
