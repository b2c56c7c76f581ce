//! Scaled rotary embeddings: frequencies against transformers' steps, and the engine against the candle path.

use bitnet_model::nn::CandleModel;
use bitnet_model::{Engine, EngineOptions, KvType, ModelConfig, ModelWeights, RopeScaling, Sequence, SyntheticWeights};
use candle_core::Device;
use serde_json::Value;
use test_support::Tensors;

/// The scaling that a case of `testdata/units/rope.json` describes.
fn scaling(v: &Value) -> RopeScaling {
    let number = |name: &str| v[name].as_f64().unwrap();
    match v["rope_type"].as_str().unwrap() {
        "linear" => RopeScaling::Linear { factor: number("factor") },
        _ => RopeScaling::Llama3 {
            factor: number("factor"),
            low_freq_factor: number("low_freq_factor"),
            high_freq_factor: number("high_freq_factor"),
            original_context: number("original_max_position_embeddings") as usize,
        },
    }
}

#[test]
fn frequencies_are_those_of_the_reference_bit_for_bit() {
    let cases = std::fs::read(test_support::testdata("units/rope.json")).unwrap();
    let cases: Vec<Value> = serde_json::from_slice(&cases).unwrap();
    assert_eq!(cases.len(), 5);
    for case in &cases {
        let d = case["head_dim"].as_u64().unwrap() as usize;
        let mut c = ModelConfig::new(16, 2 * d, 32, 1, 2, 1);
        c.rope_theta = case["theta"].as_f64().unwrap();
        c.rope_scaling = scaling(&case["scaling"]);
        c.validate().unwrap();
        let expected: Vec<f32> =
            case["frequencies"].as_array().unwrap().iter().map(|v| v.as_f64().unwrap() as f32).collect();
        assert_eq!(c.rope_frequencies(), expected, "{}", case["scaling"]);
        let scaled = c.rope_frequencies();
        c.rope_scaling = RopeScaling::None;
        assert_ne!(c.rope_frequencies(), scaled);
    }
}

#[test]
fn the_engine_and_the_candle_path_stretch_alike() {
    let mut config = ModelConfig::new(50, 64, 96, 1, 4, 2);
    let ids: Vec<u32> = (0..24).map(|i| (i * 7 + 3) % 50).collect();
    let logits = |config: &ModelConfig| {
        let weights = ModelWeights::from_source(&SyntheticWeights::new(config.clone(), 5)).unwrap();
        let engine = Engine::new(&weights, &EngineOptions::default().threads(1)).unwrap();
        let got = Sequence::new(&engine, KvType::F32, None).feed_each(&ids).unwrap();
        let candle = CandleModel::from_weights(&weights, &Device::Cpu).unwrap().forward(&ids).unwrap();
        let candle: Vec<f32> = candle.flatten_all().unwrap().to_vec1().unwrap();
        (got, candle)
    };
    let far = |a: &[f32], b: &[f32]| a.iter().zip(b).map(|(x, y)| (x - y).abs()).fold(0.0, f32::max);
    let (plain, _) = logits(&config);
    let llama3 = RopeScaling::Llama3 { factor: 8.0, low_freq_factor: 1.0, high_freq_factor: 4.0, original_context: 64 };
    let factors = RopeScaling::Factors(vec![1.0, 1.0, 1.5, 2.0, 3.0, 4.0, 8.0, 8.0]);
    for scaling in [RopeScaling::Linear { factor: 4.0 }, llama3, factors] {
        config.rope_scaling = scaling;
        let (engine, candle) = logits(&config);
        assert!(far(&engine, &candle) <= 1e-4, "{:?}: {}", config.rope_scaling, far(&engine, &candle));
        assert!(far(&engine, &plain) > 1e-3, "{:?} changes nothing", config.rope_scaling);
    }
}

