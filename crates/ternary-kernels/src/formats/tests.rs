//! Rejections and round trips of every format.

use proptest::prelude::*;
use test_support::Random;

use super::*;
use crate::GroupScales;

fn matrix(rows: usize, cols: usize, scales: Scales, seed: u64) -> TernaryMatrix {
    let trits = Random(seed).trits(rows * cols);
    TernaryMatrix::from_trits(rows, cols, &trits, scales).unwrap()
}

/// A row must hold a multiple of this many weights.
fn unit(format: FileFormat) -> usize {
    format.info().weights
}

fn written() -> impl Iterator<Item = FileFormat> {
    FileFormat::ALL.iter().copied().filter(|f| f.info().writable)
}

fn read(format: FileFormat, like: &TernaryMatrix, bytes: Vec<u8>) -> Result<TernaryMatrix, KernelError> {
    let beside = (!format.holds_scale()).then(|| like.scales().clone());
    TernaryMatrix::from_bytes(format, like.rows(), like.cols(), bytes.into(), beside)
}

proptest! {
    #[test]
    fn round_trips_keep_trits_and_scale(rows in 0usize..40, units in 0usize..5, odd in 0usize..130, seed in any::<u64>()) {
        for format in written() {
            let cols = if unit(format) == 1 { odd } else { units * unit(format) };
            let w = matrix(rows, cols, Scales::Tensor(1.5), seed);
            let bytes = format.encode(&w, ScaleRounding::Exact).unwrap();
            prop_assert_eq!(bytes.len(), format.byte_len(rows, cols).unwrap());
            let back = read(format, &w, bytes.clone()).unwrap();
            prop_assert_eq!(back.to_trits(), w.to_trits(), "{}", format);
            if rows * cols > 0 {
                prop_assert_eq!(back.scales(), w.scales(), "{}", format);
            }
            // From each format to each other format that can hold the shape, and back.
            for other in written().filter(|o| rows * cols > 0 && cols.is_multiple_of(unit(*o))) {
                let through = read(other, &w, other.encode(&back, ScaleRounding::Exact).unwrap()).unwrap();
                prop_assert_eq!(&format.encode(&through, ScaleRounding::Exact).unwrap(), &bytes, "{} {}", format, other);
            }
        }
    }

    /// Validation returns for all bytes, and what it accepts decodes to trits.
    #[test]
    fn random_bytes_are_judged_without_a_panic(rows in 0usize..6, units in 0usize..3, seed in any::<u64>(), mask in any::<u8>()) {
        for &format in FileFormat::ALL {
            let cols = units * unit(format);
            let mut bytes = Random(seed).bytes(format.byte_len(rows, cols).unwrap());
            bytes.iter_mut().for_each(|b| *b &= mask);
            if let Ok(w) = TernaryMatrix::from_bytes(format, rows, cols, bytes.into(), None) {
                let top = if w.levels() == Levels::Four { 2 } else { 1 };
                prop_assert!(w.to_trits().iter().all(|t| (-1..=top).contains(t)));
                prop_assert_eq!(w.to_trits().iter().filter(|t| **t == 2).count(), w.twos().map_or(0, |t| t.count));
            }
        }
    }
}

#[test]
fn wrong_lengths_are_refused() {
    for &format in FileFormat::ALL {
        let len = format.byte_len(4, 256).unwrap();
        for got in [0, len - 1, len + 1] {
            let expected = KernelError::ShapeMismatch { op: format.name(), what: "bytes", expected: len, got };
            assert_eq!(format.validate(4, 256, &vec![0; got]), Err(expected), "{format}");
        }
    }
}

