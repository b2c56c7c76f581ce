//! Zeros, infinities, NaNs, ties, and lengths that do not fit.

use std::panic::{AssertUnwindSafe, catch_unwind};

use super::*;
use crate::KernelError;

#[test]
fn ties_go_to_the_even_code() {
    let x = [127.0, 0.5, 1.5, -0.5, 2.5, -1.5, -127.0];
    for ops in all_ops() {
        assert_eq!(quantized(ops, &x), (vec![127, 0, 2, 0, 2, -2, -127], 2, 1.0));
    }
}

#[test]
fn rows_of_zeros_tiny_and_huge_numbers_have_finite_scales() {
    for ops in all_ops() {
        assert_eq!(quantized(ops, &[0.0; 20]), (vec![0; 20], 0, 127.0 / 1e-5));
        assert_eq!(quantized(ops, &[1e-45; 20]), (vec![0; 20], 0, 127.0 / 1e-5));
        // Half of the lower limit of the maximum: 63.5 becomes 64.
        assert_eq!(quantized(ops, &[-5e-6; 20]).0, vec![-64; 20]);
        let huge = [f32::MAX, -f32::MAX, f32::MAX / 2.0];
        assert_eq!(quantized(ops, &huge), (vec![127, -127, 64], 64, 127.0 / f32::MAX));
    }
}

#[test]
fn numbers_that_are_not_finite_are_named() {
    for ops in all_ops() {
        for k in [1, 16, 17, 40] {
            for position in 0..k {
                for bad in [f32::NAN, -f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
                    let mut x = vec![3e38; k];
                    x[position] = bad;
                    let mut batch = Int8Batch::with_capacity(1, k);
                    batch.reset(1, k);
                    let error = ops.quantize_int8(&x, batch.row_mut(0)).unwrap_err();
                    assert!(
                        matches!(error, KernelError::NonFiniteActivation { position: p, value }
                            if p == position && (value == bad || value.is_nan() && bad.is_nan())),
                        "{error}"
                    );
                    // After a norm the whole row is not finite, or zero times infinity is not.
                    assert!(ops.rms_norm_quantize(&x, &vec![1.0; k], 1e-5, batch.row_mut(0)).is_err());
                }
            }
        }
    }
}

#[test]
fn special_values_of_exp() {
    let x = [0.0, -0.0, f32::NEG_INFINITY, f32::MIN, -104.0, f32::INFINITY, f32::MAX, 89.0, f32::NAN, 1e-45];
    for ops in all_ops() {
        let mut out = [0.0; 10];
        ops.exp(&x, &mut out);
        let inf = f32::INFINITY;
        assert_eq!(bits(&out), bits(&[1.0, 1.0, 0.0, 0.0, 0.0, inf, inf, inf, f32::NAN, 1.0]));
        // The smallest and the largest results.
        ops.exp(&[-103.97, 88.722_83, 88.722_84, 1.0], &mut out[..4]);
        assert_eq!(out[..4], [1e-45, 3.402_798_5e38, inf, std::f32::consts::E]);
    }
}

#[test]
fn special_values_of_activations() {
    let inf = f32::INFINITY;
    for ops in all_ops() {
        let mut out = [0.0; 6];
        ops.relu2_mul(&[f32::NAN, -inf, -0.0, inf, 1e20, -3.0], &[1.0, 2.0, 3.0, 4.0, 5.0, -1.0], &mut out);
        assert_eq!(bits(&out), bits(&[f32::NAN, 0.0, 0.0, inf, inf, -0.0]));
        ops.silu_mul(&[f32::NAN, inf, -200.0, 200.0, 0.0, -1e38], &[1.0; 6], &mut out);
        assert_eq!(bits(&out), bits(&[f32::NAN, inf, -0.0, 200.0, 0.0, -0.0]));
    }
}

#[test]
fn special_softmax_rows() {
    let (inf, nan) = (f32::INFINITY, f32::NAN);
    for ops in all_ops() {
        let softmax = |x: &[f32]| {
            let mut x = x.to_vec();
            ops.softmax_in_place(&mut x);
            bits(&x)
        };
        assert_eq!(softmax(&[]), bits(&[]));
        assert_eq!(softmax(&[-7.0]), bits(&[1.0]));
        assert_eq!(softmax(&[-inf, 3.0, -inf, 3.0]), bits(&[0.0, 0.5, 0.0, 0.5]));
        assert_eq!(softmax(&[f32::MAX, f32::MIN]), bits(&[1.0, 0.0]));
        assert_eq!(softmax(&[-inf; 3]), bits(&[nan; 3]));
        assert_eq!(softmax(&[1.0; 64]), bits(&[1.0 / 64.0; 64]));
    }
}

