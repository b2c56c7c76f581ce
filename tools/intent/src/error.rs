//! Errors of this tool.

use std::path::Path;

/// Why a command stopped.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum IntentError {
    /// A file or folder could not be read or written, or a connection failed.
    #[error("{place}: {source}")]
    Io {
        /// The file, folder or address.
        place: String,
        /// The reason.
        source: std::io::Error,
    },
    /// A file or an answer that is not as expected.
    #[error("{what}: {problem}")]
    Unreadable {
        /// The file or the server.
        what: String,
        /// The problem.
        problem: String,
    },
    /// An argument that means nothing.
    #[error("{0}")]
    Usage(String),
    /// An error of the model.
    #[error(transparent)]
    Model(#[from] bitnet::Error),
    /// No tokenizer could be learned.
    #[error(transparent)]
    Tokenizer(#[from] loader::tokenizer::TokenizerError),
}

impl IntentError {
    /// Adds the place to an I/O error.
    pub(crate) fn io(place: impl AsRef<Path>) -> impl FnOnce(std::io::Error) -> Self {
        let place = place.as_ref().display().to_string();
        move |source| Self::Io { place, source }
    }

    /// Describes a problem with a file or an answer.
    pub(crate) fn unreadable(what: impl Into<String>, problem: impl std::fmt::Display) -> Self {
        Self::Unreadable { what: what.into(), problem: problem.to_string() }
    }
}
