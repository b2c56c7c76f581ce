//! TL2 of bitnet.cpp: three weights in five bits, four for an index and one for a sign, in separate streams.
//!
//! A triple has the value `v = 9 w0 + 3 w1 + w2`, -13 to 13: its index is `|v|`, its sign bit is set if `v < 0`. A row
//! is divided at `threek`, the largest multiple of `bk` columns; the rest, `twok` columns, is stored as the pairs of
//! TL1.
//!
//! ```text
//! | indices, threek M / 6 bytes | signs, threek M / 24 | pairs, twok M / 4 | zeros | scale, f32 LE | 28 bytes |
//!
//! indices and pairs                             signs
//! for each tile of bm rows                      for each tile of bm rows
//!   for each tile of bk columns (pairs: 32)       for each tile of bk columns
//!     for each block of 32 rows                     for each block of 32 rows
//!       for each 6 columns (pairs: 4)                 for each 24 columns, that is 8 triples
//!         32 bytes, one for each row                    16 words, u16 LE, word r for rows r and r + 16:
//!         upper half: first triple or pair                bit 15 - 2g: triple g of row r
//!         lower half: second                              bit 14 - 2g: triple g of row r + 16
//! ```
//!
//! Among the 32 bytes of a block, the second and the third eight rows are swapped: rows 0-7, 16-23, 8-15, 24-31. The
//! zeros fill up `((K - 256) M / 3 5 / 8) + 64 M` bytes (each division rounded down), rounded up to 32; this is the
//! formula of the writer, with room for a `twok` of 256.
//!
//! Rows must be a multiple of `bm`, `bm` of 32, `bk` of 24, `twok` of 32; `bmm` is 32. Indices above 13, a sign of a
//! triple of zeros, and anything but zeros in the padding are rejected: no writer produces them, and they appear in
//! tensors whose rows were divided elsewhere. Other sizes that divide the rows at the same column leave no trace, and
//! give other weights.
//!
//! ```
//! use ternary_kernels::{FileFormat, ScaleRounding, Scales, TernaryMatrix, TlTile};
//!
//! // 32 rows of 80 columns: 48 of them as triples, 32 as pairs.
//! let mut trits = [0i8; 32 * 80];
//! trits[..6].copy_from_slice(&[1, 0, -1, -1, 1, 1]); // row 0
//! trits[16 * 80 + 3] = 1; // row 16, column 3: the second triple
//! trits[8 * 80 + 48..8 * 80 + 52].copy_from_slice(&[1, 1, -1, -1]); // row 8, the first two pairs
//! let w = TernaryMatrix::from_trits(32, 80, &trits, Scales::Tensor(0.5))?;
//! let bytes = FileFormat::Tl2(TlTile { bm: 32, bk: 48, bmm: 32 }).encode(&w, ScaleRounding::Exact)?;
//!
//! assert_eq!(bytes[0], 0x85); // 9 - 1 is 8; -9 + 3 + 1 is -5
//! assert_eq!(bytes[8], 0x09); // row 16 is the ninth
//! let signs = 48 * 32 / 6;
//! assert_eq!(bytes[signs..signs + 2], (1u16 << 13).to_le_bytes()); // triple 1 of row 0 is negative
//! let pairs = signs + 48 * 32 / 24;
//! assert_eq!(bytes[pairs + 16], 0x80); // row 8 is the seventeenth: (1, 1) is 8, (-1, -1) is 0
//! # Ok::<(), ternary_kernels::KernelError>(())
//! ```

use super::table::{FormatInfo, ScalePlace};
use super::tl::{TAIL_BYTES, first_half_above, pack_pairs, unpack_pairs};
use super::{TlTile, common};
use crate::{FileFormat, KernelError, Levels, Scales, TernaryMatrix};

pub(super) const INFO: FormatInfo = FormatInfo {
    name: "TL2",
    ggml_ids: &[39, 42],
    weights: 1,
    bytes: None,
    scale: ScalePlace::Tensor,
    levels: Levels::Three,
    writable: true,
};

/// Rows of a block.
const BLOCK: usize = 32;
/// Columns that share words of signs.
const SPAN: usize = 24;
/// Columns of a tile of pairs.
const PAIR_TILE: usize = 32;

/// The weights of a triple by its index; 14 and 15 are unused.
const TRIPLES: [[i8; 3]; 16] = {
    let mut triples = [[0; 3]; 16];
    let mut v = 0;
    while v < 14 {
        let w0 = (v as i8 + 13) / 9 - 1;
        let rest = v as i8 - 9 * w0;
        let w1 = (rest + 4) / 3 - 1;
        triples[v] = [w0, w1, rest - 3 * w1];
        v += 1;
    }
    triples
};

