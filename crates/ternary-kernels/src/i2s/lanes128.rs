//! I2_S on registers of 128 bits without a dot-product instruction: SSE4.1, NEON as every 64-bit ARM has it, and
//! WebAssembly SIMD.
//!
//! A chunk is four registers of four rows each. Codes are cut out, multiplied with four activations that are repeated in
//! all lanes, and added up in 16 bits, a lane for each row and one or two columns of the field, for [`flush_after`]
//! chunks; then the lanes of a row are added to 32 bits. Written once over [`Lanes128`].

use super::{Acts, CHUNK_BYTES, Chunk, PANEL_ROWS, Product, Tile};

/// Tokens of a GEMM tile: each has two registers of sums.
pub(super) const MAX_TOKENS: usize = 4;

/// Chunks between two flushes of the 16-bit sums, where a lane takes `columns` products of at most `2 * 127` from each
/// of four fields: 32 for one column, `32 * 4 * 254 = 32512 < 2^15`, and 16 for two.
const fn flush_after(columns: usize) -> usize {
    i16::MAX as usize / (4 * columns * (2 * 127))
}
const _: () = assert!(flush_after(1) == 32 && flush_after(2) == 16);

/// Registers of a chunk.
const REGISTERS: usize = CHUNK_BYTES / 16;

/// An instruction set's operations on 128 bits. `self` is a proof token, so the methods are safe.
pub(crate) trait Lanes128: Copy {
    /// 16 bytes.
    type B: Copy;
    /// 8 i16.
    type H: Copy;
    /// Sums of products of four rows in 16 bits: a lane for each row and [`Lanes128::COLUMNS`] columns of a field.
    type P: Copy;
    /// The same in 32 bits, of one or more lanes for each row.
    type W: Copy;
    /// Columns of a field whose products go to the same lane, 1 or 2. With one, four rows take two registers.
    const COLUMNS: usize;

    fn load(self, x: &[u8; 16]) -> Self::B;
    fn store(self, v: Self::B, out: &mut [u8; 16]);
    fn splat(self, x: u8) -> Self::B;
    /// The four bytes in every i32 lane.
    fn splat4(self, x: [u8; 4]) -> Self::B;
    fn and(self, a: Self::B, b: Self::B) -> Self::B;
    fn or(self, a: Self::B, b: Self::B) -> Self::B;
    fn xor(self, a: Self::B, b: Self::B) -> Self::B;
    /// Wrapping subtraction.
    fn sub(self, a: Self::B, b: Self::B) -> Self::B;
    /// Each byte shifted by 2, 4, 6 bits to the right, zeros following.
    fn shr2(self, a: Self::B) -> Self::B;
    fn shr4(self, a: Self::B) -> Self::B;
    fn shr6(self, a: Self::B) -> Self::B;
    /// Each byte shifted by 2 bits to the left.
    fn shl2(self, a: Self::B) -> Self::B;
    /// Entries of a table of 64 bytes; 0 for an index above 63.
    fn lookup(self, table: [Self::B; 4], index: Self::B) -> Self::B;

    /// Entries of a table of 16 bytes; the index is below 16.
    fn lookup16(self, table: Self::B, index: Self::B) -> Self::B;
    /// Wrapping addition of bytes.
    fn add(self, a: Self::B, b: Self::B) -> Self::B;
    /// All bits of the bytes that are negative as i8, no bits of the others.
    fn negative(self, v: Self::B) -> Self::B;

    fn zero_h(self) -> Self::H;
    fn store_h(self, v: Self::H, out: &mut [i16; 8]);
    /// `sums + low + base * high`, bytes as i8: lanes 0 to 7 and lanes 8 to 15.
    fn add_digits(self, sums: [Self::H; 2], low: Self::B, high: Self::B, base: u8) -> [Self::H; 2];

    fn zero_p(self) -> Self::P;
    fn zero_w(self) -> Self::W;
    /// `sums + codes * x`, codes below 128, activations as i8.
    fn mul_add(self, sums: Self::P, codes: Self::B, x: Self::B) -> Self::P;
    fn widen(self, wide: Self::W, narrow: Self::P) -> Self::W;
    /// The sum of each row.
    fn rows(self, wide: Self::W) -> [i32; 4];

    /// Asks for what comes some way after `chunk`, which is about to be read once.
    #[inline(always)]
    fn prefetch(self, _chunk: &Chunk) {}
}

/// Per row, the sum of code times activation.
#[inline(always)]
pub(super) fn panel_sums<S: Lanes128>(s: S, panel: &[Chunk], x: &[Acts]) -> [i32; PANEL_ROWS] {
    let [sums] = code_sums::<S, REGISTERS, 1>(s, panel, x.as_chunks().0);
    sums
}

/// A tile of one panel and any number of tokens.
#[inline(always)]
pub(super) fn tiles<S: Lanes128>(s: S, product: &Product<'_>, t: &Tile<'_>, acc: &mut [i32]) {
    match t.tokens.len() {
        1 => tile::<S, REGISTERS, 1>(s, product, t, acc),
        // Eight registers of sums at most.
        2 if S::COLUMNS == 2 => tile::<S, 2, 2>(s, product, t, acc),
        3 if S::COLUMNS == 2 => tile::<S, 2, 3>(s, product, t, acc),
        MAX_TOKENS if S::COLUMNS == 2 => tile::<S, 2, MAX_TOKENS>(s, product, t, acc),
        2 => tile::<S, 1, 2>(s, product, t, acc),
        3 => tile::<S, 1, 3>(s, product, t, acc),
        MAX_TOKENS => tile::<S, 1, MAX_TOKENS>(s, product, t, acc),
        n => unreachable!("a tile of {n} tokens"),
    }
}

