//! Reading fixture files: folders, JSON, safetensors.

use std::path::Path;

use safetensors::tensor::TensorView;
use safetensors::{Dtype, SafeTensors};
use serde_json::Value;

use crate::ParityError;

/// Names in a folder, sorted; none if there is no such folder.
pub(crate) fn names(dir: &Path) -> Result<Vec<String>, ParityError> {
    if !dir.is_dir() {
        return Ok(Vec::new());
    }
    let mut names = Vec::new();
    for entry in std::fs::read_dir(dir).map_err(ParityError::io(dir))? {
        names.push(entry.map_err(ParityError::io(dir))?.file_name().to_string_lossy().into_owned());
    }
    names.sort();
    Ok(names)
}

/// The bytes of a file.
pub(crate) fn read(path: &Path) -> Result<Vec<u8>, ParityError> {
    std::fs::read(path).map_err(ParityError::io(path))
}

/// A JSON file.
pub(crate) fn json(path: &Path) -> Result<Value, ParityError> {
    serde_json::from_slice(&read(path)?).map_err(|e| json_error(path, e.to_string()))
}

/// An error that names a JSON file.
pub(crate) fn json_error(path: &Path, what: impl Into<String>) -> ParityError {
    ParityError::Json { path: path.display().to_string(), what: what.into() }
}

/// The tensors of a file, read as plain numbers.
pub(crate) struct Tensors {
    path: String,
    bytes: Vec<u8>,
    shapes: Vec<(String, Vec<usize>)>,
}

impl Tensors {
    /// Reads a safetensors file.
    pub(crate) fn load(path: &Path) -> Result<Self, ParityError> {
        let bytes = read(path)?;
        let path = path.display().to_string();
        let error = |e: safetensors::SafeTensorError| ParityError::Tensors { path: path.clone(), what: e.to_string() };
        let file = SafeTensors::deserialize(&bytes).map_err(error)?;
        let mut shapes: Vec<_> = file.iter().map(|(name, t)| (name.to_owned(), t.shape().to_vec())).collect();
        shapes.sort();
        Ok(Self { path, bytes, shapes })
    }

    /// Names of the tensors, sorted.
    pub(crate) fn names(&self) -> impl Iterator<Item = &str> {
        self.shapes.iter().map(|(name, _)| name.as_str())
    }

    /// Whether there is a tensor of that name.
    pub(crate) fn has(&self, name: &str) -> bool {
        self.names().any(|n| n == name)
    }

    fn error(&self, what: String) -> ParityError {
        ParityError::Tensors { path: self.path.clone(), what }
    }

    /// Rows and columns of a tensor; one row where it has one dimension.
    pub(crate) fn shape(&self, name: &str) -> Result<(usize, usize), ParityError> {
        let shape = self.shapes.iter().find(|(n, _)| n == name).map(|(_, s)| s.as_slice());
        match shape {
            Some([cols]) => Ok((1, *cols)),
            Some([rows, cols]) => Ok((*rows, *cols)),
            Some(other) => Err(self.error(format!("{name} has shape {other:?}, expected one or two dimensions"))),
            None => Err(self.error(format!("{name} is missing"))),
        }
    }

    /// The shape of a tensor.
    pub(crate) fn dims(&self, name: &str) -> Result<Vec<usize>, ParityError> {
        let shape = self.shapes.iter().find(|(n, _)| n == name).map(|(_, s)| s.clone());
        shape.ok_or_else(|| self.error(format!("{name} is missing")))
    }

    fn view<T>(&self, name: &str, dtype: Dtype, f: impl Fn(TensorView<'_>) -> Vec<T>) -> Result<Vec<T>, ParityError> {
        let file = SafeTensors::deserialize(&self.bytes).map_err(|e| self.error(e.to_string()))?;
        let tensor = file.tensor(name).map_err(|e| self.error(format!("{name}: {e}")))?;
        if tensor.dtype() != dtype {
            return Err(self.error(format!("{name} is {:?}, expected {dtype:?}", tensor.dtype())));
        }
        Ok(f(tensor))
    }

    /// An F32 tensor, row-major.
    pub(crate) fn f32(&self, name: &str) -> Result<Vec<f32>, ParityError> {
        self.view(name, Dtype::F32, |t| t.data().as_chunks().0.iter().map(|b| f32::from_le_bytes(*b)).collect())
    }

    /// An I32 tensor, row-major.
    pub(crate) fn i32(&self, name: &str) -> Result<Vec<i32>, ParityError> {
        self.view(name, Dtype::I32, |t| t.data().as_chunks().0.iter().map(|b| i32::from_le_bytes(*b)).collect())
    }

    /// An I8 tensor, row-major.
    pub(crate) fn i8(&self, name: &str) -> Result<Vec<i8>, ParityError> {
        self.view(name, Dtype::I8, |t| t.data().iter().map(|b| *b as i8).collect())
    }

    /// A U8 tensor, row-major.
    pub(crate) fn u8(&self, name: &str) -> Result<Vec<u8>, ParityError> {
        self.view(name, Dtype::U8, |t| t.data().to_vec())
    }

    /// A U16 tensor, row-major: bits of half-precision numbers.
    pub(crate) fn u16(&self, name: &str) -> Result<Vec<u16>, ParityError> {
        self.view(name, Dtype::U16, |t| t.data().as_chunks().0.iter().map(|b| u16::from_le_bytes(*b)).collect())
    }

    /// An F64 tensor, row-major.
    pub(crate) fn f64(&self, name: &str) -> Result<Vec<f64>, ParityError> {
        self.view(name, Dtype::F64, |t| t.data().as_chunks().0.iter().map(|b| f64::from_le_bytes(*b)).collect())
    }

    /// An I64 tensor of token ids.
    pub(crate) fn ids(&self, name: &str) -> Result<Vec<u32>, ParityError> {
        let ids = self.view(name, Dtype::I64, |t| {
            t.data().as_chunks().0.iter().map(|b| i64::from_le_bytes(*b)).collect::<Vec<_>>()
        })?;
        let id = |v: i64| u32::try_from(v).map_err(|_| self.error(format!("{name}: {v} is not a token id")));
        ids.into_iter().map(id).collect()
    }
}
