//! `BitLinear`: the ternary linear layer as a candle module.

use candle_core::{DType, Device, Result, Tensor, bail};
use candle_nn::{Module, VarBuilder, init};
use ternary_kernels::ops::check_hadamard_block;
use ternary_kernels::{Scales, TernaryMatrix};

use super::hadamard::hadamard;
use super::quantize::{activation_codes, activation_codes_int4, weight_trits};
use crate::ModelError;
use crate::config::{ActivationBits, InputForm};

/// Most columns for which `sum_k q_k T_k` is exact in f32 for every input: `127 * 132104 < 2^24`.
pub const MAX_EXACT_F32_COLS: usize = (1 << 24) / 127;

/// A linear layer with ternary weights and int8 activations (or those that [`BitLinear::with_input`] asks for):
/// `y = (q T^T) * alpha / s`.
///
/// `x` is `[.., in]`, `y` is `[.., out]` in the dtype of `x`; there is no bias. `q` and `s` come from
/// [`activation_codes`](super::activation_codes), one scale per token. Two kinds share one forward pass:
///
/// - from a **master weight** ([`bit_linear`], [`BitLinear::from_master`]): quantised anew by
///   [`weight_trits`](super::weight_trits) in every call, so an optimizer may move it; gradients pass straight through both
///   quantisers: `dL/dx = dL/dy (alpha T)`, `dL/dW = (dL/dy)^T (q / s)`;
/// - from **ternary weights** ([`BitLinear::from_ternary`]): frozen; gradients reach `x` only.
///
/// The integers `q T^T` are exact in both (see the [module documentation](super)), so a model computes the same after
/// training as during it. Trits are held as f32, 4 bytes each.
///
/// ```
/// use bitnet_model::nn::bit_linear;
/// use candle_core::{DType, Device, Tensor};
/// use candle_nn::{Module, VarBuilder, VarMap};
///
/// let vars = VarMap::new();
/// let vb = VarBuilder::from_varmap(&vars, DType::F32, &Device::Cpu);
/// let layer = bit_linear(8, 4, vb.pp("proj"))?; // where candle_nn::linear_no_bias(8, 4, ..) stood
/// let x = Tensor::randn(0f32, 1., (3, 8), &Device::Cpu)?;
/// let grads = layer.forward(&x)?.sqr()?.sum_all()?.backward()?;
/// assert!(grads.get(&vars.all_vars()[0]).is_some());
/// # Ok::<(), candle_core::Error>(())
/// ```
#[derive(Clone, Debug)]
pub struct BitLinear {
    weights: Weights,
    in_dim: usize,
    out_dim: usize,
    input: InputForm,
}

#[derive(Clone, Debug)]
enum Weights {
    /// `[out, in]`, any float dtype.
    Master(Tensor),
    /// `trits` `[out, in]`, `alpha` `[]` or `[out]`, both f32.
    Ternary { trits: Tensor, alpha: Tensor },
}

/// A trainable layer whose master weight `[out_dim, in_dim]` is called `weight` under `vb`; created there, initialised
/// as `candle_nn::linear_no_bias` does, if `vb` creates variables.
///
/// # Errors
/// Errors of candle: no such tensor, another shape.
pub fn bit_linear(in_dim: usize, out_dim: usize, vb: VarBuilder) -> Result<BitLinear> {
    let w = vb.get_with_hints((out_dim, in_dim), "weight", init::DEFAULT_KAIMING_NORMAL)?;
    BitLinear::from_master(w)
}

impl BitLinear {
    /// A layer that quantises `weight` `[out, in]` in every forward pass.
    ///
    /// # Errors
    /// If `weight` has another rank than 2.
    pub fn from_master(weight: Tensor) -> Result<Self> {
        let (out_dim, in_dim) = weight.dims2()?;
        Ok(Self { weights: Weights::Master(weight), in_dim, out_dim, input: InputForm::default() })
    }

    /// A frozen layer with the weights `w` on `device`.
    ///
    /// # Errors
    /// Errors of candle, for want of memory for example.
    pub fn from_ternary(w: &TernaryMatrix, device: &Device) -> Result<Self> {
        let (out_dim, in_dim) = (w.rows(), w.cols());
        w.expect_plain_rows("of BitLinear").map_err(candle_core::Error::wrap)?;
        let trits: Vec<f32> = w.to_trits().into_iter().map(f32::from).collect();
        let trits = Tensor::from_vec(trits, (out_dim, in_dim), device)?;
        let alpha = match w.scales() {
            Scales::Tensor(s) => Tensor::new(*s, device)?,
            Scales::Rows(s) => Tensor::new(s.as_ref(), device)?,
            Scales::Groups(_) => unreachable!("refused above"),
        };
        Ok(Self { weights: Weights::Ternary { trits, alpha }, in_dim, out_dim, input: InputForm::default() })
    }

