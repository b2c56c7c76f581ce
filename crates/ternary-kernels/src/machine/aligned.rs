//! Heap buffers aligned to a cache line, for streams that SIMD loads read in whole lines.

use bytemuck::{Pod, Zeroable};

/// One cache line, which is also one AVX-512 register.
const LINE: usize = 64;

/// A quarter of a line: what allocators align to by themselves. Memory that is to begin at a line is written with zeros
/// after it was allocated; memory that need not is taken as the system gives it, zeroed and untouched. So the buffer is
/// three quarters longer, and begins at its first line.
#[derive(Clone, Copy, Pod, Zeroable)]
#[repr(C, align(16))]
struct Quarter([u8; LINE / 4]);

const _: () = assert!(size_of::<Quarter>() == 16 && align_of::<Quarter>() == 16);

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
    /// The buffer begins at the quarter `first`. The vector never moves.
    Lines { quarters: Vec<Quarter>, first: usize },
    #[cfg(target_os = "linux")]
    Huge(super::huge::Piece),
}

/// From this size on, weights are placed in huge pages: a smaller model is in the caches anyway.
#[cfg(target_os = "linux")]
const HUGE_FROM: usize = 128 << 10;

impl<T: Pod> AlignedBuf<T> {
    /// A buffer of `len` zeros. Memory comes zeroed from the allocator, so pages are touched on first use.
    pub fn zeroed(len: usize) -> Self {
        const { assert!(align_of::<T>() <= LINE && LINE.is_multiple_of(size_of::<T>())) };
        let lines = (len * size_of::<T>()).div_ceil(LINE);
        let quarters: Vec<Quarter> = bytemuck::allocation::zeroed_vec(if lines > 0 { 4 * lines + 3 } else { 0 });
        let first = if lines > 0 { quarters.as_ptr().addr().wrapping_neg() % LINE / size_of::<Quarter>() } else { 0 };
        Self { store: Store::Lines { quarters, first }, len, _of: std::marker::PhantomData }
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

/// The whole lines of a buffer of `len` quarters that begins at the quarter `first`.
fn lines(len: usize, first: usize) -> std::ops::Range<usize> {
    first..first + len / 4 * 4
}

impl<T: Pod> std::ops::Deref for AlignedBuf<T> {
    type Target = [T];
    fn deref(&self) -> &[T] {
        match &self.store {
            Store::Lines { quarters, first } => {
                &bytemuck::cast_slice::<Quarter, T>(&quarters[lines(quarters.len(), *first)])[..self.len]
            }
            #[cfg(target_os = "linux")]
            Store::Huge(piece) => bytemuck::cast_slice(piece.bytes()),
        }
    }
}

impl<T: Pod> std::ops::DerefMut for AlignedBuf<T> {
    fn deref_mut(&mut self) -> &mut [T] {
        match &mut self.store {
            Store::Lines { quarters, first } => {
                let lines = lines(quarters.len(), *first);
                &mut bytemuck::cast_slice_mut::<Quarter, T>(&mut quarters[lines])[..self.len]
            }
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
