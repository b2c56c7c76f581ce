//! TL1 and TL2: the closed forms against writers that never compute an offset, round trips, rejections.

use proptest::prelude::*;
use test_support::Random;

use super::*;

const ONE: Scales = Scales::Tensor(1.5);

fn matrix(rows: usize, cols: usize, seed: u64) -> TernaryMatrix {
    let trits = Random(seed).trits(rows * cols);
    TernaryMatrix::from_trits(rows, cols, &trits, ONE).unwrap()
}

/// `rows` tiles, blocks per tile, steps per tile, tiles per row, block height: a shape with tile sizes that fit it.
fn tl1_case(mt: usize, mb: usize, kb: usize, kt: usize, tall: bool) -> (TlTile, usize, usize) {
    let bmm = if tall { 64 } else { 32 };
    let tile = TlTile { bm: mb * bmm, bk: kb * (256 / bmm), bmm };
    (tile, mt * tile.bm, kt * tile.bk)
}

/// TL1 written byte by byte, in the order of the loops in its description.
fn naive_tl1(w: &TernaryMatrix, t: TlTile) -> Vec<u8> {
    let (trits, k, by) = (w.to_trits(), w.cols(), 256 / t.bmm);
    let at = |r: usize, c: usize| i32::from(trits[r * k + c]);
    let mut out = Vec::new();
    for tile_row in (0..w.rows()).step_by(t.bm) {
        for tile_col in (0..k).step_by(t.bk) {
            for block in (tile_row..tile_row + t.bm).step_by(t.bmm) {
                for step in (tile_col..tile_col + t.bk).step_by(by) {
                    for strip in (block..block + t.bmm).step_by(16) {
                        for c in (step..step + by).step_by(4) {
                            for r in strip..strip + 16 {
                                let index = |c: usize| (at(r, c) + 1) * 3 + at(r, c + 1) + 1;
                                out.push((index(c) * 16 + index(c + 2)) as u8);
                            }
                        }
                    }
                }
            }
        }
    }
    out.extend(1.5f32.to_le_bytes());
    out.resize(out.len() + 28, 0);
    out
}

/// TL2 written likewise, stream by stream; rows of a block in their stored order.
fn naive_tl2(w: &TernaryMatrix, t: TlTile) -> Vec<u8> {
    let (trits, k) = (w.to_trits(), w.cols());
    let at = |r: usize, c: usize| i32::from(trits[r * k + c]);
    let stored: Vec<usize> = [0..8, 16..24, 8..16, 24..32].into_iter().flatten().collect();
    let cut = k - k % t.bk;
    let value = |r: usize, c: usize| 9 * at(r, c) + 3 * at(r, c + 1) + at(r, c + 2);
    let blocks = |from: usize, to: usize, tile_cols: usize| {
        let mut all = Vec::new();
        for tile_row in (0..w.rows()).step_by(t.bm) {
            for tile_col in (from..to).step_by(tile_cols) {
                all.extend((tile_row..tile_row + t.bm).step_by(32).map(|row| (row, tile_col)));
            }
        }
        all
    };
    let mut out = Vec::new();
    for &(row, col) in &blocks(0, cut, t.bk) {
        for c in (col..col + t.bk).step_by(6) {
            out.extend(stored.iter().map(|r| (value(row + r, c).abs() * 16 + value(row + r, c + 3).abs()) as u8));
        }
    }
    for &(row, col) in &blocks(0, cut, t.bk) {
        for c in (col..col + t.bk).step_by(24) {
            for r in row..row + 16 {
                // Triples in order, for each the two rows in turn, most significant first.
                let negative = (0..16).map(|i| value(r + i % 2 * 16, c + i / 2 * 3) < 0);
                let word = negative.fold(0u16, |word, n| word * 2 + u16::from(n));
                out.extend(word.to_le_bytes());
            }
        }
    }
    for &(row, col) in &blocks(cut, k, 32) {
        for c in (col..col + 32).step_by(4) {
            let index = |r: usize, c: usize| (at(r, c) + 1) * 3 + at(r, c + 1) + 1;
            out.extend(stored.iter().map(|r| (index(row + r, c) * 16 + index(row + r, c + 2)) as u8));
        }
    }
    let (m, k) = (w.rows() as f64, k as f64);
    let room = (((k - 256.0) * m / 3.0).floor() * 5.0 / 8.0).floor() + 64.0 * m;
    out.resize((room as usize).next_multiple_of(32), 0);
    out.extend(1.5f32.to_le_bytes());
    out.resize(out.len() + 28, 0);
    out
}

