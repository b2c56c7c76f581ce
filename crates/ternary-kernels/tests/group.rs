//! Group kernels equal their definition bit for bit, on every instruction set of this CPU, and int16 activations are as
//! documented.

mod common;

use common::{Rng, cases, emulated, expected_sets_are};
use half::f16;
use proptest::prelude::*;
use ternary_kernels::ops::Prepare;
use ternary_kernels::{
    FileFormat, GroupKernel, GroupPacked, GroupScales, INT16_MAX, Int8Batch, Int8GroupBatch, Int16Batch, Isa,
    KernelError, Levels, Ops, Scales, SharedBytes, TernaryMatrix, reference,
};

/// Weights with their levels and scales.
struct Weights {
    rows: usize,
    cols: usize,
    levels: Vec<i8>,
    scales: GroupScales,
    packed: GroupPacked,
}

impl Weights {
    fn new(rows: usize, cols: usize, levels: Vec<i8>, scales: GroupScales) -> Self {
        let packed = GroupKernel::selected().unwrap().pack_levels(rows, cols, &levels, &scales).unwrap();
        Self { rows, cols, levels, scales, packed }
    }

    /// Levels up to +2; scales of all magnitudes, including the smallest subnormal number, the largest number and zero.
    fn random(rng: &mut Rng, rows: usize, cols: usize, group_len: usize) -> Self {
        let levels = (0..rows * cols).map(|_| rng.below(4) as i8 - 1).collect();
        let scale = |rng: &mut Rng| match rng.below(8) {
            0 => f16::from_bits(1 + rng.below(1023) as u16),
            1 => f16::MAX,
            2 => f16::ZERO,
            _ => f16::from_f32((1 + rng.below(4000)) as f32 / 1000.0),
        };
        let d = (0..rows * cols.div_ceil(group_len)).map(|_| scale(rng)).collect();
        Self::new(rows, cols, levels, GroupScales::new(group_len, rows, cols, d).unwrap())
    }

    fn expected(&self, codes: &[i16], steps: &[f32]) -> Vec<u32> {
        bits(&reference::group_product(self.cols, &self.levels, &self.scales, codes, steps).unwrap())
    }
}

fn bits(x: &[f32]) -> Vec<u32> {
    x.iter().map(|x| x.to_bits()).collect()
}

fn int16_codes(rng: &mut Rng, n: usize) -> Vec<i16> {
    let span = 2 * u64::from(INT16_MAX.unsigned_abs()) + 1;
    (0..n).map(|_| (rng.below(span) as i32 - i32::from(INT16_MAX)) as i16).collect()
}

/// Rows of codes with the scales of tokens.
fn int16_batch(k: usize, codes: &[i16], steps: &[f32]) -> Int16Batch {
    let from = Int16Batch::from_codes(steps.len(), k, codes).unwrap();
    let mut batch = Int16Batch::with_capacity(steps.len(), k);
    batch.reset(steps.len(), k);
    for (t, (mut row, &step)) in batch.rows_mut().zip(steps).enumerate() {
        let view = from.view();
        for (i, [hi, lo]) in view.digits(t).as_chunks().0.as_chunks::<2>().0.iter().enumerate().take(k.div_ceil(16)) {
            let sum = codes[t * k..(t + 1) * k].chunks(16).nth(i).unwrap().iter().map(|&q| i32::from(q)).sum();
            row.write(i, hi, lo, sum);
        }
        row.finish(step);
    }
    batch
}

