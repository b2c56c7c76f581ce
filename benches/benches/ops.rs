//! Float operations on every instruction set of this CPU.

use benches::floats;
use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use ternary_kernels::ops::{Prepare, largest_hadamard_block};
use ternary_kernels::{Int4Batch, Int8Batch, Isa, Ops};

/// Width of the feed-forward block of BitNet b1.58 2B4T.
const WIDTH: usize = 6912;

fn operations(c: &mut Criterion) {
    let (x, gain) = (floats(WIDTH), vec![1.0; WIDTH]);
    let mut out = vec![0.0; WIDTH];
    let mut codes = Int8Batch::with_capacity(1, WIDTH);
    codes.reset(1, WIDTH);
    let sets = || Isa::available().map(|isa| (isa, Ops::for_isa(isa).expect("it is available")));

    let mut group = c.benchmark_group("norm and quantise");
    group.throughput(Throughput::Elements(WIDTH as u64));
    for (isa, ops) in sets() {
        group.bench_function(BenchmarkId::from_parameter(isa), |b| {
            b.iter(|| ops.rms_norm_quantize(&x, &gain, 1e-5, codes.row_mut(0)).expect("finite"));
        });
    }
    group.finish();

    let mut group = c.benchmark_group("norm, Hadamard transform and quantise to int4");
    group.throughput(Throughput::Elements(WIDTH as u64));
    let prepare = Prepare { norm: Some((&gain, 1e-5)), hadamard: Some(largest_hadamard_block(WIDTH)) };
    let (mut int4, mut row) = (Int4Batch::with_capacity(1, WIDTH), vec![0.0; WIDTH]);
    int4.reset(1, WIDTH);
    for (isa, ops) in sets() {
        group.bench_function(BenchmarkId::from_parameter(isa), |b| {
            b.iter(|| ops.prepare_int4(&x, prepare, &mut row, int4.row_mut(0)).expect("finite"));
        });
    }
    group.finish();

    let mut group = c.benchmark_group("dot");
    group.throughput(Throughput::Elements(WIDTH as u64));
    for (isa, ops) in sets() {
        group.bench_function(BenchmarkId::from_parameter(isa), |b| b.iter(|| ops.dot(&x, &gain)));
    }
    group.finish();

    let mut group = c.benchmark_group("relu2 times up");
    group.throughput(Throughput::Elements(WIDTH as u64));
    for (isa, ops) in sets() {
        group.bench_function(BenchmarkId::from_parameter(isa), |b| b.iter(|| ops.relu2_mul(&x, &gain, &mut out)));
    }
    group.finish();
}

criterion_group!(benches, operations);
criterion_main!(benches);
