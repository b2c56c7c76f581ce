//! Layers of the gated delta rule: their constants, and their learned full-precision parameters.

use ttt_layer::DeltaConfig;

use super::{Mixer, ModelConfig, Projection};
use crate::ModelError;

/// Constants shared by all layers of the gated delta rule of a model.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct DeltaOptions {
    /// Taps of the causal convolution of queries, keys and values.
    pub conv_kernel: usize,
    /// Elements of a head, of keys and of values; a state has the square of this.
    pub state_size: usize,
    /// Heads of queries and keys.
    pub key_heads: usize,
    /// Heads of values; head `j` reads key head `j / (value_heads / key_heads)`.
    pub value_heads: usize,
}

impl DeltaOptions {
    /// As many heads of keys and of values as attention has of queries, as wide as those, and four taps.
    pub fn of_heads(c: &ModelConfig) -> Self {
        let heads = c.num_attention_heads;
        Self { conv_kernel: 4, state_size: c.head_dim, key_heads: heads, value_heads: heads }
    }
}

impl Default for DeltaOptions {
    /// The options of the published model of 27 billion weights.
    fn default() -> Self {
        Self { conv_kernel: 4, state_size: 128, key_heads: 16, value_heads: 48 }
    }
}

/// Full-precision parameters of a layer of the gated delta rule, that is, all but its projections. Letters as in
/// [`DeltaConfig`]: `g h` value heads in groups, `D` hidden size, `c` channels, `k` taps, `d` elements of a head.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum DeltaTensor {
    /// Weights of the decays, `[g h, D]`.
    Alpha,
    /// Weights of the rates, `[g h, D]`.
    Beta,
    /// Taps of the causal convolution, `[c, k]`.
    Conv,
    /// Factor of the softplus of a decay, `[g h]`: `-exp(A_log)`.
    Decay,
    /// Added to a decay before the softplus, `[g h]`.
    DecayBias,
    /// Gain of the norm of each head's output, `[d]`.
    Norm,
}

impl DeltaTensor {
    /// All kinds, in the order of a layer.
    pub const ALL: [DeltaTensor; 6] = [
        DeltaTensor::Alpha,
        DeltaTensor::Beta,
        DeltaTensor::Conv,
        DeltaTensor::Decay,
        DeltaTensor::DecayBias,
        DeltaTensor::Norm,
    ];

    /// The full name within a layer of a Hugging Face checkpoint. Files hold `A_log` of a decay, and the convolution as
    /// `[c, 1, k]`.
    pub fn path(self) -> &'static str {
        match self {
            DeltaTensor::Alpha => "linear_attn.in_proj_a.weight",
            DeltaTensor::Beta => "linear_attn.in_proj_b.weight",
            DeltaTensor::Conv => "linear_attn.conv1d.weight",
            DeltaTensor::Decay => "linear_attn.A_log",
            DeltaTensor::DecayBias => "linear_attn.dt_bias",
            DeltaTensor::Norm => "linear_attn.norm.weight",
        }
    }

    /// The name within a layer of a GGUF file, and within a direction of an extractor.
    pub fn gguf_name(self) -> &'static str {
        match self {
            DeltaTensor::Alpha => "ssm_alpha.weight",
            DeltaTensor::Beta => "ssm_beta.weight",
            DeltaTensor::Conv => "ssm_conv1d.weight",
            DeltaTensor::Decay => "ssm_a",
            DeltaTensor::DecayBias => "ssm_dt.bias",
            DeltaTensor::Norm => "ssm_norm.weight",
        }
    }

    /// The shape in a layer of this configuration.
    pub fn shape(self, c: &DeltaConfig) -> Vec<usize> {
        match self {
            DeltaTensor::Alpha | DeltaTensor::Beta => vec![c.value_heads, c.hidden_size],
            DeltaTensor::Conv => vec![c.channels(), c.conv_kernel],
            DeltaTensor::Decay | DeltaTensor::DecayBias => vec![c.value_heads],
            DeltaTensor::Norm => vec![c.head_dim],
        }
    }
}

impl ModelConfig {
    /// Shape and constants of layer `l` of the gated delta rule; `None` for other layers.
    ///
    /// ```
    /// use bitnet_model::{Mixer, ModelConfig};
    /// let mut c = ModelConfig::new(96, 64, 128, 2, 4, 2);
    /// c.mixers = vec![Mixer::GatedDelta, Mixer::Attention];
    /// (c.delta.state_size, c.delta.key_heads, c.delta.value_heads) = (16, 2, 4);
    /// assert_eq!(c.delta_layer(0).unwrap().channels(), 2 * 32 + 64);
    /// assert!(c.delta_layer(1).is_none());
    /// ```
    pub fn delta_layer(&self, l: usize) -> Option<DeltaConfig> {
        (self.mixer(l) == Mixer::GatedDelta).then(|| self.delta_config())
    }

