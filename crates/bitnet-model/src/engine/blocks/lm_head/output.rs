//! Requests to the head, and its results.

use std::ops::Range;

/// A possible next token with its logit.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Candidate {
    /// The logit.
    pub logit: f32,
    /// The token.
    pub token: u32,
}

/// The requested logits of a position. Fewer are faster; each logit is the same, bit for bit.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub enum HeadRequest {
    /// The logits of the whole vocabulary.
    #[default]
    Full,
    /// At least the `k` best: higher logits first, of equal ones the lower token.
    Top(usize),
    /// At least those that are at most this far below the largest.
    WithinMargin(f64),
}

impl HeadRequest {
    /// Whether the answer to this request contains everything that `other` asks for.
    pub fn covers(self, other: HeadRequest) -> bool {
        match (self, other) {
            (HeadRequest::Full, _) => true,
            (HeadRequest::Top(k), HeadRequest::Top(other)) => k >= other,
            (HeadRequest::WithinMargin(margin), HeadRequest::WithinMargin(other)) => margin >= other,
            (HeadRequest::WithinMargin(_), HeadRequest::Top(k)) => k <= 1,
            _ => false,
        }
    }
}

/// The prediction for a position.
#[derive(Clone, Copy, Debug)]
pub enum Prediction<'a> {
    /// The logit of each token, `[vocab]` f32; empty if nothing was computed.
    Full(&'a [f32]),
    /// At least the requested logits, in no particular order.
    Best(&'a [Candidate]),
}

/// The results of a step, position by position.
#[derive(Clone, Debug, Default)]
pub struct StepOutput {
    positions: Vec<Position>,
    logits: Vec<f32>,
    candidates: Vec<Candidate>,
    /// Residual rows after the last layer, if they are kept.
    hidden: Option<Vec<f32>>,
}

#[derive(Clone, Debug)]
struct Position {
    request: HeadRequest,
    /// Elements of `logits`, or of `candidates` if `rescored` is given.
    span: Range<usize>,
    rescored: Option<usize>,
}

impl StepOutput {
    /// Removes all results and keeps the memory.
    pub fn clear(&mut self) {
        self.positions.clear();
        self.logits.clear();
        self.candidates.clear();
        if let Some(hidden) = &mut self.hidden {
            hidden.clear();
        }
    }
    /// Also keeps the residual row after the last layer for every token of a step.
    pub(crate) fn keep_hidden(mut self) -> Self {
        self.hidden = Some(Vec::new());
        self
    }
    /// The kept rows, `[tokens, hidden]` f32, in the order of the inputs and their tokens; empty if they are not kept.
    pub(crate) fn hidden(&self) -> &[f32] {
        self.hidden.as_deref().unwrap_or_default()
    }
    /// Whether these rows are kept.
    pub(in crate::engine) fn keeps_hidden(&self) -> bool {
        self.hidden.is_some()
    }
    /// Adds rows, if they are kept.
    pub(in crate::engine) fn add_hidden(&mut self, rows: &[f32]) {
        if let Some(hidden) = &mut self.hidden {
            hidden.extend_from_slice(rows);
        }
    }
    /// Number of positions.
    pub fn len(&self) -> usize {
        self.positions.len()
    }
    /// Whether nothing was computed.
    pub fn is_empty(&self) -> bool {
        self.positions.is_empty()
    }

    /// The prediction for position `i`, counted in the order of the inputs.
    ///
    /// # Panics
    /// If there is no position `i`.
    pub fn prediction(&self, i: usize) -> Prediction<'_> {
        let p = &self.positions[i];
        match p.rescored {
            None => Prediction::Full(&self.logits[p.span.clone()]),
            Some(_) => Prediction::Best(&self.candidates[p.span.clone()]),
        }
    }

    /// The request that position `i` can answer: what was asked of it, or more.
    ///
    /// # Panics
    /// If there is no position `i`.
    pub fn answers(&self, i: usize) -> HeadRequest {
        let p = &self.positions[i];
        if p.rescored.is_none() { HeadRequest::Full } else { p.request }
    }

    /// Rows of the stored head that were computed for position `i` after the coarse pass; `None` if all rows were
    /// computed at once.
    ///
    /// # Panics
    /// If there is no position `i`.
    pub fn rescored(&self, i: usize) -> Option<usize> {
        self.positions[i].rescored
    }

    /// The logits of the positions that have all of them, one after the other, `[positions, vocab]` f32.
    pub fn logits(&self) -> &[f32] {
        &self.logits
    }

    /// The logits of [`StepOutput::logits`], without a copy.
    pub fn into_logits(self) -> Vec<f32> {
        self.logits
    }

    /// Becomes a copy of position `i` of `other`.
    pub(crate) fn copy_position(&mut self, other: &StepOutput, i: usize) {
        self.clear();
        self.push_position(other, i);
    }

    /// Adds position `i` of `other`.
    pub(crate) fn push_position(&mut self, other: &StepOutput, i: usize) {
        let from = &other.positions[i];
        let span = match other.prediction(i) {
            Prediction::Full(logits) => {
                self.logits.extend_from_slice(logits);
                self.logits.len() - logits.len()..self.logits.len()
            }
            Prediction::Best(candidates) => {
                self.candidates.extend_from_slice(candidates);
                self.candidates.len() - candidates.len()..self.candidates.len()
            }
        };
        self.positions.push(Position { span, ..from.clone() });
    }

    /// Adds a position without results, and returns its number.
    pub(super) fn add(&mut self, request: HeadRequest) -> usize {
        self.positions.push(Position { request, span: 0..0, rescored: None });
        self.positions.len() - 1
    }

    pub(super) fn request(&self, i: usize) -> HeadRequest {
        self.positions[i].request
    }

    /// Room for all logits of the given positions, `[positions, vocab]`.
    pub(super) fn add_logits(&mut self, positions: impl Iterator<Item = usize>, vocab: usize) -> &mut [f32] {
        let start = self.logits.len();
        let mut end = start;
        for i in positions {
            self.positions[i].span = end..end + vocab;
            end += vocab;
        }
        self.logits.resize(end, 0.0);
        &mut self.logits[start..]
    }

    /// Sets the results of position `i`.
    pub(super) fn set_best(&mut self, i: usize, candidates: impl Iterator<Item = Candidate>, rescored: usize) {
        let start = self.candidates.len();
        self.candidates.extend(candidates);
        let p = &mut self.positions[i];
        (p.span, p.rescored) = (start..self.candidates.len(), Some(rescored));
    }
}
