//! The row-wise form gives the same bits however a text is cut, on every number of threads and every instruction set.

mod common;

use std::num::NonZeroUsize;

use candle_core::DType;
use common::{Case, Text, config};
use proptest::prelude::*;
use ternary_kernels::{Isa, Ops, Team};
use ttt_layer::{ConvParameters, ConvRows, Rows, TttError, TttState};

fn bits(x: &[f32]) -> Vec<u32> {
    x.iter().map(|x| x.to_bits()).collect()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]
    #[test]
    fn bits_do_not_depend_on_the_cuts(
        variant in 0usize..32,
        heads in 1usize..4,
        half_dim in 1usize..20,
        b in 1usize..18,
        tokens in 1usize..50,
        cuts in prop::collection::vec(0usize..50, 0..12),
        seed in any::<u64>(),
    ) {
        let mut case = Case::new(&config(variant, heads, 2 * half_dim, b), DType::F32, seed);
        let x = case.input(1, tokens);
        let text = Text::new(&case.layer, &x, Ops::selected().unwrap());
        let mut state = TttState::new(&text.rows);
        let whole = text.read(&mut state, 0, tokens, None);
        prop_assert!(whole.iter().all(|x| x.is_finite()));

        let mut cuts: Vec<usize> = cuts.into_iter().map(|c| c.min(tokens)).collect();
        cuts.extend([0, tokens]);
        cuts.sort_unstable();
        let mut parts = Vec::new();
        let mut other = TttState::new(&text.rows);
        for cut in cuts.windows(2) {
            parts.extend(text.read(&mut other, cut[0], cut[1], None));
        }
        prop_assert_eq!(bits(&parts), bits(&whole));
        prop_assert_eq!(&other, &state);
        prop_assert_eq!(state.position(), tokens as u64);
        prop_assert_eq!(state.pending(), tokens % b);

        // One token at a time.
        let mut single = TttState::new(&text.rows);
        let each: Vec<f32> = (0..tokens).flat_map(|t| text.read(&mut single, t, t + 1, None)).collect();
        prop_assert_eq!(bits(&each), bits(&whole));
    }
}

#[test]
fn bits_do_not_depend_on_threads_or_instruction_sets() {
    let teams: Vec<Team> = [1, 2, 3, 5].iter().map(|n| Team::new(NonZeroUsize::new(*n).unwrap()).unwrap()).collect();
    for variant in 0..32 {
        let mut case = Case::new(&config(variant, 3, 34, 16), DType::F32, 40 + variant as u64);
        let x = case.input(1, 37);
        let text = Text::new(&case.layer, &x, Ops::for_isa(Isa::Scalar).unwrap());
        let mut state = TttState::new(&text.rows);
        let whole = text.read(&mut state, 0, 37, None);
        for isa in Isa::available() {
            let text = Text::new(&case.layer, &x, Ops::for_isa(isa).unwrap());
            for team in &teams {
                let mut other = TttState::new(&text.rows);
                let mut got = text.read(&mut other, 0, 18, Some(team));
                got.extend(text.read(&mut other, 18, 37, Some(team)));
                assert_eq!(bits(&got), bits(&whole), "variant {variant}, {isa}, {team:?}");
                assert_eq!(other, state, "variant {variant}, {isa}, {team:?}");
            }
        }
    }
}

/// Each token's loss is that of a fresh mini-batch with the state's weights, by the definition in f64, and asking for
/// it changes nothing.
#[test]
fn inner_losses_follow_their_definition() {
    for variant in 0..32 {
        let config = config(variant, 2, 6, 4);
        let mut case = Case::new(&config, DType::F32, 70 + variant as u64);
        let x = case.input(1, 11);
        let text = Text::new(&case.layer, &x, Ops::selected().unwrap());
        let (mut state, mut other) = (TttState::new(&text.rows), TttState::new(&text.rows));
        let (out, losses) = text.read_with_losses(&mut state);
        assert_eq!(bits(&out), bits(&text.read(&mut other, 0, 11, None)));
        assert_eq!(state, other);

        let views = case.layer.views(&x).unwrap();
        let (k, v) = (common::f64s(&views.k), common::f64s(&views.v));
        let p = case.layer.parameters().unwrap();
        let mut before = TttState::new(&text.rows);
        for t in 0..11 {
            // Its weights only change at the end of a mini-batch.
            for head in 0..2 {
                let row = (head * 11 + t) * 6..(head * 11 + t + 1) * 6;
                let (k, v) = (&k[row.clone()], &v[row]);
                let w = before.weights(head);
                let affine = |x: &[f64], w: &[f32], b: &[f32]| -> Vec<f64> {
                    let column = |j: usize| (0..x.len()).map(|i| x[i] * f64::from(w[i * b.len() + j])).sum::<f64>();
                    (0..b.len()).map(|j| column(j) + f64::from(b[j])).collect()
                };
                let mut z = affine(k, w[0], w[1]);
                if let [_, _, w2, b2] = w[..] {
                    let gelu = |x: &f64| x / (1.0 + (-1.595_769_121_605_731 * (x + 0.044_715 * x.powi(3))).exp());
                    z = affine(&z.iter().map(gelu).collect::<Vec<_>>(), w2, b2);
                }
                let mean = z.iter().sum::<f64>() / 6.0;
                let std = (z.iter().map(|z| (z - mean).powi(2)).sum::<f64>() / 6.0 + f64::from(config.norm_eps)).sqrt();
                let f = |i: usize| {
                    let (gain, bias) = (p.norm_weight[head * 6 + i], p.norm_bias[head * 6 + i]);
                    k[i] + (z[i] - mean) / std * f64::from(gain) + f64::from(bias)
                };
                let want = (0..6).map(|i| (f(i) - v[i]).powi(2)).sum::<f64>() / 2.0;
                let got = f64::from(losses[t * 2 + head]);
                // A few dozen f32 roundings of values of this size.
                assert!((got - want).abs() <= 1e-4 * (1.0 + want), "variant {variant}, token {t}: {got} and {want}");
            }
            text.read(&mut before, t, t + 1, None);
        }
    }
}