fn round_trip(format: FileFormat, w: &TernaryMatrix, expected: &[u8]) -> Result<(), TestCaseError> {
    let bytes = format.encode(w, ScaleRounding::Exact).unwrap();
    prop_assert_eq!(bytes.len(), format.byte_len(w.rows(), w.cols()).unwrap());
    prop_assert!(bytes == expected, "{} {:?} [{}, {}]", format, format, w.rows(), w.cols());
    let back = TernaryMatrix::from_bytes(format, w.rows(), w.cols(), bytes.into(), None).unwrap();
    prop_assert!(back.to_trits() == w.to_trits());
    prop_assert_eq!(back.scales(), w.scales());
    // To another format and back.
    let hf = FileFormat::HfPacked.encode(&back, ScaleRounding::Exact).unwrap();
    let hf = TernaryMatrix::from_bytes(FileFormat::HfPacked, w.rows(), w.cols(), hf.into(), Some(ONE)).unwrap();
    prop_assert!(format.encode(&hf, ScaleRounding::Exact).unwrap() == expected);
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn tl1_equals_the_naive_writer(
        mt in 1usize..4, mb in 1usize..4, kb in 1usize..9, kt in 1usize..4, tall in any::<bool>(), seed in any::<u64>(),
    ) {
        let (tile, rows, cols) = tl1_case(mt, mb, kb, kt, tall);
        let w = matrix(rows, cols, seed);
        round_trip(FileFormat::Tl1(tile), &w, &naive_tl1(&w, tile))?;
    }

    #[test]
    fn tl2_equals_the_naive_writer(
        mt in 1usize..4, mb in 1usize..4, spans in 1usize..9, kt in 0usize..4, rest in 0usize..8, seed in any::<u64>(),
    ) {
        let tile = TlTile { bm: mb * 32, bk: spans * 24, bmm: 32 };
        let cols = kt * tile.bk + (rest * 32) % tile.bk / 32 * 32;
        prop_assume!(cols > 0);
        let w = matrix(mt * tile.bm, cols, seed);
        round_trip(FileFormat::Tl2(tile), &w, &naive_tl2(&w, tile))?;
    }

    /// Validation returns for all bytes, and what it accepts are trits that encode to the same bytes.
    #[test]
    fn random_bytes_are_judged_without_a_panic(seed in any::<u64>(), mask in any::<u8>(), cut in 0usize..2048) {
        for (format, rows, cols) in small() {
            let len = format.byte_len(rows, cols).unwrap();
            let mut bytes = Random(seed).bytes(len);
            bytes.iter_mut().for_each(|b| *b &= mask);
            // Zeros, so that some cases pass the checks of the padding and the scale.
            bytes[cut.min(len)..].fill(0);
            if let Ok(w) = TernaryMatrix::from_bytes(format, rows, cols, bytes.clone().into(), None) {
                prop_assert!(w.to_trits().iter().all(|t| (-1..=1).contains(t)));
                prop_assert!(format.encode(&w, ScaleRounding::Exact).unwrap()[..len - 28] == bytes[..len - 28]);
            }
        }
    }
}

/// One small shape of each format.
fn small() -> [(FileFormat, usize, usize); 2] {
    [
        (FileFormat::Tl1(TlTile { bm: 64, bk: 16, bmm: 32 }), 128, 32),
        (FileFormat::Tl2(TlTile { bm: 64, bk: 48, bmm: 32 }), 128, 128),
    ]
}

