//! Gradients of the gated delta rule against finite differences of its definition in f64, and the forward pass of
//! training against that of inference.

use ternary_kernels::{Isa, Ops};
use test_support::Random;
use ttt_layer::{
    DeltaConfig, DeltaInputs, DeltaParameters, DeltaScratch, DeltaState, DeltaTape, DeltaWorkspace, GatedDelta,
    InputGradients,
};

/// Parameters, inputs and products of some texts, one after the other: everything that has a gradient.
struct Case {
    config: DeltaConfig,
    window: usize,
    texts: usize,
    all: Vec<f32>,
}

const NAMES: [&str; 8] = ["alpha", "beta", "conv", "decay", "decay_bias", "norm", "x", "projected"];

impl Case {
    fn new(hidden: usize, [key_heads, group, d, taps]: [usize; 4], window: usize, seed: u64) -> Self {
        let mut config = DeltaConfig::new(hidden, key_heads, key_heads * group, d);
        config.conv_kernel = taps;
        let mut case = Self { config, window, texts: 2, all: Vec::new() };
        let mut random = Random(seed);
        for (name, len) in NAMES.into_iter().zip(case.lens()) {
            let (mean, by) = match name {
                "alpha" | "beta" => (0.0, 0.3),
                "conv" => (0.2, 0.4),
                "norm" => (1.0, 0.1),
                _ => (0.0, 1.0),
            };
            let sign = |v: f32| if name == "decay" { -v.abs() - 0.1 } else { mean + by * v };
            case.all.extend(random.normals(len).into_iter().map(sign));
        }
        case
    }

    fn tokens(&self) -> usize {
        self.texts * self.window
    }

    fn lens(&self) -> [usize; 8] {
        let c = &self.config;
        let gates = c.value_heads * c.hidden_size;
        let (n, h) = (self.tokens(), c.value_heads);
        let columns = c.channels() + c.value_width();
        [gates, gates, c.channels() * c.conv_kernel, h, h, c.head_dim, n * c.hidden_size, n * columns]
    }

    /// Weights of the loss `sum(c out)`.
    fn weights(&self) -> Vec<f64> {
        (0..self.tokens() * self.config.value_width()).map(|i| (0.7 * i as f64).sin()).collect()
    }

    fn layer(&self, ops: Ops) -> GatedDelta {
        let flat = &self.all[..self.config.parameters()];
        GatedDelta::with_ops(&self.config, &DeltaParameters::from_flat(&self.config, flat).unwrap(), ops).unwrap()
    }

    /// Inputs and products.
    fn inputs(&self) -> [&[f32]; 2] {
        let (x, projected) = self.all[self.config.parameters()..].split_at(self.lens()[6]);
        [x, projected]
    }

    /// The results and all gradients, by hand.
    fn by_hand(&self, ops: Ops) -> (Vec<f32>, Vec<f32>) {
        let (c, n, layer) = (&self.config, self.tokens(), self.layer(ops));
        let [x, projected] = self.inputs();
        let inputs = DeltaInputs::side_by_side(c, x, projected);
        let (mut out, mut tape, mut work) =
            (vec![f32::NAN; n * c.value_width()], DeltaTape::default(), DeltaWorkspace::new(c));
        // Buffers of an earlier, longer pass do not matter.
        layer.forward_taped(&inputs, &[n], &mut out, &mut tape, &mut work);
        let texts = vec![self.window; self.texts];
        layer.forward_taped(&inputs, &texts, &mut out, &mut tape, &mut work);
        let dout: Vec<f32> = self.weights().iter().map(|w| *w as f32).collect();
        let (mut grads, mut dx, mut dprojected) =
            (vec![0.0; c.parameters()], vec![0.0; x.len()], vec![f32::NAN; projected.len()]);
        let mut to = InputGradients { x: &mut dx, projected: &mut dprojected };
        layer.backward(&inputs, &texts, &dout, &tape, &mut to, &mut grads, &mut work);
        (out, [grads, dx, dprojected].concat())
    }

