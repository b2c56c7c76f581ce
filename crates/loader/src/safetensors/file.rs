//! One safetensors file.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::path::Path;

use ::safetensors::SafeTensors;
use ternary_kernels::SharedBytes;

use super::StTensor;
use crate::LoadError;
use crate::mmap::map_file;

/// A mapped safetensors file whose header has been read and checked.
#[derive(Debug)]
pub struct SafetensorsFile {
    bytes: SharedBytes,
    /// The beginning of the tensor data, bytes.
    data_start: usize,
    metadata: ::safetensors::tensor::Metadata,
}

impl SafetensorsFile {
    /// Maps the file at `path` and reads its header.
    ///
    /// # Errors
    /// [`LoadError::Io`], or [`LoadError::InFile`] around anything that is wrong in the file.
    pub fn open(path: &Path) -> Result<Self, LoadError> {
        Self::from_bytes(map_file(path)?).map_err(|e| e.in_file(path))
    }

    /// Reads the header of a whole safetensors file in memory.
    ///
    /// # Errors
    /// [`LoadError::Safetensors`] if the header is invalid, [`LoadError::DuplicateTensor`] if it names a tensor twice.
    pub fn from_bytes(bytes: SharedBytes) -> Result<Self, LoadError> {
        let (header, metadata) =
            SafeTensors::read_metadata(&bytes).map_err(|source| LoadError::Safetensors { source })?;
        // Eight bytes of length and the header itself; read_metadata has checked both against the file.
        let data_start = header.saturating_add(8);
        if let Some(tensor) = bytes.get(8..data_start).and_then(duplicate_key) {
            return Err(LoadError::DuplicateTensor { tensor });
        }
        Ok(Self { bytes, data_start, metadata })
    }

    /// The `__metadata__` of the header.
    pub fn metadata(&self) -> Option<&HashMap<String, String>> {
        self.metadata.metadata().as_ref()
    }

    /// All tensors.
    ///
    /// # Errors
    /// [`LoadError::OutOfFile`]; the header has been validated, so it does not happen.
    pub fn tensors(&self) -> Result<BTreeMap<String, StTensor>, LoadError> {
        let mut all = BTreeMap::new();
        for (name, info) in self.metadata.tensors() {
            let at = |x: usize| self.data_start.checked_add(x);
            let range = at(info.data_offsets.0).zip(at(info.data_offsets.1));
            let bytes = range.and_then(|(s, e)| self.bytes.slice(s..e)).ok_or_else(|| LoadError::OutOfFile {
                tensor: name.clone(),
                ty: format!("{:?}", info.dtype),
                start: info.data_offsets.0 as u64,
                end: info.data_offsets.1 as u64,
                file_len: self.bytes.len() as u64,
            })?;
            all.insert(name, StTensor { dtype: info.dtype, shape: info.shape.clone(), bytes });
        }
        Ok(all)
    }
}

/// The first key that occurs twice in a JSON object. The parser of the safetensors crate keeps the last silently.
fn duplicate_key(json: &[u8]) -> Option<String> {
    struct Keys(Option<String>);

    impl<'de> serde::Deserialize<'de> for Keys {
        fn deserialize<D: serde::Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
            d.deserialize_map(Visitor)
        }
    }

    struct Visitor;

    impl<'de> serde::de::Visitor<'de> for Visitor {
        type Value = Keys;

        fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
            f.write_str("a JSON object")
        }

        fn visit_map<A: serde::de::MapAccess<'de>>(self, mut map: A) -> Result<Keys, A::Error> {
            let mut seen = HashSet::new();
            let mut twice = None;
            while let Some((key, _)) = map.next_entry::<String, serde::de::IgnoredAny>()? {
                if seen.contains(&key) {
                    twice.get_or_insert(key);
                } else {
                    seen.insert(key);
                }
            }
            Ok(Keys(twice))
        }
    }

    // Invalid JSON has been rejected before.
    serde_json::from_slice::<Keys>(json).ok().and_then(|k| k.0)
}