#[test]
fn sizes_that_a_format_cannot_have_are_refused_with_the_reason() {
    let tile = |bm, bk, bmm| TlTile { bm, bk, bmm };
    let says = |format: FileFormat, (rows, cols): (usize, usize), what: &str| {
        let error = format.byte_len(rows, cols).unwrap_err();
        assert!(matches!(error, KernelError::UnsupportedTile { .. }) && error.to_string().contains(what), "{error}");
        assert!(error.to_string().contains("bm="), "{error}");
        assert_eq!(format.validate(rows, cols, &[]), Err(error.clone()));
        // Only if the matrix is small enough to build.
        if rows * cols < 1 << 20 {
            assert_eq!(format.encode(&matrix(rows, cols, 1), ScaleRounding::Nearest), Err(error));
        }
    };
    for zero in [tile(0, 32, 32), tile(32, 0, 32), tile(32, 32, 0)] {
        says(FileFormat::Tl1(zero), (64, 64), "may be 0");
        says(FileFormat::Tl2(zero), (64, 64), "may be 0");
    }
    says(FileFormat::Tl1(tile(48, 32, 32)), (96, 64), "multiple of bmm");
    says(FileFormat::Tl1(tile(64, 32, 32)), (96, 64), "multiple of bm");
    says(FileFormat::Tl1(tile(64, 32, 16)), (64, 64), "32 or 64");
    says(FileFormat::Tl1(tile(64, 12, 32)), (64, 24), "256 / bmm");
    says(FileFormat::Tl1(tile(64, 32, 32)), (64, 80), "columns must be a multiple of bk");
    // The preset of bitnet_b1_58-large that its own converter cannot use.
    says(FileFormat::Tl2(tile(256, 96, 64)), (4096, 1536), "bmm must be 32");
    says(FileFormat::Tl2(tile(64, 32, 32)), (64, 64), "24");
    says(FileFormat::Tl2(tile(64, 48, 32)), (64, 56), "multiple of 32");
    says(FileFormat::Tl2(tile(64, 480, 32)), (64, 288), "256");
    says(FileFormat::Tl2(tile(64, 48, 32)), (64, 0), "columns");
}

#[test]
fn lengths_and_sizes_that_overflow_are_refused() {
    for (format, rows, cols) in small() {
        let len = format.byte_len(rows, cols).unwrap();
        for got in [0, len - 1, len + 1] {
            let expected = KernelError::ShapeMismatch { op: format.name(), what: "bytes", expected: len, got };
            assert_eq!(format.validate(rows, cols, &vec![0; got]), Err(expected));
        }
        for (rows, cols) in [(usize::MAX - 63, 48 * 32), (1 << 40, 48 << 36), (1 << 62, 96)] {
            assert_eq!(format.byte_len(rows, cols), Err(KernelError::TooLarge { op: format.name(), rows, cols }));
        }
        // There is nothing to store.
        assert_eq!(format.byte_len(0, cols), Ok(32));
        assert!(format.validate(0, cols, &[0; 32]).is_ok());
    }
}

#[test]
fn an_index_above_8_is_refused_and_named() {
    let (format, rows, cols) = small()[0];
    let w = matrix(rows, cols, 3);
    let (good, trits) = (format.encode(&w, ScaleRounding::Exact).unwrap(), w.to_trits());
    for at in (0..rows * cols / 4).step_by(5) {
        for (bits, second) in [(0xf0, 0), (0x0f, 2)] {
            let mut bad = good.clone();
            bad[at] |= bits;
            let Err(KernelError::InvalidCode { row, col, code: 15, .. }) = format.validate(rows, cols, &bad) else {
                panic!("{at}");
            };
            // The weight that the error names is one of those in the byte.
            let mut changed = good.clone();
            let index = good[at] >> (if second == 0 { 4 } else { 0 }) & 15;
            let other = if index == 4 { 5 } else { 4 };
            changed[at] = changed[at] & !bits | if second == 0 { other << 4 } else { other };
            let changed = TernaryMatrix::from_bytes(format, rows, cols, changed.into(), None).unwrap().to_trits();
            let differ: Vec<usize> = (0..rows * cols).filter(|i| changed[*i] != trits[*i]).collect();
            assert!(differ.iter().all(|i| i / cols == row && (col..col + 2).contains(&(i % cols))), "{at}: {differ:?}");
        }
    }
}

