//! Quantised inputs of a projection, in the form of the model.

use std::ops::Range;

use smallvec::SmallVec;
use ternary_kernels::ops::{Ops, Prepare};
use ternary_kernels::{
    AlignedBuf, GroupKernel, GroupPacked, Int4Batch, Int4RowMut, Int4RowsMut, Int8Batch, Int8GroupBatch,
    Int8GroupRowMut, Int8GroupRowsMut, Int8RowMut, Int8RowsMut, Int16Batch, Int16RowMut, Int16RowsMut, Kernel,
    KernelError, PackedRows, ROW_ALIGN, Team,
};

use super::fold::{RowForm, sign};
use super::limits::INLINE_PARTS;
use crate::config::{ActivationBits, InputForms};

/// Rows of 16-bit, 8-bit or 4-bit codes, whichever were written last.
#[derive(Debug)]
pub(super) struct Quantized {
    bits: ActivationBits,
    int8: Int8Batch,
    int4: Int4Batch,
    int16: Int16Batch,
    int8_groups: Int8GroupBatch,
    /// The row on which a Hadamard transform works, for each thread; empty in models without transforms.
    rotated: Vec<AlignedBuf<f32>>,
    /// Bytes of all batches.
    byte_len: usize,
}

impl Quantized {
    /// Room for `n` rows of `k` activations in any of `forms`, written by `threads` threads, in groups of `group_len`
    /// if groups have scales.
    pub(super) fn with_capacity(n: usize, k: usize, forms: &InputForms, (threads, group_len): (usize, usize)) -> Self {
        let rows = |bits| if forms.all().iter().any(|f| f.bits == bits) { n } else { 0 };
        let rotates = forms.all().iter().any(|f| f.hadamard.is_some());
        // A row's codes, its sum and its scale.
        let row_bytes = |bits: usize| k.next_multiple_of(ROW_ALIGN) * bits / 8 + size_of::<i32>() + size_of::<f32>();
        Self {
            byte_len: rows(ActivationBits::Eight) * row_bytes(8)
                + rows(ActivationBits::Four) * row_bytes(4)
                + rows(ActivationBits::Sixteen) * row_bytes(16)
                + rows(ActivationBits::EightByGroup) * (row_bytes(8) + k.div_ceil(group_len) * size_of::<f32>()),
            bits: ActivationBits::Eight,
            int8: Int8Batch::with_capacity(rows(ActivationBits::Eight), k),
            int4: Int4Batch::with_capacity(rows(ActivationBits::Four), k),
            int16: Int16Batch::with_capacity(rows(ActivationBits::Sixteen), k),
            int8_groups: Int8GroupBatch::with_capacity(rows(ActivationBits::EightByGroup), k, group_len),
            rotated: (0..threads).map(|_| AlignedBuf::zeroed(if rotates && n > 0 { k } else { 0 })).collect(),
        }
    }

    /// Bytes of the codes with their sums and scales.
    pub(super) fn byte_len(&self) -> usize {
        self.byte_len
    }

    /// Number of rows.
    pub(super) fn n(&self) -> usize {
        match self.bits {
            ActivationBits::Eight => self.int8.view().n(),
            ActivationBits::Four => self.int4.view().n(),
            ActivationBits::Sixteen => self.int16.view().n(),
            ActivationBits::EightByGroup => self.int8_groups.view().n(),
        }
    }

    /// The quantisation scales, `[n]`; empty if each group has its own.
    pub(super) fn scales(&self) -> &[f32] {
        match self.bits {
            ActivationBits::Eight => self.int8.scales(),
            ActivationBits::Four => self.int4.scales(),
            ActivationBits::Sixteen => self.int16.scales(),
            ActivationBits::EightByGroup => &[],
        }
    }

    /// The exact product of `tokens` with `w`, `[tokens, rows]` i32 into `acc`; `widened` is a buffer for the kernel.
    pub(super) fn product(
        &self,
        tokens: Range<usize>,
        kernel: &dyn Kernel,
        w: &PackedRows<'_>,
        widened: &mut Int8Batch,
        acc: &mut [i32],
    ) {
        match self.bits {
            ActivationBits::Eight => {
                let x = self.int8.view().rows(tokens);
                if x.n() == 1 { kernel.gemv(w, &x.row(0), acc) } else { kernel.gemm(w, &x, acc) }
            }
            ActivationBits::Four => {
                let x = self.int4.view().rows(tokens);
                if x.n() == 1 {
                    kernel.gemv_a4(w, &x.row(0), widened, acc);
                } else {
                    kernel.gemm_a4(w, &x, widened, acc);
                }
            }
            ActivationBits::Sixteen | ActivationBits::EightByGroup => {
                unreachable!("`Kernels::pack` packs weights with such inputs for the group kernel")
            }
        }
    }

    /// The product of `tokens` with `rows` of weights that have a scale for each group, `[tokens, rows]` f32 into `out`.
    pub(super) fn group_product(
        &self,
        tokens: Range<usize>,
        kernel: &GroupKernel,
        w: &GroupPacked,
        rows: Range<usize>,
        out: &mut [f32],
    ) {
        match self.bits {
            ActivationBits::Eight => {
                let (x, scales) = (self.int8.view().rows(tokens.clone()), &self.int8.scales()[tokens]);
                kernel.product_int8(w, rows, &x, scales, out);
            }
            ActivationBits::Sixteen => kernel.product(w, rows, &self.int16.view().rows(tokens), out),
            ActivationBits::EightByGroup => {
                kernel.product_int8_groups(w, rows, &self.int8_groups.view().rows(tokens), out);
            }
            ActivationBits::Four => {
                unreachable!("`Kernels::pack` refuses 4-bit inputs of weights with scales of groups")
            }
        }
    }

