//! The writer: header first, then one tensor after the other, so that no file is ever held in memory.

use std::io::Write;

use super::types::{GgmlType, SizeError};
use super::value::{Array, Metadata, Value};
use super::{DEFAULT_ALIGNMENT, MAGIC, MAX_ALIGNMENT, MAX_NAME};
use crate::LoadError;

/// A tensor that will be written.
#[derive(Clone, Debug)]
struct Announced {
    name: String,
    /// Fastest first.
    dims: Vec<u64>,
    ty: GgmlType,
    nbytes: u64,
    offset: u64,
}

/// Collects metadata and tensor descriptions; [`GgufWriter::start`] writes the header and hands out the stream for the
/// data. Writes version 3, little-endian.
///
/// ```
/// use loader::gguf::{GgmlType, Gguf, GgufWriter};
/// # fn main() -> Result<(), loader::LoadError> {
/// let mut writer = GgufWriter::new();
/// writer.metadata_mut().set("general.architecture", "bitnet-b1.58");
/// writer.announce("output_norm.weight", &[4], GgmlType::F32)?;
/// let mut stream = writer.start(Vec::new())?;
/// stream.tensor("output_norm.weight", |out| out.write_all(bytemuck::cast_slice(&[1f32; 4])))?;
/// let bytes = stream.finish()?;
/// assert_eq!(Gguf::from_bytes(bytes.into())?.tensors().len(), 1);
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug)]
pub struct GgufWriter {
    metadata: Metadata,
    tensors: Vec<Announced>,
    names: std::collections::HashSet<String>,
    alignment: u64,
    /// Offset of the next tensor in the data section, bytes.
    next: u64,
}

impl Default for GgufWriter {
    fn default() -> Self {
        Self::new()
    }
}

impl GgufWriter {
    /// No metadata, no tensors, alignment 32.
    pub fn new() -> Self {
        Self {
            metadata: Metadata::default(),
            tensors: Vec::new(),
            names: Default::default(),
            alignment: DEFAULT_ALIGNMENT,
            next: 0,
        }
    }

    /// With these metadata, whose `general.alignment` is used.
    ///
    /// # Errors
    /// [`LoadError::BadAlignment`].
    pub fn with_metadata(metadata: Metadata) -> Result<Self, LoadError> {
        let mut w = Self::new();
        if let Some(v) = metadata.get("general.alignment") {
            match v.to_u64() {
                Some(a) if a.is_power_of_two() && a <= MAX_ALIGNMENT => w.alignment = a,
                _ => return Err(LoadError::BadAlignment { value: v.to_string(), max: MAX_ALIGNMENT }),
            }
        }
        w.metadata = metadata;
        Ok(w)
    }

    /// The metadata. Set `general.alignment` through [`GgufWriter::with_metadata`] only: offsets follow from it.
    pub fn metadata_mut(&mut self) -> &mut Metadata {
        &mut self.metadata
    }

    /// Announces a tensor; data are written in the order of the announcements. `shape` is slowest dimension first
    /// (`[out, in]` for a projection).
    ///
    /// # Errors
    /// [`LoadError::DuplicateTensor`], [`LoadError::NameTooLong`], [`LoadError::TooManyDims`],
    /// [`LoadError::PartialBlock`] if the type cannot hold such rows, [`LoadError::ShapeOverflow`], and
    /// [`LoadError::UnsupportedType`] for types that only one build of one program can read (TL1, TL2).
    pub fn announce(&mut self, name: &str, shape: &[u64], ty: GgmlType) -> Result<(), LoadError> {
        let tensor = || name.to_owned();
        if name.len() as u64 > MAX_NAME {
            let len = name.len() as u64;
            return Err(LoadError::NameTooLong { what: "a tensor name", offset: 0, len, max: MAX_NAME });
        }
        if shape.len() > 4 {
            return Err(LoadError::TooManyDims {
                tensor: tensor(),
                dims: u32::try_from(shape.len()).unwrap_or(u32::MAX),
            });
        }
        let overflow = || LoadError::ShapeOverflow { tensor: tensor(), dims: shape.iter().rev().copied().collect() };
        let cols = shape.last().copied().unwrap_or(1);
        let rows = shape.iter().rev().skip(1).try_fold(1u64, |p, d| p.checked_mul(*d)).ok_or_else(overflow)?;
        if matches!(ty, GgmlType::Tl1 | GgmlType::Tl2) {
            return Err(LoadError::UnsupportedType {
                tensor: tensor(),
                ty: ty.name().to_owned(),
                type_id: Some(ty.id()),
                reason: "its layout depends on the build of the reading program; write I2_S instead",
            });
        }
        let nbytes = match ty.nbytes(rows, cols) {
            Ok(n) => n,
            Err(SizeError::PartialBlock { block }) => {
                return Err(LoadError::PartialBlock { tensor: tensor(), ty: ty.name(), block, cols });
            }
            Err(SizeError::Overflow) => return Err(overflow()),
        };
        let offset = self.next;
        let next = offset.checked_add(nbytes).and_then(|e| e.checked_next_multiple_of(self.alignment));
        self.next = next.ok_or_else(overflow)?;
        if !self.names.insert(tensor()) {
            return Err(LoadError::DuplicateTensor { tensor: tensor() });
        }
        self.tensors.push(Announced {
            name: tensor(),
            dims: shape.iter().rev().copied().collect(),
            ty,
            nbytes,
            offset,
        });
        Ok(())
    }