#[test]
fn what_no_writer_of_tl2_leaves_behind_is_refused() {
    let (format, rows, cols) = small()[1];
    let len = format.byte_len(rows, cols).unwrap();
    let zeros = TernaryMatrix::from_trits(rows, cols, &vec![0; rows * cols], ONE).unwrap();
    let good = format.encode(&zeros, ScaleRounding::Exact).unwrap();
    let with = |at: usize, byte: u8| {
        let mut bad = good.clone();
        bad[at] = byte;
        let Err(KernelError::ForeignTiles { at, what, .. }) = format.validate(rows, cols, &bad) else { panic!("{at}") };
        (at, what)
    };
    let (signs, pairs) = (96 * rows / 6, 96 * rows / 6 + 96 * rows / 24);
    let end = pairs + 32 * rows / 4;
    assert!(end < len - 32);
    assert_eq!(with(70, 0xe0), (70, "holds an index above 13"));
    assert_eq!(with(70, 0x0e), (70, "holds an index above 13"));
    for byte in [1, 0x80] {
        assert_eq!(with(signs + 6, byte), (signs + 6, "gives zeros a sign"));
        assert_eq!(with(signs + 7, byte), (signs + 6, "gives zeros a sign"));
    }
    assert_eq!(with(pairs + 9, 0x94), (pairs + 9, "holds an index above 8"));
    assert_eq!(with(end, 1), (end, "is not zero padding"));
    assert_eq!(with(len - 33, 1), (len - 33, "is not zero padding"));
    // After the scale, anything is allowed.
    let mut odd = good.clone();
    odd[len - 1] = 9;
    assert!(format.validate(rows, cols, &odd).is_ok());
}

/// Sizes that divide the rows at another column are detected in TL2, by signs of zeros and by non-zero padding. Others
/// are not: they move whole blocks, with their signs.
#[test]
fn other_tile_sizes_show_in_tl2_where_they_cut_rows_elsewhere() {
    let (rows, cols) = (320, 320);
    let w = matrix(rows, cols, 5);
    let tile = |bm, bk| FileFormat::Tl2(TlTile { bm, bk, bmm: 32 });
    let bytes = tile(160, 96).encode(&w, ScaleRounding::Exact).unwrap();
    let read = |bm, bk| TernaryMatrix::from_bytes(tile(bm, bk), rows, cols, bytes.clone().into(), None);
    for bk in [120, 192, 240] {
        if tile(160, bk).byte_len(rows, cols).is_err() {
            continue;
        }
        let error = read(160, bk).unwrap_err().to_string();
        assert!(error.contains("other tile sizes"), "{bk}: {error}");
    }
    assert!(read(160, 192).is_err());
    for (bm, bk) in [(320, 96), (32, 96), (160, 48)] {
        assert!(read(bm, bk).unwrap().to_trits() != w.to_trits(), "{bm} {bk}");
    }
}

#[test]
fn scales_are_checked() {
    for (format, rows, cols) in small() {
        let mut bytes = format.encode(&matrix(rows, cols, 7), ScaleRounding::Exact).unwrap();
        let at = bytes.len() - 32;
        for value in [f32::NAN, f32::INFINITY, -1.0] {
            bytes[at..at + 4].copy_from_slice(&value.to_le_bytes());
            let error = format.validate(rows, cols, &bytes).unwrap_err();
            assert!(matches!(error, KernelError::InvalidScale { row: 0, .. }), "{error}");
        }
        let trits = matrix(rows, cols, 7).to_trits();
        let scales: Vec<f32> = (0..rows).map(|r| 1.0 + r as f32).collect();
        let w = TernaryMatrix::from_trits(rows, cols, &trits, Scales::Rows(scales.into())).unwrap();
        let error = KernelError::OneScaleOnly { format, row: 1, first: 1.0, second: 2.0 };
        assert_eq!(format.encode(&w, ScaleRounding::Exact), Err(error));
    }
}

#[test]
fn slices_and_reordered_rows_of_tiled_bytes_are_themselves() {
    for (format, rows, cols) in small() {
        let w = matrix(rows, cols, 9);
        let bytes = format.encode(&w, ScaleRounding::Exact).unwrap();
        let read = TernaryMatrix::from_bytes(format, rows, cols, bytes.into(), None).unwrap();
        let order: Vec<u32> = (0..rows as u32).rev().collect();
        let change = |m: &TernaryMatrix| m.with_row_order(&order).unwrap().slice_rows(5..70).unwrap().to_trits();
        assert_eq!(change(&read), change(&w));
    }
}
