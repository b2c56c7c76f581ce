//! The shape of a model, and the formulas that it uses.

mod architecture;
mod delta;
mod extensions;
mod fold;
mod input;
#[cfg(feature = "json")]
pub mod json;
mod mixer;
mod pooling;
mod rope;
mod tensors;

pub use architecture::{Architecture, Formulas, Presence};
pub use delta::{DeltaOptions, DeltaTensor};
pub use fold::Fold;
pub use input::{ActivationBits, InputForm, InputForms};
pub use mixer::{Mixer, TttOptions};
pub use pooling::Pooling;
pub use rope::RopeScaling;
pub use tensors::{Norm, Projection, TttTensor};

use crate::ModelError;

/// The activation between gate and up projection of the feed-forward block.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Activation {
    /// `relu(x)^2`, as in BitNet b1.58 2B4T (architectures `bitnet-b1.58` and `bitnet-25`).
    Relu2,
    /// `x * sigmoid(x)`, as in LLaMA and the 1bitLLM models (architectures `bitnet` and `llama`).
    Silu,
    /// `x / 2 (1 + tanh(sqrt(2 / pi) (x + 0.044715 x^3)))`, as in Gemma 3.
    GeluTanh,
}

impl Activation {
    /// All activations.
    pub const ALL: [Activation; 3] = [Activation::Relu2, Activation::Silu, Activation::GeluTanh];

    /// The name in a `config.json`.
    pub fn name(self) -> &'static str {
        match self {
            Activation::Relu2 => "relu2",
            Activation::Silu => "silu",
            Activation::GeluTanh => "gelu_pytorch_tanh",
        }
    }
}

/// Shape and formulas of a decoder, in the names of a Hugging Face `config.json`.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct ModelConfig {
    /// Tokens in the vocabulary, rows of the embedding.
    pub vocab_size: usize,
    /// Width of the residual stream.
    pub hidden_size: usize,
    /// Width of the feed-forward block.
    pub intermediate_size: usize,
    /// Number of layers.
    pub num_hidden_layers: usize,
    /// Query heads.
    pub num_attention_heads: usize,
    /// Key and value heads; query head `i` reads key head `i / (heads / kv_heads)`.
    pub num_key_value_heads: usize,
    /// Width of one head.
    pub head_dim: usize,
    /// Activation of the feed-forward block.
    pub hidden_act: Activation,
    /// Added to the mean square in every RMSNorm.
    pub rms_norm_eps: f32,
    /// Base of the rotary position embedding.
    pub rope_theta: f64,
    /// How the rotary position embedding is stretched.
    pub rope_scaling: RopeScaling,
    /// Longest context the model was made for, in tokens.
    pub max_position_embeddings: usize,
    /// Whether the head is the embedding matrix.
    pub tie_word_embeddings: bool,
    /// Whether there is an RMSNorm before the output projection and one before the down projection.
    pub sub_norms: bool,
    /// Whether each head of q and of k has an RMSNorm before the rotary embedding; one gain for all heads of q, one for
    /// all of k, `[head_dim]` each.
    pub head_norms: bool,
    /// Whether the norms of the heads come after the rotary embedding instead of before it (HunYuan).
    pub head_norms_after_rope: bool,
    /// Whether the input of every projection has its own RMSNorm before it is quantised (BitNet embedding): seven
    /// inputs per layer of attention instead of four.
    pub projection_norms: bool,
    /// Whether the outputs of the mixer and of the feed-forward block have an RMSNorm before they are added to the
    /// residual stream (Gemma 3).
    pub output_norms: bool,
    /// Whether q, k and v of attention have a bias, `[out]` (Qwen 2).
    pub qkv_bias: bool,
    /// Factor of a token's row of the embedding.
    pub embedding_scale: f32,
    /// Factor of the mixer's and the feed-forward block's outputs before they are added.
    pub residual_scale: f32,
    /// Divisor of the logits.
    pub logit_divisor: f32,
    /// Factor of the scores of attention; `None` for `head_dim^-1/2`.
    pub attention_scale: Option<f32>,
    /// Whether the model has no head: an embedding model, without logits.
    pub headless: bool,
    /// How the hidden states of a text become one vector, according to the file.
    pub pooling: Option<Pooling>,
    /// Token that begins a text.
    pub bos_token_id: Option<u32>,
    /// Tokens that end a text; generation stops at any of them.
    pub eos_token_ids: Vec<u32>,
    /// The mixer of each layer, one entry per layer; empty means attention in all of them.
    pub mixers: Vec<Mixer>,
    /// Constants of the test-time-training layers, if there are any.
    pub ttt: TttOptions,
    /// How the inputs of projections become codes.
    pub inputs: InputForms,
    /// Weights of a row that share a scale when float weights become ternary: in training, and when master weights are
    /// read; `None` for one scale per matrix. Ternary weights store their groups themselves, so
    /// [`ModelWeights`](crate::ModelWeights) do not set this.
    pub weight_group: Option<usize>,
    /// Constants of the layers of the gated delta rule, if there are any.
    pub delta: DeltaOptions,
    /// Whether the output of attention is multiplied by the sigmoid of a gate, whose rows follow the queries in their
    /// projection: `[2 * heads * head_dim, hidden]`, the queries of all heads, then the gates of all heads (Qwen 3.5).
    pub gated_attention: bool,
    /// Elements of a head that the rotary embedding rotates, the first ones; `None` for whole heads.
    pub rotary_dim: Option<usize>,
    /// A signed Hadamard transform that is folded into the weights; `None` if there is none.
    pub fold: Option<Fold>,
}

