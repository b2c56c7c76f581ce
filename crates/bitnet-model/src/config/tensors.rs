//! The tensors of a layer: their kinds, shapes and names.

use ttt_layer::TttConfig;

use super::{Mixer, ModelConfig};

/// A ternary projection of a layer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Projection {
    /// Queries (and keys if they share it), `[heads * head_dim, hidden]`.
    Q,
    /// Keys: `[kv_heads * head_dim, hidden]`; in a TTT layer `[heads * head_dim, hidden]`, or missing if queries and
    /// keys share a projection.
    K,
    /// Values, shaped like keys.
    V,
    /// Queries, keys and values of a layer of the gated delta rule, value heads in groups:
    /// `[(2 * key_heads + value_heads) * state_size, hidden]`.
    Qkv,
    /// Gate of a TTT layer's output, `[heads * head_dim, hidden]`, if the configuration has one; of the output of a
    /// layer of the gated delta rule, `[value_heads * state_size, hidden]`.
    OutGate,
    /// Output of the mixer, `[hidden, heads * head_dim]`.
    O,
    /// Gate of the feed-forward block, `[ffn, hidden]`.
    Gate,
    /// Up projection of the feed-forward block, `[ffn, hidden]`.
    Up,
    /// Down projection of the feed-forward block, `[hidden, ffn]`.
    Down,
}

impl Projection {
    /// All kinds, in the order of a layer; [`ModelConfig::layer_projections`] returns those of a given layer.
    pub const ALL: [Projection; 9] = [
        Projection::Q,
        Projection::K,
        Projection::V,
        Projection::Qkv,
        Projection::OutGate,
        Projection::O,
        Projection::Gate,
        Projection::Up,
        Projection::Down,
    ];

    /// Projections of a layer of attention.
    pub const OF_ATTENTION: [Projection; 7] = [
        Projection::Q,
        Projection::K,
        Projection::V,
        Projection::O,
        Projection::Gate,
        Projection::Up,
        Projection::Down,
    ];

    /// The last part of the name in a Hugging Face checkpoint, for example `q_proj`.
    pub fn name(self) -> &'static str {
        match self {
            Projection::Q => "q_proj",
            Projection::K => "k_proj",
            Projection::V => "v_proj",
            Projection::Qkv => "qkv_proj",
            Projection::OutGate => "g_proj",
            Projection::O => "o_proj",
            Projection::Gate => "gate_proj",
            Projection::Up => "up_proj",
            Projection::Down => "down_proj",
        }
    }

    /// Whether it belongs to the feed-forward block.
    pub fn in_feed_forward(self) -> bool {
        matches!(self, Projection::Gate | Projection::Up | Projection::Down)
    }

    /// The name within a layer of a Hugging Face checkpoint, without `.weight`: `self_attn.q_proj`, `ttt.q_proj`,
    /// `mlp.up_proj`.
    pub fn path(self, mixer: Mixer) -> String {
        if mixer == Mixer::GatedDelta {
            match self {
                Projection::Qkv => return "linear_attn.in_proj_qkv".to_owned(),
                Projection::OutGate => return "linear_attn.in_proj_z".to_owned(),
                Projection::O => return "linear_attn.out_proj".to_owned(),
                Projection::Q | Projection::K | Projection::V => {}
                Projection::Gate | Projection::Up | Projection::Down => {}
            }
        }
        let block = if self.in_feed_forward() { "mlp" } else { block_name(mixer) };
        format!("{block}.{}", self.name())
    }
}

/// The name of a mixer's block in a Hugging Face checkpoint.
fn block_name(mixer: Mixer) -> &'static str {
    match mixer {
        Mixer::Attention => "self_attn",
        Mixer::TttLinear | Mixer::TttMlp => "ttt",
        Mixer::GatedDelta => "linear_attn",
    }
}

