//! Errors of the checks themselves.

use std::path::{Path, PathBuf};

/// An error of this program, not of the programs that it checks.
#[derive(Debug, thiserror::Error)]
pub(crate) enum HostileError {
    /// A file or process.
    #[error("cannot {op} {}: {source}", path.display())]
    Io {
        op: &'static str,
        /// The file or program.
        path: PathBuf,
        /// The system's reason.
        source: std::io::Error,
    },
    /// A name that is not in the table of kinds.
    #[error("unknown {what} {name:?}; expected one of {known}")]
    Unknown {
        what: &'static str,
        name: String,
        /// The names there are.
        known: String,
    },
    /// The library without any hostile input.
    #[error(transparent)]
    Bitnet(#[from] bitnet::Error),
    /// A server that does not come up or an answer that is not HTTP.
    #[error("the server under test: {problem}")]
    Server { problem: String },
}

impl HostileError {
    pub(crate) fn io(op: &'static str, path: impl AsRef<Path>) -> impl FnOnce(std::io::Error) -> Self {
        let path = path.as_ref().to_path_buf();
        move |source| Self::Io { op, path, source }
    }
}
