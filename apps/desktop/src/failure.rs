//! Errors as the page takes them: a code that it has words for, and the library's own words.

use bitnet::Error;
use bitnet_backend::SchemaError;
use loader::files::FileError;
use serde::Serialize;

/// An error: `BackendError` of the page.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Failure {
    /// One of the codes of `BackendError`.
    pub code: &'static str,
    /// The library's own words.
    pub message: String,
    /// The field of the request that is wrong, if one is.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub param: Option<&'static str>,
}

impl Failure {
    /// An error with a code.
    pub fn new(code: &'static str, message: impl Into<String>) -> Self {
        Self { code, message: message.into(), param: None }
    }

    /// A field of a request that is wrong.
    pub fn request(param: &'static str, message: impl Into<String>) -> Self {
        Self { param: Some(param), ..Self::new("request", message) }
    }

    /// Something that should not happen.
    pub fn internal(error: impl std::fmt::Display) -> Self {
        Self::new("internal", error.to_string())
    }
}

impl std::fmt::Display for Failure {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}", self.message)
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Self::new(bitnet_backend::code(&error), error.to_string())
    }
}

impl From<SchemaError> for Failure {
    fn from(error: SchemaError) -> Self {
        Self { param: Some("constraint"), ..Self::new("constraint", error.to_string()) }
    }
}

impl From<loader::LoadError> for Failure {
    fn from(error: loader::LoadError) -> Self {
        Self::new("model", error.to_string())
    }
}

impl From<FileError> for Failure {
    fn from(error: FileError) -> Self {
        Self::internal(error)
    }
}
