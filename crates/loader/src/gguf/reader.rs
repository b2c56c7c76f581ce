//! The reader: every claim of the file is checked before it is used.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use ternary_kernels::SharedBytes;

use super::tensor_info::{TensorInfo, TensorType};
use super::types::{self, GgmlType, SizeError};
use super::value::{Array, Metadata, StringArray, Value, ValueKind};
use super::{DEFAULT_ALIGNMENT, MAGIC, MAX_ALIGNMENT, MAX_NAME};
use crate::LoadError;
use crate::mmap::map_file;

/// Arrays inside arrays are legal; nobody writes deep ones, and each level is a recursion.
const MAX_ARRAY_DEPTH: usize = 4;

/// A GGUF file whose header has been read and checked; tensor data stay in the mapping.
#[derive(Clone, Debug)]
pub struct Gguf {
    path: Option<PathBuf>,
    version: u32,
    alignment: u64,
    metadata: Metadata,
    tensors: Vec<TensorInfo>,
    index: HashMap<String, usize>,
    /// Where the data section begins in the file, bytes.
    data_start: u64,
    bytes: SharedBytes,
}

impl Gguf {
    /// Maps the file at `path` and reads its header.
    ///
    /// # Errors
    /// [`LoadError::Io`], or [`LoadError::InFile`] around anything that is wrong in the file.
    pub fn open(path: &Path) -> Result<Self, LoadError> {
        let mut file = Self::from_bytes(map_file(path)?).map_err(|e| e.in_file(path))?;
        file.path = Some(path.to_path_buf());
        Ok(file)
    }

    /// Reads the header of a whole GGUF file in memory.
    ///
    /// # Errors
    /// Anything that is wrong in the file: see the GGUF and tensor variants of [`LoadError`].
    pub fn from_bytes(bytes: SharedBytes) -> Result<Self, LoadError> {
        let mut r = Cursor::new(&bytes);
        let version = read_version(&mut r)?;
        // A tensor description takes at least 24 bytes (empty name, no dimensions), an entry at least 13.
        let n_tensors = r.count("the list of tensors", 24)?;
        let n_entries = r.count("the list of metadata", 13)?;

        let mut metadata = Metadata::default();
        for _ in 0..n_entries {
            let key = r.name("a metadata key")?;
            let kind = r.value_kind(&key)?;
            let value = read_value(&mut r, &key, kind)?;
            metadata.insert(key, value)?;
        }
        let alignment = alignment_of(&metadata)?;
        let architecture = metadata.str("general.architecture")?.unwrap_or("").to_owned();

        let mut tensors = Vec::new();
        let mut index = HashMap::new();
        for _ in 0..n_tensors {
            let info = read_info(&mut r, alignment)?;
            if index.insert(info.name.clone(), tensors.len()).is_some() {
                return Err(LoadError::DuplicateTensor { tensor: info.name });
            }
            tensors.push(info);
        }
        let data_start = r.offset().next_multiple_of(alignment); // Below 2^63: no overflow.
        place(&mut tensors, data_start, r.len(), &architecture, alignment)?;
        Ok(Self { path: None, version, alignment, metadata, tensors, index, data_start, bytes })
    }

    /// Where the file came from, if it came from a path.
    pub fn path(&self) -> Option<&Path> {
        self.path.as_deref()
    }

    /// The version of the container, 2 or 3.
    pub fn version(&self) -> u32 {
        self.version
    }

    /// Alignment of the tensors, bytes.
    pub fn alignment(&self) -> u64 {
        self.alignment
    }

    /// Where the data section begins in the file, bytes.
    pub fn data_start(&self) -> u64 {
        self.data_start
    }

    /// The whole file, bytes.
    pub fn file_len(&self) -> u64 {
        self.bytes.len() as u64
    }

    /// The metadata.
    pub fn metadata(&self) -> &Metadata {
        &self.metadata
    }

    /// `general.architecture`, or the empty string.
    pub fn architecture(&self) -> &str {
        self.metadata.get("general.architecture").and_then(Value::as_str).unwrap_or("")
    }

    /// All tensors in the order of the file.
    pub fn tensors(&self) -> &[TensorInfo] {
        &self.tensors
    }

