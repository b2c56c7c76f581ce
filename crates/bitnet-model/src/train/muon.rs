//! Muon: momentum whose update is made orthogonal, for matrices.
//!
//! Momentum and its update are those of Keller Jordan (<https://kellerjordan.github.io/posts/muon/>), and so is the
//! Newton-Schulz iteration with its coefficients; `torch.optim.Muon` computes the same, with bf16 products. Here all
//! products are f32. One thread does the whole of a matrix, so the result does not depend on their number.

use serde::{Deserialize, Serialize};
use ternary_kernels::Ops;
use ternary_kernels::ops::{GemmScratch, Strided};

use super::params::Role;
use super::schedule::Rates;
use super::{Params, TrainError};

/// Coefficients of the quintic `a x + b x^3 + c x^5`, chosen for its slope at 0: singular values that are not tiny end
/// between 0.68 and 1.14 instead of at 1.
const QUINTIC: [f32; 3] = [3.4445, -4.7750, 2.0315];
/// Rows of a symmetric product that are made at once.
const BAND: usize = 64;
/// Matrices of a smaller norm are divided by this instead of their norm.
const LEAST_NORM: f64 = 1e-7;

/// Which optimizer moves the ternary projections; AdamW moves everything else.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum OptimizerKind {
    /// [`AdamW`](super::AdamW).
    #[default]
    AdamW,
    /// [`Muon`].
    Muon,
}

impl OptimizerKind {
    /// Whether Muon moves parameters of this role: matrices that multiply vectors. Embedding and head are tables of
    /// vectors, and the inner weights of test-time training are a stack of matrices per head.
    pub(super) fn is_muon(self, role: Role) -> bool {
        match self {
            OptimizerKind::AdamW => false,
            OptimizerKind::Muon => matches!(role, Role::Projection(_)),
        }
    }
}

/// The factor of the learning rate of a matrix `[rows, cols]`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum UpdateScale {
    /// `0.2 sqrt(max(rows, cols))`: the root mean square of an update is about that of AdamW, whose learning rate and
    /// decay then fit (arXiv:2502.16982, equation 4; `match_rms_adamw` of PyTorch).
    #[default]
    MatchRms,
    /// `sqrt(max(1, rows / cols))`, of Keller Jordan's code (`original` of PyTorch); learning rates of about 0.02 fit.
    Original,
}

impl UpdateScale {
    fn of(self, [rows, cols]: [usize; 2]) -> f64 {
        match self {
            UpdateScale::MatchRms => 0.2 * (rows.max(cols) as f64).sqrt(),
            UpdateScale::Original => (rows as f64 / cols.max(1) as f64).max(1.0).sqrt(),
        }
    }
}

/// Constants of [`Muon`].
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct MuonOptions {
    /// Peak learning rate, in the same schedule as that of AdamW; absent: as high as that.
    pub lr: Option<f64>,
    /// Decay of the momentum, which is Nesterov's.
    pub momentum: f64,
    /// Newton-Schulz steps.
    pub steps: u32,
    /// Factor of the learning rate by shape.
    pub scale: UpdateScale,
}

impl Default for MuonOptions {
    fn default() -> Self {
        Self { lr: None, momentum: 0.95, steps: 5, scale: UpdateScale::default() }
    }
}

/// Buffers of a thread.
#[derive(Clone, Debug, Default)]
struct Scratch {
    /// The update, `[rows, cols]`.
    x: Vec<f32>,
    /// The update after the step.
    next: Vec<f32>,
    /// Products of rows, or of columns where there are fewer, `[k, k]`.
    gram: Vec<f32>,
    /// `b gram + c gram^2`, `[k, k]`.
    polynomial: Vec<f32>,
    /// Rows of a symmetric product.
    band: Vec<f32>,
    gemm: GemmScratch,
}

/// One matrix and what belongs to it.
struct Job<'a> {
    shape: [usize; 2],
    weights: &'a mut [f32],
    momentum: &'a mut [f32],
    grads: &'a [f32],
}

impl Job<'_> {
    /// Multiply-adds of a Newton-Schulz step.
    fn cost(&self) -> usize {
        let [rows, cols] = self.shape;
        let k = rows.min(cols);
        k.saturating_mul(k).saturating_mul(2 * rows.max(cols) + k)
    }
}

