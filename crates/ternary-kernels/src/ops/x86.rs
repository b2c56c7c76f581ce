//! Sixteen lanes on x86-64 without AVX-512: two AVX2 registers.

use std::arch::x86_64::*;

use half::{bf16, f16};

use super::lanes::{CHUNK, LANES, Simd};
use crate::isa::{Avx2, proven};
use crate::simd;

impl Simd for Avx2 {
    /// Lanes 0 to 7 and lanes 8 to 15.
    type F = [__m256; 2];
    type I = [__m256i; 2];
    const ACCUMULATORS: usize = 4;

    #[inline(always)]
    fn splat(self, x: f32) -> Self::F {
        proven!(self, [_mm256_set1_ps(x); 2])
    }
    #[inline(always)]
    fn load(self, x: &[f32; LANES]) -> Self::F {
        let [a, b]: &[[f32; 8]; 2] = bytemuck::cast_ref(x);
        [simd::load(a), simd::load(b)]
    }
    #[inline(always)]
    fn load_f16(self, x: &[f16; LANES]) -> Self::F {
        let [a, b]: &[[f16; 8]; 2] = bytemuck::cast_ref(x);
        proven!(self, [_mm256_cvtph_ps(simd::load(a)), _mm256_cvtph_ps(simd::load(b))])
    }
    #[inline(always)]
    fn load_bf16(self, x: &[bf16; LANES]) -> Self::F {
        let [a, b]: &[[bf16; 8]; 2] = bytemuck::cast_ref(x);
        proven!(self, {
            let a = _mm256_slli_epi32::<16>(_mm256_cvtepu16_epi32(simd::load(a)));
            let b = _mm256_slli_epi32::<16>(_mm256_cvtepu16_epi32(simd::load(b)));
            [_mm256_castsi256_ps(a), _mm256_castsi256_ps(b)]
        })
    }
    #[inline(always)]
    fn load_i8(self, x: &[i8; LANES]) -> Self::F {
        let x = simd::load(x);
        proven!(self, {
            let low = _mm256_cvtepi8_epi32(x);
            let high = _mm256_cvtepi8_epi32(_mm_unpackhi_epi64(x, x));
            [_mm256_cvtepi32_ps(low), _mm256_cvtepi32_ps(high)]
        })
    }
    #[inline(always)]
    fn load_i16(self, x: &[i16; LANES]) -> Self::F {
        let [a, b]: [__m128i; 2] = simd::load(x);
        proven!(self, [_mm256_cvtepi32_ps(_mm256_cvtepi16_epi32(a)), _mm256_cvtepi32_ps(_mm256_cvtepi16_epi32(b))])
    }
    #[inline(always)]
    fn load_i4(self, x: &[u8; LANES / 2]) -> Self::F {
        let both = i64::from_le_bytes(*x);
        proven!(self, {
            let both = _mm256_set1_epi64x(both);
            let low = _mm256_sllv_epi32(both, _mm256_setr_epi32(28, 28, 24, 24, 20, 20, 16, 16));
            let high = _mm256_sllv_epi32(both, _mm256_setr_epi32(12, 12, 8, 8, 4, 4, 0, 0));
            [_mm256_cvtepi32_ps(_mm256_srai_epi32::<28>(low)), _mm256_cvtepi32_ps(_mm256_srai_epi32::<28>(high))]
        })
    }
    #[inline(always)]
    fn store(self, v: Self::F, out: &mut [f32; LANES]) {
        let [a, b]: &mut [[f32; 8]; 2] = bytemuck::cast_mut(out);
        simd::store(v[0], a);
        simd::store(v[1], b);
    }
    #[inline(always)]
    fn store_f16(self, v: Self::F, out: &mut [f16; LANES]) {
        let [a, b]: &mut [[f16; 8]; 2] = bytemuck::cast_mut(out);
        simd::store(proven!(self, _mm256_cvtps_ph::<_MM_FROUND_TO_NEAREST_INT>(v[0])), a);
        simd::store(proven!(self, _mm256_cvtps_ph::<_MM_FROUND_TO_NEAREST_INT>(v[1])), b);
    }

