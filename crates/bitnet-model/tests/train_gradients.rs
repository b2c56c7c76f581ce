//! Losses, gradients and optimizer steps against transformers and PyTorch, for both learners.

mod common;

use bitnet_model::train::{
    AdamW, AdamWOptions, Batch, CandleLearner, DecayOn, FusedLearner, Learner, Params, Random, Rates,
};
use bitnet_model::{ActivationBits, InputForms, Mixer, ModelConfig};
use candle_core::Device;
use common::{Checkpoint, File, fixture, max_abs, max_diff};

/// The parameters of a checkpoint of master weights.
fn params(checkpoint: &Checkpoint) -> Params {
    let mut params = Params::init(&checkpoint.config, 1, 0.02).unwrap();
    for e in params.entries.clone() {
        params.get_mut(&e.name).unwrap().copy_from_slice(&checkpoint.file.f32(&e.name));
    }
    params
}

fn learners(config: &ModelConfig) -> Vec<(&'static str, Box<dyn Learner>)> {
    vec![
        ("candle", Box::new(CandleLearner::new(config, &Device::Cpu).unwrap())),
        ("fused", Box::new(FusedLearner::new(config, 1).unwrap())),
    ]
}

/// Losses before each of three steps and after them, all gradients of the first, all parameters after it.
#[test]
fn three_steps_of_the_reference() {
    let Some(dir) = fixture("fixtures/bitnet/stable_tiny") else { return };
    let train = File::open(&dir.join("train.safetensors"));
    let master = Checkpoint::open(&dir.join("master"));
    let ids = train.ids("input_ids");
    let t = ids.len() - 1;
    let batch = Batch::new(ids, 1, t).unwrap();
    let losses = train.f32("losses");
    for (name, mut learner) in learners(&master.config) {
        let mut params = params(&master);
        let options = AdamWOptions { decay_on: DecayOn::All, ..AdamWOptions::default() };
        let mut adam = AdamW::new(options, params.values.len());
        for (step, want) in losses.iter().enumerate() {
            let mut grads = vec![0.0; params.values.len()];
            let loss = learner.accumulate(&params, &batch, &mut grads).unwrap();
            assert_eq!(loss, learner.loss(&params, &batch).unwrap(), "{name}: the loss without gradient");
            let limit = if step == 0 { 1e-4 } else { 1e-2 };
            assert!((loss - f64::from(*want)).abs() <= limit, "{name}, step {step}: loss {loss}, expected {want}");
            if step == 0 {
                for e in &params.entries {
                    let want = train.f32(&format!("grad.{}", e.name));
                    for (i, (g, w)) in grads[e.range.clone()].iter().zip(&want).enumerate() {
                        let limit = 1e-3 * w.abs() + 1e-6;
                        assert!((g - w).abs() <= limit, "{name}, {}[{i}]: gradient {g}, expected {w}", e.name);
                    }
                }
            }
            let rates = Rates { lr: 1e-3, weight_decay: 0.1 };
            adam.step(&mut params, &grads, 1.0, rates, 3).unwrap();
            if step == 0 {
                let mut compared = 0;
                for e in &params.entries {
                    let prefix = ["after1."]
                        .iter()
                        .find(|p| train.names().any(|n| n == format!("{p}{}", e.name)))
                        .unwrap_or_else(|| panic!("no parameters after the step for {}", e.name));
                    let want = train.f32(&format!("{prefix}{}", e.name));
                    let grad = train.f32(&format!("grad.{}", e.name));
                    for (i, (got, want)) in params.values[e.range.clone()].iter().zip(&want).enumerate() {
                        if grad[i].abs() > 1e-6 {
                            assert!((got - want).abs() <= 1e-5, "{name}, {}[{i}]: {got}, expected {want}", e.name);
                            compared += 1;
                        }
                    }
                }
                assert!(compared > params.values.len() / 2, "{name}: only {compared} parameters were compared");
            }
        }
    }
}

