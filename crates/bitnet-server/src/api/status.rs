//! `GET /health` and `GET /metrics`.

use std::sync::Arc;

use axum::body::Body;
use axum::extract::State;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::Response;
use serde_json::json;

use crate::api_error::json_response;
use crate::engine::Refused;
use crate::metrics::Gauges;
use crate::state::App;

/// Whether requests are taken.
pub(crate) async fn health(State(app): State<Arc<App>>) -> Response {
    let (status, state) = match app.engine.queue.state() {
        Ok(()) => (StatusCode::OK, "ok"),
        Err(Refused::Dead) => (StatusCode::SERVICE_UNAVAILABLE, "failed"),
        Err(_) => (StatusCode::SERVICE_UNAVAILABLE, "closing"),
    };
    json_response(status, &json!({ "status": state, "model": app.name }))
}

/// Counters and gauges for Prometheus.
pub(crate) async fn metrics(State(app): State<Arc<App>>) -> Response {
    let (active, waiting) = app.engine.queue.lengths();
    let (max_sessions, queue) = (app.options.max_sessions, app.options.queue);
    let (unread, constraints) = app.workers.waiting();
    let constraint_bytes = app.constraint_bytes.used();
    let gauges = Gauges { active, waiting, max_sessions, queue, unread, constraints, constraint_bytes };
    let mut response = Response::new(Body::from(app.metrics.text(gauges)));
    let kind = HeaderValue::from_static("text/plain; version=0.0.4; charset=utf-8");
    response.headers_mut().insert(header::CONTENT_TYPE, kind);
    response
}
