//! Facts from a checkpoint and its accompanying files that decide how its configuration is read: pooling, and the names
//! of tensors.

use std::path::Path;

use bitnet_model::Pooling;

use super::store::Store;
use crate::LoadError;
use crate::config::{TensorFacts, from_hf, rope};
use crate::mmap::read_bounded;
use crate::names::Names;

/// The pooling in files next to this `config.json`; errors name the file.
pub(super) fn pooling(config: &Path) -> Result<Option<Pooling>, LoadError> {
    let read = |path: &Path, what| read_bounded(path, what, from_hf::MAX_CONFIG);
    let modules = config.with_file_name(from_hf::MODULES);
    let mut files = from_hf::POOLING_FILES.map(|name| config.with_file_name(name)).to_vec();
    if modules.is_file() {
        let folder = from_hf::pooling_folder(&read(&modules, from_hf::MODULES)?).map_err(|e| e.in_file(&modules))?;
        // A name from a file may only lead to a folder next to it.
        let plain = |name: &String| !name.is_empty() && !name.contains(['/', '\\', ':']) && name != "..";
        files.extend(folder.filter(plain).map(|name| config.with_file_name(name).join("config.json")));
    }
    for file in files.iter().filter(|f| f.is_file()) {
        let found = from_hf::pooling(&read(file, "the configuration of pooling")?).map_err(|e| e.in_file(file))?;
        if found.is_some() {
            return Ok(found);
        }
    }
    Ok(None)
}

/// The layer of a tensor that only layers which predict further tokens have, in a GGUF file.
fn nextn_layer(name: &str) -> Option<usize> {
    let (layer, rest) = name.strip_prefix("blk.")?.split_once('.')?;
    if rest.starts_with("nextn.") { layer.parse().ok() } else { None }
}

/// The facts that names and shapes of tensors tell about the model.
pub(super) fn facts(store: &Store, names: Names) -> Result<TensorFacts, LoadError> {
    let list = |name: &str| match names {
        // As many as the widest head has pairs.
        Names::Gguf if store.shape(name).is_some_and(|s| s.iter().all(|n| *n <= 1 << 11)) => {
            store.get(name)?.map(|t| t.floats()).transpose()
        }
        _ => Ok(None),
    };
    let rope = rope::Tensors { factors: list(rope::FACTORS)?, short: list(rope::SHORT)?, long: list(rope::LONG)? };
    let has_scales = store.names().any(|n| n.ends_with(names.scale_suffix()));
    let has_sub_norms = store
        .names()
        .any(|n| ["attn_sub_norm", "ffn_sub_norm", "inner_attn_ln", "ffn_layernorm"].iter().any(|s| n.contains(s)));
    Ok(TensorFacts {
        embedding_rows: store.shape(&names.embedding()).and_then(|s| s.first().copied()),
        has_head: store.shape(&names.head()).is_some(),
        has_sub_norms,
        has_scales,
        has_projection_norms: store.names().any(|n| names.is_projection_norm(n)),
        names: Some(store.names().map(str::to_owned).collect()),
        nextn: store.names().filter_map(nextn_layer).min(),
        rope,
    })
}
