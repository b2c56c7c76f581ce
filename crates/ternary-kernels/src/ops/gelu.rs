//! The tanh form of gelu, its derivative, the logistic function, and a fused product with a sum.
//!
//! With `u = sqrt(2 / pi) (x + 0.044715 x^3)`, gelu is `x (1 + tanh u) / 2 = x / (1 + exp(-2 u))`, and its derivative
//! is `s + x s (1 - s) 2 u'` with `s = 1 / (1 + exp(-2 u))`.

use super::elementwise::{Binary, map, update};
use super::exp::exp;
use super::lanes::{LANES, Simd, pad};

ops! {
    /// `out[i] = gelu(x[i])` in its tanh form, both `[k]` f32, with [`Ops::exp`](crate::Ops::exp).
    ///
    /// # Panics
    /// If the lengths differ.
    pub fn gelu(x: &[f32], out: &mut [f32]) = gelu;

    /// `y[i] *= gelu(gate[i])`, both `[k]` f32, with the bits of [`Ops::gelu`](crate::Ops::gelu).
    ///
    /// # Panics
    /// If the lengths differ.
    pub fn gelu_mul_assign(gate: &[f32], y: &mut [f32]) = gelu_mul_assign;

    /// `y[i] *= gelu'(x[i])`, the derivative of the tanh form; both `[k]` f32.
    ///
    /// # Panics
    /// If the lengths differ.
    pub fn gelu_derivative_mul_assign(x: &[f32], y: &mut [f32]) = gelu_derivative_mul_assign;

    /// `y[i] *= gelu''(x[i])`, the second derivative of the tanh form: with `p = 2 u'`,
    /// `s (1 - s) (2 p + x ((1 - 2 s) p^2 + p'))`; both `[k]` f32.
    ///
    /// # Panics
    /// If the lengths differ.
    pub fn gelu_second_mul_assign(x: &[f32], y: &mut [f32]) = gelu_second_mul_assign;

    /// `x[i] = scale / (1 + exp(-x[i]))`, `[k]` f32, with [`Ops::exp`](crate::Ops::exp).
    pub fn sigmoid_in_place(scale: f32, x: &mut [f32]) = sigmoid;

    /// `y[i] = a[i] * b[i] + y[i]`, rounded once; all `[k]` f32.
    ///
    /// # Panics
    /// If the lengths differ.
    pub fn mul_add_assign(a: &[f32], b: &[f32], y: &mut [f32]) = mul_add_assign;

    /// `out[i] = bias[i] + sum_j taps[j * stride + i] * rows[j][i]`, one fused multiply-add per `j` in ascending order:
    /// one row of a depthwise convolution. `bias`, `out` and each of `rows` are `[k]`; `taps` holds as many rows,
    /// `stride` apart.
    ///
    /// # Panics
    /// If the lengths do not fit.
    pub fn convolve_row(rows: &[&[f32]], taps: &[f32], stride: usize, bias: &[f32], out: &mut [f32]) = convolve_row;
}

/// sqrt(2 / pi)
const A: f32 = 0.797_884_6;
/// 0.044715 sqrt(2 / pi)
const AB: f32 = 0.035_677_408;

/// `1 + exp(-2 u)`
#[inline(always)]
fn denominator<S: Simd>(s: S, x: S::F, square: S::F) -> S::F {
    let minus_2u = s.mul(x, s.fma(square, s.splat(-2.0 * AB), s.splat(-2.0 * A)));
    s.add(s.splat(1.0), exp(s, minus_2u))
}

#[inline(always)]
fn gelu_lanes<S: Simd>(s: S, x: S::F) -> S::F {
    s.div(x, denominator(s, x, s.mul(x, x)))
}

#[derive(Clone, Copy)]
struct Gelu;

impl Binary<f32> for Gelu {
    #[inline(always)]
    fn apply<S: Simd>(self, s: S, x: &[f32; LANES], _: &[f32; LANES]) -> S::F {
        gelu_lanes(s, s.load(x))
    }
}

#[inline(always)]
fn gelu<S: Simd>(s: S, x: &[f32], out: &mut [f32]) {
    map(s, "gelu", Gelu, x, x, out);
}

#[derive(Clone, Copy)]
struct GeluMul;

impl Binary<f32> for GeluMul {
    #[inline(always)]
    fn apply<S: Simd>(self, s: S, gate: &[f32; LANES], y: &[f32; LANES]) -> S::F {
        s.mul(gelu_lanes(s, s.load(gate)), s.load(y))
    }
}

#[inline(always)]
fn gelu_mul_assign<S: Simd>(s: S, gate: &[f32], y: &mut [f32]) {
    update(s, "gelu_mul_assign", GeluMul, gate, y);
}

#[derive(Clone, Copy)]
struct GeluDerivativeMul;

impl Binary<f32> for GeluDerivativeMul {
    #[inline(always)]
    fn apply<S: Simd>(self, s: S, x: &[f32; LANES], y: &[f32; LANES]) -> S::F {
        let x = s.load(x);
        let square = s.mul(x, x);
        let logistic = s.div(s.splat(1.0), denominator(s, x, square));
        let slope = s.fma(square, s.splat(6.0 * AB), s.splat(2.0 * A));
        let bend = s.mul(x, s.mul(logistic, s.sub(s.splat(1.0), logistic)));
        s.mul(s.fma(bend, slope, logistic), s.load(y))
    }
}