/// The optimizer of matrices. Its momentum lies with the caller, so that it is saved with the moments of the others.
#[derive(Clone, Debug, Default)]
pub struct Muon {
    options: MuonOptions,
    scratch: Vec<Scratch>,
}

impl Muon {
    /// With these constants.
    pub fn new(options: MuonOptions) -> Self {
        Self { options, scratch: Vec::new() }
    }

    /// One step of all ternary projections along `grads`, each gradient times `gradient_scale`; `momentum`, `grads` and
    /// the parameters are `[params]` f32. With `g' = gradient_scale g` and `mu` the momentum's decay:
    ///
    /// ```text
    /// m = mu m + (1 - mu) g'
    /// u = orthogonal(mu m + (1 - mu) g')
    /// w = w (1 - lr weight_decay) - lr scale(rows, cols) u
    /// ```
    ///
    /// # Errors
    /// [`TrainError::Mismatch`] for another number of gradients, parameters or momenta; an instruction set that this
    /// CPU lacks.
    pub fn step(
        &mut self,
        params: &mut Params,
        grads: &[f32],
        momentum: &mut [f32],
        gradient_scale: f32,
        rates: Rates,
        threads: usize,
    ) -> Result<(), TrainError> {
        let expected = params.values.len();
        for (what, got) in [("gradients", grads.len()), ("momenta", momentum.len())] {
            if got != expected {
                let (expected, got) = (expected.to_string(), got.to_string());
                return Err(TrainError::Mismatch { what: what.into(), expected, got });
            }
        }
        let ops = Ops::selected()?;
        let mut jobs = jobs(params, grads, momentum)?;
        // Large ones first, each to the thread that has least to do; ties go by place, so nothing is left to chance.
        jobs.sort_by_key(|job| std::cmp::Reverse(job.cost()));
        let threads = threads.clamp(1, jobs.len().max(1));
        let mut hands: Vec<(usize, Vec<Job<'_>>)> = (0..threads).map(|_| (0, Vec::new())).collect();
        for job in jobs {
            let Some(hand) = hands.iter_mut().min_by_key(|(load, _)| *load) else { break };
            hand.0 = hand.0.saturating_add(job.cost());
            hand.1.push(job);
        }
        self.scratch.resize_with(threads.max(self.scratch.len()), Scratch::default);
        let options = self.options;
        std::thread::scope(|scope| {
            for ((_, jobs), scratch) in hands.into_iter().zip(&mut self.scratch) {
                scope.spawn(move || {
                    for job in jobs {
                        move_matrix(ops, options, job, gradient_scale, rates, scratch);
                    }
                });
            }
        });
        Ok(())
    }
}

/// The matrices that Muon moves, in the order of the parameters.
fn jobs<'a>(params: &'a mut Params, grads: &'a [f32], momentum: &'a mut [f32]) -> Result<Vec<Job<'a>>, TrainError> {
    let (mut weights, mut momentum, mut grads, mut at) = (&mut params.values[..], momentum, grads, 0);
    let mut jobs = Vec::new();
    for e in params.entries.iter().filter(|e| OptimizerKind::Muon.is_muon(e.role)) {
        let bad = || {
            let (expected, got) = ("a matrix behind the one before".to_owned(), format!("{:?}", e.shape));
            TrainError::Mismatch { what: format!("shape of {}", e.name), expected, got }
        };
        let [rows, cols] = e.shape[..] else { return Err(bad()) };
        let (before, len) = (e.range.start.checked_sub(at).ok_or_else(bad)?, e.range.len());
        if rows.checked_mul(cols) != Some(len) {
            return Err(bad());
        }
        let job = Job {
            shape: [rows, cols],
            weights: piece(&mut weights, before, len).ok_or_else(bad)?,
            momentum: piece(&mut momentum, before, len).ok_or_else(bad)?,
            grads: grads.get(before..before + len).ok_or_else(bad)?,
        };
        (grads, at) = (&grads[before + len..], e.range.end);
        jobs.push(job);
    }
    Ok(jobs)
}

