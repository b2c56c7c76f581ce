//! Sixteen lanes on x86-64 without AVX2: four registers of SSE.

use std::arch::x86_64::*;

use half::{bf16, f16};

use super::lanes::{CHUNK, LANES, Simd};
use crate::isa::{Sse41, proven};
use crate::simd;

/// A function on each of the four registers.
macro_rules! each {
    ($f:expr, $a:expr) => {
        [$f($a[0]), $f($a[1]), $f($a[2]), $f($a[3])]
    };
    ($f:expr, $a:expr, $b:expr) => {
        [$f($a[0], $b[0]), $f($a[1], $b[1]), $f($a[2], $b[2]), $f($a[3], $b[3])]
    };
}

/// The sum of four registers in the order of the tree: lanes l + 8, then l + 4.
macro_rules! four {
    ($add:ident, $v:expr) => {
        $add($add($v[0], $v[2]), $add($v[1], $v[3]))
    };
}

impl Simd for Sse41 {
    /// Lanes 0 to 3, 4 to 7, 8 to 11 and 12 to 15.
    type F = [__m128; 4];
    type I = [__m128i; 4];
    const ACCUMULATORS: usize = 4;

    #[inline(always)]
    fn splat(self, x: f32) -> Self::F {
        proven!(self, [_mm_set1_ps(x); 4])
    }
    #[inline(always)]
    fn load(self, x: &[f32; LANES]) -> Self::F {
        simd::load(x)
    }
    #[inline(always)]
    fn load_f16(self, x: &[f16; LANES]) -> Self::F {
        let [a, b]: [__m128i; 2] = simd::load(x);
        proven!(self, {
            let zero = _mm_setzero_si128();
            let h = [
                _mm_unpacklo_epi16(a, zero),
                _mm_unpackhi_epi16(a, zero),
                _mm_unpacklo_epi16(b, zero),
                _mm_unpackhi_epi16(b, zero),
            ];
            [from_f16(self, h[0]), from_f16(self, h[1]), from_f16(self, h[2]), from_f16(self, h[3])]
        })
    }
    #[inline(always)]
    fn load_bf16(self, x: &[bf16; LANES]) -> Self::F {
        let [a, b]: [__m128i; 2] = simd::load(x);
        proven!(self, {
            let zero = _mm_setzero_si128();
            [
                _mm_castsi128_ps(_mm_unpacklo_epi16(zero, a)),
                _mm_castsi128_ps(_mm_unpackhi_epi16(zero, a)),
                _mm_castsi128_ps(_mm_unpacklo_epi16(zero, b)),
                _mm_castsi128_ps(_mm_unpackhi_epi16(zero, b)),
            ]
        })
    }
    #[inline(always)]
    fn load_i8(self, x: &[i8; LANES]) -> Self::F {
        let x = simd::load(x);
        proven!(self, {
            let four = [x, _mm_srli_si128::<4>(x), _mm_srli_si128::<8>(x), _mm_srli_si128::<12>(x)];
            each!(|v| _mm_cvtepi32_ps(_mm_cvtepi8_epi32(v)), four)
        })
    }
    #[inline(always)]
    fn load_i16(self, x: &[i16; LANES]) -> Self::F {
        let [a, b]: [__m128i; 2] = simd::load(x);
        proven!(self, {
            let four = [a, _mm_unpackhi_epi64(a, a), b, _mm_unpackhi_epi64(b, b)];
            each!(|v| _mm_cvtepi32_ps(_mm_cvtepi16_epi32(v)), four)
        })
    }
    #[inline(always)]
    fn store(self, v: Self::F, out: &mut [f32; LANES]) {
        simd::store(v, out);
    }
    #[inline(always)]
    fn store_f16(self, v: Self::F, out: &mut [f16; LANES]) {
        let lanes: [f32; LANES] = simd::load(&v);
        *out = lanes.map(f16::from_f32);
    }

