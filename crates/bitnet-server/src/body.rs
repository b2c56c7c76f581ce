//! Bodies of requests: how long they may take to come, how long they may be, and how much room all of them may take
//! together.

use std::ops::Deref;
use std::pin::Pin;

use axum::body::Body;
use axum::extract::Request;
use axum::http::{StatusCode, header};
use hyper::body::Body as _;

use crate::api_error::{ApiError, quoted};
use crate::budget::Share;
use crate::net::Peer;
use crate::state::Site;

/// All bodies together may take so many times the longest one, and [`BODY_BUDGET_BASE`].
const BODY_BUDGET_FACTOR: usize = 16;
const BODY_BUDGET_BASE: usize = 64 << 20;

/// A body that was read; it counts among all until it is dropped.
#[derive(Debug)]
pub(crate) struct Bytes {
    bytes: Vec<u8>,
    held: Share,
}

/// Memory that all bodies together may take, and the limit of each.
pub(crate) fn room(longest: usize) -> usize {
    longest.saturating_mul(BODY_BUDGET_FACTOR).saturating_add(BODY_BUDGET_BASE)
}

impl Deref for Bytes {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.bytes
    }
}

impl Site {
    /// The body of a request, whose content type must be JSON: a form on a web page cannot send that, so no page can
    /// secretly use a server through its reader's browser.
    pub(crate) async fn read_body(&self, request: Request) -> Result<Bytes, ApiError> {
        let kind = request.headers().get(header::CONTENT_TYPE).and_then(|v| v.to_str().ok()).unwrap_or_default();
        let kind = kind.split(';').next().unwrap_or_default().trim();
        if !kind.eq_ignore_ascii_case("application/json") {
            let message = format!("the body must be JSON, with Content-Type: application/json, not {}", quoted(kind));
            let status = StatusCode::UNSUPPORTED_MEDIA_TYPE;
            return Err(ApiError::new(status, "invalid_request_error", message).code("wrong_content_type"));
        }
        let peer = request.extensions().get::<Peer>().cloned();
        let _reading = peer.as_ref().map(Peer::reads);
        let read = tokio::time::timeout(self.options.read_timeout, self.collect(request.into_body()));
        let late = || {
            ApiError::new(StatusCode::REQUEST_TIMEOUT, "invalid_request_error", "timed out reading the request body")
        };
        read.await.unwrap_or_else(|_| Err(late()))
    }

    /// All bytes of a body.
    async fn collect(&self, mut body: Body) -> Result<Bytes, ApiError> {
        let limit = self.options.body_bytes;
        let mut read = Bytes { bytes: Vec::new(), held: self.body_bytes.share() };
        let mut total = 0usize;
        while let Some(frame) = std::future::poll_fn(|cx| Pin::new(&mut body).poll_frame(cx)).await {
            let frame = frame.map_err(|error| ApiError::invalid(format!("the body cannot be read: {error}")))?;
            let Ok(data) = frame.into_data() else { continue };
            total = total.saturating_add(data.len());
            if total <= limit {
                read.held.set(total);
                if !self.body_bytes.fits() {
                    let message = "the request bodies in progress take too much memory; try again in a moment";
                    return Err(ApiError::new(StatusCode::TOO_MANY_REQUESTS, "rate_limit_error", message)
                        .code("rate_limit_exceeded"));
                }
                read.bytes.extend_from_slice(&data);
            } else if total > limit.saturating_mul(4) {
                break;
            } else {
                // Read to its end and forgotten: many clients look for an answer only when they have sent everything.
                read.bytes = Vec::new();
            }
        }
        if total <= limit {
            return Ok(read);
        }
        let message = format!("the body has more than {limit} bytes, which is this server's limit");
        Err(ApiError::new(StatusCode::PAYLOAD_TOO_LARGE, "invalid_request_error", message).code("request_too_large"))
    }
}
