//! Matrices of stored floats: embeddings and heads, in the bytes of their file.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

use half::{bf16, f16, slice::HalfFloatSliceExt};
use ternary_kernels::SharedBytes;
use ternary_kernels::ops::coarse::CoarsePlane;

use crate::weights::share;
use crate::{BlockType, ModelError};

/// The type of the stored values of a [`FloatMatrix`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum FloatType {
    /// 32-bit floats.
    F32,
    /// IEEE half precision.
    F16,
    /// bfloat16.
    Bf16,
    /// A block-quantised ggml type (Q8_0, Q6_K, Q4_0 ...), whose rows are whole blocks.
    Block(BlockType),
}

impl FloatType {
    /// Bytes of a row of `cols` values, or `None` if a row is not a whole number of blocks or the size overflows.
    pub fn row_bytes(self, cols: usize) -> Option<usize> {
        match self {
            FloatType::F32 => cols.checked_mul(4),
            FloatType::F16 | FloatType::Bf16 => cols.checked_mul(2),
            FloatType::Block(t) => cols
                .is_multiple_of(t.block_len())
                .then(|| (cols / t.block_len()).checked_mul(t.block_bytes()))
                .flatten(),
        }
    }

    /// The usual name, for example `F16` or `Q6K`.
    pub fn name(self) -> String {
        match self {
            FloatType::F32 => "F32".into(),
            FloatType::F16 => "F16".into(),
            FloatType::Bf16 => "BF16".into(),
            FloatType::Block(t) => t.name().into(),
        }
    }
}

/// A `[rows, cols]` matrix of stored floats.
#[derive(Clone, Debug)]
pub struct FloatMatrix {
    rows: usize,
    cols: usize,
    ty: FloatType,
    row_bytes: usize,
    bytes: SharedBytes,
    /// A coarse plane of these values that was built before.
    coarse: Option<CoarsePlane>,
    /// Bytes that may have come into memory around single rows, for all clones.
    around: Arc<AtomicUsize>,
}

/// Memory that reading a row may use: Linux maps the pages around one that is asked for, 64 KiB or a huge page.
const AROUND_A_ROW: usize = 2 << 20;
/// Memory that single rows of a mapped table may keep.
const MOST_AROUND: usize = 64 << 20;