    #[inline(always)]
    fn add(self, a: Self::F, b: Self::F) -> Self::F {
        proven!(self, [_mm256_add_ps(a[0], b[0]), _mm256_add_ps(a[1], b[1])])
    }
    #[inline(always)]
    fn sub(self, a: Self::F, b: Self::F) -> Self::F {
        proven!(self, [_mm256_sub_ps(a[0], b[0]), _mm256_sub_ps(a[1], b[1])])
    }
    #[inline(always)]
    fn mul(self, a: Self::F, b: Self::F) -> Self::F {
        proven!(self, [_mm256_mul_ps(a[0], b[0]), _mm256_mul_ps(a[1], b[1])])
    }
    #[inline(always)]
    fn div(self, a: Self::F, b: Self::F) -> Self::F {
        proven!(self, [_mm256_div_ps(a[0], b[0]), _mm256_div_ps(a[1], b[1])])
    }
    #[inline(always)]
    fn fma(self, a: Self::F, b: Self::F, c: Self::F) -> Self::F {
        proven!(self, [_mm256_fmadd_ps(a[0], b[0], c[0]), _mm256_fmadd_ps(a[1], b[1], c[1])])
    }
    #[inline(always)]
    fn min(self, a: Self::F, b: Self::F) -> Self::F {
        proven!(self, [_mm256_min_ps(a[0], b[0]), _mm256_min_ps(a[1], b[1])])
    }
    #[inline(always)]
    fn max(self, a: Self::F, b: Self::F) -> Self::F {
        proven!(self, [_mm256_max_ps(a[0], b[0]), _mm256_max_ps(a[1], b[1])])
    }
    #[inline(always)]
    fn swap<const H: usize>(self, v: Self::F) -> Self::F {
        match H {
            1 => proven!(self, [_mm256_permute_ps::<0b10_11_00_01>(v[0]), _mm256_permute_ps::<0b10_11_00_01>(v[1])]),
            2 => proven!(self, [_mm256_permute_ps::<0b01_00_11_10>(v[0]), _mm256_permute_ps::<0b01_00_11_10>(v[1])]),
            4 => proven!(self, [_mm256_permute2f128_ps::<1>(v[0], v[0]), _mm256_permute2f128_ps::<1>(v[1], v[1])]),
            _ => [v[1], v[0]],
        }
    }

    #[inline(always)]
    fn splat_i(self, x: i32) -> Self::I {
        proven!(self, [_mm256_set1_epi32(x); 2])
    }
    #[inline(always)]
    fn load_i(self, x: &[i32; LANES]) -> Self::I {
        let [a, b]: &[[i32; 8]; 2] = bytemuck::cast_ref(x);
        [simd::load(a), simd::load(b)]
    }
    #[inline(always)]
    fn add_i(self, a: Self::I, b: Self::I) -> Self::I {
        proven!(self, [_mm256_add_epi32(a[0], b[0]), _mm256_add_epi32(a[1], b[1])])
    }
    #[inline(always)]
    fn sub_i(self, a: Self::I, b: Self::I) -> Self::I {
        proven!(self, [_mm256_sub_epi32(a[0], b[0]), _mm256_sub_epi32(a[1], b[1])])
    }
    #[inline(always)]
    fn max_i(self, a: Self::I, b: Self::I) -> Self::I {
        proven!(self, [_mm256_max_epi32(a[0], b[0]), _mm256_max_epi32(a[1], b[1])])
    }
    #[inline(always)]
    fn halve_i(self, a: Self::I) -> Self::I {
        proven!(self, [_mm256_srai_epi32::<1>(a[0]), _mm256_srai_epi32::<1>(a[1])])
    }
    #[inline(always)]
    fn store_i8(self, a: Self::I, out: &mut [i8; LANES]) {
        let bytes = proven!(self, {
            // The packs saturate, so the low bytes are masked first; they work within 128-bit halves, so they leave
            // four lanes at a time in order, and the unpack puts the fours in order.
            let byte = _mm256_set1_epi32(0xff);
            let words = _mm256_packus_epi32(_mm256_and_si256(a[0], byte), _mm256_and_si256(a[1], byte));
            let words = _mm256_permute4x64_epi64::<0b11_01_10_00>(words);
            _mm_packus_epi16(_mm256_castsi256_si128(words), _mm256_extracti128_si256::<1>(words))
        });
        simd::store(bytes, out);
    }

