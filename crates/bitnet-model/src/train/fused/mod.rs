//! Loss and gradient of a BitNet decoder on the CPU, without autograd.
//!
//! The forward pass is that of inference: norm and quantiser in one pass, the exact integer product of the fastest
//! kernel. Only values too costly to compute again are kept: the residual stream, int8 codes, queries,
//! keys and values, gate and up. The backward pass multiplies in f32. Logits exist for a few rows at a time.
//!
//! Weights with a scale per group ([`ModelConfig::weight_group`]) are multiplied with int16 activations by the kernel
//! that inference uses for them; the scales and the values kept for the backward pass are those of the forward pass.
//!
//! The mixer of a layer is attention, test-time training (`ttt_layer::RowWise`) or the gated delta rule
//! (`ttt_layer::GatedDelta`), whose gradients are written by hand, too.
//!
//! Texts go to workers in small groups, one thread per worker, and the gradients of the workers are added
//! in their order. So the result depends on the number of workers, but not on the machine.

mod attention;
mod backward;
mod delta;
mod forward;
mod head_norms;
mod ttt;
mod units;
mod weights;

use std::sync::Arc;

use ternary_kernels::ops::RopeTable;
use ternary_kernels::{GroupKernel, Kernel, Ops};

use super::{Batch, Learner, Params, TrainError};
use crate::ModelConfig;
use forward::Worker;
use weights::{Maker, Places, Prepared};

/// Tokens that a worker works on at once, about: what one layer makes of them stays in a second-level cache.
const GROUP_TOKENS: usize = 256;

/// Inputs that all workers share.
struct Shared<'a> {
    config: &'a ModelConfig,
    kernel: &'a dyn Kernel,
    /// For weights with a scale per group.
    group: &'a GroupKernel,
    ops: Ops,
    rope: &'a RopeTable,
    /// Sines of the opposite turn.
    minus_sin: &'a [f32],
    places: &'a Places,
    prepared: &'a Prepared,
    params: &'a [f32],
}

/// Computes losses and gradients of a BitNet decoder on the CPU; see the [module documentation](super).
#[derive(Debug)]
pub struct FusedLearner {
    config: ModelConfig,
    kernel: Arc<dyn Kernel>,
    group: GroupKernel,
    ops: Ops,
    rope: RopeTable,
    minus_sin: Vec<f32>,
    places: Places,
    prepared: Option<Prepared>,
    workers: Vec<Worker>,
    inner_rate: f32,
}

impl FusedLearner {
    /// For a model of this shape with `workers` workers, each with a thread of its own.
    ///
    /// # Errors
    /// A configuration that cannot be; 0 workers; no kernel for this CPU.
    pub fn new(config: &ModelConfig, workers: usize) -> Result<Self, TrainError> {
        config.validate()?;
        let mut others = config.clone();
        if !config.gated_attention && config.weight_group.is_none() {
            // These layers are learned as well.
            others.mixers.retain(|mixer| *mixer != crate::Mixer::GatedDelta);
        }
        others.require_trainable("training", config.weight_group.is_some())?;
        if workers == 0 || workers > 1024 {
            return Err(TrainError::Option { option: "threads", value: workers.to_string(), must: "1 to 1024" });
        }
        Ok(Self {
            config: config.clone(),
            kernel: ternary_kernels::best()?,
            group: GroupKernel::selected()?,
            ops: Ops::selected()?,
            rope: RopeTable::from_frequencies(0, config.rope_frequencies()),
            minus_sin: Vec::new(),
            places: Places::new(config)?,
            prepared: None,
            workers: (0..workers).map(|_| Worker::default()).collect(),
            inner_rate: 1.0,
        })
    }

    fn run(&mut self, params: &Params, batch: &Batch, mut grads: Option<&mut [f32]>) -> Result<f64, TrainError> {
        batch.check(self.config.vocab_size)?;
        let t = batch.longest();
        if let Some(limit) = self.config.context_limit().filter(|limit| t > *limit) {
            return Err(crate::ModelError::ContextFull { limit, used: 0, more: t }.into());
        }
        let expected = self.places.len;
        for got in [Some(params.values.len()), grads.as_deref().map(<[f32]>::len)].into_iter().flatten() {
            if got != expected {
                let what = "parameters or gradients of this model".into();
                return Err(TrainError::Mismatch { what, expected: expected.to_string(), got: got.to_string() });
            }
        }
        if self.rope.len() < t {
            self.rope.grow(t);
            self.minus_sin = (0..t).flat_map(|p| self.rope.sin(p)).map(|s| -s).collect();
        }
        if !self.prepared.as_ref().is_some_and(|p| p.is_of(params, self.inner_rate)) {
            let maker = Maker {
                config: &self.config,
                kernel: &*self.kernel,
                group: &self.group,
                ops: self.ops,
                places: &self.places,
                inner_rate: self.inner_rate,
            };
            self.prepared = Some(Prepared::new(maker, params, self.workers.len())?);
        }
        let Some(prepared) = &self.prepared else { return Ok(f64::NAN) };
        let shared = Shared {
            config: &self.config,
            kernel: &*self.kernel,
            group: &self.group,
            ops: self.ops,
            rope: &self.rope,
            minus_sin: &self.minus_sin,
            places: &self.places,
            prepared,
            params: &params.values,
        };
        let (units, predictions) = (units::units(batch, GROUP_TOKENS), batch.predictions());
        let count = self.workers.len();
        let learn = grads.is_some();
        std::thread::scope(|scope| {
            let (shared, units) = (&shared, &units);
            let handles: Vec<_> = self
                .workers
                .iter_mut()
                .enumerate()
                .map(|(i, worker)| {
                    scope.spawn(move || worker.run(shared, units.iter().skip(i).step_by(count), predictions, learn))
                })
                .collect();
            handles.into_iter().try_for_each(|h| match h.join() {
                Ok(result) => result,
                Err(panic) => std::panic::resume_unwind(panic),
            })
        })?;
        if let Some(grads) = &mut grads {
            self.add_gradients(grads);
        }
        Ok(self.workers.iter().map(|worker| worker.loss).sum::<f64>() / predictions as f64)
    }
}

impl FusedLearner {
    /// Adds the workers' gradients in their order, each thread a part of the parameters.
    fn add_gradients(&self, grads: &mut [f32]) {
        let (ops, share) = (self.ops, grads.len().div_ceil(self.workers.len()).max(1));
        std::thread::scope(|scope| {
            for (i, part) in grads.chunks_mut(share).enumerate() {
                scope.spawn(move || {
                    for worker in &self.workers {
                        if let Some(of_worker) = worker.grads.get(i * share..i * share + part.len()) {
                            ops.add_assign(part, of_worker);
                        }
                    }
                });
            }
        });
    }
}

impl Learner for FusedLearner {
    fn loss(&mut self, params: &Params, batch: &Batch) -> Result<f64, TrainError> {
        self.run(params, batch, None)
    }

    fn accumulate(&mut self, params: &Params, batch: &Batch, grads: &mut [f32]) -> Result<f64, TrainError> {
        self.run(params, batch, Some(grads))
    }

    fn set_inner_rate(&mut self, share: f32) {
        self.inner_rate = share;
    }
}
