//! The Hadamard transform and int4 rows against plain code, their bits on every instruction set, and their properties.

use proptest::prelude::*;

use super::bits::sum_in_order;
use super::*;
use crate::ops::{Prepare, check_hadamard_block, largest_hadamard_block};
use crate::quantize::{MIN_ABS, SQRT_7};
use crate::{Int4Batch, KernelError};

/// The documented order: sums and differences at distance 1, 2, 4 ..., then one product.
fn in_order(x: &[f32], block: usize) -> Vec<f32> {
    let mut x = x.to_vec();
    let mut distance = 1;
    while distance < block {
        for i in (0..x.len()).filter(|i| i / distance % 2 == 0) {
            (x[i], x[i + distance]) = (x[i] + x[i + distance], x[i] - x[i + distance]);
        }
        distance *= 2;
    }
    let factor = (1.0 / (block as f64).sqrt()) as f32;
    x.iter().map(|x| x * factor).collect()
}

/// Element `(i, j)` of the dense matrix.
fn element(i: usize, j: usize, block: usize) -> f64 {
    if i / block != j / block {
        return 0.0;
    }
    let sign = if (i & j & (block - 1)).count_ones().is_multiple_of(2) { 1.0 } else { -1.0 };
    sign / (block as f64).sqrt()
}

/// Lengths and blocks: below, at and above a vector, one and several blocks, the widths of models.
const CASES: &[(usize, usize)] = &[
    (0, 2),
    (2, 2),
    (6, 2),
    (4, 4),
    (20, 4),
    (8, 8),
    (24, 8),
    (16, 16),
    (48, 16),
    (32, 32),
    (96, 32),
    (64, 64),
    (64, 16),
    (192, 64),
    (128, 128),
    (256, 256),
    (512, 512),
    (1024, 1024),
    (704, 64),
    (768, 256),
    (2560, 512),
    (4096, 4096),
    (6912, 256),
    (8192, 8192),
];

#[test]
fn transforms_follow_the_documented_order() {
    let mut random = Random(60);
    for &(k, block) in CASES {
        let x = random.activations(k);
        let want = in_order(&x, block);
        for ops in all_ops() {
            let (mut got, r) = unaligned(&x);
            ops.hadamard(&mut got[r.clone()], block).unwrap();
            assert_same(&format!("blocks of {block}"), ops, &got[r], &want);
        }
    }
}

/// Each stage rounds once and the factor twice (itself and its product), so an element errs by at most `(m + 2) u` of
/// the sum of the absolute values of the terms, where `m` is the number of stages.
#[test]
fn transforms_are_products_with_the_dense_matrix() {
    let mut random = Random(61);
    for &(k, block) in CASES.iter().filter(|(k, _)| *k <= 1024) {
        let x = random.activations(k);
        let mut got = x.clone();
        portable().hadamard(&mut got, block).unwrap();
        for (i, got) in got.iter().enumerate() {
            let (mut want, mut size) = (0.0, 0.0);
            for (j, x) in x.iter().enumerate() {
                want += element(i, j, block) * f64::from(*x);
                size += (element(i, j, block) * f64::from(*x)).abs();
            }
            let bound = (f64::from(block.trailing_zeros()) + 2.0) * U * size * 1.01;
            assert!((f64::from(*got) - want).abs() <= bound, "{k} in blocks of {block}, {i}: {got} against {want}");
        }
    }
}

/// Unit vectors in blocks of a power of four, where nothing is rounded: the columns of `H` have length 1 and are
/// orthogonal, and `H` is its own transpose.
#[test]
fn the_matrix_is_orthonormal_and_symmetric() {
    for block in [4, 16, 64, 256] {
        let column = |j: usize| {
            let mut e = vec![0.0f32; block];
            e[j] = 1.0;
            Ops::selected().unwrap().hadamard(&mut e, block).unwrap();
            e
        };
        let h: Vec<Vec<f32>> = (0..block).map(column).collect();
        for i in 0..block {
            for j in 0..block {
                assert_eq!(h[i][j].to_bits(), h[j][i].to_bits());
                let product: f32 = h[i].iter().zip(&h[j]).map(|(a, b)| a * b).sum();
                assert_eq!(product, if i == j { 1.0 } else { 0.0 }, "{block}: {i}, {j}");
            }
        }
    }
}

#[test]
fn lengths_without_a_transform_are_refused() {
    let ops = portable();
    for (len, block, word) in [
        (8, 0, "powers of two"),
        (8, 1, "powers of two"),
        (12, 3, "powers of two"),
        (12, 8, "divide"),
        (2560, 1024, "divide"),
        (77, 2, "odd"),
    ] {
        let mut x = vec![1.0; len];
        let error = ops.hadamard(&mut x, block).unwrap_err();
        assert!(matches!(error, KernelError::HadamardBlock { .. }) && error.to_string().contains(word), "{error}");
        assert_eq!(x, vec![1.0; len], "rejected before anything is written");
    }
    for len in [2, 704, 768, 2560, 6912, 4096] {
        check_hadamard_block(len, largest_hadamard_block(len)).unwrap();
    }
}

fn quantized4(ops: Ops, x: &[f32]) -> (Vec<i8>, i32, f32) {
    row4(x.len(), |row| ops.quantize_int4(x, row.row_mut(0)).unwrap())
}

fn row4(k: usize, fill: impl FnOnce(&mut Int4Batch)) -> (Vec<i8>, i32, f32) {
    let mut batch = Int4Batch::with_capacity(1, k);
    batch.reset(1, k);
    fill(&mut batch);
    let mut codes = vec![0; 2 * batch.view().stride()];
    batch.view().row(0).widen(&mut codes);
    assert!(codes[k..].iter().all(|&c| c == 0), "padding");
    (codes[..k].to_vec(), batch.view().sums()[0], batch.scales()[0])
}

