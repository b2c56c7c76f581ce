//! Integer sums on every instruction set; the bound against logits computed exactly.

use std::num::NonZeroUsize;

use test_support::Random;

use super::dot::{Sums, ZERO};
use super::*;
use crate::ops::tests::emulated;
use crate::{Isa, split_cols};

fn all_ops() -> Vec<Ops> {
    Isa::available().map(|isa| Ops::for_isa(isa).unwrap()).collect()
}

fn team(n: usize) -> Team {
    Team::new(NonZeroUsize::new(n).unwrap()).unwrap()
}

/// All bounds of `x` (`[n, cols]`) with `threads` threads: `[n, padded rows]`.
fn bounds(ops: Ops, plane: &CoarsePlane, x: &[f32], threads: usize) -> Vec<f32> {
    let n = x.len() / plane.cols();
    let mut batch = CoarseBatch::new(plane.cols());
    for x in x.chunks_exact(plane.cols()) {
        assert!(batch.push(ops, x));
    }
    let blocks = plane.blocks();
    let mut upper = vec![f32::NAN; n * blocks * BLOCK_ROWS];
    let mut maxima = vec![f32::NAN; n * blocks];
    let cut: Vec<_> = (0..threads).map(|p| crate::team::share(blocks, p, threads)).collect();
    let wide: Vec<_> = cut.iter().map(|r| r.start * BLOCK_ROWS..r.end * BLOCK_ROWS).collect();
    let views = split_cols(&mut upper, n, blocks * BLOCK_ROWS, &wide).zip(split_cols(&mut maxima, n, blocks, &cut));
    for (range, (mut upper, mut maxima)) in cut.iter().zip(views) {
        ops.coarse_bounds(plane, &batch, range.clone(), &mut upper, &mut maxima);
    }
    for (block, max) in upper.chunks_exact(BLOCK_ROWS).zip(&maxima) {
        assert_eq!(block.iter().copied().fold(f32::NEG_INFINITY, f32::max), *max);
    }
    upper
}

/// Rows of every kind that could violate the bound.
fn adversarial(rows: usize, cols: usize, seed: u64) -> Vec<f32> {
    let mut r = Random(seed);
    let mut w = vec![0.0f32; rows * cols];
    for (i, row) in w.chunks_exact_mut(cols).enumerate() {
        let size = 2f32.powi((r.bits() % 5) as i32 - 2);
        for w in row.iter_mut() {
            *w = r.normal() * size;
        }
        match i % 12 {
            0 => row.fill(0.0),
            1 => row.iter_mut().for_each(|w| *w *= 3e-42),
            2 => row.iter_mut().for_each(|w| *w *= 1e13),
            // One value far above all others, at every position in turn.
            3 => row[i % cols] = 1000.0,
            4 => row.iter_mut().enumerate().for_each(|(c, w)| *w = if c == i % cols { 1.0 } else { 0.0 }),
            // Halfway between two codes.
            5 => row.iter_mut().enumerate().for_each(|(c, w)| *w = if c == 0 { 31.0 } else { 0.5 + (c % 30) as f32 }),
            6 => row.fill(-size),
            7 => row.iter_mut().for_each(|w| *w *= 1e-17),
            _ => {}
        }
    }
    // Equal rows, and rows that differ in the last bit of one value.
    for i in (8..rows).step_by(12) {
        let (a, b) = w.split_at_mut(i * cols);
        b[..cols].copy_from_slice(&a[(i - 1) * cols..]);
        if i % 24 == 8 {
            b[i % cols] = b[i % cols].next_up();
        }
    }
    w
}

fn activations(n: usize, cols: usize, seed: u64) -> Vec<f32> {
    let mut r = Random(seed);
    let mut x: Vec<f32> = (0..n * cols).map(|_| r.normal()).collect();
    for (t, x) in x.chunks_exact_mut(cols).enumerate() {
        match t % 6 {
            1 => x[cols / 2] = 300.0,
            2 => x.iter_mut().for_each(|x| *x *= 1e-9),
            3 => x.iter_mut().for_each(|x| *x *= 1e12),
            4 => x.fill(1.0),
            5 => x.iter_mut().enumerate().for_each(|(c, x)| *x = if c == cols - 1 { -1.0 } else { 0.0 }),
            _ => {}
        }
    }
    x
}