/// Both products of every kernel against the definition, whole and in row ranges.
fn check(w: &Weights, n: usize, codes: &[i16]) {
    let (rows, cols) = (w.rows, w.cols);
    let steps: Vec<f32> = (0..n).map(|t| 0.37 + 3.1 * t as f32).collect();
    let x = int16_batch(cols, codes, &steps);
    let codes8: Vec<i8> = codes.iter().map(|&q| (q % 128) as i8).collect();
    let x8 = Int8Batch::from_codes(n, cols, &codes8).unwrap();
    // A step for each group: of all magnitudes, including 0 and 1.
    let groups = cols.div_ceil(w.packed.group_len());
    let steps8: Vec<f32> = (0..n * groups).map(|i| [1.0, 0.0, 3e-7, 0.37, 812.5][i % 5] * (1 + i % 3) as f32).collect();
    let by_group = Int8GroupBatch::from_codes(n, cols, w.packed.group_len(), &codes8, &steps8).unwrap();
    let expected_groups = match cols {
        // Without columns the number of codes does not determine the number of tokens.
        0 => vec![0; n * rows],
        _ => bits(&reference::group_product_int8(cols, &w.levels, &w.scales, &codes8, &steps8).unwrap()),
    };
    let codes8: Vec<i16> = codes8.iter().map(|&q| i16::from(q)).collect();
    let (expected, expected8) = (w.expected(codes, &steps), w.expected(&codes8, &steps));
    for kernel in GroupKernel::available() {
        let what = format!("{}: {rows} x {cols}, groups of {}, {n} tokens", kernel.name(), w.packed.group_len());
        // Initially NaN, so that a result that is not written is detected.
        let mut out = vec![f32::NAN; n * rows];
        kernel.product(&w.packed, 0..rows, &x.view(), &mut out);
        assert_eq!(bits(&out), expected, "{what}");
        out.fill(f32::NAN);
        kernel.product_int8(&w.packed, 0..rows, &x8.view(), &steps, &mut out);
        assert_eq!(bits(&out), expected8, "int8, {what}");
        out.fill(f32::NAN);
        kernel.product_int8_groups(&w.packed, 0..rows, &by_group.view(), &mut out);
        assert_eq!(bits(&out), expected_groups, "int8 by group, {what}");
        for part in 0..3 {
            let range = w.packed.split(part, 3);
            let mut out = vec![f32::NAN; n * range.len()];
            kernel.product(&w.packed, range.clone(), &x.view(), &mut out);
            for t in 0..n {
                let (got, all) = (&out[t * range.len()..(t + 1) * range.len()], &expected[t * rows..(t + 1) * rows]);
                assert_eq!(bits(got), all[range.clone()], "rows {range:?}, {what}");
            }
        }
    }
}

#[test]
fn every_kernel_equals_the_definition_for_every_size() {
    let mut rng = Rng::new(1);
    let cols: &[usize] =
        if emulated() { &[1, 64, 65, 300] } else { &[0, 1, 15, 16, 63, 64, 65, 127, 128, 129, 200, 257, 520] };
    for &cols in cols {
        for rows in [0, 1, 15, 16, 17, 33, 49] {
            for group_len in [64, 128, 192, 256] {
                for n in [0, 1, 2, 7] {
                    let w = Weights::random(&mut rng, rows, cols, group_len);
                    check(&w, n, &int16_codes(&mut rng, n * cols));
                }
            }
        }
    }
}

/// Every number of tokens, so that every tile is used; more columns than are copied at a time, more panels than fit the
/// cache.
#[test]
fn every_number_of_tokens_equals_the_definition() {
    let mut rng = Rng::new(2);
    let (w, long) = (Weights::random(&mut rng, 49, 200, 64), Weights::random(&mut rng, 33, 6912, 128));
    let most = if emulated() { 14 } else { 40 };
    for n in 1..=most {
        check(&w, n, &int16_codes(&mut rng, n * 200));
    }
    for n in [1, 2, 6, 13] {
        check(&long, n, &int16_codes(&mut rng, n * 6912));
    }
    if !emulated() {
        let tall = Weights::random(&mut rng, 700, 2600, 256);
        for n in [1, 3, 12, 26] {
            check(&tall, n, &int16_codes(&mut rng, n * 2600));
        }
    }
}

