//! The layer for training on the CPU: texts as a whole, and gradients of everything, without autograd.
//!
//! The forward pass is that of inference to the last bit: token by token, since its two passes over a state in the
//! first-level cache cost as much as the products of the chunked form. Of the states one in [`CHUNK`] is kept in a
//! [`DeltaTape`]. The backward pass goes chunk by chunk from the last to the first and carries the gradient of the state
//! with it; within a chunk it is products of small matrices ([`chunk`]).

mod back;
mod chunk;

use std::ops::Range;

use ternary_kernels::ops::{DeltaToken, GemmScratch};

use super::{DeltaConfig, DeltaInputs, GatedDelta};
use crate::rowwise::rows_of;
use crate::{InputGradients, Rows};
use chunk::{CHUNK, ChunkBuffers};

/// Tape: values of one layer's forward pass that the backward pass needs.
#[derive(Clone, Debug, Default)]
pub struct DeltaTape {
    /// Results of the convolution, `[n, c]`.
    convolved: Vec<f32>,
    /// Decays and rates, `[g h, n]`.
    decays: Vec<f32>,
    rates: Vec<f32>,
    /// States at the beginning of each chunk but the first, which begins with zeros: of each text
    /// `[h, chunks - 1, g, d, d]`.
    states: Vec<f32>,
    /// Results of the queries before the norm, `[n, g h d]`.
    found: Vec<f32>,
}

/// Buffers of one thread, for any number of layers of one configuration.
#[derive(Clone, Debug)]
pub struct DeltaWorkspace {
    /// States of the value heads of a key head, `[g, d, d]`, and their gradients.
    state: Vec<f32>,
    d_state: Vec<f32>,
    views: Views,
    /// Keys of a chunk, then its queries, `[2 r, d]`; values, `[g, r, d]`; and the gradients of both.
    kq: Vec<f32>,
    d_kq: Vec<f32>,
    values: Vec<f32>,
    d_values: Vec<f32>,
    /// Of each token of a chunk, see [`Views`].
    inverse: Vec<[f32; 2]>,
    chunk: ChunkBuffers,
    /// Gradient of what queries found, `[n, g h d]`.
    d_found: Vec<f32>,
    /// Gradient of the convolution's results, `[n, c]`.
    d_convolved: Vec<f32>,
    /// Gradients of the logarithms of decays and of rates, then of what the gates' weights give, `[g h, n]`.
    d_decays: Vec<f32>,
    d_rates: Vec<f32>,
    /// `[2, n]`
    exp: Vec<f32>,
    /// `[n]`
    pre: Vec<f32>,
    /// `[c]`
    row: Vec<f32>,
    taps: Vec<f32>,
    no_bias: Vec<f32>,
    gemm: GemmScratch,
}

/// Query, key and values of a token for a key head.
#[derive(Clone, Debug)]
struct Views {
    q: Vec<f32>,
    k: Vec<f32>,
    /// `[g d]`
    v: Vec<f32>,
    /// One over the lengths of query and key before they became unit vectors.
    inverse: [f32; 2],
}

impl Views {
    fn new(c: &DeltaConfig) -> Self {
        let d = c.head_dim;
        Self { q: vec![0.0; d], k: vec![0.0; d], v: vec![0.0; c.group() * d], inverse: [0.0; 2] }
    }
}

impl DeltaWorkspace {
    /// Buffers for layers of this configuration.
    pub fn new(c: &DeltaConfig) -> Self {
        let (g, d) = (c.group(), c.head_dim);
        let zeros = |n: usize| vec![0.0; n];
        Self {
            state: zeros(g * d * d),
            d_state: zeros(g * d * d),
            views: Views::new(c),
            kq: zeros(2 * CHUNK * d),
            d_kq: zeros(2 * CHUNK * d),
            values: zeros(g * CHUNK * d),
            d_values: zeros(g * CHUNK * d),
            inverse: vec![[0.0; 2]; CHUNK],
            chunk: ChunkBuffers::default(),
            d_found: Vec::new(),
            d_convolved: Vec::new(),
            d_decays: Vec::new(),
            d_rates: Vec::new(),
            exp: Vec::new(),
            pre: Vec::new(),
            row: zeros(c.channels()),
            taps: Vec::new(),
            no_bias: zeros(c.channels()),
            gemm: GemmScratch::default(),
        }
    }
}

