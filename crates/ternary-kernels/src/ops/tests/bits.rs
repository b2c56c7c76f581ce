//! The definitions, step by step in plain code; every instruction set follows them bit for bit.

use proptest::prelude::*;

use super::*;
use crate::ops::lanes::{LANES, Portable, Simd};

/// The documented order of sums, in scalar code that shares nothing with the vectors.
pub(super) fn sum_in_order(k: usize, mut add: impl FnMut(usize, f32) -> f32) -> f32 {
    let mut acc = [[0.0f32; 16]; 4];
    for i in 0..k {
        let a = &mut acc[i / 16 % 4][i % 16];
        *a = add(i, *a);
    }
    let mut lanes: [f32; 16] = std::array::from_fn(|l| (acc[0][l] + acc[1][l]) + (acc[2][l] + acc[3][l]));
    for half in [8, 4, 2, 1] {
        for l in 0..half {
            lanes[l] += lanes[l + half];
        }
    }
    lanes[0]
}

#[test]
fn dots_follow_the_documented_order() {
    let mut random = Random(1);
    for &k in SIZES {
        let (x, w) = (random.activations(k), random.activations(k));
        let (half, brain) = (to_f16(&w), to_bf16(&w));
        let want = [
            sum_in_order(k, |i, a| x[i].mul_add(w[i], a)),
            sum_in_order(k, |i, a| x[i].mul_add(half[i].to_f32(), a)),
            sum_in_order(k, |i, a| x[i].mul_add(brain[i].to_f32(), a)),
        ];
        let ((x, r), (w, _), (half, _), (brain, _)) =
            (unaligned(&x), unaligned(&w), unaligned(&half), unaligned(&brain));
        let (x, w, half, brain) = (&x[r.clone()], &w[r.clone()], &half[r.clone()], &brain[r]);
        for ops in all_ops() {
            assert_same("dot", ops, &[ops.dot(x, w), ops.dot_f16(x, half), ops.dot_bf16(x, brain)], &want);
        }
    }
}

#[test]
fn several_dots_have_the_bits_of_one() {
    let mut random = Random(2);
    for &k in SIZES {
        for n in [0, 1, 2, 3, 4, 5, 8, 11] {
            let (x, w) = (random.activations(n * k), random.activations(k));
            let (half, brain) = (to_f16(&w), to_bf16(&w));
            let row = |t: usize| &x[t * k..(t + 1) * k];
            for ops in all_ops() {
                let mut out = vec![f32::NAN; n];
                ops.dots(&x, &w, &mut out);
                assert_same("dots", ops, &out, &(0..n).map(|t| ops.dot(row(t), &w)).collect::<Vec<_>>());
                ops.dots_f16(&x, &half, &mut out);
                assert_same("dots_f16", ops, &out, &(0..n).map(|t| ops.dot_f16(row(t), &half)).collect::<Vec<_>>());
                ops.dots_bf16(&x, &brain, &mut out);
                assert_same("dots_bf16", ops, &out, &(0..n).map(|t| ops.dot_bf16(row(t), &brain)).collect::<Vec<_>>());
            }
        }
    }
}

#[test]
fn norms_follow_the_documented_order() {
    let mut random = Random(3);
    for &k in SIZES {
        let (x, gain) = (random.activations(k), random.activations(k));
        let eps = 1e-5;
        let mean = sum_in_order(k, |i, a| x[i].mul_add(x[i], a)) / k.max(1) as f32;
        let inv = 1.0 / (mean + eps).sqrt();
        let want: Vec<f32> = x.iter().zip(&gain).map(|(x, g)| (x * inv) * g).collect();
        for ops in all_ops() {
            assert_same("rms_norm_inv", ops, &[ops.rms_norm_inv(&x, eps)], &[inv]);
            let mut out = vec![f32::NAN; k];
            ops.rms_norm(&x, &gain, eps, &mut out);
            assert_same("rms_norm", ops, &out, &want);
            let mut in_place = x.clone();
            ops.rms_norm_in_place(&mut in_place, &gain, eps);
            assert_same("rms_norm_in_place", ops, &in_place, &want);
        }
    }
}

#[test]
fn quantised_rows_follow_the_definition() {
    let mut random = Random(4);
    for &k in SIZES {
        let x = random.activations(k);
        let max = x.iter().fold(1e-5f32, |m, x| m.max(x.abs()));
        let scale = 127.0 / max;
        let codes: Vec<i8> = x.iter().map(|x| (x * scale).round_ties_even() as i8).collect();
        let sum = codes.iter().map(|&c| i32::from(c)).sum();
        for ops in all_ops() {
            assert_eq!(quantized(ops, &x), (codes.clone(), sum, scale), "{k} on {}", ops.isa());
        }
    }
}

