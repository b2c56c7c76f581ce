//! Shape and constants of one layer.

use crate::TttError;

/// The small model whose weights are the memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Kind {
    /// `f(x) = x + LN(x W1 + b1)`; `W1` is `[d, d]` per head.
    Linear,
    /// `f(x) = x + LN(gelu(x W1 + b1) W2 + b2)`; `W1` is `[d, 4 d]`, `W2` is `[4 d, d]` per head.
    Mlp,
}

impl Kind {
    /// `linear` or `mlp`, the word that checkpoints use.
    pub fn name(self) -> &'static str {
        match self {
            Kind::Linear => "linear",
            Kind::Mlp => "mlp",
        }
    }

    /// The kind of that name.
    pub fn from_name(name: &str) -> Option<Self> {
        [Kind::Linear, Kind::Mlp].into_iter().find(|k| k.name() == name)
    }
}

/// Which elements of a head the rotary embedding pairs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum RopePairs {
    /// Elements `2 i` and `2 i + 1`: the official models.
    Neighbours,
    /// Elements `i` and `i + d / 2`.
    Halves,
}

/// Shape and constants of one TTT layer.
///
/// Letters in the documentation of this crate: `D` hidden size, `h` heads, `d` elements of a head, `w = h d`, `b`
/// tokens of a mini-batch, `T` tokens.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct TttConfig {
    /// The inner model.
    pub kind: Kind,
    /// Elements of an input token, `D`.
    pub hidden_size: usize,
    /// Heads, each with its own inner model.
    pub num_heads: usize,
    /// Elements of a head, a multiple of 2.
    pub head_dim: usize,
    /// Tokens whose gradients are taken at the same inner weights.
    pub mini_batch_size: usize,
    /// Largest inner learning rate, before the division by `d`: 1 for [`Kind::Linear`] and 0.1 for [`Kind::Mlp`] in the
    /// paper (arXiv:2407.04620, appendix C).
    pub base_lr: f32,
    /// One projection for queries and keys, which two causal convolutions distinguish.
    pub share_qk: bool,
    /// Taps of the causal convolutions.
    pub conv_kernel: usize,
    /// Whether the output is multiplied by `gelu(X Wg)`.
    pub use_gate: bool,
    /// Whether a causal convolution precedes the layer in its block. It is part of the block, but its window is part of
    /// the layer's state.
    pub pre_conv: bool,
    /// Whether inner weights fall back towards the first ones after each mini-batch, by a share that each head learns: a
    /// state then forgets.
    pub decay: bool,
    /// Base of the rotary embedding, whose position is that within the mini-batch.
    pub rope_theta: f32,
    /// Which elements the rotary embedding pairs.
    pub rope_pairs: RopePairs,
    /// Added to the variance in the inner and in the output norm.
    pub norm_eps: f32,
}

/// More elements than this in one dimension are taken for a damaged file.
const LARGEST: usize = 1 << 20;

impl TttConfig {
    /// A layer as in the official models without convolutions and gate: mini-batches of 16 tokens, `D = h d`.
    pub fn new(kind: Kind, num_heads: usize, head_dim: usize) -> Self {
        Self {
            kind,
            hidden_size: num_heads.saturating_mul(head_dim),
            num_heads,
            head_dim,
            mini_batch_size: 16,
            base_lr: if kind == Kind::Linear { 1.0 } else { 0.1 },
            share_qk: false,
            conv_kernel: 4,
            use_gate: false,
            pre_conv: false,
            decay: false,
            rope_theta: 10000.0,
            rope_pairs: RopePairs::Neighbours,
            norm_eps: 1e-6,
        }
    }

    /// Checks every field; all constructors call it.
    ///
    /// # Errors
    /// [`TttError::Config`], which names the first field that does not fit.
    pub fn validate(&self) -> Result<(), TttError> {
        let error = |field, value: String, requirement| Err(TttError::Config { field, value, requirement });
        let sizes = [
            ("hidden_size", self.hidden_size),
            ("num_heads", self.num_heads),
            ("head_dim", self.head_dim),
            ("mini_batch_size", self.mini_batch_size),
            ("conv_kernel", self.conv_kernel),
        ];
        for (field, value) in sizes {
            if value == 0 || value > LARGEST {
                return error(field, value.to_string(), "it has to be between 1 and 2^20");
            }
        }
        if !self.head_dim.is_multiple_of(2) {
            return error("head_dim", self.head_dim.to_string(), "the rotary embedding needs an even number");
        }
        for (field, value) in [("base_lr", self.base_lr), ("norm_eps", self.norm_eps), ("rope_theta", self.rope_theta)]
        {
            if !(value.is_finite() && value > 0.0) {
                return error(field, value.to_string(), "it has to be positive and finite");
            }
        }
        match self.state_floats() {
            Some(floats) if floats <= isize::MAX as usize / 8 => Ok(()),
            _ => error("num_heads", self.num_heads.to_string(), "heads of that size do not fit the address space"),
        }
    }

