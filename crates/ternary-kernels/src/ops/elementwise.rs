//! Elementwise operations.

use super::exp::exp;
use super::lanes::{LANES, Simd, pad};

ops! {
    /// `out[i] = relu(gate[i])^2 * up[i]`, all `[k]` f32. A NaN stays NaN.
    ///
    /// # Panics
    /// If the lengths differ.
    pub fn relu2_mul(gate: &[f32], up: &[f32], out: &mut [f32]) = relu2_mul;

    /// `out[i] = gate[i] / (1 + exp(-gate[i])) * up[i]`, all `[k]` f32, with [`Ops::exp`](crate::Ops::exp).
    ///
    /// # Panics
    /// If the lengths differ.
    pub fn silu_mul(gate: &[f32], up: &[f32], out: &mut [f32]) = silu_mul;

    /// `y[i] += x[i]`, both `[k]` f32.
    ///
    /// # Panics
    /// If the lengths differ.
    pub fn add_assign(y: &mut [f32], x: &[f32]) = add_assign;

    /// `y[i] = a * x[i] + y[i]`, rounded once; both `[k]` f32.
    ///
    /// # Panics
    /// If the lengths differ.
    pub fn axpy(a: f32, x: &[f32], y: &mut [f32]) = axpy;

    /// `x[i] *= a`, `[k]` f32.
    pub fn scale(a: f32, x: &mut [f32]) = scale;

    /// `out[i] = acc[i] as f32 * factor`, both `[k]`: converts an integer product to floats.
    ///
    /// # Panics
    /// If the lengths differ.
    pub fn scale_i32(acc: &[i32], factor: f32, out: &mut [f32]) = scale_i32;

    /// `out[i] = out[i] + acc[i] as f32 * factor`, both `[k]`. Product and sum are rounded separately, so the bits are
    /// those of [`Ops::scale_i32`](crate::Ops::scale_i32) followed by [`Ops::add_assign`](crate::Ops::add_assign).
    ///
    /// # Panics
    /// If the lengths differ.
    pub fn scale_add_i32(acc: &[i32], factor: f32, out: &mut [f32]) = scale_add_i32;

    /// `out[i] = (acc[i] as f32 * factor) * scale`, both `[k]`, with the bits of
    /// [`Ops::scale_i32`](crate::Ops::scale_i32) followed by [`Ops::scale`](crate::Ops::scale).
    ///
    /// # Panics
    /// If the lengths differ.
    pub fn dequantize(acc: &[i32], factor: f32, scale: f32, out: &mut [f32]) = dequantize;

    /// `out[i] = out[i] + (acc[i] as f32 * factor) * scale`, both `[k]`, with the bits of
    /// [`Ops::dequantize`](crate::Ops::dequantize) followed by [`Ops::add_assign`](crate::Ops::add_assign).
    ///
    /// # Panics
    /// If the lengths differ.
    pub fn dequantize_add(acc: &[i32], factor: f32, scale: f32, out: &mut [f32]) = dequantize_add;
}

/// A function of two lanes.
pub(super) trait Binary<A: Copy + Default>: Copy {
    fn apply<S: Simd>(self, s: S, a: &[A; LANES], b: &[f32; LANES]) -> S::F;
}

/// `out[i] = f(a[i], b[i])`
#[inline(always)]
pub(super) fn map<S: Simd, A: Copy + Default>(
    s: S,
    name: &str,
    f: impl Binary<A>,
    a: &[A],
    b: &[f32],
    out: &mut [f32],
) {
    assert!(
        a.len() == out.len() && b.len() == out.len(),
        "{name}: {} and {} operands, {} results",
        a.len(),
        b.len(),
        out.len()
    );
    let ((a, a_tail), (b, b_tail), (out, out_tail)) = (a.as_chunks(), b.as_chunks(), out.as_chunks_mut());
    for ((out, a), b) in out.iter_mut().zip(a).zip(b) {
        s.store(f.apply(s, a, b), out);
    }
    if !out_tail.is_empty() {
        let mut last = [0.0; LANES];
        s.store(f.apply(s, &pad(a_tail, A::default()), &pad(b_tail, 0.0)), &mut last);
        out_tail.copy_from_slice(&last[..out_tail.len()]);
    }
}

/// `y[i] = f(a[i], y[i])`
#[inline(always)]
pub(super) fn update<S: Simd, A: Copy + Default>(s: S, name: &str, f: impl Binary<A>, a: &[A], y: &mut [f32]) {
    assert!(a.len() == y.len(), "{name}: {} operands, {} results", a.len(), y.len());
    let ((a, a_tail), (y, y_tail)) = (a.as_chunks(), y.as_chunks_mut());
    for (y, a) in y.iter_mut().zip(a) {
        s.store(f.apply(s, a, y), y);
    }
    if !y_tail.is_empty() {
        let mut last = [0.0; LANES];
        s.store(f.apply(s, &pad(a_tail, A::default()), &pad(y_tail, 0.0)), &mut last);
        y_tail.copy_from_slice(&last[..y_tail.len()]);
    }
}