/// Offsets within a tensor of one shape.
#[derive(Clone, Copy)]
struct Map {
    tile: TlTile,
    /// Columns stored as triples.
    threek: usize,
    /// Columns stored as pairs.
    twok: usize,
    /// First byte of the signs.
    signs: usize,
    /// First byte of the pairs.
    pairs: usize,
    /// One past the pairs.
    end: usize,
}

impl Map {
    /// `rows` and `cols` have passed [`byte_len`].
    fn new(tile: TlTile, rows: usize, cols: usize) -> Self {
        let threek = cols / tile.bk * tile.bk;
        let twok = cols - threek;
        let signs = rows * (threek / 6);
        let pairs = signs + rows / 8 * (threek / 3);
        Self { tile, threek, twok, signs, pairs, end: pairs + rows * (twok / 4) }
    }

    /// The tile of row `m`, and its 32-row block in the tile: the two outer numbers of every offset.
    fn block(self, m: usize) -> (usize, usize) {
        (m / self.tile.bm, m % self.tile.bm / BLOCK)
    }

    /// For each 24 columns stored as triples: the offset of row `m`'s first index byte (three more follow, 32 apart),
    /// and of the word with its signs.
    fn spans(self, m: usize) -> impl Iterator<Item = (usize, usize)> {
        let TlTile { bm, bk, .. } = self.tile;
        let (mt, mb) = self.block(m);
        (0..self.threek / bk).flat_map(move |kt| {
            let block = (mt * (self.threek / bk) + kt) * (bm / BLOCK) + mb;
            (0..bk / SPAN).map(move |k24| {
                let span = block * (bk / SPAN) + k24;
                (span * (SPAN / 6 * BLOCK) + position(m), self.signs + span * BLOCK + 2 * (m % 16))
            })
        })
    }

    /// The offset of each four columns of row `m` that are stored as pairs.
    fn fours(self, m: usize) -> impl Iterator<Item = usize> {
        let (mt, mb) = self.block(m);
        (0..self.twok / PAIR_TILE).flat_map(move |kt| {
            let block = (mt * (self.twok / PAIR_TILE) + kt) * (self.tile.bm / BLOCK) + mb;
            (0..PAIR_TILE / 4).map(move |k4| self.pairs + (block * (PAIR_TILE / 4) + k4) * BLOCK + position(m))
        })
    }
}

/// The place of row `m` among the 32 bytes of its block: bits 3 and 4 of its number are swapped.
fn position(m: usize) -> usize {
    m & 7 | (m & 8) << 1 | (m & 16) >> 1
}

/// The sign bit of triple 0 of row `m`; that of triple `g` is `2g` lower.
fn sign_bit(m: usize) -> u32 {
    15 - (m % BLOCK / 16) as u32
}

fn word(bytes: &[u8], at: usize) -> u16 {
    u16::from_le_bytes([bytes[at], bytes[at + 1]])
}

/// Bytes before the scale, by the formula of the writer.
fn content(rows: usize, cols: usize) -> Option<usize> {
    let (m, k) = (rows as i128, cols as i128);
    let filled = ((k - 256) * m).div_euclid(3) * 5;
    usize::try_from(filled.div_euclid(8) + 64 * m).ok()?.checked_next_multiple_of(32)
}

pub(super) fn byte_len(tile: TlTile, rows: usize, cols: usize) -> Result<usize, KernelError> {
    let (format, shape) = (FileFormat::Tl2(tile), (rows, cols));
    tile.check(format, shape)?;
    if tile.bmm != BLOCK {
        return Err(tile.refuse(format, shape, "bmm must be 32"));
    }
    if !tile.bk.is_multiple_of(SPAN) {
        return Err(tile.refuse(format, shape, "bk must be a multiple of 24"));
    }
    if cols == 0 {
        return Err(tile.refuse(format, shape, "the matrix must have columns"));
    }
    let twok = cols % tile.bk;
    if !twok.is_multiple_of(PAIR_TILE) {
        return Err(tile.refuse(format, shape, "the columns after the last tile of bk must be a multiple of 32"));
    }
    if twok > 256 {
        return Err(tile.refuse(format, shape, "the columns after the last tile of bk must not exceed 256"));
    }
    common::byte_len(format, shape, (1, 1), (0, 0), "")?;
    let all = content(rows, cols).and_then(|n| n.checked_add(TAIL_BYTES)).filter(|n| isize::try_from(*n).is_ok());
    all.ok_or(KernelError::TooLarge { op: format.name(), rows, cols })
}

