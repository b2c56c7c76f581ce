//! The quantisers, `BitLinear` and its gradients, against float64 vectors and closed forms.

mod common;

use bitnet_model::nn::{
    BitLinear, RmsNorm, Rotary, activation_codes, bit_linear, quantize_activations, quantize_weights, straight_through,
    weight_trits,
};
use candle_core::{DType, Device, Tensor, Var};
use candle_nn::{Module, VarBuilder, VarMap};
use common::{File, absmean, fixture, max_abs, max_diff, values};
use ternary_kernels::{Scales, TernaryMatrix};

const CPU: Device = Device::Cpu;

fn tensor(values: &[f32], shape: (usize, usize)) -> Tensor {
    Tensor::from_slice(values, shape, &CPU).unwrap()
}

/// Like [`tensor`], as a variable: gradients with respect to it are tracked.
fn var(values: &[f32], shape: (usize, usize)) -> Var {
    Var::from_tensor(&tensor(values, shape)).unwrap()
}

fn ints(x: &Tensor) -> Vec<i64> {
    let whole = |v: f32| {
        assert_eq!(v, v.trunc(), "{v} is not an integer");
        v as i64
    };
    values(x).into_iter().map(whole).collect()
}

/// Relative to the largest value: some sums of a product nearly cancel, and their error is that of their terms.
fn assert_close(what: &str, got: &Tensor, want: &[f32], relative: f32) {
    let (diff, limit) = (max_diff(&values(got), want), relative * max_abs(want));
    assert!(diff <= limit, "{what}: differs by {diff}, at most {limit} is rounding");
}

/// Codes, trits and integer sums of the float64 vectors exactly; outputs and gradients within 1e-5.
#[test]
fn bit_linear_vectors() {
    let Some(dir) = fixture("fixtures/units") else { return };
    let file = File::open(&dir.join("units.safetensors"));
    let mut cases = 0;
    for case in ["none_64x48", "none_256x128", "none_768x64", "rms_64x48", "rms_256x128"] {
        let name = |field: &str| format!("bitlinear_a8_{case}.{field}");
        let variable = |field: &str| Var::from_tensor(&file.tensor(&name(field))).unwrap();
        let (x, w, gain) = (variable("x"), variable("w"), variable("gain"));
        let normed = case.starts_with("rms");
        let z = if normed {
            RmsNorm::new(gain.as_tensor().clone(), 1e-5).forward(x.as_tensor()).unwrap()
        } else {
            x.as_tensor().clone()
        };
        assert_close(&name("z"), &z, &file.f32(&name("z")), 1e-5);

        let (codes, scale) = activation_codes(&z).unwrap();
        assert_eq!(ints(&codes), file.ints(&name("codes")), "{case}: codes");
        assert_close(&name("act_scale"), &scale.recip().unwrap(), &file.f32(&name("act_scale")), 1e-5);
        let (trits, alpha) = weight_trits(w.as_tensor()).unwrap();
        assert_eq!(ints(&trits), file.ints(&name("ternary")), "{case}: trits");
        assert_close(&name("w_scale"), &alpha.reshape(1).unwrap(), &file.f32(&name("w_scale")), 1e-6);

        // With unit scales the layer returns its integers: every row of codes has an absmax of 127.
        let shape = (w.dims()[0], w.dims()[1]);
        let t: Vec<i8> = ints(&trits).into_iter().map(|t| t as i8).collect();
        let unit = TernaryMatrix::from_trits(shape.0, shape.1, &t, Scales::Tensor(1.0)).unwrap();
        let acc = BitLinear::from_ternary(&unit, &CPU).unwrap().forward(&codes).unwrap();
        assert_eq!(ints(&acc), file.ints(&name("acc_i32")), "{case}: integer sums");

        let layer = BitLinear::from_master(w.as_tensor().clone()).unwrap();
        let y = layer.forward(&z).unwrap();
        assert_close(&name("y"), &y, &file.f32(&name("y")), 1e-5);
        let frozen = BitLinear::from_ternary(&layer.to_ternary().unwrap(), &CPU).unwrap();
        assert_eq!(values(&frozen.forward(&z).unwrap()), values(&y), "{case}: frozen and trainable layer");

        let loss = (&y * file.tensor(&name("dy"))).unwrap().sum_all().unwrap();
        let grads = loss.backward().unwrap();
        assert_close(&name("dx"), grads.get(&x).unwrap(), &file.f32(&name("dx")), 1e-5);
        assert_close(&name("dw"), grads.get(&w).unwrap(), &file.f32(&name("dw")), 1e-5);
        if normed {
            assert_close(&name("dgain"), grads.get(&gain).unwrap(), &file.f32(&name("dgain")), 1e-5);
        }
        cases += 1;
    }
    let all = file.names().filter(|n| n.starts_with("bitlinear_a8_") && n.ends_with(".y")).count();
    assert_eq!(cases, all, "the file holds cases that were not compared");
}

