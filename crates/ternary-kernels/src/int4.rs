//! Int4 activations: two codes in a byte, sums and scales beside them; and how kernels widen them.
//!
//! # Layout
//! Columns are taken 32 at a time, 16 bytes: byte `i` holds column `i` in its lower and column `16 + i` in its upper half,
//! each in two's complement. Rows are padded with zeros to [`ROW_ALIGN`] columns, [`ROW_ALIGN`]` / 2` bytes. So sixteen
//! neighbouring columns are one half of sixteen neighbouring bytes, and are brought apart by a mask or a shift.
//!
//! ```
//! use ternary_kernels::Int4Batch;
//! let mut codes = [0i8; 32];
//! (codes[0], codes[1], codes[16]) = (7, -8, -1);
//! let x = Int4Batch::from_codes(1, 32, &codes).unwrap();
//! assert_eq!(x.view().row(0).nibbles()[..2], [0xf7, 0x08]);
//! assert_eq!(x.view().sums(), [-2]);
//! ```

use crate::{AlignedBuf, KernelError, ROW_ALIGN};

/// Columns of a group.
pub(crate) const GROUP_COLS: usize = 32;
/// Bytes of a group.
pub(crate) const GROUP_BYTES: usize = GROUP_COLS / 2;

const _: () = assert!(ROW_ALIGN.is_multiple_of(GROUP_COLS));

/// Bytes of a row of `k` codes.
fn stride_of(k: usize) -> usize {
    k.next_multiple_of(ROW_ALIGN) / 2
}

/// The first sixteen codes of a group.
#[inline(always)]
pub(crate) fn low(group: &[u8; GROUP_BYTES]) -> [u8; 16] {
    group.map(|b| ((b << 4) as i8 >> 4) as u8)
}

/// The last sixteen codes of a group.
#[inline(always)]
pub(crate) fn high(group: &[u8; GROUP_BYTES]) -> [u8; 16] {
    group.map(|b| (b as i8 >> 4) as u8)
}

/// A group of codes that lie in -8..=7.
#[inline(always)]
pub(crate) fn pack(low: &[i8; 16], high: &[i8; 16]) -> [u8; GROUP_BYTES] {
    let mut out = [0; GROUP_BYTES];
    for i in 0..GROUP_BYTES {
        out[i] = (low[i] as u8 & 0x0f) | (high[i] as u8) << 4;
    }
    out
}

/// `n` tokens of `k` int4 activations each, with what the integer product needs beside them.
///
/// Invariants: each row is followed by zeros up to [`Int4Matrix::stride`]; `sums[t]` is the sum of row `t`.
#[derive(Clone, Copy, Debug)]
pub struct Int4Matrix<'a> {
    nibbles: &'a [u8],
    sums: &'a [i32],
    k: usize,
    stride: usize,
}

impl<'a> Int4Matrix<'a> {
    /// Number of tokens (rows), N.
    pub fn n(&self) -> usize {
        self.sums.len()
    }
    /// Activations per token, K.
    pub fn k(&self) -> usize {
        self.k
    }
    /// Bytes from one row to the next: half of `k` padded to a multiple of [`ROW_ALIGN`].
    pub fn stride(&self) -> usize {
        self.stride
    }
    /// All rows with their padding, `[n, stride]` bytes.
    pub fn nibbles(&self) -> &'a [u8] {
        self.nibbles
    }
    /// Row sums, `[n]` i32.
    pub fn sums(&self) -> &'a [i32] {
        self.sums
    }
    /// Rows `range` as a matrix of their own.
    ///
    /// # Panics
    /// If the range lies outside of `0..n`.
    pub fn rows(&self, range: std::ops::Range<usize>) -> Self {
        Self {
            nibbles: &self.nibbles[range.start * self.stride..range.end * self.stride],
            sums: &self.sums[range],
            ..*self
        }
    }
    /// Row `t`.
    ///
    /// # Panics
    /// If `t` is not below [`Int4Matrix::n`].
    pub fn row(&self, t: usize) -> Int4Vector<'a> {
        let nibbles = &self.nibbles[t * self.stride..(t + 1) * self.stride];
        Int4Vector { nibbles, sum: self.sums[t], k: self.k }
    }
}

/// One token of int4 activations; the same invariants as [`Int4Matrix`].
#[derive(Clone, Copy, Debug)]
pub struct Int4Vector<'a> {
    nibbles: &'a [u8],
    sum: i32,
    k: usize,
}

