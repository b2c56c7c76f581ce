//! The gated delta rule (Gated DeltaNet) for inference: rows of tokens on plain f32 slices, one recurrence for prefill
//! and decode.
//!
//! The memory of a head is a matrix `A`, `[d, d]`, that maps keys to values. For a token with input `x` and projections
//! `u` (queries, keys, values side by side) and `z`:
//!
//! ```text
//! (q, k, v) = silu(causal convolution of u);  q <- q / |q| / sqrt(d);  k <- k / |k|
//! decay = exp(a softplus(x . alpha + bias));  rate = sigmoid(x . beta)
//! A <- decay A;  A <- A + k^T rate (v - k A);  o = q A
//! out = RMS(o) gain silu(z)
//! ```
//!
//! Each token is one step of this recurrence, for any division into calls: so the values of a text do not depend on it,
//! to the last bit, nor on the number of threads, which share the key heads.
//!
//! Paper: arXiv:2412.06464; the layer is that of Qwen3-Next and Qwen 3.5.

mod config;
mod state;
mod train;

use std::ops::Range;

use ternary_kernels::ops::DeltaToken;
use ternary_kernels::{ColsMut, Ops};

pub use config::{DeltaConfig, DeltaParameters};
pub use state::DeltaState;
pub use train::{DeltaTape, DeltaWorkspace};

use crate::rowwise::slide;
use crate::{ConvParameters, ConvRows, Rows, TttError};

/// Tokens whose decays and rates are computed together.
const TOKENS: usize = 64;
/// Added to the square of the length of a query or key.
const LENGTH_EPS: f32 = 1e-6;

/// A layer without its projections, ready to read tokens.
///
/// The caller projects: it hands over the products with the matrix of queries, keys and values and with that of the
/// gate, and multiplies the result with that of the output, so that any kernel may compute them.
///
/// ```
/// use ttt_layer::{DeltaConfig, DeltaInputs, DeltaParameters, DeltaScratch, DeltaState, GatedDelta, Rows};
///
/// let config = DeltaConfig::new(8, 1, 2, 4);
/// let parameters = DeltaParameters {
///     alpha: vec![0.1; 2 * 8],
///     beta: vec![0.2; 2 * 8],
///     conv: vec![0.5; 16 * 4],
///     decay: vec![-1.0; 2],
///     decay_bias: vec![0.0; 2],
///     norm: vec![1.0; 4],
/// };
/// let layer = GatedDelta::new(&config, &parameters)?;
/// let (mut state, mut scratch) = (DeltaState::new(&layer), DeltaScratch::new(&config));
/// assert_eq!(state.bytes(), config.state_bytes()?);
/// let (x, qkv, z) = ([0.5; 3 * 8], [1.0; 3 * 16], [2.0; 3 * 8]); // 3 tokens
/// let inputs = DeltaInputs { x: &x, qkv: Rows::new(&qkv, 16), z: Rows::new(&z, 8) };
/// let mut out = [0.0; 3 * 8];
/// layer.forward(&mut state, &inputs, &mut out, &mut scratch);
/// assert_eq!(state.position(), 3);
/// # Ok::<(), ttt_layer::TttError>(())
/// ```
#[derive(Clone, Debug)]
pub struct GatedDelta {
    config: DeltaConfig,
    ops: Ops,
    parameters: DeltaParameters,
    conv: ConvRows,
    /// Factor of silu, `[g d]`.
    ones: Vec<f32>,
}

/// Inputs of a layer for `n` tokens.
#[derive(Clone, Copy, Debug)]
pub struct DeltaInputs<'a> {
    /// The layer's input, `[n, D]`; decays and rates depend on it.
    pub x: &'a [f32],
    /// Queries, keys and values side by side, `[n, c]`, before the convolution; value heads in groups.
    pub qkv: Rows<'a>,
    /// The gate of the output, `[n, g h d]`; value heads in groups.
    pub z: Rows<'a>,
}

