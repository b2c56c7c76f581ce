//! Logits: final norm, then the dot products of one row with every row of the head.

use std::ops::Range;

use smallvec::SmallVec;
use ternary_kernels::ops::Ops;
use ternary_kernels::{ColsMut, Team, split_cols};

use super::Inner;
use super::scratch::Scratch;
use crate::FloatMatrix;
use crate::float_matrix::FloatRows;

/// Block-quantised head rows are dequantised this many at a time.
const DEQUANT_ROWS: usize = 16;

/// Rows of the residual stream that are multiplied with the head together, so that it is read once for all of them.
pub(super) const TOKENS: usize = 8;

/// Appends the logits of residual rows `rows` to `logits`, `[rows, vocab]` f32.
pub(super) fn logits(model: &Inner, team: &Team, s: &mut Scratch, rows: Range<usize>, logits: &mut Vec<f32>) {
    let (c, ops) = (&model.config, model.ops);
    let (hidden, vocab) = (c.hidden_size, c.vocab_size);
    let parts = team.threads();
    let bounds: SmallVec<[_; 16]> = (0..parts).map(|p| vocab * p / parts..vocab * (p + 1) / parts).collect();
    for first in rows.clone().step_by(TOKENS) {
        let n = TOKENS.min(rows.end - first);
        // The normalised rows take the place of the queries, which are not needed any more.
        let normed = normed_rows(s, ops, first, n, hidden, &model.final_norm, c.rms_norm_eps);
        let start = logits.len();
        logits.resize(start + n * vocab, 0.0);
        let mut jobs: SmallVec<[_; 16]> = split_cols(&mut logits[start..], n, vocab, &bounds).collect();
        let head = model.head_matrix();
        team.run_parts(&mut jobs, |p, out| head_rows(ops, head, normed, bounds[p].clone(), out));
    }
}

fn normed_rows<'a>(
    s: &'a mut Scratch,
    ops: Ops,
    first: usize,
    n: usize,
    hidden: usize,
    gain: &[f32],
    eps: f32,
) -> &'a [f32] {
    let out = &mut s.normed[..n * hidden];
    for (x, out) in s.x[first * hidden..].chunks_exact(hidden).zip(out.chunks_exact_mut(hidden)) {
        ops.rms_norm(x, gain, eps, out);
    }
    out
}

/// Dot products of the rows of `x` (`[n, hidden]`) with head rows `vocab`.
fn head_rows(ops: Ops, head: &FloatMatrix, x: &[f32], vocab: Range<usize>, out: &mut ColsMut<'_, f32>) {
    let hidden = head.cols();
    let row = |r: usize| r * hidden..(r + 1) * hidden;
    let first = vocab.start;
    let mut dots = [0.0f32; TOKENS];
    let n = x.len() / hidden;
    let dots = &mut dots[..n];
    let mut put = |r: usize, dots: &[f32]| {
        for (t, &d) in dots.iter().enumerate() {
            out.row_mut(t)[r - first] = d;
        }
    };
    match head.plain() {
        FloatRows::F32(w) => {
            for r in vocab {
                ops.dots(x, &w[row(r)], dots);
                put(r, dots);
            }
        }
        FloatRows::F16(w) => {
            for r in vocab {
                ops.dots_f16(x, &w[row(r)], dots);
                put(r, dots);
            }
        }
        FloatRows::Bf16(w) => {
            for r in vocab {
                ops.dots_bf16(x, &w[row(r)], dots);
                put(r, dots);
            }
        }
        FloatRows::Blocks => {
            let mut rows = vec![0.0; DEQUANT_ROWS * hidden];
            for start in vocab.clone().step_by(DEQUANT_ROWS) {
                let count = DEQUANT_ROWS.min(vocab.end - start);
                head.rows_into(start..start + count, &mut rows[..count * hidden]);
                for i in 0..count {
                    ops.dots(x, &rows[row(i)], dots);
                    put(start + i, dots);
                }
            }
        }
    }
}