    #[inline(always)]
    fn add(self, a: Self::F, b: Self::F) -> Self::F {
        proven!(self, each!(_mm_add_ps, a, b))
    }
    #[inline(always)]
    fn sub(self, a: Self::F, b: Self::F) -> Self::F {
        proven!(self, each!(_mm_sub_ps, a, b))
    }
    #[inline(always)]
    fn mul(self, a: Self::F, b: Self::F) -> Self::F {
        proven!(self, each!(_mm_mul_ps, a, b))
    }
    #[inline(always)]
    fn div(self, a: Self::F, b: Self::F) -> Self::F {
        proven!(self, each!(_mm_div_ps, a, b))
    }
    #[inline(always)]
    fn fma(self, a: Self::F, b: Self::F, c: Self::F) -> Self::F {
        [
            fma(self, a[0], b[0], c[0]),
            fma(self, a[1], b[1], c[1]),
            fma(self, a[2], b[2], c[2]),
            fma(self, a[3], b[3], c[3]),
        ]
    }
    #[inline(always)]
    fn min(self, a: Self::F, b: Self::F) -> Self::F {
        proven!(self, each!(_mm_min_ps, a, b))
    }
    #[inline(always)]
    fn max(self, a: Self::F, b: Self::F) -> Self::F {
        proven!(self, each!(_mm_max_ps, a, b))
    }
    #[inline(always)]
    fn swap<const H: usize>(self, v: Self::F) -> Self::F {
        match H {
            1 => proven!(self, each!(_mm_shuffle_ps::<0b10_11_00_01>, v, v)),
            2 => proven!(self, each!(_mm_shuffle_ps::<0b01_00_11_10>, v, v)),
            4 => [v[1], v[0], v[3], v[2]],
            _ => [v[2], v[3], v[0], v[1]],
        }
    }

    #[inline(always)]
    fn splat_i(self, x: i32) -> Self::I {
        proven!(self, [_mm_set1_epi32(x); 4])
    }
    #[inline(always)]
    fn load_i(self, x: &[i32; LANES]) -> Self::I {
        simd::load(x)
    }
    #[inline(always)]
    fn add_i(self, a: Self::I, b: Self::I) -> Self::I {
        proven!(self, each!(_mm_add_epi32, a, b))
    }
    #[inline(always)]
    fn sub_i(self, a: Self::I, b: Self::I) -> Self::I {
        proven!(self, each!(_mm_sub_epi32, a, b))
    }
    #[inline(always)]
    fn max_i(self, a: Self::I, b: Self::I) -> Self::I {
        proven!(self, each!(_mm_max_epi32, a, b))
    }
    #[inline(always)]
    fn halve_i(self, a: Self::I) -> Self::I {
        proven!(self, each!(_mm_srai_epi32::<1>, a))
    }
    #[inline(always)]
    fn store_i8(self, a: Self::I, out: &mut [i8; LANES]) {
        let bytes = proven!(self, {
            // The packs saturate, so the low bytes are singled out first.
            let byte = _mm_set1_epi32(0xff);
            let a = each!(|a| _mm_and_si128(a, byte), a);
            _mm_packus_epi16(_mm_packus_epi32(a[0], a[1]), _mm_packus_epi32(a[2], a[3]))
        });
        simd::store(bytes, out);
    }

    #[inline(always)]
    fn to_f(self, a: Self::I) -> Self::F {
        proven!(self, each!(_mm_cvtepi32_ps, a))
    }
    #[inline(always)]
    fn to_i(self, v: Self::F) -> Self::I {
        proven!(self, each!(_mm_cvtps_epi32, v))
    }
    #[inline(always)]
    fn abs_bits(self, v: Self::F) -> Self::I {
        proven!(self, each!(|v| _mm_and_si128(_mm_castps_si128(v), _mm_set1_epi32(i32::MAX)), v))
    }
    #[inline(always)]
    fn exp2(self, n: Self::I) -> Self::F {
        proven!(self, each!(|n| _mm_castsi128_ps(_mm_slli_epi32::<23>(_mm_add_epi32(n, _mm_set1_epi32(127)))), n))
    }