    /// Shape of every layer of the gated delta rule.
    fn delta_config(&self) -> DeltaConfig {
        let o = &self.delta;
        let mut c = DeltaConfig::new(self.hidden_size, o.key_heads, o.value_heads, o.state_size);
        c.conv_kernel = o.conv_kernel;
        c.norm_eps = self.rms_norm_eps;
        c
    }

    /// Whether any layer uses the gated delta rule.
    pub fn has_delta(&self) -> bool {
        (0..self.num_hidden_layers.min(self.mixers.len())).any(|l| self.mixer(l) == Mixer::GatedDelta)
    }

    /// The full-precision tensors of layer `l` of the gated delta rule, with their shapes; none for other layers.
    pub fn layer_delta_tensors(&self, l: usize) -> impl Iterator<Item = (DeltaTensor, Vec<usize>)> + use<> {
        let layer = self.delta_layer(l);
        DeltaTensor::ALL.into_iter().filter_map(move |t| Some((t, t.shape(layer.as_ref()?))))
    }

    /// The name of such a tensor in a Hugging Face checkpoint: `model.layers.0.linear_attn.A_log`.
    pub fn delta_tensor_name(&self, l: usize, t: DeltaTensor) -> String {
        format!("model.layers.{l}.{}", t.path())
    }

    /// `[out, in]` of a projection of a layer of the gated delta rule.
    pub(super) fn delta_projection_shape(&self, p: Projection) -> (usize, usize) {
        let c = self.delta_config();
        match p {
            Projection::Q | Projection::K => (c.key_width(), self.hidden_size),
            Projection::V | Projection::OutGate => (c.value_width(), self.hidden_size),
            Projection::Qkv => (c.channels(), self.hidden_size),
            Projection::O => (self.hidden_size, c.value_width()),
            Projection::Gate | Projection::Up => (self.intermediate_size, self.hidden_size),
            Projection::Down => (self.hidden_size, self.intermediate_size),
        }
    }

    /// The interval of the attention layers, if all other layers use the gated delta rule: files of such models state
    /// it. `None` for another order.
    ///
    /// ```
    /// use bitnet_model::{Mixer, ModelConfig};
    /// let mut c = ModelConfig::new(96, 64, 128, 4, 4, 2);
    /// c.mixers = ModelConfig::every(4, 2);
    /// assert_eq!((c.attention_interval(), c.mixer(2)), (Some(2), Mixer::GatedDelta));
    /// c.mixers.swap(2, 3);
    /// assert_eq!(c.attention_interval(), None);
    /// ```
    pub fn attention_interval(&self) -> Option<usize> {
        let n = self.num_hidden_layers;
        let same = |interval: &usize| (0..n).all(|l| self.mixer(l) == Self::mixer_at(l, *interval));
        let first = (0..n).find(|l| self.mixer(*l) == Mixer::Attention).unwrap_or(n);
        Some(first.saturating_add(1)).filter(same)
    }

    /// The mixers of `layers` layers, of which every `interval`-th is attention and the others use the gated delta
    /// rule; empty if all are attention.
    pub fn every(layers: usize, interval: usize) -> Vec<Mixer> {
        if interval <= 1 {
            return Vec::new();
        }
        (0..layers).map(|l| Self::mixer_at(l, interval)).collect()
    }

    fn mixer_at(l: usize, interval: usize) -> Mixer {
        if (l + 1).is_multiple_of(interval) { Mixer::Attention } else { Mixer::GatedDelta }
    }

    /// Elements of a head that the rotary embedding rotates: the first ones.
    pub fn rotary_width(&self) -> usize {
        self.rotary_dim.unwrap_or(self.head_dim)
    }

    /// Rows of the projection of queries, including those of the gate of attention's output, if there is one.
    pub fn query_rows(&self) -> usize {
        let rows = self.num_attention_heads * self.head_dim;
        if self.gated_attention { 2 * rows } else { rows }
    }

    pub(super) fn validate_delta(&self) -> Result<(), ModelError> {
        if let Some(width) = self.rotary_dim
            && (width == 0 || !width.is_multiple_of(2) || width > self.head_dim)
        {
            let must = "an even number up to head_dim, because rotary embedding turns pairs";
            return Err(ModelError::Config { field: "rotary_dim", value: width.to_string(), must });
        }
        if !self.has_delta() {
            return Ok(());
        }
        let others = [
            ("mixers", self.has_ttt(), "without test-time-training layers in a model of the gated delta rule"),
            ("projection_norms", self.projection_norms, "false in a model of the gated delta rule"),
            (
                "hadamard_block",
                self.inputs.all().iter().any(|form| form.hadamard.is_some()),
                "absent in a model of the gated delta rule",
            ),
        ];
        if let Some(&(field, _, must)) = others.iter().find(|f| f.1) {
            return Err(ModelError::Config { field, value: "true".to_owned(), must });
        }
        if self.sub_norms && self.gated_attention {
            let (field, value) = ("sub_norms", "true".to_owned());
            return Err(ModelError::Config { field, value, must: "false where the output of attention has a gate" });
        }
        self.delta_config().validate().map_err(super::config_error)
    }
}
