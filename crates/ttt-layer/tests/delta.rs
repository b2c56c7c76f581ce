//! The gated delta rule against its definition in f64; equal bits however a text is cut; states as bytes.

mod common;

use common::Random;
use proptest::prelude::*;
use ternary_kernels::{ColsMut, Isa, Ops};
use ttt_layer::{DeltaConfig, DeltaInputs, DeltaParameters, DeltaScratch, DeltaState, GatedDelta, Rows, TttError};

fn bits(x: &[f32]) -> Vec<u32> {
    x.iter().map(|x| x.to_bits()).collect()
}

fn parameters(c: &DeltaConfig, random: &mut Random) -> DeltaParameters {
    let scaled = |x: Vec<f32>, mean: f32, by: f32| x.into_iter().map(|x| mean + by * x).collect::<Vec<f32>>();
    let gates = c.value_heads * c.hidden_size;
    DeltaParameters {
        alpha: scaled(random.normals(gates), 0.0, 0.3),
        beta: scaled(random.normals(gates), 0.0, 0.3),
        conv: scaled(random.normals(c.channels() * c.conv_kernel), 0.2, 0.4),
        decay: random.normals(c.value_heads).into_iter().map(|x| -x.abs()).collect(),
        decay_bias: random.normals(c.value_heads),
        norm: scaled(random.normals(c.head_dim), 1.0, 0.1),
    }
}

/// A layer and a text for it.
struct Text {
    layer: GatedDelta,
    parameters: DeltaParameters,
    x: Vec<f32>,
    qkv: Vec<f32>,
    z: Vec<f32>,
}

impl Text {
    fn new(c: &DeltaConfig, tokens: usize, seed: u64, ops: Ops) -> Self {
        let mut random = Random(seed);
        let parameters = parameters(c, &mut random);
        Self {
            layer: GatedDelta::with_ops(c, &parameters, ops).unwrap(),
            parameters,
            x: random.normals(tokens * c.hidden_size),
            qkv: random.normals(tokens * c.channels()),
            z: random.normals(tokens * c.value_width()),
        }
    }

    fn inputs(&self, from: usize, to: usize) -> DeltaInputs<'_> {
        let c = self.layer.config();
        let (d, u, w) = (c.hidden_size, c.channels(), c.value_width());
        DeltaInputs {
            x: &self.x[from * d..to * d],
            qkv: Rows::new(&self.qkv[from * u..to * u], u),
            z: Rows::new(&self.z[from * w..to * w], w),
        }
    }

    fn read(&self, state: &mut DeltaState, from: usize, to: usize) -> Vec<f32> {
        let c = self.layer.config();
        let mut out = vec![f32::NAN; (to - from) * c.value_width()];
        self.layer.forward(state, &self.inputs(from, to), &mut out, &mut DeltaScratch::new(c));
        out
    }
}

/// The definition, one number after the other, in f64: outputs `[tokens, value_width]`, and the matrices `[value_heads, d, d]`.
fn definition(text: &Text, tokens: usize) -> (Vec<f64>, Vec<f64>) {
    let (c, p) = (text.layer.config(), &text.parameters);
    let (d, g, channels) = (c.head_dim, c.group(), c.channels());
    let silu = |x: f64| x / (1.0 + (-x).exp());
    let mut states = vec![0.0; c.value_heads * d * d];
    let mut out = Vec::new();
    for t in 0..tokens {
        let convolved: Vec<f64> = (0..channels)
            .map(|ch| {
                let tap = |j: usize| {
                    let before = c.conv_kernel - 1 - j;
                    let x = if before > t { 0.0 } else { text.qkv[(t - before) * channels + ch] };
                    f64::from(p.conv[ch * c.conv_kernel + j]) * f64::from(x)
                };
                silu((0..c.conv_kernel).map(tap).sum())
            })
            .collect();
        let unit = |x: &[f64]| -> Vec<f64> {
            let length = (x.iter().map(|x| x * x).sum::<f64>() + 1e-6).sqrt();
            x.iter().map(|x| x / length).collect()
        };
        for j in 0..c.value_heads {
            let head = j / g;
            let q: Vec<f64> = unit(&convolved[head * d..][..d]).iter().map(|q| q / (d as f64).sqrt()).collect();
            let k = unit(&convolved[c.key_width() + head * d..][..d]);
            let v = &convolved[2 * c.key_width() + j * d..][..d];
            let x = &text.x[t * c.hidden_size..(t + 1) * c.hidden_size];
            let with = |w: &[f32]| -> f64 {
                let w = &w[j * c.hidden_size..(j + 1) * c.hidden_size];
                x.iter().zip(w).map(|(x, w)| f64::from(*x) * f64::from(*w)).sum()
            };
            let softplus = (with(&p.alpha) + f64::from(p.decay_bias[j])).exp().ln_1p();
            let decay = (f64::from(p.decay[j]) * softplus).exp();
            let rate = 1.0 / (1.0 + (-with(&p.beta)).exp());
            let a = &mut states[j * d * d..(j + 1) * d * d];
            a.iter_mut().for_each(|a| *a *= decay);
            let mut o = vec![0.0; d];
            for col in 0..d {
                let seen: f64 = (0..d).map(|i| k[i] * a[i * d + col]).sum();
                let error = rate * (v[col] - seen);
                (0..d).for_each(|i| a[i * d + col] += k[i] * error);
                o[col] = (0..d).map(|i| q[i] * a[i * d + col]).sum();
            }
            let mean = o.iter().map(|o| o * o).sum::<f64>() / d as f64 + f64::from(c.norm_eps);
            let z = &text.z[t * c.value_width() + j * d..][..d];
            let of = |i: usize| o[i] / mean.sqrt() * f64::from(p.norm[i]) * silu(f64::from(z[i]));
            out.extend((0..d).map(of));
        }
    }
    (out, states)
}

