//! `GET /v1/models`.

use std::sync::Arc;

use axum::extract::rejection::PathRejection;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::response::Response;
use serde_json::{Value, json};

use crate::api_error::{ApiError, json_response, quoted};
use crate::state::App;

fn describe(app: &App) -> Value {
    let context = app.model.context();
    json!({
        "id": app.name,
        "object": "model",
        "created": app.created,
        "owned_by": "bitnet",
        // Not part of OpenAI's interface: facts about a local model for clients.
        "context_length": (context != usize::MAX).then_some(context),
        "parameters": app.model.config().parameters(),
    })
}

/// The one model.
pub(crate) async fn models(State(app): State<Arc<App>>) -> Response {
    json_response(StatusCode::OK, &json!({ "object": "list", "data": [describe(&app)] }))
}

/// The model of a name.
pub(crate) async fn model(
    State(app): State<Arc<App>>,
    name: Result<Path<String>, PathRejection>,
) -> Result<Response, ApiError> {
    // A path that is not text is not a name.
    let Path(name) = name.unwrap_or(Path(String::new()));
    match is_called(&app, &name) {
        true => Ok(json_response(StatusCode::OK, &describe(&app))),
        false => Err(unknown(&name, &app)),
    }
}

/// Whether the model is called `name`. Clients of Ollama's interface add a version to names.
pub(super) fn is_called(app: &App, name: &str) -> bool {
    name == app.name || name.strip_suffix(":latest") == Some(app.name.as_str())
}

/// There is no such model.
pub(super) fn unknown(name: &str, app: &App) -> ApiError {
    let message = format!("model {} not found; this server has {:?}", quoted(name), app.name);
    ApiError::field("model", message).status(StatusCode::NOT_FOUND).code("model_not_found")
}