    /// The tensor called `name`.
    pub fn tensor(&self, name: &str) -> Option<&TensorInfo> {
        self.index.get(name).and_then(|&i| self.tensors.get(i))
    }

    /// Type and bytes of a tensor of this file, if they can be used. The bytes are a slice of the mapping.
    ///
    /// # Errors
    /// Those of [`TensorInfo::usable_type`]; [`LoadError::TensorBytes`] if an I2_S, TL1 or TL2 tensor does not have
    /// the size of the one layout that is read.
    pub fn data(&self, info: &TensorInfo) -> Result<(GgmlType, SharedBytes), LoadError> {
        let ty = info.usable_type(self.architecture())?;
        let nbytes = info.nbytes.unwrap_or(info.room);
        if matches!(ty, GgmlType::I2S | GgmlType::Tl1 | GgmlType::Tl2) && !fills(nbytes, info, self.alignment) {
            // The types' sizes are no multiples of anything, so a foreign variant shows in the distance to the next tensor.
            return Err(LoadError::TensorBytes {
                tensor: info.name.clone(),
                ty: ty.name().to_owned(),
                expected: nbytes,
                got: info.room,
            });
        }
        let range = self
            .data_start
            .checked_add(info.offset)
            .and_then(|start| Some((start, start.checked_add(nbytes)?)))
            .and_then(|(start, end)| Some(usize::try_from(start).ok()?..usize::try_from(end).ok()?));
        let slice = range.and_then(|r| self.bytes.slice(r)).ok_or_else(|| LoadError::OutOfFile {
            tensor: info.name.clone(),
            ty: ty.name().to_owned(),
            start: info.offset,
            end: info.offset.saturating_add(nbytes),
            file_len: self.bytes.len() as u64,
        })?;
        Ok((ty, slice))
    }
}

/// Magic and version; leaves the cursor behind them.
fn read_version(r: &mut Cursor<'_>) -> Result<u32, LoadError> {
    let magic = r.bytes.get(..4).unwrap_or(r.bytes);
    if magic != MAGIC {
        // Some writers for big-endian machines swapped the magic as well.
        if magic == b"FUGG" {
            return Err(LoadError::BigEndianGguf);
        }
        return Err(LoadError::NotGguf { found: magic.to_vec() });
    }
    r.take("the magic", 4)?;
    let version = r.u32("the version")?;
    match version {
        2 | 3 => Ok(version),
        1 => Err(LoadError::GgufVersion { version, way_out: "it was replaced within weeks; convert the model again" }),
        // A version of 2 or 3 read from the wrong end.
        v if matches!(v.swap_bytes(), 1..=3) => Err(LoadError::BigEndianGguf),
        _ => Err(LoadError::GgufVersion {
            version,
            way_out: "the file is damaged, or newer than this program: convert the model to version 3",
        }),
    }
}

fn alignment_of(metadata: &Metadata) -> Result<u64, LoadError> {
    let Some(value) = metadata.get("general.alignment") else { return Ok(DEFAULT_ALIGNMENT) };
    match value.to_u64() {
        Some(a) if a.is_power_of_two() && a <= MAX_ALIGNMENT => Ok(a),
        _ => Err(LoadError::BadAlignment { value: value.to_string(), max: MAX_ALIGNMENT }),
    }
}

/// One tensor description. `room` and the final type are set by [`place`].
fn read_info(r: &mut Cursor<'_>, alignment: u64) -> Result<TensorInfo, LoadError> {
    let name = r.name("a tensor name")?;
    let n_dims = r.u32("a tensor's number of dimensions")?;
    if n_dims > 4 {
        return Err(LoadError::TooManyDims { tensor: name, dims: n_dims });
    }
    let mut dims = [1u64; 4];
    let mut product = Some(1u64);
    for d in dims.iter_mut().take(n_dims as usize) {
        *d = r.u64("a tensor's dimensions")?;
        product = product.and_then(|p| p.checked_mul(*d));
    }
    // A dimension of 0 hides an overflow of the others, and no model needs it: rows() multiplies them in another order.
    let others = dims.iter().skip(1).try_fold(1u64, |p, d| p.checked_mul(*d));
    if product.is_none() || others.is_none() {
        return Err(LoadError::ShapeOverflow { tensor: name, dims: dims.to_vec() });
    }
    let type_id = r.u32("a tensor's type")?;
    let offset = r.u64("a tensor's offset")?;
    if !offset.is_multiple_of(alignment) {
        return Err(LoadError::Misaligned { tensor: name, offset, alignment });
    }
    let ty = match GgmlType::from_id(type_id) {
        Some(t) => TensorType::Known(t),
        None if types::collision(type_id).is_some() => TensorType::Ambiguous(type_id),
        None => TensorType::Unknown(type_id),
    };
    Ok(TensorInfo { name, dims, n_dims: n_dims as usize, type_id, ty, offset, nbytes: None, room: 0, last: false })
}