/// Sums that narrow accumulators cannot hold: all digits and codes at their limits.
#[test]
fn largest_sums_are_exact() {
    // 32639 = 127 * 256 + 127, 32512 = 127 * 256, 128 = 256 - 128: the lower digit is -128.
    let extremes = [INT16_MAX, -INT16_MAX, 32512, -32512, 128, -128, 127 * 256 - 128, -126 * 256 - 128];
    for group_len in [64, 128, 192, 256] {
        let (rows, cols) = (17, 2 * group_len + 70usize);
        for level in [-1, 1, 2] {
            let ones = vec![f16::ONE; rows * cols.div_ceil(group_len)];
            let scales = GroupScales::new(group_len, rows, cols, ones.into()).unwrap();
            let w = Weights::new(rows, cols, vec![level; rows * cols], scales);
            for n in [1, 2, 7] {
                for q in extremes {
                    check(&w, n, &vec![q; n * cols]);
                }
            }
        }
    }
    let mut rng = Rng::new(3);
    let w = Weights::random(&mut rng, 20, 700, 256);
    let codes: Vec<i16> = (0..7 * 700).map(|_| extremes[rng.below(8) as usize]).collect();
    check(&w, 7, &codes);
    check(&w, 1, &codes[..700]);
}

/// A single weight, in every position: it is multiplied with its own activation and scale and no other.
#[test]
fn a_single_weight_meets_its_own_activation_and_scale() {
    let (rows, cols, group_len) = (18, 150, 64);
    let codes: Vec<i16> = (0..2 * cols as i16).map(|i| 101 * i - 15000).collect();
    let x = Int16Batch::from_codes(2, cols, &codes).unwrap();
    let d: Vec<f16> = (0..rows * 3).map(|i| f16::from_f32(1.0 + i as f32)).collect();
    let scales = GroupScales::new(group_len, rows, cols, d.into()).unwrap();
    let kernels = GroupKernel::available();
    for at in (0..rows * cols).step_by(if emulated() { 37 } else { 1 }) {
        let mut levels = vec![0; rows * cols];
        levels[at] = [-1, 1, 2][at % 3];
        let packed = kernels[0].pack_levels(rows, cols, &levels, &scales).unwrap();
        for kernel in &kernels {
            let mut out = vec![f32::NAN; 2 * rows];
            kernel.product(&packed, 0..rows, &x.view(), &mut out);
            for (i, &y) in out.iter().enumerate() {
                let (t, r, c) = (i / rows, i % rows, at % cols);
                let value =
                    f32::from(levels[at]) * f32::from(codes[t * cols + c]) * scales.row(r)[c / group_len].to_f32();
                assert_eq!(y, if r == at / cols { value } else { 0.0 }, "{}: weight {at}", kernel.name());
            }
        }
    }
}

