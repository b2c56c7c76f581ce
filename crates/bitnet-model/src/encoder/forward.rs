//! The forward pass: from a text to hidden states, on one thread and without allocation.
//!
//! Products are exact integers, float operations those of [`Ops`] in a fixed order, so all instruction sets give the
//! same bits.

use std::sync::Arc;

use ternary_kernels::{Int8Batch, Isa, Kernel, Ops, Packed, RopeTable};

use super::config::{ExtractorConfig, MAX_WORDS};
use super::features::Utterance;
use super::heads::{HeadScratch, Task};
use super::layer::{Layer, Mixing, Stack};
use super::recurrent::{Recurrence, RecurrentScratch};
use super::weights::{ExtractorWeights, FeatureTable};
use crate::{Activation, ModelError};

/// An extractor, ready to compute. It is immutable: threads share it, each with its own [`Scratch`].
#[derive(Debug)]
pub struct Extractor {
    pub(super) config: ExtractorConfig,
    features: FeatureTable,
    layers: Vec<Layer>,
    final_norm: Vec<f32>,
    pub(super) tasks: Vec<Task>,
    rope: RopeTable,
    pub(super) ops: Ops,
    pub(super) kernel: Arc<dyn Kernel>,
}

/// Buffers of one thread. They grow with the texts that it sees, up to those of [`MAX_WORDS`] words, and are
/// kept.
#[derive(Debug)]
pub struct Scratch {
    pub(super) utterance: Utterance,
    /// Word vectors, `[n, hidden]`.
    pub(super) e: Vec<f32>,
    /// The residual stream, `[n, hidden]`, and at last the hidden states after the final norm.
    pub(super) h: Vec<f32>,
    pub(super) pooled: Vec<f32>,
    pub(super) heads: HeadScratch,
    pub(super) batch: Int8Batch,
    /// Words that `batch` has room for.
    capacity: usize,
    pub(super) acc: Vec<i32>,
    /// Queries, keys and values, `[3, heads, n, head_dim]`.
    qkv: Vec<f32>,
    pub(super) attention: AttentionScratch,
    pub(super) recurrent: RecurrentScratch,
    /// One row each of the width of the feed-forward block.
    gate: Vec<f32>,
    up: Vec<f32>,
    gated: Vec<f32>,
}

#[derive(Debug, Default)]
pub(super) struct AttentionScratch {
    /// Keys of a head, `[head_dim, n]`.
    keys: Vec<f32>,
    /// `[n, n]`
    scores: Vec<f32>,
    /// The result of one head, `[n, head_dim]`.
    read: Vec<f32>,
    /// The result of all heads, `[n, hidden]`.
    pub(super) all: Vec<f32>,
}

/// Makes `buffer` `len` long; its contents are old.
pub(super) fn sized<T: Copy + Default>(buffer: &mut Vec<T>, len: usize) -> &mut [T] {
    buffer.resize(len, T::default());
    buffer
}

/// Makes `buffer` `len` zeros.
pub(super) fn zeros(buffer: &mut Vec<f32>, len: usize) -> &mut [f32] {
    buffer.clear();
    sized(buffer, len)
}

impl Extractor {
    /// Packs `weights` for the instruction set that [`Isa::selected`] names.
    ///
    /// # Errors
    /// The errors of [`ExtractorWeights::check`] and of [`Isa::selected`].
    pub fn new(weights: ExtractorWeights) -> Result<Self, ModelError> {
        Self::for_isa(weights, Isa::selected()?)
    }

    /// Packs `weights` for `isa`; all give the same bits.
    ///
    /// # Errors
    /// The errors of [`ExtractorWeights::check`]; an instruction set that this CPU does not have.
    pub fn for_isa(weights: ExtractorWeights, isa: Isa) -> Result<Self, ModelError> {
        weights.check()?;
        let kernel = ternary_kernels::for_isa(isa)?;
        let ExtractorWeights { config, features, layers, final_norm, tasks } = weights;
        let ops = Ops::for_isa(isa)?;
        let layer = |(i, layer)| Layer::new(&config, &*kernel, ops, i, layer);
        let layers = layers.into_iter().enumerate().map(layer).collect::<Result<_, _>>()?;
        let tasks = config.tasks.iter().zip(tasks).map(|(c, w)| Task::new(&config, c, w)).collect();
        let rope = RopeTable::new(MAX_WORDS, config.head_dim(), config.rope_theta);
        Ok(Self { config, features, layers, final_norm, tasks, rope, ops, kernel })
    }

    /// Shape, formulas and tasks.
    pub fn config(&self) -> &ExtractorConfig {
        &self.config
    }

    /// The kernel of the products.
    pub fn kernel(&self) -> &str {
        self.kernel.name()
    }

