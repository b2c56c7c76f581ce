//! The layout, and a check for kernels that are not in the registry.

use super::*;
#[cfg(target_arch = "x86_64")]
use crate::Kernel;
use crate::{Int8Batch, Scales, reference};

fn numbers(seed: u64) -> impl FnMut(u64) -> u64 {
    let mut state = seed;
    move |n| {
        state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        (state >> 33) % n
    }
}

/// Compares `kernel` with the oracle over sizes around every block, and on the largest sums.
#[cfg(target_arch = "x86_64")]
pub(super) fn check_kernel(kernel: &dyn Kernel) {
    let mut next = numbers(3);
    let check = |rows: usize, cols: usize, n: usize, trits: Vec<i8>, codes: Vec<i8>| {
        let w = TernaryMatrix::from_trits(rows, cols, &trits, Scales::Tensor(1.0)).unwrap();
        let x = Int8Batch::from_codes(n, cols, &codes).unwrap();
        let packed = kernel.prepack(&w).unwrap();
        let expected = reference::gemm(&w, &codes, n).unwrap();
        let mut acc = vec![i32::MIN; n * rows];
        kernel.gemm(&packed.all(), &x.view(), &mut acc);
        assert_eq!(acc, expected, "gemm {rows} x {cols}, {n} tokens");
        if n > 0 {
            kernel.gemv(&packed.all(), &x.view().row(n - 1), &mut acc[..rows]);
            assert_eq!(acc[..rows], expected[(n - 1) * rows..], "gemv {rows} x {cols}");
        }
    };
    for cols in [0, 1, 3, 4, 5, 15, 16, 17, 63, 64, 65, 100, 127, 129, 704, 6912] {
        for rows in [0, 1, 7, 8, 9, 15, 16, 17, 33] {
            for n in [0, 1, 2, 3, 4, 5, 6, 7, 12, 13, 25] {
                let trits = (0..rows * cols).map(|_| next(3) as i8 - 1).collect();
                let codes = (0..n * cols).map(|_| (next(255) as i16 - 127) as i8).collect();
                check(rows, cols, n, trits, codes);
            }
        }
    }
    for (t, q) in [(1, 127), (-1, -127), (1, -127), (-1, 127)] {
        check(17, 6912, 7, vec![t; 17 * 6912], vec![q; 7 * 6912]);
    }
}

#[test]
fn fields_lie_where_the_picture_says() {
    let (rows, cols) = (35, 150);
    let mut next = numbers(1);
    let trits: Vec<i8> = (0..rows * cols).map(|_| next(3) as i8 - 1).collect();
    let w = TernaryMatrix::from_trits(rows, cols, &trits, Scales::Tensor(1.0)).unwrap();
    let packed = prepack("x", &w).unwrap();
    let view = packed.all();
    assert_eq!((view.panel_bytes(), view.bytes().len()), (12 * 64, 3 * 12 * 64));
    assert_eq!(view.bytes().as_ptr() as usize % 64, 0);
    for (i, &byte) in view.bytes().iter().enumerate() {
        let (p, t, r, c) = (i / (12 * 64), i / 64 % 12, i % 64 / 4, i % 4);
        for j in 0..4 {
            let (row, col) = (16 * p + r, 16 * t + 4 * j + c);
            let trit = if row < rows && col < cols { trits[row * cols + col] } else { 0 };
            assert_eq!(byte >> (2 * j) & 3, (trit + 1) as u8, "row {row}, column {col}");
        }
    }
    // Panels that are packed separately equal the panels of the whole matrix.
    let mut middle = vec![0; 2 * 12 * 64];
    pack_panels(&w, 1..3, &mut middle);
    assert_eq!(middle, view.bytes()[12 * 64..]);
}

#[test]
fn parts_cover_a_range_evenly() {
    for len in 0..40 {
        let parts: Vec<_> = even_parts(5..5 + len, 12).collect();
        assert_eq!(parts.len(), len.div_ceil(12));
        assert_eq!(parts.iter().cloned().flatten().collect::<Vec<_>>(), (5..5 + len).collect::<Vec<_>>());
        assert!(parts.iter().all(|p| p.len() <= 12 && p.len() + 1 >= len.div_ceil(parts.len())));
    }
}

#[test]
fn rows_whose_sums_could_overflow_are_refused() {
    // 2^24 + 1 weights per row and no rows: nothing is allocated.
    let w = TernaryMatrix::from_trits(0, MAX_COLS + 1, &[], Scales::Tensor(1.0)).unwrap();
    let error = KernelError::RowTooLong { kernel: "x".to_owned(), cols: MAX_COLS + 1, max_cols: MAX_COLS };
    assert_eq!(prepack("x", &w).unwrap_err(), error);
}

/// Sums of scaled codes exceed `2^31` within such a row, so the flushes are needed.
#[test]
fn very_long_rows_are_exact() {
    let cols = (1 << 23) + 70;
    let mut trits = vec![1i8; cols];
    trits[5] = -1;
    let codes = vec![127i8; cols];
    let w = TernaryMatrix::from_trits(1, cols, &trits, Scales::Tensor(1.0)).unwrap();
    let x = Int8Batch::from_codes(2, cols, &[codes.clone(), codes.clone()].concat()).unwrap();
    let expected = reference::gemv(&w, &codes).unwrap()[0];
    assert_eq!(expected, 127 * (cols as i32 - 2));
    for kernel in crate::kernels_available() {
        let packed = kernel.prepack(&w).unwrap();
        let mut acc = [0; 2];
        kernel.gemv(&packed.all(), &x.view().row(0), &mut acc[..1]);
        assert_eq!(acc[0], expected, "{} gemv", kernel.name());
        kernel.gemm(&packed.all(), &x.view(), &mut acc);
        assert_eq!(acc, [expected; 2], "{} gemm", kernel.name());
    }
}
