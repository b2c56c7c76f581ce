//! Products of small f32 matrices, added to a matrix: the inner models of Test-Time-Training layers.
//!
//! Lanes run along the columns of the result, so nothing is summed across lanes: every element of the result is a
//! separate chain of fused multiply-adds, in ascending order of the inner index. The bits depend neither on the number
//! of rows that are computed together nor on the instruction set.

use super::lanes::{LANES, Simd, pad};

ops! {
    /// `out[t, j] = out[t, j] + sum_i x[t, i] * w[i, j]`, one fused multiply-add per `i` in ascending order; `x` is
    /// `[n, k]`, `w` is `[k, m]`, `out` is `[n, m]`, all f32 and row-major. `k` may be 0, which adds nothing.
    ///
    /// # Panics
    /// If the lengths do not fit.
    pub fn add_product(x: &[f32], w: &[f32], k: usize, out: &mut [f32]) = add_product;

    /// `out[t, j] = bias[j] + sum_i x[t, i] * w[i, j]`, with the bits of [`Ops::add_product`](crate::Ops::add_product)
    /// on rows that hold the bias; `x` is `[n, k]`, `w` is `[k, m]`, `bias` is `[m]`, `out` is `[n, m]`, all f32 and
    /// row-major.
    ///
    /// # Panics
    /// If the lengths do not fit.
    pub fn affine(x: &[f32], w: &[f32], bias: &[f32], out: &mut [f32]) = affine;

    /// `out[t, j] = out[t, j] + sum_i x[t, i] * w[i, j]` over `i <= first + t`, with the bits of
    /// [`Ops::add_product`](crate::Ops::add_product) on that many elements; `x` is `[n, k]` with `first + n <= k`, `w`
    /// is `[k, m]`, `out` is `[n, m]`, all f32 and row-major.
    ///
    /// # Panics
    /// If the lengths do not fit.
    pub fn add_causal_product(x: &[f32], w: &[f32], k: usize, first: usize, out: &mut [f32]) = add_causal_product;

    /// Rows of `x` `[n, k]` become columns of `out` `[k, m]`, from column `first` on: `out[i, first + t] = x[t, i]`,
    /// all f32 and row-major.
    ///
    /// # Panics
    /// If the lengths do not fit.
    pub fn store_columns(x: &[f32], k: usize, m: usize, first: usize, out: &mut [f32]) = store_columns;
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
    rows::<S>(s, x, k, k, w, None, n, out);
}

#[inline(always)]
fn affine<S: Simd>(s: S, x: &[f32], w: &[f32], bias: &[f32], out: &mut [f32]) {
    let m = bias.len();
    if m == 0 {
        assert!(w.is_empty() && out.is_empty(), "0 columns of {} and {} elements", w.len(), out.len());
        return;
    }
    let (k, n) = (w.len() / m, out.len() / m);
    assert!(
        w.len() == k * m && out.len() == n * m && Some(x.len()) == n.checked_mul(k),
        "a product of {} and {} elements into {n} rows of {m}",
        x.len(),
        w.len()
    );
    if k == 0 {
        out.chunks_exact_mut(m).for_each(|out| out.copy_from_slice(bias));
        return;
    }
    rows::<S>(s, x, k, k, w, Some(bias), n, out);
}

#[inline(always)]
fn add_causal_product<S: Simd>(s: S, x: &[f32], w: &[f32], k: usize, first: usize, out: &mut [f32]) {
    let (n, m) = (x.len().checked_div(k).unwrap_or(0), w.len().checked_div(k).unwrap_or(0));
    assert!(
        x.len() == n * k && w.len() == m * k && Some(out.len()) == n.checked_mul(m) && n <= k && first <= k - n,
        "a causal product over {k} of {} and {} elements into {} from {first} on",
        x.len(),
        w.len(),
        out.len()
    );
    // The columns that the first of a few rows sees, all of them see; then each row continues its chains with the rest.
    let block = if S::ACCUMULATORS >= 16 { 4 } else { 2 };
    let mut t = 0;
    while t < n {
        let r = block.min(n - t);
        let common = first + t + 1;
        let out = &mut out[t * m..(t + r) * m];
        rows::<S>(s, &x[t * k..], k, common, &w[..common * m], None, r, out);
        for i in 1..r {
            let (x, w) = (&x[(t + i) * k + common..], &w[common * m..(common + i) * m]);
            rows::<S>(s, x, k, i, w, None, 1, &mut out[i * m..(i + 1) * m]);
        }
        t += r;
    }
}