/// Ties, zero rows, an absmax below the lower limit, huge values.
#[test]
fn edge_vectors() {
    let Some(dir) = fixture("fixtures/units") else { return };
    let file = File::open(&dir.join("units.safetensors"));
    let (codes, scale) = activation_codes(&file.tensor("edge_a8.x")).unwrap();
    assert_eq!(ints(&codes), file.ints("edge_a8.codes"));
    for (got, want) in values(&scale.recip().unwrap()).iter().zip(file.f32("edge_a8.scale")) {
        assert!((got / want - 1.0).abs() <= 1e-6, "{got} {want}");
    }
}

/// The golden vector of the reference: RMSNorm, then int8 with an outlier.
#[test]
fn golden_vector() {
    let x: Vec<f32> = (0..8).map(|i| ((i + 1) as f32).sin() * if i == 3 { 10.0 } else { 1.0 }).collect();
    let gain = Tensor::ones(8, DType::F32, &CPU).unwrap();
    let z = RmsNorm::new(gain, 1e-5).forward(&tensor(&x, (1, 8))).unwrap();
    let want = [0.30414, 0.328655, 0.051006, -2.735377, -0.346592, -0.100992, 0.23746, 0.357592];
    assert!(max_diff(&values(&z), &want) <= 1e-6);
    assert_eq!(ints(&activation_codes(&z).unwrap().0), [14, 15, 2, -127, -16, -5, 11, 17]);
}

/// Every half and its neighbours, as activations with scale 1 and as weights with scale 1.
#[test]
fn rounds_half_to_even() {
    let halves: Vec<f32> = (-254..=254).map(|i| i as f32 / 2.0).collect();
    let around: Vec<f32> =
        halves.iter().flat_map(|v| [v.next_down(), *v, v.next_up()]).filter(|v| v.abs() <= 127.0).collect();
    let (codes, scale) = activation_codes(&tensor(&around, (1, around.len()))).unwrap();
    assert_eq!(values(&scale), [1.0]);
    let want: Vec<i64> = around.iter().map(|v| v.round_ties_even() as i64).collect();
    assert_eq!(ints(&codes), want);

    // Magnitudes with mean 1, half of them ties.
    let w = [0.5, -0.5, 1.5, -1.5, 0.5f32.next_up(), -0.5f32.next_down(), 1.0, 2.0, -1.0, 1.0];
    assert_eq!(absmean(&w).1, 1.0);
    let (trits, alpha) = weight_trits(&tensor(&w, (2, 5))).unwrap();
    assert_eq!(alpha.to_scalar::<f32>().unwrap(), 1.0);
    assert_eq!(ints(&trits), [0, 0, 1, -1, 1, 0, 1, 1, -1, 1]);
}

