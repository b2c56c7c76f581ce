//! Float operations on every instruction set of this CPU.

use benches::{Candidate, Harness, Work, floats};
use ternary_kernels::ops::{Prepare, largest_hadamard_block};
use ternary_kernels::{Int4Batch, Int8Batch, Isa, Ops};

/// Width of the feed-forward block of BitNet b1.58 2B4T.
const WIDTH: usize = 6912;

/// A group of one operation: `make` gives what is timed for an instruction set.
fn group<F: FnMut() + 'static>(harness: &Harness, name: &str, make: impl Fn(Ops) -> F) {
    harness.group(name, || {
        let candidate = |isa: Isa| {
            let ops = Ops::for_isa(isa).expect("it is available");
            Candidate::new(isa.name(), Work::Elements(WIDTH as u64), make(ops))
        };
        [Isa::available().map(candidate).collect::<Vec<_>>()]
    });
}

fn main() {
    let harness = Harness::from_arguments();
    let inputs = || (floats(WIDTH), vec![1.0_f32; WIDTH]);
    group(&harness, "norm and quantise", |ops| {
        let (x, gain) = inputs();
        let mut codes = Int8Batch::with_capacity(1, WIDTH);
        codes.reset(1, WIDTH);
        move || ops.rms_norm_quantize(&x, &gain, 1e-5, codes.row_mut(0)).expect("finite")
    });
    group(&harness, "norm, Hadamard transform and quantise to int4", |ops| {
        let (x, gain) = inputs();
        let (mut int4, mut row) = (Int4Batch::with_capacity(1, WIDTH), vec![0.0; WIDTH]);
        int4.reset(1, WIDTH);
        move || {
            let prepare = Prepare { norm: Some((&gain, 1e-5)), hadamard: Some(largest_hadamard_block(WIDTH)) };
            ops.prepare_int4(&x, prepare, &mut row, int4.row_mut(0)).expect("finite");
        }
    });
    group(&harness, "dot", |ops| {
        let (x, gain) = inputs();
        move || {
            std::hint::black_box(ops.dot(&x, &gain));
        }
    });
    group(&harness, "relu2 times up", |ops| {
        let (x, gain) = inputs();
        let mut out = vec![0.0; WIDTH];
        move || ops.relu2_mul(&x, &gain, &mut out)
    });
}