    #[inline(always)]
    fn sum(self, v: Self::F) -> f32 {
        proven!(self, {
            let v = four!(_mm_add_ps, v);
            let v = _mm_add_ps(v, _mm_movehl_ps(v, v));
            _mm_cvtss_f32(_mm_add_ss(v, _mm_movehdup_ps(v)))
        })
    }
    #[inline(always)]
    fn max_lane(self, v: Self::F) -> f32 {
        proven!(self, {
            let v = four!(_mm_max_ps, v);
            let v = _mm_max_ps(v, _mm_movehl_ps(v, v));
            _mm_cvtss_f32(_mm_max_ss(v, _mm_movehdup_ps(v)))
        })
    }
    #[inline(always)]
    fn sums(self, v: [Self::F; LANES]) -> Self::F {
        macro_rules! pairs {
            ($low:literal, $high:literal, $a:expr, $b:expr) => {{
                let (a, b) = ($a, $b);
                _mm_add_ps(_mm_shuffle_ps::<$low>(a, b), _mm_shuffle_ps::<$high>(a, b))
            }};
        }
        // Lanes l + 2 of two vectors, and of another two, then lanes l + 1 of all.
        macro_rules! sums {
            ($i:expr) => {{
                let a = pairs!(0x44, 0xee, four!(_mm_add_ps, v[$i]), four!(_mm_add_ps, v[$i + 1]));
                let b = pairs!(0x44, 0xee, four!(_mm_add_ps, v[$i + 2]), four!(_mm_add_ps, v[$i + 3]));
                pairs!(0x88, 0xdd, a, b)
            }};
        }
        proven!(self, [sums!(0), sums!(4), sums!(8), sums!(12)])
    }
    #[inline(always)]
    fn sum_i(self, a: Self::I) -> i32 {
        proven!(self, {
            let a = four!(_mm_add_epi32, a);
            let a = _mm_add_epi32(a, _mm_unpackhi_epi64(a, a));
            _mm_cvtsi128_si32(_mm_add_epi32(a, _mm_shuffle_epi32::<1>(a)))
        })
    }
    #[inline(always)]
    fn max_lane_i(self, a: Self::I) -> i32 {
        proven!(self, {
            let a = four!(_mm_max_epi32, a);
            let a = _mm_max_epi32(a, _mm_unpackhi_epi64(a, a));
            _mm_cvtsi128_si32(_mm_max_epi32(a, _mm_shuffle_epi32::<1>(a)))
        })
    }
    #[inline(always)]
    fn sums_i(self, v: [Self::I; LANES]) -> Self::I {
        macro_rules! sums {
            ($i:expr) => {{
                let a = _mm_hadd_epi32(four!(_mm_add_epi32, v[$i]), four!(_mm_add_epi32, v[$i + 1]));
                let b = _mm_hadd_epi32(four!(_mm_add_epi32, v[$i + 2]), four!(_mm_add_epi32, v[$i + 3]));
                _mm_hadd_epi32(a, b)
            }};
        }
        proven!(self, [sums!(0), sums!(4), sums!(8), sums!(12)])
    }
    #[inline(always)]
    fn dot_i8(self, acc: Self::I, q: &[i8; CHUNK], k: &[u8; CHUNK]) -> Self::I {
        let (q, k): ([__m128i; 4], [__m128i; 4]) = (simd::load(q), simd::load(k));
        // Two products of at most 127 * 127 fit 16 bits.
        macro_rules! products {
            ($i:literal) => {
                _mm_madd_epi16(_mm_maddubs_epi16(_mm_abs_epi8(k[$i]), _mm_sign_epi8(q[$i], k[$i])), _mm_set1_epi16(1))
            };
        }
        proven!(self, each!(_mm_add_epi32, acc, [products!(0), products!(1), products!(2), products!(3)]))
    }
    const DOT_I4_BIAS: i32 = 8;
    #[inline(always)]
    fn dot_i4(self, acc: Self::I, [low, high]: [&[i8; CHUNK]; 2], k: &[u8; CHUNK]) -> Self::I {
        let (low, high, k): ([__m128i; 4], [__m128i; 4], [__m128i; 4]) =
            (simd::load(low), simd::load(high), simd::load(k));
        // Four products of at most 15 * 127 fit 16 bits. Raised by 8, a nibble in two's complement has no sign.
        macro_rules! products {
            ($i:literal) => {{
                let (k, nibble) = (_mm_xor_si128(k[$i], _mm_set1_epi8(0x88_u8 as i8)), _mm_set1_epi8(0x0f));
                let upper = _mm_and_si128(_mm_srli_epi16::<4>(k), nibble);
                let lower = _mm_maddubs_epi16(_mm_and_si128(k, nibble), low[$i]);
                _mm_madd_epi16(_mm_add_epi16(lower, _mm_maddubs_epi16(upper, high[$i])), _mm_set1_epi16(1))
            }};
        }
        proven!(self, each!(_mm_add_epi32, acc, [products!(0), products!(1), products!(2), products!(3)]))
    }
}

