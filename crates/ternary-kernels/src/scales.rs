//! Scales of ternary weights: one per matrix, per row, or per group of weights in a row.

use std::ops::Range;
use std::sync::Arc;

use crate::{FileFormat, GroupScales, KernelError};

/// Scales of a ternary matrix: the weight is `scale * code`.
#[derive(Clone, Debug, PartialEq)]
pub enum Scales {
    /// One scale for the whole matrix.
    Tensor(f32),
    /// One scale per row, `[rows]` f32 (merged projections, IQ1_BN and IQ2_BN files).
    Rows(Arc<[f32]>),
    /// One scale for each group of consecutive weights of a row (Q2_0, PQ2_0, PTQ1_0, and TQ files that need it).
    Groups(GroupScales),
}

impl Scales {
    /// The scale of the weight at row `r`, column `c`; 0 outside of the matrix.
    pub fn at(&self, r: usize, c: usize) -> f32 {
        match self {
            Scales::Tensor(s) => *s,
            Scales::Rows(s) => s.get(r).copied().unwrap_or(0.0),
            Scales::Groups(g) => g.at(r, c),
        }
    }

    /// `Rows` if all groups of every row agree, `Tensor` if all rows agree: equal matrices have equal scales.
    #[must_use]
    pub fn simplified(self) -> Self {
        match self {
            Scales::Groups(g) => match g.of_rows() {
                Some(rows) => Scales::Rows(rows).simplified(),
                None => Scales::Groups(g),
            },
            Scales::Rows(s) if s.iter().all(|v| v.to_bits() == s[0].to_bits()) && !s.is_empty() => Scales::Tensor(s[0]),
            Scales::Rows(_) | Scales::Tensor(_) => self,
        }
    }

    /// Rejects values that are negative or not finite, and a number of values that does not fit a `[rows, cols]`
    /// matrix.
    pub(crate) fn check(&self, format: FileFormat, rows: usize, cols: usize) -> Result<(), KernelError> {
        let check = |row: usize, value: f32| {
            let valid = value.is_finite() && value >= 0.0;
            if valid { Ok(()) } else { Err(KernelError::InvalidScale { format, row, value }) }
        };
        match self {
            Scales::Tensor(s) => check(0, *s),
            Scales::Rows(s) if s.len() != rows => {
                Err(KernelError::ShapeMismatch { op: "TernaryMatrix", what: "scales", expected: rows, got: s.len() })
            }
            Scales::Rows(s) => s.iter().enumerate().try_for_each(|(r, v)| check(r, *v)),
            // The values were checked when they were created.
            Scales::Groups(g) => {
                let (op, what) = ("TernaryMatrix", "groups of scales");
                let (expected, got) = (cols.div_ceil(g.group_len()), g.groups());
                match () {
                    () if g.rows() != rows => {
                        Err(KernelError::ShapeMismatch { op, what: "rows of scales", expected: rows, got: g.rows() })
                    }
                    () if got != expected => Err(KernelError::ShapeMismatch { op, what, expected, got }),
                    () => Ok(()),
                }
            }
        }
    }

    /// The scales of the rows `order`, row by row; `order` holds indices of rows.
    pub(crate) fn of_order(&self, order: impl Iterator<Item = usize>) -> Self {
        match self {
            Scales::Tensor(s) => Scales::Tensor(*s),
            Scales::Rows(s) => Scales::Rows(order.map(|r| s[r]).collect()),
            Scales::Groups(g) => Scales::Groups(g.of_order(order)),
        }
    }
}

/// Rows `range` of `scales`, for a matrix of these rows.
pub(crate) fn slice(scales: &Scales, range: Range<usize>) -> Scales {
    scales.of_order(range).simplified()
}
