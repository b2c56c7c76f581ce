//! The whole decoder as candle layers.

use candle_core::{D, Device, Result, Tensor};
use candle_nn::{Init, Module, VarBuilder};

use super::trace::Trace;
use super::{BitLinear, FeedForward, RmsNorm, Rotary, RotaryTables, TokenMixer, TttBlock, bit_linear, rms_norm};
use crate::config::{Mixer, ModelConfig, Norm, Projection};
use crate::{ModelError, ModelWeights, Table};

/// One layer: `h += mixer(norm(h)); h += feed_forward(norm(h))`; before them `h += conv(norm(h))` if a
/// test-time-training layer's block has a convolution.
#[derive(Clone, Debug)]
pub struct DecoderLayer {
    /// Norm before the mixer.
    pub input_norm: RmsNorm,
    /// The token mixer.
    pub mixer: TokenMixer,
    /// Norm before the feed-forward block.
    pub post_attention_norm: RmsNorm,
    /// Feed-forward block.
    pub feed_forward: FeedForward,
}

impl DecoderLayer {
    /// `h` is `[b, t, hidden]`; the result has its shape.
    ///
    /// # Errors
    /// Errors of candle, for shapes that do not fit.
    pub fn forward(&self, h: &Tensor, rotary: &RotaryTables) -> Result<Tensor> {
        self.forward_traced(h, rotary, &mut Trace::off())
    }

    fn forward_traced(&self, h: &Tensor, rotary: &RotaryTables, trace: &mut Trace) -> Result<Tensor> {
        let mut h = h.clone();
        if let TokenMixer::Ttt(ttt) = &self.mixer {
            h = ttt.convolve(&h, trace)?;
        }
        let a = trace.see("input_layernorm", self.input_norm.forward(&h)?)?;
        let mixed = match &self.mixer {
            TokenMixer::Attention(attention) => attention.forward_traced(&a, rotary, trace)?,
            TokenMixer::Ttt(ttt) => ttt.forward_traced(&a, trace)?,
        };
        let h = (h + mixed)?;
        let m = trace.see("post_attention_layernorm", self.post_attention_norm.forward(&h)?)?;
        let out = (h + self.feed_forward.forward_traced(&m, trace)?)?;
        trace.see("out", out)
    }
}

/// A BitNet b1.58 decoder in candle operations, without a cache: every call computes all positions.
///
/// It is the reference for the arithmetic (f32 throughout, exact integer products) and, when created from a
/// [`VarBuilder`], the model that a trainer trains. As a [`WeightSource`](crate::WeightSource) it passes its quantised
/// weights to the inference engine.
#[derive(Clone, Debug)]
pub struct CandleModel {
    pub(super) config: ModelConfig,
    pub(super) embedding: Tensor,
    /// The layers.
    pub layers: Vec<DecoderLayer>,
    pub(super) final_norm: RmsNorm,
    /// `None` if the head is the embedding.
    pub(super) head: Option<Tensor>,
    rotary: Rotary,
}

impl CandleModel {
    /// The model with these frozen weights on `device`, everything widened to f32.
    ///
    /// # Errors
    /// A model that computes more than the formulas of BitNet (see [`ModelConfig::beyond_bitnet`]), other than norms of
    /// heads and 16-bit activations; errors of candle, for example out of memory.
    pub fn from_weights(weights: &ModelWeights, device: &Device) -> std::result::Result<Self, ModelError> {
        let config = &weights.config;
        config.require_trainable("candle path", true)?;
        let norm =
            |gain: &[f32]| -> Result<RmsNorm> { Ok(RmsNorm::new(Tensor::new(gain, device)?, config.rms_norm_eps)) };
        let mut layers = Vec::with_capacity(weights.layers.len());
        for (i, l) in weights.layers.iter().enumerate() {
            let linear =
                |p: Projection| BitLinear::from_ternary(l.projection(p), device)?.with_input(config.input_form(p));
            let sub = |gain: &Option<Vec<f32>>| gain.as_deref().map(norm).transpose();
            let attn_sub_norm = sub(&l.attn_sub_norm)?;
            let mixer = match &l.ttt {
                None => {
                    let head_norms = [sub(&l.head_q_norm)?, sub(&l.head_k_norm)?];
                    TokenMixer::attention(config, linear, attn_sub_norm, head_norms)?
                }
                Some(ttt) => {
                    let pre_conv_norm = sub(&l.pre_conv_norm)?;
                    TokenMixer::Ttt(Box::new(TttBlock::from_weights(
                        ttt,
                        linear,
                        attn_sub_norm,
                        pre_conv_norm,
                        device,
                    )?))
                }
            };
            debug_assert_eq!(config.mixer(i) == Mixer::Attention, l.ttt.is_none());
            layers.push(DecoderLayer {
                input_norm: norm(&l.input_norm)?,
                mixer,
                post_attention_norm: norm(&l.post_attention_norm)?,
                feed_forward: feed_forward(config, linear, sub(&l.ffn_sub_norm)?)?,
            });
        }
        Ok(Self {
            embedding: table(&weights.embedding, device)?,
            layers,
            final_norm: norm(&weights.final_norm)?,
            head: weights.head.as_ref().map(|m| table(m, device)).transpose()?,
            rotary: Rotary::of(config),
            config: config.clone(),
        })
    }

