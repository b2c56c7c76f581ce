//! Errors on their way to C: a status, and the library's own words.

use std::fmt;

use bitnet::{ConstraintError, Error, ModelError};

use crate::border::Kind;
use crate::status::{bitnet_error, bitnet_status};

/// An error.
#[derive(Debug)]
pub(crate) struct Failure {
    status: bitnet_status,
    /// With a NUL at the end.
    message: Vec<u8>,
}

impl Failure {
    pub(crate) fn new(status: bitnet_status, message: impl Into<String>) -> Self {
        let mut message = message.into().into_bytes();
        message.push(0);
        Self { status, message }
    }

    pub(crate) fn null(what: &str) -> Self {
        Self::new(bitnet_status::Null, format!("{what} is NULL"))
    }
    pub(crate) fn argument(message: String) -> Self {
        Self::new(bitnet_status::Argument, message)
    }
    pub(crate) fn utf8(what: &str, at: usize) -> Self {
        Self::new(bitnet_status::Utf8, format!("{what} is not UTF-8 from byte {at} on"))
    }
    pub(crate) fn size(what: &str, reason: String) -> Self {
        Self::new(bitnet_status::Size, format!("{what}: {reason}"))
    }
    pub(crate) fn busy(what: &str) -> Self {
        Self::new(bitnet_status::Busy, what)
    }
    pub(crate) fn panic(reason: &str) -> Self {
        let message =
            format!("the library has a bug, please report it: {reason}; free the session or stream of this call");
        Self::new(bitnet_status::Panic, message)
    }

    /// A handle that is not of the kind `expected`, with the tag it has, if it has one.
    pub(crate) fn kind(expected: &str, tag: Option<[u8; 8]>) -> Self {
        let is = match tag {
            None => "it is not a handle",
            Some(tag) => KINDS.iter().find(|(of, _)| *of == tag).map_or("it is not a handle, or it was freed", |k| k.1),
        };
        Self::new(bitnet_status::Handle, format!("a {expected} is needed here; {is}"))
    }

    pub(crate) fn status(&self) -> bitnet_status {
        self.status
    }
    /// The message with a NUL at the end.
    pub(crate) fn message(&self) -> &[u8] {
        &self.message
    }
}

/// Kinds of handles, for messages.
const KINDS: [([u8; 8], &str); 9] = [
    (<bitnet_error as Kind>::TAG, "it is a bitnet_error"),
    (<crate::buffer::bitnet_bytes as Kind>::TAG, "it is a bitnet_bytes"),
    (<crate::buffer::bitnet_tokens as Kind>::TAG, "it is a bitnet_tokens"),
    (<crate::buffer::bitnet_floats as Kind>::TAG, "it is a bitnet_floats"),
    (<crate::model::bitnet_model as Kind>::TAG, "it is a bitnet_model"),
    (<crate::session::bitnet_session as Kind>::TAG, "it is a bitnet_session"),
    (<crate::stream::bitnet_stream as Kind>::TAG, "it is a bitnet_stream"),
    (<crate::cancel::bitnet_cancel as Kind>::TAG, "it is a bitnet_cancel"),
    (<crate::extractor::bitnet_extractor as Kind>::TAG, "it is a bitnet_extractor"),
];

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&String::from_utf8_lossy(&self.message[..self.message.len() - 1]))
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        let status = match &error {
            Error::Load(_) => bitnet_status::Load,
            Error::File(_) => bitnet_status::File,
            Error::Model(ModelError::ContextFull { .. }) => bitnet_status::ContextFull,
            Error::Model(ModelError::SavedSequence(_)) => bitnet_status::SavedSession,
            Error::Model(
                ModelError::Sampling { .. }
                | ModelError::TokenOutOfRange { .. }
                | ModelError::EmptyPrompt
                | ModelError::UnknownTask { .. },
            ) => bitnet_status::Argument,
            Error::NothingToChoose | Error::Template { .. } | Error::Pooling { .. } => bitnet_status::Argument,
            Error::Tokenizer(_) | Error::NoTokenizer => bitnet_status::Tokenizer,
            Error::Chat(_) | Error::NoChatTemplate | Error::ChatTemplate(_) => bitnet_status::Chat,
            Error::Constraint(ConstraintError::Unfinished { .. }) => bitnet_status::Unfinished,
            Error::Constraint(_) => bitnet_status::Constraint,
            _ => bitnet_status::Model,
        };
        Self::new(status, error.to_string())
    }
}
