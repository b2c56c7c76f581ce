//! Results do not change from version to version: logits, chosen tokens, saved states and fingerprints of synthetic
//! models equal the recorded ones, bit for bit, for any threads and schedule. A deliberate change updates the numbers
//! here.

use bitnet_model::sampling::{Sampler, SamplingOptions};
use bitnet_model::sequence::Speculation;
use bitnet_model::{
    ActivationBits, Engine, EngineOptions, HeadMode, InputForms, KvType, Mixer, ModelConfig, ModelWeights, Sequence,
    SyntheticWeights,
};

/// FNV-1a.
fn hash(hash: &mut u64, bytes: &[u8]) {
    bytes.iter().for_each(|b| *hash = (*hash ^ u64::from(*b)).wrapping_mul(0x100_0000_01B3));
}

const EMPTY: u64 = 0xCBF2_9CE4_8422_2325;

fn small(change: impl Fn(&mut ModelConfig)) -> ModelConfig {
    let mut config = ModelConfig::new(300, 128, 256, 3, 4, 2);
    config.max_position_embeddings = 700;
    change(&mut config);
    config
}

/// Models, with three hashes: of logits, tokens and the state after them; of the state before; and the fingerprint.
fn cases() -> Vec<(&'static str, ModelConfig, [u64; 3])> {
    let hybrid = small(|c| {
        c.mixers = vec![Mixer::TttLinear, Mixer::Attention, Mixer::TttMlp];
        (c.ttt.share_qk, c.ttt.use_gate, c.ttt.pre_conv) = (true, true, true);
    });
    let ttt = small(|c| {
        c.mixers = vec![Mixer::TttLinear, Mixer::TttMlp, Mixer::TttLinear];
        c.ttt.pre_conv = true;
    });
    let family = small(|c| {
        (c.sub_norms, c.output_norms, c.head_norms, c.qkv_bias) = (false, true, true, true);
        (c.residual_scale, c.embedding_scale, c.logit_divisor) = (0.5, 2.0, 3.0);
    });
    let norms = small(|c| (c.sub_norms, c.projection_norms, c.tie_word_embeddings) = (false, true, true));
    vec![
        ("attention", small(|_| ()), [0xe8821fca78df5bb1, 0xd501f0f005382ec1, 0x3fd7cb0f7ba40969]),
        ("hybrid", hybrid, [0xe37497aa3bab1199, 0x272631267612c62b, 0x96ae3f0e055f0edb]),
        ("test-time training", ttt, [0x092057e335c6e1ae, 0xea0c0f4cee1a8095, 0x9d139d5c0f0b9472]),
        (
            "4-bit activations",
            small(|c| c.inputs = InputForms::bitnet_v2(c, ActivationBits::Four)),
            [0x05d9fb473b5364cb, 0xf8ad0d7bc2d40b58, 0x3fd7cb0f7ba40969],
        ),
        ("another family", family, [0x8223b990e133683c, 0x2574f03216513a10, 0x43a889aa6659ca0a]),
        ("norms of projections", norms, [0x8d823de7f10f419c, 0x37efdcc962e661d8, 0x6d2d1b74834e2f25]),
    ]
}

#[test]
fn models_compute_what_they_have_always_computed() {
    for (name, config, expected) in cases() {
        let weights = ModelWeights::from_source(&SyntheticWeights::new(config, 5)).unwrap();
        for (threads, sequence_parallel) in [(1, false), (1, true), (3, false), (3, true)] {
            let options = EngineOptions::default().threads(threads).sequence_parallel(sequence_parallel);
            let engine = Engine::new(&weights, &options.head(HeadMode::Coarse)).unwrap();
            let ids: Vec<u32> = (0..300u32).map(|i| (i * 7 + i / 5) % 300).collect();
            let (mut all, mut state) = (EMPTY, EMPTY);
            let mut text = Sequence::new(&engine, KvType::F16, None);
            text.feed(&ids).unwrap().iter().for_each(|v| hash(&mut all, &v.to_le_bytes()));
            text.feed_each(&ids[..40]).unwrap().iter().for_each(|v| hash(&mut all, &v.to_le_bytes()));
            hash(&mut state, &text.save().unwrap());
            let mut sampler = Sampler::new(SamplingOptions::default().with_top_k(40)).unwrap();
            for _ in 0..30 {
                let token = text.next_token(&mut sampler, Speculation::PromptLookup { max_draft: 5 }).unwrap();
                hash(&mut all, &token.to_le_bytes());
            }
            hash(&mut all, &text.save().unwrap());
            let got = [all, state, engine.fingerprint()];
            assert_eq!(got.map(|v| format!("{v:016x}")), expected.map(|v| format!("{v:016x}")), "{name}, {threads}");
        }
    }
}
