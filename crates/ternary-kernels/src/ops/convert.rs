//! Conversions between f32 and the 16-bit floats.

use half::{bf16, f16};

use super::lanes::{Element, LANES, Simd, pad};

ops! {
    /// `out[i] = x[i]` as f16, to nearest, ties to even; values above the largest f16 become infinite.
    ///
    /// # Panics
    /// If the lengths differ.
    pub fn f32_to_f16(x: &[f32], out: &mut [f16]) = narrow;

    /// `out[i] = x[i]` as bf16, to nearest, ties to even.
    ///
    /// # Panics
    /// If the lengths differ.
    pub fn f32_to_bf16(x: &[f32], out: &mut [bf16]) = narrow;

    /// `out[i] = x[i]`, exactly.
    ///
    /// # Panics
    /// If the lengths differ.
    pub fn f16_to_f32(x: &[f16], out: &mut [f32]) = widen;

    /// `out[i] = x[i]`, exactly.
    ///
    /// # Panics
    /// If the lengths differ.
    pub fn bf16_to_f32(x: &[bf16], out: &mut [f32]) = widen;
}

/// A 16-bit float type, to which vectors are stored.
trait Narrow: Element {
    fn store<S: Simd>(s: S, v: S::F, out: &mut [Self; LANES]);
}

impl Narrow for f16 {
    #[inline(always)]
    fn store<S: Simd>(s: S, v: S::F, out: &mut [f16; LANES]) {
        s.store_f16(v, out);
    }
}

impl Narrow for bf16 {
    #[inline(always)]
    fn store<S: Simd>(s: S, v: S::F, out: &mut [bf16; LANES]) {
        s.store_bf16(v, out);
    }
}

#[inline(always)]
fn narrow<S: Simd, T: Narrow>(s: S, x: &[f32], out: &mut [T]) {
    assert_eq!(x.len(), out.len(), "conversion of {} elements to {}", x.len(), out.len());
    let ((x, x_tail), (out, out_tail)) = (x.as_chunks(), out.as_chunks_mut());
    for (out, x) in out.iter_mut().zip(x) {
        T::store(s, s.load(x), out);
    }
    if !out_tail.is_empty() {
        let mut last = [T::ZERO; LANES];
        T::store(s, s.load(&pad(x_tail, 0.0)), &mut last);
        out_tail.copy_from_slice(&last[..out_tail.len()]);
    }
}

#[inline(always)]
fn widen<S: Simd, T: Element>(s: S, x: &[T], out: &mut [f32]) {
    assert_eq!(x.len(), out.len(), "conversion of {} elements to {}", x.len(), out.len());
    let ((x, x_tail), (out, out_tail)) = (x.as_chunks(), out.as_chunks_mut());
    for (out, x) in out.iter_mut().zip(x) {
        s.store(T::load(s, x), out);
    }
    if !out_tail.is_empty() {
        let mut last = [0.0; LANES];
        s.store(T::load(s, &pad(x_tail, T::ZERO)), &mut last);
        out_tail.copy_from_slice(&last[..out_tail.len()]);
    }
}
