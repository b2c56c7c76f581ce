//! AVX2: a panel is two registers of 8 rows; `vpmaddubsw` and 16-bit sums, widened before they overflow.

use std::arch::x86_64::*;

use super::lanes::{Lanes, product};
use super::product::{Product, Tile};
use super::{CHUNK_BYTES, CHUNKS_PER_QUAD, Chunk, MAX_GROUP_LEN, PANEL_ROWS, QUAD_COLS, UNIT_GROUPS};
use crate::i2s::Acts;
use crate::i2s::avx2::{self, broadcast};
use crate::isa::{Avx2, compiled, proven};
use crate::simd::{self, prefetch_page_ahead};

/// Quads of the longest group: a bound that the compiler sees.
const MAX_GROUP_QUADS: usize = MAX_GROUP_LEN / QUAD_COLS;
/// Two neighbouring products, of codes up to 3 and digits from -128.
const PAIR: usize = 2 * 3 * 128;
/// Each of four fields of a chunk adds such a pair to a lane: `8 * 4 * 768 = 24576 < 2^15`.
const FLUSH: usize = 8;
const _: () = assert!(FLUSH * 4 * PAIR <= i16::MAX as usize);
/// Four times as much, from two fields: `4 * 2 * 4 * 768 = 24576 < 2^15`.
const FLUSH_QUADRUPLE: usize = 4;
const _: () = assert!(FLUSH_QUADRUPLE * 2 * 4 * PAIR <= i16::MAX as usize);

/// Rows `8 * r..8 * r + 8` of a chunk.
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
pub(super) fn load(chunk: &Chunk, r: usize) -> __m256i {
    let halves: &[[u8; 32]; 2] = bytemuck::cast_ref(chunk);
    simd::load(&halves[r])
}

#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
pub(super) fn field<const J: i32>(v: __m256i) -> __m256i {
    let v = match J {
        0 => v,
        1 => _mm256_srli_epi16::<2>(v),
        2 => _mm256_srli_epi16::<4>(v),
        _ => _mm256_srli_epi16::<6>(v),
    };
    _mm256_and_si256(v, _mm256_set1_epi8(3))
}

#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
pub(super) fn quadruples(v: __m256i) -> [__m256i; 4] {
    let (low, high) = (_mm256_set1_epi8(0x03), _mm256_set1_epi8(0x0c));
    let u = _mm256_srli_epi16::<4>(v);
    [_mm256_and_si256(v, low), _mm256_and_si256(v, high), _mm256_and_si256(u, low), _mm256_and_si256(u, high)]
}

/// The operations on sums of eight i32 that all 256-bit instruction sets share.
macro_rules! eight_rows {
    () => {
        type Float = Avx2;
        type B = __m256i;
        type A = __m256i;
        type W = __m256i;

        #[inline(always)]
        fn load(self, chunk: &Chunk, r: usize) -> __m256i {
            proven!(self, $crate::group::avx2::load(chunk, r))
        }
        #[inline(always)]
        fn field<const J: i32>(self, v: __m256i) -> __m256i {
            proven!(self, $crate::group::avx2::field::<J>(v))
        }
        #[inline(always)]
        fn quadruples(self, v: __m256i) -> [__m256i; 4] {
            proven!(self, $crate::group::avx2::quadruples(v))
        }
        #[inline(always)]
        fn zero(self) -> __m256i {
            proven!(self, _mm256_setzero_si256())
        }
        #[inline(always)]
        fn zero_rows(self) -> __m256i {
            proven!(self, _mm256_setzero_si256())
        }
        #[inline(always)]
        fn add(self, a: __m256i, b: __m256i) -> __m256i {
            proven!(self, _mm256_add_epi32(a, b))
        }
        #[inline(always)]
        fn quarter(self, a: __m256i) -> __m256i {
            proven!(self, _mm256_srai_epi32::<2>(a))
        }
        #[inline(always)]
        fn digits(self, hi: __m256i, lo: __m256i) -> __m256i {
            proven!(self, _mm256_add_epi32(_mm256_slli_epi32::<8>(hi), lo))
        }
        #[inline(always)]
        fn less(self, a: __m256i, x: i32) -> __m256i {
            proven!(self, _mm256_sub_epi32(a, _mm256_set1_epi32(x)))
        }
        #[inline(always)]
        fn panel(self, rows: [__m256i; 2]) -> [__m256i; 2] {
            rows
        }
        #[inline(always)]
        fn prefetch(self, chunk: &Chunk) {
            $crate::simd::prefetch_page_ahead(chunk);
        }
    };
}
pub(super) use eight_rows;