/// `n` rows of `out` `[n, m]`: `x` holds rows of `k` elements, `stride` apart.
#[inline(always)]
#[allow(clippy::too_many_arguments)]
fn rows<S: Simd>(s: S, x: &[f32], stride: usize, k: usize, w: &[f32], bias: Option<&[f32]>, n: usize, out: &mut [f32]) {
    let m = w.len() / k;
    let row = |t: usize| &x[t * stride..t * stride + k];
    let mut t = 0;
    // As many rows together as fit the registers: they share the loads of the weights.
    if S::ACCUMULATORS >= 16 {
        if m < 2 * LANES {
            // One vector of columns: more rows hide the latency of the sums.
            while t + 8 <= n {
                let x = std::array::from_fn(|r| row(t + r));
                row_block::<S, 8, 1>(s, x, w, bias, &mut out[t * m..(t + 8) * m]);
                t += 8;
            }
        }
        while t + 4 <= n {
            let x = [row(t), row(t + 1), row(t + 2), row(t + 3)];
            row_block::<S, 4, 4>(s, x, w, bias, &mut out[t * m..(t + 4) * m]);
            t += 4;
        }
    }
    while t + 2 <= n {
        let out = &mut out[t * m..(t + 2) * m];
        if S::ACCUMULATORS >= 16 {
            row_block::<S, 2, 4>(s, [row(t), row(t + 1)], w, bias, out);
        } else {
            row_block::<S, 2, 2>(s, [row(t), row(t + 1)], w, bias, out);
        }
        t += 2;
    }
    if t < n {
        row_block::<S, 1, 4>(s, [row(t)], w, bias, &mut out[t * m..(t + 1) * m]);
    }
}

/// `R` rows, `C` vectors of columns at a time.
#[inline(always)]
fn row_block<S: Simd, const R: usize, const C: usize>(
    s: S,
    x: [&[f32]; R],
    w: &[f32],
    bias: Option<&[f32]>,
    out: &mut [f32],
) {
    let m = out.len() / R;
    let mut j = 0;
    while j + C * LANES <= m {
        tile::<S, R, C>(s, x, w, bias, m, j, out);
        j += C * LANES;
    }
    while j + LANES <= m {
        tile::<S, R, 1>(s, x, w, bias, m, j, out);
        j += LANES;
    }
    if j < m {
        tail::<S, R>(s, x, w, bias, m, j, out);
    }
}

/// Columns `j..j + 16 C` of `R` rows.
#[inline(always)]
fn tile<S: Simd, const R: usize, const C: usize>(
    s: S,
    x: [&[f32]; R],
    w: &[f32],
    bias: Option<&[f32]>,
    m: usize,
    j: usize,
    out: &mut [f32],
) {
    let mut accs = [[s.splat(0.0); C]; R];
    for r in 0..R {
        let start = match bias {
            Some(bias) => &bias[j..j + C * LANES],
            None => &out[r * m + j..r * m + j + C * LANES],
        };
        let (start, _) = start.as_chunks();
        for c in 0..C {
            accs[r][c] = s.load(&start[c]);
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
fn tail<S: Simd, const R: usize>(
    s: S,
    x: [&[f32]; R],
    w: &[f32],
    bias: Option<&[f32]>,
    m: usize,
    j: usize,
    out: &mut [f32],
) {
    let mut accs = [s.splat(0.0); R];
    for r in 0..R {
        let start = match bias {
            Some(bias) => &bias[j..],
            None => &out[r * m + j..(r + 1) * m],
        };
        accs[r] = s.load(&pad(start, 0.0));
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

#[inline(always)]
fn store_columns<S: Simd>(s: S, x: &[f32], k: usize, m: usize, first: usize, out: &mut [f32]) {
    let n = x.len().checked_div(k).unwrap_or(0);
    assert!(
        x.len() == n * k && Some(out.len()) == k.checked_mul(m) && n <= m && first <= m - n,
        "{} elements as {n} of {m} columns of {k} from {first} on, of {}",
        x.len(),
        out.len()
    );
    // Squares of 16 by 16 if all columns are written; the rest element by element.
    let mut done = 0;
    if S::ACCUMULATORS >= 16 && n == LANES && m == LANES {
        let (out, _) = out.as_chunks_mut::<LANES>();
        while done + LANES <= k {
            let mut square = [s.splat(0.0); LANES];
            for (t, vector) in square.iter_mut().enumerate() {
                if let Some(row) = x[t * k + done..].first_chunk() {
                    *vector = s.load(row);
                }
            }
            let square = s.transpose(square);
            for (column, out) in square.into_iter().zip(&mut out[done..done + LANES]) {
                s.store(column, out);
            }
            done += LANES;
        }
    }
    for (t, x) in x.chunks_exact(k.max(1)).enumerate() {
        for (out, x) in out.chunks_exact_mut(m).zip(x).skip(done) {
            out[first + t] = *x;
        }
    }
}
