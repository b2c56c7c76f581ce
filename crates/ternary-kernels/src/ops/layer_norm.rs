//! LayerNorm, and the gradient that a Test-Time-Training layer takes through it.
//!
//! Sums run in the order of [`Ops::dot`](crate::Ops::dot); a mean is the sum over the number of elements, rounded once.
//! With `c[i] = x[i] - mean(x)`, the standardised `x[i]` is `c[i] * inv` with `inv = 1 / sqrt(mean(c^2) + eps)`.

use super::lanes::{LANES, Simd, pad};
use super::reduce::{TURNS, total};

ops! {
    /// `out[i] = ((x[i] - mean) * inv) * gain[i] + bias[i]`, the last product and sum fused; all `[k]` f32.
    ///
    /// # Panics
    /// If the lengths differ.
    pub fn layer_norm(x: &[f32], gain: &[f32], bias: &[f32], eps: f32, out: &mut [f32]) = layer_norm;

    /// `out[i] = scale * g[i]`, where `g` is the gradient of `sum_i (layer_norm(x)[i] - target[i])^2 / 2` with respect to
    /// `x`; all `[k]` f32. With the standardised `z` of `x` and `e[i] = (z[i] * gain[i] + bias[i] - target[i]) * gain[i]`:
    /// `out[i] = (e[i] - mean(e) - z[i] * mean(e z)) * (inv * scale)`, the first and the third product fused with their sums.
    ///
    /// # Panics
    /// If the lengths differ.
    pub fn layer_norm_l2_gradient(x: &[f32], target: &[f32], gain: &[f32], bias: &[f32], eps: f32, scale: f32, out: &mut [f32])
        = layer_norm_l2_gradient;
}

/// A row as vectors, the last one filled up.
struct Row<'a> {
    full: &'a [[f32; LANES]],
    last: [f32; LANES],
    len: usize,
}

impl<'a> Row<'a> {
    #[inline(always)]
    fn new(x: &'a [f32], rest: f32) -> Self {
        let (full, tail) = x.as_chunks();
        Self { full, last: pad(tail, rest), len: x.len().div_ceil(LANES) }
    }

    #[inline(always)]
    fn at<S: Simd>(&self, s: S, j: usize) -> S::F {
        s.load(self.full.get(j).unwrap_or(&self.last))
    }
}

/// Stores vector `j` of a row, as much of it as the row has.
#[inline(always)]
fn store<S: Simd>(s: S, v: S::F, out: &mut [f32], j: usize) {
    let out = &mut out[j * LANES..];
    match out.first_chunk_mut() {
        Some(out) => s.store(v, out),
        None => {
            let mut last = [0.0; LANES];
            s.store(v, &mut last);
            let len = out.len();
            out.copy_from_slice(&last[..len]);
        }
    }
}

/// What is added up, vector by vector.
trait Terms<S: Simd> {
    fn add(&self, s: S, j: usize, acc: S::F) -> S::F;
}

/// The sum of `vectors` vectors in the order of `dot`.
#[inline(always)]
fn sum<S: Simd>(s: S, vectors: usize, terms: impl Terms<S>) -> f32 {
    let mut accs = [s.splat(0.0); TURNS];
    let mut j = 0;
    while j + TURNS <= vectors {
        for turn in 0..TURNS {
            accs[turn] = terms.add(s, j + turn, accs[turn]);
        }
        j += TURNS;
    }
    // Turns are constants once unrolled, so that the accumulators stay in registers.
    for turn in 0..TURNS {
        if j + turn < vectors {
            accs[turn] = terms.add(s, j + turn, accs[turn]);
        }
    }
    total(s, accs)
}

struct Values<'a, 'b>(&'b Row<'a>);

impl<S: Simd> Terms<S> for Values<'_, '_> {
    #[inline(always)]
    fn add(&self, s: S, j: usize, acc: S::F) -> S::F {
        s.add(acc, self.0.at(s, j))
    }
}

/// Squares of the differences from a number.
struct Squares<'a, 'b>(&'b Row<'a>, f32);

impl<S: Simd> Terms<S> for Squares<'_, '_> {
    #[inline(always)]
    fn add(&self, s: S, j: usize, acc: S::F) -> S::F {
        let c = s.sub(self.0.at(s, j), s.splat(self.1));
        s.fma(c, c, acc)
    }
}

