//! Reference definitions of the quantisers of BitNet b1.58 and BitNet v2; vectorised versions must equal them.
//!
//! Paper: arXiv:2402.17764, section 2 (weights); arXiv:2504.18415, section 2 (weights and activations).

use half::f16;

use crate::{GroupScales, KernelError};

/// The lower limit of absolute means and maxima, so that zeros can be divided.
pub const MIN_ABS: f32 = 1e-5;

/// The absolute mean of the master weights of one tensor, `max(mean|W|, 1e-5)`; [`weight_scale`] computes the scale
/// from it.
///
/// The mean is summed in f64 and rounded to f32 once: that is the f32 nearest to the true mean for any tensor that fits
/// into memory, and independent of the order of the sum. (A framework that sums in f32 may differ in the last bits,
/// which changes a trit only if its weight is that close to half of the mean.) It is finite if and only if all weights
/// are.
pub fn absmean(weights: &[f32]) -> f32 {
    let sum: f64 = weights.iter().map(|w| f64::from(w.abs())).sum();
    let mean = (sum / weights.len().max(1) as f64) as f32;
    // A comparison that is false for NaN, so that damage stays visible.
    if mean < MIN_ABS { MIN_ABS } else { mean }
}

/// The scale of ternary weights whose absolute mean is `mean`: `1 / (1 / mean)`, each division rounded to f32.
///
/// This is what transformers computes: it multiplies weights with `s = 1 / mean` before it rounds them, and divides
/// trits by `s`. The last bit may differ from `mean`, and a last bit changes codes of activations later in the model.
pub fn weight_scale(mean: f32) -> f32 {
    1.0 / (1.0 / mean)
}

/// Ternary weights by the absolute mean: with `a` from [`absmean`], `T = clamp(round(W * (1 / a)), -1, 1)`, where
/// halves round to even; the weight is then [`weight_scale`]`(a) * T`. `weights` is `[rows, cols]` f32; returns
/// `[rows, cols]` i8 and that scale.
///
/// Training computes with these ([`Ops::ternarize`](crate::Ops::ternarize)), and so does loading master weights, so
/// that exporting a model does not change it by a bit. Source: `WeightQuant` and `BitLinear` in
/// `integrations/bitnet.py` of transformers.
///
/// # Errors
/// [`KernelError::ShapeMismatch`] for a wrong length, [`KernelError::TooLarge`], [`KernelError::NotFinite`].
///
/// ```
/// let (t, a) = ternary_kernels::quantize::absmean_quantize(&[0.9, -0.1, 0.5, -0.5], 2, 2).unwrap();
/// assert_eq!((t, a), (vec![1, 0, 1, -1], 0.5));
/// ```
pub fn absmean_quantize(weights: &[f32], rows: usize, cols: usize) -> Result<(Vec<i8>, f32), KernelError> {
    let op = "absmean_quantize";
    let expected = rows.checked_mul(cols).ok_or(KernelError::TooLarge { op, rows, cols })?;
    if weights.len() != expected {
        return Err(KernelError::ShapeMismatch { op, what: "rows * cols weights", expected, got: weights.len() });
    }
    let mean = absmean(weights);
    if !mean.is_finite() {
        let i = weights.iter().position(|w| !w.is_finite()).unwrap_or(0);
        return Err(KernelError::NotFinite { op, row: i / cols, col: i % cols, value: weights[i] });
    }
    let factor = 1.0 / mean;
    let trits = weights.iter().map(|w| (w * factor).round_ties_even().clamp(-1.0, 1.0) as i8).collect();
    Ok((trits, weight_scale(mean)))
}

/// The scale of a group of master weights: their absolute mean from [`absmean`], rounded to the f16 that files of
/// groups store. It is finite if and only if all weights are and their mean fits an f16.
pub fn group_scale(weights: &[f32]) -> f16 {
    f16::from_f32(absmean(weights))
}

