//! Scores of continuations, and choices among them.

use bitnet::ChooseBy;
use pyo3::prelude::*;

use crate::errors;

/// The probability of a text as a continuation.
#[pyclass(frozen, get_all, module = "ternary_lm")]
#[derive(Clone)]
pub(crate) struct Score {
    /// The text.
    text: String,
    /// Its tokens.
    ids: Vec<u32>,
    /// The natural logarithm of the probability of each token.
    logprobs: Vec<f64>,
    total: f64,
    per_token: f64,
    per_byte: f64,
}

impl Score {
    /// The scores of `texts`, in their order.
    pub(crate) fn of(texts: &[String], scores: &[bitnet::Score]) -> Vec<Self> {
        let one = |(text, s): (&String, &bitnet::Score)| Self {
            text: text.clone(),
            ids: s.ids.clone(),
            logprobs: s.logprobs.clone(),
            total: s.total(),
            per_token: s.per_token(),
            per_byte: s.per_byte(),
        };
        texts.iter().zip(scores).map(one).collect()
    }
}

#[pymethods]
impl Score {
    fn __repr__(&self) -> String {
        format!("Score(text={:?}, total={:?})", self.text, self.total)
    }
}

/// The best of several texts.
#[pyclass(frozen, get_all, module = "ternary_lm")]
pub(crate) struct Choice {
    /// Which one.
    index: usize,
    /// The text.
    text: String,
    /// Its share.
    probability: f64,
    /// The shares of all.
    probabilities: Vec<f64>,
    /// The scores of all.
    scores: Vec<Score>,
}

impl Choice {
    pub(crate) fn of(texts: &[String], choice: &bitnet::Choice) -> Self {
        Self {
            index: choice.index,
            text: texts[choice.index].clone(),
            probability: choice.probability(),
            probabilities: choice.probabilities.clone(),
            scores: Score::of(texts, &choice.scores),
        }
    }
}

#[pymethods]
impl Choice {
    fn __str__(&self) -> String {
        self.text.clone()
    }

    fn __repr__(&self) -> String {
        format!("Choice(index={}, text={:?}, probability={:.4})", self.index, self.text, self.probability)
    }
}

/// The way of comparing that is called `name`.
///
/// # Errors
/// `OptionError` for another name.
pub(crate) fn by(name: &str) -> PyResult<ChooseBy> {
    match name {
        "total" => Ok(ChooseBy::Total),
        "per_token" => Ok(ChooseBy::PerToken),
        "per_byte" => Ok(ChooseBy::PerByte),
        _ => Err(errors::option(format!("by is {name:?}; it must be total, per_token or per_byte"))),
    }
}