#[test]
fn int4_rows_follow_the_definition() {
    let mut random = Random(62);
    for &k in SIZES {
        let x = random.activations(k);
        let mean = sum_in_order(k, |i, a| a + x[i].abs()) / k.max(1) as f32;
        let scale = SQRT_7 / mean.max(MIN_ABS);
        let codes: Vec<i8> = x.iter().map(|x| (x * scale).clamp(-8.0, 7.0).round_ties_even() as i8).collect();
        let sum = codes.iter().map(|&c| i32::from(c)).sum();
        for ops in all_ops() {
            assert_eq!(quantized4(ops, &x), (codes.clone(), sum, scale), "{k} on {}", ops.isa());
        }
    }
}

#[test]
fn everything_before_a_code_has_the_bits_of_its_steps() {
    let mut random = Random(63);
    for (k, block) in [(64, 64), (704, 64), (2560, 512), (48, 16)] {
        let (x, gain) = (random.activations(k), random.activations(k));
        for ops in all_ops() {
            for norm in [None, Some((&gain[..], 1e-5))] {
                for hadamard in [None, Some(block)] {
                    let mut steps = x.clone();
                    if let Some((gain, eps)) = norm {
                        portable().rms_norm(&x, gain, eps, &mut steps);
                    }
                    if let Some(block) = hadamard {
                        portable().hadamard(&mut steps, block).unwrap();
                    }
                    let (prepare, mut scratch) = (Prepare { norm, hadamard }, vec![f32::NAN; k + 5]);
                    let got = row(k, |b| ops.prepare_int8(&x, prepare, &mut scratch, b.row_mut(0)).unwrap());
                    assert_eq!(got, quantized(portable(), &steps), "{k}, {hadamard:?} on {}", ops.isa());
                    let got = row4(k, |b| ops.prepare_int4(&x, prepare, &mut scratch, b.row_mut(0)).unwrap());
                    assert_eq!(got, quantized4(portable(), &steps), "{k}, {hadamard:?} on {}", ops.isa());
                }
            }
        }
    }
}

#[test]
fn rows_without_a_mean_are_refused_and_named() {
    for ops in all_ops() {
        let error = |x: &[f32]| {
            let mut batch = Int4Batch::with_capacity(1, x.len());
            batch.reset(1, x.len());
            ops.quantize_int4(x, batch.row_mut(0)).unwrap_err()
        };
        let mut x = vec![1.0; 40];
        x[33] = f32::NAN;
        assert!(matches!(error(&x), KernelError::NonFiniteActivation { position: 33, .. }));
        (x[33], x[17]) = (f32::MAX, f32::MIN);
        assert_eq!(error(&x), KernelError::ActivationsTooLarge { position: 17, value: f32::MIN });
        x[17] = 1.0;
        // A single huge value has a mean.
        assert_eq!(quantized4(ops, &x).0[33], 7);
    }
}

/// The effect of a model's stages on an outlier: reference values of an independent program.
#[test]
fn a_worked_row() {
    let ops = Ops::selected().unwrap();
    let x: Vec<f32> = (0..8).map(|i| ((i + 1) as f32).sin() * if i == 3 { 10.0 } else { 1.0 }).collect();
    let plain = Prepare { norm: Some((&[1.0; 8], 1e-5)), hadamard: None };
    let turned = Prepare { hadamard: Some(8), ..plain };
    let mut scratch = [0.0; 8];
    let mut int8 = |prepare| row(8, |b| ops.prepare_int8(&x, prepare, &mut scratch, b.row_mut(0)).unwrap()).0;
    assert_eq!(int8(plain), [14, 15, 2, -127, -16, -5, 11, 17]);
    assert_eq!(int8(turned), [-55, 70, 66, -86, -64, 91, 127, -78]);
    let mut int4 = |prepare| row4(8, |b| ops.prepare_int4(&x, prepare, &mut scratch, b.row_mut(0)).unwrap()).0;
    assert_eq!(int4(plain), [1, 2, 0, -8, -2, 0, 1, 2]);
    assert_eq!(int4(turned), [-2, 2, 2, -3, -2, 3, 4, -3]);
}

proptest! {
    /// `H H = I` and `|H x| = |x|`, up to rounding: each of the `2 m` stages and four factors errs by `u` of the length
    /// of the block.
    #[test]
    fn transforms_are_their_own_inverses_and_keep_the_energy(seed in any::<u64>(), m in 1u32..11, blocks in 1usize..4) {
        let block = 1usize << m;
        let x = Random(seed).activations(block * blocks);
        for ops in all_ops() {
            let mut y = x.clone();
            ops.hadamard(&mut y, block).unwrap();
            let energy = |x: &[f32]| x.iter().map(|x| f64::from(*x).powi(2)).sum::<f64>();
            for (x, y) in x.chunks(block).zip(y.chunks(block)) {
                let bound = 2.0 * (f64::from(m) + 2.0) * U * 1.01;
                prop_assert!((energy(x) - energy(y)).abs() <= bound * energy(x).max(f64::MIN_POSITIVE));
            }
            ops.hadamard(&mut y, block).unwrap();
            for (x, y) in x.chunks(block).zip(y.chunks(block)) {
                let error: Vec<f32> = x.iter().zip(y).map(|(x, y)| x - y).collect();
                let bound = (2.0 * f64::from(m) + 4.0) * U * 1.01;
                prop_assert!(energy(&error).sqrt() <= bound * energy(x).sqrt(), "{} of {}", energy(&error), energy(x));
            }
        }
    }
}
