//! I2_S for 64-bit ARM: NEON alone, with the dot-product extension, and with the matrix-multiplication extension.
//!
//! NEON alone multiplies as described in [`super::lanes128`]. `sdot` multiplies 16 codes with four activations that it
//! repeats itself, and adds four products to each i32 lane, a row: like `vpdpbusd` on x86, on 128 bits. `smmla`
//! multiplies a matrix of two rows and eight columns with one of eight columns and two tokens; two fields side by side
//! are its eight columns, so GEMM takes tokens in pairs.
//!
//! Both are written as assembly, because their intrinsics are not stable yet.

use std::arch::aarch64::*;
use std::arch::asm;

use super::lanes128::{self, Lanes128};
use super::{Acts, Chunk, PANEL_ROWS, Product, Tile};
use crate::isa::{Neon, NeonDot, NeonI8mm, compiled, proven};
use crate::panel_kernel::Chunks;
use crate::simd;

/// Tokens of a GEMM tile, for both extensions: 16 registers of sums.
const MAX_TOKENS: usize = 4;

impl Lanes128 for Neon {
    type B = uint8x16_t;
    type H = int16x8_t;
    type P = [int16x8_t; 2];
    type W = [int32x4_t; 2];
    const COLUMNS: usize = 1;

    #[inline(always)]
    fn load(self, x: &[u8; 16]) -> Self::B {
        simd::load(x)
    }
    #[inline(always)]
    fn store(self, v: Self::B, out: &mut [u8; 16]) {
        simd::store(v, out);
    }
    #[inline(always)]
    fn splat(self, x: u8) -> Self::B {
        proven!(self, vdupq_n_u8(x))
    }
    #[inline(always)]
    fn splat4(self, x: [u8; 4]) -> Self::B {
        proven!(self, vreinterpretq_u8_u32(vdupq_n_u32(u32::from_le_bytes(x))))
    }
    #[inline(always)]
    fn and(self, a: Self::B, b: Self::B) -> Self::B {
        proven!(self, vandq_u8(a, b))
    }
    #[inline(always)]
    fn or(self, a: Self::B, b: Self::B) -> Self::B {
        proven!(self, vorrq_u8(a, b))
    }
    #[inline(always)]
    fn xor(self, a: Self::B, b: Self::B) -> Self::B {
        proven!(self, veorq_u8(a, b))
    }
    #[inline(always)]
    fn sub(self, a: Self::B, b: Self::B) -> Self::B {
        proven!(self, vsubq_u8(a, b))
    }
    #[inline(always)]
    fn shr2(self, a: Self::B) -> Self::B {
        proven!(self, vshrq_n_u8::<2>(a))
    }
    #[inline(always)]
    fn shr4(self, a: Self::B) -> Self::B {
        proven!(self, vshrq_n_u8::<4>(a))
    }
    #[inline(always)]
    fn shr6(self, a: Self::B) -> Self::B {
        proven!(self, vshrq_n_u8::<6>(a))
    }
    #[inline(always)]
    fn shl2(self, a: Self::B) -> Self::B {
        proven!(self, vshlq_n_u8::<2>(a))
    }
    #[inline(always)]
    fn lookup(self, [a, b, c, d]: [Self::B; 4], index: Self::B) -> Self::B {
        proven!(self, vqtbl4q_u8(uint8x16x4_t(a, b, c, d), index))
    }

    #[inline(always)]
    fn lookup16(self, table: Self::B, index: Self::B) -> Self::B {
        proven!(self, vqtbl1q_u8(table, index))
    }
    #[inline(always)]
    fn add(self, a: Self::B, b: Self::B) -> Self::B {
        proven!(self, vaddq_u8(a, b))
    }
    #[inline(always)]
    fn negative(self, v: Self::B) -> Self::B {
        proven!(self, vcltzq_s8(vreinterpretq_s8_u8(v)))
    }

    #[inline(always)]
    fn store_h(self, v: Self::H, out: &mut [i16; 8]) {
        simd::store(v, out);
    }
    #[inline(always)]
    fn zero_h(self) -> Self::H {
        proven!(self, vdupq_n_s16(0))
    }
    #[inline(always)]
    fn add_digits(self, sums: [Self::H; 2], low: Self::B, high: Self::B, base: u8) -> [Self::H; 2] {
        self.mul_add(self.mul_add(sums, low, self.splat(1)), high, self.splat(base))
    }

