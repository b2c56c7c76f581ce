//! Quantised activations as kernels read them: rows padded with zeros, with sums and scales.
//!
//! Int8 ([`int8`]) and int4 ([`int4`]) are one type, generic over the [`Code`] that defines how a row is stored. Int16
//! ([`int16`]) has two digits and sums of parts of a row; int8 with a step for each group ([`int8_groups`]) is int8
//! with the steps beside it.

use std::fmt::Debug;
use std::ops::Range;

use bytemuck::Pod;

use crate::{AlignedBuf, KernelError};

pub(crate) mod int16;
pub(crate) mod int4;
pub(crate) mod int8;
pub(crate) mod int8_groups;

/// Rows of int8 activations start at multiples of this many bytes and are padded to it with zeros, so that a kernel may
/// read whole cache lines.
pub const ROW_ALIGN: usize = 64;

mod sealed {
    pub trait Sealed {}
}

/// How the codes of a row are stored: [`Int8`](int8::Int8) or [`Int4`](int4::Int4).
pub trait Code: sealed::Sealed + Copy + Debug + 'static {
    /// The element of a stored row.
    type Unit: Pod + Debug;
    /// The name of the batch, for errors.
    const BATCH: &'static str;

    /// Units of a row of `k` codes, padding included.
    fn stride(k: usize) -> usize;

    /// Units of a row of `k` codes that hold at least one code.
    fn used(k: usize) -> usize;

    /// The sum of the codes in `units`.
    fn sum(units: &[Self::Unit]) -> i32;
}

/// `n` tokens of `k` activations each, with the row sums that the integer product needs.
///
/// Invariants: every code is in the range of `C`; each row is followed by zeros up to [`ActMatrix::stride`];
/// `sums[t]` is the sum of row `t`.
#[derive(Clone, Copy, Debug)]
pub struct ActMatrix<'a, C: Code> {
    units: &'a [C::Unit],
    sums: &'a [i32],
    k: usize,
    stride: usize,
}

impl<'a, C: Code> ActMatrix<'a, C> {
    /// Number of tokens (rows), N.
    pub fn n(&self) -> usize {
        self.sums.len()
    }
    /// Activations per token, K.
    pub fn k(&self) -> usize {
        self.k
    }
    /// Bytes from one row to the next: those of `k` codes, padded to a multiple of [`ROW_ALIGN`] codes.
    pub fn stride(&self) -> usize {
        self.stride
    }
    /// Row sums, `[n]` i32.
    pub fn sums(&self) -> &'a [i32] {
        self.sums
    }
    /// Row `t`.
    ///
    /// # Panics
    /// If `t` is not below [`ActMatrix::n`].
    pub fn row(&self, t: usize) -> ActVector<'a, C> {
        let start = t * self.stride;
        ActVector { units: &self.units[start..start + self.stride], sum: self.sums[t], k: self.k }
    }
    /// Rows `range` as a matrix.
    ///
    /// # Panics
    /// If the range is not within `0..n`.
    pub fn rows(&self, range: Range<usize>) -> Self {
        Self {
            units: &self.units[range.start * self.stride..range.end * self.stride],
            sums: &self.sums[range],
            ..*self
        }
    }
}

/// One token of activations; the same invariants as [`ActMatrix`].
#[derive(Clone, Copy, Debug)]
pub struct ActVector<'a, C: Code> {
    units: &'a [C::Unit],
    sum: i32,
    k: usize,
}

impl<'a, C: Code> ActVector<'a, C> {
    /// Activations, K.
    pub fn k(&self) -> usize {
        self.k
    }
    /// Sum of all codes.
    pub fn sum(&self) -> i32 {
        self.sum
    }
    /// This token as a matrix of one row.
    pub fn as_matrix(&self, sum: &'a [i32; 1]) -> ActMatrix<'a, C> {
        debug_assert_eq!(sum[0], self.sum);
        ActMatrix { units: self.units, sums: sum, k: self.k, stride: self.units.len() }
    }
}

/// A buffer that owns up to `max_n` rows of up to `max_k` activations; it is filled row by row by a
/// quantiser and lent to kernels as [`ActMatrix`]. Nothing is allocated after construction.
#[derive(Clone, Debug)]
pub struct ActBatch<C: Code> {
    units: AlignedBuf<C::Unit>,
    sums: Vec<i32>,
    scales: Vec<f32>,
    n: usize,
    k: usize,
    stride: usize,
}

impl<C: Code> ActBatch<C> {
    /// Room for `max_n` rows of `max_k` activations.
    pub fn with_capacity(max_n: usize, max_k: usize) -> Self {
        let units = AlignedBuf::zeroed(max_n * C::stride(max_k));
        Self { units, sums: vec![0; max_n], scales: vec![0.0; max_n], n: 0, k: 0, stride: 0 }
    }

