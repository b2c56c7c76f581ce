//! What all requests share, and the way of a request to its endpoint: who may ask, what a body may be, what is counted.

use std::net::{IpAddr, SocketAddr};
use std::pin::Pin;
use std::sync::Arc;
use std::time::Instant;

use axum::Router;
use axum::body::Body;
use axum::extract::{Request, State};
use axum::http::{HeaderMap, HeaderValue, Method, StatusCode, Uri, header};
use axum::middleware::{Next, from_fn_with_state};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use bitnet::Model;
use hyper::body::Body as _;
use serde_json::json;

use crate::api::{self, ApiError, json_response};
use crate::engine::{Engine, Refused, Sizes};
use crate::metrics::{Gauges, Metrics};
use crate::{ApiKey, Options, ServerError};

/// The endpoints, as they are counted.
const ENDPOINTS: &[&str] =
    &["/health", "/metrics", "/v1/models", "/v1/chat/completions", "/v1/completions", "/v1/embeddings"];

/// What all requests share.
#[derive(Debug)]
pub(crate) struct App {
    pub(crate) model: Model,
    pub(crate) name: String,
    pub(crate) created: u64,
    /// Most new tokens of a text.
    pub(crate) max_tokens: usize,
    pub(crate) options: Options,
    pub(crate) engine: Engine,
    metrics: Arc<Metrics>,
}

/// A model behind the endpoints, without a socket: [`Service::router`] puts it into a program's own `axum` server. [`Server`](crate::Server)
/// is this with sockets, limits on connections and an orderly end.
///
/// ```no_run
/// use bitnet_server::{Options, Service};
/// let model = bitnet::Model::load("model.gguf")?;
/// let service = Service::start(model, Options::default())?;
/// let app = axum::Router::new().nest("/llm", service.router());
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug)]
pub struct Service {
    pub(crate) app: Arc<App>,
}

/// What clients call a model of which nobody says it: its file's name without the ending, or its folder's.
fn default_name(model: &Model) -> String {
    let info = model.info();
    // A model in memory has no file.
    let file = info.path.exists().then(|| info.path.file_name()).flatten().map(|name| name.to_string_lossy());
    let of_file = file.map(|name| name.strip_suffix(".gguf").unwrap_or(&name).to_owned());
    of_file.or_else(|| info.name.clone()).unwrap_or_else(|| "bitnet".into())
}

impl Service {
    /// Starts the thread that computes. Address and timeouts of `options` do not matter here; a key, where there is one, is asked for.
    ///
    /// # Errors
    /// A model without a tokenizer, a limit of 0, an empty key, a system without threads.
    pub fn start(model: Model, options: Options) -> Result<Self, ServerError> {
        if model.tokenizer().is_none() {
            return Err(ServerError::NoTokenizer);
        }
        if options.api_key.as_ref().is_some_and(ApiKey::is_empty) {
            return Err(ServerError::EmptyKey);
        }
        let limits = [
            ("max_sessions", options.max_sessions),
            ("max_tokens", options.max_tokens.unwrap_or(1)),
            ("max_choices", options.max_choices),
            ("body_bytes", options.body_bytes),
            ("max_connections", options.max_connections),
        ];
        if let Some((option, _)) = limits.into_iter().find(|l| l.1 == 0) {
            return Err(ServerError::Limit { option });
        }
        let endless = model.context() == usize::MAX;
        let natural = if endless { model.config().max_position_embeddings } else { model.context() };
        let metrics = Arc::new(Metrics::default());
        let sizes =
            Sizes { max_sessions: options.max_sessions, queue: options.queue, cache_bytes: options.cache_bytes };
        let app = App {
            name: options.name.clone().unwrap_or_else(|| default_name(&model)),
            created: api::now(),
            max_tokens: options.max_tokens.unwrap_or(natural).max(1),
            engine: Engine::start(model.clone(), sizes, metrics.clone())?,
            metrics,
            options,
            model,
        };
        Ok(Self { app: Arc::new(app) })
    }

    /// What clients call the model.
    pub fn name(&self) -> &str {
        &self.app.name
    }

    /// The endpoints.
    pub fn router(&self) -> Router {
        self.router_for(None)
    }

