//! TL1 of bitnet.cpp: two weights in four bits, in an order that suits the lookup tables of one build.
//!
//! A pair of weights has the index `3 (w0 + 1) + (w1 + 1)`, 0 to 8; a byte holds four columns of one row, the first
//! pair in its upper half. The rows are divided into tiles of `bm`, these into blocks of `bmm`, these into strips of
//! 16; the columns into tiles of `bk`, these into steps of `by = 256 / bmm`. Each line below is repeated within the one
//! before it:
//!
//! ```text
//! for each tile of bm rows                      bits     7 .. 4                3 .. 0
//!   for each tile of bk columns                 weights  columns k and k + 1   columns k + 2 and k + 3
//!     for each block of bmm rows
//!       for each step of by columns
//!         for each strip of 16 rows
//!           for each 4 columns
//!             16 bytes, one for each row
//! then the scale, f32 LE, and 28 bytes of padding
//! ```
//!
//! The bytes of row `m`, columns `k..k + 4` are therefore at
//! `((((((mt (K/bk) + kt) (bm/bmm) + mb) (bk/by) + kb) (bmm/16) + ms) (by/4) + kq) 16 + r`, where
//! `m = mt bm + mb bmm + 16 ms + r` and `k = kt bk + kb by + 4 kq`.
//!
//! Rows must be a multiple of `bm`, columns of `bk`, `bm` of `bmm`, `bk` of `by`; `bmm` is 32 or 64. Indices above 8
//! are rejected. Nothing in the bytes shows the sizes that wrote them: wrong sizes give other weights.
//!
//! ```
//! use ternary_kernels::{FileFormat, ScaleRounding, Scales, TernaryMatrix, TlTile};
//!
//! // 32 rows of 8 columns: one tile, two strips of 16 rows, two bytes per row.
//! let mut trits = [0i8; 32 * 8];
//! trits[..8].copy_from_slice(&[-1, 1, 0, 1, 1, 1, 0, 0]); // row 0
//! trits[17 * 8] = -1; // row 17, column 0
//! let w = TernaryMatrix::from_trits(32, 8, &trits, Scales::Tensor(0.5))?;
//! let bytes = FileFormat::Tl1(TlTile { bm: 32, bk: 8, bmm: 32 }).encode(&w, ScaleRounding::Exact)?;
//!
//! assert_eq!(bytes.len(), 32 * 8 / 4 + 32);
//! assert_eq!(bytes[0], 0x25); // row 0: (-1, 1) is 2, (0, 1) is 5
//! assert_eq!(bytes[1], 0x44); // row 1: zeros
//! assert_eq!(bytes[16], 0x84); // row 0, columns 4 to 7: (1, 1) is 8
//! assert_eq!(bytes[32 + 1], 0x14); // row 17 is in the second strip: (-1, 0) is 1
//! assert_eq!(bytes[64..68], 0.5f32.to_le_bytes());
//! # Ok::<(), ternary_kernels::KernelError>(())
//! ```

use super::table::{FormatInfo, ScalePlace};
use super::tl::{TAIL_BYTES, first_half_above, pack_pairs, unpack_pairs};
use super::{TlTile, common};
use crate::{FileFormat, KernelError, Levels, Scales, TernaryMatrix};

pub(super) const INFO: FormatInfo = FormatInfo {
    name: "TL1",
    ggml_ids: &[38],
    weights: 1,
    bytes: None,
    scale: ScalePlace::Tensor,
    levels: Levels::Three,
    writable: true,
};

/// Columns of a step.
fn by(tile: TlTile) -> usize {
    256 / tile.bmm
}

pub(super) fn byte_len(tile: TlTile, rows: usize, cols: usize) -> Result<usize, KernelError> {
    let (format, shape) = (FileFormat::Tl1(tile), (rows, cols));
    tile.check(format, shape)?;
    if tile.bmm != 32 && tile.bmm != 64 {
        return Err(tile.refuse(format, shape, "bmm must be 32 or 64"));
    }
    if !tile.bk.is_multiple_of(by(tile)) {
        return Err(tile.refuse(format, shape, "bk must be a multiple of 256 / bmm"));
    }
    if !cols.is_multiple_of(tile.bk) {
        return Err(tile.refuse(format, shape, "the columns must be a multiple of bk"));
    }
    common::byte_len(format, shape, (4, 1), (0, TAIL_BYTES), "")
}

/// Calls `f(group, offset)` for each four columns of row `m`, in column order.
fn for_groups(tile: TlTile, cols: usize, m: usize, mut f: impl FnMut(usize, usize)) {
    let (by, TlTile { bm, bk, bmm }) = (by(tile), tile);
    let (mt, mb, ms, r) = (m / bm, m % bm / bmm, m % bmm / 16, m % 16);
    let mut group = 0;
    for kt in 0..cols / bk {
        let block = ((mt * (cols / bk) + kt) * (bm / bmm) + mb) * (bk / by);
        for kb in 0..bk / by {
            let strip = ((block + kb) * (bmm / 16) + ms) * (by / 4);
            for kq in 0..by / 4 {
                f(group, (strip + kq) * 16 + r);
                group += 1;
            }
        }
    }
}

/// Row and first column of the byte at `offset`.
fn place(tile: TlTile, cols: usize, offset: usize) -> (usize, usize) {
    let (by, TlTile { bm, bk, bmm }) = (by(tile), tile);
    let mut rest = offset;
    let mut digit = |base: usize| {
        let d = rest % base;
        rest /= base;
        d
    };
    let (r, kq, ms, kb) = (digit(16), digit(by / 4), digit(bmm / 16), digit(bk / by));
    let (mb, kt) = (digit(bm / bmm), digit(cols / bk));
    (rest * bm + mb * bmm + ms * 16 + r, kt * bk + kb * by + 4 * kq)
}

pub(super) fn validate(tile: TlTile, cols: usize, bytes: &[u8]) -> Result<Scales, KernelError> {
    let format = FileFormat::Tl1(tile);
    let (weights, tail) = bytes.split_at(bytes.len() - TAIL_BYTES);
    if let Some((at, lower)) = first_half_above(weights, 8) {
        let (row, col) = place(tile, cols, at);
        let code = i32::from(if lower { weights[at] & 15 } else { weights[at] >> 4 });
        return Err(KernelError::InvalidCode { format, row, col: col + 2 * usize::from(lower), code });
    }
    common::checked_scale(format, 0, common::read_f32(tail)).map(Scales::Tensor)
}

pub(super) fn decode_row(tile: TlTile, bytes: &[u8], cols: usize, r: usize, out: &mut [i8]) {
    let (out, _) = out.as_chunks_mut::<4>();
    for_groups(tile, cols, r, |group, at| out[group] = unpack_pairs(bytes[at]));
}

pub(super) fn encode(tile: TlTile, w: &TernaryMatrix, bytes: &mut [u8]) -> Result<(), KernelError> {
    let scale = common::one_scale(FileFormat::Tl1(tile), w)?;
    let (weights, tail) = bytes.split_at_mut(bytes.len() - TAIL_BYTES);
    tail[..4].copy_from_slice(&scale.to_le_bytes());
    let mut trits = vec![0; w.cols()];
    for r in 0..w.rows() {
        w.decode_row(r, &mut trits);
        let (groups, _) = trits.as_chunks::<4>();
        for_groups(tile, w.cols(), r, |group, at| weights[at] = pack_pairs(groups[group]));
    }
    Ok(())
}
