//! The code of five trits, the layout, and unpacking.

use super::*;
use crate::Scales;

/// Three to the fifth.
const COMBINATIONS: usize = 243;

/// Five digits, the first one changing fastest.
fn digits(index: usize) -> ([u8; 4], u8) {
    let digit = |j: u32| (index / 3usize.pow(j) % 3) as u8;
    ([digit(0), digit(1), digit(2), digit(3)], digit(4))
}

fn encode(index: usize) -> u8 {
    // In every position, next to other digits.
    let (four, last) = digits(index);
    let bytes = [0, 8, 16, 24].map(|shift| {
        let spread = |digit: u8, other: u32| u32::from(digit) << shift | other & !(0xff << shift);
        let around = [0x0201_0002, 0x0002_0102, 0x0100_0201, 0x0202_0201];
        let word = code::encode(std::array::from_fn(|j| spread(four[j], around[j])), spread(last, 0x0102_0200));
        (word >> shift) as u8
    });
    assert_eq!(bytes, [bytes[0]; 4]);
    bytes[0]
}

#[test]
fn every_five_trits_have_a_byte_of_their_own() {
    let mut seen = [false; 256];
    for index in 0..COMBINATIONS {
        let byte = encode(index);
        assert!(!std::mem::replace(&mut seen[usize::from(byte)], true), "byte {byte} twice");
        assert_eq!(code::digits(byte), digits(index), "combination {index}");
    }
}

#[test]
fn corrections_are_the_bitwise_operations_that_are_documented() {
    for index in 0..COMBINATIONS {
        let v = encode(index);
        let ([t0, t1, t2, t3], t4) = code::digits(v);
        let u = usize::from(v & 63);
        let b = code::FIELDS[u];
        let (d, f) = if v >= 192 { (code::FIX[u], code::FLIP[u]) } else { (0, 0) };
        assert_eq!((b & 3, b >> 2 & 3), (t0, t1), "byte {v}");
        assert_eq!((b ^ d) & 0x30, t2 << 4, "byte {v}");
        assert_eq!((b & !d & 0xc0, v & !d & 0xc0), (t3 << 6, t4 << 6), "byte {v}");
        assert_eq!(b ^ (f & 0xf0), t0 | t1 << 2 | t2 << 4 | t3 << 6, "byte {v}");
        assert_eq!(v >> 6 ^ (f & 3), t4, "byte {v}");
    }
}

fn numbers(seed: u64) -> impl FnMut(u64) -> u64 {
    let mut state = seed;
    move |n| {
        state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        (state >> 33) % n
    }
}

#[test]
fn digits_lie_where_the_picture_says() {
    let (rows, cols) = (35, 170);
    let mut next = numbers(1);
    let trits: Vec<i8> = (0..rows * cols).map(|_| next(3) as i8 - 1).collect();
    let w = TernaryMatrix::from_trits(rows, cols, &trits, Scales::Tensor(1.0)).unwrap();
    let packed = prepack("x", &w).unwrap();
    let view = packed.all();
    assert_eq!((view.panel_bytes(), view.bytes().len()), (3 * 256, 3 * 3 * 256));
    assert_eq!(view.bytes().as_ptr() as usize % 64, 0);
    for (i, &byte) in view.bytes().iter().enumerate() {
        let (p, g, s, r, c) = (i / (3 * 256), i / 256 % 3, i / 64 % 4, i % 64 / 4, i % 4);
        let (four, last) = code::digits(byte);
        let at = |col: usize| match (16 * p + r, col) {
            (row, col) if row < rows && col < cols => (trits[row * cols + col] + 1) as u8,
            _ => 1,
        };
        for (j, &digit) in four.iter().enumerate() {
            assert_eq!(digit, at(80 * g + 16 * s + 4 * j + c), "byte {i}, digit {j}");
        }
        assert_eq!(last, at(80 * g + 64 + 4 * s + c), "byte {i}, last digit");
    }
    // Panels that are packed separately equal the panels of the whole matrix.
    let mut middle = vec![0; 2 * 3 * 256];
    pack_panels(&w, 1..3, &mut middle);
    assert_eq!(middle, view.bytes()[3 * 256..]);
}

/// Every instruction set unpacks to what I2_S packs.
#[test]
fn groups_unpack_to_the_chunks_of_i2s() {
    let (rows, cols) = (16, 640);
    let mut next = numbers(2);
    let trits: Vec<i8> = (0..rows * cols).map(|_| next(3) as i8 - 1).collect();
    let w = TernaryMatrix::from_trits(rows, cols, &trits, Scales::Tensor(1.0)).unwrap();
    let mut expected = vec![0; rows * cols / 4];
    crate::i2s::pack_panels(&w, 0..1, &mut expected);
    let packed = prepack("x", &w).unwrap();
    let groups = packed.all().bytes().as_chunks::<CHUNK_BYTES>().0.as_chunks::<QUARTERS>().0;
    let mut out = vec![[0xff; CHUNK_BYTES]; groups.len() * GROUP_CHUNKS];
    scalar::unpack(groups, &mut out);
    assert_eq!(out.as_flattened(), expected);
}

#[test]
fn rows_whose_sums_could_overflow_are_refused() {
    let w = TernaryMatrix::from_trits(0, MAX_COLS + 1, &[], Scales::Tensor(1.0)).unwrap();
    let error = KernelError::RowTooLong { kernel: "x".to_owned(), cols: MAX_COLS + 1, max_cols: MAX_COLS };
    assert_eq!(prepack("x", &w).unwrap_err(), error);
}
