//! Every kernel of the registry that this CPU can run equals the oracle, bit for bit.

mod common;

use std::io::Write;
use std::sync::Arc;

use common::{Rng, batch, cases, emulated, expected_sets_are, matrix};
use proptest::prelude::*;
use ternary_kernels::{
    Int4Batch, Int8Batch, Isa, Kernel, Packed, SharedBytes, TernaryMatrix, kernels_available, reference, registry,
};

/// Around lanes, chunks and blocks of columns; a length that is not a multiple of a power of two; the two lengths of
/// real models.
const COLS: &[usize] = &[
    0, 1, 2, 3, 4, 5, 7, 8, 9, 15, 16, 17, 31, 32, 33, 63, 64, 65, 79, 80, 81, 100, 127, 128, 129, 131, 160, 704, 6912,
];
const ROWS: &[usize] = &[0, 1, 7, 8, 9, 15, 16, 17, 31, 32, 33, 35];
const TOKENS: &[usize] = &[0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 25];

/// Compares both products of `kernel` with the oracle.
fn check(kernel: &Arc<dyn Kernel>, rows: usize, cols: usize, n: usize, trits: &[i8], codes: &[i8]) {
    let w = matrix(rows, cols, trits);
    let x = batch(n, cols, codes);
    let expected = reference::gemm(&w, codes, n).unwrap();
    let packed = kernel.prepack(&w).unwrap();
    let name = kernel.name();
    // Initially not zero, so that an accumulator that is not written is detected.
    let mut acc = vec![i32::MIN; n * rows];
    kernel.gemm(&packed.all(), &x.view(), &mut acc);
    assert_eq!(acc, expected, "{name}: gemm {rows} x {cols}, {n} tokens");
    for t in 0..n.min(2) {
        let mut acc = vec![i32::MIN; rows];
        kernel.gemv(&packed.all(), &x.view().row(t), &mut acc);
        assert_eq!(acc, expected[t * rows..(t + 1) * rows], "{name}: gemv {rows} x {cols}, token {t}");
    }
}

/// Compares both products of `kernel` with int4 activations with the oracle; the buffer for widened activations still
/// has its previous contents.
fn check_a4(kernel: &Arc<dyn Kernel>, w: &TernaryMatrix, n: usize, codes: &[i8], widened: &mut Int8Batch) {
    let (rows, cols, name) = (w.rows(), w.cols(), kernel.name());
    let x = Int4Batch::from_codes(n, cols, codes).unwrap();
    let expected = reference::gemm(w, codes, n).unwrap();
    let packed = kernel.prepack(w).unwrap();
    let mut acc = vec![i32::MIN; n * rows];
    kernel.gemm_a4(&packed.all(), &x.view(), widened, &mut acc);
    assert_eq!(acc, expected, "{name}: int4 gemm {rows} x {cols}, {n} tokens");
    for t in 0..n.min(2) {
        let mut acc = vec![i32::MIN; rows];
        kernel.gemv_a4(&packed.all(), &x.view().row(t), widened, &mut acc);
        assert_eq!(acc, expected[t * rows..(t + 1) * rows], "{name}: int4 gemv {rows} x {cols}, token {t}");
    }
}

/// The columns of [`COLS`]; for an emulator, the largest sums below and `extremes.rs` cover the long rows of the
/// models.
fn all_cols() -> impl Iterator<Item = usize> {
    COLS.iter().copied().filter(|&cols| !emulated() || cols < 6912)
}

#[test]
fn every_kernel_equals_the_oracle_with_int4_activations() {
    let mut rng = Rng::new(8);
    for kernel in kernels_available() {
        let mut widened = Int8Batch::with_capacity(0, 0);
        for cols in all_cols() {
            for &rows in ROWS {
                for &n in TOKENS.iter().filter(|&&n| matches!((rows, n), (17 | 35, _) | (_, 0 | 1 | 5 | 13))) {
                    let w = matrix(rows, cols, &rng.trits(rows * cols));
                    check_a4(&kernel, &w, n, &rng.int4_codes(n * cols), &mut widened);
                }
            }
        }
        // So many tokens that kernels use another algorithm.
        let long = if emulated() { (16, 2700, 66) } else { (16, 6912, 130) };
        for (rows, cols, n) in [(33, 200, 65), (20, 2600, 79), (179, 330, 53), long] {
            let w = matrix(rows, cols, &rng.trits(rows * cols));
            check_a4(&kernel, &w, n, &rng.int4_codes(n * cols), &mut widened);
        }
        // The largest sums: 8 * 6912.
        for (t, q) in [(1, 7), (-1, -8), (1, -8), (-1, 7)] {
            check_a4(&kernel, &matrix(17, 6912, &[t; 17 * 6912]), 7, &[q; 7 * 6912], &mut widened);
        }
    }
}

