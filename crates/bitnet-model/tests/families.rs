//! The formulas of further families, one by one, against a decoder in f64 that shares no code with the engine.

#[path = "common/naive.rs"]
mod naive;

use bitnet_model::embedding::{Embedding, Pooling, embed};
use bitnet_model::{
    Activation, ActivationBits, Engine, EngineOptions, HeadRequest, KvType, LogitsWanted, ModelConfig, ModelError,
    ModelWeights, RopeScaling, Sequence, SequenceState, StepInput, StepOutput, SyntheticWeights,
};
use ternary_kernels::Isa;

const VOCAB: usize = 50;
const IDS: [u32; 4] = [3, 1, 4, 15];

fn plain() -> ModelConfig {
    let mut c = ModelConfig::new(VOCAB, 64, 96, 1, 4, 2);
    // Not hidden_size / heads.
    c.head_dim = 24;
    c.sub_norms = false;
    c.hidden_act = Activation::Silu;
    c.rms_norm_eps = 1e-6;
    c.rope_theta = 10_000.0;
    c
}

/// A configuration for each formula, and one with all compatible formulas.
fn cases() -> Vec<(&'static str, ModelConfig)> {
    let with = |change: &dyn Fn(&mut ModelConfig)| {
        let mut c = plain();
        change(&mut c);
        c.validate().unwrap();
        c
    };
    let longrope = |max: usize| {
        with(&move |c| {
            c.max_position_embeddings = max;
            c.rope_scaling = RopeScaling::LongRope {
                short: vec![0.5; 12],
                long: (0..12).map(|i| 1.0 + i as f32).collect(),
                original_context: 128,
                attention_factor: 1.2,
            };
        })
    };
    vec![
        ("gelu", with(&|c| c.hidden_act = Activation::GeluTanh)),
        ("head norms", with(&|c| c.head_norms = true)),
        ("head norms after the rotary embedding", with(&|c| (c.head_norms, c.head_norms_after_rope) = (true, true))),
        ("projection norms", with(&|c| c.projection_norms = true)),
        ("output norms", with(&|c| c.output_norms = true)),
        ("biases", with(&|c| c.qkv_bias = true)),
        ("embedding scale", with(&|c| c.embedding_scale = 8.0)),
        ("residual scale", with(&|c| c.residual_scale = 0.35)),
        ("logit divisor", with(&|c| c.logit_divisor = 2.0)),
        ("attention scale", with(&|c| c.attention_scale = Some(0.5))),
        ("yarn", with(&|c| c.rope_scaling = RopeScaling::yarn(4.0, 16))),
        ("longrope, short", longrope(128)),
        ("longrope, long", longrope(4096)),
        ("gemma", with(&gemma)),
        ("everything", with(&everything)),
    ]
}

fn gemma(c: &mut ModelConfig) {
    (c.hidden_act, c.embedding_scale) = (Activation::GeluTanh, (c.hidden_size as f32).sqrt());
    (c.head_norms, c.projection_norms, c.output_norms) = (true, true, true);
}

fn everything(c: &mut ModelConfig) {
    gemma(c);
    (c.qkv_bias, c.residual_scale, c.logit_divisor) = (true, 1.25, 3.0);
    (c.attention_scale, c.rope_scaling) = (Some(0.3), RopeScaling::yarn(4.0, 16));
}

fn weights(c: &ModelConfig, seed: u64) -> ModelWeights {
    ModelWeights::from_source(&SyntheticWeights::new(c.clone(), seed)).unwrap()
}

fn logits(w: &ModelWeights) -> Vec<f32> {
    let engine = Engine::new(w, &EngineOptions::default().threads(1)).unwrap();
    Sequence::new(&engine, KvType::F32, None).feed_each(&IDS).unwrap()
}

fn far(a: &[f32], b: &[f64]) -> f64 {
    assert_eq!(a.len(), b.len());
    a.iter().zip(b).map(|(a, b)| (f64::from(*a) - b).abs()).fold(0.0, f64::max)
}

/// One layer, where f32 and f64 round few activations to different int8 codes: rounding of f32 costs 1e-4, a different
/// code more than 1e-3.
#[test]
fn each_formula_is_that_of_the_reference() {
    for (name, c) in cases() {
        let w = weights(&c, 5);
        let (got, expected) = (logits(&w), naive::forward(&w, &IDS).logits.concat());
        let diff = far(&got, &expected);
        assert!(diff <= 2e-4, "{name}: logits differ by {diff}");
        let without: Vec<f64> = logits(&weights(&plain(), 5)).into_iter().map(f64::from).collect();
        assert!(far(&got, &without) > 1e-3, "{name} changes nothing");
    }
}

