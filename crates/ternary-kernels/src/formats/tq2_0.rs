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
//! The weight is `d * (code - 1)`; code 3 is invalid. Blocks of one row must have the same scale, or 0, which makes
//! their weights zeros. Rows must be whole blocks.

use super::{ScaleRounding, common};
use crate::{FileFormat, KernelError, Scales, TernaryMatrix};

const FORMAT: FileFormat = FileFormat::Tq2_0;
/// Weights and bytes of a block.
const BLOCK: (usize, usize) = (256, 66);
/// Bytes of a block before its scale.
const CODES: usize = 64;

pub(super) fn byte_len(rows: usize, cols: usize) -> Result<usize, KernelError> {
    let reason = "a row must be whole blocks of 256; I2_S needs multiples of 128, IQ2_BN of 64, HF packed takes any";
    common::byte_len(FORMAT, (rows, cols), BLOCK, (0, 0), reason)
}

pub(super) fn validate(rows: usize, cols: usize, bytes: &[u8]) -> Result<Scales, KernelError> {
    common::block_scales(FORMAT, (rows, cols), BLOCK, bytes, |row, b, codes| {
        if common::has_code_3(codes, 0x55)
            && let Some((i, field)) = common::first_code_3(codes, 0x55)
        {
            return Err(common::code_3(FORMAT, row, b * BLOCK.0 + i / 32 * 128 + field * 32 + i % 32));
        }
        Ok(())
    })
}

pub(super) fn decode_row(bytes: &[u8], cols: usize, r: usize, out: &mut [i8]) {
    let blocks = cols / BLOCK.0;
    let (bytes, _) = bytes.as_chunks::<{ BLOCK.1 }>();
    for (block, out) in bytes[r * blocks..(r + 1) * blocks].iter().zip(out.as_chunks_mut::<256>().0) {
        if common::read_f16(&block[CODES..]) == 0.0 {
            out.fill(0);
            continue;
        }
        for (codes, out) in block[..CODES].as_chunks::<32>().0.iter().zip(out.as_chunks_mut::<128>().0) {
            for (l, out) in out.as_chunks_mut::<32>().0.iter_mut().enumerate() {
                for (out, byte) in out.iter_mut().zip(codes) {
                    *out = (byte >> (2 * l) & 3) as i8 - 1;
                }
            }
        }
    }
}

pub(super) fn encode(w: &TernaryMatrix, rounding: ScaleRounding, bytes: &mut [u8]) -> Result<(), KernelError> {
    common::for_rows(w, w.cols() / BLOCK.0 * BLOCK.1, bytes, |r, trits, row| {
        let d = common::write_f16(FORMAT, r, w.scales().of_row(r), rounding)?;
        for (trits, block) in trits.as_chunks::<256>().0.iter().zip(row.as_chunks_mut::<{ BLOCK.1 }>().0) {
            for i in 0..CODES {
                let code = |l: usize| (trits[i / 32 * 128 + 32 * l + i % 32] + 1) as u8;
                block[i] = code(0) | code(1) << 2 | code(2) << 4 | code(3) << 6;
            }
            block[CODES..].copy_from_slice(&d);
        }
        Ok(())
    })
}
