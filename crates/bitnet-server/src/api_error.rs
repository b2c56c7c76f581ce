//! Errors as the clients of both interfaces understand them.

use std::borrow::Cow;
use std::time::Duration;

use axum::body::Body;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use bitnet::ModelError;
use serde_json::{Value, json};

use crate::dialect::Dialect;
use crate::engine::{Failure, Refused};

/// An answer that describes an error.
#[derive(Debug)]
pub(crate) struct ApiError {
    status: StatusCode,
    kind: &'static str,
    code: Option<&'static str>,
    param: Option<String>,
    message: String,
}

/// The maximum number of characters in a quotation of a client's input.
const MAX_QUOTE_CHARS: usize = 100;
/// Most characters of a message. Libraries quote, too.
const MAX_MESSAGE_CHARS: usize = 1000;

/// Input of a client in quotes, shortened if it is long.
pub(crate) fn quoted(text: &str) -> String {
    format!("{:?}", shortened(text, MAX_QUOTE_CHARS))
}

/// At most `most` characters of a text, with a mark if some are left out.
fn shortened(text: &str, most: usize) -> Cow<'_, str> {
    match text.char_indices().nth(most) {
        None => text.into(),
        Some((end, _)) => format!("{}…", text.get(..end).unwrap_or_default()).into(),
    }
}

/// An answer of JSON.
pub(crate) fn json_response(status: StatusCode, value: &Value) -> Response {
    let mut response = Response::new(Body::from(value.to_string()));
    *response.status_mut() = status;
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}

impl ApiError {
    /// With a message that is shortened if it quotes too much.
    pub(crate) fn new(status: StatusCode, kind: &'static str, message: impl Into<String>) -> Self {
        let mut message = message.into();
        if let Cow::Owned(short) = shortened(&message, MAX_MESSAGE_CHARS) {
            message = short;
        }
        Self { status, kind, code: None, param: None, message }
    }

    /// Something is wrong with the request as a whole.
    pub(crate) fn invalid(message: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "invalid_request_error", message)
    }

    /// Something is wrong with a field.
    pub(crate) fn field(param: impl Into<String>, message: impl std::fmt::Display) -> Self {
        let param = shortened(&param.into(), MAX_QUOTE_CHARS).into_owned();
        Self { param: Some(param.clone()), ..Self::invalid(format!("{param}: {message}")) }
    }

    /// A field that this server has nothing for.
    pub(crate) fn unsupported(param: impl Into<String>, message: impl std::fmt::Display) -> Self {
        Self::field(param, message).code("unsupported_parameter")
    }

    /// A prompt that is too long.
    pub(crate) fn too_long(param: &str, limit: usize, got: usize) -> Self {
        let message = format!("the prompt has {got} tokens and the context holds {limit}; shorten it");
        Self::field(param, message).code("context_length_exceeded")
    }

    /// Sets a code for programs.
    pub(crate) fn code(mut self, code: &'static str) -> Self {
        self.code = Some(code);
        self
    }

    /// Sets the status.
    pub(crate) fn status(mut self, status: StatusCode) -> Self {
        self.status = status;
        self
    }

    /// Whether something that was named is not there.
    pub(crate) fn is_not_found(&self) -> bool {
        self.status == StatusCode::NOT_FOUND
    }

    /// The message.
    pub(crate) fn message(&self) -> &str {
        &self.message
    }

    /// The body for clients of OpenAI's interface.
    pub(crate) fn json(&self) -> Value {
        json!({ "error": { "message": self.message, "type": self.kind, "param": self.param, "code": self.code } })
    }

    /// The body for clients of `dialect`.
    pub(crate) fn json_for(&self, dialect: Dialect) -> Value {
        match dialect {
            Dialect::OpenAi => self.json(),
            Dialect::Ollama => json!({ "error": self.message }),
        }
    }
}

/// The message of an answer that is an error, until it is known which interface its client uses.
#[derive(Clone)]
struct Told(String);

/// Writes an answer that is an error in the form of `dialect`.
pub(crate) fn translate(response: &mut Response, dialect: Dialect) {
    if let Some(Told(message)) = response.extensions_mut().remove()
        && dialect == Dialect::Ollama
    {
        *response.body_mut() = Body::from(json!({ "error": message }).to_string());
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let mut response = json_response(self.status, &self.json());
        response.extensions_mut().insert(Told(self.message));
        let headers = response.headers_mut();
        match self.status {
            StatusCode::TOO_MANY_REQUESTS | StatusCode::SERVICE_UNAVAILABLE => {
                // In seconds.
                headers.insert(header::RETRY_AFTER, HeaderValue::from_static("1"));
            }
            StatusCode::UNAUTHORIZED => {
                headers.insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
            }
            // The rest of a body that timed out must not be taken for the next request.
            StatusCode::REQUEST_TIMEOUT => {
                headers.insert(header::CONNECTION, HeaderValue::from_static("close"));
            }
            _ => {}
        }
        response
    }
}

