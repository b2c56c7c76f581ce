//! Tensors by name, for any container.

use std::sync::Arc;

use bitnet_model::{BlockType, FloatType};
use half::{bf16, f16};
use ternary_kernels::{FileFormat, KernelLayout, SharedBytes, TlTile};

use crate::gguf::{GgmlType, Gguf, TensorInfo};
use crate::packed::PackedWeights;
use crate::safetensors::{Dtype, Safetensors};
use crate::{LoadError, TlTiles};

/// The source of tensors.
#[derive(Debug)]
pub(super) enum Store {
    /// With the tile sizes that the file does not store.
    Gguf(Gguf, TlTiles),
    Packed(Arc<PackedWeights>),
    Hf(Safetensors),
}

/// Meaning of a tensor's bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum RawKind {
    /// Hugging Face's packed trits, four rows to a byte.
    Packed,
    /// A ternary format that stores its own shape.
    Ternary(FileFormat),
    /// Floats.
    Float(FloatType),
    /// Panels of a kernel, which [`PackedWeights::matrix`] reads.
    Panels(KernelLayout),
}

impl RawKind {
    pub(super) fn name(self) -> String {
        match self {
            RawKind::Packed => "U8 (packed ternary)".into(),
            RawKind::Ternary(f) => f.name().into(),
            RawKind::Float(f) => f.name(),
            RawKind::Panels(layout) => format!("packed as {layout}"),
        }
    }
}

/// A tensor of a type that is read.
#[derive(Clone, Debug)]
pub(super) struct RawTensor {
    pub(super) name: String,
    /// Slowest dimension first.
    pub(super) shape: Vec<u64>,
    pub(super) kind: RawKind,
    pub(super) bytes: SharedBytes,
}

impl Store {
    pub(super) fn names(&self) -> Box<dyn Iterator<Item = &str> + '_> {
        match self {
            Store::Gguf(g, _) => Box::new(g.tensors().iter().map(|t| t.name())),
            Store::Packed(p) => Box::new(p.names()),
            Store::Hf(s) => Box::new(s.iter().map(|(n, _)| n)),
        }
    }

    /// The shape of a tensor, slowest dimension first, if it exists.
    pub(super) fn shape(&self, name: &str) -> Option<Vec<u64>> {
        match self {
            Store::Gguf(g, _) => g.tensor(name).map(|t| t.shape()),
            Store::Packed(p) => p.shape(name).or_else(|| p.file().tensor(name).map(|t| t.shape())),
            Store::Hf(s) => s.get(name).map(|t| t.shape.iter().map(|&d| d as u64).collect()),
        }
    }

    pub(super) fn file_bytes(&self) -> u64 {
        match self {
            Store::Gguf(g, _) => g.file_len(),
            Store::Packed(p) => p.file().file_len(),
            Store::Hf(s) => s.files().iter().filter_map(|f| f.metadata().ok()).map(|m| m.len()).sum(),
        }
    }

    /// The tensor `name`, if it exists.
    ///
    /// # Errors
    /// If its type cannot be read.
    pub(super) fn get(&self, name: &str) -> Result<Option<RawTensor>, LoadError> {
        let Some(shape) = self.shape(name) else { return Ok(None) };
        let (kind, bytes) = match self {
            Store::Gguf(g, tiles) => {
                let Some(info) = g.tensor(name) else { return Ok(None) };
                let (ty, bytes) = g.data(info)?;
                (kind_of_ggml(ty, info, tiles)?, bytes)
            }
            Store::Packed(p) => match (p.layout(name), p.file().tensor(name)) {
                (Some(layout), _) => (RawKind::Panels(layout), SharedBytes::from(Vec::new())),
                (None, Some(info)) => {
                    let (ty, bytes) = p.file().data(info)?;
                    (kind_of_ggml(ty, info, &TlTiles::default())?, bytes)
                }
                (None, None) => return Ok(None),
            },
            Store::Hf(s) => {
                let Some(t) = s.get(name) else { return Ok(None) };
                (kind_of_dtype(t.dtype, name)?, t.bytes.clone())
            }
        };
        Ok(Some(RawTensor { name: name.to_owned(), shape, kind, bytes }))
    }
}

fn kind_of_ggml(ty: GgmlType, info: &TensorInfo, tiles: &TlTiles) -> Result<RawKind, LoadError> {
    use GgmlType as T;
    if let Some(format) = ty.file_format() {
        return Ok(RawKind::Ternary(format));
    }
    Ok(match ty {
        T::Tl1 => RawKind::Ternary(FileFormat::Tl1(tile(ty, info, tiles)?)),
        T::Tl2 => RawKind::Ternary(FileFormat::Tl2(tile(ty, info, tiles)?)),
        T::F32 => RawKind::Float(FloatType::F32),
        T::F16 => RawKind::Float(FloatType::F16),
        T::BF16 => RawKind::Float(FloatType::Bf16),
        _ => match block_type(ty) {
            Some(t) => RawKind::Float(FloatType::Block(t)),
            None => {
                let reason = match ty {
                    T::Iq2BnR4 => "its rows are interleaved for one program; convert it to IQ2_BN there, or use I2_S",
                    _ => {
                        "it is neither ternary nor a float type that is read (F32, F16, BF16, Q4_0 ... Q8_0, Q2_K ... Q6_K)"
                    }
                };
                let (ty, type_id) = (ty.name().to_owned(), Some(ty.id()));
                return Err(LoadError::UnsupportedType { tensor: info.name().to_owned(), ty, type_id, reason });
            }
        },
    })
}

