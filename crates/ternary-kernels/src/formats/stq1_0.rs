//! STQ1_0: blocks of 256 weights in groups of four, exactly one of which is zero, with an f16 scale each. Read only.
//!
//! ```text
//! block of 42 bytes:   | qs, 32 bytes | sign, 8 bytes | d, f16 LE |
//!
//! group g in 0..64: four bits in qs[g / 2], the lower half first, and one bit in sign[g / 8], bit g % 8
//! ```
//!
//! The five bits select one of 32 patterns of four trits, two bits each, plus one; the patterns of sign 1 are the
//! negatives of those of sign 0. Trit `p` of group `g` is weight `64 (g / 16) + g % 16 + 16 p`. The weight is
//! `d * trit`. Rows must be whole blocks. Source: llama.cpp pull request 22836.

use super::blocks::Block;
use super::table::{FormatInfo, ScalePlace};
use crate::{FileFormat, Levels};

pub(super) const INFO: FormatInfo = FormatInfo {
    name: "STQ1_0",
    ggml_ids: &[43, 42],
    weights: 256,
    bytes: Some(42),
    scale: ScalePlace::Block(40),
    levels: Levels::Three,
    writable: false,
};

/// Patterns of sign 0: the zero in each of the four places, and the signs of the other three up to a common one.
const PATTERNS: [u8; 16] =
    [0xA9, 0x89, 0x29, 0x09, 0xA6, 0x86, 0x26, 0x06, 0x9A, 0x92, 0x1A, 0x12, 0x6A, 0x62, 0x4A, 0x42];

/// Trits of each pattern; index `16 sign + code`.
static TRITS: [[i8; 4]; 32] = {
    let mut all = [[0; 4]; 32];
    let mut i = 0;
    while i < 32 {
        // A trit plus its negative plus two is 2 in each field.
        let pattern = if i < 16 { PATTERNS[i] } else { 0xAA - PATTERNS[i - 16] };
        let mut p = 0;
        while p < 4 {
            all[i][p] = (pattern >> (2 * p) & 3) as i8 - 1;
            p += 1;
        }
        i += 1;
    }
    all
};

pub(super) struct Stq1_0;

impl Block for Stq1_0 {
    const FORMAT: FileFormat = FileFormat::Stq1_0;
    const ROWS: &'static str = "a row must be whole blocks of 256";

    fn code_3(_: &[u8]) -> Option<(usize, usize)> {
        None
    }

    fn decode(block: &[u8], out: &mut [i8]) {
        let (qs, sign) = (&block[..32], &block[32..40]);
        for g in 0..64 {
            let code = qs[g / 2] >> (4 * (g % 2)) & 15;
            let sign = sign[g / 8] >> (g % 8) & 1;
            let trits = &TRITS[usize::from(16 * sign + code)];
            for (p, &trit) in trits.iter().enumerate() {
                out[g / 16 * 64 + g % 16 + 16 * p] = trit;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_pattern_has_one_zero_and_none_occurs_twice() {
        let mut seen = std::collections::HashSet::new();
        for (i, t) in TRITS.iter().enumerate() {
            assert_eq!(t.iter().filter(|t| **t == 0).count(), 1, "{i}");
            assert!(t.iter().all(|t| t.abs() <= 1) && seen.insert(*t), "{i}");
            assert_eq!(TRITS[(i + 16) % 32], t.map(|t| -t));
        }
    }
}
