//! Int8 activations with a scale for each group of a row, for weights with a scale for each group of the same length.

use super::ROW_ALIGN;
use super::int8::{Int8Batch, Int8Matrix, Int8RowMut, Int8RowsMut};
use crate::KernelError;

/// `n` tokens of `k` int8 activations, and the step of a code for each group of `group_len` of a token.
#[derive(Clone, Copy, Debug)]
pub struct Int8GroupMatrix<'a> {
    codes: Int8Matrix<'a>,
    steps: &'a [f32],
    group_len: usize,
}

impl<'a> Int8GroupMatrix<'a> {
    /// Number of tokens (rows), N.
    pub fn n(&self) -> usize {
        self.codes.n()
    }
    /// Activations per token, K.
    pub fn k(&self) -> usize {
        self.codes.k()
    }
    /// Activations of a group; the last group of a row may be shorter.
    pub fn group_len(&self) -> usize {
        self.group_len
    }
    /// All codes, without the steps.
    pub fn codes(&self) -> Int8Matrix<'a> {
        self.codes
    }
    /// Steps of row `t`, `[ceil(k / group_len)]` f32: `x` is about `code * step`.
    ///
    /// # Panics
    /// If `t` is not below [`Int8GroupMatrix::n`].
    pub fn steps(&self, t: usize) -> &'a [f32] {
        let groups = self.k().div_ceil(self.group_len);
        &self.steps[t * groups..(t + 1) * groups]
    }
    /// Rows `range` as a matrix of their own.
    ///
    /// # Panics
    /// If the range lies outside of `0..n`.
    pub fn rows(&self, range: std::ops::Range<usize>) -> Self {
        let groups = self.k().div_ceil(self.group_len);
        Self {
            codes: self.codes.rows(range.clone()),
            steps: &self.steps[range.start * groups..range.end * groups],
            ..*self
        }
    }
}

/// A buffer that owns up to `max_n` rows of up to `max_k` int8 activations in groups; it is filled row by row by a
/// quantiser ([`Ops::quantize_int8_groups`](crate::Ops::quantize_int8_groups)) and lent to kernels as
/// [`Int8GroupMatrix`]. Nothing is allocated after construction.
#[derive(Clone, Debug)]
pub struct Int8GroupBatch {
    codes: Int8Batch,
    steps: Vec<f32>,
    group_len: usize,
    groups: usize,
}

impl Int8GroupBatch {
    /// Room for `max_n` rows of `max_k` activations in groups of `group_len`.
    ///
    /// # Panics
    /// If `group_len` is not a multiple of 64.
    pub fn with_capacity(max_n: usize, max_k: usize, group_len: usize) -> Self {
        assert!(group_len > 0 && group_len.is_multiple_of(ROW_ALIGN), "groups of {group_len} activations");
        let steps = vec![0.0; max_n * max_k.div_ceil(group_len)];
        Self { codes: Int8Batch::with_capacity(max_n, max_k), steps, group_len, groups: 0 }
    }

    /// Copies codes and steps unchanged: `codes` is `[n, k]`, `steps` is `[n, ceil(k / group_len)]`, row-major.
    ///
    /// # Errors
    /// [`KernelError::GroupLength`] if `group_len` is not a multiple of 64; [`KernelError::ShapeMismatch`] for a wrong
    /// length; [`KernelError::ActivationOutOfRange`] if a code is -128.
    pub fn from_codes(n: usize, k: usize, group_len: usize, codes: &[i8], steps: &[f32]) -> Result<Self, KernelError> {
        const OP: &str = "Int8GroupBatch::from_codes";
        if group_len == 0 || !group_len.is_multiple_of(ROW_ALIGN) {
            return Err(KernelError::GroupLength { op: OP, group_len });
        }
        let groups = k.div_ceil(group_len);
        let expected = n.checked_mul(groups).ok_or(KernelError::TooLarge { op: OP, rows: n, cols: k })?;
        if steps.len() != expected {
            return Err(KernelError::ShapeMismatch { op: OP, what: "n * groups steps", expected, got: steps.len() });
        }
        Ok(Self { codes: Int8Batch::from_codes(n, k, codes)?, steps: steps.to_vec(), group_len, groups })
    }

    /// Makes room for `n` rows of `k` activations; their contents are undefined until written.
    ///
    /// # Panics
    /// If the rows exceed the capacity.
    pub fn reset(&mut self, n: usize, k: usize) {
        self.codes.reset(n, k);
        self.groups = k.div_ceil(self.group_len);
        assert!(n * self.groups <= self.steps.len(), "Int8GroupBatch: {n} x {k} exceeds the capacity");
    }