/// An outlier beyond the range of the rounding trick is clamped first; zeros have a scale.
#[test]
fn weights_of_any_magnitude() {
    let mut w = vec![1e-3f32; 1 << 14];
    w[7] = -1e30;
    let (trits, alpha) = weight_trits(&tensor(&w, (128, 128))).unwrap();
    assert!((alpha.to_scalar::<f32>().unwrap() / 6.1035e25 - 1.0).abs() < 1e-4);
    let trits = ints(&trits);
    assert_eq!((trits[7], trits.iter().filter(|t| **t == 0).count()), (-1, (1 << 14) - 1));
    let (trits, alpha) = weight_trits(&tensor(&[0.0; 6], (2, 3))).unwrap();
    assert_eq!((ints(&trits), alpha.to_scalar::<f32>().unwrap()), (vec![0; 6], 1e-5));
}

/// The mean of very many weights equals that of exact arithmetic: here 2^20 of them, for which a running f32 sum loses
/// digits.
#[test]
fn absmean_does_not_drift() {
    let w: Vec<f32> = (0..1 << 20).map(|i| 0.1 + (i % 1000) as f32 * 1e-4).collect();
    let (_, alpha) = weight_trits(&tensor(&w, (1 << 10, 1 << 10))).unwrap();
    assert_eq!(alpha.to_scalar::<f32>().unwrap(), absmean(&w).1);
}

#[test]
fn straight_through_is_exact_and_transparent() {
    let v = var(&[0.1, -0.7, 1e-20, 3e7], (1, 4));
    let q = tensor(&[0.3, -0.25, 1.0, 1e-7], (1, 4));
    let y = straight_through(v.as_tensor(), &q).unwrap();
    assert_eq!(values(&y), values(&q), "bit for bit, where v + (q - v) would round");
    let upstream = tensor(&[1.0, 2.0, -3.0, 4.0], (1, 4));
    let grads = (y * &upstream).unwrap().sum_all().unwrap().backward().unwrap();
    assert_eq!(values(grads.get(&v).unwrap()), values(&upstream));
}

/// `dL/dx = dL/dy W_q` and `dL/dW = (dL/dy)^T x_q`, both with the quantised values, even if the weights are clamped.
#[test]
fn gradients_in_closed_form() {
    let (n, k, m) = (3, 16, 5);
    let wave = |len: usize, f: f32| (0..len).map(|i| (i as f32 * f + 0.3).sin() * 2.0).collect::<Vec<f32>>();
    let x = var(&wave(n * k, 0.7), (n, k));
    let w = var(&wave(m * k, 1.3), (m, k));
    let dy = tensor(&wave(n * m, 2.1), (n, m));
    let y = BitLinear::from_master(w.as_tensor().clone()).unwrap().forward(x.as_tensor()).unwrap();
    let grads = (y * &dy).unwrap().sum_all().unwrap().backward().unwrap();
    let (xq, wq) = (quantize_activations(&x.detach()).unwrap(), quantize_weights(&w.detach()).unwrap());
    assert!(max_abs(&values(&w)) > 1.5 * max_abs(&values(&wq)), "some weights are clamped");
    let want = [dy.matmul(&wq).unwrap(), dy.t().unwrap().matmul(&xq).unwrap()].map(|t| values(&t));
    assert_close("dx", grads.get(&x).unwrap(), &want[0], 1e-6);
    assert_close("dw", grads.get(&w).unwrap(), &want[1], 1e-6);

    // The fake quantisers alone have the gradient of the identity.
    for (v, q) in [(&x, quantize_activations(x.as_tensor())), (&w, quantize_weights(w.as_tensor()))] {
        let grads = q.unwrap().sum_all().unwrap().backward().unwrap();
        assert!(values(grads.get(v).unwrap()).iter().all(|g| (g - 1.0).abs() <= 1e-6));
    }
}

