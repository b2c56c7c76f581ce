//! Sixteen lanes of WebAssembly SIMD: four vectors.

use std::arch::wasm32::*;

use half::{bf16, f16};

use super::lanes::{LANES, Simd};
use crate::isa::Simd128;
use crate::simd;

/// A function on each of the four vectors.
macro_rules! each {
    ($f:expr, $a:expr) => {
        [$f($a[0]), $f($a[1]), $f($a[2]), $f($a[3])]
    };
    ($f:expr, $a:expr, $b:expr) => {
        [$f($a[0], $b[0]), $f($a[1], $b[1]), $f($a[2], $b[2]), $f($a[3], $b[3])]
    };
}

impl Simd for Simd128 {
    /// Lanes 0 to 3, 4 to 7, 8 to 11 and 12 to 15.
    type F = [v128; 4];
    type I = [v128; 4];
    const ACCUMULATORS: usize = 4;

    #[inline(always)]
    fn splat(self, x: f32) -> Self::F {
        [f32x4_splat(x); 4]
    }
    #[inline(always)]
    fn load(self, x: &[f32; LANES]) -> Self::F {
        simd::load(x)
    }
    #[inline(always)]
    fn load_f16(self, x: &[f16; LANES]) -> Self::F {
        let [a, b]: [v128; 2] = simd::load(x);
        [u32x4_extend_low_u16x8(a), u32x4_extend_high_u16x8(a), u32x4_extend_low_u16x8(b), u32x4_extend_high_u16x8(b)]
            .map(widen_f16)
    }
    #[inline(always)]
    fn load_bf16(self, x: &[bf16; LANES]) -> Self::F {
        let [a, b]: [v128; 2] = simd::load(x);
        [u32x4_extend_low_u16x8(a), u32x4_extend_high_u16x8(a), u32x4_extend_low_u16x8(b), u32x4_extend_high_u16x8(b)]
            .map(|v| i32x4_shl(v, 16))
    }
    #[inline(always)]
    fn load_i8(self, x: &[i8; LANES]) -> Self::F {
        let x: v128 = simd::load(x);
        let (a, b) = (i16x8_extend_low_i8x16(x), i16x8_extend_high_i8x16(x));
        [i32x4_extend_low_i16x8(a), i32x4_extend_high_i16x8(a), i32x4_extend_low_i16x8(b), i32x4_extend_high_i16x8(b)]
            .map(|v| f32x4_convert_i32x4(v))
    }
    #[inline(always)]
    fn store(self, v: Self::F, out: &mut [f32; LANES]) {
        simd::store(v, out);
    }
    #[inline(always)]
    fn store_f16(self, v: Self::F, out: &mut [f16; LANES]) {
        let mut lanes = [0.0; LANES];
        self.store(v, &mut lanes);
        *out = lanes.map(f16::from_f32);
    }

    #[inline(always)]
    fn add(self, a: Self::F, b: Self::F) -> Self::F {
        each!(f32x4_add, a, b)
    }
    #[inline(always)]
    fn sub(self, a: Self::F, b: Self::F) -> Self::F {
        each!(f32x4_sub, a, b)
    }
    #[inline(always)]
    fn mul(self, a: Self::F, b: Self::F) -> Self::F {
        each!(f32x4_mul, a, b)
    }
    #[inline(always)]
    fn div(self, a: Self::F, b: Self::F) -> Self::F {
        each!(f32x4_div, a, b)
    }
    #[inline(always)]
    fn fma(self, a: Self::F, b: Self::F, c: Self::F) -> Self::F {
        fused(a, b, c)
    }
    #[inline(always)]
    fn min(self, a: Self::F, b: Self::F) -> Self::F {
        // `pmin(x, y)` is `if y < x { y } else { x }`.
        each!(f32x4_pmin, b, a)
    }
    #[inline(always)]
    fn max(self, a: Self::F, b: Self::F) -> Self::F {
        // `pmax(x, y)` is `if x < y { y } else { x }`.
        each!(f32x4_pmax, b, a)
    }
    #[inline(always)]
    fn swap<const H: usize>(self, v: Self::F) -> Self::F {
        match H {
            1 => each!(|v| i32x4_shuffle::<1, 0, 3, 2>(v, v), v),
            2 => each!(|v| i32x4_shuffle::<2, 3, 0, 1>(v, v), v),
            4 => [v[1], v[0], v[3], v[2]],
            _ => [v[2], v[3], v[0], v[1]],
        }
    }

