//! Gradients of the dual form reach every parameter through all mini-batches, and are right: finite differences in f64.

mod common;

use candle_core::{DType, Device, Tensor};
use candle_nn::Module;
use common::{Case, config, f64s};

/// A loss that weighs every output differently.
fn loss(case: &Case, x: &Tensor) -> Tensor {
    let y = case.layer.forward(x).unwrap();
    let n = y.elem_count();
    let weights: Vec<f64> = (0..n).map(|i| (0.7 * i as f64).sin()).collect();
    let weights = Tensor::from_vec(weights, y.dims(), &Device::Cpu).unwrap();
    (y * weights).unwrap().sum_all().unwrap()
}

#[test]
fn gradients_equal_finite_differences() {
    for variant in 0..16 {
        let config = config(variant, 2, 4, 3);
        let mut case = Case::new(&config, DType::F64, 90 + variant as u64);
        // Two whole mini-batches and a part of one.
        let x = case.input(2, 8);
        let grads = loss(&case, &x).backward().unwrap();
        let vars: Vec<_> = {
            let lock = case.vars.data().lock().unwrap();
            let mut vars: Vec<_> = lock.iter().map(|(name, var)| (name.clone(), var.clone())).collect();
            vars.sort_by(|a, b| a.0.cmp(&b.0));
            vars
        };
        for (name, var) in vars {
            let grad = f64s(grads.get(&var).unwrap_or_else(|| panic!("variant {variant}: no gradient of {name}")));
            let before = f64s(&var);
            let largest = grad.iter().fold(0.0f64, |m, g| m.max(g.abs()));
            assert!(largest > 0.0, "variant {variant}: {name} has no influence");
            let set = |values: Vec<f64>| var.set(&Tensor::from_vec(values, var.dims(), &Device::Cpu).unwrap()).unwrap();
            for at in [0, before.len() / 2, before.len() - 1] {
                let h = 1e-5;
                let shifted = |by: f64| {
                    let mut values = before.clone();
                    values[at] += by;
                    set(values);
                    let l: f64 = loss(&case, &x).to_scalar().unwrap();
                    l
                };
                // Four points: the remainder is of order h^4 = 1e-20 times a fifth derivative, plus 1e-16 / h of
                // rounding.
                let near = (shifted(h) - shifted(-h)) / (2.0 * h);
                let far = (shifted(2.0 * h) - shifted(-2.0 * h)) / (4.0 * h);
                let want = (4.0 * near - far) / 3.0;
                set(before.clone());
                let error = (grad[at] - want).abs();
                assert!(error <= 1e-7 * (1.0 + largest), "variant {variant}, {name}[{at}]: {} and {want}", grad[at]);
            }
        }
    }
}

/// The first token's key reaches the last token's output only through inner weights of earlier mini-batches: a detached
/// update would show as a gradient of zero.
#[test]
fn what_the_first_tokens_wrote_has_a_gradient_at_the_last() {
    for variant in [0, 1] {
        let config = config(variant, 1, 4, 2);
        let mut case = Case::new(&config, DType::F64, 5);
        let x = candle_core::Var::from_tensor(&case.input(1, 9)).unwrap();
        let last = case.layer.forward(&x).unwrap().narrow(1, 8, 1).unwrap().sqr().unwrap().sum_all().unwrap();
        let grads = last.backward().unwrap();
        let grad = f64s(&grads.get(&x).unwrap().narrow(1, 0, 1).unwrap());
        assert!(grad.iter().any(|g| g.abs() > 1e-6), "{grad:?}");
    }
}
