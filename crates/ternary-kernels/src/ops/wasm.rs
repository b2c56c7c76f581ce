//! Sixteen lanes of WebAssembly SIMD: four vectors.

use std::arch::wasm32::*;

use half::{bf16, f16};

use super::lanes::{CHUNK, LANES, Simd};
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

/// The sum of four vectors in the order of the tree: lanes l + 8, then l + 4.
macro_rules! four {
    ($add:ident, $v:expr) => {
        $add($add($v[0], $v[2]), $add($v[1], $v[3]))
    };
}

/// Lane `i` is the sum of the lanes of `v[i]` in the order of the tree: lanes l + 2 of two vectors, and of another two, then
/// lanes l + 1 of all.
macro_rules! four_sums {
    ($add:ident, $v:expr) => {{
        let pairs = |a, b| $add(i32x4_shuffle::<0, 1, 4, 5>(a, b), i32x4_shuffle::<2, 3, 6, 7>(a, b));
        let (a, b) = (pairs(four!($add, $v[0]), four!($add, $v[1])), pairs(four!($add, $v[2]), four!($add, $v[3])));
        $add(i32x4_shuffle::<0, 2, 4, 6>(a, b), i32x4_shuffle::<1, 3, 5, 7>(a, b))
    }};
}

impl Simd for Simd128 {
    /// Lanes 0 to 3, 4 to 7, 8 to 11 and 12 to 15.
    type F = [v128; 4];
    type I = [v128; 4];
    const ACCUMULATORS: usize = 2;

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
        // Not by `map`, which becomes a call that passes vectors through memory.
        let [a, b]: [v128; 2] = simd::load(x);
        let four = from_i16([a, b]);
        each!(widen_f16, four)
    }
    #[inline(always)]
    fn load_bf16(self, x: &[bf16; LANES]) -> Self::F {
        let [a, b]: [v128; 2] = simd::load(x);
        let four = [
            u32x4_extend_low_u16x8(a),
            u32x4_extend_high_u16x8(a),
            u32x4_extend_low_u16x8(b),
            u32x4_extend_high_u16x8(b),
        ];
        each!(|v| i32x4_shl(v, 16), four)
    }
    #[inline(always)]
    fn load_i8(self, x: &[i8; LANES]) -> Self::F {
        let x: v128 = simd::load(x);
        self.to_f(from_i16([i16x8_extend_low_i8x16(x), i16x8_extend_high_i8x16(x)]))
    }
    #[inline(always)]
    fn load_i16(self, x: &[i16; LANES]) -> Self::F {
        self.to_f(from_i16(simd::load(x)))
    }
    #[inline(always)]
    fn store(self, v: Self::F, out: &mut [f32; LANES]) {
        simd::store(v, out);
    }
    #[inline(always)]
    fn store_f16(self, v: Self::F, out: &mut [f16; LANES]) {
        let [a, b, c, d] = each!(narrow_f16, v);
        simd::store([u16x8_narrow_i32x4(a, b), u16x8_narrow_i32x4(c, d)], out);
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
        // Narrowing saturates, so the low bytes are singled out first.
        let [a, b, c, d] = each!(|a| v128_and(a, i32x4_splat(0xff)), a);
        simd::store(u8x16_narrow_i16x8(i16x8_narrow_i32x4(a, b), i16x8_narrow_i32x4(c, d)), out);
    }

    #[inline(always)]
    fn to_f(self, a: Self::I) -> Self::F {
        each!(f32x4_convert_i32x4, a)
    }
    #[inline(always)]
    fn to_i(self, v: Self::F) -> Self::I {
        // The unit in the last place of an f32 is 1 here. A conversion that saturates takes seven instructions on x86-64.
        let one = f32x4_splat(12_582_912.0);
        each!(|v| i32x4_sub(f32x4_add(v, one), one), v)
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
        let v = four!(f32x4_add, v);
        let v = f32x4_add(v, i32x4_shuffle::<2, 3, 2, 3>(v, v));
        f32x4_extract_lane::<0>(f32x4_add(v, i32x4_shuffle::<1, 1, 1, 1>(v, v)))
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
        macro_rules! sums {
            ($i:expr) => {
                four_sums!(f32x4_add, [v[$i], v[$i + 1], v[$i + 2], v[$i + 3]])
            };
        }
        [sums!(0), sums!(4), sums!(8), sums!(12)]
    }
    #[inline(always)]
    fn transpose(self, v: [Self::F; LANES]) -> [Self::F; LANES] {
        let mut out = v;
        // Written out: the vectors stay in registers only if no loop around them is left to unroll.
        macro_rules! quarters {
            ($i:expr => $($j:expr),+) => {$(
                // Four lanes of four vectors.
                let [a, b, c, d] = [v[4 * $i][$j], v[4 * $i + 1][$j], v[4 * $i + 2][$j], v[4 * $i + 3][$j]];
                let (ab, cd) = (i32x4_shuffle::<0, 4, 1, 5>(a, b), i32x4_shuffle::<0, 4, 1, 5>(c, d));
                out[4 * $j][$i] = i32x4_shuffle::<0, 1, 4, 5>(ab, cd);
                out[4 * $j + 1][$i] = i32x4_shuffle::<2, 3, 6, 7>(ab, cd);
                let (ab, cd) = (i32x4_shuffle::<2, 6, 3, 7>(a, b), i32x4_shuffle::<2, 6, 3, 7>(c, d));
                out[4 * $j + 2][$i] = i32x4_shuffle::<0, 1, 4, 5>(ab, cd);
                out[4 * $j + 3][$i] = i32x4_shuffle::<2, 3, 6, 7>(ab, cd);
            )+};
        }
        quarters!(0 => 0, 1, 2, 3);
        quarters!(1 => 0, 1, 2, 3);
        quarters!(2 => 0, 1, 2, 3);
        quarters!(3 => 0, 1, 2, 3);
        out
    }
    #[inline(always)]
    fn sum_i(self, a: Self::I) -> i32 {
        let a = four!(i32x4_add, a);
        let a = i32x4_add(a, i32x4_shuffle::<2, 3, 2, 3>(a, a));
        i32x4_extract_lane::<0>(i32x4_add(a, i32x4_shuffle::<1, 1, 1, 1>(a, a)))
    }
    #[inline(always)]
    fn sums_i(self, v: [Self::I; LANES]) -> Self::I {
        macro_rules! sums {
            ($i:expr) => {
                four_sums!(i32x4_add, [v[$i], v[$i + 1], v[$i + 2], v[$i + 3]])
            };
        }
        [sums!(0), sums!(4), sums!(8), sums!(12)]
    }
    #[inline(always)]
    fn dot_i8(self, acc: Self::I, q: &[i8; CHUNK], k: &[u8; CHUNK]) -> Self::I {
        let (q, k): ([v128; 4], [v128; 4]) = (simd::load(q), simd::load(k));
        let dot = |q, k| {
            let low = i32x4_dot_i16x8(i16x8_extend_low_i8x16(q), i16x8_extend_low_i8x16(k));
            i32x4_add(low, i32x4_dot_i16x8(i16x8_extend_high_i8x16(q), i16x8_extend_high_i8x16(k)))
        };
        let sums = each!(dot, q, k);
        each!(i32x4_add, acc, sums)
    }
    const DOT_I4_BIAS: i32 = 8;
    #[inline(always)]
    fn dot_i4(self, acc: Self::I, [low, high]: [&[i8; CHUNK]; 2], k: &[u8; CHUNK]) -> Self::I {
        let (low, high, k): ([v128; 4], [v128; 4], [v128; 4]) = (simd::load(low), simd::load(high), simd::load(k));
        let mut sums = acc;
        for i in 0..4 {
            // Raised by 8, a nibble in two's complement has no sign.
            let k = v128_xor(k[i], u8x16_splat(0x88));
            let lower = v128_and(k, u8x16_splat(0x0f));
            let upper = v128_and(u16x8_shr(k, 4), u8x16_splat(0x0f));
            sums[i] = i32x4_add(sums[i], dot_small(low[i], lower, high[i], upper));
        }
        sums
    }
    #[inline(always)]
    fn max_lane_i(self, a: Self::I) -> i32 {
        let a = four!(i32x4_max, a);
        let a = i32x4_max(a, i32x4_shuffle::<2, 3, 2, 3>(a, a));
        i32x4_extract_lane::<0>(i32x4_max(a, i32x4_shuffle::<1, 1, 1, 1>(a, a)))
    }
}