#[test]
fn every_kernel_equals_the_oracle_for_every_size() {
    let mut rng = Rng::new(1);
    for kernel in kernels_available() {
        for cols in all_cols() {
            for &rows in ROWS {
                // All token counts with a few shapes, a few token counts with all shapes.
                let all = matches!((rows, cols), (17 | 32 | 35, 65 | 100));
                for &n in TOKENS.iter().filter(|&&n| all || matches!(n, 0 | 1 | 5 | 13)) {
                    check(&kernel, rows, cols, n, &rng.trits(rows * cols), &rng.codes(n * cols));
                }
            }
        }
    }
}

/// So many tokens that kernels unpack the weights once for all of them; more panels and columns than they unpack at a
/// time.
#[test]
fn many_tokens_equal_the_oracle() {
    let mut rng = Rng::new(2);
    for kernel in kernels_available() {
        for (rows, cols, n) in
            [(17, 100, 65), (35, 65, 77), (48, 320, 90), (150, 2650, 67), (177, 2650, 53), (1050, 90, 40)]
        {
            check(&kernel, rows, cols, n, &rng.trits(rows * cols), &rng.codes(n * cols));
        }
    }
}

proptest! {
    #![proptest_config(cases(200))]
    #[test]
    fn every_kernel_equals_the_oracle(rows in 0usize..70, cols in 0usize..400, n in 0usize..30, seed in any::<u64>()) {
        let mut rng = Rng::new(seed);
        let (trits, codes) = (rng.trits(rows * cols), rng.codes(n * cols));
        for kernel in kernels_available() {
            check(&kernel, rows, cols, n, &trits, &codes);
        }
    }

    #[test]
    fn every_kernel_equals_the_oracle_with_any_int4(rows in 0usize..70, cols in 0usize..400, n in 0usize..30, seed in any::<u64>()) {
        let mut rng = Rng::new(seed);
        let (w, codes) = (matrix(rows, cols, &rng.trits(rows * cols)), rng.int4_codes(n * cols));
        for kernel in kernels_available() {
            check_a4(&kernel, &w, n, &codes, &mut Int8Batch::with_capacity(0, 0));
        }
    }

    /// Row ranges that begin at a panel yield the rows of the whole product.
    #[test]
    fn row_ranges_equal_the_whole(rows in 1usize..100, cols in 1usize..200, parts in 1usize..6, seed in any::<u64>()) {
        let mut rng = Rng::new(seed);
        let w = matrix(rows, cols, &rng.trits(rows * cols));
        let codes = rng.codes(3 * cols);
        let x = batch(3, cols, &codes);
        let expected = reference::gemm(&w, &codes, 3).unwrap();
        for kernel in kernels_available() {
            let packed = kernel.prepack(&w).unwrap();
            let mut covered = 0;
            for part in 0..parts {
                let range = packed.split(part, parts);
                prop_assert_eq!(range.start, covered);
                covered = range.end;
                let view = packed.rows_range(range.clone()).unwrap();
                let mut acc = vec![i32::MIN; 3 * range.len()];
                kernel.gemm(&view, &x.view(), &mut acc);
                for t in 0..3 {
                    prop_assert_eq!(&acc[t * range.len()..][..range.len()], &expected[t * rows..][range.clone()]);
                }
                let mut acc = vec![i32::MIN; range.len()];
                kernel.gemv(&view, &x.view().row(1), &mut acc);
                prop_assert_eq!(&acc[..], &expected[rows..][range]);
            }
            prop_assert_eq!(covered, rows);
        }
    }
}

proptest! {
    #![proptest_config(cases(24))]
    /// Enough rows and tokens for tables that tokens share, and too few of either; small and large activations.
    #[test]
    fn many_rows_and_tokens_equal_the_oracle(
        rows in 140usize..200, cols in 1usize..700, n in 16usize..70, largest in 1u64..128, seed in any::<u64>(),
    ) {
        let mut rng = Rng::new(seed);
        let trits = rng.trits(rows * cols);
        let codes: Vec<i8> = (0..n * cols).map(|_| (rng.below(2 * largest + 1) as i64 - largest as i64) as i8).collect();
        for kernel in kernels_available().iter().filter(|kernel| kernel.name().starts_with("i2s")) {
            check(kernel, rows, cols, n, &trits, &codes);
        }
    }
}

