//! Embedding and head in the form that the engine reads.

use ternary_kernels::{GroupKernel, GroupPacked};

use super::kernels::Kernels;
use crate::{FloatMatrix, ModelError, Table};

/// An embedding or a head, `[vocab, hidden]`.
#[derive(Clone, Debug)]
pub(super) enum EngineTable {
    /// Stored floats.
    Float(FloatMatrix),
    /// Ternary weights, packed for the products of a head; rows of an embedding are read from there, too.
    Ternary {
        packed: GroupPacked,
        kernel: GroupKernel,
        /// The type in the file.
        name: String,
    },
}

impl EngineTable {
    /// Packs `table` if it is ternary.
    pub(super) fn new(table: &Table, kernels: &Kernels) -> Result<Self, ModelError> {
        Ok(match table {
            Table::Float(m) => Self::Float(m.clone()),
            Table::Ternary(m) => {
                let (packed, kernel) = kernels.pack_groups(m)?;
                Self::Ternary { packed, kernel, name: table.type_name() }
            }
        })
    }

    /// Writes row `r` as f32 to `out`, `[hidden]`.
    pub(super) fn row_into(&self, r: usize, out: &mut [f32]) {
        match self {
            Self::Float(m) => m.row_into(r, out),
            Self::Ternary { packed, .. } => packed.decode_row_f32(r, out),
        }
    }

    /// Bytes of all rows.
    pub(super) fn byte_len(&self) -> usize {
        match self {
            Self::Float(m) => m.byte_len(),
            Self::Ternary { packed, .. } => packed.byte_len(),
        }
    }

    /// The type of the stored values, in lower case.
    pub(super) fn type_name(&self) -> String {
        match self {
            Self::Float(m) => m.float_type().name().to_lowercase(),
            Self::Ternary { name, .. } => name.to_lowercase(),
        }
    }

    /// The stored floats, if it has floats.
    pub(super) fn as_float(&self) -> Option<&FloatMatrix> {
        match self {
            Self::Float(m) => Some(m),
            Self::Ternary { .. } => None,
        }
    }
}
