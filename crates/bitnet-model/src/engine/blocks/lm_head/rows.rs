//! Code shared by both ways to the logits: rows of the residual stream as the head reads them, and rows of the stored
//! head.

use half::{bf16, f16};
use ternary_kernels::ops::Ops;

use crate::engine::context::Context;

/// The norm before the head.
#[derive(Debug)]
pub(in crate::engine) struct FinalNorm {
    pub(in crate::engine) gain: Vec<f32>,
}

impl FinalNorm {
    /// Normalises rows of the residual stream, divides them by the divisor of the logits, and transforms them for a
    /// folded head; row `i` of the result belongs to `rows[i]`.
    pub(super) fn rows<'o>(
        &self,
        context: &Context<'_>,
        residual: &[f32],
        rows: impl Iterator<Item = usize>,
        out: &'o mut [f32],
    ) -> &'o [f32] {
        let (config, ops) = (context.config, context.ops);
        let (hidden, divisor) = (config.hidden_size, config.logit_divisor);
        let mut len = 0;
        for (row, out) in rows.zip(out.chunks_exact_mut(hidden)) {
            ops.rms_norm(&residual[row * hidden..][..hidden], &self.gain, config.rms_norm_eps, out);
            if divisor != 1.0 {
                out.iter_mut().for_each(|v| *v /= divisor);
            }
            if let Some(fold) = context.fold.filter(|fold| fold.head) {
                fold.turn(ops, out);
            }
            len += hidden;
        }
        &out[..len]
    }
}

/// The number type of a stored head.
pub(super) trait Stored: Copy {
    /// The canonical dot product of one row with one row of activations.
    fn dot(ops: Ops, x: &[f32], w: &[Self]) -> f32;
    /// The canonical dot products with several rows of activations.
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
