//! AVX2: a panel is two registers of 8 rows; `vpmaddubsw` and 16-bit sums, widened before they overflow.

use std::arch::x86_64::*;

use super::Chunk;
use super::lanes::{Lanes, product};
use crate::i2s::Acts;
use crate::i2s::avx2::broadcast;
use crate::isa::{Avx2, proven};
use crate::simd;

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
    product,
    lanes = Avx2,
    registers = 2,
    Avx2 = |lanes| lanes,
    panels = 1,
    tokens = 4,
    tiles = [(1, 1, 1, true), (1, 1, 2, false), (1, 1, 3, false), (1, 1, 4, false)]
);
