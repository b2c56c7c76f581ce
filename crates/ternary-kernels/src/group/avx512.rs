//! AVX-512 with VNNI: a panel is one register, `vpdpbusd` multiplies 16 rows by 4 columns.
//!
//! One to six tokens stream weights panel by panel: for one token, eight products of a chunk (four fields by two
//! digits) go to four sums, which hide the latency. More tokens use tiles of two panels by six tokens, 24 sums in
//! registers.

use std::arch::x86_64::*;

use super::lanes::{Lanes, product};
use super::{Chunk, MAX_GROUP_CHUNKS};
use crate::i2s::Acts;
use crate::i2s::avx512::{broadcast, load};
use crate::isa::{Avx512Vnni, proven};
use crate::simd::prefetch_page_ahead;

impl Lanes<1> for Avx512Vnni {
    type Float = Self;
    type B = __m512i;
    type A = __m512i;
    type W = __m512i;
    // Sums of 32 bits hold a group of any length.
    const FLUSH: usize = MAX_GROUP_CHUNKS;
    const FLUSH_QUADRUPLE: usize = MAX_GROUP_CHUNKS;

    #[inline(always)]
    fn float(self) -> Self {
        self
    }
    #[inline(always)]
    fn load(self, chunk: &Chunk, _: usize) -> __m512i {
        proven!(self, load(chunk))
    }
    #[inline(always)]
    fn field<const J: i32>(self, v: __m512i) -> __m512i {
        proven!(self, {
            let v = match J {
                0 => v,
                1 => _mm512_srli_epi16::<2>(v),
                2 => _mm512_srli_epi16::<4>(v),
                _ => _mm512_srli_epi16::<6>(v),
            };
            _mm512_and_si512(v, _mm512_set1_epi8(3))
        })
    }
    #[inline(always)]
    fn quadruples(self, v: __m512i) -> [__m512i; 4] {
        proven!(self, {
            let (low, high) = (_mm512_set1_epi8(0x03), _mm512_set1_epi8(0x0c));
            let u = _mm512_srli_epi16::<4>(v);
            [_mm512_and_si512(v, low), _mm512_and_si512(v, high), _mm512_and_si512(u, low), _mm512_and_si512(u, high)]
        })
    }
    #[inline(always)]
    fn zero(self) -> __m512i {
        proven!(self, _mm512_setzero_si512())
    }
    #[inline(always)]
    fn dot<const J: i32>(self, sum: __m512i, codes: __m512i, x: &Acts) -> __m512i {
        proven!(self, _mm512_dpbusd_epi32(sum, codes, broadcast(x, J as usize)))
    }
    #[inline(always)]
    fn rows(self, sum: __m512i) -> __m512i {
        sum
    }

    #[inline(always)]
    fn zero_rows(self) -> __m512i {
        proven!(self, _mm512_setzero_si512())
    }
    #[inline(always)]
    fn add(self, a: __m512i, b: __m512i) -> __m512i {
        proven!(self, _mm512_add_epi32(a, b))
    }
    #[inline(always)]
    fn quarter(self, a: __m512i) -> __m512i {
        proven!(self, _mm512_srai_epi32::<2>(a))
    }
    #[inline(always)]
    fn digits(self, hi: __m512i, lo: __m512i) -> __m512i {
        proven!(self, _mm512_add_epi32(_mm512_slli_epi32::<8>(hi), lo))
    }
    #[inline(always)]
    fn less(self, a: __m512i, x: i32) -> __m512i {
        proven!(self, _mm512_sub_epi32(a, _mm512_set1_epi32(x)))
    }
    #[inline(always)]
    fn panel(self, [rows]: [__m512i; 1]) -> __m512i {
        rows
    }
    #[inline(always)]
    fn prefetch(self, chunk: &Chunk) {
        prefetch_page_ahead(chunk);
    }
}

product!(
    product,
    lanes = Avx512Vnni,
    registers = 1,
    Avx512Vnni = |lanes| lanes,
    panels = 2,
    tokens = 6,
    tiles = [
        (1, 1, 1, true),
        (1, 1, 2, true),
        (1, 1, 3, true),
        (1, 1, 4, true),
        (1, 1, 5, true),
        (1, 1, 6, true),
        (2, 2, 1, false),
        (2, 2, 2, false),
        (2, 2, 3, false),
        (2, 2, 4, false),
        (2, 2, 5, false),
        (2, 2, 6, false),
    ]
);