    /// Elements of all heads, `w = h d`.
    pub fn width(&self) -> usize {
        self.num_heads * self.head_dim
    }

    /// Elements of the hidden layer of a head's inner model: `4 d` for [`Kind::Mlp`].
    pub(crate) fn inner_dim(&self) -> usize {
        4 * self.head_dim
    }

    /// Names and shapes of a head's inner weights, `[rows, columns]`, in the order in which states hold them.
    pub fn inner_shapes(&self) -> Vec<(&'static str, [usize; 2])> {
        let (d, m) = (self.head_dim, self.inner_dim());
        match self.kind {
            Kind::Linear => vec![("W1", [d, d]), ("b1", [1, d])],
            Kind::Mlp => vec![("W1", [d, m]), ("b1", [1, m]), ("W2", [m, d]), ("b2", [1, d])],
        }
    }

    /// Floats of one head's state: inner weights, the rows of the open mini-batch, the window of the convolutions.
    /// `None` if that overflows.
    pub(crate) fn head_floats(&self) -> Option<usize> {
        let (d, b) = (self.head_dim, self.mini_batch_size);
        let mut floats = 0usize;
        for (_, [rows, cols]) in self.inner_shapes() {
            floats = floats.checked_add(rows.checked_mul(cols)?)?;
            // Inputs of each matrix and gradients of its outputs.
            let per_token = if rows > 1 { rows.checked_add(cols)? } else { 0 };
            floats = floats.checked_add(per_token.checked_mul(b)?)?;
        }
        if self.share_qk {
            floats = floats.checked_add((self.conv_kernel - 1).checked_mul(d)?)?;
        }
        Some(floats)
    }

    /// Floats of the window of the convolutions of queries and keys, with which a head's state ends.
    pub(crate) fn head_window(&self) -> usize {
        if self.share_qk { (self.conv_kernel - 1) * self.head_dim } else { 0 }
    }

    /// Floats of a state: those of all heads and the window of the convolution before the layer.
    pub(crate) fn state_floats(&self) -> Option<usize> {
        let window = if self.pre_conv { (self.conv_kernel - 1).checked_mul(self.hidden_size)? } else { 0 };
        self.head_floats()?.checked_mul(self.num_heads)?.checked_add(window)
    }

    /// Numbers that a fingerprint of the configuration is made of.
    pub(crate) fn identity(&self) -> Vec<u64> {
        let mut all = vec![
            self.kind as u64,
            self.hidden_size as u64,
            self.num_heads as u64,
            self.head_dim as u64,
            self.mini_batch_size as u64,
            u64::from(self.base_lr.to_bits()),
            u64::from(self.share_qk),
            self.conv_kernel as u64,
            u64::from(self.use_gate),
            u64::from(self.pre_conv),
            u64::from(self.rope_theta.to_bits()),
            self.rope_pairs as u64,
            u64::from(self.norm_eps.to_bits()),
        ];
        if self.decay {
            // States without it keep the fingerprint that they had before there was one.
            all.push(1);
        }
        all
    }
}

/// A projection of the layer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Projection {
    /// Queries (and keys if they share a projection); `D` to `w`.
    Q,
    /// Keys, `D` to `w`.
    K,
    /// Values, `D` to `w`.
    V,
    /// The gate, `D` to `w`.
    Gate,
    /// The output, `w` to `D`.
    O,
}

impl Projection {
    /// The name in checkpoints: `q_proj`, `k_proj`, `v_proj`, `g_proj`, `o_proj`.
    pub fn name(self) -> &'static str {
        match self {
            Projection::Q => "q_proj",
            Projection::K => "k_proj",
            Projection::V => "v_proj",
            Projection::Gate => "g_proj",
            Projection::O => "o_proj",
        }
    }

    /// The projections that a layer of this configuration has.
    pub fn of(config: &TttConfig) -> impl Iterator<Item = Projection> {
        let (share, gate) = (config.share_qk, config.use_gate);
        let all = [Projection::Q, Projection::K, Projection::V, Projection::Gate, Projection::O];
        all.into_iter().filter(move |p| match p {
            Projection::K => !share,
            Projection::Gate => gate,
            _ => true,
        })
    }

    /// Inputs and outputs.
    pub fn shape(self, config: &TttConfig) -> (usize, usize) {
        match self {
            Projection::O => (config.width(), config.hidden_size),
            _ => (config.hidden_size, config.width()),
        }
    }
}