/// Decides types and sizes, and checks that every tensor lies in the file and no two overlap.
fn place(
    tensors: &mut [TensorInfo],
    data_start: u64,
    file_len: u64,
    architecture: &str,
    alignment: u64,
) -> Result<(), LoadError> {
    let data_len = file_len.saturating_sub(data_start);
    let mut order: Vec<usize> = (0..tensors.len()).collect();
    order.sort_by_key(|&i| tensors.get(i).map(|t| t.offset));

    // From the last tensor to the first, so that the beginning of the next is known.
    let mut next: Option<(u64, String)> = None;
    for &i in order.iter().rev() {
        let Some(t) = tensors.get_mut(i) else { continue };
        let end = next.as_ref().map_or(data_len, |n| n.0);
        t.last = next.is_none();
        t.room = end.saturating_sub(t.offset);
        decide(t, architecture, alignment)?;
        let need = t.nbytes.unwrap_or(0);
        let start = data_start.saturating_add(t.offset);
        if t.offset.checked_add(need).is_none_or(|e| e > data_len) {
            return Err(LoadError::OutOfFile {
                tensor: t.name.clone(),
                ty: t.ty.to_string(),
                start,
                end: start.saturating_add(need),
                file_len,
            });
        }
        if let Some((offset, second)) = &next
            && need > t.room
        {
            return Err(LoadError::Overlap { first: t.name.clone(), second: second.clone(), offset: *offset });
        }
        // A tensor without bytes hides nothing from the one before it.
        if t.nbytes != Some(0) {
            next = Some((t.offset, t.name.clone()));
        }
    }
    Ok(())
}

/// Settles an ambiguous id by the architecture, and computes the size.
fn decide(t: &mut TensorInfo, architecture: &str, alignment: u64) -> Result<(), LoadError> {
    if let TensorType::Ambiguous(id) = t.ty
        && let Some(in_bitnet) = types::collision(id).and_then(|c| c.in_bitnet)
    {
        // Ternary models of architecture `llama` exist as well. There the size is the evidence: these types take a quarter
        // of a byte per weight and less, those that llama.cpp has or had under the same ids more than twice that.
        let by_size = || {
            let size = in_bitnet.nbytes(t.rows(), t.cols()).ok()?;
            // 42 is left out, and short rows are, where the sizes come close.
            let telling = match in_bitnet {
                GgmlType::I2S => true,
                GgmlType::Tl1 | GgmlType::Tl2 => id != 42 && t.cols() >= 256,
                _ => false,
            };
            (telling && padded(size, t.room, alignment)).then_some(())
        };
        if types::is_bitnet_architecture(architecture) || (architecture == "llama" && by_size().is_some()) {
            t.ty = TensorType::Known(in_bitnet);
        }
    }
    let TensorType::Known(ty) = t.ty else { return Ok(()) };
    let nbytes = ty.nbytes(t.rows(), t.cols()).map_err(|e| match e {
        SizeError::PartialBlock { block } => {
            LoadError::PartialBlock { tensor: t.name.clone(), ty: ty.name(), block, cols: t.cols() }
        }
        SizeError::Overflow => LoadError::ShapeOverflow { tensor: t.name.clone(), dims: t.dims().to_vec() },
    })?;
    t.nbytes = Some(nbytes);
    Ok(())
}

/// Whether `need` bytes and at most a padding fill `room`.
fn padded(need: u64, room: u64, alignment: u64) -> bool {
    room.checked_sub(need).is_some_and(|rest| rest < alignment)
}

