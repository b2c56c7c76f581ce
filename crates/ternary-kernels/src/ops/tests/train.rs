//! Products of any orientation and the gradients of training.

use super::{Random, all_ops, portable};
use crate::Ops;
use crate::ops::{AdamWStep, GemmScratch, Strided};

/// Around tile, piece and block sizes.
const SHAPES: &[[usize; 3]] = &[
    [1, 1, 1],
    [8, 32, 128],
    [9, 33, 129],
    [24, 64, 257],
    [16, 16, 64],
    [7, 31, 127],
    [3, 100, 5],
    [17, 16, 300],
    [520, 40, 20],
    [5, 7, 0],
    [0, 3, 4],
];

/// All four orientations equal the definition within rounding, with the same bits on every instruction set.
#[test]
fn products_are_the_definition() {
    let mut random = Random(1);
    for &[m, n, k] in SHAPES {
        let (a, b) = (random.activations(m * k), random.activations(k * n));
        let start = random.activations(m * n);
        let (at, bt) = (transposed(&a, m, k), transposed(&b, k, n));
        let mut first: Option<Vec<f32>> = None;
        for ops in all_ops() {
            for (a, b) in [
                (Strided::rows(&a, k), Strided::rows(&b, n)),
                (Strided::rows(&at, m).t(), Strided::rows(&b, n)),
                (Strided::rows(&a, k), Strided::rows(&bt, k).t()),
                (Strided::rows(&at, m).t(), Strided::rows(&bt, k).t()),
            ] {
                let mut out = start.clone();
                ops.gemm_add(a, b, [m, n, k], &mut out, &mut GemmScratch::default());
                let (mut zeros, mut set) = (vec![0.0; m * n], vec![f32::NAN; m * n]);
                ops.gemm_add(a, b, [m, n, k], &mut zeros, &mut GemmScratch::default());
                ops.gemm(a, b, [m, n, k], &mut set, &mut GemmScratch::default());
                assert_eq!(zeros, set, "{ops:?} [{m}, {n}, {k}]");
                match &first {
                    Some(first) => assert_eq!(first, &out, "{ops:?} [{m}, {n}, {k}]"),
                    None => first = Some(out),
                }
            }
        }
        let out = first.unwrap_or_default();
        for i in 0..m {
            for j in 0..n {
                let terms = || (0..k).map(|p| f64::from(a[i * k + p]) * f64::from(b[p * n + j]));
                let want = f64::from(start[i * n + j]) + terms().sum::<f64>();
                let size = f64::from(start[i * n + j].abs()) + terms().map(f64::abs).sum::<f64>();
                // Each of k products and sums, and each piece, rounds once.
                let bound = (k + 4) as f64 * super::U * size;
                assert!((f64::from(out[i * n + j]) - want).abs() <= bound, "[{m}, {n}, {k}] at {i}, {j}");
            }
        }
    }
}

fn transposed(x: &[f32], rows: usize, cols: usize) -> Vec<f32> {
    (0..cols).flat_map(|c| (0..rows).map(move |r| x[r * cols + c])).collect()
}

/// Central differences of `f` along each coordinate of `x`, in f64 steps as large as f32 allows.
fn differences(x: &[f32], mut f: impl FnMut(&[f32]) -> f64) -> Vec<f64> {
    let step = 1.0 / 64.0;
    let mut moved = x.to_vec();
    (0..x.len())
        .map(|i| {
            moved[i] = x[i] + step;
            let above = f(&moved);
            moved[i] = x[i] - step;
            let below = f(&moved);
            moved[i] = x[i];
            (above - below) / f64::from(2.0 * step)
        })
        .collect()
}

fn close(name: &str, got: &[f32], want: &[f64], limit: f64) {
    for (i, (g, w)) in got.iter().zip(want).enumerate() {
        assert!((f64::from(*g) - w).abs() <= limit * (1.0 + w.abs()), "{name}[{i}]: {g}, differences say {w}");
    }
}

