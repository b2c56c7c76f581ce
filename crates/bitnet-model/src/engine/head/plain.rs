//! Logits of the whole vocabulary: dot products with every row of the head.

use std::ops::Range;

use smallvec::SmallVec;
use ternary_kernels::ops::Ops;
use ternary_kernels::{ColsMut, Team, split_cols};

use super::super::{Inner, scratch::Scratch};
use super::{StepOutput, Stored, normed};
use crate::FloatMatrix;
use crate::float_matrix::FloatRows;

/// Block-quantised head rows are dequantised this many at a time.
const DEQUANT_ROWS: usize = 16;

/// Rows of the residual stream that are multiplied with the head together, so that it is read once for all of them.
const TOKENS: usize = 8;

/// Computes all logits for the given rows of the residual stream, `(row, position in the output)`.
pub(super) fn run(model: &Inner, team: &Team, s: &mut Scratch, rows: &[(usize, usize)], out: &mut StepOutput) {
    let (ops, vocab) = (model.ops, model.config.vocab_size);
    let parts = team.threads();
    let bounds: SmallVec<[_; 16]> = (0..parts).map(|p| vocab * p / parts..vocab * (p + 1) / parts).collect();
    for rows in rows.chunks(TOKENS) {
        let x = normed(model, &s.x, rows.iter().map(|r| r.0), &mut s.normed);
        let logits = out.add_logits(rows.iter().map(|r| r.1), vocab);
        let mut jobs: SmallVec<[_; 16]> = split_cols(logits, rows.len(), vocab, &bounds).collect();
        let head = model.head_matrix();
        team.run_parts(&mut jobs, |p, out| head_rows(ops, head, x, bounds[p].clone(), out));
    }
}

/// Dot products of the rows of `x` (`[n, hidden]`) with head rows `vocab`.
fn head_rows(ops: Ops, head: &FloatMatrix, x: &[f32], vocab: Range<usize>, out: &mut ColsMut<'_, f32>) {
    let hidden = head.cols();
    match head.plain() {
        FloatRows::F32(w) => dots(ops, x, &w[vocab.start * hidden..vocab.end * hidden], hidden, 0, out),
        FloatRows::F16(w) => dots(ops, x, &w[vocab.start * hidden..vocab.end * hidden], hidden, 0, out),
        FloatRows::Bf16(w) => dots(ops, x, &w[vocab.start * hidden..vocab.end * hidden], hidden, 0, out),
        FloatRows::Blocks => {
            let mut rows = vec![0.0; DEQUANT_ROWS * hidden];
            for start in vocab.clone().step_by(DEQUANT_ROWS) {
                let rows = &mut rows[..DEQUANT_ROWS.min(vocab.end - start) * hidden];
                head.rows_into(start..start + rows.len() / hidden, rows);
                dots(ops, x, rows, hidden, start - vocab.start, out);
            }
        }
    }
}

/// Dot products with the rows of `w`, to the columns of `out` from `first` on.
fn dots<W: Stored>(ops: Ops, x: &[f32], w: &[W], hidden: usize, first: usize, out: &mut ColsMut<'_, f32>) {
    let mut dots = [0.0f32; TOKENS];
    let dots = &mut dots[..x.len() / hidden];
    for (r, w) in w.chunks_exact(hidden).enumerate() {
        W::dots(ops, x, w, dots);
        for (t, &d) in dots.iter().enumerate() {
            out.row_mut(t)[first + r] = d;
        }
    }
}