    #[inline(always)]
    fn splat_i(self, x: i32) -> Self::I {
        [i32x4_splat(x); 4]
    }
    #[inline(always)]
    fn load_i(self, x: &[i32; LANES]) -> Self::I {
        simd::load(x)
    }
    #[inline(always)]
    fn add_i(self, a: Self::I, b: Self::I) -> Self::I {
        each!(i32x4_add, a, b)
    }
    #[inline(always)]
    fn sub_i(self, a: Self::I, b: Self::I) -> Self::I {
        each!(i32x4_sub, a, b)
    }
    #[inline(always)]
    fn max_i(self, a: Self::I, b: Self::I) -> Self::I {
        each!(i32x4_max, a, b)
    }
    #[inline(always)]
    fn halve_i(self, a: Self::I) -> Self::I {
        each!(|a| i32x4_shr(a, 1), a)
    }
    #[inline(always)]
    fn store_i8(self, a: Self::I, out: &mut [i8; LANES]) {
        for (a, out) in a.into_iter().zip(out.as_chunks_mut::<4>().0) {
            *out = int_lanes(a).map(|a| a as i8);
        }
    }

    #[inline(always)]
    fn to_f(self, a: Self::I) -> Self::F {
        each!(f32x4_convert_i32x4, a)
    }
    #[inline(always)]
    fn to_i(self, v: Self::F) -> Self::I {
        each!(|v| i32x4_trunc_sat_f32x4(f32x4_nearest(v)), v)
    }
    #[inline(always)]
    fn abs_bits(self, v: Self::F) -> Self::I {
        each!(f32x4_abs, v)
    }
    #[inline(always)]
    fn exp2(self, n: Self::I) -> Self::F {
        each!(|n| i32x4_shl(i32x4_add(n, i32x4_splat(127)), 23), n)
    }

    #[inline(always)]
    fn sum(self, v: Self::F) -> f32 {
        let [a, b, c, d] = lanes(f32x4_add(f32x4_add(v[0], v[2]), f32x4_add(v[1], v[3])));
        (a + c) + (b + d)
    }
    #[inline(always)]
    fn max_lane(self, v: Self::F) -> f32 {
        let max = |a: f32, b: f32| if a > b { a } else { b };
        // As in `max`, the operands are swapped.
        let [a, b, c, d] = lanes(f32x4_pmax(f32x4_pmax(v[3], v[1]), f32x4_pmax(v[2], v[0])));
        max(max(a, c), max(b, d))
    }
    #[inline(always)]
    fn sums(self, v: [Self::F; LANES]) -> Self::F {
        let sums: [f32; LANES] = std::array::from_fn(|i| self.sum(v[i]));
        self.load(&sums)
    }
    #[inline(always)]
    fn sum_i(self, a: Self::I) -> i32 {
        int_lanes(i32x4_add(i32x4_add(a[0], a[1]), i32x4_add(a[2], a[3]))).into_iter().fold(0, i32::wrapping_add)
    }
    #[inline(always)]
    fn max_lane_i(self, a: Self::I) -> i32 {
        let [a, b, c, d] = int_lanes(i32x4_max(i32x4_max(a[0], a[1]), i32x4_max(a[2], a[3])));
        a.max(b).max(c.max(d))
    }
}

/// The f16 in each lane as f32, exactly. Exponent and fraction are moved to their places and multiplied by the ratio of
/// the powers of two that they then stand for, which makes subnormal numbers normal; infinities and NaNs get the
/// largest exponent, and NaNs become quiet, as in every conversion.
#[inline(always)]
fn widen_f16(x: v128) -> v128 {
    let sign = i32x4_shl(v128_and(x, u32x4_splat(0x8000)), 16);
    let moved = i32x4_shl(v128_and(x, u32x4_splat(0x7fff)), 13);
    let scaled = f32x4_mul(moved, f32x4_splat(f32::from_bits((127 + 112) << 23)));
    let special = v128_and(i32x4_gt(moved, u32x4_splat((0x7c00 << 13) - 1)), u32x4_splat(0xff << 23));
    let quiet = v128_and(i32x4_gt(moved, u32x4_splat(0x7c00 << 13)), u32x4_splat(1 << 22));
    v128_or(v128_or(scaled, sign), v128_or(special, quiet))
}

#[inline(always)]
fn lanes(v: v128) -> [f32; 4] {
    [f32x4_extract_lane::<0>(v), f32x4_extract_lane::<1>(v), f32x4_extract_lane::<2>(v), f32x4_extract_lane::<3>(v)]
}

#[inline(always)]
fn int_lanes(v: v128) -> [i32; 4] {
    [i32x4_extract_lane::<0>(v), i32x4_extract_lane::<1>(v), i32x4_extract_lane::<2>(v), i32x4_extract_lane::<3>(v)]
}

