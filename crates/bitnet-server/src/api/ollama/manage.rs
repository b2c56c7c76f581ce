//! Endpoints for changing models, which are files that the command manages.

use std::sync::Arc;

use axum::body::Body;
use axum::extract::{Request, State};
use axum::http::{HeaderValue, StatusCode, Uri, header};
use axum::response::Response;
use serde_json::json;

use super::models::asked;
use crate::api::ApiError;
use crate::state::Site;

/// A change of models, by the path of its endpoint, and how it is done instead.
const WAYS: &[(&str, &str)] = &[
    (
        "/api/create",
        "makes no models; convert a file with `bitnet convert`, and set the chat template with `bitnet serve --template`",
    ),
    ("/api/copy", "copies no models; give the model another name with `bitnet serve --name`"),
    ("/api/push", "uploads no models"),
    ("/api/delete", "deletes no models; use `bitnet rm`"),
    ("/api/blobs", "takes no files; start it with one: `bitnet serve -m FILE`"),
];

/// Refuses to change models.
pub(crate) async fn refused(uri: Uri) -> ApiError {
    let way = WAYS.iter().find(|(path, _)| uri.path().starts_with(path));
    cannot(way.map_or("changes no models", |way| way.1))
}

fn cannot(way: &str) -> ApiError {
    ApiError::new(StatusCode::NOT_IMPLEMENTED, "invalid_request_error", format!("this server {way}"))
}

/// Downloads a model, which has succeeded if it is one of those that are here.
pub(crate) async fn pull(State(site): State<Arc<Site>>, request: Request) -> Result<Response, ApiError> {
    let body = site.read_body(request).await?;
    let shared = site.clone();
    let found = site.workers.read(body.len(), move |_| asked(&shared, &body)).await;
    if let Err(error) = found {
        let way = "downloads no models; use `bitnet pull`, then start it with the model: `bitnet serve -m MODEL`";
        return Err(if error.is_not_found() { cannot(&format!("{way}; {}", error.message())) } else { error });
    }
    // One line is a whole stream, and a whole answer.
    let mut response = Response::new(Body::from(format!("{}\n", json!({ "status": "success" }))));
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/x-ndjson"));
    Ok(response)
}
