//! Muon against PyTorch, and what makes it Muon.

use test_support::{Tensors, testdata};

use super::*;
use crate::train::Random;

/// A model of these matrices with a gain before each, all normal with this deviation.
fn params(shapes: &[[usize; 2]], seed: u64, std: f64) -> Params {
    let tensors = shapes.iter().enumerate().flat_map(|(i, shape)| {
        let gain = (format!("norm{i}"), vec![7], Role::Norm);
        [gain, (format!("matrix{i}"), shape.to_vec(), Role::Projection(i))]
    });
    let mut params = Params::zeros(tensors);
    let mut random = Random::new(seed, "values");
    params.values.iter_mut().for_each(|v| *v = (random.normal() * std) as f32);
    params
}

/// The matrix made orthogonal.
fn orthogonal(shape: [usize; 2], x: &[f32]) -> Vec<f32> {
    let mut s = Scratch { x: x.to_vec(), ..Scratch::default() };
    orthogonalize(Ops::selected().unwrap(), shape, 5, &mut s);
    s.x
}

/// Singular values in f64, falling: norms of the rows of the short side after they were turned orthogonal (Jacobi).
fn singular_values([rows, cols]: [usize; 2], x: &[f32]) -> Vec<f64> {
    let (k, n) = (rows.min(cols), rows.max(cols));
    let at = |i: usize, j: usize| f64::from(if rows <= cols { x[i * cols + j] } else { x[j * cols + i] });
    let mut a: Vec<Vec<f64>> = (0..k).map(|i| (0..n).map(|j| at(i, j)).collect()).collect();
    let dot = |a: &[f64], b: &[f64]| a.iter().zip(b).map(|(a, b)| a * b).sum::<f64>();
    for _ in 0..30 {
        for i in 0..k {
            for j in 0..i {
                let (p, q, r) = (dot(&a[i], &a[i]), dot(&a[j], &a[j]), dot(&a[i], &a[j]));
                if r.abs() <= 1e-15 * (p * q).sqrt() {
                    continue;
                }
                let zeta = (q - p) / (2.0 * r);
                let t = zeta.signum() / (zeta.abs() + (1.0 + zeta * zeta).sqrt());
                let c = 1.0 / (1.0 + t * t).sqrt();
                let (head, tail) = a.split_at_mut(i);
                for (u, v) in tail[0].iter_mut().zip(&mut head[j]) {
                    (*u, *v) = (c * *u - c * t * *v, c * t * *u + c * *v);
                }
            }
        }
    }
    let mut values: Vec<f64> = a.iter().map(|row| dot(row, row).sqrt()).collect();
    values.sort_by(|a, b| b.total_cmp(a));
    values
}

