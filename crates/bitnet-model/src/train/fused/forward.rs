//! The buffers of one worker, and the forward pass.

use std::ops::Range;

use ternary_kernels::ops::{GemmScratch, Prepare, Strided};
use ternary_kernels::{Int4Batch, Int8Batch, Int16Batch};

use super::attention::{AttentionScratch, Heads};
use super::delta::{DeltaScratch, DeltaTape};
use super::ttt::{TttScratch, TttTape};
use super::units::Unit;
use super::weights::{Linear, PackedForm};
use super::{Shared, head_norms};
use crate::config::{Activation, ActivationBits};
use crate::train::TrainError;

/// Logits that exist at once.
const LOGITS_AT_ONCE: usize = 1 << 19;

/// Values of a layer's forward pass that the backward pass needs.
#[derive(Debug, Default)]
pub(super) struct LayerTape {
    /// Residual stream before the mixer, `[n, hidden]`.
    pub(super) h: Vec<f32>,
    /// Quantised inputs of the four groups of projections.
    pub(super) x: [Codes; 4],
    /// Products with the mixer's projections, side by side; with attention queries and keys are rotated.
    pub(super) qkv: Vec<f32>,
    /// Queries and keys before the norms of their heads, `[n, q | k]`, if there are any.
    pub(super) before_head_norms: Vec<f32>,
    /// Logarithms of the softmax' sums, of each text `[heads, tokens]`.
    pub(super) lse: Vec<f32>,
    /// Output of the mixer, `[n, heads * d]`.
    pub(super) att: Vec<f32>,
    /// Values that a test-time-training layer keeps.
    pub(super) ttt: TttTape,
    /// Values that a layer of the gated delta rule keeps.
    pub(super) delta: DeltaTape,
    /// Residual stream before the feed-forward block.
    pub(super) h_mid: Vec<f32>,
    /// Gate and up, `[n, gate | up]`.
    pub(super) gu: Vec<f32>,
}

/// Codes of activations with room that grows; those of four bits are held as int8, too, which changes no product.
#[derive(Debug)]
pub(super) struct Codes {
    pub(super) int8: Int8Batch,
    /// Used instead of them if activations have 16 bits.
    pub(super) int16: Int16Batch,
    /// One row of four bits.
    int4: Int4Batch,
    /// One row after a Hadamard transform.
    rotated: Vec<f32>,
    room: (usize, usize),
}

impl Default for Codes {
    fn default() -> Self {
        Self {
            int8: Int8Batch::with_capacity(0, 0),
            int16: Int16Batch::with_capacity(0, 0),
            int4: Int4Batch::with_capacity(0, 0),
            rotated: Vec::new(),
            room: (0, 0),
        }
    }
}

impl Codes {
    /// Makes room for `n` rows of `k` codes, always of the same number of bits.
    fn reset(&mut self, n: usize, k: usize, bits: ActivationBits) {
        let sixteen = bits == ActivationBits::Sixteen;
        if n > self.room.0 || k > self.room.1 {
            let (n, k) = (n.max(self.room.0), k.max(self.room.1));
            self.room = (n, k);
            let (narrow, wide) = if sixteen { (0, n) } else { (n, 0) };
            self.int8 = Int8Batch::with_capacity(narrow, k);
            self.int16 = Int16Batch::with_capacity(wide, k);
            self.int4 = Int4Batch::with_capacity(1, k);
            self.rotated.resize(k, 0.0);
        }
        self.int8.reset(if sixteen { 0 } else { n }, k);
        self.int16.reset(if sixteen { n } else { 0 }, k);
        self.int4.reset(1, k);
    }

    /// The row of four bits as row `t` of eight.
    fn widen(&mut self, t: usize) {
        let mut row = self.int8.row_mut(t);
        self.int4.view().row(0).widen(row.codes_mut());
        row.finish(self.int4.scales()[0], self.int4.view().sums()[0]);
    }

    /// Tokens.
    pub(super) fn n(&self) -> usize {
        self.int8.view().n() + self.int16.n()
    }
}

