//! The operations of Test-Time-Training layers: definitions in plain code, equal bits everywhere, errors against f64.

use proptest::prelude::*;

use super::bits::sum_in_order;
use super::*;
use crate::ops::LayerNorm;

/// Element by element.
fn product(x: &[f32], w: &[f32], k: usize, out: &[f32]) -> Vec<f32> {
    let m = w.len() / k;
    let element = |(at, start): (usize, &f32)| {
        let (t, j) = (at / m, at % m);
        (0..k).fold(*start, |sum, i| x[t * k + i].mul_add(w[i * m + j], sum))
    };
    out.iter().enumerate().map(element).collect()
}

#[test]
fn products_are_chains_of_fused_operations() {
    let mut random = Random(20);
    for k in [1, 2, 7, 16, 33, 64] {
        for m in [1, 8, 15, 16, 17, 32, 48, 63, 64, 65, 80, 128, 200, 256] {
            for n in [1, 2, 3, 4, 5, 7, 16] {
                let (x, w, start) = (random.activations(n * k), random.activations(k * m), random.activations(n * m));
                let want = product(&x, &w, k, &start);
                // Each row separately, with the columns that it sees.
                let first = (random.bits() as usize) % (k + 1);
                let causal = first + n <= k;
                let mut seen = start.clone();
                for t in 0..if causal { n } else { 0 } {
                    let to = first + t + 1;
                    let row = product(&x[t * k..t * k + to], &w[..to * m], to, &start[t * m..(t + 1) * m]);
                    seen[t * m..(t + 1) * m].copy_from_slice(&row);
                }
                let bias = random.activations(m);
                let moved = product(&x, &w, k, &bias.repeat(n));
                let ((x, r), (w, s)) = (unaligned(&x), unaligned(&w));
                for ops in all_ops() {
                    let (mut out, at) = unaligned(&start);
                    if causal {
                        ops.add_causal_product(&x[r.clone()], &w[s.clone()], k, first, &mut out[at.clone()]);
                        assert_same("add_causal_product", ops, &out[at.clone()], &seen);
                    }
                    ops.affine(&x[r.clone()], &w[s.clone()], &bias, &mut out[at.clone()]);
                    assert_same("affine", ops, &out[at.clone()], &moved);
                    out[at.clone()].copy_from_slice(&start);
                    ops.add_product(&x[r.clone()], &w[s.clone()], k, &mut out[at.clone()]);
                    assert_same("add_product", ops, &out[at], &want);
                }
            }
        }
    }
}

#[test]
fn a_product_over_nothing_adds_nothing() {
    for ops in all_ops() {
        let mut out = [1.5, -0.0];
        ops.add_product(&[], &[], 0, &mut out);
        assert_same("add_product", ops, &out, &[1.5, -0.0]);
        ops.add_product(&[], &[1.0, 2.0], 2, &mut []);
        ops.affine(&[], &[], &[2.0, 3.0], &mut out);
        assert_same("affine", ops, &out, &[2.0, 3.0]);
        ops.affine(&[], &[], &[], &mut []);
        ops.add_causal_product(&[], &[], 0, 0, &mut []);
    }
}

fn moments(x: &[f32], eps: f32) -> (f32, f32) {
    let count = x.len().max(1) as f32;
    let mean = sum_in_order(x.len(), |i, a| a + x[i]) / count;
    let variance = sum_in_order(x.len(), |i, a| (x[i] - mean).mul_add(x[i] - mean, a)) / count;
    (mean, 1.0 / (variance + eps).sqrt())
}

#[test]
fn layer_norms_and_their_gradients_follow_the_definition() {
    let mut random = Random(21);
    for &k in SIZES {
        let [x, target, gain, bias] = [0; 4].map(|_| random.activations(k));
        let (eps, scale) = (1e-6, random.unit());
        let norm = LayerNorm { gain: &gain, bias: &bias, eps };
        let (mean, inv) = moments(&x, eps);
        let z: Vec<f32> = x.iter().map(|x| (x - mean) * inv).collect();
        let y: Vec<f32> = (0..k).map(|i| z[i].mul_add(gain[i], bias[i])).collect();
        let e: Vec<f32> = (0..k).map(|i| (y[i] - target[i]) * gain[i]).collect();
        let count = k.max(1) as f32;
        let mean_e = sum_in_order(k, |i, a| a + e[i]) / count;
        let mean_ez = sum_in_order(k, |i, a| e[i].mul_add(z[i], a)) / count;
        let gradient: Vec<f32> = (0..k).map(|i| z[i].mul_add(-mean_ez, e[i] - mean_e) * (inv * scale)).collect();
        for ops in all_ops() {
            let mut out = vec![f32::NAN; k];
            ops.layer_norm(&x, norm, &mut out);
            assert_same("layer_norm", ops, &out, &y);
            ops.add_layer_norm(&x, norm, &mut out);
            assert_same("add_layer_norm", ops, &out, &y.iter().map(|y| y + y).collect::<Vec<_>>());
            if k > 0 {
                ops.layer_norm_l2_gradient(&x, &target, norm, &[scale], &mut out);
                assert_same("layer_norm_l2_gradient", ops, &out, &gradient);
            }
        }
    }
}