/// Gradients of norm, activations and cross entropy against finite differences.
#[test]
fn gradients_are_those_of_the_functions() {
    let ops = portable();
    let mut random = Random(2);
    let k = 21;
    let mut numbers = || (0..k).map(|_| 2.0 * random.unit()).collect::<Vec<f32>>();
    let (x, gain, dy) = (numbers(), numbers(), numbers());
    let weighted = |y: &[f32]| y.iter().zip(&dy).map(|(y, d)| f64::from(*y) * f64::from(*d)).sum::<f64>();

    let norm = |x: &[f32], gain: &[f32]| {
        let mut y = vec![0.0; k];
        ops.rms_norm(x, gain, 1e-5, &mut y);
        weighted(&y)
    };
    let (mut dx, mut dgain) = (vec![0.0; k], vec![0.0; k]);
    ops.rms_norm_gradient(&x, &gain, 1e-5, &dy, &mut dx, &mut dgain);
    // A difference errs by step^2 / 6 times the third derivative, and by rounding over the step.
    close("dx", &dx, &differences(&x, |x| norm(x, &gain)), 2e-3);
    let (mut set, mut added) = (vec![f32::NAN; k], vec![0.0; k]);
    ops.rms_norm_gradient_into(&x, &gain, 1e-5, &dy, &mut set, &mut added);
    assert_eq!((&set, &added), (&dx, &dgain));
    close("dgain", &dgain, &differences(&gain, |g| norm(&x, g)), 2e-3);

    type Forward = fn(Ops, &[f32], &[f32], &mut [f32]);
    type Backward = fn(Ops, &[f32], &[f32], &[f32], &mut [f32], &mut [f32]);
    let both: [(Forward, Backward); 2] =
        [(Ops::relu2_mul, Ops::relu2_mul_gradient), (Ops::silu_mul, Ops::silu_mul_gradient)];
    for (forward, backward) in both {
        let f = |gate: &[f32], up: &[f32]| {
            let mut y = vec![0.0; k];
            forward(ops, gate, up, &mut y);
            weighted(&y)
        };
        let (mut dgate, mut dup) = (vec![0.0; k], vec![0.0; k]);
        backward(ops, &x, &gain, &dy, &mut dgate, &mut dup);
        close("dgate", &dgate, &differences(&x, |x| f(x, &gain)), 2e-2);
        close("dup", &dup, &differences(&gain, |g| f(&x, g)), 2e-3);
    }

    let loss = |x: &[f32]| {
        let sum: f64 = x.iter().map(|v| f64::from(*v).exp()).sum();
        sum.ln() - f64::from(x[4])
    };
    let mut gradient = x.clone();
    let got = ops.cross_entropy_gradient(&mut gradient, 4, 1.0);
    assert!((f64::from(got) - loss(&x)).abs() < 1e-5);
    close("logits", &gradient, &differences(&x, loss), 1e-3);
}