#[test]
fn rows_that_a_format_cannot_hold_are_refused_with_the_reason() {
    for &format in FileFormat::ALL.iter().filter(|f| unit(**f) > 1) {
        for cols in [1, unit(format) - 1, unit(format) + 1, 704 + 1] {
            let error = format.byte_len(3, cols).unwrap_err();
            assert!(matches!(error, KernelError::UnsupportedShape { rows: 3, .. }), "{format} {cols}");
            assert!(error.to_string().contains(&unit(format).to_string()), "{error}");
            let w = matrix(3, cols, Scales::Tensor(1.0), 1);
            assert_eq!(format.encode(&w, ScaleRounding::Nearest), Err(error.clone()), "{format}");
            assert_eq!(format.validate(3, cols, &[]), Err(error));
        }
    }
}

#[test]
fn sizes_that_overflow_are_refused() {
    for &format in FileFormat::ALL {
        for (rows, cols) in [(usize::MAX, 256), (256, usize::MAX & !255), (1 << 40, 1 << 40)] {
            let error = KernelError::TooLarge { op: format.name(), rows, cols };
            assert_eq!(format.byte_len(rows, cols), Err(error), "{format} {rows} x {cols}");
        }
        // There is nothing to store, and no allocation may depend on the number of rows.
        if !matches!(format, FileFormat::Iq1Bn | FileFormat::Iq2Bn) {
            let len = format.byte_len(1 << 60, 0).unwrap();
            assert!(format.validate(1 << 60, 0, &vec![0; len]).is_ok(), "{format}");
        }
    }
}

/// Sets every weight in turn to code 3; the error must name it.
#[test]
fn code_3_is_refused_and_named() {
    for format in [FileFormat::I2S, FileFormat::HfPacked, FileFormat::Tq2_0, FileFormat::Iq2Bn] {
        let (rows, cols) = (3, 512);
        let base = format.encode(&matrix(rows, cols, Scales::Tensor(1.0), 5), ScaleRounding::Exact).unwrap();
        // Codes 1 and 2 differ in both bits, so the bits of one weight are those that change between the two.
        for at in (0..rows * cols).step_by(7) {
            let of = |t: i8| {
                let mut trits = vec![0i8; rows * cols];
                trits[at] = t;
                let w = TernaryMatrix::from_trits(rows, cols, &trits, Scales::Tensor(1.0)).unwrap();
                format.encode(&w, ScaleRounding::Exact).unwrap()
            };
            let bits: Vec<u8> = of(0).iter().zip(of(1)).map(|(a, b)| a ^ b).collect();
            assert_eq!(bits.iter().map(|b| b.count_ones()).sum::<u32>(), 2);
            let bad: Vec<u8> = base.iter().zip(bits).map(|(a, b)| a | b).collect();
            let expected = KernelError::InvalidCode { format, row: at / cols, col: at % cols, code: 3 };
            assert_eq!(format.validate(rows, cols, &bad), Err(expected));
        }
    }
}

#[test]
fn padding_rows_of_hf_packed_are_ignored() {
    // Three rows: the fourth, in the upper bits, is padding.
    assert_eq!(FileFormat::HfPacked.validate(3, 2, &[0b11_00_01_10, 0b11_10_10_10]), Ok(None));
    let error = KernelError::InvalidCode { format: FileFormat::HfPacked, row: 2, col: 1, code: 3 };
    assert_eq!(FileFormat::HfPacked.validate(3, 2, &[0b11_00_01_10, 0b11_11_10_10]), Err(error));
}

#[test]
fn trits_outside_of_their_range_are_refused() {
    let error = KernelError::InvalidCode { format: FileFormat::Trits, row: 1, col: 0, code: -2 };
    assert_eq!(TernaryMatrix::from_trits(2, 2, &[0, 1, -2, 0], Scales::Tensor(1.0)).unwrap_err(), error);
}

/// Offset and width of the scale that belongs to row 1 of a `[3, 256]` matrix.
fn scale_of_row_1(format: FileFormat) -> (usize, usize) {
    let row = format.byte_len(2, 256).unwrap() - format.byte_len(1, 256).unwrap();
    match format.info().scale {
        ScalePlace::Tensor => (3 * row, 4),
        ScalePlace::Row(width) => (row, width),
        ScalePlace::Block(at) => (row + at, 2),
        ScalePlace::Beside => unreachable!("no scale in the bytes"),
    }
}

