//! The engine against transformers' own BitNet, and against the candle path.

mod common;

use bitnet_model::nn::CandleModel;
use bitnet_model::{
    ActivationBits, Engine, EngineOptions, InputForms, KvType, ModelConfig, ModelWeights, Sequence, SyntheticWeights,
};
use candle_core::Device;
use common::{Checkpoint, File, fixture, max_diff, values};

fn logits(weights: &ModelWeights, ids: &[u32]) -> Vec<f32> {
    let engine = Engine::new(weights, &EngineOptions::default().threads(2)).unwrap();
    Sequence::new(&engine, KvType::F32, None).feed_each(ids).unwrap()
}

/// Logits of every reference configuration: within 1e-4 if no int8 code is near a boundary, 1e-3 for the larger
/// ones.
#[test]
fn logits_of_every_configuration() {
    let cases = [
        ("stable_tiny/packed", "logits_packed_f32", 1e-4),
        ("stable_tiny/master", "logits_master_f32", 1e-4),
        ("stable_tiny/packed_bitlinear", "logits_f32", 1e-4),
        ("gqa_tied_768/packed", "logits_packed_f32", 1e-3),
        ("mha_untied_640/packed", "logits_packed_f32", 1e-3),
        ("silu_gqa_512/packed", "logits_packed_f32", 1e-3),
    ];
    for (case, tensor, limit) in cases {
        let Some(dir) = fixture(&format!("fixtures/bitnet/{case}")) else { return };
        let expected = match dir.join("expected.safetensors") {
            own if own.exists() => File::open(&own),
            _ => File::open(&dir.with_file_name("expected.safetensors")),
        };
        let weights = ModelWeights::from_source(&Checkpoint::open(&dir)).unwrap();
        let diff = max_diff(&logits(&weights, &expected.ids("input_ids")), &expected.f32(tensor));
        println!("{case}: largest difference {diff:e}");
        assert!(diff <= limit, "{case}: logits differ by {diff}, at most {limit} is rounding");
    }
}

/// Both paths read the same weights and compute the same model; where no int8 code flips they differ by float rounding.
#[test]
fn engine_and_candle_path_agree() {
    let Some(dir) = fixture("fixtures/bitnet/stable_tiny") else { return };
    let weights = ModelWeights::from_source(&Checkpoint::open(&dir.join("packed"))).unwrap();
    let ids = File::open(&dir.join("expected.safetensors")).ids("input_ids");
    let candle = CandleModel::from_weights(&weights, &Device::Cpu).unwrap().forward(&ids).unwrap();
    let diff = max_diff(&logits(&weights, &ids), &values(&candle));
    assert!(diff <= 1e-4, "logits differ by {diff}");
}

/// One layer on random weights: a flipped int8 code would show as a difference of about 1e-2.
#[test]
fn engine_and_candle_path_agree_on_random_shapes() {
    for (seed, (hidden, ffn, heads, kv)) in [(64, 96, 4, 2), (48, 100, 3, 3), (128, 64, 2, 1)].into_iter().enumerate() {
        let config = ModelConfig::new(50, hidden, ffn, 1, heads, kv);
        let weights = ModelWeights::from_source(&SyntheticWeights::new(config, seed as u64)).unwrap();
        let ids = [3, 1, 4];
        let candle = CandleModel::from_weights(&weights, &Device::Cpu).unwrap().forward(&ids).unwrap();
        let diff = max_diff(&logits(&weights, &ids), &values(&candle));
        assert!(diff <= 1e-4, "seed {seed}: logits differ by {diff}");
    }
}

/// Models with Hadamard transforms, in 8 and in 4 bits. A model without its transform, or with one that it was not
/// made for, is another model: its logits are far off.
#[test]
fn engine_and_candle_path_agree_on_models_with_hadamard_transforms() {
    for (seed, (hidden, ffn, heads, kv)) in [(64, 96, 4, 2), (48, 100, 3, 3), (128, 256, 2, 1)].into_iter().enumerate()
    {
        for bits in [ActivationBits::Eight, ActivationBits::Four] {
            let plain = ModelConfig::new(50, hidden, ffn, 1, heads, kv);
            let mut config = plain.clone();
            config.inputs = InputForms::bitnet_v2(&config, bits);
            let source =
                |c: &ModelConfig| ModelWeights::from_source(&SyntheticWeights::new(c.clone(), seed as u64)).unwrap();
            let (weights, ids) = (source(&config), [3, 1, 4]);
            let candle = CandleModel::from_weights(&weights, &Device::Cpu).unwrap().forward(&ids).unwrap();
            let engine = logits(&weights, &ids);
            let diff = max_diff(&engine, &values(&candle));
            assert!(diff <= 1e-4, "seed {seed}, {bits:?}: logits differ by {diff}");
            let without = max_diff(&engine, &logits(&source(&plain), &ids));
            assert!(without > 1e-2, "seed {seed}, {bits:?}: nothing differs without the transform");
        }
    }
}
