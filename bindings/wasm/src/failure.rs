//! Errors as the page takes them: a code that it has words for, and the library's own words.

use bitnet::Error;
use bitnet_backend::SchemaError;
use wasm_bindgen::prelude::wasm_bindgen;

/// An error.
#[wasm_bindgen(getter_with_clone)]
#[derive(Clone, Debug, PartialEq)]
pub struct Failure {
    /// One of the codes of `BackendError`.
    pub code: String,
    /// The library's own words.
    pub message: String,
    /// The field of the request that is wrong, if one is.
    pub param: Option<String>,
    /// Bytes that were needed, if memory was short.
    pub needed: Option<f64>,
    /// Bytes that were left then.
    pub available: Option<f64>,
}

impl Failure {
    pub(crate) fn new(code: &str, message: impl Into<String>) -> Self {
        let (code, message) = (code.to_owned(), message.into());
        Self { code, message, param: None, needed: None, available: None }
    }

    /// A field of a request that is wrong.
    pub(crate) fn request(param: &str, message: impl Into<String>) -> Self {
        Self { param: Some(param.to_owned()), ..Self::new("request", message) }
    }

    /// A request that is not JSON of the expected form.
    pub(crate) fn form(error: &serde_json::Error) -> Self {
        Self::new("request", format!("the request is not understood: {error}"))
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Self::new(bitnet_backend::code(&error), error.to_string())
    }
}

impl From<SchemaError> for Failure {
    fn from(error: SchemaError) -> Self {
        Self { param: Some("constraint".to_owned()), ..Self::new("constraint", error.to_string()) }
    }
}

impl From<loader::LoadError> for Failure {
    fn from(error: loader::LoadError) -> Self {
        Self::new("model", error.to_string())
    }
}
