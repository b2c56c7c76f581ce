//! The layer for training on the CPU: texts as a whole, and gradients of everything, without autograd.
//!
//! The forward pass is that of inference to the last bit: the same rows, mini-batch by mini-batch. What the backward
//! pass cannot cheaply compute again is kept in a [`Tape`]: the inner weights at the beginning of each mini-batch, the
//! views, the inner model's outputs and the gradients that were written. The backward pass runs through the
//! mini-batches from the last to the first and carries the gradient of the inner weights with it; nothing is detached.
//!
//! Paper: arXiv:2407.04620, section 2.5 and appendix C ("gradient checkpointing through time").

mod chunk;
mod conv;
mod layout;

use std::ops::Range;

use ternary_kernels::ops::{LayerNorm, NormGradients};

use super::state::HeadState;
use super::{Inputs, RowWise, Rows, Scratch};
use crate::config::Projection;
use crate::config::{RopePairs, TttConfig};
use chunk::{Buffers, ChunkTape};
use layout::Places;

/// Tape: values of one layer's forward pass that the backward pass needs.
#[derive(Clone, Debug, Default)]
pub struct Tape {
    /// One [`ChunkTape`] per text, head and mini-batch.
    chunks: Vec<f32>,
    /// The inner loop's outputs before the norm, `[n, w]`.
    inner: Vec<f32>,
}

/// Buffers of one thread, for any number of layers of one configuration.
#[derive(Clone, Debug)]
pub struct Workspace {
    scratch: Scratch,
    state: Vec<f32>,
    buffers: Buffers,
    /// Gradient of the inner loop's outputs, `[n, w]`.
    d_inner: Vec<f32>,
    /// One row of the norm after the inner loop, `[w]`.
    row: Vec<f32>,
    /// Gradients of queries and keys of a text before the convolutions, `[T, w]` each.
    d_views: [Vec<f32>; 2],
    /// Gradients of the learning rates of a text, `[T]`.
    d_lr: Vec<f32>,
    taps: Vec<f32>,
    minus_sin: Vec<f32>,
}

impl Workspace {
    /// Buffers for layers of this configuration.
    pub fn new(config: &TttConfig) -> Self {
        Self {
            scratch: Scratch::new(config),
            state: vec![0.0; config.head_floats().unwrap_or(0)],
            buffers: Buffers::new(config),
            d_inner: Vec::new(),
            row: vec![0.0; config.width()],
            d_views: [Vec::new(), Vec::new()],
            d_lr: Vec::new(),
            taps: Vec::new(),
            minus_sin: Vec::new(),
        }
    }
}

/// The columns of a buffer `[n, stride]` that holds the products with all projections but the last, side by side in the
/// order of [`Projection::of`]: queries, keys unless they share a projection, values, gate if there is one.
#[derive(Clone, Copy, Debug)]
struct Columns {
    k: Option<usize>,
    v: usize,
    gate: Option<usize>,
    stride: usize,
}

impl Columns {
    fn of(config: &TttConfig) -> Self {
        let w = config.width();
        let at = |p: Projection| Projection::of(config).position(|q| q == p).map(|i| i * w);
        let stride = w * Projection::of(config).filter(|p| *p != Projection::O).count();
        // Values there always are.
        Self { k: at(Projection::K), v: at(Projection::V).unwrap_or(0), gate: at(Projection::Gate), stride }
    }
}

impl<'a> Inputs<'a> {
    /// Inputs whose products are side by side in `projected`, `[n, columns]`, in the order of [`Projection::of`]
    /// without the last: queries, keys unless they share a projection, values, gate if there is one.
    ///
    /// # Panics
    /// If the buffer is not whole rows.
    pub fn side_by_side(config: &TttConfig, x: &'a [f32], projected: &'a [f32]) -> Self {
        let (c, w) = (Columns::of(config), config.width());
        let rows = |at: usize| Rows::columns(projected, c.stride, at..at + w);
        Self { x, q: rows(0), k: rows(c.k.unwrap_or(0)), v: rows(c.v), gate: c.gate.map(rows) }
    }
}

