//! Packed uint8 weights of Hugging Face checkpoints (`transformers.integrations.bitnet.pack_weights`).
//!
//! ```text
//! X.weight, uint8 [R, cols], R = ceil(rows / 4), byte (r, c):
//!
//! bits     7 6        5 4        3 2       1 0
//! row      3R + r     2R + r     R + r     r          column c
//! ```
//!
//! The four weights of a byte are a quarter of the matrix apart, not adjacent. Codes 0, 1, 2 are -1, 0, +1; code 3 is
//! invalid. Rows from `rows` to `4R` are padding: code 0, ignored when read. The scale is the tensor `X.weight_scale`,
//! `[1]`, next to the weights.

use super::common;
use super::table::{FormatInfo, ScalePlace};
use crate::{FileFormat, KernelError, Levels, TernaryMatrix};

const FORMAT: FileFormat = FileFormat::HfPacked;

pub(super) const INFO: FormatInfo = FormatInfo {
    name: "HF packed",
    ggml_ids: &[],
    weights: 1,
    bytes: None,
    scale: ScalePlace::Beside,
    levels: Levels::Three,
    writable: true,
};
pub(super) fn byte_len(rows: usize, cols: usize) -> Result<usize, KernelError> {
    common::byte_len(FORMAT, (rows, cols), (1, 1), (0, 0), "")?;
    common::byte_len(FORMAT, (rows.div_ceil(4), cols), (1, 1), (0, 0), "")
}

pub(super) fn validate(rows: usize, cols: usize, bytes: &[u8]) -> Result<(), KernelError> {
    if cols == 0 {
        return Ok(());
    }
    let packed_rows = rows.div_ceil(4);
    for (r, bytes) in bytes.chunks_exact(cols).enumerate() {
        let fields = (0..4).filter(|i| i * packed_rows + r < rows).fold(0, |fields, i| fields | 1 << (2 * i));
        if let Some((col, field)) = common::first_code_3(bytes, fields) {
            return Err(common::code_3(FORMAT, field * packed_rows + r, col));
        }
    }
    Ok(())
}

pub(super) fn decode_row(bytes: &[u8], rows: usize, cols: usize, r: usize, out: &mut [i8]) {
    let packed_rows = rows.div_ceil(4);
    let shift = 2 * (r / packed_rows);
    let row = &bytes[r % packed_rows * cols..][..cols];
    for (out, byte) in out.iter_mut().zip(row) {
        *out = (byte >> shift & 3) as i8 - 1;
    }
}

pub(super) fn encode(w: &TernaryMatrix, bytes: &mut [u8]) -> Result<(), KernelError> {
    common::one_scale(FORMAT, w)?;
    let (cols, packed_rows) = (w.cols(), w.rows().div_ceil(4));
    if cols == 0 {
        return Ok(());
    }
    let mut trits = vec![0; cols];
    for r in 0..w.rows() {
        w.decode_row(r, &mut trits);
        let shift = 2 * (r / packed_rows);
        let row = &mut bytes[r % packed_rows * cols..][..cols];
        for (byte, t) in row.iter_mut().zip(&trits) {
            *byte |= ((t + 1) as u8) << shift;
        }
    }
    Ok(())
}