#[inline(always)]
fn gelu_derivative_mul_assign<S: Simd>(s: S, x: &[f32], y: &mut [f32]) {
    update(s, "gelu_derivative_mul_assign", GeluDerivativeMul, x, y);
}

#[derive(Clone, Copy)]
struct GeluSecondMul;

impl Binary<f32> for GeluSecondMul {
    #[inline(always)]
    fn apply<S: Simd>(self, s: S, x: &[f32; LANES], y: &[f32; LANES]) -> S::F {
        let x = s.load(x);
        let square = s.mul(x, x);
        let logistic = s.div(s.splat(1.0), denominator(s, x, square));
        let bend = s.mul(logistic, s.sub(s.splat(1.0), logistic));
        let slope = s.fma(square, s.splat(6.0 * AB), s.splat(2.0 * A));
        let falls = s.fma(logistic, s.splat(-2.0), s.splat(1.0));
        let inner = s.fma(s.mul(falls, slope), slope, s.mul(x, s.splat(12.0 * AB)));
        let second = s.mul(bend, s.fma(x, inner, s.mul(slope, s.splat(2.0))));
        s.mul(second, s.load(y))
    }
}

#[inline(always)]
fn gelu_second_mul_assign<S: Simd>(s: S, x: &[f32], y: &mut [f32]) {
    update(s, "gelu_second_mul_assign", GeluSecondMul, x, y);
}

#[inline(always)]
fn sigmoid<S: Simd>(s: S, scale: f32, x: &mut [f32]) {
    let (vectors, tail) = x.as_chunks_mut();
    for x in vectors {
        sigmoid_lanes(s, scale, x);
    }
    if !tail.is_empty() {
        let mut last = pad(tail, 0.0);
        sigmoid_lanes(s, scale, &mut last);
        tail.copy_from_slice(&last[..tail.len()]);
    }
}

#[inline(always)]
fn sigmoid_lanes<S: Simd>(s: S, scale: f32, x: &mut [f32; LANES]) {
    let e = exp(s, s.sub(s.splat(0.0), s.load(x)));
    s.store(s.div(s.splat(scale), s.add(s.splat(1.0), e)), x);
}

#[inline(always)]
fn mul_add_assign<S: Simd>(s: S, a: &[f32], b: &[f32], y: &mut [f32]) {
    assert!(
        a.len() == y.len() && b.len() == y.len(),
        "mul_add_assign: {} and {} operands, {} results",
        a.len(),
        b.len(),
        y.len()
    );
    let ((a, a_tail), (b, b_tail), (y, y_tail)) = (a.as_chunks(), b.as_chunks(), y.as_chunks_mut());
    for ((y, a), b) in y.iter_mut().zip(a).zip(b) {
        s.store(s.fma(s.load(a), s.load(b), s.load(y)), y);
    }
    if !y_tail.is_empty() {
        let mut last = pad(y_tail, 0.0);
        s.store(s.fma(s.load(&pad(a_tail, 0.0)), s.load(&pad(b_tail, 0.0)), s.load(&last)), &mut last);
        y_tail.copy_from_slice(&last[..y_tail.len()]);
    }
}

#[inline(always)]
fn convolve_row<S: Simd>(s: S, rows: &[&[f32]], taps: &[f32], stride: usize, bias: &[f32], out: &mut [f32]) {
    let k = out.len();
    let last = rows.len().saturating_sub(1).checked_mul(stride).and_then(|at| at.checked_add(k));
    let fits = rows.is_empty() || last.is_some_and(|end| end <= taps.len());
    assert!(
        bias.len() == k && rows.iter().all(|r| r.len() == k) && fits,
        "convolve_row: {} taps for {} rows, {} biases, {k} results",
        taps.len(),
        rows.len(),
        bias.len()
    );
    let mut i = 0;
    while i + LANES <= k {
        let at = i..i + LANES;
        let Some(bias) = bias[at.clone()].first_chunk() else { return };
        let mut acc = s.load(bias);
        for (j, row) in rows.iter().enumerate() {
            let tap = &taps[j * stride + i..j * stride + i + LANES];
            if let (Some(tap), Some(row)) = (tap.first_chunk(), row[at.clone()].first_chunk()) {
                acc = s.fma(s.load(tap), s.load(row), acc);
            }
        }
        if let Some(out) = out[at].first_chunk_mut() {
            s.store(acc, out);
        }
        i += LANES;
    }
    if i < k {
        let mut acc = s.load(&pad(&bias[i..], 0.0));
        for (j, row) in rows.iter().enumerate() {
            let tap = &taps[j * stride + i..j * stride + k];
            acc = s.fma(s.load(&pad(tap, 0.0)), s.load(&pad(&row[i..], 0.0)), acc);
        }
        let mut last = [0.0; LANES];
        s.store(acc, &mut last);
        out[i..].copy_from_slice(&last[..k - i]);
    }
}
