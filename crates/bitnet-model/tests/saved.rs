//! A saved sequence continues as if it had never been interrupted, for any storage of keys and values.

use bitnet_model::{
    Engine, EngineOptions, KvType, ModelConfig, ModelError, ModelWeights, Norm, Projection, Sequence, StateDamage,
    SyntheticWeights, Table, WeightSource,
};
use ternary_kernels::{TernaryMatrix, kernels_available};

/// Heads that are not whole vectors; texts below and above the length at which caches grow.
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
            whole.feed(&ids[..cut]).unwrap();
            let saved = whole.save().unwrap();
            let mut restored = Sequence::restore(&engine, None, &saved).unwrap();
            assert_eq!(restored.tokens(), &ids[..cut]);
            assert_eq!(restored.save().unwrap(), saved, "{} after {cut}", kv.name());
            let expected = whole.feed(&ids[cut..]).unwrap();
            assert_eq!(restored.feed(&ids[cut..]).unwrap(), expected, "{} after {cut}", kv.name());
        }
    }
}

/// The weights of another source with one trit changed.
struct OneTrit(SyntheticWeights, Projection, usize);

impl WeightSource for OneTrit {
    type Error = ModelError;

    fn config(&self) -> &ModelConfig {
        self.0.config()
    }
    fn projection(&self, layer: usize, which: Projection) -> Result<TernaryMatrix, ModelError> {
        let w = self.0.projection(layer, which)?;
        if (layer, which) != (1, self.1) {
            return Ok(w);
        }
        let mut trits = w.to_trits();
        let at = self.2 % trits.len();
        trits[at] = if trits[at] == 0 { 1 } else { 0 };
        Ok(TernaryMatrix::from_trits(w.rows(), w.cols(), &trits, w.scales().clone())?)
    }
    fn norm(&self, which: Norm) -> Result<Vec<f32>, ModelError> {
        self.0.norm(which)
    }
    fn embedding(&self) -> Result<Table, ModelError> {
        self.0.embedding()
    }
    fn head(&self) -> Result<Table, ModelError> {
        self.0.head()
    }
}

/// A changed trit of any matrix makes another model; a kernel, an instruction set or a number of threads does not.
#[test]
fn a_model_is_known_by_every_trit_and_by_nothing_else() {
    let source = SyntheticWeights::new(ModelConfig::new(96, 48, 80, 2, 4, 2), 3);
    let weights = ModelWeights::from_source(&source).unwrap();
    let options = || EngineOptions::default().threads(1);
    let engine = Engine::new(&weights, &options()).unwrap();
    for kernel in kernels_available().into_iter().filter(|k| k.exact()) {
        let other = Engine::new(&weights, &options().threads(2).kernel(kernel)).unwrap();
        assert_eq!(other.fingerprint(), engine.fingerprint(), "{}", other.kernel_name());
    }
    let mut sequence = Sequence::new(&engine, KvType::F16, None);
    sequence.feed(&[1, 2, 3]).unwrap();
    let saved = sequence.save().unwrap();
    for which in Projection::ALL.into_iter().filter(|p| source.config().layer_projections(1).any(|q| q == *p)) {
        for at in [0, 1777, usize::MAX / 3] {
            let changed = ModelWeights::from_source(&OneTrit(source.clone(), which, at)).unwrap();
            let other = Engine::new(&changed, &options()).unwrap();
            let refused = Sequence::restore(&other, None, &saved).map(drop);
            assert!(
                matches!(refused, Err(ModelError::SavedSequence(StateDamage::OtherModel))),
                "{} {at}: {refused:?}",
                which.name()
            );
        }
    }
}