/// Buffers of one thread, for any number of layers of one configuration.
#[derive(Clone, Debug)]
pub struct DeltaScratch {
    /// A result of the convolution, `[g d]`.
    convolved: Vec<f32>,
    /// `[d]`
    q: Vec<f32>,
    /// `[d]`
    k: Vec<f32>,
    /// `[g d]`
    v: Vec<f32>,
    /// `[d]`
    o: Vec<f32>,
    /// Decays of each value head, `[g, TOKENS]`.
    decay: Vec<f32>,
    /// Rates of each value head, `[g, TOKENS]`.
    rate: Vec<f32>,
    /// `[2, TOKENS]`
    exp: Vec<f32>,
}

impl DeltaScratch {
    /// Buffers for layers of this configuration.
    pub fn new(c: &DeltaConfig) -> Self {
        let (g, d) = (c.group(), c.head_dim);
        Self {
            convolved: vec![0.0; g * d],
            q: vec![0.0; d],
            k: vec![0.0; d],
            v: vec![0.0; g * d],
            o: vec![0.0; d],
            decay: vec![0.0; g * TOKENS],
            rate: vec![0.0; g * TOKENS],
            exp: vec![0.0; 2 * TOKENS],
        }
    }
}

impl DeltaConfig {
    /// Channels of the queries, the keys and the values of a key head.
    fn head_channels(&self, head: usize) -> [Range<usize>; 3] {
        let (d, g) = (self.head_dim, self.group());
        let key = self.key_width();
        let values = 2 * key + head * g * d;
        [head * d..(head + 1) * d, key + head * d..key + (head + 1) * d, values..values + g * d]
    }
}

impl GatedDelta {
    /// A layer with these parameters, on the instruction set that
    /// [`Isa::selected`](ternary_kernels::Isa::selected) names.
    ///
    /// # Errors
    /// [`TttError::Config`], [`TttError::Length`]; [`TttError::Kernel`] for an instruction set that this CPU lacks.
    pub fn new(config: &DeltaConfig, parameters: &DeltaParameters) -> Result<Self, TttError> {
        Self::with_ops(config, parameters, Ops::selected()?)
    }

    /// A layer with these parameters that computes with `ops`.
    ///
    /// # Errors
    /// [`TttError::Config`], [`TttError::Length`].
    pub fn with_ops(config: &DeltaConfig, parameters: &DeltaParameters, ops: Ops) -> Result<Self, TttError> {
        parameters.validate(config)?;
        let channels = config.channels();
        let conv = ConvParameters { weight: parameters.conv.clone(), bias: vec![0.0; channels] };
        Ok(Self {
            ops,
            conv: ConvRows::new(&conv, channels, config.conv_kernel)?,
            parameters: parameters.clone(),
            ones: vec![1.0; config.group() * config.head_dim],
            config: config.clone(),
        })
    }

    /// Shape and constants.
    pub fn config(&self) -> &DeltaConfig {
        &self.config
    }

    /// Factors of the softplus of decays, `[g h]`.
    pub fn decay(&self) -> &[f32] {
        &self.parameters.decay
    }

    /// The operations that the layer computes with.
    pub fn ops(&self) -> Ops {
        self.ops
    }

    /// Everything that the layer has learnt, as it computes with it.
    pub fn learnt(&self) -> impl Iterator<Item = &[f32]> {
        let p = &self.parameters;
        [&p.alpha, &p.beta, &p.conv, &p.decay, &p.decay_bias, &p.norm].into_iter().map(Vec::as_slice)
    }