proptest! {
    #![proptest_config(cases(150))]
    #[test]
    fn every_kernel_equals_the_definition(
        rows in 0usize..70, cols in 0usize..600, group in 1usize..5, n in 0usize..20, seed in any::<u64>(),
    ) {
        let mut rng = Rng::new(seed);
        let w = Weights::random(&mut rng, rows, cols, 64 * group);
        check(&w, n, &int16_codes(&mut rng, n * cols));
    }

    /// Against f64: the error of the definition itself is at most that of rounding its f32 sums.
    #[test]
    fn results_are_near_the_exact_product(rows in 1usize..20, cols in 1usize..600, seed in any::<u64>()) {
        let mut rng = Rng::new(seed);
        let w = Weights::random(&mut rng, rows, cols, 128);
        let codes = int16_codes(&mut rng, cols);
        let x = int16_batch(cols, &codes, &[1000.0]);
        let mut out = vec![f32::NAN; rows];
        GroupKernel::selected().unwrap().product(&w.packed, 0..rows, &x.view(), &mut out);
        for (r, &y) in out.iter().enumerate() {
            let term = |c: usize| {
                f64::from(w.levels[r * cols + c]) * f64::from(codes[c]) * w.scales.row(r)[c / 128].to_f64() / 1000.0
            };
            let exact: f64 = (0..cols).map(term).sum();
            let size: f64 = (0..cols).map(|c| term(c).abs()).sum();
            // For each of G groups a product and a sum, then a reciprocal and a product, each within 2^-24 of the
            // rounded value.
            let bound = (w.scales.groups() + 4) as f64 * 2f64.powi(-24) * size;
            prop_assert!((f64::from(y) - exact).abs() <= bound, "row {r}: {y} for {exact}, bound {bound}");
        }
    }

    /// Codes are `round(x * s)`, half to even, and the same on every instruction set.
    #[test]
    fn int16_codes_are_rounded_products(k in 0usize..300, seed in any::<u64>(), size in -20i32..20) {
        let mut rng = Rng::new(seed);
        let x: Vec<f32> = (0..k).map(|_| (rng.below(20001) as f32 - 1e4) * 1e-4 * 2f32.powi(size)).collect();
        let max = x.iter().fold(1e-5f32, |m, x| m.max(x.abs()));
        let scale = 32639.0 / max;
        for isa in Isa::available() {
            let ops = Ops::for_isa(isa).unwrap();
            let mut batch = Int16Batch::with_capacity(1, k);
            batch.reset(1, k);
            ops.quantize_int16(&x, batch.row_mut(0)).unwrap();
            prop_assert_eq!(batch.scales(), &[scale]);
            let view = batch.view();
            for (c, x) in x.iter().enumerate() {
                prop_assert_eq!(f32::from(view.code(0, c)), (x * scale).round_ties_even(), "{}: column {}", isa, c);
            }
            let codes: Vec<i16> = (0..k).map(|c| view.code(0, c)).collect();
            let again = Int16Batch::from_codes(1, k, &codes).unwrap();
            prop_assert_eq!(again.view().digits(0), view.digits(0));
            prop_assert_eq!(again.view().sums(0), view.sums(0));
        }
    }
}

#[test]
fn prepare_int16_is_norm_transform_and_quantisation() {
    let mut rng = Rng::new(9);
    let k = 192;
    let x: Vec<f32> = (0..k).map(|_| rng.below(2001) as f32 / 1000.0 - 1.0).collect();
    let gain: Vec<f32> = (0..k).map(|_| rng.below(2001) as f32 / 1000.0).collect();
    let codes = |batch: &Int16Batch| (0..k).map(|c| batch.view().code(0, c)).collect::<Vec<_>>();
    for isa in Isa::available() {
        let ops = Ops::for_isa(isa).unwrap();
        let (mut a, mut b) = (Int16Batch::with_capacity(1, k), Int16Batch::with_capacity(1, k));
        for (norm, hadamard) in [(false, None), (true, None), (false, Some(64)), (true, Some(64))] {
            let mut y = x.clone();
            if norm {
                ops.rms_norm(&x, &gain, 1e-5, &mut y);
            }
            if let Some(block) = hadamard {
                ops.hadamard(&mut y, block).unwrap();
            }
            a.reset(1, k);
            ops.quantize_int16(&y, a.row_mut(0)).unwrap();
            b.reset(1, k);
            let prepare = Prepare { norm: norm.then_some((&gain[..], 1e-5)), hadamard };
            ops.prepare_int16(&x, prepare, &mut vec![0.0; k], b.row_mut(0)).unwrap();
            assert_eq!((codes(&a), a.scales()), (codes(&b), b.scales()), "{isa}, norm {norm}, block {hadamard:?}");
        }
        for bad in [f32::NAN, f32::INFINITY] {
            let mut x = x.clone();
            x[130] = bad;
            let error = ops.quantize_int16(&x, a.row_mut(0)).unwrap_err();
            assert!(matches!(error, KernelError::NonFiniteActivation { position: 130, .. }), "{error}");
        }
    }
}