/// Equal bits on every instruction set, for any length.
#[test]
fn training_operations_have_the_same_bits_everywhere() {
    let mut random = Random(3);
    for &k in super::SIZES.iter().filter(|k| (1..200).contains(*k)) {
        let [x, g, d] = [0; 3].map(|_| random.activations(k));
        let codes: Vec<i8> = (0..k).map(|i| (i % 255) as i8).collect();
        let run = |ops: Ops| {
            let mut all = Vec::new();
            let (mut a, mut b) = (vec![0.0; k], vec![0.0; k]);
            ops.rms_norm_gradient(&x, &g, 1e-5, &d, &mut a, &mut b);
            all.extend([a.clone(), b.clone()]);
            ops.relu2_mul_gradient(&x, &g, &d, &mut a, &mut b);
            all.extend([a.clone(), b.clone()]);
            ops.silu_mul_gradient(&x, &g, &d, &mut a, &mut b);
            all.extend([a.clone(), b.clone()]);
            ops.dequantize_int8(&codes, 0.3, &mut a);
            all.push(a.clone());
            let mut row = x.clone();
            let loss = ops.cross_entropy_gradient(&mut row, k / 2, 0.1);
            all.extend([row, vec![loss]]);
            let step = AdamWStep {
                lr: 0.1,
                beta1: 0.9,
                beta2: 0.95,
                eps: 1e-8,
                weight_decay: 0.1,
                gradient_scale: 0.7,
                correction1: 0.1,
                correction2: 0.05,
            };
            let (mut p, mut m, mut v) = (x.clone(), vec![0.1; k], vec![0.2; k]);
            ops.adamw(step, &g, &mut p, &mut m, &mut v);
            all.extend([p, m, v]);
            let mut trits = vec![0; k];
            ops.ternarize(&x, 1.5, &mut trits, &mut a);
            all.extend([a.clone(), trits.iter().map(|t| f32::from(*t)).collect()]);
            let scales = [0.5, 1.25];
            let (mut pair, mut trits) = (vec![0.0; 2 * k], vec![0; 2 * k]);
            ops.ternarize_groups(&[&x[..], &g].concat(), k, &scales, &mut trits, &mut pair);
            all.extend([pair, trits.iter().map(|t| f32::from(*t)).collect()]);
            let digits: Vec<i8> = (0..2 * k.next_multiple_of(16)).map(|i| (i * 37 % 255) as u8 as i8).collect();
            ops.dequantize_int16(&digits, 0.3, &mut a);
            all.push(a.clone());
            let mut columns = [x.clone(), g.clone(), d.clone()].concat();
            let mut max = vec![f32::NEG_INFINITY; k];
            ops.max_columns(&columns, &mut max);
            ops.exp_columns(&max, &mut columns);
            let mut sum = vec![0.0; k];
            ops.add_columns(&columns, &mut sum);
            let mut dp = columns.clone();
            ops.softmax_gradient_columns(&columns, &sum, &mut dp);
            all.extend([max, columns, sum, dp]);
            all.into_iter().map(|v| v.into_iter().map(f32::to_bits).collect::<Vec<_>>()).collect::<Vec<_>>()
        };
        let first = run(portable());
        all_ops().into_iter().for_each(|ops| assert_eq!(first, run(ops), "{ops:?}, {k} elements"));
    }
}

/// Groups of weights equal the definition, and 16-bit codes become the values that they stand for.
#[test]
fn groups_and_wide_codes_are_those_of_the_definitions() {
    let mut random = Random(4);
    let (rows, groups, len) = (3, 2, 64);
    let w = random.activations(rows * groups * len);
    let (want, scales) = crate::quantize::absmean_quantize_groups(&w, rows, groups * len, len).unwrap();
    let flat: Vec<f32> = (0..rows).flat_map(|r| scales.row(r)).map(|d| d.to_f32()).collect();
    let codes: Vec<i16> = (0..77).map(|i| (i * 1009 % 65_279 - 32_639) as i16).collect();
    let batch = crate::Int16Batch::from_codes(1, codes.len(), &codes).unwrap();
    for ops in all_ops() {
        let (mut trits, mut out) = (vec![9; w.len()], vec![f32::NAN; w.len()]);
        ops.ternarize_groups(&w, len, &flat, &mut trits, &mut out);
        assert_eq!(trits, want, "{ops:?}");
        let weights: Vec<f32> = trits.iter().enumerate().map(|(i, t)| flat[i / len] * f32::from(*t)).collect();
        assert_eq!(out, weights, "{ops:?}");
        let mut values = vec![f32::NAN; codes.len()];
        ops.dequantize_int16(batch.view().digits(0), 0.5, &mut values);
        assert_eq!(values, codes.iter().map(|q| f32::from(*q) * 0.5).collect::<Vec<_>>(), "{ops:?}");
    }
}