impl ModelConfig {
    /// A configuration of this shape with the values of BitNet b1.58 2B4T for everything else: squared ReLU, sub-norms,
    /// eps 1e-5, theta 500000, context 4096, tied head, no special tokens.
    ///
    /// ```
    /// use bitnet_model::ModelConfig;
    /// // vocabulary, hidden, feed-forward, layers, heads, key/value heads
    /// let c = ModelConfig::new(128_256, 2560, 6912, 30, 20, 5);
    /// assert_eq!(c.head_dim, 128);
    /// c.validate().unwrap();
    /// ```
    pub fn new(vocab: usize, hidden: usize, ffn: usize, layers: usize, heads: usize, kv_heads: usize) -> Self {
        Self {
            vocab_size: vocab,
            hidden_size: hidden,
            intermediate_size: ffn,
            num_hidden_layers: layers,
            num_attention_heads: heads,
            num_key_value_heads: kv_heads,
            head_dim: hidden.checked_div(heads).unwrap_or(0),
            hidden_act: Activation::Relu2,
            rms_norm_eps: 1e-5,
            rope_theta: 500_000.0,
            rope_scaling: RopeScaling::None,
            max_position_embeddings: 4096,
            tie_word_embeddings: true,
            sub_norms: true,
            head_norms: false,
            head_norms_after_rope: false,
            projection_norms: false,
            output_norms: false,
            qkv_bias: false,
            embedding_scale: 1.0,
            residual_scale: 1.0,
            logit_divisor: 1.0,
            attention_scale: None,
            headless: false,
            pooling: None,
            bos_token_id: None,
            eos_token_ids: Vec::new(),
            mixers: Vec::new(),
            ttt: TttOptions::default(),
            inputs: InputForms::default(),
            weight_group: None,
            delta: DeltaOptions::default(),
            gated_attention: false,
            rotary_dim: None,
            fold: None,
        }
    }

    /// Checks that the numbers fit together and are within reasonable bounds.
    ///
    /// # Errors
    /// [`ModelError::Config`] naming the field and what it must be.
    pub fn validate(&self) -> Result<(), ModelError> {
        let bad =
            |field: &'static str, value: String, must: &'static str| Err(ModelError::Config { field, value, must });
        let sizes = [
            ("vocab_size", self.vocab_size, 1 << 24),
            ("hidden_size", self.hidden_size, 1 << 20),
            ("intermediate_size", self.intermediate_size, 1 << 22),
            ("num_hidden_layers", self.num_hidden_layers, 1 << 12),
            ("num_attention_heads", self.num_attention_heads, 1 << 12),
            ("num_key_value_heads", self.num_key_value_heads, 1 << 12),
            ("head_dim", self.head_dim, 1 << 12),
            ("max_position_embeddings", self.max_position_embeddings, 1 << 31),
        ];
        for (field, value, max) in sizes {
            if value == 0 || value > max {
                return bad(field, value.to_string(), "at least 1 and of a reasonable size");
            }
        }
        if !self.num_attention_heads.is_multiple_of(self.num_key_value_heads) {
            return bad(
                "num_key_value_heads",
                self.num_key_value_heads.to_string(),
                "a divisor of num_attention_heads",
            );
        }
        if !self.head_dim.is_multiple_of(2) {
            return bad("head_dim", self.head_dim.to_string(), "even, because rotary embedding turns pairs");
        }
        if !(self.rms_norm_eps.is_finite() && self.rms_norm_eps > 0.0) {
            return bad("rms_norm_eps", self.rms_norm_eps.to_string(), "a positive number");
        }
        if !(self.rope_theta.is_finite() && self.rope_theta > 1.0) {
            return bad("rope_theta", self.rope_theta.to_string(), "a number above 1");
        }
        self.validate_delta()?;
        self.validate_rope()?;
        self.validate_inputs()?;
        self.validate_weight_group()?;
        self.validate_extensions()?;
        self.validate_mixers()?;
        self.validate_fold()?;
        for id in self.eos_token_ids.iter().chain(&self.bos_token_id) {
            if *id as usize >= self.vocab_size {
                return bad("bos_token_id / eos_token_id", id.to_string(), "below vocab_size");
            }
        }
        Ok(())
    }