/// `a * b + c`, rounded once. The relaxed instruction is fused or not, as the host likes: a program that is built with
/// it asks first ([`crate::machine::isa`]).
#[cfg(target_feature = "relaxed-simd")]
#[inline(always)]
fn fused(a: [v128; 4], b: [v128; 4], c: [v128; 4]) -> [v128; 4] {
    std::array::from_fn(|i| f32x4_relaxed_madd(a[i], b[i], c[i]))
}

/// `a * b + c`, rounded once.
///
/// The product is exact in f64. Its sum is rounded to f64 and then to f32, which is the same as once, unless the f64
/// lies in the middle between two neighbouring f32: only there does it matter what the first rounding lost. So all
/// lanes are computed like this, and once more with care ([`careful`]) if one of them lies there or is subnormal as
/// f32.
#[cfg(not(target_feature = "relaxed-simd"))]
#[inline(always)]
fn fused(a: [v128; 4], b: [v128; 4], c: [v128; 4]) -> [v128; 4] {
    let [r0, r1, r2, r3]: [(v128, v128); 4] = std::array::from_fn(|i| twice_rounded(a[i], b[i], c[i]));
    let doubt = v128_or(v128_or(r0.1, r1.1), v128_or(r2.1, r3.1));
    if v128_any_true(doubt) {
        return careful(&a, &b, &c);
    }
    [r0.0, r1.0, r2.0, r3.0]
}

/// `a * b + c`, rounded to f64 and then to f32, and all bits of the lanes where that may be another number than rounded
/// once.
#[cfg(not(target_feature = "relaxed-simd"))]
#[inline(always)]
fn twice_rounded(a: v128, b: v128, c: v128) -> (v128, v128) {
    let upper = |v| i64x2_shuffle::<1, 0>(v, v);
    let sum = |a, b, c| {
        let product = f64x2_mul(f64x2_promote_low_f32x4(a), f64x2_promote_low_f32x4(b));
        f64x2_add(product, f64x2_promote_low_f32x4(c))
    };
    let (low, high) = (sum(a, b, c), sum(upper(a), upper(b), upper(c)));
    let result = i64x2_shuffle::<0, 2>(f32x4_demote_f64x2_zero(low), f32x4_demote_f64x2_zero(high));
    // The middle: of the 29 bits that f32 lacks only the first one is set.
    let last = i32x4_shuffle::<0, 2, 4, 6>(low, high);
    let middle = i32x4_eq(v128_and(last, u32x4_splat((1 << 29) - 1)), u32x4_splat(1 << 28));
    // Below the smallest normal f32, 2^-126, but not zero: there f32 lacks more bits. The shift drops the sign; zero
    // wraps around.
    let first = i32x4_shl(i32x4_shuffle::<1, 3, 5, 7>(low, high), 1);
    let small = u32x4_lt(i32x4_sub(first, u32x4_splat(1)), u32x4_splat(((1023 - 126) << 21) - 1));
    (result, v128_or(middle, small))
}

/// [`fused`] with every rounding error known: the portable form of [`super::lanes`] on two lanes at a time.
#[cfg(not(target_feature = "relaxed-simd"))]
#[cold]
#[inline(never)]
fn careful(a: &[v128; 4], b: &[v128; 4], c: &[v128; 4]) -> [v128; 4] {
    let upper = |v| i64x2_shuffle::<1, 0>(v, v);
    std::array::from_fn(|i| {
        let low = careful_low(a[i], b[i], c[i]);
        let high = careful_low(upper(a[i]), upper(b[i]), upper(c[i]));
        i64x2_shuffle::<0, 2>(low, high)
    })
}

/// Lanes 0 and 1 of [`careful`].
#[cfg(not(target_feature = "relaxed-simd"))]
#[inline(always)]
fn careful_low(a: v128, b: v128, c: v128) -> v128 {
    let (a, b) = (f64x2_promote_low_f32x4(a), f64x2_promote_low_f32x4(b));
    let (product, c) = (f64x2_mul(a, b), f64x2_promote_low_f32x4(c));
    let sum = f64x2_add(product, c);
    // The rounding error, exactly.
    let part = f64x2_sub(sum, product);
    let lost = f64x2_add(f64x2_sub(product, f64x2_sub(sum, part)), f64x2_sub(c, part));
    let zero = f64x2_splat(0.0);
    let more = f64x2_gt(lost, zero);
    let inexact = v128_or(more, f64x2_lt(lost, zero));
    let even = i64x2_eq(v128_and(sum, i64x2_splat(1)), zero);
    // Towards the exact value: 1 if the rounding error has the sign of the sum, else -1.
    let step = v128_or(v128_xor(more, f64x2_gt(sum, zero)), i64x2_splat(1));
    let odd = i64x2_add(sum, v128_and(step, v128_and(inexact, even)));
    f32x4_demote_f64x2_zero(odd)
}
