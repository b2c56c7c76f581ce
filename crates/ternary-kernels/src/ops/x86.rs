//! Sixteen lanes on x86-64: two AVX2 registers, or one of AVX-512.

use std::arch::x86_64::*;

use half::{bf16, f16};

use super::lanes::{LANES, Simd};
use crate::isa::{Avx2, Avx512Vnni, proven};

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
        // SAFETY: the token proves AVX; the 16 floats of the array are readable, and the load needs no alignment.
        unsafe { [_mm256_loadu_ps(x.as_ptr()), _mm256_loadu_ps(x.as_ptr().add(8))] }
    }
    #[inline(always)]
    fn load_f16(self, x: &[f16; LANES]) -> Self::F {
        let x = x.as_ptr().cast::<__m128i>();
        // SAFETY: the token proves F16C; the 32 bytes of the array are readable, and the load needs no alignment.
        unsafe { [_mm256_cvtph_ps(_mm_loadu_si128(x)), _mm256_cvtph_ps(_mm_loadu_si128(x.add(1)))] }
    }
    #[inline(always)]
    fn load_bf16(self, x: &[bf16; LANES]) -> Self::F {
        let x = x.as_ptr().cast::<__m128i>();
        // SAFETY: the token proves AVX2; the 32 bytes of the array are readable, and the load needs no alignment.
        let [a, b] = unsafe { [_mm_loadu_si128(x), _mm_loadu_si128(x.add(1))] };
        proven!(self, {
            let a = _mm256_slli_epi32::<16>(_mm256_cvtepu16_epi32(a));
            let b = _mm256_slli_epi32::<16>(_mm256_cvtepu16_epi32(b));
            [_mm256_castsi256_ps(a), _mm256_castsi256_ps(b)]
        })
    }
    #[inline(always)]
    fn load_i8(self, x: &[i8; LANES]) -> Self::F {
        // SAFETY: the token proves AVX2; the 16 bytes of the array are readable, and the load needs no alignment.
        let x = unsafe { _mm_loadu_si128(x.as_ptr().cast()) };
        proven!(self, {
            let low = _mm256_cvtepi8_epi32(x);
            let high = _mm256_cvtepi8_epi32(_mm_unpackhi_epi64(x, x));
            [_mm256_cvtepi32_ps(low), _mm256_cvtepi32_ps(high)]
        })
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
        // SAFETY: the token proves AVX; the 16 floats of the array are writable, and the store needs no alignment.
        unsafe {
            _mm256_storeu_ps(out.as_mut_ptr(), v[0]);
            _mm256_storeu_ps(out.as_mut_ptr().add(8), v[1]);
        }
    }
    #[inline(always)]
    fn store_f16(self, v: Self::F, out: &mut [f16; LANES]) {
        let out = out.as_mut_ptr().cast::<__m128i>();
        // SAFETY: the token proves F16C; the 32 bytes of the array are writable, and the store needs no alignment.
        unsafe {
            _mm_storeu_si128(out, _mm256_cvtps_ph::<_MM_FROUND_TO_NEAREST_INT>(v[0]));
            _mm_storeu_si128(out.add(1), _mm256_cvtps_ph::<_MM_FROUND_TO_NEAREST_INT>(v[1]));
        }
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
        let x = x.as_ptr().cast::<__m256i>();
        // SAFETY: the token proves AVX; the 64 bytes of the array are readable, and the load needs no alignment.
        unsafe { [_mm256_loadu_si256(x), _mm256_loadu_si256(x.add(1))] }
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
            // The packs saturate, so the low bytes are singled out first; they work within 128-bit halves, so four
            // lanes at a time are left in order, and the unpack puts the fours in order.
            let byte = _mm256_set1_epi32(0xff);
            let words = _mm256_packus_epi32(_mm256_and_si256(a[0], byte), _mm256_and_si256(a[1], byte));
            let words = _mm256_permute4x64_epi64::<0b11_01_10_00>(words);
            _mm_packus_epi16(_mm256_castsi256_si128(words), _mm256_extracti128_si256::<1>(words))
        });
        // SAFETY: the token proves AVX; the 16 bytes of the array are writable, and the store needs no alignment.
        unsafe { _mm_storeu_si128(out.as_mut_ptr().cast(), bytes) }
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
}

