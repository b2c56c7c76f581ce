//! Gradients of LayerNorm, and of the inner gradient of a Test-Time-Training layer, for training such a layer.
//!
//! Sums run over 16 lanes, vector by vector. With `z` the standardised row and `inv` its inverse deviation, both
//! gradients end in the same projection: the gradient of `z` loses its mean and its component along `z`, and is
//! multiplied by `inv`.

use super::lanes::Simd;
use super::layer_norm::{LayerNorm, Row, moments, store};

/// The buffers to which the gradients of a norm's gain and bias are added, `[k]` each.
#[derive(Debug)]
pub struct NormGradients<'a> {
    /// `[k]`
    pub gain: &'a mut [f32],
    /// `[k]`
    pub bias: &'a mut [f32],
}

impl NormGradients<'_> {
    /// Reborrows the buffers for one more call.
    pub fn again(&mut self) -> NormGradients<'_> {
        NormGradients { gain: self.gain, bias: self.bias }
    }
}

/// The output buffers of [`Ops::layer_norm_l2_second`](crate::Ops::layer_norm_l2_second).
#[derive(Debug)]
pub struct LayerNormGradient<'a> {
    /// Gradient of the rows, `[n, k]`.
    pub x: &'a mut [f32],
    /// Gradient of the targets, `[n, k]`.
    pub target: &'a mut [f32],
    /// Gradient of the factors, `[n]`.
    pub scale: &'a mut [f32],
    /// Gradients of gain and bias, which are added to.
    pub norm: NormGradients<'a>,
}

ops! {
    /// Gradient of [`Ops::layer_norm`](crate::Ops::layer_norm) for the gradient `dy` of its result: writes the gradient
    /// of `x` to `dx`, all `[n, k]` f32, and adds the gradients of gain and bias.
    ///
    /// # Panics
    /// If the lengths do not fit.
    pub fn layer_norm_gradient(x: &[f32], norm: LayerNorm<'_>, dy: &[f32], dx: &mut [f32], to: NormGradients<'_>)
        = layer_norm_gradient;

    /// Gradient of [`Ops::layer_norm_l2_gradient`](crate::Ops::layer_norm_l2_gradient), which is itself a gradient:
    /// from the gradient `d` `[n, k]` of its result, writes the gradients of its rows, targets and factors and adds
    /// those of gain and bias. All f32.
    ///
    /// # Panics
    /// If the lengths do not fit.
    pub fn layer_norm_l2_second(x: &[f32], target: &[f32], norm: LayerNorm<'_>, scale: &[f32], d: &[f32], to: LayerNormGradient<'_>)
        = layer_norm_l2_second;
}

#[inline(always)]
fn layer_norm_gradient<S: Simd>(
    s: S,
    x: &[f32],
    norm: LayerNorm<'_>,
    dy: &[f32],
    dx: &mut [f32],
    to: NormGradients<'_>,
) {
    let k = norm.gain.len();
    assert!(
        norm.bias.len() == k
            && to.gain.len() == k
            && to.bias.len() == k
            && dy.len() == x.len()
            && dx.len() == x.len()
            && (k == 0 || x.len().is_multiple_of(k)),
        "layer_norm_gradient: {} elements of rows of {k}, {} and {} gradients",
        x.len(),
        dy.len(),
        dx.len()
    );
    let gain = Row::new(norm.gain, 0.0);
    let rows = x.chunks_exact(k.max(1)).zip(dy.chunks_exact(k.max(1))).zip(dx.chunks_exact_mut(k.max(1)));
    for ((x, dy), dx) in rows {
        let (mean, inv) = moments(s, x, norm.eps);
        let (x, dy) = (Row::new(x, mean), Row::new(dy, 0.0));
        let (mean, inverse) = (s.splat(mean), s.splat(inv));
        let (mut sum, mut along) = (s.splat(0.0), s.splat(0.0));
        for j in 0..gain.vectors() {
            let z = s.mul(s.sub(x.at(s, j), mean), inverse);
            let d = dy.at(s, j);
            let a = s.mul(d, gain.at(s, j));
            sum = s.add(sum, a);
            along = s.fma(a, z, along);
            let (dgain, dbias) = (Row::new(to.gain, 0.0).at(s, j), Row::new(to.bias, 0.0).at(s, j));
            store(s, s.fma(d, z, dgain), to.gain, j);
            store(s, s.add(dbias, d), to.bias, j);
            store(s, a, dx, j);
        }
        project(s, &x, mean, inv, [s.sum(sum), s.sum(along)], dx);
    }
}

/// `dx[i] = inv (dx[i] - sum / k - z[i] along / k)`: from the gradient of the standardised row to that of the row.
#[inline(always)]
fn project<S: Simd>(s: S, x: &Row<'_>, mean: S::F, inv: f32, [sum, along]: [f32; 2], dx: &mut [f32]) {
    let count = dx.len() as f32;
    let (shift, minus, inverse) = (s.splat(sum / count), s.splat(-along / count), s.splat(inv));
    for j in 0..x.vectors() {
        let z = s.mul(s.sub(x.at(s, j), mean), inverse);
        let d = s.sub(Row::new(dx, 0.0).at(s, j), shift);
        store(s, s.mul(s.fma(z, minus, d), inverse), dx, j);
    }
}

