//! The public kernel trait: the interface of a matrix-product kernel, and the packed weights that it reads.
//!
//! A kernel outside this crate implements [`Kernel`], and every model built on this crate can use it.

use std::ops::Range;
use std::sync::Arc;

use crate::i2s::even_parts;
use crate::{
    AlignedBuf, Int4Matrix, Int4Vector, Int8Batch, Int8Matrix, Int8Vector, KernelError, SharedBytes, TernaryMatrix,
};

/// A matrix-product kernel: ternary weights times int8 activations, exact in i32.
///
/// With `T` the `[m, k]` trits and `q` the activations, `gemv` computes `acc[r] = sum_k T[r, k] * q[k]`, and `gemm`
/// computes it for each token. Kernels do not apply scales: the caller multiplies `acc` by the weight's scale and
/// divides by the activation's.
///
/// `gemv_a4` and `gemm_a4` are the same products for int4 activations; a kernel without a faster way need not define
/// them.
///
/// A kernel whose [`Kernel::exact`] is true must give the same integers as the definition, for every shape and every
/// activation in -127..=127. Kernels are shared between threads and never allocate in `gemv` and `gemm`.
pub trait Kernel: Send + Sync + std::fmt::Debug {
    /// The kernel's name, which contains format and instruction set: `i2s_avx512vnni`.
    fn name(&self) -> &str;

    /// Row ranges passed to the kernel begin at multiples of this, the height of one panel of packed rows.
    fn panel_rows(&self) -> usize;

    /// Whether results equal the reference bit for bit. A kernel that rounds its tables returns `false`, and
    /// [`Kernel::error_bound`] bounds the difference.
    fn exact(&self) -> bool {
        true
    }

    /// The largest difference of a result of this token (`x` is `[k]` int8) from the definition; 0 for an exact kernel.
    fn error_bound(&self, x: &Int8Vector<'_>) -> i32 {
        let _ = x;
        0
    }

    /// Rows that one call should have at least for `n` tokens, if there are enough, so that the work per call, for
    /// example copying the activations, hardly counts. Threads share a product in pieces of at least this many rows, or
    /// in one piece for each thread.
    fn least_rows(&self, n: usize) -> usize {
        if n == 1 { 32 } else { 128 }
    }

    /// Rows that one call should have at most in a long product, whole panels: [`row_block`] rows, whose i32 sums for a
    /// block of tokens stay in L2, or more where larger calls save work.
    fn block_rows(&self) -> usize {
        row_block(self.panel_rows())
    }

    /// Tokens that one call should have at most: all of them, or fewer where a call does not gain from more. Threads share a
    /// product in blocks of so many tokens, too.
    fn block_tokens(&self) -> usize {
        usize::MAX
    }

    /// Converts weights to the kernel's layout; packing pads rows and columns.
    ///
    /// # Errors
    /// A size that overflows; other reasons of the kernel to reject the weights.
    fn prepack(&self, w: &TernaryMatrix) -> Result<Packed, KernelError>;

    /// `acc[r] = sum_k T[r, k] * x[k]` for the rows of `w`; `x` is `[k]` int8, `acc` is `[rows]` i32.
    ///
    /// # Panics
    /// May panic if `w` was not packed by this kernel, `x.k()` differs from its columns or `acc` from its rows;
    /// [`crate::gemv`] checks all three and returns an error instead.
    fn gemv(&self, w: &PackedRows<'_>, x: &Int8Vector<'_>, acc: &mut [i32]);

    /// `acc[t * rows + r] = sum_k T[r, k] * x[t, k]`; `x` is `[n, k]` int8, `acc` is `[n, rows]` i32 row-major.
    ///
    /// # Panics
    /// Like [`Kernel::gemv`].
    fn gemm(&self, w: &PackedRows<'_>, x: &Int8Matrix<'_>, acc: &mut [i32]);

    /// [`Kernel::gemv`] for int4 activations. By default they are widened to int8 in `widened`, which grows if it is
    /// too small and keeps its size for the next call.
    ///
    /// # Panics
    /// Like [`Kernel::gemv`].
    fn gemv_a4(&self, w: &PackedRows<'_>, x: &Int4Vector<'_>, widened: &mut Int8Batch, acc: &mut [i32]) {
        widened.widen(&x.as_matrix(&[x.sum()]));
        self.gemv(w, &widened.view().row(0), acc);
    }

    /// [`Kernel::gemm`] for int4 activations; `widened` as in [`Kernel::gemv_a4`].
    ///
    /// # Panics
    /// Like [`Kernel::gemv`].
    fn gemm_a4(&self, w: &PackedRows<'_>, x: &Int4Matrix<'_>, widened: &mut Int8Batch, acc: &mut [i32]) {
        widened.widen(x);
        self.gemm(w, &widened.view(), acc);
    }
}

/// Output rows that one call of a kernel computes in a long product, in whole panels of `panel_rows` rows, so that
/// their i32 sums for a block of tokens stay in L2.
///
/// ```
/// assert_eq!(ternary_kernels::row_block(16), 512);
/// assert_eq!(ternary_kernels::row_block(600), 600);
/// ```
pub fn row_block(panel_rows: usize) -> usize {
    const ROW_BLOCK: usize = 512;
    let panel = panel_rows.max(1);
    (ROW_BLOCK / panel).max(1) * panel
}

/// Weights in the layout of one kernel: panels of `panel_rows` rows, each panel `panel_bytes` long.
#[derive(Clone, Debug)]
pub struct Packed {
    kernel: Arc<str>,
    rows: usize,
    cols: usize,
    panel_rows: usize,
    panel_bytes: usize,
    bytes: SharedBytes,
}

