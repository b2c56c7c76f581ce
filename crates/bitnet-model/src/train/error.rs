//! Errors of training.

use std::path::{Path, PathBuf};

use crate::ModelError;
use crate::files::FileError;
use ternary_kernels::KernelError;

/// An error of training.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
#[allow(missing_docs, reason = "fields that are named after what they hold have no comment")]
pub enum TrainError {
    /// An error of the model.
    #[error(transparent)]
    Model(#[from] ModelError),
    /// An unsupported shape.
    #[error(transparent)]
    Shape(crate::config::json::JsonError),
    /// An error of the kernels.
    #[error(transparent)]
    Kernel(#[from] KernelError),
    /// An error of candle.
    #[cfg(feature = "candle")]
    #[error("candle: {0}")]
    Candle(#[from] candle_core::Error),
    /// A loss or gradient that is not finite.
    #[error(
        "the {what} became {value} at step {step} (learning rate {lr:e}); nothing was changed by this step and the last \
         checkpoint is intact: lower the learning rate, lengthen the warm-up, or clip harder, and resume"
    )]
    NotFinite {
        /// `loss` or `gradient`.
        what: &'static str,
        value: f64,
        /// The step, counted from 1.
        step: u64,
        /// The learning rate of the step.
        lr: f64,
    },
    /// An option out of its range.
    #[error("{option} is {value}; it must be {must}")]
    Option {
        option: &'static str,
        value: String,
        /// The requirement.
        must: &'static str,
    },
    /// A parameter that is missing in a model.
    #[error("there is no parameter {tensor}; the checkpoint belongs to another model")]
    NoTensor {
        /// Its name.
        tensor: String,
    },
    /// Sizes that contradict each other.
    #[error("{what}: expected {expected}, got {got}")]
    Mismatch {
        /// The quantity that was compared.
        what: String,
        /// The expected value.
        expected: String,
        /// The value that was found.
        got: String,
    },
    /// Too little text.
    #[error("{}: {tokens} tokens, at least {needed} are needed for one window; give more text or a shorter --context", path.display())]
    TooShort {
        /// The token file.
        path: PathBuf,
        tokens: u64,
        /// Tokens of a window.
        needed: u64,
    },
    /// A file that cannot be read or written.
    #[error(transparent)]
    Io(#[from] FileError),
    /// A checkpoint whose bytes have changed since they were written.
    #[error("{} is damaged: {problem}; {}", path.display(), way_out(previous.as_deref()))]
    Damaged {
        /// The checkpoint.
        path: PathBuf,
        /// The evidence.
        problem: String,
        /// The checkpoint before it, if it is there.
        previous: Option<PathBuf>,
    },
    /// Data without a token to learn.
    #[error(
        "{}: there is nothing to learn: {problem}; give examples whose completions are not empty, or text", path.display()
    )]
    NothingToLearn {
        /// The data.
        path: PathBuf,
        /// The contents of the data.
        problem: &'static str,
    },
    /// A file whose content is damaged or of another kind.
    #[error("{}: {problem}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// The problem, and the way out.
        problem: String,
    },
    /// The caller's tokenizer rejected a text.
    #[error("document {document} cannot be tokenised: {problem}")]
    Tokenize {
        /// The document, counted from 0.
        document: u64,
        /// The tokenizer's reason.
        problem: String,
    },
}

fn way_out(previous: Option<&Path>) -> String {
    match previous {
        Some(file) => {
            format!(
                "{} next to it is the previous checkpoint; `bitnet train --resume --previous` continues from it",
                file.display()
            )
        }
        None => "there is no earlier checkpoint in this folder; start a new run in another folder".to_owned(),
    }
}

impl TrainError {
    /// Names file and operation of a system error.
    pub(super) fn io(op: &'static str, path: &Path) -> impl FnOnce(std::io::Error) -> Self {
        let named = FileError::io(op, path);
        move |source| Self::Io(named(source))
    }
}