/// Rows of files and their products, made by independent software: integers of every block times their scales, in f32.
#[test]
fn rows_of_files_multiply_as_the_reference_does() {
    let Some(shared) = test_support::shared_dir() else { return };
    let bytes = std::fs::read(shared.join("fixtures/families/block_units/units.safetensors")).unwrap();
    let file = safetensors::SafeTensors::deserialize(&bytes).unwrap();
    for name in ["Q2_0", "PQ2_0", "PTQ1_0", "Q1_0", "TQ1_0", "TQ2_0", "STQ1_0"] {
        let of_row = |what: &str| file.tensor(&format!("{name}.row.{what}")).unwrap().data().to_vec();
        let format = *FileFormat::ALL.iter().find(|f| f.name() == name).unwrap();
        let codes: Vec<i8> = of_row("q").iter().map(|&q| q as i8).collect();
        let w = TernaryMatrix::from_bytes(format, 1, codes.len(), of_row("bytes").into(), None).unwrap();
        let Scales::Groups(d) = w.scales() else { panic!("{name}: {:?}", w.scales()) };
        let mut expected = 0.0;
        for (dot, d) in of_row("block_dots").as_chunks().0.iter().zip(d.row(0)) {
            expected += d.to_f32() * i32::from_le_bytes(*dot) as f32;
        }
        let x = Int8Batch::from_codes(1, codes.len(), &codes).unwrap();
        let wide: Vec<i16> = codes.iter().map(|&q| i16::from(q)).collect();
        let wide = Int16Batch::from_codes(1, codes.len(), &wide).unwrap();
        for kernel in GroupKernel::available() {
            let packed = kernel.prepack(&w).unwrap();
            let mut out = [[f32::NAN; 1]; 2];
            kernel.product_int8(&packed, 0..1, &x.view(), &[1.0], &mut out[0]);
            kernel.product(&packed, 0..1, &wide.view(), &mut out[1]);
            assert_eq!(out, [[expected]; 2], "{name}, {}", kernel.name());
            let (mut row, mut again, mut levels) =
                (vec![0.0; codes.len()], vec![0.0; codes.len()], vec![0; codes.len()]);
            packed.decode_row_f32(0, &mut row);
            w.decode_row_f32(0, &mut levels, &mut again);
            assert_eq!(row, again, "{name}");
        }
    }
}

/// Code 3 of a file is +2 in every product.
#[test]
fn twos_of_files_are_multiplied_as_such() {
    // Two blocks of Q2_0: scale 0.5, then codes 3, 2, 1, 0, repeated.
    let block = [&f16::from_f32(0.5).to_le_bytes()[..], &[0b00_01_10_11; 16]].concat();
    let w = TernaryMatrix::from_bytes(FileFormat::Q2_0, 1, 128, [&block[..], &block].concat().into(), None).unwrap();
    assert_eq!(w.levels(), Levels::Four);
    let codes: Vec<i16> = (0..128).map(|c| [1000, 100, 10, 1][c % 4]).collect();
    let x = Int16Batch::from_codes(1, 128, &codes).unwrap();
    for kernel in GroupKernel::available() {
        let packed = kernel.prepack(&w).unwrap();
        let mut out = [f32::NAN];
        kernel.product(&packed, 0..1, &x.view(), &mut out);
        assert_eq!(out, [0.5 * 32.0 * (2000.0 + 100.0 - 1.0)], "{}", kernel.name());
    }
}

/// A matrix with one scale or one for each row: the integer product, exact, then both scales.
#[test]
fn matrices_without_groups_are_multiplied_as_well() {
    let mut rng = Rng::new(4);
    let (rows, cols, n) = (35, 700, 3);
    let trits = rng.trits(rows * cols);
    let per_row: Vec<f32> = (0..rows).map(|r| 0.013 + r as f32 * 0.37).collect();
    let codes = int16_codes(&mut rng, n * cols);
    let x = int16_batch(cols, &codes, &[3.0, 7.0, 1e4]);
    for scales in [Scales::Tensor(0.0123), Scales::Rows(per_row.into())] {
        let w = TernaryMatrix::from_trits(rows, cols, &trits, scales.clone()).unwrap();
        for kernel in GroupKernel::available() {
            let packed = kernel.prepack(&w).unwrap();
            let mut out = vec![f32::NAN; n * rows];
            kernel.product(&packed, 0..rows, &x.view(), &mut out);
            for (i, &y) in out.iter().enumerate() {
                let (t, r) = (i / rows, i % rows);
                let sum: i64 = (0..cols).map(|c| i64::from(trits[r * cols + c]) * i64::from(codes[t * cols + c])).sum();
                assert!(sum.abs() < 1 << 24, "sums of this test are exact in f32");
                let expected = sum as f32 * (1.0 / x.scales()[t]) * scales.at(r, 0);
                assert_eq!(y.to_bits(), expected.to_bits(), "{}: token {t}, row {r}", kernel.name());
            }
            let mut row = vec![0.0; cols];
            packed.decode_row_f32(34, &mut row);
            assert!(row.iter().zip(&trits[34 * cols..]).all(|(w, &t)| *w == f32::from(t) * scales.at(34, 0)));
        }
    }
}