#[test]
fn several_rows_have_the_bits_of_one() {
    let mut random = Random(24);
    // Sixteen rows have their sums together; 37 are two times sixteen and some more.
    for (k, n) in [1, 8, 16, 40, 64, 200].into_iter().flat_map(|k| [5, 16, 37].map(|n| (k, n))) {
        let [x, target] = [0; 2].map(|_| random.activations(n * k));
        let [gain, bias] = [0; 2].map(|_| random.activations(k));
        let scale = random.activations(n);
        let norm = LayerNorm { gain: &gain, bias: &bias, eps: 1e-6 };
        for ops in all_ops() {
            let (mut norms, mut gradients) = (vec![0.0; n * k], vec![0.0; n * k]);
            ops.layer_norm(&x, norm, &mut norms);
            ops.layer_norm_l2_gradient(&x, &target, norm, &scale, &mut gradients);
            for t in 0..n {
                let (row, mut out) = (t * k..(t + 1) * k, vec![0.0; k]);
                ops.layer_norm(&x[row.clone()], norm, &mut out);
                assert_same("layer_norm", ops, &norms[row.clone()], &out);
                let (x, target, scale) = (&x[row.clone()], &target[row.clone()], &scale[t..=t]);
                ops.layer_norm_l2_gradient(x, target, norm, scale, &mut out);
                assert_same("layer_norm_l2_gradient", ops, &gradients[row], &out);
            }
        }
    }
}

/// The gradient against differences of the loss, in f64.
#[test]
fn the_gradient_is_that_of_the_loss() {
    let mut random = Random(22);
    let k = 40;
    let [x, target, gain, bias] = [0; 4].map(|_| random.activations(k));
    let loss = |x: &[f64]| {
        let mean = x.iter().sum::<f64>() / k as f64;
        let variance = x.iter().map(|x| (x - mean).powi(2)).sum::<f64>() / k as f64;
        let y = |i: usize| (x[i] - mean) / (variance + 1e-6).sqrt() * f64::from(gain[i]) + f64::from(bias[i]);
        (0..k).map(|i| (y(i) - f64::from(target[i])).powi(2) / 2.0).sum::<f64>()
    };
    let wide: Vec<f64> = x.iter().map(|x| f64::from(*x)).collect();
    let mut got = vec![0.0; k];
    portable().layer_norm_l2_gradient(&x, &target, LayerNorm { gain: &gain, bias: &bias, eps: 1e-6 }, &[1.0], &mut got);
    let largest = got.iter().fold(0.0f32, |m, g| m.max(g.abs()));
    for i in 0..k {
        let at = |h: f64| {
            let mut x = wide.clone();
            x[i] += h;
            loss(&x)
        };
        let want = (at(1e-5) - at(-1e-5)) / 2e-5;
        // Sums of 40 products in f32 lose at most 40 roundings of the largest term; differences are accurate to 1e-9.
        assert!((f64::from(got[i]) - want).abs() <= 64.0 * U * f64::from(largest), "{i}: {} and {want}", got[i]);
    }
}

#[test]
fn gelu_and_its_derivative_are_accurate() {
    let a = (2.0 / std::f64::consts::PI).sqrt();
    let x: Vec<f32> = (-3000..3000).map(|i| i as f32 / 150.0).collect();
    let (mut gelu, mut derivative) = (vec![0.0; x.len()], vec![1.0; x.len()]);
    portable().gelu(&x, &mut gelu);
    portable().gelu_derivative_mul_assign(&x, &mut derivative);
    for (i, &x) in x.iter().enumerate() {
        let x = f64::from(x);
        let (u, slope) = (a * (x + 0.044715 * x.powi(3)), a * (1.0 + 3.0 * 0.044715 * x * x));
        let tanh = u.tanh();
        let want = x / (1.0 + (-2.0 * u).exp());
        // 2 u is rounded five times, and exp makes its error absolute; four more operations follow.
        let bound = U * (8.0 + 12.0 * u.abs());
        assert!((f64::from(gelu[i]) - want).abs() <= bound * want.abs() + 1e-37, "gelu({x}): {} and {want}", gelu[i]);
        let want = (1.0 + tanh) / 2.0 + x * (1.0 - tanh * tanh) * slope / 2.0;
        // The same relative error in both terms, and one rounding of 1 in `1 - s`.
        let terms = (1.0 + tanh) / 2.0 + (x * slope).abs() * (1.0 - tanh * tanh) / 2.0;
        let bound = 2.0 * bound * terms + 2.0 * U * (1.0 + (x * slope).abs());
        let got = f64::from(derivative[i]);
        assert!((got - want).abs() <= bound, "gelu'({x}): {got} and {want}");
    }
    for ops in all_ops() {
        let mut own = gelu.clone();
        ops.gelu(&x, &mut own);
        assert_same("gelu", ops, &own, &gelu);
        let mut own = vec![1.0; x.len()];
        ops.gelu_derivative_mul_assign(&x, &mut own);
        assert_same("gelu'", ops, &own, &derivative);
    }
}

