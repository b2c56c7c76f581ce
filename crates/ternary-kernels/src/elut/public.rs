//! The public part of look-up tables: any level set in any grouping, and the two ternary formats.

use std::sync::Arc;

use super::code::Code;
use super::table::Tables;
use super::{PANEL_ROWS, Path, Product, pack};
use crate::i2s::Activations;
use crate::isa::Cpu;
use crate::{
    Int4Matrix, Int4Vector, Int8Batch, Int8Matrix, Int8Vector, Isa, Kernel, KernelError, Packed, PackedRows,
    TernaryMatrix,
};

/// A kernel that looks up sums: weights of a small set of levels, in groups, times int8 activations.
///
/// The registry's `tl1` and `tl2` are `Elut` of -1, 0, +1 in pairs and in triples. Other sets are packed from codes with
/// [`Elut::pack`] and multiplied by the same [`crate::gemv`] and [`crate::gemm`]. A group of `g` weights of `C` levels must
/// have at most 16 combinations, or 32 if the levels are symmetric, and the largest level times `g` must not exceed 15.
///
/// Paper: arXiv 2502.11880, section 3 and appendix.
///
/// ```
/// use ternary_kernels::{Elut, Int8Batch, gemv};
/// // Weights of five levels, two and a half bits each.
/// let kernel = Elut::new(&[-2, -1, 0, 1, 2], 2)?;
/// assert_eq!((kernel.entries(), kernel.is_mirrored(), kernel.bits_per_weight()), (13, true, 2.5));
/// // [2, 3] codes: the index of each weight's level.
/// let w = kernel.pack(2, 3, &[0, 4, 2, 3, 3, 1])?; // -2 2 0, 1 1 -1
/// let x = Int8Batch::from_codes(1, 3, &[10, 20, 30])?;
/// let mut acc = [0; 2];
/// gemv(&kernel, &w, &x.view().row(0), &mut acc)?;
/// assert_eq!(acc, [20, 0]);
/// # Ok::<(), ternary_kernels::KernelError>(())
/// ```
#[derive(Clone, Debug)]
pub struct Elut {
    name: Arc<str>,
    code: Code,
    rounded: bool,
    path: Path,
    /// The code of each trit, if all three trits are levels.
    trits: Option<[u8; 3]>,
}

impl Elut {
    /// Exact products with weights of `levels`, ascending, in groups of `group`, on the instruction set in use.
    ///
    /// # Errors
    /// [`KernelError::LevelSet`] for a set or a grouping that tables cannot represent; the errors of [`Isa::selected`].
    pub fn new(levels: &[i8], group: usize) -> Result<Self, KernelError> {
        Self::for_isa(levels, group, Isa::selected()?)
    }

    /// Like [`Elut::new`] for one instruction set.
    ///
    /// # Errors
    /// [`KernelError::LevelSet`]; [`KernelError::UnavailableIsa`] if this CPU does not have `isa`.
    pub fn for_isa(levels: &[i8], group: usize, isa: Isa) -> Result<Self, KernelError> {
        isa.require()?;
        let path = Path::of(isa, Cpu::get()).unwrap_or(Path::Scalar);
        Self::build(None, levels, group, false, path)
    }

    /// A ternary kernel of the registry.
    pub(crate) fn ternary(name: &str, group: usize, exact: bool, isa: Isa, cpu: &Cpu) -> Option<Self> {
        // This cannot fail: the set is a constant, and the tests of the registry build it.
        Self::build(Some(name), &[-1, 0, 1], group, !exact, Path::of(isa, cpu)?).ok()
    }

    fn build(name: Option<&str>, levels: &[i8], group: usize, rounded: bool, path: Path) -> Result<Self, KernelError> {
        let code = Code::new(levels, group)?;
        let find = |level: i8| code.levels().iter().position(|l| *l == level).map(|c| c as u8);
        let trits = (|| Some([find(-1)?, find(0)?, find(1)?]))();
        let name = match name {
            Some(name) => name.into(),
            None => {
                let levels: Vec<String> = levels.iter().map(i8::to_string).collect();
                format!("elut[{}]x{group}_{}", levels.join(","), path.isa()).into()
            }
        };
        Ok(Self { name, code, rounded, path, trits })
    }

    /// This kernel with table entries rounded to 8 bits: one lookup instead of the two of exact tables. Results are off
    /// by at most [`Kernel::error_bound`].
    #[must_use]
    pub fn rounded(self) -> Self {
        Self { name: format!("{}_0", self.name).into(), rounded: true, ..self }
    }