    /// Bytes of weights in memory: packed trits, codes and scales of features, floats of heads and norms.
    pub fn byte_len(&self) -> usize {
        let packed =
            |l: &Layer| [l.mixing.packed(), &l.o.packed, &l.gate_up.packed, &l.down.packed].map(Packed::byte_len);
        let norms = |l: &Layer| l.attn_norm.len() + l.attn_sub_norm.len() + l.ffn_norm.len() + l.ffn_sub_norm.len();
        let own = |l: &Layer| norms(l) + l.mixing.recurrence().map_or(0, Recurrence::floats);
        let layers: usize = self.layers.iter().map(|l| packed(l).iter().sum::<usize>() + 4 * own(l)).sum();
        let floats =
            self.final_norm.len() + self.features.buckets() + self.tasks.iter().map(Task::floats).sum::<usize>();
        layers + self.features.codes().len() + 4 * floats
    }

    /// Buffers for one thread.
    pub fn scratch(&self) -> Scratch {
        const WORDS: usize = 32;
        Scratch {
            utterance: Utterance::default(),
            e: Vec::new(),
            h: Vec::new(),
            pooled: Vec::new(),
            heads: HeadScratch::default(),
            batch: self.batch(WORDS),
            capacity: WORDS,
            acc: Vec::new(),
            qkv: Vec::new(),
            attention: AttentionScratch::default(),
            recurrent: RecurrentScratch::new(self.layers.iter().filter_map(|l| l.mixing.recurrence())),
            gate: Vec::new(),
            up: Vec::new(),
            gated: Vec::new(),
        }
    }

    fn batch(&self, words: usize) -> Int8Batch {
        Int8Batch::with_capacity(words, self.config.hidden_size.max(self.config.intermediate_size))
    }

    /// Reads `text` and computes the hidden states of its words and the pooled vector, which the heads of every task
    /// read.
    ///
    /// # Errors
    /// [`ModelError::Kernel`] or [`ModelError::Diverged`] if something becomes NaN or infinite, which damaged weights
    /// make.
    pub fn encode(&self, text: &str, s: &mut Scratch) -> Result<(), ModelError> {
        s.utterance.read(text, self.config.features());
        let (n, width) = (s.utterance.words().len(), self.config.hidden_size);
        zeros(&mut s.pooled, self.config.pooled_size());
        self.embed_words(s);
        s.h.clear();
        s.h.extend_from_slice(&s.e);
        if n == 0 {
            return Ok(());
        }
        if n > s.capacity {
            s.capacity = n.next_power_of_two();
            s.batch = self.batch(s.capacity);
        }
        for layer in &self.layers {
            match &layer.mixing {
                Mixing::Attention(qkv) => self.attend(layer, qkv, n, s)?,
                Mixing::Ttt(..) | Mixing::Delta(..) => self.recur(layer, n, s)?,
            }
            self.feed_forward(layer, n, s)?;
        }
        for row in s.h.chunks_exact_mut(width) {
            self.ops.rms_norm_in_place(row, &self.final_norm, self.config.norm_eps);
        }
        self.pool(n, s);
        match s.pooled.iter().all(|v| v.is_finite()) {
            true => Ok(()),
            false => Err(ModelError::Diverged { what: "the hidden state of a word", position: 0 }),
        }
    }

    /// `e[t] = sum of the rows of word t's features / sqrt(their number)`.
    fn embed_words(&self, s: &mut Scratch) {
        let (ops, width) = (self.ops, self.config.hidden_size);
        let row = sized(&mut s.gate, width);
        for (t, e) in zeros(&mut s.e, s.utterance.words().len() * width).chunks_exact_mut(width).enumerate() {
            let features = s.utterance.features(t);
            for feature in features {
                let (codes, scale) = self.features.row(*feature as usize);
                ops.dequantize_int8(codes, scale, row);
                ops.add_assign(e, row);
            }
            ops.scale(1.0 / (features.len() as f32).sqrt(), e);
        }
    }

    /// Norm and quantisation of every row of `x`, `[n, k]`.
    pub(super) fn quantize(&self, x: &[f32], gain: &[f32], batch: &mut Int8Batch) -> Result<(), ModelError> {
        batch.reset(x.len() / gain.len(), gain.len());
        for (x, row) in x.chunks_exact(gain.len()).zip(batch.rows_mut()) {
            self.ops.rms_norm_quantize(x, gain, self.config.norm_eps, row)?;
        }
        Ok(())
    }

