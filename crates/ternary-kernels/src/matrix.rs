//! `TernaryMatrix`: validated trits with their scales, in whatever bytes they came.

use std::ops::Range;
use std::sync::Arc;

use crate::{FileFormat, KernelError, SharedBytes};

/// Scales of a ternary matrix: the weight is `scale * trit`.
#[derive(Clone, Debug, PartialEq)]
pub enum Scales {
    /// One scale for the whole matrix.
    Tensor(f32),
    /// One scale per row, `[rows]` f32 (merged projections, IQ1_BN and IQ2_BN files).
    Rows(Arc<[f32]>),
}

impl Scales {
    /// The scale of row `r`; 0 where `r` is out of range.
    pub fn of_row(&self, r: usize) -> f32 {
        match self {
            Scales::Tensor(s) => *s,
            Scales::Rows(s) => s.get(r).copied().unwrap_or(0.0),
        }
    }

    /// `Tensor` where all rows agree, so that equal matrices have equal scales.
    #[must_use]
    pub fn simplified(self) -> Self {
        match &self {
            Scales::Rows(s) if s.iter().all(|v| v.to_bits() == s[0].to_bits()) && !s.is_empty() => Scales::Tensor(s[0]),
            _ => self,
        }
    }
}

/// A ternary matrix `W = scale * T`, `T` is `[rows, cols]` with entries -1, 0, +1.
///
/// The trits stay in the bytes they were read from (a file mapping, say) until a kernel packs them into its own
/// layout; every constructor has checked that those bytes hold trits and nothing else.
#[derive(Clone, Debug)]
pub struct TernaryMatrix {
    rows: usize,
    cols: usize,
    scales: Scales,
    format: FileFormat,
    bytes: SharedBytes,
    /// Rows that the bytes hold; a slice has fewer.
    stored_rows: usize,
    /// Row `r` of this matrix is row `order[r]` of the bytes; `None` is the identity.
    order: Option<Arc<[u32]>>,
}

impl TernaryMatrix {
    /// From trits `[rows, cols]` row-major.
    ///
    /// # Errors
    /// A wrong length, a value outside of -1..=1, a scale that is negative or not finite, a size that overflows.
    ///
    /// ```
    /// use ternary_kernels::{TernaryMatrix, Scales};
    /// let w = TernaryMatrix::from_trits(2, 3, &[1, 0, -1, 0, 1, 1], Scales::Tensor(0.5)).unwrap();
    /// let mut row = [0i8; 3];
    /// w.decode_row(1, &mut row);
    /// assert_eq!(row, [0, 1, 1]);
    /// ```
    pub fn from_trits(rows: usize, cols: usize, trits: &[i8], scales: Scales) -> Result<Self, KernelError> {
        let bytes: &[u8] = bytemuck::cast_slice(trits);
        Self::from_bytes(FileFormat::Trits, rows, cols, bytes.to_vec().into(), Some(scales))
    }

    /// From the bytes of a file format. `scales` are those stored outside of the bytes (`weight_scale` of a
    /// safetensors file, a `.scale` tensor); formats that carry their scale inside (I2_S, TQ, IQ_BN) multiply by it.
    ///
    /// # Errors
    /// A wrong length, an invalid code, a scale that is negative or not finite, a shape that the format cannot hold.
    pub fn from_bytes(
        format: FileFormat,
        rows: usize,
        cols: usize,
        bytes: SharedBytes,
        scales: Option<Scales>,
    ) -> Result<Self, KernelError> {
        let inside = format.validate(rows, cols, &bytes)?;
        let scales = combine(format, rows, inside, scales)?;
        Ok(Self { rows, cols, scales, format, bytes, stored_rows: rows, order: None })
    }

    /// The same matrix with its rows in another order: row `r` of the result is row `order[r]` of `self`.
    ///
    /// # Errors
    /// [`KernelError::ShapeMismatch`] unless `order` names every row below `rows` exactly once.
    pub fn with_row_order(&self, order: &[u32]) -> Result<Self, KernelError> {
        const OP: &str = "TernaryMatrix::with_row_order";
        let mut seen = vec![false; self.rows];
        if order.len() != self.rows {
            return Err(KernelError::ShapeMismatch { op: OP, what: "rows", expected: self.rows, got: order.len() });
        }
        for &r in order {
            match seen.get_mut(r as usize) {
                Some(s) if !*s => *s = true,
                _ => {
                    return Err(KernelError::ShapeMismatch {
                        op: OP,
                        what: "a permutation of rows",
                        expected: self.rows,
                        got: r as usize,
                    });
                }
            }
        }
        let through = |r: &u32| self.order.as_ref().map_or(*r, |o| o[*r as usize]);
        let scales = match &self.scales {
            Scales::Tensor(s) => Scales::Tensor(*s),
            Scales::Rows(s) => Scales::Rows(order.iter().map(|&r| s[r as usize]).collect()),
        };
        Ok(Self { scales, order: Some(order.iter().map(through).collect()), ..self.clone() })
    }

