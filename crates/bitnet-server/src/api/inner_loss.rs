//! `POST /bitnet/inner-loss`: what test-time-training layers learn while they read a text.

use std::sync::Arc;

use axum::extract::{Request, State};
use axum::http::StatusCode;
use axum::response::Response;
use serde_json::{Value, json};
use tokio::sync::oneshot;

use super::{ApiError, Fields, chat, read, take_model};
use crate::api_error::json_response;
use crate::engine::{Job, LossPoint, Losses};
use crate::state::{App, Site};

/// Reads a text and tells the inner losses of its mini-batches.
pub(crate) async fn inner_loss(State(site): State<Arc<Site>>, request: Request) -> Result<Response, ApiError> {
    let body = site.read_body(request).await?;
    let (app, ids) = read(&site, body, |app, fields, _| plan(app, fields)).await?;
    let tokens = ids.len();
    let (answer, points) = oneshot::channel();
    app.engine.queue.push(Job::Read(Box::new(Losses::new(&app.model, ids, answer))))?;
    let points = points.await.map_err(|_| ApiError::dead())??;
    let config = app.model.config();
    let layers: Vec<usize> = (0..config.num_hidden_layers).filter(|l| config.ttt_layer(*l).is_some()).collect();
    let points: Vec<Value> = points.iter().map(point).collect();
    let answer = json!({
        "object": "inner_loss",
        "model": app.name,
        "tokens": tokens,
        "mini_batch": config.ttt.mini_batch_size,
        "layers": layers,
        "points": points,
    });
    Ok(json_response(StatusCode::OK, &answer))
}

fn point(point: &LossPoint) -> Value {
    json!({ "at": point.at, "losses": point.layers })
}

/// The tokens of `messages`, or of a text as `prompt`.
pub(super) fn plan(app: &App, mut fields: Fields) -> Result<Vec<u32>, ApiError> {
    take_model(&mut fields, app)?;
    let prompt = fields.text("prompt")?;
    let ids = match prompt {
        Some(text) => {
            fields.finish()?;
            app.model.encode(&text, app.model.adds_bos())?
        }
        None => {
            let messages = chat::messages(&mut fields, app)?;
            fields.finish()?;
            app.model.encode_chat(&messages)?
        }
    };
    if !app.model.config().has_ttt() {
        let message = "this model has no test-time-training layers, so there is no inner loss";
        return Err(ApiError::invalid(message).code("no_inner_loss"));
    }
    if ids.is_empty() {
        return Err(ApiError::field("prompt", "the text has no tokens"));
    }
    let limit = app.max_embed_tokens;
    match ids.len() > limit {
        true => Err(ApiError::too_long("prompt", limit, ids.len())),
        false => Ok(ids),
    }
}
