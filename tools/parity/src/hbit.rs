//! H-BitLinear (BitNet v2) in `units/units.safetensors`: norm, Hadamard transform, both quantisers, exact product,
//! gradients.

use bitnet_model::nn::{BitLinear, HBitLinear, RmsNorm};
use bitnet_model::{ActivationBits, InputForm};
use candle_core::{D, Device, Tensor, Var};
use candle_nn::Module;
use ternary_kernels::ops::{LayerNorm, Prepare, check_hadamard_block};
use ternary_kernels::quantize::absmean_quantize;
use ternary_kernels::{Int4Batch, Int8Batch, KernelError, Ops, Scales, TernaryMatrix};

use crate::compare::{differing, magnitude, max_abs};
use crate::files::Tensors;
use crate::report::Measured;
use crate::{ParityError, Sabotage};

/// Largest error of values that are rounded, as a share of the largest.
const RELATIVE: f32 = 1e-5;
/// Added to the mean square, or to the variance, by the norms of these cases.
const EPS: f32 = 1e-5;

/// Results of the engine's pieces for some rows.
struct Forward {
    z: Vec<f32>,
    codes: Vec<i8>,
    steps: Vec<f32>,
    acc: Vec<i32>,
    y: Vec<f32>,
}

/// A plain transform.
pub(crate) fn transform(t: &Tensors, case: &str, sabotage: Option<Sabotage>) -> Result<Measured, ParityError> {
    let mut x = t.f32(&format!("{case}.x"))?;
    let (_, n) = t.shape(&format!("{case}.x"))?;
    if sabotage != Some(Sabotage::Hadamard) {
        x.chunks_exact_mut(n).try_for_each(|x| Ops::selected()?.hadamard(x, n))?;
    }
    let expected = t.f32(&format!("{case}.y"))?;
    let error = max_abs(&x, &expected) / magnitude(&expected);
    Ok(Measured { pass: error <= RELATIVE, detail: format!("relative error {error:.1e}") })
}

/// A layer, forwards as the engine computes it and backwards as it is trained.
pub(crate) fn layer(t: &Tensors, case: &str, sabotage: Option<Sabotage>) -> Result<Measured, ParityError> {
    let at = |part: &str| format!("{case}.{part}");
    let (m, k) = t.shape(&at("w"))?;
    let block = t.ids(&at("hadamard_block"))?.first().copied().unwrap_or(0) as usize;
    check_hadamard_block(k, block)?;
    let hadamard = (sabotage != Some(Sabotage::Hadamard)).then_some(block);
    let bits = if case.contains("_a4_") { ActivationBits::Four } else { ActivationBits::Eight };
    let form = InputForm { hadamard, bits };
    let (trits, w_scale) = absmean_quantize(&t.f32(&at("w"))?, m, k)?;
    let w = TernaryMatrix::from_trits(m, k, &trits, Scales::Tensor(w_scale))?;
    let gain = t.f32(&at("gain"))?;
    let rms = case.contains("_rms_").then_some(&gain[..]);
    let f = forward(&w, w_scale, &t.f32(&at("x"))?, rms, form)?;
    let exact = [
        ("trits", differing(&trits, &t.i8(&at("ternary"))?)),
        ("codes", differing(&f.codes, &t.i8(&at("codes"))?)),
        ("sums", differing(&f.acc, &t.i32(&at("acc_i32"))?)),
    ];
    let mut close = vec![("z", f.z), ("act_scale", f.steps), ("w_scale", vec![w_scale]), ("y", f.y)];
    close.extend(backward(t, case, rms.is_some(), form)?);
    let mut pass = exact.iter().all(|(_, off)| *off == 0);
    let mut errors = Vec::new();
    for (part, got) in close {
        let expected = t.f32(&at(part))?;
        let error = max_abs(&got, &expected) / magnitude(&expected);
        // Also false for NaN.
        pass &= error <= RELATIVE;
        errors.push(format!("{part} {error:.1e}"));
    }
    let exact = exact.map(|(name, off)| format!("{off} {name}")).join(", ");
    Ok(Measured { pass, detail: format!("block {block}: {exact} differ; relative errors {}", errors.join(", ")) })
}

