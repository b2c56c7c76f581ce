//! Texts that follow a grammar: JSON of a schema, a regular expression, a grammar of your own.
//!
//! A [`Constraint`] forbids every token after which the text could no longer become what is asked for, so what comes out is
//! right whatever the model wants to say. Where only one text can follow, its tokens are put into the session without
//! computing or choosing anything; they go through the model in one pass with the token that is chosen next. A text that
//! `max_tokens` or the end of the context cuts off is no result: it is [`ConstraintError::Unfinished`].
//!
//! What is understood of JSON Schema and of Lark's grammars, and the engine that does it, is
//! [`llguidance`](https://docs.rs/llguidance). A schema with a keyword that it does not know is refused.

mod json;
mod matcher;
mod tokens;

use std::sync::{Arc, Mutex};

use bitnet_model::sampling::FinishReason;
use llguidance::api::TopLevelGrammar;

use crate::{Error, Model};

pub(crate) use matcher::{Mask, Matching, lock};
pub(crate) use tokens::Vocabulary;

/// What a generated text must be like. Made once, it may serve any number of generations.
///
/// ```
/// use bitnet::{Constraint, GenerateOptions};
/// # #[cfg(feature = "tiny-model")] {
/// let model = bitnet::Model::tiny()?;
/// let options = GenerateOptions::default().constraint(Constraint::regex("(yes|no), it is"));
/// let mut session = model.session();
/// let text = session.generate("Is it big? ", options)?.finish()?.text.unwrap_or_default();
/// assert!(text == "yes, it is" || text == "no, it is");
/// # }
/// # Ok::<(), bitnet::Error>(())
/// ```
#[derive(Clone, Debug)]
pub struct Constraint {
    grammar: TopLevelGrammar,
}

impl Constraint {
    /// JSON that a [JSON Schema](https://json-schema.org) describes. Between its parts stands what Python's and most people's
    /// JSON has there: `{"a": 1, "b": [2, 3]}`; the key `x-guidance` of the schema may ask for something else.
    pub fn json_schema(schema: &serde_json::Value) -> Self {
        Self { grammar: TopLevelGrammar::from_json_schema(json::with_spaces(schema.clone())) }
    }

    /// JSON that `T` can be read from.
    pub fn json_of<T: schemars::JsonSchema>() -> Self {
        Self { grammar: TopLevelGrammar::from_json_schema(json::schema_of::<T>()) }
    }

    /// A text that the whole of a regular expression matches, in the syntax of the crate `regex`, without look-around and
    /// without anchors.
    pub fn regex(pattern: &str) -> Self {
        Self { grammar: TopLevelGrammar::from_regex(pattern) }
    }

    /// A text of a context-free grammar in Lark's notation; it begins with the rule `start`.
    pub fn lark(grammar: impl Into<String>) -> Self {
        Self { grammar: TopLevelGrammar::from_lark(grammar.into()) }
    }

    /// Begins a text for `model`.
    pub(crate) fn begin(&self, model: &Model) -> Result<Arc<Mutex<Matching>>, Error> {
        let vocabulary = model.vocabulary()?;
        Ok(Arc::new(Mutex::new(Matching::new(&vocabulary, self.grammar.clone())?)))
    }
}

/// What can go wrong with a constrained text.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ConstraintError {
    /// A grammar that cannot be understood, or a schema with something in it that is not supported.
    #[error("the constraint cannot be used: {reason}")]
    Grammar {
        /// What is wrong with it.
        reason: String,
    },
    /// The text was cut off before it was what it must be.
    #[error(
        "the text ended ({reason}) before it was complete under its constraint; what there is of it is {text:?}; allow more \
         tokens, or bound the lengths in the constraint (maxLength, maxItems)"
    )]
    Unfinished {
        /// What cut it off.
        reason: FinishReason,
        /// What was generated.
        text: String,
    },
    /// Options that would break a text off where it is not complete.
    #[error(
        "{option} would end a constrained text anywhere; leave it out, and say in the constraint where the text ends"
    )]
    Stops {
        /// The option.
        option: &'static str,
    },
    /// The grammar's engine gave up: too large a grammar, or a vocabulary that cannot write what it asks for.
    #[error("the constraint cannot go on: {reason}")]
    Engine {
        /// Its reason.
        reason: String,
    },
    /// JSON of the right form that the type refuses nevertheless.
    #[error("the type refuses the text {text:?}: {source}")]
    Type {
        /// The text.
        text: String,
        /// The reason.
        source: serde_json::Error,
    },
}

impl ConstraintError {
    pub(crate) fn grammar(reason: impl std::fmt::Display) -> Self {
        Self::Grammar { reason: one_line(reason) }
    }
    pub(crate) fn engine(reason: impl std::fmt::Display) -> Self {
        Self::Engine { reason: one_line(reason) }
    }
}

/// The first line of what an engine says, which may go on with its whole state.
fn one_line(reason: impl std::fmt::Display) -> String {
    let text = reason.to_string();
    let line = text.lines().find(|l| !l.trim().is_empty()).unwrap_or("no reason was given");
    line.trim().to_owned()
}
