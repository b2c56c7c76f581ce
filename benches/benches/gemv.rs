//! One token, in 8 and in 4 bits: every kernel of this CPU (with weights from memory: the exact ones), level sets that
//! are not ternary, the oracle, and candle's dense and quantised products for the same shape.

use benches::{SHAPES, activations, activations_int4, copies, floats, level_sets, levels, matrix};
use candle_core::quantized::{GgmlDType, QTensor};
use candle_core::{Device, Module, Tensor};
use candle_transformers::quantized_nn::Linear;
use criterion::measurement::WallTime;
use criterion::{BenchmarkGroup, BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use ternary_kernels::{Entry, Int8Batch, Kernel, Packed, gemm_a4, gemv, kernels_available, reference, registry};

/// Both products of one kernel, over alternating copies of the weights.
fn both(group: &mut BenchmarkGroup<'_, WallTime>, kernel: &dyn Kernel, copies: &[Packed], (m, k): (usize, usize)) {
    let (x, x4) = (activations(1, k).expect("small"), activations_int4(1, k).expect("small"));
    let (mut acc, mut widened, mut turn) = (vec![0; m], Int8Batch::with_capacity(0, 0), 0);
    group.throughput(Throughput::Bytes(copies[0].byte_len() as u64));
    group.bench_function(BenchmarkId::from_parameter(kernel.name()), |b| {
        b.iter(|| {
            turn = (turn + 1) % copies.len();
            gemv(kernel, &copies[turn], &x.view().row(0), &mut acc).expect("shapes agree");
        });
    });
    group.bench_function(BenchmarkId::new(kernel.name(), "int4"), |b| {
        b.iter(|| {
            turn = (turn + 1) % copies.len();
            gemm_a4(kernel, &copies[turn], &x4.view(), &mut widened, &mut acc).expect("shapes agree");
        });
    });
}

fn kernels(c: &mut Criterion) {
    for &(m, k) in SHAPES {
        let mut group = c.benchmark_group(format!("gemv {m}x{k}"));
        let w = matrix(m, k).expect("small");
        for kernel in registry().iter().filter_map(Entry::kernel) {
            let packed = kernel.prepack(&w).expect("every shape can be packed");
            both(&mut group, kernel.as_ref(), &[packed], (m, k));
        }
    }
}

fn sets(c: &mut Criterion) {
    let (m, k) = (2560, 2560);
    let mut group = c.benchmark_group(format!("gemv {m}x{k} level sets"));
    for kernel in level_sets().expect("sets that have tables") {
        let packed = levels(&kernel, m, k).expect("every shape can be packed");
        both(&mut group, &kernel, &[packed], (m, k));
    }
}

/// Weights that come from memory: more copies than any cache holds, used in turn.
fn memory(c: &mut Criterion) {
    let (m, k) = (6912, 2560);
    let mut group = c.benchmark_group(format!("gemv {m}x{k} from memory"));
    let w = matrix(m, k).expect("small");
    for kernel in kernels_available() {
        let copies = copies(kernel.as_ref(), &w).expect("every shape can be packed");
        both(&mut group, kernel.as_ref(), &copies, (m, k));
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

criterion_group!(benches, kernels, sets, memory, baselines);
criterion_main!(benches);
