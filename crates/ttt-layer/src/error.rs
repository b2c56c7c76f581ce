//! Errors of this crate.

/// An error of this crate.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
#[allow(missing_docs, reason = "fields that are named after what they hold have no comment")]
pub enum TttError {
    /// A configuration that describes no layer.
    #[error("TTT configuration: {field} is {value}; {requirement}")]
    Config {
        field: &'static str,
        /// The value that was found.
        value: String,
        /// The expected value.
        requirement: &'static str,
    },
    /// A tensor or slice whose length differs from the configuration.
    #[error("{tensor}: {got} elements, expected {expected}")]
    Length {
        tensor: String,
        /// Elements that it should have.
        expected: usize,
        /// Elements that it has.
        got: usize,
    },
    /// A token outside of the vocabulary.
    #[error("token {token} is not in the vocabulary of {vocab_size}")]
    Token {
        token: u32,
        /// Size of the vocabulary.
        vocab_size: usize,
    },
    /// A saved state that is damaged, or that belongs to another model.
    #[error("saved TTT state: {what}")]
    SavedState {
        /// The problem.
        what: StateDamage,
    },
    /// An invalid `config.json`.
    #[error("config.json: {0}")]
    Json(#[from] serde_json::Error),
    /// A tensor operation failed.
    #[cfg(feature = "candle")]
    #[error(transparent)]
    Candle(#[from] candle_core::Error),
    /// This CPU lacks something, or a thread could not be started.
    #[error(transparent)]
    Kernel(#[from] ternary_kernels::KernelError),
}

/// Why bytes are not the saved state of a layer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
#[allow(missing_docs, reason = "fields that are named after what they hold have no comment")]
pub enum StateDamage {
    /// The bytes begin with something else.
    #[error("it does not begin with the mark of a saved state")]
    Mark,
    /// Another version of the format.
    #[error("format version {got}, this program reads version {reads}; save the state again with this version")]
    Version {
        /// The version of the bytes.
        got: u32,
        /// The version that is read.
        reads: u32,
    },
    /// It was saved by a layer of another shape.
    #[error("it was saved by a layer of another configuration; restore it into the model that it was saved from")]
    OtherConfig,
    /// It was saved by a model with other weights.
    #[error("it was saved by a model with other weights; restore it into the model that it was saved from")]
    OtherModel,
    /// More or fewer bytes than the configuration needs.
    #[error("{got} bytes, expected {expected}; the file is truncated or has trailing data")]
    Size {
        /// Bytes that the configuration needs.
        expected: usize,
        /// Bytes that are there.
        got: usize,
    },
    /// The checksum shows that bytes have changed.
    #[error("the checksum does not match; the file has changed since it was saved")]
    Checksum,
}
