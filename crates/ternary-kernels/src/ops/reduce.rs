//! Dot products.
//!
//! Vector `j` of a row (elements `16 j` to `16 j + 15`, zeros after the end) is added to accumulator `j % 4` by a fused
//! multiply-add; the sum is that of the tree over `(a0 + a1) + (a2 + a3)`. Four accumulators hide the latency of the
//! addition on every CPU so far.

use half::{bf16, f16};

use super::lanes::{Element, Simd, pad};

/// Accumulators that are used in turn.
pub(super) const TURNS: usize = 4;

ops! {
    /// `sum_i a[i] * b[i]`, both `[k]` f32.
    ///
    /// # Panics
    /// If the lengths differ.
    pub fn dot(a: &[f32], b: &[f32]) -> f32 = dot;

    /// `sum_i x[i] * w[i]`; `x` is `[k]` f32, `w` is `[k]` f16.
    ///
    /// # Panics
    /// If the lengths differ.
    pub fn dot_f16(x: &[f32], w: &[f16]) -> f32 = dot;

    /// `sum_i x[i] * w[i]`; `x` is `[k]` f32, `w` is `[k]` bf16.
    ///
    /// # Panics
    /// If the lengths differ.
    pub fn dot_bf16(x: &[f32], w: &[bf16]) -> f32 = dot;

    /// `out[t] = sum_i x[t, i] * w[i]`, with the bits of [`Ops::dot`](crate::Ops::dot); `x` is `[n, k]` f32, `w` is
    /// `[k]`, `out` is `[n]`.
    ///
    /// # Panics
    /// If `x` does not hold `n * k` elements.
    pub fn dots(x: &[f32], w: &[f32], out: &mut [f32]) = dots;

    /// `out[t] = sum_i x[t, i] * w[i]`, with the bits of [`Ops::dot_f16`](crate::Ops::dot_f16); `x` is `[n, k]` f32,
    /// `w` is `[k]` f16, `out` is `[n]`.
    ///
    /// # Panics
    /// If `x` does not hold `n * k` elements.
    pub fn dots_f16(x: &[f32], w: &[f16], out: &mut [f32]) = dots;

    /// `out[t] = sum_i x[t, i] * w[i]`, with the bits of [`Ops::dot_bf16`](crate::Ops::dot_bf16); `x` is `[n, k]` f32,
    /// `w` is `[k]` bf16, `out` is `[n]`.
    ///
    /// # Panics
    /// If `x` does not hold `n * k` elements.
    pub fn dots_bf16(x: &[f32], w: &[bf16], out: &mut [f32]) = dots;
}

/// The sum of four accumulators.
#[inline(always)]
pub(super) fn total<S: Simd>(s: S, [a, b, c, d]: [S::F; TURNS]) -> f32 {
    s.sum(s.add(s.add(a, b), s.add(c, d)))
}

#[inline(always)]
fn dot<S: Simd, W: Element>(s: S, x: &[f32], w: &[W]) -> f32 {
    assert_eq!(x.len(), w.len(), "dot of {} and {} elements", x.len(), w.len());
    total(s, dot_tile(s, [x], w)[0])
}

#[inline(always)]
fn dots<S: Simd, W: Element>(s: S, x: &[f32], w: &[W], out: &mut [f32]) {
    let k = w.len();
    assert_eq!(out.len().checked_mul(k), Some(x.len()), "dots of {} elements and {} rows of {k}", x.len(), out.len());
    let mut t = 0;
    let row = |t: usize| &x[t * k..(t + 1) * k];
    // A weight is loaded once for 4 tokens if the accumulators of all fit the registers.
    if S::ACCUMULATORS >= 4 * TURNS {
        while t + 4 <= out.len() {
            let accs = dot_tile(s, [row(t), row(t + 1), row(t + 2), row(t + 3)], w);
            for (i, acc) in accs.into_iter().enumerate() {
                out[t + i] = total(s, acc);
            }
            t += 4;
        }
    }
    while t < out.len() {
        out[t] = total(s, dot_tile(s, [row(t)], w)[0]);
        t += 1;
    }
}

/// The accumulators of `N` rows of `x`, each as long as `w`.
#[inline(always)]
fn dot_tile<S: Simd, W: Element, const N: usize>(s: S, x: [&[f32]; N], w: &[W]) -> [[S::F; TURNS]; N] {
    let mut accs = [[s.splat(0.0); TURNS]; N];
    let (w, w_tail) = w.as_chunks();
    let (w_turns, w_last) = w.as_chunks::<TURNS>();
    let mut xs: [&[[[f32; 16]; TURNS]]; N] = [&[]; N];
    for (xs, x) in xs.iter_mut().zip(x) {
        // The same number of vectors as `w`, so that the compiler can drop the bounds checks.
        *xs = &x.as_chunks().0.as_chunks().0[..w_turns.len()];
    }
    for j in 0..w_turns.len() {
        for turn in 0..TURNS {
            let w = W::load(s, &w_turns[j][turn]);
            for n in 0..N {
                accs[n][turn] = s.fma(s.load(&xs[n][j][turn]), w, accs[n][turn]);
            }
        }
    }
    for n in 0..N {
        let (x, x_tail) = x[n].as_chunks();
        let x_last = &x[w_turns.len() * TURNS..];
        // The turn is a constant in each step once unrolled: an index known only at run time would keep the
        // accumulators in memory.
        for turn in 0..TURNS {
            if turn < w_last.len() {
                accs[n][turn] = s.fma(s.load(&x_last[turn]), W::load(s, &w_last[turn]), accs[n][turn]);
            } else if turn == w_last.len() && !w_tail.is_empty() {
                accs[n][turn] = s.fma(s.load(&pad(x_tail, 0.0)), W::load(s, &pad(w_tail, W::ZERO)), accs[n][turn]);
            }
        }
    }
    accs
}