#[test]
fn a_norm_fused_with_quantisation_has_the_bits_of_both_steps() {
    let mut random = Random(5);
    for &k in SIZES {
        let (x, gain) = (random.activations(k), random.activations(k));
        for ops in all_ops() {
            let mut normed = vec![0.0; k];
            ops.rms_norm(&x, &gain, 1e-5, &mut normed);
            let fused = row(k, |b| ops.rms_norm_quantize(&x, &gain, 1e-5, b.row_mut(0)).unwrap());
            assert_eq!(fused, quantized(portable(), &normed), "{k} on {}", ops.isa());
        }
    }
}

#[test]
fn elementwise_operations_follow_their_formulas() {
    let mut random = Random(6);
    for &k in SIZES {
        let (x, y, codes) = (random.activations(k), random.activations(k), random.integers(k));
        let factor = random.unit();
        let each = |f: &dyn Fn(usize) -> f32| (0..k).map(f).collect::<Vec<f32>>();
        for ops in all_ops() {
            let check = |name: &str, want: Vec<f32>, run: &dyn Fn(&mut [f32])| {
                let (mut out, r) = unaligned(&y);
                run(&mut out[r.clone()]);
                assert_same(name, ops, &out[r], &want);
            };
            check("relu2_mul", each(&|i| x[i].max(0.0) * x[i].max(0.0) * y[i]), &|out| ops.relu2_mul(&x, &y, out));
            check("add_assign", each(&|i| y[i] + x[i]), &|out| ops.add_assign(out, &x));
            check("axpy", each(&|i| factor.mul_add(x[i], y[i])), &|out| ops.axpy(factor, &x, out));
            check("scale", each(&|i| y[i] * factor), &|out| ops.scale(factor, out));
            check("scale_i32", each(&|i| codes[i] as f32 * factor), &|out| ops.scale_i32(&codes, factor, out));
            check("scale_add_i32", each(&|i| y[i] + codes[i] as f32 * factor), &|out| {
                ops.scale_add_i32(&codes, factor, out);
            });
            let twice = |i: usize| codes[i] as f32 * factor * 0.3;
            check("dequantize", each(&twice), &|out| ops.dequantize(&codes, factor, 0.3, out));
            check("dequantize_add", each(&|i| y[i] + twice(i)), &|out| ops.dequantize_add(&codes, factor, 0.3, out));
            let exp = each(&|i| {
                let mut e = [0.0];
                portable().exp(&[-x[i]], &mut e);
                e[0]
            });
            check("silu_mul", each(&|i| x[i] / (1.0 + exp[i]) * y[i]), &|out| ops.silu_mul(&x, &y, out));
        }
    }
}

#[test]
fn softmax_is_made_of_exp_and_sums_in_order() {
    let mut random = Random(7);
    for &k in SIZES {
        let x: Vec<f32> = (0..k).map(|_| random.activation() * 10.0).collect();
        let max = x.iter().copied().fold(f32::NEG_INFINITY, f32::max);
        let differences: Vec<f32> = x.iter().map(|x| x - max).collect();
        let mut e = vec![0.0; k];
        portable().exp(&differences, &mut e);
        let sum = sum_in_order(k, |i, a| a + e[i]);
        let want: Vec<f32> = e.iter().map(|e| e / sum).collect();
        for ops in all_ops() {
            let mut got = x.clone();
            ops.softmax_in_place(&mut got);
            assert_same("softmax", ops, &got, &want);
        }
    }
}

#[test]
fn rotations_round_both_products() {
    let mut random = Random(8);
    for half in [0, 1, 2, 8, 15, 16, 17, 32, 40, 64, 100] {
        let x = random.activations(2 * half);
        let (cos, sin): (Vec<f32>, Vec<f32>) = (0..half).map(|_| random.unit().sin_cos()).unzip();
        let want: Vec<f32> = (0..2 * half)
            .map(|i| {
                if i < half {
                    x[i] * cos[i] - x[i + half] * sin[i]
                } else {
                    x[i] * cos[i - half] + x[i - half] * sin[i - half]
                }
            })
            .collect();
        for ops in all_ops() {
            let mut got = x.clone();
            ops.rope_half(&mut got, &cos, &sin);
            assert_same("rope_half", ops, &got, &want);
        }
    }
}

/// One token alone and among others, at any position of a vector.
#[test]
fn lanes_do_not_see_each_other() {
    let mut random = Random(9);
    let (x, y) = (random.activations(100), random.activations(100));
    for ops in all_ops() {
        let run = |x: &[f32], y: &[f32]| {
            let mut out = vec![0.0; x.len()];
            ops.silu_mul(x, y, &mut out);
            out
        };
        let whole = run(&x, &y);
        for i in 0..100 {
            assert_same("silu_mul", ops, &run(&x[i..=i], &y[i..=i]), &whole[i..=i]);
        }
    }
}

