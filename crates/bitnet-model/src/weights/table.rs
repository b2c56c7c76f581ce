//! Embeddings and heads: floats, or ternary weights with a scale for each group.

use ternary_kernels::TernaryMatrix;

use crate::float_matrix::FloatMatrix;

/// An embedding or a head, `[vocab, hidden]`.
#[derive(Clone, Debug)]
pub enum Table {
    /// Floats, or blocks of a type that dequantises to floats.
    Float(FloatMatrix),
    /// Ternary weights.
    Ternary(TernaryMatrix),
}

impl Table {
    /// Rows, one for each token.
    pub fn rows(&self) -> usize {
        match self {
            Table::Float(m) => m.rows(),
            Table::Ternary(w) => w.rows(),
        }
    }

    /// Columns, the width of the model.
    pub fn cols(&self) -> usize {
        match self {
            Table::Float(m) => m.cols(),
            Table::Ternary(w) => w.cols(),
        }
    }
}

impl From<FloatMatrix> for Table {
    fn from(matrix: FloatMatrix) -> Self {
        Table::Float(matrix)
    }
}

impl From<TernaryMatrix> for Table {
    fn from(matrix: TernaryMatrix) -> Self {
        Table::Ternary(matrix)
    }
}
