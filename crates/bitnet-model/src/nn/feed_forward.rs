//! The gated feed-forward block.

use candle_core::{Result, Tensor};
use candle_nn::Module;

use super::{BitLinear, RmsNorm, Trace};
use crate::Activation;

/// `down_proj(norm(act(gate_proj(x)) * up_proj(x)))`; `x` and the result are `[.., hidden]`.
#[derive(Clone, Debug)]
pub struct FeedForward {
    /// Gate, `[ffn, hidden]`.
    pub gate_proj: BitLinear,
    /// Up projection, `[ffn, hidden]`.
    pub up_proj: BitLinear,
    /// Down projection, `[hidden, ffn]`.
    pub down_proj: BitLinear,
    /// Norm before the down projection.
    pub sub_norm: Option<RmsNorm>,
    /// Activation of the gate.
    pub activation: Activation,
}

impl FeedForward {
    pub(super) fn forward_traced(&self, x: &Tensor, trace: &mut Trace) -> Result<Tensor> {
        let gate = trace.see("mlp.gate_proj", self.gate_proj.forward(x)?)?;
        let up = trace.see("mlp.up_proj", self.up_proj.forward(x)?)?;
        let gate = match self.activation {
            Activation::Relu2 => gate.relu()?.sqr()?,
            Activation::Silu => gate.silu()?,
            Activation::GeluTanh => gate.gelu()?,
        };
        let mut inner = (gate * up)?;
        if let Some(norm) = &self.sub_norm {
            inner = trace.see("mlp.ffn_sub_norm", norm.forward(&inner)?)?;
        }
        trace.see("mlp.down_proj", self.down_proj.forward(&inner)?)
    }
}

impl Module for FeedForward {
    fn forward(&self, x: &Tensor) -> Result<Tensor> {
        self.forward_traced(x, &mut Trace::off())
    }
}
