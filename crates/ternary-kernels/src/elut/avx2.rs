//! Look-up tables for AVX2: `vpshufb` on two registers of 32 bytes, 16 rows and two groups each.

use std::arch::x86_64::*;

use super::lanes::{Lanes, compiled_runs};
use super::{Chunk, PANEL_ROWS};
use crate::isa::{Avx2, proven};
use crate::simd;

compiled_runs!(Avx2, tokens = 2, Avx2 = |lanes| lanes);

impl Lanes for Avx2 {
    /// Rows 0 to 15, rows 16 to 31.
    type V = [__m256i; 2];
    /// The tables of both lanes.
    type T = __m256i;
    /// -1 in the bytes to negate, something positive in the others.
    type M = [__m256i; 2];
    /// For rows 0 to 15, then 16 to 31: the first eight in both lanes, the other eight in both lanes.
    type W = [[__m256i; 2]; 2];

    #[inline(always)]
    fn load(self, x: &Chunk) -> Self::V {
        let [a, b]: &[[u8; 32]; 2] = bytemuck::cast_ref(x);
        [simd::load(a), simd::load(b)]
    }
    #[inline(always)]
    fn zero(self) -> Self::V {
        proven!(self, [_mm256_setzero_si256(); 2])
    }
    #[inline(always)]
    fn table(self, x: &[[u8; 16]; 2]) -> Self::T {
        simd::load(x)
    }
    #[inline(always)]
    fn low(self, v: Self::V) -> Self::V {
        proven!(self, v.map(|v| _mm256_and_si256(v, _mm256_set1_epi8(15))))
    }
    #[inline(always)]
    fn high(self, v: Self::V) -> Self::V {
        proven!(self, v.map(|v| _mm256_and_si256(_mm256_srli_epi16::<4>(v), _mm256_set1_epi8(15))))
    }
    #[inline(always)]
    fn lookup(self, table: Self::T, index: Self::V) -> Self::V {
        proven!(self, index.map(|i| _mm256_shuffle_epi8(table, i)))
    }
    #[inline(always)]
    fn add(self, a: Self::V, b: Self::V) -> Self::V {
        proven!(self, [_mm256_add_epi8(a[0], b[0]), _mm256_add_epi8(a[1], b[1])])
    }
    #[inline(always)]
    fn mask(self, v: Self::V) -> Self::M {
        // Never 0: `vpsignb` would turn the byte into 0.
        proven!(self, v.map(|v| _mm256_or_si256(v, _mm256_set1_epi8(1))))
    }
    #[inline(always)]
    fn oppose(self, v: Self::V, mask: Self::M) -> Self::V {
        proven!(self, [_mm256_sign_epi8(v[0], mask[0]), _mm256_sign_epi8(v[1], mask[1])])
    }
    #[inline(always)]
    fn zero_wide(self) -> Self::W {
        proven!(self, [[_mm256_setzero_si256(); 2]; 2])
    }
    #[inline(always)]
    fn widen(self, wide: Self::W, low: Self::V, high: Self::V, base: u8) -> Self::W {
        proven!(self, {
            let factors = _mm256_set1_epi16(i16::from(base) << 8 | 1);
            let mut sums = wide;
            for i in 0..2 {
                let pairs = [_mm256_unpacklo_epi8(low[i], high[i]), _mm256_unpackhi_epi8(low[i], high[i])];
                for (sum, pairs) in sums[i].iter_mut().zip(pairs) {
                    *sum = _mm256_add_epi16(*sum, _mm256_maddubs_epi16(factors, pairs));
                }
            }
            sums
        })
    }
    #[inline(always)]
    fn rows(self, wide: Self::W) -> [i32; PANEL_ROWS] {
        let mut out = [0; PANEL_ROWS];
        for (wide, out) in wide.as_flattened().iter().zip(out.as_chunks_mut::<8>().0) {
            let lanes: [[i16; 8]; 2] = simd::load(wide);
            for i in 0..8 {
                out[i] = i32::from(lanes[0][i]) + i32::from(lanes[1][i]);
            }
        }
        out
    }
}
