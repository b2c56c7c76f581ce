//! A ternary projection in the engine: packed weights, their kernel, the f32 epilogue.

use std::ops::Range;
use std::sync::Arc;

use smallvec::SmallVec;
use ternary_kernels::ops::Ops;
use ternary_kernels::team::{self, Call, Columns};
use ternary_kernels::{AlignedBuf, ColsMut, GroupKernel, GroupPacked, Int8Batch, Kernel, Packed, Scales, Team};

use super::quantized::Quantized;
use crate::{LayerWeights, Norm, Projection};

/// Scratch of one thread for a product.
#[derive(Debug)]
pub(super) struct ProductScratch {
    /// Integer products of one call of a kernel, of some tokens and output rows.
    pub(super) acc: AlignedBuf<i32>,
    /// Int4 activations as int8, for kernels that need that; these kernels let it grow.
    widened: Int8Batch,
}

impl ProductScratch {
    /// Empty buffers.
    pub(super) fn new() -> Self {
        Self { acc: AlignedBuf::zeroed(0), widened: Int8Batch::with_capacity(0, 0) }
    }

    /// Bytes of the buffers.
    pub(super) fn byte_len(&self) -> usize {
        size_of_val(&self.acc[..]) + self.widened.view().codes().len()
    }

    /// Gives all threads the room that one of them has needed: any thread may come across a kernel that needs it.
    pub(super) fn level(threads: &mut [Self]) {
        let mut rest = threads;
        while let Some((first, others)) = rest.split_first_mut() {
            for other in &mut *others {
                first.widened.reserve_like(&other.widened);
                other.widened.reserve_like(&first.widened);
            }
            rest = others;
        }
    }
}

/// A packed projection.
#[derive(Clone, Debug)]
pub(super) struct Linear {
    weights: Weights,
    /// Gain of the projection's own norm, which is applied to its input before quantisation.
    pub(super) norm: Option<Vec<f32>>,
    bias: Option<Vec<f32>>,
}

/// Packed weights and their kernel.
#[derive(Clone, Debug)]
pub(super) enum Weights {
    /// One scale for the matrix or one for each row: integer products, then one f32 epilogue.
    Trits { packed: Packed, scales: Scales, kernel: Arc<dyn Kernel> },
    /// A scale for each group of weights of a row, which the kernel multiplies by; its results are f32.
    Groups { packed: GroupPacked, kernel: GroupKernel },
}

impl Linear {
    /// The projection `which` of `layer`, with packed weights.
    pub(super) fn new(layer: &LayerWeights, which: Projection, weights: Weights) -> Self {
        Self {
            weights,
            // The layer number does not matter here.
            norm: layer.norm(Norm::ProjectionIn(0, which)).map(<[f32]>::to_vec),
            bias: layer.bias(which).map(<[f32]>::to_vec),
        }
    }

    /// The learned full-precision parameters other than the scales: norm and bias, if any.
    pub(super) fn learnt(&self) -> impl Iterator<Item = &[f32]> {
        [&self.norm, &self.bias].into_iter().flatten().map(Vec::as_slice)
    }

    pub(super) fn weights(&self) -> &Weights {
        &self.weights
    }

    /// Output features.
    pub(super) fn rows(&self) -> usize {
        match &self.weights {
            Weights::Trits { packed, .. } => packed.rows(),
            Weights::Groups { packed, .. } => packed.rows(),
        }
    }

    /// Bytes that one product reads.
    pub(super) fn byte_len(&self) -> usize {
        match &self.weights {
            Weights::Trits { packed, .. } => packed.byte_len(),
            Weights::Groups { packed, .. } => packed.byte_len(),
        }
    }

    /// Height of a panel: rows that are computed together begin at multiples of it.
    pub(super) fn panel_rows(&self) -> usize {
        match &self.weights {
            Weights::Trits { packed, .. } => packed.panel_rows(),
            Weights::Groups { packed, .. } => packed.panel_rows(),
        }
    }

