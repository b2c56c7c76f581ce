//! Disjoint column ranges of one row-major buffer, for threads that each produce some columns of every row.
//!
//! ```
//! use ternary_kernels::split_cols;
//!
//! let mut out = [0; 6]; // [n = 2, m = 3]
//! let mut parts = split_cols(&mut out, 2, 3, &[0..1, 1..3]);
//! let (mut a, mut b) = (parts.next().unwrap(), parts.next().unwrap());
//! std::thread::scope(|s| {
//!     s.spawn(|| a.row_mut(1).fill(7));
//!     s.spawn(|| b.row_mut(0).fill(8));
//! });
//! assert_eq!(out, [0, 8, 8, 7, 0, 0]);
//! ```

use std::marker::PhantomData;
use std::ops::Range;

/// Some columns of all rows of a `[n, m]` row-major buffer, exclusively borrowed.
pub struct ColsMut<'a, T> {
    /// First element of the buffer.
    base: *mut T,
    n: usize,
    /// Columns of the buffer, m.
    stride: usize,
    /// The columns that this view may touch; `start <= end <= stride`, and there are `n * stride` elements from `base`
    /// on.
    cols: Range<usize>,
    _borrow: PhantomData<&'a mut [T]>,
}

// SAFETY: a view exclusively borrows its elements, which no other view touches, like a `&mut [T]`.
unsafe impl<T: Send> Send for ColsMut<'_, T> {}
// SAFETY: a shared view only hands out shared references to its elements, like a `&&mut [T]`.
unsafe impl<T: Sync> Sync for ColsMut<'_, T> {}

impl<'a, T> ColsMut<'a, T> {
    /// All columns of `data`, `[n, m]` row-major.
    ///
    /// # Panics
    /// If `data` does not hold `n * m` elements.
    pub fn new(data: &'a mut [T], n: usize, m: usize) -> Self {
        assert_eq!(n.checked_mul(m), Some(data.len()), "a [{n}, {m}] buffer of {} elements", data.len());
        Self { base: data.as_mut_ptr(), n, stride: m, cols: 0..m, _borrow: PhantomData }
    }

    /// Number of rows, n.
    pub fn n(&self) -> usize {
        self.n
    }
    /// Number of columns in this view.
    pub fn width(&self) -> usize {
        self.cols.len()
    }
    /// The range of these columns in the whole buffer.
    pub fn cols(&self) -> Range<usize> {
        self.cols.clone()
    }

    /// This view's columns of row `i`.
    ///
    /// # Panics
    /// If `i` is not below [`ColsMut::n`].
    pub fn row_mut(&mut self, i: usize) -> &mut [T] {
        let start = self.start(i);
        // SAFETY: `start` proved `i < n`, and `cols` is within 0..stride, so the range is in the buffer, which is
        // borrowed for 'a. Views of one buffer have disjoint columns or rows, so no other view forms a reference to these
        // elements, and `&mut self` prevents this view from doing so while the result lives.
        unsafe { std::slice::from_raw_parts_mut(self.base.add(start), self.cols.len()) }
    }

    /// This view's columns of row `i`, for reading.
    ///
    /// # Panics
    /// If `i` is not below [`ColsMut::n`].
    pub fn row(&self, i: usize) -> &[T] {
        let start = self.start(i);
        // SAFETY: as in `row_mut`; `&self` prevents this view from forming an exclusive reference while the result
        // lives.
        unsafe { std::slice::from_raw_parts(self.base.add(start), self.cols.len()) }
    }

    /// Reborrows these columns, to lend them to a function that takes a view.
    pub fn reborrow(&mut self) -> ColsMut<'_, T> {
        ColsMut { cols: self.cols.clone(), _borrow: PhantomData, ..*self }
    }

    /// Splits this view into the first `width` columns and the others.
    ///
    /// # Panics
    /// If the view is narrower.
    pub fn split_at(self, width: usize) -> (Self, Self) {
        assert!(width <= self.width(), "{width} of {} columns", self.width());
        let middle = self.cols.start + width;
        let (left, right) = (self.cols.start..middle, middle..self.cols.end);
        // The two column ranges are disjoint parts of this view, which is consumed.
        (Self { cols: left, ..self }, Self { cols: right, ..self })
    }

    /// Rows `range` of these columns, borrowed from this view.
    ///
    /// # Panics
    /// If the range is not within `0..n`.
    pub fn rows_mut(&mut self, range: Range<usize>) -> ColsMut<'_, T> {
        assert!(range.start <= range.end && range.end <= self.n, "rows {range:?} of {}", self.n);
        // Without rows nothing is read, and the offset need not be in the buffer.
        let base = self.base.wrapping_add(range.start * self.stride);
        ColsMut { base, n: range.len(), stride: self.stride, cols: self.cols.clone(), _borrow: PhantomData }
    }

    /// The columns `cols` of rows `rows` of this view, counted from its first.
    ///
    /// # Panics
    /// If they are not in it.
    ///
    /// # Safety
    /// While the result is used, neither this view nor another part of it with one of these columns of one of these rows may be
    /// used.
    pub(crate) unsafe fn part(&self, rows: Range<usize>, cols: Range<usize>) -> ColsMut<'_, T> {
        assert!(cols.start <= cols.end && cols.end <= self.width(), "columns {cols:?} of {}", self.width());
        assert!(rows.start <= rows.end && rows.end <= self.n, "rows {rows:?} of {}", self.n);
        let (first, base) = (self.cols.start, self.base.wrapping_add(rows.start * self.stride));
        ColsMut {
            base,
            n: rows.len(),
            stride: self.stride,
            cols: first + cols.start..first + cols.end,
            _borrow: PhantomData,
        }
    }

    fn start(&self, i: usize) -> usize {
        assert!(i < self.n, "row {i} of {}", self.n);
        i * self.stride + self.cols.start
    }
}

