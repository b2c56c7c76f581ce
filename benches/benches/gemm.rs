//! Many tokens, in 8 and in 4 bits: every kernel of this CPU (from memory the exact ones), level sets that are not ternary,
//! and a dense f32 product of the same shape.

use std::sync::Arc;

use benches::{Candidate, Harness, Work, copies, floats, level_sets, levels, matrix, products};
use candle_core::{Device, Tensor};
use ternary_kernels::{Entry, Isa, Kernel, kernels_available, registry};

/// Tokens at once.
const TOKENS: &[usize] = &[4, 32, 128];
/// Up to so many tokens portable code is measured, too: more take longer and say nothing new.
const PORTABLE: usize = 4;

/// A multiplication and an addition for each weight and token.
fn operations((m, k, n): (usize, usize, usize)) -> Work {
    Work::Operations(2 * (m * k * n) as u64)
}

fn main() {
    let harness = Harness::from_arguments();
    let (m, k) = (2560, 2560);
    for &n in TOKENS {
        harness.group(&format!("gemm {m}x{k}, {n} tokens"), || {
            let w = matrix(m, k).expect("small");
            let entries = registry().iter().filter(|e| n <= PORTABLE || e.isa != Isa::Scalar);
            let mut all: Vec<Candidate> = entries
                .filter_map(Entry::kernel)
                .flat_map(|kernel| {
                    let packed = kernel.prepack(&w).expect("every shape can be packed");
                    products(&kernel, vec![packed], n, operations((m, k, n))).expect("small")
                })
                .collect();
            let dense = Tensor::from_vec(floats(m * k), (m, k), &Device::Cpu).expect("small");
            let x = Tensor::from_vec(floats(k * n), (k, n), &Device::Cpu).expect("small");
            all.push(Candidate::new("dense f32", operations((m, k, n)), move || {
                dense.matmul(&x).expect("shapes agree");
            }));
            [all]
        });
    }
    let n = 32;
    harness.group(&format!("gemm {m}x{k}, {n} tokens, level sets"), || {
        let sets = level_sets().expect("sets that have tables").into_iter().filter(|e| !e.name().ends_with("scalar"));
        let sets = sets.flat_map(|kernel| {
            let packed = levels(&kernel, m, k).expect("every shape can be packed");
            products(&(Arc::new(kernel) as Arc<dyn Kernel>), vec![packed], n, operations((m, k, n))).expect("small")
        });
        [sets.collect::<Vec<_>>()]
    });
    // A few tokens at once, weights from memory: batches of sessions, and the verification of drafts.
    let (m, k) = (6912, 2560);
    for n in [2, 4, 8] {
        harness.group(&format!("gemm {m}x{k} from memory, {n} tokens"), || {
            let w = matrix(m, k).expect("small");
            let kernels = kernels_available().into_iter().filter(|kernel| !kernel.name().ends_with("scalar"));
            kernels.map(move |kernel| {
                let copies = copies(kernel.as_ref(), &w).expect("every shape can be packed");
                products(&kernel, copies, n, operations((m, k, n))).expect("small").into()
            })
        });
    }
}
