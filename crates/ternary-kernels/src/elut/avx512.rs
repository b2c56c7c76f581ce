//! Look-up tables for AVX-512: `vpshufb` on one register of 64 bytes, 32 rows and two groups.

use std::arch::x86_64::*;

use super::lanes::{Lanes, compiled_runs};
use super::{Chunk, PANEL_ROWS};
use crate::isa::{Avx512Vnni, proven};
use crate::simd;

compiled_runs!(Avx512Vnni, tokens = 4, Avx512Vnni = |lanes| lanes);

impl Lanes for Avx512Vnni {
    type V = __m512i;
    /// The tables of both lanes, twice.
    type T = __m512i;
    type M = __mmask64;
    /// Rows 0 to 7 in both lanes, rows 16 to 23 in both lanes; then rows 8 to 15, rows 24 to 31.
    type W = [__m512i; 2];

    #[inline(always)]
    fn load(self, x: &Chunk) -> Self::V {
        simd::load(x)
    }
    #[inline(always)]
    fn zero(self) -> Self::V {
        proven!(self, _mm512_setzero_si512())
    }
    #[inline(always)]
    fn table(self, x: &[[u8; 16]; 2]) -> Self::T {
        proven!(self, _mm512_broadcast_i64x4(simd::load(x)))
    }
    #[inline(always)]
    fn low(self, v: Self::V) -> Self::V {
        proven!(self, _mm512_and_si512(v, _mm512_set1_epi8(15)))
    }
    #[inline(always)]
    fn high(self, v: Self::V) -> Self::V {
        proven!(self, _mm512_and_si512(_mm512_srli_epi16::<4>(v), _mm512_set1_epi8(15)))
    }
    #[inline(always)]
    fn lookup(self, table: Self::T, index: Self::V) -> Self::V {
        proven!(self, _mm512_shuffle_epi8(table, index))
    }
    #[inline(always)]
    fn add(self, a: Self::V, b: Self::V) -> Self::V {
        proven!(self, _mm512_add_epi8(a, b))
    }
    #[inline(always)]
    fn mask(self, v: Self::V) -> Self::M {
        proven!(self, _mm512_movepi8_mask(v))
    }
    #[inline(always)]
    fn oppose(self, v: Self::V, mask: Self::M) -> Self::V {
        proven!(self, _mm512_mask_sub_epi8(v, mask, _mm512_setzero_si512(), v))
    }
    #[inline(always)]
    fn zero_wide(self) -> Self::W {
        proven!(self, [_mm512_setzero_si512(); 2])
    }
    #[inline(always)]
    fn widen(self, wide: Self::W, low: Self::V, high: Self::V, base: u8) -> Self::W {
        proven!(self, {
            let factors = _mm512_set1_epi16(i16::from(base) << 8 | 1);
            let pairs = [_mm512_unpacklo_epi8(low, high), _mm512_unpackhi_epi8(low, high)];
            [
                _mm512_add_epi16(wide[0], _mm512_maddubs_epi16(factors, pairs[0])),
                _mm512_add_epi16(wide[1], _mm512_maddubs_epi16(factors, pairs[1])),
            ]
        })
    }
    #[inline(always)]
    fn rows(self, wide: Self::W) -> [i32; PANEL_ROWS] {
        let mut out = [0; PANEL_ROWS];
        for (half, wide) in wide.iter().enumerate() {
            let lanes: [[[i16; 8]; 2]; 2] = simd::load(wide);
            for (sixteen, lanes) in lanes.iter().enumerate() {
                for i in 0..8 {
                    out[16 * sixteen + 8 * half + i] = i32::from(lanes[0][i]) + i32::from(lanes[1][i]);
                }
            }
        }
        out
    }
}