    /// Reads `n` tokens on one thread: `out` `[n, g h d]` is the input of the output projection, and `state` is
    /// advanced by `n` tokens.
    ///
    /// # Panics
    /// If lengths or configurations do not fit.
    pub fn forward(
        &self,
        state: &mut DeltaState,
        inputs: &DeltaInputs<'_>,
        out: &mut [f32],
        scratch: &mut DeltaScratch,
    ) {
        let n = inputs.qkv.n();
        assert_eq!(*state.config(), self.config, "a state of another configuration");
        let out = &mut ColsMut::new(out, n, self.config.value_width());
        self.forward_heads(0..self.config.key_heads, state.heads_mut(), inputs, out, scratch);
        state.advance(n);
    }

    /// Some key heads, with their value heads, over `n` tokens. `state` is these heads' part of a state
    /// ([`DeltaState::heads_mut`]), `out` the columns of their value heads. When all heads have read the tokens, the
    /// state is for [`DeltaState::advance`].
    ///
    /// # Panics
    /// If lengths do not fit.
    pub fn forward_heads(
        &self,
        heads: Range<usize>,
        state: &mut [f32],
        inputs: &DeltaInputs<'_>,
        out: &mut ColsMut<'_, f32>,
        s: &mut DeltaScratch,
    ) {
        let c = &self.config;
        let (n, width) = (inputs.qkv.n(), c.group() * c.head_dim);
        assert!(
            inputs.x.len() == n * c.hidden_size && inputs.z.n() == n && out.n() == n,
            "inputs of different numbers of tokens"
        );
        assert!(inputs.qkv.cols() == c.channels() && inputs.z.cols() == c.value_width(), "inputs of other widths");
        assert_eq!(out.width(), heads.len() * width, "columns of {} key heads", heads.len());
        let part = c.head_floats().unwrap_or(0);
        assert_eq!(state.len(), heads.len() * part, "the state of {} key heads", heads.len());
        for (i, (head, state)) in heads.zip(state.chunks_exact_mut(part)).enumerate() {
            for start in (0..n).step_by(TOKENS) {
                let tokens = start..n.min(start + TOKENS);
                self.gates(head, &inputs.x[tokens.start * c.hidden_size..tokens.end * c.hidden_size], s);
                self.read(head, state, inputs, tokens, (&mut *out, i * width), s);
            }
        }
    }

    /// Decays and rates of the value heads of `head` for the tokens of `x`.
    fn gates(&self, head: usize, x: &[f32], s: &mut DeltaScratch) {
        let (c, n) = (&self.config, x.len() / self.config.hidden_size);
        for i in 0..c.group() {
            let (decay, rate) = (&mut s.decay[i * TOKENS..][..n], &mut s.rate[i * TOKENS..][..n]);
            self.gate(head * c.group() + i, x, decay, rate, &mut s.exp[..2 * n]);
        }
    }

    /// Decays and rates of value head `j` for the tokens of `x`, `[n]` each; `exp` is a buffer, `[2, n]`.
    fn gate(&self, j: usize, x: &[f32], decay: &mut [f32], rate: &mut [f32], exp: &mut [f32]) {
        let (p, size) = (&self.parameters, self.config.hidden_size);
        self.ops.dots(x, &p.alpha[j * size..(j + 1) * size], decay);
        self.ops.dots(x, &p.beta[j * size..(j + 1) * size], rate);
        self.ops.sigmoid_in_place(1.0, rate);
        let (minus, exp) = exp.split_at_mut(decay.len());
        for (d, m) in decay.iter_mut().zip(&mut *minus) {
            *d += p.decay_bias[j];
            *m = -d.abs();
        }
        self.ops.exp(minus, exp);
        for ((d, m), e) in decay.iter().zip(&mut *minus).zip(&*exp) {
            *m = p.decay[j] * softplus(*d, *e);
        }
        self.ops.exp(minus, decay);
    }

