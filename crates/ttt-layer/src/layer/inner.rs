//! The inner loop: gradient steps on a small model per head, in its dual and in its primal form.
//!
//! For token `n` of a mini-batch that began with the inner weights `W` (and biases), with views `q`, `k`, `v`, learning
//! rates `lr` and position weights `t`:
//!
//! ```text
//! g_k   = gradient of |f(k_k; W) - v_k|^2 / 2 with respect to W        k = 0..=n
//! W_n   = W - t_n * sum_{k <= n} lr_k g_k
//! out_n = f(q_n; W_n)                 f(x; W) = x + LN(model(x; W))
//! ```
//!
//! All gradients of a mini-batch are taken at its first weights, and the last token's weights begin the next one. The
//! primal form computes this directly, one token at a time. The dual form never builds `W_n`: for a matrix with input
//! rows `x` and gradients `dZ` of its outputs, `q W_n = q W - t_n sum_{k <= n} lr_k (q . x_k) dZ_k`.
//!
//! Paper: arXiv:2407.04620, sections 2.4 to 2.7 and appendix A; details that differ from it (the biases, `t`, the
//! residual inside of the target) follow the authors' code.

use candle_core::{D, Result, Tensor};

use super::math::{gelu, gelu_derivative, layer_norm, lower_triangle, norm_l2_gradient};
use crate::config::Kind;

/// Inner weights of all heads of all sequences: `W1`, `b1` and for [`Kind::Mlp`] `W2`, `b2`, as
/// `[B, h, rows, columns]` with the shapes of [`TttConfig::inner_shapes`](crate::TttConfig::inner_shapes).
#[derive(Clone, Debug)]
pub struct FastWeights(pub Vec<Tensor>);

/// Inputs of the inner loop, after projection and rotation.
#[derive(Clone, Debug)]
pub struct Views {
    /// Queries, `[B, h, T, d]`.
    pub q: Tensor,
    /// Keys, `[B, h, T, d]`.
    pub k: Tensor,
    /// Values, `[B, h, T, d]`.
    pub v: Tensor,
    /// Inner learning rates `base_lr sigmoid(x . theta + beta) / d` of the tokens as they are written, `[B, h, T]`.
    pub lr: Tensor,
}

impl Views {
    /// Some tokens.
    fn narrow(&self, start: usize, len: usize) -> Result<Self> {
        let cut = |x: &Tensor| x.narrow(2, start, len)?.contiguous();
        Ok(Self { q: cut(&self.q)?, k: cut(&self.k)?, v: cut(&self.v)?, lr: cut(&self.lr)? })
    }
}

/// The form of the inner loop. The forms are equal in real arithmetic.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// A mini-batch at a time, in products of matrices: for training.
    Dual,
    /// A token at a time with explicit gradients: the definition, for comparison.
    Primal,
}

/// The learnable constants of the inner loop.
#[derive(Clone, Debug)]
pub(crate) struct InnerModel {
    pub(crate) kind: Kind,
    /// Gain of the inner norm, `[h, d]`.
    pub(crate) gain: Tensor,
    /// Bias of the inner norm, `[h, d]`.
    pub(crate) bias: Tensor,
    /// Position weights before `max(0, 1 / (n + 1) + nu_n)`: `nu`, `[b]`.
    pub(crate) nu: Tensor,
    /// Of layers whose states forget, `[h]`: the sigmoid of it stays of the way from the first weights.
    pub(crate) decay: Option<Tensor>,
    pub(crate) eps: f32,
}

/// Gradients of a mini-batch at its first weights, with their inputs.
struct Gradients {
    /// Inputs of each matrix, `[B, h, n, rows]`.
    inputs: Vec<Tensor>,
    /// Gradients of each matrix' outputs, `[B, h, n, columns]`.
    outputs: Vec<Tensor>,
}

impl InnerModel {
    /// `max(0, 1 / (n + 1) + nu_n)` for all `n < b`, `[b]`.
    pub(crate) fn position_weights(&self) -> Result<Tensor> {
        let b = self.nu.dim(0)?;
        let fixed: Vec<f32> = (1..=b).map(|n| 1.0 / n as f32).collect();
        (Tensor::from_vec(fixed, b, self.nu.device())?.to_dtype(self.nu.dtype())? + &self.nu)?.relu()
    }

    /// Runs over all tokens of `views`, beginning a mini-batch with `start`; returns `f(q_n; W_n)` `[B, h, T, d]` and
    /// the weights `W_n` of the last token, or those after it if it completes a mini-batch and the state forgets;
    /// `first` are the first weights of a text, `[h, rows, columns]`.
    pub(crate) fn run(
        &self,
        views: &Views,
        start: &FastWeights,
        first: &[Tensor],
        form: Form,
    ) -> Result<(Tensor, FastWeights)> {
        let (tokens, b) = (views.q.dim(2)?, self.nu.dim(0)?);
        let (h, d) = self.gain.dims2()?;
        let norm = (self.gain.reshape((1, h, 1, d))?, self.bias.reshape((1, h, 1, d))?);
        let t = self.position_weights()?;
        let mut weights = start.clone();
        let mut outs = Vec::with_capacity(tokens.div_ceil(b));
        for at in (0..tokens).step_by(b) {
            let views = views.narrow(at, b.min(tokens - at))?;
            let before = weights;
            let z;
            (z, weights) = match form {
                Form::Dual => self.dual(&views, &before, &t, &norm)?,
                Form::Primal => self.primal(&views, &before, &t, &norm)?,
            };
            if let Some(decay) = self.decay.as_ref().filter(|_| at + b <= tokens) {
                // (W0 + keep (W - W0)) - W is what the decay adds to all that moved the weights.
                let lose = (candle_nn::ops::sigmoid(decay)?.reshape((1, h, 1, 1))? - 1.0)?;
                let moved = weights.0.iter().zip(&before.0).zip(first);
                let moved = moved.map(|((after, w), first)| after + w.broadcast_sub(first)?.broadcast_mul(&lose)?);
                weights = FastWeights(moved.collect::<Result<_>>()?);
            }
            outs.push((views.q + layer_norm(&z, &norm.0, &norm.1, self.eps)?)?);
        }
        Ok((Tensor::cat(&outs, 2)?, weights))
    }

