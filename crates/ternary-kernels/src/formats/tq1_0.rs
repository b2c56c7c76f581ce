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
//! A digit is the trit plus one; five digits are the value `v = sum digit_n 3^(4-n)` and the byte is `ceil(256 v / 243)`.
//! Every byte decodes to trits, so there is no invalid code. The weight is `d * trit`. Blocks of one row must have the
//! same scale, or 0, which makes their weights zeros. Rows must be whole blocks.

use super::{ScaleRounding, base3, common};
use crate::{FileFormat, KernelError, Scales, TernaryMatrix};

const FORMAT: FileFormat = FileFormat::Tq1_0;
/// Weights and bytes of a block.
const BLOCK: (usize, usize) = (256, 54);
/// Bytes of a block before its scale.
const CODES: usize = 52;

pub(super) fn byte_len(rows: usize, cols: usize) -> Result<usize, KernelError> {
    let reason = "a row must be whole blocks of 256; I2_S needs multiples of 128, IQ1_BN of 64, HF packed takes any";
    common::byte_len(FORMAT, (rows, cols), BLOCK, (0, 0), reason)
}

pub(super) fn validate(rows: usize, cols: usize, bytes: &[u8]) -> Result<Scales, KernelError> {
    common::block_scales(FORMAT, (rows, cols), BLOCK, bytes, |_, _, _| Ok(()))
}

pub(super) fn decode_row(bytes: &[u8], cols: usize, r: usize, out: &mut [i8]) {
    let blocks = cols / BLOCK.0;
    let (bytes, _) = bytes.as_chunks::<{ BLOCK.1 }>();
    for (block, out) in bytes[r * blocks..(r + 1) * blocks].iter().zip(out.as_chunks_mut::<256>().0) {
        if common::read_f16(&block[CODES..]) == 0.0 {
            out.fill(0);
            continue;
        }
        let (first, rest) = out.split_at_mut(160);
        let (second, last) = rest.split_at_mut(80);
        decode_group::<32>(&block[..32], first);
        decode_group::<16>(&block[32..48], second);
        decode_group::<4>(&block[48..CODES], last);
    }
}

/// Decodes `W` bytes whose digit `n` belongs to the weights `n * W..(n + 1) * W`; digits beyond `out` are dropped.
#[inline]
fn decode_group<const W: usize>(bytes: &[u8], out: &mut [i8]) {
    for (n, out) in out.as_chunks_mut::<W>().0.iter_mut().enumerate() {
        for (out, &byte) in out.iter_mut().zip(bytes) {
            *out = base3::digit(byte, n) as i8 - 1;
        }
    }
}

pub(super) fn encode(w: &TernaryMatrix, rounding: ScaleRounding, bytes: &mut [u8]) -> Result<(), KernelError> {
    common::for_rows(w, w.cols() / BLOCK.0 * BLOCK.1, bytes, |r, trits, row| {
        let d = common::write_f16(FORMAT, r, w.scales().of_row(r), rounding)?;
        for (trits, block) in trits.as_chunks::<256>().0.iter().zip(row.as_chunks_mut::<{ BLOCK.1 }>().0) {
            encode_group::<32>(&trits[..160], &mut block[..32]);
            encode_group::<16>(&trits[160..240], &mut block[32..48]);
            encode_group::<4>(&trits[240..], &mut block[48..CODES]);
            block[CODES..].copy_from_slice(&d);
        }
        Ok(())
    })
}

/// The inverse of [`decode_group`]; digits that `trits` lacks are 0.
fn encode_group<const W: usize>(trits: &[i8], bytes: &mut [u8]) {
    for (m, byte) in bytes.iter_mut().enumerate() {
        let digit = |n: usize| trits.get(n * W + m).map_or(0, |t| (t + 1) as u8);
        *byte = base3::byte_of((0..5).fold(0, |v, n| 3 * v + digit(n)));
    }
}
