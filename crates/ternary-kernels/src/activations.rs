//! Int8 activations as kernels read them: rows padded with zeros, sums and scales beside them.

use crate::{AlignedBuf, Int4Matrix, Int4Vector, KernelError};

/// Rows of int8 activations start at multiples of this many bytes and are padded with zeros to it,
/// so that a kernel may read whole cache lines.
pub const ROW_ALIGN: usize = 64;

/// `n` tokens of `k` int8 activations each, with what the integer product needs beside them.
///
/// Invariants: every code lies in -127..=127; each row is followed by zeros up to [`Int8Matrix::stride`];
/// `sums[t]` is the sum of row `t`.
#[derive(Clone, Copy, Debug)]
pub struct Int8Matrix<'a> {
    codes: &'a [i8],
    sums: &'a [i32],
    k: usize,
    stride: usize,
}

impl<'a> Int8Matrix<'a> {
    /// Number of tokens (rows), N.
    pub fn n(&self) -> usize {
        self.sums.len()
    }
    /// Activations per token, K.
    pub fn k(&self) -> usize {
        self.k
    }
    /// Bytes from one row to the next, a multiple of [`ROW_ALIGN`] and at least `k`.
    pub fn stride(&self) -> usize {
        self.stride
    }
    /// All rows with their padding, `[n, stride]` i8, 64-byte aligned.
    pub fn codes(&self) -> &'a [i8] {
        self.codes
    }
    /// Row sums, `[n]` i32.
    pub fn sums(&self) -> &'a [i32] {
        self.sums
    }
    /// Row `t`.
    ///
    /// # Panics
    /// If `t` is not below [`Int8Matrix::n`].
    pub fn row(&self, t: usize) -> Int8Vector<'a> {
        let start = t * self.stride;
        Int8Vector { codes: &self.codes[start..start + self.stride], sum: self.sums[t], k: self.k }
    }
    /// Rows `range` as a matrix of their own.
    ///
    /// # Panics
    /// If the range lies outside of `0..n`.
    pub fn rows(&self, range: std::ops::Range<usize>) -> Self {
        Self {
            codes: &self.codes[range.start * self.stride..range.end * self.stride],
            sums: &self.sums[range],
            ..*self
        }
    }
}

/// One token of int8 activations; the same invariants as [`Int8Matrix`].
#[derive(Clone, Copy, Debug)]
pub struct Int8Vector<'a> {
    codes: &'a [i8],
    sum: i32,
    k: usize,
}

impl<'a> Int8Vector<'a> {
    /// Activations, K.
    pub fn k(&self) -> usize {
        self.k
    }
    /// The codes with their zero padding, `[stride]` i8, 64-byte aligned.
    pub fn codes(&self) -> &'a [i8] {
        self.codes
    }
    /// Sum of all codes.
    pub fn sum(&self) -> i32 {
        self.sum
    }
    /// The same token as a matrix of one row.
    pub fn as_matrix(&self, sum: &'a [i32; 1]) -> Int8Matrix<'a> {
        debug_assert_eq!(sum[0], self.sum);
        Int8Matrix { codes: self.codes, sums: sum, k: self.k, stride: self.codes.len() }
    }
}

/// A buffer that owns up to `max_n` rows of up to `max_k` int8 activations; it is filled row by row by a
/// quantiser and lent to kernels as [`Int8Matrix`]. Nothing is allocated after construction.
#[derive(Clone, Debug)]
pub struct Int8Batch {
    codes: AlignedBuf<i8>,
    sums: Vec<i32>,
    scales: Vec<f32>,
    n: usize,
    k: usize,
    stride: usize,
}

impl Int8Batch {
    /// Room for `max_n` rows of `max_k` activations.
    pub fn with_capacity(max_n: usize, max_k: usize) -> Self {
        let stride = max_k.next_multiple_of(ROW_ALIGN);
        Self {
            codes: AlignedBuf::zeroed(max_n * stride),
            sums: vec![0; max_n],
            scales: vec![0.0; max_n],
            n: 0,
            k: 0,
            stride: 0,
        }
    }

    /// Takes int8 codes as they are, `codes` is `[n, k]` row-major; all scales become 1.
    ///
    /// # Errors
    /// [`KernelError::ShapeMismatch`] if the length is not `n * k`;
    /// [`KernelError::ActivationOutOfRange`] if a code is -128.
    pub fn from_codes(n: usize, k: usize, codes: &[i8]) -> Result<Self, KernelError> {
        let expected =
            n.checked_mul(k).ok_or(KernelError::TooLarge { op: "Int8Batch::from_codes", rows: n, cols: k })?;
        if codes.len() != expected {
            return Err(KernelError::ShapeMismatch {
                op: "Int8Batch::from_codes",
                what: "n * k codes",
                expected,
                got: codes.len(),
            });
        }
        if let Some(i) = codes.iter().position(|&c| c == i8::MIN) {
            return Err(KernelError::ActivationOutOfRange { token: i / k, position: i % k, value: i8::MIN });
        }
        let mut b = Self::with_capacity(n, k);
        b.reset(n, k);
        for (t, mut row) in b.rows_mut().enumerate() {
            let src = &codes[t * k..(t + 1) * k];
            row.codes_mut().copy_from_slice(src);
            row.finish(1.0, src.iter().map(|&c| i32::from(c)).sum());
        }
        Ok(b)
    }

    /// Makes room for `n` rows of `k` activations; their contents are undefined until written by
    /// [`Int8Batch::rows_mut`].
    ///
    /// # Panics
    /// If that exceeds the capacity.
    pub fn reset(&mut self, n: usize, k: usize) {
        let stride = k.next_multiple_of(ROW_ALIGN);
        assert!(n <= self.sums.len() && n * stride <= self.codes.len(), "Int8Batch: {n} x {k} exceeds the capacity");
        (self.n, self.k, self.stride) = (n, k, stride);
    }

