//! Many tokens, in 8 and in 4 bits: every kernel of this CPU (from memory the exact ones), and a dense f32 product of the same
//! shape.

use benches::{activations, activations_int4, copies, floats, matrix};
use candle_core::{Device, Tensor};
use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use ternary_kernels::{Entry, Int8Batch, gemm, gemm_a4, kernels_available, registry};

/// Tokens at once.
const TOKENS: &[usize] = &[4, 32, 128];

fn kernels(c: &mut Criterion) {
    let (m, k) = (2560, 2560);
    let w = matrix(m, k).expect("small");
    for &n in TOKENS {
        let mut group = c.benchmark_group(format!("gemm {m}x{k}, {n} tokens"));
        // A multiplication and an addition for each weight and token.
        group.throughput(Throughput::Elements(2 * (m * k * n) as u64)).sample_size(20);
        let x = activations(n, k).expect("small");
        let (x4, mut widened) = (activations_int4(n, k).expect("small"), Int8Batch::with_capacity(0, 0));
        let mut acc = vec![0; n * m];
        for kernel in registry().iter().filter_map(Entry::kernel) {
            let packed = kernel.prepack(&w).expect("every shape can be packed");
            group.bench_function(BenchmarkId::from_parameter(kernel.name()), |b| {
                b.iter(|| gemm(kernel.as_ref(), &packed, &x.view(), &mut acc).expect("shapes agree"));
            });
            group.bench_function(BenchmarkId::new(kernel.name(), "int4"), |b| {
                b.iter(|| {
                    gemm_a4(kernel.as_ref(), &packed, &x4.view(), &mut widened, &mut acc).expect("shapes agree");
                });
            });
        }
        let dense = Tensor::from_vec(floats(m * k), (m, k), &Device::Cpu).expect("small");
        let x = Tensor::from_vec(floats(k * n), (k, n), &Device::Cpu).expect("small");
        group.bench_function("dense f32", |b| b.iter(|| dense.matmul(&x).expect("shapes agree")));
    }
}

/// A few tokens at once, weights from memory: batches of sessions, and the verification of drafts.
fn memory(c: &mut Criterion) {
    let (m, k) = (6912, 2560);
    let w = matrix(m, k).expect("small");
    for n in [2, 4, 8] {
        let mut group = c.benchmark_group(format!("gemm {m}x{k} from memory, {n} tokens"));
        group.throughput(Throughput::Elements(2 * (m * k * n) as u64)).sample_size(20);
        let x = activations(n, k).expect("small");
        let mut acc = vec![0; n * m];
        for kernel in kernels_available() {
            let copies = copies(kernel.as_ref(), &w).expect("every shape can be packed");
            let mut turn = 0;
            group.bench_function(BenchmarkId::from_parameter(kernel.name()), |b| {
                b.iter(|| {
                    turn = (turn + 1) % copies.len();
                    gemm(kernel.as_ref(), &copies[turn], &x.view(), &mut acc).expect("shapes agree");
                });
            });
        }
    }
}

criterion_group!(benches, kernels, memory);
criterion_main!(benches);