/// Sixteen i16 as i32.
#[inline(always)]
fn from_i16([a, b]: [v128; 2]) -> [v128; 4] {
    [i32x4_extend_low_i16x8(a), i32x4_extend_high_i16x8(a), i32x4_extend_low_i16x8(b), i32x4_extend_high_i16x8(b)]
}

/// The f16 whose bits are in each lane, with their sign in all bits above them, as f32, exactly. Sign, exponent and
/// fraction are moved to their places and multiplied by the ratio of the powers of two that they then stand for, which
/// makes subnormal numbers normal; infinities and NaNs get the largest exponent.
#[inline(always)]
fn widen_f16(x: v128) -> v128 {
    let moved = v128_and(i32x4_shl(x, 13), u32x4_splat(0x8fff_e000));
    let scaled = f32x4_mul(moved, f32x4_splat(f32::from_bits((127 + 112) << 23)));
    let exponent = u32x4_splat(0x1f << 23);
    let special = i32x4_eq(v128_and(moved, exponent), exponent);
    v128_or(scaled, v128_and(special, u32x4_splat(0xff << 23)))
}

/// The f32 in each lane as f16, rounded to nearest, ties to even. A sum with half of what the f16 lacks, less one where the
/// last bit is even, carries into the exponent where it must, up to infinity; the sum of a subnormal number and the power of
/// two whose last place is that of a subnormal f16 is rounded by the addition itself.
#[inline(always)]
fn narrow_f16(v: v128) -> v128 {
    const INFINITE: u32 = 0xff << 23;
    /// 2^-14, the least normal f16; 65536, beyond all that round to a number.
    const LEAST: u32 = 113 << 23;
    const BEYOND: u32 = 143 << 23;
    /// The last place of the f32 1/2 is 2^-24.
    const HALF: u32 = 126 << 23;
    let sign = v128_and(v, u32x4_splat(1 << 31));
    let a = v128_xor(v, sign);
    let odd = v128_and(u32x4_shr(a, 13), u32x4_splat(1));
    let normal = u32x4_shr(i32x4_add(i32x4_sub(a, u32x4_splat((112 << 23) - 0xfff)), odd), 13);
    let subnormal = i32x4_sub(f32x4_add(a, u32x4_splat(HALF)), u32x4_splat(HALF));
    let nan = v128_and(i32x4_gt(a, u32x4_splat(INFINITE)), v128_or(u32x4_splat(0x200), u32x4_shr(i32x4_shl(a, 9), 22)));
    let special = v128_or(u32x4_splat(0x7c00), nan);
    let small = i32x4_lt(a, u32x4_splat(LEAST));
    let large = i32x4_ge(a, u32x4_splat(BEYOND));
    let finite = v128_bitselect(subnormal, normal, small);
    v128_or(v128_bitselect(special, finite, large), u32x4_shr(sign, 16))
}

