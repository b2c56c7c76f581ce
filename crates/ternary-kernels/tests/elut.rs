//! Look-up tables of any level set equal the reference; rounded ones are within their bound, and come close to it.

mod common;

use common::{Rng, batch, cases, matrix};
use proptest::prelude::*;
use ternary_kernels::{
    Elut, Entry, Int4Batch, Int8Batch, Isa, Kernel, KernelError, gemm, gemm_a4, gemv, reference, registry,
};

/// The level sets and groupings of the documentation, and some that come close to the limits.
const SETS: &[(&[i8], usize)] = &[
    (&[-1, 0, 1], 2),
    (&[-1, 0, 1], 3),
    (&[-2, -1, 0, 1], 2),
    (&[-3, -1, 1, 3], 2),
    (&[-2, -1, 0, 1, 2], 2),
    (&[-1, 1], 4),
    (&[0, 1], 4),
    (&[-1, 1], 5),
    (&[-3, 0, 3], 3),
    (&[-1, 0, 2], 2),
    (&[-7, 2], 1),
    (&[-7, -3, 3, 7], 2),
    (&[-8, -7, -6, -5, -4, -3, -2, -1, 0, 1, 2, 3, 4, 5, 6, 7], 1),
];

/// The definition, independent of the kernels.
fn product(levels: &[i8], (rows, cols, n): (usize, usize, usize), codes: &[u8], x: &[i8]) -> Vec<i32> {
    let mut acc = vec![0; n * rows];
    for t in 0..n {
        for r in 0..rows {
            acc[t * rows + r] = (0..cols)
                .map(|k| i32::from(levels[usize::from(codes[r * cols + k])]) * i32::from(x[t * cols + k]))
                .sum();
        }
    }
    acc
}

fn check(kernel: &Elut, shape: (usize, usize, usize), codes: &[u8], x: &[i8]) {
    let (rows, cols, n) = shape;
    let expected = product(kernel.levels(), shape, codes, x);
    let w = kernel.pack(rows, cols, codes).unwrap();
    let x = batch(n, cols, x);
    let mut acc = vec![i32::MIN; n * rows];
    gemm(kernel, &w, &x.view(), &mut acc).unwrap();
    assert_eq!(acc, expected, "{}: gemm {shape:?}", kernel.name());
    for t in 0..n.min(1) {
        let mut acc = vec![i32::MIN; rows];
        gemv(kernel, &w, &x.view().row(t), &mut acc).unwrap();
        assert_eq!(acc, expected[t * rows..(t + 1) * rows], "{}: gemv {shape:?}", kernel.name());
    }
}

/// [`check`] with int4 activations, one lookup for each index; kernels that round tables otherwise are exact here.
fn check_a4(kernel: &Elut, (rows, cols, n): (usize, usize, usize), codes: &[u8], x: &[i8]) {
    let expected = product(kernel.levels(), (rows, cols, n), codes, x);
    let x = Int4Batch::from_codes(n, cols, x).unwrap();
    let mut widened = Int8Batch::with_capacity(0, 0);
    for kernel in [kernel.clone(), kernel.clone().rounded()] {
        let w = kernel.pack(rows, cols, codes).unwrap();
        let mut acc = vec![i32::MIN; n * rows];
        gemm_a4(&kernel, &w, &x.view(), &mut widened, &mut acc).unwrap();
        assert_eq!(acc, expected, "{}: int4 gemm {rows} x {cols}, {n} tokens", kernel.name());
        if n > 0 {
            kernel.gemv_a4(&w.all(), &x.view().row(n - 1), &mut widened, &mut acc[..rows]);
            assert_eq!(acc[..rows], expected[(n - 1) * rows..], "{}: int4 gemv {rows} x {cols}", kernel.name());
        }
    }
    assert_eq!(widened.view().n(), 0, "nibbles are read without widening");
}

