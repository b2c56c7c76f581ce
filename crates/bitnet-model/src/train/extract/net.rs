//! Forward and backward pass of the encoder over a batch, on one thread. Texts are stored one after the other without
//! padding: only attention sees where one ends.

use std::ops::Range;

use ternary_kernels::Ops;

use super::attention::{Heads, Rotations};
use super::batch::Batch;
use super::linear::{Codes, Linear, Room};
use super::params::{Places, Table, TableGradients};
use super::recurrent::{RecurrentRoom, RecurrentTape, Rule};
use crate::config::Activation;
use crate::encoder::{ExtractorConfig, MAX_WORDS};

/// Values of a layer that the backward pass needs.
#[derive(Debug, Default)]
struct LayerTape {
    /// The residual stream before attention and before the feed-forward block, `[n, hidden]`.
    x: [Vec<f32>; 2],
    codes: [Codes; 4],
    /// Queries and keys, rotated, and values, `[n, 3 hidden]`; of a recurrence the products with its projections.
    qkv: Vec<f32>,
    recurrent: RecurrentTape,
    probs: Vec<f32>,
    attended: Vec<f32>,
    /// `[n, gate | up]`, and the result of both.
    gate_up: Vec<f32>,
    inner: Vec<f32>,
}

/// The encoder with its buffers.
#[derive(Debug)]
pub(super) struct Net {
    pub(super) ops: Ops,
    heads: Heads,
    rotations: Rotations,
    config: ExtractorConfig,
    hidden: usize,
    ffn: usize,
    eps: f32,
    silu: bool,
    /// The four groups of projections of each layer.
    weights: Vec<[Linear; 4]>,
    /// The recurrence of each layer; `None` for attention.
    rules: Vec<Option<Rule>>,
    tape: Vec<LayerTape>,
    /// Word vectors `[n, hidden]`, and what they were multiplied by; nothing where no element is left out.
    pub(super) e: Vec<f32>,
    pub(super) mask: Vec<f32>,
    /// The last residual stream and its norm, `[n, hidden]`.
    last: Vec<f32>,
    pub(super) h: Vec<f32>,
    /// Gradients of `h` and `e`, which the heads leave.
    pub(super) dh: Vec<f32>,
    pub(super) de: Vec<f32>,
    dx: Vec<f32>,
    d1: Vec<f32>,
    d2: Vec<f32>,
    pub(super) room: Room,
    recurrent: RecurrentRoom,
    normed: Vec<f32>,
}

fn zeroed(v: &mut Vec<f32>, len: usize) -> &mut [f32] {
    v.clear();
    v.resize(len, 0.0);
    v
}

fn sized(v: &mut Vec<f32>, len: usize) -> &mut [f32] {
    v.resize(len, 0.0);
    v
}

impl Net {
    /// For a configuration that was checked.
    pub(super) fn new(config: &ExtractorConfig, ops: Ops) -> Self {
        let heads = Heads { heads: config.num_heads, d: config.head_dim(), directions: config.directions };
        let layers = || 0..config.num_layers;
        Self {
            ops,
            heads,
            rotations: Rotations::new(MAX_WORDS, heads.d, f64::from(config.rope_theta)),
            config: config.clone(),
            hidden: config.hidden_size,
            ffn: config.intermediate_size,
            eps: config.norm_eps,
            silu: config.activation == Activation::Silu,
            weights: layers().map(|_| Default::default()).collect(),
            rules: Vec::new(),
            tape: layers().map(|_| LayerTape::default()).collect(),
            e: Vec::new(),
            mask: Vec::new(),
            last: Vec::new(),
            h: Vec::new(),
            dh: Vec::new(),
            de: Vec::new(),
            dx: Vec::new(),
            d1: Vec::new(),
            d2: Vec::new(),
            room: Room::default(),
            recurrent: RecurrentRoom::default(),
            normed: Vec::new(),
        }
    }

    /// Quantises the weights for the passes that follow; without `quantised` they stay floats, and so do inputs.
    pub(super) fn prepare(&mut self, values: &[f32], places: &Places, quantised: bool) {
        let (h, f) = (self.hidden, self.ffn);
        self.rules.clear();
        for (l, (weights, places)) in self.weights.iter_mut().zip(&places.layers).enumerate() {
            let rule = Rule::new(&self.config, l, values, &places.directions, self.ops);
            self.rules.push(rule.expect("the configuration was checked, and places come from it"));
            let mixer = [h; 4];
            let own = places.groups[0].len() / (h * h);
            let rows: [&[usize]; 4] = [&mixer[..own], &[h], &[f, f], &[h]];
            for ((linear, place), rows) in weights.iter_mut().zip(&places.groups).zip(rows) {
                linear.prepare(self.ops, values, place, rows, quantised);
            }
        }
    }