impl Packed {
    /// Wraps the panels that the kernel called `kernel` made for a `[rows, cols]` matrix.
    ///
    /// # Errors
    /// [`KernelError::ShapeMismatch`] if `bytes` is not one panel for each `panel_rows` rows, the last one padded.
    pub fn new(
        kernel: &str,
        rows: usize,
        cols: usize,
        panel_rows: usize,
        panel_bytes: usize,
        bytes: AlignedBuf<u8>,
    ) -> Result<Self, KernelError> {
        Self::from_shared(kernel, rows, cols, panel_rows, panel_bytes, SharedBytes::new(bytes))
    }

    /// Like [`Packed::new`], for bytes with another owner, for example a file mapping. Kernels read them with unaligned
    /// loads, so alignment only affects speed.
    ///
    /// # Errors
    /// The errors of [`Packed::new`].
    pub fn from_shared(
        kernel: &str,
        rows: usize,
        cols: usize,
        panel_rows: usize,
        panel_bytes: usize,
        bytes: SharedBytes,
    ) -> Result<Self, KernelError> {
        let op = "Packed::new";
        if panel_rows == 0 {
            return Err(KernelError::ShapeMismatch { op, what: "rows per panel, at least", expected: 1, got: 0 });
        }
        let expected =
            rows.div_ceil(panel_rows).checked_mul(panel_bytes).ok_or(KernelError::TooLarge { op, rows, cols })?;
        if bytes.len() != expected {
            return Err(KernelError::ShapeMismatch { op, what: "packed bytes", expected, got: bytes.len() });
        }
        Ok(Self { kernel: kernel.into(), rows, cols, panel_rows, panel_bytes, bytes })
    }

    /// Name of the kernel that packed these weights; another kernel refuses them.
    pub fn kernel(&self) -> &str {
        &self.kernel
    }
    /// Output features, M.
    pub fn rows(&self) -> usize {
        self.rows
    }
    /// Input features, K.
    pub fn cols(&self) -> usize {
        self.cols
    }
    /// Height of a panel.
    pub fn panel_rows(&self) -> usize {
        self.panel_rows
    }
    /// Bytes that a product reads.
    pub fn byte_len(&self) -> usize {
        self.bytes.len()
    }
    /// All rows.
    pub fn all(&self) -> PackedRows<'_> {
        PackedRows { rows: self.rows, cols: self.cols, panel_bytes: self.panel_bytes, bytes: &self.bytes }
    }

    /// Rows `range`; it begins at a multiple of [`Packed::panel_rows`] and ends at one or at the last row.
    ///
    /// # Errors
    /// [`KernelError::BadRowRange`] otherwise.
    pub fn rows_range(&self, range: Range<usize>) -> Result<PackedRows<'_>, KernelError> {
        self.rows_of(&self.bytes, range)
    }

    /// Like [`Packed::rows_range`], for `bytes` that are a copy of these panels.
    pub(crate) fn rows_of<'a>(&self, bytes: &'a [u8], range: Range<usize>) -> Result<PackedRows<'a>, KernelError> {
        let Range { start, end } = range;
        let fits = start <= end
            && end <= self.rows
            && start % self.panel_rows == 0
            && (end % self.panel_rows == 0 || end == self.rows);
        if !fits {
            return Err(KernelError::BadRowRange { start, end, rows: self.rows, panel_rows: self.panel_rows });
        }
        let first = start / self.panel_rows;
        let last = end.div_ceil(self.panel_rows);
        let bytes = &bytes[first * self.panel_bytes..last.max(first) * self.panel_bytes];
        Ok(PackedRows { rows: end - start, cols: self.cols, panel_bytes: self.panel_bytes, bytes })
    }

    /// Row ranges that split the matrix into `parts` of nearly equal size, each beginning at a panel; later ones may be empty.
    pub fn split(&self, part: usize, parts: usize) -> Range<usize> {
        let panels = self.rows.div_ceil(self.panel_rows);
        let at = |p: usize| (panels * p / parts.max(1) * self.panel_rows).min(self.rows);
        at(part)..at(part + 1)
    }

    /// Ranges of nearly equal length that cover `rows`, of at most `most` rows, [`Kernel::block_rows`], or one panel; each
    /// begins at a panel if `rows` does.
    pub fn blocks(&self, rows: Range<usize>, most: usize) -> impl Iterator<Item = Range<usize>> + use<> {
        blocks(self.panel_rows, rows, most)
    }
}

/// Ranges of nearly equal length that cover `rows`, of whole panels of `panel` rows, at most `most` rows or one panel.
pub(crate) fn blocks(panel: usize, rows: Range<usize>, most: usize) -> impl Iterator<Item = Range<usize>> + use<> {
    let panel = panel.max(1);
    let at = move |p: usize| rows.start + (p * panel).min(rows.end - rows.start);
    even_parts(0..rows.len().div_ceil(panel), (most / panel).max(1)).map(move |p| at(p.start)..at(p.end))
}

/// Consecutive rows of [`Packed`] weights, as passed to a kernel.
#[derive(Clone, Copy, Debug)]
pub struct PackedRows<'a> {
    rows: usize,
    cols: usize,
    panel_bytes: usize,
    bytes: &'a [u8],
}

impl<'a> PackedRows<'a> {
    /// Rows in this range.
    pub fn rows(&self) -> usize {
        self.rows
    }
    /// Input features, K.
    pub fn cols(&self) -> usize {
        self.cols
    }
    /// Length of one panel in bytes.
    pub fn panel_bytes(&self) -> usize {
        self.panel_bytes
    }
    /// The panels, one after the other.
    pub fn bytes(&self) -> &'a [u8] {
        self.bytes
    }
}