/// Weights and momentum of every case after each of three steps.
///
/// The momentum is two rounded products and a sum: 3 half units in the last place of what is summed. An update is off
/// by what roundings became: that of the first division, `2^-24` of a matrix of norm 1, grows by the slope 3.4445 of
/// the quintic at 0 in each of five steps, to `485 * 2^-24 = 2.9e-5` of the learning rate where singular values are 0,
/// and less elsewhere. The script says by how much float32 differs: by 1.4e-5 there, and by 1e-6.
#[test]
fn steps_are_those_of_pytorch() {
    let file = Tensors::open(testdata("units/muon.safetensors"));
    let rates = Rates { lr: 0.02, weight_decay: 0.1 };
    let cases = [
        ("wide", [12, 40], UpdateScale::MatchRms, 5e-6),
        ("tall", [40, 12], UpdateScale::MatchRms, 5e-6),
        ("tall_original", [40, 12], UpdateScale::Original, 5e-6),
        ("wide_original", [12, 40], UpdateScale::Original, 5e-6),
        ("square", [24, 24], UpdateScale::Original, 5e-6),
        ("rank_2", [16, 24], UpdateScale::MatchRms, 3e-5),
        ("zeros", [8, 16], UpdateScale::MatchRms, 5e-6),
    ];
    for (name, shape, scale, limit) in cases {
        let mut params = params(&[shape], 1, 0.02);
        params.get_mut("matrix0").unwrap().copy_from_slice(&file.f32(&format!("{name}.w")));
        let range = params.entry("matrix0").unwrap().range.clone();
        let gain = params.get("norm0").unwrap().to_vec();
        let mut muon = Muon::new(MuonOptions { scale, ..MuonOptions::default() });
        let mut momentum = vec![0.0; params.values.len()];
        for step in 0..3 {
            // Half of the gradient, and a factor of 2: clipping comes before everything else.
            let mut grads = vec![9.0; params.values.len()];
            for (to, g) in grads[range.clone()].iter_mut().zip(file.f32(&format!("{name}.grad{step}"))) {
                *to = 0.5 * g;
            }
            muon.step(&mut params, &grads, &mut momentum, 2.0, rates, 1).unwrap();
            let unit = rates.lr * scale.of(shape);
            let want = file.f32(&format!("{name}.w{step}"));
            for (i, (got, want)) in params.values[range.clone()].iter().zip(&want).enumerate() {
                let apart = f64::from((got - want).abs());
                // And the roundings of a weight of up to 0.1 in each step.
                assert!(apart <= limit * unit + 3e-8, "{name}, step {step}, weight {i}: {got}, expected {want}");
            }
            let want = file.f32(&format!("{name}.m{step}"));
            let most = want.iter().fold(0.0f32, |m, v| m.max(v.abs()));
            for (got, want) in momentum[range.clone()].iter().zip(&want) {
                assert!((got - want).abs() <= 1e-6 * most, "{name}, step {step}: momentum {got}, expected {want}");
            }
        }
        assert_eq!(params.get("norm0").unwrap(), gain, "{name}: a gain is not Muon's");
        assert!(momentum[..range.start].iter().all(|m| *m == 0.0));
    }
}

/// The image of a singular value under five steps of the quintic, f64.
fn by_hand(mut x: f64) -> f64 {
    for _ in 0..5 {
        x = 3.4445 * x - 4.7750 * x.powi(3) + 2.0315 * x.powi(5);
    }
    x
}

/// Every singular value becomes what the polynomial makes of it, and lies in the published band if it was more than a
/// five-hundredth of the norm; so does that of a transposed matrix, bit for bit.
#[test]
fn updates_are_nearly_orthogonal() {
    for (seed, shape) in [[1, 1], [1, 9], [5, 5], [3, 70], [33, 16], [32, 32], [17, 300]].into_iter().enumerate() {
        let [rows, cols] = shape;
        let mut random = Random::new(seed as u64, "matrix");
        let x: Vec<f32> = (0..rows * cols).map(|_| (random.normal() * 1e-3) as f32).collect();
        let before = singular_values(shape, &x);
        let norm = before.iter().map(|s| s * s).sum::<f64>().sqrt();
        let y = orthogonal(shape, &x);
        let mut want: Vec<f64> = before.iter().map(|s| by_hand(s / norm)).collect();
        want.sort_by(|a, b| b.total_cmp(a));
        for (got, want) in singular_values(shape, &y).iter().zip(&want) {
            assert!((got - want).abs() < 1e-4, "{shape:?}: {got}, expected {want}");
        }
        for s in before.iter().map(|s| s / norm).filter(|s| *s > 0.002) {
            assert!((0.68..1.21).contains(&by_hand(s)), "{shape:?}: {s} becomes {}", by_hand(s));
        }
        let turned = |x: &[f32], [rows, cols]: [usize; 2]| -> Vec<f32> {
            (0..cols).flat_map(|j| (0..rows).map(move |i| x[i * cols + j])).collect()
        };
        let transposed = orthogonal([cols, rows], &turned(&x, shape));
        // The norm is a sum in another order; its last bit may differ before it is rounded to f32.
        let apart = turned(&transposed, [cols, rows]).iter().zip(&y).fold(0.0f32, |m, (a, b)| m.max((a - b).abs()));
        assert!(apart < 3e-5, "{shape:?}: the transposed is {apart} away");
    }
}