/// Whether the tensor fills the distance to the next one; behind the last one a file may hold anything.
fn fills(need: u64, info: &TensorInfo, alignment: u64) -> bool {
    padded(need, info.room, alignment) || (info.last && info.room >= need)
}

fn read_value(r: &mut Cursor<'_>, key: &str, kind: ValueKind) -> Result<Value, LoadError> {
    const WHAT: &str = "a metadata value";
    Ok(match kind {
        ValueKind::U8 => Value::U8(r.u8(WHAT)?),
        ValueKind::I8 => Value::I8(i8::from_le_bytes(r.array(WHAT)?)),
        ValueKind::U16 => Value::U16(u16::from_le_bytes(r.array(WHAT)?)),
        ValueKind::I16 => Value::I16(i16::from_le_bytes(r.array(WHAT)?)),
        ValueKind::U32 => Value::U32(r.u32(WHAT)?),
        ValueKind::I32 => Value::I32(i32::from_le_bytes(r.array(WHAT)?)),
        ValueKind::F32 => Value::F32(f32::from_le_bytes(r.array(WHAT)?)),
        ValueKind::U64 => Value::U64(r.u64(WHAT)?),
        ValueKind::I64 => Value::I64(i64::from_le_bytes(r.array(WHAT)?)),
        ValueKind::F64 => Value::F64(f64::from_le_bytes(r.array(WHAT)?)),
        ValueKind::Bool => Value::Bool(bool_of(r.u8(WHAT)?, key)?),
        ValueKind::String => Value::String(r.text(key)?.to_owned()),
        ValueKind::Array => Value::Array(read_array(r, key, 1)?),
    })
}

fn bool_of(byte: u8, key: &str) -> Result<bool, LoadError> {
    match byte {
        0 => Ok(false),
        1 => Ok(true),
        value => Err(LoadError::BadBool { key: key.to_owned(), value }),
    }
}

fn read_array(r: &mut Cursor<'_>, key: &str, depth: usize) -> Result<Array, LoadError> {
    const WHAT: &str = "a metadata array";
    if depth > MAX_ARRAY_DEPTH {
        return Err(LoadError::NestedTooDeep { key: key.to_owned(), max: MAX_ARRAY_DEPTH });
    }
    let kind = r.value_kind(key)?;
    // Memory is bounded by the bytes that are left, because each element has at least this many of them.
    let element_bytes = match kind {
        ValueKind::U8 | ValueKind::I8 | ValueKind::Bool => 1,
        ValueKind::U16 | ValueKind::I16 => 2,
        ValueKind::U32 | ValueKind::I32 | ValueKind::F32 => 4,
        ValueKind::U64 | ValueKind::I64 | ValueKind::F64 | ValueKind::String => 8,
        ValueKind::Array => 12,
    };
    let n = r.count(WHAT, element_bytes)?;
    Ok(match kind {
        ValueKind::U8 => Array::U8(r.numbers(n, u8::from_le_bytes)?),
        ValueKind::I8 => Array::I8(r.numbers(n, i8::from_le_bytes)?),
        ValueKind::U16 => Array::U16(r.numbers(n, u16::from_le_bytes)?),
        ValueKind::I16 => Array::I16(r.numbers(n, i16::from_le_bytes)?),
        ValueKind::U32 => Array::U32(r.numbers(n, u32::from_le_bytes)?),
        ValueKind::I32 => Array::I32(r.numbers(n, i32::from_le_bytes)?),
        ValueKind::F32 => Array::F32(r.numbers(n, f32::from_le_bytes)?),
        ValueKind::U64 => Array::U64(r.numbers(n, u64::from_le_bytes)?),
        ValueKind::I64 => Array::I64(r.numbers(n, i64::from_le_bytes)?),
        ValueKind::F64 => Array::F64(r.numbers(n, f64::from_le_bytes)?),
        ValueKind::Bool => {
            let bytes = r.take(WHAT, n as u64)?;
            Array::Bool(bytes.iter().map(|&b| bool_of(b, key)).collect::<Result<_, _>>()?)
        }
        ValueKind::String => {
            let mut all = StringArray::with_capacity(n, 0);
            for _ in 0..n {
                all.push(r.text(key)?);
            }
            Array::String(all)
        }
        ValueKind::Array => {
            let mut all = Vec::new();
            for _ in 0..n {
                // The recursion ends at the limit above.
                all.push(read_array(r, key, depth.saturating_add(1))?);
            }
            Array::Array(all)
        }
    })
}

