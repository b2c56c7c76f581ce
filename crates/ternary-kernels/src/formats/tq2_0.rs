//! TQ2_0 of ggml: blocks of 256 weights of two bits with an f16 scale each.
//!
//! ```text
//! block of 66 bytes:   | qs, 64 bytes | d, f16 LE |
//!
//! byte 32j + m of qs, j in 0..2, m in 0..32:
//! bits     7 6            5 4            3 2            1 0
//! weight   128j + 96 + m  128j + 64 + m  128j + 32 + m  128j + m         (within the block)
//! ```
//!
//! The weight is `d * (code - 1)`; code 3 is invalid. A block of scale 0 holds zeros. Rows must be whole
//! blocks.

use super::blocks::{Block, WriteBlock};
use super::common;
use super::table::{FormatInfo, ScalePlace};
use crate::{FileFormat, Levels};

pub(super) const INFO: FormatInfo = FormatInfo {
    name: "TQ2_0",
    ggml_ids: &[35],
    weights: 256,
    bytes: Some(66),
    scale: ScalePlace::Block(64),
    levels: Levels::Three,
    writable: true,
};
/// Bytes of a block before its scale.
const CODES: usize = 64;

pub(super) struct Tq2_0;

impl Block for Tq2_0 {
    const FORMAT: FileFormat = FileFormat::Tq2_0;
    const ROWS: &'static str =
        "a row must be whole blocks of 256; I2_S needs multiples of 128, IQ2_BN of 64, HF packed takes any";

    fn code_3(block: &[u8]) -> Option<(usize, usize)> {
        let (i, field) = common::first_code_3(&block[..CODES], 0x55)?;
        Some((1, i / 32 * 128 + field * 32 + i % 32))
    }

    fn decode(block: &[u8], out: &mut [i8]) {
        for (codes, out) in block[..CODES].as_chunks::<32>().0.iter().zip(out.as_chunks_mut::<128>().0) {
            for (l, out) in out.as_chunks_mut::<32>().0.iter_mut().enumerate() {
                for (out, byte) in out.iter_mut().zip(codes) {
                    *out = (byte >> (2 * l) & 3) as i8 - 1;
                }
            }
        }
    }
}

impl WriteBlock for Tq2_0 {
    fn encode(codes: &[i8], block: &mut [u8]) {
        for (i, byte) in block[..CODES].iter_mut().enumerate() {
            let code = |l: usize| (codes[i / 32 * 128 + 32 * l + i % 32] + 1) as u8;
            *byte = code(0) | code(1) << 2 | code(2) << 4 | code(3) << 6;
        }
    }
}