#[test]
fn scales_that_are_negative_or_not_finite_are_refused() {
    for &format in FileFormat::ALL.iter().filter(|f| f.holds_scale()) {
        // All scales are 0, which every format can hold; the codes are zeros or what these bytes stand for.
        let good = vec![0; format.byte_len(3, 256).unwrap()];
        assert!(format.validate(3, 256, &good).is_ok(), "{format}");
        let (at, width) = scale_of_row_1(format);
        for value in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY, -1.0] {
            let mut bad = good.clone();
            match width {
                2 => bad[at..at + 2].copy_from_slice(&half::f16::from_f32(value).to_le_bytes()),
                _ => bad[at..at + 4].copy_from_slice(&value.to_le_bytes()),
            }
            match (format.validate(3, 256, &bad), format.info().scale) {
                (Err(KernelError::InvalidBlockScale { format: f, row, block, value: v }), ScalePlace::Block(_)) => {
                    assert_eq!((f, row, block, v.to_bits()), (format, 1, 0, value.to_bits()));
                }
                (Err(KernelError::InvalidScale { format: f, row, value: v }), place) => {
                    let expected = usize::from(place != ScalePlace::Tensor);
                    assert_eq!((f, row, v.to_bits()), (format, expected, value.to_bits()));
                }
                (other, _) => panic!("{format} accepted scale {value}: {other:?}"),
            }
        }
    }
    for value in [f32::NAN, f32::INFINITY, -1.0] {
        let error = TernaryMatrix::from_trits(1, 1, &[1], Scales::Tensor(value)).unwrap_err();
        assert!(matches!(error, KernelError::InvalidScale { format: FileFormat::Trits, .. }));
    }
}

/// Sets the scale of block `b`.
fn set_d(format: FileFormat, bytes: &mut [u8], b: usize, d: f32) {
    let block = if format == FileFormat::Tq1_0 { 54 } else { 66 };
    bytes[(b + 1) * block - 2..(b + 1) * block].copy_from_slice(&half::f16::from_f32(d).to_le_bytes());
}

#[test]
fn tq_blocks_that_agree_have_the_scale_of_the_tensor_and_others_their_own() {
    for format in [FileFormat::Tq1_0, FileFormat::Tq2_0] {
        let w = matrix(3, 512, Scales::Tensor(0.5), 9);
        let good = format.encode(&w, ScaleRounding::Exact).unwrap();
        let load = |bytes: &[u8]| TernaryMatrix::from_bytes(format, 3, 512, bytes.to_vec().into(), None);

        let mut mixed = good.clone();
        set_d(format, &mut mixed, 3, 0.25);
        let loaded = load(&mixed).unwrap();
        let Scales::Groups(g) = loaded.scales() else { panic!("{:?}", loaded.scales()) };
        assert_eq!(
            (g.group_len(), g.groups(), loaded.scales().at(1, 255), loaded.scales().at(1, 256)),
            (256, 2, 0.5, 0.25)
        );
        assert_eq!(loaded.to_trits(), w.to_trits());
        assert_eq!(format.encode(&loaded, ScaleRounding::Exact).unwrap(), mixed);
        // After reordering and slicing, the scales still belong to their rows.
        let turned = loaded.with_row_order(&[2, 0, 1]).unwrap();
        assert_eq!((turned.scales().at(2, 256), turned.scales().at(1, 256)), (0.25, 0.5));
        let slice = turned.slice_rows(2..3).unwrap();
        assert_eq!((slice.scales().at(0, 0), slice.scales().at(0, 256)), (0.5, 0.25));
        assert_eq!(turned.slice_rows(0..2).unwrap().scales(), &Scales::Tensor(0.5));

        // A block of scale 0 holds zeros, whatever its codes are; the row keeps the scale of its other block.
        for block in [2, 3] {
            let mut zero = good.clone();
            set_d(format, &mut zero, block, 0.0);
            let loaded = load(&zero).unwrap();
            assert_eq!(loaded.scales(), &Scales::Tensor(0.5));
            let mut expected = w.to_trits();
            expected[block * 256..(block + 1) * 256].fill(0);
            assert_eq!(loaded.to_trits(), expected);
        }

        let mut zero_row = good.clone();
        set_d(format, &mut zero_row, 0, 0.0);
        set_d(format, &mut zero_row, 1, 0.0);
        let loaded = load(&zero_row).unwrap();
        assert_eq!(loaded.scales(), &Scales::Tensor(0.5));
        assert!(loaded.to_trits()[..512].iter().all(|&t| t == 0));

        let mut rows = good.clone();
        set_d(format, &mut rows, 4, 0.25);
        set_d(format, &mut rows, 5, 0.25);
        let loaded = load(&rows).unwrap();
        assert_eq!(loaded.scales(), &Scales::Rows([0.5, 0.5, 0.25].into()));
        assert_eq!(format.encode(&loaded, ScaleRounding::Exact).unwrap(), rows);
        set_d(format, &mut rows, 0, 0.0);
        set_d(format, &mut rows, 1, 0.0);
        assert_eq!(load(&rows).unwrap().scales(), &Scales::Rows([0.0, 0.5, 0.25].into()));
    }
}