/// An RMSNorm of the model; the number is the layer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Norm {
    /// Before the causal convolution of a TTT layer's block, if it has one.
    PreConv(usize),
    /// Before the projections of the mixer.
    Input(usize),
    /// Before the output projection (sub-norm).
    AttnSub(usize),
    /// Before the gate and up projections.
    PostAttention(usize),
    /// Before the down projection (sub-norm).
    FfnSub(usize),
    /// Norm of each head of q, before or after the rotary embedding: one gain `[head_dim]` for all heads.
    HeadQ(usize),
    /// Norm of each head of k, before or after the rotary embedding: one gain `[head_dim]` for all heads.
    HeadK(usize),
    /// Norm of the mixer's output, before it is added to the residual stream.
    MixerOut(usize),
    /// Norm of the feed-forward block's output, before it is added to the residual stream.
    FfnOut(usize),
    /// Before the quantisation of the input of this projection, after all other norms.
    ProjectionIn(usize, Projection),
    /// Before the head.
    Final,
}

impl Norm {
    /// The layer, except for the last norm.
    pub fn layer(self) -> Option<usize> {
        match self {
            Norm::PreConv(l) | Norm::Input(l) | Norm::AttnSub(l) | Norm::PostAttention(l) | Norm::FfnSub(l) => Some(l),
            Norm::HeadQ(l) | Norm::HeadK(l) | Norm::MixerOut(l) | Norm::FfnOut(l) | Norm::ProjectionIn(l, _) => Some(l),
            Norm::Final => None,
        }
    }

    /// The name within a layer of a Hugging Face checkpoint (for the last norm: within the model), without `.weight`.
    /// In models with norms of outputs, or of heads after the rotary embedding, [`ModelConfig::norm_path`] returns
    /// other names.
    pub fn path(self, mixer: Mixer) -> String {
        match self {
            Norm::PreConv(_) => "conv.norm".into(),
            Norm::Input(_) => "input_layernorm".into(),
            Norm::AttnSub(_) => format!("{}.attn_sub_norm", block_name(mixer)),
            Norm::PostAttention(_) => "post_attention_layernorm".into(),
            Norm::FfnSub(_) => "mlp.ffn_sub_norm".into(),
            Norm::HeadQ(_) => format!("{}.q_norm", block_name(mixer)),
            Norm::HeadK(_) => format!("{}.k_norm", block_name(mixer)),
            // The names of Gemma, where `post_attention_layernorm` is the norm of attention's output.
            Norm::MixerOut(_) => "post_attention_layernorm".into(),
            Norm::FfnOut(_) => "post_feedforward_layernorm".into(),
            Norm::ProjectionIn(_, p) => format!("{}.norm", p.path(mixer)),
            Norm::Final => "norm".into(),
        }
    }
}

/// Full-precision parameters of a TTT layer, that is, all but its projections. Letters as in [`TttConfig`]: `h` heads
/// of `d` elements, `w = h d`, `D` hidden size, `b` tokens of a mini-batch, `k` taps; shapes as in the official
/// checkpoints.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum TttTensor {
    /// First matrix of the inner models, `[h, d, d]` (TTT-Linear) or `[h, d, 4 d]` (TTT-MLP).
    W1,
    /// Its bias, `[h, 1, d]` or `[h, 1, 4 d]`.
    B1,
    /// Second matrix of TTT-MLP, `[h, 4 d, d]`.
    W2,
    /// Its bias, `[h, 1, d]`.
    B2,
    /// Weights of the learning rates, `[h, 1, D]`.
    LrWeight,
    /// Biases of the learning rates, `[h, 1]`.
    LrBias,
    /// Added to the position weights `1 / (n + 1)`, `[b]`.
    TokenIdx,
    /// Gain of the norm within the inner models, `[h, d]`.
    NormWeight,
    /// Its bias, `[h, d]`.
    NormBias,
    /// Gain of the norm after the inner loop, `[w]`.
    PostNormWeight,
    /// Its bias, `[w]`.
    PostNormBias,
    /// Causal convolution of queries, `[w, 1, k]`, if they share a projection with keys.
    ConvQWeight,
    /// Its bias, `[w]`.
    ConvQBias,
    /// Causal convolution of keys, `[w, 1, k]`.
    ConvKWeight,
    /// Its bias, `[w]`.
    ConvKBias,
    /// Of layers whose states forget: the sigmoid of it stays after a mini-batch of the way from the first inner weights,
    /// `[h]`.
    Decay,
    /// Causal convolution before the layer, `[D, 1, k]`, if the block has one.
    PreConvWeight,
    /// Its bias, `[D]`.
    PreConvBias,
}

