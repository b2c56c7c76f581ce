//! A model's memory, from its shape alone.

use bitnet_model::{ActivationBits, Architecture, KvType, ModelConfig};

/// Bytes in memory, and bytes that a token reads, of a model with this shape; its weights are not needed.
///
/// ```
/// use bitnet::{KvType, MemoryEstimate, ModelConfig};
/// let config = ModelConfig::new(32_000, 1024, 2816, 12, 16, 4);
/// let needs = MemoryEstimate::at(&config, KvType::F16, 4096);
/// assert!(needs.total() < 400 << 20);
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct MemoryEstimate {
    /// Packed ternary weights, and the gates and convolutions of layers of the gated delta rule, in full precision.
    pub weights: u64,
    /// Embedding, and the head if it is a separate matrix.
    pub tables: u64,
    /// The coarse plane of the head.
    pub plane: u64,
    /// Keys and values of a full context, and states of constant size.
    pub session: u64,
    /// Bytes that a token reads with an empty context and with a full one.
    pub reads: [u64; 2],
}

impl MemoryEstimate {
    /// Bits of a weight with a scale per group of 128: two for the weight, 16 for each scale.
    pub const GROUP_BITS: f64 = 2.125;

    /// Whether matrices have a scale per group: such models have activations of 16 bits.
    pub fn has_groups(config: &ModelConfig) -> bool {
        config.inputs.mixer.bits == ActivationBits::Sixteen
    }

    /// The memory with kernels of `bits` per weight. Embedding and head are in half precision; those of Ternary-Bonsai,
    /// the models of architecture qwen3 with a scale per group, are packed like all other matrices.
    pub fn of(config: &ModelConfig, bits: f64, kv: KvType, context: usize) -> Self {
        let c = config;
        let table = (c.vocab_size * c.hidden_size) as u64;
        let packed = matches!(Architecture::of(c), Some(Architecture::Qwen3 | Architecture::Qwen35));
        let groups = Self::has_groups(c) && packed;
        let layers = 0..c.num_hidden_layers;
        let floats =
            layers.flat_map(|l| c.layer_delta_tensors(l)).map(|(_, s)| s.iter().product::<usize>()).sum::<usize>();
        let weights = (c.ternary_weights() as f64 * bits / 8.0) as u64 + 4 * floats as u64;
        // A head of this size or less is in the cache and is read as it is.
        let coarse = table >= 1 << 22 && !groups && !c.headless;
        let plane = if coarse { table * 6 / 8 } else { 0 };
        let one = if groups { (table as f64 * bits / 8.0) as u64 } else { table * 2 };
        let tables = if c.tie_word_embeddings || c.headless { one } else { 2 * one };
        let kv = kv.token_bytes(c) as u64 * context.min(c.context_limit().unwrap_or(usize::MAX)) as u64;
        let state = c.state_bytes().unwrap_or(0) as u64;
        let head = if c.headless { 0 } else { one };
        let read = weights + if coarse { plane } else { head } + state;
        Self { weights, tables, plane, session: kv + state, reads: [read, read + kv] }
    }

    /// The memory with kernels of two bits.
    pub fn at(config: &ModelConfig, kv: KvType, context: usize) -> Self {
        let bits = if Self::has_groups(config) { Self::GROUP_BITS } else { 2.0 };
        Self::of(config, bits, kv, context)
    }

    /// Bytes in memory in all.
    pub fn total(&self) -> u64 {
        self.weights + self.tables + self.plane + self.session
    }
}
