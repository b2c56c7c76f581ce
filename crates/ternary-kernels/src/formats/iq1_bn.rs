//! IQ1_BN of ik_llama.cpp: an f16 scale per row, then blocks of 64 weights in base 3, 13 bytes each.
//!
//! ```text
//! row:     | scale, f16 LE | block 0, 13 bytes | block 1 | ... | block cols/64 - 1 |
//! block:   | ql, 12 bytes | extra |
//!
//! byte          weights of the block, first digit (LEAST significant) to last
//! ql[3i + k]    16i + 5k + 0 .. 16i + 5k + 4        i in 0..4, k in 0..3
//! extra         15, 31, 47, 63
//! ```
//!
//! A digit is the trit plus one; the digits are the value `v = sum digit_j 3^j` and the byte is `ceil(256 v / 243)`:
//! the byte of TQ1_0 with its digits in reverse order. Every byte decodes to trits, so there is no invalid code. A row
//! of scale 0 holds zeros, whatever its codes are. Rows must be whole blocks.

use super::table::{FormatInfo, ScalePlace};
use super::{ScaleRounding, base3, common};
use crate::{FileFormat, KernelError, Levels, Scales, TernaryMatrix};

const FORMAT: FileFormat = FileFormat::Iq1Bn;
pub(super) const INFO: FormatInfo = FormatInfo {
    name: "IQ1_BN",
    ggml_ids: &[134],
    weights: 64,
    bytes: Some(13),
    scale: ScalePlace::Row(2),
    levels: Levels::Three,
    writable: true,
};
/// Weights and bytes of a block.
const BLOCK: (usize, usize) = INFO.block();
/// Bytes of a row before its blocks.
const HEAD: usize = 2;

pub(super) fn byte_len(rows: usize, cols: usize) -> Result<usize, KernelError> {
    let reason = "a row must be whole blocks of 64; HF packed takes any";
    common::byte_len(FORMAT, (rows, cols), BLOCK, (HEAD, 0), reason)
}

fn row_bytes(cols: usize) -> usize {
    HEAD + cols / BLOCK.0 * BLOCK.1
}

pub(super) fn validate(cols: usize, bytes: &[u8]) -> Result<Scales, KernelError> {
    let rows = bytes.chunks_exact(row_bytes(cols)).enumerate();
    rows.map(|(r, row)| common::checked_scale(FORMAT, r, common::read_f16(row)))
        .collect::<Result<_, _>>()
        .map(common::row_scales)
}

pub(super) fn decode_row(bytes: &[u8], cols: usize, r: usize, out: &mut [i8]) {
    let row = &bytes[r * row_bytes(cols)..][..row_bytes(cols)];
    if common::read_f16(row) == 0.0 {
        return out.fill(0);
    }
    let (blocks, _) = row[HEAD..].as_chunks::<{ BLOCK.1 }>();
    for (block, out) in blocks.iter().zip(out.as_chunks_mut::<64>().0) {
        let extra = &base3::LOW_FIRST[usize::from(block[12])];
        for (i, out) in out.as_chunks_mut::<16>().0.iter_mut().enumerate() {
            for k in 0..3 {
                let five = &base3::LOW_FIRST[usize::from(block[3 * i + k])];
                out[5 * k..5 * k + 5].copy_from_slice(&five[..5]);
            }
            out[15] = extra[i];
        }
    }
}

pub(super) fn encode(w: &TernaryMatrix, rounding: ScaleRounding, bytes: &mut [u8]) -> Result<(), KernelError> {
    common::for_rows(w, row_bytes(w.cols()), bytes, |r, trits, row| {
        let (head, blocks) = row.split_at_mut(HEAD);
        head.copy_from_slice(&common::write_f16(FORMAT, r, common::row_scale(FORMAT, w, r)?, rounding)?);
        for (trits, block) in trits.as_chunks::<64>().0.iter().zip(blocks.as_chunks_mut::<{ BLOCK.1 }>().0) {
            for (b, byte) in block[..12].iter_mut().enumerate() {
                let first = b / 3 * 16 + b % 3 * 5;
                *byte = byte_of(trits[first..first + 5].iter());
            }
            block[12] = byte_of(trits.iter().skip(15).step_by(16));
        }
        Ok(())
    })
}

/// The byte of up to five trits, the lowest digit first.
fn byte_of<'a>(trits: impl DoubleEndedIterator<Item = &'a i8>) -> u8 {
    base3::byte_of(trits.rev().fold(0, |v, t| 3 * v + (t + 1) as u8))
}
