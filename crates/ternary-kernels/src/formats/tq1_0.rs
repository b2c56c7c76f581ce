//! TQ1_0 of ggml: blocks of 256 weights in base 3, five to a byte, with an f16 scale each.
//!
//! ```text
//! block of 54 bytes:   | qs, 48 bytes | qh, 4 bytes | d, f16 LE |
//!
//! byte        weights of the block, first digit (most significant) to last
//! qs[m]       m, m + 32, m + 64, m + 96, m + 128                     m in 0..32
//! qs[32 + m]  160 + m, 176 + m, 192 + m, 208 + m, 224 + m            m in 0..16
//! qh[j]       240 + j, 244 + j, 248 + j, 252 + j, none (digit 0)     j in 0..4
//! ```
//!
//! A digit is the trit plus one; five digits are the value `v = sum digit_n 3^(4-n)` and the byte is
//! `ceil(256 v / 243)`. Every byte decodes to trits, so there is no invalid code. The weight is `d * trit`. A block of
//! scale 0 holds zeros. Rows must be whole blocks.

use super::base3::{decode_group, encode_group};
use super::blocks::{Block, WriteBlock};
use super::table::{FormatInfo, ScalePlace};
use crate::{FileFormat, Levels};

pub(super) const INFO: FormatInfo = FormatInfo {
    name: "TQ1_0",
    ggml_ids: &[34],
    weights: 256,
    bytes: Some(54),
    scale: ScalePlace::Block(52),
    levels: Levels::Three,
    writable: true,
};

pub(super) struct Tq1_0;

impl Block for Tq1_0 {
    const FORMAT: FileFormat = FileFormat::Tq1_0;
    const ROWS: &'static str =
        "a row must be whole blocks of 256; I2_S needs multiples of 128, IQ1_BN of 64, HF packed takes any";

    fn code_3(_: &[u8]) -> Option<(usize, usize)> {
        None
    }

    fn decode(block: &[u8], out: &mut [i8]) {
        decode_group::<32>(&block[..32], &mut out[..160]);
        decode_group::<16>(&block[32..48], &mut out[160..240]);
        decode_group::<4>(&block[48..52], &mut out[240..]);
    }
}

impl WriteBlock for Tq1_0 {
    fn encode(codes: &[i8], block: &mut [u8]) {
        encode_group::<32>(&codes[..160], &mut block[..32]);
        encode_group::<16>(&codes[160..240], &mut block[32..48]);
        encode_group::<4>(&codes[240..], &mut block[48..52]);
    }
}