    fn gradients(&self, views: &Views, weights: &FastWeights, norm: &(Tensor, Tensor)) -> Result<Gradients> {
        let FastWeights(w) = weights;
        let target = (&views.v - &views.k)?;
        let z1 = affine(&views.k, &w[0], &w[1])?;
        match self.kind {
            Kind::Linear => {
                let dz1 = norm_l2_gradient(&z1, &target, &norm.0, &norm.1, self.eps)?;
                Ok(Gradients { inputs: vec![views.k.clone()], outputs: vec![dz1] })
            }
            Kind::Mlp => {
                let x2 = gelu(&z1)?;
                let z2 = affine(&x2, &w[2], &w[3])?;
                let dz2 = norm_l2_gradient(&z2, &target, &norm.0, &norm.1, self.eps)?;
                let dz1 = (dz2.matmul(&w[2].t()?.contiguous()?)? * gelu_derivative(&z1)?)?;
                Ok(Gradients { inputs: vec![views.k.clone(), x2], outputs: vec![dz1, dz2] })
            }
        }
    }

    /// The model's outputs `[B, h, n, d]` before the norm, and the weights of the last token.
    fn dual(
        &self,
        views: &Views,
        weights: &FastWeights,
        t: &Tensor,
        norm: &(Tensor, Tensor),
    ) -> Result<(Tensor, FastWeights)> {
        let n = views.q.dim(2)?;
        let g = self.gradients(views, weights, norm)?;
        let t = t.narrow(0, 0, n)?;
        // eta[n, k] = t_n lr_k for k <= n, else 0.
        let lr = views.lr.unsqueeze(2)?;
        let eta = lr.broadcast_mul(&t.reshape((1, 1, n, 1))?)?.broadcast_mul(&lower_triangle(n, &t)?)?;
        let mut x = views.q.clone();
        let mut last = Vec::with_capacity(weights.0.len());
        let eta_last = eta.narrow(2, n - 1, 1)?.transpose(2, 3)?.contiguous()?;
        for (layer, (inputs, outputs)) in g.inputs.iter().zip(&g.outputs).enumerate() {
            if layer > 0 {
                x = gelu(&x)?;
            }
            let (w, b) = (&weights.0[2 * layer], &weights.0[2 * layer + 1]);
            // (x . input_k) for the matrix and 1 for the bias, whose input is 1.
            let seen = (x.matmul(&inputs.t()?.contiguous()?)? + 1.0)?;
            let z = (affine(&x, w, b)? - (&eta * seen)?.matmul(outputs)?)?;
            let step = outputs.broadcast_mul(&eta_last)?;
            last.push((w - inputs.t()?.contiguous()?.matmul(&step)?)?);
            last.push((b - step.sum_keepdim(2)?)?);
            x = z;
        }
        Ok((x, FastWeights(last)))
    }

    /// Like [`InnerModel::dual`], with accumulated gradients and a separate model for each token.
    fn primal(
        &self,
        views: &Views,
        weights: &FastWeights,
        t: &Tensor,
        norm: &(Tensor, Tensor),
    ) -> Result<(Tensor, FastWeights)> {
        let mut sums: Vec<Tensor> = weights.0.iter().map(Tensor::zeros_like).collect::<Result<_>>()?;
        let mut outs = Vec::new();
        let mut now = weights.clone();
        for n in 0..views.q.dim(2)? {
            let token = views.narrow(n, 1)?;
            let g = self.gradients(&token, weights, norm)?;
            let lr = token.lr.unsqueeze(D::Minus1)?;
            for (layer, (input, output)) in g.inputs.iter().zip(&g.outputs).enumerate() {
                let step = output.broadcast_mul(&lr)?;
                sums[2 * layer] = (&sums[2 * layer] + input.t()?.contiguous()?.matmul(&step)?)?;
                sums[2 * layer + 1] = (&sums[2 * layer + 1] + step)?;
            }
            let t = t.narrow(0, n, 1)?.reshape((1, 1, 1, 1))?;
            let moved = weights.0.iter().zip(&sums).map(|(w, s)| w - s.broadcast_mul(&t)?);
            now = FastWeights(moved.collect::<Result<_>>()?);
            let mut z = affine(&token.q, &now.0[0], &now.0[1])?;
            if self.kind == Kind::Mlp {
                z = affine(&gelu(&z)?, &now.0[2], &now.0[3])?;
            }
            outs.push(z);
        }
        Ok((Tensor::cat(&outs, 2)?, now))
    }
}

fn affine(x: &Tensor, w: &Tensor, b: &Tensor) -> Result<Tensor> {
    x.matmul(w)?.broadcast_add(b)
}