#[test]
fn sums_are_equal_on_every_instruction_set() {
    for cols in [1, 15, 16, 17, 100, 256, 2560] {
        let mut r = Random(cols as u64);
        let mut units = vec![[0u8; UNIT]; units_of(cols)];
        units.iter_mut().flatten().for_each(|b| *b = r.bits() as u8);
        // The extremes: the largest code against the largest and the smallest digits.
        for extreme in [false, true] {
            if extreme {
                units.iter_mut().for_each(|u| u.fill(0xff));
            }
            for n in [1, 2, 3, 4, 7, 8, 15, 16] {
                let mut batch = CoarseBatch::new(cols);
                for t in 0..n {
                    let x: Vec<f32> = (0..cols)
                        .map(|_| match (extreme, t % 2) {
                            (false, _) => r.unit(),
                            // 32512 is 127 and 0, 127 * 256 - 128 is 127 and -128.
                            (true, 0) => 32512.0,
                            (true, _) => 32384.0,
                        })
                        .collect();
                    assert!(batch.push(all_ops()[0], &x));
                }
                let want: Vec<Sums> = (0..n).map(|t| dot::dots(&units, batch.digits(t))).collect();
                let mut got = [ZERO; 16];
                for ops in all_ops() {
                    ops.coarse_dots(&units, &batch, &mut got[..n]);
                    assert_eq!(got[..n], want, "{} {cols} columns, {n} activations", ops.isa());
                }
                #[cfg(target_arch = "x86_64")]
                if let Some(token) = crate::Cpu::get().avx512_vnni() {
                    dot_x86::evex256::dots(token, &units, &batch, &mut got[..n]);
                    assert_eq!(got[..n], want, "256-bit, {cols} columns, {n} activations");
                }
            }
        }
    }
}

/// The code of column `c` of row `r` of a panel, by the table in the documentation.
fn code_of(units: &[Unit], r: usize, c: usize) -> i32 {
    let (unit, j, i) = (&units[c / 16], c % 16 / 4, c % 4);
    let low = unit[64 * (j / 2) + 4 * r + i] >> (4 * (j % 2)) & 15;
    i32::from(low | (unit[128 + 4 * r + i] >> (2 * j) & 3) << 4)
}

/// `q.p` and all other values of a row, computed in the simplest way from the packed bytes.
#[test]
fn codes_and_facts_hold_what_the_documentation_says() {
    let (rows, cols) = (70, 100);
    let w = adversarial(rows, cols, 5);
    let ops = Ops::selected().unwrap();
    let plane = CoarsePlane::build(ops, &team(2), rows, cols, StoredRows::F32(&w)).unwrap();
    assert_eq!((plane.rows(), plane.cols(), plane.blocks()), (rows, cols, 2));
    assert_eq!(plane.byte_len(), 8 * (1 + 7) * 192);
    for (row, w) in w.chunks_exact(cols).enumerate() {
        let (facts, units) = plane.panel(row / 16);
        let r = row % 16;
        let code = |c: usize| code_of(units, r, c);
        let s = f64::from(facts.scale[r]);
        let q: Vec<f64> = (0..cols).map(|c| f64::from(code(c) - 32)).collect();
        assert!(q.iter().all(|q| q.abs() <= 31.0));
        let norm = q.iter().map(|q| (s * q).powi(2)).sum::<f64>().sqrt();
        let error = w.iter().zip(&q).map(|(w, q)| (f64::from(*w) - s * q).powi(2)).sum::<f64>().sqrt();
        assert!(f64::from(facts.norm[r]) >= norm && f64::from(facts.norm[r]) <= norm * 1.001, "row {row}");
        assert!(f64::from(facts.error[r]) >= error, "row {row}: {} < {error}", facts.error[r]);
        // No looser than necessary: g is below 1e-6 for 100 columns, and squares lost among subnormal numbers count for
        // sqrt(100 * 2^-148).
        let largest = w.iter().fold(0.0f32, |m, w| m.max(w.abs()));
        let loose = if largest < 2f32.powi(-56) { f64::from(largest) * 11.0 } else { 0.0 };
        assert!(f64::from(facts.error[r]) <= error * 1.001 + norm * 1e-6 + 1e-21 + loose, "row {row}");
        if w.iter().any(|w| w.abs() > 1e-10) {
            // A row with one value loses almost nothing; others lose a few per cent.
            let whole = w.iter().map(|w| f64::from(*w).powi(2)).sum::<f64>().sqrt();
            assert!(error <= 0.12 * whole, "row {row}: {error} of {whole}");
        }
    }
}

