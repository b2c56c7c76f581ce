//! One token and weights that come from main memory: the kernel walks through matrices that together are larger than any
//! cache by far, as decoding walks through a model.

use std::cell::Cell;

use benches::{activations, matrix};
use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use ternary_kernels::{AlignedBuf, KernelError, Packed, SharedBytes, gemv, kernels_available};

/// Packed bytes to walk through.
const BYTES: usize = 320 << 20;

/// A copy of `packed` in memory of its own.
fn copy(packed: &Packed) -> Result<Packed, KernelError> {
    let all = packed.all();
    let bytes = AlignedBuf::from_slice(all.bytes());
    let (rows, cols) = (packed.rows(), packed.cols());
    let shared = SharedBytes::new(bytes);
    Packed::from_shared(packed.kernel(), rows, cols, packed.panel_rows(), all.panel_bytes(), shared)
}

fn kernels(c: &mut Criterion) {
    let (m, k) = (6912, 2560);
    let mut group = c.benchmark_group(format!("stream {m}x{k}"));
    let (w, x) = (matrix(m, k).expect("small"), activations(1, k).expect("small"));
    let mut acc = vec![0; m];
    for kernel in kernels_available() {
        let first = kernel.prepack(&w).expect("every shape can be packed");
        let copies = (BYTES / first.byte_len()).max(2);
        let weights: Vec<Packed> = (0..copies).map(|_| copy(&first).expect("it was packed before")).collect();
        group.throughput(Throughput::Bytes(first.byte_len() as u64));
        let next = Cell::new(0);
        group.bench_function(BenchmarkId::from_parameter(kernel.name()), |b| {
            b.iter(|| {
                let i = next.get();
                next.set((i + 1) % weights.len());
                gemv(kernel.as_ref(), &weights[i], &x.view().row(0), &mut acc).expect("shapes agree");
            });
        });
    }
}

criterion_group!(benches, kernels);
criterion_main!(benches);
