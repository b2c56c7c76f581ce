//! The layout of entries, the largest sums, and every size around a tile.

use super::*;
use crate::isa::Portable;
use crate::{Int4Batch, Int8Batch, Kernel, Scales, TernaryMatrix, kernels_available, reference};

fn numbers_below(seed: u64) -> impl FnMut(u64) -> u64 {
    let mut state = seed;
    move |n| {
        state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        (state >> 33) % n
    }
}

/// Compares the product of `kernel` with the oracle.
fn check(kernel: &dyn Kernel, what: &str, (rows, cols, n): (usize, usize, usize), trits: &[i8], codes: &[i8]) {
    let w = TernaryMatrix::from_trits(rows, cols, trits, Scales::Tensor(1.0)).unwrap();
    let x = Int8Batch::from_codes(n, cols, codes).unwrap();
    let packed = kernel.prepack(&w).unwrap();
    let mut acc = vec![i32::MIN; n * rows];
    kernel.gemm(&packed.all(), &x.view(), &mut acc);
    assert_eq!(acc, reference::gemm(&w, codes, n).unwrap(), "{}: {what}, {rows} x {cols}, {n} tokens", kernel.name());
}

/// Those that have tables on some instruction sets.
fn kernels() -> impl Iterator<Item = std::sync::Arc<dyn Kernel>> {
    kernels_available().into_iter().filter(|k| k.name().starts_with("i2s") || k.name().starts_with("base3"))
}

#[test]
fn tiles_take_whole_tiles_and_last_ones_that_are_nearly_full() {
    let tokens = |n| tokens_of(ROWS_FROM, n, 20);
    assert_eq!([0, 1, 19, 20, 31, 32].map(tokens), [0, 0, 0, 20, 31, 32]);
    assert_eq!([33, 51, 52, 64, 83, 84].map(tokens), [32, 32, 52, 64, 64, 84]);
    assert_eq!(tokens_of(ROWS_FROM - 1, 64, 20), 0);
    assert_eq!([1, 2, 7, 8, 64].map(|n| least_rows(Some(Portable::LAST_FROM), n)), [32, 128, 128, 640, 640]);
}

#[test]
fn sizes_around_every_block() {
    let mut next = numbers_below(1);
    for kernel in kernels() {
        for (rows, cols) in
            [(ROWS_FROM, 1), (161, 63), (175, 64), (176, 65), (177, 300), (1025, 130), (1040, 64), (2577, 65)]
        {
            for n in [7, 8, 19, 20, 24, 25, 31, 32, 33, 51, 52, 64, 65, 85] {
                // Sizes alternate, as the oracle is slow.
                if rows < 1000 && (n + cols) % 2 == 0 || rows > 1000 && n != 33 {
                    continue;
                }
                let trits: Vec<_> = (0..rows * cols).map(|_| next(3) as i8 - 1).collect();
                let codes: Vec<_> = (0..n * cols).map(|_| (next(255) as i16 - 127) as i8).collect();
                check(&*kernel, "random", (rows, cols, n), &trits, &codes);
            }
        }
    }
}

/// Sums of 16 bits are full after 258 columns; a single token may fill them.
#[test]
fn the_largest_sums_are_exact() {
    for kernel in kernels() {
        for cols in [255, 256, 257, 258, 259, 320, 321, 1100] {
            for (t, q) in [(1, 127), (-1, -127), (1, -127), (-1, 127)] {
                let (rows, n) = (ROWS_FROM, TOKENS);
                let trits = vec![t; rows * cols];
                check(&*kernel, "all alike", (rows, cols, n), &trits, &vec![q; n * cols]);
                let mut codes = vec![0; n * cols];
                codes[5 * cols..6 * cols].fill(q);
                check(&*kernel, "one token", (rows, cols, n), &trits, &codes);
            }
        }
    }
}

#[test]
fn int4_activations_are_widened_to_the_same_tables() {
    let mut next = numbers_below(2);
    let (rows, cols, n) = (163, 330, 53);
    let trits: Vec<_> = (0..rows * cols).map(|_| next(3) as i8 - 1).collect();
    let codes: Vec<_> = (0..n * cols).map(|_| next(16) as i8 - 8).collect();
    let w = TernaryMatrix::from_trits(rows, cols, &trits, Scales::Tensor(1.0)).unwrap();
    let x = Int4Batch::from_codes(n, cols, &codes).unwrap();
    for kernel in kernels() {
        let packed = kernel.prepack(&w).unwrap();
        let (mut acc, mut widened) = (vec![i32::MIN; n * rows], Int8Batch::with_capacity(0, 0));
        kernel.gemm_a4(&packed.all(), &x.view(), &mut widened, &mut acc);
        assert_eq!(acc, reference::gemm(&w, &codes, n).unwrap(), "{}", kernel.name());
    }
}

#[test]
fn entries_have_numbers_to_base_3() {
    let every_byte: Vec<Chunk> = (0..STEP_CHUNKS).map(|i| std::array::from_fn(|b| (64 * i + b) as u8)).collect();
    let out: [u8; 256] = bytemuck::cast(numbers(&every_byte));
    for (byte, &number) in out.iter().enumerate() {
        let digits = [0, 2, 4, 6].map(|shift| byte >> shift & 3);
        if digits.iter().all(|&d| d < 3) {
            assert_eq!(usize::from(number), digits[0] + 3 * digits[1] + 9 * digits[2] + 27 * digits[3]);
        }
        // Bytes that this crate never writes stay inside the table.
        assert!(usize::from(number) < ENTRIES);
    }
}

/// The loop for CPUs without vectors here, on every CPU.
#[test]
fn the_portable_lanes_turn_and_add() {
    let rows: [[u8; 16]; 16] = std::array::from_fn(|r| std::array::from_fn(|c| (16 * r + c) as u8));
    assert_eq!(
        turn_16(Portable, &rows),
        std::array::from_fn::<[u8; 16], 16, _>(|c| std::array::from_fn(|r| rows[r][c]))
    );
    let rows: [[i16; 8]; 8] = std::array::from_fn(|r| std::array::from_fn(|c| (256 * r + c) as i16));
    let turned: [[i16; 8]; 8] = bytemuck::cast(turn_8(Portable, bytemuck::cast(rows)));
    assert_eq!(turned, std::array::from_fn::<[i16; 8], 8, _>(|c| std::array::from_fn(|r| rows[r][c])));
}
