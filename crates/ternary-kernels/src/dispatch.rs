//! Stand-alone products: checked once, then run, split over the caller's rayon pool if that is faster.
//!
//! An engine with its own threads calls [`Kernel`] directly with [`Packed::rows_range`].

use crate::{Int4Matrix, Int8Batch, Int8Matrix, Int8Vector, Kernel, KernelError, Packed, PackedRows};

/// Multiply-accumulates below which forking costs more than it gains (some microseconds of one core).
#[cfg(feature = "parallel")]
const PARALLEL_FROM: usize = 1 << 21;

/// `acc[r] = sum_k T[r, k] * x[k]`: `x` is `[k]` int8, `acc` is `[rows]` i32. With the feature `parallel` and a large
/// matrix the output rows are split over the current rayon pool; the result does not depend on its number of threads.
///
/// # Errors
/// [`KernelError::PackedByOther`] if `w` was packed by another kernel, [`KernelError::ShapeMismatch`] for a wrong
/// length.
///
/// ```
/// use ternary_kernels::{Int8Batch, Scales, TernaryMatrix};
/// let kernel = ternary_kernels::best().unwrap();
/// let w = TernaryMatrix::from_trits(2, 3, &[1, 0, -1, 0, 1, 1], Scales::Tensor(0.5)).unwrap();
/// let packed = kernel.prepack(&w).unwrap();
/// let x = Int8Batch::from_codes(1, 3, &[10, 20, 30]).unwrap();
/// let mut acc = [0; 2];
/// ternary_kernels::gemv(&*kernel, &packed, &x.view().row(0), &mut acc).unwrap();
/// assert_eq!(acc, [-20, 50]);
/// ```
pub fn gemv(kernel: &dyn Kernel, w: &Packed, x: &Int8Vector<'_>, acc: &mut [i32]) -> Result<(), KernelError> {
    check("gemv", kernel, w, x.k(), 1, acc.len())?;
    #[cfg(feature = "parallel")]
    if let Some(parts) = parts(w, 1) {
        return parallel::gemv(kernel, w, x, acc, parts);
    }
    kernel.gemv(&w.all(), x, acc);
    Ok(())
}

/// `acc[t * rows + r] = sum_k T[r, k] * x[t, k]`: `x` is `[n, k]` int8, `acc` is `[n, rows]` i32 row-major.
/// Threads as in [`gemv`].
///
/// # Errors
/// The errors of [`gemv`].
pub fn gemm(kernel: &dyn Kernel, w: &Packed, x: &Int8Matrix<'_>, acc: &mut [i32]) -> Result<(), KernelError> {
    check("gemm", kernel, w, x.k(), x.n(), acc.len())?;
    #[cfg(feature = "parallel")]
    if let Some(parts) = parts(w, x.n()) {
        return parallel::gemm(w, x.n(), acc, parts, |rows, acc| kernel.gemm(rows, x, acc));
    }
    kernel.gemm(&w.all(), x, acc);
    Ok(())
}

/// [`gemm`] for int4 activations, one token or several: `x` is `[n, k]` int4, `acc` is `[n, rows]` i32 row-major.
/// `widened` is a buffer for the activations as int8; it grows if it is needed and too small.
///
/// # Errors
/// The errors of [`gemv`].
///
/// ```
/// use ternary_kernels::{Int4Batch, Int8Batch, Scales, TernaryMatrix};
/// let kernel = ternary_kernels::best().unwrap();
/// let w = TernaryMatrix::from_trits(2, 3, &[1, 0, -1, 0, 1, 1], Scales::Tensor(0.5)).unwrap();
/// let packed = kernel.prepack(&w).unwrap();
/// let x = Int4Batch::from_codes(1, 3, &[7, 2, -8]).unwrap();
/// let (mut acc, mut widened) = ([0; 2], Int8Batch::with_capacity(0, 0));
/// ternary_kernels::gemm_a4(&*kernel, &packed, &x.view(), &mut widened, &mut acc).unwrap();
/// assert_eq!(acc, [15, -6]);
/// ```
pub fn gemm_a4(
    kernel: &dyn Kernel,
    w: &Packed,
    x: &Int4Matrix<'_>,
    widened: &mut Int8Batch,
    acc: &mut [i32],
) -> Result<(), KernelError> {
    check("gemm_a4", kernel, w, x.k(), x.n(), acc.len())?;
    #[cfg(feature = "parallel")]
    if let Some(parts) = parts(w, x.n()) {
        // Each part has its own buffer, which stays empty in kernels that read int4.
        return parallel::gemm(w, x.n(), acc, parts, |rows, acc| {
            product_a4(kernel, rows, x, &mut Int8Batch::with_capacity(0, 0), acc);
        });
    }
    product_a4(kernel, &w.all(), x, widened, acc);
    Ok(())
}