/// The tile sizes of a TL1 or TL2 tensor.
fn tile(ty: GgmlType, info: &TensorInfo, tiles: &TlTiles) -> Result<TlTile, LoadError> {
    let (rows, cols) = (info.rows(), info.cols());
    tiles.find(ty, rows, cols).ok_or_else(|| LoadError::TilesNeeded {
        tensor: info.name().to_owned(),
        ty: ty.name(),
        rows,
        cols,
        named: tiles.describe(),
        presets: TlTiles::presets().collect::<Vec<_>>().join(", "),
    })
}

/// Block types that embeddings and heads may have, on both sides.
const BLOCK_TYPES: [(GgmlType, BlockType); 10] = [
    (GgmlType::Q4_0, BlockType::Q4_0),
    (GgmlType::Q4_1, BlockType::Q4_1),
    (GgmlType::Q5_0, BlockType::Q5_0),
    (GgmlType::Q5_1, BlockType::Q5_1),
    (GgmlType::Q8_0, BlockType::Q8_0),
    (GgmlType::Q2K, BlockType::Q2K),
    (GgmlType::Q3K, BlockType::Q3K),
    (GgmlType::Q4K, BlockType::Q4K),
    (GgmlType::Q5K, BlockType::Q5K),
    (GgmlType::Q6K, BlockType::Q6K),
];

fn block_type(ty: GgmlType) -> Option<BlockType> {
    BLOCK_TYPES.iter().find(|t| t.0 == ty).map(|t| t.1)
}

/// The GGUF type of stored floats.
///
/// # Errors
/// [`LoadError::UnsupportedType`] for a type that GGUF does not have.
pub(crate) fn ggml_type(ty: FloatType) -> Result<GgmlType, LoadError> {
    let block = |t: BlockType| BLOCK_TYPES.iter().find(|b| b.1 == t).map(|b| b.0);
    let found = match ty {
        FloatType::F32 => Some(GgmlType::F32),
        FloatType::F16 => Some(GgmlType::F16),
        FloatType::Bf16 => Some(GgmlType::BF16),
        FloatType::Block(t) => block(t),
        _ => None,
    };
    found.ok_or_else(|| LoadError::UnsupportedType {
        tensor: "embedding or head".to_owned(),
        ty: ty.name(),
        type_id: None,
        reason: "GGUF files have no such type",
    })
}

fn kind_of_dtype(dtype: Dtype, tensor: &str) -> Result<RawKind, LoadError> {
    Ok(match dtype {
        Dtype::U8 => RawKind::Packed,
        Dtype::F32 => RawKind::Float(FloatType::F32),
        Dtype::F16 => RawKind::Float(FloatType::F16),
        Dtype::BF16 => RawKind::Float(FloatType::Bf16),
        other => {
            let reason = "supported dtypes are U8 (packed ternary), F32, F16 and BF16";
            let ty = format!("{other:?}");
            return Err(LoadError::UnsupportedType { tensor: tensor.to_owned(), ty, type_id: None, reason });
        }
    })
}

impl RawTensor {
    /// Refuses any other shape. Dimensions of 1 in front do not count: GGUF drops them.
    pub(super) fn expect_shape(&self, expected: &[u64]) -> Result<(), LoadError> {
        fn bare(shape: &[u64]) -> &[u64] {
            let ones = shape.iter().take_while(|d| **d == 1).count();
            shape.get(ones..).unwrap_or(&[])
        }
        if bare(&self.shape) == bare(expected) {
            return Ok(());
        }
        Err(LoadError::TensorShape { tensor: self.name.clone(), expected: expected.to_vec(), got: self.shape.clone() })
    }

    /// All values of a small tensor of plain floats.
    pub(super) fn floats(&self) -> Result<Vec<f32>, LoadError> {
        match self.kind {
            RawKind::Float(ty) if !matches!(ty, FloatType::Block(_)) => {
                widen(ty, &self.bytes).ok_or_else(|| LoadError::TensorBytes {
                    tensor: self.name.clone(),
                    ty: ty.name(),
                    expected: self.shape.iter().product(),
                    got: self.bytes.len() as u64,
                })
            }
            kind => Err(LoadError::UnsupportedType {
                tensor: self.name.clone(),
                ty: kind.name(),
                type_id: None,
                reason: "norms, scales and what test-time-training layers have in full precision must be F32, F16 or BF16",
            }),
        }
    }

    /// Rows `rows` of a matrix of plain floats with `cols` columns.
    pub(super) fn rows_f32(
        &self,
        ty: FloatType,
        cols: usize,
        rows: std::ops::Range<usize>,
    ) -> Result<Vec<f32>, LoadError> {
        let part = ty.row_bytes(cols).and_then(|n| {
            let range = rows.start.checked_mul(n)?..rows.end.checked_mul(n)?;
            widen(ty, self.bytes.get(range)?)
        });
        part.ok_or_else(|| LoadError::TensorBytes {
            tensor: self.name.clone(),
            ty: ty.name(),
            expected: (rows.end as u64).saturating_mul(cols as u64),
            got: self.bytes.len() as u64,
        })
    }
}

/// Plain floats as f32; exact. `None` for other types and for bytes that are not a whole number of values.
pub(crate) fn widen(ty: FloatType, bytes: &[u8]) -> Option<Vec<f32>> {
    fn all<const N: usize>(bytes: &[u8], one: impl Fn([u8; N]) -> f32) -> Option<Vec<f32>> {
        let (values, rest) = bytes.as_chunks::<N>();
        rest.is_empty().then(|| values.iter().map(|b| one(*b)).collect())
    }
    match ty {
        FloatType::F32 => all(bytes, f32::from_le_bytes),
        FloatType::F16 => all(bytes, |b| f16::from_le_bytes(b).to_f32()),
        FloatType::Bf16 => all(bytes, |b| bf16::from_le_bytes(b).to_f32()),
        _ => None,
    }
}