/// Ternary weights with a scale for each `group_len` consecutive weights of a row (the last group may be shorter): with
/// `d` of a group from [`group_scale`], `T = clamp(round(W * (1 / d)), -1, 1)`, where halves round to even; the weight
/// is `d * T`. `weights` is `[rows, cols]` f32; returns `[rows, cols]` i8 and the scales, see [`scales_of_groups`].
///
/// As `d` is rounded before the division, storing a model rounds nothing more: training
/// ([`Ops::ternarize_groups`](crate::Ops::ternarize_groups)), loading master weights and every file have the same bits.
///
/// # Errors
/// [`KernelError::ShapeMismatch`] for a wrong length or groups of 0 weights, [`KernelError::TooLarge`],
/// [`KernelError::NotFinite`]; [`KernelError::InvalidGroupScale`] for a mean that does not fit an f16.
///
/// ```
/// let w = [0.9, -0.1, 0.5, -0.5, 3.0, 1.0, 0.0, 0.0];
/// let (t, d) = ternary_kernels::quantize::absmean_quantize_groups(&w, 1, 8, 4).unwrap();
/// assert_eq!(t, [1, 0, 1, -1, 1, 1, 0, 0]);
/// assert_eq!((d.at(0, 0), d.at(0, 4)), (0.5, 1.0));
/// ```
pub fn absmean_quantize_groups(
    weights: &[f32],
    rows: usize,
    cols: usize,
    group_len: usize,
) -> Result<(Vec<i8>, GroupScales), KernelError> {
    let op = "absmean_quantize_groups";
    let expected = rows.checked_mul(cols).ok_or(KernelError::TooLarge { op, rows, cols })?;
    if weights.len() != expected {
        return Err(KernelError::ShapeMismatch { op, what: "rows * cols weights", expected, got: weights.len() });
    }
    if let Some(i) = weights.iter().position(|w| !w.is_finite()) {
        return Err(KernelError::NotFinite { op, row: i / cols, col: i % cols, value: weights[i] });
    }
    let mut trits = Vec::with_capacity(expected);
    let mut scales = Vec::new();
    // Rows without columns are empty, and groups without weights are rejected below.
    for row in weights.chunks(cols.max(1)) {
        for group in row.chunks(group_len.max(1)) {
            let d = group_scale(group);
            let factor = 1.0 / d.to_f32();
            trits.extend(group.iter().map(|w| (w * factor).round_ties_even().clamp(-1.0, 1.0) as i8));
            scales.push(d);
        }
    }
    let scales = scales_of_groups(&trits, (rows, cols), group_len, scales)?;
    Ok((trits, scales))
}

/// The scales of groups of trits `[rows, cols]`, group by group and row by row. Groups with only trits of 0 get scale
/// 0, since floats (`scale * trit`) cannot represent another scale for them. That changes no product.
///
/// # Errors
/// The errors of [`GroupScales::new`].
pub fn scales_of_groups(
    trits: &[i8],
    (rows, cols): (usize, usize),
    group_len: usize,
    mut scales: Vec<f16>,
) -> Result<GroupScales, KernelError> {
    let groups = trits.chunks(cols.max(1)).flat_map(|row| row.chunks(group_len.max(1)));
    for (d, trits) in scales.iter_mut().zip(groups) {
        // A scale that does not fit an f16 also makes trits of 0, and is rejected.
        if d.is_finite() && trits.iter().all(|t| *t == 0) {
            *d = f16::ZERO;
        }
    }
    GroupScales::new(group_len, rows, cols, scales.into())
}