#[test]
fn no_logit_exceeds_its_bound_on_any_instruction_set() {
    // Several blocks of rows, and rows that are not whole vectors, in either case.
    let usual = [(130, 64), (100, 33), (200, 256), (64, 1), (77, 2560)];
    let small = [(130, 16), (100, 33), (65, 128), (64, 1), (7, 520)];
    for (rows, cols) in if emulated() { small } else { usual } {
        let w = adversarial(rows, cols, cols as u64);
        let x = activations(16, cols, 3);
        let half: Vec<f16> = w.iter().map(|&w| f16::from_f32(w.clamp(-60000.0, 60000.0))).collect();
        let brain: Vec<bf16> = w.iter().map(|&w| bf16::from_f32(w)).collect();
        for stored in [StoredRows::F32(&w), StoredRows::F16(&half), StoredRows::Bf16(&brain)] {
            let mut first: Option<Vec<u32>> = None;
            for ops in all_ops() {
                let plane = CoarsePlane::build(ops, &team(2), rows, cols, stored).unwrap();
                for (n, threads) in [(16, 1), (16, 3), (5, 2), (1, 1)] {
                    let upper = bounds(ops, &plane, &x[..n * cols], threads);
                    let width = plane.blocks() * BLOCK_ROWS;
                    for t in 0..n {
                        let x = &x[t * cols..(t + 1) * cols];
                        for row in 0..rows {
                            let span = row * cols..(row + 1) * cols;
                            let logit = match stored {
                                StoredRows::F32(w) => ops.dot(x, &w[span]),
                                StoredRows::F16(w) => ops.dot_f16(x, &w[span]),
                                StoredRows::Bf16(w) => ops.dot_bf16(x, &w[span]),
                            };
                            let u = upper[t * width + row];
                            assert!(logit <= u, "{} row {row} of {rows} x {cols}, {t}: {logit} > {u}", ops.isa());
                        }
                        assert!(upper[t * width + rows..(t + 1) * width].iter().all(|u| *u == f32::NEG_INFINITY));
                    }
                    if n == 16 {
                        let bits: Vec<u32> = upper.iter().map(|u| u.to_bits()).collect();
                        assert!(*first.get_or_insert_with(|| bits.clone()) == bits, "{} {threads} threads", ops.isa());
                    }
                }
            }
        }
    }
}

/// Activations along the error of a row are the worst case: they reach the bound, to a thousandth. They would exceed a
/// bound that left out a part of the error.
#[test]
fn the_bound_is_as_small_as_it_can_be() {
    let (rows, cols) = (64, 300);
    let mut r = Random(21);
    let w: Vec<f32> = (0..rows * cols).map(|_| r.normal()).collect();
    let ops = Ops::selected().unwrap();
    let plane = CoarsePlane::build(ops, &team(1), rows, cols, StoredRows::F32(&w)).unwrap();
    for row in 0..rows {
        let (facts, units) = plane.panel(row / 16);
        let code = |c: usize| code_of(units, row % 16, c);
        let s = f64::from(facts.scale[row % 16]);
        let w = &w[row * cols..][..cols];
        let x: Vec<f32> =
            w.iter().enumerate().map(|(c, w)| (f64::from(*w) - s * f64::from(code(c) - 32)) as f32).collect();
        let norm = x.iter().map(|x| f64::from(*x).powi(2)).sum::<f64>();
        let (upper, logit) = (bounds(ops, &plane, &x, 1)[row], ops.dot(&x, w));
        assert!(logit <= upper, "row {row}: {logit} > {upper}");
        // The rest: 2^-11 for sums of squares in f32, |s q| |d| for digits of sixteen bits.
        assert!(f64::from(upper - logit) < 0.01 * norm, "row {row}: {upper} is far above {logit}");
    }
}