#[test]
fn f16_formats_store_exact_scales_or_say_so() {
    for format in [FileFormat::Tq1_0, FileFormat::Tq2_0, FileFormat::Iq1Bn, FileFormat::Q2_0, FileFormat::Ptq1_0] {
        let w = |s| matrix(2, 256, Scales::Tensor(s), 11);
        let refused = |s: f32, rounding| {
            let error = KernelError::InexactScale { format, stored_as: "f16", row: 0, value: s };
            assert_eq!(format.encode(&w(s), rounding), Err(error), "{format} {s}");
        };
        for s in [0.1, 1.0 / 3.0, 70000.0, 1e-9] {
            refused(s, ScaleRounding::Exact);
        }
        // Infinity and zero are not neighbours of a scale.
        refused(70000.0, ScaleRounding::Nearest);
        refused(1e-9, ScaleRounding::Nearest);
        let near = w(0.1);
        let back = read(format, &near, format.encode(&near, ScaleRounding::Nearest).unwrap()).unwrap();
        assert_eq!(back.to_trits(), near.to_trits());
        assert_eq!(back.scales(), &Scales::Tensor(half::f16::from_f32(0.1).to_f32()));
        for s in [0.0, 0.5, 65504.0, 0.25f32.powi(7)] {
            assert!(format.encode(&w(s), ScaleRounding::Exact).is_ok());
        }
    }
    // f32 formats hold every scale.
    for format in [FileFormat::I2S, FileFormat::Iq2Bn] {
        let w = matrix(2, 256, Scales::Tensor(0.1), 11);
        let back = read(format, &w, format.encode(&w, ScaleRounding::Exact).unwrap()).unwrap();
        assert_eq!(back.scales(), w.scales());
    }
}

#[test]
fn scales_per_row_go_where_there_is_room() {
    let scales = Scales::Rows([0.5, 0.5, 2.0].into());
    let w = matrix(3, 256, scales.clone(), 13);
    for format in [FileFormat::I2S, FileFormat::HfPacked] {
        let error = KernelError::OneScaleOnly { format, row: 2, first: 0.5, second: 2.0 };
        assert_eq!(format.encode(&w, ScaleRounding::Exact), Err(error));
    }
    for format in written().filter(|f| matches!(f.info().scale, ScalePlace::Row(_) | ScalePlace::Block(_))) {
        let back = read(format, &w, format.encode(&w, ScaleRounding::Exact).unwrap()).unwrap();
        assert_eq!((back.scales(), back.to_trits()), (&scales, w.to_trits()), "{format}");
    }
}

