//! What is learned from, and what learns.

use super::{Params, TrainError};

/// `b` windows of `t + 1` tokens: each predicts its last `t` tokens from those before.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Batch {
    /// `[b, t + 1]` ids.
    pub ids: Vec<u32>,
    /// Windows.
    pub b: usize,
    /// Predictions of a window.
    pub t: usize,
}

impl Batch {
    /// Windows `ids`, `[b, t + 1]`.
    ///
    /// # Errors
    /// [`TrainError::Mismatch`] for another length, or no prediction at all.
    pub fn new(ids: Vec<u32>, b: usize, t: usize) -> Result<Self, TrainError> {
        if b == 0 || t == 0 || ids.len() != b * (t + 1) {
            let expected = format!("{b} windows of {t} predictions, at least one each");
            return Err(TrainError::Mismatch { what: "ids of a batch".into(), expected, got: ids.len().to_string() });
        }
        Ok(Self { ids, b, t })
    }

    /// Predicted tokens.
    pub fn predictions(&self) -> usize {
        self.b * self.t
    }

    /// Window `i`, `[t + 1]`.
    pub(super) fn window(&self, i: usize) -> &[u32] {
        &self.ids[i * (self.t + 1)..(i + 1) * (self.t + 1)]
    }

    /// Refuses ids outside of a vocabulary.
    pub(super) fn check(&self, vocab: usize) -> Result<(), TrainError> {
        match self.ids.iter().find(|id| **id as usize >= vocab) {
            Some(&id) => Err(crate::ModelError::TokenOutOfRange { id, vocab }.into()),
            None => Ok(()),
        }
    }
}

/// Computes losses and gradients; knows the model, but owns no parameters.
pub trait Learner {
    /// Mean cross entropy of the batch in nats per predicted token.
    ///
    /// # Errors
    /// Ids outside of the vocabulary, whatever the model cannot compute.
    fn loss(&mut self, params: &Params, batch: &Batch) -> Result<f64, TrainError>;

    /// As [`Learner::loss`]; adds the gradient of the mean to `grads`, `[params]` f32.
    ///
    /// # Errors
    /// As [`Learner::loss`].
    fn accumulate(&mut self, params: &Params, batch: &Batch, grads: &mut [f32]) -> Result<f64, TrainError>;

    /// From now on test-time-training layers compute at this share of their inner learning rate, 0 to 1: a warm-up. A learner
    /// without such layers has nothing to do.
    fn set_inner_rate(&mut self, _share: f32) {}
}
