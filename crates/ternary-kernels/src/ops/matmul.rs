//! Products of small f32 matrices that are added to something: the inner models of Test-Time-Training layers.
//!
//! Lanes run along the columns of the result, so nothing is summed across lanes: every element of the result is a chain of fused
//! multiply-adds of its own, in ascending order of the inner index. How many rows are computed together, and which
//! instruction set does it, cannot be seen in the bits.

use super::lanes::{LANES, Simd, pad};

ops! {
    /// `out[t, j] = out[t, j] + sum_i x[t, i] * w[i, j]`, one fused multiply-add per `i` in ascending order; `x` is `[n, k]`,
    /// `w` is `[k, m]`, `out` is `[n, m]`, all f32 and row-major. `k` may be 0, which adds nothing.
    ///
    /// # Panics
    /// If the lengths do not fit.
    pub fn add_product(x: &[f32], w: &[f32], k: usize, out: &mut [f32]) = add_product;
}

#[inline(always)]
fn add_product<S: Simd>(s: S, x: &[f32], w: &[f32], k: usize, out: &mut [f32]) {
    if k == 0 {
        assert!(x.is_empty() && w.is_empty(), "a product over 0 of {} and {} elements", x.len(), w.len());
        return;
    }
    let (n, m) = (x.len() / k, w.len() / k);
    assert!(
        x.len() == n * k && w.len() == m * k && Some(out.len()) == n.checked_mul(m),
        "a product over {k} of {} and {} elements into {}",
        x.len(),
        w.len(),
        out.len()
    );
    let mut t = 0;
    // As many rows together as the registers hold: each loads the same weights.
    if S::ACCUMULATORS >= 16 {
        while t + 4 <= n {
            row_block::<S, 4, 4>(s, &x[t * k..(t + 4) * k], w, k, &mut out[t * m..(t + 4) * m]);
            t += 4;
        }
    }
    while t + 2 <= n {
        if S::ACCUMULATORS >= 16 {
            row_block::<S, 2, 4>(s, &x[t * k..(t + 2) * k], w, k, &mut out[t * m..(t + 2) * m]);
        } else {
            row_block::<S, 2, 2>(s, &x[t * k..(t + 2) * k], w, k, &mut out[t * m..(t + 2) * m]);
        }
        t += 2;
    }
    if t < n {
        row_block::<S, 1, 4>(s, &x[t * k..], w, k, &mut out[t * m..]);
    }
}

/// `R` rows, `C` vectors of columns at a time.
#[inline(always)]
fn row_block<S: Simd, const R: usize, const C: usize>(s: S, x: &[f32], w: &[f32], k: usize, out: &mut [f32]) {
    let m = w.len() / k;
    let mut rows: [&[f32]; R] = [&[]; R];
    for (r, row) in rows.iter_mut().enumerate() {
        *row = &x[r * k..(r + 1) * k];
    }
    let mut j = 0;
    while j + C * LANES <= m {
        tile::<S, R, C>(s, rows, w, m, j, out);
        j += C * LANES;
    }
    while j + LANES <= m {
        tile::<S, R, 1>(s, rows, w, m, j, out);
        j += LANES;
    }
    if j < m {
        tail::<S, R>(s, rows, w, m, j, out);
    }
}

/// Columns `j..j + 16 C` of `R` rows.
#[inline(always)]
fn tile<S: Simd, const R: usize, const C: usize>(s: S, x: [&[f32]; R], w: &[f32], m: usize, j: usize, out: &mut [f32]) {
    let mut accs = [[s.splat(0.0); C]; R];
    for r in 0..R {
        let (out, _) = out[r * m + j..r * m + j + C * LANES].as_chunks();
        for c in 0..C {
            accs[r][c] = s.load(&out[c]);
        }
    }
    for (i, w) in w.chunks_exact(m).enumerate() {
        let (w, _) = w[j..j + C * LANES].as_chunks();
        let mut vectors = [s.splat(0.0); C];
        for c in 0..C {
            vectors[c] = s.load(&w[c]);
        }
        for r in 0..R {
            let factor = s.splat(x[r][i]);
            for c in 0..C {
                accs[r][c] = s.fma(factor, vectors[c], accs[r][c]);
            }
        }
    }
    for r in 0..R {
        let (out, _) = out[r * m + j..r * m + j + C * LANES].as_chunks_mut();
        for c in 0..C {
            s.store(accs[r][c], &mut out[c]);
        }
    }
}

/// Columns `j..m` of `R` rows, fewer than a vector has lanes.
#[inline(always)]
fn tail<S: Simd, const R: usize>(s: S, x: [&[f32]; R], w: &[f32], m: usize, j: usize, out: &mut [f32]) {
    let mut accs = [s.splat(0.0); R];
    for r in 0..R {
        accs[r] = s.load(&pad(&out[r * m + j..(r + 1) * m], 0.0));
    }
    for (i, w) in w.chunks_exact(m).enumerate() {
        let vector = s.load(&pad(&w[j..], 0.0));
        for r in 0..R {
            accs[r] = s.fma(s.splat(x[r][i]), vector, accs[r]);
        }
    }
    for r in 0..R {
        let mut last = [0.0; LANES];
        s.store(accs[r], &mut last);
        out[r * m + j..(r + 1) * m].copy_from_slice(&last[..m - j]);
    }
}