#[inline(always)]
fn layer_norm_l2_second<S: Simd>(
    s: S,
    x: &[f32],
    target: &[f32],
    norm: LayerNorm<'_>,
    scale: &[f32],
    d: &[f32],
    mut to: LayerNormGradient<'_>,
) {
    let (n, k) = (scale.len(), norm.gain.len());
    let lengths = [x.len(), target.len(), d.len(), to.x.len(), to.target.len()];
    assert!(
        lengths.iter().all(|l| Some(*l) == n.checked_mul(k))
            && to.scale.len() == n
            && [norm.bias.len(), to.norm.gain.len(), to.norm.bias.len()] == [k; 3],
        "layer_norm_l2_second: {lengths:?} elements in {n} rows of {k}"
    );
    for (t, (scale, d_scale)) in scale.iter().zip(&mut *to.scale).enumerate() {
        let row = t * k..(t + 1) * k;
        let operands = [&x[row.clone()], &target[row.clone()], &d[row.clone()]];
        let (dx, dtarget) = (&mut to.x[row.clone()], &mut to.target[row]);
        *d_scale = second_row(s, operands, norm, *scale, dx, dtarget, &mut to.norm);
    }
}

/// One row. The function is `out = scale inv u` with `u = e - mean(e) - z mean(e z)`,
/// `e = (z gain + bias - target) gain`.
///
/// Let `g` be the gradient of `out`. Then the gradient of `scale` is `inv sum(g u)`; that of `u` is `w = g scale inv`;
/// the projection is its own transpose, so that of `e` is `w - mean(w) - z mean(w z)`; `z` in the projection gets
/// `-(w mean(e z) + e mean(w z))`; and `inv`, whose gradient by `x` is `-inv^2 z / k`, adds `sum(w u)` to what the last
/// projection subtracts along `z`.
#[inline(always)]
#[allow(clippy::too_many_arguments)]
fn second_row<S: Simd>(
    s: S,
    [x, target, g]: [&[f32]; 3],
    norm: LayerNorm<'_>,
    scale: f32,
    dx: &mut [f32],
    dtarget: &mut [f32],
    to: &mut NormGradients<'_>,
) -> f32 {
    let (mean, inv) = moments(s, x, norm.eps);
    let count = x.len() as f32;
    // Padding is 0 in `z`, `e` and `g`.
    let (x, target, g) = (Row::new(x, mean), Row::new(target, 0.0), Row::new(g, 0.0));
    let (gain, bias) = (Row::new(norm.gain, 0.0), Row::new(norm.bias, 0.0));
    let (mean, inverse, factor) = (s.splat(mean), s.splat(inv), s.splat(scale * inv));
    let vectors = x.vectors();
    let mut sums = [s.splat(0.0); 4];
    for j in 0..vectors {
        let z = s.mul(s.sub(x.at(s, j), mean), inverse);
        let e = s.mul(s.sub(s.fma(z, gain.at(s, j), bias.at(s, j)), target.at(s, j)), gain.at(s, j));
        let w = s.mul(g.at(s, j), factor);
        sums[0] = s.add(sums[0], e);
        sums[1] = s.fma(e, z, sums[1]);
        sums[2] = s.add(sums[2], w);
        sums[3] = s.fma(w, z, sums[3]);
    }
    let mut means = [0.0; 4];
    for i in 0..4 {
        means[i] = s.sum(sums[i]) / count;
    }
    let [mean_e, mean_ez, mean_w, mean_wz] = means;
    let (mean_e, minus_ez) = (s.splat(mean_e), s.splat(-mean_ez));
    let (mean_w, minus_wz) = (s.splat(mean_w), s.splat(-mean_wz));
    let zero = s.splat(0.0);
    let (mut gu, mut sum, mut along) = (zero, zero, zero);
    for j in 0..vectors {
        let z = s.mul(s.sub(x.at(s, j), mean), inverse);
        let gain = gain.at(s, j);
        let residual = s.sub(s.fma(z, gain, bias.at(s, j)), target.at(s, j));
        let e = s.mul(residual, gain);
        let (g, w) = (g.at(s, j), s.mul(g.at(s, j), factor));
        let u = s.fma(z, minus_ez, s.sub(e, mean_e));
        gu = s.fma(g, u, gu);
        let de = s.fma(z, minus_wz, s.sub(w, mean_w));
        let dy = s.mul(de, gain);
        let dz = s.fma(dy, gain, s.fma(w, minus_ez, s.mul(e, minus_wz)));
        sum = s.add(sum, dz);
        along = s.fma(dz, z, along);
        store(s, dz, dx, j);
        store(s, s.sub(zero, dy), dtarget, j);
        let (dgain, dbias) = (Row::new(to.gain, 0.0).at(s, j), Row::new(to.bias, 0.0).at(s, j));
        store(s, s.fma(dy, z, s.fma(de, residual, dgain)), to.gain, j);
        store(s, s.add(dbias, dy), to.bias, j);
    }
    let gu = s.sum(gu);
    project(s, &x, mean, inv, [s.sum(sum), s.sum(along) + scale * inv * gu], dx);
    inv * gu
}