impl<'a> Int4Vector<'a> {
    /// Activations, K.
    pub fn k(&self) -> usize {
        self.k
    }
    /// The codes with their zero padding.
    pub fn nibbles(&self) -> &'a [u8] {
        self.nibbles
    }
    /// Sum of all codes.
    pub fn sum(&self) -> i32 {
        self.sum
    }
    /// The same token as a matrix of one row.
    pub fn as_matrix(&self, sum: &'a [i32; 1]) -> Int4Matrix<'a> {
        debug_assert_eq!(sum[0], self.sum);
        Int4Matrix { nibbles: self.nibbles, sums: sum, k: self.k, stride: self.nibbles.len() }
    }
    /// Writes the codes as int8 to `out`, `[k]` or longer, up to the padding; what is beyond stays as it is.
    ///
    /// # Panics
    /// If `out` is shorter than [`Int4Vector::k`].
    // Part of whatever it is called from, which may be compiled for a better instruction set.
    #[inline(always)]
    pub fn widen(&self, out: &mut [i8]) {
        assert!(out.len() >= self.k, "{} codes into {}", self.k, out.len());
        let (groups, _) = self.nibbles.as_chunks::<GROUP_BYTES>();
        for (group, out) in groups.iter().zip(out.chunks_mut(GROUP_COLS)) {
            match out.as_mut_array::<GROUP_COLS>() {
                Some(out) => {
                    out[..16].copy_from_slice(&low(group).map(|c| c as i8));
                    out[16..].copy_from_slice(&high(group).map(|c| c as i8));
                }
                None => {
                    let (low, high) = (low(group), high(group));
                    out.iter_mut().zip(low.iter().chain(&high)).for_each(|(o, c)| *o = *c as i8);
                }
            }
        }
    }
}

/// A buffer that owns up to `max_n` rows of up to `max_k` int4 activations; it is filled row by row by a
/// quantiser and lent to kernels as [`Int4Matrix`]. Nothing is allocated after construction.
#[derive(Clone, Debug)]
pub struct Int4Batch {
    nibbles: AlignedBuf<u8>,
    sums: Vec<i32>,
    scales: Vec<f32>,
    n: usize,
    k: usize,
    stride: usize,
}

impl Int4Batch {
    /// Room for `max_n` rows of `max_k` activations.
    pub fn with_capacity(max_n: usize, max_k: usize) -> Self {
        let nibbles = AlignedBuf::zeroed(max_n * stride_of(max_k));
        Self { nibbles, sums: vec![0; max_n], scales: vec![0.0; max_n], n: 0, k: 0, stride: 0 }
    }

    /// Takes codes as they are, `codes` is `[n, k]` row-major; all scales become 1.
    ///
    /// # Errors
    /// [`KernelError::ShapeMismatch`] if the length is not `n * k`; [`KernelError::Int4OutOfRange`] for a code outside of
    /// -8..=7.
    pub fn from_codes(n: usize, k: usize, codes: &[i8]) -> Result<Self, KernelError> {
        const OP: &str = "Int4Batch::from_codes";
        let expected = n.checked_mul(k).ok_or(KernelError::TooLarge { op: OP, rows: n, cols: k })?;
        if codes.len() != expected {
            return Err(KernelError::ShapeMismatch { op: OP, what: "n * k codes", expected, got: codes.len() });
        }
        if let Some(i) = codes.iter().position(|c| !(-8..=7).contains(c)) {
            return Err(KernelError::Int4OutOfRange { token: i / k, position: i % k, value: codes[i] });
        }
        let mut b = Self::with_capacity(n, k);
        b.reset(n, k);
        for (t, mut row) in b.rows_mut().enumerate() {
            let src = &codes[t * k..(t + 1) * k];
            for (g, codes) in src.chunks(GROUP_COLS).enumerate() {
                let mut halves = [[0; 16]; 2];
                halves.as_flattened_mut()[..codes.len()].copy_from_slice(codes);
                row.write(g, &halves[0], &halves[1]);
            }
            row.finish(1.0, src.iter().map(|&c| i32::from(c)).sum());
        }
        Ok(b)
    }

    /// Makes room for `n` rows of `k` activations; their contents are undefined until written by
    /// [`Int4Batch::rows_mut`].
    ///
    /// # Panics
    /// If that exceeds the capacity.
    pub fn reset(&mut self, n: usize, k: usize) {
        let stride = stride_of(k);
        assert!(n <= self.sums.len() && n * stride <= self.nibbles.len(), "Int4Batch: {n} x {k} exceeds the capacity");
        (self.n, self.k, self.stride) = (n, k, stride);
    }

