//! I2_S for SSE4.1: the algorithm of [`super::lanes128`].
//!
//! `pmaddubsw` adds two neighbouring products, so that a register of sums holds four rows, where NEON needs two.

use std::arch::x86_64::*;

use super::lanes128::{self, Lanes128};
use super::{Acts, Chunk, PANEL_ROWS, Product, Tile};
use crate::isa::{Sse41, proven};
use crate::simd::{self, prefetch_page_ahead};

impl Lanes128 for Sse41 {
    type B = __m128i;
    type H = __m128i;
    type P = __m128i;
    type W = __m128i;
    const COLUMNS: usize = 2;

    #[inline(always)]
    fn load(self, x: &[u8; 16]) -> __m128i {
        simd::load(x)
    }
    #[inline(always)]
    fn store(self, v: __m128i, out: &mut [u8; 16]) {
        simd::store(v, out);
    }
    #[inline(always)]
    fn splat(self, x: u8) -> __m128i {
        proven!(self, _mm_set1_epi8(x as i8))
    }
    #[inline(always)]
    fn splat4(self, x: [u8; 4]) -> __m128i {
        proven!(self, _mm_set1_epi32(i32::from_le_bytes(x)))
    }
    #[inline(always)]
    fn and(self, a: __m128i, b: __m128i) -> __m128i {
        proven!(self, _mm_and_si128(a, b))
    }
    #[inline(always)]
    fn or(self, a: __m128i, b: __m128i) -> __m128i {
        proven!(self, _mm_or_si128(a, b))
    }
    #[inline(always)]
    fn xor(self, a: __m128i, b: __m128i) -> __m128i {
        proven!(self, _mm_xor_si128(a, b))
    }
    #[inline(always)]
    fn sub(self, a: __m128i, b: __m128i) -> __m128i {
        proven!(self, _mm_sub_epi8(a, b))
    }
    // There are no shifts of bytes: those of 16 bits, less what has crossed over.
    #[inline(always)]
    fn shr2(self, a: __m128i) -> __m128i {
        proven!(self, _mm_and_si128(_mm_srli_epi16::<2>(a), _mm_set1_epi8(0x3f)))
    }
    #[inline(always)]
    fn shr4(self, a: __m128i) -> __m128i {
        proven!(self, _mm_and_si128(_mm_srli_epi16::<4>(a), _mm_set1_epi8(0x0f)))
    }
    #[inline(always)]
    fn shr6(self, a: __m128i) -> __m128i {
        proven!(self, _mm_and_si128(_mm_srli_epi16::<6>(a), _mm_set1_epi8(0x03)))
    }
    #[inline(always)]
    fn shl2(self, a: __m128i) -> __m128i {
        proven!(self, _mm_and_si128(_mm_slli_epi16::<2>(a), _mm_set1_epi8(0xfc_u8 as i8)))
    }
    #[inline(always)]
    fn lookup(self, table: [__m128i; 4], index: __m128i) -> __m128i {
        let mut out = self.splat(0);
        for (part, table) in table.into_iter().enumerate() {
            // Below 16 where this part is meant; saturated to 128 and above elsewhere, which looks up 0.
            let own = self.xor(index, self.splat(16 * part as u8));
            let index = proven!(self, _mm_adds_epu8(own, _mm_set1_epi8(0x70)));
            out = self.or(out, self.lookup16(table, index));
        }
        out
    }

    #[inline(always)]
    fn lookup16(self, table: __m128i, index: __m128i) -> __m128i {
        proven!(self, _mm_shuffle_epi8(table, index))
    }
    #[inline(always)]
    fn add(self, a: __m128i, b: __m128i) -> __m128i {
        proven!(self, _mm_add_epi8(a, b))
    }
    #[inline(always)]
    fn negative(self, v: __m128i) -> __m128i {
        proven!(self, _mm_cmpgt_epi8(_mm_setzero_si128(), v))
    }

    #[inline(always)]
    fn zero_h(self) -> __m128i {
        proven!(self, _mm_setzero_si128())
    }
    #[inline(always)]
    fn store_h(self, v: __m128i, out: &mut [i16; 8]) {
        simd::store(v, out);
    }
    #[inline(always)]
    fn add_digits(self, [a, b]: [__m128i; 2], low: __m128i, high: __m128i, base: u8) -> [__m128i; 2] {
        proven!(self, {
            let factors = _mm_set1_epi16(i16::from(base) << 8 | 1);
            [
                _mm_add_epi16(a, _mm_maddubs_epi16(factors, _mm_unpacklo_epi8(low, high))),
                _mm_add_epi16(b, _mm_maddubs_epi16(factors, _mm_unpackhi_epi8(low, high))),
            ]
        })
    }

    #[inline(always)]
    fn zero_p(self) -> __m128i {
        proven!(self, _mm_setzero_si128())
    }
    #[inline(always)]
    fn zero_w(self) -> __m128i {
        proven!(self, _mm_setzero_si128())
    }
    #[inline(always)]
    fn mul_add(self, sums: __m128i, codes: __m128i, x: __m128i) -> __m128i {
        proven!(self, _mm_add_epi16(sums, _mm_maddubs_epi16(codes, x)))
    }
    #[inline(always)]
    fn widen(self, wide: __m128i, narrow: __m128i) -> __m128i {
        proven!(self, _mm_add_epi32(wide, _mm_madd_epi16(narrow, _mm_set1_epi16(1))))
    }
    #[inline(always)]
    fn rows(self, wide: __m128i) -> [i32; 4] {
        simd::load(&wide)
    }

    #[inline(always)]
    fn prefetch(self, chunk: &Chunk) {
        prefetch_page_ahead(chunk);
    }
}

lanes128::backend!(Sse41);
