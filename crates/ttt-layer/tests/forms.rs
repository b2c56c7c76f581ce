//! The forms are equal: dual, primal, row-wise, and their simplest case.

mod common;

use candle_core::{D, DType, Device, Tensor};
use candle_nn::{Module, VarBuilder, VarMap, linear_no_bias};
use common::{Case, Text, config, distance, f64s};
use proptest::prelude::*;
use ternary_kernels::Ops;
use ttt_layer::{Form, Kind, TttConfig, TttLayer, TttState, Views};

/// The largest difference of a published f32 implementation from the official one.
const ABSOLUTE: f64 = 2e-4;

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, ..ProptestConfig::default() })]
    #[test]
    fn all_forms_agree(
        variant in 0usize..32,
        heads in 1usize..4,
        half_dim in 2usize..10,
        b in 1usize..10,
        tokens in 1usize..33,
        seed in any::<u64>(),
    ) {
        let config = config(variant, heads, 2 * half_dim, b);
        let mut case = Case::new(&config, DType::F64, seed);
        let x = case.input(1, tokens);
        let dual = f64s(&case.layer.forward(&x).unwrap());
        let primal = f64s(&case.layer.forward_as(&x, Form::Primal).unwrap());
        // In f64: thousands of operations of 1e-16 each, and norms that divide by no less than 0.1.
        prop_assert!(distance(&dual, &primal) <= 1e-10, "dual and primal: {:e}", distance(&dual, &primal));

        let text = Text::new(&case.layer, &x, Ops::selected().unwrap());
        let rows = text.read(&mut TttState::new(&text.rows), 0, tokens, None);
        let rows = Tensor::from_vec(rows, (1, tokens, config.width()), &Device::Cpu).unwrap();
        let rows = case.layer.projections().o.forward(&rows.to_dtype(DType::F64).unwrap()).unwrap();
        prop_assert!(distance(&f64s(&rows), &dual) <= ABSOLUTE, "row-wise: {:e}", distance(&f64s(&rows), &dual));
    }
}

/// Sequences of a batch do not see each other, and inner weights carry on at the end of a mini-batch.
#[test]
fn a_batch_is_its_sequences_and_a_text_its_parts() {
    for variant in 0..32 {
        let config = config(variant, 2, 6, 4);
        let mut case = Case::new(&config, DType::F64, 7);
        let x = case.input(3, 11);
        let together = case.layer.forward(&x).unwrap();
        for i in 0..3 {
            let alone = case.layer.forward(&x.narrow(0, i, 1).unwrap()).unwrap();
            let d = distance(&f64s(&alone), &f64s(&together.narrow(0, i, 1).unwrap()));
            assert!(d <= 1e-12, "variant {variant}, sequence {i}: {d:e}");
        }
        let views = case.layer.views(&x).unwrap();
        let start = case.layer.first_weights(3).unwrap();
        let (whole, last) = case.layer.inner_loop(&views, &start, Form::Dual).unwrap();
        let cut = |x: &Tensor, from: usize, n: usize| x.narrow(2, from, n).unwrap();
        let part = |from, n| Views {
            q: cut(&views.q, from, n),
            k: cut(&views.k, from, n),
            v: cut(&views.v, from, n),
            lr: cut(&views.lr, from, n),
        };
        let (a, between) = case.layer.inner_loop(&part(0, 8), &start, Form::Dual).unwrap();
        let (b, end) = case.layer.inner_loop(&part(8, 3), &between, Form::Dual).unwrap();
        let parts = Tensor::cat(&[a, b], 2).unwrap();
        assert!(distance(&f64s(&parts), &f64s(&whole)) <= 1e-12, "variant {variant}");
        for (a, b) in end.0.iter().zip(&last.0) {
            assert!(distance(&f64s(a), &f64s(b)) <= 1e-12, "variant {variant}");
        }
    }
}

