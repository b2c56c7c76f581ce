//! `BitLinear`: the ternary linear layer as a candle module.

use candle_core::{DType, Device, Result, Tensor, bail};
use candle_nn::{Module, VarBuilder, init};
use half::f16;
use ternary_kernels::ops::check_hadamard_block;
use ternary_kernels::quantize::absmean_quantize_groups;
use ternary_kernels::{GroupScales, INT16_MAX, KernelError, Scales, TernaryMatrix};

use super::hadamard::hadamard;
use super::quantize::{
    activation_codes, activation_codes_int4, activation_codes_int16, weight_trits, weight_trits_in_groups,
};
use crate::ModelError;
use crate::config::{ActivationBits, InputForm};

/// The maximum number of columns for which `sum_k q_k T_k` is exact in f32 for every input: `127 * 132104 < 2^24`.
pub const MAX_EXACT_F32_COLS: usize = (1 << 24) / 127;
/// [`MAX_EXACT_F32_COLS`] for int16 activations.
const MAX_EXACT_F32_COLS_INT16: usize = (1 << 24) / INT16_MAX as usize;

/// A linear layer with ternary weights and int8 activations (or those of [`BitLinear::with_input`]):
/// `y = (q T^T) * alpha / s`.
///
/// `x` is `[.., in]`, `y` is `[.., out]` in the dtype of `x`; there is no bias. `q` and `s` come from
/// [`activation_codes`](super::activation_codes), one scale per token. Two kinds share one forward pass:
///
/// - from a **master weight** ([`bit_linear`], [`BitLinear::from_master`]): quantised again by
///   [`weight_trits`](super::weight_trits) in every call, so an optimizer may change it; gradients pass straight
///   through both quantisers: `dL/dx = dL/dy (alpha T)`, `dL/dW = (dL/dy)^T (q / s)`;
/// - from **ternary weights** ([`BitLinear::from_ternary`]): frozen; gradients reach `x` only.
///
/// With [`BitLinear::with_groups`] each group of weights of a row has a scale, `y = (sum_g (q T^T)_g * d_g) * (1 / s)`,
/// groups in ascending order.
///
/// The integers `q T^T` are exact in both (see the [module documentation](super)), so a model computes the same during
/// and after training. Trits are held as f32, 4 bytes each.
///
/// ```
/// use bitnet_model::nn::bit_linear;
/// use candle_core::{DType, Device, Tensor};
/// use candle_nn::{Module, VarBuilder, VarMap};
///
/// let vars = VarMap::new();
/// let vb = VarBuilder::from_varmap(&vars, DType::F32, &Device::Cpu);
/// let layer = bit_linear(8, 4, vb.pp("proj"))?; // instead of candle_nn::linear_no_bias(8, 4, ..)
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
    /// Weights of a row that share a scale; `None` if the whole row does.
    group: Option<usize>,
}

#[derive(Clone, Debug)]
enum Weights {
    /// `[out, in]`, any float dtype.
    Master(Tensor),
    /// `trits` `[out, in]`, `alpha` `[]`, `[out]` or `[out, groups]`, both f32.
    Ternary { trits: Tensor, alpha: Tensor },
}