fn each_set() -> impl Iterator<Item = Elut> {
    let sets = |isa| SETS.iter().map(move |(levels, group)| Elut::for_isa(levels, *group, isa).unwrap());
    Isa::available().flat_map(sets)
}

proptest! {
    #![proptest_config(cases(48))]
    #[test]
    fn every_set_equals_the_definition(rows in 0usize..70, cols in 0usize..300, n in 0usize..7, seed in any::<u64>()) {
        let mut rng = Rng::new(seed);
        let x = rng.codes(n * cols);
        for kernel in each_set() {
            let codes: Vec<u8> = (0..rows * cols).map(|_| rng.below(kernel.levels().len() as u64) as u8).collect();
            check(&kernel, (rows, cols, n), &codes, &x);
        }
    }

    #[test]
    fn every_set_equals_the_definition_with_int4(rows in 0usize..70, cols in 0usize..300, n in 0usize..7, seed in any::<u64>()) {
        let mut rng = Rng::new(seed);
        let x = rng.int4_codes(n * cols);
        for kernel in each_set() {
            let codes: Vec<u8> = (0..rows * cols).map(|_| rng.below(kernel.levels().len() as u64) as u8).collect();
            check_a4(&kernel, (rows, cols, n), &codes, &x);
        }
    }
}

/// The largest sums in 8 and 16 bits, in rows longer than a run of tables.
#[test]
fn largest_sums_of_every_set_are_exact() {
    for kernel in each_set() {
        let last = (kernel.levels().len() - 1) as u8;
        for (rows, cols, n) in [(2, 6912, 7), (33, 1501, 2)] {
            for code in [0, last] {
                for q in [-127, 127] {
                    check(&kernel, (rows, cols, n), &vec![code; rows * cols], &vec![q; n * cols]);
                }
                for q in [-8, 7] {
                    check_a4(&kernel, (rows, cols, n), &vec![code; rows * cols], &vec![q; n * cols]);
                }
            }
            // All products have the same sign, though weights and activations change theirs.
            let turn = |i: usize| (i % cols).is_multiple_of(3);
            let codes: Vec<u8> = (0..rows * cols).map(|i| if turn(i) { 0 } else { last }).collect();
            let x: Vec<i8> = (0..n * cols).map(|i| if turn(i) { -127 } else { 127 }).collect();
            check(&kernel, (rows, cols, n), &codes, &x);
            let x: Vec<i8> = (0..n * cols).map(|i| if turn(i) { -8 } else { 7 }).collect();
            check_a4(&kernel, (rows, cols, n), &codes, &x);
        }
    }
}

/// TL1 is the instance (3, 2) and TL2 the instance (3, 3): the same bytes and the same sums.
#[test]
fn ternary_formats_are_instances() {
    let mut rng = Rng::new(3);
    let (rows, cols, n) = (70, 500, 3);
    let trits = rng.trits(rows * cols);
    let codes: Vec<u8> = trits.iter().map(|t| (t + 1) as u8).collect();
    let w = matrix(rows, cols, &trits);
    let x = batch(n, cols, &rng.codes(n * cols));
    let mut compared = 0;
    for entry in registry() {
        let (Some(kernel), Some(group)) =
            (entry.kernel(), [("tl1", 2), ("tl2", 3)].iter().find(|(f, _)| *f == entry.format_name).map(|(_, g)| *g))
        else {
            continue;
        };
        let elut = Elut::for_isa(&[-1, 0, 1], group, entry.isa).unwrap();
        assert_eq!((elut.is_mirrored(), elut.entries()), if group == 3 { (true, 14) } else { (false, 9) });
        let (a, b) = (kernel.prepack(&w).unwrap(), elut.pack(rows, cols, &codes).unwrap());
        assert_eq!(a.all().bytes(), b.all().bytes(), "{}", entry.name);
        assert_eq!(a.all().bytes(), elut.prepack(&w).unwrap().all().bytes(), "{}", entry.name);
        let (mut of_a, mut of_b) = (vec![0; n * rows], vec![1; n * rows]);
        gemm(&*kernel, &a, &x.view(), &mut of_a).unwrap();
        gemm(&elut, &b, &x.view(), &mut of_b).unwrap();
        assert_eq!(of_a, of_b, "{}", entry.name);
        compared += 1;
    }
    assert!(compared >= 2);
}

