//! Logits of the whole vocabulary: dot products with every row of the head.

use std::ops::Range;

use ternary_kernels::ops::Ops;
use ternary_kernels::team::{self, Columns};
use ternary_kernels::{ColsMut, GroupKernel, GroupPacked, Team};

use super::output::StepOutput;
use super::rows::{FinalNorm, Stored};
use crate::engine::context::Context;
use crate::engine::linear::ProductScratch;
use crate::engine::quantized::Quantized;
use crate::engine::table::EngineTable;
use crate::float_matrix::FloatRows;
use crate::{FloatMatrix, InputForm};

/// Block-quantised head rows are dequantised this many at a time.
const DEQUANT_ROWS: usize = 16;

/// Rows of the residual stream that are multiplied with the head together, so that it is read once for all of them.
const TOKENS: usize = 8;

/// Computes all logits for the given rows of the residual stream, `(row, position in the output)`. The first scratch is
/// for normalised rows; the second for quantised ones, with their form, if the head is ternary.
pub(super) fn run(
    table: &EngineTable,
    norm: &FinalNorm,
    context: &mut Context<'_>,
    (normed, mut quantized): (&mut [f32], Option<(&mut Quantized, InputForm)>),
    residual: &[f32],
    rows: &[(usize, usize)],
    out: &mut StepOutput,
) {
    let (ops, team, vocab) = (context.ops, context.team, context.config.vocab_size);
    for rows in rows.chunks(TOKENS) {
        let x = norm.rows(context, residual, rows.iter().map(|r| r.0), normed);
        let logits = out.add_logits(rows.iter().map(|r| r.1), vocab);
        let threads = &mut context.projections.products;
        match table {
            EngineTable::Float(head) => {
                let n = rows.len();
                let pieces = team::pieces(
                    team.threads(),
                    vocab,
                    DEQUANT_ROWS,
                    n.saturating_mul(vocab).saturating_mul(head.cols()),
                );
                let mut outputs = [Columns::new((), ColsMut::new(logits, n, vocab), DEQUANT_ROWS, pieces)];
                // They are not used, but there is one for each thread.
                team.run_columns(&mut outputs, threads, |(), _, vocab, out, _| head_rows(ops, head, x, vocab, out));
            }
            EngineTable::Ternary { packed, kernel, .. } => {
                if let Some((input, form)) = &mut quantized {
                    ternary(ops, team, (packed, kernel), (x, input, *form), threads, logits);
                }
            }
        }
    }
}

/// Products of the rows of `x`, quantised in the given form, with all rows of a ternary head, `[n, vocab]` into
/// `logits`.
fn ternary(
    ops: Ops,
    team: &Team,
    (packed, kernel): (&GroupPacked, &GroupKernel),
    (x, input, form): (&[f32], &mut Quantized, InputForm),
    threads: &mut [ProductScratch],
    logits: &mut [f32],
) {
    let (hidden, vocab) = (packed.cols(), packed.rows());
    let n = x.len() / hidden;
    let row = |t: usize| &x[t * hidden..(t + 1) * hidden];
    // A row that is not finite has no codes; its logits become NaN below.
    let rows = std::iter::repeat(());
    let _ = input.fill(team, form.into(), n, hidden, rows, |(), t, out| out.quantize(ops, row(t), None));
    let pieces =
        team::pieces(team.threads(), vocab, kernel.least_rows(n), n.saturating_mul(vocab).saturating_mul(hidden));
    let mut outputs = [Columns::new((), ColsMut::new(logits, n, vocab), packed.panel_rows(), pieces)];
    let input = &*input;
    team.run_columns(&mut outputs, threads, |(), tokens, rows, out, scratch| {
        for block in packed.blocks(rows.clone(), kernel.block_rows()) {
            let y: &mut [f32] = bytemuck::cast_slice_mut(&mut scratch.acc[..n * block.len()]);
            input.group_product(tokens.clone(), kernel, packed, block.clone(), y);
            for (t, y) in y.chunks_exact(block.len()).enumerate() {
                out.row_mut(t)[block.start - rows.start..block.end - rows.start].copy_from_slice(y);
            }
        }
    });
    for (t, logits) in logits.chunks_exact_mut(vocab).enumerate() {
        if row(t).iter().any(|v| !v.is_finite()) {
            logits.fill(f32::NAN);
        }
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
