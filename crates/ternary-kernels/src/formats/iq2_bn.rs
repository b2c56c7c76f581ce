//! IQ2_BN of ik_llama.cpp: an f32 scale per row, then blocks of 64 weights of two bits.
//!
//! ```text
//! row:     | scale, f32 LE | block 0, 16 bytes | block 1 | ... | block cols/64 - 1 |
//!
//! byte j of a block, j in 0..16:
//! bits     7 6      5 4      3 2      1 0
//! weight   48 + j   32 + j   16 + j   j                (within the block)
//! ```
//!
//! Codes 0, 1, 2 are -1, 0, +1; code 3 is invalid. A row of scale 0 holds zeros, whatever its codes are. Rows must be
//! whole blocks.

use super::common;
use super::table::{FormatInfo, ScalePlace};
use crate::{FileFormat, KernelError, Levels, Scales, TernaryMatrix};

const FORMAT: FileFormat = FileFormat::Iq2Bn;
pub(super) const INFO: FormatInfo = FormatInfo {
    name: "IQ2_BN",
    ggml_ids: &[135],
    weights: 64,
    bytes: Some(16),
    scale: ScalePlace::Row(4),
    levels: Levels::Three,
    writable: true,
};
/// Weights and bytes of a block.
const BLOCK: (usize, usize) = INFO.block();
/// Bytes of a row before its blocks.
const HEAD: usize = 4;

pub(super) fn byte_len(rows: usize, cols: usize) -> Result<usize, KernelError> {
    let reason = "a row must be whole blocks of 64; HF packed takes any";
    common::byte_len(FORMAT, (rows, cols), BLOCK, (HEAD, 0), reason)
}

fn row_bytes(cols: usize) -> usize {
    HEAD + cols / BLOCK.0 * BLOCK.1
}

pub(super) fn validate(cols: usize, bytes: &[u8]) -> Result<Scales, KernelError> {
    let rows = bytes.chunks_exact(row_bytes(cols)).enumerate();
    let check = |(r, row): (usize, &[u8])| {
        let (head, codes) = row.split_at(HEAD);
        if let Some((i, field)) = common::first_code_3(codes, 0x55) {
            return Err(common::code_3(FORMAT, r, i / BLOCK.1 * BLOCK.0 + field * 16 + i % BLOCK.1));
        }
        common::checked_scale(FORMAT, r, common::read_f32(head))
    };
    rows.map(check).collect::<Result<_, _>>().map(common::row_scales)
}

pub(super) fn decode_row(bytes: &[u8], cols: usize, r: usize, out: &mut [i8]) {
    let row = &bytes[r * row_bytes(cols)..][..row_bytes(cols)];
    if common::read_f32(row) == 0.0 {
        return out.fill(0);
    }
    let (blocks, _) = row[HEAD..].as_chunks::<{ BLOCK.1 }>();
    for (block, out) in blocks.iter().zip(out.as_chunks_mut::<64>().0) {
        for (l, out) in out.as_chunks_mut::<16>().0.iter_mut().enumerate() {
            for (out, byte) in out.iter_mut().zip(block) {
                *out = (byte >> (2 * l) & 3) as i8 - 1;
            }
        }
    }
}

pub(super) fn encode(w: &TernaryMatrix, bytes: &mut [u8]) -> Result<(), KernelError> {
    let mut trits = vec![0; w.cols()];
    for (r, row) in bytes.chunks_exact_mut(row_bytes(w.cols())).enumerate() {
        w.decode_row(r, &mut trits);
        let (head, blocks) = row.split_at_mut(HEAD);
        head.copy_from_slice(&common::row_scale(FORMAT, w, r)?.to_le_bytes());
        for (trits, block) in trits.as_chunks::<64>().0.iter().zip(blocks.as_chunks_mut::<{ BLOCK.1 }>().0) {
            for (j, byte) in block.iter_mut().enumerate() {
                *byte = (0..4).rev().fold(0, |byte, l| byte << 2 | (trits[16 * l + j] + 1) as u8);
            }
        }
    }
    Ok(())
}
