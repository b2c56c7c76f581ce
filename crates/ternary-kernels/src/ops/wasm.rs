//! Sixteen lanes of WebAssembly SIMD: four vectors.

use std::arch::wasm32::*;

use half::{bf16, f16};

use super::lanes::{LANES, Simd};
use crate::isa::Simd128;

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
        let at = |i: usize| f32x4(x[i], x[i + 1], x[i + 2], x[i + 3]);
        [at(0), at(4), at(8), at(12)]
    }
    #[inline(always)]
    fn load_f16(self, x: &[f16; LANES]) -> Self::F {
        self.load(&x.map(f16::to_f32))
    }
    #[inline(always)]
    fn load_bf16(self, x: &[bf16; LANES]) -> Self::F {
        self.load(&x.map(|x| f32::from_bits(u32::from(x.to_bits()) << 16)))
    }
    #[inline(always)]
    fn load_i8(self, x: &[i8; LANES]) -> Self::F {
        self.load(&x.map(f32::from))
    }
    #[inline(always)]
    fn store(self, v: Self::F, out: &mut [f32; LANES]) {
        for (v, out) in v.into_iter().zip(out.as_chunks_mut::<4>().0) {
            *out = lanes(v);
        }
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
        [fma(a[0], b[0], c[0]), fma(a[1], b[1], c[1]), fma(a[2], b[2], c[2]), fma(a[3], b[3], c[3])]
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
        let at = |i: usize| i32x4(x[i], x[i + 1], x[i + 2], x[i + 3]);
        [at(0), at(4), at(8), at(12)]
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

#[inline(always)]
fn lanes(v: v128) -> [f32; 4] {
    [f32x4_extract_lane::<0>(v), f32x4_extract_lane::<1>(v), f32x4_extract_lane::<2>(v), f32x4_extract_lane::<3>(v)]
}

#[inline(always)]
fn int_lanes(v: v128) -> [i32; 4] {
    [i32x4_extract_lane::<0>(v), i32x4_extract_lane::<1>(v), i32x4_extract_lane::<2>(v), i32x4_extract_lane::<3>(v)]
}

/// `a * b + c`, rounded once: the portable form of [`super::lanes`] on two lanes at a time.
#[inline(always)]
fn fma(a: v128, b: v128, c: v128) -> v128 {
    let upper = |v| i64x2_shuffle::<1, 0>(v, v);
    let low = fma_low(a, b, c);
    let high = fma_low(upper(a), upper(b), upper(c));
    i64x2_shuffle::<0, 2>(low, high)
}

/// Lanes 0 and 1 of [`fma`].
#[inline(always)]
fn fma_low(a: v128, b: v128, c: v128) -> v128 {
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