    #[inline(always)]
    fn to_f(self, a: Self::I) -> Self::F {
        proven!(self, [_mm256_cvtepi32_ps(a[0]), _mm256_cvtepi32_ps(a[1])])
    }
    #[inline(always)]
    fn to_i(self, v: Self::F) -> Self::I {
        proven!(self, [_mm256_cvtps_epi32(v[0]), _mm256_cvtps_epi32(v[1])])
    }
    #[inline(always)]
    fn abs_bits(self, v: Self::F) -> Self::I {
        proven!(self, {
            let mask = _mm256_set1_epi32(i32::MAX);
            [_mm256_and_si256(_mm256_castps_si256(v[0]), mask), _mm256_and_si256(_mm256_castps_si256(v[1]), mask)]
        })
    }
    #[inline(always)]
    fn exp2(self, n: Self::I) -> Self::F {
        proven!(self, {
            let bias = _mm256_set1_epi32(127);
            let a = _mm256_slli_epi32::<23>(_mm256_add_epi32(n[0], bias));
            let b = _mm256_slli_epi32::<23>(_mm256_add_epi32(n[1], bias));
            [_mm256_castsi256_ps(a), _mm256_castsi256_ps(b)]
        })
    }

    #[inline(always)]
    fn sum(self, v: Self::F) -> f32 {
        proven!(self, {
            let v = _mm256_add_ps(v[0], v[1]);
            let v = _mm_add_ps(_mm256_castps256_ps128(v), _mm256_extractf128_ps::<1>(v));
            let v = _mm_add_ps(v, _mm_movehl_ps(v, v));
            _mm_cvtss_f32(_mm_add_ss(v, _mm_movehdup_ps(v)))
        })
    }
    #[inline(always)]
    fn max_lane(self, v: Self::F) -> f32 {
        proven!(self, {
            let v = _mm256_max_ps(v[0], v[1]);
            let v = _mm_max_ps(_mm256_castps256_ps128(v), _mm256_extractf128_ps::<1>(v));
            let v = _mm_max_ps(v, _mm_movehl_ps(v, v));
            _mm_cvtss_f32(_mm_max_ss(v, _mm_movehdup_ps(v)))
        })
    }
    #[inline(always)]
    fn sums(self, v: [Self::F; LANES]) -> Self::F {
        [sums_of_8(self, v, 0), sums_of_8(self, v, 8)]
    }
    #[inline(always)]
    fn sum_i(self, a: Self::I) -> i32 {
        proven!(self, {
            let a = _mm256_add_epi32(a[0], a[1]);
            let a = _mm_add_epi32(_mm256_castsi256_si128(a), _mm256_extracti128_si256::<1>(a));
            let a = _mm_add_epi32(a, _mm_unpackhi_epi64(a, a));
            _mm_cvtsi128_si32(_mm_add_epi32(a, _mm_shuffle_epi32::<1>(a)))
        })
    }
    #[inline(always)]
    fn max_lane_i(self, a: Self::I) -> i32 {
        proven!(self, {
            let a = _mm256_max_epi32(a[0], a[1]);
            let a = _mm_max_epi32(_mm256_castsi256_si128(a), _mm256_extracti128_si256::<1>(a));
            let a = _mm_max_epi32(a, _mm_unpackhi_epi64(a, a));
            _mm_cvtsi128_si32(_mm_max_epi32(a, _mm_shuffle_epi32::<1>(a)))
        })
    }
    #[inline(always)]
    fn sums_i(self, v: [Self::I; LANES]) -> Self::I {
        macro_rules! two {
            ($i:expr) => {
                _mm256_add_epi32(v[$i][0], v[$i][1])
            };
        }
        macro_rules! fours {
            ($i:expr) => {{
                let (a, b) = (_mm256_hadd_epi32(two!($i), two!($i + 1)), _mm256_hadd_epi32(two!($i + 2), two!($i + 3)));
                _mm256_hadd_epi32(a, b)
            }};
        }
        macro_rules! eights {
            ($i:expr) => {{
                let (a, b) = (fours!($i), fours!($i + 4));
                _mm256_add_epi32(_mm256_permute2x128_si256::<0x20>(a, b), _mm256_permute2x128_si256::<0x31>(a, b))
            }};
        }
        proven!(self, [eights!(0), eights!(8)])
    }
    #[inline(always)]
    fn dot_i8(self, acc: Self::I, q: &[i8; CHUNK], k: &[u8; CHUNK]) -> Self::I {
        let (q, k) = (halves(bytemuck::cast_ref(q)), halves(k));
        // Two products of at most 127 * 127 fit 16 bits.
        proven!(self, {
            let one = _mm256_set1_epi16(1);
            let low = _mm256_maddubs_epi16(_mm256_abs_epi8(k[0]), _mm256_sign_epi8(q[0], k[0]));
            let high = _mm256_maddubs_epi16(_mm256_abs_epi8(k[1]), _mm256_sign_epi8(q[1], k[1]));
            [
                _mm256_add_epi32(acc[0], _mm256_madd_epi16(low, one)),
                _mm256_add_epi32(acc[1], _mm256_madd_epi16(high, one)),
            ]
        })
    }
    const DOT_I4_BIAS: i32 = 8;
    #[inline(always)]
    fn dot_i4(self, acc: Self::I, [low, high]: [&[i8; CHUNK]; 2], k: &[u8; CHUNK]) -> Self::I {
        let (low, high, k) = (halves(bytemuck::cast_ref(low)), halves(bytemuck::cast_ref(high)), halves(k));
        // Four products of at most 15 * 127 fit 16 bits.
        proven!(self, {
            let (one, nibble) = (_mm256_set1_epi16(1), _mm256_set1_epi8(0x0f));
            // With 8 added, a nibble in two's complement becomes unsigned.
            let k = [
                _mm256_xor_si256(k[0], _mm256_set1_epi8(0x88u8 as i8)),
                _mm256_xor_si256(k[1], _mm256_set1_epi8(0x88u8 as i8)),
            ];
            macro_rules! products {
                ($h:literal) => {{
                    let upper = _mm256_and_si256(_mm256_srli_epi16::<4>(k[$h]), nibble);
                    let lower = _mm256_maddubs_epi16(_mm256_and_si256(k[$h], nibble), low[$h]);
                    _mm256_madd_epi16(_mm256_add_epi16(lower, _mm256_maddubs_epi16(upper, high[$h])), one)
                }};
            }
            [_mm256_add_epi32(acc[0], products!(0)), _mm256_add_epi32(acc[1], products!(1))]
        })
    }
}