/// One thread's part: buffers, gradient and loss.
#[derive(Debug, Default)]
pub(super) struct Worker {
    pub(super) tape: Vec<LayerTape>,
    pub(super) grads: Vec<f32>,
    pub(super) loss: f64,
    /// Residual stream, `[n, hidden]`; its gradient in the backward pass.
    pub(super) h: Vec<f32>,
    pub(super) dh: Vec<f32>,
    pub(super) acc: Vec<i32>,
    pub(super) inner: Vec<f32>,
    pub(super) logits: Vec<f32>,
    pub(super) normed: Vec<f32>,
    pub(super) dx: Vec<f32>,
    pub(super) dx2: Vec<f32>,
    pub(super) wide: Vec<f32>,
    pub(super) gemm: GemmScratch,
    pub(super) attention: AttentionScratch,
    pub(super) ttt: TttScratch,
    pub(super) delta: DeltaScratch,
}

/// The buffer with `len` elements of any content.
pub(super) fn sized(v: &mut Vec<f32>, len: usize) -> &mut [f32] {
    v.resize(len, 0.0);
    v
}

/// The buffer with `len` zeros.
pub(super) fn zeroed(v: &mut Vec<f32>, len: usize) -> &mut [f32] {
    v.clear();
    v.resize(len, 0.0);
    v
}

impl Shared<'_> {
    pub(super) fn heads(&self) -> Heads {
        let c = self.config;
        Heads { heads: c.num_attention_heads, kv_heads: c.num_key_value_heads, d: c.head_dim }
    }

    pub(super) fn param(&self, r: &Range<usize>) -> &[f32] {
        &self.params[r.clone()]
    }

    /// Norm, if there is one, and the transform and quantiser that `w` needs.
    fn quantize(
        &self,
        x: &[f32],
        norm: &Option<Range<usize>>,
        w: &Linear,
        codes: &mut Codes,
    ) -> Result<(), TrainError> {
        let norm = norm.as_ref().map(|r| (self.param(r), self.config.rms_norm_eps));
        let prepare = Prepare { norm, hadamard: w.form.hadamard };
        codes.reset(x.len() / w.k, w.k, w.form.bits);
        for (t, x) in x.chunks_exact(w.k).enumerate() {
            match w.form.bits {
                ActivationBits::Eight => {
                    self.ops.prepare_int8(x, prepare, &mut codes.rotated, codes.int8.row_mut(t))?;
                }
                // Without a transform: the configuration was checked.
                ActivationBits::Sixteen => match norm {
                    Some((gain, eps)) => {
                        self.ops.rms_norm_quantize_int16(x, gain, eps, codes.int16.row_mut(t))?;
                    }
                    None => self.ops.quantize_int16(x, codes.int16.row_mut(t))?,
                },
                // Refused by `FusedLearner::new`.
                ActivationBits::EightByGroup => {}
                ActivationBits::Four => {
                    self.ops.prepare_int4(x, prepare, &mut codes.rotated, codes.int4.row_mut(0))?;
                    codes.widen(t);
                }
            }
        }
        Ok(())
    }

    /// The products of `x` with all parts of `w` side by side, `[n, out]`: written to `out`, or with `ADD` added to
    /// what is there.
    fn product<const ADD: bool>(&self, w: &Linear, x: &Codes, acc: &mut Vec<i32>, out: &mut [f32]) {
        let mut column = 0;
        for (part, rows) in &w.parts {
            acc.resize(x.n() * rows, 0);
            let outputs = out.chunks_exact_mut(w.out).map(|row| &mut row[column..column + rows]);
            match part {
                PackedForm::Tensor { packed, alpha } => {
                    self.kernel.gemm(&packed.all(), &x.int8.view(), acc);
                    for ((out, acc), scale) in outputs.zip(acc.chunks_exact(*rows)).zip(x.int8.scales()) {
                        if ADD {
                            self.ops.scale_add_i32(acc, alpha / scale, out);
                        } else {
                            self.ops.scale_i32(acc, alpha / scale, out);
                        }
                    }
                }
                PackedForm::Groups(packed) => {
                    // As large as the integers that other weights have in its place.
                    let y: &mut [f32] = bytemuck::cast_slice_mut(acc);
                    self.group.product(packed, 0..*rows, &x.int16.view(), y);
                    for (out, y) in outputs.zip(y.chunks_exact(*rows)) {
                        if ADD { self.ops.add_assign(out, y) } else { out.copy_from_slice(y) }
                    }
                }
            }
            column += rows;
        }
    }
}

