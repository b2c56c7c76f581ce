//! `config.json` of the official checkpoints.

use serde::Deserialize;

use crate::TttError;
use crate::config::{Kind, TttConfig};

/// The fields of `config.json` that decide what a model computes. Missing fields have the defaults of the official
/// code.
#[derive(Clone, Debug, Deserialize, PartialEq)]
#[serde(default)]
#[non_exhaustive]
pub struct OfficialConfig {
    /// Tokens in the vocabulary.
    pub vocab_size: usize,
    /// Elements of a token, `D`.
    pub hidden_size: usize,
    /// Elements inside of a feed-forward block.
    pub intermediate_size: usize,
    /// Layers.
    pub num_hidden_layers: usize,
    /// Heads of a TTT layer; a head has `D / h` elements.
    pub num_attention_heads: usize,
    /// Added to the mean square by the norms between the layers.
    pub rms_norm_eps: f32,
    /// Base of the rotary embedding.
    pub rope_theta: f32,
    /// Whether the output is gated.
    pub use_gate: bool,
    /// Whether queries and keys share a projection.
    pub share_qk: bool,
    /// `linear` or `mlp`.
    pub ttt_layer_type: String,
    /// Largest inner learning rate, before the division by the head's elements.
    pub ttt_base_lr: f32,
    /// Tokens of a mini-batch.
    pub mini_batch_size: usize,
    /// Whether a causal convolution precedes each TTT layer.
    pub pre_conv: bool,
    /// Taps of the convolutions.
    pub conv_kernel: usize,
    /// Whether the head is the embedding.
    pub tie_word_embeddings: bool,
    /// The activation between gate and up; only `silu` is supported.
    pub hidden_act: String,
}

impl Default for OfficialConfig {
    fn default() -> Self {
        Self {
            vocab_size: 32000,
            hidden_size: 2048,
            intermediate_size: 5504,
            num_hidden_layers: 24,
            num_attention_heads: 32,
            rms_norm_eps: 1e-6,
            rope_theta: 10000.0,
            use_gate: false,
            share_qk: false,
            ttt_layer_type: "linear".into(),
            ttt_base_lr: 1.0,
            mini_batch_size: 16,
            pre_conv: false,
            conv_kernel: 4,
            tie_word_embeddings: true,
            hidden_act: "silu".into(),
        }
    }
}

impl OfficialConfig {
    /// Reads `config.json`.
    ///
    /// # Errors
    /// [`TttError::Json`]; [`TttError::Config`] for unsupported settings.
    pub fn from_json(json: &[u8]) -> Result<Self, TttError> {
        let config: Self = serde_json::from_slice(json)?;
        config.layer()?;
        Ok(config)
    }

    /// The configuration of the TTT layers.
    ///
    /// # Errors
    /// [`TttError::Config`], which names the field that does not fit.
    pub fn layer(&self) -> Result<TttConfig, TttError> {
        let error = |field, value: String, requirement| TttError::Config { field, value, requirement };
        let kind = Kind::from_name(&self.ttt_layer_type)
            .ok_or_else(|| error("ttt_layer_type", self.ttt_layer_type.clone(), "linear and mlp are known"))?;
        let heads = self.num_attention_heads;
        if heads == 0 || !self.hidden_size.is_multiple_of(heads) {
            return Err(error("num_attention_heads", heads.to_string(), "it has to divide hidden_size"));
        }
        if self.hidden_act != "silu" {
            return Err(error("hidden_act", self.hidden_act.clone(), "only silu is known"));
        }
        let sizes = [
            ("vocab_size", self.vocab_size),
            ("intermediate_size", self.intermediate_size),
            ("num_hidden_layers", self.num_hidden_layers),
        ];
        for (field, size) in sizes {
            if size == 0 || size > 1 << 24 {
                return Err(error(field, size.to_string(), "it has to be between 1 and 2^24"));
            }
        }
        if !(self.rms_norm_eps.is_finite() && self.rms_norm_eps > 0.0) {
            return Err(error("rms_norm_eps", self.rms_norm_eps.to_string(), "it has to be positive and finite"));
        }
        let mut layer = TttConfig::new(kind, heads, self.hidden_size / heads);
        layer.mini_batch_size = self.mini_batch_size;
        layer.base_lr = self.ttt_base_lr;
        layer.share_qk = self.share_qk;
        layer.conv_kernel = self.conv_kernel;
        layer.use_gate = self.use_gate;
        layer.pre_conv = self.pre_conv;
        layer.rope_theta = self.rope_theta;
        layer.validate()?;
        Ok(layer)
    }
}
