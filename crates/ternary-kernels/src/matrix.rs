//! `TernaryMatrix`: validated trits with their scales, stored in the bytes of their source.

use std::ops::Range;
use std::sync::Arc;

use crate::{FileFormat, KernelError, KernelLayout, Scales, SharedBytes, scales};

/// The set of weights of a matrix, without scales.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Levels {
    /// -1, 0 and +1.
    Three,
    /// -1, 0, +1 and +2: Q2_0 and PQ2_0 have a code for it, and files with such weights exist.
    Four,
}

/// The weights of +2 in a matrix.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Twos {
    /// Row of the first one.
    pub row: usize,
    /// Column of the first one.
    pub col: usize,
    /// Number of weights of +2.
    pub count: usize,
}

/// A ternary matrix `W = scale * T`, where `T` is `[rows, cols]` with entries -1, 0, +1, and +2 if
/// [`TernaryMatrix::levels`] allows it. There is one scale for the matrix, for each row, or for each group of
/// consecutive weights of a row.
///
/// The trits stay in the bytes they were read from (a file mapping, say) until a kernel packs them into its own layout;
/// every constructor has checked that those bytes hold only trits.
#[derive(Clone, Debug)]
pub struct TernaryMatrix {
    rows: usize,
    cols: usize,
    scales: Scales,
    format: FileFormat,
    bytes: SharedBytes,
    /// Rows stored in the bytes; a slice has fewer.
    stored_rows: usize,
    /// Row `r` of this matrix is row `order[r]` of the bytes; `None` is the identity.
    order: Option<Arc<[u32]>>,
    /// Weights of +2.
    twos: Option<Twos>,
    /// The kernel layout of the bytes, if they are not in the file format.
    packed: Option<KernelLayout>,
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

    /// Like [`TernaryMatrix::from_trits`], but `codes` may also be 2. Formats and kernels for trits reject such a
    /// matrix.
    ///
    /// # Errors
    /// The errors of [`TernaryMatrix::from_trits`], for values outside of -1..=2.
    pub fn from_codes(rows: usize, cols: usize, codes: &[i8], scales: Scales) -> Result<Self, KernelError> {
        let trits: Vec<i8> = codes.iter().map(|c| if *c == 2 { 1 } else { *c }).collect();
        let mut matrix = Self::from_trits(rows, cols, &trits, scales)?;
        matrix.bytes = bytemuck::cast_slice(codes).to_vec().into();
        matrix.twos = matrix.find_twos();
        Ok(matrix)
    }

