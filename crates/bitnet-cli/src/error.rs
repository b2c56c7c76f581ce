//! Errors of commands, with their exit codes.

use std::path::PathBuf;

/// Exit code of a command that failed.
pub(crate) const FAILURE: u8 = 1;
/// Exit code of a command line that makes no sense.
pub(crate) const USAGE: u8 = 2;
/// Exit code of a command that Ctrl-C ended, as shells have it: 128 + SIGINT.
pub(crate) const INTERRUPTED: u8 = 130;
/// Exit code of a command whose output was closed, as in shells: 128 + SIGPIPE.
pub(crate) const BROKEN_PIPE: u8 = 141;

/// An error of a command.
#[derive(Debug, thiserror::Error)]
pub(crate) enum CliError {
    /// An error of the libraries.
    #[error(transparent)]
    Bitnet(#[from] bitnet::Error),
    /// An error of training.
    #[cfg(feature = "train")]
    #[error(transparent)]
    Train(#[from] bitnet::train::TrainError),
    /// An error of the server.
    #[cfg(feature = "serve")]
    #[error(transparent)]
    Server(#[from] bitnet_server::ServerError),
    /// Options that do not go together, or one that is missing.
    #[error("{problem}")]
    Usage {
        /// The problem, and the way out.
        problem: String,
    },
    /// No `--model`, and no model in the default place.
    #[cfg(not(feature = "tiny-model"))]
    #[error(
        "no model: {} is not here, and neither --model nor BITNET_MODEL says which to use; \
         give a GGUF file, a Hugging Face folder, hf:owner/repo, or synthetic:2b4t", looked_for.display()
    )]
    NoModel {
        /// The path that was searched.
        looked_for: PathBuf,
    },
    /// A model path that does not exist.
    #[error("there is no file or folder {}{hint}", path.display())]
    NoSuchModel {
        path: PathBuf,
        /// A suggestion, or empty.
        hint: String,
    },
    /// A download that failed.
    #[cfg(feature = "hub")]
    #[error(transparent)]
    Hub(#[from] loader::hub::HubError),
    /// A build without the hub.
    #[cfg(not(feature = "hub"))]
    #[error("this bitnet was built without the feature `hub`; download {repo} by other means and give its folder")]
    NoHub {
        /// The repository or file to download.
        repo: String,
    },
    /// A table that could not be mapped.
    #[cfg(feature = "map")]
    #[error(transparent)]
    Map(#[from] bitnet_arrow::MapError),
    /// A row without an answer, where that ends the command.
    #[cfg(feature = "map")]
    #[error("{}: {row}: {source}; --on-error null gives such rows null and goes on", path.display())]
    Row {
        /// The table.
        path: PathBuf,
        /// The row: `line 7`.
        row: String,
        /// The reason.
        source: Box<bitnet::Error>,
    },
    /// A table, or what is kept of one, that cannot be read or written.
    #[cfg(feature = "map")]
    #[error("{}: {problem}", path.display())]
    Table {
        /// The file.
        path: PathBuf,
        problem: String,
    },
    /// A file that cannot be read or written.
    #[error(transparent)]
    File(#[from] loader::files::FileError),
    /// A file or a stream that cannot be read or written.
    #[error("cannot {op} {what}: {source}")]
    Io {
        /// `read` or `write`, for example.
        op: &'static str,
        /// The file or stream.
        what: String,
        /// The system's reason.
        source: std::io::Error,
    },
    /// A text file that is not UTF-8.
    #[error("{what} is not UTF-8 text: the byte at {at} is invalid")]
    NotUtf8 {
        /// The file or stream.
        what: String,
        /// Offset of the first invalid byte.
        at: usize,
    },
    /// The bandwidth probe, which runs in a separate process, failed.
    #[error("the bandwidth probe failed: {problem}")]
    Probe { problem: String },
    /// A busy process for `bench --beside` could not be started.
    #[error("a busy process cannot be started: {problem}; measure without --beside")]
    Busy { problem: String },
    /// The line editor of the chat failed.
    #[error("the line editor failed: {source}")]
    Editor {
        #[from]
        source: rustyline::error::ReadlineError,
    },
    /// Kernels whose results are wrong on this machine.
    #[error(
        "{} on this machine and must not be used; force another instruction set with BITNET_ISA, and report it",
        wrong(kernels)
    )]
    WrongKernels { kernels: Vec<String> },
    /// A file that cannot be used, with a description.
    #[error("{source}; it is {what}")]
    Explained {
        /// Why it cannot be used.
        source: Box<CliError>,
        /// The kind of file, and what to do with it.
        what: String,
    },
    /// A model with wrong results on this machine.
    #[error("{}: {problem}", path.display())]
    WrongModel {
        /// The file or folder.
        path: PathBuf,
        problem: String,
    },
    /// A picture that cannot be drawn.
    #[cfg(feature = "train")]
    #[error(transparent)]
    Plot(#[from] measure::plot::PlotError),
    /// Ctrl-C.
    #[error("interrupted")]
    Interrupted,
    /// The output was closed by its reader.
    #[error("the output was closed by its reader")]
    BrokenPipe,
}

fn wrong(kernels: &[String]) -> String {
    match kernels {
        [one] => format!("kernel {one} computes wrong results"),
        many => format!("kernels {} compute wrong results", many.join(", ")),
    }
}

impl CliError {
    /// The exit code of a process that ends with this error.
    pub(crate) fn exit_code(&self) -> u8 {
        match self {
            CliError::Usage { .. } => USAGE,
            CliError::Interrupted => INTERRUPTED,
            CliError::BrokenPipe => BROKEN_PIPE,
            // As in shells.
            #[cfg(feature = "serve")]
            CliError::Server(bitnet_server::ServerError::Killed { signal }) => {
                u8::try_from(128 + signal).unwrap_or(FAILURE)
            }
            _ => FAILURE,
        }
    }

    /// This error with a description of the file, if it is known.
    pub(crate) fn explained(self, what: Option<impl Into<String>>) -> Self {
        match what {
            Some(what) => CliError::Explained { source: Box::new(self), what: what.into() },
            None => self,
        }
    }

    /// An error in the use of options.
    pub(crate) fn usage(problem: impl Into<String>) -> Self {
        CliError::Usage { problem: problem.into() }
    }

    /// An input or output error; a closed output becomes [`CliError::BrokenPipe`].
    pub(crate) fn io(op: &'static str, what: impl Into<String>) -> impl FnOnce(std::io::Error) -> Self {
        let what = what.into();
        move |source| match source.kind() {
            std::io::ErrorKind::BrokenPipe => CliError::BrokenPipe,
            _ => CliError::Io { op, what, source },
        }
    }
}

macro_rules! through_bitnet {
    ($($error:ty),+) => {$(
        impl From<$error> for CliError {
            fn from(error: $error) -> Self {
                CliError::Bitnet(error.into())
            }
        }
    )+};
}
through_bitnet!(bitnet::LoadError, bitnet::ModelError);

#[cfg(feature = "map")]
impl From<arrow_schema::ArrowError> for CliError {
    fn from(error: arrow_schema::ArrowError) -> Self {
        bitnet_arrow::MapError::from(error).into()
    }
}

impl From<bitnet::KernelError> for CliError {
    fn from(error: bitnet::KernelError) -> Self {
        bitnet::ModelError::from(error).into()
    }
}
