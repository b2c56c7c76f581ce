//! One token of the gated delta rule in one head.
//!
//! Paper: arXiv:2412.06464, "Gated Delta Networks: Improving Mamba2 with Delta Rule", equation 10.

use super::lanes::{LANES, Simd, pad};

ops! {
    /// A head with the state `a` `[d, m]` reads a token and computes its output: with `a' = decay a`,
    ///
    /// ```text
    /// e = beta (v - k a');  a <- a' + k^T e;  out = q a
    /// ```
    ///
    /// `k` and `q` are `[d]`, `v` and `out` `[m]`, all f32. Elements of `a'` and of `e` are rounded as they are
    /// computed; `k a'` and `q a` begin with 0 and are one fused multiply-add per element of `k` and `q` in ascending
    /// order, and an element of the new state is one. A column of `a` is computed separately, so heads may be wider
    /// than vectors.
    ///
    /// # Panics
    /// If the lengths do not fit.
    pub fn delta_rule(a: &mut [f32], token: DeltaToken<'_>, out: &mut [f32]) = delta_rule;
}

/// The inputs of a token to a head of the gated delta rule.
#[derive(Clone, Copy, Debug)]
pub struct DeltaToken<'a> {
    /// Key, `[d]`.
    pub k: &'a [f32],
    /// Query, `[d]`.
    pub q: &'a [f32],
    /// Value, `[m]`.
    pub v: &'a [f32],
    /// The share of the state that remains, in 0..=1.
    pub decay: f32,
    /// How far the state moves towards the value, in 0..=1.
    pub beta: f32,
}

#[inline(always)]
fn delta_rule<S: Simd>(s: S, a: &mut [f32], token: DeltaToken<'_>, out: &mut [f32]) {
    let DeltaToken { k, q, v, .. } = token;
    let (d, m) = (k.len(), v.len());
    assert!(
        q.len() == d && out.len() == m && Some(a.len()) == d.checked_mul(m),
        "delta_rule: a state of {} elements, {d} of k, {} of q, {m} of v, {} results",
        a.len(),
        q.len(),
        out.len()
    );
    if m == 0 {
        return;
    }
    let mut j = 0;
    while j + 4 * LANES <= m {
        block::<S, 4>(s, a, token, j, out);
        j += 4 * LANES;
    }
    while j + LANES <= m {
        block::<S, 1>(s, a, token, j, out);
        j += LANES;
    }
    if j < m {
        tail(s, a, token, j, out);
    }
}

/// Columns `j..j + 16 C`: the state is read twice, the second time from the cache, and written once.
#[inline(always)]
fn block<S: Simd, const C: usize>(s: S, a: &mut [f32], t: DeltaToken<'_>, j: usize, out: &mut [f32]) {
    let (m, end) = (t.v.len(), j + C * LANES);
    let decay = s.splat(t.decay);
    let mut seen = [s.splat(0.0); C];
    for (row, &k) in a.chunks_exact(m).zip(t.k) {
        let (row, _) = row[j..end].as_chunks();
        let k = s.splat(k);
        for c in 0..C {
            seen[c] = s.fma(k, s.mul(decay, s.load(&row[c])), seen[c]);
        }
    }
    let (v, _) = t.v[j..end].as_chunks();
    let mut error = seen;
    for c in 0..C {
        error[c] = s.mul(s.splat(t.beta), s.sub(s.load(&v[c]), seen[c]));
    }
    let mut y = [s.splat(0.0); C];
    for ((row, &k), &q) in a.chunks_exact_mut(m).zip(t.k).zip(t.q) {
        let (row, _) = row[j..end].as_chunks_mut();
        let (k, q) = (s.splat(k), s.splat(q));
        for c in 0..C {
            let new = s.fma(k, error[c], s.mul(decay, s.load(&row[c])));
            s.store(new, &mut row[c]);
            y[c] = s.fma(q, new, y[c]);
        }
    }
    let (out, _) = out[j..end].as_chunks_mut();
    for c in 0..C {
        s.store(y[c], &mut out[c]);
    }
}

/// Columns from `j` on, fewer than a vector has lanes.
#[inline(always)]
fn tail<S: Simd>(s: S, a: &mut [f32], t: DeltaToken<'_>, j: usize, out: &mut [f32]) {
    let m = t.v.len();
    let decay = s.splat(t.decay);
    let mut seen = s.splat(0.0);
    for (row, &k) in a.chunks_exact(m).zip(t.k) {
        seen = s.fma(s.splat(k), s.mul(decay, s.load(&pad(&row[j..], 0.0))), seen);
    }
    let error = s.mul(s.splat(t.beta), s.sub(s.load(&pad(&t.v[j..], 0.0)), seen));
    let (mut y, mut last) = (s.splat(0.0), [0.0; LANES]);
    for ((row, &k), &q) in a.chunks_exact_mut(m).zip(t.k).zip(t.q) {
        let new = s.fma(s.splat(k), error, s.mul(decay, s.load(&pad(&row[j..], 0.0))));
        s.store(new, &mut last);
        row[j..].copy_from_slice(&last[..m - j]);
        y = s.fma(s.splat(q), new, y);
    }
    s.store(y, &mut last);
    out[j..].copy_from_slice(&last[..m - j]);
}