    /// Becomes the codes of `x` as int8, with scales of 1; room is made where there is too little.
    pub fn widen(&mut self, x: &Int4Matrix<'_>) {
        self.widen_by(x, |row, out| row.widen(out));
    }

    /// Like [`Int8Batch::widen`], each row by `widen`.
    pub(crate) fn widen_by(&mut self, x: &Int4Matrix<'_>, widen: impl Fn(&Int4Vector<'_>, &mut [i8])) {
        let (n, k) = (x.n(), x.k());
        let need = n * k.next_multiple_of(ROW_ALIGN);
        if n > self.sums.len() || need > self.codes.len() {
            let codes = AlignedBuf::zeroed(need.max(self.codes.len()));
            let rows = n.max(self.sums.len());
            (self.codes, self.sums, self.scales) = (codes, vec![0; rows], vec![0.0; rows]);
        }
        self.reset(n, k);
        for (t, row) in self.codes[..need].chunks_exact_mut(self.stride.max(1)).enumerate() {
            // The padding of both is as long, and zero.
            widen(&x.row(t), row);
        }
        self.sums[..n].copy_from_slice(x.sums());
        self.scales[..n].fill(1.0);
    }

    /// Makes as much room as `other` has, so that [`Int8Batch::widen`] need not grow this one either. What was in it is lost if it grows.
    pub fn reserve_like(&mut self, other: &Self) {
        let (rows, codes) = (other.sums.len(), other.codes.len());
        if rows > self.sums.len() || codes > self.codes.len() {
            let (rows, codes) = (rows.max(self.sums.len()), codes.max(self.codes.len()));
            *self = Self { codes: AlignedBuf::zeroed(codes), ..Self::with_capacity(rows, 0) };
        }
    }

    /// The rows, to be written; each must be finished with [`Int8RowMut::finish`].
    pub fn rows_mut(&mut self) -> impl ExactSizeIterator<Item = Int8RowMut<'_>> {
        let (n, k, stride) = (self.n, self.k, self.stride);
        // A chunk length of 0 would panic; without columns there is no row to write.
        self.codes[..n * stride]
            .chunks_exact_mut(stride.max(1))
            .zip(&mut self.sums[..n])
            .zip(&mut self.scales[..n])
            .map(move |((codes, sum), scale)| Int8RowMut { codes, sum, scale, k })
    }

    /// The rows in chunks of `rows` (the last may be shorter), for several threads to write.
    pub fn chunks_mut(&mut self, rows: usize) -> impl ExactSizeIterator<Item = Int8RowsMut<'_>> {
        let (n, k, stride, rows) = (self.n, self.k, self.stride, rows.max(1));
        self.codes[..n * stride]
            .chunks_mut((rows * stride).max(1))
            .zip(self.sums[..n].chunks_mut(rows))
            .zip(self.scales[..n].chunks_mut(rows))
            .map(move |((codes, sums), scales)| Int8RowsMut { codes, sums, scales, k, stride })
    }

    /// Row `t`, to be written.
    ///
    /// # Panics
    /// If `t` is not below the number of rows.
    pub fn row_mut(&mut self, t: usize) -> Int8RowMut<'_> {
        assert!(t < self.n);
        let at = t * self.stride;
        Int8RowMut {
            codes: &mut self.codes[at..at + self.stride],
            sum: &mut self.sums[t],
            scale: &mut self.scales[t],
            k: self.k,
        }
    }

    /// What kernels read.
    pub fn view(&self) -> Int8Matrix<'_> {
        Int8Matrix {
            codes: &self.codes[..self.n * self.stride],
            sums: &self.sums[..self.n],
            k: self.k,
            stride: self.stride,
        }
    }

    /// Quantisation scales `s = 127 / max|x|` of the rows, `[n]` f32: `x` is about `code / s`.
    pub fn scales(&self) -> &[f32] {
        &self.scales[..self.n]
    }
}

/// Consecutive rows of an [`Int8Batch`] that are being written.
#[derive(Debug)]
pub struct Int8RowsMut<'a> {
    codes: &'a mut [i8],
    sums: &'a mut [i32],
    scales: &'a mut [f32],
    k: usize,
    stride: usize,
}

impl Int8RowsMut<'_> {
    /// The rows; each must be finished with [`Int8RowMut::finish`].
    pub fn rows_mut(&mut self) -> impl ExactSizeIterator<Item = Int8RowMut<'_>> {
        let k = self.k;
        self.codes
            .chunks_exact_mut(self.stride.max(1))
            .zip(self.sums.iter_mut())
            .zip(self.scales.iter_mut())
            .map(move |((codes, sum), scale)| Int8RowMut { codes, sum, scale, k })
    }
}

/// One row of an [`Int8Batch`] that is being written.
#[derive(Debug)]
pub struct Int8RowMut<'a> {
    codes: &'a mut [i8],
    sum: &'a mut i32,
    scale: &'a mut f32,
    k: usize,
}

impl Int8RowMut<'_> {
    /// The `k` codes to be written; each must lie in -127..=127.
    pub fn codes_mut(&mut self) -> &mut [i8] {
        &mut self.codes[..self.k]
    }

    /// Completes the row: zeroes the padding, stores the scale and the sum of the codes.
    pub fn finish(self, scale: f32, sum: i32) {
        debug_assert_eq!(sum, self.codes[..self.k].iter().map(|&c| i32::from(c)).sum::<i32>());
        self.codes[self.k..].fill(0);
        *self.scale = scale;
        *self.sum = sum;
    }
}
