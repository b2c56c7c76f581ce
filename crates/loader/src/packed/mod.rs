//! Packed files: weights in the layout of the kernels, which are mapped and neither copied nor packed.
//!
//! A packed file is a GGUF file. Norms, float tables and metadata are as in any other; ternary matrices are stored
//! in tensors of bytes, `packed.NAME` for the tensor `NAME` of other files, in the order of rows of the model, and keys
//! `bitnet.packed.*` say what each of them is. `docs/formats/packed.md` describes them, `docs/adr/0033-packed-files.md`
//! says why.
//!
//! A file may hold the packed weights alone ([`cache`]): what it lacks stands in the file that it was made of.
//!
//! Nothing here is trusted: sizes are checked against the layouts, and bytes that are not weights are harmless in every
//! kernel.
#![deny(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects,
    clippy::cast_possible_truncation
)]

pub mod cache;
mod warming;
pub(crate) mod write;

use std::collections::HashMap;
use std::sync::Arc;

use half::f16;
use ternary_kernels::ops::coarse::CoarsePlane;
use ternary_kernels::{FileFormat, GroupScales, KernelLayout, Scales, SharedBytes, TernaryMatrix, Twos};

use crate::LoadError;
use crate::gguf::{GgmlType, Gguf, Metadata, Value};
use warming::Movable;

/// Version of the keys and tensors.
const FORM: u64 = 1;
/// Sections begin at pages, so that a mapping of each is possible.
pub(crate) const ALIGNMENT: u32 = 4096;
/// Prefix of the names of tensors with packed weights.
const PREFIX: &str = "packed.";
/// The tensor of the coarse plane.
const PLANE: &str = "packed.coarse";
/// Prefix of all keys.
const KEYS: &str = "bitnet.packed.";
const VERSION: &str = "bitnet.packed.version";
const LAYOUT_VERSION: &str = "bitnet.packed.layout_version";
const KERNELS: &str = "bitnet.packed.kernels";
const SOURCE: &str = "bitnet.packed.source";
const NAMES: &str = "bitnet.packed.names";
const LAYOUTS: &str = "bitnet.packed.layouts";
const FORMATS: &str = "bitnet.packed.formats";
const SHAPES: &str = "bitnet.packed.shapes";
const GROUPS: &str = "bitnet.packed.group_lengths";
const SCALES: &str = "bitnet.packed.scales";
const TWOS: &str = "bitnet.packed.twos";
const COARSE: &str = "bitnet.packed.coarse";
const NOTES: &str = "bitnet.packed.notes";
const SEEN: &str = "bitnet.packed.ternary_format";

/// Whether a key of the metadata belongs to packed weights.
pub(crate) fn is_key(key: &str) -> bool {
    key.starts_with(KEYS)
}

/// The packed weights of a file.
#[derive(Clone, Debug)]
pub(crate) struct PackedWeights {
    file: Gguf,
    entries: HashMap<String, Entry>,
    /// The table that the coarse plane is of.
    coarse: Option<String>,
    /// Notes of the time when the weights were read from another file.
    pub(crate) notes: Vec<String>,
    /// Their format there, if this file does not name it.
    pub(crate) seen: Option<String>,
    /// Packed matrices and the plane, which may move to memory.
    movable: Movable,
}

/// Description of a packed matrix.
#[derive(Clone, Copy, Debug)]
struct Entry {
    layout: KernelLayout,
    format: FileFormat,
    rows: usize,
    cols: usize,
    /// Weights that share a scale; 0 if scales belong to rows or to the whole matrix.
    group_len: usize,
    /// The scale of the whole matrix; NaN if a tensor holds the scales.
    scale: f32,
    twos: Option<Twos>,
}

fn damaged(reason: impl Into<String>) -> LoadError {
    LoadError::Packed { reason: reason.into() }
}

fn needed<T>(key: &str, value: Option<T>) -> Result<T, LoadError> {
    value.ok_or_else(|| LoadError::MissingKey { key: key.to_owned(), needed_for: "packed weights" })
}

/// An array of counts.
fn counts(m: &Metadata, key: &str) -> Result<Vec<usize>, LoadError> {
    let array = needed(key, m.get(key).and_then(Value::as_array))?;
    let all = array.to_i64s().and_then(|v| v.into_iter().map(|n| usize::try_from(n).ok()).collect::<Option<Vec<_>>>());
    all.ok_or_else(|| damaged(format!("{key} is not an array of counts")))
}