    /// A trainable model whose master weights are under `vb` with the names of a Hugging Face checkpoint
    /// (`model.embed_tokens.weight`, `model.layers.0.self_attn.q_proj.weight` ...), or are created there.
    ///
    /// # Errors
    /// [`ModelError::Config`]; errors of candle: no such tensor, another shape.
    pub fn new(config: &ModelConfig, vb: VarBuilder) -> std::result::Result<Self, ModelError> {
        config.validate()?;
        config.require_trainable("candle path", true)?;
        let eps = config.rms_norm_eps;
        let table_shape = (config.vocab_size, config.hidden_size);
        let init = Init::Randn { mean: 0.0, stdev: 0.02 };
        let root = vb.pp("model");
        let embedding = root.pp("embed_tokens").get_with_hints(table_shape, "weight", init)?;
        let head = if config.tie_word_embeddings {
            None
        } else {
            Some(vb.pp("lm_head").get_with_hints(table_shape, "weight", init)?)
        };
        let mut layers = Vec::with_capacity(config.num_hidden_layers);
        for i in 0..config.num_hidden_layers {
            let (vb, mixer) = (root.pp("layers").pp(i), config.mixer(i));
            let norm = |n: Norm| rms_norm(config.norm_len(n), eps, vb.pp(n.path(mixer)));
            let has: Vec<Norm> = config.layer_norms(i).collect();
            let optional = |n: Norm| has.contains(&n).then(|| norm(n)).transpose();
            let linear = |p: Projection| {
                let (out_dim, in_dim) = config.projection_shape(i, p);
                let linear = bit_linear(in_dim, out_dim, vb.pp(p.path(mixer)))?.with_groups(config.weight_group)?;
                linear.with_input(config.input_form(p))
            };
            let attn_sub_norm = optional(Norm::AttnSub(i))?;
            let mixer = match config.ttt_layer(i) {
                None => {
                    let head_norms = [optional(Norm::HeadQ(i))?, optional(Norm::HeadK(i))?];
                    TokenMixer::attention(config, linear, attn_sub_norm, head_norms)?
                }
                Some(c) => {
                    let pre_conv_norm = optional(Norm::PreConv(i))?;
                    TokenMixer::Ttt(Box::new(TttBlock::new(&c, vb.clone(), linear, attn_sub_norm, pre_conv_norm)?))
                }
            };
            layers.push(DecoderLayer {
                input_norm: norm(Norm::Input(i))?,
                mixer,
                post_attention_norm: norm(Norm::PostAttention(i))?,
                feed_forward: feed_forward(config, linear, optional(Norm::FfnSub(i))?)?,
            });
        }
        let final_norm = rms_norm(config.norm_len(Norm::Final), eps, root.pp("norm"))?;
        let rotary = Rotary::of(config);
        Ok(Self { config: config.clone(), embedding, layers, final_norm, head, rotary })
    }

    /// Shape and formulas.
    pub fn config(&self) -> &ModelConfig {
        &self.config
    }

    /// The device of the weights.
    pub fn device(&self) -> &Device {
        self.embedding.device()
    }

    /// Logits `[t, vocab]` after each of the `t` tokens `ids`.
    ///
    /// # Errors
    /// [`ModelError::EmptyPrompt`], [`ModelError::TokenOutOfRange`], [`ModelError::ContextFull`]; errors of candle.
    pub fn forward(&self, ids: &[u32]) -> std::result::Result<Tensor, ModelError> {
        self.run(ids, &mut Trace::off())
    }