    /// Fills `e` and `h` for the words of a batch.
    pub(super) fn forward(&mut self, values: &[f32], places: &Places, table: &Table, batch: &Batch, quantised: bool) {
        let (n, hidden, ffn, ops, eps) = (batch.words(), self.hidden, self.ffn, self.ops, self.eps);
        let e = zeroed(&mut self.e, n * hidden);
        for (word, e) in e.chunks_exact_mut(hidden).enumerate() {
            let features = batch.features(word);
            for id in features {
                ops.add_assign(e, table.row(*id));
            }
            ops.scale(1.0 / (features.len().max(1) as f32).sqrt(), e);
        }
        self.e.iter_mut().zip(&self.mask).for_each(|(e, m)| *e *= m);
        self.last.clone_from(&self.e);
        let x = &mut self.last;
        let texts: Vec<Range<usize>> = batch.texts().collect();
        let layers = self.tape.iter_mut().zip(&places.layers).zip(&self.weights).zip(&self.rules);
        for (((tape, places), w), rule) in layers {
            let gain = |i: usize| &values[places.norms[i].clone()];
            tape.x[0].clone_from(x);
            tape.codes[0].fill(ops, x, gain(0), eps, quantised);
            let qkv = sized(&mut tape.qkv, n * w[0].out);
            w[0].forward::<false>(ops, &tape.codes[0], qkv, &mut self.room);
            tape.probs.clear();
            let attended = sized(&mut tape.attended, n * hidden);
            if let Some(rule) = rule {
                let normed = sized(&mut self.normed, n * hidden);
                for (x, out) in x.chunks_exact(hidden).zip(normed.chunks_exact_mut(hidden)) {
                    ops.rms_norm(x, gain(0), eps, out);
                }
                self.recurrent.forward(rule, &mut tape.recurrent, [normed, qkv], &texts, attended);
            }
            for text in texts.iter().filter(|_| rule.is_none()) {
                for (p, row) in
                    qkv[text.start * 3 * hidden..text.end * 3 * hidden].chunks_exact_mut(3 * hidden).enumerate()
                {
                    self.rotations.turn(&mut row[..2 * hidden], p, false);
                }
                let (qkv, out) = (
                    &qkv[text.start * 3 * hidden..text.end * 3 * hidden],
                    &mut attended[text.start * hidden..text.end * hidden],
                );
                self.heads.forward(qkv, out, &mut tape.probs);
            }
            tape.codes[1].fill(ops, attended, gain(1), eps, quantised);
            w[1].forward::<true>(ops, &tape.codes[1], x, &mut self.room);
            tape.x[1].clone_from(x);
            tape.codes[2].fill(ops, x, gain(2), eps, quantised);
            let gate_up = sized(&mut tape.gate_up, n * 2 * ffn);
            w[2].forward::<false>(ops, &tape.codes[2], gate_up, &mut self.room);
            let inner = sized(&mut tape.inner, n * ffn);
            for (gu, inner) in gate_up.chunks_exact(2 * ffn).zip(inner.chunks_exact_mut(ffn)) {
                let (gate, up) = gu.split_at(ffn);
                if self.silu { ops.silu_mul(gate, up, inner) } else { ops.relu2_mul(gate, up, inner) }
            }
            tape.codes[3].fill(ops, inner, gain(3), eps, quantised);
            w[3].forward::<true>(ops, &tape.codes[3], x, &mut self.room);
        }
        let h = sized(&mut self.h, n * hidden);
        for (x, h) in x.chunks_exact(hidden).zip(h.chunks_exact_mut(hidden)) {
            ops.rms_norm(x, &values[places.final_norm.clone()], eps, h);
        }
    }

    /// Zeros in `dh` and `de`, for the heads to add to.
    pub(super) fn clear_gradients(&mut self, batch: &Batch) {
        let len = batch.words() * self.hidden;
        zeroed(&mut self.dh, len);
        zeroed(&mut self.de, len);
    }

