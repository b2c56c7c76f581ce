//! The largest possible sums of a kernel, and single weights in every position.

mod common;

use common::{Rng, batch, emulated, matrix};
use ternary_kernels::{Kernel, kernels_available, reference};

/// Compares both products of `kernel` with the oracle.
fn check(kernel: &dyn Kernel, what: &str, (rows, cols, n): (usize, usize, usize), trits: &[i8], codes: &[i8]) {
    let (w, x) = (matrix(rows, cols, trits), batch(n, cols, codes));
    let expected = reference::gemm(&w, codes, n).unwrap();
    let packed = kernel.prepack(&w).unwrap();
    let mut acc = vec![i32::MIN; n * rows];
    kernel.gemm(&packed.all(), &x.view(), &mut acc);
    assert_eq!(acc, expected, "{}: gemm, {what}", kernel.name());
    kernel.gemv(&packed.all(), &x.view().row(0), &mut acc[..rows]);
    assert_eq!(acc[..rows], expected[..rows], "{}: gemv, {what}", kernel.name());
}

/// Sums of `|code * activation|` that overflow 16 bits if a kernel widens too late; 6912 is the longest row of the
/// models, 16384 is longer than any.
#[test]
fn largest_sums_are_exact() {
    let cols: &[usize] = if emulated() { &[64, 704, 6912] } else { &[64, 704, 2560, 6912, 16384] };
    for kernel in kernels_available() {
        for &cols in cols {
            for (t, q) in [(1, 127), (-1, -127), (1, -127), (-1, 127), (0, 127), (0, -127)] {
                let what = format!("{cols} columns, all {t} times {q}");
                check(&*kernel, &what, (17, cols, 13), &vec![t; 17 * cols], &vec![q; 13 * cols]);
            }
            // All products positive, though weights and activations change sign; and each pair of columns cancels out.
            let signs: Vec<i8> = (0..17 * cols).map(|i| if i % cols % 3 == 0 { -1 } else { 1 }).collect();
            let codes: Vec<i8> = (0..13 * cols).map(|i| if i % cols % 3 == 0 { -127 } else { 127 }).collect();
            check(&*kernel, "products of one sign", (17, cols, 13), &signs, &codes);
            let pairs: Vec<i8> = (0..17 * cols).map(|i| if i % 2 == 0 { 1 } else { -1 }).collect();
            check(&*kernel, "cancelling pairs", (17, cols, 13), &pairs, &vec![127; 13 * cols]);
        }
    }
}

#[test]
fn rows_of_the_models_with_extreme_activations() {
    let mut rng = Rng::new(5);
    let cols = 6912;
    let trits = rng.trits(33 * cols);
    let codes: Vec<i8> = (0..5 * cols).map(|_| if rng.below(2) == 0 { 127 } else { -127 }).collect();
    for kernel in kernels_available() {
        check(&*kernel, "random trits, |q| = 127", (33, cols, 5), &trits, &codes);
    }
}

/// One non-zero weight, in every position: it must be multiplied with its own activation and no other.
#[test]
fn a_single_weight_meets_its_own_activation() {
    let (rows, cols) = (33, 131);
    // All different within a row's neighbourhood, none zero.
    let codes: Vec<i8> = (0..2 * cols).map(|i| (i % 127) as i8 + 1).collect();
    let x = batch(2, cols, &codes);
    for kernel in kernels_available() {
        let mut trits = vec![0i8; rows * cols];
        // A step that divides neither rows nor columns, if every position would take too long.
        for at in (0..rows * cols).step_by(if emulated() { 7 } else { 1 }) {
            trits[at] = if at % 2 == 0 { 1 } else { -1 };
            let packed = kernel.prepack(&matrix(rows, cols, &trits)).unwrap();
            let mut acc = vec![i32::MIN; 2 * rows];
            kernel.gemm(&packed.all(), &x.view(), &mut acc);
            for (i, &a) in acc.iter().enumerate() {
                let (t, r) = (i / rows, i % rows);
                let expected = if r == at / cols { trits[at] as i32 * codes[t * cols + at % cols] as i32 } else { 0 };
                assert_eq!(a, expected, "{}: weight {at}, token {t}, row {r}", kernel.name());
            }
            kernel.gemv(&packed.all(), &x.view().row(1), &mut acc[..rows]);
            assert_eq!(acc[..rows], acc[rows..], "{}: gemv, weight {at}", kernel.name());
            trits[at] = 0;
        }
    }
}
