//! The error type of this crate.

use ternary_kernels::KernelError;

use crate::config::Projection;

/// Errors of a model's configuration, its weights and its use.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
#[allow(missing_docs, reason = "fields that are named after what they hold have no comment")]
pub enum ModelError {
    /// An invalid configuration value.
    #[error("config: {field} is {value}; it must be {must}")]
    Config {
        /// The field, in the names of `config.json`.
        field: &'static str,
        value: String,
        /// The requirement.
        must: &'static str,
    },
    /// A projection whose shape differs from the configuration.
    #[error("layer {layer} {name}: the configuration says [{}, {}], the file holds [{}, {}]", .expected.0, .expected.1, .got.0, .got.1, name = .projection.name())]
    ProjectionShape {
        layer: usize,
        projection: Projection,
        /// `[out, in]` by the configuration.
        expected: (usize, usize),
        /// `[out, in]` as found.
        got: (usize, usize),
    },
    /// A norm, an embedding or a head whose size differs from the configuration.
    #[error("{tensor}: expected {expected} values, got {got}")]
    TensorSize {
        tensor: String,
        /// Values by the configuration.
        expected: usize,
        /// Values found.
        got: usize,
    },
    /// A value that is NaN or infinite in a tensor of the model.
    #[error("{tensor}: value {index} is {value}, not a finite number; the file is damaged")]
    NotFinite {
        tensor: String,
        /// Position in the tensor.
        index: usize,
        value: f32,
    },
    /// A token id that the vocabulary does not have.
    #[error("token {id} is outside the vocabulary of {vocab} tokens")]
    TokenOutOfRange {
        /// The token.
        id: u32,
        /// Size of the vocabulary.
        vocab: usize,
    },
    /// More tokens than the context holds.
    #[error(
        "the context holds {limit} tokens; {used} are in it and {more} more do not fit; start a new session or shorten the prompt"
    )]
    ContextFull {
        /// Longest context.
        limit: usize,
        /// Tokens in it.
        used: usize,
        /// Tokens that were to be added.
        more: usize,
    },
    /// A rewind to an earlier token, in a model that does not support it.
    #[error(
        "layers with a state of constant size (test-time-training, gated delta rule) cannot go back from token {len} to token \
         {to}: start over (truncate to 0) and feed the text again, or keep a clone or a saved copy of the sequence where you want to return to"
    )]
    CannotRewind {
        /// Tokens that were read.
        len: usize,
        /// Tokens that should have remained.
        to: usize,
    },
    /// A rewind that would read more tokens again than allowed.
    #[error(
        "going back to token {to} would read {} tokens again from the nearest kept state, at token {from}; at most {most} are allowed:          keep states more often or more of them (Snapshots), or allow more", .to - .from
    )]
    ReplayTooLong {
        /// Tokens that should have remained.
        to: usize,
        /// Tokens of the nearest kept state.
        from: usize,
        /// The maximum number of tokens that may be read again.
        most: usize,
    },
    /// A text whose state in test-time-training layers a failed step has left inconsistent.
    #[error(
        "an earlier step of this text failed and its state of constant size is lost: start over (truncate to 0) and feed the \
         text again, or restore a saved copy"
    )]
    StateLost,
    /// Bytes that are not a saved sequence of this model.
    #[error("saved sequence: {0}")]
    SavedSequence(ttt_layer::StateDamage),
    /// A prompt without tokens, where at least one is needed to predict the next.
    #[error(
        "the prompt is empty: at least one token is needed to predict the next one (add a beginning-of-text token)"
    )]
    EmptyPrompt,
    /// Logits requested from a model without a head.
    #[error(
        "this model has no head, so it predicts no tokens: it turns texts into vectors (embedding::embed, `bitnet embed`)"
    )]
    NoHead,
    /// A text in a batch that belongs to another engine.
    #[error("texts of one batch must belong to the same loaded model; this one belongs to another")]
    ForeignSequence,
    /// A sampling option out of its range.
    #[error("sampling option {option} is {value}; it must be {must}")]
    Sampling {
        option: &'static str,
        value: String,
        /// The requirement.
        must: &'static str,
    },
    /// A task that an extractor does not have.
    #[error("the extractor has no task '{name}'; it has {known}")]
    UnknownTask {
        /// The requested task.
        name: String,
        /// The tasks of the extractor.
        known: String,
    },
    /// A scale of a row of an extractor's features that is invalid.
    #[error("features.scale: row {row} is {value}; it must be a finite number of half precision, 0 or more")]
    FeatureScale {
        /// Row of the table.
        row: usize,
        value: f32,
    },
    /// A matrix of an extractor with scales for rows or groups.
    #[error("layer {layer} {name}: an extractor's matrices have one scale each, this one has several; export it again", name = .projection.name())]
    EncoderScales { layer: usize, projection: Projection },
    /// The model computed a value that is not finite, so every further token would be nonsense.
    #[error(
        "{what} became NaN or infinite at position {position}; the weights do not belong to this architecture, or they are damaged"
    )]
    Diverged {
        /// The operation.
        what: &'static str,
        /// Position in the sequence.
        position: usize,
    },
    /// An error of the kernels.
    #[error(transparent)]
    Kernel(#[from] KernelError),
    /// An error of a test-time-training layer.
    #[error(transparent)]
    Ttt(#[from] ttt_layer::TttError),
    /// An error of candle.
    #[cfg(feature = "candle")]
    #[error("candle: {0}")]
    Candle(#[from] candle_core::Error),
}
