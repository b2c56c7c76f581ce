//! Sixteen lanes of f32 as every operation sees them, and their portable form.
//!
//! Each operation is written once over [`Simd`] and compiled for every instruction set. Its result is the same on all of
//! them bit for bit, because each method here is defined exactly: one correctly rounded IEEE operation per lane, and
//! reductions over one fixed tree. Only which NaN a NaN result is stays open.

use half::{bf16, f16};

/// Lanes of a vector on every instruction set, whatever the width of its registers.
pub(crate) const LANES: usize = 16;

/// An instruction set's operations on vectors of 16 f32 (`F`) and 16 i32 (`I`).
///
/// `self` is a proof token: whoever holds one may run the instructions, so the methods are safe. Methods and the generic
/// functions built on them are `#[inline(always)]`, so that they become part of a function that is compiled for the
/// instruction set; closures are not, so vectors never pass through one.
pub(crate) trait Simd: Copy {
    /// 16 f32.
    type F: Copy;
    /// 16 i32.
    type I: Copy;
    /// Accumulators that fit the registers beside the operands, a power of 2 from 4 to 16.
    const ACCUMULATORS: usize;

    fn splat(self, x: f32) -> Self::F;
    fn load(self, x: &[f32; LANES]) -> Self::F;
    fn load_f16(self, x: &[f16; LANES]) -> Self::F;
    fn load_bf16(self, x: &[bf16; LANES]) -> Self::F;
    fn store(self, v: Self::F, out: &mut [f32; LANES]);
    /// Rounds to nearest, ties to even; beyond the largest f16 lies infinity.
    fn store_f16(self, v: Self::F, out: &mut [f16; LANES]);
    /// Rounds to nearest, ties to even.
    #[inline(always)]
    fn store_bf16(self, v: Self::F, out: &mut [bf16; LANES]) {
        let mut lanes = [0.0; LANES];
        self.store(v, &mut lanes);
        for (out, x) in out.iter_mut().zip(lanes) {
            *out = bf16::from_f32(x);
        }
    }

    fn add(self, a: Self::F, b: Self::F) -> Self::F;
    fn sub(self, a: Self::F, b: Self::F) -> Self::F;
    fn mul(self, a: Self::F, b: Self::F) -> Self::F;
    fn div(self, a: Self::F, b: Self::F) -> Self::F;
    /// `a * b + c`, rounded once.
    fn fma(self, a: Self::F, b: Self::F, c: Self::F) -> Self::F;
    /// `if a < b { a } else { b }`: where either is NaN, `b`.
    fn min(self, a: Self::F, b: Self::F) -> Self::F;
    /// `if a > b { a } else { b }`: where either is NaN, `b`.
    fn max(self, a: Self::F, b: Self::F) -> Self::F;

    fn splat_i(self, x: i32) -> Self::I;
    fn load_i(self, x: &[i32; LANES]) -> Self::I;
    /// Wraps.
    fn add_i(self, a: Self::I, b: Self::I) -> Self::I;
    /// Wraps.
    fn sub_i(self, a: Self::I, b: Self::I) -> Self::I;
    fn max_i(self, a: Self::I, b: Self::I) -> Self::I;
    /// `a >> 1`, rounding down.
    fn halve_i(self, a: Self::I) -> Self::I;
    /// The low byte of each lane.
    fn store_i8(self, a: Self::I, out: &mut [i8; LANES]);

    /// Rounds to nearest, ties to even.
    fn to_f(self, a: Self::I) -> Self::F;
    /// Rounds to nearest, ties to even; open for NaN and where the result does not fit.
    fn to_i(self, v: Self::F) -> Self::I;
    /// The bits of `|v|`, which as integers are in the order of the absolute values, infinity and then NaN last.
    fn abs_bits(self, v: Self::F) -> Self::I;
    /// `2^n` for `n` in -126..=127; open for others.
    fn exp2(self, n: Self::I) -> Self::F;

    /// Adds lane `l + 8` to lane `l`, then `l + 4`, `l + 2`, `l + 1`.
    fn sum(self, v: Self::F) -> f32;
    /// [`Simd::max`] in the order of [`Simd::sum`].
    fn max_lane(self, v: Self::F) -> f32;
    /// Lane `i` is [`Simd::sum`] of `v[i]`.
    fn sums(self, v: [Self::F; LANES]) -> Self::F;
    /// Sum of all lanes; wraps.
    fn sum_i(self, a: Self::I) -> i32;
    /// The largest lane.
    fn max_lane_i(self, a: Self::I) -> i32;
}

/// A number that vectors are loaded from, exactly.
pub(crate) trait Element: Copy {
    const ZERO: Self;
    fn load<S: Simd>(s: S, x: &[Self; LANES]) -> S::F;
}

impl Element for f32 {
    const ZERO: f32 = 0.0;
    #[inline(always)]
    fn load<S: Simd>(s: S, x: &[f32; LANES]) -> S::F {
        s.load(x)
    }
}

impl Element for f16 {
    const ZERO: f16 = f16::ZERO;
    #[inline(always)]
    fn load<S: Simd>(s: S, x: &[f16; LANES]) -> S::F {
        s.load_f16(x)
    }
}

impl Element for bf16 {
    const ZERO: bf16 = bf16::ZERO;
    #[inline(always)]
    fn load<S: Simd>(s: S, x: &[bf16; LANES]) -> S::F {
        s.load_bf16(x)
    }
}

