//! The layer for inference: rows of tokens on plain f32 slices, in one form for prefill and decode.
//!
//! For token `n` of a mini-batch with first weights `W`, `b`, and the rows `x_k` (inputs of a matrix) and
//! `g_k = lr_k dZ_k` (gradients of its outputs) of the mini-batch so far:
//!
//! ```text
//! z_n = x_n W + b - t_n sum_{k <= n} (x_n . x_k + 1) g_k
//! ```
//!
//! After a mini-batch the weights move by the gradients of all its rows; in layers whose states forget
//! ([`TttConfig::decay`]) they first fall back towards those of the beginning of the text.
//!
//! This is the dual form, row by row. A call may bring any number of tokens: products that share weights are computed
//! together, but every element of every result is a chain of operations of its own, whose order depends on the token's
//! place in its mini-batch only. So the values of a text do not depend on how it is cut into calls, to
//! the last bit, nor on the number of threads, which share the heads.

mod head;
mod rows;
mod state;
mod train;

use std::ops::Range;

use smallvec::SmallVec;
use ternary_kernels::ops::LayerNorm;
use ternary_kernels::team::share;
use ternary_kernels::{ColsMut, Ops, RopeTable, Team, split_cols};

use crate::TttError;
use crate::config::{RopePairs, TttConfig};
use crate::parameters::TttParameters;
use head::{Decay, Head, HeadScratch};
pub(crate) use rows::slide;
pub use rows::{ConvRows, Rows};
use state::HeadState;
pub use state::TttState;
pub(crate) use train::rows_of;
pub use train::{InputGradients, Tape, Workspace};

/// A layer without its projections, ready to read tokens.
///
/// The caller projects: it hands over the products with `Wq`, `Wk`, `Wv` (and `Wg`), and multiplies the result with
/// `Wo`, so that any kernel may compute them.
///
/// ```
/// use candle_core::{DType, Device};
/// use candle_nn::{VarBuilder, VarMap, linear_no_bias};
/// use ttt_layer::{Inputs, Kind, RowWise, Rows, Scratch, TttConfig, TttLayer, TttState};
///
/// let vars = VarMap::new();
/// let vb = VarBuilder::from_varmap(&vars, DType::F32, &Device::Cpu);
/// let config = TttConfig::new(Kind::Linear, 2, 8);
/// let layer = TttLayer::new(&config, vb, |_, inputs, outputs, vb| linear_no_bias(inputs, outputs, vb))?;
///
/// let rows = RowWise::new(&config, &layer.parameters()?)?;
/// let (mut state, mut scratch) = (TttState::new(&rows), [Scratch::new(&config)]);
/// assert_eq!(state.bytes(), config.state_bytes()?);
/// let (x, q, k, v) = ([0.5; 3 * 16], [1.0; 3 * 16], [0.25; 3 * 16], [2.0; 3 * 16]); // 3 tokens
/// let inputs = Inputs { x: &x, q: Rows::new(&q, 16), k: Rows::new(&k, 16), v: Rows::new(&v, 16), gate: None };
/// let mut out = [0.0; 3 * 16];
/// rows.forward(&mut state, &inputs, &mut out, &mut scratch, None);
/// assert_eq!(state.position(), 3);
/// # Ok::<(), ttt_layer::TttError>(())
/// ```
#[derive(Clone, Debug)]
pub struct RowWise {
    config: TttConfig,
    ops: Ops,
    /// Inner weights of each head in the order of a state, `[h, floats]`.
    first: Vec<f32>,
    first_floats: usize,
    /// `[h, D]`
    lr_weight: Vec<f32>,
    /// `[h]`
    lr_bias: Vec<f32>,
    /// Position weights, `[b]`.
    t: Vec<f32>,
    /// `[h, d]`
    gain: Vec<f32>,
    /// `[h, d]`
    bias: Vec<f32>,
    /// `[w]`
    post_gain: Vec<f32>,
    /// `[w]`
    post_bias: Vec<f32>,
    convs: Option<[ConvRows; 2]>,
    /// The share that stays after a mini-batch, `[h]`; empty if states do not forget.
    keep: Vec<f32>,
    rope: RopeTable,
    /// Largest learning rate; 0 if the inner model does not change.
    rate: f32,
}

