//! PTQ1_0: blocks of 128 weights in base 3, five to a byte, with an f16 scale each.
//!
//! ```text
//! block of 28 bytes:   | qs, 24 bytes | qh, 2 bytes | d, f16 LE |
//!
//! byte        weights of the block, first digit (most significant) to last
//! qs[m]       m, m + 16, m + 32, m + 48, m + 64                      m in 0..16
//! qs[16 + m]  80 + m, 88 + m, 96 + m, 104 + m, 112 + m               m in 0..8
//! qh[j]       120 + j, 122 + j, 124 + j, 126 + j, none (digit 0)     j in 0..2
//! ```
//!
//! Bytes are encoded as in TQ1_0, and again every byte decodes to trits. The weight is `d * trit`. Rows must be whole
//! blocks.

use super::base3::{decode_group, encode_group};
use super::blocks::{Block, WriteBlock};
use super::table::{FormatInfo, ScalePlace};
use crate::{FileFormat, Levels};

pub(super) const INFO: FormatInfo = FormatInfo {
    name: "PTQ1_0",
    ggml_ids: &[143],
    weights: 128,
    bytes: Some(28),
    scale: ScalePlace::Block(26),
    levels: Levels::Three,
    writable: true,
};

pub(super) struct Ptq1_0;

impl Block for Ptq1_0 {
    const FORMAT: FileFormat = FileFormat::Ptq1_0;
    const ROWS: &'static str = "a row must be whole blocks of 128; Q2_0 needs multiples of 64, HF packed takes any";

    fn code_3(_: &[u8]) -> Option<(usize, usize)> {
        None
    }

    fn decode(block: &[u8], out: &mut [i8]) {
        decode_group::<16>(&block[..16], &mut out[..80]);
        decode_group::<8>(&block[16..24], &mut out[80..120]);
        decode_group::<2>(&block[24..26], &mut out[120..]);
    }
}

impl WriteBlock for Ptq1_0 {
    fn encode(codes: &[i8], block: &mut [u8]) {
        encode_group::<16>(&codes[..80], &mut block[..16]);
        encode_group::<8>(&codes[80..120], &mut block[16..24]);
        encode_group::<2>(&codes[120..], &mut block[24..26]);
    }
}