/// A trainable layer whose master weight `[out_dim, in_dim]` is called `weight` under `vb`. If `vb` creates variables,
/// the weight is created and initialised as in `candle_nn::linear_no_bias`.
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
    /// If `weight` does not have rank 2.
    pub fn from_master(weight: Tensor) -> Result<Self> {
        let (out_dim, in_dim) = weight.dims2()?;
        Ok(Self { weights: Weights::Master(weight), in_dim, out_dim, input: InputForm::default(), group: None })
    }

    /// A frozen layer with the weights `w` on `device`.
    ///
    /// # Errors
    /// Weights of +2; errors of candle, for example out of memory.
    pub fn from_ternary(w: &TernaryMatrix, device: &Device) -> Result<Self> {
        let (out_dim, in_dim) = (w.rows(), w.cols());
        if let Some(twos) = w.twos() {
            return Err(candle_core::Error::wrap(KernelError::Twos { what: "of BitLinear".to_owned(), twos }));
        }
        let trits: Vec<f32> = w.to_trits().into_iter().map(f32::from).collect();
        let trits = Tensor::from_vec(trits, (out_dim, in_dim), device)?;
        let (alpha, group) = match w.scales() {
            Scales::Tensor(s) => (Tensor::new(*s, device)?, None),
            Scales::Rows(s) => (Tensor::new(s.as_ref(), device)?, None),
            Scales::Groups(g) => {
                let all: Vec<f32> = (0..out_dim).flat_map(|r| g.row(r)).map(|d| d.to_f32()).collect();
                (Tensor::from_vec(all, (out_dim, g.groups()), device)?, Some(g.group_len()))
            }
        };
        Ok(Self { weights: Weights::Ternary { trits, alpha }, in_dim, out_dim, input: InputForm::default(), group })
    }

    /// This master weight, quantised with a scale for each `len` weights of a row, or with one scale if `len` is
    /// `None`.
    ///
    /// # Errors
    /// Rows that are not whole groups; groups for which a sum of int16 products is not exact in f32; weights that are
    /// already ternary.
    pub fn with_groups(mut self, len: Option<usize>) -> Result<Self> {
        if let Some(len) = len
            && (len == 0 || !self.in_dim.is_multiple_of(len) || len > MAX_EXACT_F32_COLS_INT16)
        {
            bail!("BitLinear: rows of {} weights, groups of {len}", self.in_dim);
        }
        if self.master().is_none() {
            bail!("BitLinear: only master weights are quantised in groups");
        }
        self.group = len;
        Ok(self)
    }

    /// These weights for inputs with another form, see [`HBitLinear`](super::HBitLinear).
    ///
    /// # Errors
    /// A Hadamard block that is not a power of two or does not divide the input width.
    pub fn with_input(mut self, form: InputForm) -> Result<Self> {
        if let Some(block) = form.hadamard {
            check_hadamard_block(self.in_dim, block).map_err(candle_core::Error::wrap)?;
        }
        self.input = form;
        Ok(self)
    }

    /// Transformation of the input before the product.
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

    /// Trits `[out, in]` f32 and scale `[]`, `[out]` or `[out, groups]` f32.
    fn trits(&self) -> Result<(Tensor, Tensor)> {
        match (&self.weights, self.group) {
            (Weights::Master(w), None) => weight_trits(w),
            (Weights::Master(w), Some(len)) => weight_trits_in_groups(w, len),
            (Weights::Ternary { trits, alpha }, _) => Ok((trits.clone(), alpha.clone())),
        }
    }

    /// The product of `n` tokens `x` `[n, in]`, `[n, out]` f32.
    fn product(&self, x: &Tensor) -> Result<Tensor> {
        let turned = self.input.hadamard.map(|block| hadamard(x, block)).transpose()?;
        let x = turned.as_ref().unwrap_or(x);
        let ((codes, scale), exact) = match self.input.bits {
            ActivationBits::Eight => (activation_codes(x)?, MAX_EXACT_F32_COLS),
            ActivationBits::Four => (activation_codes_int4(x)?, MAX_EXACT_F32_COLS),
            ActivationBits::Sixteen => (activation_codes_int16(x)?, MAX_EXACT_F32_COLS_INT16),
            ActivationBits::EightByGroup => {
                bail!("only the engine computes with activations of {}", self.input.bits)
            }
        };
        let (trits, alpha) = self.trits()?;
        if let Some(len) = self.group {
            return in_groups(&codes, &trits, &alpha, len)?.broadcast_mul(&scale.recip()?);
        }
        let acc = if self.in_dim <= exact {
            codes.matmul(&trits.t()?)?
        } else {
            codes.to_dtype(DType::F64)?.matmul(&trits.to_dtype(DType::F64)?.t()?)?.to_dtype(DType::F32)?
        };
        acc.broadcast_mul(&alpha)?.broadcast_div(&scale)
    }

    /// The weights of the product: the layer's ternary weights, or its master weight quantised now.
    ///
    /// # Errors
    /// [`ModelError::Kernel`] for weights that are not finite; errors of candle.
    pub fn to_ternary(&self) -> std::result::Result<TernaryMatrix, ModelError> {
        let (rows, cols) = (self.out_dim, self.in_dim);
        if let (Weights::Master(w), Some(len)) = (&self.weights, self.group) {
            let w = w.detach().to_dtype(DType::F32)?.flatten_all()?.to_vec1()?;
            let (trits, scales) = absmean_quantize_groups(&w, rows, cols, len)?;
            return Ok(TernaryMatrix::from_trits(rows, cols, &trits, Scales::Groups(scales))?);
        }
        let (trits, alpha) = self.trits()?;
        // A NaN becomes 2, which is not a trit and is rejected below.
        let to_trit = |v: f32| if v.is_nan() { 2 } else { v as i8 };
        let trits: Vec<i8> = trits.flatten_all()?.to_vec1::<f32>()?.into_iter().map(to_trit).collect();
        let scales = match (alpha.rank(), self.group) {
            (0, _) => Scales::Tensor(alpha.to_scalar()?),
            (_, None) => Scales::Rows(alpha.to_vec1::<f32>()?.into()),
            (_, Some(len)) => {
                // They were f16 before.
                let all = alpha.flatten_all()?.to_vec1::<f32>()?.into_iter().map(f16::from_f32).collect();
                Scales::Groups(GroupScales::new(len, rows, cols, all)?)
            }
        };
        Ok(TernaryMatrix::from_trits(rows, cols, &trits, scales)?)
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
        self.product(&x.reshape((tokens, self.in_dim))?)?.reshape(dims)?.to_dtype(x.dtype())
    }
}

/// `sum_g (codes T^T)_g * d_g` over groups of `len` columns in ascending order, `[n, out]` f32, for `codes` `[n, in]`,
/// `trits` `[out, in]` and `d` `[out, groups]`: the sums of a group are exact, products and sums of them are rounded as
/// in the group kernels.
fn in_groups(codes: &Tensor, trits: &Tensor, d: &Tensor, len: usize) -> Result<Tensor> {
    let in_dim = trits.dim(1)?;
    let mut sum: Option<Tensor> = None;
    for (g, start) in (0..in_dim).step_by(len).enumerate() {
        let width = len.min(in_dim - start);
        let part = |x: &Tensor| x.narrow(1, start, width)?.contiguous();
        let exact = part(codes)?.matmul(&part(trits)?.t()?)?;
        let scaled = exact.broadcast_mul(&d.narrow(1, g, 1)?.contiguous()?.t()?)?;
        sum = Some(match sum {
            None => scaled,
            Some(sum) => (sum + scaled)?,
        });
    }
    match sum {
        Some(sum) => Ok(sum),
        None => codes.matmul(&trits.t()?),
    }
}