/// Inputs of a layer for `n` tokens.
#[derive(Clone, Copy, Debug)]
pub struct Inputs<'a> {
    /// The layer's input, `[n, D]`; the learning rates depend on it.
    pub x: &'a [f32],
    /// `x Wq`, `[n, w]`, before convolution and rotation.
    pub q: Rows<'a>,
    /// `x Wk`, `[n, w]`; not read if queries and keys share a projection.
    pub k: Rows<'a>,
    /// `x Wv`, `[n, w]`.
    pub v: Rows<'a>,
    /// `x Wg`, `[n, w]`, if the layer has a gate.
    pub gate: Option<Rows<'a>>,
}

/// Buffers of one thread, for any number of layers of one configuration. Those for TTT-MLP also serve TTT-Linear layers
/// that differ only in the kind.
#[derive(Clone, Debug)]
pub struct Scratch {
    head: HeadScratch,
    /// `[w]`
    row: Vec<f32>,
}

impl Scratch {
    /// Buffers for layers of this configuration.
    pub fn new(config: &TttConfig) -> Self {
        Self { head: HeadScratch::new(config), row: vec![0.0; config.width()] }
    }
}

impl RowWise {
    /// A layer with these parameters, on the instruction set that
    /// [`Isa::selected`](ternary_kernels::Isa::selected) names.
    ///
    /// # Errors
    /// [`TttError::Config`], [`TttError::Length`]; [`TttError::Kernel`] for an instruction set that this CPU lacks.
    pub fn new(config: &TttConfig, parameters: &TttParameters) -> Result<Self, TttError> {
        Self::with_ops(config, parameters, Ops::selected()?)
    }

    /// A layer with these parameters that computes with `ops`.
    ///
    /// # Errors
    /// [`TttError::Config`], [`TttError::Length`].
    pub fn with_ops(config: &TttConfig, parameters: &TttParameters, ops: Ops) -> Result<Self, TttError> {
        parameters.validate(config)?;
        let h = config.num_heads;
        let mut first = Vec::with_capacity(parameters.inner.iter().map(Vec::len).sum());
        for head in 0..h {
            for w in &parameters.inner {
                first.extend_from_slice(&w[head * (w.len() / h)..(head + 1) * (w.len() / h)]);
            }
        }
        let convs = match &parameters.convs {
            Some([q, k]) => {
                let conv = |p| ConvRows::new(p, config.width(), config.conv_kernel);
                Some([conv(q)?, conv(k)?])
            }
            None => None,
        };
        let mut keep = parameters.decay.clone();
        ops.sigmoid_in_place(1.0, &mut keep);
        let weight = |(n, nu): (usize, &f32)| (1.0 / (n + 1) as f32 + nu).max(0.0);
        Ok(Self {
            ops,
            first_floats: first.len() / h,
            first,
            lr_weight: parameters.lr_weight.clone(),
            lr_bias: parameters.lr_bias.clone(),
            t: parameters.token_idx.iter().enumerate().map(weight).collect(),
            gain: parameters.norm_weight.clone(),
            bias: parameters.norm_bias.clone(),
            post_gain: parameters.post_norm_weight.clone(),
            post_bias: parameters.post_norm_bias.clone(),
            convs,
            keep,
            rope: RopeTable::new(config.mini_batch_size, config.head_dim, config.rope_theta),
            rate: config.base_lr / config.head_dim as f32,
            config: config.clone(),
        })
    }

    /// The layer with inner learning rates of 0: its inner model stays as trained, whatever is read. For ablations.
    #[must_use]
    pub fn without_inner_updates(mut self) -> Self {
        self.rate = 0.0;
        self
    }

    /// Whether the inner model changes while the layer reads.
    pub fn has_inner_updates(&self) -> bool {
        self.rate != 0.0
    }

    /// Shape and constants.
    pub fn config(&self) -> &TttConfig {
        &self.config
    }

    /// The operations that the layer computes with.
    pub fn ops(&self) -> Ops {
        self.ops
    }

