//! Int4 activations: two codes in a byte, with sums and scales; and how kernels widen them.
//!
//! # Layout
//! Columns are stored in groups of 32, 16 bytes: byte `i` holds column `i` in its lower and column `16 + i` in its
//! upper half, each in two's complement. Rows are padded with zeros to [`ROW_ALIGN`] columns, [`ROW_ALIGN`]` / 2`
//! bytes. So sixteen neighbouring columns are one half of sixteen neighbouring bytes, and a mask or a shift separates
//! them.
//!
//! ```
//! use ternary_kernels::Int4Batch;
//! let mut codes = [0i8; 32];
//! (codes[0], codes[1], codes[16]) = (7, -8, -1);
//! let x = Int4Batch::from_codes(1, 32, &codes).unwrap();
//! assert_eq!(x.view().row(0).nibbles()[..2], [0xf7, 0x08]);
//! assert_eq!(x.view().sums(), [-2]);
//! ```

use super::{ActBatch, ActMatrix, ActRowMut, ActRowsMut, ActVector, Code, ROW_ALIGN, sealed};
use crate::KernelError;

/// Columns of a group.
pub(crate) const GROUP_COLS: usize = 32;
/// Bytes of a group.
pub(crate) const GROUP_BYTES: usize = GROUP_COLS / 2;

const _: () = assert!(ROW_ALIGN.is_multiple_of(GROUP_COLS));

/// Codes in -8..=7, two in a byte.
#[derive(Clone, Copy, Debug)]
pub struct Int4;

/// `n` tokens of `k` int4 activations each, with the row sums that the integer product needs.
pub type Int4Matrix<'a> = ActMatrix<'a, Int4>;
/// One token of int4 activations.
pub type Int4Vector<'a> = ActVector<'a, Int4>;
/// A buffer of int4 activations.
pub type Int4Batch = ActBatch<Int4>;
/// Consecutive rows of an [`Int4Batch`] that are being written.
pub type Int4RowsMut<'a> = ActRowsMut<'a, Int4>;
/// One row of an [`Int4Batch`] that is being written.
pub type Int4RowMut<'a> = ActRowMut<'a, Int4>;

impl sealed::Sealed for Int4 {}

impl Code for Int4 {
    type Unit = u8;
    const BATCH: &'static str = "Int4Batch";

    fn stride(k: usize) -> usize {
        k.next_multiple_of(ROW_ALIGN) / 2
    }
    fn used(k: usize) -> usize {
        k.div_ceil(GROUP_COLS) * GROUP_BYTES
    }
    fn sum(units: &[u8]) -> i32 {
        units.iter().map(|&b| i32::from((b << 4) as i8 >> 4) + i32::from(b as i8 >> 4)).sum()
    }
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

impl<'a> ActMatrix<'a, Int4> {
    /// All rows with their padding, `[n, stride]` bytes.
    pub fn nibbles(&self) -> &'a [u8] {
        self.units
    }
}

impl<'a> ActVector<'a, Int4> {
    /// The codes with their zero padding.
    pub fn nibbles(&self) -> &'a [u8] {
        self.units
    }
    /// Writes the codes as int8 to `out`, `[k]` or longer, up to the padding; the rest of `out` does not change.
    ///
    /// # Panics
    /// If `out` is shorter than [`Int4Vector::k`].
    // Inlined into its caller, which may be compiled for a better instruction set.
    #[inline(always)]
    pub fn widen(&self, out: &mut [i8]) {
        assert!(out.len() >= self.k, "{} codes into {}", self.k, out.len());
        let (groups, _) = self.units.as_chunks::<GROUP_BYTES>();
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

impl ActBatch<Int4> {
    /// Copies the codes unchanged: `codes` is `[n, k]` row-major; all scales become 1.
    ///
    /// # Errors
    /// [`KernelError::ShapeMismatch`] if the length is not `n * k`; [`KernelError::Int4OutOfRange`] for a code outside
    /// of -8..=7.
    pub fn from_codes(n: usize, k: usize, codes: &[i8]) -> Result<Self, KernelError> {
        let mut batch = Self::for_codes("Int4Batch::from_codes", n, k, codes.len())?;
        if let Some(i) = codes.iter().position(|c| !(-8..=7).contains(c)) {
            return Err(KernelError::Int4OutOfRange { token: i / k, position: i % k, value: codes[i] });
        }
        for (t, mut row) in batch.rows_mut().enumerate() {
            let src = &codes[t * k..(t + 1) * k];
            for (g, codes) in src.chunks(GROUP_COLS).enumerate() {
                let mut halves = [[0; 16]; 2];
                halves.as_flattened_mut()[..codes.len()].copy_from_slice(codes);
                row.write(g, &halves[0], &halves[1]);
            }
            row.finish(1.0, src.iter().map(|&c| i32::from(c)).sum());
        }
        Ok(batch)
    }
}

impl ActRowMut<'_, Int4> {
    /// Stores columns `32 g..32 g + 16` and `32 g + 16..32 g + 32`; codes lie in -8..=7 and are 0 from column K on.
    ///
    /// # Panics
    /// If the group is outside the row.
    #[inline]
    pub fn write(&mut self, g: usize, low: &[i8; 16], high: &[i8; 16]) {
        debug_assert!(low.iter().chain(high).all(|c| (-8..=7).contains(c)));
        self.units[g * GROUP_BYTES..][..GROUP_BYTES].copy_from_slice(&pack(low, high));
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
