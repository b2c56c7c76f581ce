//! Refusals and round trips of every format.

use proptest::prelude::*;

use super::*;

fn matrix(rows: usize, cols: usize, scales: Scales, seed: u64) -> TernaryMatrix {
    let mut state = seed;
    let mut trit = || {
        state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        ((state >> 33) % 3) as i8 - 1
    };
    let trits: Vec<i8> = (0..rows * cols).map(|_| trit()).collect();
    TernaryMatrix::from_trits(rows, cols, &trits, scales).unwrap()
}

/// Weights that a row must hold a multiple of.
fn unit(format: FileFormat) -> usize {
    match format {
        FileFormat::Trits | FileFormat::HfPacked => 1,
        FileFormat::I2S => 128,
        FileFormat::Tq1_0 | FileFormat::Tq2_0 => 256,
        FileFormat::Iq1Bn | FileFormat::Iq2Bn => 64,
        FileFormat::Tl1(_) | FileFormat::Tl2(_) => unreachable!("not among ALL"),
    }
}

fn read(format: FileFormat, like: &TernaryMatrix, bytes: Vec<u8>) -> Result<TernaryMatrix, KernelError> {
    let beside = (!format.holds_scale()).then(|| like.scales().clone());
    TernaryMatrix::from_bytes(format, like.rows(), like.cols(), bytes.into(), beside)
}

proptest! {
    #[test]
    fn round_trips_keep_trits_and_scale(rows in 0usize..40, units in 0usize..5, odd in 0usize..130, seed in any::<u64>()) {
        for &format in FileFormat::ALL {
            let cols = if unit(format) == 1 { odd } else { units * unit(format) };
            let w = matrix(rows, cols, Scales::Tensor(1.5), seed);
            let bytes = format.encode(&w, ScaleRounding::Exact).unwrap();
            prop_assert_eq!(bytes.len(), format.byte_len(rows, cols).unwrap());
            let back = read(format, &w, bytes.clone()).unwrap();
            prop_assert_eq!(back.to_trits(), w.to_trits(), "{}", format);
            if rows * cols > 0 {
                prop_assert_eq!(back.scales(), w.scales(), "{}", format);
            }
            // From any format into any other that holds the shape, and back.
            for &other in FileFormat::ALL.iter().filter(|o| rows * cols > 0 && cols.is_multiple_of(unit(**o))) {
                let through = read(other, &w, other.encode(&back, ScaleRounding::Exact).unwrap()).unwrap();
                prop_assert_eq!(&format.encode(&through, ScaleRounding::Exact).unwrap(), &bytes, "{} {}", format, other);
            }
        }
    }

    /// Whatever the bytes, validation answers, and what it accepts decodes to trits.
    #[test]
    fn random_bytes_are_judged_without_a_panic(rows in 0usize..6, units in 0usize..3, seed in any::<u64>(), mask in any::<u8>()) {
        for &format in FileFormat::ALL {
            let cols = units * unit(format);
            let mut state = seed | 1;
            let bytes: Vec<u8> = (0..format.byte_len(rows, cols).unwrap())
                .map(|_| { state = state.wrapping_mul(6364136223846793005).wrapping_add(1); (state >> 56) as u8 & mask })
                .collect();
            if let Ok(w) = TernaryMatrix::from_bytes(format, rows, cols, bytes.into(), None) {
                prop_assert!(w.to_trits().iter().all(|t| (-1..=1).contains(t)));
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
            assert_eq!(format.encode(&w, ScaleRounding::Nearest), Err(error.clone()));
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
        // Nothing to store, and nothing may be allocated by the number of rows.
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
    match format {
        FileFormat::I2S => (3 * 64, 4),
        FileFormat::Tq1_0 => (54 + 52, 2),
        FileFormat::Tq2_0 => (66 + 64, 2),
        FileFormat::Iq1Bn => (2 + 4 * 13, 2),
        FileFormat::Iq2Bn => (4 + 4 * 16, 4),
        _ => unreachable!(),
    }
}

#[test]
fn scales_that_are_negative_or_not_finite_are_refused() {
    for &format in FileFormat::ALL.iter().filter(|f| f.holds_scale()) {
        let good = format.encode(&matrix(3, 256, Scales::Tensor(0.5), 7), ScaleRounding::Exact).unwrap();
        let (at, width) = scale_of_row_1(format);
        for value in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY, -1.0] {
            let mut bad = good.clone();
            match width {
                2 => bad[at..at + 2].copy_from_slice(&half::f16::from_f32(value).to_le_bytes()),
                _ => bad[at..at + 4].copy_from_slice(&value.to_le_bytes()),
            }
            let row = usize::from(format != FileFormat::I2S);
            match format.validate(3, 256, &bad) {
                Err(KernelError::InvalidScale { format: f, row: r, value: v }) => {
                    assert_eq!((f, r, v.to_bits()), (format, row, value.to_bits()));
                }
                other => panic!("{format} took scale {value}: {other:?}"),
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
fn tq_blocks_agree_within_a_row_or_are_zero() {
    for format in [FileFormat::Tq1_0, FileFormat::Tq2_0] {
        let w = matrix(3, 512, Scales::Tensor(0.5), 9);
        let good = format.encode(&w, ScaleRounding::Exact).unwrap();
        let load = |bytes: &[u8]| TernaryMatrix::from_bytes(format, 3, 512, bytes.to_vec().into(), None);

        let mut mixed = good.clone();
        set_d(format, &mut mixed, 3, 0.25);
        let error = KernelError::MixedScales { format, row: 1, first: 0.5, second: 0.25 };
        assert_eq!(load(&mixed).unwrap_err(), error);

        // A block of scale 0 is zeros, whatever its codes; the row keeps the scale of its other block.
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
    for format in [FileFormat::Tq1_0, FileFormat::Tq2_0, FileFormat::Iq1Bn] {
        let w = |s| matrix(2, 256, Scales::Tensor(s), 11);
        let refused = |s: f32, rounding| {
            let error = KernelError::InexactScale { format, stored_as: "f16", row: 0, value: s };
            assert_eq!(format.encode(&w(s), rounding), Err(error), "{format} {s}");
        };
        for s in [0.1, 1.0 / 3.0, 70000.0, 1e-9] {
            refused(s, ScaleRounding::Exact);
        }
        // Infinity and zero are no neighbours of a scale.
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
    for format in [FileFormat::Tq1_0, FileFormat::Tq2_0, FileFormat::Iq1Bn, FileFormat::Iq2Bn] {
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
    for &format in FileFormat::ALL {
        let loaded = read(format, &w, format.encode(&w, ScaleRounding::Exact).unwrap()).unwrap();
        let moved_too = loaded.with_row_order(&[5, 4, 0, 1, 2, 3]).unwrap().slice_rows(1..4).unwrap();
        assert_eq!((moved_too.to_trits(), moved.to_trits()), (expected.clone(), expected.clone()), "{format}");
        let bytes = format.encode(&moved_too, ScaleRounding::Exact).unwrap();
        assert_eq!(read(format, &moved, bytes).unwrap().to_trits(), expected, "{format}");
    }
}
