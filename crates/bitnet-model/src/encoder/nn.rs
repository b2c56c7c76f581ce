//! The extractor as candle operations: differentiable, one text at a time, and written to follow the formulas closely.
//!
//! It is what the gradients of training, which are written by hand, are held against, and where experiments begin. Sums
//! over tags are taken in log space.

use std::collections::HashMap;

use candle_core::{D, DType, Result, Tensor};
use candle_nn::{Module, VarBuilder, ops};
use ttt_layer::{DeltaConfig, TttLayer};

use super::config::{ExtractorConfig, tag_may_follow};
use super::features::Utterance;
use super::mixer::{DIRECTIONS, Directions, EncoderMixer};
use crate::TttTensor;
use crate::config::Activation;
use crate::nn::{BitLinear, RmsNorm, Rotary, rms_norm};

/// A score that nothing makes up for.
const FORBIDDEN: f32 = -1e30;

/// One layer.
#[derive(Clone, Debug)]
struct Layer {
    attn_norm: RmsNorm,
    mixing: Mixing,
    attn_sub_norm: RmsNorm,
    o: BitLinear,
    ffn_norm: RmsNorm,
    gate: BitLinear,
    up: BitLinear,
    ffn_sub_norm: RmsNorm,
    down: BitLinear,
}

/// The mixer of a layer.
#[derive(Clone, Debug)]
enum Mixing {
    /// Queries, keys, values.
    Attention(Box<[BitLinear; 3]>),
    /// Forward, perhaps backward; the last projection is the layer's own.
    Ttt(Vec<TttLayer<Linear>>),
    /// Queries, keys, values, gate; forward, perhaps backward.
    Delta(Box<[BitLinear; 4]>, Vec<DeltaDirection>),
}

/// Heads of a task: weight and bias of intents; of tags with transitions, where there are slots.
#[derive(Clone, Debug)]
struct Heads {
    intent: [Tensor; 2],
    tags: Option<[Tensor; 3]>,
}

/// A projection of a recurrence; that of the output stands behind both directions.
#[derive(Clone, Debug)]
enum Linear {
    Own(BitLinear),
    Same,
}

impl Module for Linear {
    fn forward(&self, x: &Tensor) -> Result<Tensor> {
        match self {
            Self::Own(linear) => linear.forward(x),
            Self::Same => Ok(x.clone()),
        }
    }
}

/// A direction of TTT-Linear in layer `l`, whose tensors have the names of files under `vb`.
fn ttt(config: &ExtractorConfig, l: usize, direction: usize, vb: &VarBuilder) -> Result<TttLayer<Linear>> {
    let c = config.ttt_layer();
    let official = TttTensor::ALL.into_iter().filter(|t| t.shape(&c).is_some()).map(TttTensor::path);
    let mut tensors = HashMap::new();
    for ((name, shape), official) in config.direction_tensors(l, direction).into_iter().zip(official) {
        let tensor = vb.pp(DIRECTIONS[direction]).get(shape, name)?;
        tensors.insert(official.trim_start_matches("ttt.").to_owned(), tensor);
    }
    let own = VarBuilder::from_tensors(tensors, vb.dtype(), vb.device());
    let layer = TttLayer::new(&c, own, |which, inputs, outputs, _| {
        let name = match which {
            ttt_layer::Projection::Q | ttt_layer::Projection::K => "attn_q",
            ttt_layer::Projection::V => "attn_v",
            ttt_layer::Projection::Gate => "attn_gate",
            ttt_layer::Projection::O => return Ok(Linear::Same),
        };
        Ok(Linear::Own(BitLinear::from_master(vb.pp(name).get((outputs, inputs), "weight")?)?))
    });
    layer.map_err(candle_core::Error::wrap)
}

/// A direction of the gated delta rule: its tensors in the order of files, and its shape.
#[derive(Clone, Debug)]
struct DeltaDirection {
    alpha: Tensor,
    beta: Tensor,
    conv: Tensor,
    decay: Tensor,
    decay_bias: Tensor,
    norm: Tensor,
    config: DeltaConfig,
}

impl DeltaDirection {
    fn new(config: &ExtractorConfig, l: usize, direction: usize, vb: &VarBuilder) -> Result<Self> {
        let all = config.direction_tensors(l, direction).into_iter();
        let all: Vec<Tensor> =
            all.map(|(name, shape)| vb.pp(DIRECTIONS[direction]).get(shape, name)).collect::<Result<_>>()?;
        let [alpha, beta, conv, decay, decay_bias, norm] =
            <[Tensor; 6]>::try_from(all).map_err(|_| candle_core::Error::msg("six tensors of a direction"))?;
        Ok(Self { alpha, beta, conv, decay, decay_bias, norm, config: config.delta_layer() })
    }