impl<T> std::fmt::Debug for ColsMut<'_, T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "ColsMut(columns {:?} of [{}, {}])", self.cols, self.n, self.stride)
    }
}

/// Splits `data`, `[n, m]` row-major, into a view for each of `bounds`, which are ascending, disjoint column ranges;
/// other columns stay untouched. Nothing is allocated.
///
/// # Panics
/// If `data` does not hold `n * m` elements, or a range exceeds `m`, ends before it begins, or begins before the
/// previous one ends.
pub fn split_cols<'a, 'b, T>(
    data: &'a mut [T],
    n: usize,
    m: usize,
    bounds: &'b [Range<usize>],
) -> SplitCols<'a, 'b, T> {
    SplitCols { rest: ColsMut::new(data, n, m), bounds: bounds.iter() }
}

/// The views of [`split_cols`].
#[derive(Debug)]
pub struct SplitCols<'a, 'b, T> {
    rest: ColsMut<'a, T>,
    bounds: std::slice::Iter<'b, Range<usize>>,
}

impl<'a, T> Iterator for SplitCols<'a, '_, T> {
    type Item = ColsMut<'a, T>;

    fn next(&mut self) -> Option<ColsMut<'a, T>> {
        let Range { start, end } = self.bounds.next()?.clone();
        let rest = &mut self.rest;
        assert!(
            rest.cols.start <= start && start <= end && end <= rest.cols.end,
            "columns {start}..{end} of the remaining columns {:?}",
            rest.cols
        );
        // The returned columns come before the remaining ones, so no later view can overlap them.
        rest.cols.start = end;
        Some(ColsMut { cols: start..end, ..*rest })
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        self.bounds.size_hint()
    }
}

impl<T> ExactSizeIterator for SplitCols<'_, '_, T> {}

#[cfg(test)]
#[expect(clippy::single_range_in_vec_init, reason = "bounds of one view are one range")]
mod tests {
    use std::panic::{AssertUnwindSafe, catch_unwind};

    use super::*;

    #[test]
    fn views_write_their_columns_and_no_others() {
        for n in 0..4 {
            for bounds in [&[0..3, 3..3, 4..7][..], &[0..7], &[2..3], &[]] {
                let mut data = vec![0; n * 7];
                for (v, mut view) in split_cols(&mut data, n, 7, bounds).enumerate() {
                    assert_eq!(view.cols(), bounds[v]);
                    for i in 0..view.n() {
                        view.row_mut(i).fill(v + 1);
                        assert_eq!(view.row(i), vec![v + 1; view.width()]);
                    }
                }
                for (i, &got) in data.iter().enumerate() {
                    let want = bounds.iter().position(|b| b.contains(&(i % 7))).map_or(0, |v| v + 1);
                    assert_eq!(got, want, "element {i} of [{n}, 7] with {bounds:?}");
                }
            }
        }
    }

    #[test]
    fn views_on_several_threads() {
        let mut data = vec![0; 64 * 33];
        let mut views: Vec<_> = split_cols(&mut data, 64, 33, &[0..16, 16..17, 17..33]).collect();
        std::thread::scope(|s| {
            for (v, view) in views.iter_mut().enumerate() {
                s.spawn(move || (0..64).for_each(|i| view.row_mut(i).fill(i * 3 + v)));
            }
        });
        for (i, &got) in data.iter().enumerate() {
            assert_eq!(got, i / 33 * 3 + usize::from(i % 33 >= 16) + usize::from(i % 33 >= 17));
        }
    }

    #[test]
    fn parts_of_views() {
        let mut data = [0; 12];
        let (mut left, right) = ColsMut::new(&mut data, 3, 4).split_at(1);
        let (mut middle, mut last) = right.split_at(3);
        left.rows_mut(1..3).row_mut(0)[0] = 1;
        assert_eq!(left.rows_mut(3..3).n(), 0);
        middle.reborrow().row_mut(2).copy_from_slice(&[5, 6, 7]);
        assert!(last.row_mut(2).is_empty());
        assert_eq!(data, [0, 0, 0, 0, 1, 0, 0, 0, 0, 5, 6, 7]);
    }

    #[test]
    fn what_would_overlap_or_leave_the_buffer_is_refused() {
        fn refused<R>(f: impl FnOnce() -> R) {
            assert!(catch_unwind(AssertUnwindSafe(|| _ = f())).is_err());
        }
        let mut data = [0; 12];
        #[expect(clippy::reversed_empty_ranges, reason = "it is the case under test")]
        for bounds in [&[0..2, 1..3][..], &[2..3, 0..1], &[0..5], &[3..2], &[4..5]] {
            refused(|| split_cols(&mut data, 3, 4, bounds).count());
        }
        refused(|| _ = ColsMut::new(&mut data, 3, 5));
        refused(|| _ = ColsMut::new(&mut data, usize::MAX, 2));
        refused(|| _ = ColsMut::new(&mut data, 3, 4).split_at(5));
        refused(|| _ = ColsMut::new(&mut data, 3, 4).rows_mut(1..4));
        refused(|| ColsMut::new(&mut data, 3, 4).row_mut(3)[0] = 1);
    }
}