/// The `len` elements after the first `before`, which `rest` then begins behind.
fn piece<'a>(rest: &mut &'a mut [f32], before: usize, len: usize) -> Option<&'a mut [f32]> {
    let (_, after) = std::mem::take(rest).split_at_mut_checked(before)?;
    let (piece, after) = after.split_at_mut_checked(len)?;
    *rest = after;
    Some(piece)
}

fn move_matrix(ops: Ops, options: MuonOptions, job: Job<'_>, gradient_scale: f32, rates: Rates, s: &mut Scratch) {
    let Job { shape, weights, momentum, grads } = job;
    let decay = options.momentum as f32;
    let rest = 1.0 - decay;
    s.x.clear();
    s.x.extend(momentum.iter_mut().zip(grads).map(|(m, g)| {
        let g = g * gradient_scale;
        *m = decay * *m + rest * g;
        decay * *m + rest * g
    }));
    orthogonalize(ops, shape, options.steps, s);
    let keep = (1.0 - rates.lr * rates.weight_decay) as f32;
    let rate = (rates.lr * options.scale.of(shape)) as f32;
    for (w, u) in weights.iter_mut().zip(&s.x) {
        *w = *w * keep - rate * u;
    }
}

/// Moves the singular values of `s.x`, `[rows, cols]`, towards 1 and leaves its singular vectors: `steps` times
/// `x = a x + (b g + c g^2) x` with `g = x x^T`, from where the Frobenius norm is 1. A transposed matrix gives the
/// transposed bits.
fn orthogonalize(ops: Ops, [rows, cols]: [usize; 2], steps: u32, s: &mut Scratch) {
    let Scratch { x, next, gram, polynomial, band, gemm } = s;
    // In f64, where no square of an f32 overflows or vanishes.
    let norm = x.iter().map(|v| f64::from(*v) * f64::from(*v)).sum::<f64>().sqrt().max(LEAST_NORM);
    x.iter_mut().for_each(|v| *v = (f64::from(*v) / norm) as f32);
    let [a, b, c] = QUINTIC;
    let (wide, k, n) = (rows <= cols, rows.min(cols), rows.max(cols));
    gram.resize(k * k, 0.0);
    polynomial.resize(k * k, 0.0);
    next.resize(rows * cols, 0.0);
    for _ in 0..steps {
        let m = Strided::rows(x, cols);
        let short = if wide { m } else { m.t() };
        symmetric(ops, [short, short.t()], [k, n], gram, band, gemm);
        let g = Strided::rows(gram, k);
        symmetric(ops, [g, g], [k, k], polynomial, band, gemm);
        for (p, g) in polynomial.iter_mut().zip(gram.iter()) {
            *p = b * g + c * *p;
        }
        for (next, x) in next.iter_mut().zip(x.iter()) {
            *next = a * x;
        }
        let p = Strided::rows(polynomial, k);
        if wide {
            ops.gemm_add(p, m, [k, n, k], next, gemm);
        } else {
            ops.gemm_add(m, p, [n, k, k], next, gemm);
        }
        std::mem::swap(x, next);
    }
}

/// A symmetric product of `[k, n]` and `[n, k]`: what lies right of the diagonal is copied from what lies left of it,
/// and has the bits of a product made as a whole, as both are the same chain of sums.
fn symmetric(
    ops: Ops,
    [left, right]: [Strided<'_>; 2],
    [k, n]: [usize; 2],
    out: &mut [f32],
    band: &mut Vec<f32>,
    gemm: &mut GemmScratch,
) {
    for first in (0..k).step_by(BAND) {
        let rows = BAND.min(k - first);
        let cols = first + rows;
        band.resize(rows * cols, 0.0);
        let below = Strided { data: &left.data[first * left.row..], ..left };
        ops.gemm(below, right, [rows, cols, n], band, gemm);
        for (i, row) in band.chunks_exact(cols).enumerate() {
            let at = first + i;
            out[at * k..at * k + cols].copy_from_slice(row);
            for (j, v) in row[..first].iter().enumerate() {
                out[j * k + at] = *v;
            }
        }
    }
}

#[cfg(test)]
mod tests;
