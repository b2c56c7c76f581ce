//! Scales of groups of weights within a row, as several file formats store them.

use std::sync::Arc;

use half::f16;

use crate::{FileFormat, KernelError, Scales};

/// One scale for each `group_len` consecutive weights of a row: `[rows, groups]` f16 row-major, as files store them; the last group
/// of a row may be shorter, `groups = ceil(cols / group_len)`.
///
/// Invariants: every scale is finite and at least 0.
///
/// ```
/// use half::f16;
/// use ternary_kernels::GroupScales;
/// let values = [0.5, 0.25, 1.0, 0.0].map(f16::from_f32);
/// let scales = GroupScales::new(64, 2, 100, values.into()).unwrap();
/// assert_eq!(scales.row(1), [f16::ONE, f16::ZERO]);
/// ```
#[derive(Clone, Debug, PartialEq)]
pub struct GroupScales {
    group_len: usize,
    groups: usize,
    rows: usize,
    values: Arc<[f16]>,
}

impl GroupScales {
    /// Scales of a `[rows, cols]` matrix.
    ///
    /// # Errors
    /// [`KernelError::ShapeMismatch`] if `group_len` is 0 or there are not `rows * ceil(cols / group_len)` values;
    /// [`KernelError::InvalidGroupScale`] for a scale that is negative, infinite or NaN.
    pub fn new(group_len: usize, rows: usize, cols: usize, values: Arc<[f16]>) -> Result<Self, KernelError> {
        const OP: &str = "GroupScales::new";
        if group_len == 0 {
            return Err(KernelError::ShapeMismatch {
                op: OP,
                what: "weights per group, at least",
                expected: 1,
                got: 0,
            });
        }
        let groups = cols.div_ceil(group_len);
        let expected = rows.checked_mul(groups).ok_or(KernelError::TooLarge { op: OP, rows, cols })?;
        if values.len() != expected {
            return Err(KernelError::ShapeMismatch { op: OP, what: "scales", expected, got: values.len() });
        }
        // -0 compares equal to 0, and is equally harmless.
        let valid = |d: &f16| d.is_finite() && *d >= f16::ZERO;
        if let Some(i) = values.iter().position(|d| !valid(d)) {
            let (row, group, value) = (i / groups, i % groups, values[i].to_f32());
            return Err(KernelError::InvalidGroupScale { row, group, value });
        }
        Ok(Self { group_len, groups, rows, values })
    }

    /// Weights of a group.
    pub fn group_len(&self) -> usize {
        self.group_len
    }
    /// Groups of a row.
    pub fn groups(&self) -> usize {
        self.groups
    }
    /// Rows (output features, M).
    pub fn rows(&self) -> usize {
        self.rows
    }
    /// Scales of row `r`, `[groups]` f16.
    ///
    /// # Panics
    /// If `r` is not below [`GroupScales::rows`].
    pub fn row(&self, r: usize) -> &[f16] {
        assert!(r < self.rows, "row {r} of {}", self.rows);
        &self.values[r * self.groups..(r + 1) * self.groups]
    }
    /// All scales, `[rows, groups]` row-major.
    pub fn values(&self) -> &[f16] {
        &self.values
    }
    /// The scale of the weight at row `r`, column `c`; 0 outside of the matrix.
    pub fn at(&self, r: usize, c: usize) -> f32 {
        match c / self.group_len {
            g if r < self.rows && g < self.groups => self.values[r * self.groups + g].to_f32(),
            _ => 0.0,
        }
    }

    /// The same scales in the longest groups of at most `most` weights that can represent them: neighbours become one
    /// group if they agree in every row. Weights from files with groups of different lengths become equal then, to the
    /// last bit of a product.
    ///
    /// ```
    /// use half::f16;
    /// use ternary_kernels::GroupScales;
    /// let scales = |len, values: &[f32]| {
    ///     let values: Vec<f16> = values.iter().map(|v| f16::from_f32(*v)).collect();
    ///     GroupScales::new(len, 1, 320, values.into()).unwrap()
    /// };
    /// let pairs = scales(64, &[0.5, 0.5, 0.25, 0.25, 1.0]);
    /// assert_eq!(pairs.merged(256), scales(128, &[0.5, 0.25, 1.0]));
    /// assert_eq!(scales(64, &[0.5, 0.25, 0.25, 1.0, 1.0]).merged(256).group_len(), 64);
    /// ```
    #[must_use]
    pub fn merged(&self, most: usize) -> Self {
        let mut scales = self.clone();
        let agree = |pair: &[f16]| pair.iter().all(|d| *d == pair[0]);
        while scales.groups > 1
            && scales.group_len.saturating_mul(2) <= most
            && (0..scales.rows).all(|r| scales.row(r).chunks(2).all(agree))
        {
            let values = (0..scales.rows).flat_map(|r| scales.row(r).iter().copied().step_by(2)).collect();
            scales = Self { group_len: 2 * scales.group_len, groups: scales.groups.div_ceil(2), values, ..scales };
        }
        scales
    }