impl TttTensor {
    /// All kinds, in the order of a layer.
    pub const ALL: [TttTensor; 18] = [
        TttTensor::W1,
        TttTensor::B1,
        TttTensor::W2,
        TttTensor::B2,
        TttTensor::LrWeight,
        TttTensor::LrBias,
        TttTensor::TokenIdx,
        TttTensor::NormWeight,
        TttTensor::NormBias,
        TttTensor::PostNormWeight,
        TttTensor::PostNormBias,
        TttTensor::Decay,
        TttTensor::ConvQWeight,
        TttTensor::ConvQBias,
        TttTensor::ConvKWeight,
        TttTensor::ConvKBias,
        TttTensor::PreConvWeight,
        TttTensor::PreConvBias,
    ];

    /// The full name within a layer of a Hugging Face checkpoint; the official names follow `ttt.`.
    pub fn path(self) -> &'static str {
        match self {
            TttTensor::W1 => "ttt.W1",
            TttTensor::B1 => "ttt.b1",
            TttTensor::W2 => "ttt.W2",
            TttTensor::B2 => "ttt.b2",
            TttTensor::LrWeight => "ttt.learnable_ttt_lr_weight",
            TttTensor::LrBias => "ttt.learnable_ttt_lr_bias",
            TttTensor::TokenIdx => "ttt.learnable_token_idx",
            TttTensor::NormWeight => "ttt.ttt_norm_weight",
            TttTensor::NormBias => "ttt.ttt_norm_bias",
            TttTensor::PostNormWeight => "ttt.post_norm.weight",
            TttTensor::PostNormBias => "ttt.post_norm.bias",
            TttTensor::ConvQWeight => "ttt.conv_q.weight",
            TttTensor::ConvQBias => "ttt.conv_q.bias",
            TttTensor::ConvKWeight => "ttt.conv_k.weight",
            TttTensor::ConvKBias => "ttt.conv_k.bias",
            TttTensor::Decay => "ttt.learnable_decay",
            TttTensor::PreConvWeight => "conv.conv.weight",
            TttTensor::PreConvBias => "conv.conv.bias",
        }
    }

    /// The name within a layer of a GGUF file, and within a direction of an extractor.
    pub fn gguf_name(self) -> &'static str {
        match self {
            TttTensor::W1 => "ttt_w1.weight",
            TttTensor::B1 => "ttt_w1.bias",
            TttTensor::W2 => "ttt_w2.weight",
            TttTensor::B2 => "ttt_w2.bias",
            TttTensor::LrWeight => "ttt_lr.weight",
            TttTensor::LrBias => "ttt_lr.bias",
            TttTensor::TokenIdx => "ttt_token_idx",
            TttTensor::NormWeight => "ttt_inner_norm.weight",
            TttTensor::NormBias => "ttt_inner_norm.bias",
            TttTensor::PostNormWeight => "ttt_post_norm.weight",
            TttTensor::PostNormBias => "ttt_post_norm.bias",
            TttTensor::ConvQWeight => "ttt_conv_q.weight",
            TttTensor::ConvQBias => "ttt_conv_q.bias",
            TttTensor::ConvKWeight => "ttt_conv_k.weight",
            TttTensor::ConvKBias => "ttt_conv_k.bias",
            TttTensor::Decay => "ttt_decay",
            TttTensor::PreConvWeight => "ttt_conv.weight",
            TttTensor::PreConvBias => "ttt_conv.bias",
        }
    }

    /// The shape in a layer of this configuration; `None` if such a layer does not have the tensor.
    pub fn shape(self, c: &TttConfig) -> Option<Vec<usize>> {
        let (h, d, w) = (c.num_heads, c.head_dim, c.width());
        let inner = |i: usize| c.inner_shapes().get(i).map(|(_, [rows, cols])| vec![h, *rows, *cols]);
        match self {
            TttTensor::W1 => inner(0),
            TttTensor::B1 => inner(1),
            TttTensor::W2 => inner(2),
            TttTensor::B2 => inner(3),
            TttTensor::LrWeight => Some(vec![h, 1, c.hidden_size]),
            TttTensor::LrBias => Some(vec![h, 1]),
            TttTensor::TokenIdx => Some(vec![c.mini_batch_size]),
            TttTensor::NormWeight | TttTensor::NormBias => Some(vec![h, d]),
            TttTensor::PostNormWeight | TttTensor::PostNormBias => Some(vec![w]),
            TttTensor::ConvQWeight | TttTensor::ConvKWeight => c.share_qk.then(|| vec![w, 1, c.conv_kernel]),
            TttTensor::ConvQBias | TttTensor::ConvKBias => c.share_qk.then(|| vec![w]),
            TttTensor::Decay => c.decay.then(|| vec![h, 1]),
            TttTensor::PreConvWeight => c.pre_conv.then(|| vec![c.hidden_size, 1, c.conv_kernel]),
            TttTensor::PreConvBias => c.pre_conv.then(|| vec![c.hidden_size]),
        }
    }
}

