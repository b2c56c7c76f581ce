//! Writing a safetensors file without holding its tensors in memory.

use std::collections::HashMap;
use std::io::Write;

use ::safetensors::Dtype;
use ::safetensors::tensor::{Metadata, TensorInfo};

use crate::LoadError;

/// Writes the bytes of one tensor.
pub type WriteBytes<'a> = Box<dyn FnOnce(&mut dyn Write) -> std::io::Result<()> + 'a>;

/// A tensor to be written, and the function that writes its bytes.
pub struct NewTensor<'a> {
    /// Its name.
    pub name: String,
    /// The type of its values.
    pub dtype: Dtype,
    /// Its shape, slowest dimension first.
    pub shape: Vec<usize>,
    /// Writes its bytes, little-endian and row-major.
    pub write: WriteBytes<'a>,
}

/// Writes a safetensors file. The tensors are written in the given order; put wide dtypes first, so that all are
/// aligned.
///
/// # Errors
/// [`LoadError::DuplicateTensor`], [`LoadError::ShapeOverflow`], [`LoadError::TensorBytes`] if a tensor writes more or
/// fewer bytes than its shape needs, [`LoadError::Safetensors`], [`LoadError::Write`].
pub fn write_file(
    out: &mut dyn Write,
    metadata: Option<HashMap<String, String>>,
    tensors: Vec<NewTensor<'_>>,
) -> Result<(), LoadError> {
    let mut infos = Vec::with_capacity(tensors.len());
    let mut names = std::collections::HashSet::new();
    let mut offset = 0usize;
    for t in &tensors {
        if !names.insert(&t.name) {
            return Err(LoadError::DuplicateTensor { tensor: t.name.clone() });
        }
        let bits = t.shape.iter().try_fold(t.dtype.bitsize(), |n, d| n.checked_mul(*d));
        let end = bits.map(|b| b.div_ceil(8)).and_then(|n| offset.checked_add(n)).ok_or_else(|| {
            LoadError::ShapeOverflow { tensor: t.name.clone(), dims: t.shape.iter().rev().map(|&d| d as u64).collect() }
        })?;
        let info = TensorInfo { dtype: t.dtype, shape: t.shape.clone(), data_offsets: (offset, end) };
        infos.push((t.name.clone(), info));
        offset = end;
    }
    let sizes: Vec<usize> = infos.iter().map(|(_, i)| i.data_offsets.1.saturating_sub(i.data_offsets.0)).collect();
    let metadata = Metadata::new(metadata, infos).map_err(|source| LoadError::Safetensors { source })?;
    let mut header =
        serde_json::to_vec(&metadata).map_err(|source| LoadError::Json { what: "a safetensors header", source })?;
    header.resize(header.len().next_multiple_of(8), b' ');
    let io = |what: &str| {
        let what = what.to_owned();
        move |source| LoadError::Write { what, source }
    };
    out.write_all(&(header.len() as u64).to_le_bytes()).map_err(io("the header"))?;
    out.write_all(&header).map_err(io("the header"))?;
    for (t, expected) in tensors.into_iter().zip(sizes) {
        let mut counted = Counted { out, written: 0 };
        (t.write)(&mut counted).map_err(io(&t.name))?;
        if counted.written != expected as u64 {
            return Err(LoadError::TensorBytes {
                tensor: t.name,
                ty: format!("{:?}", t.dtype),
                expected: expected as u64,
                got: counted.written,
            });
        }
    }
    Ok(())
}

struct Counted<'a> {
    out: &'a mut dyn Write,
    written: u64,
}

impl Write for Counted<'_> {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        let n = self.out.write(bytes)?;
        self.written = self.written.saturating_add(n as u64);
        Ok(n)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        self.out.flush()
    }
}