impl From<Refused> for ApiError {
    fn from(refused: Refused) -> Self {
        match refused {
            Refused::Full => Self::new(
                StatusCode::TOO_MANY_REQUESTS,
                "rate_limit_error",
                "the server is busy and its queue is full; try again in a moment",
            )
            .code("rate_limit_exceeded"),
            Refused::Closing => {
                Self::new(StatusCode::SERVICE_UNAVAILABLE, "server_error", "the server is shutting down")
                    .code("server_shutdown")
            }
            Refused::Dead => Self::dead(),
        }
    }
}

impl ApiError {
    /// The engine has failed.
    pub(crate) fn dead() -> Self {
        Self::new(StatusCode::INTERNAL_SERVER_ERROR, "server_error", "the engine of this server has failed; restart it")
            .code("engine_failed")
    }
}

impl ApiError {
    /// The constraints of a request take `own` bytes, and there is no room for them; `most` is the room without any
    /// other request.
    pub(crate) fn constraints_too_large(field: Option<&str>, own: usize, most: usize) -> Self {
        if own > most {
            let message = format!("its automata take {own} bytes, and at most {most} are allowed; make it smaller");
            return Self::field(field.unwrap_or("response_format"), message).code("constraint_too_large");
        }
        Self::no_memory("the constraints of all requests together take too much memory; try again in a moment")
    }

    fn no_memory(message: &str) -> Self {
        Self::new(StatusCode::TOO_MANY_REQUESTS, "rate_limit_error", message).code("rate_limit_exceeded")
    }
}

impl ApiError {
    /// A model that cannot be loaded.
    pub(crate) fn not_loaded(name: &str, why: &str) -> Self {
        let message = format!("the model {name:?} cannot be loaded: {why}");
        Self::new(StatusCode::INTERNAL_SERVER_ERROR, "server_error", message).code("model_not_loaded")
    }

    /// A model that was not loaded in time.
    pub(crate) fn no_room(limit: Duration) -> Self {
        let message = format!(
            "the model was not loaded within {} s: it is large, or there is no memory for it beside those that others use; try again in a moment",
            limit.as_secs_f64()
        );
        Self::new(StatusCode::TOO_MANY_REQUESTS, "rate_limit_error", message).code("rate_limit_exceeded")
    }
}

impl From<Failure> for ApiError {
    fn from(failure: Failure) -> Self {
        match failure {
            Failure::Model(error) => error.into(),
            Failure::Memory => Self::no_memory(
                "the constraints of all texts together take too much memory, and that of this one most; try again in a \
                 moment, or make it smaller",
            ),
            Failure::Closing => Self::new(
                StatusCode::SERVICE_UNAVAILABLE,
                "server_error",
                "the server shut down before the answer was complete",
            )
            .code("server_shutdown"),
        }
    }
}

/// The message of a library, unless it is the text of a panic: that is for developers, not for clients.
pub(crate) fn presentable(message: String) -> String {
    if !message.contains("panic: ") && !message.contains("panicked at") {
        return message;
    }
    tracing::error!(%message, "a library failed on a request");
    "an internal library failed on this request; please report it with the request".into()
}

impl From<bitnet::Error> for ApiError {
    fn from(error: bitnet::Error) -> Self {
        let message = presentable(error.to_string());
        match &error {
            bitnet::Error::Model(ModelError::ContextFull { .. }) => {
                Self::invalid(message).code("context_length_exceeded")
            }
            bitnet::Error::Model(ModelError::Sampling { option, .. }) => {
                Self { param: Some((*option).to_owned()), ..Self::invalid(message) }
            }
            bitnet::Error::Model(ModelError::TokenOutOfRange { .. } | ModelError::EmptyPrompt)
            | bitnet::Error::Tokenizer(_) => Self::invalid(message),
            bitnet::Error::NoChatTemplate => Self::invalid(
                "the model has no chat template; use /v1/completions or /api/generate, or start the server with one (--template)",
            )
            .code("no_chat_template"),
            bitnet::Error::ChatTemplate(_) => Self::invalid(message).code("no_chat_template"),
            bitnet::Error::Chat(_) => Self { param: Some("messages".into()), ..Self::invalid(message) },
            #[cfg(feature = "constrain")]
            bitnet::Error::Constraint(_) => Self { param: Some("response_format".into()), ..Self::invalid(message) },
            _ => Self::new(StatusCode::INTERNAL_SERVER_ERROR, "server_error", message),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_quoted_is_cut() {
        assert_eq!(quoted("a\n"), "\"a\\n\"");
        assert_eq!(quoted(&"é".repeat(100)).chars().count(), 102);
        assert_eq!(quoted(&"é".repeat(101)).chars().count(), 103);
        let error = ApiError::field("x".repeat(100_000), "y".repeat(100_000)).json().to_string();
        assert!(error.len() < 2000, "{}", error.len());
        assert!(presentable("cannot go on: panic: index out of bounds".into()).contains("report it"));
        assert_eq!(presentable("cannot go on".into()), "cannot go on");
    }
}
