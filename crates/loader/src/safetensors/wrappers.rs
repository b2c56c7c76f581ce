//! Prefixes that training programs add to a model's names: `_orig_mod.` (torch.compile), `module.` (data parallel),
//! `base_model.model.` (PEFT).

use std::collections::BTreeMap;

use super::{Safetensors, StTensor};
use crate::LoadError;

/// Prefixes of all names.
const PREFIXES: [&str; 4] = ["_orig_mod.", "_fsdp_wrapped_module.", "module.", "base_model.model."];
/// Infixes of a layer that was wrapped separately. No model has a part with such a name.
const WITHIN: [&str; 2] = ["._orig_mod.", "._fsdp_wrapped_module."];

impl Safetensors {
    /// The tensors under the names of the model itself, and the prefixes that were removed.
    ///
    /// # Errors
    /// [`LoadError::WrappedName`] if some names have a prefix and others do not, or if two become equal: then the right
    /// tensor cannot be determined.
    pub fn without_wrappers(self) -> Result<(Self, Vec<&'static str>), LoadError> {
        let mut removed = Vec::new();
        let mut tensors = self.tensors;
        // Each round shortens every name, so it ends.
        while let Some(prefix) = PREFIXES.into_iter().find(|p| tensors.keys().any(|name| name.starts_with(p))) {
            if let Some(other) = tensors.keys().find(|name| !name.starts_with(prefix)) {
                let with = tensors.keys().find(|name| name.starts_with(prefix)).cloned().unwrap_or_default();
                return Err(LoadError::WrappedName { tensor: with, prefix, other: other.clone() });
            }
            tensors = renamed(tensors, prefix, |name| name.strip_prefix(prefix).unwrap_or(name).to_owned())?;
            removed.push(prefix);
        }
        for part in WITHIN {
            if tensors.keys().any(|name| name.contains(part)) {
                let word = part.trim_start_matches('.');
                tensors = renamed(tensors, word, |name| name.replace(part, "."))?;
                if !removed.contains(&word) {
                    removed.push(word);
                }
            }
        }
        Ok((Self { tensors, ..self }, removed))
    }
}

fn renamed(
    tensors: BTreeMap<String, StTensor>,
    prefix: &'static str,
    name: impl Fn(&str) -> String,
) -> Result<BTreeMap<String, StTensor>, LoadError> {
    let mut all = BTreeMap::new();
    for (old, tensor) in tensors {
        let new = name(&old);
        if all.insert(new.clone(), tensor).is_some() {
            return Err(LoadError::WrappedName { tensor: old, prefix, other: new });
        }
    }
    Ok(all)
}