#[test]
fn sizes_are_those_of_the_table() {
    let sizes = |levels: &[i8], group| {
        let e = Elut::for_isa(levels, group, Isa::Scalar).unwrap();
        // Long rows without padding.
        let w = e.pack(32, 48_000, &vec![0; 32 * 48_000]).unwrap();
        let bits = w.byte_len() as f64 * 8.0 / (32.0 * 48_000.0);
        assert!((bits - e.bits_per_weight()).abs() < 1e-3, "{levels:?}: {bits} bits");
        (e.entries(), e.bits_per_weight(), e.table_bytes(2560))
    };
    assert_eq!(sizes(&[-1, 0, 1], 2), (9, 2.0, 320 * 128));
    assert_eq!(sizes(&[-1, 0, 1], 3), (14, 5.0 / 3.0, (53 * 4 + 2) * 128));
    assert_eq!(sizes(&[-2, -1, 0, 1], 2), (16, 2.0, 320 * 128));
    assert_eq!(sizes(&[-2, -1, 0, 1, 2], 2), (13, 2.5, 320 * 128));
    assert_eq!(sizes(&[-1, 1], 4), (16, 1.0, 160 * 128));
}

#[test]
fn wrong_codes_and_foreign_weights_are_refused() {
    let e = Elut::new(&[-3, -1, 1, 3], 2).unwrap();
    let unknown = KernelError::UnknownLevel { row: 1, col: 0, code: 4, levels: 4 };
    assert_eq!(e.pack(2, 2, &[0, 1, 4, 3]).unwrap_err(), unknown);
    assert!(matches!(e.pack(2, 2, &[0; 3]), Err(KernelError::ShapeMismatch { .. })));
    assert!(matches!(e.pack(usize::MAX, 2, &[]), Err(KernelError::TooLarge { .. })));
    // Trits are not levels of this set.
    assert!(matches!(e.prepack(&matrix(1, 1, &[1])), Err(KernelError::LevelSet { .. })));
    // Another set with the same number of levels.
    let other = Elut::new(&[-2, -1, 0, 1], 2).unwrap().pack(1, 2, &[0, 1]).unwrap();
    let x = batch(1, 2, &[1, 1]);
    assert!(matches!(gemv(&e, &other, &x.view().row(0), &mut [0]), Err(KernelError::PackedByOther { .. })));
}