pub(super) fn validate(tile: TlTile, rows: usize, cols: usize, bytes: &[u8]) -> Result<Scales, KernelError> {
    let format = FileFormat::Tl2(tile);
    let map = Map::new(tile, rows, cols);
    let (weights, tail) = bytes.split_at(bytes.len() - TAIL_BYTES);
    let foreign = |at: usize, what| KernelError::ForeignTiles { format, tile, at, what };
    if let Some((at, _)) = first_half_above(&weights[..map.signs], 13) {
        return Err(foreign(at, "holds an index above 13"));
    }
    if let Some((at, _)) = first_half_above(&weights[map.pairs..map.end], 8) {
        return Err(foreign(map.pairs + at, "holds an index above 8"));
    }
    if let Some(at) = weights[map.end..].iter().position(|&b| b != 0) {
        return Err(foreign(map.end + at, "is not zero padding"));
    }
    for m in 0..rows {
        for (at, signs) in map.spans(m) {
            // Two bits for each byte of indices: which of its halves are zero.
            let zeros = (0..4).fold(0u16, |zeros, j| {
                let byte = weights[at + j * BLOCK];
                zeros << 4 | u16::from(byte >> 4 == 0) << 2 | u16::from(byte & 15 == 0)
            });
            if word(weights, signs) & (zeros << (sign_bit(m) - 14)) != 0 {
                return Err(foreign(signs, "gives zeros a sign"));
            }
        }
    }
    common::checked_scale(format, 0, common::read_f32(tail)).map(Scales::Tensor)
}

pub(super) fn decode_row(tile: TlTile, bytes: &[u8], (rows, cols): (usize, usize), r: usize, out: &mut [i8]) {
    let map = Map::new(tile, rows, cols);
    let (triples, pairs) = out.split_at_mut(map.threek);
    for ((at, signs), out) in map.spans(r).zip(triples.as_chunks_mut::<SPAN>().0) {
        let mut signs = word(bytes, signs) << (15 - sign_bit(r));
        let mut triple = |index: u8, out: &mut [i8]| {
            let sign = if signs & 0x8000 != 0 { -1 } else { 1 };
            signs <<= 2;
            for (out, w) in out.iter_mut().zip(TRIPLES[usize::from(index)]) {
                *out = sign * w;
            }
        };
        for (j, out) in out.as_chunks_mut::<6>().0.iter_mut().enumerate() {
            let (first, second) = out.split_at_mut(3);
            let byte = bytes[at + j * BLOCK];
            triple(byte >> 4, first);
            triple(byte & 15, second);
        }
    }
    for (at, out) in map.fours(r).zip(pairs.as_chunks_mut::<4>().0) {
        *out = unpack_pairs(bytes[at]);
    }
}

pub(super) fn encode(tile: TlTile, w: &TernaryMatrix, bytes: &mut [u8]) -> Result<(), KernelError> {
    let scale = common::one_scale(FileFormat::Tl2(tile), w)?;
    let map = Map::new(tile, w.rows(), w.cols());
    let (weights, tail) = bytes.split_at_mut(bytes.len() - TAIL_BYTES);
    tail[..4].copy_from_slice(&scale.to_le_bytes());
    let mut trits = vec![0; w.cols()];
    for m in 0..w.rows() {
        w.decode_row(m, &mut trits);
        let (triples, pairs) = trits.split_at(map.threek);
        for ((at, signs), trits) in map.spans(m).zip(triples.as_chunks::<SPAN>().0) {
            let mut bits = 0u16;
            for (g, t) in trits.as_chunks::<3>().0.iter().enumerate() {
                let v = 9 * t[0] + 3 * t[1] + t[2];
                bits |= u16::from(v < 0) << (sign_bit(m) - 2 * g as u32);
                weights[at + g / 2 * BLOCK] |= v.unsigned_abs() << (4 - 4 * (g % 2));
            }
            // Rows `m` and `m + 16` share the word.
            let both = word(weights, signs) | bits;
            weights[signs..signs + 2].copy_from_slice(&both.to_le_bytes());
        }
        for (at, trits) in map.fours(m).zip(pairs.as_chunks::<4>().0) {
            weights[at] = pack_pairs(*trits);
        }
    }
    Ok(())
}