fn bits(v: &[f32]) -> Vec<u32> {
    v.iter().map(|x| x.to_bits()).collect()
}

/// Threads, splits, instruction sets, schedules and neighbouring texts change no bit.
#[test]
fn all_formulas_are_canonical() {
    let mut c = plain();
    (c.num_hidden_layers, c.head_dim) = (2, 40);
    everything(&mut c);
    assert_canonical(&weights(&c, 6));
}

fn assert_canonical(w: &ModelWeights) {
    assert_canonical_with(w, |options| options);
}

fn assert_canonical_with(w: &ModelWeights, with: impl Fn(EngineOptions) -> EngineOptions) {
    let vocab = w.config.vocab_size;
    let ids: Vec<u32> = (0..90).map(|i| (i * i + 7 * i) % vocab as u32).collect();
    let mut first: Option<Vec<u32>> = None;
    for isa in Isa::available() {
        for (threads, lanes) in [(1, false), (1, true), (3, false), (3, true)] {
            let options = with(EngineOptions::default().threads(threads).isa(isa).sequence_parallel(lanes));
            let engine = Engine::new(w, &options).unwrap();
            for cuts in [&[90][..], &[1, 2, 20, 1, 66]] {
                let mut s = Sequence::new(&engine, KvType::F16, None);
                let (mut at, mut all) = (0, Vec::new());
                for &cut in cuts {
                    all.extend(s.feed_each(&ids[at..at + cut]).unwrap());
                    at += cut;
                }
                let all = bits(&all);
                match &first {
                    None => first = Some(all),
                    Some(first) => assert!(*first == all, "{isa}, {threads} threads, lanes {lanes}, cuts {cuts:?}"),
                }
            }
            let mut states: Vec<_> = (0..3).map(|_| SequenceState::new(&engine, KvType::F16, 200)).collect();
            let mut inputs: Vec<_> = states
                .iter_mut()
                .enumerate()
                .map(|(i, state)| StepInput {
                    state,
                    tokens: &ids[..90 - i],
                    wanted: LogitsWanted::Last,
                    head: HeadRequest::Full,
                })
                .collect();
            let mut out = StepOutput::default();
            engine.step(&mut inputs, &mut out).unwrap();
            for (i, own) in out.logits().chunks_exact(vocab).enumerate() {
                let alone = &first.as_ref().unwrap()[(89 - i) * vocab..(90 - i) * vocab];
                assert!(alone == bits(own), "{isa}, {threads} threads, lanes {lanes}, text {i} of three");
            }
        }
    }
}

/// Hidden states of a model without a head, with the pooling of the file or the requested one.
#[test]
fn embedding_models_pool_as_their_file_says() {
    let mut c = plain();
    gemma(&mut c);
    (c.headless, c.pooling) = (true, Some(Pooling::Last));
    let w = weights(&c, 7);
    let engine = Engine::new(&w, &EngineOptions::default().threads(2)).unwrap();
    assert_eq!((engine.head_bytes(), engine.head_type().as_str()), (0, "none"));
    let hidden = naive::forward(&w, &IDS).hidden;
    let unit = |v: Vec<f64>| {
        let length = v.iter().map(|x| x * x).sum::<f64>().sqrt();
        v.iter().map(|x| x / length).collect::<Vec<f64>>()
    };
    let mean: Vec<f64> = (0..64).map(|i| hidden.iter().map(|h| h[i]).sum::<f64>() / hidden.len() as f64).collect();
    let expected = [
        (None, hidden[3].clone()),
        (Some(Pooling::Last), hidden[3].clone()),
        (Some(Pooling::First), hidden[0].clone()),
        (Some(Pooling::Mean), mean),
    ];
    for (pooling, vector) in expected {
        let of = |normalize| embed(&engine, &[&IDS, &[9, 9]], KvType::F32, pooling, normalize).unwrap().swap_remove(0);
        assert!(far(&of(false), &vector) <= 1e-4, "{pooling:?}");
        assert!(far(&of(true), &unit(vector)) <= 1e-5, "{pooling:?}");
    }
}