/// The gradient of RMSNorm, in f64: `dL/dx_j = (g_j d_j - x_j mean(g d x) / r^2) / r`.
#[test]
fn norm_gradient_in_closed_form() {
    let wave = |f: f64| (0..12).map(|i| (i as f64 * f + 0.3).sin() * 3.0).collect::<Vec<f64>>();
    let (x, g, d) = (wave(0.7), wave(1.9), wave(2.3));
    let as_f32 = |v: &[f64]| v.iter().map(|v| *v as f32).collect::<Vec<f32>>();
    let (vx, vg) = (var(&as_f32(&x), (1, 12)), Var::from_tensor(&Tensor::new(as_f32(&g), &CPU).unwrap()).unwrap());
    let y = RmsNorm::new(vg.as_tensor().clone(), 1e-5).forward(vx.as_tensor()).unwrap();
    let grads = (y * tensor(&as_f32(&d), (1, 12))).unwrap().sum_all().unwrap().backward().unwrap();
    let r = (x.iter().map(|v| v * v).sum::<f64>() / 12.0 + 1e-5).sqrt();
    let mixed = (0..12).map(|i| g[i] * d[i] * x[i]).sum::<f64>() / 12.0;
    let dx: Vec<f64> = (0..12).map(|j| (g[j] * d[j] - x[j] * mixed / (r * r)) / r).collect();
    let dg: Vec<f64> = (0..12).map(|j| d[j] * x[j] / r).collect();
    assert_close("dx", grads.get(&vx).unwrap(), &as_f32(&dx), 1e-6);
    assert_close("dgain", grads.get(&vg).unwrap(), &as_f32(&dg), 1e-6);
}

/// Positions rotate pairs `(i, i + d/2)`; the rotation of a difference of positions is the difference of rotations.
#[test]
fn rotary_turns_halves() {
    let rotary = Rotary::new(4, 100.0);
    let x = Tensor::new(&[[[[1f32, 2., 3., 4.], [1., 2., 3., 4.]]]], &CPU).unwrap();
    let y = values(&rotary.tables(6, 2, &CPU).unwrap().apply(&x).unwrap());
    for (t, position) in [6f32, 7.0].into_iter().enumerate() {
        let (s0, c0) = position.sin_cos();
        let (s1, c1) = (position * 0.1).sin_cos();
        let want = [c0 - 3. * s0, 2. * c1 - 4. * s1, 3. * c0 + s0, 4. * c1 + 2. * s1];
        assert!(max_diff(&y[4 * t..4 * t + 4], &want) <= 1e-5, "position {position}: {y:?}, expected {want:?}");
    }
}

/// Shapes: no leading dimension, several, size zero, a slice that is not contiguous; dtypes: the output has that of the
/// input.
#[test]
fn any_leading_shape_and_dtype() {
    let trits: Vec<i8> = (0..4 * 6).map(|i| (i * 5 % 3) as i8 - 1).collect();
    let w = TernaryMatrix::from_trits(4, 6, &trits, Scales::Rows([1.0, 2.0, 0.5, 0.0].into())).unwrap();
    let layer = BitLinear::from_ternary(&w, &CPU).unwrap();
    let x = Tensor::arange(0f32, 36., &CPU).unwrap().reshape((2, 3, 6)).unwrap();
    let y = layer.forward(&x).unwrap();
    assert_eq!(y.dims(), [2, 3, 4]);
    let row = x.get(1).unwrap().get(2).unwrap();
    let alone = layer.forward(&row).unwrap();
    assert_eq!(alone.dims(), [4]);
    assert_eq!(values(&alone), values(&y.get(1).unwrap().get(2).unwrap()));
    let slice = x.transpose(0, 1).unwrap();
    assert_eq!(values(&layer.forward(&slice).unwrap()), values(&y.transpose(0, 1).unwrap()));
    for dtype in [DType::F16, DType::BF16, DType::F64] {
        let out = layer.forward(&x.to_dtype(dtype).unwrap()).unwrap();
        assert_eq!(out.dtype(), dtype);
        assert_close("narrow", &out, &values(&y), 1e-2);
    }
    let message = layer.forward(&x.narrow(2, 0, 5).unwrap()).unwrap_err().to_string();
    assert!(message.contains("BitLinear [4, 6]") && message.contains("[2, 3, 5]"), "{message}");
    assert_eq!(values(&alone)[3], 0.0, "a row with scale 0");
    assert_eq!(layer.to_ternary().unwrap().scales(), w.scales());
    assert_eq!(layer.to_ternary().unwrap().to_trits(), trits);
}

