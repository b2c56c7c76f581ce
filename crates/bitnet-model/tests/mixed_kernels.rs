//! Projection groups may have different kernels: exact ones give the same bits in every combination.

#[path = "../examples/own_kernel.rs"]
mod own_kernel;

use std::sync::Arc;

use bitnet_model::{
    Engine, EngineOptions, KvType, ModelConfig, ModelWeights, ProjectionGroup, Sequence, SyntheticWeights,
};
use own_kernel::BitPlanes;
use ternary_kernels::{Kernel, kernels_available};

#[test]
fn every_mixture_of_exact_kernels_gives_the_same_bits() {
    // Widths that are not multiples of a panel, and more rows than one kernel call computes.
    let weights =
        ModelWeights::from_source(&SyntheticWeights::new(ModelConfig::new(173, 144, 1048, 2, 3, 1), 5)).unwrap();
    let ids: Vec<u32> = (0..21).map(|i| (i * 37 + 5) % 173).collect();
    let logits = |options: &EngineOptions| {
        let engine = Engine::new(&weights, options).unwrap();
        let mut sequence = Sequence::new(&engine, KvType::F32, None);
        let mut all = sequence.feed_each(&ids[..20]).unwrap();
        all.extend(sequence.feed_each(&ids[20..]).unwrap());
        (engine, all.iter().map(|v| v.to_bits()).collect::<Vec<_>>())
    };
    let (_, expected) = logits(&EngineOptions::default().threads(1));
    let mut kernels: Vec<Arc<dyn Kernel>> = kernels_available().into_iter().filter(|k| k.exact()).collect();
    kernels.push(Arc::new(BitPlanes));
    for shift in 0..kernels.len() {
        let of = |i: usize| &kernels[(shift + i) % kernels.len()];
        let mut options = EngineOptions::default().threads(2).kernel(of(3).clone());
        for (i, kind) in ProjectionGroup::ALL.into_iter().enumerate().take(3) {
            options = options.kernel_for(kind, of(i).clone());
        }
        let (engine, got) = logits(&options);
        for (i, kind) in ProjectionGroup::ALL.into_iter().enumerate() {
            assert_eq!(engine.kernel_for(kind).name(), of(i).name());
            assert!(engine.kernel_name().contains(of(i).name()), "{}", engine.kernel_name());
        }
        assert!(got == expected, "{}", engine.kernel_name());
    }
}
