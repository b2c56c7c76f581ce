//! Formats of blocks with one scale each, against bytes, values and products made by independent software.

use half::f16;
use safetensors::SafeTensors;
use ternary_kernels::{FileFormat, KernelError, Levels, ScaleRounding, Scales, TernaryMatrix};

fn units() -> Option<Vec<u8>> {
    let path = test_support::shared_dir()?.join("fixtures/families/block_units/units.safetensors");
    Some(std::fs::read(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display())))
}

fn format(name: &str) -> FileFormat {
    *FileFormat::ALL.iter().find(|f| f.name() == name).unwrap_or_else(|| panic!("no format {name}"))
}

fn u8s(file: &SafeTensors<'_>, name: &str) -> Vec<u8> {
    file.tensor(name).unwrap_or_else(|e| panic!("{name}: {e}")).data().to_vec()
}

fn f32s(file: &SafeTensors<'_>, name: &str) -> Vec<f32> {
    u8s(file, name).as_chunks().0.iter().map(|b| f32::from_le_bytes(*b)).collect()
}

fn i8s(file: &SafeTensors<'_>, name: &str) -> Vec<i8> {
    bytemuck::cast_slice(&u8s(file, name)).to_vec()
}

/// All weights with their scales, `[rows, cols]`.
fn values(w: &TernaryMatrix) -> Vec<f32> {
    let mut all = vec![0.0; w.rows() * w.cols()];
    let mut trits = vec![0; w.cols()];
    for (r, row) in all.chunks_exact_mut(w.cols()).enumerate() {
        w.decode_row_f32(r, &mut trits, row);
    }
    all
}

const NAMES: [&str; 7] = ["Q2_0", "PQ2_0", "PTQ1_0", "Q1_0", "TQ1_0", "TQ2_0", "STQ1_0"];

#[test]
fn blocks_decode_to_the_reference_and_encode_to_its_bytes() {
    let Some(bytes) = units() else { return };
    let file = SafeTensors::deserialize(&bytes).unwrap();
    for name in NAMES {
        let format = format(name);
        let weights = format.info().weights;
        let (stored, codes) = (u8s(&file, &format!("{name}.bytes")), i8s(&file, &format!("{name}.codes")));
        let expected = f32s(&file, &format!("{name}.f32"));
        let blocks = codes.len() / weights;
        // Each block as a row, and all blocks as one row.
        for (rows, cols) in [(blocks, weights), (1, blocks * weights)] {
            let w = TernaryMatrix::from_bytes(format, rows, cols, stored.clone().into(), None).unwrap();
            assert_eq!(w.to_trits(), codes, "{name}");
            assert_eq!(values(&w), expected, "{name}");
            assert_eq!(matches!(w.scales(), Scales::Groups(_)), rows == 1, "{name}: {:?}", w.scales());
            match format.encode(&w, ScaleRounding::Exact) {
                Ok(again) => assert_eq!(again, stored, "{name}"),
                Err(e) => assert!(!format.info().writable && matches!(e, KernelError::ReadOnlyFormat { .. }), "{e}"),
            }
        }
        let scales = u8s(&file, &format!("{name}.scale_f16"));
        let scales: Vec<u16> = scales.as_chunks().0.iter().map(|b| u16::from_le_bytes(*b)).collect();
        let row = TernaryMatrix::from_bytes(format, 1, blocks * weights, stored.into(), None).unwrap();
        let Scales::Groups(groups) = row.scales() else { panic!("{name}: {:?}", row.scales()) };
        assert_eq!(groups.row(0).iter().map(|d| d.to_bits()).collect::<Vec<_>>(), scales, "{name}");
        assert_eq!((groups.group_len(), groups.groups()), (weights, blocks));
    }
}

#[test]
fn rows_multiply_as_the_reference_does() {
    let Some(bytes) = units() else { return };
    let file = SafeTensors::deserialize(&bytes).unwrap();
    for name in NAMES {
        let format = format(name);
        let stored = u8s(&file, &format!("{name}.row.bytes"));
        let x = i8s(&file, &format!("{name}.row.q"));
        let w = TernaryMatrix::from_bytes(format, 1, x.len(), stored.into(), None).unwrap();
        let len = format.info().weights;
        let dots: Vec<i32> = (w.to_trits().chunks(len).zip(x.chunks(len)))
            .map(|(t, x)| t.iter().zip(x).map(|(t, x)| i32::from(*t) * i32::from(*x)).sum())
            .collect();
        let expected = u8s(&file, &format!("{name}.row.block_dots"));
        let expected: Vec<i32> = expected.as_chunks().0.iter().map(|b| i32::from_le_bytes(*b)).collect();
        assert_eq!(dots, expected, "{name}");
        let exact: f64 =
            dots.iter().enumerate().map(|(g, d)| f64::from(w.scales().at(0, g * len)) * f64::from(*d)).sum();
        let wanted = f64::from_le_bytes(u8s(&file, &format!("{name}.row.dot_f64")).try_into().unwrap());
        // Sums of at most 16 products of 11 by 15 bits: f64 rounds none of them by more than an ulp.
        assert!((exact - wanted).abs() <= 1e-12 * wanted.abs().max(1.0), "{name}: {exact} {wanted}");
    }
}