#[test]
fn transposed_sums_are_the_sums() {
    let mut random = Random(10);
    let v: [[f32; LANES]; LANES] = std::array::from_fn(|_| std::array::from_fn(|_| random.activation()));
    let want = v.map(|v| Portable.sum(v));
    assert_eq!(Portable.sums(v), want);
    #[cfg(target_arch = "x86_64")]
    {
        fn check<S: Simd>(s: S, v: &[[f32; LANES]; LANES], want: &[f32; LANES]) {
            let mut got = [0.0; LANES];
            s.store(s.sums(v.map(|v| s.load(&v))), &mut got);
            assert_eq!(got, *want);
            assert_eq!(v.map(|v| s.sum(s.load(&v))), *want);
        }
        let cpu = crate::Cpu::get();
        if let Some(s) = cpu.sse41() {
            check(s, &v, &want);
        }
        if let Some(s) = cpu.avx2() {
            check(s, &v, &want);
        }
        if let Some(s) = cpu.avx512_vnni() {
            check(s, &v, &want);
        }
    }
}

/// Every kind of number: zeros, subnormal, normal and huge ones, infinities and NaNs of both signs.
fn any_float() -> impl Strategy<Value = f32> {
    prop_oneof![
        4 => any::<u32>().prop_map(f32::from_bits),
        4 => -100.0f32..100.0,
        1 => prop::sample::select(vec![0.0, -0.0, 1.0, f32::MAX, f32::MIN, f32::MIN_POSITIVE, 1e-45, -1e-45]),
        1 => prop::sample::select(vec![f32::INFINITY, f32::NEG_INFINITY, f32::NAN, 65504.0, 65520.0, 88.72284, -103.97]),
    ]
}

proptest! {
    #[test]
    fn instruction_sets_agree_on_any_numbers(
        pairs in prop::collection::vec((any_float(), any_float()), 0..70),
        codes in prop::collection::vec(any::<i32>(), 70),
        a in any_float(),
    ) {
        let (x, y): (Vec<f32>, Vec<f32>) = pairs.into_iter().unzip();
        let k = x.len();
        let half = k / 2;
        let run = |ops: Ops| {
            let mut results = vec![ops.dot(&x, &y), ops.dot_f16(&x, &to_f16(&y)), ops.dot_bf16(&x, &to_bf16(&y)), ops.rms_norm_inv(&x, 1e-5)];
            let mut one = |f: &dyn Fn(&mut [f32])| {
                let mut out = y.clone();
                f(&mut out);
                results.extend(out);
            };
            one(&|out| ops.relu2_mul(&x, &y, out));
            one(&|out| ops.silu_mul(&x, &y, out));
            one(&|out| ops.add_assign(out, &x));
            one(&|out| ops.axpy(a, &x, out));
            one(&|out| ops.scale(a, out));
            one(&|out| ops.scale_i32(&codes[..k], a, out));
            one(&|out| ops.scale_add_i32(&codes[..k], a, out));
            one(&|out| ops.dequantize(&codes[..k], a, 0.3, out));
            one(&|out| ops.dequantize_add(&codes[..k], a, 0.3, out));
            one(&|out| ops.exp(&x, out));
            one(&|out| ops.softmax_in_place(out));
            one(&|out| ops.rms_norm(&x, &y, 1e-5, out));
            one(&|out| ops.rope_half(&mut out[..2 * half], &x[..half], &x[half..2 * half]));
            let (mut h, mut b) = (to_f16(&y), to_bf16(&y));
            ops.f32_to_f16(&x, &mut h);
            one(&|out| ops.f16_to_f32(&h, out));
            ops.f32_to_bf16(&x, &mut b);
            one(&|out| ops.bf16_to_f32(&b, out));
            results
        };
        let want = run(portable());
        for ops in all_ops() {
            assert_same("some operation", ops, &run(ops), &want);
        }
    }

    #[test]
    fn instruction_sets_agree_on_quantised_rows(x in prop::collection::vec(any_float(), 0..70)) {
        let run = |ops: Ops| {
            let mut batch = Int8Batch::with_capacity(1, x.len());
            batch.reset(1, x.len());
            let result = ops.quantize_int8(&x, batch.row_mut(0));
            prop_assert_eq!(result.is_ok(), x.iter().all(|x| x.is_finite()));
            match result {
                Ok(()) => Ok((batch.view().codes().to_vec(), batch.view().sums().to_vec(), batch.scales().to_vec())),
                Err(e) => {
                    let first = x.iter().position(|x| !x.is_finite());
                    let named = matches!(e, crate::KernelError::NonFiniteActivation { position, .. } if Some(position) == first);
                    prop_assert!(named, "{} instead of position {:?}", e, first);
                    Ok(Default::default())
                }
            }
        };
        let want = run(portable())?;
        prop_assert!(want.0.iter().all(|&c| c >= -127));
        for ops in all_ops() {
            prop_assert_eq!(run(ops)?, want.clone());
        }
    }
}