/// Four tokens of TTT-Linear, worked out by hand (numpy, f64, rounded to six digits).
#[test]
fn a_worked_example() {
    let mut config = TttConfig::new(Kind::Linear, 1, 4);
    config.mini_batch_size = 2;
    let vars = VarMap::new();
    let vb = VarBuilder::from_varmap(&vars, DType::F64, &Device::Cpu);
    let layer = TttLayer::new(&config, vb, |_, i, o, vb| linear_no_bias(i, o, vb)).unwrap();
    let grid = |f: &dyn Fn(f64, f64) -> f64| {
        let values: Vec<f64> = (0..16).map(|at| f((at / 4) as f64, (at % 4) as f64)).collect();
        Tensor::from_vec(values, (1, 1, 4, 4), &Device::Cpu).unwrap()
    };
    let views = Views {
        q: grid(&|i, j| (1.0 + i + 2.0 * j).sin()),
        k: grid(&|i, j| (2.0 * i - j).cos()),
        v: grid(&|i, j| (0.5 * i * j + 0.3).sin()),
        lr: Tensor::new(&[[[0.25, 0.125, 0.1875, 0.0625]]], &Device::Cpu).unwrap(),
    };
    let mut start = layer.first_weights(1).unwrap();
    start.0[0] = grid(&|i, j| 0.1 * (3.0 * i + j).cos());
    let want_out = [
        [-0.478175, 0.927043, 0.173504, 0.058281],
        [2.133867, -1.317466, -1.602693, 1.648730],
        [1.680685, -0.950874, -0.581640, 0.103130],
        [0.555294, -0.834586, -0.306633, -0.004956],
    ];
    let want_w = [
        [-0.406561, 0.268357, 0.403471, -0.251851],
        [-0.167830, -0.295725, -0.030774, 0.454348],
        [0.528199, -0.387865, -0.523543, 0.448953],
        [0.444735, -0.354143, -0.490437, 0.309652],
    ];
    let want_b = [0.445717, -0.104860, -0.462539, 0.121682];
    for form in [Form::Dual, Form::Primal] {
        let (out, last) = layer.inner_loop(&views, &start, form).unwrap();
        assert!(distance(&f64s(&out), want_out.as_flattened()) <= 5.1e-7, "{form:?}: {out}");
        assert!(distance(&f64s(&last.0[0]), want_w.as_flattened()) <= 5.1e-7, "{form:?}: {}", last.0[0]);
        assert!(distance(&f64s(&last.0[1]), &want_b) <= 5.1e-7, "{form:?}: {}", last.0[1]);
    }
}

/// One mini-batch from zero weights without a norm is causal linear attention (theorem 1 of arXiv:2407.04620): the
/// first gradients are minus the targets, so `model(q_n) = t_n sum_{k <= n} lr_k (q_n . k_k + 1) (v_k - k_k)`, the 1
/// being the bias. The norm is taken out by a huge epsilon and a gain of its root, which leaves it subtracting the
/// mean.
#[test]
fn from_zero_without_a_norm_it_is_linear_attention() {
    let mut config = config(4, 2, 8, 16);
    config.norm_eps = 2f32.powi(40);
    let mut case = Case::new(&config, DType::F64, 3);
    let lock = case.vars.data().lock().unwrap();
    for (name, value) in [("W1", 0.0), ("b1", 0.0), ("ttt_norm_weight", 2f64.powi(20)), ("ttt_norm_bias", 0.0)] {
        let var = &lock[name];
        var.set(&Tensor::full(value, var.dims(), &Device::Cpu).unwrap()).unwrap();
    }
    drop(lock);
    let x = case.input(1, 16);
    let views = case.layer.views(&x).unwrap();
    let target = (&views.v - &views.k).unwrap();
    let target = target.broadcast_sub(&target.mean_keepdim(D::Minus1).unwrap()).unwrap();
    let scores = (views.q.matmul(&views.k.t().unwrap().contiguous().unwrap()).unwrap() + 1.0).unwrap();
    let (scores, lr) = (f64s(&scores), f64s(&views.lr));
    let t = f64s(&case.layer.position_weights().unwrap());
    let weights: Vec<f64> = (0..2 * 16 * 16)
        .map(|at| {
            let (head, n, k) = (at / 256, at / 16 % 16, at % 16);
            if k <= n { t[n] * lr[head * 16 + k] * scores[at] } else { 0.0 }
        })
        .collect();
    let weights = Tensor::from_vec(weights, (1, 2, 16, 16), &Device::Cpu).unwrap();
    let attention = (&views.q + weights.matmul(&target).unwrap()).unwrap();
    let start = case.layer.first_weights(1).unwrap();
    for form in [Form::Dual, Form::Primal] {
        let (out, _) = case.layer.inner_loop(&views, &start, form).unwrap();
        // The remaining divisor of the norm differs by one part in 1e12.
        assert!(distance(&f64s(&out), &f64s(&attention)) <= 1e-10, "{form:?}");
    }
    // The row-wise form, after the output norm with the same epsilon, whose gain is scaled as well.
    let lock = case.vars.data().lock().unwrap();
    let post = &lock["post_norm.weight"];
    post.set(&Tensor::full(2f64.powi(20), post.dims(), &Device::Cpu).unwrap()).unwrap();
    drop(lock);
    let vb = VarBuilder::from_varmap(&case.vars, DType::F64, &Device::Cpu);
    let layer = TttLayer::new(&config, vb, |_, i, o, vb| linear_no_bias(i, o, vb)).unwrap();
    let want = f64s(&layer.finish(&x, &attention).unwrap());
    let text = Text::new(&layer, &x, Ops::selected().unwrap());
    let rows = text.read(&mut TttState::new(&text.rows), 0, 16, None);
    let rows = Tensor::from_vec(rows, (1, 16, 16), &Device::Cpu).unwrap().to_dtype(DType::F64).unwrap();
    let got = f64s(&layer.projections().o.forward(&rows).unwrap());
    assert!(distance(&got, &want) <= ABSOLUTE, "row-wise: {:e}", distance(&got, &want));
}