    /// The levels, ascending: what the codes of [`Elut::pack`] stand for.
    pub fn levels(&self) -> &[i8] {
        self.code.levels()
    }
    /// Weights of a group.
    pub fn group(&self) -> usize {
        self.code.mirrored.unwrap_or(self.code.plain).len
    }
    /// Entries of a table.
    pub fn entries(&self) -> usize {
        self.code.mirrored.unwrap_or(self.code.plain).entries
    }
    /// Whether opposite combinations share an entry, distinguished by a sign.
    pub fn is_mirrored(&self) -> bool {
        self.code.mirrored.is_some()
    }
    /// Bits per weight in a long row.
    pub fn bits_per_weight(&self) -> f64 {
        let bits = if self.is_mirrored() { 5.0 } else { 4.0 };
        bits / self.group() as f64
    }
    /// Bytes that the tables of one token of `k` activations would fill if all were kept.
    pub fn table_bytes(&self, k: usize) -> usize {
        let chunk = if self.rounded { size_of::<Tables<1>>() } else { size_of::<Tables<2>>() };
        self.code.sections(k).iter().flatten().map(|s| s.chunks * chunk).sum()
    }

    /// Packs a matrix: `codes` is `[rows, cols]` row-major, each the index of a level.
    ///
    /// # Errors
    /// A wrong length, [`KernelError::UnknownLevel`] for a code without a level, a size that overflows.
    pub fn pack(&self, rows: usize, cols: usize, codes: &[u8]) -> Result<Packed, KernelError> {
        let op = "Elut::pack";
        let expected = rows.checked_mul(cols).ok_or(KernelError::TooLarge { op, rows, cols })?;
        if codes.len() != expected {
            return Err(KernelError::ShapeMismatch { op, what: "codes", expected, got: codes.len() });
        }
        let levels = self.levels().len();
        if let Some(i) = codes.iter().position(|c| usize::from(*c) >= levels) {
            return Err(KernelError::UnknownLevel { row: i / cols, col: i % cols, code: codes[i], levels });
        }
        pack::pack(&self.name, &self.code, (rows, cols), |r, out| {
            out.copy_from_slice(&codes[r * cols..(r + 1) * cols]);
        })
    }

    fn product(&self, w: &PackedRows<'_>, x: Activations<'_>, acc: &mut [i32]) {
        if let Some(product) = Product::new(&self.code, self.rounded, w, x, acc) {
            self.path.run(&product, acc);
        }
    }
}

impl Kernel for Elut {
    fn name(&self) -> &str {
        &self.name
    }
    fn panel_rows(&self) -> usize {
        PANEL_ROWS
    }
    fn least_rows(&self, _n: usize) -> usize {
        // Every call builds the tables again, so a thread's rows are one piece.
        usize::MAX
    }
    fn exact(&self) -> bool {
        !self.rounded
    }
    fn error_bound(&self, x: &Int8Vector<'_>) -> i32 {
        match self.rounded {
            true => self.code.error_bound(&x.codes()[..x.k()]),
            false => 0,
        }
    }

    /// # Errors
    /// [`KernelError::LevelSet`] if -1, 0 or +1 is not a level; see [`Kernel::prepack`].
    fn prepack(&self, w: &TernaryMatrix) -> Result<Packed, KernelError> {
        let Some(trits) = self.trits else {
            return Err(KernelError::LevelSet {
                levels: self.levels().to_vec(),
                group: self.group(),
                reason: "ternary weights need the levels -1, 0 and 1",
            });
        };
        w.expect_plain_rows(&self.name)?;
        // A buffer for one row of trits, for the decoder.
        let row = std::cell::RefCell::new(vec![0i8; w.cols()]);
        pack::pack(&self.name, &self.code, (w.rows(), w.cols()), |r, out| {
            let mut row = row.borrow_mut();
            w.decode_row(r, &mut row);
            out.iter_mut().zip(row.iter()).for_each(|(code, t)| *code = trits[(t + 1) as usize]);
        })
    }

    fn gemv(&self, w: &PackedRows<'_>, x: &Int8Vector<'_>, acc: &mut [i32]) {
        self.product(w, (&x.as_matrix(&[x.sum()])).into(), acc);
    }
    fn gemm(&self, w: &PackedRows<'_>, x: &Int8Matrix<'_>, acc: &mut [i32]) {
        self.product(w, x.into(), acc);
    }

    /// Exact even if tables of int8 activations are rounded: sums of int4 activations fit a byte, so an index is looked
    /// up once.
    fn gemv_a4(&self, w: &PackedRows<'_>, x: &Int4Vector<'_>, _: &mut Int8Batch, acc: &mut [i32]) {
        self.product(w, (&x.as_matrix(&[x.sum()])).into(), acc);
    }
    /// Like [`Kernel::gemv_a4`].
    fn gemm_a4(&self, w: &PackedRows<'_>, x: &Int4Matrix<'_>, _: &mut Int8Batch, acc: &mut [i32]) {
        self.product(w, x.into(), acc);
    }
}