impl<'a> DeltaInputs<'a> {
    /// Inputs whose products are side by side in `projected`, `[n, c + g h d]`: queries, keys, values, gate.
    ///
    /// # Panics
    /// If the buffer is not whole rows.
    pub fn side_by_side(c: &DeltaConfig, x: &'a [f32], projected: &'a [f32]) -> Self {
        let (channels, all) = (c.channels(), c.channels() + c.value_width());
        let rows = |columns: Range<usize>| Rows::columns(projected, all, columns);
        Self { x, qkv: rows(0..channels), z: rows(channels..all) }
    }
}

/// The gradient of the parameters, in the order of [`DeltaParameters::from_flat`](super::DeltaParameters::from_flat).
struct Gradients<'a> {
    alpha: &'a mut [f32],
    beta: &'a mut [f32],
    conv: &'a mut [f32],
    decay: &'a mut [f32],
    decay_bias: &'a mut [f32],
    norm: &'a mut [f32],
}

impl<'a> Gradients<'a> {
    fn of(c: &DeltaConfig, grads: &'a mut [f32]) -> Self {
        let gates = c.value_heads * c.hidden_size;
        assert_eq!(grads.len(), c.parameters(), "gradients of a layer");
        let (alpha, rest) = grads.split_at_mut(gates);
        let (beta, rest) = rest.split_at_mut(gates);
        let (conv, rest) = rest.split_at_mut(c.channels() * c.conv_kernel);
        let (decay, rest) = rest.split_at_mut(c.value_heads);
        let (decay_bias, norm) = rest.split_at_mut(c.value_heads);
        Self { alpha, beta, conv, decay, decay_bias, norm }
    }
}

/// States of a text of `len` tokens that are kept.
fn kept_states(len: usize) -> usize {
    len.div_ceil(CHUNK).saturating_sub(1)
}

impl GatedDelta {
    /// Query, key and values of a key head from a row of the convolution.
    fn view(&self, head: usize, convolved: &[f32], to: &mut Views) {
        let [q, k, v] = self.config.head_channels(head).map(|channels| &convolved[channels]);
        self.ops.silu_mul(q, &self.ones[..q.len()], &mut to.q);
        self.ops.silu_mul(k, &self.ones[..k.len()], &mut to.k);
        self.ops.silu_mul(v, &self.ones[..v.len()], &mut to.v);
        to.inverse = [self.inverse_length(&to.q), self.inverse_length(&to.k)];
        self.ops.scale(to.inverse[0] * self.query_scale(), &mut to.q);
        self.ops.scale(to.inverse[1], &mut to.k);
    }

