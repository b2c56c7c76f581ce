//! Int16 activations as group kernels read them: each code as two digits of eight bits, with the sums of groups.

use super::ROW_ALIGN;
use crate::{AlignedBuf, KernelError};

/// The largest absolute value of an int16 code: `q = 256 * hi + lo` with both digits in an i8 needs
/// `(q + 128) >> 8 <= 127`.
pub const INT16_MAX: i16 = 32639;

/// Columns whose codes are added up for the kernels; the length of a group of weights is a multiple of it.
pub(crate) const SUM_COLS: usize = 64;
/// Columns of a chunk, which stores their upper digits before their lower ones.
const CHUNK: usize = 16;

const _: () = assert!(ROW_ALIGN.is_multiple_of(SUM_COLS) && SUM_COLS.is_multiple_of(CHUNK));

/// Both digits of a code.
fn digits(q: i16) -> [i8; 2] {
    // The low byte as an i8 is `q - 256 * hi`.
    [((i32::from(q) + 128) >> 8) as i8, q as i8]
}

/// Bytes from one row to the next.
fn stride_of(k: usize) -> usize {
    2 * k.next_multiple_of(ROW_ALIGN)
}

/// `n` tokens of `k` int16 activations each, with the sums that the integer product needs.
///
/// A code `q` in -32639..=32639 is two digits, `q = 256 * hi + lo`, `hi = (q + 128) >> 8`, each an i8. A row holds, for
/// every 16 columns, their 16 upper digits and then their 16 lower ones, and is padded with zeros to whole 64 columns.
///
/// Invariants: codes and padding as above; `sums` holds the sum of the codes of every 64 columns.
#[derive(Clone, Copy, Debug)]
pub struct Int16Matrix<'a> {
    digits: &'a [i8],
    sums: &'a [i32],
    scales: &'a [f32],
    k: usize,
}

impl<'a> Int16Matrix<'a> {
    /// Number of tokens (rows), N.
    pub fn n(&self) -> usize {
        self.scales.len()
    }
    /// Activations per token, K.
    pub fn k(&self) -> usize {
        self.k
    }
    /// Quantisation scales of the rows, `[n]` f32: `x` is about `code / scale`.
    pub fn scales(&self) -> &'a [f32] {
        self.scales
    }
    /// Digits of row `t` with their padding, 32 for every 16 columns, 64-byte aligned.
    ///
    /// # Panics
    /// If `t` is not below [`Int16Matrix::n`].
    pub fn digits(&self, t: usize) -> &'a [i8] {
        let stride = stride_of(self.k);
        &self.digits[t * stride..(t + 1) * stride]
    }
    /// Sums of the codes of row `t` over every 64 columns, `[ceil(k / 64)]` i32.
    ///
    /// # Panics
    /// If `t` is not below [`Int16Matrix::n`].
    pub fn sums(&self, t: usize) -> &'a [i32] {
        let per_row = self.k.div_ceil(SUM_COLS);
        &self.sums[t * per_row..(t + 1) * per_row]
    }
    /// The code of column `c` in row `t`.
    ///
    /// # Panics
    /// If either is out of range.
    pub fn code(&self, t: usize, c: usize) -> i16 {
        assert!(c < self.k, "column {c} of {}", self.k);
        let chunk = &self.digits(t)[c / CHUNK * 2 * CHUNK..][..2 * CHUNK];
        256 * i16::from(chunk[c % CHUNK]) + i16::from(chunk[CHUNK + c % CHUNK])
    }
    /// Rows `range` as a matrix.
    ///
    /// # Panics
    /// If the range is not within `0..n`.
    pub fn rows(&self, range: std::ops::Range<usize>) -> Self {
        let (stride, per_row) = (stride_of(self.k), self.k.div_ceil(SUM_COLS));
        Self {
            digits: &self.digits[range.start * stride..range.end * stride],
            sums: &self.sums[range.start * per_row..range.end * per_row],
            scales: &self.scales[range],
            ..*self
        }
    }
}