    /// Everything that the layer has learnt, as it computes with it.
    pub fn learnt(&self) -> impl Iterator<Item = &[f32]> {
        let own = [
            &self.first,
            &self.lr_weight,
            &self.lr_bias,
            &self.t,
            &self.gain,
            &self.bias,
            &self.post_gain,
            &self.post_bias,
        ];
        let convs = self.convs.iter().flatten().flat_map(ConvRows::learnt);
        let keep = Some(self.keep.as_slice()).filter(|keep| !keep.is_empty());
        own.into_iter().map(Vec::as_slice).chain(convs).chain(keep)
    }

    /// The share of the way from the first inner weights that stays after a mini-batch, 0 to 1 for each head, `[h]`; empty
    /// if states do not forget.
    pub fn keep(&self) -> &[f32] {
        &self.keep
    }

    /// A head's inner weights before the first token.
    fn first_weights_of(&self, head: usize) -> &[f32] {
        &self.first[head * self.first_floats..(head + 1) * self.first_floats]
    }

    /// Each head's inner weights before the first token.
    pub(crate) fn first_weights(&self) -> impl Iterator<Item = &[f32]> {
        self.first.chunks_exact(self.first_floats)
    }

    /// Reads `n` tokens: `out` `[n, w]` is the input of the output projection, and `state` is advanced by `n` tokens.
    /// With a team, its threads share the heads and then the rows.
    ///
    /// # Panics
    /// If lengths or configurations do not fit, or `scratch` has fewer buffers than `team` has threads, or none.
    pub fn forward(
        &self,
        state: &mut TttState,
        inputs: &Inputs<'_>,
        out: &mut [f32],
        scratch: &mut [Scratch],
        team: Option<&Team>,
    ) {
        let (n, w, h) = (inputs.q.n(), self.config.width(), self.config.num_heads);
        assert_eq!(*state.config(), self.config, "a state of another configuration");
        assert_eq!(out.len(), n * w, "outputs of {n} tokens of {w}");
        let (position, head_floats) = (state.position(), state.head_floats());
        let (mut rest, _) = state.parts_mut();
        match team.filter(|t| t.threads() > 1 && h > 1) {
            None => {
                self.forward_heads(0..h, rest, position, inputs, &mut ColsMut::new(out, n, w), &mut scratch[0]);
                self.finish(inputs.gate, 0, out, &mut scratch[0]);
            }
            Some(team) => {
                let threads = team.threads().min(h);
                let ranges: SmallVec<[Range<usize>; 8]> = (0..threads).map(|i| share(h, i, threads)).collect();
                let d = self.config.head_dim;
                let cols: SmallVec<[Range<usize>; 8]> = ranges.iter().map(|r| r.start * d..r.end * d).collect();
                let mut parts: SmallVec<[_; 8]> = SmallVec::new();
                for ((heads, cols), s) in ranges.into_iter().zip(split_cols(out, n, w, &cols)).zip(&mut *scratch) {
                    let state = rest.split_off_mut(..heads.len() * head_floats).unwrap_or_default();
                    parts.push((heads, cols, state, s));
                }
                assert_eq!(parts.len(), threads, "fewer buffers than threads");
                team.run_parts(&mut parts, |_, (heads, cols, state, s)| {
                    self.forward_heads(heads.clone(), state, position, inputs, cols, s);
                });
                drop(parts);
                let per = n.div_ceil(team.threads()).max(1);
                let mut parts: SmallVec<[_; 8]> = out.chunks_mut(per * w).zip(&mut *scratch).collect();
                team.run_parts(&mut parts, |i, (rows, s)| self.finish(inputs.gate, i * per, rows, s));
            }
        }
        state.advance(n);
        self.complete(state, &mut scratch[0]);
    }

    /// The inner loop of some heads over `n` tokens from `position` on. `state` is these heads' part of a state
    /// ([`TttState::parts_mut`]), `out` their columns of `[n, w]`. When all heads
    /// have read the tokens, the rows are for [`RowWise::finish`] and the state for [`TttState::advance`], then, before
    /// the next tokens, for [`RowWise::complete`]: a mini-batch that ends with the last token leaves the weights as
    /// they are until then, so that the tokens of a step that fails can be taken back without a copy of them.
    ///
    /// # Panics
    /// If lengths do not fit.
    #[allow(clippy::too_many_arguments)]
    pub fn forward_heads(
        &self,
        heads: Range<usize>,
        state: &mut [f32],
        position: u64,
        inputs: &Inputs<'_>,
        out: &mut ColsMut<'_, f32>,
        scratch: &mut Scratch,
    ) {
        self.heads(heads, state, position, inputs, out, scratch, None);
    }