/// The f32 of four f16 in the lower halves of the lanes.
#[inline(always)]
fn from_f16(token: Sse41, h: __m128i) -> __m128 {
    /// The difference of the biases of both exponents.
    const BIAS: i32 = 112 << 23;
    proven!(token, Sse41, {
        let bits = _mm_slli_epi32::<13>(_mm_and_si128(h, _mm_set1_epi32(0x7fff)));
        let sign = _mm_slli_epi32::<16>(_mm_and_si128(h, _mm_set1_epi32(0x8000)));
        let bias = _mm_set1_epi32(BIAS);
        let infinite = _mm_cmpgt_epi32(bits, _mm_set1_epi32(0x7bff << 13));
        let normal = _mm_add_epi32(_mm_add_epi32(bits, bias), _mm_and_si128(infinite, bias));
        // A subnormal number is the fraction of a normal one above 2^-14.
        let least = _mm_set1_epi32(113 << 23);
        let subnormal = _mm_sub_ps(_mm_castsi128_ps(_mm_add_epi32(bits, least)), _mm_castsi128_ps(least));
        let small = _mm_cmpgt_epi32(_mm_set1_epi32(0x400 << 13), bits);
        let v = _mm_blendv_ps(_mm_castsi128_ps(normal), subnormal, _mm_castsi128_ps(small));
        _mm_or_ps(v, _mm_castsi128_ps(sign))
    })
}

/// `a * b + c`, rounded once: the portable form of [`super::lanes`] on two lanes at a time.
#[inline(always)]
fn fma(token: Sse41, a: __m128, b: __m128, c: __m128) -> __m128 {
    let low = fma_low(token, a, b, c);
    let upper = proven!(token, Sse41, [_mm_movehl_ps(a, a), _mm_movehl_ps(b, b), _mm_movehl_ps(c, c)]);
    let high = fma_low(token, upper[0], upper[1], upper[2]);
    proven!(token, Sse41, _mm_movelh_ps(low, high))
}

/// Lanes 0 and 1 of [`fma`].
#[inline(always)]
fn fma_low(token: Sse41, a: __m128, b: __m128, c: __m128) -> __m128 {
    proven!(token, Sse41, {
        let (product, c) = (_mm_mul_pd(_mm_cvtps_pd(a), _mm_cvtps_pd(b)), _mm_cvtps_pd(c));
        let sum = _mm_add_pd(product, c);
        // The exact rounding error.
        let part = _mm_sub_pd(sum, product);
        let lost = _mm_add_pd(_mm_sub_pd(product, _mm_sub_pd(sum, part)), _mm_sub_pd(c, part));
        let (zero, one) = (_mm_setzero_pd(), _mm_set1_epi64x(1));
        let more = _mm_cmpgt_pd(lost, zero);
        let inexact = _mm_castpd_si128(_mm_or_pd(more, _mm_cmplt_pd(lost, zero)));
        let bits = _mm_castpd_si128(sum);
        let even = _mm_cmpeq_epi64(_mm_and_si128(bits, one), _mm_setzero_si128());
        // Towards the exact value: 1 where what was lost has the sign of the sum, else -1.
        let step = _mm_or_si128(_mm_castpd_si128(_mm_xor_pd(more, _mm_cmpgt_pd(sum, zero))), one);
        let odd = _mm_add_epi64(bits, _mm_and_si128(step, _mm_and_si128(inexact, even)));
        _mm_cvtpd_ps(_mm_castsi128_pd(odd))
    })
}
