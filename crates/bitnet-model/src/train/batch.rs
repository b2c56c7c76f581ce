//! Training data of a step, and the trait of learners.

use std::ops::Range;

use super::{Params, TrainError};

/// Set in an id: the token is given, like those of a question, and its prediction is not learned. A `.u32` file may
/// have it.
pub const GIVEN: u32 = 1 << 31;

/// `b` windows of `t + 1` tokens: each predicts its last `t` tokens from those before, except those that are given.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Batch {
    /// `[b, t + 1]` ids.
    pub ids: Vec<u32>,
    /// Windows.
    pub b: usize,
    /// Predictions of a window.
    pub t: usize,
    /// `[b, t + 1]`: whether tokens are given; empty if none is.
    given: Vec<bool>,
    /// Lengths of the texts of each window, which add up to `t`; empty if each window is one text.
    texts: Vec<Vec<usize>>,
}

impl Batch {
    /// Windows `ids`, `[b, t + 1]`; tokens with [`GIVEN`] set are read, but not learned.
    ///
    /// ```
    /// use bitnet_model::train::{Batch, GIVEN};
    /// let batch = Batch::new(vec![5 | GIVEN, 6 | GIVEN, 7, 8], 1, 3)?;
    /// assert_eq!((batch.ids.as_slice(), batch.predictions()), (&[5, 6, 7, 8][..], 2));
    /// # Ok::<(), bitnet_model::train::TrainError>(())
    /// ```
    ///
    /// # Errors
    /// [`TrainError::Mismatch`] for a wrong length, or no window.
    pub fn new(mut ids: Vec<u32>, b: usize, t: usize) -> Result<Self, TrainError> {
        if b == 0 || t == 0 || ids.len() != b * (t + 1) {
            let expected = format!("{b} windows of {t} predictions, at least one each");
            return Err(TrainError::Mismatch { what: "ids of a batch".into(), expected, got: ids.len().to_string() });
        }
        let mut given = Vec::new();
        if ids.iter().any(|id| id & GIVEN != 0) {
            given = ids.iter().map(|id| id & GIVEN != 0).collect();
            ids.iter_mut().for_each(|id| *id &= !GIVEN);
        }
        Ok(Self { ids, b, t, given, texts: Vec::new() })
    }

    /// Makes a text of its own of what follows a token `end` within a window: it sees nothing of what was before,
    /// positions and states begin again, and its first token is not predicted. An `end` that is given, as in a prompt,
    /// ends nothing.
    ///
    /// ```
    /// use bitnet_model::train::Batch;
    /// let batch = Batch::new(vec![5, 6, 0, 7, 8, 9], 1, 5)?.apart(0);
    /// assert_eq!((batch.texts(0), batch.predictions()), (vec![3, 2], 4));
    /// # Ok::<(), bitnet_model::train::TrainError>(())
    /// ```
    #[must_use]
    pub fn apart(mut self, end: u32) -> Self {
        let width = self.t + 1;
        let ends = |at: usize, given: &[bool]| self.ids[at] == end && !given.get(at).copied().unwrap_or(false);
        let texts = (0..self.b).map(|i| {
            let (mut texts, mut begin) = (Vec::new(), 0);
            for at in 1..self.t {
                if ends(i * width + at - 1, &self.given) {
                    texts.push(at - begin);
                    begin = at;
                }
            }
            texts.push(self.t - begin);
            texts
        });
        let texts: Vec<Vec<usize>> = texts.collect();
        let next: Vec<usize> = (0..self.ids.len()).filter(|at| at % width != 0 && ends(at - 1, &self.given)).collect();
        if !next.is_empty() {
            self.given.resize(self.ids.len(), false);
            next.into_iter().for_each(|at| self.given[at] = true);
        }
        self.texts = texts;
        self
    }

