//! I2_S for AVX2: `vpmaddubsw` and 16-bit sums, for CPUs without a dot-product instruction.
//!
//! A chunk is two registers of 8 rows each. `vpmaddubsw` multiplies codes with activations and adds neighbours, so the
//! four products of an i32 lane become two i16 sums of the same row. These are added in 16 bits as long as they
//! provably fit, and then widened by a multiplication with ones that adds the two.
//!
//! # GEMV
//! ```text
//! for each panel, for each half of 8 rows:
//!     a = b = 0 (i16);  wide = 0 (i32)
//!     for each chunk t:
//!         v = 32 bytes;  u = v >> 4
//!         a += (v & 0x03) . x[16t ..]      + (u & 0x03) . x[16t +  8 ..]     fields 0 and 2, unchanged
//!         b += (v & 0x0c) . x[16t +  4 ..] + (u & 0x0c) . x[16t + 12 ..]     fields 1 and 3, four times their value
//!         after every 8 chunks: wide += 4 * pairs of a + pairs of b;  a = b = 0
//!     acc[row] = wide / 4 - sum(x)
//! ```
//! One shift serves four fields, and the multiplication that adds pairs also brings `a` to the scale of `b`.
//!
//! A tile of one panel by up to five tokens is computed 8 rows at a time, so that its sums stay in registers: with 16
//! rows at a time the 16 registers do not suffice, and it is 1.6 times slower, although activations are then read half
//! as often. Codes are extracted once per chunk and field.
//!
//! Tiles of many tokens use look-up tables instead, see [`crate::token_tables`].

use std::arch::x86_64::*;

use super::{Acts, Chunk, PANEL_ROWS, Product, Tile};
use crate::isa::{Avx2, compiled};
use crate::panel_kernel::Chunks;
use crate::simd::{self, prefetch_next_page, prefetch_page_ahead};
use crate::token_tables::{self, StepWeights, TokenLanes};

/// Tokens of a GEMM tile.
const MAX_TOKENS: usize = 5;

/// Chunks between two flushes of the 16-bit sums of GEMV. Each chunk adds two products of at most
/// `4 * 2 * 127 * 2 = 2032` to a lane of `b`: `8 * 2 * 2032 = 32512 < 2^15`.
const GEMV_FLUSH: usize = 8;
const _: () = assert!(GEMV_FLUSH * 2 * (4 * 2 * 127 * 2) <= i16::MAX as usize);
/// Chunks until the 32-bit sums of GEMV are divided by 4: each adds 16 products of `4 * 2 * 127` to a lane.
const GEMV_BLOCK: usize = 1 << 17;
const _: () = assert!(GEMV_BLOCK as u64 * (16 * (4 * 2 * 127)) < 1 << 31);
const _: () = assert!(GEMV_BLOCK.is_multiple_of(GEMV_FLUSH));

/// Chunks between two flushes of GEMM: each chunk adds four products of at most `2 * 127 * 2 = 508` to a lane,
/// `16 * 4 * 508 = 32512 < 2^15`.
const GEMM_FLUSH: usize = 16;
const _: () = assert!(GEMM_FLUSH * 4 * (2 * 127 * 2) <= i16::MAX as usize);

impl Chunks for Avx2 {
    const MAX_TOKENS: usize = MAX_TOKENS;
    const TABLES_FROM: Option<usize> = Some(Self::LAST_FROM);

    fn code_sums(self, panel: &[Chunk], x: &[Acts]) -> [i32; PANEL_ROWS] {
        compiled!(Avx2, self => |_cpu, panel: &[Chunk], x: &[Acts]| -> [i32; PANEL_ROWS] {
            let mut total = [_mm256_setzero_si256(); 2];
            for (panel, x) in panel.chunks(GEMV_BLOCK).zip(x.chunks(GEMV_BLOCK)) {
                let sums = code_sums(panel, x);
                total = [_mm256_add_epi32(total[0], sums[0]), _mm256_add_epi32(total[1], sums[1])];
            }
            to_array(total)
        })
    }
    fn tile(self, product: &Product<'_>, t: &Tile<'_>, acc: &mut [i32]) {
        compiled!(Avx2, self => |_cpu, product: &Product<'_>, t: &Tile<'_>, acc: &mut [i32]| {
            match t.tokens.len() {
                1 => tile::<1>(product, t, acc),
                2 => tile::<2>(product, t, acc),
                3 => tile::<3>(product, t, acc),
                4 => tile::<4>(product, t, acc),
                MAX_TOKENS => tile::<MAX_TOKENS>(product, t, acc),
                n => unreachable!("a tile of {n} tokens"),
            }
        });
    }
    fn by_tables(self, product: &Product<'_>, weights: &mut impl StepWeights, acc: &mut [i32]) {
        compiled!(Avx2, self => |cpu, product: &Product<'_>, weights: &mut impl StepWeights, acc: &mut [i32]| {
            token_tables::product::<_, 2, _>(cpu, product, weights, acc);
        });
    }
}

/// Per row, the sum of code times activation.
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
fn code_sums(panel: &[Chunk], x: &[Acts]) -> [__m256i; 2] {
    let [mut low, mut high] = [_mm256_setzero_si256(); 2];
    let (runs, last) = panel.as_chunks::<GEMV_FLUSH>();
    let (x_runs, x_last) = x.as_chunks::<GEMV_FLUSH>();
    for (run, x) in runs.iter().zip(x_runs) {
        [low, high] = add_run([low, high], run, x);
    }
    let sums = add_run([low, high], last, x_last);
    // Exact: every term is a multiple of 4.
    sums.map(|sum| _mm256_srai_epi32::<2>(sum))
}

