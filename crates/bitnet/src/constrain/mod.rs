//! Texts that follow a grammar: JSON of a schema, a regular expression, a grammar of your own.
//!
//! A [`Constraint`] forbids every token after which the text could no longer become valid, so the output is correct
//! whatever the model prefers. If only one text can follow, its tokens are added to the session without computing or
//! choosing anything; they go through the model in one pass with the token that is chosen next. A text that
//! `max_tokens` or the end of the context cuts off is not a result: it is [`ConstraintError::Unfinished`].
//!
//! The supported parts of JSON Schema and of Lark's grammars are those of the engine,
//! [`llguidance`](https://docs.rs/llguidance). A schema with an unknown keyword is rejected, and so is a source that is
//! too deep, too large or too expensive ([`ConstraintLimits`]): it may come from anyone. A source is compiled once for
//! a model and kept for the next call.

mod cache;
mod close;
mod compile;
mod error;
mod graph;
mod guard;
mod json;
mod lark_lex;
mod lark_parse;
mod limits;
mod matcher;
mod measure_lark;
mod measure_regex;
mod measure_schema;
mod numbers;
mod prepared;
mod schema;
mod shape;
mod source;
mod template;
mod tokens;
mod write;

use std::sync::{Arc, Mutex};

use crate::{Error, Model};
use source::{Kind, Source};

pub use error::ConstraintError;
pub use limits::ConstraintLimits;
pub(crate) use matcher::{Mask, Matching, lock};
pub(crate) use tokens::Vocabulary;

/// A constraint of a generated text. Made once, it may serve any number of generations.
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
    source: Source,
    limits: Arc<ConstraintLimits>,
    /// Texts for the places of a grammar, by name.
    texts: Vec<(Arc<str>, Arc<str>)>,
}

impl Constraint {
    fn new(kind: Kind, text: impl Into<Arc<str>>) -> Self {
        Self { source: Source::new(kind, text), limits: Arc::default(), texts: Vec::new() }
    }

    /// JSON described by a [JSON Schema](https://json-schema.org). It has the usual spacing, as in Python:
    /// `{"a": 1, "b": [2, 3]}`; the key `x-guidance` of the schema may ask for another one.
    ///
    /// An object with `properties` has these and no others, unless its schema says `"additionalProperties": true` (or a
    /// schema for them), or joins the properties of several schemas (`allOf`, `$ref` with `properties`). An unknown
    /// `format` is a remark.
    pub fn json_schema(schema: &serde_json::Value) -> Self {
        Self::new(Kind::Json, json::source(schema, false))
    }

    /// JSON that `T` can be read from.
    pub fn json_of<T: schemars::JsonSchema>() -> Self {
        Self { source: json::source_of::<T>(), limits: Arc::default(), texts: Vec::new() }
    }

    /// A text that the whole of a regular expression matches, in the syntax of the crate `regex`, without look-around,
    /// back references and word boundaries; it needs no anchors.
    pub fn regex(pattern: &str) -> Self {
        Self::new(Kind::Regex, pattern)
    }

    /// A text of a context-free grammar in Lark's notation; it begins with the rule `start`.
    ///
    /// If a part of the text must be copied from another text that is only known later,
    /// `%regex {"substring_words": @NAME}` (or `substring_chars`) stands for any consecutive words of it, and
    /// [`Constraint::with_text`] supplies it. Everything but that text is compiled once:
    ///
    /// ```
    /// use bitnet::{Constraint, GenerateOptions};
    /// # #[cfg(feature = "tiny-model")] {
    /// let model = bitnet::Model::tiny()?;
    /// let grammar = Constraint::lark("start: \"It is about \" TOPIC \".\"\nTOPIC: %regex {\"substring_words\": @TEXT}");
    /// for text in ["the big dog", "a red ball"] {
    ///     let options = GenerateOptions::default().constraint(grammar.clone().with_text("TEXT", text)).max_tokens(60);
    ///     let said = model.session().generate("Tell me. ", options)?.finish()?.text.unwrap_or_default();
    ///     assert!(text.contains(said.trim_start_matches("It is about ").trim_end_matches('.')));
    /// }
    /// # }
    /// # Ok::<(), bitnet::Error>(())
    /// ```
    pub fn lark(grammar: impl Into<String>) -> Self {
        Self::new(Kind::Lark, grammar.into())
    }

    /// Gives the text for `@name` in a grammar ([`Constraint::lark`]); the last one of a name counts.
    #[must_use]
    pub fn with_text(mut self, name: &str, text: &str) -> Self {
        self.texts.retain(|(n, _)| **n != *name);
        self.texts.push((name.into(), text.into()));
        self.texts.sort();
        self
    }

    /// Like [`Constraint::with_text`], for a place within a string of JSON: the text as it is written there (`"` as
    /// `\"`).
    #[must_use]
    pub fn with_text_in_json(self, name: &str, text: &str) -> Self {
        let quoted = serde_json::Value::from(text).to_string();
        self.with_text(name, &quoted[1..quoted.len() - 1])
    }

    /// Limits of the size and cost of the constraint; a source within the defaults is safe.
    #[must_use]
    pub fn limits(mut self, limits: ConstraintLimits) -> Self {
        self.limits = Arc::new(limits);
        self
    }

    /// Warnings for the author of the source: formats that are taken as remarks.
    ///
    /// # Errors
    /// A source that cannot be used, as far as can be determined without a model.
    pub fn notes(&self) -> Result<Vec<String>, ConstraintError> {
        prepared::notes(self)
    }

    /// Begins a text for `model`.
    pub(crate) fn begin(&self, model: &Model) -> Result<Arc<Mutex<Matching>>, Error> {
        let compiled = prepared::compiled(self, &model.vocabulary()?)?;
        Ok(Arc::new(Mutex::new(Matching::new(&compiled, self.limits.clone())?)))
    }
}