    #[inline(always)]
    fn zero_p(self) -> Self::P {
        [self.zero_h(); 2]
    }
    #[inline(always)]
    fn zero_w(self) -> Self::W {
        proven!(self, [vdupq_n_s32(0); 2])
    }
    #[inline(always)]
    fn mul_add(self, sums: Self::P, codes: Self::B, x: Self::B) -> Self::P {
        proven!(self, {
            let (codes, x) = (vreinterpretq_s8_u8(codes), vreinterpretq_s8_u8(x));
            [vmlal_s8(sums[0], vget_low_s8(codes), vget_low_s8(x)), vmlal_high_s8(sums[1], codes, x)]
        })
    }
    #[inline(always)]
    fn widen(self, wide: Self::W, narrow: Self::P) -> Self::W {
        proven!(self, [vpadalq_s16(wide[0], narrow[0]), vpadalq_s16(wide[1], narrow[1])])
    }
    #[inline(always)]
    fn rows(self, wide: Self::W) -> [i32; 4] {
        to_array(proven!(self, vpaddq_s32(wide[0], wide[1])))
    }
}

lanes128::backend!(Neon);

/// Makes the token of an extension a back end; `$tiles` computes a tile.
macro_rules! backend {
    ($token:ident, tiles = $tiles:ident) => {
        impl Chunks for $token {
            const MAX_TOKENS: usize = MAX_TOKENS;

            fn code_sums(self, panel: &[Chunk], x: &[Acts]) -> [i32; PANEL_ROWS] {
                compiled!($token, self => |_cpu, panel: &[Chunk], x: &[Acts]| -> [i32; PANEL_ROWS] {
                    let [sums] = dot_sums::<1>(panel, x.as_chunks().0);
                    sums
                })
            }
            fn tile(self, product: &Product<'_>, t: &Tile<'_>, acc: &mut [i32]) {
                compiled!($token, self => |_cpu, product: &Product<'_>, t: &Tile<'_>, acc: &mut [i32]| {
                    $tiles(product, t, acc);
                });
            }
        }
    };
}

backend!(NeonDot, tiles = dot_tiles);
backend!(NeonI8mm, tiles = i8mm_tiles);

/// A tile of one panel and any number of tokens, by `sdot`.
#[target_feature(enable = "neon,dotprod")]
fn dot_tiles(product: &Product<'_>, t: &Tile<'_>, acc: &mut [i32]) {
    match t.tokens.len() {
        1 => dot_tile::<1>(product, t, acc),
        2 => dot_tile::<2>(product, t, acc),
        3 => dot_tile::<3>(product, t, acc),
        MAX_TOKENS => dot_tile::<MAX_TOKENS>(product, t, acc),
        n => unreachable!("a tile of {n} tokens"),
    }
}

#[target_feature(enable = "neon,dotprod")]
fn dot_tile<const N: usize>(product: &Product<'_>, t: &Tile<'_>, acc: &mut [i32]) {
    let [w] = t.weights::<1>();
    for (n, sums) in dot_sums::<N>(w, t.acts.as_chunks().0).iter().enumerate() {
        t.store(product, 0, n, sums, acc);
    }
}

/// Per token and row, the sum of code times activation. Sums of codes may exceed 2^31 in very long rows, and wrap.
#[target_feature(enable = "neon,dotprod")]
fn dot_sums<const N: usize>(w: &[Chunk], x: &[[Acts; N]]) -> [[i32; PANEL_ROWS]; N] {
    let mut sums = [[vdupq_n_s32(0); 4]; N];
    for (w, x) in w.iter().zip(x) {
        let x: [int8x16_t; N] = std::array::from_fn(|n| load(&x[n]));
        let (w, _) = w.as_chunks::<16>();
        for r in 0..4 {
            let codes = fields(load(&w[r]));
            for n in 0..N {
                let sum = sdot::<0>(sums[n][r], codes[0], x[n]);
                let sum = sdot::<1>(sum, codes[1], x[n]);
                let sum = sdot::<2>(sum, codes[2], x[n]);
                sums[n][r] = sdot::<3>(sum, codes[3], x[n]);
            }
        }
    }
    sums.map(|sums| rows(sums.map(to_array)))
}

/// A tile of one panel and any number of tokens, by `smmla`, which takes two tokens; a single one is used twice.
#[target_feature(enable = "neon,dotprod,i8mm")]
fn i8mm_tiles(product: &Product<'_>, t: &Tile<'_>, acc: &mut [i32]) {
    match t.tokens.len() {
        1 => dot_tile::<1>(product, t, acc),
        2 => i8mm_tile::<2, 1>(product, t, acc),
        3 => i8mm_tile::<3, 2>(product, t, acc),
        MAX_TOKENS => i8mm_tile::<MAX_TOKENS, 2>(product, t, acc),
        n => unreachable!("a tile of {n} tokens"),
    }
}

