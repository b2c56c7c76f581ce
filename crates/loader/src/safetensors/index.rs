//! `model.safetensors.index.json`: which tensor is in which shard.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Component, Path};

use crate::LoadError;
use crate::mmap::read_bounded;

/// The file name of a checkpoint that is not sharded.
pub const SINGLE_NAME: &str = "model.safetensors";
/// The index of a sharded checkpoint.
pub const INDEX_NAME: &str = "model.safetensors.index.json";
/// The largest index accepted, bytes: about a million tensors.
const MAX_INDEX: u64 = 128 << 20;

/// A parsed index; every shard in it is a plain file name.
#[derive(Clone, Debug)]
pub struct ShardIndex {
    map: BTreeMap<String, String>,
}

#[derive(serde::Deserialize)]
struct Raw {
    weight_map: BTreeMap<String, String>,
}

impl ShardIndex {
    /// Reads the index at `path`.
    ///
    /// # Errors
    /// [`LoadError::Io`], [`LoadError::FileTooLarge`], [`LoadError::Json`], [`LoadError::BadShard`].
    pub fn open(path: &Path) -> Result<Self, LoadError> {
        let bytes = read_bounded(path, "a safetensors index", MAX_INDEX)?;
        Self::parse(&bytes).map_err(|e| e.in_file(path))
    }

    /// Parses an index.
    ///
    /// # Errors
    /// [`LoadError::Json`]; [`LoadError::BadShard`] for shards that are not the name of a safetensors file in the same
    /// folder: an index must not reach into other folders, and must not name an index, itself among them.
    pub fn parse(json: &[u8]) -> Result<Self, LoadError> {
        let raw: Raw =
            serde_json::from_slice(json).map_err(|source| LoadError::Json { what: "the safetensors index", source })?;
        for (tensor, shard) in &raw.weight_map {
            let mut parts = Path::new(shard).components();
            let plain = matches!((parts.next(), parts.next()), (Some(Component::Normal(_)), None));
            let reason = if !plain || shard.contains(['/', '\\']) {
                "a shard must be in the folder of the index"
            } else if shard.ends_with(".json") {
                "an index must not name an index, which would never end"
            } else if !shard.ends_with(".safetensors") {
                "only safetensors shards are read"
            } else {
                continue;
            };
            return Err(LoadError::BadShard { tensor: tensor.clone(), shard: shard.clone(), reason });
        }
        Ok(Self { map: raw.weight_map })
    }

    /// The shards, each once.
    pub fn shards(&self) -> BTreeSet<&str> {
        self.map.values().map(String::as_str).collect()
    }

    /// The shard that holds `tensor`.
    pub fn shard_of(&self, tensor: &str) -> Option<&str> {
        self.map.get(tensor).map(String::as_str)
    }

    /// Tensors and their shards.
    pub fn entries(&self) -> impl Iterator<Item = (&str, &str)> {
        self.map.iter().map(|(t, s)| (t.as_str(), s.as_str()))
    }
}