impl Worker {
    /// Loss, and with `learn` the gradient, of some of the units of a batch with that many predictions.
    pub(super) fn run<'u>(
        &mut self,
        s: &Shared<'_>,
        units: impl Iterator<Item = &'u Unit>,
        predictions: usize,
        learn: bool,
    ) -> Result<(), TrainError> {
        self.loss = 0.0;
        self.tape.resize_with(s.config.num_hidden_layers, LayerTape::default);
        zeroed(&mut self.grads, if learn { s.places.len } else { 0 });
        for unit in units {
            self.forward(s, &unit.ids, &unit.texts)?;
            self.head(s, &unit.targets, predictions, learn);
            if learn {
                self.backward(s, &unit.ids, &unit.texts);
            }
        }
        Ok(())
    }

    /// Everything below the head, for the tokens `ids` of texts of these lengths, one after the other.
    fn forward(&mut self, s: &Shared<'_>, ids: &[u32], texts: &[usize]) -> Result<(), TrainError> {
        let c = s.config;
        let (hidden, ffn, n) = (c.hidden_size, c.intermediate_size, ids.len());
        let table = s.param(&s.places.embedding);
        self.h.clear();
        for id in ids {
            self.h.extend_from_slice(&table[*id as usize * hidden..][..hidden]);
        }
        for ((tape, places), w) in self.tape.iter_mut().zip(&s.places.layers).zip(&s.prepared.layers) {
            if let (Some(layer), Some(places)) = (&w.ttt, &places.ttt) {
                self.ttt.pre_conv(s, layer, places, texts, &mut self.h, &mut tape.ttt);
            }
            tape.h.clone_from(&self.h);
            s.quantize(&self.h, &places.norms[0], &w.groups[0], &mut tape.x[0])?;
            let (stride, width) = (w.groups[0].out, w.groups[1].k);
            let qkv = sized(&mut tape.qkv, n * stride);
            s.product::<false>(&w.groups[0], &tape.x[0], &mut self.acc, qkv);
            let att = sized(&mut tape.att, n * width);
            match (&w.ttt, &w.delta) {
                (Some(layer), _) => {
                    self.ttt.forward(s, layer, &places.norms[0], texts, [&self.h, qkv], att, &mut tape.ttt);
                }
                (None, Some(rule)) => {
                    self.delta.forward(s, rule, &places.norms[0], texts, [&self.h, qkv], att, &mut tape.delta);
                }
                (None, None) => {
                    if let Some(norms) = &places.head_norms {
                        head_norms::forward(s, norms, qkv, &mut tape.before_head_norms);
                    }
                    rotate(s, qkv, texts, false);
                    let (heads, lse) = (s.heads(), sized(&mut tape.lse, n * s.heads().heads));
                    for rows in rows_of(texts) {
                        let of = |width: usize| rows.start * width..rows.end * width;
                        let lse = &mut lse[of(heads.heads)];
                        self.attention.forward(s.ops, heads, &qkv[of(stride)], &mut att[of(width)], lse);
                    }
                }
            }
            s.quantize(att, &places.norms[1], &w.groups[1], &mut tape.x[1])?;
            s.product::<true>(&w.groups[1], &tape.x[1], &mut self.acc, &mut self.h);
            tape.h_mid.clone_from(&self.h);
            s.quantize(&self.h, &places.norms[2], &w.groups[2], &mut tape.x[2])?;
            let gu = sized(&mut tape.gu, n * 2 * ffn);
            s.product::<false>(&w.groups[2], &tape.x[2], &mut self.acc, gu);
            activate(s, gu, sized(&mut self.inner, n * ffn));
            s.quantize(&self.inner, &places.norms[3], &w.groups[3], &mut tape.x[3])?;
            s.product::<true>(&w.groups[3], &tape.x[3], &mut self.acc, &mut self.h);
        }
        Ok(())
    }

    /// Final norm, head and cross entropy of the predictions that count; with `learn`, leaves the gradient of the final
    /// norm's result in `dx`.
    fn head(&mut self, s: &Shared<'_>, targets: &[Option<u32>], predictions: usize, learn: bool) {
        let (hidden, vocab) = (s.config.hidden_size, s.config.vocab_size);
        let n = targets.len();
        let scale = 1.0 / predictions as f32;
        let targets = targets.iter().enumerate();
        let (at, targets): (Vec<usize>, Vec<u32>) = targets.filter_map(|(i, t)| Some((i, (*t)?))).unzip();
        let normed = sized(&mut self.normed, at.len() * hidden);
        for (i, out) in at.iter().zip(normed.chunks_exact_mut(hidden)) {
            let x = &self.h[i * hidden..][..hidden];
            s.ops.rms_norm(x, s.param(&s.places.final_norm), s.config.rms_norm_eps, out);
        }
        let dx = sized(&mut self.dx, n * hidden);
        let table = Strided::rows(s.param(&s.places.head), hidden);
        let rows = (LOGITS_AT_ONCE / vocab).clamp(16, 256);
        for ((x, dx), targets) in
            normed.chunks(rows * hidden).zip(dx.chunks_mut(rows * hidden)).zip(targets.chunks(rows))
        {
            let m = targets.len();
            let x = Strided::rows(x, hidden);
            let logits = sized(&mut self.logits, m * vocab);
            s.ops.gemm(x, table.t(), [m, vocab, hidden], logits, &mut self.gemm);
            for (row, target) in logits.chunks_exact_mut(vocab).zip(targets) {
                self.loss += f64::from(s.ops.cross_entropy_gradient(row, *target as usize, scale));
            }
            if learn {
                let d = Strided::rows(logits, vocab);
                s.ops.gemm(d, table, [m, hidden, vocab], &mut dx[..m * hidden], &mut self.gemm);
                let grads = &mut self.grads[s.places.head.clone()];
                s.ops.gemm_add(d.t(), x, [vocab, hidden, m], grads, &mut self.gemm);
            }
        }
        spread(dx, &at, hidden);
    }
}

