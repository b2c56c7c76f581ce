//! Checks kernels and operations inside a WebAssembly runtime, which `cargo xtask isas` builds and runs. It has nothing to
//! print with: it returns, or it traps.

use half::{bf16, f16};
use ternary_kernels::check::self_check;
use ternary_kernels::{Int8Batch, Isa, Ops, kernels_available};

fn main() {
    let sets: Vec<_> = Isa::available().map(Isa::name).collect();
    assert_eq!(sets, ["scalar", "simd128"], "the program was built without SIMD");
    let names: Vec<_> = kernels_available().iter().map(|k| k.name().to_owned()).collect();
    assert_eq!(names, ["i2s_simd128", "base3_simd128", "i2s_scalar", "base3_scalar"]);
    for kernel in kernels_available() {
        let report = self_check(kernel.as_ref()).expect("every shape can be packed");
        assert!(report.products > 60 && report.mismatch.is_none(), "{}: {report:?}", kernel.name());
    }
    let portable = Ops::for_isa(Isa::Scalar).expect("everywhere");
    let simd = Ops::for_isa(Isa::Simd128).expect("just listed");
    for n in [0, 1, 15, 16, 17, 64, 100, 2560] {
        for seed in 0..8 {
            assert_eq!(results(portable, n, seed), results(simd, n, seed), "{n} elements, seed {seed}");
        }
    }
}

/// Numbers of very different sizes, the same at every call.
fn numbers(n: usize, seed: u64) -> Vec<f32> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    (0..n)
        .map(|_| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            let unit = (state >> 40) as f32 / (1 << 23) as f32 - 1.0;
            unit * 2f32.powi((state >> 20 & 15) as i32 - 8)
        })
        .collect()
}

/// The bits of what the operations make of numbers.
fn results(ops: Ops, n: usize, seed: u64) -> Vec<u32> {
    let (a, b) = (numbers(n, 2 * seed), numbers(n, 2 * seed + 1));
    let halves: Vec<f16> = b.iter().map(|&b| f16::from_f32(b)).collect();
    let brains: Vec<bf16> = b.iter().map(|&b| bf16::from_f32(b)).collect();
    let mut out = vec![ops.dot(&a, &b), ops.dot_f16(&a, &halves), ops.dot_bf16(&a, &brains)];
    let mut y = vec![0.0; n];
    ops.relu2_mul(&a, &b, &mut y);
    out.extend(&y);
    ops.silu_mul(&a, &b, &mut y);
    out.extend(&y);
    ops.rms_norm(&a, &b, 1e-5, &mut y);
    out.extend(&y);
    ops.axpy(0.3, &b, &mut y);
    out.extend(&y);
    ops.scale(1.7, &mut y);
    out.extend(&y);
    let integers: Vec<i32> = a.iter().map(|&a| (a * 1e6) as i32).collect();
    ops.scale_i32(&integers, 0.1, &mut y);
    out.extend(&y);
    let mut batch = Int8Batch::with_capacity(1, n);
    batch.reset(1, n);
    ops.quantize_int8(&a, batch.row_mut(0)).expect("finite numbers");
    out.extend(batch.view().row(0).codes().iter().map(|&c| f32::from(c)));
    out.extend(batch.scales());
    // Twenty rows, some of which are added up side by side.
    let rows = numbers(20 * n, seed + 100);
    let mut sums = [0.0; 20];
    ops.dots(&rows, &a, &mut sums);
    out.extend(sums);
    out.into_iter().map(f32::to_bits).collect()
}
