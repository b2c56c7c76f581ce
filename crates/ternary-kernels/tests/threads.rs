//! Stand-alone products: any number of threads, checked arguments, kernels of other crates.

mod common;

use common::{Rng, batch, emulated, matrix};
use ternary_kernels::{
    AlignedBuf, Int4Batch, Int8Batch, Int8Matrix, Int8Vector, Kernel, KernelError, Packed, PackedRows, TernaryMatrix,
    best, by_name, for_isa, gemm, gemm_a4, gemv, kernels_available, reference, registry,
};

/// A kernel of another crate: one byte per trit, one row per panel.
#[derive(Debug)]
struct Naive;

impl Kernel for Naive {
    fn name(&self) -> &str {
        "naive"
    }
    fn panel_rows(&self) -> usize {
        1
    }
    fn prepack(&self, w: &TernaryMatrix) -> Result<Packed, KernelError> {
        let mut bytes = AlignedBuf::zeroed(w.rows() * w.cols());
        for (b, t) in bytes.iter_mut().zip(w.to_trits()) {
            *b = t as u8;
        }
        Packed::new(self.name(), w.rows(), w.cols(), 1, w.cols(), bytes)
    }
    fn gemv(&self, w: &PackedRows<'_>, x: &Int8Vector<'_>, acc: &mut [i32]) {
        for (r, acc) in acc.iter_mut().enumerate() {
            let row = &w.bytes()[r * w.cols()..(r + 1) * w.cols()];
            *acc = row.iter().zip(x.codes()).map(|(&t, &q)| i32::from(t as i8) * i32::from(q)).sum();
        }
    }
    fn gemm(&self, w: &PackedRows<'_>, x: &Int8Matrix<'_>, acc: &mut [i32]) {
        for t in 0..x.n() {
            self.gemv(w, &x.row(t), &mut acc[t * w.rows()..(t + 1) * w.rows()]);
        }
    }
}

fn pool(threads: usize) -> rayon::ThreadPool {
    rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap()
}

/// Sizes on both sides of the threshold below which nothing is split, with panels that do not divide evenly.
#[test]
fn results_do_not_depend_on_the_number_of_threads() {
    let mut rng = Rng::new(11);
    let usual = [(5, 100, 3), (1001, 2560, 1), (1001, 2560, 5), (17, 1 << 17, 2), (3000, 704, 13), (1, 1 << 20, 2)];
    let small = [(5, 100, 3), (821, 2560, 1), (17, 1 << 16, 2), (250, 704, 13), (1, 1 << 18, 2)];
    let (sizes, threads): (&[_], &[_]) = if emulated() { (&small, &[1, 3]) } else { (&usual, &[1, 2, 3, 8]) };
    for &(rows, cols, n) in sizes {
        let w = matrix(rows, cols, &rng.trits(rows * cols));
        let codes = rng.codes(n * cols);
        let x = batch(n, cols, &codes);
        let expected = reference::gemm(&w, &codes, n).unwrap();
        let codes4 = rng.int4_codes(n * cols);
        let (x4, expected4) =
            (Int4Batch::from_codes(n, cols, &codes4).unwrap(), reference::gemm(&w, &codes4, n).unwrap());
        for kernel in kernels_available().into_iter().chain([std::sync::Arc::new(Naive) as _]) {
            let packed = kernel.prepack(&w).unwrap();
            for &threads in threads {
                pool(threads).install(|| {
                    let what = format!("{}: {rows} x {cols}, {n} tokens, {threads} threads", kernel.name());
                    let mut acc = vec![i32::MIN; n * rows];
                    gemm(&*kernel, &packed, &x.view(), &mut acc).unwrap();
                    assert!(acc == expected, "gemm {what}");
                    let mut acc = vec![i32::MIN; rows];
                    gemv(&*kernel, &packed, &x.view().row(0), &mut acc).unwrap();
                    assert!(acc == expected[..rows], "gemv {what}");
                    let (mut acc, mut widened) = (vec![i32::MIN; n * rows], Int8Batch::with_capacity(0, 0));
                    gemm_a4(&*kernel, &packed, &x4.view(), &mut widened, &mut acc).unwrap();
                    assert!(acc == expected4, "int4 gemm {what}");
                });
            }
        }
    }
}