/// A buffer that owns up to `max_n` rows of up to `max_k` int16 activations; it is filled row by row by a quantiser
/// ([`Ops::quantize_int16`](crate::Ops::quantize_int16)) and lent to kernels as [`Int16Matrix`]. Nothing is allocated
/// after construction.
#[derive(Clone, Debug)]
pub struct Int16Batch {
    digits: AlignedBuf<i8>,
    sums: Vec<i32>,
    scales: Vec<f32>,
    n: usize,
    k: usize,
}

impl Int16Batch {
    /// Room for `max_n` rows of `max_k` activations.
    pub fn with_capacity(max_n: usize, max_k: usize) -> Self {
        Self {
            digits: AlignedBuf::zeroed(max_n * stride_of(max_k)),
            sums: vec![0; max_n * max_k.div_ceil(SUM_COLS)],
            scales: vec![0.0; max_n],
            n: 0,
            k: 0,
        }
    }

    /// Copies the codes unchanged: `codes` is `[n, k]` row-major; all scales become 1.
    ///
    /// # Errors
    /// [`KernelError::ShapeMismatch`] if the length is not `n * k`;
    /// [`KernelError::Int16OutOfRange`] if a code is outside -32639..=32639.
    ///
    /// ```
    /// let batch = ternary_kernels::Int16Batch::from_codes(1, 3, &[1000, -32639, 128])?;
    /// assert_eq!(batch.view().digits(0)[..3], [4, -127, 1]); // 1000 = 4 * 256 - 24
    /// assert_eq!(batch.view().digits(0)[16..19], [-24, -127, -128]);
    /// assert_eq!(batch.view().sums(0), [1000 - 32639 + 128]);
    /// # Ok::<(), ternary_kernels::KernelError>(())
    /// ```
    pub fn from_codes(n: usize, k: usize, codes: &[i16]) -> Result<Self, KernelError> {
        const OP: &str = "Int16Batch::from_codes";
        let expected = n.checked_mul(k).ok_or(KernelError::TooLarge { op: OP, rows: n, cols: k })?;
        if codes.len() != expected {
            return Err(KernelError::ShapeMismatch { op: OP, what: "n * k codes", expected, got: codes.len() });
        }
        if let Some(i) = codes.iter().position(|c| !(-INT16_MAX..=INT16_MAX).contains(c)) {
            return Err(KernelError::Int16OutOfRange { token: i / k, position: i % k, value: codes[i] });
        }
        let mut b = Self::with_capacity(n, k);
        b.reset(n, k);
        for (t, mut row) in b.rows_mut().enumerate() {
            for (i, codes) in codes[t * k..(t + 1) * k].chunks(CHUNK).enumerate() {
                let (mut hi, mut lo) = ([0; CHUNK], [0; CHUNK]);
                for ((hi, lo), &q) in hi.iter_mut().zip(&mut lo).zip(codes) {
                    [*hi, *lo] = digits(q);
                }
                row.write(i, &hi, &lo, codes.iter().map(|&q| i32::from(q)).sum());
            }
            row.finish(1.0);
        }
        Ok(b)
    }

    /// Makes room for `n` rows of `k` activations; their contents are undefined until they are written through
    /// [`Int16Batch::rows_mut`].
    ///
    /// # Panics
    /// If the rows exceed the capacity.
    pub fn reset(&mut self, n: usize, k: usize) {
        let fits = n <= self.scales.len()
            && n * stride_of(k) <= self.digits.len()
            && n * k.div_ceil(SUM_COLS) <= self.sums.len();
        assert!(fits, "Int16Batch: {n} x {k} exceeds the capacity");
        (self.n, self.k) = (n, k);
    }

    /// Number of tokens (rows), N.
    pub fn n(&self) -> usize {
        self.n
    }
    /// Activations per token, K.
    pub fn k(&self) -> usize {
        self.k
    }

