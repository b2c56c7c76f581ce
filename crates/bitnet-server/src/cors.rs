//! Web pages of other origins that may use the server (`--cors`): a browser asks before it lets a page send a request,
//! and hides an answer from a page unless a header names the page's origin.

use axum::extract::Request;
use axum::http::{HeaderMap, HeaderValue, Method, StatusCode, header};
use axum::response::{IntoResponse, Response};

use crate::{Options, ServerError};

/// How long a browser may remember that a page may send requests, in seconds.
const REMEMBERED: &str = "600";
/// The methods of all endpoints.
const METHODS: &str = "GET, HEAD, POST, DELETE";
const ASKS_FOR_NETWORK: &str = "access-control-request-private-network";
const ALLOWS_NETWORK: &str = "access-control-allow-private-network";

/// The word for the pages of all origins.
const ALL: &str = "*";

/// The pages that may read the answer to a request that comes from a page: those of its origin, or all; `None` if its
/// page may not use the server.
pub(crate) fn allowed_origin(headers: &HeaderMap, options: &Options) -> Option<HeaderValue> {
    let origin = headers.get(header::ORIGIN)?;
    if options.cors_origins.iter().any(|allowed| allowed == ALL) {
        return Some(HeaderValue::from_static(ALL));
    }
    let allowed = options.cors_origins.iter().any(|allowed| origin.as_bytes() == allowed.as_bytes());
    allowed.then(|| origin.clone())
}

/// Whether a browser asks on behalf of a page that may use the server. Such a question has no key.
pub(crate) fn is_preflight(request: &Request, options: &Options) -> bool {
    request.method() == Method::OPTIONS
        && request.headers().contains_key(header::ACCESS_CONTROL_REQUEST_METHOD)
        && allowed_origin(request.headers(), options).is_some()
}

/// The answer to such a question: the page may send any request, with any header.
pub(crate) fn preflight(headers: &HeaderMap) -> Response {
    let mut response = StatusCode::NO_CONTENT.into_response();
    let answer = response.headers_mut();
    answer.insert(header::ACCESS_CONTROL_ALLOW_METHODS, HeaderValue::from_static(METHODS));
    if let Some(asked) = headers.get(header::ACCESS_CONTROL_REQUEST_HEADERS) {
        answer.insert(header::ACCESS_CONTROL_ALLOW_HEADERS, asked.clone());
    }
    if headers.contains_key(ASKS_FOR_NETWORK) {
        answer.insert(ALLOWS_NETWORK, HeaderValue::from_static("true"));
    }
    answer.insert(header::ACCESS_CONTROL_MAX_AGE, HeaderValue::from_static(REMEMBERED));
    response
}

/// Lets the page of `origin` read an answer.
pub(crate) fn show(origin: HeaderValue, response: &mut Response) {
    let headers = response.headers_mut();
    headers.insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, origin);
    headers.insert(header::ACCESS_CONTROL_EXPOSE_HEADERS, HeaderValue::from_static("retry-after"));
}

/// Tells caches that an answer depends on who asks; where no origins were named, none does.
pub(crate) fn vary(options: &Options, response: &mut Response) {
    if !options.cors_origins.is_empty() {
        response.headers_mut().append(header::VARY, HeaderValue::from_static("origin"));
    }
}

/// Refuses origins that no browser sends.
pub(crate) fn check_origins(options: &Options) -> Result<(), ServerError> {
    let sendable = |origin: &str| match origin.split_once("://") {
        Some((scheme, host)) => {
            let is_scheme = scheme.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b"+-.".contains(&b));
            let is_host = host.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b"-._:[]".contains(&b));
            !scheme.is_empty() && !host.is_empty() && is_scheme && is_host
        }
        None => origin == ALL,
    };
    match options.cors_origins.iter().find(|origin| !sendable(origin)) {
        Some(origin) => Err(ServerError::Origin { origin: origin.clone() }),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_origins_can_be_allowed() {
        let check =
            |origin: &str| check_origins(&Options { cors_origins: vec![origin.into()], ..Options::default() }).is_ok();
        let origins = ["http://localhost:3000", "https://example.org", "http://[::1]:80", "app://abc", "*"];
        assert!(origins.into_iter().all(check));
        let wrong = [
            "**",
            "",
            "null",
            "http://*",
            "localhost:3000",
            "http://",
            "://x",
            "http://x/",
            "http://x/path",
            "https://Example.org",
            "http://x y",
        ];
        assert!(!wrong.into_iter().any(check));
    }
}