#[test]
fn logits_of_a_model_without_a_head_are_refused_before_anything_is_computed() {
    let mut c = plain();
    c.headless = true;
    let engine = Engine::new(&weights(&c, 8), &EngineOptions::default().threads(1)).unwrap();
    let mut s = Sequence::new(&engine, KvType::F16, None);
    assert!(matches!(s.feed(&IDS), Err(ModelError::NoHead)));
    assert_eq!(s.len(), 0);
    let mut state = SequenceState::new(&engine, KvType::F16, 10);
    let mut out = StepOutput::default();
    let input = StepInput { state: &mut state, tokens: &IDS, wanted: LogitsWanted::None, head: HeadRequest::Full };
    engine.step(&mut [input], &mut out).unwrap();
    assert!(matches!(engine.predict(&state, HeadRequest::Full, &mut out), Err(ModelError::NoHead)));
    assert!(ModelError::NoHead.to_string().contains("embed"));
}

/// Every new number is part of the fingerprint, and so are the gains and biases.
#[test]
fn fingerprints_tell_the_formulas_apart() {
    let engine = |w: &ModelWeights| Engine::new(w, &EngineOptions::default().threads(1)).unwrap();
    let mut all = vec![("plain", engine(&weights(&plain(), 5)).fingerprint())];
    for (name, c) in cases() {
        all.push((name, engine(&weights(&c, 5)).fingerprint()));
    }
    let mut w = weights(&cases().pop().unwrap().1, 5);
    for (name, change) in [
        ("gain of q", (|l| &mut l.head_q_norm.as_mut().unwrap()[3]) as fn(&mut bitnet_model::LayerWeights) -> &mut f32),
        ("gain of k", |l| &mut l.head_k_norm.as_mut().unwrap()[3]),
        ("gain of the mixer's output", |l| &mut l.mixer_out_norm.as_mut().unwrap()[3]),
        ("gain of the feed-forward output", |l| &mut l.ffn_out_norm.as_mut().unwrap()[3]),
    ] {
        *change(&mut w.layers[0]) += 0.25;
        all.push((name, engine(&w).fingerprint()));
    }
    let eight = EngineOptions::default().threads(1).activation_bits(ActivationBits::Eight);
    assert_eq!(Engine::new(&weights(&plain(), 5), &eight).unwrap().fingerprint(), all[0].1);
    for (i, (a, x)) in all.iter().enumerate() {
        all[..i].iter().for_each(|(b, y)| assert_ne!(x, y, "{a} and {b}"));
    }
}

#[test]
fn what_is_not_computed_together_is_refused_by_name() {
    let refused = |change: &dyn Fn(&mut ModelConfig), word: &str| {
        let mut c = plain();
        change(&mut c);
        let error = Engine::new(&weights(&c, 1), &EngineOptions::default().threads(1)).unwrap_err().to_string();
        assert!(error.contains(word), "{error}");
    };
    refused(&|c| (c.sub_norms, c.projection_norms) = (true, true), "projection_norms");
    let mut c = plain();
    (c.sub_norms, c.projection_norms) = (false, true);
    let candle = bitnet_model::nn::CandleModel::from_weights(&weights(&c, 1), &candle_core::Device::Cpu).unwrap_err();
    assert!(candle.to_string().contains("before every projection"), "{candle}");
}

/// Widths that are not multiples of 128, so that the last group of a row is shorter.
fn grouped(tied: bool) -> ModelConfig {
    let mut c = ModelConfig::new(VOCAB, 192, 320, 2, 4, 2);
    (c.head_dim, c.sub_norms, c.hidden_act) = (40, false, Activation::Silu);
    (c.head_norms, c.rope_scaling, c.tie_word_embeddings) = (true, RopeScaling::yarn(4.0, 16), tied);
    c
}

fn group_weights(c: &ModelConfig, group_len: usize) -> ModelWeights {
    ModelWeights::from_source(&SyntheticWeights::new(c.clone(), 9).with_groups(group_len)).unwrap()
}

/// Codes of 16 bits that round differently in f32 and in f64 cost less than 1e-3: two layers, ternary tables, tied and
/// untied.
#[test]
fn models_with_group_scales_are_those_of_the_reference() {
    for (tied, group_len) in [(true, 64), (false, 128), (true, 256)] {
        let w = group_weights(&grouped(tied), group_len);
        assert_eq!(w.config.inputs.all().map(|f| f.bits), [ActivationBits::Sixteen; 4]);
        let expected = naive::forward(&w, &IDS).logits.concat();
        let largest = expected.iter().fold(0.0, |m: f64, v| m.max(v.abs()));
        let diff = far(&logits(&w), &expected);
        assert!(diff <= 1e-3 && largest > 0.5, "groups of {group_len}: logits of up to {largest} differ by {diff}");
    }
}