    /// The rows, for writing; each must be finished with [`Int16RowMut::finish`].
    pub fn rows_mut(&mut self) -> impl ExactSizeIterator<Item = Int16RowMut<'_>> {
        let (n, k) = (self.n, self.k);
        let (stride, per_row) = (stride_of(k), k.div_ceil(SUM_COLS));
        rows_of(&mut self.digits[..n * stride], &mut self.sums[..n * per_row], &mut self.scales[..n], k)
    }

    /// The rows in chunks of `rows` (the last may be shorter), so that several threads can write them.
    pub fn chunks_mut(&mut self, rows: usize) -> impl ExactSizeIterator<Item = Int16RowsMut<'_>> {
        let (n, k, rows) = (self.n, self.k, rows.max(1));
        let (stride, per_row) = (stride_of(k), k.div_ceil(SUM_COLS));
        // A chunk length of 0 would panic; without columns there are no rows to write.
        self.digits[..n * stride]
            .chunks_mut((rows * stride).max(1))
            .zip(self.sums[..n * per_row].chunks_mut((rows * per_row).max(1)))
            .zip(self.scales[..n].chunks_mut(rows))
            .map(move |((digits, sums), scales)| Int16RowsMut { digits, sums, scales, k })
    }

    /// Row `t`, for writing.
    ///
    /// # Panics
    /// If `t` is not below the number of rows.
    pub fn row_mut(&mut self, t: usize) -> Int16RowMut<'_> {
        assert!(t < self.n);
        let (stride, per_row) = (stride_of(self.k), self.k.div_ceil(SUM_COLS));
        Int16RowMut {
            digits: &mut self.digits[t * stride..(t + 1) * stride],
            sums: &mut self.sums[t * per_row..(t + 1) * per_row],
            scale: &mut self.scales[t],
            k: self.k,
            written: 0,
        }
    }

    /// A view of the rows, for kernels.
    pub fn view(&self) -> Int16Matrix<'_> {
        Int16Matrix {
            digits: &self.digits[..self.n * stride_of(self.k)],
            sums: &self.sums[..self.n * self.k.div_ceil(SUM_COLS)],
            scales: &self.scales[..self.n],
            k: self.k,
        }
    }

    /// Quantisation scales `s = 32639 / max|x|` of the rows, `[n]` f32: `x` is about `code / s`.
    pub fn scales(&self) -> &[f32] {
        &self.scales[..self.n]
    }
}

/// The rows of three parallel buffers.
fn rows_of<'a>(
    digits: &'a mut [i8],
    sums: &'a mut [i32],
    scales: &'a mut [f32],
    k: usize,
) -> impl ExactSizeIterator<Item = Int16RowMut<'a>> {
    let (stride, per_row) = (stride_of(k), k.div_ceil(SUM_COLS));
    digits
        .chunks_exact_mut(stride.max(1))
        .zip(sums.chunks_exact_mut(per_row.max(1)))
        .zip(scales.iter_mut())
        .map(move |((digits, sums), scale)| Int16RowMut { digits, sums, scale, k, written: 0 })
}

/// Consecutive rows of an [`Int16Batch`] that are being written.
#[derive(Debug)]
pub struct Int16RowsMut<'a> {
    digits: &'a mut [i8],
    sums: &'a mut [i32],
    scales: &'a mut [f32],
    k: usize,
}

impl Int16RowsMut<'_> {
    /// The rows; each must be finished with [`Int16RowMut::finish`].
    pub fn rows_mut(&mut self) -> impl ExactSizeIterator<Item = Int16RowMut<'_>> {
        rows_of(self.digits, self.sums, self.scales, self.k)
    }
}

/// One row of an [`Int16Batch`] that is being written, 16 columns at a time.
#[derive(Debug)]
pub struct Int16RowMut<'a> {
    digits: &'a mut [i8],
    sums: &'a mut [i32],
    scale: &'a mut f32,
    k: usize,
    written: usize,
}

