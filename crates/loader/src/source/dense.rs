//! Projections stored as floats: already ternary, or master weights.

use ternary_kernels::{FileFormat, KernelError, ScaleRounding, Scales, TernaryMatrix};

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

/// Absmean quantisation of master weights, as BitNet b1.58 is trained:
/// `a = max(mean |W|, 1e-5)`, `T = clamp(round_half_even(W / a), -1, 1)`; returns `T` and `a`.
///
/// Computed as transformers does it, through `s = 1/a` in f32, because that decides values near one half: `T` comes from
/// `W * s` and the scale is `1/s`. The mean is accumulated in f64; the reference's f32 sum differs in the last bits only.
#[allow(clippy::cast_possible_truncation)] // The mean rounds to f32 as in training; -1, 0 and 1 fit i8.
pub(super) fn absmean(values: &[f32]) -> (Vec<i8>, f32) {
    let sum: f64 = values.iter().map(|v| f64::from(v.abs())).sum();
    let mean = (sum / values.len().max(1) as f64) as f32;
    let s = 1.0 / mean.max(1e-5);
    let trits = values.iter().map(|v| (v * s).round_ties_even().clamp(-1.0, 1.0) as i8).collect();
    (trits, 1.0 / s)
}

/// The matrix `scale * beside * trits`, kept in two bits per weight.
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
    };
    // The packed form holds any shape, but takes one scale beside it when it is made; the scales follow afterwards.
    let plain = TernaryMatrix::from_trits(rows, cols, trits, Scales::Tensor(1.0))?;
    let bytes = FileFormat::HfPacked.encode(&plain, ScaleRounding::Exact)?;
    TernaryMatrix::from_bytes(FileFormat::HfPacked, rows, cols, bytes.into(), Some(scales))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)] // A test may.
mod tests {
    use super::*;

    #[test]
    fn ternary_values_are_recognised_and_keep_their_scale() {
        assert_eq!(as_ternary(&[0.0, -1.5, 1.5, -0.0]), Some((vec![0, -1, 1, 0], 1.5)));
        assert_eq!(as_ternary(&[0.0; 3]), Some((vec![0; 3], 1.0)));
        assert_eq!(as_ternary(&[0.5, 0.5000001]), None);
    }

    #[test]
    fn absmean_follows_the_formula_and_rounds_half_to_even() {
        // Mean of absolute values is 1, so W / a = W: 0.5 and 1.5 are ties.
        let (t, a) = absmean(&[0.5, -0.5, 1.5, -1.5, 0.6, -1.4]);
        assert_eq!((t, a), (vec![0, 0, 1, -1, 1, -1], 1.0));
        let (t, a) = absmean(&[0.0; 4]);
        assert_eq!(t, [0; 4]);
        assert_eq!(a, 1.0 / (1.0 / 1e-5));
    }

    #[test]
    fn quantising_ternary_values_again_would_change_the_scale() {
        let values = [2.0, 0.0, 0.0, -2.0];
        assert_eq!(as_ternary(&values).map(|x| x.1), Some(2.0));
        assert_eq!(absmean(&values).1, 1.0);
    }

    #[test]
    fn packing_keeps_trits_and_row_scales() {
        let trits = [1, 0, -1, 0, 1, 1, -1, -1, 0, 1];
        let beside = Scales::Rows(vec![1.0, 2.0, 2.0, 1.0, 0.5].into());
        let m = pack(5, 2, &trits, 0.5, Some(beside)).unwrap();
        assert_eq!(m.to_trits(), trits);
        assert_eq!((m.scales().of_row(1), m.scales().of_row(4)), (1.0, 0.25));
    }
}