impl ModelConfig {
    /// The projections of layer `l`, in the order of [`Projection::ALL`].
    pub fn layer_projections(&self, l: usize) -> impl Iterator<Item = Projection> + use<> {
        let (mixer, share_qk, gate) = (self.mixer(l), self.ttt.share_qk, self.ttt.use_gate);
        Projection::ALL.into_iter().filter(move |p| match (p, mixer) {
            (Projection::Qkv, _) => mixer == Mixer::GatedDelta,
            (Projection::Q | Projection::K | Projection::V, Mixer::GatedDelta) => false,
            (Projection::K, Mixer::TttLinear | Mixer::TttMlp) => !share_qk,
            (Projection::OutGate, Mixer::Attention) => false,
            (Projection::OutGate, Mixer::TttLinear | Mixer::TttMlp) => gate,
            _ => true,
        })
    }

    /// `[out, in]` of a projection of layer `l`.
    pub fn projection_shape(&self, l: usize, p: Projection) -> (usize, usize) {
        let width = self.num_attention_heads * self.head_dim;
        let (q, kv) = match self.mixer(l) {
            Mixer::Attention => (self.query_rows(), self.num_key_value_heads * self.head_dim),
            Mixer::TttLinear | Mixer::TttMlp => (width, width),
            Mixer::GatedDelta => return self.delta_projection_shape(p),
        };
        match p {
            Projection::Q => (q, self.hidden_size),
            Projection::OutGate => (width, self.hidden_size),
            Projection::K | Projection::V => (kv, self.hidden_size),
            Projection::Qkv => (q + 2 * kv, self.hidden_size),
            Projection::O => (self.hidden_size, width),
            Projection::Gate | Projection::Up => (self.intermediate_size, self.hidden_size),
            Projection::Down => (self.hidden_size, self.intermediate_size),
        }
    }