    /// The same scales in groups of `group_len` weights, for a matrix of `cols` columns: each is repeated for every
    /// part of its group. `None` if `group_len` does not divide the length of the groups.
    ///
    /// ```
    /// use half::f16;
    /// use ternary_kernels::GroupScales;
    /// let scales = |len, values: &[f32]| {
    ///     let values: Vec<f16> = values.iter().map(|v| f16::from_f32(*v)).collect();
    ///     GroupScales::new(len, 1, 180, values.into()).unwrap()
    /// };
    /// assert_eq!(scales(128, &[0.5, 0.25]).cut(64, 180).unwrap(), scales(64, &[0.5, 0.5, 0.25]));
    /// assert!(scales(128, &[0.5, 0.25]).cut(96, 180).is_none());
    /// ```
    #[must_use]
    pub fn cut(&self, group_len: usize, cols: usize) -> Option<Self> {
        if group_len == 0 || !self.group_len.is_multiple_of(group_len) || cols.div_ceil(self.group_len) != self.groups {
            return None;
        }
        let (groups, parts) = (cols.div_ceil(group_len), self.group_len / group_len);
        let values = (0..self.rows).flat_map(|r| (0..groups).map(move |g| self.row(r)[g / parts])).collect();
        Some(Self { group_len, groups, rows: self.rows, values })
    }

    /// The scale of each row, if all groups of every row agree.
    pub(crate) fn of_rows(&self) -> Option<Arc<[f32]>> {
        if self.groups == 0 {
            return None;
        }
        let one = |row: &[f16]| row.iter().all(|d| d.to_bits() == row[0].to_bits()).then(|| row[0].to_f32());
        self.values.chunks_exact(self.groups).map(one).collect()
    }

    /// The scales of the rows `order`, each an index of a row.
    pub(crate) fn of_order(&self, order: impl Iterator<Item = usize>) -> Self {
        let mut rows = 0;
        let mut values = Vec::with_capacity(self.values.len());
        for r in order {
            values.extend_from_slice(self.row(r));
            rows += 1;
        }
        Self { rows, values: values.into(), ..*self }
    }

    /// Each scale times the `factor` for its row and first column.
    ///
    /// # Errors
    /// [`KernelError::InexactScale`] for a product that f16 cannot hold; [`KernelError::InvalidGroupScale`] for a
    /// factor that is not a valid scale.
    pub(crate) fn times(&self, format: FileFormat, factor: impl Fn(usize, usize) -> f32) -> Result<Self, KernelError> {
        let product = |(i, d): (usize, &f16)| {
            let (row, group) = (i / self.groups, i % self.groups);
            let value = d.to_f32() * factor(row, group * self.group_len);
            let stored = f16::from_f32(value);
            match stored.is_finite() && stored.to_f32() == value {
                true => Ok(stored),
                false => Err(KernelError::InexactScale { format, stored_as: "f16", row, value }),
            }
        };
        let values = self.values.iter().enumerate().map(product).collect::<Result<Arc<[f16]>, _>>()?;
        Self::new(self.group_len, self.rows, self.groups * self.group_len, values)
    }
}

impl From<GroupScales> for Scales {
    fn from(scales: GroupScales) -> Self {
        Scales::Groups(scales)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_scale_is_refused_with_its_place() {
        let new = |v: &[f32]| GroupScales::new(64, 2, 65, v.iter().map(|&v| f16::from_f32(v)).collect());
        assert_eq!(new(&[1.0, 2.0, 6e-8, 65504.0]).unwrap().row(1)[1], f16::MAX);
        assert!(new(&[0.0, -0.0, 0.0, 0.0]).is_ok());
        for bad in [-1.0, f32::INFINITY, f32::NAN] {
            let error = new(&[1.0, 1.0, 1.0, bad]).unwrap_err();
            assert!(matches!(error, KernelError::InvalidGroupScale { row: 1, group: 1, .. }), "{error}");
        }
        assert!(matches!(new(&[1.0; 3]), Err(KernelError::ShapeMismatch { expected: 4, got: 3, .. })));
        assert!(GroupScales::new(0, 0, 0, Arc::new([])).is_err());
        assert!(matches!(GroupScales::new(1, usize::MAX, 2, Arc::new([])), Err(KernelError::TooLarge { .. })));
        assert!(GroupScales::new(64, 3, 0, Arc::new([])).unwrap().row(2).is_empty());
    }
}