/// A tile of `N` tokens in `P` pairs.
#[target_feature(enable = "neon,dotprod,i8mm")]
fn i8mm_tile<const N: usize, const P: usize>(product: &Product<'_>, t: &Tile<'_>, acc: &mut [i32]) {
    const { assert!(P == N.div_ceil(2)) };
    let [w] = t.weights::<1>();
    // Per pair and register of weights, rows 0 and 1, then rows 2 and 3: [row 0, both tokens; row 1, both tokens].
    let mut sums = [[[vdupq_n_s32(0); 2]; 4]; P];
    for (w, x) in w.iter().zip(t.acts.as_chunks::<N>().0) {
        // Columns 0 to 7 of both tokens, and columns 8 to 15.
        let mut pairs = [[vdupq_n_s8(0); 2]; P];
        for p in 0..P {
            let (a, b) = (load(&x[2 * p]), load(&x[(2 * p + 1).min(N - 1)]));
            let (a, b) = (vreinterpretq_s64_s8(a), vreinterpretq_s64_s8(b));
            pairs[p] = [vreinterpretq_s8_s64(vzip1q_s64(a, b)), vreinterpretq_s8_s64(vzip2q_s64(a, b))];
        }
        let (w, _) = w.as_chunks::<16>();
        for r in 0..4 {
            let codes = fields(load(&w[r]));
            for half in 0..2 {
                let a = vreinterpretq_s32_s8(codes[2 * half]);
                let b = vreinterpretq_s32_s8(codes[2 * half + 1]);
                let low = vreinterpretq_s8_s32(vzip1q_s32(a, b));
                let high = vreinterpretq_s8_s32(vzip2q_s32(a, b));
                for p in 0..P {
                    sums[p][r][0] = smmla(sums[p][r][0], low, pairs[p][half]);
                    sums[p][r][1] = smmla(sums[p][r][1], high, pairs[p][half]);
                }
            }
        }
    }
    for n in 0..N {
        let token = sums[n / 2].map(|[low, high]| {
            let (low, high) = (to_array(low), to_array(high));
            [low[n % 2], low[2 + n % 2], high[n % 2], high[2 + n % 2]]
        });
        t.store(product, 0, n, &rows(token), acc);
    }
}

/// The codes of the four fields.
#[inline]
#[target_feature(enable = "neon")]
fn fields(v: int8x16_t) -> [int8x16_t; 4] {
    let (v, three) = (vreinterpretq_u8_s8(v), vdupq_n_u8(3));
    let codes = [
        vandq_u8(v, three),
        vandq_u8(vshrq_n_u8::<2>(v), three),
        vandq_u8(vshrq_n_u8::<4>(v), three),
        vshrq_n_u8::<6>(v),
    ];
    [
        vreinterpretq_s8_u8(codes[0]),
        vreinterpretq_s8_u8(codes[1]),
        vreinterpretq_s8_u8(codes[2]),
        vreinterpretq_s8_u8(codes[3]),
    ]
}

/// Adds to each i32 lane the product of its four codes with activations `4J..4J + 4`.
#[inline]
#[target_feature(enable = "neon,dotprod")]
pub(crate) fn sdot<const J: i32>(mut sum: int32x4_t, codes: int8x16_t, x: int8x16_t) -> int32x4_t {
    // SAFETY: the instruction reads and writes its registers only, and the function is compiled for the extension.
    unsafe {
        asm!(
            "sdot {sum:v}.4s, {codes:v}.16b, {x:v}.4b[{j}]",
            sum = inout(vreg) sum, codes = in(vreg) codes, x = in(vreg) x, j = const J,
            options(pure, nomem, nostack, preserves_flags)
        );
    }
    sum
}

/// Adds to lanes `2i + j` the product of eight codes of row `i` with eight activations of token `j`.
#[inline]
#[target_feature(enable = "neon,i8mm")]
fn smmla(mut sum: int32x4_t, codes: int8x16_t, x: int8x16_t) -> int32x4_t {
    // SAFETY: the instruction reads and writes its registers only, and the function is compiled for the extension.
    unsafe {
        asm!(
            "smmla {sum:v}.4s, {codes:v}.16b, {x:v}.16b",
            sum = inout(vreg) sum, codes = in(vreg) codes, x = in(vreg) x,
            options(pure, nomem, nostack, preserves_flags)
        );
    }
    sum
}

#[inline(always)]
pub(crate) fn load(x: &[u8; 16]) -> int8x16_t {
    simd::load(x)
}

#[inline(always)]
pub(crate) fn to_array(v: int32x4_t) -> [i32; 4] {
    simd::load(&v)
}

/// Four registers of four rows each.
#[inline]
fn rows(fours: [[i32; 4]; 4]) -> [i32; PANEL_ROWS] {
    let mut out = [0; PANEL_ROWS];
    out.copy_from_slice(fours.as_flattened());
    out
}
