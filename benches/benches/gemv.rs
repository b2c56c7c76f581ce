//! One token, in 8 and in 4 bits: every kernel of this CPU (from memory the exact ones), level sets that are not ternary,
//! the oracle, and what candle has for the same shape, dense and quantised.

use std::sync::Arc;

use benches::{Candidate, Harness, SHAPES, Work, copies, floats, level_sets, levels, matrix, products};
use candle_core::quantized::{GgmlDType, QTensor};
use candle_core::{Device, Module, Tensor};
use candle_transformers::quantized_nn::Linear;
use ternary_kernels::{Entry, Kernel, Packed, kernels_available, reference, registry};

/// Both products of one kernel.
fn both(kernel: &Arc<dyn Kernel>, copies: Vec<Packed>) -> [Candidate; 2] {
    let work = Work::Bytes(copies[0].byte_len() as u64);
    products(kernel, copies, 1, work).expect("small")
}

fn main() {
    let harness = Harness::from_arguments();
    for &(m, k) in SHAPES {
        harness.group(&format!("gemv {m}x{k}"), || {
            let w = matrix(m, k).expect("small");
            let pack = |kernel: Arc<dyn Kernel>| both(&kernel, vec![kernel.prepack(&w).expect("every shape")]);
            [registry().iter().filter_map(Entry::kernel).flat_map(pack).collect::<Vec<_>>()]
        });
    }
    let (m, k) = (2560, 2560);
    harness.group(&format!("gemv {m}x{k} level sets"), || {
        let sets = level_sets().expect("sets that have tables").into_iter().flat_map(|kernel| {
            let packed = levels(&kernel, m, k).expect("every shape can be packed");
            both(&(Arc::new(kernel) as Arc<dyn Kernel>), vec![packed])
        });
        [sets.collect::<Vec<_>>()]
    });
    // Weights that come from memory: copies beyond any cache take turns, and those of one kernel are there at a time.
    let (m, k) = (6912, 2560);
    harness.group(&format!("gemv {m}x{k} from memory"), || {
        let w = matrix(m, k).expect("small");
        kernels_available().into_iter().map(move |kernel| {
            both(&kernel, copies(kernel.as_ref(), &w).expect("every shape can be packed")).into()
        })
    });
    let (m, k) = (640, 2560);
    harness.group(&format!("gemv {m}x{k} baselines"), || [baselines(m, k)]);
}

fn baselines(m: usize, k: usize) -> Vec<Candidate> {
    let w = matrix(m, k).expect("small");
    let codes = vec![1; k];
    let dense = Tensor::from_vec(floats(m * k), (m, k), &Device::Cpu).expect("small");
    let x = Tensor::from_vec(floats(k), (k, 1), &Device::Cpu).expect("small");
    let row = Tensor::from_vec(floats(k), (1, k), &Device::Cpu).expect("small");
    let quantised = [GgmlDType::Q4_0, GgmlDType::Q8_0].map(|form| {
        let weights = QTensor::quantize(&dense, form).expect("rows are whole blocks");
        let linear = Linear::from_arc(weights.into(), None).expect("a matrix");
        let row = row.clone();
        Candidate::new(format!("candle {form:?}"), Work::Unstated, move || {
            linear.forward(&row).expect("shapes agree");
        })
    });
    let mut all = vec![
        Candidate::new("naive", Work::Unstated, move || {
            reference::gemv(&w, &codes).expect("shapes agree");
        }),
        Candidate::new("dense f32", Work::Unstated, move || {
            dense.matmul(&x).expect("shapes agree");
        }),
    ];
    all.extend(quantised);
    all
}
