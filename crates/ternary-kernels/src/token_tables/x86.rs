//! Tables shared by tokens on AVX2.

use std::arch::x86_64::*;

use super::TokenLanes;
use crate::isa::{Avx2, proven};
use crate::simd;

impl TokenLanes for Avx2 {
    type Register = __m256i;
    type Memory = [i16; 16];
    type Narrow = [i8; 16];
    type Bytes = __m128i;
    const LANES: usize = 16;
    // Measured on Zen 4, where multiplying is faster than on older CPUs.
    const LAST_FROM: usize = 25;
    const ZERO: [i16; 16] = [0; 16];

    #[inline(always)]
    fn zero(self) -> __m256i {
        proven!(self, _mm256_setzero_si256())
    }
    #[inline(always)]
    fn load(self, from: &[i16; 16]) -> __m256i {
        simd::load(from)
    }
    #[inline(always)]
    fn store(self, v: __m256i, to: &mut [i16; 16]) {
        simd::store(v, to);
    }
    #[inline(always)]
    fn add(self, a: __m256i, b: __m256i) -> __m256i {
        proven!(self, _mm256_add_epi16(a, b))
    }
    #[inline(always)]
    fn sub(self, a: __m256i, b: __m256i) -> __m256i {
        proven!(self, _mm256_sub_epi16(a, b))
    }
    #[inline(always)]
    fn widen(self, x: &[i8; 16]) -> __m256i {
        proven!(self, _mm256_cvtepi8_epi16(simd::load(x)))
    }

    #[inline(always)]
    fn load_bytes(self, from: &[u8; 16]) -> __m128i {
        simd::load(from)
    }
    #[inline(always)]
    fn store_bytes(self, v: __m128i, to: &mut [u8; 16]) {
        simd::store(v, to);
    }
    #[inline(always)]
    fn zip_bytes(self, a: __m128i, b: __m128i) -> [__m128i; 2] {
        proven!(self, [_mm_unpacklo_epi8(a, b), _mm_unpackhi_epi8(a, b)])
    }
    #[inline(always)]
    fn zip_pairs(self, a: __m128i, b: __m128i) -> [__m128i; 2] {
        proven!(self, [_mm_unpacklo_epi16(a, b), _mm_unpackhi_epi16(a, b)])
    }
}
