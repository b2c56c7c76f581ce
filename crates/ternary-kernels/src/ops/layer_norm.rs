//! LayerNorm, and the gradient that a Test-Time-Training layer takes through it.
//!
//! Sums run in the order of [`Ops::dot`](crate::Ops::dot); a mean is the sum over the number of elements, rounded once.
//! With `c[i] = x[i] - mean(x)`, the standardised `x[i]` is `c[i] * inv` with `inv = 1 / sqrt(mean(c^2) + eps)`.

use super::lanes::{LANES, Simd, pad};
use super::reduce::TURNS;

ops! {
    /// `out[t, i] = ((x[t, i] - mean) * inv) * gain[i] + bias[i]`, the last product and sum fused; `x` and `out` are
    /// `[n, k]` f32.
    ///
    /// # Panics
    /// If the lengths do not fit.
    pub fn layer_norm(x: &[f32], norm: LayerNorm<'_>, out: &mut [f32]) = layer_norm;

    /// `y[t, i] += layer_norm(x)[t, i]`, with the bits of [`Ops::layer_norm`](crate::Ops::layer_norm) and then
    /// [`Ops::add_assign`](crate::Ops::add_assign); `x` and `y` are `[n, k]` f32.
    ///
    /// # Panics
    /// If the lengths do not fit.
    pub fn add_layer_norm(x: &[f32], norm: LayerNorm<'_>, y: &mut [f32]) = add_layer_norm;

    /// For each row, `out[i] = scale[t] * g[i]`, where `g` is the gradient of
    /// `sum_i (layer_norm(x)[i] - target[i])^2 / 2` with respect to `x`; `x`, `target` and `out` are `[n, k]`, `scale`
    /// is `[n]`, all f32. With the standardised `z` of `x` and
    /// `e[i] = (z[i] * gain[i] + bias[i] - target[i]) * gain[i]`:
    /// `out[i] = (e[i] - mean(e) - z[i] * mean(e z)) * (inv * scale)`, the first and the third product fused with their
    /// sums.
    ///
    /// # Panics
    /// If the lengths do not fit.
    pub fn layer_norm_l2_gradient(x: &[f32], target: &[f32], norm: LayerNorm<'_>, scale: &[f32], out: &mut [f32])
        = layer_norm_l2_gradient;
}

/// The learned parameters of a LayerNorm over `k` elements, and its constant.
#[derive(Clone, Copy, Debug)]
pub struct LayerNorm<'a> {
    /// `[k]`
    pub gain: &'a [f32],
    /// `[k]`
    pub bias: &'a [f32],
    /// Added to the variance.
    pub eps: f32,
}

/// A row as vectors; the last one is padded with `rest`.
#[derive(Clone, Copy)]
pub(super) struct Row<'a> {
    x: &'a [f32],
    rest: f32,
}

impl<'a> Row<'a> {
    #[inline(always)]
    pub(super) fn new(x: &'a [f32], rest: f32) -> Self {
        Self { x, rest }
    }

    /// Number of vectors.
    #[inline(always)]
    pub(super) fn vectors(&self) -> usize {
        self.x.len().div_ceil(LANES)
    }

    #[inline(always)]
    pub(super) fn at<S: Simd>(&self, s: S, j: usize) -> S::F {
        let x = &self.x[j * LANES..];
        match x.first_chunk() {
            Some(x) => s.load(x),
            None => s.load(&pad(x, self.rest)),
        }
    }
}

/// Stores vector `j` of a row, cut off at the end of the row.
#[inline(always)]
pub(super) fn store<S: Simd>(s: S, v: S::F, out: &mut [f32], j: usize) {
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

/// The terms of a sum, vector by vector.
trait Terms<S: Simd> {
    fn add(&self, s: S, j: usize, acc: S::F) -> S::F;
}

/// The sum of `vectors` vectors in the order of `dot`.
#[inline(always)]
fn sum<S: Simd>(s: S, vectors: usize, terms: impl Terms<S>) -> f32 {
    s.sum(gather(s, vectors, terms))
}

/// The vector whose lanes [`sum`] adds up.
#[inline(always)]
fn gather<S: Simd>(s: S, vectors: usize, terms: impl Terms<S>) -> S::F {
    let mut accs = [s.splat(0.0); TURNS];
    let mut j = 0;
    while j + TURNS <= vectors {
        for (turn, acc) in accs.iter_mut().enumerate() {
            *acc = terms.add(s, j + turn, *acc);
        }
        j += TURNS;
    }
    // Turns are constants once unrolled, so the accumulators stay in registers.
    for (turn, acc) in accs.iter_mut().enumerate() {
        if j + turn < vectors {
            *acc = terms.add(s, j + turn, *acc);
        }
    }
    let [a, b, c, d] = accs;
    s.add(s.add(a, b), s.add(c, d))
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

impl<'a, 'b, S: Simd> Standardised<'a, 'b, S> {
    #[inline(always)]
    fn new(s: S, e: &'b Row<'a>, x: &'b Row<'b>, (mean, inv): (f32, f32)) -> Self {
        Self { e, x, mean: s.splat(mean), inv: s.splat(inv) }
    }
}

impl<S: Simd> Terms<S> for Standardised<'_, '_, S> {
    #[inline(always)]
    fn add(&self, s: S, j: usize, acc: S::F) -> S::F {
        s.fma(self.e.at(s, j), s.mul(s.sub(self.x.at(s, j), self.mean), self.inv), acc)
    }
}

/// The mean and the inverse deviation of `x`.
#[inline(always)]
pub(super) fn moments<S: Simd>(s: S, x: &[f32], eps: f32) -> (f32, f32) {
    // Lengths are far below 2^24, so the count is exact.
    let count = x.len() as f32;
    let row = Row::new(x, 0.0);
    let mean = sum(s, row.vectors(), Values(&row)) / count;
    // Neutral for the sum of the squares.
    let row = Row::new(x, mean);
    let variance = sum(s, row.vectors(), Squares(&row, mean)) / count;
    (mean, 1.0 / (variance + eps).sqrt())
}

/// [`moments`] of sixteen rows of `k` elements. A sum over lanes is a chain of shuffles and additions, each of which waits for the
/// one before; those of sixteen rows are one such chain over vectors, with the same bits.
#[inline(always)]
fn moments_of_rows<S: Simd>(s: S, x: &[f32], k: usize, eps: f32) -> [(f32, f32); LANES] {
    let count = k as f32;
    let mut gathered = [s.splat(0.0); LANES];
    for (i, gathered) in gathered.iter_mut().enumerate() {
        let row = Row::new(&x[i * k..(i + 1) * k], 0.0);
        *gathered = gather(s, row.vectors(), Values(&row));
    }
    let mut means = [0.0; LANES];
    s.store(s.sums(gathered), &mut means);
    means.iter_mut().for_each(|mean| *mean /= count);
    for (i, gathered) in gathered.iter_mut().enumerate() {
        let row = Row::new(&x[i * k..(i + 1) * k], means[i]);
        *gathered = gather(s, row.vectors(), Squares(&row, means[i]));
    }
    let mut inverses = [0.0; LANES];
    s.store(s.sums(gathered), &mut inverses);
    inverses.iter_mut().for_each(|v| *v = 1.0 / (*v / count + eps).sqrt());
    let mut moments = [(0.0, 0.0); LANES];
    for (i, moments) in moments.iter_mut().enumerate() {
        *moments = (means[i], inverses[i]);
    }
    moments
}

#[inline(always)]
fn layer_norm<S: Simd>(s: S, x: &[f32], norm: LayerNorm<'_>, out: &mut [f32]) {
    norm_rows::<S, false>(s, x, norm, out);
}

#[inline(always)]
fn add_layer_norm<S: Simd>(s: S, x: &[f32], norm: LayerNorm<'_>, out: &mut [f32]) {
    norm_rows::<S, true>(s, x, norm, out);
}

#[inline(always)]
fn norm_rows<S: Simd, const ADD: bool>(s: S, x: &[f32], norm: LayerNorm<'_>, out: &mut [f32]) {
    let LayerNorm { gain, bias, eps } = norm;
    let k = gain.len();
    assert!(
        bias.len() == k && out.len() == x.len() && (k == 0 || x.len().is_multiple_of(k)),
        "layer_norm: {} elements, {k} gains, {} biases, {} results",
        x.len(),
        bias.len(),
        out.len()
    );
    let (gain, bias) = (Row::new(gain, 0.0), Row::new(bias, 0.0));
    // There are no rows if `k` is 0.
    let rows = LANES * k.max(1);
    let (mut many, mut outs) = (x.chunks_exact(rows), out.chunks_exact_mut(rows));
    for (x, out) in (&mut many).zip(&mut outs) {
        let moments = moments_of_rows(s, x, k, eps);
        for (i, moments) in moments.into_iter().enumerate() {
            let at = i * k..(i + 1) * k;
            norm_row::<S, ADD>(s, &x[at.clone()], moments, &gain, &bias, &mut out[at]);
        }
    }
    for (x, out) in many.remainder().chunks_exact(k.max(1)).zip(outs.into_remainder().chunks_exact_mut(k.max(1))) {
        norm_row::<S, ADD>(s, x, moments(s, x, eps), &gain, &bias, out);
    }
}

#[inline(always)]
fn norm_row<S: Simd, const ADD: bool>(
    s: S,
    x: &[f32],
    (mean, inv): (f32, f32),
    gain: &Row<'_>,
    bias: &Row<'_>,
    out: &mut [f32],
) {
    let (mean, inv) = (s.splat(mean), s.splat(inv));
    let x = Row::new(x, 0.0);
    for j in 0..x.vectors() {
        let z = s.mul(s.sub(x.at(s, j), mean), inv);
        let mut y = s.fma(z, gain.at(s, j), bias.at(s, j));
        if ADD {
            y = s.add(Row::new(out, 0.0).at(s, j), y);
        }
        store(s, y, out, j);
    }
}

#[inline(always)]
fn layer_norm_l2_gradient<S: Simd>(
    s: S,
    x: &[f32],
    target: &[f32],
    norm: LayerNorm<'_>,
    scale: &[f32],
    out: &mut [f32],
) {
    let LayerNorm { gain, bias, eps } = norm;
    let (n, k) = (scale.len(), gain.len());
    assert!(
        Some(x.len()) == n.checked_mul(k) && target.len() == x.len() && out.len() == x.len() && bias.len() == k,
        "layer_norm_l2_gradient: {} elements, {} targets, {k} gains, {} biases, {n} factors, {} results",
        x.len(),
        target.len(),
        bias.len(),
        out.len()
    );
    let (gain, bias) = (Row::new(gain, 0.0), Row::new(bias, 0.0));
    // There are no rows if `k` is 0.
    let (count, rows) = (k as f32, if k > 0 { n } else { 0 });
    let mut t = 0;
    while t + LANES <= rows {
        let at = t * k..(t + LANES) * k;
        let (x, target, out) = (&x[at.clone()], &target[at.clone()], &mut out[at]);
        let moments = moments_of_rows(s, x, k, eps);
        let (mut gathered_e, mut gathered_ez) = ([s.splat(0.0); LANES], [s.splat(0.0); LANES]);
        for (i, &moments) in moments.iter().enumerate() {
            let at = i * k..(i + 1) * k;
            let (x, out) = (Row::new(&x[at.clone()], moments.0), &mut out[at.clone()]);
            errors(s, &x, moments, &Row::new(&target[at], 0.0), &gain, &bias, out);
            let e = Row::new(out, 0.0);
            gathered_e[i] = gather(s, gain.vectors(), Values(&e));
            gathered_ez[i] = gather(s, gain.vectors(), Standardised::new(s, &e, &x, moments));
        }
        let (mut means_e, mut means_ez) = ([0.0; LANES], [0.0; LANES]);
        s.store(s.sums(gathered_e), &mut means_e);
        s.store(s.sums(gathered_ez), &mut means_ez);
        means_e.iter_mut().chain(&mut means_ez).for_each(|mean| *mean /= count);
        for (i, &moments) in moments.iter().enumerate() {
            let at = i * k..(i + 1) * k;
            let x = Row::new(&x[at.clone()], moments.0);
            project(s, &x, moments, (means_e[i], means_ez[i]), scale[t + i], &mut out[at]);
        }
        t += LANES;
    }
    for (t, &scale) in scale.iter().enumerate().take(rows).skip(t) {
        let at = t * k..(t + 1) * k;
        let (x, out) = (&x[at.clone()], &mut out[at.clone()]);
        let moments = moments(s, x, eps);
        let x = Row::new(x, moments.0);
        errors(s, &x, moments, &Row::new(&target[at], 0.0), &gain, &bias, out);
        let means = {
            let e = Row::new(out, 0.0);
            let products = Standardised::new(s, &e, &x, moments);
            (sum(s, gain.vectors(), Values(&e)) / count, sum(s, gain.vectors(), products) / count)
        };
        project(s, &x, moments, means, scale, out);
    }
}

/// `e` of a row into `out`. `x` is padded with its mean: lanes after the end are 0 in `e` and in `z`, so they add nothing.
#[inline(always)]
fn errors<S: Simd>(
    s: S,
    x: &Row<'_>,
    (mean, inv): (f32, f32),
    target: &Row<'_>,
    gain: &Row<'_>,
    bias: &Row<'_>,
    out: &mut [f32],
) {
    let (mean, inv) = (s.splat(mean), s.splat(inv));
    for j in 0..gain.vectors() {
        let z = s.mul(s.sub(x.at(s, j), mean), inv);
        let y = s.fma(z, gain.at(s, j), bias.at(s, j));
        store(s, s.mul(s.sub(y, target.at(s, j)), gain.at(s, j)), out, j);
    }
}

/// The gradient of a row, whose `e` is in `out`, from the means of `e` and of `e z`.
#[inline(always)]
fn project<S: Simd>(
    s: S,
    x: &Row<'_>,
    (mean, inv): (f32, f32),
    (mean_e, mean_ez): (f32, f32),
    scale: f32,
    out: &mut [f32],
) {
    let (mean, inverse) = (s.splat(mean), s.splat(inv));
    let (mean_e, minus_ez, factor) = (s.splat(mean_e), s.splat(-mean_ez), s.splat(inv * scale));
    for j in 0..x.vectors() {
        let z = s.mul(s.sub(x.at(s, j), mean), inverse);
        let e = Row::new(out, 0.0).at(s, j);
        store(s, s.mul(s.fma(z, minus_ez, s.sub(e, mean_e)), factor), out, j);
    }
}