    /// The rows, to be written; each must be finished with [`Int4RowMut::finish`].
    pub fn rows_mut(&mut self) -> impl ExactSizeIterator<Item = Int4RowMut<'_>> {
        let (n, k, stride) = (self.n, self.k, self.stride);
        // A chunk length of 0 would panic; without columns there is no row to write.
        self.nibbles[..n * stride]
            .chunks_exact_mut(stride.max(1))
            .zip(&mut self.sums[..n])
            .zip(&mut self.scales[..n])
            .map(move |((nibbles, sum), scale)| Int4RowMut { nibbles, sum, scale, k })
    }

    /// The rows in chunks of `rows` (the last may be shorter), for several threads to write.
    pub fn chunks_mut(&mut self, rows: usize) -> impl ExactSizeIterator<Item = Int4RowsMut<'_>> {
        let (n, k, stride, rows) = (self.n, self.k, self.stride, rows.max(1));
        self.nibbles[..n * stride]
            .chunks_mut((rows * stride).max(1))
            .zip(self.sums[..n].chunks_mut(rows))
            .zip(self.scales[..n].chunks_mut(rows))
            .map(move |((nibbles, sums), scales)| Int4RowsMut { nibbles, sums, scales, k, stride })
    }

    /// Row `t`, to be written.
    ///
    /// # Panics
    /// If `t` is not below the number of rows.
    pub fn row_mut(&mut self, t: usize) -> Int4RowMut<'_> {
        assert!(t < self.n);
        let nibbles = &mut self.nibbles[t * self.stride..(t + 1) * self.stride];
        Int4RowMut { nibbles, sum: &mut self.sums[t], scale: &mut self.scales[t], k: self.k }
    }

    /// What kernels read.
    pub fn view(&self) -> Int4Matrix<'_> {
        Int4Matrix {
            nibbles: &self.nibbles[..self.n * self.stride],
            sums: &self.sums[..self.n],
            k: self.k,
            stride: self.stride,
        }
    }

    /// Quantisation scales `s` of the rows, `[n]` f32: `x` is about `code / s`.
    pub fn scales(&self) -> &[f32] {
        &self.scales[..self.n]
    }
}

/// Consecutive rows of an [`Int4Batch`] that are being written.
#[derive(Debug)]
pub struct Int4RowsMut<'a> {
    nibbles: &'a mut [u8],
    sums: &'a mut [i32],
    scales: &'a mut [f32],
    k: usize,
    stride: usize,
}

impl Int4RowsMut<'_> {
    /// The rows; each must be finished with [`Int4RowMut::finish`].
    pub fn rows_mut(&mut self) -> impl ExactSizeIterator<Item = Int4RowMut<'_>> {
        let k = self.k;
        self.nibbles
            .chunks_exact_mut(self.stride.max(1))
            .zip(self.sums.iter_mut())
            .zip(self.scales.iter_mut())
            .map(move |((nibbles, sum), scale)| Int4RowMut { nibbles, sum, scale, k })
    }
}

/// One row of an [`Int4Batch`] that is being written.
#[derive(Debug)]
pub struct Int4RowMut<'a> {
    nibbles: &'a mut [u8],
    sum: &'a mut i32,
    scale: &'a mut f32,
    k: usize,
}

impl Int4RowMut<'_> {
    /// Activations, K.
    pub fn k(&self) -> usize {
        self.k
    }

    /// Stores columns `32 g..32 g + 16` and `32 g + 16..32 g + 32`; codes lie in -8..=7 and are 0 from column K on.
    ///
    /// # Panics
    /// If the group lies beyond the row.
    #[inline]
    pub fn write(&mut self, g: usize, low: &[i8; 16], high: &[i8; 16]) {
        debug_assert!(low.iter().chain(high).all(|c| (-8..=7).contains(c)));
        self.nibbles[g * GROUP_BYTES..][..GROUP_BYTES].copy_from_slice(&pack(low, high));
    }

    /// Completes the row, all of whose groups were written: zeroes the padding, stores the scale and the sum of the codes.
    pub fn finish(self, scale: f32, sum: i32) {
        self.nibbles[self.k.div_ceil(GROUP_COLS) * GROUP_BYTES..].fill(0);
        *self.scale = scale;
        *self.sum = sum;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_come_back() {
        for k in [0, 1, 15, 16, 17, 31, 32, 33, 63, 64, 65, 100, 704] {
            let codes: Vec<i8> = (0..3 * k).map(|i| ((i * 7 + i / 5) % 16) as i8 - 8).collect();
            let x = Int4Batch::from_codes(3, k, &codes).unwrap();
            let view = x.view();
            assert_eq!((view.stride() * 2 % ROW_ALIGN, view.nibbles().len()), (0, 3 * view.stride()));
            for t in 0..3 {
                let want = &codes[t * k..(t + 1) * k];
                let mut got = vec![99i8; k + 3];
                view.row(t).widen(&mut got[..k]);
                assert_eq!((&got[..k], &got[k..]), (want, &[99; 3][..]), "{k}");
                let mut padded = vec![99i8; 2 * view.stride()];
                view.row(t).widen(&mut padded);
                assert!(padded[k..].iter().all(|&c| c == 0), "{k}");
                assert_eq!(view.sums()[t], want.iter().map(|&c| i32::from(c)).sum::<i32>());
            }
        }
    }

    #[test]
    fn codes_of_more_bits_are_refused() {
        for value in [8, -9, 127] {
            let error = Int4Batch::from_codes(2, 3, &[0, 7, -8, 1, value, 2]).unwrap_err();
            assert_eq!(error, KernelError::Int4OutOfRange { token: 1, position: 1, value });
        }
        assert!(matches!(Int4Batch::from_codes(2, 3, &[0; 5]), Err(KernelError::ShapeMismatch { .. })));
        assert!(matches!(Int4Batch::from_codes(usize::MAX, 2, &[]), Err(KernelError::TooLarge { .. })));
    }
}
