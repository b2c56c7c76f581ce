//! Code shared by TL1 and TL2: tile sizes, which files do not store, and pairs of weights in four bits.

use crate::{FileFormat, KernelError};

/// Bytes after the weights: the scale as f32, then padding.
pub(super) const TAIL_BYTES: usize = 32;

/// Tile sizes of a TL1 or TL2 tensor, under the names of bitnet.cpp's `kernel_config.ini`.
///
/// The order of the bytes depends on them; they differ between shapes, and files do not store them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct TlTile {
    /// Rows of a tile; the matrix consists of whole tiles vertically.
    pub bm: usize,
    /// Columns of a tile. TL1 rows are whole tiles; TL2 stores the rest of a row separately.
    pub bk: usize,
    /// Rows of a block within a tile: 32 or 64 in TL1, 32 in TL2.
    pub bmm: usize,
}

impl std::fmt::Display for TlTile {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "bm={},bk={},bmm={}", self.bm, self.bk, self.bmm)
    }
}

impl TlTile {
    /// Rejects sizes of zero and matrices whose height is not a multiple of a tile's.
    pub(super) fn check(self, format: FileFormat, (rows, cols): (usize, usize)) -> Result<(), KernelError> {
        if self.bm == 0 || self.bk == 0 || self.bmm == 0 {
            return Err(self.refuse(format, (rows, cols), "no size may be 0"));
        }
        if !self.bm.is_multiple_of(self.bmm) {
            return Err(self.refuse(format, (rows, cols), "bm must be a multiple of bmm"));
        }
        if !rows.is_multiple_of(self.bm) {
            return Err(self.refuse(format, (rows, cols), "the rows must be a multiple of bm"));
        }
        Ok(())
    }

    pub(super) fn refuse(self, format: FileFormat, (rows, cols): (usize, usize), reason: &'static str) -> KernelError {
        KernelError::UnsupportedTile { format, tile: self, rows, cols, reason }
    }
}

/// The weights of a pair by its index, `3 (w0 + 1) + (w1 + 1)`; 9 to 15 are unused.
pub(super) const PAIRS: [[i8; 2]; 16] = {
    let mut pairs = [[0; 2]; 16];
    let mut i = 0;
    while i < 9 {
        pairs[i] = [i as i8 / 3 - 1, i as i8 % 3 - 1];
        i += 1;
    }
    pairs
};

/// The index of a pair.
pub(super) fn pair(w: [i8; 2]) -> u8 {
    (3 * w[0] + w[1] + 4) as u8
}

/// Four weights as a byte: the first pair in the upper half.
pub(super) fn pack_pairs(w: [i8; 4]) -> u8 {
    pair([w[0], w[1]]) << 4 | pair([w[2], w[3]])
}

/// The four weights of a byte.
pub(super) fn unpack_pairs(byte: u8) -> [i8; 4] {
    let ([a, b], [c, d]) = (PAIRS[usize::from(byte >> 4)], PAIRS[usize::from(byte & 15)]);
    [a, b, c, d]
}

/// Position of the first byte with a half larger than `max`, and whether it is the lower half. Checks all bytes without
/// a branch, as nearly all tensors are valid.
pub(super) fn first_half_above(bytes: &[u8], max: u8) -> Option<(usize, bool)> {
    // A half above `max` carries into bit 4.
    let carry = 15 - max;
    let over = |b: u8| (((b & 15) + carry) | ((b >> 4) + carry)) & 16;
    let chunk = bytes.chunks(4096).position(|c| c.iter().fold(0, |any, &b| any | over(b)) != 0)?;
    let at = chunk * 4096 + bytes[chunk * 4096..].iter().position(|&b| over(b) != 0)?;
    Some((at, bytes[at] >> 4 <= max))
}
