//! I2_S in portable Rust, written so that compilers vectorise it well on any CPU.
//!
//! A chunk is read as 32 little-endian u16, two per row: u16 `i` holds columns `c = 2 (i % 2)` (low byte) and
//! `c + 1` (high byte) of row `i / 2`. For each field, both codes are extracted by a shift and a mask and multiplied by
//! their activation in 16 bits; sums stay in 16 bits for [`FLUSH`] chunks and are then added to i32 row sums.

use super::{Acts, CHUNK_BYTES, Chunk, PANEL_ROWS, Product, Tile};
use crate::isa::Portable;
use crate::panel_kernel::Chunks;
use crate::token_tables::TokenLanes;

/// 16-bit lanes of a chunk, two per row.
const LANES: usize = CHUNK_BYTES / 2;

/// Chunks between two flushes of the 16-bit sums. A chunk adds four fields of two products to a lane, each product at
/// most `2 * 127`: `16 * 4 * 2 * 254 = 32512 < 2^15`.
const FLUSH: usize = 16;
const _: () = assert!(FLUSH * 4 * 2 * (2 * 127) <= i16::MAX as usize);

/// Tokens that share one pass over the weights.
const MAX_TOKENS: usize = 4;

impl Chunks for Portable {
    const MAX_TOKENS: usize = MAX_TOKENS;
    const TABLES_FROM: Option<usize> = Some(Self::LAST_FROM);

    fn code_sums(self, panel: &[Chunk], x: &[Acts]) -> [i32; PANEL_ROWS] {
        let [sums] = code_sums::<1>(panel, x.as_chunks().0);
        sums
    }
    fn tile(self, product: &Product<'_>, t: &Tile<'_>, acc: &mut [i32]) {
        match t.tokens.len() {
            1 => tile::<1>(product, t, acc),
            2 => tile::<2>(product, t, acc),
            3 => tile::<3>(product, t, acc),
            MAX_TOKENS => tile::<MAX_TOKENS>(product, t, acc),
            n => unreachable!("a tile of {n} tokens"),
        }
    }
}

/// A tile of one panel times `N` tokens.
fn tile<const N: usize>(product: &Product<'_>, t: &Tile<'_>, acc: &mut [i32]) {
    let [w] = t.weights::<1>();
    for (n, sums) in code_sums::<N>(w, t.acts.as_chunks().0).iter().enumerate() {
        t.store(product, 0, n, sums, acc);
    }
}

/// Per token and row, the sum of code times activation.
fn code_sums<const N: usize>(w: &[Chunk], x: &[[Acts; N]]) -> [[i32; PANEL_ROWS]; N] {
    let mut sums = [[0i32; PANEL_ROWS]; N];
    for (w, x) in w.chunks(FLUSH).zip(x.chunks(FLUSH)) {
        let mut narrow = [[0i16; LANES]; N];
        for (w, x) in w.iter().zip(x) {
            for j in 0..4 {
                let (low, high) = codes(w, j);
                for (narrow, x) in narrow.iter_mut().zip(x) {
                    add_products(narrow, &low, &high, x, j);
                }
            }
        }
        for (sums, narrow) in sums.iter_mut().zip(&narrow) {
            for (sum, pair) in sums.iter_mut().zip(narrow.as_chunks::<2>().0) {
                *sum = sum.wrapping_add(i32::from(pair[0]) + i32::from(pair[1]));
            }
        }
    }
    sums
}

/// Codes of field `j`: those of the even and of the odd columns.
#[inline]
fn codes(chunk: &Chunk, j: usize) -> ([i16; LANES], [i16; LANES]) {
    let (pairs, _) = chunk.as_chunks::<2>();
    let mut low = [0; LANES];
    let mut high = [0; LANES];
    for i in 0..LANES {
        let pair = u16::from_le_bytes(pairs[i]);
        low[i] = (pair >> (2 * j) & 3) as i16;
        high[i] = (pair >> (2 * j + 8) & 3) as i16;
    }
    (low, high)
}

#[inline]
fn add_products(sums: &mut [i16; LANES], low: &[i16; LANES], high: &[i16; LANES], x: &Acts, j: usize) {
    let at = |c: usize| i16::from(x[4 * j + c] as i8);
    // A multiple of every vector width, so that the alternating pattern is a constant vector in the loop below.
    let even: [i16; LANES] = std::array::from_fn(|i| at(2 * (i % 2)));
    let odd: [i16; LANES] = std::array::from_fn(|i| at(2 * (i % 2) + 1));
    for i in 0..LANES {
        // Wrapping, as weights from other sources could hold code 3; weights packed by this crate cannot overflow.
        sums[i] = sums[i].wrapping_add(low[i] * even[i]).wrapping_add(high[i] * odd[i]);
    }
}