    /// One window of texts of these lengths, one after the other in `ids`: each predicts all of its tokens but the first,
    /// and sees nothing of the others.
    ///
    /// ```
    /// use bitnet_model::train::Batch;
    /// let batch = Batch::of_texts(vec![5, 6, 0, 7, 8], &[3, 2])?;
    /// assert_eq!((batch.b, batch.t, batch.texts(0), batch.predictions()), (1, 4, vec![3, 1], 3));
    /// # Ok::<(), bitnet_model::train::TrainError>(())
    /// ```
    ///
    /// # Errors
    /// [`TrainError::Mismatch`] for lengths that do not add up, texts of less than two tokens, or no text.
    pub fn of_texts(ids: Vec<u32>, lens: &[usize]) -> Result<Self, TrainError> {
        if lens.iter().any(|len| *len < 2) || lens.iter().sum::<usize>() != ids.len() {
            let expected = format!("texts of {lens:?} tokens, at least two each");
            return Err(TrainError::Mismatch { what: "ids of a batch".into(), expected, got: ids.len().to_string() });
        }
        let t = ids.len().saturating_sub(1);
        let mut batch = Self::new(ids, 1, t)?;
        let mut at = 0;
        for len in lens {
            batch.give(0, at..at + 1);
            at += len;
        }
        // The last token of the window predicts nothing.
        let mut texts = lens.to_vec();
        texts.iter_mut().next_back().into_iter().for_each(|last| *last -= 1);
        batch.texts = vec![texts];
        Ok(batch)
    }

    /// Tokens that are predicted from, of the longest text.
    pub(super) fn longest(&self) -> usize {
        self.texts.iter().flatten().copied().max().unwrap_or(self.t)
    }

    /// Makes the tokens at places `at` of window `i`, out of `t + 1`, given ones: they are read and not learned.
    ///
    /// # Panics
    /// If there are no such places.
    pub fn give(&mut self, i: usize, at: Range<usize>) {
        assert!(i < self.b && at.end <= self.t + 1, "places {at:?} of window {i} of {} by {}", self.b, self.t + 1);
        self.given.resize(self.ids.len(), false);
        let first = i * (self.t + 1);
        self.given[first + at.start..first + at.end].fill(true);
    }

    /// Lengths of the texts of window `i`, one after the other; they add up to `t`.
    ///
    /// # Panics
    /// If there is no such window.
    pub fn texts(&self, i: usize) -> Vec<usize> {
        assert!(i < self.b, "window {i} of {}", self.b);
        self.texts.get(i).cloned().unwrap_or_else(|| vec![self.t])
    }

    /// Tokens whose predictions are learned; at least 1, so that a mean over them is always a number.
    pub fn predictions(&self) -> usize {
        if self.given.is_empty() {
            return self.b * self.t;
        }
        (0..self.b).map(|i| self.targets(i).flatten().count()).sum::<usize>().max(1)
    }

    /// The tokens that window `i` predicts, `t` of them; `None` for given ones.
    pub(super) fn targets(&self, i: usize) -> impl Iterator<Item = Option<u32>> {
        let given = self.given.get(i * (self.t + 1)..(i + 1) * (self.t + 1)).unwrap_or_default();
        let is_given = move |at: usize| given.get(at).copied().unwrap_or(false);
        self.window(i).iter().enumerate().skip(1).map(move |(at, id)| (!is_given(at)).then_some(*id))
    }

    /// Window `i`, `[t + 1]`.
    pub(super) fn window(&self, i: usize) -> &[u32] {
        &self.ids[i * (self.t + 1)..(i + 1) * (self.t + 1)]
    }

    /// Rejects ids outside a vocabulary.
    pub(super) fn check(&self, vocab: usize) -> Result<(), TrainError> {
        match self.ids.iter().find(|id| **id as usize >= vocab) {
            Some(&id) => Err(crate::ModelError::TokenOutOfRange { id, vocab }.into()),
            None => Ok(()),
        }
    }
}

/// Computes losses and gradients; knows the model, but owns no parameters.
pub trait Learner {
    /// Mean cross entropy of the batch in nats per predicted token; given tokens do not count.
    ///
    /// # Errors
    /// Ids outside the vocabulary, and the errors of the model.
    fn loss(&mut self, params: &Params, batch: &Batch) -> Result<f64, TrainError>;

    /// Like [`Learner::loss`]; also adds the gradient of the mean to `grads`, `[params]` f32.
    ///
    /// # Errors
    /// The errors of [`Learner::loss`].
    fn accumulate(&mut self, params: &Params, batch: &Batch, grads: &mut [f32]) -> Result<f64, TrainError>;

    /// Sets the share of their inner learning rate, 0 to 1, at which test-time-training layers compute from now on: a
    /// warm-up. A learner without such layers ignores it.
    fn set_inner_rate(&mut self, _share: f32) {}
}
