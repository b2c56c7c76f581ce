//! Int8 activations, one byte per code.

use super::int4::{Int4Matrix, Int4Vector};
use super::{ActBatch, ActMatrix, ActRowMut, ActRowsMut, ActVector, Code, ROW_ALIGN, sealed};
use crate::{AlignedBuf, KernelError};

/// Codes in -127..=127, one in a byte; rows are 64-byte aligned.
#[derive(Clone, Copy, Debug)]
pub struct Int8;

/// `n` tokens of `k` int8 activations each, with the row sums that the integer product needs.
pub type Int8Matrix<'a> = ActMatrix<'a, Int8>;
/// One token of int8 activations.
pub type Int8Vector<'a> = ActVector<'a, Int8>;
/// A buffer of int8 activations.
pub type Int8Batch = ActBatch<Int8>;
/// Consecutive rows of an [`Int8Batch`] that are being written.
pub type Int8RowsMut<'a> = ActRowsMut<'a, Int8>;
/// One row of an [`Int8Batch`] that is being written.
pub type Int8RowMut<'a> = ActRowMut<'a, Int8>;

impl sealed::Sealed for Int8 {}

impl Code for Int8 {
    type Unit = i8;
    const BATCH: &'static str = "Int8Batch";

    fn stride(k: usize) -> usize {
        k.next_multiple_of(ROW_ALIGN)
    }
    fn used(k: usize) -> usize {
        k
    }
    fn sum(units: &[i8]) -> i32 {
        units.iter().map(|&q| i32::from(q)).sum()
    }
}

impl<'a> ActMatrix<'a, Int8> {
    /// All rows with their padding, `[n, stride]` i8, 64-byte aligned.
    pub fn codes(&self) -> &'a [i8] {
        self.units
    }
}

impl<'a> ActVector<'a, Int8> {
    /// The codes with their zero padding, `[stride]` i8, 64-byte aligned.
    pub fn codes(&self) -> &'a [i8] {
        self.units
    }
}

impl ActBatch<Int8> {
    /// Copies int8 codes unchanged: `codes` is `[n, k]` row-major; all scales become 1.
    ///
    /// # Errors
    /// [`KernelError::ShapeMismatch`] if the length is not `n * k`;
    /// [`KernelError::ActivationOutOfRange`] if a code is -128.
    pub fn from_codes(n: usize, k: usize, codes: &[i8]) -> Result<Self, KernelError> {
        let mut batch = Self::for_codes("Int8Batch::from_codes", n, k, codes.len())?;
        if let Some(i) = codes.iter().position(|&c| c == i8::MIN) {
            return Err(KernelError::ActivationOutOfRange { token: i / k, position: i % k, value: i8::MIN });
        }
        for (t, mut row) in batch.rows_mut().enumerate() {
            let src = &codes[t * k..(t + 1) * k];
            row.codes_mut().copy_from_slice(src);
            row.finish(1.0, src.iter().map(|&c| i32::from(c)).sum());
        }
        Ok(batch)
    }

    /// Becomes the codes of `x` as int8, with scales of 1; grows if there is too little room.
    pub fn widen(&mut self, x: &Int4Matrix<'_>) {
        self.widen_by(x, |row, out| row.widen(out));
    }

    /// Like [`Int8Batch::widen`], but converts each row with `widen`.
    pub(crate) fn widen_by(&mut self, x: &Int4Matrix<'_>, widen: impl Fn(&Int4Vector<'_>, &mut [i8])) {
        let (n, k) = (x.n(), x.k());
        let need = n * Int8::stride(k);
        if n > self.sums.len() || need > self.units.len() {
            let units = AlignedBuf::zeroed(need.max(self.units.len()));
            let rows = n.max(self.sums.len());
            (self.units, self.sums, self.scales) = (units, vec![0; rows], vec![0.0; rows]);
        }
        self.reset(n, k);
        for (t, row) in self.units[..need].chunks_exact_mut(self.stride.max(1)).enumerate() {
            // Both have the same padding, all zeros.
            widen(&x.row(t), row);
        }
        self.sums[..n].copy_from_slice(x.sums());
        self.scales[..n].fill(1.0);
    }

    /// Makes as much room as `other` has, so that [`Int8Batch::widen`] need not grow this one either. The contents are
    /// lost if it grows.
    pub fn reserve_like(&mut self, other: &Self) {
        let (rows, units) = (other.sums.len(), other.units.len());
        if rows > self.sums.len() || units > self.units.len() {
            let (rows, units) = (rows.max(self.sums.len()), units.max(self.units.len()));
            *self = Self { units: AlignedBuf::zeroed(units), ..Self::with_capacity(rows, 0) };
        }
    }
}

impl ActRowMut<'_, Int8> {
    /// The `k` codes, for writing; each must lie in -127..=127.
    pub fn codes_mut(&mut self) -> &mut [i8] {
        &mut self.units[..self.k]
    }
}