    /// The rows in chunks of `rows` (the last may be shorter), so that several threads can write them.
    pub fn chunks_mut(&mut self, rows: usize) -> impl ExactSizeIterator<Item = Int8GroupRowsMut<'_>> {
        let (group_len, groups, rows) = (self.group_len, self.groups, rows.max(1));
        let steps = self.steps[..self.codes.view().n() * groups].chunks_mut((rows * groups).max(1));
        self.codes.chunks_mut(rows).zip(steps).map(move |(rows, steps)| Int8GroupRowsMut {
            rows,
            steps,
            group_len,
            groups,
        })
    }

    /// Row `t`, for writing.
    ///
    /// # Panics
    /// If `t` is not below the number of rows.
    pub fn row_mut(&mut self, t: usize) -> Int8GroupRowMut<'_> {
        let steps = &mut self.steps[t * self.groups..(t + 1) * self.groups];
        Int8GroupRowMut { row: self.codes.row_mut(t), steps, group_len: self.group_len }
    }

    /// A view of the rows, for kernels.
    pub fn view(&self) -> Int8GroupMatrix<'_> {
        let codes = self.codes.view();
        Int8GroupMatrix { codes, steps: &self.steps[..codes.n() * self.groups], group_len: self.group_len }
    }
}

/// Consecutive rows of an [`Int8GroupBatch`] that are being written.
#[derive(Debug)]
pub struct Int8GroupRowsMut<'a> {
    rows: Int8RowsMut<'a>,
    steps: &'a mut [f32],
    group_len: usize,
    groups: usize,
}

impl Int8GroupRowsMut<'_> {
    /// The rows; each must be finished with [`Int8GroupRowMut::finish`].
    pub fn rows_mut(&mut self) -> impl ExactSizeIterator<Item = Int8GroupRowMut<'_>> {
        let (group_len, groups) = (self.group_len, self.groups);
        let steps = self.steps.chunks_exact_mut(groups.max(1));
        self.rows.rows_mut().zip(steps).map(move |(row, steps)| Int8GroupRowMut { row, steps, group_len })
    }
}

/// One row of an [`Int8GroupBatch`] that is being written.
#[derive(Debug)]
pub struct Int8GroupRowMut<'a> {
    row: Int8RowMut<'a>,
    steps: &'a mut [f32],
    group_len: usize,
}

impl Int8GroupRowMut<'_> {
    /// Activations of a group.
    pub fn group_len(&self) -> usize {
        self.group_len
    }

    /// The `k` codes, each of which must lie in -127..=127, and the step of each group, for writing.
    pub fn parts_mut(&mut self) -> (&mut [i8], &mut [f32]) {
        (self.row.codes_mut(), self.steps)
    }

    /// Completes the row with the sum of its codes: zeroes the padding.
    pub fn finish(self, sum: i32) {
        // The row as a whole has no scale; its groups have steps.
        self.row.finish(1.0, sum);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_keep_their_codes_and_steps() {
        let mut batch = Int8GroupBatch::with_capacity(5, 200, 128);
        batch.reset(5, 130);
        let mut seen = 0i8;
        for mut rows in batch.chunks_mut(2) {
            for mut row in rows.rows_mut() {
                assert_eq!(row.group_len(), 128);
                let (codes, steps) = row.parts_mut();
                codes.fill(seen);
                steps.copy_from_slice(&[f32::from(seen), 0.5]);
                row.finish(130 * i32::from(seen));
                seen += 1;
            }
        }
        assert_eq!(seen, 5);
        let view = batch.view();
        assert_eq!((view.n(), view.k(), view.group_len()), (5, 130, 128));
        assert_eq!(view.steps(3), [3.0, 0.5]);
        assert_eq!(view.codes().row(4).codes()[..130], [4; 130]);
        assert_eq!(batch.row_mut(2).parts_mut().1, [2.0, 0.5]);
    }

    #[test]
    fn lengths_that_do_not_fit_are_refused() {
        let new = |group_len, codes: &[i8], steps: &[f32]| Int8GroupBatch::from_codes(1, 65, group_len, codes, steps);
        assert!(new(64, &[1; 65], &[1.0, 2.0]).is_ok());
        assert!(matches!(new(0, &[1; 65], &[]), Err(KernelError::GroupLength { group_len: 0, .. })));
        assert!(matches!(new(65, &[1; 65], &[1.0]), Err(KernelError::GroupLength { group_len: 65, .. })));
        assert!(matches!(new(64, &[1; 65], &[1.0]), Err(KernelError::ShapeMismatch { expected: 2, got: 1, .. })));
        assert!(new(64, &[1; 64], &[1.0, 2.0]).is_err());
        assert!(matches!(new(64, &[-128; 65], &[1.0, 2.0]), Err(KernelError::ActivationOutOfRange { .. })));
    }
}