/// Packed bytes may have any address, in a file mapping for example; here every offset from a cache line, at the very
/// end of their allocation.
#[test]
fn packed_bytes_at_odd_addresses_are_read_as_well() {
    let mut rng = Rng::new(7);
    let (rows, cols, n) = (33, 150, 13);
    let w = matrix(rows, cols, &rng.trits(rows * cols));
    let codes = rng.codes(n * cols);
    let x = batch(n, cols, &codes);
    let expected = reference::gemm(&w, &codes, n).unwrap();
    for kernel in kernels_available() {
        let packed = kernel.prepack(&w).unwrap();
        let view = packed.all();
        for offset in 0..64 {
            let moved = [&vec![0; offset], view.bytes()].concat().into_boxed_slice();
            let moved = SharedBytes::new(moved).slice(offset..offset + view.bytes().len()).unwrap();
            let (name, height) = (kernel.name(), packed.panel_rows());
            let moved = Packed::from_shared(name, rows, cols, height, view.panel_bytes(), moved).unwrap();
            let mut acc = vec![i32::MIN; n * rows];
            kernel.gemm(&moved.all(), &x.view(), &mut acc);
            assert_eq!(acc, expected, "{name}: gemm, offset {offset}");
            kernel.gemm(&moved.all(), &x.view().rows(0..3), &mut acc[..3 * rows]);
            kernel.gemv(&moved.all(), &x.view().row(12), &mut acc[12 * rows..]);
            assert_eq!(acc, expected, "{name}: gemv and few tokens, offset {offset}");
        }
    }
}

/// Prints which instruction sets ran, so that a run that tested nothing is noticed; with `BITNET_EXPECT_ISA=a,b`, a
/// missing instruction set is a failure.
#[test]
fn expected_instruction_sets_were_tested() {
    let has = |isa: &Isa| registry().iter().any(|e| e.isa == *isa && e.kernel().is_some());
    let run: Vec<Isa> = Isa::ALL.iter().copied().filter(has).collect();
    let not: Vec<_> = Isa::ALL.iter().filter(|i| !run.contains(i)).map(|i| i.name()).collect();
    let names: Vec<_> = run.iter().map(|i| i.name()).collect();
    // Bypasses the harness, which swallows what the print macros of a passing test write.
    let _ = writeln!(std::io::stderr(), "sets: {}; not here: {}", names.join(" "), not.join(" "));
    assert!(run.contains(&Isa::Scalar));
    for (entry, kernel) in registry().iter().filter_map(|e| Some((e, e.kernel()?))) {
        assert_eq!((entry.name, entry.exact), (kernel.name(), kernel.exact()));
        assert!(entry.isa.is_available(), "{}", entry.name);
    }
    for entry in registry() {
        // The extension that one kernel needs beyond its instruction set is part of its name.
        let extended = entry.name == "base3_avx512vbmi" && entry.isa == Isa::Avx512Vnni;
        assert!(extended || entry.name == format!("{}_{}", entry.format_name, entry.isa), "{}", entry.name);
    }
    // Every instruction set has the formats that multiply, and look-up tables if it has shuffles.
    for &isa in &run {
        let formats = |f: &str| registry().iter().filter(|e| e.isa == isa && e.format_name == f).count();
        let all = ["i2s", "base3", "tl1", "tl2", "tl1_0", "tl2_0"];
        let tables = !matches!(isa, Isa::AvxVnni | Isa::NeonDot | Isa::NeonI8mm);
        let expected = if tables { all.to_vec() } else { all[..2].to_vec() };
        assert_eq!(all.iter().filter(|f| formats(f) == 1).copied().collect::<Vec<_>>(), expected, "{isa}");
        // Instruction sets without tables use those of one that they include.
        for format in all {
            let kernel = ternary_kernels::for_format(format, isa).unwrap();
            let own = registry().iter().any(|e| e.isa == isa && e.format_name == format && e.kernel().is_some());
            let entry = registry().iter().find(|e| e.name == kernel.name()).unwrap();
            assert!(entry.format_name == format && (!own || entry.isa == isa), "{format} for {isa}");
            assert!(isa == Isa::Scalar || entry.isa != Isa::Scalar, "{format} for {isa}");
        }
    }
    expected_sets_are(&run);
}
