//! Shapes of published models that need no file.

use bitnet_model::{Activation, ActivationBits, InputForms, ModelConfig, Pooling, RopeScaling};

use super::Spec;

/// Tokens of the vocabulary of Qwen3.
const QWEN3_VOCAB: usize = 151_669;

/// Formulas of Qwen3: SiLU, norms of the heads, rotary base 1 000 000, epsilon 1e-6, no sub-norms.
fn qwen3(hidden: usize, ffn: usize, layers: usize, heads: usize) -> ModelConfig {
    let mut c = ModelConfig::new(QWEN3_VOCAB, hidden, ffn, layers, heads, 8);
    c.head_dim = 128;
    c.hidden_act = Activation::Silu;
    (c.sub_norms, c.head_norms) = (false, true);
    (c.rms_norm_eps, c.rope_theta) = (1e-6, 1e6);
    c
}

/// A Ternary-Bonsai: a scale for each group of 128 weights, 16 bits for activations, YaRN by the factor 4.
fn bonsai(mut c: ModelConfig, original_context: usize) -> ModelConfig {
    let factor = 4.0;
    c.max_position_embeddings = original_context * 4;
    c.rope_scaling = RopeScaling::Yarn {
        factor,
        original_context,
        attention_factor: 1.0 + 0.1 * factor.ln(),
        beta_fast: 32.0,
        beta_slow: 1.0,
    };
    c.inputs = InputForms::default().with_bits(ActivationBits::Sixteen);
    c.eos_token_ids = vec![151_645, 151_643];
    c
}

impl Spec {
    /// The shape of BitNet b1.58 2B4T: 30 layers, hidden 2560, feed-forward 6912, 20 heads, 5 key/value heads,
    /// vocabulary 128256, tied head; 2.08 G ternary weights and 328 M in half precision.
    pub fn b2b4t() -> Self {
        let mut config = ModelConfig::new(128_256, 2560, 6912, 30, 20, 5);
        config.bos_token_id = Some(128_000);
        config.eos_token_ids = vec![128_001, 128_009];
        Self::new("2b4t", config, 0)
    }

    /// [`Spec::b2b4t`] as a model of BitNet v2: Hadamard transforms before the output and the down projection,
    /// activations of four bits everywhere. The weights are those of [`Spec::b2b4t`].
    ///
    /// ```
    /// use loader::synthetic::Spec;
    /// let forms = Spec::b2b4t_v2().config.inputs;
    /// assert_eq!((forms.output.hadamard, forms.down.hadamard), (Some(512), Some(256)));
    /// ```
    pub fn b2b4t_v2() -> Self {
        let mut config = Self::b2b4t().config;
        config.inputs = InputForms::bitnet_v2(&config, ActivationBits::Four);
        Self::new("2b4t-v2", config, 0)
    }

    /// The shape of Ternary-Bonsai 1.7B: 28 layers, hidden 2048, feed-forward 6144, 16 heads of 128, 8 key/value heads,
    /// vocabulary 151669; PQ2_0 everywhere, the embedding, which is the head, too: 1.72 G weights in 0.46 GB.
    ///
    /// ```
    /// use loader::synthetic::Spec;
    /// let config = Spec::bonsai_1_7b().config;
    /// assert_eq!(config.ternary_weights(), 1_409_286_144);
    /// ```
    pub fn bonsai_1_7b() -> Self {
        Self::new("bonsai-1.7b", bonsai(qwen3(2048, 6144, 28, 16), 8192), 0)
    }

    /// The shape of Ternary-Bonsai 4B: 36 layers, hidden 2560, feed-forward 9728, 32 heads of 128 (4096 in all), 8
    /// key/value heads. The context before it was stretched is taken for that of 1.7B.
    pub fn bonsai_4b() -> Self {
        Self::new("bonsai-4b", bonsai(qwen3(2560, 9728, 36, 32), 8192), 0)
    }

    /// The shape of Ternary-Bonsai 8B: 36 layers, hidden 4096, feed-forward 12288, 32 heads of 128, 8 key/value heads,
    /// a separate head in the same format.
    pub fn bonsai_8b() -> Self {
        let mut config = bonsai(qwen3(4096, 12_288, 36, 32), 16_384);
        config.tie_word_embeddings = false;
        Self::new("bonsai-8b", config, 0)
    }

    /// The shape of Ternary-Bonsai 27B: 64 layers, hidden 5120, feed-forward 17408; every fourth layer is attention
    /// with 24 heads of 256, 64 elements of which are rotated, and 4 key/value heads; the others use the gated delta
    /// rule with 16 key heads and 48 value heads of 128; vocabulary 248320, a separate head. Its context is assumed to
    /// be that of the family, 262144.
    ///
    /// ```
    /// use loader::synthetic::Spec;
    /// let config = Spec::bonsai_27b().config;
    /// assert_eq!(config.attention_layers(), 16);
    /// // 48 layers of 48 matrices of 128 by 128 and three inputs of the convolution, in f32.
    /// assert_eq!(config.state_bytes().unwrap(), 48 * 4 * (48 * 128 * 128 + 3 * 10_240));
    /// ```
    pub fn bonsai_27b() -> Self {
        let mut c = ModelConfig::new(248_320, 5120, 17_408, 64, 24, 4);
        c.head_dim = 256;
        c.hidden_act = Activation::Silu;
        (c.sub_norms, c.head_norms, c.gated_attention) = (false, true, true);
        (c.rms_norm_eps, c.rope_theta, c.rotary_dim) = (1e-6, 1e7, Some(64));
        c.mixers = ModelConfig::every(c.num_hidden_layers, 4);
        (c.delta.conv_kernel, c.delta.state_size, c.delta.key_heads, c.delta.value_heads) = (4, 128, 16, 48);
        c.max_position_embeddings = 262_144;
        c.tie_word_embeddings = false;
        c.inputs = InputForms::default().with_bits(ActivationBits::Sixteen);
        Self::new("bonsai-27b", c, 0)
    }

    /// The shape of BitNet-embedding 0.6B: 28 layers, hidden 1024, feed-forward 3072, 16 heads of 128, 8 key/value
    /// heads, a norm before every projection, no head; I2_S, embedding and norms in half precision.
    pub fn bitnet_embedding_0_6b() -> Self {
        let mut config = qwen3(1024, 3072, 28, 16);
        (config.projection_norms, config.headless) = (true, true);
        config.pooling = Some(Pooling::Mean);
        config.max_position_embeddings = 32_768;
        config.eos_token_ids = vec![151_643];
        Self::new("bitnet-embedding-0.6b", config, 0)
    }

    /// Names of the shapes that need no file.
    pub const NAMES: [&str; 7] =
        ["2b4t", "2b4t-v2", "bonsai-1.7b", "bonsai-4b", "bonsai-8b", "bonsai-27b", "bitnet-embedding-0.6b"];

    /// The shape of that name, one of [`Spec::NAMES`].
    pub fn named(name: &str) -> Option<Self> {
        match name {
            "2b4t" => Some(Self::b2b4t()),
            "2b4t-v2" => Some(Self::b2b4t_v2()),
            "bonsai-1.7b" => Some(Self::bonsai_1_7b()),
            "bonsai-4b" => Some(Self::bonsai_4b()),
            "bonsai-8b" => Some(Self::bonsai_8b()),
            "bonsai-27b" => Some(Self::bonsai_27b()),
            "bitnet-embedding-0.6b" => Some(Self::bitnet_embedding_0_6b()),
            _ => None,
        }
    }
}
