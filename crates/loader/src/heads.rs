//! Orders of heads in files, and back.
//!
//! The model's own order of the value heads of the gated delta rule is in groups: those that read key head 0 first.
//! Hugging Face checkpoints have it, GGUF files have it tiled: the first value head of every key head, then the second
//! of each, and so on. The projection of queries of gated attention holds the queries of all heads, then the gates of
//! all heads; in both containers each head's gate follows its queries.
#![deny(clippy::unwrap_used, clippy::indexing_slicing, clippy::cast_possible_truncation)]

use std::ops::Range;

use bitnet_model::{DeltaConfig, DeltaTensor, Mixer, ModelConfig, Projection};
use ternary_kernels::{FileFormat, GroupScales, KernelError, ScalePlace, ScaleRounding, Scales, TernaryMatrix};

use crate::names::Names;

/// The index of the model's value head `j` in a GGUF file.
fn tiled(c: &DeltaConfig, j: usize) -> usize {
    j / c.group() + c.key_heads * (j % c.group())
}

/// Rows of `len` elements for each value head, after `before` other rows: row `r` of the model is row `order[r]` of a
/// GGUF file.
fn rows_of_heads(c: &DeltaConfig, before: usize, len: usize) -> Vec<u32> {
    let heads = (0..c.value_heads).flat_map(|j| (0..len).map(move |i| before + tiled(c, j) * len + i));
    // Sizes of a checked configuration are far below 2^32.
    (0..before).chain(heads).map(|r| u32::try_from(r).unwrap_or(u32::MAX)).collect()
}

/// Row `r` of the model's projection `p` of layer `l` is row `order[r]` of a file; `None` if both orders are equal.
pub(crate) fn rows(c: &ModelConfig, l: usize, p: Projection, names: Names) -> Option<Vec<u32>> {
    if let Some(delta) = c.delta_layer(l) {
        let before = match (names, p) {
            (Names::Hf { .. }, _) => return None,
            (Names::Gguf, Projection::Qkv) => 2 * delta.key_width(),
            (Names::Gguf, Projection::OutGate) => 0,
            (Names::Gguf, _) => return None,
        };
        return Some(rows_of_heads(&delta, before, delta.head_dim));
    }
    if p != Projection::Q || c.mixer(l) != Mixer::Attention || !c.gated_attention {
        return None;
    }
    let d = c.head_dim;
    let part =
        |gate: usize| (0..c.num_attention_heads).flat_map(move |h| (0..d).map(move |i| 2 * h * d + gate * d + i));
    Some(part(0).chain(part(1)).map(|r| u32::try_from(r).unwrap_or(u32::MAX)).collect())
}

/// The inverse of an order.
pub(crate) fn inverse(order: &[u32]) -> Vec<u32> {
    let mut inverse = vec![0; order.len()];
    for (r, from) in (0u32..).zip(order) {
        if let Some(to) = inverse.get_mut(*from as usize) {
            *to = r;
        }
    }
    inverse
}

/// Head `j` of the columns of the model's projection `p` of layer `l` is head `order[j]` of a file; with the number of
/// columns of a head; `None` if both orders are equal. Folded weights have their columns in the model's order in every
/// file, because a transform has mixed them.
pub(crate) fn columns(c: &ModelConfig, l: usize, p: Projection, names: Names) -> Option<(Vec<u32>, usize)> {
    let delta = c.delta_layer(l)?;
    match (names, p) {
        (Names::Gguf, Projection::O) if c.fold.is_none() => Some((rows_of_heads(&delta, 0, 1), delta.head_dim)),
        _ => None,
    }
}

/// Rows of `len` elements of a full-precision tensor: row `r` of the model is row `order[r]` of a GGUF file; `None` if
/// both orders are equal.
pub(crate) fn tensor_rows(c: &DeltaConfig, t: DeltaTensor) -> Option<(Vec<u32>, usize)> {
    match t {
        DeltaTensor::Alpha | DeltaTensor::Beta => Some((rows_of_heads(c, 0, 1), c.hidden_size)),
        DeltaTensor::Decay | DeltaTensor::DecayBias => Some((rows_of_heads(c, 0, 1), 1)),
        DeltaTensor::Conv => Some((rows_of_heads(c, 2 * c.key_width(), c.head_dim), c.conv_kernel)),
        _ => None,
    }
}