#[test]
fn packed_bytes_at_odd_addresses_are_read_as_well() {
    let mut rng = Rng::new(6);
    let w = Weights::random(&mut rng, 33, 400, 128);
    let codes = int16_codes(&mut rng, 7 * 400);
    let expected = w.expected(&codes, &[1.0; 7]);
    let x = Int16Batch::from_codes(7, 400, &codes).unwrap();
    for offset in 0..64 {
        let moved = [&vec![0; offset], w.packed.bytes()].concat().into_boxed_slice();
        let moved = SharedBytes::new(moved).slice(offset..offset + w.packed.byte_len()).unwrap();
        let moved = w.packed.with_bytes(moved).unwrap();
        for kernel in GroupKernel::available() {
            let mut out = vec![f32::NAN; 7 * 33];
            kernel.product(&moved, 0..33, &x.view(), &mut out);
            kernel.product(&moved, 0..33, &x.view().rows(3..4), &mut out[3 * 33..4 * 33]);
            assert_eq!(bits(&out), expected, "{}: offset {offset}", kernel.name());
        }
    }
    assert!(w.packed.with_bytes(vec![0; 5].into()).is_err());
}

#[test]
fn what_cannot_be_packed_is_refused() {
    let kernel = GroupKernel::selected().unwrap();
    for group_len in [1, 32, 65, 320, 1 << 40] {
        let scales = GroupScales::new(group_len, 1, 1, [f16::ONE].into()).unwrap();
        let error = kernel.pack_levels(1, 1, &[1], &scales).unwrap_err();
        assert!(matches!(error, KernelError::GroupLength { .. }), "{error}");
    }
    let scales = GroupScales::new(64, 2, 65, [f16::ONE; 4].into()).unwrap();
    assert!(matches!(kernel.pack_levels(2, 64, &[0; 128], &scales), Err(KernelError::ShapeMismatch { .. })));
    assert!(matches!(kernel.pack_levels(1, 65, &[0; 65], &scales), Err(KernelError::ShapeMismatch { .. })));
    let mut levels = [0; 130];
    levels[66] = 3;
    let error = kernel.pack_levels(2, 65, &levels, &scales).unwrap_err();
    assert!(matches!(error, KernelError::InvalidCode { row: 1, col: 1, code: 3, .. }), "{error}");
    let none = GroupScales::new(64, 0, usize::MAX, [].into()).unwrap();
    assert!(kernel.pack_levels(0, usize::MAX, &[], &none).is_err());
}

#[test]
#[should_panic(expected = "in panels of 16")]
fn rows_begin_at_a_panel() {
    let w = Weights::random(&mut Rng::new(1), 40, 64, 64);
    let x = Int16Batch::from_codes(1, 64, &[0; 64]).unwrap();
    GroupKernel::selected().unwrap().product(&w.packed, 8..40, &x.view(), &mut [0.0; 32]);
}

#[test]
fn every_set_has_a_kernel() {
    for isa in Isa::available() {
        let kernel = GroupKernel::for_isa(isa).unwrap();
        let served = if isa == Isa::NeonI8mm { Isa::NeonDot } else { isa };
        assert_eq!(kernel.name(), format!("group_{served}"));
    }
    expected_sets_are(&Isa::available().collect::<Vec<_>>());
}

