//! The parameters of a layer as plain numbers.

use crate::TttError;
use crate::config::TttConfig;

/// Weights of a depthwise causal convolution.
#[derive(Clone, Debug, PartialEq)]
pub struct ConvParameters {
    /// `[C, k]`, the last tap belongs to the current token.
    pub weight: Vec<f32>,
    /// `[C]`.
    pub bias: Vec<f32>,
}

impl ConvParameters {
    /// Checks the lengths for `channels` channels and `kernel` taps.
    pub(crate) fn validate(&self, name: &str, channels: usize, kernel: usize) -> Result<(), TttError> {
        length(&format!("{name}.weight"), &self.weight, channels.saturating_mul(kernel))?;
        length(&format!("{name}.bias"), &self.bias, channels)
    }
}

/// Everything that a layer learns except its projections, f32 and row-major, under the names of the official
/// checkpoints.
#[derive(Clone, Debug, PartialEq)]
pub struct TttParameters {
    /// `W1`, `b1` and for [`Kind::Mlp`](crate::Kind::Mlp) `W2`, `b2`, each `[h, rows, columns]` with the shapes of
    /// [`TttConfig::inner_shapes`].
    pub inner: Vec<Vec<f32>>,
    /// `learnable_ttt_lr_weight`, `[h, D]`.
    pub lr_weight: Vec<f32>,
    /// `learnable_ttt_lr_bias`, `[h]`.
    pub lr_bias: Vec<f32>,
    /// `learnable_token_idx`, `[b]`.
    pub token_idx: Vec<f32>,
    /// `ttt_norm_weight`, `[h, d]`.
    pub norm_weight: Vec<f32>,
    /// `ttt_norm_bias`, `[h, d]`.
    pub norm_bias: Vec<f32>,
    /// `post_norm.weight`, `[w]`.
    pub post_norm_weight: Vec<f32>,
    /// `post_norm.bias`, `[w]`.
    pub post_norm_bias: Vec<f32>,
    /// `learnable_decay`, `[h]`, if states forget: the sigmoid of it is the share of the way from the first inner weights
    /// that stays after a mini-batch. Otherwise empty.
    pub decay: Vec<f32>,
    /// `conv_q` and `conv_k` if queries and keys share a projection.
    pub convs: Option<[ConvParameters; 2]>,
}

fn length(tensor: &str, values: &[f32], expected: usize) -> Result<(), TttError> {
    if values.len() == expected {
        return Ok(());
    }
    Err(TttError::Length { tensor: tensor.to_owned(), expected, got: values.len() })
}

impl TttParameters {
    /// Checks every length.
    ///
    /// # Errors
    /// [`TttError::Config`], [`TttError::Length`].
    pub fn validate(&self, config: &TttConfig) -> Result<(), TttError> {
        config.validate()?;
        let (h, d, w) = (config.num_heads, config.head_dim, config.width());
        let shapes = config.inner_shapes();
        if self.inner.len() != shapes.len() {
            return Err(TttError::Length {
                tensor: "inner weights".into(),
                expected: shapes.len(),
                got: self.inner.len(),
            });
        }
        for ((name, [rows, cols]), values) in shapes.iter().zip(&self.inner) {
            length(name, values, h * rows * cols)?;
        }
        length("learnable_ttt_lr_weight", &self.lr_weight, h * config.hidden_size)?;
        length("learnable_ttt_lr_bias", &self.lr_bias, h)?;
        length("learnable_token_idx", &self.token_idx, config.mini_batch_size)?;
        length("ttt_norm_weight", &self.norm_weight, h * d)?;
        length("ttt_norm_bias", &self.norm_bias, h * d)?;
        length("post_norm.weight", &self.post_norm_weight, w)?;
        length("post_norm.bias", &self.post_norm_bias, w)?;
        length("learnable_decay", &self.decay, if config.decay { h } else { 0 })?;
        match &self.convs {
            Some([q, k]) if config.share_qk => {
                q.validate("conv_q", w, config.conv_kernel)?;
                k.validate("conv_k", w, config.conv_kernel)
            }
            None if !config.share_qk => Ok(()),
            convs => Err(TttError::Length {
                tensor: "conv_q and conv_k".into(),
                expected: if config.share_qk { 2 } else { 0 },
                got: if convs.is_some() { 2 } else { 0 },
            }),
        }
    }
}