impl Int16RowMut<'_> {
    /// Activations of the row, K.
    pub fn k(&self) -> usize {
        self.k
    }

    /// Writes columns `16 * i..16 * i + 16`: their upper digits, their lower digits and the sum of their codes. Columns
    /// from `k` on must be 0. Chunks are written in ascending order, each once.
    ///
    /// # Panics
    /// If `i` is not the next chunk, or is past the last one.
    // Inlined: this runs once per 16 columns in code compiled for an instruction set, and a call costs more than the
    // copy.
    #[inline(always)]
    pub fn write(&mut self, i: usize, hi: &[i8; 16], lo: &[i8; 16], sum: i32) {
        assert!(i == self.written && i * CHUNK < self.k, "chunk {i} of a row of {}, {} written", self.k, self.written);
        let out = &mut self.digits[i * 2 * CHUNK..][..2 * CHUNK];
        out[..CHUNK].copy_from_slice(hi);
        out[CHUNK..].copy_from_slice(lo);
        let sum_of_64 = &mut self.sums[i * CHUNK / SUM_COLS];
        *sum_of_64 = if (i * CHUNK).is_multiple_of(SUM_COLS) { sum } else { *sum_of_64 + sum };
        self.written = i + 1;
    }

    /// Completes the row: zeroes the padding and stores the scale.
    ///
    /// # Panics
    /// If columns are missing.
    pub fn finish(self, scale: f32) {
        assert_eq!(self.written, self.k.div_ceil(CHUNK), "chunks of a row of {}", self.k);
        self.digits[self.written * 2 * CHUNK..].fill(0);
        *self.scale = scale;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn digits_fit_a_byte_up_to_the_largest_code_and_give_it_back() {
        for q in -INT16_MAX..=INT16_MAX {
            let [hi, lo] = digits(q);
            assert_eq!(256 * i32::from(hi) + i32::from(lo), i32::from(q));
        }
        assert_eq!(digits(INT16_MAX), [127, 127]);
        assert_eq!(digits(-INT16_MAX), [-127, -127]);
        let next = i32::from(INT16_MAX) + 1;
        assert!((next + 128) >> 8 > 127, "the largest code could be larger");
    }

    #[test]
    fn codes_sums_and_padding_are_as_described() {
        for (n, k) in [(0, 5), (1, 1), (2, 15), (3, 16), (2, 63), (2, 64), (3, 65), (2, 130), (3, 0)] {
            let codes: Vec<i16> = (0..n * k).map(|i| ((i * 7919) % 65279) as i32 - 32639).map(|q| q as i16).collect();
            let mut batch = Int16Batch::from_codes(n, k, &codes).unwrap();
            for t in 0..n {
                let view = batch.view();
                assert_eq!((view.n(), view.k()), (n, k));
                for c in 0..k {
                    assert_eq!(view.code(t, c), codes[t * k + c], "{n} x {k}: {t}, {c}");
                }
                let sums = codes[t * k..(t + 1) * k].chunks(64).map(|c| c.iter().map(|&q| i32::from(q)).sum());
                assert_eq!(view.sums(t), sums.collect::<Vec<i32>>());
                let padding = view.digits(t).chunks(16).skip(k.div_ceil(16) * 2);
                assert!(padding.flatten().all(|&d| d == 0));
                assert_eq!(view.rows(t..n).digits(0), view.digits(t));
            }
            // A buffer that is used again keeps nothing of its previous contents.
            if k > 20 {
                batch.reset(n, 17);
                for mut row in batch.rows_mut() {
                    row.write(0, &[1; 16], &[2; 16], 16 * 258);
                    row.write(1, &[0; 16], &[0; 16], 0);
                    row.finish(2.0);
                }
                assert_eq!(batch.view().sums(n - 1), [16 * 258]);
                assert!(batch.view().digits(n - 1)[32..].iter().all(|&d| d == 0));
                assert_eq!(batch.scales(), vec![2.0; n]);
            }
        }
    }

    #[test]
    fn chunks_of_rows_cover_all_rows() {
        let mut batch = Int16Batch::with_capacity(5, 20);
        batch.reset(5, 20);
        let mut seen = 0;
        for mut rows in batch.chunks_mut(2) {
            for mut row in rows.rows_mut() {
                let value = seen as i8;
                row.write(0, &[0; 16], &[value; 16], 16 * i32::from(value));
                row.write(1, &[0; 16], &[0; 16], 0);
                row.finish(1.0);
                seen += 1;
            }
        }
        assert_eq!(seen, 5);
        assert_eq!(batch.view().code(4, 3), 4);
        assert_eq!(batch.row_mut(4).k(), 20);
    }

    #[test]
    fn codes_that_do_not_fit_two_digits_are_refused() {
        let error = Int16Batch::from_codes(2, 2, &[0, 0, 32640, 0]).unwrap_err();
        assert_eq!(error, KernelError::Int16OutOfRange { token: 1, position: 0, value: 32640 });
        assert!(Int16Batch::from_codes(1, 1, &[i16::MIN]).is_err());
        assert!(Int16Batch::from_codes(1, 2, &[1]).is_err());
    }
}
