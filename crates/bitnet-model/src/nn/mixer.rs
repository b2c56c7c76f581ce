//! Token mixers: attention, or a test-time-training layer.

use std::collections::HashMap;

use candle_core::{DType, Device, Result, Tensor};
use candle_nn::{Module, VarBuilder};
use ttt_layer::{CausalConv, Form, TttConfig, TttLayer};

use super::{Attention, BitLinear, RmsNorm, Trace};
use crate::config::{Mixer, Projection, TttTensor};
use crate::{ModelConfig, ModelError, TttWeights};

/// The mixer of a layer.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum TokenMixer {
    /// Softmax attention.
    Attention(Box<Attention>),
    /// A test-time-training layer.
    Ttt(Box<TttBlock>),
}

impl TokenMixer {
    pub(super) fn attention(
        config: &ModelConfig,
        linear: impl Fn(Projection) -> Result<BitLinear>,
        sub_norm: Option<RmsNorm>,
        [q_norm, k_norm]: [Option<RmsNorm>; 2],
    ) -> Result<Self> {
        use Projection::{K, O, Q, V};
        let projections = [linear(Q)?, linear(K)?, linear(V)?, linear(O)?];
        let head_norms = q_norm.zip(k_norm).map(|(q, k)| [q, k]);
        let attention = Attention::new(config, projections, sub_norm).with_head_norms(head_norms);
        Ok(TokenMixer::Attention(Box::new(attention)))
    }

    /// The attention block, if the mixer is one.
    pub fn as_attention(&self) -> Option<&Attention> {
        match self {
            TokenMixer::Attention(attention) => Some(attention),
            TokenMixer::Ttt(_) => None,
        }
    }

    /// The test-time-training layer, if the mixer is one.
    pub fn as_ttt(&self) -> Option<&TttBlock> {
        match self {
            TokenMixer::Attention(_) => None,
            TokenMixer::Ttt(ttt) => Some(ttt),
        }
    }
}

/// A ternary projection with the norm before it, if any.
#[derive(Clone, Debug)]
pub struct NormedLinear {
    /// The sub-norm before the output projection.
    pub norm: Option<RmsNorm>,
    /// The projection.
    pub linear: BitLinear,
}

impl Module for NormedLinear {
    fn forward(&self, x: &Tensor) -> Result<Tensor> {
        match &self.norm {
            Some(norm) => self.linear.forward(&norm.forward(x)?),
            None => self.linear.forward(x),
        }
    }
}

/// A test-time-training layer with ternary projections: `o(sub_norm(gelu(g(x)) * post_norm(inner loop)))`.
///
/// Inner weights, learning rates, norms and convolutions are in full precision, and gradients reach all of them,
/// through all mini-batches. Paper: arXiv:2407.04620.
#[derive(Clone, Debug)]
pub struct TttBlock {
    /// The layer.
    pub layer: TttLayer<NormedLinear>,
    /// Norm and causal convolution before it, if the block has them.
    pub pre_conv: Option<(RmsNorm, CausalConv)>,
}

impl TttBlock {
    /// The block whose tensors are under `vb` (the prefix of the whole layer) with the names of [`TttTensor::path`], or
    /// are created there; `linear` makes the projections.
    ///
    /// # Errors
    /// Errors of candle: no such tensor, another shape.
    pub fn new(
        config: &TttConfig,
        vb: VarBuilder,
        linear: impl Fn(Projection) -> Result<BitLinear>,
        sub_norm: Option<RmsNorm>,
        pre_conv_norm: Option<RmsNorm>,
    ) -> std::result::Result<Self, ModelError> {
        let make = |p: ttt_layer::Projection| -> Result<NormedLinear> {
            let (which, norm) = match p {
                ttt_layer::Projection::Q => (Projection::Q, None),
                ttt_layer::Projection::K => (Projection::K, None),
                ttt_layer::Projection::V => (Projection::V, None),
                ttt_layer::Projection::Gate => (Projection::OutGate, None),
                ttt_layer::Projection::O => (Projection::O, sub_norm.clone()),
            };
            Ok(NormedLinear { norm, linear: linear(which)? })
        };
        let layer = TttLayer::new(config, vb.pp("ttt"), |p, _, _, _| make(p))?;
        let pre_conv = match pre_conv_norm {
            Some(norm) => {
                let conv = CausalConv::new(config.hidden_size, config.conv_kernel, vb.pp("conv").pp("conv"))?;
                Some((norm, conv))
            }
            None => None,
        };
        Ok(Self { layer, pre_conv })
    }