/// The bound is useful: about 3 % of the product of the norms for normally distributed rows.
#[test]
fn bounds_are_near() {
    let (rows, cols) = (256, 2560);
    let mut r = Random(1);
    let w: Vec<f32> = (0..rows * cols).map(|_| r.normal()).collect();
    let x: Vec<f32> = (0..cols).map(|_| r.normal()).collect();
    let ops = Ops::selected().unwrap();
    let plane = CoarsePlane::build(ops, &team(1), rows, cols, StoredRows::F32(&w)).unwrap();
    let sigma = x.iter().map(|x| x * x).sum::<f32>().sqrt();
    for (row, u) in bounds(ops, &plane, &x, 1)[..rows].iter().enumerate() {
        let logit = ops.dot(&x, &w[row * cols..][..cols]);
        assert!(u - logit < 2.0 * sigma, "row {row}: {u} is {} deviations above {logit}", (u - logit) / sigma);
    }
}

#[test]
fn what_cannot_be_bounded_is_told() {
    let ops = Ops::selected().unwrap();
    let mut batch = CoarseBatch::new(20);
    let with = |v: f32| {
        let mut x = [1.0f32; 20];
        x[13] = v;
        x
    };
    for bad in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY, 1e30, -1e16] {
        assert!(!batch.push(ops, &with(bad)), "{bad}");
    }
    for small in [0.0, 1e-13, 1e-45] {
        assert!(!batch.push(ops, &[small; 20]), "{small}");
    }
    assert!(batch.is_empty());
    for _ in 0..CoarseBatch::MAX {
        assert!(batch.push(ops, &with(1e-45)));
    }
    assert!(!batch.push(ops, &with(1.0)), "the batch is full");
    batch.clear();
    assert!(batch.push(ops, &with(1e15)));

    // A row that is not finite has an infinite bound; the other bounds do not change.
    let mut w = adversarial(40, 20, 9);
    w[3 * 20 + 7] = f32::NAN;
    w[5 * 20] = f32::INFINITY;
    w[9 * 20 + 19] = 1e16;
    let plane = CoarsePlane::build(ops, &team(1), 40, 20, StoredRows::F32(&w)).unwrap();
    let upper = bounds(ops, &plane, &with(1.0), 1);
    for (row, u) in upper[..40].iter().enumerate() {
        assert_eq!(*u == f32::INFINITY, [3, 5, 9].contains(&row), "row {row}: {u}");
    }
}

#[test]
fn shapes_that_cannot_be_are_refused() {
    let ops = Ops::selected().unwrap();
    let build = |rows, cols, len: usize| {
        CoarsePlane::build(ops, &team(1), rows, cols, StoredRows::F32(&vec![1.0; len])).unwrap_err()
    };
    assert!(matches!(build(3, 4, 11), KernelError::ShapeMismatch { expected: 12, got: 11, .. }));
    assert!(matches!(build(usize::MAX, 2, 0), KernelError::ShapeMismatch { .. }));
    assert!(matches!(build(1, MAX_COLS + 1, MAX_COLS + 1), KernelError::RowTooLong { .. }));
    let empty = CoarsePlane::build(ops, &team(1), 0, 4, StoredRows::F32(&[])).unwrap();
    assert_eq!((empty.blocks(), empty.byte_len()), (0, 0));
}
