//! Finds the fastest kernel on this machine for the matrices of one model by measuring, in seconds.
//!
//! [`tune`] runs every candidate on matrices of the given shapes in both phases of use: decode, one token at a time,
//! with weights from the same place as in use (as many matrices as the model has, up to twice the last-level cache:
//! larger models are read from memory, smaller ones from a cache); and prefill, many tokens at once.
//!
//! Candidates take turns, round by round, so that other load on the machine affects all of them equally; medians over
//! the rounds count. Products with int4 activations are measured if a model has them. Weights are packed once, for one
//! kernel, so [`Choice`] weighs the two phases by [`TuneOptions::prompt_per_token`] (see `docs/adr/0018-tuning.md`).
//! The default kernel stays unless another one is clearly faster, so that noise does not change a choice.

mod choose;
mod measure;

use std::num::NonZeroUsize;
use std::ops::ControlFlow;
use std::sync::Arc;
use std::time::Duration;

use crate::select::{self, Workload};
use crate::{Isa, Kernel, KernelError};

/// Changes whenever kernels become faster or slower, so that earlier choices are measured again.
pub const GENERATION: u32 = 3;

/// A matrix shape and the number of such matrices in a model.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Shape {
    /// Output features, M.
    pub rows: usize,
    /// Input features, K.
    pub cols: usize,
    /// Matrices of this shape in the whole model.
    pub count: usize,
    /// Whether they are multiplied with int4 activations, not with int8.
    pub int4: bool,
}

/// Matrices that share one kernel: `gate-up`, for example.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Group {
    /// Its name.
    pub name: String,
    /// Its shapes, each once.
    pub shapes: Vec<Shape>,
}

/// The phase of a product.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Phase {
    /// The product with one token.
    Decode,
    /// The product with many tokens at once.
    Prefill,
}

impl Phase {
    /// `decode` or `prefill`.
    pub fn name(self) -> &'static str {
        match self {
            Phase::Decode => "decode",
            Phase::Prefill => "prefill",
        }
    }
}

/// Options of the measurement and the choice.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct TuneOptions {
    /// Threads that compute, including the caller's.
    pub threads: NonZeroUsize,
    /// Measure only kernels of this instruction set, and choose its default; `None` measures all kernels that this CPU
    /// can run, and the default is that of `BITNET_ISA` or of the best instruction set.
    pub isa: Option<Isa>,
    /// The time after which no further round begins. At least three rounds are always measured: a fraction of a second
    /// on most machines, several seconds if kernels are slow and models large.
    pub budget: Duration,
    /// Tokens of a prefill product.
    pub prefill_tokens: usize,
    /// Prompt tokens for each generated token: the weight of prefill relative to decode.
    pub prompt_per_token: f64,
    /// Also measure kernels that are not exact. They are never chosen.
    pub inexact: bool,
}

impl TuneOptions {
    /// Four seconds, prompts of 128 tokens, one prompt token per generated token, exact kernels only.
    pub fn new(threads: NonZeroUsize) -> Self {
        Self {
            threads,
            isa: None,
            budget: Duration::from_secs(4),
            prefill_tokens: 128,
            prompt_per_token: 1.0,
            inexact: false,
        }
    }
}

/// The measurement of one kernel on one shape in one phase.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct Measurement {
    /// Output features, M.
    pub rows: usize,
    /// Input features, K.
    pub cols: usize,
    /// Whether activations were int4.
    pub int4: bool,
    /// The phase.
    pub phase: Phase,
    /// The kernel.
    pub kernel: String,
    /// Seconds for one product; the median of the rounds.
    pub seconds: f64,
    /// Bytes of packed weights that the product reads.
    pub bytes: usize,
    /// Multiplications and additions, two for each weight and token.
    pub operations: f64,
}

impl Measurement {
    /// Packed weights read, in GB/s (1e9 bytes per second).
    pub fn gb_s(&self) -> f64 {
        self.bytes as f64 / self.seconds / 1e9
    }
    /// Operations, in GOP/s.
    pub fn gop_s(&self) -> f64 {
        self.operations / self.seconds / 1e9
    }
}

/// The kernel of one group.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct Choice {
    /// The group.
    pub group: String,
    /// The kernel to use.
    pub kernel: String,
    /// Its time relative to the default kernel, both phases weighted: 0.9 is a tenth faster.
    pub of_default: f64,
    /// The reason, as text for users.
    pub why: String,
}

/// A candidate that was dropped after a first look.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct Dropped {
    /// The kernel.
    pub kernel: String,
    /// How many times as long as the best candidate it took on one small matrix, in its better phase.
    pub times: f64,
}

