//! Models with layers of the gated delta rule: equal bits however a text is divided, batched, saved, forked and
//! rewound; states of constant size; code without support for them rejects them by name.

use std::collections::BTreeSet;

use bitnet_model::{
    ActivationBits, Architecture, Engine, EngineOptions, Fold, KvType, ModelConfig, ModelWeights, Sequence, Snapshots,
    SyntheticWeights,
};

/// Four layers, two of which are attention; three value heads per key head.
fn config() -> ModelConfig {
    let mut c = Architecture::Qwen35.example();
    (c.hidden_size, c.intermediate_size, c.num_hidden_layers, c.head_dim) = (64, 192, 4, 32);
    (c.num_attention_heads, c.num_key_value_heads, c.rotary_dim) = (4, 2, Some(8));
    c.mixers = ModelConfig::every(4, 2);
    (c.delta.state_size, c.delta.key_heads, c.delta.value_heads) = (64, 1, 3);
    c.inputs = c.inputs.with_bits(ActivationBits::Sixteen);
    c
}

fn folded() -> ModelConfig {
    let mut c = config();
    let signs = |width: usize| (0..width).map(|i| if i * 7 % 5 < 2 { -1 } else { 1 }).collect();
    c.fold = Some(c.input_widths().into_iter().fold(Fold::new(64), |fold, width| fold.with_signs(signs(width))));
    c
}

fn engine(c: ModelConfig, options: EngineOptions) -> Engine {
    let weights = ModelWeights::from_source(&SyntheticWeights::new(c, 11).with_groups(64)).unwrap();
    Engine::new(&weights, &options).unwrap()
}

fn tokens(n: usize) -> Vec<u32> {
    (0..n as u32).map(|i| (i * 37 + 5) % 96).collect()
}

fn bits(x: &[f32]) -> Vec<u32> {
    x.iter().map(|x| x.to_bits()).collect()
}

fn new(engine: &Engine) -> Sequence {
    Sequence::new(engine, KvType::F32, None)
}

#[test]
fn bits_depend_neither_on_cuts_nor_threads_nor_lanes() {
    let text = tokens(70);
    for c in [config(), folded()] {
        let mut seen = BTreeSet::new();
        for options in [
            EngineOptions::default().threads(1),
            EngineOptions::default().threads(3),
            EngineOptions::default().threads(2).sequence_parallel(true),
            EngineOptions::default().threads(2).sequence_parallel(false),
        ] {
            let engine = engine(c.clone(), options);
            seen.insert(bits(&new(&engine).feed_each(&text).unwrap()));
            let mut cut = new(&engine);
            let pieces = [&text[..1], &text[1..40], &text[40..41], &text[41..]];
            seen.insert(bits(&pieces.iter().flat_map(|p| cut.feed_each(p).unwrap()).collect::<Vec<f32>>()));
        }
        assert_eq!(seen.len(), 1);
    }
}

#[test]
fn states_have_one_size_and_are_saved_forked_and_taken_back() {
    let engine = engine(config(), EngineOptions::default().threads(2));
    let text = tokens(90);
    let mut sequence = new(&engine);
    sequence.keep_snapshots(Snapshots::default().every(1));
    let size = engine.config().state_bytes().unwrap();
    // Two layers: three matrices of 64 by 64, and three inputs of five heads.
    assert_eq!(size, 2 * 4 * (3 * 64 * 64 + 3 * 5 * 64));
    assert_eq!(sequence.state().constant_bytes(), size);
    sequence.feed(&text[..60]).unwrap();
    assert_eq!(sequence.state().constant_bytes(), size);
    assert!(!sequence.state().can_rewind());

    let bytes = sequence.save().unwrap();
    let mut fork = sequence.fork();
    let want = sequence.feed(&text[60..]).unwrap().to_vec();
    assert_eq!(bits(fork.feed(&text[60..]).unwrap()), bits(&want));
    let mut restored = Sequence::restore(&engine, None, &bytes).unwrap();
    assert_eq!(bits(restored.feed(&text[60..]).unwrap()), bits(&want));
    let mut damaged = bytes.clone();
    let last = damaged.len() - 100;
    damaged[last] ^= 1;
    assert!(Sequence::restore(&engine, None, &damaged).is_err());
    // The state of another model is rejected.
    let other = engine_of_another_seed();
    assert!(Sequence::restore(&other, None, &bytes).is_err());
    assert!(sequence.snapshot_bytes() > 0);
    sequence.rewind(0).unwrap();
    sequence.feed(&text[..60]).unwrap();
    assert_eq!(bits(sequence.feed(&text[60..]).unwrap()), bits(&want));
}

fn engine_of_another_seed() -> Engine {
    let weights = ModelWeights::from_source(&SyntheticWeights::new(config(), 12).with_groups(64)).unwrap();
    Engine::new(&weights, &EngineOptions::default().threads(1)).unwrap()
}

/// A fold, a gate, a width of rotation: models that differ in one of them have different fingerprints.
#[test]
fn fingerprints_tell_models_apart() {
    let of = |c: ModelConfig| engine(c, EngineOptions::default().threads(1)).fingerprint();
    let mut narrow = config();
    narrow.rotary_dim = Some(6);
    let mut signs = folded();
    let turned = signs.fold.clone().unwrap().with_signs(vec![1; 64]);
    signs.fold = Some(turned);
    let all = [config(), folded(), narrow, signs].map(of);
    assert_eq!(BTreeSet::from(all).len(), all.len());
}

#[test]
fn parts_that_compute_other_models_refuse_this_one_by_name() {
    let mut c = config();
    // The norms of heads alone do not prevent training.
    c.head_norms = false;
    let what = c.beyond_bitnet().unwrap();
    assert!(what.contains("qwen35"), "{what}");
}

#[test]
fn mixtures_that_nothing_computes_are_refused() {
    let refused = |change: fn(&mut ModelConfig), word: &str| {
        let mut c = config();
        change(&mut c);
        let error = c.validate().unwrap_err().to_string();
        assert!(error.contains(word), "{error}");
    };
    refused(|c| c.mixers[0] = bitnet_model::Mixer::TttLinear, "mixers");
    refused(|c| c.sub_norms = true, "sub_norms");
    refused(|c| c.projection_norms = true, "projection_norms");
    refused(|c| c.rotary_dim = Some(7), "rotary_dim");
    refused(|c| c.rotary_dim = Some(64), "rotary_dim");
    refused(|c| c.delta.value_heads = 0, "value heads");
    refused(|c| c.delta.state_size = 65, "state size");
}