    /// The norms of layer `l`.
    pub fn layer_norms(&self, l: usize) -> impl Iterator<Item = Norm> + use<> {
        let attention = self.mixer(l) == Mixer::Attention;
        let conv = (self.ttt.pre_conv && self.mixer(l).ttt_kind().is_some()).then_some(Norm::PreConv(l));
        let sub = self.sub_norms.then_some([Norm::AttnSub(l), Norm::FfnSub(l)]);
        let heads = self.has_head_norms(l).then_some([Norm::HeadQ(l), Norm::HeadK(l)]);
        let outputs = self.output_norms.then_some([Norm::MixerOut(l), Norm::FfnOut(l)]);
        let own = (self.projection_norms && attention).then(|| self.layer_projections(l));
        conv.into_iter()
            .chain([Norm::Input(l), Norm::PostAttention(l)])
            .chain([sub, heads, outputs].into_iter().flatten().flatten())
            .chain(own.into_iter().flatten().map(move |p| Norm::ProjectionIn(l, p)))
    }

    /// Length of a norm's gain.
    pub fn norm_len(&self, n: Norm) -> usize {
        match n {
            Norm::PreConv(_) | Norm::Input(_) | Norm::PostAttention(_) | Norm::Final => self.hidden_size,
            Norm::MixerOut(_) | Norm::FfnOut(_) => self.hidden_size,
            Norm::HeadQ(_) | Norm::HeadK(_) => self.head_dim,
            Norm::ProjectionIn(l, p) => self.projection_shape(l, p).1,
            Norm::AttnSub(l) => self.projection_shape(l, Projection::O).1,
            Norm::FfnSub(_) => self.intermediate_size,
        }
    }

    /// The biases of layer `l`: the projection that each is added to, and its length.
    pub fn layer_biases(&self, l: usize) -> impl Iterator<Item = (Projection, usize)> + use<> {
        let has = self.qkv_bias && self.mixer(l) == Mixer::Attention;
        let of = [Projection::Q, Projection::K, Projection::V].map(|p| (p, self.projection_shape(l, p).0));
        of.into_iter().filter(move |_| has)
    }

    /// A norm's name within a layer of a Hugging Face checkpoint (for the last norm: within the model), without
    /// `.weight`.
    pub fn norm_path(&self, n: Norm) -> String {
        match n {
            Norm::PostAttention(_) if self.output_norms => "pre_feedforward_layernorm".into(),
            // The names of HunYuan.
            Norm::HeadQ(_) if self.head_norms_after_rope => "self_attn.query_layernorm".into(),
            Norm::HeadK(_) if self.head_norms_after_rope => "self_attn.key_layernorm".into(),
            _ => n.path(n.layer().map_or(Mixer::Attention, |l| self.mixer(l))),
        }
    }

    /// The full-precision tensors of layer `l` without its norms, with their shapes; none if it is attention.
    pub fn layer_ttt_tensors(&self, l: usize) -> impl Iterator<Item = (TttTensor, Vec<usize>)> + use<> {
        let layer = self.ttt_layer(l);
        TttTensor::ALL.into_iter().filter_map(move |t| Some((t, t.shape(layer.as_ref()?)?)))
    }

    /// A projection's name in a Hugging Face checkpoint, without `.weight`: `model.layers.0.ttt.q_proj`.
    pub fn projection_name(&self, l: usize, p: Projection) -> String {
        format!("model.layers.{l}.{}", p.path(self.mixer(l)))
    }

    /// A norm's name in a Hugging Face checkpoint: `model.layers.0.input_layernorm.weight`.
    pub fn norm_name(&self, n: Norm) -> String {
        match n.layer() {
            Some(l) => format!("model.layers.{l}.{}.weight", self.norm_path(n)),
            None => format!("model.{}.weight", self.norm_path(n)),
        }
    }

    /// A TTT layer's tensor in a Hugging Face checkpoint: `model.layers.0.ttt.W1`.
    pub fn ttt_tensor_name(&self, l: usize, t: TttTensor) -> String {
        format!("model.layers.{l}.{}", t.path())
    }
}
