//! A ternary projection as the engine runs it: packed weights, their kernel, the f32 epilogue.

use std::ops::Range;
use std::sync::Arc;

use smallvec::SmallVec;
use ternary_kernels::ops::Ops;
use ternary_kernels::{
    ColsMut, Int8Batch, Int8Vector, Kernel, KernelError, Packed, Scales, Team, TernaryMatrix, split_cols,
};

use super::quantized::Quantized;
use super::scratch::ThreadScratch;
use super::step::INLINE_PARTS;

/// A packed projection.
#[derive(Clone, Debug)]
pub(super) struct Linear {
    packed: Packed,
    scales: Scales,
    kernel: Arc<dyn Kernel>,
}

impl Linear {
    pub(super) fn new(w: &TernaryMatrix, kernel: &Arc<dyn Kernel>) -> Result<Self, KernelError> {
        // Whatever the kernel says: the epilogue below has one scale per row.
        w.expect_plain_rows(kernel.name())?;
        Ok(Self { packed: kernel.prepack(w)?, scales: w.scales().clone(), kernel: kernel.clone() })
    }

    /// Output features.
    pub(super) fn rows(&self) -> usize {
        self.packed.rows()
    }

    /// Input features.
    pub(super) fn cols(&self) -> usize {
        self.packed.cols()
    }

    /// The integer products of all rows with `x`, `[rows]` i32 into `acc`.
    pub(super) fn sums(&self, x: &Int8Vector<'_>, acc: &mut [i32]) {
        for block in self.blocks(0..self.rows()) {
            let w = self.packed.rows_range(block.clone()).expect("blocks() yields ranges that begin and end at panels");
            self.kernel.gemv(&w, x, &mut acc[block]);
        }
    }

    /// What the integer products are multiplied with.
    pub(super) fn scales(&self) -> &Scales {
        &self.scales
    }

    /// Bytes that one product reads.
    pub(super) fn byte_len(&self) -> usize {
        self.packed.byte_len()
    }

    /// Output rows of thread `part` of `parts`.
    pub(super) fn split(&self, part: usize, parts: usize) -> Range<usize> {
        self.packed.split(part, parts)
    }

    /// Blocks of output rows that cover `rows`, each computed by one call of the kernel.
    pub(super) fn blocks(&self, rows: Range<usize>) -> impl Iterator<Item = Range<usize>> + use<> {
        self.packed.blocks(rows)
    }

    /// The exact integer product of `rows` with all tokens of `x`, `[n, rows]` i32 into `acc`; `widened` is room for the kernel.
    pub(super) fn product(&self, rows: Range<usize>, x: &Quantized, widened: &mut Int8Batch, acc: &mut [i32]) {
        let w = self.packed.rows_range(rows).expect("blocks() yields ranges that begin and end at panels");
        x.product(self.kernel.as_ref(), &w, widened, acc);
    }

    /// `out = (acc * (1 / s)) * scale`, the dequantised output of one token for `rows`; with `ADD` on top of what is there.
    ///
    /// The order is part of the canonical arithmetic, see `docs/adr/0003-canonical-float-arithmetic.md`.
    pub(super) fn dequantize<const ADD: bool>(
        &self,
        ops: Ops,
        rows: Range<usize>,
        s: f32,
        acc: &[i32],
        out: &mut [f32],
    ) {
        match &self.scales {
            Scales::Tensor(a) if ADD => ops.dequantize_add(acc, 1.0 / s, *a, out),
            Scales::Tensor(a) => ops.dequantize(acc, 1.0 / s, *a, out),
            Scales::Rows(a) => {
                for ((o, &v), a) in out.iter_mut().zip(acc).zip(&a[rows]) {
                    let y = (v as f32 * (1.0 / s)) * a;
                    *o = if ADD { *o + y } else { y };
                }
            }
            Scales::Groups(_) => unreachable!("refused by Linear::new"),
        }
    }

    /// Computes the outputs of thread-owned `rows` for all tokens into `out`, whose columns are these rows; with `ADD` on top of
    /// what is there.
    pub(super) fn run<const ADD: bool>(
        &self,
        ops: Ops,
        rows: Range<usize>,
        x: &Quantized,
        scratch: &mut ThreadScratch,
        out: &mut ColsMut<'_, f32>,
    ) {
        let (n, first) = (x.n(), rows.start);
        for block in self.blocks(rows) {
            let len = block.len();
            let acc = &mut scratch.acc[..n * len];
            self.product(block.clone(), x, &mut scratch.widened, acc);
            for (t, (acc, &s)) in acc.chunks_exact(len).zip(x.scales()).enumerate() {
                let out = &mut out.row_mut(t)[block.start - first..block.end - first];
                self.dequantize::<ADD>(ops, block.clone(), s, acc, out);
            }
        }
    }
}

/// The products of `x` with several projections in one pass: each thread computes its share of the rows of all. Each
/// output is `[n, rows]`.
pub(super) fn project(
    ops: Ops,
    team: &Team,
    products: SmallVec<[(&Linear, &mut [f32]); 4]>,
    x: &Quantized,
    threads: &mut [ThreadScratch],
) {
    /// One thread's columns of each output.
    type Outputs<'a> = SmallVec<[(&'a Linear, ColsMut<'a, f32>); 4]>;
    let (n, parts) = (x.n(), team.threads());
    let mut jobs: SmallVec<[(Outputs<'_>, &mut ThreadScratch); INLINE_PARTS]> =
        threads.iter_mut().map(|scratch| (Outputs::new(), scratch)).collect();
    for (w, out) in products {
        let bounds: SmallVec<[_; INLINE_PARTS]> = (0..parts).map(|p| w.split(p, parts)).collect();
        for ((outputs, _), cols) in jobs.iter_mut().zip(split_cols(out, n, w.rows(), &bounds)) {
            outputs.push((w, cols));
        }
    }
    team.run_parts(&mut jobs, |p, (outputs, scratch)| {
        for (w, out) in outputs {
            w.run::<false>(ops, w.split(p, parts), x, scratch, out);
        }
    });
}
