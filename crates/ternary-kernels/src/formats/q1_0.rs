//! Q1_0: binary weights, one bit each, in blocks of 128 with an f16 scale. Read only.
//!
//! ```text
//! block of 18 bytes:   | d, f16 LE | bits, 16 bytes |
//! ```
//!
//! Weight `j` is bit `j % 8` of byte `j / 8`: set is `+d`, clear is `-d`. There is no zero. Rows must be whole blocks.

use super::blocks::Block;
use super::table::{FormatInfo, ScalePlace};
use crate::{FileFormat, Levels};

pub(super) const INFO: FormatInfo = FormatInfo {
    name: "Q1_0",
    ggml_ids: &[41],
    weights: 128,
    bytes: Some(18),
    scale: ScalePlace::Block(0),
    levels: Levels::Three,
    writable: false,
};

pub(super) struct Q1_0;

impl Block for Q1_0 {
    const FORMAT: FileFormat = FileFormat::Q1_0;
    const ROWS: &'static str = "a row must be whole blocks of 128";

    fn code_3(_: &[u8]) -> Option<(usize, usize)> {
        None
    }

    fn decode(block: &[u8], out: &mut [i8]) {
        for (out, byte) in out.as_chunks_mut::<8>().0.iter_mut().zip(&block[2..]) {
            for (bit, out) in out.iter_mut().enumerate() {
                *out = 2 * (byte >> bit & 1) as i8 - 1;
            }
        }
    }
}
