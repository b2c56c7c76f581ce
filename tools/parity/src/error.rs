//! Errors within a case.

use std::path::Path;

/// Why a case could not be compared. A comparison that was made and is off is not an error but a failed row.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ParityError {
    /// A file or folder could not be read or written.
    #[error("{path}: {source}")]
    Io {
        /// The file or folder.
        path: String,
        /// The reason.
        source: std::io::Error,
    },
    /// A JSON file that is none, or lacks something.
    #[error("{path}: {what}")]
    Json {
        /// The file.
        path: String,
        /// The problem.
        what: String,
    },
    /// A safetensors file that is none, or a tensor of another type than expected.
    #[error("{path}: {what}")]
    Tensors {
        /// The file.
        path: String,
        /// The problem.
        what: String,
    },
    /// The model could not be loaded.
    #[error("load: {0}")]
    Load(#[from] loader::LoadError),
    /// The model refused something.
    #[error(transparent)]
    Model(#[from] bitnet_model::ModelError),
    /// A TTT layer refused something.
    #[error(transparent)]
    Ttt(#[from] ttt_layer::TttError),
    /// A tensor operation failed.
    #[error(transparent)]
    Candle(#[from] candle_core::Error),
    /// A model lacks something that was to be compared.
    #[error("the model has no {what}")]
    Missing {
        /// Its missing part.
        what: String,
    },
    /// A kernel refused something.
    #[error(transparent)]
    Kernel(#[from] ternary_kernels::KernelError),
    /// The facade refused something.
    #[error(transparent)]
    Facade(#[from] bitnet::Error),
    /// The tokenizer refused something.
    #[error(transparent)]
    Tokenizer(#[from] loader::tokenizer::TokenizerError),
}

impl ParityError {
    /// Names the path that an I/O error belongs to.
    pub(crate) fn io(path: &Path) -> impl FnOnce(std::io::Error) -> Self {
        let path = path.display().to_string();
        move |source| Self::Io { path, source }
    }
}
