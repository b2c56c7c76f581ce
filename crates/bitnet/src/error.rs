//! The error type of this crate.

/// Errors between a path and a generated text.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
#[allow(missing_docs, reason = "fields that are named after what they hold have no comment")]
pub enum Error {
    /// Something about the model's files.
    #[error(transparent)]
    Load(#[from] loader::LoadError),
    /// Something about the model, its options or its use.
    #[error(transparent)]
    Model(#[from] bitnet_model::ModelError),
    /// Something about a tokenizer or a text.
    #[error(transparent)]
    Tokenizer(#[from] loader::tokenizer::TokenizerError),
    /// Something about a chat template or a conversation.
    #[error(transparent)]
    Chat(#[from] loader::chat::ChatError),
    /// The model has no tokenizer, and none was given.
    #[error("the model has no tokenizer; give one (a tokenizer.json), or work with token ids")]
    NoTokenizer,
    /// The model has no chat template, and none was given.
    #[error("the model has no chat template; give one, or generate from a plain prompt")]
    NoChatTemplate,
    /// The model's own chat template cannot be used.
    #[error("{0}; another one can be given (--template), and plain prompts need none")]
    ChatTemplate(std::sync::Arc<loader::chat::ChatError>),
    /// A file that cannot be read or written.
    #[error(transparent)]
    File(#[from] loader::files::FileError),
    /// A choice among nothing.
    #[error("no choices given: pass at least one text")]
    NothingToChoose,
    /// A template without a place for the text, or with several.
    #[error("the template {template:?} must hold {{text}} once, where the text goes")]
    Template { template: String },
    /// The values of an extractor do not fit the requested type.
    #[error("the utterance is {intent:?}, and that does not fit the type: {reason}")]
    Answer { intent: String, reason: String },
    /// A pooling for vectors of an extractor.
    #[error("{pooling} pooling: vectors of an extractor have one pooling, which its heads read; leave it out")]
    Pooling { pooling: &'static str },
    /// Something about a constraint or the text under it.
    #[cfg(feature = "constrain")]
    #[error(transparent)]
    Constraint(#[from] crate::constrain::ConstraintError),
}