    /// `out`, the outputs of all tokens, in blocks of tokens and pieces of rows that `threads` threads share.
    pub(super) fn share<'a, W, T>(&self, threads: usize, what: W, out: ColsMut<'a, T>) -> Columns<'a, W, T> {
        let (n, rows) = (out.n(), self.rows());
        let (tokens, pieces) = match &self.weights {
            Weights::Trits { packed, kernel: k, .. } => {
                let call = Call { tokens: k.block_tokens(), rows: k.block_rows(), least_rows: k.least_rows(n) };
                team::tokens_and_pieces(threads, n, (rows, packed.cols()), &call)
            }
            Weights::Groups { packed, kernel: k } => {
                let call = Call { tokens: k.block_tokens(), rows: k.block_rows(), least_rows: k.least_rows(n) };
                team::tokens_and_pieces(threads, n, (rows, packed.cols()), &call)
            }
        };
        Columns::new(what, out, self.panel_rows(), pieces).in_blocks(tokens)
    }

    /// Blocks of output rows that cover `rows`, each computed by one call of the kernel.
    pub(super) fn blocks(&self, rows: Range<usize>) -> impl Iterator<Item = Range<usize>> + use<> {
        let (trits, groups) = match &self.weights {
            Weights::Trits { packed, kernel, .. } => (Some(packed.blocks(rows, kernel.block_rows())), None),
            Weights::Groups { packed, kernel } => (None, Some(packed.blocks(rows, kernel.block_rows()))),
        };
        trits.into_iter().flatten().chain(groups.into_iter().flatten())
    }

    /// Computes the outputs of `rows` for `tokens` of `x` into `out`, whose columns are these rows; with `ADD`, adds them.
    pub(super) fn forward<const ADD: bool>(
        &self,
        ops: Ops,
        (tokens, rows): (Range<usize>, Range<usize>),
        x: &Quantized,
        scratch: &mut ProductScratch,
        out: &mut ColsMut<'_, f32>,
    ) {
        let (n, first) = (tokens.len(), rows.start);
        for block in self.blocks(rows) {
            let len = block.len();
            let acc = &mut scratch.acc[..n * len];
            let at = block.start - first..block.end - first;
            match &self.weights {
                Weights::Trits { packed, scales, kernel } => {
                    const PANELS: &str = "blocks() yields ranges that begin and end at panels";
                    let w = packed.rows_range(block.clone()).expect(PANELS);
                    x.product(tokens.clone(), kernel.as_ref(), &w, &mut scratch.widened, acc);
                    for (t, (acc, &s)) in acc.chunks_exact(len).zip(&x.scales()[tokens.clone()]).enumerate() {
                        dequantize::<ADD>(ops, scales, block.clone(), s, acc, &mut out.row_mut(t)[at.clone()]);
                    }
                }
                Weights::Groups { packed, kernel } => {
                    // As large as the integers that other kernels write there.
                    let y: &mut [f32] = bytemuck::cast_slice_mut(acc);
                    x.group_product(tokens.clone(), kernel, packed, block.clone(), y);
                    for (t, y) in y.chunks_exact(len).enumerate() {
                        let out = &mut out.row_mut(t)[at.clone()];
                        if ADD { ops.add_assign(out, y) } else { out.copy_from_slice(y) }
                    }
                }
            }
            if let Some(bias) = &self.bias {
                (0..n).for_each(|t| ops.add_assign(&mut out.row_mut(t)[at.clone()], &bias[block.clone()]));
            }
        }
    }
}

/// `out = (acc * (1 / s)) * scale`, the dequantised output of one token for `rows`; with `ADD`, added to `out`.
///
/// The order is part of the canonical arithmetic, see `docs/adr/0003-canonical-float-arithmetic.md`.
fn dequantize<const ADD: bool>(ops: Ops, scales: &Scales, rows: Range<usize>, s: f32, acc: &[i32], out: &mut [f32]) {
    match scales {
        Scales::Tensor(a) if ADD => ops.dequantize_add(acc, 1.0 / s, *a, out),
        Scales::Tensor(a) => ops.dequantize(acc, 1.0 / s, *a, out),
        Scales::Rows(a) => {
            for ((o, &v), a) in out.iter_mut().zip(acc).zip(&a[rows]) {
                let y = (v as f32 * (1.0 / s)) * a;
                *o = if ADD { *o + y } else { y };
            }
        }
        Scales::Groups(_) => unreachable!("`Kernels::pack` packs matrices with a scale per group for the group kernel"),
    }
}

/// A projection, its input and its output `[n, rows]`.
pub(super) type Product<'a> = (&'a Linear, &'a Quantized, &'a mut [f32]);

/// Several projections of `n` tokens in one pass; the threads share rows and tokens.
pub(super) fn project(
    ops: Ops,
    team: &Team,
    products: SmallVec<[Product<'_>; 4]>,
    n: usize,
    threads: &mut [ProductScratch],
) {
    let mut outputs: SmallVec<[_; 4]> = products
        .into_iter()
        .map(|(w, x, out)| {
            let out = ColsMut::new(out, n, w.rows());
            w.share(team.threads(), (w, x), out)
        })
        .collect();
    team.run_columns(&mut outputs, threads, |(w, x), tokens, rows, out, scratch| {
        w.forward::<false>(ops, (tokens, rows), x, scratch, out);
    });
}

/// `x += projection`, all threads.
pub(super) fn add_projection(
    ops: Ops,
    team: &Team,
    w: &Linear,
    input: &Quantized,
    threads: &mut [ProductScratch],
    x: &mut [f32],
) {
    let x = ColsMut::new(x, input.n(), w.rows());
    let mut outputs = [w.share(team.threads(), (), x)];
    team.run_columns(&mut outputs, threads, |(), tokens, rows, x, scratch| {
        w.forward::<true>(ops, (tokens, rows), input, scratch, x);
    });
}
