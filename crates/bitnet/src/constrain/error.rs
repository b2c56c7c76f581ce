//! Errors of constrained texts.

use bitnet_model::sampling::FinishReason;

/// Errors of constrained texts.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
#[allow(missing_docs, reason = "fields that are named after what they hold have no comment")]
pub enum ConstraintError {
    /// A grammar that cannot be understood, or a schema with something in it that is not supported.
    #[error("the constraint cannot be used: {reason}")]
    Grammar {
        /// The problem.
        reason: String,
    },
    /// Something about the constraint is too deep, too large or too expensive.
    #[error("the constraint exceeds a limit: {what}; the limit is {limit} (`ConstraintLimits::{name}`)")]
    Limit {
        /// The quantity that is limited.
        what: String,
        /// The limit.
        limit: u64,
        /// The field of [`ConstraintLimits`](crate::ConstraintLimits).
        name: &'static str,
    },
    /// The text was cut off before it was complete.
    #[error(
        "the text ended ({reason}) before it satisfied its constraint; the text so far is {}; allow more tokens, \
         or bound the lengths in the constraint (maxLength, maxItems)",
        quoted(.text)
    )]
    Unfinished {
        /// The reason why it stopped.
        reason: FinishReason,
        /// The whole generated text; the message quotes its head and its tail.
        text: String,
    },
    /// Options that would cut off a text that is not complete.
    #[error(
        "{option} would end a constrained text anywhere; leave it out, and say in the constraint where the text ends"
    )]
    Stops { option: &'static str },
    /// The grammar's engine gave up: a vocabulary that cannot write what the grammar requires, or an internal error.
    #[error("the constraint cannot continue: {reason}")]
    Engine { reason: String },
    /// Valid JSON that the type rejects.
    #[error("invalid string {} as the type: {source}", quoted(.text))]
    Type {
        text: String,
        /// The reason.
        source: std::sync::Arc<serde_json::Error>,
    },
}

/// Characters of a text that a message quotes, of its head and of its tail.
const QUOTED: usize = 100;

/// A text in quotes; of a long one its head, its tail, and how long it is.
fn quoted(text: &str) -> String {
    let count = text.chars().count();
    if count <= 2 * QUOTED {
        return format!("{text:?}");
    }
    let head: String = text.chars().take(QUOTED).collect();
    let tail: String = text.chars().skip(count - QUOTED).collect();
    format!("{head:?} ... {tail:?} ({count} characters)")
}

/// A piece of a source as a message names it.
pub(super) fn short(text: &str) -> String {
    const MAX_CHARS: usize = 60;
    match text.chars().count() {
        n if n <= MAX_CHARS => text.to_owned(),
        _ => text.chars().take(MAX_CHARS).chain("...".chars()).collect(),
    }
}

impl ConstraintError {
    pub(crate) fn grammar(reason: impl std::fmt::Display) -> Self {
        Self::Grammar { reason: one_line(&reason.to_string()) }
    }
    pub(crate) fn engine(reason: impl std::fmt::Display) -> Self {
        Self::Engine { reason: one_line(&reason.to_string()) }
    }
}

/// The first line of an engine's message, which may continue with its whole state, shortened for a message.
fn one_line(text: &str) -> String {
    const MAX_CHARS: usize = 300;
    let line = text.lines().find(|l| !l.trim().is_empty()).unwrap_or("no reason was given").trim();
    match line.chars().count() {
        n if n <= MAX_CHARS => line.to_owned(),
        _ => line.chars().take(MAX_CHARS).chain(" ...".chars()).collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_texts_are_quoted_by_head_and_tail() {
        assert_eq!(quoted("a\"b"), r#""a\"b""#);
        let long = format!("head{}tail", "é".repeat(15_000));
        let said = quoted(&long);
        assert!(said.starts_with("\"head") && said.contains("tail\"") && said.contains("15008 characters"), "{said}");
        assert!(said.chars().count() < 260, "{said}");
    }

    #[test]
    fn reasons_are_one_short_line() {
        assert_eq!(one_line("\n  first  \nsecond"), "first");
        assert!(one_line(&"x".repeat(1000)).len() < 320);
    }
}