    /// The same weights for inputs of another form, see [`HBitLinear`](super::HBitLinear).
    ///
    /// # Errors
    /// A Hadamard block that is no power of two or does not divide the input width.
    pub fn with_input(mut self, form: InputForm) -> Result<Self> {
        if let Some(block) = form.hadamard {
            check_hadamard_block(self.in_dim, block).map_err(candle_core::Error::wrap)?;
        }
        self.input = form;
        Ok(self)
    }

    /// What happens to the input before the product.
    pub fn input(&self) -> InputForm {
        self.input
    }

    /// Input features.
    pub fn in_dim(&self) -> usize {
        self.in_dim
    }

    /// Output features.
    pub fn out_dim(&self) -> usize {
        self.out_dim
    }

    /// The master weight, if this layer has one.
    pub fn master(&self) -> Option<&Tensor> {
        match &self.weights {
            Weights::Master(w) => Some(w),
            Weights::Ternary { .. } => None,
        }
    }

    /// Trits `[out, in]` f32 and scale `[]` or `[out]` f32.
    fn trits(&self) -> Result<(Tensor, Tensor)> {
        match &self.weights {
            Weights::Master(w) => weight_trits(w),
            Weights::Ternary { trits, alpha } => Ok((trits.clone(), alpha.clone())),
        }
    }

    /// The exact integers `q T^T`, `[n, out]` f32, and the scales `[n, 1]` f32 of `n` tokens `x` `[n, in]`; then the
    /// weights' scale.
    fn accumulate(&self, x: &Tensor) -> Result<(Tensor, Tensor, Tensor)> {
        let turned = self.input.hadamard.map(|block| hadamard(x, block)).transpose()?;
        let x = turned.as_ref().unwrap_or(x);
        let (codes, scale) = match self.input.bits {
            ActivationBits::Eight => activation_codes(x)?,
            ActivationBits::Four => activation_codes_int4(x)?,
            ActivationBits::Sixteen | ActivationBits::EightByGroup => {
                candle_core::bail!("activations of {} are computed by the engine only", self.input.bits)
            }
        };
        let (trits, alpha) = self.trits()?;
        let acc = if self.in_dim <= MAX_EXACT_F32_COLS {
            codes.matmul(&trits.t()?)?
        } else {
            codes.to_dtype(DType::F64)?.matmul(&trits.to_dtype(DType::F64)?.t()?)?.to_dtype(DType::F32)?
        };
        Ok((acc, scale, alpha))
    }

    /// What this layer multiplies with: its ternary weights, or its master weight quantised now.
    ///
    /// # Errors
    /// [`ModelError::Kernel`] for weights that are not finite; errors of candle.
    pub fn to_ternary(&self) -> std::result::Result<TernaryMatrix, ModelError> {
        let (trits, alpha) = self.trits()?;
        // A NaN becomes 2, which is no trit and is refused below.
        let to_trit = |v: f32| if v.is_nan() { 2 } else { v as i8 };
        let trits: Vec<i8> = trits.flatten_all()?.to_vec1::<f32>()?.into_iter().map(to_trit).collect();
        let scales = match alpha.rank() {
            0 => Scales::Tensor(alpha.to_scalar()?),
            _ => Scales::Rows(alpha.to_vec1::<f32>()?.into()),
        };
        Ok(TernaryMatrix::from_trits(self.out_dim, self.in_dim, &trits, scales)?)
    }
}

impl Module for BitLinear {
    fn forward(&self, x: &Tensor) -> Result<Tensor> {
        let mut dims = x.dims().to_vec();
        if dims.pop() != Some(self.in_dim) {
            bail!("BitLinear [{}, {}]: input of shape {:?}", self.out_dim, self.in_dim, x.shape());
        }
        let tokens: usize = dims.iter().product();
        dims.push(self.out_dim);
        let (acc, scale, alpha) = self.accumulate(&x.reshape((tokens, self.in_dim))?)?;
        acc.broadcast_mul(&alpha)?.broadcast_div(&scale)?.reshape(dims)?.to_dtype(x.dtype())
    }
}