    /// Bytes of the data section that was announced so far.
    pub fn data_len(&self) -> u64 {
        self.next
    }

    /// Writes the header.
    ///
    /// # Errors
    /// [`LoadError::Write`].
    pub fn start<W: Write>(self, out: W) -> Result<TensorStream<W>, LoadError> {
        let mut header = Vec::new();
        header.extend_from_slice(&MAGIC);
        header.extend_from_slice(&3u32.to_le_bytes());
        header.extend_from_slice(&(self.tensors.len() as u64).to_le_bytes());
        header.extend_from_slice(&(self.metadata.len() as u64).to_le_bytes());
        for (key, value) in self.metadata.iter() {
            put_text(&mut header, key);
            header.extend_from_slice(&value.kind().id().to_le_bytes());
            put_value(&mut header, value);
        }
        for t in &self.tensors {
            put_text(&mut header, &t.name);
            // At most four dimensions: checked when it was announced.
            header.extend_from_slice(&u32::try_from(t.dims.len()).unwrap_or(4).to_le_bytes());
            for d in &t.dims {
                header.extend_from_slice(&d.to_le_bytes());
            }
            header.extend_from_slice(&t.ty.id().to_le_bytes());
            header.extend_from_slice(&t.offset.to_le_bytes());
        }
        let mut stream = TensorStream {
            out: Counted { inner: out, written: 0 },
            tensors: self.tensors.into_iter(),
            alignment: self.alignment,
        };
        stream.put(&header, "the header")?;
        stream.pad("the header")?;
        Ok(stream)
    }
}

/// The data section of a file being written: every announced tensor, once, in order.
pub struct TensorStream<W> {
    out: Counted<W>,
    tensors: std::vec::IntoIter<Announced>,
    alignment: u64,
}

impl<W: Write> TensorStream<W> {
    fn put(&mut self, bytes: &[u8], what: &str) -> Result<(), LoadError> {
        self.out.write_all(bytes).map_err(|source| LoadError::Write { what: what.to_owned(), source })
    }

    fn pad(&mut self, what: &str) -> Result<(), LoadError> {
        let end = self.out.written.next_multiple_of(self.alignment);
        let gap = usize::try_from(end.saturating_sub(self.out.written)).unwrap_or(0); // Below the alignment.
        self.put(&vec![0; gap], what)
    }

    /// Writes the bytes of the next tensor, which must be the one called `name`, in as many pieces as `write` likes.
    ///
    /// # Errors
    /// [`LoadError::WriteOrder`] if another tensor is next, [`LoadError::TensorBytes`] if more or fewer bytes were
    /// written than its type and shape need, [`LoadError::Write`].
    pub fn tensor(
        &mut self,
        name: &str,
        write: impl FnOnce(&mut dyn Write) -> std::io::Result<()>,
    ) -> Result<(), LoadError> {
        let next = self.tensors.next();
        let expected = match next {
            Some(t) if t.name == name => t,
            other => {
                let expected = other.map_or(String::new(), |t| t.name);
                return Err(LoadError::WriteOrder { expected, got: name.to_owned() });
            }
        };
        let before = self.out.written;
        write(&mut self.out).map_err(|source| LoadError::Write { what: format!("tensor {name:?}"), source })?;
        let got = self.out.written.saturating_sub(before);
        if got != expected.nbytes {
            let ty = expected.ty.name().to_owned();
            return Err(LoadError::TensorBytes { tensor: expected.name, ty, expected: expected.nbytes, got });
        }
        // Also after the last one: several readers require the data section to be a multiple of the alignment.
        self.pad(name)
    }