/// The buffers of the gradients of a layer's inputs.
#[derive(Debug)]
pub struct InputGradients<'a> {
    /// Gradient of the layer's input as the learning rates read it, `[n, D]`; added to.
    pub x: &'a mut [f32],
    /// Gradient of the products, side by side as in [`Inputs::side_by_side`], `[n, columns]`; written.
    pub projected: &'a mut [f32],
}

/// The rows of texts of these lengths, which are one after the other in `n` rows.
///
/// # Panics
/// If the lengths do not add up to `n`, or a text is empty.
pub(crate) fn rows_of(texts: &[usize], n: usize) -> impl Iterator<Item = Range<usize>> {
    assert!(!texts.contains(&0) && texts.iter().sum::<usize>() == n, "{n} rows of texts of {texts:?} tokens");
    let mut end = 0;
    texts.iter().map(move |len| {
        end += len;
        end - len..end
    })
}

impl RowWise {
    /// Reads texts of these lengths, one after the other in the rows, every one from the first inner weights on: `out`
    /// `[n, w]` is the input of the output projection, with the bits of [`RowWise::forward`]. `tape` keeps what
    /// [`RowWise::backward`] needs.
    ///
    /// # Panics
    /// If lengths do not fit.
    pub fn forward_taped(
        &self,
        inputs: &Inputs<'_>,
        texts: &[usize],
        out: &mut [f32],
        tape: &mut Tape,
        work: &mut Workspace,
    ) {
        let (c, d, w, n) = (&self.config, self.config.head_dim, self.config.width(), inputs.q.n());
        assert!(inputs.x.len() == n * c.hidden_size && out.len() == n * w, "inputs or outputs of other sizes");
        let b = c.mini_batch_size;
        tape.chunks.resize(self.tape_floats(texts), 0.0);
        let mut rest = &mut tape.chunks[..];
        for rows in rows_of(texts, n) {
            let start = rows.start;
            for head in 0..c.num_heads {
                let first = self.first_weights_of(head);
                work.state.fill(0.0);
                work.state[..first.len()].copy_from_slice(first);
                let loop_ = self.head_of(head);
                for at in (0..rows.len()).step_by(b) {
                    let r = b.min(rows.len() - at);
                    let s = &mut work.scratch.head;
                    let kept = if at == 0 { 0 } else { first.len() };
                    let kept = rest.split_off_mut(..kept).unwrap_or_default();
                    kept.copy_from_slice(&work.state[..kept.len()]);
                    let weights: &[f32] = if at == 0 { first } else { kept };
                    let slot = rest.split_off_mut(..ChunkTape::size(c, r)).unwrap_or_default();
                    let mut slot = ChunkTape::new(c, weights, slot, r);
                    let mut state = HeadState::new(c, &mut work.state);
                    self.views(head, &mut state, inputs, start + at, 0, r, s);
                    slot.keep_views(s);
                    let outs = loop_.run(&mut state.layers, 0, r, s);
                    for (i, row) in outs.chunks_exact(d).enumerate() {
                        out[(start + at + i) * w + head * d..][..d].copy_from_slice(row);
                    }
                    slot.keep_results(&state.layers, s);
                    if r == b {
                        loop_.complete(&mut state.layers, s);
                    }
                }
            }
        }
        tape.inner.clear();
        tape.inner.extend_from_slice(out);
        self.finish(inputs.gate, 0, out, &mut work.scratch);
    }

    /// The gradients of [`RowWise::forward_taped`] for the gradient `dout` `[n, w]` of its result: writes or adds those
    /// of the inputs, and adds those of the parameters to `grads`, in the order of [`crate::TttParameters::from_flat`].
    ///
    /// # Panics
    /// If lengths do not fit, or inputs, texts and tape are not those of the forward pass.
    #[expect(clippy::too_many_arguments, reason = "what the forward pass took, and where gradients go")]
    pub fn backward(
        &self,
        inputs: &Inputs<'_>,
        texts: &[usize],
        dout: &[f32],
        tape: &mut Tape,
        to: &mut InputGradients<'_>,
        grads: &mut [f32],
        work: &mut Workspace,
    ) {
        let (c, w, n) = (&self.config, self.config.width(), inputs.q.n());
        let (columns, places) = (Columns::of(c), Places::new(c));
        assert!(
            dout.len() == n * w
                && tape.inner.len() == n * w
                && to.x.len() == n * c.hidden_size
                && to.projected.len() == n * columns.stride
                && grads.len() == places.len,
            "gradients of {n} tokens: other sizes"
        );
        assert_eq!(tape.chunks.len(), self.tape_floats(texts), "the tape of another forward pass");
        self.finish_backward(inputs, dout, &tape.inner, to.projected, columns, &places, grads, work);
        let mut rest = &mut tape.chunks[..];
        for rows in rows_of(texts, n) {
            let len = c.num_heads * ChunkTape::text_size(c, rows.len());
            let slots = rest.split_off_mut(..len).unwrap_or_default();
            self.text_backward(inputs, rows, slots, to, columns, &places, grads, work);
        }
    }