    /// Lets `f` write each of `n` rows in `form`, on all threads; each gets its chunk of `n / threads` rows, rounded
    /// up, one of `chunks`, and the number of the row. The error is the first row that is not finite.
    pub(super) fn fill<E: Send>(
        &mut self,
        team: &Team,
        RowForm { form, signs }: RowForm<'_>,
        n: usize,
        width: usize,
        chunks: impl Iterator<Item = E>,
        f: impl Fn(&mut E, usize, Row<'_>) -> Result<(), KernelError> + Sync,
    ) -> Result<(), usize> {
        self.bits = form.bits;
        // One row is not worth waking a thread.
        let chunk = n.div_ceil(team.threads());
        let own = chunks.zip(&mut self.rotated);
        let mut parts: SmallVec<[Part<'_, E>; INLINE_PARTS]> = match form.bits {
            ActivationBits::Sixteen => {
                self.int16.reset(n, width);
                own.zip(self.int16.chunks_mut(chunk)).map(|(own, rows)| Part::new(Rows::Int16(rows), own)).collect()
            }
            ActivationBits::Eight => {
                self.int8.reset(n, width);
                own.zip(self.int8.chunks_mut(chunk)).map(|(own, rows)| Part::new(Rows::Int8(rows), own)).collect()
            }
            ActivationBits::EightByGroup => {
                self.int8_groups.reset(n, width);
                let rows = self.int8_groups.chunks_mut(chunk);
                own.zip(rows).map(|(own, rows)| Part::new(Rows::Int8Groups(rows), own)).collect()
            }
            ActivationBits::Four => {
                self.int4.reset(n, width);
                own.zip(self.int4.chunks_mut(chunk)).map(|(own, rows)| Part::new(Rows::Int4(rows), own)).collect()
            }
        };
        team.run_parts(&mut parts, |p, Part { rows, own, rotated, bad }| {
            let mut one = |i: usize, codes: Codes<'_>| {
                let at = p * chunk + i;
                let row = Row { codes, rotated, hadamard: form.hadamard, signs };
                if f(own, at, row).is_err() && bad.is_none() {
                    *bad = Some(at);
                }
            };
            match rows {
                Rows::Int8(rows) => rows.rows_mut().enumerate().for_each(|(i, row)| one(i, Codes::Int8(row))),
                Rows::Int4(rows) => rows.rows_mut().enumerate().for_each(|(i, row)| one(i, Codes::Int4(row))),
                Rows::Int8Groups(rows) => {
                    rows.rows_mut().enumerate().for_each(|(i, row)| one(i, Codes::Int8Groups(row)))
                }
                Rows::Int16(rows) => rows.rows_mut().enumerate().for_each(|(i, row)| one(i, Codes::Int16(row))),
            }
        });
        parts.iter().find_map(|part| part.bad).map_or(Ok(()), Err)
    }
}

/// One thread's rows.
struct Part<'a, E> {
    rows: Rows<'a>,
    own: E,
    rotated: &'a mut [f32],
    bad: Option<usize>,
}

impl<'a, E> Part<'a, E> {
    fn new(rows: Rows<'a>, (own, rotated): (E, &'a mut AlignedBuf<f32>)) -> Self {
        Self { rows, own, rotated, bad: None }
    }
}

enum Rows<'a> {
    Int8(Int8RowsMut<'a>),
    Int4(Int4RowsMut<'a>),
    Int16(Int16RowsMut<'a>),
    Int8Groups(Int8GroupRowsMut<'a>),
}

enum Codes<'a> {
    Int8(Int8RowMut<'a>),
    Int4(Int4RowMut<'a>),
    Int16(Int16RowMut<'a>),
    Int8Groups(Int8GroupRowMut<'a>),
}

/// One row that is being written.
pub(super) struct Row<'a> {
    codes: Codes<'a>,
    rotated: &'a mut [f32],
    hadamard: Option<usize>,
    signs: Option<&'a [f32]>,
}

impl Row<'_> {
    /// Normalises (if a gain is given), transforms (if the form says so) and quantises `x`.
    pub(super) fn quantize(self, ops: Ops, x: &[f32], norm: Option<(&[f32], f32)>) -> Result<(), KernelError> {
        if let Some(signs) = self.signs {
            let turned = &mut self.rotated[..x.len()];
            match norm {
                Some((gain, eps)) => ops.rms_norm(x, gain, eps, turned),
                None => turned.copy_from_slice(x),
            }
            sign(signs, turned);
            if let Some(block) = self.hadamard {
                ops.hadamard(turned, block)?;
            }
            return match self.codes {
                Codes::Int8(row) => ops.quantize_int8(turned, row),
                Codes::Int4(row) => ops.quantize_int4(turned, row),
                Codes::Int16(row) => ops.quantize_int16(turned, row),
                Codes::Int8Groups(row) => ops.quantize_int8_groups(turned, row),
            };
        }
        let prepare = Prepare { norm, hadamard: self.hadamard };
        match self.codes {
            Codes::Int8(row) => ops.prepare_int8(x, prepare, self.rotated, row),
            Codes::Int4(row) => ops.prepare_int4(x, prepare, self.rotated, row),
            Codes::Int16(row) => ops.prepare_int16(x, prepare, self.rotated, row),
            Codes::Int8Groups(row) => ops.prepare_int8_groups(x, prepare, self.rotated, row),
        }
    }
}