#[test]
fn small_operations_follow_their_formulas() {
    let mut random = Random(23);
    for &k in SIZES {
        let [a, b, y] = [0; 3].map(|_| random.activations(k));
        let scale = random.unit();
        let mut e = vec![0.0; k];
        portable().exp(&a.iter().map(|a| -a).collect::<Vec<_>>(), &mut e);
        let mut gelu = vec![0.0; k];
        portable().gelu(&a, &mut gelu);
        let each = |f: &dyn Fn(usize) -> f32| (0..k).map(f).collect::<Vec<f32>>();
        for ops in all_ops() {
            let check = |name: &str, start: &[f32], want: Vec<f32>, run: &dyn Fn(&mut [f32])| {
                let (mut out, r) = unaligned(start);
                run(&mut out[r.clone()]);
                assert_same(name, ops, &out[r], &want);
            };
            check("sigmoid", &a, each(&|i| scale / (1.0 + e[i])), &|x| ops.sigmoid_in_place(scale, x));
            check("mul_add", &y, each(&|i| a[i].mul_add(b[i], y[i])), &|y| ops.mul_add_assign(&a, &b, y));
            check("gelu_mul", &y, each(&|i| gelu[i] * y[i]), &|y| ops.gelu_mul_assign(&a, y));
            let (half, cos, sin) = (k / 2, &a[..k / 2], &b[..k / 2]);
            let turned = |i: usize| match i % 2 {
                0 => y[i] * cos[i / 2] - y[i + 1] * sin[i / 2],
                _ => y[i] * cos[i / 2] + y[i - 1] * sin[i / 2],
            };
            check("rope_neighbours", &y[..2 * half], (0..2 * half).map(turned).collect(), &|y| {
                ops.rope_neighbours(y, cos, sin);
            });
        }
    }
}

#[test]
fn convolutions_are_chains_of_fused_operations() {
    let mut random = Random(25);
    for &k in SIZES.iter().filter(|k| **k < 200) {
        for taps in 0..6 {
            let stride = k + 5;
            let weights = random.activations((taps * stride).max(k));
            let bias = random.activations(k);
            let rows: Vec<Vec<f32>> = (0..taps).map(|_| random.activations(k)).collect();
            let rows: Vec<&[f32]> = rows.iter().map(Vec::as_slice).collect();
            let mut want = bias.clone();
            for (j, row) in rows.iter().enumerate() {
                portable().mul_add_assign(&weights[j * stride..j * stride + k], row, &mut want);
            }
            for ops in all_ops() {
                let (mut out, at) = unaligned(&vec![f32::NAN; k]);
                ops.convolve_row(&rows, &weights, stride, &bias, &mut out[at.clone()]);
                assert_same("convolve_row", ops, &out[at], &want);
            }
        }
    }
}

#[test]
fn rows_become_columns() {
    let mut random = Random(26);
    for (n, k, m, first) in
        [(16, 64, 16, 0), (16, 70, 16, 0), (1, 64, 16, 7), (3, 20, 16, 13), (4, 6, 4, 0), (0, 5, 4, 2)]
    {
        let (x, before) = (random.activations(n * k), random.activations(k * m));
        let mut want = before.clone();
        for (t, i) in (0..n).flat_map(|t| (0..k).map(move |i| (t, i))) {
            want[i * m + first + t] = x[t * k + i];
        }
        for ops in all_ops() {
            let (mut out, at) = unaligned(&before);
            ops.store_columns(&x, k, m, first, &mut out[at.clone()]);
            assert_same("store_columns", ops, &out[at], &want);
        }
    }
}

proptest! {
    #[test]
    fn instruction_sets_agree_on_any_bits(bits in prop::collection::vec(any::<u32>(), 0..70)) {
        let x: Vec<f32> = bits.into_iter().map(f32::from_bits).collect();
        let len = x.len();
        let run = |ops: Ops| {
            let mut results = Vec::new();
            let mut one = |f: &dyn Fn(&mut [f32])| {
                let mut out = x.clone();
                f(&mut out);
                results.extend(out);
            };
            let norm = LayerNorm { gain: &x, bias: &x, eps: 1e-6 };
            one(&|out| ops.layer_norm(&x, norm, out));
            one(&|out| ops.layer_norm_l2_gradient(&x, &x, norm, &[0.5][..len.min(1)], out));
            one(&|out| ops.gelu(&x, out));
            one(&|out| ops.gelu_mul_assign(&x, out));
            one(&|out| ops.gelu_derivative_mul_assign(&x, out));
            one(&|out| ops.sigmoid_in_place(0.25, out));
            one(&|out| ops.mul_add_assign(&x, &x, out));
            one(&|out| ops.add_product(&x[..len.min(1)], &x, 1, out));
            results
        };
        let want = run(portable());
        for ops in all_ops() {
            assert_same("some operation", ops, &run(ops), &want);
        }
    }
}