impl Lanes<2> for Avx2 {
    const FLUSH: usize = FLUSH;
    const FLUSH_QUADRUPLE: usize = FLUSH_QUADRUPLE;
    eight_rows!();

    #[inline(always)]
    fn float(self) -> Avx2 {
        self
    }
    #[inline(always)]
    fn dot<const J: i32>(self, sum: __m256i, codes: __m256i, x: &Acts) -> __m256i {
        proven!(self, _mm256_add_epi16(sum, _mm256_maddubs_epi16(codes, broadcast(x, J as usize))))
    }
    #[inline(always)]
    fn rows(self, sum: __m256i) -> __m256i {
        proven!(self, _mm256_madd_epi16(sum, _mm256_set1_epi16(1)))
    }
}

product!(
    tiles,
    lanes = Avx2,
    registers = 2,
    Avx2 = |lanes| lanes,
    panels = 1,
    tokens = 4,
    tiles = [(1, 1, 1, true), (1, 1, 2, false), (1, 1, 3, false), (1, 1, 4, false)]
);

/// Computes the product.
pub(super) fn product(cpu: Avx2, product: &Product<'_>, out: &mut [f32]) {
    if (product.digits(), product.tokens()) != (2, 1) {
        return tiles(cpu, product, out);
    }
    product.for_tiles(1, 1, |t| {
        compiled!(Avx2, cpu => |_cpu, product: &Product<'_>, t: &Tile<'_>, out: &mut [f32]| {
            t.store(product, 0, 0, &panel(product, t), out);
        });
    });
}

/// One panel times one token of two digits. As a generic tile computes it, except that no array is indexed by a loop, so
/// that all sums stay in registers, and that both digits are put together by the multiplication that widens their sums.
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
fn panel(product: &Product<'_>, t: &Tile<'_>) -> [f32; PANEL_ROWS] {
    let (_, group_quads) = t.quads(product);
    let (mut lines, mut sums) = (t.weights(product, 0), t.sums);
    let (mut x, _) = t.acts.as_chunks::<2>();
    let [mut low, mut high] = [_mm256_setzero_ps(); 2];
    while let Some((scales, rest)) = lines.split_first() {
        prefetch_page_ahead(scales);
        lines = rest;
        let (scales, _) = scales.as_chunks::<{ CHUNK_BYTES / UNIT_GROUPS }>();
        for d in scales {
            let quads = group_quads.min(lines.len() / CHUNKS_PER_QUAD);
            if quads == 0 {
                break;
            }
            let (w, rest) = lines.split_at(quads * CHUNKS_PER_QUAD);
            let (group_x, rest_x) = x.split_at(w.len());
            let (group_sums, rest_sums) = sums.split_at(quads);
            (lines, x, sums) = (rest, rest_x, rest_sums);
            let [a, b] = group(w, group_x, group_sums.iter().take(MAX_GROUP_QUADS).sum());
            let (d, _) = d.as_chunks::<16>();
            low = _mm256_add_ps(low, _mm256_mul_ps(_mm256_cvtph_ps(simd::load(&d[0])), a));
            high = _mm256_add_ps(high, _mm256_mul_ps(_mm256_cvtph_ps(simd::load(&d[1])), b));
        }
    }
    simd::load(&[low, high])
}