    /// The endpoints; where `address` is a loopback address, only for who calls this machine by its own name.
    pub(crate) fn router_for(&self, address: Option<SocketAddr>) -> Router {
        let guarded = address.filter(|a| a.ip().is_loopback() && self.app.options.api_key.is_none());
        let gate = Gate { app: self.app.clone(), guarded: guarded.is_some() };
        Router::new()
            .route("/health", get(health))
            .route("/metrics", get(metrics))
            .route("/v1/models", get(api::models))
            // Names of models may hold slashes.
            .route("/v1/models/{*name}", get(api::model))
            .route("/v1/chat/completions", post(api::chat))
            .route("/v1/completions", post(api::completions))
            .route("/v1/embeddings", post(api::embeddings))
            .fallback(unknown)
            .method_not_allowed_fallback(wrong_method)
            .layer(from_fn_with_state(gate, through))
            .with_state(self.app.clone())
    }

    /// Takes no more requests, lets what has begun go on for [`Options::grace`], then breaks it off. Returns when the engine has
    /// ended.
    ///
    /// # Errors
    /// [`ServerError::EngineFailed`] if it has panicked.
    pub fn shut_down(&self) -> Result<(), ServerError> {
        self.app.engine.queue.close(Instant::now() + self.app.options.grace);
        if self.app.engine.join() { Ok(()) } else { Err(ServerError::EngineFailed) }
    }
}

/// What decides whether a request may pass.
#[derive(Clone)]
struct Gate {
    app: Arc<App>,
    /// Whether only this machine's own names are answered.
    guarded: bool,
}

/// The way of every request.
async fn through(State(gate): State<Gate>, request: Request, next: Next) -> Response {
    let path = request.uri().path();
    let known = ENDPOINTS.iter().find(|e| **e == path);
    let endpoint = known.copied().unwrap_or(if path.starts_with("/v1/models/") { "/v1/models" } else { "other" });
    let response = match gate.admits(&request) {
        Ok(()) => next.run(request).await,
        Err(refused) => refused.into_response(),
    };
    gate.app.metrics.answered(endpoint, response.status().as_u16());
    response
}

impl Gate {
    fn admits(&self, request: &Request) -> Result<(), ApiError> {
        if self.guarded && !is_own_name(request) {
            // A web page that someone opened on this machine can send requests here under a name of its own (DNS rebinding).
            let message = "without an API key this server answers to names of this machine only (localhost, 127.0.0.1); \
                start it with a key to call it otherwise";
            return Err(ApiError::new(StatusCode::FORBIDDEN, "permission_error", message).code("host_not_allowed"));
        }
        let Some(key) = &self.app.options.api_key else { return Ok(()) };
        // Whoever looks whether the server lives needs no key.
        if request.uri().path() == "/health" || bearer(request.headers()).is_some_and(|given| key.is(given)) {
            return Ok(());
        }
        let message = "a right API key is needed: `Authorization: Bearer KEY`";
        Err(ApiError::new(StatusCode::UNAUTHORIZED, "invalid_request_error", message).code("invalid_api_key"))
    }
}

/// The key that came with a request.
fn bearer(headers: &HeaderMap) -> Option<&str> {
    let (scheme, key) = headers.get(header::AUTHORIZATION)?.to_str().ok()?.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then_some(key.trim())
}

/// Whether a request calls this machine by a name that no other one has.
fn is_own_name(request: &Request) -> bool {
    let from_uri = request.uri().authority().map(|a| a.as_str());
    let from_header = request.headers().get(header::HOST).and_then(|h| h.to_str().ok());
    // Without any name it is no browser.
    let Some(host) = from_uri.or(from_header) else { return true };
    let name = match host.strip_prefix('[') {
        Some(rest) => rest.split(']').next().unwrap_or_default(),
        None => host.rsplit_once(':').map_or(host, |(name, _)| name),
    };
    name.eq_ignore_ascii_case("localhost") || name.parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback())
}

/// Whether requests are taken.
async fn health(State(app): State<Arc<App>>) -> Response {
    let (status, state) = match app.engine.queue.state() {
        Ok(()) => (StatusCode::OK, "ok"),
        Err(Refused::Dead) => (StatusCode::SERVICE_UNAVAILABLE, "failed"),
        Err(_) => (StatusCode::SERVICE_UNAVAILABLE, "closing"),
    };
    json_response(status, &json!({ "status": state, "model": app.name }))
}

