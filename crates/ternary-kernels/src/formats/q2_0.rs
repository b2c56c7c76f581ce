//! Q2_0, PQ2_0 and the layout with the scale last: two bits per weight, four CONSECUTIVE weights to a byte, and an f16
//! scale for each block.
//!
//! ```text
//! Q2_0 (64 weights, 18 bytes):            | d, f16 LE | qs, 16 bytes |
//! PQ2_0 (128 weights, 34 bytes):          | d, f16 LE | qs, 32 bytes |
//! Q2_0 g128, d last (128, 34 bytes):      | qs, 32 bytes | d, f16 LE |
//!
//! byte i of qs:
//! bits     7 6      5 4      3 2      1 0
//! weight   4i + 3   4i + 2   4i + 1   4i                (within the block)
//! ```
//!
//! The weight is `d * (code - 1)`. Code 3 is a weight of `+2 d`: legal, though no ternary model has it. Files of
//! different programs use the name Q2_0 and GGUF type 42 for all three; the loader distinguishes them by their size.

use super::blocks::{Block, WriteBlock};
use super::common;
use super::table::{FormatInfo, ScalePlace};
use crate::{FileFormat, Levels};

pub(super) const Q2_0: FormatInfo = FormatInfo {
    name: "Q2_0",
    ggml_ids: &[42],
    weights: 64,
    bytes: Some(18),
    scale: ScalePlace::Block(0),
    levels: Levels::Four,
    writable: true,
};
pub(super) const PQ2_0: FormatInfo =
    FormatInfo { name: "PQ2_0", ggml_ids: &[142, 42], weights: 128, bytes: Some(34), ..Q2_0 };
pub(super) const D_LAST: FormatInfo =
    FormatInfo { name: "TQ2_0_g128", ggml_ids: &[42], scale: ScalePlace::Block(32), writable: false, ..PQ2_0 };

/// The number of codes 3 in `qs`, and the position of the first.
fn code_3(qs: &[u8]) -> Option<(usize, usize)> {
    let (byte, field) = common::first_code_3(qs, 0x55)?;
    let count = qs.iter().map(|b| (b & (b >> 1) & 0x55).count_ones() as usize).sum();
    Some((count, 4 * byte + field))
}

fn decode(qs: &[u8], out: &mut [i8]) {
    for (out, byte) in out.as_chunks_mut::<4>().0.iter_mut().zip(qs) {
        *out = [0, 2, 4, 6].map(|shift| (byte >> shift & 3) as i8 - 1);
    }
}

fn encode(codes: &[i8], qs: &mut [u8]) {
    for (four, byte) in codes.as_chunks::<4>().0.iter().zip(qs) {
        *byte = four.iter().rev().fold(0, |byte, c| byte << 2 | (c + 1) as u8);
    }
}

/// 64 weights, the scale first.
pub(super) struct G64;

impl Block for G64 {
    const FORMAT: FileFormat = FileFormat::Q2_0;
    const ROWS: &'static str = "a row must be whole blocks of 64; HF packed takes any";

    fn code_3(block: &[u8]) -> Option<(usize, usize)> {
        code_3(&block[2..])
    }
    fn decode(block: &[u8], out: &mut [i8]) {
        decode(&block[2..], out);
    }
}

impl WriteBlock for G64 {
    fn encode(codes: &[i8], block: &mut [u8]) {
        encode(codes, &mut block[2..]);
    }
}

/// 128 weights, the scale first.
pub(super) struct G128;

impl Block for G128 {
    const FORMAT: FileFormat = FileFormat::Pq2_0;
    const ROWS: &'static str = "a row must be whole blocks of 128; Q2_0 needs multiples of 64, HF packed takes any";

    fn code_3(block: &[u8]) -> Option<(usize, usize)> {
        code_3(&block[2..])
    }
    fn decode(block: &[u8], out: &mut [i8]) {
        decode(&block[2..], out);
    }
}

impl WriteBlock for G128 {
    fn encode(codes: &[i8], block: &mut [u8]) {
        encode(codes, &mut block[2..]);
    }
}

/// 128 weights, the scale last.
pub(super) struct G128Last;

impl Block for G128Last {
    const FORMAT: FileFormat = FileFormat::Tq2_0G128;
    const ROWS: &'static str = "a row must be whole blocks of 128; Q2_0 needs multiples of 64, HF packed takes any";

    fn code_3(block: &[u8]) -> Option<(usize, usize)> {
        code_3(&block[..32])
    }
    fn decode(block: &[u8], out: &mut [i8]) {
        decode(&block[..32], out);
    }
}
