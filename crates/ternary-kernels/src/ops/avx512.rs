//! Sixteen lanes on x86-64 with AVX-512: one register.

use std::arch::x86_64::*;

use half::{bf16, f16};

use super::lanes::{CHUNK, LANES, Simd};
use crate::isa::{Avx512Vnni, proven};
use crate::simd;

impl Simd for Avx512Vnni {
    type F = __m512;
    type I = __m512i;
    const ACCUMULATORS: usize = 16;

    #[inline(always)]
    fn splat(self, x: f32) -> Self::F {
        proven!(self, _mm512_set1_ps(x))
    }
    #[inline(always)]
    fn load(self, x: &[f32; LANES]) -> Self::F {
        simd::load(x)
    }
    #[inline(always)]
    fn load_f16(self, x: &[f16; LANES]) -> Self::F {
        proven!(self, _mm512_cvtph_ps(simd::load(x)))
    }
    #[inline(always)]
    fn load_bf16(self, x: &[bf16; LANES]) -> Self::F {
        let x = simd::load(x);
        proven!(self, _mm512_castsi512_ps(_mm512_slli_epi32::<16>(_mm512_cvtepu16_epi32(x))))
    }
    #[inline(always)]
    fn load_i8(self, x: &[i8; LANES]) -> Self::F {
        let x = simd::load(x);
        proven!(self, _mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(x)))
    }
    #[inline(always)]
    fn load_i4(self, x: &[u8; LANES / 2]) -> Self::F {
        let both = i64::from_le_bytes(*x);
        proven!(self, {
            // The permutation uses the lowest four bits of each lane.
            let shift = _mm512_setr_epi32(0, 0, 4, 4, 8, 8, 12, 12, 16, 16, 20, 20, 24, 24, 28, 28);
            let numbers = _mm512_setr_ps(0., 1., 2., 3., 4., 5., 6., 7., -8., -7., -6., -5., -4., -3., -2., -1.);
            _mm512_permutexvar_ps(_mm512_srlv_epi32(_mm512_set1_epi64(both), shift), numbers)
        })
    }
    #[inline(always)]
    fn store(self, v: Self::F, out: &mut [f32; LANES]) {
        simd::store(v, out);
    }
    #[inline(always)]
    fn store_f16(self, v: Self::F, out: &mut [f16; LANES]) {
        let halves = proven!(self, _mm512_cvtps_ph::<_MM_FROUND_TO_NEAREST_INT>(v));
        simd::store(halves, out);
    }

    #[inline(always)]
    fn add(self, a: Self::F, b: Self::F) -> Self::F {
        proven!(self, _mm512_add_ps(a, b))
    }
    #[inline(always)]
    fn sub(self, a: Self::F, b: Self::F) -> Self::F {
        proven!(self, _mm512_sub_ps(a, b))
    }
    #[inline(always)]
    fn mul(self, a: Self::F, b: Self::F) -> Self::F {
        proven!(self, _mm512_mul_ps(a, b))
    }
    #[inline(always)]
    fn div(self, a: Self::F, b: Self::F) -> Self::F {
        proven!(self, _mm512_div_ps(a, b))
    }
    #[inline(always)]
    fn fma(self, a: Self::F, b: Self::F, c: Self::F) -> Self::F {
        proven!(self, _mm512_fmadd_ps(a, b, c))
    }
    #[inline(always)]
    fn min(self, a: Self::F, b: Self::F) -> Self::F {
        proven!(self, _mm512_min_ps(a, b))
    }
    #[inline(always)]
    fn max(self, a: Self::F, b: Self::F) -> Self::F {
        proven!(self, _mm512_max_ps(a, b))
    }
    #[inline(always)]
    fn swap<const H: usize>(self, v: Self::F) -> Self::F {
        match H {
            1 => proven!(self, _mm512_permute_ps::<0b10_11_00_01>(v)),
            2 => proven!(self, _mm512_permute_ps::<0b01_00_11_10>(v)),
            4 => proven!(self, _mm512_shuffle_f32x4::<0b10_11_00_01>(v, v)),
            _ => proven!(self, _mm512_shuffle_f32x4::<0b01_00_11_10>(v, v)),
        }
    }

    #[inline(always)]
    fn splat_i(self, x: i32) -> Self::I {
        proven!(self, _mm512_set1_epi32(x))
    }
    #[inline(always)]
    fn load_i(self, x: &[i32; LANES]) -> Self::I {
        simd::load(x)
    }
    #[inline(always)]
    fn add_i(self, a: Self::I, b: Self::I) -> Self::I {
        proven!(self, _mm512_add_epi32(a, b))
    }
    #[inline(always)]
    fn sub_i(self, a: Self::I, b: Self::I) -> Self::I {
        proven!(self, _mm512_sub_epi32(a, b))
    }
    #[inline(always)]
    fn max_i(self, a: Self::I, b: Self::I) -> Self::I {
        proven!(self, _mm512_max_epi32(a, b))
    }
    #[inline(always)]
    fn halve_i(self, a: Self::I) -> Self::I {
        proven!(self, _mm512_srai_epi32::<1>(a))
    }
    #[inline(always)]
    fn store_i8(self, a: Self::I, out: &mut [i8; LANES]) {
        let bytes = proven!(self, _mm512_cvtepi32_epi8(a));
        simd::store(bytes, out);
    }

    #[inline(always)]
    fn to_f(self, a: Self::I) -> Self::F {
        proven!(self, _mm512_cvtepi32_ps(a))
    }
    #[inline(always)]
    fn to_i(self, v: Self::F) -> Self::I {
        proven!(self, _mm512_cvtps_epi32(v))
    }
    #[inline(always)]
    fn abs_bits(self, v: Self::F) -> Self::I {
        proven!(self, _mm512_and_si512(_mm512_castps_si512(v), _mm512_set1_epi32(i32::MAX)))
    }
    #[inline(always)]
    fn exp2(self, n: Self::I) -> Self::F {
        proven!(self, _mm512_castsi512_ps(_mm512_slli_epi32::<23>(_mm512_add_epi32(n, _mm512_set1_epi32(127)))))
    }

    #[inline(always)]
    fn sum(self, v: Self::F) -> f32 {
        proven!(self, {
            let v = _mm256_add_ps(_mm512_castps512_ps256(v), _mm512_extractf32x8_ps::<1>(v));
            let v = _mm_add_ps(_mm256_castps256_ps128(v), _mm256_extractf128_ps::<1>(v));
            let v = _mm_add_ps(v, _mm_movehl_ps(v, v));
            _mm_cvtss_f32(_mm_add_ss(v, _mm_movehdup_ps(v)))
        })
    }
    #[inline(always)]
    fn max_lane(self, v: Self::F) -> f32 {
        proven!(self, {
            let v = _mm256_max_ps(_mm512_castps512_ps256(v), _mm512_extractf32x8_ps::<1>(v));
            let v = _mm_max_ps(_mm256_castps256_ps128(v), _mm256_extractf128_ps::<1>(v));
            let v = _mm_max_ps(v, _mm_movehl_ps(v, v));
            _mm_cvtss_f32(_mm_max_ss(v, _mm_movehdup_ps(v)))
        })
    }
    #[inline(always)]
    fn sums(self, v: [Self::F; LANES]) -> Self::F {
        /// Adds two shuffles of `a` and `b`: halves of their lanes that belong together.
        macro_rules! halves {
            ($shuffle:ident, $low:literal, $high:literal, $a:expr, $b:expr) => {{
                let (a, b) = ($a, $b);
                _mm512_add_ps($shuffle::<$low>(a, b), $shuffle::<$high>(a, b))
            }};
        }
        /// Vectors m, m + 4, m + 8, m + 12, with four lanes remaining of each.
        macro_rules! four {
            ($m:literal) => {{
                let a = halves!(_mm512_shuffle_f32x4, 0x44, 0xee, v[$m], v[$m + 4]);
                let b = halves!(_mm512_shuffle_f32x4, 0x44, 0xee, v[$m + 8], v[$m + 12]);
                halves!(_mm512_shuffle_f32x4, 0x88, 0xdd, a, b)
            }};
        }
        proven!(self, {
            // Two vectors at a time: lanes l + 8, l + 4, l + 2, l + 1. Their order is such that the last shuffles leave
            // the sums in order.
            let a = halves!(_mm512_shuffle_ps, 0x44, 0xee, four!(0), four!(1));
            let b = halves!(_mm512_shuffle_ps, 0x44, 0xee, four!(2), four!(3));
            halves!(_mm512_shuffle_ps, 0x88, 0xdd, a, b)
        })
    }
    #[inline(always)]
    fn transpose(self, v: [Self::F; LANES]) -> [Self::F; LANES] {
        proven!(self, {
            // Pairs of lanes of two neighbours, then four lanes of four, in every 128 bits: `fours[4 g + c]` holds
            // column `4 q + c` of the vectors `4 g ..= 4 g + 3` in its quarter `q`.
            let mut fours = v;
            for g in 0..4 {
                let [a, b, c, d] = [v[4 * g], v[4 * g + 1], v[4 * g + 2], v[4 * g + 3]];
                let [a, b, c, d] = [
                    _mm512_castps_pd(_mm512_unpacklo_ps(a, b)),
                    _mm512_castps_pd(_mm512_unpackhi_ps(a, b)),
                    _mm512_castps_pd(_mm512_unpacklo_ps(c, d)),
                    _mm512_castps_pd(_mm512_unpackhi_ps(c, d)),
                ];
                fours[4 * g] = _mm512_castpd_ps(_mm512_unpacklo_pd(a, c));
                fours[4 * g + 1] = _mm512_castpd_ps(_mm512_unpackhi_pd(a, c));
                fours[4 * g + 2] = _mm512_castpd_ps(_mm512_unpacklo_pd(b, d));
                fours[4 * g + 3] = _mm512_castpd_ps(_mm512_unpackhi_pd(b, d));
            }
            let mut out = v;
            for c in 0..4 {
                let [a, b, d, e] = [fours[c], fours[4 + c], fours[8 + c], fours[12 + c]];
                // Quarters 0, 2 and 1, 3 of two groups, then of all four.
                let [low, high] = [_mm512_shuffle_f32x4::<0x88>(a, b), _mm512_shuffle_f32x4::<0xdd>(a, b)];
                let [low2, high2] = [_mm512_shuffle_f32x4::<0x88>(d, e), _mm512_shuffle_f32x4::<0xdd>(d, e)];
                out[c] = _mm512_shuffle_f32x4::<0x88>(low, low2);
                out[8 + c] = _mm512_shuffle_f32x4::<0xdd>(low, low2);
                out[4 + c] = _mm512_shuffle_f32x4::<0x88>(high, high2);
                out[12 + c] = _mm512_shuffle_f32x4::<0xdd>(high, high2);
            }
            out
        })
    }
    #[inline(always)]
    fn sum_i(self, a: Self::I) -> i32 {
        proven!(self, _mm512_reduce_add_epi32(a))
    }
    #[inline(always)]
    fn max_lane_i(self, a: Self::I) -> i32 {
        proven!(self, _mm512_reduce_max_epi32(a))
    }
    #[inline(always)]
    fn sums_i(self, v: [Self::I; LANES]) -> Self::I {
        macro_rules! quarters {
            ($low:literal, $high:literal, $a:expr, $b:expr) => {{
                let (a, b) = ($a, $b);
                _mm512_add_epi32(_mm512_shuffle_i32x4::<$low>(a, b), _mm512_shuffle_i32x4::<$high>(a, b))
            }};
        }
        macro_rules! lanes {
            ($low:literal, $high:literal, $a:expr, $b:expr) => {{
                let (a, b) = (_mm512_castsi512_ps($a), _mm512_castsi512_ps($b));
                let (low, high) = (_mm512_shuffle_ps::<$low>(a, b), _mm512_shuffle_ps::<$high>(a, b));
                _mm512_add_epi32(_mm512_castps_si512(low), _mm512_castps_si512(high))
            }};
        }
        // Like in `sums`.
        macro_rules! four {
            ($m:literal) => {{
                let a = quarters!(0x44, 0xee, v[$m], v[$m + 4]);
                let b = quarters!(0x44, 0xee, v[$m + 8], v[$m + 12]);
                quarters!(0x88, 0xdd, a, b)
            }};
        }
        proven!(self, {
            let a = lanes!(0x44, 0xee, four!(0), four!(1));
            let b = lanes!(0x44, 0xee, four!(2), four!(3));
            lanes!(0x88, 0xdd, a, b)
        })
    }
    const DOT_I8_BIAS: i32 = 128;
    #[inline(always)]
    fn dot_i8(self, acc: Self::I, q: &[i8; CHUNK], k: &[u8; CHUNK]) -> Self::I {
        let (q, k) = (simd::load(q), simd::load(k));
        // The first factor of the instruction is unsigned.
        proven!(self, _mm512_dpbusd_epi32(acc, _mm512_xor_si512(k, _mm512_set1_epi8(i8::MIN)), q))
    }
    const DOT_I4_BIAS: i32 = 8;
    #[inline(always)]
    fn dot_i4(self, acc: Self::I, [low, high]: [&[i8; CHUNK]; 2], k: &[u8; CHUNK]) -> Self::I {
        let (low, high, k) = (simd::load(low), simd::load(high), simd::load(k));
        proven!(self, {
            let nibble = _mm512_set1_epi8(0x0f);
            // With 8 added, a nibble in two's complement becomes unsigned.
            let k = _mm512_xor_si512(k, _mm512_set1_epi8(0x88u8 as i8));
            let acc = _mm512_dpbusd_epi32(acc, _mm512_and_si512(k, nibble), low);
            _mm512_dpbusd_epi32(acc, _mm512_and_si512(_mm512_srli_epi16::<4>(k), nibble), high)
        })
    }
    const DOTS: bool = true;
    #[inline(always)]
    fn dot4(self, acc: Self::I, a: Self::I, b: Self::I) -> Self::I {
        proven!(self, _mm512_dpbusd_epi32(acc, a, b))
    }
    #[inline(always)]
    fn interleave(self, a: &[i8; LANES], b: &[i8; LANES], c: &[i8; LANES], d: &[i8; LANES], out: &mut [i32; LANES]) {
        let [a, b, c, d] = [simd::load(a), simd::load(b), simd::load(c), simd::load(d)];
        let quarters: [__m128i; 4] = proven!(self, {
            let (low, high) = (_mm_unpacklo_epi8(a, b), _mm_unpackhi_epi8(a, b));
            let (low2, high2) = (_mm_unpacklo_epi8(c, d), _mm_unpackhi_epi8(c, d));
            [
                _mm_unpacklo_epi16(low, low2),
                _mm_unpackhi_epi16(low, low2),
                _mm_unpacklo_epi16(high, high2),
                _mm_unpackhi_epi16(high, high2),
            ]
        });
        let out: &mut [[i32; 4]; 4] = bytemuck::cast_mut(out);
        for (quarter, out) in quarters.into_iter().zip(out) {
            simd::store(quarter, out);
        }
    }
    #[inline(always)]
    fn store_digits(self, [a, b, c, d]: [Self::I; 4], low: &mut [i32; LANES], high: &mut [i32; LANES]) {
        let digits = proven!(self, {
            // Numbers are below 2^16: two fit a lane.
            let (ac, bd) =
                (_mm512_or_si512(a, _mm512_slli_epi32::<16>(c)), _mm512_or_si512(b, _mm512_slli_epi32::<16>(d)));
            let mask = _mm512_set1_epi16(0xff);
            [
                _mm512_or_si512(_mm512_and_si512(ac, mask), _mm512_slli_epi16::<8>(bd)),
                _mm512_or_si512(_mm512_srli_epi16::<8>(ac), _mm512_andnot_si512(mask, bd)),
            ]
        });
        simd::store(digits[0], low);
        simd::store(digits[1], high);
    }
}
