//! Registers and memory: loads and stores of arrays as long as a register, and prefetching, all of them safe.
//!
//! The intrinsics for both take pointers and are therefore unsafe. The operation needs no instruction set: it copies as
//! many bytes as a register has, and compiles to the instruction set's own move in a function that is compiled for it.

#[cfg(target_arch = "aarch64")]
use std::arch::aarch64::*;
#[cfg(target_arch = "wasm32")]
use std::arch::wasm32::*;
#[cfg(target_arch = "x86_64")]
use std::arch::x86_64::*;

#[cfg(target_arch = "x86_64")]
mod prefetch;
#[cfg(target_arch = "wasm32")]
pub(crate) mod sums;
#[cfg(target_arch = "x86_64")]
pub(crate) use prefetch::{prefetch, prefetch_next_page, prefetch_page_ahead};

/// Prefetches the cache line at `at`; this architecture has no stable intrinsic for it.
#[cfg(not(target_arch = "x86_64"))]
#[inline(always)]
pub(crate) fn prefetch(_at: *const u8) {}

/// Whether [`prefetch`] has an effect.
pub(crate) const PREFETCHES: bool = cfg!(target_arch = "x86_64");

/// Plain data.
///
/// # Safety
/// Every pattern of bits is a value, and no byte is padding.
pub(crate) unsafe trait Bits: Copy {}

macro_rules! bits {
    ($($ty:ty),+) => {$(
        // SAFETY: a number, or a vector of numbers.
        unsafe impl Bits for $ty {}
    )+};
}
bits!(u8, i8, i16, i32, f32, half::f16, half::bf16);
#[cfg(target_arch = "x86_64")]
bits!(__m128i, __m128, __m256i, __m256, __m512i, __m512);
#[cfg(target_arch = "aarch64")]
bits!(int8x8_t, uint16x4_t, uint8x16_t, int8x16_t, int16x8_t, int32x4_t, float32x4_t);
#[cfg(target_arch = "wasm32")]
bits!(v128);

// SAFETY: there are no bytes between the elements of an array.
unsafe impl<T: Bits, const N: usize> Bits for [T; N] {}

/// The bits of `from` as another type of the same size. Neither type needs alignment.
#[inline(always)]
pub(crate) fn load<A: Bits, B: Bits>(from: &A) -> B {
    const { assert!(size_of::<A>() == size_of::<B>()) };
    // SAFETY: `from` has as many readable bytes as a `B`, and any bytes are a valid `B`.
    unsafe { std::ptr::from_ref(from).cast::<B>().read_unaligned() }
}

/// Writes the bits of `v` to `to`, another type of the same size. Neither type needs alignment.
#[inline(always)]
pub(crate) fn store<A: Bits, B: Bits>(v: A, to: &mut B) {
    *to = load(&v);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bits_come_and_go_at_any_address() {
        let bytes: [u8; 40] = std::array::from_fn(|i| i as u8);
        for at in 0..8 {
            let from: &[u8; 32] = bytes[at..].first_chunk().unwrap();
            let words: [i32; 8] = load(from);
            assert_eq!(words[7], i32::from_le_bytes([28, 29, 30, 31].map(|b| b + at as u8)));
            let mut back = [0u8; 40];
            store(words, back[at..].first_chunk_mut::<32>().unwrap());
            assert_eq!(back[at..at + 32], bytes[at..at + 32]);
            assert_eq!(back[at + 32..], [0; 8][at..]);
        }
    }
}
