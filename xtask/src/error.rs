//! Errors of developer commands.

use std::path::{Path, PathBuf};

/// Why a command stopped.
#[derive(Debug, thiserror::Error)]
pub(crate) enum XtaskError {
    /// A step failed; the reason follows.
    #[error("step `{step}` failed: {source}")]
    Step {
        /// Name of the step.
        step: String,
        source: Box<XtaskError>,
    },
    /// A program ended with a failure.
    #[error("`{command}` ended with {status}")]
    Failed {
        command: String,
        /// Its exit status.
        status: String,
    },
    /// A file or folder could not be read or written, or a program not be started.
    #[error("{path}: {source}")]
    Io {
        /// The file, folder or program.
        path: String,
        source: std::io::Error,
    },
    /// A tool or a folder that this machine must have.
    #[error("{what} is missing; {remedy}")]
    Missing {
        what: String,
        /// How to get it.
        remedy: &'static str,
    },
    /// A program printed something else than expected.
    #[error("{what}: expected {expected}, got {got}")]
    Unexpected { what: String, expected: String, got: String },
    /// Rules that were broken; each has been printed.
    #[error("{count} finding(s), listed above")]
    Findings { count: usize },
}

impl XtaskError {
    /// Adds the path to an I/O error.
    pub(crate) fn io(path: impl AsRef<Path>) -> impl FnOnce(std::io::Error) -> Self {
        let path: PathBuf = path.as_ref().into();
        move |source| Self::Io { path: path.display().to_string(), source }
    }
}
