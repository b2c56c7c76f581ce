//! I2_S in portable Rust, written so that the compiler's own vectoriser does well with it on any CPU.
//!
//! A chunk is read as 32 little-endian u16, two per row: u16 `i` holds columns `c = 2 (i % 2)` (low byte) and
//! `c + 1` (high byte) of row `i / 2`. For each field, both codes are cut out by a shift and a mask and multiplied by
//! their activation in 16 bits; sums stay in 16 bits for [`FLUSH`] chunks and are then added to i32 row sums.

use super::{Activations, Acts, BLOCK_CHUNKS, CHUNK_BYTES, CHUNK_COLS, Chunk, PANEL_ROWS, Product, Tile};
use crate::token_tables::{self, Portable};
use crate::{Int4Matrix, Int8Batch, Int8Matrix, Int8Vector, Kernel, KernelError, Packed, PackedRows, TernaryMatrix};

pub(crate) const NAME: &str = "i2s_scalar";

/// 16-bit lanes of a chunk, two per row.
const LANES: usize = CHUNK_BYTES / 2;

/// Chunks between two flushes of the 16-bit sums. A chunk adds four fields of two products to a lane, each product at
/// most `2 * 127`: `16 * 4 * 2 * 254 = 32512 < 2^15`.
const FLUSH: usize = 16;
const _: () = assert!(FLUSH * 4 * 2 * (2 * 127) <= i16::MAX as usize);

/// Tokens that share one reading of the weights.
pub(crate) const MAX_TOKENS: usize = 4;

/// The portable kernel.
#[derive(Debug)]
pub(crate) struct I2sScalar;

impl Kernel for I2sScalar {
    fn name(&self) -> &str {
        NAME
    }
    fn panel_rows(&self) -> usize {
        PANEL_ROWS
    }
    fn least_rows(&self, n: usize) -> usize {
        token_tables::least_rows(Portable, n)
    }
    fn prepack(&self, w: &TernaryMatrix) -> Result<Packed, KernelError> {
        super::prepack(NAME, w)
    }
    fn gemv(&self, w: &PackedRows<'_>, x: &Int8Vector<'_>, acc: &mut [i32]) {
        let sum = [x.sum()];
        let Some(product) = Product::of_one(w, x, &sum, acc) else { return };
        for p in 0..product.panel_count() {
            let [sums] = code_sums::<1>(product.panel(p), product.token(0).as_chunks().0);
            product.store(p, 0, &sums, acc);
        }
    }
    fn gemm(&self, w: &PackedRows<'_>, x: &Int8Matrix<'_>, acc: &mut [i32]) {
        product_of(w, x.into(), acc);
    }
    fn gemm_a4(&self, w: &PackedRows<'_>, x: &Int4Matrix<'_>, _: &mut Int8Batch, acc: &mut [i32]) {
        product_of(w, x.into(), acc);
    }
}

fn product_of(w: &PackedRows<'_>, x: Activations<'_>, acc: &mut [i32]) {
    let tables = |product: &Product<'_>, acc: &mut [i32]| token_tables::product::<_, 4>(Portable, product, acc);
    token_tables::split(Portable, w, x, acc, tables, |x, acc| multiply(w, x, acc));
}

fn multiply(w: &PackedRows<'_>, x: Activations<'_>, acc: &mut [i32]) {
    let Some(product) = Product::new(w, x, acc) else { return };
    let mut buffer = [[0; CHUNK_COLS]; MAX_TOKENS * BLOCK_CHUNKS];
    product.for_tiles(1, MAX_TOKENS, &mut buffer, |t| tiles(&product, &t, acc));
}

/// A tile of one panel and any number of tokens.
pub(crate) fn tiles(product: &Product<'_>, t: &Tile<'_>, acc: &mut [i32]) {
    match t.tokens.len() {
        1 => tile::<1>(product, t, acc),
        2 => tile::<2>(product, t, acc),
        3 => tile::<3>(product, t, acc),
        MAX_TOKENS => tile::<MAX_TOKENS>(product, t, acc),
        n => unreachable!("a tile of {n} tokens"),
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
pub(crate) fn code_sums<const N: usize>(w: &[Chunk], x: &[[Acts; N]]) -> [[i32; PANEL_ROWS]; N] {
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
    // A multiple of every vector width, so that the pattern of two is a constant vector in the loop below.
    let even: [i16; LANES] = std::array::from_fn(|i| at(2 * (i % 2)));
    let odd: [i16; LANES] = std::array::from_fn(|i| at(2 * (i % 2) + 1));
    for i in 0..LANES {
        // Wrapping, as weights of a foreign origin could hold code 3; packed by this crate they cannot overflow.
        sums[i] = sums[i].wrapping_add(low[i] * even[i]).wrapping_add(high[i] * odd[i]);
    }
}