#[test]
fn models_with_group_scales_are_canonical() {
    for (tied, group_len) in [(true, 64), (false, 128)] {
        assert_canonical(&group_weights(&grouped(tied), group_len));
    }
}

/// The best logits of a ternary head equal those computed from the whole head.
#[test]
fn ternary_heads_answer_every_request() {
    let w = group_weights(&grouped(false), 64);
    let engine = Engine::new(&w, &EngineOptions::default().threads(2)).unwrap();
    let mut state = SequenceState::new(&engine, KvType::F16, 10);
    let mut out = StepOutput::default();
    let input = StepInput { state: &mut state, tokens: &IDS, wanted: LogitsWanted::Last, head: HeadRequest::Top(3) };
    engine.step(&mut [input], &mut out).unwrap();
    assert!(engine.predict(&state, HeadRequest::Full, &mut out).unwrap());
    let (first, second) = out.logits().split_at(VOCAB);
    assert_eq!(bits(first), bits(second));
    assert_eq!(engine.head_type(), "trits");
    assert!(engine.coarse_head_bytes().is_none() && engine.head_bytes() > 0 && engine.kernel_name().contains("group"));
}

/// With 8 bits a model with group scales is another, similar model; with 4 there is no kernel, which is reported before
/// anything is packed.
#[test]
fn other_bits_of_models_with_group_scales() {
    let w = group_weights(&grouped(true), 64);
    let with = |bits| Engine::new(&w, &EngineOptions::default().threads(1).activation_bits(bits));
    let engines = [with(ActivationBits::Sixteen).unwrap(), with(ActivationBits::Eight).unwrap()];
    let [exact, rough] = engines.each_ref().map(|e| Sequence::new(e, KvType::F32, None).feed_each(&IDS).unwrap());
    assert_eq!(bits(&exact), bits(&logits(&w)));
    let norm = |v: &[f32]| v.iter().map(|x| f64::from(*x).powi(2)).sum::<f64>().sqrt();
    let error: Vec<f32> = exact.iter().zip(&rough).map(|(a, b)| a - b).collect();
    let relative = norm(&error) / norm(&exact);
    assert!((1e-3..0.2).contains(&relative), "{relative}");
    assert_ne!(engines[0].fingerprint(), engines[1].fingerprint());
    let error = with(ActivationBits::Four).unwrap_err().to_string();
    assert!(error.contains("q_proj") && error.contains("16 or 8"), "{error}");
}

/// Int8 activations with a scale per group: they equal the definition, are the same on all instruction sets, and closer
/// than one scale per token. Tied and with a separate head; the last group of a row is shorter.
#[test]
fn int8_activations_by_group_are_those_of_the_reference() {
    let by_group = |o: EngineOptions| o.activation_bits(ActivationBits::EightByGroup);
    for (tied, group_len) in [(true, 64), (false, 128), (true, 256)] {
        let w = group_weights(&grouped(tied), group_len);
        let engine = Engine::new(&w, &by_group(EngineOptions::default().threads(1))).unwrap();
        let got = Sequence::new(&engine, KvType::F32, None).feed_each(&IDS).unwrap();
        let mut reference = w.clone();
        reference.config.inputs = reference.config.inputs.with_bits(ActivationBits::EightByGroup);
        let expected = naive::forward(&reference, &IDS).logits.concat();
        // A code that rounds differently in f32 and in f64 would cost more than 1e-3; there is none.
        let diff = far(&got, &expected);
        assert!(diff <= 1e-3, "groups of {group_len}: {diff}");
    }
    let w = group_weights(&grouped(true), 64);
    let error = |bits| {
        let engine = Engine::new(&w, &EngineOptions::default().threads(1).activation_bits(bits)).unwrap();
        let got = Sequence::new(&engine, KvType::F32, None).feed_each(&IDS).unwrap();
        let norm = |v: &mut dyn Iterator<Item = f32>| v.map(|x| f64::from(x).powi(2)).sum::<f64>().sqrt();
        let exact = logits(&w);
        norm(&mut got.iter().zip(&exact).map(|(a, b)| a - b)) / norm(&mut exact.iter().copied())
    };
    let [by_group_error, by_token_error] = [ActivationBits::EightByGroup, ActivationBits::Eight].map(error);
    assert!((1e-3..by_token_error).contains(&by_group_error), "{by_group_error}, {by_token_error} with one scale");
    assert_canonical_with(&w, by_group);
    // Matrices with different group lengths share the rows that they read: the shorter length applies to all.
    let mut mixed = group_weights(&grouped(true), 128);
    mixed.layers[1] = group_weights(&grouped(true), 64).layers[1].clone();
    let engine = Engine::new(&mixed, &by_group(EngineOptions::default().threads(2))).unwrap();
    let got = Sequence::new(&engine, KvType::F32, None).feed_each(&IDS).unwrap();
    mixed.config.inputs = mixed.config.inputs.with_bits(ActivationBits::EightByGroup);
    let diff = far(&got, &naive::forward(&mixed, &IDS).logits.concat());
    assert!(diff <= 1e-3, "{diff}");
    // They have different fingerprints, and models without groups reject the option.
    let fingerprint = |o: EngineOptions| Engine::new(&w, &o.threads(1)).unwrap().fingerprint();
    let plain = EngineOptions::default;
    let both = [plain(), plain().activation_bits(ActivationBits::Eight)].map(fingerprint);
    assert!(!both.contains(&fingerprint(by_group(plain()))));
    let error = Engine::new(&weights(&self::plain(), 5), &by_group(plain())).unwrap_err().to_string();
    assert!(error.contains("activation_bits") && error.contains("scale per group"), "{error}");
}