/// Configurations with every feature: blocks of queries that are not full, grouped and plain heads, both activations,
/// with and without sub-norms and tied head. Gradients of both learners agree if no int8 code is on a boundary, which
/// few are: relative error of each tensor as a whole.
#[test]
fn learners_agree() {
    let mut variants = Vec::new();
    for (silu, sub_norms, tied, kv) in [(false, true, true, 2), (true, false, false, 4), (true, true, true, 1)] {
        let mut c = ModelConfig::new(75, 48, 80, 2, 4, kv);
        c.head_dim = 12;
        c.hidden_act = if silu { bitnet_model::Activation::Silu } else { bitnet_model::Activation::Relu2 };
        (c.sub_norms, c.tie_word_embeddings) = (sub_norms, tied);
        variants.push(c);
    }
    // Hadamard transforms before the output and down projections, then four bits everywhere; one layer, as a different
    // code of four bits has a larger effect on what follows.
    for bits in [ActivationBits::Eight, ActivationBits::Four] {
        let mut c = variants[2].clone();
        c.num_hidden_layers = 1;
        c.inputs = InputForms::bitnet_v2(&c, bits);
        variants.push(c);
    }
    // Norms of heads, heads that are wider than their share; one scale per matrix, then a scale per group and 16 bits.
    for (group, sub_norms) in [(None, false), (Some(64), false), (Some(128), true)] {
        let mut c = ModelConfig::new(75, 128, 256, 2, 4, 2);
        c.head_dim = 64;
        c.hidden_act = bitnet_model::Activation::Silu;
        (c.sub_norms, c.head_norms, c.tie_word_embeddings) = (sub_norms, true, sub_norms);
        c.weight_group = group;
        if group.is_some() {
            c.inputs = c.inputs.with_bits(ActivationBits::Sixteen);
        }
        variants.push(c);
    }
    // Test-time training next to attention; with and without convolutions, shared projections and gate; windows that
    // end within a mini-batch.
    for (mixers, all) in [
        ([Mixer::TttLinear, Mixer::Attention], false),
        ([Mixer::TttLinear, Mixer::TttLinear], true),
        ([Mixer::TttMlp, Mixer::TttLinear], true),
    ] {
        let mut c = ModelConfig::new(75, 48, 80, 2, 4, 2);
        c.mixers = mixers.to_vec();
        (c.ttt.share_qk, c.ttt.use_gate, c.ttt.pre_conv, c.ttt.decay) = (all, all, all, all);
        c.ttt.norm_eps = 1e-3;
        variants.push(c);
    }
    for config in variants {
        let params = Params::init(&config, 3, 0.3).unwrap();
        let mut random = Random::new(9, "ids");
        let (b, t) = (3, 70);
        let ids = (0..b * (t + 1)).map(|_| random.below(75) as u32).collect();
        let batch = Batch::new(ids, b, t).unwrap();
        let [a, f] = [0, 1].map(|i| {
            let mut grads = vec![0.0; params.values.len()];
            let loss = learners(&config)[i].1.accumulate(&params, &batch, &mut grads).unwrap();
            (loss, grads)
        });
        assert!((a.0 - f.0).abs() <= 1e-3 * a.0, "losses {} and {}", a.0, f.0);
        for e in &params.entries {
            let (a, f) = (&a.1[e.range.clone()], &f.1[e.range.clone()]);
            assert!(max_abs(a) > 0.0, "{} has no gradient", e.name);
            let square = |v: f32| f64::from(v) * f64::from(v);
            let error: f64 = a.iter().zip(f).map(|(a, f)| square(a - f)).sum();
            let relative = (error / a.iter().map(|a| square(*a)).sum::<f64>()).sqrt();
            let limit = match (config.has_ttt(), config.weight_group) {
                (true, _) => 6e-2,
                (false, None) => 3e-2,
                // A difference of one in a code of 16 bits is 1 / 32639 of the largest.
                (false, Some(_)) => 1e-3,
            };
            assert!(relative <= limit, "{}: relative error {relative}, largest {}", e.name, max_diff(a, f));
        }
    }
}

/// Along its gradient the loss changes as the gradient says, for everything that a layer of the gated delta rule has
/// besides its projections; `ttt-layer` compares the layer's gradients with exact ones, this sees whether they come from
/// and go to the right places.
#[test]
fn gradients_of_the_gated_delta_rule_are_slopes() {
    let mut config = ModelConfig::new(75, 48, 80, 2, 4, 2);
    config.mixers = vec![Mixer::GatedDelta, Mixer::Attention];
    (config.delta.state_size, config.delta.key_heads, config.delta.value_heads) = (12, 2, 4);
    let params = Params::init(&config, 3, 0.3).unwrap();
    let mut random = Random::new(9, "ids");
    let (b, t) = (8, 70);
    let ids = (0..b * (t + 1)).map(|_| random.below(75) as u32).collect();
    let batch = Batch::new(ids, b, t).unwrap();
    let mut learner = FusedLearner::new(&config, 2).unwrap();
    let mut grads = vec![0.0; params.values.len()];
    let loss = learner.accumulate(&params, &batch, &mut grads).unwrap();
    assert_eq!(loss, learner.loss(&params, &batch).unwrap(), "the loss without gradient");
    let mut seen = 0;
    for e in params.entries.iter().filter(|e| e.name.contains("layers.0")) {
        let projection = ["in_proj_qkv", "in_proj_z", "out_proj"].iter().any(|p| e.name.contains(p));
        if projection || e.name.contains("mlp") {
            continue;
        }
        let g = &grads[e.range.clone()];
        let norm = g.iter().map(|g| f64::from(*g).powi(2)).sum::<f64>().sqrt();
        assert!(norm > 0.0, "{} has no gradient", e.name);
        // A change of the loss by some hundredths, which is large beside the steps of int8 codes.
        let step = (0.02 / norm).min(0.3);
        let mut at = |sign: f64| {
            let mut moved = params.clone();
            for (v, g) in moved.values[e.range.clone()].iter_mut().zip(g) {
                *v += (sign * step * f64::from(*g) / norm) as f32;
            }
            learner.loss(&moved, &batch).unwrap()
        };
        let slope = (at(1.0) - at(-1.0)) / (2.0 * step);
        // Quantisers, which the gradient passes straight through, and third derivatives.
        assert!((slope / norm - 1.0).abs() < 0.2, "{}: {slope} instead of {norm}", e.name);
        seen += 1;
    }
    assert_eq!(seen, 6 + 3, "six tensors of the layer, three norms");
}

/// One lane or several: the same sum of gradients but for rounding; the same lanes: the same bits.
#[test]
fn lanes_share_the_work() {
    let config = ModelConfig::new(64, 32, 64, 2, 2, 1);
    let params = Params::init(&config, 3, 0.1).unwrap();
    let mut random = Random::new(9, "ids");
    let ids = (0..40 * 51).map(|_| random.below(64) as u32).collect();
    let batch = Batch::new(ids, 40, 50).unwrap();
    let run = |lanes| {
        let mut grads = vec![0.0; params.values.len()];
        let loss = FusedLearner::new(&config, lanes).unwrap().accumulate(&params, &batch, &mut grads).unwrap();
        (loss, grads)
    };
    let (one, three) = (run(1), run(3));
    assert!((one.0 - three.0).abs() <= 1e-9);
    assert!(max_diff(&one.1, &three.1) <= 1e-4 * max_abs(&one.1));
    assert!(three == run(3));
}
