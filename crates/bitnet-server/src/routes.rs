//! The table of endpoints: path, method, handler, and the name under which requests are counted.

use std::sync::Arc;

use axum::Router;
use axum::http::Method;
use axum::routing::{MethodRouter, any, get, post};

use crate::api::{self, ollama};
use crate::dialect::Dialect;
use crate::options::Options;
use crate::state::Site;

/// An endpoint.
pub(crate) struct Route {
    /// In the router's notation: `{*name}` at the end stands for the rest of a path.
    pub(crate) path: &'static str,
    /// The method that it answers.
    pub(crate) method: Method,
    /// Its name in the metrics.
    pub(crate) label: &'static str,
    handler: fn() -> MethodRouter<Arc<Site>>,
}

impl Route {
    pub(crate) const fn get(path: &'static str, label: &'static str, handler: fn() -> MethodRouter<Arc<Site>>) -> Self {
        Self { path, method: Method::GET, label, handler }
    }

    const fn post(path: &'static str, label: &'static str, handler: fn() -> MethodRouter<Arc<Site>>) -> Self {
        Self { path, method: Method::POST, label, handler }
    }

    /// An endpoint of Ollama's interface for changing models, which this server does not do.
    const fn refused(path: &'static str, label: &'static str, method: Method) -> Self {
        Self { path, method, label, handler: || any(ollama::refused) }
    }

    fn matches(&self, path: &str) -> bool {
        match self.path.split_once("{*") {
            Some((before, _)) => path.len() > before.len() && path.starts_with(before),
            None => path == self.path,
        }
    }
}

/// All endpoints. Routing, metrics and error messages use this list.
pub(crate) static ROUTES: &[Route] = &[
    Route::get("/health", "/health", || get(api::health)),
    Route::get("/bitnet/info", "/bitnet/info", || get(api::info)),
    Route::post("/bitnet/inner-loss", "/bitnet/inner-loss", || post(api::inner_loss)),
    Route::get("/metrics", "/metrics", || get(api::metrics)),
    Route::get("/v1/models", "/v1/models", || get(api::models)),
    // Names of models may hold slashes.
    Route::get("/v1/models/{*name}", "/v1/models", || get(api::model)),
    Route::post("/v1/chat/completions", "/v1/chat/completions", || post(api::chat)),
    Route::post("/v1/responses", "/v1/responses", || post(api::responses)),
    Route::post("/v1/completions", "/v1/completions", || post(api::completions)),
    Route::post("/v1/embeddings", "/v1/embeddings", || post(api::embeddings)),
    Route::post("/api/chat", "/api/chat", || post(ollama::chat)),
    Route::post("/api/generate", "/api/generate", || post(ollama::generate)),
    Route::post("/api/embed", "/api/embed", || post(ollama::embed)),
    Route::post("/api/embeddings", "/api/embeddings", || post(ollama::embeddings)),
    Route::get("/api/tags", "/api/tags", || get(ollama::tags)),
    Route::post("/api/show", "/api/show", || post(ollama::show)),
    Route::get("/api/ps", "/api/ps", || get(ollama::ps)),
    Route::get("/api/version", "/api/version", || get(ollama::version)),
    Route::post("/api/pull", "/api/pull", || post(ollama::pull)),
    Route::refused("/api/create", "/api/create", Method::POST),
    Route::refused("/api/copy", "/api/copy", Method::POST),
    Route::refused("/api/push", "/api/push", Method::POST),
    Route::refused("/api/delete", "/api/delete", Method::DELETE),
    Route::refused("/api/blobs/{*digest}", "/api/blobs", Method::POST),
];

/// The root of a server without a page: clients of Ollama's interface look there whether a server runs.
static ROOT: &[Route] = &[Route::get("/", "/", || get(ollama::root))];

/// The files of the page, if it is served, else the bare root.
#[cfg(feature = "page")]
fn page(options: &Options) -> &'static [Route] {
    if options.page { crate::page::ROUTES } else { ROOT }
}

/// Without the feature there is no page.
#[cfg(not(feature = "page"))]
fn page(_: &Options) -> &'static [Route] {
    ROOT
}

/// A router of all endpoints, and of the page if it is served.
pub(crate) fn router(options: &Options) -> Router<Arc<Site>> {
    let all = ROUTES.iter().chain(page(options));
    all.fold(Router::new(), |router, route| router.route(route.path, (route.handler)()))
}

/// The endpoint of a path, or the file of the page, for any method.
pub(crate) fn of_path(path: &str, options: &Options) -> Option<&'static Route> {
    ROUTES.iter().chain(page(options)).find(|route| route.matches(path))
}

/// Whether a path is a file of the page, which holds nothing but what every copy of this program has: a browser gets it
/// before it can send a key. Nor does the bare root hold more.
pub(crate) fn is_page(path: &str, options: &Options) -> bool {
    page(options).iter().any(|route| route.path == path)
}

/// All paths of an interface, each with its method, for a refusal.
pub(crate) fn listed(dialect: Dialect) -> String {
    let of_it = ROUTES.iter().filter(|route| Dialect::of_path(route.path) == dialect);
    of_it.map(|r| format!("{} {}", r.method, r.path)).collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_find_their_endpoint() {
        let options = Options::default();
        let label = |path: &str| of_path(path, &options).map(|r| r.label);
        assert_eq!(label("/v1/models"), Some("/v1/models"));
        assert_eq!(label("/v1/models/some/name"), Some("/v1/models"));
        assert_eq!(label("/v1/models/"), None);
        assert_eq!(label("/v1/embeddings"), Some("/v1/embeddings"));
        assert_eq!(label("/v1/embeddings/x"), None);
        assert_eq!(label("/api/blobs/sha256:0"), Some("/api/blobs"));
        let (openai, ollama) = (listed(Dialect::OpenAi), listed(Dialect::Ollama));
        assert!(openai.contains("POST /v1/embeddings") && !openai.contains("/api"));
        assert!(ollama.contains("DELETE /api/delete") && !ollama.contains("/v1"));
        // There is always something at the root, and none of it needs a key.
        assert_eq!((label("/"), is_page("/", &options)), (Some("/"), true));
    }
}
