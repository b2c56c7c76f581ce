//! Tests of the operations: equal bits on all instruction sets, errors against f64, special values.

use half::{bf16, f16};
use test_support::Random;

use super::Ops;
use crate::{Int8Batch, Isa};

mod accuracy;
mod attend;
mod bits;
mod delta;
mod hadamard;
mod inner;
mod kv;
mod norm_gradients;
mod special;
mod train;

/// Unit roundoff of f32.
const U: f64 = 1.0 / (1 << 24) as f64;

/// Around the lane count, around four vectors, and the widths of models.
const SIZES: &[usize] = &[0, 1, 2, 15, 16, 17, 31, 32, 33, 48, 63, 64, 65, 79, 80, 81, 100, 128, 129, 2560, 6912];

/// The operations on every instruction set that this CPU has, portable ones first.
fn all_ops() -> Vec<Ops> {
    let all: Vec<_> = Isa::available().map(|isa| Ops::for_isa(isa).unwrap()).collect();
    assert_eq!(all[0].isa(), Isa::Scalar);
    all
}

/// Whether an emulator runs the tests, about twenty times slower: large cases are reduced then.
pub(super) fn emulated() -> bool {
    std::env::var_os("BITNET_EMULATED").is_some_and(|v| !v.is_empty())
}

fn portable() -> Ops {
    Ops::for_isa(Isa::Scalar).unwrap()
}

/// The same values, at an address that is not a multiple of a vector.
fn unaligned<T: Copy + Default>(x: &[T]) -> (Vec<T>, std::ops::Range<usize>) {
    let mut v = Vec::with_capacity(x.len() + 1);
    v.push(T::default());
    v.extend_from_slice(x);
    (v, 1..x.len() + 1)
}

fn to_f16(x: &[f32]) -> Vec<f16> {
    x.iter().map(|&x| f16::from_f32(x)).collect()
}

fn to_bf16(x: &[f32]) -> Vec<bf16> {
    x.iter().map(|&x| bf16::from_f32(x)).collect()
}

/// Bits to compare; all NaNs are equal.
fn bits(x: &[f32]) -> Vec<u32> {
    x.iter().map(|x| if x.is_nan() { 0x7fc0_0000 } else { x.to_bits() }).collect()
}

fn assert_same(what: &str, ops: Ops, got: &[f32], want: &[f32]) {
    assert_eq!(got.len(), want.len());
    for (i, (g, w)) in bits(got).iter().zip(bits(want)).enumerate() {
        assert_eq!(*g, w, "{what} on {}, element {i} of {}: {:e} against {:e}", ops.isa(), got.len(), got[i], want[i]);
    }
}

/// One quantised row: codes, sum and scale.
fn quantized(ops: Ops, x: &[f32]) -> (Vec<i8>, i32, f32) {
    row(x.len(), |batch| ops.quantize_int8(x, batch.row_mut(0)).unwrap())
}

fn row(k: usize, fill: impl FnOnce(&mut Int8Batch)) -> (Vec<i8>, i32, f32) {
    let mut batch = Int8Batch::with_capacity(1, k);
    batch.reset(1, k);
    fill(&mut batch);
    let codes = batch.view().row(0).codes().to_vec();
    assert!(codes[k..].iter().all(|&c| c == 0), "padding");
    (codes[..k].to_vec(), batch.view().sums()[0], batch.scales()[0])
}
