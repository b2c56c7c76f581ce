//! Keys and values in few bits: the distance of the logits from those of f32, and the first position, which keeps 8
//! bits.

use bitnet_model::{Engine, EngineOptions, KvType, ModelConfig, ModelWeights, Sequence, SyntheticWeights};

fn engine() -> Engine {
    let config = ModelConfig::new(96, 128, 256, 2, 4, 2);
    let weights = ModelWeights::from_source(&SyntheticWeights::new(config, 11)).unwrap();
    Engine::new(&weights, &EngineOptions::default().threads(1)).unwrap()
}

fn logits(engine: &Engine, kv: KvType, text: &[u32]) -> Vec<f32> {
    Sequence::new(engine, kv, Some(text.len())).feed(text).unwrap().to_vec()
}

fn bits(logits: &[f32]) -> Vec<u32> {
    logits.iter().map(|l| l.to_bits()).collect()
}

/// The root of the mean square of the differences, over that of `want`.
fn distance(got: &[f32], want: &[f32]) -> f64 {
    let sum = |f: &dyn Fn(f64, f64) -> f64| -> f64 {
        got.iter().zip(want).map(|(&g, &w)| f(f64::from(g), f64::from(w))).sum()
    };
    (sum(&|g, w| (g - w) * (g - w)) / sum(&|_, w| w * w)).sqrt()
}

/// A text of one token only has position 0: with 4 bits it is computed as with 8, bit for bit. The second token is not.
#[test]
fn the_first_position_keeps_eight_bits() {
    let engine = engine();
    for token in [1, 7, 50] {
        let of = |kv, text: &[u32]| bits(&logits(&engine, kv, text));
        assert_eq!(of(KvType::Q4, &[token]), of(KvType::Q8, &[token]));
        assert_ne!(of(KvType::Q4, &[token, 3]), of(KvType::Q8, &[token, 3]));
    }
}

/// Steps of a half, a 254th and a 14th of the largest value: more bits are closer, and neither is far off.
#[test]
fn more_bits_are_nearer_to_f32() {
    let engine = engine();
    let text: Vec<u32> = (0..80).map(|i| i * 37 % 96).collect();
    let exact = logits(&engine, KvType::F32, &text);
    let [f16, q8, q4] = [KvType::F16, KvType::Q8, KvType::Q4].map(|kv| distance(&logits(&engine, kv, &text), &exact));
    // Codes of later projections flip with any change, so f16 has another kind of error; the bounds are those of a step
    // of twice the size for keys and values whose error is one step each.
    assert!(0.0 < q8 && f16 <= 0.05 && q8 < q4, "{f16} {q8} {q4}");
    assert!(q8 < 0.1 && q4 < 0.5, "{f16} {q8} {q4}");
}