    /// Adds the gradient of all below the heads to `grads` and to the table's rows, from `dh` and `de`.
    pub(super) fn backward(
        &mut self,
        values: &[f32],
        places: &Places,
        table: &mut TableGradients,
        batch: &Batch,
        grads: &mut [f32],
    ) {
        let (n, hidden, ffn, ops, eps) = (batch.words(), self.hidden, self.ffn, self.ops, self.eps);
        let Self { tape, weights, rules, dx, d1, d2, room, recurrent, .. } = self;
        let texts: Vec<Range<usize>> = batch.texts().collect();
        // With `add` onto what is in `dx`, else in its place.
        let norm = |x: &[f32], place: &Range<usize>, dy: &[f32], dx: &mut [f32], grads: &mut [f32], add: bool| {
            let (gain, dgain) = (&values[place.clone()], &mut grads[place.clone()]);
            let k = gain.len();
            for ((x, dy), dx) in x.chunks_exact(k).zip(dy.chunks_exact(k)).zip(dx.chunks_exact_mut(k)) {
                if add {
                    ops.rms_norm_gradient(x, gain, eps, dy, dx, dgain);
                } else {
                    ops.rms_norm_gradient_into(x, gain, eps, dy, dx, dgain);
                }
            }
        };
        norm(&self.last, &places.final_norm, &self.dh, sized(dx, n * hidden), grads, false);
        let layers = tape.iter_mut().zip(&places.layers).zip(&*weights).zip(&*rules);
        for (((tape, places), w), rule) in layers.rev() {
            let group = |i: usize| places.groups[i].clone();
            // Feed-forward block.
            w[3].backward(ops, &tape.codes[3], dx, &mut grads[group(3)], d1, room);
            norm(&tape.inner, &places.norms[3], d1, sized(d2, n * ffn), grads, false);
            let dgu = sized(d1, n * 2 * ffn);
            for ((gu, d), dgu) in
                tape.gate_up.chunks_exact(2 * ffn).zip(d2.chunks_exact(ffn)).zip(dgu.chunks_exact_mut(2 * ffn))
            {
                let ((gate, up), (dgate, dup)) = (gu.split_at(ffn), dgu.split_at_mut(ffn));
                if self.silu {
                    ops.silu_mul_gradient(gate, up, d, dgate, dup);
                } else {
                    ops.relu2_mul_gradient(gate, up, d, dgate, dup);
                }
            }
            w[2].backward(ops, &tape.codes[2], dgu, &mut grads[group(2)], d2, room);
            norm(&tape.x[1], &places.norms[2], d2, dx, grads, true);
            // The mixer.
            w[1].backward(ops, &tape.codes[1], dx, &mut grads[group(1)], d1, room);
            norm(&tape.attended, &places.norms[1], d1, sized(d2, n * hidden), grads, false);
            let dqkv = sized(d1, n * w[0].out);
            let mut at = 0;
            if let Some(rule) = rule {
                let LayerTape { recurrent: own, qkv, .. } = &mut *tape;
                recurrent.backward(rule, own, qkv, &texts, d2, dqkv, &places.directions, grads);
            }
            for text in texts.iter().filter(|_| rule.is_none()) {
                let wide = text.start * 3 * hidden..text.end * 3 * hidden;
                let probs = self.heads.heads * text.len() * text.len();
                let dout = &d2[text.start * hidden..text.end * hidden];
                let dqkv = &mut dqkv[wide.clone()];
                self.heads.backward(&tape.qkv[wide], &tape.probs[at..at + probs], dout, dqkv);
                for (p, row) in dqkv.chunks_exact_mut(3 * hidden).enumerate() {
                    self.rotations.turn(&mut row[..2 * hidden], p, true);
                }
                at += probs;
            }
            w[0].backward(ops, &tape.codes[0], dqkv, &mut grads[group(0)], d2, room);
            if rule.is_some() {
                // Learning rates and gates read the norm's result as it is.
                ops.add_assign(d2, &recurrent.d_input);
            }
            norm(&tape.x[0], &places.norms[0], d2, dx, grads, true);
        }
        for (word, (dx, de)) in dx.chunks_exact(hidden).zip(self.de.chunks_exact_mut(hidden)).enumerate() {
            let features = batch.features(word);
            ops.add_assign(de, dx);
            if let Some(mask) = self.mask.get(word * hidden..(word + 1) * hidden) {
                de.iter_mut().zip(mask).for_each(|(d, m)| *d *= m);
            }
            ops.scale(1.0 / (features.len().max(1) as f32).sqrt(), de);
            for id in features {
                ops.add_assign(table.of(*id), de);
            }
        }
    }
}
