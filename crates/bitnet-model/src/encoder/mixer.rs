//! The mixer of a layer: attention, or a recurrence that reads the words in both directions.

use ttt_layer::{DeltaConfig, Kind, RopePairs, TttConfig};

use super::config::ExtractorConfig;
use crate::{DeltaTensor, ModelError, Projection, TttTensor};

/// How a layer carries what stands at one word to the others.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum EncoderMixer {
    /// Attention over all words, without a mask if the encoder reads in both [`Directions`].
    #[default]
    Attention,
    /// TTT-Linear (arXiv:2407.04620) forward over the words and backward over them; the results are added.
    TttLinear,
    /// The gated delta rule (arXiv:2412.06464) forward and backward; the results are added.
    GatedDelta,
}

/// The two directions of a recurrence, in the order in which layers hold them.
pub const DIRECTIONS: [&str; 2] = ["forward", "backward"];

/// Which words the vector of a word may depend on: all of the text, or only those up to it.
///
/// Reading in one direction is an ablation, which says what the other one is worth. Pooling and the choice of tags
/// see the whole text in either case.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Directions {
    /// Attention to all words, recurrences forward and backward, features of both neighbours.
    #[default]
    Both,
    /// Attention with a causal mask, recurrences forward only, features of the neighbours on the left only.
    Forward,
}

impl Directions {
    /// All of them.
    pub const ALL: [Self; 2] = [Self::Both, Self::Forward];

    /// The name in files.
    pub fn name(self) -> &'static str {
        match self {
            Self::Both => "both",
            Self::Forward => "forward",
        }
    }

    /// The one with this name.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|d| d.name() == name)
    }

    /// Directions in which recurrences read, the first of [`DIRECTIONS`].
    pub fn count(self) -> usize {
        match self {
            Self::Both => 2,
            Self::Forward => 1,
        }
    }

    /// How many of `n` words word `i` reads: those before it and itself, or all.
    pub(crate) fn seen(self, i: usize, n: usize) -> usize {
        match self {
            Self::Both => n,
            Self::Forward => i + 1,
        }
    }
}

impl EncoderMixer {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Attention, Self::TttLinear, Self::GatedDelta];

    /// The name in files.
    pub fn name(self) -> &'static str {
        match self {
            Self::Attention => "attention",
            Self::TttLinear => "ttt_linear",
            Self::GatedDelta => "gated_delta",
        }
    }

    /// The mixer with this name.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|m| m.name() == name)
    }

    /// Whether it reads in two directions, with parameters of each.
    pub fn is_recurrent(self) -> bool {
        self != Self::Attention
    }

    /// Whether a layer has this projection.
    fn has(self, which: Projection) -> bool {
        match which {
            // Two convolutions make queries and keys of one projection.
            Projection::K => self != Self::TttLinear,
            Projection::OutGate => self.is_recurrent(),
            Projection::Q | Projection::V | Projection::O => true,
            Projection::Gate | Projection::Up | Projection::Down => true,
            Projection::Qkv => false,
        }
    }

    /// The projections of a layer with their names in tensors, in the order of a layer.
    ///
    /// ```
    /// use bitnet_model::encoder::EncoderMixer;
    /// let names = |mixer: EncoderMixer| mixer.projections().map(|(_, name)| name).take(4).collect::<Vec<_>>();
    /// assert_eq!(names(EncoderMixer::Attention), ["attn_q", "attn_k", "attn_v", "attn_output"]);
    /// assert_eq!(names(EncoderMixer::TttLinear), ["attn_q", "attn_v", "attn_gate", "attn_output"]);
    /// ```
    pub fn projections(self) -> impl Iterator<Item = (Projection, &'static str)> {
        ENCODER_PROJECTIONS.into_iter().filter(move |(which, _)| self.has(*which))
    }
}

/// All projections that layers may have, in the order of a layer.
const ENCODER_PROJECTIONS: [(Projection, &str); 8] = [
    (Projection::Q, "attn_q"),
    (Projection::K, "attn_k"),
    (Projection::V, "attn_v"),
    (Projection::OutGate, "attn_gate"),
    (Projection::O, "attn_output"),
    (Projection::Gate, "ffn_gate"),
    (Projection::Up, "ffn_up"),
    (Projection::Down, "ffn_down"),
];

/// The full name of a tensor of a direction: `blk.0.forward.ttt_w1.weight`.
pub fn direction_tensor_name(layer: usize, direction: usize, name: &str) -> String {
    format!("blk.{layer}.{}.{name}", DIRECTIONS[direction])
}

impl ExtractorConfig {
    /// The mixer of layer `l`.
    pub fn mixer(&self, l: usize) -> EncoderMixer {
        self.mixers.get(l).copied().unwrap_or_default()
    }

    /// Shape and constants of the layers of TTT-Linear: mini-batches of 16 words, a largest inner learning rate of 1,
    /// one projection for queries and keys behind which two convolutions of four taps stand, a gate.
    pub fn ttt_layer(&self) -> TttConfig {
        let mut c = TttConfig::new(Kind::Linear, self.num_heads, self.head_dim());
        c.hidden_size = self.hidden_size;
        c.share_qk = true;
        c.use_gate = true;
        c.rope_theta = self.rope_theta;
        c.rope_pairs = RopePairs::Halves;
        c.norm_eps = self.norm_eps;
        c
    }

    /// Shape and constants of the layers of the gated delta rule: as many heads of values as of keys, four taps.
    pub fn delta_layer(&self) -> DeltaConfig {
        let mut c = DeltaConfig::new(self.hidden_size, self.num_heads, self.num_heads, self.head_dim());
        c.norm_eps = self.norm_eps;
        c
    }

    /// Names and shapes of what layer `l` has in full precision for direction `d` of [`DIRECTIONS`], in the order of
    /// [`EncoderLayer::directions`](super::EncoderLayer::directions); nothing for attention, and for a direction in
    /// which the encoder does not read.
    pub fn direction_tensors(&self, l: usize, d: usize) -> Vec<(&'static str, Vec<usize>)> {
        if d >= self.directions.count() {
            return Vec::new();
        }
        match self.mixer(l) {
            EncoderMixer::Attention => Vec::new(),
            EncoderMixer::TttLinear => {
                let c = self.ttt_layer();
                TttTensor::ALL.into_iter().filter_map(|t| Some((t.gguf_name(), t.shape(&c)?))).collect()
            }
            EncoderMixer::GatedDelta => {
                let c = self.delta_layer();
                DeltaTensor::ALL.into_iter().map(|t| (t.gguf_name(), t.shape(&c))).collect()
            }
        }
    }

    /// Checks the list of mixers and what layers of these need of the shape.
    pub(super) fn validate_mixers(&self) -> Result<(), ModelError> {
        if !self.mixers.is_empty() && self.mixers.len() != self.num_layers {
            let must = "one mixer for all layers, or a list of one for each";
            let value = format!("{} names for {} layers", self.mixers.len(), self.num_layers);
            return Err(ModelError::Config { field: "mixer", value, must });
        }
        for mixer in &self.mixers {
            match mixer {
                EncoderMixer::Attention => {}
                EncoderMixer::TttLinear => self.ttt_layer().validate()?,
                EncoderMixer::GatedDelta => self.delta_layer().validate()?,
            }
        }
        Ok(())
    }
}
