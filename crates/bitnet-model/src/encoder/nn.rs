//! The extractor as candle operations: differentiable, one text at a time, and written to be read beside the formulas.
//!
//! It is what the gradients of training, which are written by hand, are held against, and where experiments begin. Sums
//! over tags are taken in log space.

use candle_core::{D, DType, Result, Tensor};
use candle_nn::{Module, VarBuilder, ops};

use super::config::{ExtractorConfig, tag_may_follow};
use super::features::Utterance;
use crate::config::Activation;
use crate::nn::{BitLinear, RmsNorm, Rotary, rms_norm};

/// A score that nothing makes up for.
const FORBIDDEN: f32 = -1e30;

/// One layer.
#[derive(Clone, Debug)]
struct Layer {
    attn_norm: RmsNorm,
    q: BitLinear,
    k: BitLinear,
    v: BitLinear,
    attn_sub_norm: RmsNorm,
    o: BitLinear,
    ffn_norm: RmsNorm,
    gate: BitLinear,
    up: BitLinear,
    ffn_sub_norm: RmsNorm,
    down: BitLinear,
}

/// Heads of a task: weight and bias of intents; of tags with transitions, where there are slots.
#[derive(Clone, Debug)]
struct Heads {
    intent: [Tensor; 2],
    tags: Option<[Tensor; 3]>,
}

/// The encoder with the heads of its tasks. Projections are quantised anew in every call, their inputs to int8; the
/// table of features is f32.
#[derive(Clone, Debug)]
pub struct CandleExtractor {
    config: ExtractorConfig,
    table: Tensor,
    layers: Vec<Layer>,
    norm: RmsNorm,
    tasks: Vec<Heads>,
}

impl CandleExtractor {
    /// A model whose tensors have the names of files under `vb`: `features.weight` `[buckets, hidden]`,
    /// `blk.0.attn_q.weight`, `task.NAME.intent.weight` and so on, f32.
    ///
    /// # Errors
    /// Errors of candle: no such tensor, another shape.
    pub fn new(config: &ExtractorConfig, vb: VarBuilder) -> Result<Self> {
        let (h, f) = (config.hidden_size, config.intermediate_size);
        let layer = |l: usize| -> Result<Layer> {
            let vb = vb.pp(format!("blk.{l}"));
            let norm = |name: &str, len| rms_norm(len, config.norm_eps, vb.pp(name));
            let linear =
                |name: &str, out: usize, k: usize| BitLinear::from_master(vb.pp(name).get((out, k), "weight")?);
            Ok(Layer {
                attn_norm: norm("attn_norm", h)?,
                q: linear("attn_q", h, h)?,
                k: linear("attn_k", h, h)?,
                v: linear("attn_v", h, h)?,
                attn_sub_norm: norm("attn_sub_norm", h)?,
                o: linear("attn_output", h, h)?,
                ffn_norm: norm("ffn_norm", h)?,
                gate: linear("ffn_gate", f, h)?,
                up: linear("ffn_up", f, h)?,
                ffn_sub_norm: norm("ffn_sub_norm", f)?,
                down: linear("ffn_down", h, f)?,
            })
        };
        let heads = config.tasks.iter().map(|task| {
            let vb = vb.pp(format!("task.{}", task.name));
            let (intents, tags) = (task.intents.len(), task.tags());
            let intent = [vb.get((intents, 3 * h), "intent.weight")?, vb.get(intents, "intent.bias")?];
            let tags = if tags == 0 {
                None
            } else {
                let [w, b] = [vb.get((tags, 2 * h), "tags.weight")?, vb.get(tags, "tags.bias")?];
                Some([w, b, vb.get((tags + 2, tags), "transitions")?])
            };
            Ok(Heads { intent, tags })
        });
        Ok(Self {
            table: vb.get((config.buckets, h), "features.weight")?,
            layers: (0..config.num_layers).map(layer).collect::<Result<_>>()?,
            norm: rms_norm(h, config.norm_eps, vb.pp("output_norm"))?,
            tasks: heads.collect::<Result<_>>()?,
            config: config.clone(),
        })
    }

