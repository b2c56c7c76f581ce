//! The header entry of one tensor in a GGUF file.

use super::layout;
use super::types::{self, GgmlType};
use crate::LoadError;

/// The type of a tensor, as far as it is certain.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum TensorType {
    /// Certain.
    Known(GgmlType),
    /// The id means different things in different programs, and the file does not decide which.
    Ambiguous(u32),
    /// The id is unknown, or is never read.
    Unknown(u32),
}

impl std::fmt::Display for TensorType {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match *self {
            TensorType::Known(t) => f.write_str(t.name()),
            TensorType::Ambiguous(id) => write!(f, "ambiguous type {id}"),
            TensorType::Unknown(id) => match types::retired(id) {
                Some((name, _)) => f.write_str(name),
                None => write!(f, "unknown type {id}"),
            },
        }
    }
}

/// One tensor of a GGUF file: name, shape, type and place, all checked against the file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TensorInfo {
    pub(super) name: String,
    pub(super) dims: [u64; 4],
    pub(super) n_dims: usize,
    pub(super) type_id: u32,
    pub(super) ty: TensorType,
    /// Offset in the data section, bytes.
    pub(super) offset: u64,
    /// Bytes of the tensor, if its type and shape decide them.
    pub(super) nbytes: Option<u64>,
    /// Bytes from its beginning to the next tensor or the end of the file.
    pub(super) room: u64,
    pub(super) last: bool,
    /// The index, from 0, of its file in a split model.
    pub(super) part: usize,
}

impl TensorInfo {
    /// Its name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Its dimensions as in the file, fastest first: a matrix `[out, in]` has dimensions `[in, out]`.
    pub fn dims(&self) -> &[u64] {
        self.dims.get(..self.n_dims).unwrap_or(&[])
    }

    /// Weights per row (the fastest dimension); 1 for a scalar.
    pub fn cols(&self) -> u64 {
        self.dims[0]
    }

    /// Rows: the product of all other dimensions.
    pub fn rows(&self) -> u64 {
        // Checked when the file was read.
        self.dims[1].saturating_mul(self.dims[2]).saturating_mul(self.dims[3])
    }

    /// All weights.
    pub fn elements(&self) -> u64 {
        self.rows().saturating_mul(self.cols())
    }

    /// Its shape, slowest dimension first, as in Hugging Face and candle.
    pub fn shape(&self) -> Vec<u64> {
        self.dims().iter().rev().copied().collect()
    }

    /// The type id in the file.
    pub fn type_id(&self) -> u32 {
        self.type_id
    }

    /// The type.
    pub fn tensor_type(&self) -> TensorType {
        self.ty
    }

    /// Offset in the data section, bytes.
    pub fn offset(&self) -> u64 {
        self.offset
    }

    /// Bytes of the tensor; `None` if the type is unknown or ambiguous.
    pub fn nbytes(&self) -> Option<u64> {
        self.nbytes
    }

    /// The type of this tensor, if it can be used.
    ///
    /// # Errors
    /// [`LoadError::UnknownType`], [`LoadError::AmbiguousType`], [`LoadError::NoLayoutFits`], and
    /// [`LoadError::UnsupportedType`] for types that were retired.
    pub fn usable_type(&self, architecture: &str) -> Result<GgmlType, LoadError> {
        let tensor = || self.name.clone();
        match self.ty {
            TensorType::Known(t) => Ok(t),
            TensorType::Ambiguous(id) => {
                if let Some(c) = types::collision(id).filter(|c| !c.by_size.is_empty()) {
                    return Err(LoadError::NoLayoutFits {
                        tensor: tensor(),
                        type_id: id,
                        meanings: c.meanings,
                        room: self.room,
                        sizes: layout::sizes(self, c),
                        way_out: c.way_out,
                    });
                }
                let (meanings, way_out) =
                    types::collision(id).map_or(("several things", "convert it again"), |c| (c.meanings, c.way_out));
                Err(LoadError::AmbiguousType {
                    tensor: tensor(),
                    type_id: id,
                    meanings,
                    architecture: architecture.to_owned(),
                    way_out,
                })
            }
            TensorType::Unknown(id) => Err(match types::retired(id) {
                Some((name, reason)) => {
                    LoadError::UnsupportedType { tensor: tensor(), ty: name.to_owned(), type_id: Some(id), reason }
                }
                None => LoadError::UnknownType { tensor: tensor(), type_id: id },
            }),
        }
    }
}