    /// The loss of these numbers by the definition, one number after the other.
    fn loss(&self, all: &[f64]) -> f64 {
        let c = &self.config;
        let (d, g, channels, width) = (c.head_dim, c.group(), c.channels(), c.value_width());
        let mut rest = all;
        let [alpha, beta, conv, decay, bias, norm, x, projected] =
            self.lens().map(|len| rest.split_off(..len).unwrap());
        let silu = |x: f64| x / (1.0 + (-x).exp());
        let unit = |x: &[f64]| -> Vec<f64> {
            let length = (x.iter().map(|x| x * x).sum::<f64>() + 1e-6).sqrt();
            x.iter().map(|x| x / length).collect()
        };
        let dot = |a: &[f64], b: &[f64]| -> f64 { a.iter().zip(b).map(|(a, b)| a * b).sum() };
        let weights = self.weights();
        let mut loss = 0.0;
        for start in (0..self.tokens()).step_by(self.window) {
            let mut states = vec![0.0; c.value_heads * d * d];
            for t in start..start + self.window {
                let convolved: Vec<f64> = (0..channels)
                    .map(|channel| {
                        let tap = |j: usize| match (t + j + 1).checked_sub(c.conv_kernel) {
                            Some(from) if from >= start => {
                                conv[channel * c.conv_kernel + j] * projected[from * (channels + width) + channel]
                            }
                            _ => 0.0,
                        };
                        silu((0..c.conv_kernel).map(tap).sum())
                    })
                    .collect();
                let row = &x[t * c.hidden_size..(t + 1) * c.hidden_size];
                for j in 0..c.value_heads {
                    let head = j / g;
                    let q: Vec<f64> = unit(&convolved[head * d..][..d]).iter().map(|q| q / (d as f64).sqrt()).collect();
                    let k = unit(&convolved[c.key_width() + head * d..][..d]);
                    let v = &convolved[2 * c.key_width() + j * d..][..d];
                    let of = |w: &[f64]| dot(row, &w[j * c.hidden_size..(j + 1) * c.hidden_size]);
                    let keep = (decay[j] * (of(alpha) + bias[j]).exp().ln_1p()).exp();
                    let rate = 1.0 / (1.0 + (-of(beta)).exp());
                    let a = &mut states[j * d * d..(j + 1) * d * d];
                    a.iter_mut().for_each(|a| *a *= keep);
                    let mut o = vec![0.0; d];
                    for col in 0..d {
                        let seen: f64 = (0..d).map(|i| k[i] * a[i * d + col]).sum();
                        (0..d).for_each(|i| a[i * d + col] += k[i] * rate * (v[col] - seen));
                        o[col] = (0..d).map(|i| q[i] * a[i * d + col]).sum();
                    }
                    let mean = dot(&o, &o) / d as f64 + f64::from(c.norm_eps);
                    for i in 0..d {
                        let z = projected[t * (channels + width) + channels + j * d + i];
                        loss += weights[t * width + j * d + i] * o[i] / mean.sqrt() * norm[i] * silu(z);
                    }
                }
            }
        }
        loss
    }
}

/// Whole chunks and incomplete ones, groups of value heads, heads narrower and wider than a vector, one tap; each
/// tensor's gradient as a whole within 1e-4. The forward pass is in f32, whose rounding, 6e-8, is carried through the
/// norm of the output, which divides by what little the first queries of a text find.
#[test]
fn gradients_are_finite_differences() {
    for (i, case) in [
        Case::new(6, [1, 1, 4, 4], 5, 3),
        Case::new(10, [2, 2, 4, 2], 18, 4),
        Case::new(8, [1, 3, 5, 1], 33, 5),
        Case::new(10, [1, 2, 8, 4], 100, 8),
        Case::new(20, [1, 1, 20, 3], 16, 6),
        Case::new(4, [2, 1, 4, 4], 1, 7),
    ]
    .into_iter()
    .enumerate()
    {
        let (_, got) = case.by_hand(Ops::selected().unwrap());
        let all: Vec<f64> = case.all.iter().map(|v| f64::from(*v)).collect();
        let mut at = 0;
        for (name, len) in NAMES.into_iter().zip(case.lens()) {
            // Every element of small tensors, some of large ones.
            let step = len.div_ceil(60);
            let (mut error, mut size) = (0.0f64, 0.0f64);
            for e in (at..at + len).step_by(step) {
                let h = 1e-4;
                let shifted = |by: f64| {
                    let mut moved = all.clone();
                    moved[e] += by;
                    case.loss(&moved)
                };
                // Four points: the error is of order h^4 times a fifth derivative, and 1e-15 / h of rounding.
                let near = (shifted(h) - shifted(-h)) / (2.0 * h);
                let far = (shifted(2.0 * h) - shifted(-2.0 * h)) / (4.0 * h);
                let want = (4.0 * near - far) / 3.0;
                error += (f64::from(got[e]) - want).powi(2);
                size += want * want;
            }
            let (error, size) = (error.sqrt(), size.sqrt());
            assert!(error <= 1e-4 * size + 1e-6, "case {i}, {name}: error {error}, size {size}");
            // The first token of a text finds nothing that could decay, and its norm hides how much it finds.
            assert!(size > 1e-3 || case.window == 1, "case {i}: {name} has no influence");
            at += len;
        }
    }
}

/// The forward pass has the bits of inference, and gradients have the same bits on every instruction set.
#[test]
fn the_forward_pass_is_that_of_inference() {
    for case in [Case::new(24, [2, 2, 20, 4], 37, 8), Case::new(16, [1, 1, 16, 4], 16, 9)] {
        let c = &case.config;
        let layer = case.layer(Ops::selected().unwrap());
        let [x, projected] = case.inputs();
        let columns = c.channels() + c.value_width();
        let (out, _) = case.by_hand(Ops::selected().unwrap());
        for text in 0..case.texts {
            let part = |all: &'_ [f32], k: usize| all[text * case.window * k..(text + 1) * case.window * k].to_vec();
            let (x, projected) = (part(x, c.hidden_size), part(projected, columns));
            let mut alone = vec![f32::NAN; case.window * c.value_width()];
            let inputs = DeltaInputs::side_by_side(c, &x, &projected);
            layer.forward(&mut DeltaState::new(&layer), &inputs, &mut alone, &mut DeltaScratch::new(c));
            assert!(alone == part(&out, c.value_width()), "text {text} of {c:?}");
        }
        let first = case.by_hand(Ops::for_isa(Isa::Scalar).unwrap());
        for isa in Isa::available() {
            assert!(first == case.by_hand(Ops::for_isa(isa).unwrap()), "{isa:?}");
        }
    }
}
