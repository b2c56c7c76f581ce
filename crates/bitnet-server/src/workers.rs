//! The pools of threads of a server, and the messages for clients if they are busy.

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};

use axum::http::StatusCode;

use crate::api_error::ApiError;
use crate::engine::Refused;
use crate::metrics::Metrics;
use crate::pool::{Asker, Pool, Undone};
use crate::{Options, ServerError};

/// Smaller bodies have a separate thread: checking them always takes very little time.
const TINY_BODY: usize = 4 << 10;
/// Larger bodies are read by separate threads, so that small requests never wait for them.
const LARGE_BODY: usize = 64 << 10;

/// Everything that computes for requests besides the engine.
#[derive(Debug)]
pub(crate) struct Workers {
    tiny: Pool,
    small: Pool,
    large: Pool,
    constraints: Pool,
    read_timeout: Duration,
    constraint_timeout: Duration,
    metrics: Arc<Metrics>,
}

impl Workers {
    pub(crate) fn start(options: &Options, metrics: Arc<Metrics>) -> Result<Self, ServerError> {
        Ok(Self {
            tiny: Pool::start("bitnet-read-tiny", 1, options.max_connections)?,
            // Two, so that none waits for the one that takes longest to read. As many may wait as there are
            // connections.
            small: Pool::start("bitnet-read", 2.max(options.prompt_threads), options.max_connections)?,
            large: Pool::start("bitnet-read-large", options.prompt_threads, options.prompt_queue)?,
            constraints: Pool::start("bitnet-constrain", options.constraint_threads, options.constraint_queue)?,
            read_timeout: options.read_timeout,
            constraint_timeout: options.constraint_timeout,
            metrics,
        })
    }

    /// Has a body of `bytes` bytes read.
    pub(crate) async fn read<T: Send + 'static>(
        &self,
        bytes: usize,
        work: impl FnOnce(&Asker) -> Result<T, ApiError> + Send + 'static,
    ) -> Result<T, ApiError> {
        let pool = if bytes <= TINY_BODY {
            &self.tiny
        } else if bytes <= LARGE_BODY {
            &self.small
        } else {
            &self.large
        };
        let done = pool.run(Instant::now(), self.read_timeout, work).await;
        done.unwrap_or_else(|undone| Err(refusal(undone, "large requests", None)))
    }

    /// Builds the constraint of `field`. Its time counts from `arrived`.
    pub(crate) async fn constrain<T: Send + 'static>(
        &self,
        field: &'static str,
        arrived: Instant,
        work: impl FnOnce(&Asker) -> Result<T, ApiError> + Send + 'static,
    ) -> Result<T, ApiError> {
        let metrics = self.metrics.clone();
        let timed = move |asker: &Asker| {
            let began = Instant::now();
            let done = work(asker);
            metrics.constraints.record(began.elapsed());
            done
        };
        let done = self.constraints.run(arrived, self.constraint_timeout, timed).await;
        let count = match &done {
            Ok(Ok(_)) | Err(Undone::Closing) => None,
            Err(Undone::Full | Undone::Waited(_)) => Some(&self.metrics.constraints_refused),
            Ok(Err(_)) | Err(_) => Some(&self.metrics.constraints_failed),
        };
        if let Some(count) = count {
            count.fetch_add(1, Relaxed);
        }
        done.unwrap_or_else(|undone| Err(refusal(undone, "constraints", Some(field))))
    }

    /// Large requests and constraints that wait.
    pub(crate) fn waiting(&self) -> (usize, usize) {
        (self.large.waiting(), self.constraints.waiting())
    }

    /// Takes nothing more. What has begun is not waited for.
    pub(crate) fn close(&self) {
        for pool in [&self.tiny, &self.small, &self.large, &self.constraints] {
            pool.close();
        }
    }
}

/// The error that a client gets.
fn refusal(undone: Undone, what: &str, field: Option<&str>) -> ApiError {
    let busy = |message: String| {
        ApiError::new(StatusCode::TOO_MANY_REQUESTS, "rate_limit_error", message).code("rate_limit_exceeded")
    };
    let seconds = |limit: Duration| limit.as_secs_f64();
    match (undone, field) {
        (Undone::Full, _) => busy(format!("too many {what} are waiting; try again in a moment")),
        (Undone::Waited(limit), _) => {
            busy(format!("other {what} kept all threads busy for {} s; try again in a moment", seconds(limit)))
        }
        (Undone::Late(limit), Some(field)) => {
            let message = format!("the constraint was not built within {} s; make it smaller", seconds(limit));
            ApiError::field(field, message).code("constraint_too_slow")
        }
        (Undone::Late(limit), None) => {
            let message = format!("the request was not read within {} s; make it smaller", seconds(limit));
            ApiError::invalid(message).code("request_too_slow")
        }
        (Undone::Failed, _) => {
            let message = "reading the request failed; this is a bug, please report it with the request";
            ApiError::new(StatusCode::INTERNAL_SERVER_ERROR, "server_error", message)
        }
        (Undone::Closing, _) => Refused::Closing.into(),
    }
}
