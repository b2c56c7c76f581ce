//! `GET /v1/models`.

use std::sync::Arc;

use axum::extract::rejection::PathRejection;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::response::Response;
use serde_json::{Value, json};

use crate::api_error::{ApiError, json_response, quoted};
use crate::shelf::Shown;
use crate::state::{App, Site};

/// Facts about a model in memory, for the time after it as well.
pub(crate) fn describe(app: &App) -> Value {
    let context = app.model.context();
    json!({
        // Not part of OpenAI's interface: facts about a local model for clients.
        "context_length": (context != usize::MAX).then_some(context),
        "parameters": app.model.config().parameters(),
    })
}

/// A model of the list.
fn entry(site: &Site, model: Shown) -> Value {
    let mut entry = json!({
        "id": model.name,
        "object": "model",
        "created": site.models.created(),
        "owned_by": "bitnet",
        // Not part of OpenAI's interface either.
        "loaded": model.here.is_some(),
    });
    if let (Some(entry), Some(Value::Object(facts))) = (entry.as_object_mut(), model.openai) {
        entry.extend(facts);
    }
    entry
}

/// All models.
pub(crate) async fn models(State(site): State<Arc<Site>>) -> Response {
    let all: Vec<Value> = site.models.shown().into_iter().map(|model| entry(&site, model)).collect();
    json_response(StatusCode::OK, &json!({ "object": "list", "data": all }))
}

/// The model of a name.
pub(crate) async fn model(
    State(site): State<Arc<Site>>,
    name: Result<Path<String>, PathRejection>,
) -> Result<Response, ApiError> {
    // A path that is not text is not a name.
    let Path(name) = name.unwrap_or(Path(String::new()));
    let found = site.models.find(Some(&name)).and_then(|at| site.models.shown().into_iter().nth(at));
    let found = found.ok_or_else(|| unknown(&name, &site))?;
    Ok(json_response(StatusCode::OK, &entry(&site, found)))
}

/// There is no such model.
pub(super) fn unknown(name: &str, site: &Site) -> ApiError {
    let message = format!("model {} not found; this server has {}", quoted(name), site.names());
    ApiError::field("model", message).status(StatusCode::NOT_FOUND).code("model_not_found")
}
