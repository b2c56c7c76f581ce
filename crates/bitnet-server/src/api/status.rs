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
use crate::state::Site;

/// Whether requests are taken.
pub(crate) async fn health(State(site): State<Arc<Site>>) -> Response {
    let (status, state) = match site.models.state() {
        Ok(()) => (StatusCode::OK, "ok"),
        Err(Refused::Dead) => (StatusCode::SERVICE_UNAVAILABLE, "failed"),
        Err(_) => (StatusCode::SERVICE_UNAVAILABLE, "closing"),
    };
    json_response(status, &json!({ "status": state, "model": site.models.names().next() }))
}

/// Counters and gauges for Prometheus.
pub(crate) async fn metrics(State(site): State<Arc<Site>>) -> Response {
    let apps = site.models.apps();
    let lengths = apps.iter().map(|app| app.engine.queue.lengths());
    let (active, waiting) = lengths.fold((0, 0), |(active, waiting), (a, w)| (active + a, waiting + w));
    let (max_sessions, queue) = (site.options.max_sessions, site.options.queue);
    let (unread, constraints) = site.workers.waiting();
    let (constraint_bytes, models) = (site.constraint_bytes.used(), apps.len());
    let gauges = Gauges { active, waiting, max_sessions, queue, unread, constraints, constraint_bytes, models };
    let mut response = Response::new(Body::from(site.metrics.text(gauges)));
    let kind = HeaderValue::from_static("text/plain; version=0.0.4; charset=utf-8");
    response.headers_mut().insert(header::CONTENT_TYPE, kind);
    response
}
