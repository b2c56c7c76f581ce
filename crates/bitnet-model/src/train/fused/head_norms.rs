//! The RMSNorms of the heads of q and of k, between projection and rotary embedding: one gain for all heads of each.

use std::ops::Range;

use super::Shared;

/// The queries of a row, and its keys, each with the norm of their heads.
fn parts(s: &Shared<'_>, norms: &[Range<usize>; 2]) -> [(Range<usize>, Range<usize>); 2] {
    let h = s.heads();
    let queries = h.heads * h.d;
    [(0..queries, norms[0].clone()), (queries..queries + h.kv_heads * h.d, norms[1].clone())]
}

/// Normalises the heads of q and k in `qkv`, `[n, q | k | v]`, and keeps them as they were in `before`, `[n, q | k]`.
pub(super) fn forward(s: &Shared<'_>, norms: &[Range<usize>; 2], qkv: &mut [f32], before: &mut Vec<f32>) {
    let h = s.heads();
    before.clear();
    for row in qkv.chunks_exact_mut(h.stride()) {
        before.extend_from_slice(&row[..(h.heads + h.kv_heads) * h.d]);
        for (columns, gain) in parts(s, norms) {
            let gain = s.param(&gain);
            for head in row[columns].chunks_exact_mut(h.d) {
                s.ops.rms_norm_in_place(head, gain, s.config.rms_norm_eps);
            }
        }
    }
}

/// Replaces the gradient of the normalised heads in `dqkv` by that of the heads in `before`, and adds that of the gains
/// to `grads`: `dx = r g - x r^3 / d (g x)` with `g = dy gain` and `r = 1 / sqrt(mean(x^2) + eps)`, head by head.
pub(super) fn backward(s: &Shared<'_>, norms: &[Range<usize>; 2], before: &[f32], dqkv: &mut [f32], grads: &mut [f32]) {
    let h = s.heads();
    let mut dy = vec![0.0; h.d];
    let rows = before.chunks_exact((h.heads + h.kv_heads) * h.d);
    for (row, before) in dqkv.chunks_exact_mut(h.stride()).zip(rows) {
        for (columns, gain) in parts(s, norms) {
            let dgain = &mut grads[gain.clone()];
            let heads = row[columns.clone()].chunks_exact_mut(h.d).zip(before[columns].chunks_exact(h.d));
            for (dx, x) in heads {
                dy.copy_from_slice(dx);
                s.ops.rms_norm_gradient_into(x, s.param(&gain), s.config.rms_norm_eps, &dy, dx, dgain);
            }
        }
    }
}