async fn metrics(State(app): State<Arc<App>>) -> Response {
    let (active, waiting) = app.engine.queue.lengths();
    let (max_sessions, queue) = (app.options.max_sessions, app.options.queue);
    let mut response = Response::new(Body::from(app.metrics.text(Gauges { active, waiting, max_sessions, queue })));
    let kind = HeaderValue::from_static("text/plain; version=0.0.4; charset=utf-8");
    response.headers_mut().insert(header::CONTENT_TYPE, kind);
    response
}

fn shown(method: &Method, uri: &Uri) -> String {
    let path: String = uri.path().chars().take(100).collect();
    format!("{method} {path}")
}

async fn unknown(method: Method, uri: Uri) -> ApiError {
    let message = format!("there is no {} here; there are {}", shown(&method, &uri), ENDPOINTS.join(", "));
    ApiError::new(StatusCode::NOT_FOUND, "invalid_request_error", message).code("unknown_url")
}

async fn wrong_method(method: Method, uri: Uri) -> ApiError {
    let message = format!(
        "{} is not possible: models, health and metrics are read (GET), the rest is POST",
        shown(&method, &uri)
    );
    ApiError::new(StatusCode::METHOD_NOT_ALLOWED, "invalid_request_error", message).code("method_not_allowed")
}

impl App {
    /// The body of a request, which must say that it is JSON: a form on a web page cannot, so no page can use a server behind its
    /// reader's back.
    pub(crate) async fn read_body(&self, request: Request) -> Result<Vec<u8>, ApiError> {
        let kind = request.headers().get(header::CONTENT_TYPE).and_then(|v| v.to_str().ok()).unwrap_or_default();
        let kind = kind.split(';').next().unwrap_or_default().trim();
        if !kind.eq_ignore_ascii_case("application/json") {
            let message = format!("the body must be JSON and say so (Content-Type: application/json), not {kind:?}");
            let status = StatusCode::UNSUPPORTED_MEDIA_TYPE;
            return Err(ApiError::new(status, "invalid_request_error", message).code("wrong_content_type"));
        }
        let limit = self.options.body_bytes;
        let read = tokio::time::timeout(self.options.read_timeout, collect(request.into_body(), limit));
        let late = || {
            ApiError::new(
                StatusCode::REQUEST_TIMEOUT,
                "invalid_request_error",
                "the body of the request came too slowly",
            )
        };
        read.await.unwrap_or_else(|_| Err(late()))
    }
}

/// All bytes of a body of at most `limit`.
async fn collect(mut body: Body, limit: usize) -> Result<Vec<u8>, ApiError> {
    let mut bytes = Vec::new();
    let mut total = 0usize;
    while let Some(frame) = std::future::poll_fn(|cx| Pin::new(&mut body).poll_frame(cx)).await {
        let frame = frame.map_err(|error| ApiError::invalid(format!("the body cannot be read: {error}")))?;
        let Ok(data) = frame.into_data() else { continue };
        total = total.saturating_add(data.len());
        if total <= limit {
            bytes.extend_from_slice(&data);
        } else if total > limit.saturating_mul(4) {
            break;
        } else {
            // Read to its end and forgotten: many clients look for an answer only when they have sent everything.
            bytes.clear();
        }
    }
    if total <= limit {
        return Ok(bytes);
    }
    let message = format!("the body has more than {limit} bytes, which is this server's limit");
    Err(ApiError::new(StatusCode::PAYLOAD_TOO_LARGE, "invalid_request_error", message).code("request_too_large"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_this_machine_are_known() {
        let own = |host: &str| {
            is_own_name(&Request::builder().uri("/health").header(header::HOST, host).body(Body::empty()).unwrap())
        };
        for name in ["localhost", "localhost:8080", "LOCALHOST:1", "127.0.0.1:8080", "127.0.0.2", "[::1]:8080", "[::1]"]
        {
            assert!(own(name), "{name}");
        }
        for name in [
            "example.org",
            "example.org:8080",
            "localhost.example.org",
            "192.168.0.1:8080",
            "[::2]",
            "",
            "[",
            "127.0.0.1.nip.io",
        ] {
            assert!(!own(name), "{name}");
        }
    }
}