impl PackedWeights {
    /// Whether `file` holds packed weights.
    pub(crate) fn are_in(file: &Gguf) -> bool {
        file.metadata().get(VERSION).is_some()
    }

    /// The errors of `file`.
    ///
    /// # Errors
    /// [`LoadError::Packed`] for another version, and for keys that contradict themselves; [`LoadError::MissingKey`].
    pub(crate) fn of(file: Gguf) -> Result<Self, LoadError> {
        let m = file.metadata();
        let versions = (needed(VERSION, m.u64(VERSION)?)?, needed(LAYOUT_VERSION, m.u64(LAYOUT_VERSION)?)?);
        let ours = (FORM, u64::from(KernelLayout::VERSION));
        if versions != ours {
            return Err(damaged(format!(
                "the file has version {} with layouts of version {}, this program reads {} with {}: pack the original file \
                 again \
                 (bitnet convert IN OUT --to packed)",
                versions.0, versions.1, ours.0, ours.1
            )));
        }
        let names = needed(NAMES, m.strings(NAMES)?)?;
        let layouts = needed(LAYOUTS, m.strings(LAYOUTS)?)?;
        let formats = needed(FORMATS, m.strings(FORMATS)?)?;
        let scales = needed(SCALES, m.f32s(SCALES)?)?;
        let (shapes, groups) = (counts(m, SHAPES)?, counts(m, GROUPS)?);
        let twos = if m.get(TWOS).is_some() { counts(m, TWOS)? } else { Vec::new() };
        let (shapes, rest) = shapes.as_chunks::<2>();
        let (twos, more) = twos.as_chunks::<3>();
        let n = names.len();
        let lengths = [layouts.len(), formats.len(), scales.len(), shapes.len(), groups.len()];
        if lengths.iter().any(|len| *len != n) || !rest.is_empty() || !more.is_empty() || ![0, n].contains(&twos.len())
        {
            return Err(damaged(format!("{NAMES} has {n} entries, and another array more or fewer")));
        }
        let mut entries = HashMap::new();
        for (i, name) in names.iter().enumerate() {
            let text = layouts.get(i).unwrap_or_default();
            let layout = KernelLayout::from_name(text).ok_or_else(|| {
                damaged(format!(
                    "{name:?} has layout {text:?}, which this program does not know: pack the original file again"
                ))
            })?;
            let format = formats.get(i).and_then(|f| FileFormat::ALL.iter().find(|a| a.name() == f));
            let [rows, cols] = shapes.get(i).copied().unwrap_or_default();
            let entry = Entry {
                layout,
                format: format.copied().unwrap_or(FileFormat::Trits),
                rows,
                cols,
                group_len: groups.get(i).copied().unwrap_or_default(),
                scale: scales.get(i).copied().unwrap_or(f32::NAN),
                twos: match twos.get(i) {
                    Some([_, _, 0]) | None => None,
                    Some(&[row, col, count]) => Some(Twos { row, col, count }),
                },
            };
            if entries.insert(name.to_owned(), entry).is_some() {
                return Err(LoadError::DuplicateTensor { tensor: name.to_owned() });
            }
        }
        let coarse = m.str(COARSE)?.map(str::to_owned);
        let notes = m.strings(NOTES)?.map(|n| n.iter().map(str::to_owned).collect()).unwrap_or_default();
        let seen = m.str(SEEN)?.map(str::to_owned);
        let movable = Movable::new(large(&file));
        Ok(Self { file, entries, coarse, notes, seen, movable })
    }

    /// Refuses a file of the cache, which holds packed weights alone.
    ///
    /// # Errors
    /// [`LoadError::Packed`], with the file to load instead.
    pub(crate) fn expect_model(&self) -> Result<(), LoadError> {
        let m = self.file.metadata();
        if m.get("general.architecture").is_some() {
            return Ok(());
        }
        let source = m.str(SOURCE)?.and_then(cache::first_file).unwrap_or("another file");
        Err(damaged(format!("the file holds the packed weights of {source} and nothing else: load that file")))
    }

    /// The file.
    pub(crate) fn file(&self) -> &Gguf {
        &self.file
    }