/// Sums of codes below 16 and activations, of two registers of each: four products in each lane.
#[cfg(not(target_feature = "relaxed-simd"))]
#[inline(always)]
fn dot_small(a: v128, x: v128, b: v128, y: v128) -> v128 {
    let low = i16x8_add(i16x8_extmul_low_i8x16(a, x), i16x8_extmul_low_i8x16(b, y));
    let high = i16x8_add(i16x8_extmul_high_i8x16(a, x), i16x8_extmul_high_i8x16(b, y));
    i32x4_extadd_pairwise_i16x8(i16x8_add(low, high))
}

/// The same by the relaxed product, whose result hosts agree on: codes have no more than seven bits, and two products fit 16.
#[cfg(target_feature = "relaxed-simd")]
#[inline(always)]
fn dot_small(a: v128, x: v128, b: v128, y: v128) -> v128 {
    i32x4_extadd_pairwise_i16x8(i16x8_add(i16x8_relaxed_dot_i8x16_i7x16(a, x), i16x8_relaxed_dot_i8x16_i7x16(b, y)))
}

#[inline(always)]
fn lanes(v: v128) -> [f32; 4] {
    [f32x4_extract_lane::<0>(v), f32x4_extract_lane::<1>(v), f32x4_extract_lane::<2>(v), f32x4_extract_lane::<3>(v)]
}

/// `a * b + c`, rounded once. The relaxed instruction is fused or not, as the host likes: a program that is built with
/// it asks first ([`crate::machine::isa`]).
#[cfg(target_feature = "relaxed-simd")]
#[inline(always)]
fn fused(a: [v128; 4], b: [v128; 4], c: [v128; 4]) -> [v128; 4] {
    [
        f32x4_relaxed_madd(a[0], b[0], c[0]),
        f32x4_relaxed_madd(a[1], b[1], c[1]),
        f32x4_relaxed_madd(a[2], b[2], c[2]),
        f32x4_relaxed_madd(a[3], b[3], c[3]),
    ]
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
    let (r0, r1) = (twice_rounded(a[0], b[0], c[0]), twice_rounded(a[1], b[1], c[1]));
    let (r2, r3) = (twice_rounded(a[2], b[2], c[2]), twice_rounded(a[3], b[3], c[3]));
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