    /// Rows `range` as a matrix of their own, sharing the bytes.
    ///
    /// # Errors
    /// [`KernelError::ShapeMismatch`] if the range lies outside of the matrix.
    pub fn slice_rows(&self, range: Range<usize>) -> Result<Self, KernelError> {
        if range.start > range.end || range.end > self.rows {
            return Err(KernelError::ShapeMismatch {
                op: "TernaryMatrix::slice_rows",
                what: "rows",
                expected: self.rows,
                got: range.end,
            });
        }
        let at = |r: usize| self.order.as_ref().map_or(r as u32, |o| o[r]);
        let order = range.clone().map(at).collect();
        let scales = match &self.scales {
            Scales::Tensor(s) => Scales::Tensor(*s),
            Scales::Rows(s) => Scales::Rows(s[range.clone()].into()).simplified(),
        };
        Ok(Self { rows: range.len(), scales, order: Some(order), ..self.clone() })
    }

    /// Output features, M.
    pub fn rows(&self) -> usize {
        self.rows
    }
    /// Input features, K.
    pub fn cols(&self) -> usize {
        self.cols
    }
    /// The scales.
    pub fn scales(&self) -> &Scales {
        &self.scales
    }
    /// The encoding of the bytes that hold the trits.
    pub fn format(&self) -> FileFormat {
        self.format
    }
    /// The bytes in [`TernaryMatrix::format`], where they hold the rows in this matrix's order; `None` for slices and reordered matrices.
    pub fn file_bytes(&self) -> Option<&SharedBytes> {
        self.order.is_none().then_some(&self.bytes)
    }

    /// Writes the trits of row `r` to `out`, `[cols]` i8.
    ///
    /// # Panics
    /// If `r` is not below [`TernaryMatrix::rows`] or `out` is not `cols` long.
    pub fn decode_row(&self, r: usize, out: &mut [i8]) {
        assert!(
            r < self.rows && out.len() == self.cols,
            "decode_row: row {r} of {}, buffer of {}",
            self.rows,
            out.len()
        );
        let stored = self.order.as_ref().map_or(r, |o| o[r] as usize);
        self.format.decode_row(&self.bytes, self.stored_rows, self.cols, stored, out);
    }

    /// All trits, `[rows, cols]` i8 row-major.
    pub fn to_trits(&self) -> Vec<i8> {
        let mut all = vec![0; self.rows * self.cols];
        if self.cols > 0 {
            for (r, row) in all.chunks_exact_mut(self.cols).enumerate() {
                self.decode_row(r, row);
            }
        }
        all
    }
}

/// Multiplies the scales inside the bytes with those beside them, and checks the result.
fn combine(
    format: FileFormat,
    rows: usize,
    inside: Option<Scales>,
    beside: Option<Scales>,
) -> Result<Scales, KernelError> {
    let scales = match (inside, beside) {
        (None, None) => Scales::Tensor(1.0),
        (Some(s), None) | (None, Some(s)) => s,
        (Some(Scales::Tensor(a)), Some(Scales::Tensor(b))) => Scales::Tensor(a * b),
        (Some(a), Some(b)) => Scales::Rows((0..rows).map(|r| a.of_row(r) * b.of_row(r)).collect()),
    };
    let check = |row: usize, value: f32| {
        if value.is_finite() && value >= 0.0 { Ok(()) } else { Err(KernelError::InvalidScale { format, row, value }) }
    };
    match &scales {
        Scales::Tensor(s) => check(0, *s)?,
        Scales::Rows(s) => {
            if s.len() != rows {
                return Err(KernelError::ShapeMismatch {
                    op: "TernaryMatrix",
                    what: "scales",
                    expected: rows,
                    got: s.len(),
                });
            }
            s.iter().enumerate().try_for_each(|(r, v)| check(r, *v))?;
        }
    }
    Ok(scales.simplified())
}