/// Adds four times the sums of at most [`GEMV_FLUSH`] chunks to those of rows 0 to 7 and of rows 8 to 15. No array is
/// indexed by a loop, so that all sums stay in registers.
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
fn add_run([low, high]: [__m256i; 2], run: &[Chunk], x: &[Acts]) -> [__m256i; 2] {
    let [mut a0, mut b0, mut a1, mut b1] = [_mm256_setzero_si256(); 4];
    for (chunk, x) in run.iter().zip(x) {
        prefetch_page_ahead(chunk);
        let x = [broadcast(x, 0), broadcast(x, 1), broadcast(x, 2), broadcast(x, 3)];
        let [v0, v1] = load(chunk);
        [a0, b0] = add_half([a0, b0], v0, x);
        [a1, b1] = add_half([a1, b1], v1, x);
    }
    let (fours, ones) = (_mm256_set1_epi16(4), _mm256_set1_epi16(1));
    let add =
        |sum, a, b| _mm256_add_epi32(sum, _mm256_add_epi32(_mm256_madd_epi16(a, fours), _mm256_madd_epi16(b, ones)));
    [add(low, a0, b0), add(high, a1, b1)]
}

/// Adds the products of eight rows of a chunk, fields 0 and 2 to `a`, four times those of fields 1 and 3 to `b`.
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
fn add_half([a, b]: [__m256i; 2], v: __m256i, x: [__m256i; 4]) -> [__m256i; 2] {
    let (low, high) = (_mm256_set1_epi8(0x03), _mm256_set1_epi8(0x0c));
    let u = _mm256_srli_epi16::<4>(v);
    let a = _mm256_add_epi16(a, _mm256_maddubs_epi16(_mm256_and_si256(v, low), x[0]));
    let b = _mm256_add_epi16(b, _mm256_maddubs_epi16(_mm256_and_si256(v, high), x[1]));
    let a = _mm256_add_epi16(a, _mm256_maddubs_epi16(_mm256_and_si256(u, low), x[2]));
    let b = _mm256_add_epi16(b, _mm256_maddubs_epi16(_mm256_and_si256(u, high), x[3]));
    [a, b]
}

/// A tile of one panel times `N` tokens: first rows 0 to 7, then rows 8 to 15.
#[target_feature(enable = "avx2,fma,f16c")]
fn tile<const N: usize>(product: &Product<'_>, t: &Tile<'_>, acc: &mut [i32]) {
    let (x, _) = t.acts.as_chunks::<N>();
    let [w] = t.weights::<1>();
    let mut halves = [[_mm256_setzero_si256(); N]; 2];
    for (i, wide) in halves.iter_mut().enumerate() {
        for (w, x) in w.chunks(GEMM_FLUSH).zip(x.chunks(GEMM_FLUSH)) {
            prefetch_next_page(w);
            for (wide, narrow) in wide.iter_mut().zip(narrow_sums(w, x, i)) {
                *wide = _mm256_add_epi32(*wide, widened(narrow));
            }
        }
    }
    let [low, high] = halves;
    for (n, sums) in low.into_iter().zip(high).enumerate() {
        t.store(product, 0, n, &to_array(sums.into()), acc);
    }
}

/// The 16-bit sums of rows `8 * i..8 * i + 8` of at most [`GEMM_FLUSH`] chunks, all `N` in registers.
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
fn narrow_sums<const N: usize>(w: &[Chunk], x: &[[Acts; N]], i: usize) -> [__m256i; N] {
    let three = _mm256_set1_epi8(3);
    let mut sums = [_mm256_setzero_si256(); N];
    for (w, x) in w.iter().zip(x) {
        let v = load(w)[i];
        add_field(&mut sums, _mm256_and_si256(v, three), x, 0);
        add_field(&mut sums, _mm256_and_si256(_mm256_srli_epi16::<2>(v), three), x, 1);
        add_field(&mut sums, _mm256_and_si256(_mm256_srli_epi16::<4>(v), three), x, 2);
        add_field(&mut sums, _mm256_and_si256(_mm256_srli_epi16::<6>(v), three), x, 3);
    }
    sums
}

/// Adds the products of field `j`.
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
fn add_field<const N: usize>(sums: &mut [__m256i; N], codes: __m256i, x: &[Acts; N], j: usize) {
    for n in 0..N {
        sums[n] = _mm256_add_epi16(sums[n], _mm256_maddubs_epi16(codes, broadcast(&x[n], j)));
    }
}

/// Sums of neighbouring i16.
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
fn widened(v: __m256i) -> __m256i {
    _mm256_madd_epi16(v, _mm256_set1_epi16(1))
}

/// Rows 0 to 7 and rows 8 to 15 of a chunk.
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
pub(crate) fn load(chunk: &Chunk) -> [__m256i; 2] {
    let halves: &[[u8; 32]; 2] = bytemuck::cast_ref(chunk);
    [simd::load(&halves[0]), simd::load(&halves[1])]
}

/// Activations `4j..4j + 4` in every lane.
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
pub(crate) fn broadcast(x: &Acts, j: usize) -> __m256i {
    _mm256_set1_epi32(i32::from_le_bytes([x[4 * j], x[4 * j + 1], x[4 * j + 2], x[4 * j + 3]]))
}

/// The sums of rows 0 to 7 and of rows 8 to 15.
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
pub(crate) fn to_array(v: [__m256i; 2]) -> [i32; PANEL_ROWS] {
    simd::load(&v)
}