/// The measurements and the choices.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct TuneReport {
    /// Every measurement: each shape once, decode before prefill, kernels in the order of the registry.
    pub measurements: Vec<Measurement>,
    /// One for each group, in the given order.
    pub choices: Vec<Choice>,
    /// Candidates that were dropped.
    pub dropped: Vec<Dropped>,
    /// The default kernel for most of the weights, without tuning.
    pub default: String,
    /// Threads that computed.
    pub threads: usize,
    /// Rounds that were measured.
    pub rounds: usize,
    /// Whether the weights of decode came from memory, not from a cache.
    pub from_memory: bool,
    /// The total time.
    pub elapsed: Duration,
}

/// The kernels that [`tune`] measures: those of the registry that this CPU can run and `isa` allows, and only exact
/// ones unless `inexact` is set.
///
/// # Errors
/// [`KernelError::UnavailableIsa`] for an instruction set that this CPU does not have.
pub fn candidates(isa: Option<Isa>, inexact: bool) -> Result<Vec<Arc<dyn Kernel>>, KernelError> {
    let isa = isa.map(Isa::require).transpose()?;
    let wanted = |e: &&crate::Entry| isa.is_none_or(|isa| e.isa == isa) && (inexact || e.exact);
    Ok(crate::registry().iter().filter(wanted).filter_map(crate::Entry::kernel).collect())
}

/// The kernel of a group if nothing was measured, in a model of `weights` weights.
fn default_of(group: &Group, isa: Isa, weights: usize) -> Result<Arc<dyn Kernel>, KernelError> {
    select::default_kernel(Workload { isa, weights, int4: group.shapes.iter().any(|s| s.int4) })
}

/// Measures the candidates on the shapes of `groups` and chooses a kernel for each group. `progress` receives the
/// fraction that is done, and may cancel.
///
/// Memory: the packed weights of one candidate, up to twice the last-level cache, and one matrix of each shape for each
/// candidate.
///
/// # Errors
/// [`KernelError::ShapeMismatch`] if there is nothing to measure, [`KernelError::Cancelled`] if `progress` breaks,
/// [`KernelError::UnavailableIsa`], [`KernelError::ThreadNotStarted`], and the errors of packing.
///
/// ```
/// use std::{num::NonZeroUsize, ops::ControlFlow, time::Duration};
/// use ternary_kernels::tune::{Group, Shape, TuneOptions, tune};
///
/// let groups = [Group { name: "down".into(), shapes: vec![Shape { rows: 64, cols: 128, count: 2, int4: false }] }];
/// let mut options = TuneOptions::new(NonZeroUsize::MIN);
/// options.budget = Duration::ZERO;
/// options.prefill_tokens = 4;
/// let report = tune(&groups, &options, &mut |_| ControlFlow::Continue(()))?;
/// println!("{}: {}", report.choices[0].kernel, report.choices[0].why);
/// # Ok::<(), ternary_kernels::KernelError>(())
/// ```
pub fn tune(
    groups: &[Group],
    options: &TuneOptions,
    progress: &mut dyn FnMut(f64) -> ControlFlow<()>,
) -> Result<TuneReport, KernelError> {
    let all: usize = groups.iter().flat_map(|g| &g.shapes).map(|s| s.rows * s.cols * s.count).sum();
    if all == 0 {
        return Err(KernelError::ShapeMismatch { op: "tune", what: "weights, at least", expected: 1, got: 0 });
    }
    let isa = options.isa.map_or_else(Isa::selected, Isa::require)?;
    let defaults = groups.iter().map(|g| default_of(g, isa, all)).collect::<Result<Vec<_>, _>>()?;
    let defaults: Vec<&str> = defaults.iter().map(|k| k.name()).collect();
    // If the environment forces an instruction set, only its kernels are measured.
    let forced = options.isa.or_else(|| (Some(isa) != Isa::available().last()).then_some(isa));
    let candidates = candidates(forced, options.inexact)?;
    let measured = measure::run(groups, &candidates, &defaults, options, progress)?;
    let choices = choose::all(groups, &measured.measurements, &candidates, &defaults, options);
    let size = |g: &Group| g.shapes.iter().map(|s| s.rows * s.cols * s.count).sum::<usize>();
    let largest = groups.iter().zip(&defaults).max_by_key(|(g, _)| size(g));
    Ok(TuneReport {
        measurements: measured.measurements,
        choices,
        dropped: measured.dropped,
        default: largest.map(|(_, name)| (*name).to_owned()).unwrap_or_default(),
        threads: options.threads.get(),
        rounds: measured.rounds,
        from_memory: measured.from_memory,
        elapsed: measured.elapsed,
    })
}

#[cfg(test)]
mod tests;