#[test]
fn a_scale_inside_multiplies_with_one_beside() {
    let w = matrix(2, 128, Scales::Tensor(0.5), 3);
    let bytes = FileFormat::I2S.encode(&w, ScaleRounding::Exact).unwrap();
    let both = |s| TernaryMatrix::from_bytes(FileFormat::I2S, 2, 128, bytes.clone().into(), Some(s)).unwrap();
    assert_eq!(both(Scales::Tensor(3.0)).scales(), &Scales::Tensor(1.5));
    assert_eq!(both(Scales::Rows([1.0, 2.0].into())).scales(), &Scales::Rows([0.5, 1.0].into()));
}

#[test]
fn slices_and_reordered_rows_encode_as_themselves() {
    let w = matrix(6, 256, Scales::Tensor(1.0), 17);
    let moved = w.with_row_order(&[5, 4, 0, 1, 2, 3]).unwrap().slice_rows(1..4).unwrap();
    let expected = [4, 0, 1].map(|r| w.to_trits()[r * 256..(r + 1) * 256].to_vec()).concat();
    for format in written() {
        let loaded = read(format, &w, format.encode(&w, ScaleRounding::Exact).unwrap()).unwrap();
        let moved_too = loaded.with_row_order(&[5, 4, 0, 1, 2, 3]).unwrap().slice_rows(1..4).unwrap();
        assert_eq!((moved_too.to_trits(), moved.to_trits()), (expected.clone(), expected.clone()), "{format}");
        let bytes = format.encode(&moved_too, ScaleRounding::Exact).unwrap();
        assert_eq!(read(format, &moved, bytes).unwrap().to_trits(), expected, "{format}");
    }
}

/// Scales of `[rows, cols]` that differ between groups.
fn groups(len: usize, rows: usize, cols: usize) -> Scales {
    let values = (0..rows * cols.div_ceil(len)).map(|i| half::f16::from_f32(0.5 + i as f32 / 64.0)).collect();
    GroupScales::new(len, rows, cols, values).unwrap().into()
}

#[test]
fn scales_of_groups_go_into_formats_whose_groups_divide_them() {
    for len in [64, 128, 256, 512] {
        let w = matrix(3, 512, groups(len, 3, 512), 19);
        for format in written().filter(|f| f.holds_scale()) {
            let result = format.encode(&w, ScaleRounding::Nearest);
            match format.info().scale {
                // With this length, a group is a whole row.
                _ if len == 512 && format != FileFormat::I2S => assert!(result.is_ok(), "{format}"),
                ScalePlace::Block(_) if unit(format) <= len => {
                    let back = read(format, &w, result.unwrap()).unwrap();
                    assert_eq!(back.to_trits(), w.to_trits(), "{format}");
                    for (r, c) in (0..3).flat_map(|r| (0..512).step_by(32).map(move |c| (r, c))) {
                        assert_eq!(back.scales().at(r, c), w.scales().at(r, c), "{format} {len}: {r}, {c}");
                    }
                }
                ScalePlace::Block(_) => {
                    let mixed = matches!(result, Err(KernelError::MixedScales { row: 0, first: 0.5, .. }));
                    assert!(mixed, "{format} {len}: {result:?}");
                }
                ScalePlace::Row(_) => {
                    assert_eq!(result, Err(KernelError::NoGroupScales { format, group_len: len }));
                }
                ScalePlace::Tensor | ScalePlace::Beside => assert!(result.is_err(), "{format} {len}: {result:?}"),
            }
        }
    }
}

