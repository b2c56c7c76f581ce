//! The parameters of a layer one after the other, as trainers and optimizers hold them.

use std::ops::Range;

use crate::TttError;
use crate::config::TttConfig;
use crate::parameters::{ConvParameters, TttParameters};

/// The ranges of the parameters in a flat buffer: in the order of [`TttParameters`], convolutions as weight and bias.
#[derive(Clone, Debug)]
pub(super) struct Places {
    pub(super) inner: Vec<Range<usize>>,
    pub(super) lr_weight: Range<usize>,
    pub(super) lr_bias: Range<usize>,
    pub(super) token_idx: Range<usize>,
    pub(super) norm_weight: Range<usize>,
    pub(super) norm_bias: Range<usize>,
    pub(super) post_weight: Range<usize>,
    pub(super) post_bias: Range<usize>,
    /// Empty if states do not forget.
    pub(super) decay: Range<usize>,
    /// Weight and bias of `conv_q` and `conv_k`; empty if there are none.
    pub(super) convs: [[Range<usize>; 2]; 2],
    pub(super) len: usize,
}

impl Places {
    pub(super) fn new(config: &TttConfig) -> Self {
        let (h, d, w) = (config.num_heads, config.head_dim, config.width());
        let mut at = 0;
        let mut place = |len: usize| {
            at += len;
            at - len..at
        };
        let inner = config.inner_shapes().into_iter().map(|(_, [rows, cols])| place(h * rows * cols)).collect();
        let conv = if config.share_qk { [w * config.conv_kernel, w] } else { [0, 0] };
        let mut places = Self {
            inner,
            lr_weight: place(h * config.hidden_size),
            lr_bias: place(h),
            token_idx: place(config.mini_batch_size),
            norm_weight: place(h * d),
            norm_bias: place(h * d),
            post_weight: place(w),
            post_bias: place(w),
            decay: place(if config.decay { h } else { 0 }),
            convs: [conv.map(&mut place), conv.map(&mut place)],
            len: 0,
        };
        places.len = at;
        places
    }
}

impl TttParameters {
    /// The parameters in a flat buffer, one after the other in the order of the fields; of a convolution the weight
    /// before the bias. The gradients of [`RowWise::backward`](crate::RowWise::backward) are in the same places.
    ///
    /// # Errors
    /// [`TttError::Config`], [`TttError::Length`].
    pub fn from_flat(config: &TttConfig, values: &[f32]) -> Result<Self, TttError> {
        config.validate()?;
        let places = Places::new(config);
        if values.len() != places.len {
            let tensor = "all parameters of a layer".to_owned();
            return Err(TttError::Length { tensor, expected: places.len, got: values.len() });
        }
        let part = |r: &Range<usize>| values[r.clone()].to_vec();
        let conv = |[weight, bias]: &[Range<usize>; 2]| ConvParameters { weight: part(weight), bias: part(bias) };
        Ok(Self {
            inner: places.inner.iter().map(part).collect(),
            lr_weight: part(&places.lr_weight),
            lr_bias: part(&places.lr_bias),
            token_idx: part(&places.token_idx),
            norm_weight: part(&places.norm_weight),
            norm_bias: part(&places.norm_bias),
            post_norm_weight: part(&places.post_weight),
            post_norm_bias: part(&places.post_bias),
            decay: part(&places.decay),
            convs: config.share_qk.then(|| [conv(&places.convs[0]), conv(&places.convs[1])]),
        })
    }
}
