//! An extractor allocates nothing once its buffers have grown.

use bitnet_model::encoder::{EncoderMixer, Extractor, ExtractorConfig, ExtractorWeights, TaskConfig};

#[global_allocator]
static ALLOC: dhat::Alloc = dhat::Alloc;

fn allocations(work: impl FnOnce()) -> u64 {
    let before = dhat::HeapStats::get().total_blocks;
    work();
    dhat::HeapStats::get().total_blocks - before
}

/// One test: the count is that of the whole process.
#[test]
fn calls_allocate_nothing() {
    let _profiler = dhat::Profiler::builder().testing().build();
    let names = |of: &str, n: usize| (0..n).map(|i| format!("{of}{i}")).collect();
    let mut task = TaskConfig::new("t", names("intent", 9), names("slot", 6));
    task.intent_slots = Some((0..9).map(|i| vec![i % 6]).collect());
    task.once = vec![0, 1, 2, 4];
    for mixer in EncoderMixer::ALL {
        let config =
            ExtractorConfig { buckets: 1000, mixers: vec![mixer; 2], ..ExtractorConfig::new(vec![task.clone()]) };
        of(config);
    }
    // The counter counts.
    assert_eq!(allocations(|| drop(std::hint::black_box(vec![1u8; 10]))), 1);
}

fn of(config: ExtractorConfig) {
    let extractor = Extractor::new(ExtractorWeights::synthetic(config, 3).unwrap()).unwrap();
    let mut scratch = extractor.scratch();
    let long = "play Sgt. Pepper's 2nd-best song, 東京 ".repeat(40);
    let texts = ["play sme jazz by miles davis", "", "青空文庫って知ってる?", "x", &long];
    let mut round = || {
        let found = |text| extractor.extract_into(0, text, &mut scratch).unwrap().spans.len();
        let spans: usize = texts.into_iter().map(found).sum();
        extractor.embed_into(texts[0], &mut scratch).unwrap();
        spans
    };
    let spans = round();
    assert_eq!(allocations(|| (0..20).for_each(|_| assert_eq!(round(), spans))), 0);
}
