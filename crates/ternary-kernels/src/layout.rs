//! Layouts of packed weights that files may use: those shared by kernels of every instruction set.
//!
//! The kernels `i2s`, `base3` and the group kernels each have one layout for all instruction sets (see
//! `docs/adr/0004-one-kernel-layout.md`), so one CPU can multiply bytes that another CPU packed. The layouts of the
//! look-up kernels are missing here: their weights are packed when a model is loaded.

use std::fmt;

use crate::i2s::{CHUNK_BYTES, CHUNK_COLS, MAX_COLS, PANEL_ROWS};
use crate::{FileFormat, GroupPacked, KernelError, ROW_ALIGN, base3, registry};

/// A layout of packed weights.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum KernelLayout {
    /// Two bits for each weight, of the kernels `i2s_*`.
    I2s,
    /// Five weights in a byte, of the kernels `base3_*`.
    Base3,
    /// Two bits for each weight and an f16 for each group of this many weights, of the group kernels.
    Groups(usize),
}

impl KernelLayout {
    /// Changes whenever packing the same weights would give other bytes.
    pub const VERSION: u32 = 1;

    /// The layout that the kernel of this name reads, if files may hold it.
    ///
    /// ```
    /// use ternary_kernels::KernelLayout;
    /// assert_eq!(KernelLayout::of_kernel("base3_scalar"), Some(KernelLayout::Base3));
    /// assert_eq!(KernelLayout::of_kernel("tl2_scalar"), None);
    /// ```
    pub fn of_kernel(name: &str) -> Option<Self> {
        let entry = registry().iter().find(|e| e.name == name)?;
        [Self::I2s, Self::Base3].into_iter().find(|l| l.to_string() == entry.format_name)
    }

    /// The layout with this name.
    ///
    /// ```
    /// use ternary_kernels::KernelLayout;
    /// assert_eq!(KernelLayout::from_name("group128"), Some(KernelLayout::Groups(128)));
    /// assert_eq!(KernelLayout::from_name("group100"), None);
    /// ```
    pub fn from_name(name: &str) -> Option<Self> {
        let groups = [64, 128, 192, 256].map(Self::Groups);
        [Self::I2s, Self::Base3].into_iter().chain(groups).find(|l| l.to_string() == name)
    }

    /// Bytes of a packed `[rows, cols]` matrix.
    ///
    /// # Errors
    /// [`KernelError::TooLarge`]; [`KernelError::RowTooLong`]; [`KernelError::GroupLength`] for groups that no kernel
    /// supports.
    pub fn byte_len(self, rows: usize, cols: usize) -> Result<usize, KernelError> {
        const OP: &str = "packed weights";
        let panel_bytes = match self {
            Self::Groups(group_len) => return GroupPacked::byte_len_of(OP, (rows, cols), group_len),
            Self::I2s | Self::Base3 if cols > MAX_COLS => {
                return Err(KernelError::RowTooLong { kernel: self.to_string(), cols, max_cols: MAX_COLS });
            }
            Self::I2s => i2s_chunks(cols) * CHUNK_BYTES,
            Self::Base3 => base3::panel_bytes(cols),
        };
        let bytes = rows.div_ceil(PANEL_ROWS).checked_mul(panel_bytes);
        bytes.filter(|&b| isize::try_from(b).is_ok()).ok_or(KernelError::TooLarge { op: OP, rows, cols })
    }

    /// Writes the levels of row `r` of a packed `[rows, cols]` matrix to `out`, `[cols]`. A byte that is not a code of
    /// the layout becomes an arbitrary level in -1..=2.
    ///
    /// # Panics
    /// If `bytes` does not have the length [`KernelLayout::byte_len`], `r` is not below `rows`, or `out` has another
    /// length.
    pub(crate) fn decode_row(self, bytes: &[u8], (rows, cols): (usize, usize), r: usize, out: &mut [i8]) {
        assert!(r < rows && out.len() == cols, "row {r} of {rows}, buffer of {} for {cols}", out.len());
        match self {
            Self::I2s => {
                let chunks = i2s_chunks(cols);
                let panel = &bytes.as_chunks::<CHUNK_BYTES>().0[r / PANEL_ROWS * chunks..][..chunks];
                for (chunk, out) in panel.iter().zip(out.chunks_mut(CHUNK_COLS)) {
                    let codes = &chunk[4 * (r % PANEL_ROWS)..][..4];
                    for (i, out) in out.iter_mut().enumerate() {
                        *out = (codes[i % 4] >> (2 * (i / 4)) & 3) as i8 - 1;
                    }
                }
            }
            Self::Base3 => base3::decode_row(bytes, cols, r, out),
            Self::Groups(group_len) => GroupPacked::decode_levels(bytes, (rows, cols), group_len, r, out),
        }
    }
}

impl KernelLayout {
    /// Rejects codes that do not stand for a weight; +2 is a weight if `twos` is set.
    pub(crate) fn check(
        self,
        bytes: &[u8],
        (rows, cols): (usize, usize),
        twos: bool,
        format: FileFormat,
    ) -> Result<(), KernelError> {
        if self == Self::Base3 {
            return match base3::invalid(bytes, cols, rows) {
                None => Ok(()),
                Some((row, code)) => Err(KernelError::InvalidCode { format, row, col: 0, code: code.into() }),
            };
        }
        let mut levels = vec![0; cols];
        for row in 0..rows {
            self.decode_row(bytes, (rows, cols), row, &mut levels);
            if let Some(col) = levels.iter().position(|t| *t > 1).filter(|_| !twos) {
                return Err(KernelError::InvalidCode { format, row, col, code: 3 });
            }
        }
        Ok(())
    }
}

/// Chunks of a row, which is padded like activations.
fn i2s_chunks(cols: usize) -> usize {
    cols.div_ceil(ROW_ALIGN) * (ROW_ALIGN / CHUNK_COLS)
}

impl fmt::Display for KernelLayout {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::I2s => f.write_str("i2s"),
            Self::Base3 => f.write_str("base3"),
            Self::Groups(len) => write!(f, "group{len}"),
        }
    }
}

#[cfg(test)]
mod tests;
