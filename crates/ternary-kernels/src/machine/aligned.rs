//! Heap buffers aligned to a cache line, for streams that SIMD loads read in whole lines.

use bytemuck::{Pod, Zeroable};

/// One cache line, which is also one AVX-512 register.
#[derive(Clone, Copy, Pod, Zeroable)]
#[repr(C, align(64))]
struct Line([u8; 64]);

const _: () = assert!(size_of::<Line>() == 64 && align_of::<Line>() == 64);

/// A zero-initialised buffer of plain numbers whose first element is on a 64-byte boundary.
///
/// ```
/// let mut b = ternary_kernels::AlignedBuf::<f32>::zeroed(100);
/// b[99] = 1.0;
/// assert_eq!(b.len(), 100);
/// assert_eq!(b.as_ptr() as usize % 64, 0);
/// ```
pub struct AlignedBuf<T: Pod> {
    store: Store,
    len: usize,
    _of: std::marker::PhantomData<T>,
}

/// The storage of the bytes.
enum Store {
    Lines(Vec<Line>),
    #[cfg(target_os = "linux")]
    Huge(super::huge::Piece),
}

/// From this size on, weights are placed in huge pages: a smaller model is in the caches anyway.
#[cfg(target_os = "linux")]
const HUGE_FROM: usize = 128 << 10;

impl<T: Pod> AlignedBuf<T> {
    /// A buffer of `len` zeros. Memory comes zeroed from the allocator, so pages are touched on first use.
    pub fn zeroed(len: usize) -> Self {
        const { assert!(align_of::<T>() <= 64 && 64 % size_of::<T>() == 0) };
        let lines = (len * size_of::<T>()).div_ceil(64);
        Self { store: Store::Lines(bytemuck::allocation::zeroed_vec(lines)), len, _of: std::marker::PhantomData }
    }

    /// Like [`AlignedBuf::zeroed`], for weights: data that is written once and then streamed repeatedly. It is placed
    /// in huge pages if the system has them; such streams need them to run at the speed of the memory.
    pub fn for_weights(len: usize) -> Self {
        #[cfg(target_os = "linux")]
        if let Some(bytes) = len.checked_mul(size_of::<T>()).filter(|&bytes| bytes >= HUGE_FROM)
            && let Some(piece) = super::huge::Piece::new(bytes)
        {
            return Self { store: Store::Huge(piece), len, _of: std::marker::PhantomData };
        }
        Self::zeroed(len)
    }

    /// A copy of `values`.
    pub fn from_slice(values: &[T]) -> Self {
        let mut b = Self::zeroed(values.len());
        b.copy_from_slice(values);
        b
    }
}

impl<T: Pod> std::ops::Deref for AlignedBuf<T> {
    type Target = [T];
    fn deref(&self) -> &[T] {
        match &self.store {
            Store::Lines(lines) => &bytemuck::cast_slice::<Line, T>(lines)[..self.len],
            #[cfg(target_os = "linux")]
            Store::Huge(piece) => bytemuck::cast_slice(piece.bytes()),
        }
    }
}

impl<T: Pod> std::ops::DerefMut for AlignedBuf<T> {
    fn deref_mut(&mut self) -> &mut [T] {
        match &mut self.store {
            Store::Lines(lines) => &mut bytemuck::cast_slice_mut::<Line, T>(lines)[..self.len],
            #[cfg(target_os = "linux")]
            Store::Huge(piece) => bytemuck::cast_slice_mut(piece.bytes_mut()),
        }
    }
}

impl<T: Pod> Clone for AlignedBuf<T> {
    fn clone(&self) -> Self {
        Self::from_slice(self)
    }
}

impl<T: Pod + PartialEq> PartialEq for AlignedBuf<T> {
    fn eq(&self, other: &Self) -> bool {
        self[..] == other[..]
    }
}

impl<T: Pod> AsRef<[u8]> for AlignedBuf<T> {
    fn as_ref(&self) -> &[u8] {
        bytemuck::cast_slice(self)
    }
}

impl<T: Pod> std::fmt::Debug for AlignedBuf<T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "AlignedBuf({} x {} bytes)", self.len, size_of::<T>())
    }
}
