//! `POST /api/embed`, and the older `POST /api/embeddings`.

use std::sync::Arc;
use std::time::Instant;

use axum::extract::{Request, State};
use axum::http::StatusCode;
use axum::response::Response;
use serde_json::{Value, json};

use super::options;
use super::time::nanos;
use crate::api::embeddings::{dimensions, embedding, vectors};
use crate::api::pieces::json_in_pieces;
use crate::api::{ApiError, Fields, read, take_model};
use crate::api_error::json_response;
use crate::state::{App, Site};

/// Texts to turn into vectors.
pub(in crate::api) struct Plan {
    /// The model as the client calls it.
    name: String,
    /// `None` without a text.
    embedding: Option<bitnet::Embedding>,
}

/// Makes vectors of texts.
pub(crate) async fn embed(State(site): State<Arc<Site>>, request: Request) -> Result<Response, ApiError> {
    let arrived = Instant::now();
    let Done { name, tokens, vectors } = done(&site, request, plan).await?;
    let begin = format!("{{\"model\":{},\"embeddings\":[", json!(name));
    let time = nanos(arrived.elapsed());
    let end = format!("],\"total_duration\":{time},\"load_duration\":0,\"prompt_eval_count\":{tokens}}}");
    let entries = vectors.into_iter().enumerate().map(|(index, vector)| {
        let before = if index == 0 { "" } else { "," };
        format!("{before}{}", json!(vector))
    });
    Ok(json_in_pieces(std::iter::once(begin).chain(entries).chain(std::iter::once(end))))
}

/// Makes the vector of one text.
pub(crate) async fn embeddings(State(site): State<Arc<Site>>, request: Request) -> Result<Response, ApiError> {
    let mut done = done(&site, request, plan_old).await?;
    let vector = done.vectors.pop().unwrap_or_default();
    Ok(json_response(StatusCode::OK, &json!({ "embedding": vector })))
}

struct Done {
    name: String,
    /// Tokens of all texts.
    tokens: usize,
    vectors: Vec<Vec<f32>>,
}

async fn done(
    site: &Arc<Site>,
    request: Request,
    plan: fn(&App, Fields) -> Result<Plan, ApiError>,
) -> Result<Done, ApiError> {
    let body = site.read_body(request).await?;
    let (app, Plan { name, embedding }) = read(site, body, move |app, fields, _| plan(app, fields)).await?;
    let Some(embedding) = embedding else { return Ok(Done { name, tokens: 0, vectors: Vec::new() }) };
    let tokens = embedding.tokens_left();
    Ok(Done { name, tokens, vectors: vectors(&app, embedding).await? })
}

/// Fields that both endpoints have.
fn begin(fields: &mut Fields, app: &App) -> Result<String, ApiError> {
    let name = take_model(fields, app)?;
    options::keep_alive(fields, app)?;
    options::options(fields, app, false)?;
    Ok(name)
}

pub(in crate::api) fn plan(app: &App, mut fields: Fields) -> Result<Plan, ApiError> {
    let name = begin(&mut fields, app)?;
    dimensions(&mut fields, app)?;
    let cut = fields.boolean_or("truncate", true)?;
    let input: Option<Value> = match fields.take("input") {
        None => None,
        Some(Value::String(text)) => (!text.is_empty()).then(|| text.into()),
        Some(Value::Array(all)) if all.iter().all(Value::is_string) => (!all.is_empty()).then(|| all.into()),
        Some(_) => return Err(fields.wrong("input", "it must be a string or a list of strings")),
    };
    fields.leave();
    Ok(Plan { name, embedding: input.map(|input| embedding(app, input, "input", cut)).transpose()? })
}

/// For `/api/embeddings`.
pub(in crate::api) fn plan_old(app: &App, mut fields: Fields) -> Result<Plan, ApiError> {
    let name = begin(&mut fields, app)?;
    let prompt = fields.text("prompt")?.filter(|text| !text.is_empty());
    fields.leave();
    Ok(Plan { name, embedding: prompt.map(|text| embedding(app, text.into(), "prompt", true)).transpose()? })
}
