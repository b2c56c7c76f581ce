//! The oracle: decode every weight, multiply, add. It shares no code with any kernel, and every kernel must equal it.

use crate::{GroupScales, KernelError, TernaryMatrix};

/// `acc[r] = sum_k T[r, k] * x[k]`: `x` is `[k]` int8 (any value, including -128), the result is `[rows]` i32.
///
/// # Errors
/// [`KernelError::ShapeMismatch`] if `x` is not `w.cols()` long; [`KernelError::RowTooLong`] if a sum exceeds i32.
///
/// ```
/// use ternary_kernels::{reference, Scales, TernaryMatrix};
/// let w = TernaryMatrix::from_trits(2, 3, &[1, 0, -1, 0, 1, 1], Scales::Tensor(1.0)).unwrap();
/// assert_eq!(reference::gemv(&w, &[10, 20, 30]).unwrap(), [-20, 50]);
/// ```
pub fn gemv(w: &TernaryMatrix, x: &[i8]) -> Result<Vec<i32>, KernelError> {
    gemm(w, x, 1)
}

/// `acc[t * rows + r] = sum_k T[r, k] * x[t, k]`: `x` is `[n, k]` int8 row-major, the result is `[n, rows]` i32.
///
/// # Errors
/// The errors of [`gemv`].
pub fn gemm(w: &TernaryMatrix, x: &[i8], n: usize) -> Result<Vec<i32>, KernelError> {
    let (rows, cols) = (w.rows(), w.cols());
    let op = "reference::gemm";
    let too_large = KernelError::TooLarge { op, rows: n, cols: rows };
    let expected = n.checked_mul(cols).ok_or(too_large.clone())?;
    if x.len() != expected {
        return Err(KernelError::ShapeMismatch { op, what: "n * k activations", expected, got: x.len() });
    }
    let mut acc = vec![0i32; n.checked_mul(rows).ok_or(too_large)?];
    let mut trits = vec![0i8; cols];
    for r in 0..rows {
        w.decode_row(r, &mut trits);
        for t in 0..n {
            let mut sum = 0i64;
            for k in 0..cols {
                sum += i64::from(i32::from(trits[k]) * i32::from(x[t * cols + k]));
            }
            acc[t * rows + r] = i32::try_from(sum).map_err(|_| KernelError::RowTooLong {
                kernel: "reference".to_owned(),
                cols,
                max_cols: i32::MAX as usize / 128,
            })?;
        }
    }
    Ok(acc)
}

/// The definition of the group kernels: `levels` is `[rows, cols]` in -1..=2, `codes` is `[n, cols]` int16 (or int8),
/// `steps` are the quantisation scales of the `n` tokens; the result is `[n, rows]` f32. Sums of a group are exact;
/// over groups in ascending order `y = y + d * S`, product and sum each rounded to f32, and `y * (1 / step)` at the
/// end.
///
/// # Errors
/// [`KernelError::ShapeMismatch`] if a length differs.
///
/// ```
/// use half::f16;
/// use ternary_kernels::{GroupScales, reference};
/// let scales = GroupScales::new(64, 1, 3, [f16::from_f32(0.5)].into()).unwrap();
/// assert_eq!(reference::group_product(3, &[1, 0, 2], &scales, &[10, 20, 30], &[2.0]).unwrap(), [0.5 * 70.0 / 2.0]);
/// ```
pub fn group_product(
    cols: usize,
    levels: &[i8],
    scales: &GroupScales,
    codes: &[i16],
    steps: &[f32],
) -> Result<Vec<f32>, KernelError> {
    let (rows, n) = (scales.rows(), steps.len());
    let op = "reference::group_product";
    let checks = [
        ("levels", rows.checked_mul(cols), levels.len()),
        ("n * cols codes", n.checked_mul(cols), codes.len()),
        ("groups of a row", Some(cols.div_ceil(scales.group_len())), scales.groups()),
    ];
    for (what, expected, got) in checks {
        let expected = expected.ok_or(KernelError::TooLarge { op, rows, cols })?;
        if expected != got {
            return Err(KernelError::ShapeMismatch { op, what, expected, got });
        }
    }
    let mut out = Vec::new();
    for (t, step) in steps.iter().enumerate() {
        for r in 0..rows {
            let mut y = 0.0f32;
            for (g, d) in scales.row(r).iter().enumerate() {
                let group = g * scales.group_len()..cols.min((g + 1) * scales.group_len());
                let sum: i64 = group.map(|c| i64::from(levels[r * cols + c]) * i64::from(codes[t * cols + c])).sum();
                y += d.to_f32() * sum as f32;
            }
            out.push(y * (1.0 / step));
        }
    }
    Ok(out)
}

/// The definition of the group kernels with int8 activations in groups of the weights' length: `codes` is `[n, cols]`,
/// `steps` is `[n, groups]`; the result is `[n, rows]` f32. Sums of a group are exact; over groups in ascending order
/// `y = y + (d * step) * S`, both products and the sum each rounded to f32.
///
/// # Errors
/// [`KernelError::ShapeMismatch`] if a length differs.
///
/// ```
/// use half::f16;
/// use ternary_kernels::{GroupScales, reference};
/// let scales = GroupScales::new(64, 1, 3, [f16::from_f32(0.5)].into()).unwrap();
/// assert_eq!(reference::group_product_int8(3, &[1, 0, 2], &scales, &[10, 20, 30], &[0.25]).unwrap(), [0.5 * 0.25 * 70.0]);
/// ```
pub fn group_product_int8(
    cols: usize,
    levels: &[i8],
    scales: &GroupScales,
    codes: &[i8],
    steps: &[f32],
) -> Result<Vec<f32>, KernelError> {
    let op = "reference::group_product_int8";
    let (rows, groups) = (scales.rows(), scales.groups());
    let n = codes.len().checked_div(cols).unwrap_or(0);
    let checks = [
        ("levels", rows.checked_mul(cols), levels.len()),
        ("n * cols codes", n.checked_mul(cols), codes.len()),
        ("groups of a row", Some(cols.div_ceil(scales.group_len())), groups),
        ("n * groups steps", n.checked_mul(groups), steps.len()),
    ];
    for (what, expected, got) in checks {
        let expected = expected.ok_or(KernelError::TooLarge { op, rows, cols })?;
        if expected != got {
            return Err(KernelError::ShapeMismatch { op, what, expected, got });
        }
    }
    let mut out = Vec::new();
    for t in 0..n {
        for r in 0..rows {
            let mut y = 0.0f32;
            for (g, d) in scales.row(r).iter().enumerate() {
                let group = g * scales.group_len()..cols.min((g + 1) * scales.group_len());
                let sum: i64 = group.map(|c| i64::from(levels[r * cols + c]) * i64::from(codes[t * cols + c])).sum();
                y += d.to_f32() * steps[t * groups + g] * sum as f32;
            }
            out.push(y);
        }
    }
    Ok(out)
}