#[test]
fn all_halves_convert_as_the_half_crate_does() {
    let halves: Vec<f16> = (0..=u16::MAX).map(f16::from_bits).collect();
    let brains: Vec<bf16> = (0..=u16::MAX).map(bf16::from_bits).collect();
    // Each half-precision number, its neighbours in f32, and the middles between them with their neighbours.
    let mut floats = Vec::new();
    for i in 0..=u16::MAX {
        for at in [f16::from_bits(i).to_f32().to_bits(), u32::from(i) << 16] {
            for middle in [0, 1 << 12, 1 << 15] {
                floats.extend([-1i32, 0, 1].map(|d| f32::from_bits(at.wrapping_add(middle).wrapping_add_signed(d))));
            }
        }
    }
    let (want_half, want_brain) = (to_f16(&floats), to_bf16(&floats));
    for ops in all_ops() {
        let mut out = vec![0.0; halves.len()];
        ops.f16_to_f32(&halves, &mut out);
        assert_same("f16_to_f32", ops, &out, &halves.iter().map(|h| h.to_f32()).collect::<Vec<_>>());
        ops.bf16_to_f32(&brains, &mut out);
        assert_same("bf16_to_f32", ops, &out, &brains.iter().map(|h| h.to_f32()).collect::<Vec<_>>());
        let mut half = vec![f16::ZERO; floats.len()];
        ops.f32_to_f16(&floats, &mut half);
        assert!(half.iter().zip(&want_half).all(|(g, w)| g.to_bits() == w.to_bits()), "f16 on {}", ops.isa());
        let mut brain = vec![bf16::ZERO; floats.len()];
        ops.f32_to_bf16(&floats, &mut brain);
        assert!(brain.iter().zip(&want_brain).all(|(g, w)| g.to_bits() == w.to_bits()), "bf16 on {}", ops.isa());
    }
}

#[test]
fn lengths_that_do_not_fit_are_refused() {
    fn refused<R>(f: impl FnOnce() -> R) {
        assert!(catch_unwind(AssertUnwindSafe(|| _ = f())).is_err());
    }
    let (x, y) = ([1.0; 40], [1.0; 39]);
    let (codes, half) = ([1; 39], [f16::ONE; 39]);
    let mut out = [0.0; 39];
    let mut batch = Int8Batch::with_capacity(1, 39);
    batch.reset(1, 39);
    for ops in all_ops() {
        refused(|| ops.dot(&x, &y));
        refused(|| ops.dot_f16(&x, &half));
        refused(|| ops.dots(&x, &y, &mut out));
        refused(|| ops.rms_norm(&x, &y, 1e-5, &mut out));
        refused(|| ops.rms_norm(&y, &y, 1e-5, &mut out[1..]));
        refused(|| ops.quantize_int8(&x, batch.row_mut(0)));
        refused(|| ops.rms_norm_quantize(&y, &x, 1e-5, batch.row_mut(0)));
        refused(|| ops.relu2_mul(&x, &y, &mut out));
        refused(|| ops.silu_mul(&y, &y, &mut out[1..]));
        refused(|| ops.add_assign(&mut out, &x));
        refused(|| ops.axpy(1.0, &x, &mut out));
        refused(|| ops.scale_i32(&codes, 1.0, &mut out[1..]));
        refused(|| ops.scale_add_i32(&codes[1..], 1.0, &mut out));
        refused(|| ops.dequantize(&codes[1..], 1.0, 1.0, &mut out));
        refused(|| ops.dequantize_add(&codes, 1.0, 1.0, &mut out[1..]));
        refused(|| ops.exp(&x, &mut out));
        refused(|| ops.f16_to_f32(&half, &mut out[1..]));
        refused(|| ops.rope_half(&mut out, &x[..20], &x[..20]));
        refused(|| ops.rope_half(&mut out[..20], &x[..10], &x[..9]));
    }
}