/// `values` with rows of `len` elements in another order: row `r` of the result is row `order[r]`.
pub(crate) fn reordered(values: &[f32], order: &[u32], len: usize) -> Vec<f32> {
    let row = |r: &u32| values.get(*r as usize * len..(*r as usize + 1) * len).unwrap_or_default();
    order.iter().flat_map(row).copied().collect()
}

/// Rows that are decoded and packed together.
const ROWS: usize = 64;
/// Weights of the groups that other groups are cut into.
const GROUP: usize = 64;

/// `w` with its columns in another order: columns `j len..` of the result are columns `order[j] len..` of `w`. Every
/// weight keeps its scale, so nothing is rounded.
///
/// # Errors
/// [`KernelError::NoGroupScales`] for groups that heads of `len` columns cut into pieces of no multiple of 64.
pub(crate) fn permuted(w: &TernaryMatrix, order: &[u32], len: usize) -> Result<TernaryMatrix, KernelError> {
    if let Some(moved) = blocks(w, order, len) {
        return moved;
    }
    let (rows, cols) = (w.rows(), w.cols());
    let pick = |codes: &[i8], out: &mut Vec<i8>| {
        for j in order {
            out.extend_from_slice(codes.get(*j as usize * len..(*j as usize + 1) * len).unwrap_or_default());
        }
    };
    let (format, scales) = match w.scales() {
        Scales::Tensor(_) | Scales::Rows(_) => (FileFormat::HfPacked, Some(w.scales().clone())),
        Scales::Groups(g) if len.is_multiple_of(GROUP) && g.group_len().is_multiple_of(GROUP) => {
            (FileFormat::Q2_0, None)
        }
        Scales::Groups(g) => {
            return Err(KernelError::NoGroupScales { format: w.format(), group_len: g.group_len() });
        }
    };
    let mut all = Vec::new();
    let mut code = vec![0; cols];
    for start in (0..rows).step_by(ROWS) {
        let part: Range<usize> = start..rows.min(start + ROWS);
        let (mut codes, mut values) = (Vec::with_capacity(part.len() * cols), Vec::new());
        for r in part.clone() {
            w.decode_row(r, &mut code);
            pick(&code, &mut codes);
            if let Scales::Groups(g) = w.scales() {
                let row = g.row(r);
                for j in order {
                    let first = *j as usize * len;
                    let starts = (first..first + len).step_by(GROUP);
                    values.extend(starts.filter_map(|c| row.get(c / g.group_len()).copied()));
                }
            }
        }
        if scales.is_some() {
            // Four rows share a byte, so all are packed at once.
            all.extend(codes.iter().map(|c| c.cast_unsigned()));
            continue;
        }
        let groups = GroupScales::new(GROUP, part.len(), cols, values.into())?;
        let part = TernaryMatrix::from_codes(part.len(), cols, &codes, Scales::Groups(groups))?;
        all.extend(format.encode(&part, ScaleRounding::Exact)?);
    }
    match scales {
        None => TernaryMatrix::from_bytes(format, rows, cols, all.into(), None),
        Some(scales) => {
            let codes: Vec<i8> = all.into_iter().map(u8::cast_signed).collect();
            let plain = TernaryMatrix::from_codes(rows, cols, &codes, Scales::Tensor(1.0))?;
            let bytes = format.encode(&plain, ScaleRounding::Exact)?;
            TernaryMatrix::from_bytes(format, rows, cols, bytes.into(), Some(scales))
        }
    }
}

