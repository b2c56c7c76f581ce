//! Plain trits, one `i8` each, row-major.

use crate::{FileFormat, KernelError};

const OP: &str = "trits";

fn len(rows: usize, cols: usize) -> Result<usize, KernelError> {
    rows.checked_mul(cols).ok_or(KernelError::TooLarge { op: OP, rows, cols })
}

/// Checks trits `[rows, cols]` and returns them as bytes.
pub(crate) fn encode(rows: usize, cols: usize, trits: &[i8]) -> Result<Vec<u8>, KernelError> {
    let bytes: &[u8] = bytemuck::cast_slice(trits);
    validate(rows, cols, bytes)?;
    Ok(bytes.to_vec())
}

pub(super) fn validate(rows: usize, cols: usize, bytes: &[u8]) -> Result<(), KernelError> {
    let expected = len(rows, cols)?;
    if bytes.len() != expected {
        return Err(KernelError::ShapeMismatch { op: OP, what: "bytes", expected, got: bytes.len() });
    }
    match bytes.iter().position(|&b| !matches!(b as i8, -1..=1)) {
        None => Ok(()),
        Some(i) => Err(KernelError::InvalidCode {
            format: FileFormat::Trits,
            row: i / cols,
            col: i % cols,
            code: i32::from(bytes[i] as i8),
        }),
    }
}

pub(super) fn decode_row(bytes: &[u8], cols: usize, r: usize, out: &mut [i8]) {
    out.copy_from_slice(bytemuck::cast_slice(&bytes[r * cols..(r + 1) * cols]));
}
