//! Integer sums of the rows of a panel for WebAssembly SIMD: a unit is four registers of four rows each, three times, as for
//! SSE4.1.
//!
//! The products are those of [`sums`]: a lane of 16 bits takes one product of a code and a digit, at most
//! `63 * 128`, or with relaxed instructions two, so that four words of digits are added in 16 bits, or two.

use std::arch::wasm32::*;

use super::dot::Sums;
use super::input::Digits;
use super::{CoarseBatch, Unit};
use crate::isa::Simd128;
use crate::simd;
use crate::simd::sums;

/// Words of digits between two flushes of the 16-bit sums.
const FLUSH: usize = if cfg!(target_feature = "relaxed-simd") { 2 } else { 4 };
const _: () = assert!(4 * 63 * 128 <= i16::MAX as usize);

/// Sets the sums of `panel` for every row of `x`.
pub(super) fn dots(_: Simd128, panel: &[Unit], x: &CoarseBatch, out: &mut [Sums]) {
    for (t, out) in out.iter_mut().enumerate() {
        // Two registers of rows at a time leave registers for their sums.
        rows::<0>(panel, x.digits(t), out);
        rows::<2>(panel, x.digits(t), out);
    }
}

/// Sets the sums of rows `4 * FIRST..4 * FIRST + 8`.
#[inline(always)]
fn rows<const FIRST: usize>(panel: &[Unit], x: &[Digits], out: &mut Sums) {
    let mut wide = [[sums::zero(); 2]; 2];
    for (unit, digits) in panel.iter().zip(x) {
        let (words, _) = digits.as_chunks::<4>();
        for r in 0..2 {
            let codes = codes(unit, FIRST + r);
            for d in 0..2 {
                wide[r][d] = add(wide[r][d], &codes, &words[4 * d..]);
            }
        }
    }
    for (r, [high, low]) in wide.into_iter().enumerate() {
        out.high.as_chunks_mut::<4>().0[FIRST + r] = lanes(sums::rows(high));
        out.low.as_chunks_mut::<4>().0[FIRST + r] = lanes(sums::rows(low));
    }
}

/// Adds the products of four rows with the four words of a digit.
#[inline(always)]
fn add(mut wide: sums::Sums, codes: &[v128; 4], digit: &[[u8; 4]]) -> sums::Sums {
    for j in (0..4).step_by(FLUSH) {
        let mut narrow = sums::zero();
        for i in j..j + FLUSH {
            narrow = sums::mul_add(narrow, codes[i], u32x4_splat(u32::from_le_bytes(digit[i])));
        }
        wide = sums::widen(wide, narrow);
    }
    wide
}

#[inline(always)]
fn lanes(v: v128) -> [i32; 4] {
    let mut out = [0; 4];
    simd::store(v, &mut out);
    out
}

/// The codes of rows `4r..4r + 4` of a unit, four columns each.
#[inline(always)]
fn codes(unit: &Unit, r: usize) -> [v128; 4] {
    let (parts, _) = unit.as_chunks::<16>();
    let (a, b, c): (v128, v128, v128) = (simd::load(&parts[r]), simd::load(&parts[4 + r]), simd::load(&parts[8 + r]));
    let (nibble, two) = (u8x16_splat(0x0f), u8x16_splat(0x30));
    let join = |low, high| v128_or(v128_and(low, nibble), v128_and(high, two));
    [
        join(a, u16x8_shl(c, 4)),
        join(u16x8_shr(a, 4), u16x8_shl(c, 2)),
        join(b, c),
        join(u16x8_shr(b, 4), u16x8_shr(c, 2)),
    ]
}
