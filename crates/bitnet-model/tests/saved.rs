//! A saved sequence goes on as if it had never been interrupted, however its keys and values are kept.

use bitnet_model::{Engine, EngineOptions, KvType, ModelConfig, ModelWeights, Sequence, SyntheticWeights};

/// Heads of no whole number of vectors; texts below and above the length at which caches grow.
#[test]
fn every_kind_of_keys_and_values_is_restored() {
    let mut config = ModelConfig::new(96, 48, 80, 2, 4, 2);
    config.head_dim = 12;
    let weights = ModelWeights::from_source(&SyntheticWeights::new(config, 3)).unwrap();
    let engine = Engine::new(&weights, &EngineOptions::default().threads(1)).unwrap();
    let ids: Vec<u32> = (0..300).map(|i| (i * 37 + 5) % 96).collect();
    for kv in KvType::ALL {
        for cut in [1, 7, 270] {
            let mut whole = Sequence::new(&engine, kv, None);
            whole.push(&ids[..cut]).unwrap();
            let saved = whole.save().unwrap();
            let mut restored = Sequence::restore(&engine, None, &saved).unwrap();
            assert_eq!(restored.tokens(), &ids[..cut]);
            assert_eq!(restored.save().unwrap(), saved, "{} after {cut}", kv.name());
            let expected = whole.push(&ids[cut..]).unwrap();
            assert_eq!(restored.push(&ids[cut..]).unwrap(), expected, "{} after {cut}", kv.name());
        }
    }
}