    fn validate_mixers(&self) -> Result<(), ModelError> {
        let bad = |field: &'static str, value: usize, must: &'static str| {
            Err(ModelError::Config { field, value: value.to_string(), must })
        };
        if !(self.mixers.is_empty() || self.mixers.len() == self.num_hidden_layers) {
            return bad("mixers", self.mixers.len(), "one per layer, or none if all are attention");
        }
        if !self.has_ttt() {
            return Ok(());
        }
        // A state holds the rows of a mini-batch and the inner weights, so this bounds its size by that of the file.
        if self.ttt.mini_batch_size > 1024 || self.ttt.mini_batch_size > self.head_dim.saturating_mul(32) {
            return bad("ttt.mini_batch_size", self.ttt.mini_batch_size, "at most 1024 and at most 32 times head_dim");
        }
        if self.ttt.conv_kernel > 64 {
            return bad("ttt.conv_kernel", self.ttt.conv_kernel, "at most 64");
        }
        let mut layers = (0..self.num_hidden_layers).filter_map(|l| self.ttt_layer(l));
        layers.try_for_each(|layer| layer.validate().map_err(config_error))
    }

    /// Query heads that share one key and value head.
    pub fn group_size(&self) -> usize {
        self.num_attention_heads / self.num_key_value_heads
    }

    /// Values that the cache holds per token: keys and values of all layers of attention.
    pub fn kv_values_per_token(&self) -> usize {
        2 * self.attention_layers() * self.num_key_value_heads * self.head_dim
    }

    /// Bytes of the states of all test-time-training layers and layers of the gated delta rule for one text, constant
    /// in the number of tokens.
    ///
    /// # Errors
    /// [`ModelError::Config`] like [`ModelConfig::validate`].
    pub fn state_bytes(&self) -> Result<usize, ModelError> {
        let mut bytes = 0usize;
        for l in 0..self.num_hidden_layers {
            let ttt = self.ttt_layer(l).map(|c| c.state_bytes()).transpose().map_err(config_error)?;
            let delta = self.delta_layer(l).map(|c| c.state_bytes()).transpose().map_err(config_error)?;
            bytes = bytes.saturating_add(ttt.or(delta).unwrap_or(0));
        }
        Ok(bytes)
    }

    /// Ternary weights of all layers.
    pub fn ternary_weights(&self) -> u64 {
        let layer = |l: usize| -> u64 {
            self.layer_projections(l).map(|p| self.projection_shape(l, p)).map(|(m, k)| m as u64 * k as u64).sum()
        };
        (0..self.num_hidden_layers).map(layer).sum()
    }

    /// All parameters: ternary weights, embedding, head if it has its own, norms, biases, full-precision tensors of
    /// test-time-training layers and of layers of the gated delta rule.
    pub fn parameters(&self) -> u64 {
        let table = self.vocab_size as u64 * self.hidden_size as u64;
        let layers = || 0..self.num_hidden_layers;
        let norms: usize = layers().flat_map(|l| self.layer_norms(l)).map(|n| self.norm_len(n)).sum();
        let ttt: usize =
            layers().flat_map(|l| self.layer_ttt_tensors(l)).map(|(_, s)| s.iter().product::<usize>()).sum();
        let delta: usize =
            layers().flat_map(|l| self.layer_delta_tensors(l)).map(|(_, s)| s.iter().product::<usize>()).sum();
        let biases: usize = layers().flat_map(|l| self.layer_biases(l)).map(|(_, len)| len).sum();
        let tables = if self.tie_word_embeddings || self.headless { 1 } else { 2 };
        self.ternary_weights() + tables * table + (norms + ttt + delta + biases + self.hidden_size) as u64
    }
}

fn config_error(error: ttt_layer::TttError) -> ModelError {
    match error {
        ttt_layer::TttError::Config { field, value, requirement } => {
            ModelError::Config { field, value, must: requirement }
        }
        other => ModelError::Ttt(other),
    }
}
