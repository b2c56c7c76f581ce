//! What follows a position: logits of the whole vocabulary, or of the best tokens only.
//!
//! The stored head is the largest matrix of a model. [`plain`] reads all of it. [`best`] reads a coarse plane of it, which
//! is a third as large, and computes only those rows from the stored weights that can be among the best; the logits
//! are the same, bit for bit, because it is the same function of the same row.

use half::{bf16, f16};
use ternary_kernels::Team;
use ternary_kernels::ops::Ops;
use ternary_kernels::ops::coarse::{CoarsePlane, StoredRows};

mod best;
mod output;
mod plain;

use super::Inner;
use super::scratch::Scratch;
use crate::float_matrix::FloatRows;
use crate::{FloatMatrix, ModelError};

pub(super) use best::BestScratch;
pub use output::{Candidate, HeadRequest, Prediction, StepOutput};

/// Rows of the residual stream that are normalised together.
pub(super) const TOKENS: usize = 16;

/// How an [`Engine`](crate::Engine) computes the best logits, where a [`HeadRequest`] asks for no others.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum HeadMode {
    /// With a coarse plane, where the head is large enough for it to pay.
    #[default]
    Auto,
    /// With a coarse plane wherever the head is stored as plain floats.
    Coarse,
    /// Always from the whole head.
    Plain,
}

/// Weights of a head from which on a coarse plane is faster; a smaller head lies in the caches of a CPU, and the additional
/// phases of a step cost what reading less saves.
const COARSE_MIN_WEIGHTS: usize = 1 << 19;

/// The coarse plane of `head`, if `mode` asks for one and it is possible.
pub(super) fn plane(
    mode: HeadMode,
    head: &FloatMatrix,
    ops: Ops,
    team: &Team,
) -> Result<Option<CoarsePlane>, ModelError> {
    let (rows, cols) = (head.rows(), head.cols());
    let wanted = match mode {
        HeadMode::Plain => false,
        HeadMode::Coarse => true,
        HeadMode::Auto => rows.saturating_mul(cols) >= COARSE_MIN_WEIGHTS,
    };
    let stored = match head.plain() {
        FloatRows::F32(w) => StoredRows::F32(w),
        FloatRows::F16(w) => StoredRows::F16(w),
        FloatRows::Bf16(w) => StoredRows::Bf16(w),
        FloatRows::Blocks => return Ok(None),
    };
    if !wanted || cols > ternary_kernels::ops::coarse::MAX_COLS {
        return Ok(None);
    }
    Ok(Some(CoarsePlane::build(ops, team, rows, cols, stored)?))
}

/// Appends what the head says about rows of the residual stream to `out`, in their order, each as it is asked for.
pub(super) fn run(
    model: &Inner,
    team: &Team,
    s: &mut Scratch,
    wanted: impl Iterator<Item = (usize, HeadRequest)>,
    out: &mut StepOutput,
) {
    let mut full = std::mem::take(&mut s.best.full);
    let mut batch = std::mem::take(&mut s.best.batch);
    full.clear();
    batch.clear();
    for (row, request) in wanted {
        let position = out.add(request);
        if model.plane.as_ref().is_some_and(|plane| best::serves(plane, request)) {
            batch.push((row, position));
            if batch.len() == TOKENS {
                best::run(model, team, s, &batch, &mut full, out);
                batch.clear();
            }
        } else {
            full.push((row, position));
        }
    }
    if !batch.is_empty() {
        best::run(model, team, s, &batch, &mut full, out);
    }
    plain::run(model, team, s, &full, out);
    (s.best.full, s.best.batch) = (full, batch);
}

/// Normalises rows of the residual stream, divides them by the divisor of the logits, and transforms them for a folded head; row `i` of the result is that of
/// `rows[i]`.
fn normed<'a>(model: &Inner, x: &[f32], rows: impl Iterator<Item = usize>, out: &'a mut [f32]) -> &'a [f32] {
    let (hidden, divisor) = (model.config.hidden_size, model.config.logit_divisor);
    let mut n = 0;
    for (row, out) in rows.zip(out.chunks_exact_mut(hidden)) {
        model.ops.rms_norm(&x[row * hidden..][..hidden], &model.final_norm, model.config.rms_norm_eps, out);
        if divisor != 1.0 {
            out.iter_mut().for_each(|v| *v /= divisor);
        }
        if let Some(fold) = model.fold.as_ref().filter(|fold| fold.head) {
            fold.turn(model.ops, out);
        }
        n += hidden;
    }
    &out[..n]
}

/// A number that rows of a head are stored in.
trait Stored: Copy {
    /// The canonical dot product of one row with one row of activations.
    fn dot(ops: Ops, x: &[f32], w: &[Self]) -> f32;
    /// The same for several rows of activations.
    fn dots(ops: Ops, x: &[f32], w: &[Self], out: &mut [f32]);
}

macro_rules! stored {
    ($($ty:ty, $dot:ident, $dots:ident;)*) => {$(
        impl Stored for $ty {
            fn dot(ops: Ops, x: &[f32], w: &[Self]) -> f32 {
                ops.$dot(x, w)
            }
            fn dots(ops: Ops, x: &[f32], w: &[Self], out: &mut [f32]) {
                ops.$dots(x, w, out);
            }
        }
    )*};
}
stored! {
    f32, dot, dots;
    f16, dot_f16, dots_f16;
    bf16, dot_bf16, dots_bf16;
}
