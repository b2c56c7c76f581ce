//! Errors of chat templates.

use crate::tokenizer::TokenizerError;

/// The reason why a chat could not be turned into a prompt.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
#[allow(missing_docs, reason = "fields that are named after what they hold have no comment")]
pub enum ChatError {
    /// The template is not valid Jinja.
    #[error("chat template of {template}, line {line}: {detail}")]
    Syntax {
        /// The origin of the template.
        template: String,
        /// The line, from 1.
        line: usize,
        /// The problem.
        detail: String,
    },
    /// The template failed while it was rendered.
    #[error("chat template of {template}, line {line}: {detail}")]
    Render {
        /// The origin of the template.
        template: String,
        /// The line, from 1; 0 if unknown.
        line: usize,
        /// The problem.
        detail: String,
    },
    /// The template rejects these messages (`raise_exception`).
    #[error("the chat template of {template} refuses this conversation: {message}")]
    Refused {
        /// The origin of the template.
        template: String,
        /// The template's message.
        message: String,
    },
    /// The template did more work than any honest template needs.
    #[error("the chat template of {template} did not finish within {fuel} steps")]
    OutOfFuel {
        /// The origin of the template.
        template: String,
        /// The limit.
        fuel: u64,
    },
    /// The template, or the text that it builds, is too long.
    #[error("the chat template of {template}: {what} exceeds {limit} bytes")]
    TooLarge {
        /// The origin of the template.
        template: String,
        /// The template's source, or the text that it builds.
        what: &'static str,
        limit: usize,
    },
    /// The template, or a value that it makes, is nested too deeply.
    #[error("chat template of {template}, line {line}: {what} are nested more than {limit} deep")]
    TooDeep {
        /// The origin of the template.
        template: String,
        /// The line, from 1; 0 if unknown.
        line: usize,
        /// The nested thing.
        what: &'static str,
        limit: usize,
    },
    /// There is no built-in template of this name.
    #[error("unknown built-in chat template {name:?}; expected one of: {known}")]
    UnknownBuiltin {
        name: String,
        /// The names that exist.
        known: String,
    },
    /// The checkpoint has no chat template of this name.
    #[error("the checkpoint has no chat template {name:?}; it has {known}, to be chosen by name (--template)")]
    UnknownName {
        name: String,
        /// The names that exist.
        known: String,
    },
    /// A template needs a token that the vocabulary lacks.
    #[error("the chat template {template} needs the token {token:?}, which this vocabulary lacks")]
    MissingToken { template: String, token: String },
    /// Only templates that consist of plain roles can be encoded part by part.
    #[error("the chat template of {template} can only be encoded joined; {supported} can be encoded in parts")]
    NotSeparable {
        /// The origin of the template.
        template: String,
        /// The templates for which it works.
        supported: &'static str,
    },
    /// The rendered text could not be encoded.
    #[error(transparent)]
    Tokenizer(#[from] TokenizerError),
}