    /// The recurrence, word by word: `x` `[n, hidden]`, `qkv` `[n, 3 hidden]`, `z` and the result `[n, hidden]`.
    fn read(&self, x: &Tensor, qkv: &Tensor, z: &Tensor) -> Result<Tensor> {
        let (c, n) = (&self.config, x.dim(0)?);
        let (h, d, taps) = (c.value_heads, c.head_dim, c.conv_kernel);
        let before = Tensor::zeros((taps - 1, qkv.dim(1)?), DType::F32, x.device())?;
        let padded = Tensor::cat(&[&before, qkv], 0)?;
        let mut u = qkv.zeros_like()?;
        for j in 0..taps {
            u = (u + padded.narrow(0, j, n)?.broadcast_mul(&self.conv.narrow(1, j, 1)?.t()?)?)?;
        }
        let u = u.silu()?;
        let part = |i: usize| u.narrow(1, i * h * d, h * d)?.reshape((n, h, d));
        let unit = |t: Tensor| t.broadcast_div(&(t.sqr()?.sum_keepdim(2)? + 1e-6)?.sqrt()?);
        let (q, k, v) = ((unit(part(0)?)? * (1.0 / (d as f64).sqrt()))?, unit(part(1)?)?, part(2)?);
        let softplus = (x.matmul(&self.alpha.t()?)?.broadcast_add(&self.decay_bias)?.exp()? + 1.0)?.log()?;
        let decay = softplus.broadcast_mul(&self.decay)?.exp()?;
        let rate = ops::sigmoid(&x.matmul(&self.beta.t()?)?)?;
        let mut a = Tensor::zeros((h, d, d), DType::F32, x.device())?;
        let mut out = Vec::new();
        for t in 0..n {
            // `[h, 1, d]`
            let row = |x: &Tensor| x.get(t)?.unsqueeze(1);
            let factor = |x: &Tensor| x.get(t)?.reshape((h, 1, 1));
            a = a.broadcast_mul(&factor(&decay)?)?;
            let error = (row(&v)? - row(&k)?.matmul(&a)?)?.broadcast_mul(&factor(&rate)?)?;
            a = (a + row(&k)?.transpose(1, 2)?.contiguous()?.matmul(&error)?)?;
            out.push(row(&q)?.matmul(&a)?.squeeze(1)?);
        }
        let o = Tensor::stack(&out, 0)?;
        let mean = (o.sqr()?.mean_keepdim(2)? + f64::from(c.norm_eps))?.sqrt()?;
        let o = o.broadcast_div(&mean)?.broadcast_mul(&self.norm)?.reshape((n, h * d))?;
        o * z.silu()?
    }
}

/// Rows in the opposite order.
fn turned(x: &Tensor) -> Result<Tensor> {
    let rows: Vec<u32> = (0..x.dim(0)? as u32).rev().collect();
    x.index_select(&Tensor::from_slice(&rows, rows.len(), x.device())?, 0)
}

/// The encoder with the heads of its tasks. Projections are quantised again in every call, their inputs to int8; the
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
            let own = |name: &str| linear(name, h, h);
            let mixing = match config.mixer(l) {
                EncoderMixer::Attention => {
                    Mixing::Attention(Box::new([own("attn_q")?, own("attn_k")?, own("attn_v")?]))
                }
                EncoderMixer::TttLinear => {
                    let directions = 0..config.directions.count();
                    Mixing::Ttt(directions.map(|d| ttt(config, l, d, &vb)).collect::<Result<_>>()?)
                }
                EncoderMixer::GatedDelta => {
                    let projections = [own("attn_q")?, own("attn_k")?, own("attn_v")?, own("attn_gate")?];
                    let directions = (0..config.directions.count()).map(|d| DeltaDirection::new(config, l, d, &vb));
                    Mixing::Delta(Box::new(projections), directions.collect::<Result<_>>()?)
                }
            };
            Ok(Layer {
                attn_norm: norm("attn_norm", h)?,
                mixing,
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
        let mut x = e.clone();
        for layer in &self.layers {
            let a = layer.attn_norm.forward(&x)?;
            let mixed = match &layer.mixing {
                Mixing::Attention(qkv) => self.attend(qkv, &a)?,
                Mixing::Ttt(directions) => {
                    let read = |layer: &TttLayer<Linear>, a: &Tensor| layer.forward(&a.unsqueeze(0)?)?.squeeze(0);
                    let forward = read(&directions[0], &a)?;
                    match directions.get(1) {
                        None => forward,
                        Some(backward) => (forward + turned(&read(backward, &turned(&a)?)?)?)?,
                    }
                }
                Mixing::Delta(projections, directions) => {
                    let [q, k, v, gate] = &**projections;
                    let qkv = Tensor::cat(&[q.forward(&a)?, k.forward(&a)?, v.forward(&a)?], 1)?;
                    let z = gate.forward(&a)?;
                    let forward = directions[0].read(&a, &qkv, &z)?;
                    match directions.get(1) {
                        None => forward,
                        Some(backward) => {
                            let back = backward.read(&turned(&a)?, &turned(&qkv)?, &turned(&z)?)?;
                            (forward + turned(&back)?)?
                        }
                    }
                }
            };
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

    /// Attention over all words, or those up to each one, `[words, hidden]`.
    fn attend(&self, [q, k, v]: &[BitLinear; 3], a: &Tensor) -> Result<Tensor> {
        let (words, heads, d) = (a.dim(0)?, self.config.num_heads, self.config.head_dim());
        let rotary = Rotary::new(d, f64::from(self.config.rope_theta)).tables(0, words, a.device())?;
        // `[1, heads, words, d]`
        let split = |t: Tensor| t.reshape((1, words, heads, d))?.transpose(1, 2)?.contiguous();
        let q = rotary.apply(&split(q.forward(a)?)?)?;
        let k = rotary.apply(&split(k.forward(a)?)?)?;
        let v = split(v.forward(a)?)?;
        let mut scores = (q.matmul(&k.transpose(2, 3)?.contiguous()?)? * (1.0 / (d as f64).sqrt()))?;
        if self.config.directions == Directions::Forward {
            let unseen = |i: usize| (0..words).map(move |j| if j > i { FORBIDDEN } else { 0.0 });
            let mask: Vec<f32> = (0..words).flat_map(unseen).collect();
            scores = scores.broadcast_add(&Tensor::from_vec(mask, (words, words), a.device())?)?;
        }
        let mixed = ops::softmax(&scores, D::Minus1)?.matmul(&v)?;
        mixed.transpose(1, 2)?.reshape((words, heads * d))
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