/// The sums of a group, of which `less` is the sum of the activations: rows 0 to 7 and rows 8 to 15.
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
fn group(w: &[Chunk], x: &[[Acts; 2]], less: i32) -> [__m256; 2] {
    let [mut low, mut high] = [_mm256_set1_epi32(-4 * less); 2];
    let (runs, _) = w.as_chunks::<FLUSH_QUADRUPLE>();
    let (x_runs, _) = x.as_chunks::<FLUSH_QUADRUPLE>();
    for (run, x) in runs.iter().zip(x_runs) {
        [low, high] = add_run([low, high], run, x);
    }
    // Exact: every term is a multiple of 4, and the fourth is below 2^24.
    [_mm256_cvtepi32_ps(_mm256_srai_epi32::<2>(low)), _mm256_cvtepi32_ps(_mm256_srai_epi32::<2>(high))]
}

/// Sums of 16 bits of eight rows: of the upper and the lower digits, fields 0 and 2, and four times those of fields 1 and 3.
struct Narrow {
    high: __m256i,
    high4: __m256i,
    low: __m256i,
    low4: __m256i,
}

/// Adds four times the sums of some chunks to those of rows 0 to 7 and of rows 8 to 15.
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
fn add_run(
    [low, high]: [__m256i; 2],
    run: &[Chunk; FLUSH_QUADRUPLE],
    x: &[[Acts; 2]; FLUSH_QUADRUPLE],
) -> [__m256i; 2] {
    let zero = _mm256_setzero_si256();
    let none = || Narrow { high: zero, high4: zero, low: zero, low4: zero };
    let [mut a, mut b] = [none(), none()];
    let (first, second) = (_mm256_set1_epi8(0x03), _mm256_set1_epi8(0x0c));
    for (chunk, x) in run.iter().zip(x) {
        prefetch_page_ahead(chunk);
        let [mut v0, mut v1] = avx2::load(chunk);
        for j in [0, 2] {
            let (c0, c1) = (_mm256_and_si256(v0, first), _mm256_and_si256(v1, first));
            let (hi, lo) = (broadcast(&x[0], j), broadcast(&x[1], j));
            (a.high, b.high) = (add(a.high, c0, hi), add(b.high, c1, hi));
            (a.low, b.low) = (add(a.low, c0, lo), add(b.low, c1, lo));
            let (c0, c1) = (_mm256_and_si256(v0, second), _mm256_and_si256(v1, second));
            let (hi, lo) = (broadcast(&x[0], j + 1), broadcast(&x[1], j + 1));
            (a.high4, b.high4) = (add(a.high4, c0, hi), add(b.high4, c1, hi));
            (a.low4, b.low4) = (add(a.low4, c0, lo), add(b.low4, c1, lo));
            (v0, v1) = (_mm256_srli_epi16::<4>(v0), _mm256_srli_epi16::<4>(v1));
        }
    }
    [widened(low, &a), widened(high, &b)]
}

/// `sum + codes * x`.
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
fn add(sum: __m256i, codes: __m256i, x: __m256i) -> __m256i {
    _mm256_add_epi16(sum, _mm256_maddubs_epi16(codes, x))
}

/// `sum` and four times the sums of `v`, the upper digits 256 times as large.
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
fn widened(sum: __m256i, v: &Narrow) -> __m256i {
    let times = |v, factor| _mm256_madd_epi16(v, _mm256_set1_epi16(factor));
    let upper = _mm256_add_epi32(times(v.high, 4 * 256), times(v.high4, 256));
    let lower = _mm256_add_epi32(times(v.low, 4), times(v.low4, 1));
    _mm256_add_epi32(sum, _mm256_add_epi32(upper, lower))
}

// Four times the largest sum of a group, and the sum of its activations, fit an i32.
const _: () = assert!(4 * (3 + 1) * MAX_GROUP_LEN as u64 * (crate::INT16_MAX as u64 + 128) < 1 << 31);
const _: () = assert!(CHUNKS_PER_QUAD.is_multiple_of(FLUSH_QUADRUPLE));