/// A position in the bytes of a file; every read is checked.
struct Cursor<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Cursor<'a> {
    fn new(bytes: &'a [u8]) -> Self {
        Self { bytes, at: 0 }
    }

    fn offset(&self) -> u64 {
        self.at as u64
    }

    fn len(&self) -> u64 {
        self.bytes.len() as u64
    }

    fn left(&self) -> u64 {
        self.len().saturating_sub(self.offset())
    }

    fn take(&mut self, what: &'static str, n: u64) -> Result<&'a [u8], LoadError> {
        let end = usize::try_from(n).ok().and_then(|n| self.at.checked_add(n));
        match end.and_then(|end| Some((end, self.bytes.get(self.at..end)?))) {
            Some((end, slice)) => {
                self.at = end;
                Ok(slice)
            }
            None => Err(LoadError::Truncated { what, offset: self.offset(), needed: n, left: self.left() }),
        }
    }

    fn array<const N: usize>(&mut self, what: &'static str) -> Result<[u8; N], LoadError> {
        let offset = self.offset();
        let slice = self.take(what, N as u64)?;
        slice.try_into().map_err(|_| LoadError::Truncated { what, offset, needed: N as u64, left: slice.len() as u64 })
    }

    fn u8(&mut self, what: &'static str) -> Result<u8, LoadError> {
        self.array(what).map(u8::from_le_bytes)
    }

    fn u32(&mut self, what: &'static str) -> Result<u32, LoadError> {
        self.array(what).map(u32::from_le_bytes)
    }

    fn u64(&mut self, what: &'static str) -> Result<u64, LoadError> {
        self.array(what).map(u64::from_le_bytes)
    }

    /// A count of things that take at least `each` bytes; refused where the rest of the file cannot hold them.
    fn count(&mut self, what: &'static str, each: u64) -> Result<usize, LoadError> {
        let offset = self.offset();
        let count = self.u64(what)?;
        let left = self.left();
        match count.checked_mul(each) {
            Some(bytes) if bytes <= left => {
                usize::try_from(count).map_err(|_| LoadError::CountTooLarge { what, count, offset, left })
            }
            _ => Err(LoadError::CountTooLarge { what, count, offset, left }),
        }
    }

    /// `n` numbers of `N` bytes; `n` comes from [`Cursor::count`] with the same size.
    fn numbers<T, const N: usize>(&mut self, n: usize, from: impl Fn([u8; N]) -> T) -> Result<Vec<T>, LoadError> {
        let bytes = self.take("a metadata array", (n as u64).saturating_mul(N as u64))?;
        let (chunks, _) = bytes.as_chunks::<N>();
        Ok(chunks.iter().map(|c| from(*c)).collect())
    }

    fn value_kind(&mut self, key: &str) -> Result<ValueKind, LoadError> {
        let offset = self.offset();
        let type_id = self.u32("the type of a metadata value")?;
        ValueKind::from_id(type_id).ok_or_else(|| LoadError::ValueType { key: key.to_owned(), type_id, offset })
    }

    /// A key or a tensor name.
    fn name(&mut self, what: &'static str) -> Result<String, LoadError> {
        let offset = self.offset();
        let len = self.u64(what)?;
        if len > MAX_NAME && len <= self.left() {
            return Err(LoadError::NameTooLong { what, offset, len, max: MAX_NAME });
        }
        let bytes = self.take(what, len)?;
        match std::str::from_utf8(bytes) {
            Ok(s) => Ok(s.to_owned()),
            Err(_) => Err(LoadError::NotUtf8 { what: what.to_owned(), offset }),
        }
    }

    /// A string value of `key`.
    fn text(&mut self, key: &str) -> Result<&'a str, LoadError> {
        let offset = self.offset();
        let len = self.u64("the length of a string")?;
        let bytes = self.take("a string", len)?;
        std::str::from_utf8(bytes).map_err(|_| LoadError::NotUtf8 { what: format!("the value of {key:?}"), offset })
    }
}
