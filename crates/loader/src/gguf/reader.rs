//! The reader: every claim of the file is checked before it is used.

use std::collections::{HashMap, HashSet};
use std::path::{Path, PathBuf};

use bitnet_model::Architecture;
use ternary_kernels::SharedBytes;

use super::cursor::{Cursor, read_value};
use super::layout;
use super::split::{self, SplitPlace};
use super::tensor_info::{TensorInfo, TensorType};
use super::types::{self, GgmlType, SizeError};
use super::value::{Metadata, Value};
use super::{DEFAULT_ALIGNMENT, MAGIC, MAX_ALIGNMENT};
use crate::LoadError;
use crate::mmap::map_file;

/// A GGUF file whose header has been read and checked; tensor data stay in the mapping. The parts of a split file are
/// one.
#[derive(Clone, Debug)]
pub struct Gguf {
    path: Option<PathBuf>,
    version: u32,
    metadata: Metadata,
    tensors: Vec<TensorInfo>,
    index: HashMap<String, usize>,
    /// The file, or the parts of a split one in order.
    data: Vec<Data>,
}

/// The bytes of one file.
#[derive(Clone, Debug)]
struct Data {
    bytes: SharedBytes,
    /// Offset of the data section in the file, bytes.
    start: u64,
    alignment: u64,
    /// Where the file is, if it came from a path.
    path: Option<PathBuf>,
}

/// One file: a whole model, or a part of a split one.
pub(super) struct PartFile {
    version: u32,
    pub(super) metadata: Metadata,
    pub(super) tensors: Vec<TensorInfo>,
    data: Data,
}

impl PartFile {
    /// Reads a header. `architecture` is that of the first part, which the others need not repeat.
    pub(super) fn read(bytes: SharedBytes, architecture: Option<&str>) -> Result<Self, LoadError> {
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
        let architecture = metadata.str("general.architecture")?.or(architecture).unwrap_or("").to_owned();

        let mut tensors = Vec::new();
        let mut names = HashSet::new();
        for _ in 0..n_tensors {
            let info = read_info(&mut r, alignment)?;
            if !names.insert(info.name.clone()) {
                return Err(LoadError::DuplicateTensor { tensor: info.name });
            }
            tensors.push(info);
        }
        let start = r.offset().next_multiple_of(alignment); // Below 2^63: no overflow.
        place(&mut tensors, start, &bytes, &architecture, alignment)?;
        Ok(Self { version, metadata, tensors, data: Data { bytes, start, alignment, path: None } })
    }

    /// With the path that it came from.
    pub(super) fn at(mut self, path: &Path) -> Self {
        self.data.path = Some(path.to_path_buf());
        self
    }
}

impl Gguf {
    /// Maps the file at `path` and reads its header. If it is a part of a split file, all parts are opened; they must
    /// be next to it under the names that splitting programs use.
    ///
    /// # Errors
    /// [`LoadError::Io`]; [`LoadError::Split`] for parts that are missing or do not belong together;
    /// [`LoadError::InFile`] around any error in the file.
    pub fn open(path: &Path) -> Result<Self, LoadError> {
        let part = PartFile::read(map_file(path)?, None).map_err(|e| e.in_file(path))?.at(path);
        let parts = match SplitPlace::of(&part.metadata).map_err(|e| e.in_file(path))? {
            None => vec![part],
            Some(place) => split::read_all(path, place)?,
        };
        let mut file = Self::of(parts).map_err(|e| e.in_file(path))?;
        file.path = Some(path.to_path_buf());
        Ok(file)
    }

    /// Reads the header of a whole GGUF file in memory.
    ///
    /// # Errors
    /// Anything that is wrong in the file: see the GGUF and tensor variants of [`LoadError`].
    pub fn from_bytes(bytes: SharedBytes) -> Result<Self, LoadError> {
        let part = PartFile::read(bytes, None)?;
        match SplitPlace::of(&part.metadata)? {
            None => Self::of(vec![part]),
            Some(place) => Err(place.alone()),
        }
    }

    fn of(parts: Vec<PartFile>) -> Result<Self, LoadError> {
        let mut file = Self {
            path: None,
            version: 0,
            metadata: Metadata::default(),
            tensors: Vec::new(),
            index: HashMap::new(),
            data: Vec::new(),
        };
        for (n, part) in parts.into_iter().enumerate() {
            // The description of the model is in the first part.
            if n == 0 {
                (file.version, file.metadata) = (part.version, part.metadata);
            }
            for mut info in part.tensors {
                info.part = n;
                if file.index.insert(info.name.clone(), file.tensors.len()).is_some() {
                    return Err(LoadError::DuplicateTensor { tensor: info.name });
                }
                file.tensors.push(info);
            }
            file.data.push(part.data);
        }
        Ok(file)
    }

    /// The path of the file, if it came from one.
    pub fn path(&self) -> Option<&Path> {
        self.path.as_deref()
    }

    /// Where all its files are, those of a split one in order; `None` of bytes in memory.
    pub(crate) fn paths(&self) -> Option<Vec<PathBuf>> {
        self.data.iter().map(|d| d.path.clone()).collect()
    }

    /// The version of the container, 2 or 3.
    pub fn version(&self) -> u32 {
        self.version
    }

    /// Alignment of the tensors, bytes; of a split file that in its first part.
    pub fn alignment(&self) -> u64 {
        self.data.first().map_or(DEFAULT_ALIGNMENT, |d| d.alignment)
    }

    /// Offset of the data section in the file, bytes; for a split file that in its first part.
    pub fn data_start(&self) -> u64 {
        self.data.first().map_or(0, |d| d.start)
    }

