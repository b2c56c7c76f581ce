//! Errors of measuring.

use std::path::Path;

/// Why a measurement, or the whole command, stopped.
#[derive(Debug, thiserror::Error)]
pub(crate) enum BenchError {
    /// A file or folder could not be read or written, or a program not be started.
    #[error("{path}: {source}")]
    Io {
        /// The file, folder or program.
        path: String,
        source: std::io::Error,
    },
    /// A program ended with a failure.
    #[error("`{command}` ended with {status}{said}")]
    Failed {
        command: String,
        /// Its exit status.
        status: String,
        /// The last lines of its messages, after a colon; empty if they were shown already.
        said: String,
    },
    /// A file or a program's output that is not as expected.
    #[error("{what}: {problem}")]
    Unreadable {
        /// The file or the program.
        what: String,
        problem: String,
    },
    /// An argument that means nothing.
    #[error("{0}")]
    Usage(String),
    /// An error of candle.
    #[error("candle: {0}")]
    Candle(#[from] candle_core::Error),
    /// An error of a kernel.
    #[error(transparent)]
    Kernel(#[from] ternary_kernels::KernelError),
    /// An error of a model.
    #[error(transparent)]
    Model(#[from] bitnet_model::ModelError),
    /// A picture could not be drawn.
    #[error("{picture}: {problem}")]
    Picture {
        picture: String,
        /// Message of the drawing library.
        problem: String,
    },
    /// Checks of the guard that failed; each has been printed.
    #[error("{count} check(s) of the guard failed, listed above")]
    Guard { count: usize },
    /// Measurements that failed; each has been printed, and is listed in the report.
    #[error("{count} measurement(s) failed, listed above and in the report")]
    Incomplete { count: usize },
}

impl BenchError {
    /// Adds the path to an I/O error.
    pub(crate) fn io(path: impl AsRef<Path>) -> impl FnOnce(std::io::Error) -> Self {
        let path = path.as_ref().display().to_string();
        move |source| Self::Io { path, source }
    }

    /// Describes a problem with the output of a program or the contents of a file.
    pub(crate) fn unreadable(what: impl Into<String>, problem: impl std::fmt::Display) -> Self {
        Self::Unreadable { what: what.into(), problem: problem.to_string() }
    }
}
