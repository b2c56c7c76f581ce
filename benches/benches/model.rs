//! Whole models: a decode step, a prefill, and packing the weights.

use benches::{Candidate, Harness, Work, model};
use bitnet_model::{Engine, EngineOptions, KvType, ModelWeights, Sequence};

/// Tokens of a prompt.
const PROMPT: usize = 128;

fn prompt() -> Vec<u32> {
    (0..PROMPT as u32).collect()
}

/// One engine for each number of threads: one, and all.
fn engines(weights: &ModelWeights) -> Vec<Engine> {
    let cpus = std::thread::available_parallelism().map_or(1, usize::from);
    let mut threads = vec![1, cpus];
    threads.dedup();
    let engine = |n: &usize| Engine::new(weights, &EngineOptions::default().threads(*n)).expect("it runs here");
    threads.iter().map(engine).collect()
}

fn decode(engine: Engine) -> Candidate {
    let bytes = Work::Bytes((engine.packed_bytes() + engine.head_bytes()) as u64);
    let mut sequence = Sequence::new(&engine, KvType::F16, None);
    sequence.feed(&prompt()).expect("it fits");
    Candidate::new(format!("threads {}", engine.threads()), bytes, move || {
        sequence.rewind(PROMPT).expect("attention can go back");
        sequence.feed(&[7]).expect("it fits");
    })
}

fn prefill(engine: Engine) -> Candidate {
    let prompt = prompt();
    Candidate::new(format!("threads {}", engine.threads()), Work::Elements(PROMPT as u64), move || {
        Sequence::new(&engine, KvType::F16, None).feed(&prompt).expect("it fits");
    })
}

fn main() {
    let harness = Harness::from_arguments();
    let weights = || model(1280, 3456, 10, 5).expect("widths fit together");
    harness.group("decode", || [engines(&weights()).into_iter().map(decode).collect::<Vec<_>>()]);
    harness.group("prefill", || [engines(&weights()).into_iter().map(prefill).collect::<Vec<_>>()]);
    harness.group("load", || {
        let weights = weights();
        let pack = move || drop(Engine::new(&weights, &EngineOptions::default()).expect("it runs here"));
        [vec![Candidate::new("pack", Work::Unstated, pack)]]
    });
}