    /// The number of files: more than one if the model was split.
    pub fn parts(&self) -> usize {
        self.data.len()
    }

    /// The whole file, bytes; of a split file all parts together.
    pub fn file_len(&self) -> u64 {
        self.data.iter().map(|d| d.bytes.len() as u64).sum()
    }

    /// Reads a byte of each page of a small file, so that threads which read all of it soon do not wait for pages one by one.
    pub(crate) fn touch(&self) {
        /// More takes longer than a thread is to be kept waiting.
        const MOST: u64 = 8 << 20;
        const PAGE: usize = 4096;
        if self.file_len() <= MOST {
            let pages = self.data.iter().flat_map(|data| data.bytes.iter().step_by(PAGE));
            std::hint::black_box(pages.fold(0, |sum, byte| sum ^ byte));
        }
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
    /// The errors of [`TensorInfo::usable_type`]; [`LoadError::TensorBytes`] if an I2_S, TL1 or TL2 tensor does not
    /// have the size of the one layout that is read.
    pub fn data(&self, info: &TensorInfo) -> Result<(GgmlType, SharedBytes), LoadError> {
        let ty = info.usable_type(self.architecture())?;
        // The tensors of a file name its parts; that of another file may not.
        let (file, alignment) = self.data.get(info.part).map_or((None, DEFAULT_ALIGNMENT), |d| (Some(d), d.alignment));
        let nbytes = info.nbytes.unwrap_or(info.room);
        if matches!(ty, GgmlType::I2S | GgmlType::Tl1 | GgmlType::Tl2) && !fills(nbytes, info, alignment) {
            // The types' sizes are not multiples of anything, so a foreign variant shows in the distance to the next
            // tensor.
            return Err(LoadError::TensorBytes {
                tensor: info.name.clone(),
                ty: ty.name().to_owned(),
                expected: nbytes,
                got: info.room,
            });
        }
        let range = file
            .and_then(|d| d.start.checked_add(info.offset))
            .and_then(|start| Some((start, start.checked_add(nbytes)?)))
            .and_then(|(start, end)| Some(usize::try_from(start).ok()?..usize::try_from(end).ok()?));
        let slice = file.zip(range).and_then(|(d, r)| d.bytes.slice(r)).ok_or_else(|| LoadError::OutOfFile {
            tensor: info.name.clone(),
            ty: ty.name().to_owned(),
            start: info.offset,
            end: info.offset.saturating_add(nbytes),
            file_len: file.map_or(0, |d| d.bytes.len() as u64),
        })?;
        Ok((ty, slice))
    }
}

/// Magic and version; leaves the cursor after them.
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
    Ok(TensorInfo {
        name,
        dims,
        n_dims: n_dims as usize,
        type_id,
        ty,
        offset,
        nbytes: None,
        room: 0,
        last: false,
        part: 0,
    })
}

/// Decides types and sizes, and checks that every tensor is in the file and no two overlap.
fn place(
    tensors: &mut [TensorInfo],
    data_start: u64,
    bytes: &[u8],
    architecture: &str,
    alignment: u64,
) -> Result<(), LoadError> {
    let file_len = bytes.len() as u64;
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
        // The bytes from its beginning to the next one; fewer, or none, if the file ends before.
        let start = data_start.saturating_add(t.offset);
        let bytes = usize::try_from(start).ok().and_then(|s| bytes.get(s..)).unwrap_or(&[]);
        decide(t, architecture, alignment, bytes)?;
        let need = t.nbytes.unwrap_or(0);
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

/// Settles an ambiguous id by the size of the tensor or by the architecture, and computes the size. `bytes` are those
/// from the tensor's beginning on.
fn decide(t: &mut TensorInfo, architecture: &str, alignment: u64, bytes: &[u8]) -> Result<(), LoadError> {
    if let TensorType::Ambiguous(id) = t.ty
        && let Some(collision) = types::collision(id).filter(|c| !c.by_size.is_empty())
        && let Some(ty) = layout::settle(t, collision, architecture, alignment, bytes)
    {
        t.ty = TensorType::Known(ty);
    }
    if let TensorType::Ambiguous(id) = t.ty
        && let Some(in_bitnet) = types::collision(id).and_then(|c| c.in_bitnet)
    {
        // Ternary models of architecture `llama` exist as well, and of others that are not BitNet's own. There the size
        // is the evidence: these types take a quarter of a byte per weight and less, those that llama.cpp has or had
        // under the same ids more than twice that.
        let by_size = || {
            let size = in_bitnet.nbytes(t.rows(), t.cols()).ok()?;
            // 42 is left out, and so are short rows, for which the sizes are close.
            let telling = match in_bitnet {
                GgmlType::I2S => true,
                GgmlType::Tl1 | GgmlType::Tl2 => id != 42 && t.cols() >= 256,
                _ => false,
            };
            (telling && padded(size, t.room, alignment)).then_some(())
        };
        if types::is_bitnet_architecture(architecture) || (is_known(architecture) && by_size().is_some()) {
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

/// Whether ternary models of this architecture are read.
fn is_known(architecture: &str) -> bool {
    Architecture::from_gguf(architecture).is_some()
}

/// Whether `need` bytes and at most a padding fill `room`.
fn padded(need: u64, room: u64, alignment: u64) -> bool {
    room.checked_sub(need).is_some_and(|rest| rest < alignment)
}

/// Whether the tensor fills the distance to the next one; after the last one a file may hold anything.
fn fills(need: u64, info: &TensorInfo, alignment: u64) -> bool {
    padded(need, info.room, alignment) || (info.last && info.room >= need)
}
