//! Formats whose rows are blocks with one f16 scale each: reading, checking and writing them, for any codes.

use half::f16;

use super::table::{FormatInfo, ScalePlace};
use super::{Inside, ScaleRounding, common};
use crate::matrix::Twos;
use crate::{FileFormat, GroupScales, KernelError, Levels, Scales, TernaryMatrix};

/// The codes of a format.
pub(super) trait Block {
    const FORMAT: FileFormat;
    /// The rule for the length of a row, and the formats for other lengths.
    const ROWS: &'static str;
    const INFO: &'static FormatInfo = Self::FORMAT.info();

    /// The number of codes of a block that do not stand for a trit (3, of two bits), and the position of the first in
    /// the block.
    fn code_3(block: &[u8]) -> Option<(usize, usize)>;

    /// Writes the codes of a block, minus one, to `out`.
    fn decode(block: &[u8], out: &mut [i8]);
}

/// A format that can be written.
pub(super) trait WriteBlock: Block {
    /// Writes a block except its scale. `block` must be zeros before.
    fn encode(codes: &[i8], block: &mut [u8]);
}

/// Weights and bytes of a block.
const fn size<B: Block>() -> (usize, usize) {
    B::INFO.block()
}

/// Offset of a block's scale.
const fn scale_at<B: Block>() -> usize {
    match B::INFO.scale {
        ScalePlace::Block(at) => at,
        ScalePlace::Beside | ScalePlace::Tensor | ScalePlace::Row(_) => panic!("each block has a scale"),
    }
}

fn scale_of<B: Block>(block: &[u8]) -> f16 {
    let at = scale_at::<B>();
    f16::from_le_bytes([block[at], block[at + 1]])
}

pub(super) fn byte_len<B: Block>(rows: usize, cols: usize) -> Result<usize, KernelError> {
    common::byte_len(B::FORMAT, (rows, cols), size::<B>(), (0, 0), B::ROWS)
}

/// Checks scales and codes. A block of scale 0 holds zeros, whatever its codes are: quantisers give scale 0 to blocks
/// of zeros. So such a block goes with any scale of the others.
pub(super) fn validate<B: Block>(rows: usize, cols: usize, bytes: &[u8]) -> Result<Inside, KernelError> {
    let (weights, size) = size::<B>();
    let blocks = cols / weights;
    if blocks == 0 || rows == 0 {
        return Ok(Inside { scales: Some(Scales::Tensor(1.0)), twos: None });
    }
    // One per block of the bytes, whose number was checked.
    let mut values = Vec::with_capacity(bytes.len() / size);
    let mut twos: Option<Twos> = None;
    for (i, block) in bytes.chunks_exact(size).enumerate() {
        let (row, b) = (i / blocks, i % blocks);
        let d = scale_of::<B>(block);
        if let Some((count, first)) = B::code_3(block) {
            let (row, col) = (row, b * weights + first);
            match B::INFO.levels {
                Levels::Three => return Err(common::code_3(B::FORMAT, row, col)),
                Levels::Four if d == f16::ZERO => {}
                Levels::Four => twos.get_or_insert(Twos { row, col, count: 0 }).count += count,
            }
        }
        if !(d.is_finite() && d >= f16::ZERO) {
            return Err(KernelError::InvalidBlockScale { format: B::FORMAT, row, block: b, value: d.to_f32() });
        }
        values.push(if d == f16::ZERO { f16::ZERO } else { d });
    }
    let scales = match common_scales(&values, blocks) {
        // A matrix with twos keeps its groups: the kernels for whole rows multiply trits.
        Some(scales) if twos.is_none() => scales,
        _ => Scales::Groups(GroupScales::new(weights, rows, cols, values.into())?),
    };
    Ok(Inside { scales: Some(scales), twos })
}

/// The scales of rows or of the tensor, if all blocks of a row have the same scale, except those of scale 0. A row with
/// only such blocks takes the scale of the other rows.
fn common_scales(values: &[f16], blocks: usize) -> Option<Scales> {
    let mut rows = Vec::with_capacity(values.len() / blocks);
    // The common scale of all non-zero rows, as long as there is one.
    let mut common = Some(f16::ZERO);
    for row in values.chunks_exact(blocks) {
        let mut nonzero = row.iter().copied().filter(|d| *d != f16::ZERO);
        let first = nonzero.next().unwrap_or(f16::ZERO);
        if nonzero.any(|d| d != first) {
            return None;
        }
        common = common.filter(|&c| first == f16::ZERO || c == f16::ZERO || c == first).map(|c| c.max(first));
        rows.push(first.to_f32());
    }
    Some(common.map_or_else(|| Scales::Rows(rows.into()), |c| Scales::Tensor(c.to_f32())))
}

pub(super) fn decode_row<B: Block>(bytes: &[u8], cols: usize, r: usize, out: &mut [i8]) {
    let (weights, size) = size::<B>();
    let row = cols / weights * size;
    for (block, out) in bytes[r * row..(r + 1) * row].chunks_exact(size).zip(out.chunks_exact_mut(weights)) {
        if scale_of::<B>(block) == f16::ZERO {
            out.fill(0);
        } else {
            B::decode(block, out);
        }
    }
}

/// Writes `w`, whose levels the format can hold.
pub(super) fn encode<B: WriteBlock>(
    w: &TernaryMatrix,
    rounding: ScaleRounding,
    bytes: &mut [u8],
) -> Result<(), KernelError> {
    let (weights, size) = size::<B>();
    let at = scale_at::<B>();
    let mut codes = vec![0; weights];
    common::for_rows(w, w.cols() / weights * size, bytes, |r, row_codes, row| {
        for (b, (stored, block)) in row_codes.chunks_exact(weights).zip(row.chunks_exact_mut(size)).enumerate() {
            codes.copy_from_slice(stored);
            let scale = match w.scales() {
                Scales::Tensor(_) | Scales::Rows(_) => w.scales().at(r, 0),
                Scales::Groups(g) => common_scale(B::FORMAT, g, r, b * weights, &mut codes)?,
            };
            B::encode(&codes, block);
            block[at..at + 2].copy_from_slice(&common::write_f16(B::FORMAT, r, scale, rounding)?);
        }
        Ok(())
    })
}

/// The one scale of the weights from column `first` on of row `r`, whose codes are `codes`. Groups of zeros fit any
/// scale; the codes of a group of scale 0 become zeros.
fn common_scale(
    format: FileFormat,
    scales: &GroupScales,
    r: usize,
    first: usize,
    codes: &mut [i8],
) -> Result<f32, KernelError> {
    let group_len = scales.group_len();
    let mut found: Option<f32> = None;
    let (mut at, end) = (first, first + codes.len());
    while at < end {
        let group = at / group_len;
        let stop = end.min((group + 1) * group_len);
        let part = &mut codes[at - first..stop - first];
        let d = scales.row(r)[group].to_f32();
        if d == 0.0 {
            part.fill(0);
        } else if part.iter().any(|c| *c != 0) {
            match found {
                Some(first) if first != d => {
                    return Err(KernelError::MixedScales { format, row: r, first, second: d });
                }
                _ => found = Some(d),
            }
        }
        at = stop;
    }
    // Only zeros: the scale of the first group, so that reading and writing does not change the file.
    Ok(found.unwrap_or_else(|| scales.row(r)[first / group_len].to_f32()))
}
