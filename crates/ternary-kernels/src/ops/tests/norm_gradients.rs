//! Gradients of LayerNorm and of the inner gradient of a Test-Time-Training layer, against differences in f64.

use super::{Random, all_ops, portable};
use crate::Ops;
use crate::ops::{LayerNorm, LayerNormGradient, NormGradients};

const EPS: f64 = 1e-2;

/// Rows, gain, bias, targets, factors, and the weights of a sum over all results, which is differentiated.
#[derive(Clone)]
struct Case {
    k: usize,
    x: Vec<f64>,
    gain: Vec<f64>,
    bias: Vec<f64>,
    target: Vec<f64>,
    scale: Vec<f64>,
    d: Vec<f64>,
}

/// One field of a case.
type Field = fn(&mut Case) -> &mut Vec<f64>;
/// The differentiated function.
type Function = fn(&Case) -> f64;

impl Case {
    fn new(n: usize, k: usize, random: &mut Random) -> Self {
        let mut numbers = |n: usize| (0..n).map(|_| f64::from(2.0 * random.unit())).collect();
        Self {
            k,
            x: numbers(n * k),
            gain: numbers(k),
            bias: numbers(k),
            target: numbers(n * k),
            scale: numbers(n),
            d: numbers(n * k),
        }
    }

    /// The standardised row and its inverse deviation.
    fn standardised(&self, row: &[f64]) -> (Vec<f64>, f64) {
        let k = self.k as f64;
        let mean = row.iter().sum::<f64>() / k;
        let inv = (row.iter().map(|x| (x - mean) * (x - mean)).sum::<f64>() / k + EPS).sqrt().recip();
        (row.iter().map(|x| (x - mean) * inv).collect(), inv)
    }

    fn norm(&self) -> f64 {
        let rows = self.x.chunks(self.k).zip(self.d.chunks(self.k));
        rows.map(|(x, d)| {
            let (z, _) = self.standardised(x);
            (0..self.k).map(|i| d[i] * (z[i] * self.gain[i] + self.bias[i])).sum::<f64>()
        })
        .sum()
    }

    fn inner(&self) -> f64 {
        let k = self.k;
        let mut sum = 0.0;
        for (t, x) in self.x.chunks(k).enumerate() {
            let (z, inv) = self.standardised(x);
            let e: Vec<f64> =
                (0..k).map(|i| (z[i] * self.gain[i] + self.bias[i] - self.target[t * k + i]) * self.gain[i]).collect();
            let mean = e.iter().sum::<f64>() / k as f64;
            let along = e.iter().zip(&z).map(|(e, z)| e * z).sum::<f64>() / k as f64;
            sum += (0..k).map(|i| self.d[t * k + i] * (e[i] - mean - z[i] * along) * inv * self.scale[t]).sum::<f64>();
        }
        sum
    }

    /// Central differences of `f` along one field.
    fn differences(&self, field: Field, f: Function) -> Vec<f64> {
        let mut moved = self.clone();
        (0..field(&mut moved).len())
            .map(|i| {
                let step = 1e-5;
                field(&mut moved)[i] += step;
                let above = f(&moved);
                field(&mut moved)[i] -= 2.0 * step;
                let below = f(&moved);
                field(&mut moved)[i] += step;
                (above - below) / (2.0 * step)
            })
            .collect()
    }

    /// The results of both operations: gradients of rows, targets, factors, gain and bias.
    fn run(&self, ops: Ops) -> [Vec<f32>; 8] {
        let narrow = |x: &[f64]| x.iter().map(|x| *x as f32).collect::<Vec<_>>();
        let (x, gain, bias) = (narrow(&self.x), narrow(&self.gain), narrow(&self.bias));
        let (target, scale, d) = (narrow(&self.target), narrow(&self.scale), narrow(&self.d));
        let norm = LayerNorm { gain: &gain, bias: &bias, eps: EPS as f32 };
        let (n, len, k) = (scale.len(), x.len(), self.k);
        let mut out = [len, k, k, len, len, n, k, k].map(|len| vec![0.0; len]);
        let [dx, dgain, dbias, dx2, dtarget, dscale, dgain2, dbias2] = &mut out;
        ops.layer_norm_gradient(&x, norm, &d, dx, NormGradients { gain: dgain, bias: dbias });
        let norm2 = NormGradients { gain: dgain2, bias: dbias2 };
        let to = LayerNormGradient { x: dx2, target: dtarget, scale: dscale, norm: norm2 };
        ops.layer_norm_l2_second(&x, &target, norm, &scale, &d, to);
        out
    }
}

/// Every gradient, for rows around the lane count, with the same bits on every instruction set.
#[test]
fn norm_gradients_are_differences() {
    let mut random = Random(11);
    for k in [1, 4, 16, 21, 64] {
        let case = Case::new(3, k, &mut random);
        let got = case.run(portable());
        for ops in all_ops() {
            assert_eq!(got, case.run(ops), "{ops:?}, {k} elements");
        }
        let fields: [(&str, Field, Function); 8] = [
            ("x", |c| &mut c.x, Case::norm),
            ("gain", |c| &mut c.gain, Case::norm),
            ("bias", |c| &mut c.bias, Case::norm),
            ("inner x", |c| &mut c.x, Case::inner),
            ("inner target", |c| &mut c.target, Case::inner),
            ("inner scale", |c| &mut c.scale, Case::inner),
            ("inner gain", |c| &mut c.gain, Case::inner),
            ("inner bias", |c| &mut c.bias, Case::inner),
        ];
        for ((name, field, f), got) in fields.into_iter().zip(&got) {
            let want = case.differences(field, f);
            let largest = want.iter().fold(1.0f64, |m, w| m.max(w.abs()));
            for (i, (g, w)) in got.iter().zip(&want).enumerate() {
                // Sums of up to 64 terms in f32, with factors below 20 and inverse deviations below 10.
                let error = (f64::from(*g) - w).abs();
                assert!(error <= 2e-4 * largest, "{name}[{i}] of {k}: {g}, differences say {w}");
            }
        }
    }
}

/// The second derivative of gelu against differences of the first.
#[test]
fn gelu_bends_as_its_slope_changes() {
    let x: Vec<f32> = (0..33).map(|i| (i as f32 - 16.0) / 4.0).collect();
    let slope = |x: f64| {
        let (a, b) = ((2.0 / std::f64::consts::PI).sqrt(), 0.044_715);
        let s = 1.0 / (1.0 + (-2.0 * a * (x + b * x * x * x)).exp());
        s + x * s * (1.0 - s) * 2.0 * a * (1.0 + 3.0 * b * x * x)
    };
    let mut first: Option<Vec<f32>> = None;
    for ops in all_ops() {
        let mut y = vec![2.0; x.len()];
        ops.gelu_second_mul_assign(&x, &mut y);
        for (x, y) in x.iter().zip(&y) {
            let (x, step) = (f64::from(*x), 1e-5);
            let want = (slope(x + step) - slope(x - step)) / step;
            assert!((f64::from(*y) - want).abs() <= 1e-5, "at {x}: {y}, differences say {want}");
        }
        assert_eq!(first.get_or_insert_with(|| y.clone()), &y, "{ops:?}");
    }
}