    /// `h += o(sub_norm(attention(norm(h))))`.
    fn attend(&self, layer: &Layer, stack: &Stack<3>, n: usize, s: &mut Scratch) -> Result<(), ModelError> {
        let (ops, width, d) = (self.ops, self.config.hidden_size, self.config.head_dim());
        let heads = self.config.num_heads;
        self.quantize(&s.h, &layer.attn_norm, &mut s.batch)?;
        let acc = stack.product(&*self.kernel, &s.batch, &mut s.acc);
        let qkv = sized(&mut s.qkv, 3 * n * width);
        for (t, (acc, scale)) in acc.chunks_exact(3 * width).zip(s.batch.scales()).enumerate() {
            // The rows of q, k and v, head by head.
            for (i, acc) in acc.chunks_exact(d).enumerate() {
                let out = &mut qkv[(i * n + t) * d..][..d];
                ops.dequantize(acc, 1.0 / scale, stack.scales[i / heads], out);
                if i < 2 * heads {
                    ops.rope_half(out, self.rope.cos(t), self.rope.sin(t));
                }
            }
        }
        let AttentionScratch { keys, scores, read, all } = &mut s.attention;
        let all = sized(all, n * width);
        for head in 0..heads {
            let of = |which: usize| &qkv[(which * heads + head) * n * d..][..n * d];
            let keys = sized(keys, d * n);
            ops.store_columns(of(1), d, n, 0, keys);
            let scores = zeros(scores, n * n);
            ops.add_product(of(0), keys, d, scores);
            ops.scale(1.0 / (d as f32).sqrt(), scores);
            for (i, row) in scores.chunks_exact_mut(n).enumerate() {
                let (seen, unseen) = row.split_at_mut(self.config.directions.seen(i, n));
                ops.softmax_in_place(seen);
                unseen.fill(0.0);
            }
            let read = zeros(read, n * d);
            ops.add_product(scores, of(2), n, read);
            for (row, read) in all.chunks_exact_mut(width).zip(read.chunks_exact(d)) {
                row[head * d..(head + 1) * d].copy_from_slice(read);
            }
        }
        self.quantize(all, &layer.attn_sub_norm, &mut s.batch)?;
        self.add_product(&layer.o, &s.batch, &mut s.acc, &mut s.h);
        Ok(())
    }

    /// `h += down(sub_norm(act(gate(norm(h))) * up(norm(h))))`.
    fn feed_forward(&self, layer: &Layer, n: usize, s: &mut Scratch) -> Result<(), ModelError> {
        let (ops, f) = (self.ops, self.config.intermediate_size);
        self.quantize(&s.h, &layer.ffn_norm, &mut s.batch)?;
        let acc = layer.gate_up.product(&*self.kernel, &s.batch, &mut s.acc);
        let gated = sized(&mut s.gated, n * f);
        let (gate, up) = (sized(&mut s.gate, f), sized(&mut s.up, f));
        let [gate_scale, up_scale] = layer.gate_up.scales;
        for ((acc, scale), out) in acc.chunks_exact(2 * f).zip(s.batch.scales()).zip(gated.chunks_exact_mut(f)) {
            ops.dequantize(&acc[..f], 1.0 / scale, gate_scale, gate);
            ops.dequantize(&acc[f..], 1.0 / scale, up_scale, up);
            match self.config.activation {
                Activation::Silu => ops.silu_mul(gate, up, out),
                Activation::Relu2 => ops.relu2_mul(gate, up, out),
                Activation::GeluTanh => unreachable!("`ExtractorConfig::validate` refuses it"),
            }
        }
        self.quantize(gated, &layer.ffn_sub_norm, &mut s.batch)?;
        self.add_product(&layer.down, &s.batch, &mut s.acc, &mut s.h);
        Ok(())
    }

    /// `h[t] += w x[t]`.
    pub(super) fn add_product(&self, w: &Stack<1>, x: &Int8Batch, acc: &mut Vec<i32>, h: &mut [f32]) {
        let width = self.config.hidden_size;
        let acc = w.product(&*self.kernel, x, acc);
        for ((acc, scale), h) in acc.chunks_exact(width).zip(x.scales()).zip(h.chunks_exact_mut(width)) {
            self.ops.dequantize_add(acc, 1.0 / scale, w.scales[0], h);
        }
    }

    /// Mean and largest value of the hidden states, mean of the word vectors.
    fn pool(&self, n: usize, s: &mut Scratch) {
        let width = self.config.hidden_size;
        let (mean, rest) = s.pooled.split_at_mut(width);
        let (max, mean_e) = rest.split_at_mut(width);
        self.ops.add_columns(&s.h, mean);
        self.ops.scale(1.0 / n as f32, mean);
        max.fill(f32::NEG_INFINITY);
        self.ops.max_columns(&s.h, max);
        self.ops.add_columns(&s.e, mean_e);
        self.ops.scale(1.0 / n as f32, mean_e);
    }
}