/// Norm (RMSNorm with `gain`, or LayerNorm without an affine part), transform, quantiser, product, epilogue.
fn forward(
    w: &TernaryMatrix,
    w_scale: f32,
    x: &[f32],
    gain: Option<&[f32]>,
    form: InputForm,
) -> Result<Forward, ParityError> {
    let (m, k) = (w.rows(), w.cols());
    let n = x.len() / k;
    let ops = Ops::selected()?;
    let kernel = ternary_kernels::best()?;
    let packed = kernel.prepack(w)?;
    let mut normed = x.to_vec();
    let prepare = match gain {
        Some(gain) => Prepare { norm: Some((gain, EPS)), hadamard: form.hadamard },
        None => {
            let (one, zero) = (vec![1.0; k], vec![0.0; k]);
            ops.layer_norm(x, LayerNorm { gain: &one, bias: &zero, eps: EPS }, &mut normed);
            Prepare { norm: None, hadamard: form.hadamard }
        }
    };
    let rows = normed.chunks_exact(k);
    let mut scratch = vec![0.0; k];
    let mut acc = vec![0; n * m];
    let (codes, scales) = match form.bits {
        ActivationBits::Eight => {
            let mut batch = Int8Batch::with_capacity(n, k);
            batch.reset(n, k);
            batch.rows_mut().zip(rows).try_for_each(|(row, x)| ops.prepare_int8(x, prepare, &mut scratch, row))?;
            ternary_kernels::gemm(kernel.as_ref(), &packed, &batch.view(), &mut acc)?;
            let codes: Vec<i8> = (0..n).flat_map(|t| batch.view().row(t).codes()[..k].to_vec()).collect();
            (codes, batch.scales().to_vec())
        }
        ActivationBits::Sixteen | ActivationBits::EightByGroup => {
            let what = format!("a case with activations of {}, which this check does not know", form.bits);
            return Err(ParityError::Tensors { path: "hbit".to_owned(), what });
        }
        ActivationBits::Four => {
            let mut batch = Int4Batch::with_capacity(n, k);
            batch.reset(n, k);
            batch.rows_mut().zip(rows).try_for_each(|(row, x)| ops.prepare_int4(x, prepare, &mut scratch, row))?;
            let mut widened = Int8Batch::with_capacity(0, 0);
            kernel.gemm_a4(&packed.all(), &batch.view(), &mut widened, &mut acc);
            // One token takes another path through a kernel.
            let mut single = vec![0; m];
            for (t, several) in acc.chunks_exact(m).enumerate() {
                kernel.gemv_a4(&packed.all(), &batch.view().row(t), &mut widened, &mut single);
                if single != several {
                    let (what, got) = ("equal results; differing rows", differing(&single, several));
                    return Err(KernelError::ShapeMismatch { op: "gemv_a4 and gemm_a4", what, expected: 0, got }.into());
                }
            }
            let mut codes = vec![0; n * k];
            codes.chunks_exact_mut(k).enumerate().for_each(|(t, out)| batch.view().row(t).widen(out));
            (codes, batch.scales().to_vec())
        }
    };
    let y = acc.iter().enumerate().map(|(i, acc)| (*acc as f32 * (1.0 / scales[i / m])) * w_scale).collect();
    let mut z = normed;
    for z in z.chunks_exact_mut(k) {
        let x = z.to_vec();
        if let Some((gain, eps)) = prepare.norm {
            ops.rms_norm(&x, gain, eps, z);
        }
        if let Some(block) = prepare.hadamard {
            ops.hadamard(z, block)?;
        }
    }
    // The stored scale is the step of a code, ours its inverse.
    Ok(Forward { z, codes, steps: scales.iter().map(|s| 1.0 / s).collect(), acc, y })
}

/// Gradients of `x`, `w` and the gain, for the stored gradient of `y`.
fn backward(t: &Tensors, case: &str, rms: bool, form: InputForm) -> Result<Vec<(&'static str, Vec<f32>)>, ParityError> {
    let at = |part: &str| format!("{case}.{part}");
    let device = Device::Cpu;
    let var = |part: &str| -> Result<Var, ParityError> {
        let dims = t.dims(&at(part))?;
        Ok(Var::from_tensor(&Tensor::from_vec(t.f32(&at(part))?, dims, &device)?)?)
    };
    let (x, w, gain, dy) = (var("x")?, var("w")?, var("gain")?, var("dy")?);
    let normed = if rms {
        RmsNorm::new(gain.as_tensor().clone(), EPS).forward(&x)?
    } else {
        let centred = x.broadcast_sub(&x.mean_keepdim(D::Minus1)?)?;
        let deviation = (centred.sqr()?.mean_keepdim(D::Minus1)? + f64::from(EPS))?.sqrt()?;
        centred.broadcast_div(&deviation)?
    };
    let layer = HBitLinear::new(BitLinear::from_master(w.as_tensor().clone())?, form)?;
    let grads = (layer.forward(&normed)? * dy.as_tensor())?.sum_all()?.backward()?;
    let mut wanted = vec![("dx", &x), ("dw", &w)];
    if rms {
        wanted.push(("dgain", &gain));
    }
    let mut out = Vec::new();
    for (part, var) in wanted {
        let grad = grads.get(var).ok_or_else(|| ParityError::Missing { what: format!("gradient {part}") })?;
        out.push((part, grad.flatten_all()?.to_vec1()?));
    }
    Ok(out)
}