    /// From the bytes of a file format. `scales` are those stored outside of the bytes (`weight_scale` of a safetensors
    /// file, a `.scale` tensor); formats with scales inside the bytes (I2_S, TQ, IQ_BN) multiply by them.
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
        let inside = format.inspect(rows, cols, &bytes)?;
        let scales = combine(format, (rows, cols), inside.scales, scales)?;
        Ok(Self { rows, cols, scales, format, bytes, stored_rows: rows, order: None, twos: inside.twos, packed: None })
    }

    /// From weights that a kernel packed, for example in a file mapping: kernels with this layout use them unchanged.
    /// `format` is the format that they were packed from, and `twos` its weights of +2.
    ///
    /// The bytes are not read, so a mapped file need not be read either. A byte that is not a code of the layout acts
    /// as some weight in every product; [`TernaryMatrix::check_packed`] finds it.
    ///
    /// # Errors
    /// A wrong length ([`KernelError::ShapeMismatch`]), a shape that the layout cannot hold, a scale that is negative or not finite.
    pub fn from_packed(
        format: FileFormat,
        layout: KernelLayout,
        (rows, cols): (usize, usize),
        bytes: SharedBytes,
        scales: Scales,
        twos: Option<Twos>,
    ) -> Result<Self, KernelError> {
        let (expected, got) = (layout.byte_len(rows, cols)?, bytes.len());
        if expected != got {
            let (op, what) = ("TernaryMatrix::from_packed", "packed bytes");
            return Err(KernelError::ShapeMismatch { op, what, expected, got });
        }
        scales.check(format, rows, cols)?;
        let packed = Some(layout);
        Ok(Self { rows, cols, scales, format, bytes, stored_rows: rows, order: None, twos, packed })
    }

    /// The kernel layout of the weights, if they are packed.
    pub fn packed_layout(&self) -> Option<KernelLayout> {
        self.packed
    }

    /// The bytes of packed weights, if they hold this matrix in `layout`.
    pub fn packed_bytes(&self, layout: KernelLayout) -> Option<&SharedBytes> {
        (self.packed == Some(layout) && self.order.is_none()).then_some(&self.bytes)
    }

    /// A hint that the weights were packed and that the bytes they came in will not be read for a while. If the weights
    /// themselves are packed, nothing is released: products read these bytes.
    pub fn release(&self) {
        if self.packed.is_none() {
            self.bytes.release();
        }
    }

    /// Searches weights that were packed elsewhere for invalid codes. It reads all of them.
    ///
    /// # Errors
    /// [`KernelError::InvalidCode`] for the first one.
    pub fn check_packed(&self) -> Result<(), KernelError> {
        let Some(layout) = self.packed else { return Ok(()) };
        layout.check(&self.bytes, (self.stored_rows, self.cols), self.twos.is_some(), self.format)
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
        let scales = self.scales.of_order(order.iter().map(|r| *r as usize));
        let order = Some(order.iter().map(through).collect());
        Ok(Self { scales, order, ..self.clone() }.with_twos_found())
    }

    /// Rows `range` as a matrix that shares the bytes.
    ///
    /// # Errors
    /// [`KernelError::ShapeMismatch`] if the range is not within the matrix.
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
        let scales = scales::slice(&self.scales, range.clone());
        Ok(Self { rows: range.len(), scales, order: Some(order), ..self.clone() }.with_twos_found())
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
    /// The set of weights, without scales.
    pub fn levels(&self) -> Levels {
        if self.twos.is_some() { Levels::Four } else { Levels::Three }
    }
    /// The weights of +2, if there are any.
    pub fn twos(&self) -> Option<Twos> {
        self.twos
    }
    /// The encoding of the bytes that hold the trits; for packed weights, the format that they were packed from.
    pub fn format(&self) -> FileFormat {
        self.format
    }
    /// The bytes in [`TernaryMatrix::format`], if they hold the rows in this matrix's order; `None` for slices,
    /// reordered matrices, and weights that a kernel packed.
    pub fn file_bytes(&self) -> Option<&SharedBytes> {
        (self.order.is_none() && self.packed.is_none()).then_some(&self.bytes)
    }

    /// Rejects matrices that kernels for whole rows of trits cannot multiply: with a scale per group or weights of +2.
    ///
    /// # Errors
    /// [`KernelError::GroupsUnsupported`], [`KernelError::Twos`].
    pub fn expect_plain_rows(&self, kernel: &str) -> Result<(), KernelError> {
        match (&self.scales, self.twos) {
            (Scales::Groups(g), _) => {
                Err(KernelError::GroupsUnsupported { kernel: kernel.to_owned(), group_len: g.group_len() })
            }
            (Scales::Tensor(_) | Scales::Rows(_), Some(twos)) => {
                Err(KernelError::Twos { what: kernel.to_owned(), twos })
            }
            (Scales::Tensor(_) | Scales::Rows(_), None) => Ok(()),
        }
    }

    /// Writes the weights of row `r` without their scales, -1 to +1 (or +2), to `out`, `[cols]` i8.
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
        let Some(layout) = self.packed else {
            return self.format.decode_row(&self.bytes, self.stored_rows, self.cols, stored, out);
        };
        layout.decode_row(&self.bytes, (self.stored_rows, self.cols), stored, out);
        if self.twos.is_none() {
            // A damaged file may hold a code for +2, and kernels of trits are packed from this.
            out.iter_mut().for_each(|t| *t = (*t).min(1));
        }
    }

    /// Writes the weights of row `r`, scale times trit, to `out`, `[cols]` f32; `trits` is a buffer for them, `[cols]`
    /// i8.
    ///
    /// # Panics
    /// Like [`TernaryMatrix::decode_row`].
    pub fn decode_row_f32(&self, r: usize, trits: &mut [i8], out: &mut [f32]) {
        self.decode_row(r, trits);
        assert_eq!(out.len(), self.cols, "decode_row_f32: length of the row");
        let (scales, len) = match &self.scales {
            Scales::Tensor(_) | Scales::Rows(_) => (None, self.cols.max(1)),
            Scales::Groups(g) => (Some(g.row(r)), g.group_len()),
        };
        for (g, (out, trits)) in out.chunks_mut(len).zip(trits.chunks(len)).enumerate() {
            let scale = scales.map_or_else(|| self.scales.at(r, 0), |row| row[g].to_f32());
            out.iter_mut().zip(trits).for_each(|(out, t)| *out = scale * f32::from(*t));
        }
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

    /// Counts twos again in this matrix, some of whose rows may have had them.
    fn with_twos_found(mut self) -> Self {
        if self.twos.is_some() {
            self.twos = self.find_twos();
        }
        self
    }

    fn find_twos(&self) -> Option<Twos> {
        let mut codes = vec![0; self.cols];
        let mut found: Option<Twos> = None;
        for row in 0..self.rows {
            self.decode_row(row, &mut codes);
            if let Some(col) = codes.iter().position(|c| *c == 2) {
                let twos = found.get_or_insert(Twos { row, col, count: 0 });
                twos.count += codes.iter().filter(|c| **c == 2).count();
            }
        }
        found
    }
}

/// Multiplies the scales inside the bytes with the separate ones, and checks the result.
fn combine(
    format: FileFormat,
    (rows, cols): (usize, usize),
    inside: Option<Scales>,
    beside: Option<Scales>,
) -> Result<Scales, KernelError> {
    if let Some(beside) = &beside {
        beside.check(format, rows, cols)?;
    }
    let scales = match (inside, beside) {
        (None, None) => Scales::Tensor(1.0),
        (Some(s), None) | (None, Some(s)) => s,
        (Some(Scales::Tensor(a)), Some(Scales::Tensor(b))) => Scales::Tensor(a * b),
        (Some(Scales::Groups(g)), Some(other @ (Scales::Tensor(_) | Scales::Rows(_))))
        | (Some(other @ (Scales::Tensor(_) | Scales::Rows(_))), Some(Scales::Groups(g))) => {
            Scales::Groups(g.times(format, |r, c| other.at(r, c))?)
        }
        (Some(Scales::Groups(a)), Some(Scales::Groups(b))) if a.group_len() == b.group_len() => {
            Scales::Groups(a.times(format, |r, c| b.at(r, c))?)
        }
        (Some(Scales::Groups(_)), Some(Scales::Groups(b))) => {
            return Err(KernelError::NoGroupScales { format, group_len: b.group_len() });
        }
        (Some(a), Some(b)) => Scales::Rows((0..rows).map(|r| a.at(r, 0) * b.at(r, 0)).collect()),
    };
    scales.check(format, rows, cols)?;
    Ok(scales.simplified())
}