/// Sums at the limit of what f32 represents exactly, and beyond it.
#[test]
fn integer_sums_are_exact_at_any_width() {
    for k in [6912, bitnet_model::nn::MAX_EXACT_F32_COLS, 150_001] {
        let w = TernaryMatrix::from_trits(2, k, &[vec![1i8; k], vec![-1; k]].concat(), Scales::Tensor(1.0)).unwrap();
        let mut x = vec![127f32; k];
        x[k - 1] = 126.0;
        let y = BitLinear::from_ternary(&w, &CPU).unwrap().forward(&tensor(&x, (1, k))).unwrap();
        let sum = 127 * k as i64 - 1;
        let want = sum as f32; // beyond 2^24 the result, not the sum, is rounded: once
        assert_eq!(values(&y), [want, -want], "{k} columns");
    }
}

/// NaN in, NaN out: nothing in between hides it.
#[test]
fn nan_is_not_hidden() {
    let w = TernaryMatrix::from_trits(1, 3, &[1, 0, -1], Scales::Tensor(1.0)).unwrap();
    let layer = BitLinear::from_ternary(&w, &CPU).unwrap();
    for bad in [f32::NAN, f32::INFINITY] {
        for place in 0..3 {
            let mut x = [1.0, 2.0, 3.0];
            x[place] = bad;
            assert!(values(&layer.forward(&tensor(&x, (1, 3))).unwrap())[0].is_nan(), "{bad} at {place}");
        }
    }
    let master = BitLinear::from_master(tensor(&[1.0, f32::NAN, 1.0], (1, 3))).unwrap();
    assert!(master.to_ternary().is_err());
}

/// A layer created through a `VarMap` learns: plain gradient descent lowers a loss that its ternary weights can reach.
#[test]
fn learns_through_the_quantisers() {
    let vars = VarMap::new();
    let layer = bit_linear(32, 8, VarBuilder::from_varmap(&vars, DType::F32, &CPU).pp("proj")).unwrap();
    assert_eq!((layer.in_dim(), layer.out_dim()), (32, 8));
    assert_eq!(vars.data().lock().unwrap().keys().cloned().collect::<Vec<_>>(), ["proj.weight"]);
    let wave = |len: usize, f: f32| (0..len).map(|i| (i as f32 * f).sin()).collect::<Vec<f32>>();
    let weight = &vars.all_vars()[0];
    weight.set(&tensor(&wave(8 * 32, 1.7), (8, 32))).unwrap();
    let teacher = BitLinear::from_master(tensor(&wave(8 * 32, 0.9), (8, 32))).unwrap();
    let x = tensor(&wave(64 * 32, 0.37), (64, 32));
    let target = teacher.forward(&x).unwrap();
    let mut losses = Vec::new();
    for _ in 0..60 {
        let loss = (layer.forward(&x).unwrap() - &target).unwrap().sqr().unwrap().mean_all().unwrap();
        losses.push(loss.to_scalar::<f32>().unwrap());
        let grads = loss.backward().unwrap();
        let step = (grads.get(weight).unwrap() * 0.1).unwrap();
        weight.set(&(weight.as_tensor() - step).unwrap()).unwrap();
    }
    assert!(losses[59] < 0.2 * losses[0], "loss went from {} to {}", losses[0], losses[59]);
}
