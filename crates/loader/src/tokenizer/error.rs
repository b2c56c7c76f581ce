//! Errors of the tokenizers.

use std::path::PathBuf;

use crate::files::FileError;

/// Why a tokenizer could not be built, or a text not be encoded.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TokenizerError {
    /// The file could not be read.
    #[error("cannot read the tokenizer {}: {source}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What the operating system says.
        source: std::io::Error,
    },
    /// The path is no regular file, or a file is too large; the message names it.
    #[error(transparent)]
    File(FileError),
    /// The bytes are not the JSON of a tokenizer.
    #[error("{what} is not valid: {source}")]
    Json {
        /// Which file or part of it.
        what: &'static str,
        /// What the parser says, with line and column.
        source: serde_json::Error,
    },
    /// The vocabulary is of a kind that is not implemented.
    #[error(
        "tokenizer model {kind:?} is not supported (supported: {supported}); pass another one with --tokenizer FILE"
    )]
    UnsupportedModel {
        /// The kind that the file names.
        kind: String,
        /// The kinds that would work.
        supported: &'static str,
    },
    /// A stage of the tokenizer is of a kind that is not implemented.
    #[error("tokenizer.json: {stage} of type {kind:?} is not supported")]
    UnsupportedStage {
        /// The stage: normalizer, pre_tokenizer, post_processor, decoder, model.
        stage: &'static str,
        /// The type or option that is not implemented.
        kind: String,
    },
    /// The pre-tokenizer that a GGUF file names is unknown: guessing would give slightly wrong ids without a sign.
    #[error(
        "pre-tokenizer {pre:?} (tokenizer.ggml.pre) is unknown; pass the model's tokenizer.json with --tokenizer FILE"
    )]
    UnknownPreTokenizer {
        /// The name in the file.
        pre: String,
    },
    /// The vocabulary has no token.
    #[error("the vocabulary is empty; pass the model's tokenizer.json with --tokenizer FILE")]
    EmptyVocabulary,
    /// Two lists that belong together differ in length.
    #[error("{what} has {got} entries where the vocabulary has {expected}")]
    LengthMismatch {
        /// The list.
        what: &'static str,
        /// The number of tokens.
        expected: usize,
        /// The number of entries.
        got: usize,
    },
    /// An id is outside of the vocabulary.
    #[error("{what} is id {id}, but ids of this vocabulary end below {limit}")]
    IdOutOfRange {
        /// Whose id it is.
        what: String,
        /// The id.
        id: u64,
        /// The first id that is too large.
        limit: u64,
    },
    /// A merge is malformed or names a token that does not exist.
    #[error("merge {index} ({merge:?}) is not a pair of tokens of the vocabulary whose concatenation is a token")]
    BadMerge {
        /// Its position in the list, from 0.
        index: usize,
        /// The merge as written.
        merge: String,
    },
    /// A token that another part of the file refers to does not exist.
    #[error("{what} refers to the token {token:?}, which is not in the vocabulary")]
    MissingToken {
        /// The part that refers to it.
        what: &'static str,
        /// The token.
        token: String,
    },
    /// A score of a piece is not a number.
    #[error("the score of token {id} is not a number")]
    BadScore {
        /// The id of the piece.
        id: usize,
    },
    /// A split pattern could not be compiled.
    #[error("split pattern {pattern:?} cannot be compiled: {reason}")]
    Pattern {
        /// The pattern.
        pattern: String,
        /// What the compiler says.
        reason: String,
    },
    /// The `tokenizers` library reported an error or panicked.
    #[error("{stage} failed: {reason}")]
    Library {
        /// What was being done.
        stage: &'static str,
        /// What the library says.
        reason: String,
    },
    /// The text is too long to be encoded in one call.
    #[error("a text of {bytes} bytes is too long to be encoded at once (at most {limit})")]
    TextTooLong {
        /// Its length in bytes.
        bytes: usize,
        /// The limit in bytes.
        limit: usize,
    },
}

impl From<FileError> for TokenizerError {
    fn from(error: FileError) -> Self {
        match error {
            FileError::Io { path, source, .. } => TokenizerError::Read { path, source },
            error => TokenizerError::File(error),
        }
    }
}