    /// Lets the gradients of a mini-batch that has just ended move the weights, if that is due.
    ///
    /// # Panics
    /// If the configurations differ.
    pub fn complete(&self, state: &mut TttState, scratch: &mut Scratch) {
        if !state.is_due() {
            return;
        }
        assert_eq!(*state.config(), self.config, "a state of another configuration");
        let part = state.head_floats();
        for (head, data) in state.parts_mut().0.chunks_exact_mut(part).enumerate() {
            self.head_of(head).complete(&mut HeadState::new(&self.config, data).layers, &mut scratch.head);
        }
        state.completed();
    }

    /// Like [`RowWise::forward`] on one thread, with the inner losses `|f(k; W) - v|^2 / 2` of all tokens and heads,
    /// `[n, h]`, each at the weights of the beginning of its mini-batch: how well the layer predicted a token before it
    /// read it. For analysis; it costs about half as much again.
    ///
    /// # Panics
    /// Like [`RowWise::forward`].
    pub fn forward_with_losses(
        &self,
        state: &mut TttState,
        inputs: &Inputs<'_>,
        out: &mut [f32],
        scratch: &mut Scratch,
    ) -> Vec<f32> {
        let (n, w, h) = (inputs.q.n(), self.config.width(), self.config.num_heads);
        assert_eq!(*state.config(), self.config, "a state of another configuration");
        assert_eq!(out.len(), n * w, "outputs of {n} tokens of {w}");
        let mut losses = vec![0.0; n * h];
        let position = state.position();
        let cols = &mut ColsMut::new(out, n, w);
        self.forward_heads_with_losses(state.parts_mut().0, position, inputs, cols, scratch, &mut losses);
        self.finish(inputs.gate, 0, out, scratch);
        state.advance(n);
        self.complete(state, scratch);
        losses
    }

    /// Like [`RowWise::forward_heads`] of all heads, with the inner losses of [`RowWise::forward_with_losses`] into
    /// `losses` `[n, h]`.
    ///
    /// # Panics
    /// If lengths do not fit.
    pub fn forward_heads_with_losses(
        &self,
        state: &mut [f32],
        position: u64,
        inputs: &Inputs<'_>,
        out: &mut ColsMut<'_, f32>,
        scratch: &mut Scratch,
        losses: &mut [f32],
    ) {
        let h = self.config.num_heads;
        assert_eq!(losses.len(), inputs.q.n() * h, "losses of {h} heads");
        self.heads(0..h, state, position, inputs, out, scratch, Some(losses));
    }