/// Int8 activations of one token by the absolute maximum: `g = max(max|x|, 1e-5)`, `s = 127 / g`,
/// `q = round(x * s)`, where halves round to even. Returns `s` and the sum of all `q`; `x` is about `q / s`.
///
/// `|q| <= 127`, as rounding `x * s` cannot exceed 127 by a half. A NaN becomes 0, and so does every other value if one
/// is infinite.
///
/// # Panics
/// If `codes` and `x` differ in length.
///
/// ```
/// let mut q = [0; 5];
/// let (s, sum) = ternary_kernels::quantize::absmax_int8(&[127.0, 0.5, 1.5, -0.5, 2.5], &mut q);
/// assert_eq!((q, s, sum), ([127, 0, 2, 0, 2], 1.0, 131));
/// ```
pub fn absmax_int8(x: &[f32], codes: &mut [i8]) -> (f32, i32) {
    assert_eq!(x.len(), codes.len(), "absmax_int8: lengths");
    let max = x.iter().fold(0.0f32, |m, v| m.max(v.abs()));
    let scale = 127.0 / max.max(MIN_ABS);
    let mut sum = 0i32;
    for (q, v) in codes.iter_mut().zip(x) {
        *q = (v * scale).round_ties_even().clamp(-127.0, 127.0) as i8;
        sum = sum.wrapping_add(i32::from(*q));
    }
    (scale, sum)
}

/// The square root of 7: a code of int4 is the activation in units of `mean|x| / sqrt(7)`.
pub const SQRT_7: f32 = 2.645_751_3;