    /// The recurrence of the value heads of `head`, into the columns from `first` on of `out`.
    fn read(
        &self,
        head: usize,
        state: &mut [f32],
        inputs: &DeltaInputs<'_>,
        tokens: Range<usize>,
        (out, first): (&mut ColsMut<'_, f32>, usize),
        s: &mut DeltaScratch,
    ) {
        let (c, ops, d, g) = (&self.config, self.ops, self.config.head_dim, self.config.group());
        let (matrices, windows) = state.split_at_mut(g * d * d);
        let before = c.conv_kernel - 1;
        let (window_q, rest) = windows.split_at_mut(before * d);
        let (window_k, window_v) = rest.split_at_mut(before * d);
        let channels = c.head_channels(head);
        let [of_q, of_k, of_v] = channels.clone().map(|cols| inputs.qkv.part(tokens.clone(), cols));
        let [cols_q, cols_k, cols_v] = channels;
        let scale = self.query_scale();
        for t in 0..tokens.len() {
            let convolved = &mut s.convolved;
            let mut convolve = |cols: &Range<usize>, window: &[f32], rows: Rows<'_>, out: &mut [f32]| {
                let row = &mut convolved[..out.len()];
                self.conv.row(ops, cols.clone(), &self.conv.inputs(window, rows, t), row);
                ops.silu_mul(row, &self.ones[..out.len()], out);
            };
            convolve(&cols_q, window_q, of_q, &mut s.q);
            convolve(&cols_k, window_k, of_k, &mut s.k);
            convolve(&cols_v, window_v, of_v, &mut s.v);
            let (inv_q, inv_k) = (self.inverse_length(&s.q), self.inverse_length(&s.k));
            ops.scale(inv_q * scale, &mut s.q);
            ops.scale(inv_k, &mut s.k);
            let z = inputs.z.row(tokens.start + t);
            let out = &mut out.row_mut(tokens.start + t)[first..first + g * d];
            for (i, a) in matrices.chunks_exact_mut(d * d).enumerate() {
                let (v, at) = (&s.v[i * d..(i + 1) * d], (head * g + i) * d);
                let (decay, beta) = (s.decay[i * TOKENS + t], s.rate[i * TOKENS + t]);
                ops.delta_rule(a, DeltaToken { k: &s.k, q: &s.q, v, decay, beta }, &mut s.o);
                ops.rms_norm_in_place(&mut s.o, &self.parameters.norm, c.norm_eps);
                ops.silu_mul(&z[at..at + d], &s.o, &mut out[i * d..(i + 1) * d]);
            }
        }
        for (window, rows) in [(window_q, of_q), (window_k, of_k), (window_v, of_v)] {
            slide(window, rows, tokens.len());
        }
    }

    fn query_scale(&self) -> f32 {
        1.0 / (self.config.head_dim as f32).sqrt()
    }

    fn inverse_length(&self, x: &[f32]) -> f32 {
        1.0 / (self.ops.dot(x, x) + LENGTH_EPS).sqrt()
    }
}

/// `ln(1 + e^x)`, where `exp` is `e^-|x|`: in f64 with only sums, products and quotients, so the same everywhere, and
/// rounded once.
fn softplus(x: f32, exp: f32) -> f32 {
    // ln(1 + e) = 2 artanh(e / (2 + e)); the argument is at most 1/3, so twelve terms leave less than 1e-13.
    let e = f64::from(exp);
    let z = e / (2.0 + e);
    let square = z * z;
    let sum = (0..12).rev().fold(0.0, |sum, k| sum * square + 1.0 / f64::from(2 * k + 1));
    (f64::from(x).max(0.0) + 2.0 * z * sum) as f32
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn softplus_is_right_to_the_last_bit_but_one() {
        for i in -3200..4000 {
            let x = i as f32 / 40.0;
            let want = f64::from(x).max(0.0) + (-f64::from(x).abs()).exp().ln_1p();
            let got = softplus(x, (-x.abs()).exp());
            // The exponential is off by an ulp, the result by half of one.
            assert!((f64::from(got) / want - 1.0).abs() <= 2.5 / f64::from(1 << 24), "{x}: {got} instead of {want}");
        }
        assert!(softplus(f32::NAN, f32::NAN).is_nan());
    }
}
