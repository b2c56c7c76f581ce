//! An extractor allocates nothing once its buffers have grown.

use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

use bitnet_model::encoder::{Extractor, ExtractorConfig, ExtractorWeights, TaskConfig};

/// The system's allocator with a count of what is asked of it.
struct Counting;

static ALLOCATIONS: AtomicUsize = AtomicUsize::new(0);

// SAFETY: every call goes to the system's allocator unchanged.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ALLOCATIONS.fetch_add(1, Relaxed);
        // SAFETY: the caller keeps the contract of `alloc`.
        unsafe { System.alloc(layout) }
    }
    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // SAFETY: the caller keeps the contract of `dealloc`, and `pointer` came from `System`.
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

#[test]
fn calls_allocate_nothing() {
    let names = |of: &str, n: usize| (0..n).map(|i| format!("{of}{i}")).collect();
    let mut task = TaskConfig::new("t", names("intent", 9), names("slot", 6));
    task.intent_slots = Some((0..9).map(|i| vec![i % 6]).collect());
    let config = ExtractorConfig { buckets: 1000, ..ExtractorConfig::new(vec![task]) };
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
    let before = ALLOCATIONS.load(Relaxed);
    (0..20).for_each(|_| assert_eq!(round(), spans));
    assert_eq!(ALLOCATIONS.load(Relaxed), before);
}