    /// A batch for `[n, k]` codes, of which the caller has `len`.
    fn for_codes(op: &'static str, n: usize, k: usize, len: usize) -> Result<Self, KernelError> {
        let expected = n.checked_mul(k).ok_or(KernelError::TooLarge { op, rows: n, cols: k })?;
        if len != expected {
            return Err(KernelError::ShapeMismatch { op, what: "n * k codes", expected, got: len });
        }
        let mut batch = Self::with_capacity(n, k);
        batch.reset(n, k);
        Ok(batch)
    }

    /// Makes room for `n` rows of `k` activations; their contents are undefined until they are written through
    /// [`ActBatch::rows_mut`].
    ///
    /// # Panics
    /// If the rows exceed the capacity.
    pub fn reset(&mut self, n: usize, k: usize) {
        let stride = C::stride(k);
        let fits = n <= self.sums.len() && n * stride <= self.units.len();
        assert!(fits, "{}: {n} x {k} exceeds the capacity", C::BATCH);
        (self.n, self.k, self.stride) = (n, k, stride);
    }

    /// The rows, for writing; each must be finished with [`ActRowMut::finish`].
    pub fn rows_mut(&mut self) -> impl ExactSizeIterator<Item = ActRowMut<'_, C>> {
        let (n, k, stride) = (self.n, self.k, self.stride);
        rows_of((&mut self.units[..n * stride], &mut self.sums[..n], &mut self.scales[..n]), k, stride)
    }

    /// The rows in chunks of `rows` (the last may be shorter), so that several threads can write them.
    pub fn chunks_mut(&mut self, rows: usize) -> impl ExactSizeIterator<Item = ActRowsMut<'_, C>> {
        let (n, k, stride, rows) = (self.n, self.k, self.stride, rows.max(1));
        self.units[..n * stride]
            .chunks_mut((rows * stride).max(1))
            .zip(self.sums[..n].chunks_mut(rows))
            .zip(self.scales[..n].chunks_mut(rows))
            .map(move |((units, sums), scales)| ActRowsMut { units, sums, scales, k, stride })
    }

    /// Row `t`, for writing.
    ///
    /// # Panics
    /// If `t` is not below the number of rows.
    pub fn row_mut(&mut self, t: usize) -> ActRowMut<'_, C> {
        assert!(t < self.n, "row {t} of {}", self.n);
        let units = &mut self.units[t * self.stride..(t + 1) * self.stride];
        ActRowMut { units, sum: &mut self.sums[t], scale: &mut self.scales[t], k: self.k }
    }

    /// A view of the rows, for kernels.
    pub fn view(&self) -> ActMatrix<'_, C> {
        let units = &self.units[..self.n * self.stride];
        ActMatrix { units, sums: &self.sums[..self.n], k: self.k, stride: self.stride }
    }

    /// Quantisation scales `s` of the rows, `[n]` f32: `x` is about `code / s`.
    pub fn scales(&self) -> &[f32] {
        &self.scales[..self.n]
    }
}

/// The rows of three parallel buffers: units, sums and scales.
fn rows_of<'a, C: Code>(
    (units, sums, scales): (&'a mut [C::Unit], &'a mut [i32], &'a mut [f32]),
    k: usize,
    stride: usize,
) -> impl ExactSizeIterator<Item = ActRowMut<'a, C>> {
    // A chunk length of 0 would panic; without columns there are no rows to write.
    let units = units.chunks_exact_mut(stride.max(1));
    units.zip(sums).zip(scales).map(move |((units, sum), scale)| ActRowMut { units, sum, scale, k })
}

/// Consecutive rows of an [`ActBatch`] that are being written.
#[derive(Debug)]
pub struct ActRowsMut<'a, C: Code> {
    units: &'a mut [C::Unit],
    sums: &'a mut [i32],
    scales: &'a mut [f32],
    k: usize,
    stride: usize,
}

impl<C: Code> ActRowsMut<'_, C> {
    /// The rows; each must be finished with [`ActRowMut::finish`].
    pub fn rows_mut(&mut self) -> impl ExactSizeIterator<Item = ActRowMut<'_, C>> {
        rows_of((&mut *self.units, &mut *self.sums, &mut *self.scales), self.k, self.stride)
    }
}

/// One row of an [`ActBatch`] that is being written.
#[derive(Debug)]
pub struct ActRowMut<'a, C: Code> {
    units: &'a mut [C::Unit],
    sum: &'a mut i32,
    scale: &'a mut f32,
    k: usize,
}

impl<C: Code> ActRowMut<'_, C> {
    /// Activations, K.
    pub fn k(&self) -> usize {
        self.k
    }

    /// Completes the row after all its codes are written: zeroes the padding, stores the scale and the sum of the
    /// codes.
    pub fn finish(self, scale: f32, sum: i32) {
        let (used, padding) = self.units.split_at_mut(C::used(self.k));
        debug_assert_eq!(sum, C::sum(used));
        padding.fill(bytemuck::Zeroable::zeroed());
        *self.scale = scale;
        *self.sum = sum;
    }
}