#[inline(always)]
fn halves(x: &[u8; CHUNK]) -> [__m256i; 2] {
    let [a, b]: &[[u8; CHUNK / 2]; 2] = bytemuck::cast_ref(x);
    [simd::load(a), simd::load(b)]
}

/// Lane `i` is the sum over the tree of `v[from + i]`: two vectors at a time, lanes l + 8, l + 4, l + 2, l + 1.
#[inline(always)]
fn sums_of_8(token: Avx2, v: [[__m256; 2]; LANES], from: usize) -> __m256 {
    macro_rules! eight {
        ($i:expr) => {
            _mm256_add_ps(v[from + $i][0], v[from + $i][1])
        };
    }
    macro_rules! fours {
        ($a:expr, $b:expr) => {{
            let (a, b) = ($a, $b);
            _mm256_add_ps(_mm256_permute2f128_ps::<0x20>(a, b), _mm256_permute2f128_ps::<0x31>(a, b))
        }};
    }
    macro_rules! pairs {
        ($low:literal, $high:literal, $a:expr, $b:expr) => {{
            let (a, b) = ($a, $b);
            _mm256_add_ps(_mm256_shuffle_ps::<$low>(a, b), _mm256_shuffle_ps::<$high>(a, b))
        }};
    }
    proven!(token, Avx2, {
        // The order of the operands is such that the last shuffles leave the sums in order.
        let (a, b) = (fours!(eight!(0), eight!(4)), fours!(eight!(1), eight!(5)));
        let (c, d) = (fours!(eight!(2), eight!(6)), fours!(eight!(3), eight!(7)));
        pairs!(0x88, 0xdd, pairs!(0x44, 0xee, a, b), pairs!(0x44, 0xee, c, d))
    })
}