/// The rows of a [`FloatMatrix`] as plain numbers, where they are plain numbers.
#[derive(Clone, Copy, Debug)]
pub enum FloatRows<'a> {
    /// `[rows * cols]` f32.
    F32(&'a [f32]),
    /// `[rows * cols]` f16.
    F16(&'a [f16]),
    /// `[rows * cols]` bf16.
    Bf16(&'a [bf16]),
    /// Block-quantised rows; read them with [`FloatMatrix::row_into`].
    Blocks,
}

impl FloatMatrix {
    /// A matrix over `bytes`, row-major. Plain floats that are not aligned for their type are copied.
    ///
    /// # Errors
    /// [`ModelError::TensorSize`] if the length is not `rows` rows of `cols` values.
    pub fn new(ty: FloatType, rows: usize, cols: usize, bytes: SharedBytes) -> Result<Self, ModelError> {
        let wrong = |expected| ModelError::TensorSize {
            tensor: format!("{} matrix [{rows}, {cols}], bytes", ty.name()),
            expected,
            got: bytes.len(),
        };
        let row_bytes = ty.row_bytes(cols).ok_or_else(|| wrong(usize::MAX))?;
        let expected = row_bytes.checked_mul(rows).ok_or_else(|| wrong(usize::MAX))?;
        if bytes.len() != expected {
            return Err(wrong(expected));
        }
        let align = match ty {
            FloatType::F32 => 4,
            FloatType::F16 | FloatType::Bf16 => 2,
            FloatType::Block(_) => 1,
        };
        let bytes = if (bytes.as_ptr() as usize).is_multiple_of(align) { bytes } else { share::<u8>(&bytes) };
        Ok(Self { rows, cols, ty, row_bytes, bytes, coarse: None, around: Arc::default() })
    }

    /// Adds a coarse plane of these values that was built before, so that an engine need not build it.
    ///
    /// # Errors
    /// [`ModelError::TensorSize`] for a plane with another shape.
    pub fn with_coarse(self, plane: CoarsePlane) -> Result<Self, ModelError> {
        if (plane.rows(), plane.cols()) != (self.rows, self.cols) {
            let tensor = format!("coarse plane of a [{}, {}] matrix, bytes", self.rows, self.cols);
            let expected = CoarsePlane::byte_len_of(self.rows, self.cols).unwrap_or(usize::MAX);
            return Err(ModelError::TensorSize { tensor, expected, got: plane.byte_len() });
        }
        Ok(Self { coarse: Some(plane), ..self })
    }

    /// The coarse plane that came with these values.
    pub fn coarse(&self) -> Option<&CoarsePlane> {
        self.coarse.as_ref()
    }

    /// From f32 values `[rows, cols]`.
    ///
    /// # Errors
    /// [`ModelError::TensorSize`] if the length is not `rows * cols`.
    pub fn from_f32(rows: usize, cols: usize, values: &[f32]) -> Result<Self, ModelError> {
        Self::new(FloatType::F32, rows, cols, share(values))
    }

    /// The same matrix in half precision, each value rounded to nearest, ties to even.
    ///
    /// # Errors
    /// [`ModelError::NotFinite`] for a value that half precision cannot hold: 65520 and more, or a value that is not
    /// finite.
    ///
    /// ```
    /// use bitnet_model::{FloatMatrix, FloatType};
    /// let m = FloatMatrix::from_f32(1, 2, &[0.5, 1.0 / 3.0])?.to_f16()?;
    /// let mut row = [0.0; 2];
    /// m.row_into(0, &mut row);
    /// assert_eq!((m.float_type(), row), (FloatType::F16, [0.5, 0.33325195]));
    /// assert!(FloatMatrix::from_f32(1, 1, &[1e6])?.to_f16().is_err());
    /// # Ok::<(), bitnet_model::ModelError>(())
    /// ```
    pub fn to_f16(&self) -> Result<Self, ModelError> {
        let mut values = vec![f16::ZERO; self.rows * self.cols];
        let mut row = vec![0.0; self.cols];
        for (r, out) in values.chunks_exact_mut(self.cols.max(1)).enumerate() {
            self.row_into(r, &mut row);
            out.convert_from_f32_slice(&row);
            if let Some(i) = out.iter().position(|v| !v.is_finite()) {
                let tensor = "a table in half precision".into();
                return Err(ModelError::NotFinite { tensor, index: r * self.cols + i, value: row[i] });
            }
        }
        Self::new(FloatType::F16, self.rows, self.cols, share(&values))
    }

    /// Rows (the vocabulary).
    pub fn rows(&self) -> usize {
        self.rows
    }
    /// Columns (the width).
    pub fn cols(&self) -> usize {
        self.cols
    }
    /// The type of the stored values.
    pub fn float_type(&self) -> FloatType {
        self.ty
    }
    /// Bytes of all rows.
    pub fn byte_len(&self) -> usize {
        self.bytes.len()
    }
    /// The bytes.
    pub fn bytes(&self) -> &SharedBytes {
        &self.bytes
    }

    /// A hint that these rows will not be read for a while.
    pub(crate) fn release_rows(&self, rows: std::ops::Range<usize>) {
        if let Some(bytes) = self.bytes.slice(rows.start * self.row_bytes..rows.end * self.row_bytes) {
            bytes.release();
        }
    }

    /// Counts single rows that were read. Before the pages around them are many, they are given back, as a table of
    /// which few rows are read need not be in memory. Those of a file come again.
    pub(crate) fn touched(&self, rows: usize) {
        let more = rows.saturating_mul(AROUND_A_ROW);
        if self.around.fetch_add(more, Relaxed).saturating_add(more) >= MOST_AROUND {
            self.around.store(0, Relaxed);
            if self.bytes.len() > MOST_AROUND {
                self.bytes.release();
            }
        }
    }

    /// All rows as plain numbers.
    pub fn plain(&self) -> FloatRows<'_> {
        match self.ty {
            FloatType::F32 => FloatRows::F32(bytemuck::cast_slice(&self.bytes)),
            FloatType::F16 => FloatRows::F16(bytemuck::cast_slice(&self.bytes)),
            FloatType::Bf16 => FloatRows::Bf16(bytemuck::cast_slice(&self.bytes)),
            FloatType::Block(_) => FloatRows::Blocks,
        }
    }

    /// Writes row `r` as f32 to `out`, `[cols]`. Plain floats are widened exactly; blocks are decoded as in ggml.
    ///
    /// # Panics
    /// If `r` is not below [`FloatMatrix::rows`] or `out` is not `cols` long.
    pub fn row_into(&self, r: usize, out: &mut [f32]) {
        assert!(r < self.rows && out.len() == self.cols, "row {r} of {}, buffer of {}", self.rows, out.len());
        let span = r * self.cols..(r + 1) * self.cols;
        match self.plain() {
            FloatRows::F32(v) => out.copy_from_slice(&v[span]),
            FloatRows::F16(v) => v[span].convert_to_f32_slice(out),
            FloatRows::Bf16(v) => v[span].convert_to_f32_slice(out),
            FloatRows::Blocks => self.rows_into(r..r + 1, out),
        }
    }

    /// Writes rows `rows` as f32 to `out`, `[rows, cols]`.
    ///
    /// # Panics
    /// If the range is outside the matrix or `out` has another length.
    pub fn rows_into(&self, rows: std::ops::Range<usize>, out: &mut [f32]) {
        assert!(
            rows.end <= self.rows && out.len() == rows.len() * self.cols,
            "rows {rows:?} of {}, buffer of {}",
            self.rows,
            out.len()
        );
        match self.ty {
            FloatType::Block(ty) => {
                ty.decode(&self.bytes[rows.start * self.row_bytes..rows.end * self.row_bytes], out);
            }
            _ => rows.zip(out.chunks_exact_mut(self.cols.max(1))).for_each(|(r, out)| self.row_into(r, out)),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::ops::Range;

    use ternary_kernels::ByteOwner;

    use super::*;

    /// Bytes that count how often they were given back.
    struct Counted(Vec<u8>, Arc<AtomicUsize>);

    impl ByteOwner for Counted {
        fn bytes(&self) -> &[u8] {
            &self.0
        }
        fn release(&self, range: Range<usize>) {
            assert_eq!(range, 0..self.0.len());
            self.1.fetch_add(1, Relaxed);
        }
    }

    #[test]
    fn pages_around_single_rows_are_given_back() {
        let given_back = |rows: usize| {
            let count = Arc::new(AtomicUsize::new(0));
            let bytes = SharedBytes::of(Counted(vec![0; rows << 10], count.clone()));
            let table = FloatMatrix::new(FloatType::F16, rows, 512, bytes).unwrap();
            let clone = table.clone();
            for _ in 0..1000 {
                table.touched(1);
                clone.touched(3);
            }
            count.load(Relaxed)
        };
        // Four thousand rows, each with 2 MiB around it, of at most 64 MiB.
        assert_eq!(given_back((64 << 10) + 1), 4000 / 32);
        assert_eq!(given_back(64 << 10), 0, "a small table stays");
    }
}
