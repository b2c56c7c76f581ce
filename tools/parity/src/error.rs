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
    /// An invalid JSON file, or one that lacks something.
    #[error("{path}: {what}")]
    Json {
        /// The file.
        path: String,
        /// The problem.
        what: String,
    },
    /// An invalid safetensors file, or a tensor of an unexpected type.
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
    /// An error of the model.
    #[error(transparent)]
    Model(#[from] bitnet_model::ModelError),
    /// An error of a TTT layer.
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
    /// An error of a kernel.
    #[error(transparent)]
    Kernel(#[from] ternary_kernels::KernelError),
    /// An error of the facade.
    #[error(transparent)]
    Facade(#[from] bitnet::Error),
    /// An error of the tokenizer.
    #[error(transparent)]
    Tokenizer(#[from] loader::tokenizer::TokenizerError),
}

impl ParityError {
    /// Adds the path to an I/O error.
    pub(crate) fn io(path: &Path) -> impl FnOnce(std::io::Error) -> Self {
        let path = path.display().to_string();
        move |source| Self::Io { path, source }
    }
}