#[test]
fn scalings_that_cannot_be_are_refused() {
    let llama3 = |factor, low, high, original_context| RopeScaling::Llama3 {
        factor,
        low_freq_factor: low,
        high_freq_factor: high,
        original_context,
    };
    for scaling in [
        RopeScaling::Linear { factor: 0.0 },
        RopeScaling::Linear { factor: f64::NAN },
        llama3(-1.0, 1.0, 4.0, 64),
        llama3(8.0, 4.0, 4.0, 64),
        llama3(8.0, 1.0, 4.0, 0),
        RopeScaling::Factors(vec![1.0; 7]),
        RopeScaling::Factors(vec![0.0; 8]),
    ] {
        let mut config = ModelConfig::new(50, 64, 96, 1, 4, 2);
        config.rope_scaling = scaling;
        assert!(config.validate().is_err_and(|e| e.to_string().contains("rope_scaling")), "{:?}", config.rope_scaling);
    }
}

/// transformers computes the powers of the base in f32 and in another order: it differs by 2e-6 from f64.
#[test]
fn yarn_is_that_of_transformers() {
    let Some(shared) = test_support::shared_dir() else { return };
    let dir = shared.join("fixtures/families/qwen3_group");
    for (name, theta, original) in [("g128_tied", 1e6, 64), ("g64_untied", 1e4, 1024), ("g256_tq2", 1e6, 32)] {
        let path = dir.join(name).join("expected.safetensors");
        if !path.is_file() {
            return;
        }
        let mut c = ModelConfig::new(16, 128, 32, 1, 2, 1);
        (c.rope_theta, c.rope_scaling) = (theta, RopeScaling::yarn(4.0, original));
        c.validate().unwrap();
        let expected = Tensors::open(&path).f32("rope.inv_freq");
        let got = c.rope_frequencies();
        assert_eq!(got.len(), expected.len());
        for (got, expected) in got.iter().zip(&expected) {
            assert!((got - expected).abs() <= 2e-6 * expected, "{name}: {got} {expected}");
        }
        // At position 0 the cosine is the factor itself.
        assert_eq!(c.rope_attention_factor(), 1.138_629_4);
        // The cosines of the fixture include the factor: their largest is the factor, up to the angle of the slowest
        // frequency.
        let cos = Tensors::open(&path).f32("rope.cos");
        let largest = cos.iter().copied().fold(0.0, f32::max);
        assert!((largest - c.rope_attention_factor()).abs() < 1e-3, "{name}: {largest}");
    }
}

#[test]
fn further_scalings_that_cannot_be_are_refused() {
    let mut c = ModelConfig::new(16, 32, 32, 1, 2, 1);
    c.rope_scaling = RopeScaling::yarn(4.0, 64);
    c.validate().unwrap();
    let yarn = |factor, original_context, attention_factor, beta_fast, beta_slow| RopeScaling::Yarn {
        factor,
        original_context,
        attention_factor,
        beta_fast,
        beta_slow,
    };
    let long = |short: usize, long: usize, original_context, attention_factor| RopeScaling::LongRope {
        short: vec![1.0; short],
        long: vec![2.0; long],
        original_context,
        attention_factor,
    };
    for scaling in [
        yarn(0.0, 64, 1.0, 32.0, 1.0),
        yarn(4.0, 0, 1.0, 32.0, 1.0),
        yarn(4.0, 64, f64::NAN, 32.0, 1.0),
        yarn(4.0, 64, 1.0, 1.0, 32.0),
        yarn(4.0, 64, 1.0, 32.0, 0.0),
        long(7, 8, 64, 1.0),
        long(8, 9, 64, 1.0),
        long(8, 8, 0, 1.0),
        long(8, 8, 64, 0.0),
    ] {
        c.rope_scaling = scaling.clone();
        let error = c.validate().unwrap_err().to_string();
        assert!(error.contains("rope_scaling"), "{scaling:?}: {error}");
    }
    // The list depends on the context of the model.
    c.rope_scaling = long(8, 8, 64, 1.0);
    c.max_position_embeddings = 64;
    let short = c.rope_frequencies();
    c.max_position_embeddings = 65;
    assert_eq!(c.rope_frequencies()[0], short[0] / 2.0);
}