/// Each group has the codes and the step that `quantize_int8` computes for it alone, on every instruction set; also
/// after a norm.
#[test]
fn groups_are_quantised_as_tokens_of_their_own() {
    let mut rng = Rng::new(11);
    for (k, group_len) in [(1usize, 64usize), (64, 64), (100, 64), (128, 128), (300, 128), (320, 256), (1000, 192)] {
        let x: Vec<f32> =
            (0..k).map(|i| (rng.below(2001) as f32 - 1000.0) * [1e-9, 1e-3, 1.0, 40.0][i / 40 % 4]).collect();
        let gain: Vec<f32> = (0..k).map(|_| rng.below(300) as f32 / 100.0).collect();
        for isa in Isa::available() {
            let ops = Ops::for_isa(isa).unwrap();
            let normed = |norm: Option<(&[f32], f32)>| match norm {
                None => x.clone(),
                Some((gain, eps)) => {
                    let mut y = x.clone();
                    ops.rms_norm_in_place(&mut y, gain, eps);
                    y
                }
            };
            for norm in [None, Some((&gain[..], 1e-5))] {
                let mut batch = Int8GroupBatch::with_capacity(1, k, group_len);
                batch.reset(1, k);
                let prepare = Prepare { norm, hadamard: None };
                ops.prepare_int8_groups(&x, prepare, &mut [], batch.row_mut(0)).unwrap();
                let view = batch.view();
                for (g, group) in normed(norm).chunks(group_len).enumerate() {
                    let mut alone = Int8Batch::with_capacity(1, group.len());
                    alone.reset(1, group.len());
                    ops.quantize_int8(group, alone.row_mut(0)).unwrap();
                    let codes = &view.codes().row(0).codes()[g * group_len..][..group.len()];
                    assert_eq!(codes, &alone.view().row(0).codes()[..group.len()], "{k}, groups of {group_len}");
                    assert_eq!(view.steps(0)[g].to_bits(), (1.0 / alone.scales()[0]).to_bits());
                }
            }
            let mut bad = x.clone();
            bad[k - 1] = f32::NAN;
            let mut batch = Int8GroupBatch::with_capacity(1, k, group_len);
            batch.reset(1, k);
            let error = ops.quantize_int8_groups(&bad, batch.row_mut(0)).unwrap_err();
            assert!(matches!(error, KernelError::NonFiniteActivation { position, .. } if position == k - 1), "{error}");
        }
    }
}

/// Weights can be divided into shorter groups without changing a value, and not into groups that do not divide theirs.
#[test]
fn weights_are_packed_in_the_groups_of_their_activations() {
    let mut rng = Rng::new(12);
    let (rows, cols) = (19, 300);
    let kernel = GroupKernel::selected().unwrap();
    let trits: Vec<i8> = (0..rows * cols).map(|_| rng.below(3) as i8 - 1).collect();
    let d = (0..rows * 3).map(|_| f16::from_f32(rng.below(1000) as f32 / 64.0)).collect();
    let scales = GroupScales::new(128, rows, cols, d).unwrap();
    let w = TernaryMatrix::from_trits(rows, cols, &trits, Scales::Groups(scales)).unwrap();
    let (long, short) = (kernel.prepack_groups(&w, 128).unwrap(), kernel.prepack_groups(&w, 64).unwrap());
    assert_eq!((long.group_len(), short.group_len()), (128, 64));
    let (mut a, mut b) = (vec![0.0; cols], vec![0.0; cols]);
    for r in 0..rows {
        long.decode_row_f32(r, &mut a);
        short.decode_row_f32(r, &mut b);
        assert_eq!(a, b);
    }
    for wrong in [0, 96, 256] {
        assert!(matches!(kernel.prepack_groups(&w, wrong), Err(KernelError::GroupLength { .. })), "{wrong}");
    }
    let one = TernaryMatrix::from_trits(rows, cols, &trits, Scales::Tensor(0.5)).unwrap();
    assert_eq!(kernel.prepack_groups(&one, 192).unwrap().group_len(), 192);
}
