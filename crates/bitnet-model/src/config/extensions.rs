//! Formulas beyond BitNet b1.58: which of them a model uses, and whether their numbers are valid.

use super::{Activation, ActivationBits, Mixer, ModelConfig, RopeScaling};
use crate::ModelError;

impl ModelConfig {
    /// The first formula of this model that is not part of a BitNet b1.58 or v2 decoder; `None` if there is none. Code
    /// that only computes such decoders rejects the model with it.
    ///
    /// ```
    /// use bitnet_model::ModelConfig;
    /// let mut c = ModelConfig::new(96, 64, 128, 2, 4, 2);
    /// assert_eq!(c.beyond_bitnet(), None);
    /// c.head_norms = true;
    /// assert_eq!(c.beyond_bitnet(), Some("RMSNorms of the heads of q and k"));
    /// ```
    pub fn beyond_bitnet(&self) -> Option<&'static str> {
        // All fields are listed, so that none is forgotten.
        let ModelConfig {
            vocab_size: _,
            hidden_size: _,
            intermediate_size: _,
            num_hidden_layers: _,
            num_attention_heads: _,
            num_key_value_heads: _,
            head_dim: _,
            hidden_act,
            rms_norm_eps: _,
            rope_theta: _,
            rope_scaling,
            max_position_embeddings: _,
            tie_word_embeddings: _,
            sub_norms: _,
            head_norms,
            head_norms_after_rope,
            projection_norms,
            output_norms,
            qkv_bias,
            embedding_scale,
            residual_scale,
            logit_divisor,
            attention_scale,
            headless,
            pooling: _,
            bos_token_id: _,
            eos_token_ids: _,
            mixers: _,
            ttt: _,
            inputs,
            // How masters are quantised; the engine also computes with the result.
            weight_group: _,
            delta: _,
            gated_attention,
            rotary_dim,
            fold,
        } = self;
        let gelu = match hidden_act {
            Activation::Relu2 | Activation::Silu => false,
            Activation::GeluTanh => true,
        };
        let scores = match rope_scaling {
            RopeScaling::None | RopeScaling::Linear { .. } | RopeScaling::Llama3 { .. } | RopeScaling::Factors(_) => {
                false
            }
            RopeScaling::Yarn { .. } | RopeScaling::LongRope { .. } => true,
        };
        let found = [
            (gelu, "the activation gelu_pytorch_tanh"),
            (scores, "a rotary embedding that scales attention (YaRN, LongRoPE)"),
            (*head_norms_after_rope, "RMSNorms of the heads of q and k after the rotary embedding"),
            (*head_norms, "RMSNorms of the heads of q and k"),
            (*projection_norms, "an RMSNorm before every projection"),
            (*output_norms, "RMSNorms of the outputs of attention and feed-forward blocks"),
            (*qkv_bias, "biases of q, k and v"),
            (*embedding_scale != 1.0, "a scale of the embedding"),
            (*residual_scale != 1.0, "a scale of the residual branches"),
            (*logit_divisor != 1.0, "a divisor of the logits"),
            (attention_scale.is_some(), "a separate scale of attention"),
            (*headless, "a model without a head"),
            (self.has_delta(), "layers of the gated delta rule (Gated DeltaNet, as in qwen35)"),
            (*gated_attention, "a gate of attention's output (as in qwen35)"),
            (rotary_dim.is_some(), "a rotary embedding of parts of heads"),
            (fold.is_some(), "weights folded with a signed Hadamard transform"),
            (inputs.all().iter().any(|f| f.bits == ActivationBits::Sixteen), "16-bit activations"),
            (inputs.all().iter().any(|f| f.bits == ActivationBits::EightByGroup), "activations with a scale per group"),
        ];
        found.into_iter().find(|f| f.0).map(|f| f.1)
    }

    /// [`ModelError::Config`] for a model that `part` of this project, training or candle layers, cannot compute
    /// completely.
    ///
    /// # Errors
    /// The findings of [`ModelConfig::beyond_bitnet`] without norms of heads, and without 16-bit activations if
    /// `sixteen` allows them.
    #[cfg(any(feature = "candle", feature = "train"))]
    pub(crate) fn require_trainable(&self, part: &'static str, sixteen: bool) -> Result<(), ModelError> {
        let mut rest = self.clone();
        rest.head_norms = false;
        if sixteen && self.inputs.are_implied() {
            rest.inputs = super::InputForms::default();
        }
        match rest.beyond_bitnet() {
            None => Ok(()),
            Some(what) => {
                Err(ModelError::Config { field: part, value: format!("asked for {what}"), must: TRAINABLE_ONLY })
            }
        }
    }

    /// Checks that groups of weights are whole, and that the model has no features that files of such weights cannot
    /// state.
    pub(super) fn validate_weight_group(&self) -> Result<(), ModelError> {
        let Some(len) = self.weight_group else { return Ok(()) };
        let bad =
            |field: &'static str, value: String, must: &'static str| Err(ModelError::Config { field, value, must });
        if !matches!(len, 64 | 128 | 256) {
            return bad("weight_group_size", len.to_string(), "64, 128 or 256, as files have groups");
        }
        let widths = [
            ("hidden_size", self.hidden_size),
            ("num_attention_heads * head_dim", self.num_attention_heads * self.head_dim),
            ("intermediate_size", self.intermediate_size),
        ];
        if let Some((field, width)) = widths.into_iter().find(|(_, width)| !width.is_multiple_of(len)) {
            let value = format!("{width}, with weight_group_size {len}");
            return bad(field, value, "a multiple of it, so that rows are whole groups; or take smaller groups");
        }
        if self.inputs.all().iter().any(|f| f.bits != ActivationBits::Sixteen || f.hadamard.is_some()) {
            let bits = self.inputs.all().map(|f| f.to_string()).join("; ");
            let must = "16 and without a Hadamard transform if groups of weights have scales (weight_group_size)";
            return bad("activation_bits", bits, must);
        }
        if self.has_ttt() {
            let must = "attention in every layer if groups of weights have scales (weight_group_size)";
            return bad("mixers", "test-time training".to_owned(), must);
        }
        Ok(())
    }

    /// This model with one field changed at a time, by name: for tests that readers and writers forget none.
    #[doc(hidden)]
    pub fn each_field_changed(&self) -> Vec<(&'static str, ModelConfig)> {
        macro_rules! changed {
            ($($field:ident: $change:expr,)*) => {{
                // Without `..`, so that a further field does not compile until it is listed here.
                let ModelConfig { $($field: _),* } = self;
                vec![$((stringify!($field), {
                    let change: fn(&mut ModelConfig) = $change;
                    let mut c = self.clone();
                    change(&mut c);
                    c
                })),*]
            }};
        }
        changed! {
            vocab_size: |c| c.vocab_size += 1,
            hidden_size: |c| c.hidden_size *= 2,
            intermediate_size: |c| c.intermediate_size *= 2,
            num_hidden_layers: |c| c.num_hidden_layers += 1,
            num_attention_heads: |c| c.num_attention_heads *= 2,
            num_key_value_heads: |c| c.num_key_value_heads = 1,
            head_dim: |c| c.head_dim *= 2,
            hidden_act: |c| c.hidden_act = match c.hidden_act {
                Activation::Relu2 | Activation::GeluTanh => Activation::Silu,
                Activation::Silu => Activation::Relu2,
            },
            rms_norm_eps: |c| c.rms_norm_eps = 3e-4,
            rope_theta: |c| c.rope_theta = 12_345.1,
            rope_scaling: |c| c.rope_scaling = RopeScaling::yarn(4.0, 64),
            max_position_embeddings: |c| c.max_position_embeddings = 777,
            tie_word_embeddings: |c| c.tie_word_embeddings ^= true,
            sub_norms: |c| c.sub_norms ^= true,
            head_norms: |c| c.head_norms ^= true,
            head_norms_after_rope: |c| (c.head_norms, c.head_norms_after_rope) = (true, !c.head_norms_after_rope),
            projection_norms: |c| (c.projection_norms, c.headless) = (true, true),
            output_norms: |c| c.output_norms ^= true,
            qkv_bias: |c| c.qkv_bias ^= true,
            embedding_scale: |c| c.embedding_scale = 3.3,
            residual_scale: |c| c.residual_scale = 0.22,
            logit_divisor: |c| c.logit_divisor = 7.7,
            attention_scale: |c| c.attention_scale = Some(0.37),
            headless: |c| (c.headless, c.pooling) = (true, Some(super::Pooling::Mean)),
            pooling: |c| (c.tie_word_embeddings, c.pooling) = (false, Some(super::Pooling::Last)),
            bos_token_id: |c| c.bos_token_id = Some(3),
            eos_token_ids: |c| c.eos_token_ids = vec![5, 7],
            mixers: |c| c.mixers = vec![Mixer::TttMlp; c.num_hidden_layers],
            ttt: |c| {
                c.mixers = vec![Mixer::TttLinear; c.num_hidden_layers];
                c.ttt.mini_batch_size = 8;
                c.ttt.norm_eps = 3e-4;
                c.ttt.share_qk = true;
                c.ttt.rope_pairs = crate::RopePairs::Halves;
            },
            inputs: |c| c.inputs = super::InputForms::bitnet_v2(c, ActivationBits::Four),
            weight_group: |c| {
                c.weight_group = Some(64);
                c.inputs = c.inputs.with_bits(ActivationBits::Sixteen);
            },
            delta: |c| {
                if !c.has_delta() {
                    c.mixers = ModelConfig::every(c.num_hidden_layers, 2);
                }
                c.delta = super::DeltaOptions { conv_kernel: 3, state_size: 8, key_heads: 2, value_heads: 6 };
            },
            gated_attention: |c| c.gated_attention ^= true,
            rotary_dim: |c| c.rotary_dim = if c.rotary_dim.is_some() { None } else { Some(c.head_dim / 2) },
            fold: |c| {
                let signs = |width: usize| (0..width).map(|i| if i % 3 == 0 { -1 } else { 1 }).collect();
                let widths = c.input_widths().into_iter();
                c.fold = Some(widths.fold(super::Fold::new(16), |fold, width| fold.with_signs(signs(width))));
            },
        }
    }

    pub(super) fn validate_extensions(&self) -> Result<(), ModelError> {
        let scales = [
            ("embedding_scale", Some(self.embedding_scale)),
            ("residual_scale", Some(self.residual_scale)),
            ("logit_divisor", Some(self.logit_divisor)),
            ("attention_scale", self.attention_scale),
        ];
        for (field, value) in scales {
            if let Some(value) = value.filter(|v| !(v.is_finite() && *v > 0.0)) {
                return Err(ModelError::Config { field, value: value.to_string(), must: "a positive number" });
            }
        }
        if self.head_norms_after_rope && !self.head_norms {
            let must = "false in a model without norms of the heads";
            return Err(ModelError::Config { field: "head_norms_after_rope", value: "true".to_owned(), must });
        }
        if self.has_ttt() {
            let attention_only = [
                ("head_norms", self.head_norms),
                ("projection_norms", self.projection_norms),
                ("output_norms", self.output_norms),
                ("qkv_bias", self.qkv_bias),
            ];
            if let Some(&(field, _)) = attention_only.iter().find(|f| f.1) {
                let must = "false in a model with test-time-training layers";
                return Err(ModelError::Config { field, value: "true".to_owned(), must });
            }
        }
        Ok(())
    }

    /// Whether layer `l` is attention with norms of the heads of q and k.
    pub(super) fn has_head_norms(&self, l: usize) -> bool {
        self.head_norms && self.mixer(l) == Mixer::Attention
    }
}

/// Requirements of training and of candle layers.
#[cfg(any(feature = "candle", feature = "train"))]
const TRAINABLE_ONLY: &str = "used with a model of the formulas of BitNet b1.58 or v2, of LLaMA or of Qwen 3, with 16-bit activations only \
                              if groups of weights have scales; run others with the engine";