#[inline(always)]
fn tile<S: Lanes128, const R: usize, const N: usize>(s: S, product: &Product<'_>, t: &Tile<'_>, acc: &mut [i32]) {
    let [w] = t.weights::<1>();
    for (n, sums) in code_sums::<S, R, N>(s, w, t.acts.as_chunks().0).iter().enumerate() {
        t.store(product, 0, n, sums, acc);
    }
}

/// Per token and row, the sum of code times activation, `R` registers of weights at a time.
#[inline(always)]
fn code_sums<S: Lanes128, const R: usize, const N: usize>(
    s: S,
    w: &[Chunk],
    x: &[[Acts; N]],
) -> [[i32; PANEL_ROWS]; N] {
    let flush = flush_after(S::COLUMNS);
    let mut out = [[0; PANEL_ROWS]; N];
    for first in (0..REGISTERS).step_by(R) {
        let mut wide = [[s.zero_w(); R]; N];
        for (w, x) in w.chunks(flush).zip(x.chunks(flush)) {
            let mut narrow = [[s.zero_p(); R]; N];
            for (w, x) in w.iter().zip(x) {
                if N == 1 {
                    s.prefetch(w);
                }
                let (w, _) = w.as_chunks::<16>();
                let mut v = [s.load(&w[first]); R];
                for r in 1..R {
                    v[r] = s.load(&w[first + r]);
                }
                // Written out: the sums stay in registers only if no loop around theirs is left to unroll.
                add_field::<S, R, N, 0>(s, &mut narrow, v, x);
                add_field::<S, R, N, 1>(s, &mut narrow, v, x);
                add_field::<S, R, N, 2>(s, &mut narrow, v, x);
                add_field::<S, R, N, 3>(s, &mut narrow, v, x);
            }
            for n in 0..N {
                for r in 0..R {
                    wide[n][r] = s.widen(wide[n][r], narrow[n][r]);
                }
            }
        }
        for n in 0..N {
            for r in 0..R {
                out[n][4 * (first + r)..][..4].copy_from_slice(&s.rows(wide[n][r]));
            }
        }
    }
    out
}

/// Adds the products of field `J`.
#[inline(always)]
fn add_field<S: Lanes128, const R: usize, const N: usize, const J: usize>(
    s: S,
    sums: &mut [[S::P; R]; N],
    v: [S::B; R],
    x: &[Acts; N],
) {
    let mut codes = v;
    for r in 0..R {
        codes[r] = field::<S, J>(s, v[r]);
    }
    for n in 0..N {
        let x = s.splat4(x[n].as_chunks().0[J]);
        for r in 0..R {
            sums[n][r] = s.mul_add(sums[n][r], codes[r], x);
        }
    }
}

/// The codes of field `J`.
#[inline(always)]
pub(crate) fn field<S: Lanes128, const J: usize>(s: S, v: S::B) -> S::B {
    match J {
        0 => s.and(v, s.splat(3)),
        1 => s.and(s.shr2(v), s.splat(3)),
        2 => s.and(s.shr4(v), s.splat(3)),
        _ => s.shr6(v),
    }
}

/// Makes a token that is [`Lanes128`] a back end.
macro_rules! backend {
    ($token:ident) => {
        impl $crate::panel_kernel::Chunks for $crate::isa::$token {
            const MAX_TOKENS: usize = $crate::i2s::lanes128::MAX_TOKENS;
            const TABLES_FROM: Option<usize> = Some(<Self as $crate::token_tables::TokenLanes>::LAST_FROM);

            fn code_sums(self, panel: &[Chunk], x: &[Acts]) -> [i32; PANEL_ROWS] {
                $crate::isa::compiled!($token, self => |cpu, panel: &[Chunk], x: &[Acts]| -> [i32; PANEL_ROWS] {
                    $crate::i2s::lanes128::panel_sums(cpu, panel, x)
                })
            }
            fn tile(self, product: &Product<'_>, t: &Tile<'_>, acc: &mut [i32]) {
                $crate::isa::compiled!($token, self => |cpu, product: &Product<'_>, t: &Tile<'_>, acc: &mut [i32]| {
                    $crate::i2s::lanes128::tiles(cpu, product, t, acc);
                });
            }
            fn by_tables(
                self,
                product: &Product<'_>,
                weights: &mut impl $crate::token_tables::StepWeights,
                acc: &mut [i32],
            ) {
                use $crate::token_tables::StepWeights;
                $crate::isa::compiled!(
                    $token,
                    self => |cpu, product: &Product<'_>, weights: &mut impl StepWeights, acc: &mut [i32]| {
                        $crate::token_tables::product::<_, 4, _>(cpu, product, weights, acc);
                    }
                );
            }
        }
    };
}
pub(super) use backend;
