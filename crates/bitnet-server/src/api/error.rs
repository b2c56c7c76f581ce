//! Errors as OpenAI's clients understand them.

use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use bitnet::ModelError;
use serde_json::{Value, json};

use super::json_response;
use crate::engine::{Failure, Refused};

/// An answer that says what is wrong.
#[derive(Debug)]
pub(crate) struct ApiError {
    status: StatusCode,
    kind: &'static str,
    code: Option<&'static str>,
    param: Option<String>,
    message: String,
}

impl ApiError {
    pub(crate) fn new(status: StatusCode, kind: &'static str, message: impl Into<String>) -> Self {
        Self { status, kind, code: None, param: None, message: message.into() }
    }

    /// Something is wrong with the request as a whole.
    pub(crate) fn invalid(message: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "invalid_request_error", message)
    }

    /// Something is wrong with a field.
    pub(crate) fn field(param: impl Into<String>, message: impl std::fmt::Display) -> Self {
        let param = param.into();
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

    /// With a code that programs read.
    pub(crate) fn code(mut self, code: &'static str) -> Self {
        self.code = Some(code);
        self
    }

    /// With another status.
    pub(crate) fn status(mut self, status: StatusCode) -> Self {
        self.status = status;
        self
    }

    /// The body.
    pub(crate) fn json(&self) -> Value {
        json!({ "error": { "message": self.message, "type": self.kind, "param": self.param, "code": self.code } })
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let mut response = json_response(self.status, &self.json());
        let headers = response.headers_mut();
        match self.status {
            StatusCode::TOO_MANY_REQUESTS | StatusCode::SERVICE_UNAVAILABLE => {
                // In seconds.
                headers.insert(header::RETRY_AFTER, HeaderValue::from_static("1"));
            }
            StatusCode::UNAUTHORIZED => {
                headers.insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
            }
            // What is left of a body that came too slowly must not be taken for the next request.
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
                "all places are taken and so are those to wait in; try again in a moment",
            )
            .code("rate_limit_exceeded"),
            Refused::Closing => {
                Self::new(StatusCode::SERVICE_UNAVAILABLE, "server_error", "the server is about to end")
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

impl From<Failure> for ApiError {
    fn from(failure: Failure) -> Self {
        match failure {
            Failure::Model(error) => error.into(),
            Failure::Closing => Self::new(
                StatusCode::SERVICE_UNAVAILABLE,
                "server_error",
                "the server ended before the text did; what there is of it is no whole answer",
            )
            .code("server_shutdown"),
        }
    }
}

impl From<bitnet::Error> for ApiError {
    fn from(error: bitnet::Error) -> Self {
        let message = error.to_string();
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
                "the model has no chat template; use /v1/completions, or start the server with one (--template)",
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