    /// Says that all packed weights are read soon, so that a disk can read them in one stream, ahead of the first token.
    /// It takes some milliseconds for each gigabyte, so another thread does it. Bytes in memory come from no disk.
    pub(crate) fn prefetch(&self) {
        if self.file.paths().is_some() {
            self.movable.prefetch();
        }
    }

    /// Moves packed weights to huge pages in the background: see [`warming`].
    pub(crate) fn move_to_huge_pages(&self) {
        self.movable.start();
    }

    /// Names of the tensors that the file would have were it not packed.
    pub(crate) fn names(&self) -> impl Iterator<Item = &str> {
        let plain = self.file.tensors().iter().map(|t| t.name()).filter(|n| !n.starts_with(PREFIX));
        plain.chain(self.entries.keys().map(String::as_str))
    }

    /// The shape of the packed matrix `name`, slowest dimension first.
    pub(crate) fn shape(&self, name: &str) -> Option<Vec<u64>> {
        self.entries.get(name).map(|e| vec![e.rows as u64, e.cols as u64])
    }

    /// The layout of the packed matrix `name`.
    pub(crate) fn layout(&self, name: &str) -> Option<KernelLayout> {
        self.entries.get(name).map(|e| e.layout)
    }

    /// The bytes of a tensor of one type.
    fn tensor(&self, name: &str, expected: GgmlType) -> Result<SharedBytes, LoadError> {
        let info = self.file.tensor(name).ok_or_else(|| LoadError::MissingTensor {
            tensor: name.to_owned(),
            hint: "the keys of the packed file name it: the file is damaged".to_owned(),
        })?;
        let (ty, bytes) = self.file.data(info)?;
        match ty == expected {
            true => Ok(self.movable.get(name).unwrap_or(bytes)),
            false => Err(damaged(format!("tensor {name:?} has type {ty}, it must be {expected}"))),
        }
    }

    /// The packed matrix `name`, if there is one.
    ///
    /// # Errors
    /// Tensors that are missing, of a wrong type or size; invalid scales.
    pub(crate) fn matrix(&self, name: &str) -> Result<Option<TernaryMatrix>, LoadError> {
        let Some(e) = self.entries.get(name) else { return Ok(None) };
        let in_tensor = |source| LoadError::Ternary { tensor: name.to_owned(), source };
        let bytes = self.tensor(&format!("{PREFIX}{name}"), GgmlType::I8)?;
        let of_rows = format!("{PREFIX}{name}.scales");
        let scales = if e.group_len > 0 {
            let stored = self.tensor(&of_rows, GgmlType::F16)?;
            let (values, _) = stored.as_chunks::<2>();
            let values: Arc<[f16]> = values.iter().map(|b| f16::from_le_bytes(*b)).collect();
            Scales::Groups(GroupScales::new(e.group_len, e.rows, e.cols, values).map_err(in_tensor)?)
        } else if e.scale.is_nan() {
            let stored = self.tensor(&of_rows, GgmlType::F32)?;
            let (values, _) = stored.as_chunks::<4>();
            Scales::Rows(values.iter().map(|b| f32::from_le_bytes(*b)).collect())
        } else {
            Scales::Tensor(e.scale)
        };
        let w = TernaryMatrix::from_packed(e.format, e.layout, (e.rows, e.cols), bytes, scales, e.twos);
        w.map(Some).map_err(in_tensor)
    }

    /// The coarse plane of the table `name`, `[rows, cols]`, if there is one.
    ///
    /// # Errors
    /// A tensor that is missing or of another size.
    pub(crate) fn coarse(&self, name: &str, rows: usize, cols: usize) -> Result<Option<CoarsePlane>, LoadError> {
        if self.coarse.as_deref() != Some(name) {
            return Ok(None);
        }
        let bytes = self.tensor(PLANE, GgmlType::I8)?;
        let plane = CoarsePlane::from_shared(rows, cols, bytes);
        plane.map(Some).map_err(|source| LoadError::Ternary { tensor: PLANE.to_owned(), source })
    }
}

/// Packed matrices and the plane, in the order of the file.
fn large(file: &Gguf) -> Vec<(String, SharedBytes)> {
    let mut all = Vec::new();
    for t in file.tensors().iter().filter(|t| t.name().starts_with(PREFIX)) {
        if let Ok((GgmlType::I8, bytes)) = file.data(t) {
            all.push((t.name().to_owned(), bytes));
        }
    }
    all
}