    /// The constants of a head.
    fn head_of(&self, head: usize) -> Head<'_> {
        let d = self.config.head_dim;
        let norm = LayerNorm {
            gain: &self.gain[head * d..(head + 1) * d],
            bias: &self.bias[head * d..(head + 1) * d],
            eps: self.config.norm_eps,
        };
        let first = self.first_weights_of(head);
        let decay = self.keep.get(head).map(|keep| Decay { keep: *keep, first });
        Head { ops: self.ops, kind: self.config.kind, norm, t: &self.t, decay }
    }

    #[allow(clippy::too_many_arguments)]
    fn heads(
        &self,
        heads: Range<usize>,
        state: &mut [f32],
        position: u64,
        inputs: &Inputs<'_>,
        out: &mut ColsMut<'_, f32>,
        scratch: &mut Scratch,
        mut losses: Option<&mut [f32]>,
    ) {
        let (c, d) = (&self.config, self.config.head_dim);
        let n = inputs.q.n();
        assert!(
            inputs.x.len() == n * c.hidden_size
                && inputs.v.n() == n
                && (c.share_qk || inputs.k.n() == n)
                && out.n() == n,
            "inputs of different numbers of tokens"
        );
        assert_eq!(out.width(), heads.len() * d, "columns of {} heads of {d}", heads.len());
        let s = &mut scratch.head;
        let part = state.len() / heads.len().max(1);
        let start = heads.start;
        for (head, state) in heads.zip(state.chunks_exact_mut(part)) {
            let mut state = HeadState::new(c, state);
            let loop_ = self.head_of(head);
            let mut done = 0;
            while done < n {
                let first = ((position + done as u64) % c.mini_batch_size as u64) as usize;
                let r = (n - done).min(c.mini_batch_size - first);
                self.views(head, &mut state, inputs, done, first, r, s);
                if let Some(losses) = &mut losses {
                    for (i, loss) in loop_.losses(&state.layers, r, s).into_iter().enumerate() {
                        losses[(done + i) * c.num_heads + head] = loss;
                    }
                }
                let outs = loop_.run(&mut state.layers, first, r, s);
                for (i, row) in outs.chunks_exact(d).enumerate() {
                    out.row_mut(done + i)[(head - start) * d..(head - start + 1) * d].copy_from_slice(row);
                }
                done += r;
                if first + r == c.mini_batch_size && done < n {
                    loop_.complete(&mut state.layers, s);
                }
            }
        }
    }

    /// Keys, queries, targets and learning rates of the tokens `done..done + r` of the call, which are those from
    /// `first` on of their mini-batch, into the scratch.
    #[allow(clippy::too_many_arguments)]
    fn views(
        &self,
        head: usize,
        state: &mut HeadState<'_>,
        inputs: &Inputs<'_>,
        done: usize,
        first: usize,
        r: usize,
        s: &mut HeadScratch,
    ) {
        let (c, ops, d) = (&self.config, self.ops, self.config.head_dim);
        let cols = head * d..(head + 1) * d;
        let (keys, queries) = s.kq[..2 * r * d].split_at_mut(r * d);
        let shared = inputs.q.part(done..done + r, cols.clone());
        for i in 0..r {
            let (k, q) = (&mut keys[i * d..(i + 1) * d], &mut queries[i * d..(i + 1) * d]);
            match &self.convs {
                Some([conv_q, conv_k]) => {
                    // Both have the same kernel size.
                    let inputs = conv_q.inputs(state.window, shared, i);
                    conv_q.row(ops, cols.clone(), &inputs, q);
                    conv_k.row(ops, cols.clone(), &inputs, k);
                }
                None => {
                    q.copy_from_slice(shared.row(i));
                    k.copy_from_slice(&inputs.k.row(done + i)[cols.clone()]);
                }
            }
            let (cos, sin) = (self.rope.cos(first + i), self.rope.sin(first + i));
            for x in [&mut *k, q] {
                match c.rope_pairs {
                    RopePairs::Neighbours => ops.rope_neighbours(x, cos, sin),
                    RopePairs::Halves => ops.rope_half(x, cos, sin),
                }
            }
            let v = &inputs.v.row(done + i)[cols.clone()];
            for ((t, v), k) in s.target[i * d..(i + 1) * d].iter_mut().zip(v).zip(&*k) {
                *t = v - k;
            }
        }
        if self.convs.is_some() {
            slide(state.window, shared, r);
        }
        let x = &inputs.x[done * c.hidden_size..(done + r) * c.hidden_size];
        let lr = &mut s.lr[..r];
        ops.dots(x, &self.lr_weight[head * c.hidden_size..(head + 1) * c.hidden_size], lr);
        for lr in &mut *lr {
            *lr += self.lr_bias[head];
        }
        ops.sigmoid_in_place(self.rate, lr);
    }

    /// The norm after the inner loop and the gate, in place: `rows` are those from `first` on of the call, `[.., w]`.
    ///
    /// # Panics
    /// If lengths do not fit, or a gate is missing or not expected.
    pub fn finish(&self, gate: Option<Rows<'_>>, first: usize, rows: &mut [f32], scratch: &mut Scratch) {
        let row = &mut scratch.row;
        assert_eq!(gate.is_some(), self.config.use_gate, "a gate where there is none, or none where there is one");
        let norm = LayerNorm { gain: &self.post_gain, bias: &self.post_bias, eps: self.config.norm_eps };
        for (i, out) in rows.chunks_exact_mut(self.config.width()).enumerate() {
            row.copy_from_slice(out);
            self.ops.layer_norm(row, norm, out);
            if let Some(gate) = gate {
                self.ops.gelu_mul_assign(gate.row(first + i), out);
            }
        }
    }
}