    /// Ends the file and hands the output back.
    ///
    /// # Errors
    /// [`LoadError::WriteOrder`] if tensors are missing, [`LoadError::Write`].
    pub fn finish(mut self) -> Result<W, LoadError> {
        if let Some(t) = self.tensors.next() {
            return Err(LoadError::WriteOrder { expected: t.name, got: String::new() });
        }
        self.out.flush().map_err(|source| LoadError::Write { what: "the end of the file".to_owned(), source })?;
        Ok(self.out.inner)
    }
}

/// Counts the written bytes.
struct Counted<W> {
    inner: W,
    written: u64,
}

impl<W: Write> Write for Counted<W> {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        let n = self.inner.write(bytes)?;
        self.written = self.written.saturating_add(n as u64);
        Ok(n)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        self.inner.flush()
    }
}

fn put_text(out: &mut Vec<u8>, text: &str) {
    out.extend_from_slice(&(text.len() as u64).to_le_bytes());
    out.extend_from_slice(text.as_bytes());
}

fn put_value(out: &mut Vec<u8>, value: &Value) {
    match value {
        Value::U8(v) => out.push(*v),
        Value::I8(v) => out.extend_from_slice(&v.to_le_bytes()),
        Value::U16(v) => out.extend_from_slice(&v.to_le_bytes()),
        Value::I16(v) => out.extend_from_slice(&v.to_le_bytes()),
        Value::U32(v) => out.extend_from_slice(&v.to_le_bytes()),
        Value::I32(v) => out.extend_from_slice(&v.to_le_bytes()),
        Value::F32(v) => out.extend_from_slice(&v.to_le_bytes()),
        Value::U64(v) => out.extend_from_slice(&v.to_le_bytes()),
        Value::I64(v) => out.extend_from_slice(&v.to_le_bytes()),
        Value::F64(v) => out.extend_from_slice(&v.to_le_bytes()),
        Value::Bool(v) => out.push(u8::from(*v)),
        Value::String(v) => put_text(out, v),
        Value::Array(a) => put_array(out, a),
    }
}

fn put_array(out: &mut Vec<u8>, array: &Array) {
    out.extend_from_slice(&array.kind().id().to_le_bytes());
    out.extend_from_slice(&(array.len() as u64).to_le_bytes());
    match array {
        Array::U8(v) => out.extend_from_slice(v),
        Array::I8(v) => v.iter().for_each(|x| out.extend_from_slice(&x.to_le_bytes())),
        Array::U16(v) => v.iter().for_each(|x| out.extend_from_slice(&x.to_le_bytes())),
        Array::I16(v) => v.iter().for_each(|x| out.extend_from_slice(&x.to_le_bytes())),
        Array::U32(v) => v.iter().for_each(|x| out.extend_from_slice(&x.to_le_bytes())),
        Array::I32(v) => v.iter().for_each(|x| out.extend_from_slice(&x.to_le_bytes())),
        Array::F32(v) => v.iter().for_each(|x| out.extend_from_slice(&x.to_le_bytes())),
        Array::U64(v) => v.iter().for_each(|x| out.extend_from_slice(&x.to_le_bytes())),
        Array::I64(v) => v.iter().for_each(|x| out.extend_from_slice(&x.to_le_bytes())),
        Array::F64(v) => v.iter().for_each(|x| out.extend_from_slice(&x.to_le_bytes())),
        Array::Bool(v) => v.iter().for_each(|x| out.push(u8::from(*x))),
        Array::String(v) => v.iter().for_each(|x| put_text(out, x)),
        Array::Array(v) => v.iter().for_each(|x| put_array(out, x)),
    }
}