/// Groups of zeros fit any scale, so they never prevent writing.
#[test]
fn groups_of_zeros_do_not_stand_in_the_way() {
    let mut trits = matrix(1, 256, Scales::Tensor(1.0), 3).to_trits();
    trits[64..128].fill(0);
    let values = [0.5, 7.0, 0.25, 0.25].map(half::f16::from_f32);
    let scales = GroupScales::new(64, 1, 256, values.into()).unwrap();
    let w = TernaryMatrix::from_trits(1, 256, &trits, scales.into()).unwrap();
    let back = read(FileFormat::Pq2_0, &w, FileFormat::Pq2_0.encode(&w, ScaleRounding::Exact).unwrap()).unwrap();
    assert_eq!((back.to_trits(), back.scales().at(0, 0), back.scales().at(0, 128)), (trits, 0.5, 0.25));
    let error = KernelError::MixedScales { format: FileFormat::Tq2_0, row: 0, first: 0.5, second: 0.25 };
    assert_eq!(FileFormat::Tq2_0.encode(&w, ScaleRounding::Exact), Err(error));
}

#[test]
fn weights_of_two_are_kept_where_there_is_a_code_and_refused_elsewhere() {
    let mut codes = matrix(4, 256, Scales::Tensor(1.0), 23).to_trits();
    (codes[256 + 3], codes[3 * 256 + 200]) = (2, 2);
    let w = TernaryMatrix::from_codes(4, 256, &codes, Scales::Tensor(0.5)).unwrap();
    let twos = crate::Twos { row: 1, col: 3, count: 2 };
    assert_eq!((w.levels(), w.twos()), (Levels::Four, Some(twos)));
    for format in written() {
        match format.encode(&w, ScaleRounding::Exact) {
            Ok(bytes) => {
                assert!(matches!(format, FileFormat::Q2_0 | FileFormat::Pq2_0), "{format}");
                let back = read(format, &w, bytes).unwrap();
                assert_eq!((back.to_trits(), back.twos()), (codes.clone(), Some(twos)), "{format}");
                // If a slice leaves out the rows with them, the rest is ternary.
                assert_eq!(back.slice_rows(2..3).unwrap().levels(), Levels::Three);
                let turned = back.with_row_order(&[3, 2, 1, 0]).unwrap();
                assert_eq!(turned.twos(), Some(crate::Twos { row: 0, col: 200, count: 2 }));
            }
            Err(e) => assert_eq!(e, KernelError::Twos { what: format.name().to_owned(), twos }),
        }
    }
    assert!(TernaryMatrix::from_codes(1, 2, &[2, 3], Scales::Tensor(1.0)).is_err());
    assert!(TernaryMatrix::from_trits(1, 2, &[2, 1], Scales::Tensor(1.0)).is_err());
}

#[test]
fn kernels_for_whole_rows_refuse_groups() {
    let w = matrix(4, 256, groups(128, 4, 256), 29);
    for kernel in crate::kernels_available() {
        let error = KernelError::GroupsUnsupported { kernel: kernel.name().to_owned(), group_len: 128 };
        assert_eq!(kernel.prepack(&w).unwrap_err(), error);
    }
}

#[test]
fn a_factor_beside_groups_must_leave_them_exact() {
    let w = matrix(2, 128, groups(64, 2, 128), 31);
    let bytes = FileFormat::Q2_0.encode(&w, ScaleRounding::Exact).unwrap();
    let with = |s| TernaryMatrix::from_bytes(FileFormat::Q2_0, 2, 128, bytes.clone().into(), Some(s));
    let doubled = with(Scales::Tensor(2.0)).unwrap();
    assert_eq!(doubled.scales().at(1, 64), 2.0 * w.scales().at(1, 64));
    assert!(matches!(with(Scales::Tensor(0.3)), Err(KernelError::InexactScale { .. })));
}

#[test]
fn the_table_names_every_format_once() {
    let names: std::collections::HashSet<_> = FORMATS.iter().map(|f| f.name).collect();
    assert_eq!(names.len(), FORMATS.len());
    for format in FileFormat::ALL {
        assert!(FORMATS.contains(format.info()), "{format}");
    }
    assert_eq!(FORMATS.len(), FileFormat::ALL.len() + 2);
}
