//! Many tokens, in 8 and in 4 bits: every kernel of this CPU (from memory the exact ones), level sets that are not ternary, and a
//! dense f32 product of the same shape.

use benches::{activations, activations_int4, copies, floats, level_sets, levels, matrix};
use candle_core::{Device, Tensor};
use criterion::measurement::WallTime;
use criterion::{BenchmarkGroup, BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use ternary_kernels::{Entry, Int8Batch, Isa, Kernel, Packed, gemm, gemm_a4, kernels_available, registry};

/// Tokens at once.
const TOKENS: &[usize] = &[4, 32, 128];
/// Largest number of tokens for which portable code is measured, too: more take longer and show nothing new.
const PORTABLE: usize = 4;

/// Both products of one kernel with `n` tokens, over alternating copies of the weights.
fn both(
    group: &mut BenchmarkGroup<'_, WallTime>,
    kernel: &dyn Kernel,
    copies: &[Packed],
    (m, k, n): (usize, usize, usize),
) {
    let (x, x4) = (activations(n, k).expect("small"), activations_int4(n, k).expect("small"));
    let (mut acc, mut widened, mut turn) = (vec![0; n * m], Int8Batch::with_capacity(0, 0), 0);
    group.bench_function(BenchmarkId::from_parameter(kernel.name()), |b| {
        b.iter(|| {
            turn = (turn + 1) % copies.len();
            gemm(kernel, &copies[turn], &x.view(), &mut acc).expect("shapes agree");
        });
    });
    group.bench_function(BenchmarkId::new(kernel.name(), "int4"), |b| {
        b.iter(|| {
            turn = (turn + 1) % copies.len();
            gemm_a4(kernel, &copies[turn], &x4.view(), &mut widened, &mut acc).expect("shapes agree");
        });
    });
}

/// A multiplication and an addition for each weight and token.
fn operations((m, k, n): (usize, usize, usize)) -> Throughput {
    Throughput::Elements(2 * (m * k * n) as u64)
}

fn kernels(c: &mut Criterion) {
    let (m, k) = (2560, 2560);
    let w = matrix(m, k).expect("small");
    for &n in TOKENS {
        let mut group = c.benchmark_group(format!("gemm {m}x{k}, {n} tokens"));
        group.throughput(operations((m, k, n))).sample_size(20);
        for kernel in registry().iter().filter(|e| n <= PORTABLE || e.isa != Isa::Scalar).filter_map(Entry::kernel) {
            let packed = kernel.prepack(&w).expect("every shape can be packed");
            both(&mut group, kernel.as_ref(), &[packed], (m, k, n));
        }
        let dense = Tensor::from_vec(floats(m * k), (m, k), &Device::Cpu).expect("small");
        let x = Tensor::from_vec(floats(k * n), (k, n), &Device::Cpu).expect("small");
        group.bench_function("dense f32", |b| b.iter(|| dense.matmul(&x).expect("shapes agree")));
    }
}

fn sets(c: &mut Criterion) {
    let (m, k, n) = (2560, 2560, 32);
    let mut group = c.benchmark_group(format!("gemm {m}x{k}, {n} tokens, level sets"));
    group.throughput(operations((m, k, n))).sample_size(20);
    for kernel in level_sets().expect("sets that have tables").iter().filter(|k| !k.name().ends_with("scalar")) {
        let packed = levels(kernel, m, k).expect("every shape can be packed");
        both(&mut group, kernel, &[packed], (m, k, n));
    }
}

/// A few tokens at once, weights from memory: batches of sessions, and the verification of drafts.
fn memory(c: &mut Criterion) {
    let (m, k) = (6912, 2560);
    let w = matrix(m, k).expect("small");
    for n in [2, 4, 8] {
        let mut group = c.benchmark_group(format!("gemm {m}x{k} from memory, {n} tokens"));
        group.throughput(operations((m, k, n))).sample_size(20);
        for kernel in kernels_available().iter().filter(|k| !k.name().ends_with("scalar")) {
            let copies = copies(kernel.as_ref(), &w).expect("every shape can be packed");
            both(&mut group, kernel.as_ref(), &copies, (m, k, n));
        }
    }
}

criterion_group!(benches, kernels, sets, memory);
criterion_main!(benches);
