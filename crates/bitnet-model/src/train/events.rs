//! Events of a run and its end.

use std::path::Path;

use super::{LayerTrits, Params};

/// Events of a run, for progress output and logs.
#[derive(Debug)]
#[non_exhaustive]
pub enum Event<'a> {
    /// A step was done.
    Step {
        /// Steps done, this one included.
        step: u64,
        /// Predicted tokens so far.
        tokens: u64,
        /// Mean cross entropy of the step's batches before the step, nats per token.
        loss: f64,
        /// Learning rate.
        lr: f64,
        /// Norm of the gradient before clipping.
        grad_norm: f64,
        /// Predicted tokens per second of this step.
        tok_s: f64,
    },
    /// A validation.
    Validation {
        /// Steps done.
        step: u64,
        /// Mean cross entropy, nats per token.
        nats_per_token: f64,
        /// Whether it is the best so far.
        best: bool,
        /// The weights, for samples; their average, where there is one.
        params: &'a Params,
    },
    /// Changes of the ternary weights in a step, reported where validations are due.
    Trits {
        /// Steps done.
        step: u64,
        /// Layer by layer.
        layers: &'a [LayerTrits],
    },
    /// So many steps fit the time of the run.
    Plan {
        /// Steps done.
        step: u64,
        /// Steps in all.
        steps: u64,
    },
    /// A checkpoint was written.
    Saved {
        /// Its file.
        path: &'a Path,
    },
}

/// Why a run ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Finish {
    /// All steps are done.
    Completed,
    /// No better validation for as long as the configuration allows.
    EarlyStop,
    /// The callback asked for it; the checkpoint is written.
    Interrupted,
}
