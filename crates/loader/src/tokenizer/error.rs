//! Errors of the tokenizers.

use std::path::PathBuf;

use crate::files::FileError;

/// Why a tokenizer could not be built, or a text not be encoded.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
#[allow(missing_docs, reason = "fields that are named after what they hold have no comment")]
pub enum TokenizerError {
    /// The file could not be read.
    #[error("cannot read the tokenizer {}: {source}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Message of the operating system.
        source: std::io::Error,
    },
    /// The path is not a regular file, or a file is too large; the message names it.
    #[error(transparent)]
    File(FileError),
    /// The bytes are not the JSON of a tokenizer.
    #[error("{what} is not valid: {source}")]
    Json {
        /// Which file or part of it.
        what: &'static str,
        /// Message of the parser, with line and column.
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
        /// The owner of the id.
        what: String,
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
        pattern: String,
        /// Message of the compiler.
        reason: String,
    },
    /// A part of the tokenizer could not be built.
    #[error("{stage} failed: {reason}")]
    Library {
        /// The operation.
        stage: &'static str,
        /// Why.
        reason: String,
    },
    /// The file requires more than any real one does.
    #[error("{what}: {got}, more than {limit}")]
    Limit {
        /// The quantity that is limited.
        what: &'static str,
        /// The number found, or the number at which counting ended.
        got: u64,
        /// The maximum number.
        limit: u64,
    },
    /// Two tokens have one id.
    #[error("the tokens {first:?} and {second:?} have the same id {id}")]
    DuplicateId {
        id: u32,
        /// The token that was listed first.
        first: String,
        /// The other one.
        second: String,
    },
    /// A piece of a unigram vocabulary is longer than any text is searched for.
    #[error("token {id} has {bytes} bytes; pieces of a unigram vocabulary have at most {limit}")]
    PieceTooLong {
        /// The id of the piece.
        id: u32,
        /// Its length.
        bytes: usize,
        limit: usize,
    },
    /// A byte-level vocabulary without merges would write every text byte by byte.
    #[error(
        "the vocabulary has no merges (tokenizer.ggml.merges), so every text would become single bytes; pass the model's \
         tokenizer.json with --tokenizer FILE"
    )]
    NoMerges,
    /// The vocabulary cannot write the text, and has no unknown token.
    #[error("the vocabulary cannot write {text:?}, and has no token for what is unknown")]
    NoUnknown {
        /// The beginning of it.
        text: String,
    },
    /// A pattern takes more steps than texts of that length may cost.
    #[error(
        "the split patterns of the tokenizer take too many steps on this text (at last {pattern:?}); pass another \
         tokenizer with --tokenizer FILE"
    )]
    PatternTooCostly {
        /// The pattern under way when the steps were used up.
        pattern: String,
    },
    /// The normaliser or the pre-tokenizer makes too much of a text.
    #[error(
        "the tokenizer makes more than {times} times as much of a text of {bytes} bytes; pass another one with --tokenizer FILE"
    )]
    Growth {
        /// The length of the text.
        bytes: usize,
        /// The maximum growth factor.
        times: usize,
    },
    /// The steps of the tokenizer read and write too much.
    #[error(
        "the steps of the tokenizer cost too much on a text of {bytes} bytes; pass another one with --tokenizer FILE"
    )]
    TooMuchWork {
        /// The length of the text.
        bytes: usize,
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