    /// Floats of the tape of texts of these lengths.
    fn tape_floats(&self, texts: &[usize]) -> usize {
        texts.iter().map(|len| self.config.num_heads * ChunkTape::text_size(&self.config, *len)).sum()
    }

    /// Norm and gate: leaves the gradient of the inner loop's outputs in the workspace.
    #[expect(clippy::too_many_arguments, reason = "parts of the call above")]
    fn finish_backward(
        &self,
        inputs: &Inputs<'_>,
        dout: &[f32],
        inner: &[f32],
        projected: &mut [f32],
        columns: Columns,
        places: &Places,
        grads: &mut [f32],
        work: &mut Workspace,
    ) {
        let (ops, w) = (self.ops, self.config.width());
        let norm = LayerNorm { gain: &self.post_gain, bias: &self.post_bias, eps: self.config.norm_eps };
        work.d_inner.clear();
        work.d_inner.extend_from_slice(dout);
        if let (Some(gate), Some(at)) = (inputs.gate, columns.gate) {
            let rows = inner.chunks_exact(w).zip(work.d_inner.chunks_exact_mut(w));
            for (i, ((inner, d), projected)) in rows.zip(projected.chunks_exact_mut(columns.stride)).enumerate() {
                let d_gate = &mut projected[at..at + w];
                ops.layer_norm(inner, norm, &mut work.row);
                for ((g, y), d) in d_gate.iter_mut().zip(&work.row).zip(&*d) {
                    *g = y * d;
                }
                ops.gelu_derivative_mul_assign(gate.row(i), d_gate);
                ops.gelu_mul_assign(gate.row(i), d);
            }
        }
        let [gain, bias] = two(grads, &places.post_weight, &places.post_bias);
        // In place, row by row.
        for (inner, d) in inner.chunks_exact(w).zip(work.d_inner.chunks_exact_mut(w)) {
            work.row.copy_from_slice(d);
            ops.layer_norm_gradient(inner, norm, &work.row, d, NormGradients { gain: &mut *gain, bias: &mut *bias });
        }
    }