fn config(hidden: usize, key_heads: usize, group: usize, d: usize, taps: usize) -> DeltaConfig {
    let mut c = DeltaConfig::new(hidden, key_heads, key_heads * group, d);
    c.conv_kernel = taps;
    c
}

/// The layer is a contraction (rates and decays are below 1, keys have length 1), so errors of single operations, `d u`
/// of what they add up, do not grow with the text; 1e-4 is the tolerance of the reference states.
#[test]
fn the_recurrence_is_its_definition() {
    for (i, c) in [config(24, 1, 1, 8, 4), config(40, 2, 3, 16, 4), config(33, 3, 2, 20, 2), config(8, 2, 1, 5, 1)]
        .into_iter()
        .enumerate()
    {
        let tokens = 70;
        let text = Text::new(&c, tokens, 100 + i as u64, Ops::selected().unwrap());
        let mut state = DeltaState::new(&text.layer);
        let got = text.read(&mut state, 0, tokens);
        let (want, states) = definition(&text, tokens);
        let largest = want.iter().fold(1.0f64, |m, x| m.max(x.abs()));
        for (at, (g, w)) in got.iter().zip(&want).enumerate() {
            assert!((f64::from(*g) - w).abs() <= 1e-4 * largest, "output {at} of {c:?}: {g} instead of {w}");
        }
        for j in 0..c.value_heads {
            let (got, want) = (state.matrix(j), &states[j * c.head_dim * c.head_dim..]);
            for (g, w) in got.iter().zip(want) {
                assert!((f64::from(*g) - w).abs() <= 1e-4, "state of head {j} of {c:?}: {g} instead of {w}");
            }
        }
        // The window holds the last inputs as they came.
        let rows = c.conv_kernel - 1;
        assert_eq!(state.window(), text.qkv[(tokens - rows) * c.channels()..], "{c:?}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, ..ProptestConfig::default() })]
    #[test]
    fn bits_do_not_depend_on_the_cuts(
        key_heads in 1usize..3,
        group in 1usize..4,
        d in 1usize..20,
        taps in 1usize..6,
        tokens in 1usize..150,
        cuts in prop::collection::vec(0usize..150, 0..8),
        seed in any::<u64>(),
    ) {
        let text = Text::new(&config(24, key_heads, group, d, taps), tokens, seed, Ops::selected().unwrap());
        let mut state = DeltaState::new(&text.layer);
        let whole = text.read(&mut state, 0, tokens);
        prop_assert!(whole.iter().all(|x| x.is_finite()));
        let mut cuts: Vec<usize> = cuts.into_iter().map(|c| c.min(tokens)).collect();
        cuts.extend([0, tokens]);
        cuts.sort_unstable();
        let mut other = DeltaState::new(&text.layer);
        let parts: Vec<f32> = cuts.windows(2).flat_map(|cut| text.read(&mut other, cut[0], cut[1])).collect();
        prop_assert_eq!(bits(&parts), bits(&whole));
        prop_assert_eq!(&other, &state);
        prop_assert_eq!(state.position(), tokens as u64);
    }
}

#[test]
fn bits_depend_neither_on_the_instruction_set_nor_on_who_computes_a_head() {
    let c = config(48, 3, 2, 34, 4);
    let mut first: Option<Vec<u32>> = None;
    for isa in Isa::available() {
        let text = Text::new(&c, 20, 7, Ops::for_isa(isa).unwrap());
        let whole = text.read(&mut DeltaState::new(&text.layer), 0, 20);
        // Each key head separately.
        let (mut state, mut out) = (DeltaState::new(&text.layer), vec![0.0; whole.len()]);
        let width = c.group() * c.head_dim;
        let part = state.head_floats();
        for (head, state) in state.heads_mut().chunks_exact_mut(part).enumerate() {
            let mut own = vec![0.0; 20 * width];
            let cols = &mut ColsMut::new(&mut own, 20, width);
            text.layer.forward_heads(head..head + 1, state, &text.inputs(0, 20), cols, &mut DeltaScratch::new(&c));
            for (row, own) in out.chunks_exact_mut(c.value_width()).zip(own.chunks_exact(width)) {
                row[head * width..(head + 1) * width].copy_from_slice(own);
            }
        }
        assert_eq!(bits(&out), bits(&whole), "{isa}");
        assert_eq!(*first.get_or_insert_with(|| bits(&whole)), bits(&whole), "{isa}");
    }
}

#[test]
fn a_saved_state_goes_on_with_the_same_bits_and_a_damaged_one_is_refused() {
    let c = config(24, 2, 2, 8, 4);
    let text = Text::new(&c, 30, 8, Ops::selected().unwrap());
    let mut state = DeltaState::new(&text.layer);
    text.read(&mut state, 0, 17);
    let bytes = state.save(5);
    assert_eq!(bytes.len(), c.saved_state_bytes().unwrap());
    let mut restored = DeltaState::restore(&text.layer, 5, &bytes).unwrap();
    assert_eq!(bits(&text.read(&mut restored, 17, 30)), bits(&text.read(&mut state, 17, 30)));
    let says = |model: u64, bytes: &[u8]| DeltaState::restore(&text.layer, model, bytes).unwrap_err().to_string();
    assert!(says(6, &bytes).contains("other weights"));
    assert!(says(5, &bytes[..bytes.len() - 1]).contains("bytes"));
    assert!(says(5, b"TTTSTATE").contains("mark"));
    let other = Text::new(&config(24, 2, 2, 9, 4), 1, 8, Ops::selected().unwrap());
    let error = DeltaState::restore(&other.layer, 5, &bytes).unwrap_err().to_string();
    assert!(error.contains("another configuration"), "{error}");
    for at in [0, 9, 20, 30, 60, bytes.len() - 1] {
        let mut damaged = bytes.clone();
        damaged[at] ^= 1;
        assert!(DeltaState::restore(&text.layer, 5, &damaged).is_err(), "byte {at}");
    }
    // The data saved before a step undo it.
    let (mut undo, before) = (Vec::new(), restored.clone());
    restored.remember(&mut undo);
    undo.push(7.0);
    text.read(&mut restored, 3, 9);
    assert_eq!(restored.rewind(before.position(), &undo), [7.0]);
    assert_eq!(restored, before);
    restored.reset();
    assert_eq!(restored, DeltaState::new(&text.layer));
}

#[test]
fn what_is_no_layer_is_refused_by_name() {
    let refused = |c: &DeltaConfig, word: &str| {
        let error = c.validate().unwrap_err();
        assert!(matches!(error, TttError::Config { .. }) && error.to_string().contains(word), "{error}");
    };
    let mut c = config(24, 2, 1, 8, 4);
    c.validate().unwrap();
    c.value_heads = 3;
    refused(&c, "value heads");
    refused(&config(24, 2, 1, 25, 4), "state size");
    refused(&config(24, 2, 1, 8, 0), "conv_kernel");
    refused(&config(24, 0, 1, 8, 4), "key heads");
    let c = config(24, 2, 1, 8, 4);
    let mut p = parameters(&c, &mut Random(1));
    p.decay.pop();
    let error = GatedDelta::new(&c, &p).unwrap_err();
    assert!(matches!(error, TttError::Length { expected: 2, got: 1, .. }), "{error}");
}
