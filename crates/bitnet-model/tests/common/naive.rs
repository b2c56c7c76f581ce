//! A decoder in f64, written from the formulas in the simplest way: no cache, every position separately.

use bitnet_model::{Activation, ActivationBits, ModelConfig, ModelWeights, Norm, Projection, RopeScaling};
use ternary_kernels::{Scales, TernaryMatrix};

/// Rows `[tokens][hidden]` after the final norm, and `[tokens][vocab]` logits, if the model has a head.
pub(crate) struct Output {
    pub(crate) hidden: Vec<Vec<f64>>,
    pub(crate) logits: Vec<Vec<f64>>,
}

pub(crate) fn forward(w: &ModelWeights, ids: &[u32]) -> Output {
    let c = &w.config;
    let mut x: Vec<Vec<f64>> = ids
        .iter()
        .map(|id| {
            let mut row = vec![0f32; c.hidden_size];
            w.embedding.row_into(*id as usize, &mut row);
            row.iter().map(|v| f64::from(*v) * f64::from(c.embedding_scale)).collect()
        })
        .collect();
    for l in 0..c.num_hidden_layers {
        let layer = Layer { w, l };
        let normed: Vec<_> = x.iter().map(|x| layer.norm(Norm::Input(l), x)).collect();
        let mixed = layer.attention(&normed);
        for (x, mixed) in x.iter_mut().zip(&mixed) {
            layer.add(x, mixed, Norm::MixerOut(l));
            let h = layer.norm(Norm::PostAttention(l), x);
            let gate = layer.project(Projection::Gate, &h);
            let up = layer.project(Projection::Up, &h);
            let inner: Vec<f64> = gate.iter().zip(&up).map(|(g, u)| act(c.hidden_act, *g) * u).collect();
            let inner = layer.norm(Norm::FfnSub(l), &inner);
            layer.add(x, &layer.project(Projection::Down, &inner), Norm::FfnOut(l));
        }
    }
    let hidden: Vec<_> = x.iter().map(|x| rms(x, w.norm(Norm::Final).unwrap(), c)).collect();
    let mut logits = Vec::new();
    if !c.headless {
        let table = w.head.as_ref().unwrap_or(&w.embedding);
        for h in &hidden {
            let mut own = match table.as_ternary() {
                // Low-bit heads read 16-bit inputs, with or without groups like the rest of the model; others read
                // floats.
                Some(table) => match c.inputs.mixer.bits {
                    bits @ ActivationBits::EightByGroup => product(table, &quantise(h, bits, common_group(w))),
                    _ => product(table, &quantise(h, ActivationBits::Sixteen, 0)),
                },
                None => (0..c.vocab_size)
                    .map(|r| {
                        let mut row = vec![0f32; c.hidden_size];
                        table.row_into(r, &mut row);
                        row.iter().zip(h).map(|(w, h)| f64::from(*w) * h).sum()
                    })
                    .collect(),
            };
            own.iter_mut().for_each(|v: &mut f64| *v /= f64::from(c.logit_divisor));
            logits.push(own);
        }
    }
    Output { hidden, logits }
}

struct Layer<'a> {
    w: &'a ModelWeights,
    l: usize,
}

impl Layer<'_> {
    /// A norm, if the model has it.
    fn norm(&self, which: Norm, x: &[f64]) -> Vec<f64> {
        match self.w.norm(which) {
            Some(gain) => rms(x, gain, &self.w.config),
            None => x.to_vec(),
        }
    }

    fn add(&self, x: &mut [f64], branch: &[f64], norm: Norm) {
        let branch = self.norm(norm, branch);
        x.iter_mut().zip(branch).for_each(|(x, b)| *x += f64::from(self.w.config.residual_scale) * b);
    }

    /// One projection of one row, after the norm of its block.
    fn project(&self, p: Projection, x: &[f64]) -> Vec<f64> {
        let bits = self.w.config.input_form(p).bits;
        let z = quantise(&self.norm(Norm::ProjectionIn(self.l, p), x), bits, common_group(self.w));
        let layer = &self.w.layers[self.l];
        let mut y = product(layer.projection(p), &z);
        if let Some(bias) = layer.bias(p) {
            y.iter_mut().zip(bias).for_each(|(y, b)| *y += f64::from(*b));
        }
        y
    }

    fn attention(&self, x: &[Vec<f64>]) -> Vec<Vec<f64>> {
        let (c, l) = (&self.w.config, self.l);
        let (d, heads, kv) = (c.head_dim, c.num_attention_heads, c.num_key_value_heads);
        let turned = |p: Projection, norm: Norm| -> Vec<Vec<Vec<f64>>> {
            let one = |(position, x): (usize, &Vec<f64>)| {
                let y = self.project(p, x);
                let turn = |head: &[f64]| match c.head_norms_after_rope {
                    true => self.norm(norm, &rotate(head, position, c)),
                    false => rotate(&self.norm(norm, head), position, c),
                };
                y.chunks_exact(d).map(turn).collect()
            };
            x.iter().enumerate().map(one).collect()
        };
        let (q, k) = (turned(Projection::Q, Norm::HeadQ(l)), turned(Projection::K, Norm::HeadK(l)));
        let v: Vec<Vec<f64>> = x.iter().map(|x| self.project(Projection::V, x)).collect();
        let scale = c.attention_scale.map_or_else(|| 1.0 / (d as f64).sqrt(), f64::from);
        let mut out = Vec::new();
        for t in 0..x.len() {
            let mut mixed = vec![0.0; heads * d];
            for h in 0..heads {
                let g = h / (heads / kv);
                let score = |s: usize| q[t][h].iter().zip(&k[s][g]).map(|(q, k)| q * k).sum::<f64>() * scale;
                let scores: Vec<f64> = (0..=t).map(score).collect();
                let largest = scores.iter().copied().fold(f64::MIN, f64::max);
                let weights: Vec<f64> = scores.iter().map(|s| (s - largest).exp()).collect();
                let total: f64 = weights.iter().sum();
                for (s, weight) in weights.iter().enumerate() {
                    for i in 0..d {
                        mixed[h * d + i] += weight / total * v[s][g * d + i];
                    }
                }
            }
            out.push(self.project(Projection::O, &self.norm(Norm::AttnSub(l), &mixed)));
        }
        out
    }
}