/// Texts of all lengths in one call share passes over the weights, without padding, and their vectors equal those of
/// the texts alone: with one scale and with group scales, with each pooling, even if a pass ends within a text.
#[test]
fn vectors_of_many_texts_are_those_of_each_alone() {
    let texts: Vec<Vec<u32>> = [1, 7, 300, 2, 2, 40, 256, 1, 90, 600, 3]
        .iter()
        .enumerate()
        .map(|(t, &n)| (0..n).map(|i| ((i * i + 11 * i + 5 * t) % VOCAB) as u32).collect())
        .collect();
    let mut long = plain();
    long.max_position_embeddings = 1024;
    let mut groups = grouped(true);
    (groups.max_position_embeddings, groups.rope_scaling) = (1024, RopeScaling::None);
    for w in [weights(&long, 5), group_weights(&groups, 64)] {
        let engine = Engine::new(&w, &EngineOptions::default().threads(2)).unwrap();
        for pooling in Pooling::ALL {
            let slices: Vec<&[u32]> = texts.iter().map(Vec::as_slice).collect();
            let together = embed(&engine, &slices, KvType::F32, pooling, true).unwrap();
            for (text, vector) in slices.iter().zip(&together) {
                let alone = embed(&engine, &[text], KvType::F32, pooling, true).unwrap();
                assert_eq!(bits(vector), bits(&alone[0]), "{pooling:?}, {} tokens", text.len());
            }
        }
        // 1302 tokens in passes of at most 256: no text has a pass alone.
        let mut embedding = Embedding::new(texts.clone(), KvType::F32, Pooling::Mean, true).unwrap();
        let mut passes = 0;
        while !embedding.is_finished() {
            embedding.step(&engine, 256).unwrap();
            passes += 1;
        }
        assert!(passes <= 8, "{passes}");
    }
}

/// Matrices with one scale run with 16-bit inputs, too.
#[test]
fn sixteen_bits_for_models_with_one_scale() {
    let w = weights(&plain(), 5);
    let options = EngineOptions::default().threads(1).activation_bits(ActivationBits::Sixteen);
    let engine = Engine::new(&w, &options).unwrap();
    let got = Sequence::new(&engine, KvType::F32, None).feed_each(&IDS).unwrap();
    let mut reference = w.clone();
    reference.config.inputs = reference.config.inputs.with_bits(ActivationBits::Sixteen);
    let diff = far(&got, &naive::forward(&reference, &IDS).logits.concat());
    assert!(diff <= 1e-4, "{diff}");
}

/// A saved state continues, but not in a model in which the scale of one group differs.
#[test]
fn states_of_models_with_group_scales_are_saved() {
    let c = grouped(true);
    let engine = |seed| {
        let source = SyntheticWeights::new(c.clone(), seed).with_groups(64);
        Engine::new(&ModelWeights::from_source(&source).unwrap(), &EngineOptions::default().threads(1)).unwrap()
    };
    let one = engine(9);
    let mut s = Sequence::new(&one, KvType::F16, None);
    s.feed(&IDS).unwrap();
    let saved = s.save().unwrap();
    let expected = bits(s.feed(&[7]).unwrap());
    assert_eq!(bits(Sequence::restore(&one, None, &saved).unwrap().feed(&[7]).unwrap()), expected);
    assert!(Sequence::restore(&engine(10), None, &saved).is_err());
}