/// [`permuted`] if a head is whole blocks of a format whose blocks hold their scales: it moves the bytes unchanged.
fn blocks(w: &TernaryMatrix, order: &[u32], len: usize) -> Option<Result<TernaryMatrix, KernelError>> {
    let (format, bytes) = (w.format(), w.file_bytes()?);
    let info = format.info();
    let block =
        info.bytes.filter(|_| matches!(info.scale, ScalePlace::Block(_)) && len.is_multiple_of(info.weights))?;
    let (row, head) = (w.cols() / info.weights * block, len / info.weights * block);
    let mut moved = Vec::with_capacity(bytes.len());
    for row in bytes.chunks_exact(row) {
        for j in order {
            moved.extend_from_slice(row.get(*j as usize * head..(*j as usize + 1) * head)?);
        }
    }
    let moved = match TernaryMatrix::from_bytes(format, w.rows(), w.cols(), moved.into(), None) {
        Ok(moved) => moved,
        Err(e) => return Some(Err(e)),
    };
    // Scales from a separate tensor are not in the bytes.
    let same = |r: usize| moved.scales().at(r, 0) == w.scales().at(r, order.first().map_or(0, |j| *j as usize * len));
    (0..w.rows()).all(same).then_some(Ok(moved))
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::indexing_slicing)] // A test may.
mod tests {
    use half::f16;

    use super::*;

    #[test]
    fn value_heads_are_tiled_in_gguf_files() {
        // Two key heads with three value heads each: the reference's order for such a model.
        let c = DeltaConfig::new(8, 2, 6, 4);
        assert_eq!(rows_of_heads(&c, 0, 1), [0, 2, 4, 1, 3, 5]);
        assert_eq!(rows_of_heads(&c, 3, 2)[..7], [0, 1, 2, 3, 4, 7, 8]);
        let order = rows_of_heads(&c, 5, 4);
        let values: Vec<f32> = (0..order.len() * 3).map(|i| i as f32).collect();
        assert_eq!(reordered(&reordered(&values, &order, 3), &inverse(&order), 3), values);
    }

    #[test]
    fn gates_follow_the_queries_of_their_head_in_files() {
        let mut c = ModelConfig::new(96, 64, 128, 1, 2, 1);
        (c.head_dim, c.gated_attention) = (2, true);
        let names = Names::Hf { prefix: "" };
        assert_eq!(rows(&c, 0, Projection::Q, names).unwrap(), [0, 1, 4, 5, 2, 3, 6, 7]);
        assert_eq!(rows(&c, 0, Projection::K, names), None);
    }

    #[test]
    fn columns_move_with_their_scales() {
        let (rows, cols) = (3, 512);
        let codes: Vec<i8> = (0..rows * cols).map(|i| [-1, 0, 1][i * 7 % 11 % 3]).collect();
        let value = |w: &TernaryMatrix, r: usize, c: usize| {
            let mut row = vec![0; cols];
            w.decode_row(r, &mut row);
            f32::from(row[c]) * w.scales().at(r, c)
        };
        for group_len in [64, 128, 256] {
            let scales = (0..rows * cols / group_len).map(|i| f16::from_f32(0.5 + i as f32 / 64.0)).collect();
            let scales = Scales::Groups(GroupScales::new(group_len, rows, cols, scales).unwrap());
            let w = TernaryMatrix::from_codes(rows, cols, &codes, scales).unwrap();
            let stored = [FileFormat::Q2_0, FileFormat::Pq2_0].into_iter().find_map(|format| {
                let bytes = format.encode(&w, ScaleRounding::Exact).ok()?;
                TernaryMatrix::from_bytes(format, rows, cols, bytes.into(), None).ok()
            });
            for w in [&w, &stored.unwrap()] {
                for (order, len) in [(vec![2, 0, 3, 1], 128), (vec![7, 0, 6, 1, 5, 2, 4, 3], 64)] {
                    let moved = permuted(w, &order, len).unwrap();
                    for c in 0..cols {
                        let from = order[c / len] as usize * len + c % len;
                        assert!((0..rows).all(|r| value(&moved, r, c) == value(w, r, from)), "{group_len} {len} {c}");
                    }
                }
                assert!(matches!(permuted(w, &[1; 16], 32), Err(KernelError::NoGroupScales { .. })));
            }
        }
        let w = TernaryMatrix::from_codes(rows, cols, &codes, Scales::Rows([1.0, 2.0, 3.0].into())).unwrap();
        let moved = permuted(&w, &[1, 0], 256).unwrap();
        assert!((0..cols).all(|c| value(&moved, 2, c) == value(&w, 2, (c + 256) % cols)));
    }
}
