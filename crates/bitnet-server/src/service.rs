//! The service without sockets: it starts the parts that all requests share, and its router leads each request to its
//! endpoint.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::Router;
use axum::extract::{Request, State};
use axum::http::{Method, StatusCode, Uri};
use axum::middleware::{Next, from_fn_with_state};
use axum::response::{IntoResponse, Response};

use crate::api;
use crate::api_error::{ApiError, translate};
use crate::budget::Budget;
use crate::cors;
use crate::dialect::Dialect;
use crate::engine::Turns;
use crate::gate::{Gate, check_names};
use crate::metrics::Metrics;
use crate::shelf::Shelf;
use crate::state::{Kit, Site};
use crate::workers::Workers;
use crate::{ApiKey, Models, Options, ServerError, body, routes};

/// How long the engine may take to notice that its time is over.
pub(crate) const ENGINE_END_LIMIT: Duration = Duration::from_secs(2);
/// Models with their endpoints, without a socket: [`Service::router`] adds it to a program's own `axum` server.
/// [`Server`](crate::Server) adds sockets, limits on connections and an orderly end.
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
    pub(crate) site: Arc<Site>,
}

impl Service {
    /// Starts the computing threads. Address and timeouts of `options` have no effect here; a key, if there is one, is
    /// required. `models` is a model, or several.
    ///
    /// # Errors
    /// No model, two of one name, one without a tokenizer; a limit of 0, an empty key, a system without threads.
    pub fn start(models: impl Into<Models>, options: Options) -> Result<Self, ServerError> {
        let mut list = models.into().list;
        if let (Some(first), Some(name)) = (list.first_mut(), &options.name) {
            first.name = Some(name.clone());
        }
        if let Some(fault) = options.api_key.as_ref().and_then(ApiKey::fault) {
            return Err(fault);
        }
        check_names(&options)?;
        cors::check_origins(&options)?;
        let limits = [
            ("max_sessions", options.max_sessions),
            ("max_tokens", options.max_tokens.unwrap_or(1)),
            ("max_choices", options.max_choices),
            ("body_bytes", options.body_bytes),
            ("max_connections", options.max_connections),
            ("max_embed_tokens", options.max_embed_tokens.unwrap_or(1)),
            ("prompt_threads", options.prompt_threads),
            ("constraint_threads", options.constraint_threads),
        ];
        if let Some((option, _)) = limits.into_iter().find(|l| l.1 == 0) {
            return Err(ServerError::Limit { option });
        }
        let metrics = Arc::new(Metrics::default());
        let options = Arc::new(options);
        let constraint_bytes = Budget::new(options.constraint_bytes);
        let kit = Kit {
            options: options.clone(),
            constraint_bytes: constraint_bytes.clone(),
            metrics: metrics.clone(),
            turns: (list.len() > 1).then(|| Arc::new(Turns::default())),
            created: api::now(),
        };
        let site = Site {
            workers: Workers::start(&options, metrics.clone())?,
            models: Shelf::start(list, kit)?,
            body_bytes: Budget::new(body::room(options.body_bytes)),
            constraint_bytes,
            metrics,
            options,
        };
        Ok(Self { site: Arc::new(site) })
    }

    /// Name of the first model for clients.
    pub fn name(&self) -> &str {
        self.site.models.names().next().unwrap_or_default()
    }

    /// The endpoints.
    pub fn router(&self) -> Router {
        self.router_for(None)
    }

    /// The endpoints; without a key, only for clients that call this machine by its own names.
    pub(crate) fn router_for(&self, address: Option<SocketAddr>) -> Router {
        let gate = Gate::new(self.site.clone(), address);
        routes::router(&self.site.options)
            .fallback(unknown)
            .method_not_allowed_fallback(wrong_method)
            .layer(from_fn_with_state(gate, middleware))
            .with_state(self.site.clone())
    }

    /// Accepts no more requests, lets running texts continue for [`Options::grace`], then cancels them. Returns when
    /// the engine has ended, and at most two seconds after it should have.
    ///
    /// # Errors
    /// [`ServerError::EngineFailed`] if it has panicked, [`ServerError::Stuck`] if it has not ended.
    pub fn shut_down(&self) -> Result<(), ServerError> {
        self.shut_down_at(Instant::now() + self.site.options.grace)
    }

    /// Like [`Service::shut_down`], with the time when everything is broken off.
    pub(crate) fn shut_down_at(&self, deadline: Instant) -> Result<(), ServerError> {
        self.site.workers.close();
        let apps = self.site.models.close(deadline);
        let ended: Vec<Option<bool>> = apps.iter().map(|app| app.engine.join(deadline + ENGINE_END_LIMIT)).collect();
        if ended.contains(&Some(false)) {
            return Err(ServerError::EngineFailed);
        }
        if ended.contains(&None) {
            return Err(ServerError::Stuck { after: ENGINE_END_LIMIT });
        }
        Ok(())
    }

    /// The status of a request to `path` with this body before anything is generated; 200 if it can begin. For fuzzing.
    #[doc(hidden)]
    pub fn plan_only(&self, path: &str, body: &[u8]) -> u16 {
        api::plan_only(&self.site, path, body)
    }
}

/// The way of every request.
async fn middleware(State(gate): State<Gate>, request: Request, next: Next) -> Response {
    let path = request.uri().path();
    let endpoint = routes::of_path(path, &gate.site.options).map_or("other", |route| route.label);
    let dialect = Dialect::of_path(path);
    let origin = cors::allowed_origin(request.headers(), &gate.site.options);
    let mut response = match gate.authorize(&request) {
        Ok(()) if cors::is_preflight(&request, &gate.site.options) => cors::preflight(request.headers()),
        Ok(()) => next.run(request).await,
        Err(refused) => refused.into_response(),
    };
    translate(&mut response, dialect);
    if let Some(origin) = origin {
        cors::show(origin, &mut response);
    }
    cors::vary(&gate.site.options, &mut response);
    gate.site.metrics.answered(endpoint, response.status().as_u16());
    response
}

fn shown(method: &Method, uri: &Uri) -> String {
    let method: String = method.as_str().chars().take(20).collect();
    let path: String = uri.path().chars().take(100).collect();
    format!("{method} {path}")
}

async fn unknown(method: Method, uri: Uri) -> ApiError {
    let listed = routes::listed(Dialect::of_path(uri.path()));
    let message = format!("unknown route {}; available: {listed}", shown(&method, &uri));
    ApiError::new(StatusCode::NOT_FOUND, "invalid_request_error", message).code("unknown_url")
}

async fn wrong_method(State(site): State<Arc<Site>>, method: Method, uri: Uri) -> ApiError {
    let method_there = routes::of_path(uri.path(), &site.options).map_or(Method::POST, |route| route.method.clone());
    let message = format!("{} is not allowed: use {method_there}", shown(&method, &uri));
    ApiError::new(StatusCode::METHOD_NOT_ALLOWED, "invalid_request_error", message).code("method_not_allowed")
}