/// Int4 activations of one token by the absolute mean: `b = max(mean|x|, 1e-5)`, `s = sqrt(7) / b`,
/// `q = clamp(round(x * s), -8, 7)`, where halves round to even. Returns `s` and the sum of all `q`; `x` is about
/// `q / s` if it is between `-8 / s` and `7 / s`, and larger values saturate.
///
/// The absolute values are added in f64 here; [`Ops::quantize_int4`](crate::Ops::quantize_int4) adds them in its own
/// order, so the last bit of `s` may differ. A NaN becomes 0.
///
/// Paper: arXiv:2504.18415, equation 6.
///
/// # Panics
/// If `codes` and `x` differ in length.
///
/// ```
/// let mut q = [0; 4];
/// let (_, sum) = ternary_kernels::quantize::absmean_int4(&[8.0, -1.0, 0.5, -0.5], &mut q);
/// assert_eq!((q, sum), ([7, -1, 1, -1], 6)); // 8 is 8.5 steps, but 7 is the largest code
/// ```
pub fn absmean_int4(x: &[f32], codes: &mut [i8]) -> (f32, i32) {
    assert_eq!(x.len(), codes.len(), "absmean_int4: lengths");
    let sum: f64 = x.iter().map(|v| f64::from(v.abs())).sum();
    let scale = SQRT_7 / ((sum / x.len().max(1) as f64) as f32).max(MIN_ABS);
    let mut sum = 0i32;
    for (q, v) in codes.iter_mut().zip(x) {
        *q = (v * scale).round_ties_even().clamp(-8.0, 7.0) as i8;
        sum += i32::from(*q);
    }
    (scale, sum)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn zeros_and_tiny_values_divide_by_the_minimum() {
        assert_eq!(absmean_quantize(&[0.0; 6], 2, 3), Ok((vec![0; 6], 1e-5)));
        assert_eq!(absmean_quantize(&[], 0, 3), Ok((vec![], 1e-5)));
        assert_eq!(absmean_quantize(&[1e-6, -9e-6, 6e-6, 0.0], 1, 4), Ok((vec![0, -1, 1, 0], 1e-5)));
        let mut q = [1; 3];
        assert_eq!(absmax_int8(&[0.0; 3], &mut q), (127.0 / 1e-5, 0));
        assert_eq!(q, [0; 3]);
        assert_eq!(absmax_int8(&[5e-6, -5e-6, 1e-6], &mut q).1, 13);
        assert_eq!(q, [64, -64, 13]);
        assert_eq!(absmax_int8(&[], &mut []).1, 0);
    }

    #[test]
    fn every_group_has_a_scale_that_an_f16_holds() {
        // Rows of 70: a group of 64 and one of 6; the first group of the second row is 0, the second is too small for
        // any trit.
        let w: Vec<f32> = (0..140).map(|i| if i < 70 { (i as f32 * 0.7).sin() } else { 0.0 }).collect();
        let w = [&w[..134], &[1e-6; 6]].concat();
        let (t, d) = absmean_quantize_groups(&w, 2, 70, 64).unwrap();
        assert_eq!((d.groups(), d.rows()), (2, 2));
        assert_eq!(d.row(1), [f16::ZERO; 2]);
        assert!(t[70..].iter().all(|t| *t == 0));
        for (g, group) in [&w[..64], &w[64..70]].into_iter().enumerate() {
            let mean = group.iter().map(|v| f64::from(v.abs())).sum::<f64>() / group.len() as f64;
            assert_eq!(d.row(0)[g], f16::from_f64(mean));
            for (w, t) in group.iter().zip(&t[g * 64..]) {
                // The nearest of the three levels, apart from ties.
                let d = d.row(0)[g].to_f32();
                let error = (w - d * f32::from(*t)).abs();
                assert!([-d, 0.0, d].iter().all(|level| error <= (w - level).abs()), "{w} became {t} times {d}");
            }
        }
    }

    #[test]
    fn bad_groups_are_refused_and_named() {
        let mut w = [1.0; 128];
        w[70] = f32::NAN;
        let error = absmean_quantize_groups(&w, 2, 64, 64).unwrap_err();
        assert!(matches!(error, KernelError::NotFinite { row: 1, col: 6, .. }), "{error}");
        w[70] = 1e7;
        let error = absmean_quantize_groups(&w, 2, 64, 64).unwrap_err();
        assert!(matches!(error, KernelError::InvalidGroupScale { row: 1, group: 0, .. }), "{error}");
        assert!(absmean_quantize_groups(&w, 2, 64, 0).is_err());
        assert!(absmean_quantize_groups(&w, 3, 64, 64).is_err());
        assert!(absmean_quantize_groups(&w, usize::MAX, 2, 64).is_err());
        assert!(absmean_quantize_groups(&[], 0, 5, 64).unwrap().0.is_empty());
    }

    #[test]
    fn halves_round_to_even() {
        // The mean of the absolute values is 1.
        assert_eq!(absmean_quantize(&[0.5, -0.5, 1.5, -1.5], 1, 4), Ok((vec![0, 0, 1, -1], 1.0)));
    }

    #[test]
    fn codes_never_leave_127() {
        let mut q = [0; 2];
        for bits in (0x0080_0000u32..0x7f00_0000).step_by(0x0001_2345) {
            let x = f32::from_bits(bits);
            let (s, sum) = absmax_int8(&[x, -x], &mut q);
            // The clamp only guards the type conversion; it never changes a code.
            assert!((x * s).round_ties_even() <= 127.0, "{x}");
            assert!(q[0] >= 0 && q[1] == -q[0] && sum == 0, "{x}: {q:?}");
            assert!(x < MIN_ABS || q[0] == 127, "{x}: {q:?}");
        }
    }

    #[test]
    fn bad_weights_are_refused_and_named() {
        for value in [f32::NAN, f32::INFINITY] {
            match absmean_quantize(&[0.0, 1.0, 2.0, 3.0, value, 5.0], 2, 3) {
                Err(KernelError::NotFinite { row: 1, col: 1, value: v, .. }) => {
                    assert_eq!(v.to_bits(), value.to_bits())
                }
                other => panic!("{other:?}"),
            }
        }
        assert!(matches!(absmean_quantize(&[0.0; 5], 2, 3), Err(KernelError::ShapeMismatch { .. })));
        assert!(matches!(absmean_quantize(&[], usize::MAX, 2), Err(KernelError::TooLarge { .. })));
        // Finite values whose f32 sum would overflow.
        assert_eq!(absmean_quantize(&[f32::MAX; 4], 1, 4).unwrap().0, [1; 4]);
    }

    #[test]
    fn activations_that_are_not_finite_give_zeros() {
        let mut q = [1; 3];
        absmax_int8(&[f32::NAN, 2.0, -2.0], &mut q);
        assert_eq!(q, [0, 127, -127]);
        absmax_int8(&[f32::INFINITY, 2.0, -2.0], &mut q);
        assert_eq!(q, [0, 0, 0]);
    }
}