/// A token that is not finite spoils the text that it is in, and nothing panics.
#[test]
fn values_that_are_not_finite_do_not_panic() {
    for variant in 0..32 {
        let mut case = Case::new(&config(variant, 2, 6, 4), DType::F32, 1);
        let x = case.input(1, 9);
        let mut text = Text::new(&case.layer, &x, Ops::selected().unwrap());
        text.v[20] = f32::NAN;
        text.q[30] = f32::INFINITY;
        let out = text.read(&mut TttState::new(&text.rows), 0, 9, None);
        assert!(out.iter().any(|x| x.is_nan()));
    }
}

#[test]
fn convolutions_follow_their_formula_and_carry_their_window() {
    let (channels, kernel, tokens) = (5, 4, 9);
    let mut random = common::Random(8);
    let p = ConvParameters { weight: random.normals(channels * kernel), bias: random.normals(channels) };
    let x = random.normals(tokens * channels);
    let at = |t: usize, c: usize| {
        (0..kernel).fold(p.bias[c], |y, j| match (t + j).checked_sub(kernel - 1) {
            Some(i) => p.weight[c * kernel + j].mul_add(x[i * channels + c], y),
            None => y,
        })
    };
    let want: Vec<f32> = (0..tokens * channels).map(|i| at(i / channels, i % channels)).collect();
    let conv = ConvRows::new(&p, channels, kernel).unwrap();
    for cut in 0..=tokens {
        let mut window = vec![0.0; conv.window_len()];
        let mut got = vec![0.0; x.len()];
        let (first, second) = got.split_at_mut(cut * channels);
        let (a, b) = x.split_at(cut * channels);
        let ops = Ops::selected().unwrap();
        conv.forward(ops, &mut window, Rows::new(a, channels), first);
        conv.forward(ops, &mut window, Rows::new(b, channels), second);
        assert_eq!(bits(&got), bits(&want), "cut at {cut}");
        assert_eq!(window, x[(tokens - kernel + 1) * channels..]);
    }
    let short = ConvParameters { weight: vec![0.0; 19], bias: vec![0.0; 5] };
    assert!(matches!(ConvRows::new(&short, 5, 4), Err(TttError::Length { expected: 20, got: 19, .. })));
}

#[test]
fn a_layer_without_inner_updates_forgets_every_mini_batch_and_says_what_it_is() {
    for variant in [0, 1] {
        let config = config(variant, 2, 6, 4);
        assert!(!config.share_qk, "a convolution would remember");
        let mut case = Case::new(&config, DType::F32, 5);
        let x = case.input(1, 13);
        let mut text = Text::new(&case.layer, &x, Ops::selected().unwrap());
        let learns = text.read(&mut TttState::new(&text.rows), 0, 13, None);
        assert!(text.rows.has_inner_updates());
        text.rows = text.rows.without_inner_updates();
        assert!(!text.rows.has_inner_updates());
        let mut state = TttState::new(&text.rows);
        let first = state.weights(0).concat();
        let still = text.read(&mut state, 0, 13, None);
        assert_eq!(state.weights(0).concat(), first);
        assert_ne!(still, learns);
        // The first token of a mini-batch starts from the same weights as the very first one.
        let w = config.width();
        for at in [4, 8, 12] {
            assert_eq!(text.read(&mut TttState::new(&text.rows), at, at + 1, None), still[at * w..(at + 1) * w]);
        }
    }
}
