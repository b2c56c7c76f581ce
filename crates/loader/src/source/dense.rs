//! Projections stored as floats: already ternary, or master weights.

use std::ops::Range;

use half::f16;
use ternary_kernels::{FileFormat, GroupScales, KernelError, ScaleRounding, Scales, TernaryMatrix, quantize};

use crate::LoadError;

/// Trits and the scale, if all values are `-s`, 0 or `s` for one `s`. A tensor of zeros has scale 1.
///
/// Values that are ternary already must not be quantised again: the mean of their absolute values counts the zeros, so
/// the scale would shrink.
pub(super) fn as_ternary(values: &[f32]) -> Option<(Vec<i8>, f32)> {
    let s = values.iter().find(|v| **v != 0.0).map_or(1.0, |v| v.abs());
    if !values.iter().all(|v| *v == 0.0 || v.abs() == s) {
        return None;
    }
    Some((values.iter().map(|v| trit(*v)).collect(), s))
}

fn trit(v: f32) -> i8 {
    i8::from(v > 0.0).wrapping_sub(i8::from(v < 0.0))
}

/// Weights of a group that "unpacked" checkpoints may have, the longest first.
const GROUPS: [(usize, FileFormat); 3] = [(256, FileFormat::Tq2_0), (128, FileFormat::Pq2_0), (64, FileFormat::Q2_0)];

/// Rows that are read and packed at once.
const ROWS: usize = 64;

/// The matrix `[rows, cols]` of floats that are `-d`, 0 or `d` with a separate `d` for each group of a row, as in
/// checkpoints that were unpacked from a block format. `None` if they are something else, or a `d` does not fit an f16.
/// The longest groups for which it is exact are used, and the result holds two bits per weight; `read` returns the
/// values of a few rows, which must be finite. `tensor` is its name.
///
/// It costs little if the answer is `None`: the first group with other values ends it.
pub(super) fn as_groups(
    tensor: &str,
    (rows, cols): (usize, usize),
    mut read: impl FnMut(Range<usize>) -> Result<Vec<f32>, LoadError>,
) -> Result<Option<TernaryMatrix>, LoadError> {
    for (len, format) in GROUPS {
        if let Some(found) = in_groups(tensor, (rows, cols), (len, format), &mut read)? {
            return Ok(Some(found));
        }
    }
    Ok(None)
}

fn in_groups(
    tensor: &str,
    (rows, cols): (usize, usize),
    (len, format): (usize, FileFormat),
    read: &mut impl FnMut(Range<usize>) -> Result<Vec<f32>, LoadError>,
) -> Result<Option<TernaryMatrix>, LoadError> {
    if rows == 0 || cols == 0 || !cols.is_multiple_of(len) {
        return Ok(None);
    }
    let in_tensor = |source: KernelError| LoadError::Ternary { tensor: tensor.to_owned(), source };
    let mut bytes = Vec::new();
    for start in (0..rows).step_by(ROWS) {
        let end = start.saturating_add(ROWS).min(rows);
        let values = read(start..end)?;
        let mut scales = Vec::new();
        for group in values.chunks_exact(len) {
            let d = group.iter().fold(0.0f32, |d, v| d.max(v.abs()));
            let stored = f16::from_f32(d);
            if stored.to_f32() != d || group.iter().any(|v| *v != 0.0 && v.abs() != d) {
                return Ok(None);
            }
            scales.push(stored);
        }
        let trits: Vec<i8> = values.iter().map(|v| trit(*v)).collect();
        let height = end.saturating_sub(start);
        let part = GroupScales::new(len, height, cols, scales.into())
            .and_then(|s| TernaryMatrix::from_trits(height, cols, &trits, Scales::Groups(s)))
            .and_then(|w| format.encode(&w, ScaleRounding::Exact))
            .map_err(in_tensor)?;
        bytes.extend_from_slice(&part);
    }
    TernaryMatrix::from_bytes(format, rows, cols, bytes.into(), None).map(Some).map_err(in_tensor)
}

/// Master weights `[rows, cols]`, whole groups of `len` in each row, with a scale for each group; kept in two bits per
/// weight.
pub(super) fn quantize_groups(
    values: &[f32],
    (rows, cols): (usize, usize),
    len: usize,
) -> Result<TernaryMatrix, KernelError> {
    let (trits, scales) = quantize::absmean_quantize_groups(values, rows, cols, len)?;
    let w = TernaryMatrix::from_trits(rows, cols, &trits, Scales::Groups(scales))?;
    // Blocks of 64 hold longer groups as well, each scale several times.
    let bytes = FileFormat::Q2_0.encode(&w, ScaleRounding::Exact)?;
    TernaryMatrix::from_bytes(FileFormat::Q2_0, rows, cols, bytes.into(), None)
}