    /// Word vectors `e` and last hidden states `h` of a text that was read with the buckets of this model, each
    /// `[words, hidden]`.
    ///
    /// # Errors
    /// Errors of candle; a text without words.
    pub fn encode(&self, text: &Utterance) -> Result<(Tensor, Tensor)> {
        let words = text.words().len();
        let vector = |i: usize| -> Result<Tensor> {
            let rows = text.features(i);
            let rows = Tensor::from_slice(rows, rows.len(), self.table.device())?;
            let scale = 1.0 / (rows.elem_count() as f64).sqrt();
            self.table.index_select(&rows, 0)?.sum(0)? * scale
        };
        let e = Tensor::stack(&(0..words).map(vector).collect::<Result<Vec<_>>>()?, 0)?;
        let heads = (self.config.num_heads, self.config.head_dim());
        let rotary = Rotary::new(heads.1, f64::from(self.config.rope_theta)).tables(0, words, e.device())?;
        let mut x = e.clone();
        for layer in &self.layers {
            let a = layer.attn_norm.forward(&x)?;
            // `[1, heads, words, d]`
            let split = |t: Tensor| t.reshape((1, words, heads.0, heads.1))?.transpose(1, 2)?.contiguous();
            let q = rotary.apply(&split(layer.q.forward(&a)?)?)?;
            let k = rotary.apply(&split(layer.k.forward(&a)?)?)?;
            let v = split(layer.v.forward(&a)?)?;
            let scores = (q.matmul(&k.transpose(2, 3)?.contiguous()?)? * (1.0 / (heads.1 as f64).sqrt()))?;
            let mixed = ops::softmax(&scores, D::Minus1)?.matmul(&v)?;
            let mixed = mixed.transpose(1, 2)?.reshape((words, heads.0 * heads.1))?;
            x = (x + layer.o.forward(&layer.attn_sub_norm.forward(&mixed)?)?)?;
            let a = layer.ffn_norm.forward(&x)?;
            let gate = layer.gate.forward(&a)?;
            let gate = match self.config.activation {
                Activation::Silu => gate.silu()?,
                Activation::Relu2 => gate.relu()?.sqr()?,
                // No extractor has it: configurations are checked.
                Activation::GeluTanh => gate.gelu()?,
            };
            let inner = (gate * layer.up.forward(&a)?)?;
            x = (x + layer.down.forward(&layer.ffn_sub_norm.forward(&inner)?)?)?;
        }
        Ok((e, self.norm.forward(&x)?))
    }

    /// Logits of the intents of a task, `[intents]`, from what [`CandleExtractor::encode`] gave.
    ///
    /// # Errors
    /// Errors of candle.
    pub fn intents(&self, task: usize, e: &Tensor, h: &Tensor) -> Result<Tensor> {
        let [w, bias] = &self.tasks[task].intent;
        let pooled = Tensor::cat(&[h.mean(0)?, h.max(0)?, e.mean(0)?], 0)?;
        (w.matmul(&pooled.unsqueeze(1)?)?.squeeze(1)? + bias)?.to_dtype(DType::F32)
    }

    /// Scores of tags, `[words, tags]`; `None` for a task without slots.
    ///
    /// # Errors
    /// Errors of candle.
    pub fn emissions(&self, task: usize, e: &Tensor, h: &Tensor) -> Result<Option<Tensor>> {
        let Some([w, bias, _]) = &self.tasks[task].tags else { return Ok(None) };
        let x = Tensor::cat(&[h, e], 1)?;
        Ok(Some(x.matmul(&w.t()?)?.broadcast_add(bias)?))
    }

    /// The negative logarithm of the probability of these tags, `[]`; 0 for a task without slots.
    ///
    /// # Errors
    /// Errors of candle.
    pub fn tag_loss(&self, task: usize, emissions: &Tensor, gold: &[u32]) -> Result<Tensor> {
        let device = emissions.device();
        let Some([.., transitions]) = &self.tasks[task].tags else { return Tensor::new(0f32, device) };
        let (words, tags) = emissions.dims2()?;
        let may = |from: Option<usize>| (0..tags).map(move |to| if tag_may_follow(from, to) { 0.0 } else { FORBIDDEN });
        let between: Vec<f32> = (0..tags).flat_map(|from| may(Some(from))).collect();
        let between = (transitions.narrow(0, 0, tags)? + Tensor::from_vec(between, (tags, tags), device)?)?;
        let start = (transitions.get(tags)? + Tensor::from_vec(may(None).collect::<Vec<f32>>(), tags, device)?)?;
        let end = transitions.get(tags + 1)?;
        let mut alpha = (start + emissions.get(0)?)?;
        for t in 1..words {
            let all = between.broadcast_add(&alpha.unsqueeze(1)?)?;
            alpha = (all.log_sum_exp(0)? + emissions.get(t)?)?;
        }
        let total = (alpha + &end)?.log_sum_exp(0)?;
        let at = |row: &Tensor, tag: u32| row.get(tag as usize);
        let mut score = (at(&transitions.get(tags)?, gold[0])? + at(&end, gold[words - 1])?)?;
        for (t, tag) in gold.iter().enumerate() {
            score = (score + at(&emissions.get(t)?, *tag)?)?;
        }
        for pair in gold.windows(2) {
            score = (score + at(&transitions.get(pair[0] as usize)?, pair[1])?)?;
        }
        total - score
    }
}
