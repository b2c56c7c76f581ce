//! The oracle: decode every weight, multiply, add. It shares no code with any kernel and is what each must equal.

use crate::{KernelError, TernaryMatrix};

/// `acc[r] = sum_k T[r, k] * x[k]`: `x` is `[k]` int8 (any value, -128 too), the result is `[rows]` i32.
///
/// # Errors
/// [`KernelError::ShapeMismatch`] if `x` is not `w.cols()` long; [`KernelError::RowTooLong`] if a sum leaves i32.
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
/// As [`gemv`].
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