#[derive(Clone, Copy)]
struct Relu2Mul;

impl Binary<f32> for Relu2Mul {
    #[inline(always)]
    fn apply<S: Simd>(self, s: S, gate: &[f32; LANES], up: &[f32; LANES]) -> S::F {
        // The gate is the second operand, which propagates a NaN.
        let relu = s.max(s.splat(0.0), s.load(gate));
        s.mul(s.mul(relu, relu), s.load(up))
    }
}

#[inline(always)]
fn relu2_mul<S: Simd>(s: S, gate: &[f32], up: &[f32], out: &mut [f32]) {
    map(s, "relu2_mul", Relu2Mul, gate, up, out);
}

#[derive(Clone, Copy)]
struct SiluMul;

impl Binary<f32> for SiluMul {
    #[inline(always)]
    fn apply<S: Simd>(self, s: S, gate: &[f32; LANES], up: &[f32; LANES]) -> S::F {
        let gate = s.load(gate);
        let denominator = s.add(s.splat(1.0), exp(s, s.sub(s.splat(0.0), gate)));
        s.mul(s.div(gate, denominator), s.load(up))
    }
}

#[inline(always)]
fn silu_mul<S: Simd>(s: S, gate: &[f32], up: &[f32], out: &mut [f32]) {
    map(s, "silu_mul", SiluMul, gate, up, out);
}

#[derive(Clone, Copy)]
struct Add;

impl Binary<f32> for Add {
    #[inline(always)]
    fn apply<S: Simd>(self, s: S, x: &[f32; LANES], y: &[f32; LANES]) -> S::F {
        s.add(s.load(y), s.load(x))
    }
}

#[inline(always)]
fn add_assign<S: Simd>(s: S, y: &mut [f32], x: &[f32]) {
    update(s, "add_assign", Add, x, y);
}

#[derive(Clone, Copy)]
struct Axpy(f32);

impl Binary<f32> for Axpy {
    #[inline(always)]
    fn apply<S: Simd>(self, s: S, x: &[f32; LANES], y: &[f32; LANES]) -> S::F {
        s.fma(s.splat(self.0), s.load(x), s.load(y))
    }
}

#[inline(always)]
fn axpy<S: Simd>(s: S, a: f32, x: &[f32], y: &mut [f32]) {
    update(s, "axpy", Axpy(a), x, y);
}

#[inline(always)]
fn scale<S: Simd>(s: S, a: f32, x: &mut [f32]) {
    let a = s.splat(a);
    let (x, tail) = x.as_chunks_mut();
    for x in x {
        s.store(s.mul(s.load(x), a), x);
    }
    if !tail.is_empty() {
        let mut last = pad(tail, 0.0);
        s.store(s.mul(s.load(&last), a), &mut last);
        tail.copy_from_slice(&last[..tail.len()]);
    }
}

#[derive(Clone, Copy)]
struct ScaleAdd(f32);

impl Binary<i32> for ScaleAdd {
    #[inline(always)]
    fn apply<S: Simd>(self, s: S, acc: &[i32; LANES], y: &[f32; LANES]) -> S::F {
        s.add(s.load(y), s.mul(s.to_f(s.load_i(acc)), s.splat(self.0)))
    }
}

#[derive(Clone, Copy)]
struct ScaleInto(f32);

impl Binary<i32> for ScaleInto {
    #[inline(always)]
    fn apply<S: Simd>(self, s: S, acc: &[i32; LANES], _: &[f32; LANES]) -> S::F {
        s.mul(s.to_f(s.load_i(acc)), s.splat(self.0))
    }
}

#[inline(always)]
fn scale_i32<S: Simd>(s: S, acc: &[i32], factor: f32, out: &mut [f32]) {
    update(s, "scale_i32", ScaleInto(factor), acc, out);
}

#[inline(always)]
fn scale_add_i32<S: Simd>(s: S, acc: &[i32], factor: f32, out: &mut [f32]) {
    update(s, "scale_add_i32", ScaleAdd(factor), acc, out);
}

#[derive(Clone, Copy)]
struct Dequantize<const ADD: bool> {
    factor: f32,
    scale: f32,
}

impl<const ADD: bool> Binary<i32> for Dequantize<ADD> {
    #[inline(always)]
    fn apply<S: Simd>(self, s: S, acc: &[i32; LANES], y: &[f32; LANES]) -> S::F {
        let x = s.mul(s.mul(s.to_f(s.load_i(acc)), s.splat(self.factor)), s.splat(self.scale));
        if ADD { s.add(s.load(y), x) } else { x }
    }
}

#[inline(always)]
fn dequantize<S: Simd>(s: S, acc: &[i32], factor: f32, scale: f32, out: &mut [f32]) {
    update(s, "dequantize", Dequantize::<false> { factor, scale }, acc, out);
}

#[inline(always)]
fn dequantize_add<S: Simd>(s: S, acc: &[i32], factor: f32, scale: f32, out: &mut [f32]) {
    update(s, "dequantize_add", Dequantize::<true> { factor, scale }, acc, out);
}