fn rms(x: &[f64], gain: &[f32], c: &ModelConfig) -> Vec<f64> {
    let mean = x.iter().map(|v| v * v).sum::<f64>() / x.len() as f64;
    let inv = 1.0 / (mean + f64::from(c.rms_norm_eps)).sqrt();
    x.iter().zip(gain).map(|(v, g)| v * inv * f64::from(*g)).collect()
}

fn act(act: Activation, z: f64) -> f64 {
    match act {
        Activation::Relu2 => z.max(0.0).powi(2),
        Activation::Silu => z / (1.0 + (-z).exp()),
        Activation::GeluTanh => {
            let inner = (2.0 / std::f64::consts::PI).sqrt() * (z + 0.044715 * z.powi(3));
            0.5 * z * (1.0 + inner.tanh())
        }
        _ => panic!("an activation without a formula here"),
    }
}

/// The shortest groups of any matrix; lengths here are 64, 128 and 256, each of which divides the next.
fn common_group(w: &ModelWeights) -> usize {
    let groups = w.layers.iter().flat_map(|l| l.projections()).filter_map(|(_, w)| match w.scales() {
        Scales::Groups(groups) => Some(groups.group_len()),
        _ => None,
    });
    groups.min().unwrap_or(0)
}

fn quantise(x: &[f64], bits: ActivationBits, group_len: usize) -> Vec<f64> {
    let most = match bits {
        ActivationBits::EightByGroup => {
            return x.chunks(group_len).flat_map(|x| quantise(x, ActivationBits::Eight, 0)).collect();
        }
        ActivationBits::Eight => 127.0,
        ActivationBits::Sixteen => 32639.0,
        ActivationBits::Four => panic!("int4 has tests of its own"),
    };
    let s = most / x.iter().fold(0.0, |m: f64, v| m.max(v.abs())).max(1e-5);
    x.iter().map(|v| (v * s).round_ties_even() / s).collect()
}

fn product(w: &TernaryMatrix, x: &[f64]) -> Vec<f64> {
    let mut codes = vec![0i8; w.cols()];
    (0..w.rows())
        .map(|r| {
            w.decode_row(r, &mut codes);
            let scale = |k: usize| match w.scales() {
                Scales::Tensor(s) => f64::from(*s),
                Scales::Rows(s) => f64::from(s[r]),
                Scales::Groups(s) => f64::from(s.row(r)[k / s.group_len()].to_f32()),
            };
            codes.iter().zip(x).enumerate().map(|(k, (c, x))| scale(k) * f64::from(*c) * x).sum()
        })
        .collect()
}

/// The rotary embedding of one head, in halves.
fn rotate(x: &[f64], position: usize, c: &ModelConfig) -> Vec<f64> {
    let half = x.len() / 2;
    let mut out = x.to_vec();
    for i in 0..half {
        let (frequency, factor) = frequency(i, c);
        let (sin, cos) = (position as f64 * frequency).sin_cos();
        let (a, b) = (x[i], x[i + half]);
        out[i] = factor * (a * cos - b * sin);
        out[i + half] = factor * (b * cos + a * sin);
    }
    out
}

/// Frequency of pair `i`, and the factor of cosine and sine.
fn frequency(i: usize, c: &ModelConfig) -> (f64, f64) {
    let d = c.head_dim as f64;
    let plain = c.rope_theta.powf(-2.0 * i as f64 / d);
    match &c.rope_scaling {
        RopeScaling::None => (plain, 1.0),
        RopeScaling::Yarn { factor, original_context, attention_factor, beta_fast, beta_slow } => {
            let corr = |b: f64| {
                d * (*original_context as f64 / (2.0 * std::f64::consts::PI * b)).ln() / (2.0 * c.rope_theta.ln())
            };
            let (low, high) = (corr(*beta_fast).floor().max(0.0), corr(*beta_slow).ceil().min(d - 1.0));
            let mix = 1.0 - ((i as f64 - low) / (high - low).max(0.001)).clamp(0.0, 1.0);
            ((1.0 - mix) * plain / factor + mix * plain, *attention_factor)
        }
        RopeScaling::LongRope { short, long, original_context, attention_factor } => {
            let factors = if c.max_position_embeddings > *original_context { long } else { short };
            (plain / f64::from(factors[i]), *attention_factor)
        }
        other => panic!("{other:?} has tests of its own"),
    }
}
