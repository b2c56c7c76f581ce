//! Generating a token allocates nothing, on any thread.

use bitnet_model::sampling::{Sampler, SamplingOptions};
use bitnet_model::{
    ActivationBits, Engine, EngineOptions, InputForm, InputForms, KvType, Mixer, ModelConfig, ModelWeights, Sequence,
    SyntheticWeights,
};

#[global_allocator]
static ALLOC: dhat::Alloc = dhat::Alloc;

fn allocations(work: impl FnOnce()) -> u64 {
    let before = dhat::HeapStats::get().total_blocks;
    work();
    dhat::HeapStats::get().total_blocks - before
}

/// One test: the count is that of the whole process.
#[test]
fn no_allocation_per_token() {
    let _profiler = dhat::Profiler::builder().testing().build();
    let mut attention = ModelConfig::new(300, 256, 512, 2, 4, 2);
    attention.max_position_embeddings = 600;
    let mut hybrid = attention.clone();
    hybrid.num_hidden_layers = 3;
    hybrid.mixers = vec![Mixer::TttLinear, Mixer::Attention, Mixer::TttMlp];
    (hybrid.ttt.share_qk, hybrid.ttt.use_gate, hybrid.ttt.pre_conv) = (true, true, true);
    attention.inputs = InputForms::bitnet_v2(&attention, ActivationBits::Four);
    attention.inputs.mixer = InputForm::default();
    for (config, threads) in [(&attention, 1), (&attention, 2), (&attention, 3), (&hybrid, 1), (&hybrid, 3)] {
        let weights = ModelWeights::from_source(&SyntheticWeights::new(config.clone(), 5)).unwrap();
        for kv in [KvType::F32, KvType::F16, KvType::Q8, KvType::Q4] {
            let engine = Engine::new(&weights, &EngineOptions::default().threads(threads)).unwrap();
            for options in [SamplingOptions::greedy(), SamplingOptions::default().with_top_k(40)] {
                let mut sampler = Sampler::new(options).unwrap();
                let mut sequence = Sequence::new(&engine, kv, None);
                sequence.feed(&[1; 270]).unwrap();
                let mut generate = |n: usize| {
                    for _ in 0..n {
                        let position = sequence.len() as u64;
                        let token = sampler.sample(sequence.logits(), position, sequence.tokens()).unwrap();
                        sequence.feed(&[token]).unwrap();
                    }
                };
                // Buffers reach their sizes.
                generate(10);
                let count = allocations(|| generate(100));
                assert_eq!(count, 0, "{threads} threads, {}, {:?}", kv.name(), config.mixers);
            }
        }
    }
    // The counter counts.
    assert_eq!(allocations(|| drop(std::hint::black_box(vec![1u8; 10]))), 1);
}
