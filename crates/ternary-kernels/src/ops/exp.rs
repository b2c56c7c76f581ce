//! The exponential function and softmax.
//!
//! `exp(x)` with `n = round(x / ln 2)` and `r = x - n ln 2`, in -0.347..=0.347, is `2^n e^r`. The first part of
//! `n ln 2` is subtracted exactly (the remainder is a multiple of 2^-25 below 2^-1), the second part rounds once. `e^r`
//! is a polynomial of degree 6 whose relative error is below 0.06 * 2^-24; `2^n` is multiplied in two steps, so that
//! neither factor overflows and a subnormal result rounds once.

use super::lanes::{LANES, Simd, pad};
use super::reduce::{TURNS, total};

ops! {
    /// `out[i] = exp(x[i])`, both `[k]` f32. The error is at most 0.892 ulp (measured over all f32 against f64);
    /// `exp(0)` is 1, results above the largest f32 are infinite, below the smallest 0, and a NaN stays NaN.
    ///
    /// # Panics
    /// If the lengths differ.
    pub fn exp(x: &[f32], out: &mut [f32]) = exp_slice;

    /// `x[i] = exp(x[i] - m) / sum_j exp(x[j] - m)` with `m = max_j x[j]`; `x` is `[k]` f32. Vectors are summed as by
    /// [`Ops::dot`](crate::Ops::dot). Elements of minus infinity become 0; if all are, or one is infinite or NaN, the
    /// result is NaN.
    pub fn softmax_in_place(x: &mut [f32]) = softmax;
}

/// Results of larger values overflow, results of smaller values round to 0.
const HIGHEST: f32 = 89.0;
const LOWEST: f32 = -104.0;
const LN2_UPPER: f32 = std::f32::consts::LN_2;
/// ln 2 - LN2_UPPER
const LN2_LOWER: f32 = -1.904_654_2e-9;
/// Coefficients of r^6 to r^2, minimax for the relative error with those of r and 1 held at 1.
const COEFFICIENTS: [f32; 5] = [
    f32::from_bits(0x3ab5_61b5), // 0.00138383
    f32::from_bits(0x3c09_1ed3), // 0.00836917
    f32::from_bits(0x3d2a_ac2c), // 0.0416681
    f32::from_bits(0x3e2a_aa46), // 0.166665
    f32::from_bits(0x3eff_fffe), // 0.49999994
];

/// `exp` of each lane.
#[inline(always)]
pub(super) fn exp<S: Simd>(s: S, x: S::F) -> S::F {
    // `x` is the second operand, which propagates a NaN.
    let x = s.max(s.splat(LOWEST), s.min(s.splat(HIGHEST), x));
    let n = s.to_i(s.mul(x, s.splat(std::f32::consts::LOG2_E)));
    let minus_n = s.to_f(s.sub_i(s.splat_i(0), n));
    let r = s.fma(minus_n, s.splat(LN2_UPPER), x);
    let r = s.fma(minus_n, s.splat(LN2_LOWER), r);
    let mut p = s.splat(COEFFICIENTS[0]);
    for c in &COEFFICIENTS[1..] {
        p = s.fma(p, r, s.splat(*c));
    }
    p = s.fma(p, r, s.splat(1.0));
    p = s.fma(p, r, s.splat(1.0));
    let half = s.halve_i(n);
    s.mul(s.mul(p, s.exp2(half)), s.exp2(s.sub_i(n, half)))
}

#[inline(always)]
fn exp_slice<S: Simd>(s: S, x: &[f32], out: &mut [f32]) {
    assert_eq!(x.len(), out.len(), "exp: {} operands, {} results", x.len(), out.len());
    let ((x, x_tail), (out, out_tail)) = (x.as_chunks(), out.as_chunks_mut());
    for (out, x) in out.iter_mut().zip(x) {
        s.store(exp(s, s.load(x)), out);
    }
    if !out_tail.is_empty() {
        let mut last = pad(x_tail, 0.0);
        s.store(exp(s, s.load(&last)), &mut last);
        out_tail.copy_from_slice(&last[..out_tail.len()]);
    }
}

#[inline(always)]
fn softmax<S: Simd>(s: S, x: &mut [f32]) {
    let (vectors, tail) = x.as_chunks_mut();
    // Neutral for the maximum, with an exponential that is neutral for the sum.
    let mut last: [f32; LANES] = pad(tail, f32::NEG_INFINITY);
    let mut max = s.load(&last);
    for v in &*vectors {
        max = s.max(max, s.load(v));
    }
    let max = s.splat(s.max_lane(max));

    let mut sums = [s.splat(0.0); TURNS];
    let (turns, rest) = vectors.as_chunks_mut::<TURNS>();
    for vectors in turns {
        for turn in 0..TURNS {
            let e = exp(s, s.sub(s.load(&vectors[turn]), max));
            sums[turn] = s.add(sums[turn], e);
            s.store(e, &mut vectors[turn]);
        }
    }
    let whole = rest.len();
    for turn in 0..TURNS {
        let v = if turn < whole {
            &mut rest[turn]
        } else if turn == whole && !tail.is_empty() {
            &mut last
        } else {
            continue;
        };
        let e = exp(s, s.sub(s.load(v), max));
        sums[turn] = s.add(sums[turn], e);
        s.store(e, v);
    }
    let sum = s.splat(total(s, sums));

    for v in vectors {
        s.store(s.div(s.load(v), sum), v);
    }
    if !tail.is_empty() {
        s.store(s.div(s.load(&last), sum), &mut last);
        tail.copy_from_slice(&last[..tail.len()]);
    }
}
