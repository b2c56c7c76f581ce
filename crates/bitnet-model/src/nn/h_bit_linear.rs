//! `HBitLinear`: the linear layer of BitNet v2 as a candle module.

use candle_core::{Result, Tensor};
use candle_nn::{Module, VarBuilder};

use super::{BitLinear, bit_linear};
use crate::config::InputForm;

/// A linear layer with ternary weights after a Hadamard transform, with int8 or int4 activations:
/// `y = (Q(H x) T^T) * alpha / s`.
///
/// `x` is `[.., in]`, normalised; `y` is `[.., out]` in its dtype. The transform makes activations with outliers nearly
/// Gaussian, which four bits can represent. It is applied to activations only: the weights are learned for rotated
/// inputs, so a model trained with it never runs without it, and vice versa. Gradients pass straight through the
/// quantisers, including saturated codes, and through the transform unchanged: `dL/dx = H (dL/dy (alpha T))`.
///
/// Paper: arXiv:2504.18415, equations 6 to 8.
///
/// ```
/// use bitnet_model::nn::h_bit_linear;
/// use bitnet_model::{ActivationBits, InputForm};
/// use candle_core::{DType, Device, Tensor};
/// use candle_nn::{Module, VarBuilder, VarMap};
///
/// let vars = VarMap::new();
/// let vb = VarBuilder::from_varmap(&vars, DType::F32, &Device::Cpu);
/// let form = InputForm { hadamard: Some(8), bits: ActivationBits::Four };
/// let layer = h_bit_linear(8, 4, form, vb.pp("proj"))?;
/// let x = Tensor::randn(0f32, 1., (3, 8), &Device::Cpu)?;
/// let grads = layer.forward(&x)?.sqr()?.sum_all()?.backward()?;
/// assert!(grads.get(&vars.all_vars()[0]).is_some());
/// # Ok::<(), candle_core::Error>(())
/// ```
#[derive(Clone, Debug)]
pub struct HBitLinear(BitLinear);

/// A trainable layer whose master weight `[out_dim, in_dim]` is called `weight` under `vb`, like that of
/// [`bit_linear`].
///
/// # Errors
/// The errors of [`bit_linear`]; a block that does not fit `in_dim`.
pub fn h_bit_linear(in_dim: usize, out_dim: usize, form: InputForm, vb: VarBuilder) -> Result<HBitLinear> {
    HBitLinear::new(bit_linear(in_dim, out_dim, vb)?, form)
}

impl HBitLinear {
    /// The weights of `linear` with inputs in `form`.
    ///
    /// # Errors
    /// A block that is not a power of two or does not divide the input width.
    pub fn new(linear: BitLinear, form: InputForm) -> Result<Self> {
        linear.with_input(form).map(Self)
    }

    /// The weights and the form of their input.
    pub fn linear(&self) -> &BitLinear {
        &self.0
    }
}

impl Module for HBitLinear {
    fn forward(&self, x: &Tensor) -> Result<Tensor> {
        self.0.forward(x)
    }
}
