//! Whole models: a decode step, a prefill, and packing the weights.

use benches::model;
use bitnet_model::{Engine, EngineOptions, KvType, Sequence};
use criterion::{BatchSize, BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};

/// Tokens of a prompt.
const PROMPT: usize = 128;

fn steps(c: &mut Criterion) {
    let weights = model(1280, 3456, 10, 5).expect("widths fit together");
    let cpus = std::thread::available_parallelism().map_or(1, usize::from);
    let mut threads = vec![1, cpus];
    threads.dedup();
    let engines: Vec<Engine> = threads
        .iter()
        .map(|n| Engine::new(&weights, &EngineOptions::default().threads(*n)).expect("it runs here"))
        .collect();
    let prompt: Vec<u32> = (0..PROMPT as u32).collect();

    let mut group = c.benchmark_group("decode");
    for engine in &engines {
        group.throughput(Throughput::Bytes((engine.packed_bytes() + engine.head_bytes()) as u64));
        let mut sequence = Sequence::new(engine, KvType::F16, None);
        sequence.feed(&prompt).expect("it fits");
        group.bench_function(BenchmarkId::new("threads", engine.threads()), |b| {
            b.iter(|| {
                sequence.rewind(PROMPT).expect("attention can go back");
                sequence.feed(&[7]).expect("it fits");
            });
        });
    }
    group.finish();

    let mut group = c.benchmark_group("prefill");
    group.throughput(Throughput::Elements(PROMPT as u64)).sample_size(10);
    for engine in &engines {
        group.bench_function(BenchmarkId::new("threads", engine.threads()), |b| {
            b.iter_batched(
                || Sequence::new(engine, KvType::F16, None),
                |mut sequence| sequence.feed(&prompt).map(<[f32]>::len).expect("it fits"),
                BatchSize::SmallInput,
            );
        });
    }
    group.finish();

    let mut group = c.benchmark_group("load");
    group.sample_size(10);
    group
        .bench_function("pack", |b| b.iter(|| Engine::new(&weights, &EngineOptions::default()).expect("it runs here")));
    group.finish();
}

criterion_group!(benches, steps);
criterion_main!(benches);