    /// The block with these frozen weights on `device`.
    ///
    /// # Errors
    /// Errors of candle, for example out of memory.
    pub fn from_weights(
        weights: &TttWeights,
        linear: impl Fn(Projection) -> Result<BitLinear>,
        sub_norm: Option<RmsNorm>,
        pre_conv_norm: Option<RmsNorm>,
        device: &Device,
    ) -> std::result::Result<Self, ModelError> {
        let tensor = |(t, shape, values): (TttTensor, Vec<usize>, &[f32])| -> Result<(String, Tensor)> {
            Ok((t.path().to_owned(), Tensor::from_slice(values, shape, device)?))
        };
        let tensors: HashMap<String, Tensor> = weights.tensors().map(tensor).collect::<Result<_>>()?;
        let vb = VarBuilder::from_tensors(tensors, DType::F32, device);
        Self::new(&weights.config, vb, linear, sub_norm, pre_conv_norm)
    }

    /// A projection, if the layer has it.
    pub fn projection(&self, which: Projection) -> Option<&BitLinear> {
        let p = self.layer.projections();
        let found = match which {
            Projection::Q => Some(&p.q),
            Projection::K => p.k.as_ref(),
            Projection::V => Some(&p.v),
            Projection::OutGate => p.gate.as_ref(),
            Projection::O => Some(&p.o),
            Projection::Qkv | Projection::Gate | Projection::Up | Projection::Down => None,
        };
        found.map(|l| &l.linear)
    }

    /// The norm before the output projection, if there is one.
    pub fn sub_norm(&self) -> Option<&RmsNorm> {
        self.layer.projections().o.norm.as_ref()
    }

    /// `h + conv(norm(h))` if the block has a convolution, else `h`; `[b, t, hidden]`.
    pub(super) fn convolve(&self, h: &Tensor, trace: &mut Trace) -> Result<Tensor> {
        let Some((norm, conv)) = &self.pre_conv else { return Ok(h.clone()) };
        let x = trace.see("conv.norm", norm.forward(h)?)?;
        h + trace.see("conv.conv", conv.forward(&x)?)?
    }

    /// `x` is `[b, t, hidden]`, after the input norm; the result has its shape.
    ///
    /// # Errors
    /// Errors of candle, for shapes that do not fit.
    pub fn forward(&self, x: &Tensor) -> Result<Tensor> {
        self.forward_traced(x, &mut Trace::off())
    }

    pub(super) fn forward_traced(&self, x: &Tensor, trace: &mut Trace) -> Result<Tensor> {
        let views = self.layer.views(x)?;
        let (inner, _) = self.layer.inner_loop(&views, &self.layer.first_weights(x.dim(0)?)?, Form::Dual)?;
        let block = Projection::O.path(Mixer::TttLinear);
        trace.see(&block, self.layer.finish(x, &inner)?)
    }

    /// The full-precision tensors of the block.
    pub(super) fn weights(&self) -> std::result::Result<TttWeights, ModelError> {
        let parameters = self.layer.parameters()?;
        let pre_conv = match &self.pre_conv {
            Some((_, conv)) => Some(ttt_layer::ConvParameters {
                weight: super::export::floats(conv.weight())?,
                bias: super::export::floats(conv.bias())?,
            }),
            None => None,
        };
        Ok(TttWeights { config: self.layer.config().clone(), parameters, pre_conv })
    }
}