/// Lane `i` is the sum over the tree of `v[from + i]`: two vectors at a time, lanes l + 8, l + 4, l + 2, l + 1.
#[inline(always)]
fn sums_of_8(token: Avx2, v: [[__m256; 2]; LANES], from: usize) -> __m256 {
    let _: Avx2 = token;
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
    // SAFETY: the token proves AVX, and no intrinsic here touches memory.
    unsafe {
        // Operands stand in such an order that the last shuffles leave the sums in order.
        let (a, b) = (fours!(eight!(0), eight!(4)), fours!(eight!(1), eight!(5)));
        let (c, d) = (fours!(eight!(2), eight!(6)), fours!(eight!(3), eight!(7)));
        pairs!(0x88, 0xdd, pairs!(0x44, 0xee, a, b), pairs!(0x44, 0xee, c, d))
    }
}

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
        // SAFETY: the token proves AVX-512; the 16 floats of the array are readable, and the load needs no alignment.
        unsafe { _mm512_loadu_ps(x.as_ptr()) }
    }
    #[inline(always)]
    fn load_f16(self, x: &[f16; LANES]) -> Self::F {
        // SAFETY: the token proves AVX-512; the 32 bytes of the array are readable, and the load needs no alignment.
        unsafe { _mm512_cvtph_ps(_mm256_loadu_si256(x.as_ptr().cast())) }
    }
    #[inline(always)]
    fn load_bf16(self, x: &[bf16; LANES]) -> Self::F {
        // SAFETY: the token proves AVX-512; the 32 bytes of the array are readable, and the load needs no alignment.
        let x = unsafe { _mm256_loadu_si256(x.as_ptr().cast()) };
        proven!(self, _mm512_castsi512_ps(_mm512_slli_epi32::<16>(_mm512_cvtepu16_epi32(x))))
    }
    #[inline(always)]
    fn load_i8(self, x: &[i8; LANES]) -> Self::F {
        // SAFETY: the token proves AVX; the 16 bytes of the array are readable, and the load needs no alignment.
        let x = unsafe { _mm_loadu_si128(x.as_ptr().cast()) };
        proven!(self, _mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(x)))
    }
    #[inline(always)]
    fn load_i4(self, x: &[u8; LANES / 2]) -> Self::F {
        let both = i64::from_le_bytes(*x);
        proven!(self, {
            let shift = _mm512_setr_epi32(28, 28, 24, 24, 20, 20, 16, 16, 12, 12, 8, 8, 4, 4, 0, 0);
            let top = _mm512_sllv_epi32(_mm512_set1_epi64(both), shift);
            _mm512_cvtepi32_ps(_mm512_srai_epi32::<28>(top))
        })
    }
    #[inline(always)]
    fn store(self, v: Self::F, out: &mut [f32; LANES]) {
        // SAFETY: the token proves AVX-512; the 16 floats of the array are writable, and the store needs no alignment.
        unsafe { _mm512_storeu_ps(out.as_mut_ptr(), v) }
    }
    #[inline(always)]
    fn store_f16(self, v: Self::F, out: &mut [f16; LANES]) {
        let halves = proven!(self, _mm512_cvtps_ph::<_MM_FROUND_TO_NEAREST_INT>(v));
        // SAFETY: the token proves AVX; the 32 bytes of the array are writable, and the store needs no alignment.
        unsafe { _mm256_storeu_si256(out.as_mut_ptr().cast(), halves) }
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
        // SAFETY: the token proves AVX-512; the 64 bytes of the array are readable, and the load needs no alignment.
        unsafe { _mm512_loadu_si512(x.as_ptr().cast()) }
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
        // SAFETY: the token proves AVX; the 16 bytes of the array are writable, and the store needs no alignment.
        unsafe { _mm_storeu_si128(out.as_mut_ptr().cast(), bytes) }
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
        /// Adds what two shuffles take from `a` and `b`: halves of their lanes that belong together.
        macro_rules! halves {
            ($shuffle:ident, $low:literal, $high:literal, $a:expr, $b:expr) => {{
                let (a, b) = ($a, $b);
                _mm512_add_ps($shuffle::<$low>(a, b), $shuffle::<$high>(a, b))
            }};
        }
        /// Vectors m, m + 4, m + 8, m + 12, four lanes left of each.
        macro_rules! four {
            ($m:literal) => {{
                let a = halves!(_mm512_shuffle_f32x4, 0x44, 0xee, v[$m], v[$m + 4]);
                let b = halves!(_mm512_shuffle_f32x4, 0x44, 0xee, v[$m + 8], v[$m + 12]);
                halves!(_mm512_shuffle_f32x4, 0x88, 0xdd, a, b)
            }};
        }
        proven!(self, {
            // Two vectors at a time: lanes l + 8, l + 4, l + 2, l + 1. They stand in such an order that the last
            // shuffles leave the sums in order.
            let a = halves!(_mm512_shuffle_ps, 0x44, 0xee, four!(0), four!(1));
            let b = halves!(_mm512_shuffle_ps, 0x44, 0xee, four!(2), four!(3));
            halves!(_mm512_shuffle_ps, 0x88, 0xdd, a, b)
        })
    }
    #[inline(always)]
    fn transpose(self, v: [Self::F; LANES]) -> [Self::F; LANES] {
        proven!(self, {
            // Pairs of lanes of two neighbours, then four lanes of four, in every 128 bits: `fours[4 g + c]` holds column
            // `4 q + c` of the vectors `4 g ..= 4 g + 3` in its quarter `q`.
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
}
