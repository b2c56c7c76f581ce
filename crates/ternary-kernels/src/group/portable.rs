//! Portable Rust, which compilers turn into vectors of the target.
//!
//! Lanes are pairs of columns of a row, as in `i2s::scalar`: `u16` `i` of a chunk holds columns `2 (i % 2)` (low byte)
//! and the next one (high byte) of row `i / 2`. Both products are added in the 16 bits of a lane.

use super::lanes::{Lanes, array_rows, tile};
use super::product::Product;
use super::{CHUNK_BYTES, Chunk, PANEL_ROWS};
use crate::i2s::Acts;
use crate::ops::lanes::Portable;

/// 16-bit lanes of a chunk, two for each row.
const LANES: usize = CHUNK_BYTES / 2;
/// Two products, of codes up to 3 and digits from -128.
const PAIR: usize = 2 * 3 * 128;
/// Each of four fields of a chunk adds such a pair to a lane: `8 * 4 * 768 = 24576 < 2^15`.
const FLUSH: usize = 8;
const _: () = assert!(FLUSH * 4 * PAIR <= i16::MAX as usize);
/// Four times as much, from two fields.
const FLUSH_QUADRUPLE: usize = 4;
const _: () = assert!(FLUSH_QUADRUPLE * 2 * 4 * PAIR <= i16::MAX as usize);

impl Lanes<1> for Portable {
    type Float = Self;
    type B = [u16; LANES];
    type A = [i16; LANES];
    const FLUSH: usize = FLUSH;
    const FLUSH_QUADRUPLE: usize = FLUSH_QUADRUPLE;
    array_rows!(16);

    #[inline(always)]
    fn float(self) -> Self {
        self
    }
    #[inline(always)]
    fn load(self, chunk: &Chunk, _: usize) -> Self::B {
        let mut v = [0; LANES];
        for (v, pair) in v.iter_mut().zip(chunk.as_chunks().0) {
            *v = u16::from_le_bytes(*pair);
        }
        v
    }
    #[inline(always)]
    fn field<const J: i32>(self, mut v: Self::B) -> Self::B {
        for v in &mut v {
            *v = *v >> (2 * J) & 0x0303;
        }
        v
    }
    #[inline(always)]
    fn quadruples(self, v: Self::B) -> [Self::B; 4] {
        let mut out = [v; 4];
        for i in 0..LANES {
            out[0][i] = v[i] & 0x0303;
            out[1][i] = v[i] & 0x0c0c;
            out[2][i] = v[i] >> 4 & 0x0303;
            out[3][i] = v[i] >> 4 & 0x0c0c;
        }
        out
    }
    #[inline(always)]
    fn zero(self) -> Self::A {
        [0; LANES]
    }
    #[inline(always)]
    fn dot<const J: i32>(self, mut sum: Self::A, codes: Self::B, x: &Acts) -> Self::A {
        let mut pairs = [[0; 2]; 2];
        for (i, pair) in pairs.iter_mut().flatten().enumerate() {
            *pair = i16::from(x[4 * J as usize + i] as i8);
        }
        // A multiple of every vector width, so that the alternating pattern is a constant vector in the loop below.
        let (mut even, mut odd) = ([0; LANES], [0; LANES]);
        for i in 0..LANES {
            [even[i], odd[i]] = pairs[i % 2];
        }
        for i in 0..LANES {
            let (low, high) = ((codes[i] & 0xff) as i16, (codes[i] >> 8) as i16);
            sum[i] += low * even[i] + high * odd[i];
        }
        sum
    }
    #[inline(always)]
    fn rows(self, sum: Self::A) -> Self::W {
        let mut rows = [0; PANEL_ROWS];
        for (row, pair) in rows.iter_mut().zip(sum.as_chunks::<2>().0) {
            *row = i32::from(pair[0]) + i32::from(pair[1]);
        }
        rows
    }
    #[inline(always)]
    fn panel(self, [rows]: [Self::W; 1]) -> Self::W {
        rows
    }
}

/// Computes the product.
pub(super) fn product(product: &Product<'_>, out: &mut [f32]) {
    let two = product.digits() == 2;
    product.for_tiles(1, 3, |t| match (t.tokens.len(), two) {
        (1, true) => tile::<_, 1, 1, 1, 1, 2, false>(Portable, product, t, out),
        (2, true) => tile::<_, 1, 1, 1, 2, 2, false>(Portable, product, t, out),
        (3, true) => tile::<_, 1, 1, 1, 3, 2, false>(Portable, product, t, out),
        (1, false) => tile::<_, 1, 1, 1, 1, 1, false>(Portable, product, t, out),
        (2, false) => tile::<_, 1, 1, 1, 2, 1, false>(Portable, product, t, out),
        (3, false) => tile::<_, 1, 1, 1, 3, 1, false>(Portable, product, t, out),
        (tokens, _) => unreachable!("a tile of {tokens} tokens"),
    });
}