    #[expect(clippy::too_many_arguments, reason = "parts of the call above")]
    fn text_backward(
        &self,
        inputs: &Inputs<'_>,
        rows: Range<usize>,
        slots: &mut [f32],
        to: &mut InputGradients<'_>,
        columns: Columns,
        places: &Places,
        grads: &mut [f32],
        work: &mut Workspace,
    ) {
        let (c, ops, d, w) = (&self.config, self.ops, self.config.head_dim, self.config.width());
        let (len, b) = (rows.len(), c.mini_batch_size);
        let stride = columns.stride;
        let projected = &mut to.projected[rows.start * stride..rows.end * stride];
        let d_inner = &work.d_inner[rows.start * w..rows.end * w];
        for d in &mut work.d_views {
            d.resize(len * w, 0.0);
        }
        work.d_lr.resize(len, 0.0);
        for (head, slots) in slots.chunks_exact_mut(ChunkTape::text_size(c, len)).enumerate() {
            let first = self.first_weights_of(head);
            let columns_of = head * d..(head + 1) * d;
            let loop_ = self.head_of(head);
            let buffers = &mut work.buffers;
            buffers.begin();
            for i in (0..len.div_ceil(b)).rev() {
                let at = i * b;
                let r = b.min(len - at);
                let slot = ChunkTape::of_text(c, first, slots, i, r);
                buffers.load_outputs(d_inner, at, w, &columns_of, r);
                loop_.backward(&slot, buffers);
                for i in 0..r {
                    let t = at + i;
                    let [dq, dk, dv] = buffers.rows(i);
                    self.turn_back(i, [&mut *dq, &mut *dk], &mut work.minus_sin);
                    work.d_views[0][t * w..][columns_of.clone()].copy_from_slice(dq);
                    work.d_views[1][t * w..][columns_of.clone()].copy_from_slice(dk);
                    projected[t * stride + columns.v..][columns_of.clone()].copy_from_slice(dv);
                }
                let largest = c.base_lr / d as f32;
                for ((d_lr, lr), d) in work.d_lr[at..].iter_mut().zip(&*slot.lr).zip(&buffers.d_lr[..r]) {
                    *d_lr = d * lr * (1.0 - lr / largest);
                }
            }
            buffers.end(ops);
            let [gain, bias] = two(grads, &places.norm_weight, &places.norm_bias);
            ops.add_assign(&mut gain[columns_of.clone()], &buffers.d_gain);
            ops.add_assign(&mut bias[columns_of], &buffers.d_bias);
            for (place, d) in places.inner.iter().zip(buffers.d_weights.iter()) {
                let len = place.len() / c.num_heads;
                ops.add_assign(&mut grads[place.start + head * len..][..len], d);
            }
            if let Some(keep) = self.keep.get(head) {
                // Of the sigmoid.
                grads[places.decay.start + head] += buffers.d_keep * keep * (1.0 - keep);
            }
            for ((g, d), t) in grads[places.token_idx.clone()].iter_mut().zip(&buffers.d_t).zip(&self.t) {
                // Below 0 nothing passes.
                *g += if *t > 0.0 { *d } else { 0.0 };
            }
            let hidden = c.hidden_size;
            let theta = head * hidden..(head + 1) * hidden;
            let weight = &self.lr_weight[theta.clone()];
            let x = inputs.x[rows.start * hidden..rows.end * hidden].chunks_exact(hidden);
            let dx = to.x[rows.start * hidden..rows.end * hidden].chunks_exact_mut(hidden);
            for ((x, dx), d) in x.zip(dx).zip(&work.d_lr) {
                ops.axpy(*d, weight, dx);
                ops.axpy(*d, x, &mut grads[places.lr_weight.clone()][theta.clone()]);
                grads[places.lr_bias.start + head] += d;
            }
        }
        match (&self.convs, columns.k) {
            (Some([conv_q, conv_k]), _) => {
                let x = inputs.q.part(rows, 0..w);
                for row in projected.chunks_exact_mut(stride) {
                    row[..w].fill(0.0);
                }
                for ((conv, d), [weight, bias]) in [conv_q, conv_k].into_iter().zip(&work.d_views).zip(&places.convs) {
                    let [weight, bias] = two(grads, weight, bias);
                    conv.backward(ops, x, d, projected, stride, [weight, bias], &mut work.taps);
                }
            }
            (None, k) => {
                let [dq, dk] = &work.d_views;
                for ((row, dq), dk) in
                    projected.chunks_exact_mut(stride).zip(dq.chunks_exact(w)).zip(dk.chunks_exact(w))
                {
                    row[..w].copy_from_slice(dq);
                    if let Some(k) = k {
                        row[k..k + w].copy_from_slice(dk);
                    }
                }
            }
        }
    }

    /// Rotates by the opposite angle of place `i` of a mini-batch.
    fn turn_back(&self, i: usize, rows: [&mut [f32]; 2], minus_sin: &mut Vec<f32>) {
        minus_sin.clear();
        minus_sin.extend(self.rope.sin(i).iter().map(|s| -s));
        for x in rows {
            match self.config.rope_pairs {
                RopePairs::Neighbours => self.ops.rope_neighbours(x, self.rope.cos(i), minus_sin),
                RopePairs::Halves => self.ops.rope_half(x, self.rope.cos(i), minus_sin),
            }
        }
    }
}

/// Two disjoint parts of a buffer, the first before the second.
fn two<'a>(x: &'a mut [f32], first: &Range<usize>, second: &Range<usize>) -> [&'a mut [f32]; 2] {
    let (low, high) = x.split_at_mut(second.start);
    [&mut low[first.clone()], &mut high[..second.len()]]
}
