//! AdamW with moments that can be saved.

use serde::{Deserialize, Serialize};
use ternary_kernels::Ops;
use ternary_kernels::ops::AdamWStep;

use super::params::{Entry, Role};
use super::schedule::Rates;
use super::{Params, TrainError};

/// The parameters with weight decay.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum DecayOn {
    /// The ternary projections: decay keeps their weights flipping.
    #[default]
    Ternary,
    /// Projections, embedding and head.
    Matrices,
    /// Everything, including gains of norms.
    All,
}

impl DecayOn {
    fn includes(self, role: Role) -> bool {
        match self {
            DecayOn::Ternary => matches!(role, Role::Projection(_)),
            DecayOn::Matrices => matches!(role, Role::Projection(_) | Role::Table),
            DecayOn::All => true,
        }
    }
}

/// Constants of [`AdamW`].
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct AdamWOptions {
    /// Decay of the first moment.
    pub beta1: f64,
    /// Decay of the second moment.
    pub beta2: f64,
    /// Added to the root of the second moment.
    pub eps: f64,
    /// The parameters with weight decay.
    pub decay_on: DecayOn,
}

impl Default for AdamWOptions {
    fn default() -> Self {
        Self { beta1: 0.9, beta2: 0.95, eps: 1e-8, decay_on: DecayOn::default() }
    }
}

/// AdamW (arXiv:1711.05101) with bias correction, as in PyTorch: decay is decoupled and applied before the step.
#[derive(Clone, Debug, PartialEq)]
pub struct AdamW {
    options: AdamWOptions,
    /// First moments, in parameter order.
    pub m: Vec<f32>,
    /// Second moments.
    pub v: Vec<f32>,
    /// Steps done.
    pub step: u64,
}

impl AdamW {
    /// An optimizer of `len` parameters with moments 0.
    pub fn new(options: AdamWOptions, len: usize) -> Self {
        Self { options, m: vec![0.0; len], v: vec![0.0; len], step: 0 }
    }

    /// One step along `grads`, `[params]` f32, each times `gradient_scale`, on `threads` threads; their number does not
    /// affect the result.
    ///
    /// # Errors
    /// [`TrainError::Mismatch`] for a wrong number of gradients or parameters; an instruction set that this CPU lacks.
    pub fn step(
        &mut self,
        params: &mut Params,
        grads: &[f32],
        gradient_scale: f32,
        rates: Rates,
        threads: usize,
    ) -> Result<(), TrainError> {
        self.step_where(|_| true, params, grads, gradient_scale, rates, threads)
    }

    /// [`AdamW::step`] of those tensors that `moves` names; the others and their moments stay.
    ///
    /// # Errors
    /// The errors of [`AdamW::step`].
    pub(super) fn step_where(
        &mut self,
        moves: impl Fn(&Entry) -> bool,
        params: &mut Params,
        grads: &[f32],
        gradient_scale: f32,
        rates: Rates,
        threads: usize,
    ) -> Result<(), TrainError> {
        let expected = self.m.len();
        for (what, got) in [("gradients", grads.len()), ("parameters", params.values.len())] {
            if got != expected {
                return Err(TrainError::Mismatch {
                    what: what.into(),
                    expected: expected.to_string(),
                    got: got.to_string(),
                });
            }
        }
        let ops = Ops::selected()?;
        self.step += 1;
        let o = self.options;
        // Beyond this many steps the powers are 0 for any reasonable beta.
        let power = i32::try_from(self.step).unwrap_or(i32::MAX);
        let constants = |role: Role| AdamWStep {
            lr: rates.lr as f32,
            beta1: o.beta1 as f32,
            beta2: o.beta2 as f32,
            eps: o.eps as f32,
            weight_decay: if o.decay_on.includes(role) { rates.weight_decay as f32 } else { 0.0 },
            gradient_scale,
            correction1: (1.0 - o.beta1.powi(power)) as f32,
            correction2: (1.0 - o.beta2.powi(power)) as f32,
        };
        let share = expected.div_ceil(threads.max(1)).max(1);
        let entries: &Vec<&Entry> = &params.entries.iter().filter(|e| moves(e)).collect();
        let moments = self.m.chunks_mut(share).zip(self.v.chunks_mut(share));
        let parts = params.values.chunks_mut(share).zip(grads.chunks(share)).zip(moments).enumerate();
        std::thread::scope(|scope| {
            for (i, ((p, g), (m, v))) in parts {
                scope.spawn(move || {
                    let (start, end) = (i * share, i * share + p.len());
                    for e in entries {
                        // The range of this tensor within the part.
                        let (from, to) = (e.range.start.max(start), e.range.end.min(end));
                        if from < to {
                            let r = from - start..to - start;
                            let step = constants(e.role);
                            ops.adamw(step, &g[r.clone()], &mut p[r.clone()], &mut m[r.clone()], &mut v[r]);
                        }
                    }
                });
            }
        });
        Ok(())
    }
}

/// Euclidean norm of the gradient, summed in f64: eight sums in turn, added up in their order.
pub fn gradient_norm(grads: &[f32]) -> f64 {
    let (turns, rest) = grads.as_chunks::<8>();
    let mut sums = [0.0f64; 8];
    for turn in turns {
        for (sum, g) in sums.iter_mut().zip(turn) {
            *sum += f64::from(*g) * f64::from(*g);
        }
    }
    (sums.iter().sum::<f64>() + rest.iter().map(|g| f64::from(*g) * f64::from(*g)).sum::<f64>()).sqrt()
}