    /// Reads texts of these lengths, one after the other in the rows, every one from a state of zeros on: `out`
    /// `[n, g h d]` is what the output projection has to be applied to, with the bits of [`GatedDelta::forward`]. The
    /// values that [`GatedDelta::backward`] needs are kept in `tape`.
    ///
    /// # Panics
    /// If lengths do not fit.
    pub fn forward_taped(
        &self,
        inputs: &DeltaInputs<'_>,
        texts: &[usize],
        out: &mut [f32],
        tape: &mut DeltaTape,
        work: &mut DeltaWorkspace,
    ) {
        let (c, ops, d, g) = (&self.config, self.ops, self.config.head_dim, self.config.group());
        let (n, width, channels) = (inputs.qkv.n(), c.value_width(), c.channels());
        assert!(
            inputs.x.len() == n * c.hidden_size && inputs.z.n() == n && out.len() == n * width,
            "inputs or outputs of other sizes"
        );
        tape.convolved.resize(n * channels, 0.0);
        self.conv.forward_texts(ops, inputs.qkv, texts, &mut tape.convolved);
        tape.decays.resize(c.value_heads * n, 0.0);
        tape.rates.resize(c.value_heads * n, 0.0);
        work.exp.resize(2 * n, 0.0);
        for (j, (decay, rate)) in tape.decays.chunks_exact_mut(n).zip(tape.rates.chunks_exact_mut(n)).enumerate() {
            self.gate(j, inputs.x, decay, rate, &mut work.exp);
        }
        tape.found.resize(n * width, 0.0);
        let kept: usize = texts.iter().map(|len| kept_states(*len)).sum();
        tape.states.resize(c.key_heads * kept * g * d * d, 0.0);
        let mut slots = tape.states.chunks_exact_mut(g * d * d);
        for rows in rows_of(texts, n) {
            for head in 0..c.key_heads {
                work.state.fill(0.0);
                for at in rows.clone() {
                    let t = at - rows.start;
                    let kept = (t > 0 && t.is_multiple_of(CHUNK)).then(|| slots.next()).flatten();
                    if let Some(slot) = kept {
                        slot.copy_from_slice(&work.state);
                    }
                    self.view(head, &tape.convolved[at * channels..][..channels], &mut work.views);
                    for (i, a) in work.state.chunks_exact_mut(d * d).enumerate() {
                        let j = head * g + i;
                        let token = DeltaToken {
                            k: &work.views.k,
                            q: &work.views.q,
                            v: &work.views.v[i * d..(i + 1) * d],
                            decay: tape.decays[j * n + at],
                            beta: tape.rates[j * n + at],
                        };
                        let found = &mut tape.found[at * width + j * d..][..d];
                        ops.delta_rule(a, token, found);
                        let row = &mut work.row[..d];
                        row.copy_from_slice(found);
                        ops.rms_norm_in_place(row, &self.parameters.norm, c.norm_eps);
                        let z = &inputs.z.row(at)[j * d..(j + 1) * d];
                        ops.silu_mul(z, row, &mut out[at * width + j * d..][..d]);
                    }
                }
            }
        }
    }

    /// The gradients of [`GatedDelta::forward_taped`] for the gradient `dout` `[n, g h d]` of its result: added to that
    /// of the layer's input, written to that of the products (`[n, c + g h d]`, as in
    /// [`DeltaInputs::side_by_side`]), and added to `grads` in the order of
    /// [`DeltaParameters::from_flat`](super::DeltaParameters::from_flat).
    ///
    /// # Panics
    /// If lengths do not fit, or inputs, texts and tape are not those of the forward pass.
    #[expect(clippy::too_many_arguments, reason = "what the forward pass took, and where gradients go")]
    pub fn backward(
        &self,
        inputs: &DeltaInputs<'_>,
        texts: &[usize],
        dout: &[f32],
        tape: &DeltaTape,
        to: &mut InputGradients<'_>,
        grads: &mut [f32],
        work: &mut DeltaWorkspace,
    ) {
        let c = &self.config;
        let (n, width, channels) = (inputs.qkv.n(), c.value_width(), c.channels());
        let stride = channels + width;
        assert!(
            dout.len() == n * width
                && tape.found.len() == n * width
                && tape.decays.len() == c.value_heads * n
                && to.x.len() == n * c.hidden_size
                && to.projected.len() == n * stride,
            "gradients of {n} tokens: other sizes"
        );
        let mut grads = Gradients::of(c, grads);
        self.outputs_backward(inputs, dout, tape, to.projected, grads.norm, work);
        work.d_convolved.resize(n * channels, 0.0);
        work.d_decays.resize(c.value_heads * n, 0.0);
        work.d_rates.resize(c.value_heads * n, 0.0);
        let mut slots = &tape.states[..];
        for rows in rows_of(texts, n) {
            let per_head = kept_states(rows.len()) * c.group() * c.head_dim * c.head_dim;
            for head in 0..c.key_heads {
                let Some(states) = slots.split_off(..per_head) else { return };
                self.head_backward(head, rows.clone(), tape, states, work);
            }
            let projected = &mut to.projected[rows.start * stride..rows.end * stride];
            projected.chunks_exact_mut(stride).for_each(|row| row[..channels].fill(0.0));
            let dy = &work.d_convolved[rows.start * channels..rows.end * channels];
            let x = inputs.qkv.part(rows, 0..channels);
            let parameters = [&mut *grads.conv, &mut work.no_bias];
            self.conv.backward(self.ops, x, dy, projected, stride, parameters, &mut work.taps);
        }
        self.gates_backward(inputs.x, tape, to.x, &mut grads, work);
    }
}
