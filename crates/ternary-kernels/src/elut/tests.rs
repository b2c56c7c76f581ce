//! The layout as documented, and the bounds of rounded tables.

use test_support::Random;

use super::code::Code;
use super::*;
use crate::i2s::even_parts;

fn numbers(seed: u64) -> impl FnMut(u64) -> u64 {
    let mut random = Random(seed);
    move |n| random.bits() % n
}

/// Reads back every group of every row from the place that the picture in the module's documentation gives.
#[test]
fn groups_lie_where_the_picture_says() {
    let sets: [(&[i8], usize); 5] =
        [(&[-1, 0, 1], 2), (&[-1, 0, 1], 3), (&[-2, -1, 0, 1], 2), (&[-2, -1, 0, 1, 2], 2), (&[-1, 1], 5)];
    for (levels, len) in sets {
        let code = Code::new(levels, len).unwrap();
        for (rows, cols) in [(35, 2 * 48 + 17), (1, 1), (64, 320), (3, 47)] {
            let mut next = numbers((rows * cols + len) as u64);
            let codes: Vec<u8> = (0..rows * cols).map(|_| next(levels.len() as u64) as u8).collect();
            let packed = pack::pack("x", &code, (rows, cols), |r, out| {
                out.copy_from_slice(&codes[r * cols..][..cols]);
            })
            .unwrap();
            let panel_bytes = code.panel_bytes(cols);
            assert_eq!(packed.byte_len(), rows.div_ceil(32) * panel_bytes);
            let at = |row: usize, col: usize| match (row, col) {
                (row, col) if row < rows && col < cols => codes[row * cols + col],
                _ => code.padding,
            };
            let all = packed.all();
            let mut seen = 0;
            for (p, panel) in all.bytes().chunks(panel_bytes).enumerate() {
                for r in 0..32 {
                    let mut col = 0;
                    let block_cols = code.mirrored.map_or(usize::MAX, |m| 16 * m.len);
                    let blocks = cols / block_cols;
                    let place = 32 * (r / 16) + r % 16;
                    // Byte and sign bit of group g of chunk c.
                    let mut expect = |groups: &Groups, lines: &[Chunk], c: usize, signs: Option<&Chunk>| {
                        for g in 0..4 {
                            let at_byte = place + 16 * (g % 2);
                            let nibble = lines[c][at_byte] >> (4 * (g / 2)) & 15;
                            let sign = signs.is_some_and(|s| s[at_byte] >> (7 - 2 * c - g / 2) & 1 == 1);
                            let group: Vec<u8> = (0..groups.len).map(|j| at(32 * p + r, col + j)).collect();
                            let expected = match 32 * p + r < rows {
                                true => groups.index(&group, levels.len()),
                                false => (0, false),
                            };
                            assert_eq!((nibble, sign), expected, "row {r}, column {col}");
                            col += groups.len;
                            seen += 1;
                        }
                    };
                    for b in 0..blocks {
                        let lines: &[Chunk] = panel[b * 320..][..320].as_chunks().0;
                        (0..4).for_each(|c| expect(&code.mirrored.unwrap(), lines, c, Some(&lines[4])));
                    }
                    for chunk in panel[blocks * 320..].as_chunks::<64>().0 {
                        expect(&code.plain, std::slice::from_ref(chunk), 0, None);
                    }
                    assert!(col >= cols && col < cols + 4 * code.plain.len);
                }
            }
            assert!(seen > 0);
        }
    }
}

/// Runs cover a section, do not exceed the requested length, and consist of whole blocks if the section has blocks.
#[test]
fn runs_cover_a_section() {
    let code = Code::new(&[-1, 0, 1], 3).unwrap();
    for cols in [48, 2560, 6912, 6911, 100_000] {
        for most in [4, 40, 64] {
            for section in code.sections(cols).into_iter().flatten() {
                let (mut col, mut byte, mut chunks) = (section.col, section.byte, 0);
                for run in section.runs(most) {
                    assert!(run.chunks > 0 && run.chunks <= most);
                    assert!(!run.groups.mirror || run.chunks % BLOCK_CHUNKS == 0);
                    assert_eq!((run.col, run.byte), (col, byte));
                    col += run.cols();
                    byte += bytes_of(run.chunks, run.groups.mirror);
                    chunks += run.chunks;
                }
                assert_eq!(chunks, section.chunks);
            }
        }
    }
    assert_eq!(even_parts(0..0, 4).count(), 0);
}

/// 16-bit sums hold the longest run: two entries for each lane from every chunk.
#[test]
fn runs_fit_their_sums() {
    for (levels, len) in [(&[-1i8, 0, 1][..], 2), (&[-1, 0, 1], 3), (&[-15, 15], 1), (&[-1, 1], 4), (&[-7, 7], 2)] {
        let code = Code::new(levels, len).unwrap();
        for stored in [Stored::Digits, Stored::Bytes, Stored::Rounded] {
            let x = crate::Int8Batch::from_codes(1, 1, &[1]).unwrap();
            let x = (&x.view()).into();
            let product = Product { code: &code, stored, bytes: &[], panel_bytes: 0, rows: 0, x, cols: 1, tokens: 1 };
            let chunks = product.run_chunks(lanes::MAX_RUN);
            assert!((BLOCK_CHUNKS..=lanes::MAX_RUN).contains(&chunks));
            assert!(2 * chunks as i32 * product.largest() <= i32::from(i16::MAX), "{levels:?}");
            // A byte holds the result of one lookup, and int4 sums never exceed a byte.
            assert!(stored == Stored::Digits || product.largest() <= 127, "{levels:?}");
        }
    }
}

#[test]
fn rows_whose_sums_could_overflow_are_refused() {
    let code = Code::new(&[-2, -1, 0, 1, 2], 2).unwrap();
    let max_cols = 1 << 23;
    let error = crate::KernelError::RowTooLong { kernel: "x".to_owned(), cols: max_cols + 1, max_cols };
    assert_eq!(pack::pack("x", &code, (0, max_cols + 1), |_, _| ()).unwrap_err(), error);
}