/// Kernels are shared: many threads at once, each on its own rows of the same weights.
#[test]
fn one_kernel_serves_many_threads() {
    let mut rng = Rng::new(13);
    let (rows, cols) = (200, 300);
    let w = matrix(rows, cols, &rng.trits(rows * cols));
    let codes = rng.codes(cols);
    let x = batch(1, cols, &codes);
    let expected = reference::gemv(&w, &codes).unwrap();
    for kernel in kernels_available() {
        let packed = kernel.prepack(&w).unwrap();
        let mut acc = vec![i32::MIN; rows];
        std::thread::scope(|scope| {
            let mut rest = acc.as_mut_slice();
            for part in 0..4 {
                let range = packed.split(part, 4);
                let (mine, behind) = rest.split_at_mut(range.len());
                rest = behind;
                let (kernel, packed, x) = (&kernel, &packed, &x);
                scope.spawn(move || kernel.gemv(&packed.rows_range(range).unwrap(), &x.view().row(0), mine));
            }
        });
        assert_eq!(acc, expected, "{}", kernel.name());
    }
}

#[test]
fn wrong_arguments_are_errors() {
    let w = matrix(20, 30, &vec![1; 600]);
    let x = batch(2, 30, &[1; 60]);
    let short = batch(2, 29, &[1; 58]);
    for kernel in kernels_available() {
        let packed = kernel.prepack(&w).unwrap();
        let mut acc = [0; 40];
        let mismatch = |op, what, expected, got| Err(KernelError::ShapeMismatch { op, what, expected, got });
        let k = "activations per token";
        let e = gemm(&*kernel, &packed, &short.view(), &mut acc);
        assert_eq!(e, mismatch("gemm", k, 30, 29));
        let e = gemv(&*kernel, &packed, &short.view().row(0), &mut acc[..20]);
        assert_eq!(e, mismatch("gemv", k, 30, 29));
        let e = gemm(&*kernel, &packed, &x.view(), &mut acc[..39]);
        assert_eq!(e, mismatch("gemm", "accumulators", 40, 39));
        let e = gemv(&*kernel, &packed, &x.view().row(0), &mut acc[..21]);
        assert_eq!(e, mismatch("gemv", "accumulators", 20, 21));
        assert_eq!(acc, [0; 40], "nothing was written");
    }
}

#[test]
fn weights_of_another_kernel_are_refused() {
    let w = matrix(20, 30, &vec![1; 600]);
    let x = batch(1, 30, &[1; 30]);
    let mut all = kernels_available();
    all.push(std::sync::Arc::new(Naive));
    for packer in &all {
        let packed = packer.prepack(&w).unwrap();
        for kernel in all.iter().filter(|k| k.name() != packer.name()) {
            let (kernel_name, packed_by) = (kernel.name().to_owned(), packer.name().to_owned());
            let error = Err(KernelError::PackedByOther { kernel: kernel_name, packed_by });
            assert_eq!(gemv(&**kernel, &packed, &x.view().row(0), &mut [0; 20]), error);
            assert_eq!(gemm(&**kernel, &packed, &x.view(), &mut [0; 20]), error);
        }
    }
}

/// A kernel called directly, without the checks of `gemv` and `gemm`, panics instead of reading beyond a slice.
#[test]
fn direct_calls_with_wrong_lengths_panic() {
    let w = matrix(20, 30, &vec![1; 600]);
    let naive = Naive.prepack(&w).unwrap();
    for kernel in kernels_available() {
        let packed = kernel.prepack(&w).unwrap();
        let (good, long) = (batch(2, 30, &[1; 60]), batch(2, 200, &[1; 400]));
        let panics = |w: PackedRows<'_>, x: Int8Matrix<'_>, acc: usize| {
            let gemm = std::panic::AssertUnwindSafe(|| kernel.gemm(&w, &x, &mut vec![0; acc]));
            let gemv = std::panic::AssertUnwindSafe(|| kernel.gemv(&w, &x.row(0), &mut vec![0; acc / 2]));
            std::panic::catch_unwind(gemm).is_err() && std::panic::catch_unwind(gemv).is_err()
        };
        assert!(!panics(packed.all(), good.view(), 40));
        assert!(panics(packed.all(), good.view(), 38));
        assert!(panics(packed.all(), long.view(), 40));
        assert!(panics(naive.all(), good.view(), 40), "another layout");
    }
}

#[test]
fn names_find_kernels() {
    for entry in registry() {
        match entry.kernel() {
            Some(kernel) => {
                assert_eq!(by_name(entry.name).unwrap().name(), kernel.name());
                assert_eq!(for_isa(entry.isa).unwrap().name(), format!("i2s_{}", entry.isa));
            }
            None => {
                assert!(matches!(by_name(entry.name), Err(KernelError::UnknownKernel { .. })));
                if !entry.isa.is_available() {
                    assert!(matches!(for_isa(entry.isa), Err(KernelError::UnavailableIsa { .. })));
                }
            }
        }
    }
    match std::env::var("BITNET_ISA") {
        Ok(isa) if !isa.is_empty() => assert_eq!(best().unwrap().name(), format!("i2s_{isa}")),
        _ => assert_eq!(best().unwrap().name(), kernels_available()[0].name()),
    }
}
