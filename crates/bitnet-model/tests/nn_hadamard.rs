//! `HBitLinear`, its quantiser and its gradients, against float64 vectors and closed forms.

mod common;

use bitnet_model::nn::{BitLinear, HBitLinear, activation_codes_int4, h_bit_linear, hadamard, quantize_weights};
use bitnet_model::{ActivationBits, InputForm};
use candle_core::{D, DType, Device, Tensor, Var};
use candle_nn::{Module, Optimizer, VarBuilder, VarMap};
use common::{File, fixture, max_abs, max_diff, values};

const CPU: Device = Device::Cpu;

fn form(hadamard: usize, bits: ActivationBits) -> InputForm {
    InputForm { hadamard: Some(hadamard), bits }
}

/// Relative to the largest value: some sums of a product nearly cancel, and their error is that of their terms.
fn assert_close(what: &str, got: &Tensor, want: &[f32]) {
    let (diff, limit) = (max_diff(&values(got), want), 1e-5 * max_abs(want));
    assert!(diff <= limit, "{what}: differs by {diff}, at most {limit} is rounding");
}

/// Int4 codes of the float64 vectors exactly, from their rotated rows.
#[test]
fn int4_codes_of_the_vectors() {
    let Some(dir) = fixture("fixtures/units") else { return };
    let file = File::open(&dir.join("units.safetensors"));
    for case in ["ln_64x48", "ln_256x128", "rms_64x48", "rms_256x128", "rms_768x64"] {
        let name = |field: &str| format!("hbitlinear_a4_{case}.{field}");
        let (codes, scale) = activation_codes_int4(&file.tensor(&name("z"))).unwrap();
        let codes: Vec<i64> = values(&codes).into_iter().map(|c| c as i64).collect();
        assert_eq!(codes, file.ints(&name("codes")), "{case}");
        assert_close(&name("act_scale"), &scale.recip().unwrap(), &file.f32(&name("act_scale")));
    }
}

#[test]
fn int4_codes_saturate() {
    // The mean of the absolute values is the square root of 7, so that a code is the value itself.
    let step = 7f32.sqrt();
    let rest = 12.0 * step - (0.5 + 1.5 + 0.5 + 2.5 + 9.0 + 7.4 + 8.4);
    let x = [0.5f32, 1.5, -0.5, 2.5, -9.0, 7.4, -8.4, rest, 0.0, 0.0, 0.0, 0.0];
    let x = Tensor::new(&[x], &CPU).unwrap();
    let (codes, scale) = activation_codes_int4(&x).unwrap();
    assert!((scale.flatten_all().unwrap().to_vec1::<f32>().unwrap()[0] - 1.0).abs() < 1e-6);
    let codes = values(&codes);
    assert_eq!(codes[4..7], [-8.0, 7.0, -8.0]);
    let zeros = activation_codes_int4(&Tensor::zeros((2, 5), DType::F32, &CPU).unwrap()).unwrap();
    assert_eq!(values(&zeros.0), [0.0; 10]);
    assert!(values(&zeros.1).iter().all(|s| s.is_finite()));
}

/// `dL/dx = H (dL/dy (alpha T))` and `dL/dW = (dL/dy)^T (q / s)`, including saturated codes.
#[test]
fn gradients_in_closed_form() {
    for bits in [ActivationBits::Eight, ActivationBits::Four] {
        let x = Var::from_tensor(&(Tensor::randn(0f32, 1., (5, 48), &CPU).unwrap() * 3.0).unwrap()).unwrap();
        let w = Var::from_tensor(&Tensor::randn(0f32, 0.02, (7, 48), &CPU).unwrap()).unwrap();
        let dy = Tensor::randn(0f32, 1., (5, 7), &CPU).unwrap();
        let layer = HBitLinear::new(BitLinear::from_master(w.as_tensor().clone()).unwrap(), form(16, bits)).unwrap();
        let grads = (layer.forward(x.as_tensor()).unwrap() * &dy).unwrap().sum_all().unwrap().backward().unwrap();
        let quantized = quantize_weights(&w.as_tensor().detach()).unwrap();
        let dx = hadamard(&dy.matmul(&quantized).unwrap(), 16).unwrap();
        assert_close("dx", grads.get(&x).unwrap(), &values(&dx));
        let rotated = hadamard(&x.as_tensor().detach(), 16).unwrap();
        let seen = match bits {
            ActivationBits::Eight => bitnet_model::nn::quantize_activations(&rotated).unwrap(),
            ActivationBits::Four => {
                let (codes, scale) = activation_codes_int4(&rotated).unwrap();
                codes.broadcast_div(&scale).unwrap()
            }
            ActivationBits::Sixteen | ActivationBits::EightByGroup => unreachable!(),
        };
        let dw = dy.t().unwrap().matmul(&seen).unwrap();
        assert_close("dw", grads.get(&w).unwrap(), &values(&dw));
    }
}

#[test]
fn blocks_that_do_not_fit_are_refused() {
    let linear = || BitLinear::from_master(Tensor::zeros((4, 48), DType::F32, &CPU).unwrap()).unwrap();
    for (block, word) in [(32, "divide"), (3, "powers of two"), (0, "powers of two")] {
        let error = HBitLinear::new(linear(), form(block, ActivationBits::Eight)).unwrap_err().to_string();
        assert!(error.contains(word), "{error}");
    }
    let odd = BitLinear::from_master(Tensor::zeros((4, 7), DType::F32, &CPU).unwrap()).unwrap();
    assert!(HBitLinear::new(odd, form(2, ActivationBits::Four)).unwrap_err().to_string().contains("odd"));
}

/// Activations with an outlier: with four bits and without a transform its size is lost. The layer still learns a map.
#[test]
fn learns_with_four_bits() {
    let vars = VarMap::new();
    let vb = VarBuilder::from_varmap(&vars, DType::F32, &CPU);
    let layer = h_bit_linear(64, 4, form(64, ActivationBits::Four), vb).unwrap();
    let x = Tensor::randn(0f32, 1., (32, 64), &CPU).unwrap();
    let target = x.narrow(D::Minus1, 0, 4).unwrap();
    let loss = |layer: &HBitLinear| layer.forward(&x).unwrap().sub(&target).unwrap().sqr().unwrap().mean_all().unwrap();
    let first = loss(&layer).to_scalar::<f32>().unwrap();
    let params = candle_nn::ParamsAdamW { lr: 0.02, weight_decay: 0.0, ..Default::default() };
    let mut optimizer = candle_nn::AdamW::new(vars.all_vars(), params).unwrap();
    for _ in 0..60 {
        optimizer.backward_step(&loss(&layer)).unwrap();
    }
    let last = loss(&layer).to_scalar::<f32>().unwrap();
    assert!(last < 0.8 * first, "{first} became {last}");
}
