//! One token, in 8 and in 4 bits: every kernel of this CPU (from memory the exact ones), the oracle, and what candle has for the
//! same shape, dense and quantised.

use benches::{SHAPES, activations, activations_int4, copies, floats, matrix};
use candle_core::quantized::{GgmlDType, QTensor};
use candle_core::{Device, Module, Tensor};
use candle_transformers::quantized_nn::Linear;
use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use ternary_kernels::{Entry, Int8Batch, gemm_a4, gemv, kernels_available, reference, registry};

fn kernels(c: &mut Criterion) {
    for &(m, k) in SHAPES {
        let mut group = c.benchmark_group(format!("gemv {m}x{k}"));
        let (w, x) = (matrix(m, k).expect("small"), activations(1, k).expect("small"));
        let (x4, mut widened) = (activations_int4(1, k).expect("small"), Int8Batch::with_capacity(0, 0));
        let mut acc = vec![0; m];
        for kernel in registry().iter().filter_map(Entry::kernel) {
            let packed = kernel.prepack(&w).expect("every shape can be packed");
            group.throughput(Throughput::Bytes(packed.byte_len() as u64));
            group.bench_function(BenchmarkId::from_parameter(kernel.name()), |b| {
                b.iter(|| gemv(kernel.as_ref(), &packed, &x.view().row(0), &mut acc).expect("shapes agree"));
            });
            group.bench_function(BenchmarkId::new(kernel.name(), "int4"), |b| {
                b.iter(|| {
                    gemm_a4(kernel.as_ref(), &packed, &x4.view(), &mut widened, &mut acc).expect("shapes agree");
                });
            });
        }
    }
}

/// Weights that come from memory: copies beyond any cache take turns.
fn memory(c: &mut Criterion) {
    let (m, k) = (6912, 2560);
    let mut group = c.benchmark_group(format!("gemv {m}x{k} from memory"));
    let (w, x) = (matrix(m, k).expect("small"), activations(1, k).expect("small"));
    let mut acc = vec![0; m];
    for kernel in kernels_available() {
        let copies = copies(kernel.as_ref(), &w).expect("every shape can be packed");
        let mut turn = 0;
        group.throughput(Throughput::Bytes(copies[0].byte_len() as u64));
        group.bench_function(BenchmarkId::from_parameter(kernel.name()), |b| {
            b.iter(|| {
                turn = (turn + 1) % copies.len();
                gemv(kernel.as_ref(), &copies[turn], &x.view().row(0), &mut acc).expect("shapes agree");
            });
        });
    }
}

fn baselines(c: &mut Criterion) {
    let (m, k) = (640, 2560);
    let mut group = c.benchmark_group(format!("gemv {m}x{k} baselines"));
    let w = matrix(m, k).expect("small");
    let codes = vec![1; k];
    group.bench_function("naive", |b| b.iter(|| reference::gemv(&w, &codes).expect("shapes agree")));
    let dense = Tensor::from_vec(floats(m * k), (m, k), &Device::Cpu).expect("small");
    let x = Tensor::from_vec(floats(k), (k, 1), &Device::Cpu).expect("small");
    group.bench_function("dense f32", |b| b.iter(|| dense.matmul(&x).expect("shapes agree")));
    let row = Tensor::from_vec(floats(k), (1, k), &Device::Cpu).expect("small");
    for quantised in [GgmlDType::Q4_0, GgmlDType::Q8_0] {
        let weights = QTensor::quantize(&dense, quantised).expect("rows are whole blocks");
        let linear = Linear::from_arc(weights.into(), None).expect("a matrix");
        group.bench_function(format!("candle {quantised:?}"), |b| {
            b.iter(|| linear.forward(&row).expect("shapes agree"))
        });
    }
}

criterion_group!(benches, kernels, memory, baselines);
criterion_main!(benches);
