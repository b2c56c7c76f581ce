//! Integer sums of the rows of a panel for SSE4.1: a unit is four registers of four rows each, three times.
//!
//! Two neighbouring products are at most `2 * 63 * 128 = 16128`, so that those of two words of digits are added in 16
//! bits.

use std::arch::x86_64::*;

use super::dot::Sums;
use super::input::Digits;
use super::{CoarseBatch, Unit};
use crate::isa::{Sse41, compiled};
use crate::ops::coarse::dot_x86::{prefetch_ahead, word};
use crate::simd;

const _: () = assert!(2 * 2 * 63 * 128 <= i16::MAX as usize);

/// Adds the sums of `panel` for every row of `x`. One row of activations at a time fills the registers with sums.
pub(super) fn dots(cpu: Sse41, panel: &[Unit], x: &CoarseBatch, out: &mut [Sums]) {
    compiled!(Sse41, cpu => |_cpu, panel: &[Unit], x: &CoarseBatch, out: &mut [Sums]| {
        for (t, out) in out.iter_mut().enumerate() {
            row(panel, x.digits(t), out);
        }
    });
}

#[target_feature(enable = "ssse3,sse4.1")]
fn row(panel: &[Unit], x: &[Digits], out: &mut Sums) {
    let mut sums = [[_mm_setzero_si128(); 2]; 4];
    for (unit, digits) in panel.iter().zip(x) {
        prefetch_ahead(unit);
        for (r, sums) in sums.iter_mut().enumerate() {
            let codes = codes(unit, r);
            for (d, sum) in sums.iter_mut().enumerate() {
                *sum = _mm_add_epi32(*sum, products(&codes, digits, 4 * d, 0));
                *sum = _mm_add_epi32(*sum, products(&codes, digits, 4 * d, 2));
            }
        }
    }
    for (r, [high, low]) in sums.into_iter().enumerate() {
        simd::store(high, &mut out.high.as_chunks_mut::<4>().0[r]);
        simd::store(low, &mut out.low.as_chunks_mut::<4>().0[r]);
    }
}

/// Sums of four rows over columns `4j..4j + 8`; `digit` is the first word of the digit.
#[inline]
#[target_feature(enable = "ssse3,sse4.1")]
fn products(codes: &[__m128i; 4], digits: &Digits, digit: usize, j: usize) -> __m128i {
    let a = _mm_maddubs_epi16(codes[j], _mm_set1_epi32(word(digits, digit + j)));
    let b = _mm_maddubs_epi16(codes[j + 1], _mm_set1_epi32(word(digits, digit + j + 1)));
    _mm_madd_epi16(_mm_add_epi16(a, b), _mm_set1_epi16(1))
}

/// The codes of rows `4r..4r + 4` of a unit, four columns each.
#[inline]
#[target_feature(enable = "ssse3,sse4.1")]
fn codes(unit: &Unit, r: usize) -> [__m128i; 4] {
    let (parts, _) = unit.as_chunks::<16>();
    let (a, b, c) = (simd::load(&parts[r]), simd::load(&parts[4 + r]), simd::load(&parts[8 + r]));
    let (nibble, two) = (_mm_set1_epi8(0x0f), _mm_set1_epi8(0x30));
    let join = |low, high| _mm_or_si128(_mm_and_si128(low, nibble), _mm_and_si128(high, two));
    [
        join(a, _mm_slli_epi16::<4>(c)),
        join(_mm_srli_epi16::<4>(a), _mm_slli_epi16::<2>(c)),
        join(b, c),
        join(_mm_srli_epi16::<4>(b), _mm_srli_epi16::<2>(c)),
    ]
}
