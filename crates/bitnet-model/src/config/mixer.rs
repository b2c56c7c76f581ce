//! Token mixers of layers: attention, or a test-time-training layer and its constants.

use ttt_layer::{Kind, RopePairs, TttConfig};

use super::ModelConfig;

/// How a layer passes what it has read on to later tokens.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Mixer {
    /// Softmax attention; its memory grows with every token.
    #[default]
    Attention,
    /// TTT-Linear (arXiv:2407.04620): a linear model per head that learns while it reads; its memory has constant size.
    TttLinear,
    /// TTT-MLP: like [`Mixer::TttLinear`], with a model of two layers.
    TttMlp,
    /// The gated delta rule (Gated DeltaNet, arXiv:2412.06464): a matrix per head that fades and is corrected while it
    /// reads; its memory has constant size.
    GatedDelta,
}

impl Mixer {
    /// All mixers.
    pub const ALL: [Mixer; 4] = [Mixer::Attention, Mixer::TttLinear, Mixer::TttMlp, Mixer::GatedDelta];

    /// The name in files: `attention`, `ttt_linear`, `ttt_mlp`; `gated_delta` is only for display, since files name it
    /// differently.
    pub fn name(self) -> &'static str {
        match self {
            Mixer::Attention => "attention",
            Mixer::TttLinear => "ttt_linear",
            Mixer::TttMlp => "ttt_mlp",
            Mixer::GatedDelta => "gated_delta",
        }
    }

    /// The mixer with this name.
    pub fn from_name(name: &str) -> Option<Self> {
        Mixer::ALL.into_iter().find(|m| m.name() == name)
    }

    /// The inner model, if there is one.
    pub fn ttt_kind(self) -> Option<Kind> {
        match self {
            Mixer::Attention | Mixer::GatedDelta => None,
            Mixer::TttLinear => Some(Kind::Linear),
            Mixer::TttMlp => Some(Kind::Mlp),
        }
    }
}

/// Constants shared by all test-time-training layers of a model. Heads and their width are those of attention.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct TttOptions {
    /// Tokens whose gradients are taken at the same inner weights.
    pub mini_batch_size: usize,
    /// Largest inner learning rate of TTT-Linear layers, before the division by the head's width.
    pub base_lr_linear: f32,
    /// Largest inner learning rate of TTT-MLP layers, before the division by the head's width.
    pub base_lr_mlp: f32,
    /// One projection for queries and keys, which two causal convolutions distinguish.
    pub share_qk: bool,
    /// Taps of the causal convolutions.
    pub conv_kernel: usize,
    /// Whether the output is multiplied by `gelu(x Wg)`.
    pub use_gate: bool,
    /// Whether a norm and a causal convolution precede the layer in its block.
    pub pre_conv: bool,
    /// Whether inner weights fall back towards the first ones after each mini-batch, by a share that heads learn.
    pub decay: bool,
    /// Base of the rotary embedding, whose positions count within the mini-batch.
    pub rope_theta: f32,
    /// Which elements the rotary embedding pairs.
    pub rope_pairs: RopePairs,
    /// Added to the variance in the inner norm and in the norm after the inner loop.
    pub norm_eps: f32,
}

impl Default for TttOptions {
    /// The official values, with separate projections for queries and keys, without gate and convolutions.
    fn default() -> Self {
        let (linear, mlp) = (TttConfig::new(Kind::Linear, 1, 2), TttConfig::new(Kind::Mlp, 1, 2));
        Self {
            mini_batch_size: linear.mini_batch_size,
            base_lr_linear: linear.base_lr,
            base_lr_mlp: mlp.base_lr,
            share_qk: linear.share_qk,
            conv_kernel: linear.conv_kernel,
            use_gate: linear.use_gate,
            pre_conv: linear.pre_conv,
            decay: linear.decay,
            rope_theta: linear.rope_theta,
            rope_pairs: linear.rope_pairs,
            norm_eps: linear.norm_eps,
        }
    }
}

impl ModelConfig {
    /// The mixer of layer `l`.
    pub fn mixer(&self, l: usize) -> Mixer {
        self.mixers.get(l).copied().unwrap_or_default()
    }

    /// Shape and constants of the test-time-training layer `l`; `None` if it is another layer.
    ///
    /// ```
    /// use bitnet_model::{Mixer, ModelConfig};
    /// let mut c = ModelConfig::new(96, 64, 128, 2, 4, 2);
    /// c.mixers = vec![Mixer::TttLinear, Mixer::Attention];
    /// assert_eq!(c.ttt_layer(0).unwrap().width(), 64);
    /// assert!(c.ttt_layer(1).is_none());
    /// ```
    pub fn ttt_layer(&self, l: usize) -> Option<TttConfig> {
        let kind = self.mixer(l).ttt_kind()?;
        let o = &self.ttt;
        let mut c = TttConfig::new(kind, self.num_attention_heads, self.head_dim);
        c.hidden_size = self.hidden_size;
        c.mini_batch_size = o.mini_batch_size;
        c.base_lr = match kind {
            Kind::Linear => o.base_lr_linear,
            Kind::Mlp => o.base_lr_mlp,
        };
        c.share_qk = o.share_qk;
        c.conv_kernel = o.conv_kernel;
        c.use_gate = o.use_gate;
        c.pre_conv = o.pre_conv;
        c.decay = o.decay;
        c.rope_theta = o.rope_theta;
        c.rope_pairs = o.rope_pairs;
        c.norm_eps = o.norm_eps;
        Some(c)
    }

    /// Whether any layer is a test-time-training layer.
    pub fn has_ttt(&self) -> bool {
        self.mixers.iter().take(self.num_hidden_layers).any(|m| m.ttt_kind().is_some())
    }

    /// Whether any layer has a state of constant size, which cannot be rewound to an earlier token.
    pub fn is_recurrent(&self) -> bool {
        self.attention_layers() < self.num_hidden_layers
    }

    /// Layers whose mixer is attention.
    pub fn attention_layers(&self) -> usize {
        let others = self.mixers.iter().take(self.num_hidden_layers).filter(|m| **m != Mixer::Attention).count();
        self.num_hidden_layers - others
    }

    /// The longest text that the model can hold, in tokens: [`max_position_embeddings`](Self::max_position_embeddings)
    /// if any layer is attention; `None` (no limit) if all layers have states of constant size.
    pub fn context_limit(&self) -> Option<usize> {
        (self.attention_layers() > 0).then_some(self.max_position_embeddings)
    }
}
