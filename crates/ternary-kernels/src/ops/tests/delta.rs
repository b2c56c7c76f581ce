//! The gated delta rule: its definition in plain code, equal bits everywhere, and its error against f64.

use super::*;
use crate::ops::DeltaToken;

/// Column by column, as documented.
fn in_order(a: &mut [f32], [k, q, v]: [&[f32]; 3], decay: f32, beta: f32) -> Vec<f32> {
    let m = v.len();
    let column = |j: usize| {
        let seen = (0..k.len()).fold(0.0, |sum, i| k[i].mul_add(decay * a[i * m + j], sum));
        let error = beta * (v[j] - seen);
        (0..k.len()).fold(0.0, |sum, i| {
            a[i * m + j] = k[i].mul_add(error, decay * a[i * m + j]);
            q[i].mul_add(a[i * m + j], sum)
        })
    };
    (0..m).map(column).collect()
}

#[test]
fn tokens_are_chains_of_the_documented_operations() {
    let mut random = Random(80);
    for d in [1, 3, 16, 33, 64] {
        for m in [0, 1, 15, 16, 17, 48, 64, 65, 80, 128] {
            let state = random.activations(d * m);
            let [k, q] = [(); 2].map(|()| random.activations(d));
            let v = random.activations(m);
            let (decay, beta) = (random.unit().abs(), random.unit().abs());
            let mut want_state = state.clone();
            let want = in_order(&mut want_state, [&k, &q, &v], decay, beta);
            for ops in all_ops() {
                let ((mut a, at), (mut out, to)) = (unaligned(&state), unaligned(&vec![f32::NAN; m]));
                let token = DeltaToken { k: &k, q: &q, v: &v, decay, beta };
                ops.delta_rule(&mut a[at.clone()], token, &mut out[to.clone()]);
                assert_same("delta_rule: state", ops, &a[at], &want_state);
                assert_same("delta_rule: result", ops, &out[to], &want);
            }
        }
    }
}

/// With a key of length 1, a rate of 1 and no decay, the state answers the key with its value, whatever it held before:
/// the sums of `d` products of values up to `x` err by at most `d u` of `d x` each.
#[test]
fn what_was_written_is_what_is_read() {
    let (d, m) = (32, 24);
    let mut random = Random(81);
    for _ in 0..20 {
        let mut a = random.activations(d * m);
        let mut k = random.activations(d);
        let length = k.iter().map(|x| x * x).sum::<f32>().sqrt();
        k.iter_mut().for_each(|x| *x /= length);
        let (v, mut out) = (random.activations(m), vec![0.0; m]);
        let token = DeltaToken { k: &k, q: &k, v: &v, decay: 1.0, beta: 1.0 };
        portable().delta_rule(&mut a, token, &mut out);
        let bound = 4.0 * (d * d) as f64 * U * 16.0;
        for (got, want) in out.iter().zip(&v) {
            assert!(f64::from((got - want).abs()) <= bound, "{got} instead of {want}, bound {bound}");
        }
    }
}