fn product_a4(kernel: &dyn Kernel, w: &PackedRows<'_>, x: &Int4Matrix<'_>, widened: &mut Int8Batch, acc: &mut [i32]) {
    match x.n() {
        1 => kernel.gemv_a4(w, &x.row(0), widened, acc),
        _ => kernel.gemm_a4(w, x, widened, acc),
    }
}

fn check(op: &'static str, kernel: &dyn Kernel, w: &Packed, k: usize, n: usize, acc: usize) -> Result<(), KernelError> {
    if w.kernel() != kernel.name() {
        let (kernel, packed_by) = (kernel.name().to_owned(), w.kernel().to_owned());
        return Err(KernelError::PackedByOther { kernel, packed_by });
    }
    if k != w.cols() {
        let what = "activations per token";
        return Err(KernelError::ShapeMismatch { op, what, expected: w.cols(), got: k });
    }
    let expected = n.checked_mul(w.rows()).ok_or(KernelError::TooLarge { op, rows: n, cols: w.rows() })?;
    if acc != expected {
        return Err(KernelError::ShapeMismatch { op, what: "accumulators", expected, got: acc });
    }
    Ok(())
}

/// The number of parts to split into; `None` if one thread is as fast.
#[cfg(feature = "parallel")]
fn parts(w: &Packed, n: usize) -> Option<usize> {
    let work = w.rows().saturating_mul(w.cols()).saturating_mul(n);
    let threads = rayon::current_num_threads().min(w.rows().div_ceil(w.panel_rows()));
    (work >= PARALLEL_FROM && threads > 1).then_some(threads)
}

#[cfg(feature = "parallel")]
mod parallel {
    use rayon::prelude::*;

    use super::*;

    pub(super) fn gemv(
        kernel: &dyn Kernel,
        w: &Packed,
        x: &Int8Vector<'_>,
        acc: &mut [i32],
        parts: usize,
    ) -> Result<(), KernelError> {
        let mut rest = acc;
        let mut jobs = Vec::with_capacity(parts);
        for part in 0..parts {
            let range = w.split(part, parts);
            let (acc, behind) = rest.split_at_mut(range.len());
            jobs.push((w.rows_range(range)?, acc));
            rest = behind;
        }
        jobs.into_par_iter().for_each(|(w, acc)| kernel.gemv(&w, x, acc));
        Ok(())
    }

    /// Each part computes `[n, part]` in its own buffer, as the rows of a part are not contiguous in `[n, rows]`.
    pub(super) fn gemm(
        w: &Packed,
        n: usize,
        acc: &mut [i32],
        parts: usize,
        product: impl Fn(&PackedRows<'_>, &mut [i32]) + Sync,
    ) -> Result<(), KernelError> {
        let done = (0..parts)
            .into_par_iter()
            .map(|part| {
                let rows = w.rows_range(w.split(part, parts))?;
                let mut acc = vec![0; n * rows.rows()];
                product(&rows, &mut acc);
                Ok((rows.rows(), acc))
            })
            .collect::<Result<Vec<_>, KernelError>>()?;
        acc.par_chunks_exact_mut(w.rows()).enumerate().for_each(|(t, out)| {
            let mut at = 0;
            for (rows, part) in &done {
                out[at..at + rows].copy_from_slice(&part[t * rows..(t + 1) * rows]);
                at += rows;
            }
        });
        Ok(())
    }
}