/// Directions that a gradient does not have stay small, nothing becomes of nothing, and no size is too large or small
/// to be a number.
#[test]
fn singular_gradients_and_extreme_ones_are_numbers() {
    let shape = [16, 24];
    let mut random = Random::new(5, "rank");
    let mut vector = |n: usize| (0..n).map(|_| random.normal() as f32).collect::<Vec<f32>>();
    let (u, v) = (vector(16), vector(24));
    let one: Vec<f32> = u.iter().flat_map(|u| v.iter().map(move |v| u * v)).collect();
    for size in [1e-36, 1e-14, 1.0, 1e36] {
        let x: Vec<f32> = one.iter().map(|v| v * size).collect();
        let values = singular_values(shape, &orthogonal(shape, &x));
        let want = if size < 1e-6 { 0.0..0.01 } else { 0.68..1.14 };
        assert!(want.contains(&values[0]), "{size}: {}", values[0]);
        // Roundings of 2^-24 that grew by 3.4445^5, of at most 15 directions.
        assert!(values[1] < 15.0 * 3e-5, "{size}: {values:?}");
    }
    assert!(orthogonal(shape, &[0.0; 16 * 24]).iter().all(|v| *v == 0.0));
    assert!(orthogonal(shape, &[f32::MAX; 16 * 24]).iter().all(|v| v.is_finite()));
    assert!(orthogonal([0, 4], &[]).is_empty());
}

/// Products of which half is copied have the bits of whole ones, in one band, in several and in a last one that is not
/// full.
#[test]
fn symmetric_products_are_whole_ones() {
    let ops = Ops::selected().unwrap();
    let (mut band, mut gemm) = (Vec::new(), GemmScratch::default());
    for [k, n] in [[1, 1], [5, 9], [64, 64], [65, 300], [200, 70]] {
        let mut random = Random::new(k as u64, "symmetric");
        let x: Vec<f32> = (0..k * n).map(|_| random.normal() as f32).collect();
        for left in [Strided::rows(&x, n), Strided::rows(&x, k).t()] {
            let (mut got, mut want) = (vec![9.0; k * k], vec![9.0; k * k]);
            symmetric(ops, [left, left.t()], [k, n], &mut got, &mut band, &mut gemm);
            ops.gemm(left, left.t(), [k, k, n], &mut want, &mut gemm);
            assert!(got == want, "[{k}, {n}]");
        }
    }
}

/// However many threads there are, even more than matrices: the same bits.
#[test]
fn threads_cannot_be_seen() {
    let shapes = [[8, 16], [24, 8], [300, 20], [8, 8], [16, 16]];
    let grads = params(&shapes, 3, 1e-2).values;
    let run = |threads: usize| {
        let mut params = params(&shapes, 2, 0.02);
        let mut momentum = vec![0.0; grads.len()];
        let mut muon = Muon::default();
        for _ in 0..3 {
            let rates = Rates { lr: 1e-2, weight_decay: 0.1 };
            muon.step(&mut params, &grads, &mut momentum, 1.0, rates, threads).unwrap();
        }
        (params.values, momentum)
    };
    let one = run(1);
    for threads in [2, 3, 9] {
        assert!(run(threads) == one, "{threads} threads");
    }
}

#[test]
fn sizes_that_do_not_fit_are_refused() {
    let rates = Rates { lr: 1e-2, weight_decay: 0.1 };
    let mut muon = Muon::default();
    let refused = |result: Result<(), TrainError>| assert!(matches!(result, Err(TrainError::Mismatch { .. })));
    let mut p = params(&[[4, 6]], 1, 0.1);
    let n = p.values.len();
    refused(muon.step(&mut p, &vec![0.0; n - 1], &mut vec![0.0; n], 1.0, rates, 1));
    refused(muon.step(&mut p, &vec![0.0; n], &mut vec![0.0; n + 1], 1.0, rates, 1));
    for change in [
        |p: &mut Params| p.entries[1].shape = vec![24],
        |p: &mut Params| p.entries[1].shape = vec![5, 6],
        |p: &mut Params| p.entries[1].range = 20..44,
        |p: &mut Params| p.entries.push(p.entries[1].clone()),
    ] {
        let mut p = p.clone();
        change(&mut p);
        refused(muon.step(&mut p, &vec![0.0; n], &mut vec![0.0; n], 1.0, rates, 1));
    }
}
