//! safetensors checkpoints: one file, or several under `model.safetensors.index.json`.
//!
//! The `safetensors` crate parses and validates the format itself (header, offsets, dtypes) over the mapping; this
//! module adds checks for duplicate names in a header, shards, and the ownership of the bytes.
#![deny(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects,
    clippy::cast_possible_truncation
)]

mod file;
mod index;
mod wrappers;
mod write;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

pub use ::safetensors::Dtype;
use ternary_kernels::SharedBytes;

pub use file::SafetensorsFile;
pub use index::{INDEX_NAME, SINGLE_NAME, ShardIndex};
pub use write::{NewTensor, WriteBytes, write_file};

use crate::LoadError;

/// One tensor of a checkpoint: dtype, shape and a slice of the mapping.
#[derive(Clone, Debug)]
pub struct StTensor {
    /// The type of its values.
    pub dtype: Dtype,
    /// Its shape, slowest dimension first.
    pub shape: Vec<usize>,
    /// Its bytes, little-endian, row-major.
    pub bytes: SharedBytes,
}

/// All tensors of a safetensors checkpoint.
#[derive(Clone, Debug)]
pub struct Safetensors {
    path: PathBuf,
    files: Vec<PathBuf>,
    tensors: BTreeMap<String, StTensor>,
}

impl Safetensors {
    /// Opens a `.safetensors` file, an index file (`*.index.json`), or a folder that holds either
    /// (`model.safetensors` is preferred, as transformers does).
    ///
    /// # Errors
    /// [`LoadError::NoModel`] if a folder holds neither; [`LoadError::BadShard`], [`LoadError::MissingShard`],
    /// [`LoadError::MissingTensor`] and [`LoadError::DuplicateTensor`] for an index that does not fit its shards;
    /// anything that is wrong in a file.
    pub fn open(path: &Path) -> Result<Self, LoadError> {
        if path.is_dir() {
            let single = path.join(SINGLE_NAME);
            if single.is_file() {
                return Self::single(&single);
            }
            let index = path.join(INDEX_NAME);
            if index.is_file() {
                return Self::sharded(&index);
            }
            let reason = format!("the folder has neither {SINGLE_NAME} nor {INDEX_NAME} nor a GGUF file");
            return Err(LoadError::NoModel { path: path.to_path_buf(), reason });
        }
        if path.extension().is_some_and(|e| e == "json") { Self::sharded(path) } else { Self::single(path) }
    }

    fn single(path: &Path) -> Result<Self, LoadError> {
        let file = SafetensorsFile::open(path)?;
        let tensors = file.tensors().map_err(|e| e.in_file(path))?;
        Ok(Self { path: path.to_path_buf(), files: vec![path.to_path_buf()], tensors })
    }

    fn sharded(path: &Path) -> Result<Self, LoadError> {
        let index = ShardIndex::open(path)?;
        let folder = path.parent().unwrap_or(Path::new(""));
        let mut tensors = BTreeMap::new();
        let mut files = Vec::new();
        for shard in index.shards() {
            let file = folder.join(shard);
            if !file.is_file() {
                return Err(LoadError::MissingShard { shard: shard.to_owned(), folder: folder.to_path_buf() });
            }
            for (name, tensor) in SafetensorsFile::open(&file)?.tensors().map_err(|e| e.in_file(&file))? {
                // A tensor that the index maps to another shard, or to none, is a second or an unlisted copy.
                if tensors.contains_key(&name) {
                    return Err(LoadError::DuplicateTensor { tensor: name }.in_file(&file));
                }
                match index.shard_of(&name) {
                    Some(s) if s == shard => {}
                    Some(other) => {
                        let hint = format!("the index says that it is in {other:?}, but it is in {shard:?}");
                        return Err(LoadError::MissingTensor { tensor: name, hint }.in_file(path));
                    }
                    None => tracing::warn!(tensor = name, shard, "tensor is not listed in the index"),
                }
                tensors.insert(name, tensor);
            }
            files.push(file);
        }
        for (name, shard) in index.entries() {
            if !tensors.contains_key(name) {
                let hint = format!("the index says that it is in {shard:?}, which does not contain it");
                return Err(LoadError::MissingTensor { tensor: name.to_owned(), hint }.in_file(path));
            }
        }
        Ok(Self { path: path.to_path_buf(), files, tensors })
    }

    /// The file or the index that was opened.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The files that hold the tensors.
    pub fn files(&self) -> &[PathBuf] {
        &self.files
    }

    /// The tensor called `name`.
    pub fn get(&self, name: &str) -> Option<&StTensor> {
        self.tensors.get(name)
    }

    /// All tensors, by name.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = (&str, &StTensor)> {
        self.tensors.iter().map(|(k, v)| (k.as_str(), v))
    }

    /// The number of tensors.
    pub fn len(&self) -> usize {
        self.tensors.len()
    }

    /// Whether there are no tensors.
    pub fn is_empty(&self) -> bool {
        self.tensors.is_empty()
    }
}