/// The matrix `scale * beside * trits`, with two bits per weight.
pub(super) fn pack(
    rows: usize,
    cols: usize,
    trits: &[i8],
    scale: f32,
    beside: Option<Scales>,
) -> Result<TernaryMatrix, KernelError> {
    let scales = match beside {
        None => Scales::Tensor(scale),
        Some(Scales::Tensor(b)) => Scales::Tensor(scale * b),
        Some(Scales::Rows(all)) => Scales::Rows(all.iter().map(|b| scale * b).collect()),
        // No file has scales of groups in a separate tensor.
        Some(Scales::Groups(g)) => {
            return Err(KernelError::NoGroupScales { format: FileFormat::HfPacked, group_len: g.group_len() });
        }
    };
    // The packed form holds any shape, but is created with one separate scale; the scales follow afterwards.
    let plain = TernaryMatrix::from_trits(rows, cols, trits, Scales::Tensor(1.0))?;
    let bytes = FileFormat::HfPacked.encode(&plain, ScaleRounding::Exact)?;
    TernaryMatrix::from_bytes(FileFormat::HfPacked, rows, cols, bytes.into(), Some(scales))
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::arithmetic_side_effects)] // A test may.
mod tests {
    use super::*;

    #[test]
    fn ternary_values_are_recognised_and_keep_their_scale() {
        assert_eq!(as_ternary(&[0.0, -1.5, 1.5, -0.0]), Some((vec![0, -1, 1, 0], 1.5)));
        assert_eq!(as_ternary(&[0.0; 3]), Some((vec![0; 3], 1.0)));
        assert_eq!(as_ternary(&[0.5, 0.5000001]), None);
    }

    #[test]
    fn quantising_ternary_values_again_would_change_the_scale() {
        let values = [2.0, 0.0, 0.0, -2.0];
        assert_eq!(as_ternary(&values).map(|x| x.1), Some(2.0));
        assert_eq!(ternary_kernels::quantize::absmean_quantize(&values, 2, 2).unwrap().1, 1.0);
    }

    /// `[3, 256]` values whose scale changes every `len` weights.
    fn grouped(len: usize) -> Vec<f32> {
        let d = |i: usize| f16::from_f32(0.01 + (i / len) as f32 * 0.003).to_f32();
        (0..3 * 256).map(|i| d(i) * [1.0, 0.0, -1.0][i * 7 % 11 % 3]).collect()
    }

    fn groups_of(values: &[f32]) -> Option<TernaryMatrix> {
        as_groups("w", (3, 256), |rows| Ok(values[rows.start * 256..rows.end * 256].to_vec())).unwrap()
    }

    #[test]
    fn groups_are_recovered_exactly_in_the_longest_length() {
        for len in [64, 128, 256] {
            let values = grouped(len);
            let w = groups_of(&values).unwrap();
            let (mut trits, mut row) = (vec![0; 256], vec![0.0; 256]);
            for r in 0..3 {
                w.decode_row_f32(r, &mut trits, &mut row);
                assert_eq!(row, values[r * 256..(r + 1) * 256], "{len}");
            }
            match (w.scales(), len) {
                (Scales::Rows(_), 256) => {}
                (Scales::Groups(g), _) => assert_eq!(g.group_len(), len),
                other => panic!("{other:?}"),
            }
        }
    }

    #[test]
    fn what_is_no_group_times_one_scale_is_left_alone() {
        let mut values = grouped(64);
        values[99] *= 1.5;
        assert!(groups_of(&values).is_none());
        // A scale that f16 cannot hold.
        let values: Vec<f32> = grouped(64).iter().map(|v| v * 1.000_01).collect();
        assert!(groups_of(&values).is_none());
        assert!(groups_of(&grouped(32)).is_none());
    }

    #[test]
    fn packing_keeps_trits_and_row_scales() {
        let trits = [1, 0, -1, 0, 1, 1, -1, -1, 0, 1];
        let beside = Scales::Rows(vec![1.0, 2.0, 2.0, 1.0, 0.5].into());
        let m = pack(5, 2, &trits, 0.5, Some(beside)).unwrap();
        assert_eq!(m.to_trits(), trits);
        assert_eq!((m.scales().at(1, 0), m.scales().at(4, 0)), (1.0, 0.25));
    }
}
