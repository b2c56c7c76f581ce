//! A ternary projection as the engine runs it: packed weights, their kernel, the f32 epilogue.

use std::ops::Range;
use std::sync::Arc;

use ternary_kernels::ops::Ops;
use ternary_kernels::{Int8Batch, Kernel, KernelError, Packed, Scales, TernaryMatrix};

use super::scratch::ThreadScratch;

/// A packed projection.
#[derive(Clone, Debug)]
pub(super) struct Linear {
    packed: Packed,
    scales: Scales,
    kernel: Arc<dyn Kernel>,
}

impl Linear {
    pub(super) fn new(w: &TernaryMatrix, kernel: &Arc<dyn Kernel>) -> Result<Self, KernelError> {
        Ok(Self { packed: kernel.prepack(w)?, scales: w.scales().clone(), kernel: kernel.clone() })
    }

    /// Output features.
    pub(super) fn rows(&self) -> usize {
        self.packed.rows()
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

    /// The exact integer product of `rows` with all tokens of `x`, `[n, rows]` i32 into `acc`.
    pub(super) fn product(&self, rows: Range<usize>, x: &Int8Batch, acc: &mut [i32]) {
        let x = x.view();
        let w = self.packed.rows_range(rows).expect("blocks() yields ranges that begin and end at panels");
        if x.n() == 1 {
            self.kernel.gemv(&w, &x.row(0), acc);
        } else {
            self.kernel.gemm(&w, &x, acc);
        }
    }

    /// `out = (acc * (1 / s)) * scale`, the dequantised output of one token for `rows`.
    ///
    /// The order is part of the canonical arithmetic, see `docs/adr/0003-canonical-float-arithmetic.md`.
    pub(super) fn dequantize(&self, ops: Ops, rows: Range<usize>, s: f32, acc: &[i32], out: &mut [f32]) {
        match &self.scales {
            Scales::Tensor(a) => {
                ops.scale_i32(acc, 1.0 / s, out);
                ops.scale(*a, out);
            }
            Scales::Rows(a) => {
                for ((o, &v), a) in out.iter_mut().zip(acc).zip(&a[rows]) {
                    *o = (v as f32 * (1.0 / s)) * a;
                }
            }
        }
    }

    /// Computes the outputs of thread-owned `rows` for all tokens, and hands each token's part to `write`.
    pub(super) fn run(
        &self,
        ops: Ops,
        rows: Range<usize>,
        x: &Int8Batch,
        scratch: &mut ThreadScratch,
        mut write: impl FnMut(usize, Range<usize>, &[f32]),
    ) {
        let n = x.view().n();
        for block in self.blocks(rows) {
            let len = block.len();
            let acc = &mut scratch.acc[..n * len];
            self.product(block.clone(), x, acc);
            for (t, (acc, &s)) in acc.chunks_exact(len).zip(x.scales()).enumerate() {
                let out = &mut scratch.y[..len];
                self.dequantize(ops, block.clone(), s, acc, out);
                write(t, block.clone(), out);
            }
        }
    }
}