/// Moves the first rows of `[n, width]` to the places `at`, which grow, and fills all others with zeros.
fn spread(rows: &mut [f32], at: &[usize], width: usize) {
    let mut end = rows.len();
    if at.len() * width == end {
        // All rows were moved: each is where it belongs.
        return;
    }
    // From the last one on: a row never moves to a lower place, so none is overwritten before it has moved.
    for (i, at) in at.iter().enumerate().rev() {
        let place = at * width;
        rows.copy_within(i * width..(i + 1) * width, place);
        rows[place + width..end].fill(0.0);
        end = place;
    }
    rows[..end].fill(0.0);
}

/// Turns queries and keys of `[n, q | k | v]`, or turns them back.
pub(super) fn rotate(s: &Shared<'_>, qkv: &mut [f32], texts: &[usize], back: bool) {
    let heads = s.heads();
    let (rotated, half) = ((heads.heads + heads.kv_heads) * heads.d, heads.d / 2);
    let positions = texts.iter().flat_map(|len| 0..*len);
    for (i, row) in positions.zip(qkv.chunks_exact_mut(heads.stride())) {
        let sin = if back { &s.minus_sin[i * half..][..half] } else { s.rope.sin(i) };
        for head in row[..rotated].chunks_exact_mut(heads.d) {
            s.ops.rope_half(head, s.rope.cos(i), sin);
        }
    }
}

/// The rows of texts of these lengths, one after the other.
pub(super) fn rows_of(texts: &[usize]) -> impl Iterator<Item = Range<usize>> {
    let mut end = 0;
    texts.iter().map(move |len| {
        end += len;
        end - len..end
    })
}

/// `inner = act(gate) * up`.
pub(super) fn activate(s: &Shared<'_>, gu: &[f32], inner: &mut [f32]) {
    let ffn = s.config.intermediate_size;
    for (gu, inner) in gu.chunks_exact(2 * ffn).zip(inner.chunks_exact_mut(ffn)) {
        let (gate, up) = gu.split_at(ffn);
        match s.config.hidden_act {
            Activation::Relu2 => s.ops.relu2_mul(gate, up, inner),
            Activation::Silu => s.ops.silu_mul(gate, up, inner),
            // Refused by `FusedLearner::new`.
            Activation::GeluTanh => inner.fill(f32::NAN),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_go_to_their_places() {
        let mut rows: Vec<f32> = (1..=8).map(|v| v as f32).collect();
        spread(&mut rows, &[1, 3], 2);
        assert_eq!(rows, [0.0, 0.0, 1.0, 2.0, 0.0, 0.0, 3.0, 4.0]);
        spread(&mut rows, &[0, 1, 2, 3], 2);
        assert_eq!(rows, [0.0, 0.0, 1.0, 2.0, 0.0, 0.0, 3.0, 4.0]);
        spread(&mut rows, &[], 2);
        assert_eq!(rows, [0.0; 8]);
    }
}
