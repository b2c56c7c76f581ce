//! I2_S of bitnet.cpp in its one canonical form: 128 weights in 32 bytes, on every CPU.
//!
//! ```text
//! | block 0, 32 bytes | block 1 | ... | block n/128 - 1 | scale, f32 LE | 28 bytes padding |
//! 0                   32              n/4 - 32          n/4             n/4 + 4            n/4 + 32
//!
//! byte p of block b, p in 0..32:
//! bits     7 6         5 4            3 2            1 0
//! weight   128b + p    128b + 32 + p  128b + 64 + p  128b + 96 + p      (flattened row-major)
//! ```
//!
//! Codes 0, 1, 2 are -1, 0, +1; code 3 is invalid. The scale multiplies. Rows must be whole blocks. The padding is
//! written as zeros and ignored when read. (Builds of bitnet.cpp for other CPUs have a second layout with 64 weights in
//! 16 bytes and a third with four rows per byte; nothing in a file distinguishes them, and published files use this
//! one.)

use super::common;
use super::table::{FormatInfo, ScalePlace};
use crate::{FileFormat, KernelError, Levels, Scales, TernaryMatrix};

const FORMAT: FileFormat = FileFormat::I2S;
pub(super) const INFO: FormatInfo = FormatInfo {
    name: "I2_S",
    ggml_ids: &[36],
    weights: 128,
    bytes: Some(32),
    scale: ScalePlace::Tensor,
    levels: Levels::Three,
    writable: true,
};
/// Weights and bytes of a block.
const BLOCK: (usize, usize) = INFO.block();
/// Bytes after the weights.
const TAIL_BYTES: usize = 32;

pub(super) fn byte_len(rows: usize, cols: usize) -> Result<usize, KernelError> {
    let reason = "a row must be whole blocks of 128; TQ2_0 needs multiples of 256, IQ2_BN of 64, HF packed takes any";
    common::byte_len(FORMAT, (rows, cols), BLOCK, (0, TAIL_BYTES), reason)
}

pub(super) fn validate(cols: usize, bytes: &[u8]) -> Result<Scales, KernelError> {
    let (weights, tail) = bytes.split_at(bytes.len() - TAIL_BYTES);
    if let Some((i, field)) = common::first_code_3(weights, 0x55) {
        let at = i / BLOCK.1 * BLOCK.0 + (3 - field) * 32 + i % BLOCK.1;
        return Err(common::code_3(FORMAT, at / cols, at % cols));
    }
    common::checked_scale(FORMAT, 0, common::read_f32(tail)).map(Scales::Tensor)
}

pub(super) fn decode_row(bytes: &[u8], cols: usize, r: usize, out: &mut [i8]) {
    let (blocks, _) = bytes[r * (cols / 4)..][..cols / 4].as_chunks::<32>();
    let (out, _) = out.as_chunks_mut::<128>();
    for (block, out) in blocks.iter().zip(out) {
        for (g, out) in out.as_chunks_mut::<32>().0.iter_mut().enumerate() {
            for (out, byte) in out.iter_mut().zip(block) {
                *out = (byte >> (6 - 2 * g) & 3) as i8 - 1;
            }
        }
    }
}

pub(super) fn encode(w: &TernaryMatrix, bytes: &mut [u8]) -> Result<(), KernelError> {
    let scale = common::one_scale(FORMAT, w)?;
    let (weights, tail) = bytes.split_at_mut(bytes.len() - TAIL_BYTES);
    tail[..4].copy_from_slice(&scale.to_le_bytes());
    common::for_rows(w, w.cols() / 4, weights, |_, trits, row| {
        for (trits, block) in trits.as_chunks::<128>().0.iter().zip(row.as_chunks_mut::<32>().0) {
            for (p, byte) in block.iter_mut().enumerate() {
                *byte = (0..4).fold(0, |byte, g| byte << 2 | (trits[32 * g + p] + 1) as u8);
            }
        }
        Ok(())
    })
}