/// Up to 16 elements, with copies of `rest` behind them.
#[inline(always)]
pub(crate) fn pad<T: Copy>(x: &[T], rest: T) -> [T; LANES] {
    let mut padded = [rest; LANES];
    padded[..x.len()].copy_from_slice(x);
    padded
}

/// Portable Rust; needs no proof.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Portable;

/// `out[l] = f(a[l], b[l])`
#[inline(always)]
fn zip<A: Copy, B: Copy, T: Copy + Default>(a: [A; LANES], b: [B; LANES], f: impl Fn(A, B) -> T) -> [T; LANES] {
    let mut out = [T::default(); LANES];
    for l in 0..LANES {
        out[l] = f(a[l], b[l]);
    }
    out
}

/// Combines lane `l + 8` with lane `l`, then `l + 4`, `l + 2`, `l + 1`.
#[inline(always)]
fn tree<T: Copy>(mut v: [T; LANES], f: impl Fn(T, T) -> T) -> T {
    let mut half = LANES / 2;
    while half > 0 {
        for l in 0..half {
            v[l] = f(v[l], v[l + half]);
        }
        half /= 2;
    }
    v[0]
}

impl Simd for Portable {
    type F = [f32; LANES];
    type I = [i32; LANES];
    const ACCUMULATORS: usize = 4;

    #[inline(always)]
    fn splat(self, x: f32) -> Self::F {
        [x; LANES]
    }
    #[inline(always)]
    fn load(self, x: &[f32; LANES]) -> Self::F {
        *x
    }
    #[inline(always)]
    fn load_f16(self, x: &[f16; LANES]) -> Self::F {
        x.map(f16::to_f32)
    }
    #[inline(always)]
    fn load_bf16(self, x: &[bf16; LANES]) -> Self::F {
        x.map(|x| f32::from_bits(u32::from(x.to_bits()) << 16))
    }
    #[inline(always)]
    fn store(self, v: Self::F, out: &mut [f32; LANES]) {
        *out = v;
    }
    #[inline(always)]
    fn store_f16(self, v: Self::F, out: &mut [f16; LANES]) {
        *out = v.map(f16::from_f32);
    }

    #[inline(always)]
    fn add(self, a: Self::F, b: Self::F) -> Self::F {
        zip(a, b, |a, b| a + b)
    }
    #[inline(always)]
    fn sub(self, a: Self::F, b: Self::F) -> Self::F {
        zip(a, b, |a, b| a - b)
    }
    #[inline(always)]
    fn mul(self, a: Self::F, b: Self::F) -> Self::F {
        zip(a, b, |a, b| a * b)
    }
    #[inline(always)]
    fn div(self, a: Self::F, b: Self::F) -> Self::F {
        zip(a, b, |a, b| a / b)
    }
    #[inline(always)]
    fn fma(self, a: Self::F, b: Self::F, c: Self::F) -> Self::F {
        let mut out = c;
        for l in 0..LANES {
            out[l] = a[l].mul_add(b[l], c[l]);
        }
        out
    }
    #[inline(always)]
    fn min(self, a: Self::F, b: Self::F) -> Self::F {
        zip(a, b, |a, b| if a < b { a } else { b })
    }
    #[inline(always)]
    fn max(self, a: Self::F, b: Self::F) -> Self::F {
        zip(a, b, |a, b| if a > b { a } else { b })
    }

    #[inline(always)]
    fn splat_i(self, x: i32) -> Self::I {
        [x; LANES]
    }
    #[inline(always)]
    fn load_i(self, x: &[i32; LANES]) -> Self::I {
        *x
    }
    #[inline(always)]
    fn add_i(self, a: Self::I, b: Self::I) -> Self::I {
        zip(a, b, i32::wrapping_add)
    }
    #[inline(always)]
    fn sub_i(self, a: Self::I, b: Self::I) -> Self::I {
        zip(a, b, i32::wrapping_sub)
    }
    #[inline(always)]
    fn max_i(self, a: Self::I, b: Self::I) -> Self::I {
        zip(a, b, i32::max)
    }
    #[inline(always)]
    fn halve_i(self, a: Self::I) -> Self::I {
        a.map(|a| a >> 1)
    }
    #[inline(always)]
    fn store_i8(self, a: Self::I, out: &mut [i8; LANES]) {
        *out = a.map(|a| a as i8);
    }

    #[inline(always)]
    fn to_f(self, a: Self::I) -> Self::F {
        a.map(|a| a as f32)
    }
    #[inline(always)]
    fn to_i(self, v: Self::F) -> Self::I {
        v.map(|v| v.round_ties_even() as i32)
    }
    #[inline(always)]
    fn abs_bits(self, v: Self::F) -> Self::I {
        v.map(|v| v.abs().to_bits() as i32)
    }
    #[inline(always)]
    fn exp2(self, n: Self::I) -> Self::F {
        n.map(|n| f32::from_bits((n.wrapping_add(127) as u32) << 23))
    }

    #[inline(always)]
    fn sum(self, v: Self::F) -> f32 {
        tree(v, |a, b| a + b)
    }
    #[inline(always)]
    fn max_lane(self, v: Self::F) -> f32 {
        tree(v, |a, b| if a > b { a } else { b })
    }
    #[inline(always)]
    fn sums(self, v: [Self::F; LANES]) -> Self::F {
        v.map(|v| self.sum(v))
    }
    #[inline(always)]
    fn sum_i(self, a: Self::I) -> i32 {
        tree(a, i32::wrapping_add)
    }
    #[inline(always)]
    fn max_lane_i(self, a: Self::I) -> i32 {
        tree(a, i32::max)
    }
}