/// Invalid input is rejected and named in the error; the rest decodes by the plain formula.
#[test]
fn hostile_blocks_are_refused_or_read_as_the_formula_says() {
    let Some(bytes) = units() else { return };
    let file = SafeTensors::deserialize(&bytes).unwrap();
    let mut cases = 0;
    for name in file.names() {
        let Some(case) = name.strip_prefix("hostile.").and_then(|n| n.strip_suffix(".bytes")) else { continue };
        let (ty, what) = case.split_once('.').unwrap();
        let format = format(ty);
        let stored = u8s(&file, name);
        let expected = f32s(&file, &format!("hostile.{case}.f32"));
        let weights = format.info().weights;
        let blocks = expected.len() / weights;
        for (rows, cols) in [(blocks, weights), (1, blocks * weights)] {
            let read = TernaryMatrix::from_bytes(format, rows, cols, stored.clone().into(), None);
            let place = if rows == 1 { (0, 1) } else { (1, 0) };
            match what {
                "nan_scale" | "inf_scale" | "neg_scale" => match read {
                    Err(KernelError::InvalidBlockScale { row, block, .. }) => {
                        assert_eq!((row, block), place, "{case}");
                    }
                    other => panic!("{case}: {other:?}"),
                },
                "code3" if ty == "TQ2_0" => {
                    assert!(matches!(read, Err(KernelError::InvalidCode { code: 3, .. })), "{case}: {read:?}");
                }
                "code3" | "all_code3" => {
                    let w = read.unwrap();
                    assert_eq!(values(&w), expected, "{case}");
                    let twos = w.twos().unwrap();
                    let count = if what == "code3" { 1 } else { blocks * weights };
                    assert_eq!((w.levels(), twos.count), (Levels::Four, count), "{case}");
                    let mut row = vec![0; cols];
                    w.decode_row(twos.row, &mut row);
                    assert_eq!(row[twos.col], 2, "{case}");
                    // No kernel for trits treats it as +1, and no format of trits does.
                    for kernel in ternary_kernels::kernels_available() {
                        assert!(kernel.prepack(&w).is_err(), "{}", kernel.name());
                    }
                    for narrow in [FileFormat::Tq2_0, FileFormat::Ptq1_0, FileFormat::HfPacked] {
                        let error = narrow.encode(&w, ScaleRounding::Exact).unwrap_err();
                        let shape = matches!(error, KernelError::UnsupportedShape { .. });
                        assert!(shape || matches!(error, KernelError::Twos { .. }), "{error}");
                    }
                    assert_eq!(format.encode(&w, ScaleRounding::Exact).unwrap(), stored, "{case}");
                }
                "zero_scale" | "neg_zero_scale" | "byte_over_242_code" | "qh_fifth_trit" => {
                    assert_eq!(values(&read.unwrap()), expected, "{case}");
                }
                other => panic!("unknown case: {other}"),
            }
            cases += 1;
        }
    }
    assert!(cases >= 2 * 40, "{cases}");
}

#[test]
fn the_scale_at_the_other_end_is_another_format() {
    let Some(bytes) = units() else { return };
    let file = SafeTensors::deserialize(&bytes).unwrap();
    let codes = i8s(&file, "wrong_end.codes");
    let scales = u8s(&file, "wrong_end.scale_f16");
    let read = |format, name| TernaryMatrix::from_bytes(format, 64, 128, u8s(&file, name).into(), None);
    let last = read(FileFormat::Tq2_0G128, "wrong_end.bytes").unwrap();
    let first = read(FileFormat::Pq2_0, "right_end.bytes").unwrap();
    for w in [&last, &first] {
        assert_eq!(w.to_trits(), codes);
        for (r, d) in scales.as_chunks().0.iter().enumerate() {
            assert_eq!(w.scales().at(r, 0), f16::from_le_bytes(*d).to_f32());
        }
    }
    // Read from the wrong end it is noise, and usually rejected.
    if let Ok(noise) = read(FileFormat::Pq2_0, "wrong_end.bytes") {
        assert_ne!(noise.to_trits(), codes);
    }
}
