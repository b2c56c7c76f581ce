//! Plain trits, one `i8` each, row-major.

use super::common;
use super::table::{FormatInfo, ScalePlace};
use crate::{FileFormat, KernelError, Levels, TernaryMatrix};

const FORMAT: FileFormat = FileFormat::Trits;

pub(super) const INFO: FormatInfo = FormatInfo {
    name: "trits",
    ggml_ids: &[],
    weights: 1,
    bytes: Some(1),
    scale: ScalePlace::Beside,
    levels: Levels::Three,
    writable: true,
};
pub(super) fn byte_len(rows: usize, cols: usize) -> Result<usize, KernelError> {
    common::byte_len(FORMAT, (rows, cols), (1, 1), (0, 0), "")
}

pub(super) fn validate(cols: usize, bytes: &[u8]) -> Result<(), KernelError> {
    // 0, 1 and 2 after adding one; folded without a branch, as nearly all matrices are valid.
    if bytes.iter().fold(0, |max, b| b.wrapping_add(1).max(max)) <= 2 {
        return Ok(());
    }
    match bytes.iter().position(|&b| !matches!(b as i8, -1..=1)) {
        None => Ok(()),
        Some(i) => {
            let code = i32::from(bytes[i] as i8);
            Err(KernelError::InvalidCode { format: FORMAT, row: i / cols, col: i % cols, code })
        }
    }
}

pub(super) fn decode_row(bytes: &[u8], cols: usize, r: usize, out: &mut [i8]) {
    out.copy_from_slice(bytemuck::cast_slice(&bytes[r * cols..(r + 1) * cols]));
}

pub(super) fn encode(w: &TernaryMatrix, bytes: &mut [u8]) {
    if w.cols() > 0 {
        let rows = bytes.chunks_exact_mut(w.cols()).enumerate();
        rows.for_each(|(r, row)| w.decode_row(r, bytemuck::cast_slice_mut(row)));
    }
}
