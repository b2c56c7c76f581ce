//! The storage of keys and values: pages of a few hundred positions, which texts with the same beginning share.

use std::ops::Range;
use std::sync::Arc;

use ternary_kernels::AlignedBuf;
use ternary_kernels::ops::KV_BLOCK;

/// Positions in a page: several blocks of attention, so that a page has a long contiguous range for each head, and few
/// enough that a fork copies little when it begins to write in the middle of one.
pub(in crate::engine) const PAGE: usize = 4 * KV_BLOCK;

/// Pages of one layer. A clone shares them; a writer to a shared page gets its own copy.
#[derive(Debug)]
pub(in crate::engine) struct Pages<P>(Vec<Arc<P>>);

impl<P> Clone for Pages<P> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

impl<P: Clone> Pages<P> {
    pub(super) fn new() -> Self {
        Self(Vec::new())
    }

    pub(super) fn len(&self) -> usize {
        self.0.len()
    }

    pub(super) fn get(&self, page: usize) -> &P {
        &self.0[page]
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &P> + Clone {
        self.0.iter().map(|page| &**page)
    }

    /// These pages, for writing.
    pub(in crate::engine) fn range_mut(&mut self, pages: Range<usize>) -> impl Iterator<Item = &mut P> {
        self.0[pages].iter_mut().map(Arc::make_mut)
    }

    /// Makes room for `count` pages; `page` creates the page with a given number.
    pub(super) fn reserve(&mut self, count: usize, page: impl Fn(usize) -> P) {
        let have = self.0.len();
        self.0.extend((have..count).map(|i| Arc::new(page(i))));
    }

    /// Releases the pages from the first shared one on, after the first `count`: their contents are not needed, and
    /// writing would copy them.
    pub(super) fn let_go(&mut self, count: usize) {
        let behind = self.0.get(count..).unwrap_or_default();
        if let Some(shared) = behind.iter().position(|page| Arc::strong_count(page) > 1) {
            self.0.truncate(count + shared);
        }
    }

    /// The number of shared pages.
    pub(super) fn shared(&self) -> usize {
        self.0.iter().filter(|page| Arc::strong_count(page) > 1).count()
    }
}

/// Keys and values of one page of one layer as slabs: for each key/value head `[PAGE, row]`.
#[derive(Clone, Debug)]
pub(in crate::engine) struct Slabs<T: bytemuck::Pod> {
    pub(in crate::engine) k: AlignedBuf<T>,
    pub(in crate::engine) v: AlignedBuf<T>,
}

impl<T: bytemuck::Pod> Slabs<T> {
    pub(super) fn zeroed(len: usize) -> Self {
        Self { k: AlignedBuf::zeroed(len), v: AlignedBuf::zeroed(len) }
    }

    /// The same range of the keys and of the values.
    pub(super) fn both<'s, R>(&'s self, at: Range<usize>, of: impl Fn(&'s [T]) -> R) -> (R, R) {
        (of(&self.k[at.clone()]), of(&self.v[at]))
    }

    /// Overwrites everything with `numbers`, repeatedly.
    pub(super) fn repeat(&mut self, numbers: &[T]) {
        for all in [&mut self.k, &mut self.v] {
            all.chunks_mut(numbers.len().max(1)).for_each(|chunk| chunk.copy_from_slice(&numbers[..chunk.len()]));
        }
    }
}

/// Codes with their steps.
#[derive(Clone, Debug)]
pub(in crate::engine) struct Quantized<T: bytemuck::Pod> {
    pub(in crate::engine) codes: Slabs<T>,
    /// `[PAGE]` for each head.
    pub(in crate::engine) steps: Slabs<f32>,
    /// The row of position 0 of each head in int8, if it is kept in int8; in the first page.
    pub(in crate::engine) first: Slabs<i8>,
}

impl<T: bytemuck::Pod> Quantized<T> {
    /// Rows of `row` elements; `first` elements are kept in int8.
    pub(super) fn zeroed(heads: usize, row: usize, first: usize) -> Self {
        Self {
            codes: Slabs::zeroed(heads * PAGE * row),
            steps: Slabs::zeroed(heads * PAGE),
            first: Slabs::zeroed(first),
        }
    }
}

/// Keys or values of a page.
type Side<T> = fn(&Slabs<T>) -> &[T];
/// Keys or values of a page, for writing.
type SideMut<T> = fn(&mut Slabs<T>) -> &mut [T];

/// The part of the slabs of a layer's pages that is saved.
#[derive(Clone, Copy)]
pub(super) struct Extent {
    pub(super) heads: usize,
    /// Positions, from the first on.
    pub(super) len: usize,
    /// Positions in a slab.
    pub(super) slab: usize,
    /// Elements in a row.
    pub(super) row: usize,
}

impl Extent {
    /// The range of head `head` in the slabs of page `page`.
    fn within(self, head: usize, page: usize) -> Range<usize> {
        let used = self.len.saturating_sub(page * self.slab).min(self.slab);
        let start = head * self.slab * self.row;
        start..start + used * self.row
    }

    /// Appends the rows of each head, page after page, keys before values.
    pub(super) fn save<'p, T: bytemuck::Pod, const N: usize>(
        self,
        pages: impl Iterator<Item = &'p Slabs<T>> + Clone,
        bytes: &mut Vec<u8>,
        write: fn(T) -> [u8; N],
    ) {
        let sides: [Side<T>; 2] = [|s| &s.k, |s| &s.v];
        for side in sides {
            for head in 0..self.heads {
                for (i, page) in pages.clone().enumerate() {
                    side(page)[self.within(head, i)].iter().for_each(|v| bytes.extend(write(*v)));
                }
            }
        }
    }

    /// The inverse of `save`: reads from `bytes` and returns the rest.
    pub(super) fn fill<'b, T: bytemuck::Pod, const N: usize>(
        self,
        pages: &mut [&mut Slabs<T>],
        bytes: &'b [u8],
        read: fn([u8; N]) -> T,
    ) -> &'b [u8] {
        let mut rest = bytes;
        let sides: [SideMut<T>; 2] = [|s| &mut s.k, |s| &mut s.v];
        for side in sides {
            for head in 0..self.heads {
                for (i, page) in pages.iter_mut().enumerate() {
                    let to = &mut side(page)[self.within(head, i)];
                    let (own, behind) = rest.split_at(to.len() * N);
                    to.iter_mut().zip(own.as_chunks().0).for_each(|(v, b)| *v = read(*b));
                    rest = behind;
                }
            }
        }
        rest
    }
}
