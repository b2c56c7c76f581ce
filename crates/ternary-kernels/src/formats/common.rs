//! Code shared by several formats: checked lengths, the search for code 3, scales.

use half::f16;

use super::ScaleRounding;
use crate::{FileFormat, GroupScales, KernelError, Scales, TernaryMatrix};

/// Bytes of `rows` rows of `head + cols / block * block_bytes` each, and of `tail` bytes after them.
pub(super) fn byte_len(
    format: FileFormat,
    (rows, cols): (usize, usize),
    (block, block_bytes): (usize, usize),
    (head, tail): (usize, usize),
    reason: &'static str,
) -> Result<usize, KernelError> {
    if !cols.is_multiple_of(block) {
        return Err(KernelError::UnsupportedShape { format, rows, cols, reason });
    }
    (cols / block)
        .checked_mul(block_bytes)
        .and_then(|row| row.checked_add(head))
        .and_then(|row| row.checked_mul(rows))
        .and_then(|all| all.checked_add(tail))
        // `rows * cols` itself must fit a size, too: buffers of trits are allocated with it.
        .filter(|_| rows.checked_mul(cols).is_some_and(|n| isize::try_from(n).is_ok()))
        .ok_or(KernelError::TooLarge { op: format.name(), rows, cols })
}

/// Whether any of the 2-bit fields in `fields` (bit 0, 2, 4, 6 set for field 0, 1, 2, 3) of any byte is 3. Bytes are
/// folded without a branch, so this runs at the speed of memory.
pub(super) fn has_code_3(bytes: &[u8], fields: u8) -> bool {
    bytes.iter().fold(0, |any, &b| any | (b & (b >> 1))) & fields & 0x55 != 0
}

/// The first byte that holds a code 3, and the lowest such field in it.
pub(super) fn first_code_3(bytes: &[u8], fields: u8) -> Option<(usize, usize)> {
    const STEP: usize = 4096;
    let step = bytes.chunks(STEP).position(|c| has_code_3(c, fields))?;
    let (i, b) = bytes.iter().enumerate().skip(step * STEP).find(|(_, b)| has_code_3(&[**b], fields))?;
    let field = (0..4).find(|f| fields >> (2 * f) & 1 == 1 && b >> (2 * f) & 3 == 3)?;
    Some((i, field))
}

/// [`KernelError::InvalidCode`] for a code 3.
pub(super) fn code_3(format: FileFormat, row: usize, col: usize) -> KernelError {
    KernelError::InvalidCode { format, row, col, code: 3 }
}

/// `value`, if it can be a scale: finite and not negative.
pub(super) fn checked_scale(format: FileFormat, row: usize, value: f32) -> Result<f32, KernelError> {
    if value.is_finite() && value >= 0.0 { Ok(value) } else { Err(KernelError::InvalidScale { format, row, value }) }
}

/// The f32 in the first four bytes, little-endian.
pub(super) fn read_f32(bytes: &[u8]) -> f32 {
    f32::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]])
}

/// The f16 in the first two bytes, little-endian.
pub(super) fn read_f16(bytes: &[u8]) -> f32 {
    f16::from_le_bytes([bytes[0], bytes[1]]).to_f32()
}

/// `value` as f16 bytes.
pub(super) fn write_f16(
    format: FileFormat,
    row: usize,
    value: f32,
    rounding: ScaleRounding,
) -> Result<[u8; 2], KernelError> {
    let stored = f16::from_f32(value);
    let exact = stored.to_f32() == value;
    // Zero would turn the weights into zeros, infinity into nonsense: neither counts as rounding.
    let close = stored.is_finite() && (stored.to_f32() > 0.0);
    if exact || (rounding == ScaleRounding::Nearest && close) {
        return Ok(stored.to_le_bytes());
    }
    Err(KernelError::InexactScale { format, stored_as: "f16", row, value })
}

/// The one scale of `w`.
pub(super) fn one_scale(format: FileFormat, w: &TernaryMatrix) -> Result<f32, KernelError> {
    let scales = match w.scales() {
        Scales::Tensor(s) => return Ok(*s),
        Scales::Rows(s) => s,
        Scales::Groups(g) => return Err(grouped(format, g)),
    };
    let first = scales.first().copied().unwrap_or(1.0);
    match scales.iter().enumerate().find(|(_, s)| s.to_bits() != first.to_bits()) {
        None => Ok(first),
        Some((row, &second)) => Err(KernelError::OneScaleOnly { format, row, first, second }),
    }
}

/// Rejects group scales, for which a format with one scale per row has no room.
pub(super) fn row_scale(format: FileFormat, w: &TernaryMatrix, row: usize) -> Result<f32, KernelError> {
    match w.scales() {
        Scales::Tensor(_) | Scales::Rows(_) => Ok(w.scales().at(row, 0)),
        Scales::Groups(g) => Err(grouped(format, g)),
    }
}

fn grouped(format: FileFormat, scales: &GroupScales) -> KernelError {
    KernelError::NoGroupScales { format, group_len: scales.group_len() }
}

/// Scales of rows that store one each (IQ1_BN and IQ2_BN): the common one, if all rows agree except those of scale 0.
///
/// Quantisers give a row of zeros scale 0 and meaningless codes, so such a row is a row of zeros, whatever its codes
/// are, and takes the scale of the others.
pub(super) fn row_scales(scales: Vec<f32>) -> Scales {
    let mut nonzero = scales.iter().copied().filter(|s| *s != 0.0);
    let first = nonzero.next().unwrap_or(0.0);
    if nonzero.all(|s| s == first) { Scales::Tensor(first) } else { Scales::Rows(scales.into()) }
}

/// Calls `write(row, trits, bytes)` for each row of `w`, each `row_bytes` long.
pub(super) fn for_rows(
    w: &TernaryMatrix,
    row_bytes: usize,
    bytes: &mut [u8],
    mut write: impl FnMut(usize, &[i8], &mut [u8]) -> Result<(), KernelError>,
) -> Result<(), KernelError> {
    if row_bytes == 0 {
        return Ok(());
    }
    let mut trits = vec![0; w.cols()];
    for (r, bytes) in bytes.chunks_exact_mut(row_bytes).enumerate().take(w.rows()) {
        w.decode_row(r, &mut trits);
        write(r, &trits, bytes)?;
    }
    Ok(())
}