proptest! {
    #![proptest_config(cases(24))]
    /// Every result is within the bound, and all instruction sets give the same one.
    #[test]
    fn rounded_tables_keep_their_bound(rows in 1usize..40, cols in 1usize..300, n in 1usize..6, seed in any::<u64>()) {
        let mut rng = Rng::new(seed);
        let w = matrix(rows, cols, &rng.trits(rows * cols));
        let codes = rng.codes(n * cols);
        let x = batch(n, cols, &codes);
        let exact = reference::gemm(&w, &codes, n).unwrap();
        for format in ["tl1_0", "tl2_0"] {
            let mut first: Option<Vec<i32>> = None;
            for kernel in registry().iter().filter(|e| e.format_name == format).filter_map(Entry::kernel) {
                prop_assert!(!kernel.exact());
                let packed = kernel.prepack(&w).unwrap();
                let mut acc = vec![i32::MIN; n * rows];
                gemm(&*kernel, &packed, &x.view(), &mut acc).unwrap();
                for (i, (a, e)) in acc.iter().zip(&exact).enumerate() {
                    let bound = kernel.error_bound(&x.view().row(i / rows)).unsigned_abs();
                    prop_assert!(a.abs_diff(*e) <= bound, "{}: {a} instead of {e}, bound {bound}", kernel.name());
                }
                let mut one = vec![i32::MIN; rows];
                gemv(&*kernel, &packed, &x.view().row(n - 1), &mut one).unwrap();
                prop_assert_eq!(&one[..], &acc[(n - 1) * rows..], "one token and many, {}", kernel.name());
                prop_assert_eq!(first.get_or_insert_with(|| acc.clone()), &acc, "{}", kernel.name());
            }
            prop_assert!(first.is_some());
        }
    }

    #[test]
    fn rounded_tables_of_other_sets_keep_their_bound(cols in 1usize..200, seed in any::<u64>()) {
        let mut rng = Rng::new(seed);
        let (rows, x) = (33, rng.codes(cols));
        for (levels, group) in SETS {
            let codes: Vec<u8> = (0..rows * cols).map(|_| rng.below(levels.len() as u64) as u8).collect();
            let exact = product(levels, (rows, cols, 1), &codes, &x);
            let x = batch(1, cols, &x);
            let mut first: Option<Vec<i32>> = None;
            for isa in Isa::available() {
                let kernel = Elut::for_isa(levels, *group, isa).unwrap().rounded();
                let packed = kernel.pack(rows, cols, &codes).unwrap();
                let mut acc = vec![i32::MIN; rows];
                gemv(&kernel, &packed, &x.view().row(0), &mut acc).unwrap();
                let bound = kernel.error_bound(&x.view().row(0)).unsigned_abs();
                prop_assert!(acc.iter().zip(&exact).all(|(a, e)| a.abs_diff(*e) <= bound), "{}", kernel.name());
                prop_assert_eq!(first.get_or_insert_with(|| acc.clone()), &acc, "{}", kernel.name());
            }
        }
    }
}

/// The bound is tight: activations whose sums are all rounded the same way reach it.
#[test]
fn the_bound_of_rounded_tables_is_reached() {
    // (format, a group of activations whose sum is off by half a step): the step of pairs is 2, and 253 = 2 * 126 + 1;
    // that of triples is 3, and 379 = 3 * 126 + 1.
    for (format, group) in [("tl1_0", &[127i8, 126][..]), ("tl2_0", &[127, 127, 125])] {
        let cols = group.len() * 960;
        let codes: Vec<i8> = group.iter().copied().cycle().take(cols).collect();
        let x = batch(1, cols, &codes);
        let w = matrix(1, cols, &vec![1; cols]);
        let exact = reference::gemv(&w, &codes).unwrap()[0];
        for kernel in registry().iter().filter(|e| e.format_name == format).filter_map(Entry::kernel) {
            let mut acc = [0];
            gemv(&*kernel, &kernel.prepack(&w).unwrap(), &x.view().row(0), &mut acc).unwrap();
            let bound = kernel.error_bound(&x.view().row(0));
            assert_eq!((bound, exact - acc[0]), (960, 960), "{}", kernel.name());
        }
    }
}

/// If no sum exceeds 127, rounding changes nothing.
#[test]
fn small_activations_are_exact_in_rounded_tables_too() {
    let mut rng = Rng::new(9);
    let (rows, cols) = (40, 333);
    let w = matrix(rows, cols, &rng.trits(rows * cols));
    let codes: Vec<i8> = (0..cols).map(|_| rng.below(85) as i8 - 42).collect();
    let x = batch(1, cols, &codes);
    for kernel in registry().iter().filter(|e| !e.exact).filter_map(Entry::kernel) {
        let mut acc = vec![0; rows];
        gemv(&*kernel, &kernel.prepack(&w).unwrap(), &x.view().row(0), &mut acc).unwrap();
        assert_eq!(kernel.error_bound(&x.view().row(0)), 0);
        assert_eq!(acc, reference::gemv(&w, &codes).unwrap(), "{}", kernel.name());
    }
}