/// Products of `e` with the standardised `x`.
struct Standardised<'a, 'b, S: Simd> {
    e: &'b Row<'a>,
    x: &'b Row<'b>,
    mean: S::F,
    inv: S::F,
}

impl<S: Simd> Terms<S> for Standardised<'_, '_, S> {
    #[inline(always)]
    fn add(&self, s: S, j: usize, acc: S::F) -> S::F {
        s.fma(self.e.at(s, j), s.mul(s.sub(self.x.at(s, j), self.mean), self.inv), acc)
    }
}

/// The mean and the inverse deviation of `x`.
#[inline(always)]
fn moments<S: Simd>(s: S, x: &[f32], eps: f32) -> (f32, f32) {
    // Lengths are far below 2^24, so the count is exact.
    let count = x.len().max(1) as f32;
    let row = Row::new(x, 0.0);
    let mean = sum(s, row.len, Values(&row)) / count;
    // What is neutral for the sum of the squares.
    let row = Row::new(x, mean);
    let variance = sum(s, row.len, Squares(&row, mean)) / count;
    (mean, 1.0 / (variance + eps).sqrt())
}

#[inline(always)]
fn layer_norm<S: Simd>(s: S, x: &[f32], gain: &[f32], bias: &[f32], eps: f32, out: &mut [f32]) {
    let k = x.len();
    assert!(
        gain.len() == k && bias.len() == k && out.len() == k,
        "layer_norm: {k} elements, {} gains, {} biases, {} results",
        gain.len(),
        bias.len(),
        out.len()
    );
    let (mean, inv) = moments(s, x, eps);
    let (mean, inv) = (s.splat(mean), s.splat(inv));
    let (x, gain, bias) = (Row::new(x, 0.0), Row::new(gain, 0.0), Row::new(bias, 0.0));
    for j in 0..x.len {
        let z = s.mul(s.sub(x.at(s, j), mean), inv);
        store(s, s.fma(z, gain.at(s, j), bias.at(s, j)), out, j);
    }
}

#[inline(always)]
#[allow(clippy::too_many_arguments)]
fn layer_norm_l2_gradient<S: Simd>(
    s: S,
    x: &[f32],
    target: &[f32],
    gain: &[f32],
    bias: &[f32],
    eps: f32,
    scale: f32,
    out: &mut [f32],
) {
    let k = x.len();
    assert!(
        target.len() == k && gain.len() == k && bias.len() == k && out.len() == k,
        "layer_norm_l2_gradient: {k} elements, {} targets, {} gains, {} biases, {} results",
        target.len(),
        gain.len(),
        bias.len(),
        out.len()
    );
    let (mean, inv) = moments(s, x, eps);
    let vectors = k.div_ceil(LANES);
    // Lanes behind the end are 0 in `e` and in `z`, so that they add nothing.
    let (x, target) = (Row::new(x, mean), Row::new(target, 0.0));
    let (gain, bias) = (Row::new(gain, 0.0), Row::new(bias, 0.0));
    let (mean, inverse) = (s.splat(mean), s.splat(inv));
    for j in 0..vectors {
        let z = s.mul(s.sub(x.at(s, j), mean), inverse);
        let y = s.fma(z, gain.at(s, j), bias.at(s, j));
        store(s, s.mul(s.sub(y, target.at(s, j)), gain.at(s, j)), out, j);
    }
    let count = k.max(1) as f32;
    let (mean_e, mean_ez) = {
        let e = Row::new(out, 0.0);
        let products = Standardised { e: &e, x: &x, mean, inv: inverse };
        (sum(s, vectors, Values(&e)) / count, sum(s, vectors, products) / count)
    };
    let (mean_e, minus_ez, factor) = (s.splat(mean_e), s.splat(-mean_ez), s.splat(inv * scale));
    let e_last = Row::new(out, 0.0).last;
    for j in 0..vectors {
        let z = s.mul(s.sub(x.at(s, j), mean), inverse);
        let e = s.load(out.get(j * LANES..(j + 1) * LANES).and_then(|e| e.first_chunk()).unwrap_or(&e_last));
        store(s, s.mul(s.fma(z, minus_ez, s.sub(e, mean_e)), factor), out, j);
    }
}