    /// Like [`CandleModel::forward`]; passes each intermediate result `[t, n]` to `see` under the name of the module
    /// that computed it: `embed`, `layer0.input_layernorm`, `layer0.self_attn.q_proj` (before the rotation),
    /// `layer0.out`, `final_norm` ...
    ///
    /// # Errors
    /// The errors of [`CandleModel::forward`] and of `see`.
    pub fn forward_traced(
        &self,
        ids: &[u32],
        see: &mut dyn FnMut(&str, &Tensor) -> Result<()>,
    ) -> std::result::Result<Tensor, ModelError> {
        self.run(ids, &mut Trace::to(&mut |name, x| see(name, &x.squeeze(0)?)))
    }

    fn run(&self, ids: &[u32], trace: &mut Trace) -> std::result::Result<Tensor, ModelError> {
        let (vocab, limit) = (self.config.vocab_size, self.config.context_limit().unwrap_or(usize::MAX));
        if ids.is_empty() {
            return Err(ModelError::EmptyPrompt);
        }
        if let Some(&id) = ids.iter().find(|&&id| id as usize >= vocab) {
            return Err(ModelError::TokenOutOfRange { id, vocab });
        }
        if ids.len() > limit {
            return Err(ModelError::ContextFull { limit, used: 0, more: ids.len() });
        }
        let ids = Tensor::new(ids, self.device())?.unsqueeze(0)?;
        Ok(self.run_batch(&ids, trace)?.squeeze(0)?)
    }

    /// Logits `[b, t, vocab]` of `b` sequences of `t` tokens, `ids` `[b, t]` u32; for training.
    ///
    /// # Errors
    /// Errors of candle, for example for ids outside the vocabulary.
    pub fn forward_batch(&self, ids: &Tensor) -> Result<Tensor> {
        self.run_batch(ids, &mut Trace::off())
    }

    fn run_batch(&self, ids: &Tensor, trace: &mut Trace) -> Result<Tensor> {
        let (b, t) = ids.dims2()?;
        let hidden = self.config.hidden_size;
        let rows = self.embedding.index_select(&ids.flatten_all()?, 0)?;
        let mut h = trace.see("embed", rows.reshape((b, t, hidden))?)?;
        let rotary = self.rotary.tables(0, t, h.device())?;
        for (i, layer) in self.layers.iter().enumerate() {
            trace.layer = Some(i);
            h = layer.forward_traced(&h, &rotary, trace)?;
        }
        trace.layer = None;
        let h = trace.see("final_norm", self.final_norm.forward(&h)?)?;
        let head = self.head.as_ref().unwrap_or(&self.embedding);
        h.reshape((b * t, hidden))?.matmul(&head.t()?)?.reshape((b, t, self.config.vocab_size))
    }

    /// Mean cross entropy in nats of predicting `ids[i + 1]` after `ids[..=i]`, a scalar f32 with gradient.
    ///
    /// # Errors
    /// The errors of [`CandleModel::forward`]; [`ModelError::EmptyPrompt`] also for a single token, whose successor is
    /// unknown.
    pub fn next_token_loss(&self, ids: &[u32]) -> std::result::Result<Tensor, ModelError> {
        let (Some((_, inputs)), Some(targets)) = (ids.split_last(), ids.get(1..).filter(|t| !t.is_empty())) else {
            return Err(ModelError::EmptyPrompt);
        };
        let log_p = candle_nn::ops::log_softmax(&self.forward(inputs)?, D::Minus1)?;
        let targets = Tensor::new(targets, self.device())?.unsqueeze(1)?;
        if let Some(&id) = ids.last().filter(|&&id| id as usize >= self.config.vocab_size) {
            return Err(ModelError::TokenOutOfRange { id, vocab: self.config.vocab_size });
        }
        Ok(log_p.gather(&targets, 1)?.mean_all()?.neg()?)
    }
}

fn feed_forward(
    config: &ModelConfig,
    linear: impl Fn(Projection) -> Result<BitLinear>,
    sub_norm: Option<RmsNorm>,
) -> Result<FeedForward> {
    Ok(FeedForward {
        gate_proj: linear(Projection::Gate)?,
        up_proj: linear(Projection::Up)?,
        down_proj: linear(Projection::Down)?,
        sub_norm,
        activation: config.hidden_act,
    })
}

/// A stored matrix as an f32 tensor.
fn table(m: &Table, device: &Device) -> Result<Tensor> {
    let (rows, cols) = (m.rows(), m.cols());
    let mut values = vec![0f32; rows * cols];
    for (r, row) in values.chunks_exact_mut(cols.max(1)).enumerate() {
        m.row_into(r, row);
    }
    Tensor::from_vec(values, (rows, cols), device)
}
