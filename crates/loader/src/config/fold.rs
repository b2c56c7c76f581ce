//! Signed Hadamard transforms that are folded into the weights of a GGUF file: the keys `prism.hadamard.*`.
//!
//! A file whose fold is misunderstood in any detail would give fluent nonsense, so anything unknown is rejected.

use std::collections::HashSet;

use bitnet_model::{Fold, ModelConfig};

use super::{to_usize, unsupported};
use crate::LoadError;
use crate::gguf::{Array, Metadata, StringArray, Value};
use crate::names::Names;

const ANY: &str = "prism.";
const VERSION: &str = "prism.hadamard.version";
const BLOCK: &str = "prism.hadamard.block_size";
const TRANSFORM: &str = "prism.hadamard.transform";
const AXIS: &str = "prism.hadamard.axis";
const MODE: &str = "prism.hadamard.sign_mode";
const WIDTHS: &str = "prism.hadamard.sign_widths";
const VALUES: &str = "prism.hadamard.sign_values";
const WEIGHTS: &str = "prism.hadamard.weight_names";
const INVERSE: &str = "prism.hadamard.inverse_weight_names";
const GROUPED: &str = "prism.hadamard.gdn_v_grouped";
const KEYS: [&str; 10] = [VERSION, BLOCK, TRANSFORM, AXIS, MODE, WIDTHS, VALUES, WEIGHTS, INVERSE, GROUPED];

const KNOWN_TRANSFORM: &str = "normalized-sylvester-walsh-hadamard";
const KNOWN_AXIS: &str = "input-last-dimension";
const NEEDED: &str = "the signed Hadamard transform that is folded into the weights";
const WAY_OUT: &str = "take the file without the fold, or a later version of this program";

/// The fold of a model with this configuration, without one in it; `None` if the file has no keys for one. `names` are
/// the tensors of the file, if they are known.
pub(crate) fn read(m: &Metadata, c: &ModelConfig, names: Option<&HashSet<String>>) -> Result<Option<Fold>, LoadError> {
    if !m.iter().any(|(key, _)| key.starts_with(ANY)) {
        return Ok(None);
    }
    if let Some((key, value)) = m.iter().find(|(key, _)| key.starts_with(ANY) && !KEYS.contains(key)) {
        return Err(unsupported(key, value, &format!("this key of folded weights is not known; {WAY_OUT}")));
    }
    let missing = |key: &str| LoadError::MissingKey { key: key.to_owned(), needed_for: NEEDED };
    let number = |key: &str| m.u64(key)?.ok_or_else(|| missing(key));
    let word = |key: &str, known: &str| match m.str(key)?.ok_or_else(|| missing(key))? {
        word if word == known => Ok(()),
        other => Err(unsupported(key, other, &format!("known is {known}; {WAY_OUT}"))),
    };
    match number(VERSION)? {
        1 => {}
        other => return Err(unsupported(VERSION, other, &format!("known is version 1; {WAY_OUT}"))),
    }
    word(TRANSFORM, KNOWN_TRANSFORM)?;
    word(AXIS, KNOWN_AXIS)?;
    let mut fold = signs(m, c, Fold::new(to_usize(BLOCK, number(BLOCK)?)?))?;
    let list = |key: &str| Ok::<_, LoadError>(m.strings(key)?.map(|all| all.iter().collect::<HashSet<&str>>()));
    let weights = list(WEIGHTS)?.ok_or_else(|| missing(WEIGHTS))?;
    let inverse = list(INVERSE)?.unwrap_or_default();
    let mut expected = all_weights(c, &weights)?;
    let (embedding, head) = (Names::Gguf.embedding(), Names::Gguf.head());
    fold.embedding = inverse.contains(embedding.as_str());
    if let Some(other) = inverse.iter().find(|name| **name != embedding) {
        return Err(unsupported(INVERSE, other, &format!("known is {embedding}; {WAY_OUT}")));
    }
    fold.head = weights.contains(head.as_str()) || c.tie_word_embeddings && weights.contains(embedding.as_str());
    if c.tie_word_embeddings && fold.head != fold.embedding {
        let reason =
            format!("{embedding} is also the head, so it must be in {WEIGHTS} and in {INVERSE}, or in neither");
        return Err(unsupported(
            WEIGHTS,
            format!("{} {embedding}", if fold.head { "with" } else { "without" }),
            &reason,
        ));
    }
    expected.insert(if c.tie_word_embeddings { embedding } else { head.clone() });
    expected.insert(head);
    let skipped = |name: &str| {
        let layer = name.strip_prefix("blk.").and_then(|rest| rest.split_once('.')).and_then(|(l, _)| l.parse().ok());
        layer.is_some_and(|l: usize| l >= c.num_hidden_layers)
    };
    for name in &weights {
        if names.is_some_and(|names| !names.contains(*name)) && !(c.tie_word_embeddings && *name == Names::Gguf.head())
        {
            return Err(unsupported(WEIGHTS, name, "the file has no such tensor; the download is damaged"));
        }
        if !expected.contains(*name) && !skipped(name) {
            return Err(unsupported(WEIGHTS, name, &format!("its inputs are not transformed here; {WAY_OUT}")));
        }
    }
    if c.has_delta() && !m.bool(GROUPED)?.ok_or_else(|| missing(GROUPED))? {
        let reason = format!("folded columns of value heads that are not in groups are not supported; {WAY_OUT}");
        return Err(unsupported(GROUPED, false, &reason));
    }
    Ok(Some(fold))
}

/// The signs of every width.
fn signs(m: &Metadata, c: &ModelConfig, mut fold: Fold) -> Result<Fold, LoadError> {
    let missing = |key: &str| LoadError::MissingKey { key: key.to_owned(), needed_for: NEEDED };
    match m.str(MODE)?.ok_or_else(|| missing(MODE))? {
        "identity" => {
            // The file's size bounds the widths of a configuration that was not checked yet.
            let widths = c.input_widths();
            if let Some(width) = widths.iter().find(|w| **w > 1 << 22) {
                return Err(unsupported(MODE, format!("identity for inputs of {width}"), "that is not a sane width"));
            }
            return Ok(widths.into_iter().fold(fold, |fold, width| fold.with_signs(vec![1; width])));
        }
        "explicit" => {}
        other => return Err(unsupported(MODE, other, &format!("expected explicit or identity; {WAY_OUT}"))),
    }
    let numbers = |key: &str| {
        let array = m.get(key).ok_or_else(|| missing(key))?.as_array().and_then(Array::to_i64s);
        array.ok_or_else(|| unsupported(key, "no list of integers", "it must be one"))
    };
    let (widths, values) = (numbers(WIDTHS)?, numbers(VALUES)?);
    let mut rest = values.as_slice();
    for width in widths {
        let signs = usize::try_from(width).ok().and_then(|n| rest.split_at_checked(n));
        let Some((signs, after)) = signs else {
            return Err(unsupported(WIDTHS, width, &format!("{VALUES} has fewer values than its widths need")));
        };
        rest = after;
        if let Some(other) = signs.iter().find(|s| !matches!(s, -1 | 1)) {
            return Err(unsupported(VALUES, other, "signs are -1 and 1"));
        }
        fold = fold.with_signs(signs.iter().map(|s| if *s < 0 { -1 } else { 1 }).collect());
    }
    if !rest.is_empty() {
        return Err(unsupported(VALUES, format!("{} values too many", rest.len()), "the widths do not need them"));
    }
    if let Some(width) = c.input_widths().into_iter().find(|w| fold.signs(*w).is_none()) {
        let reason = format!("it has no signs for inputs of {width} elements; the file is damaged");
        return Err(unsupported(WIDTHS, "incomplete", &reason));
    }
    if let Some(width) = c.input_widths().into_iter().find(|w| w.checked_rem(fold.block) != Some(0)) {
        let reason = format!("it must divide the width of every input, but inputs of {width} exist; {WAY_OUT}");
        return Err(unsupported(BLOCK, fold.block, &reason));
    }
    Ok(fold)
}

/// The names of the projections of all layers, each of which must be listed: separately, or merged into one tensor.
fn all_weights(c: &ModelConfig, listed: &HashSet<&str>) -> Result<HashSet<String>, LoadError> {
    let mut all = HashSet::new();
    for l in 0..c.num_hidden_layers {
        for p in c.layer_projections(l) {
            let own = Names::Gguf.projection(l, p, c.mixer(l)) + ".weight";
            let group = Names::Gguf.groups(c.mixer(l)).find(|(_, members)| members.contains(&p));
            let merged = group.map(|(g, _)| Names::Gguf.merged(l, g) + ".weight");
            let name = match merged {
                Some(merged) if listed.contains(merged.as_str()) => merged,
                _ => own,
            };
            if !listed.contains(name.as_str()) {
                let reason = format!("weights of which only some are folded are not supported; {WAY_OUT}");
                return Err(unsupported(WEIGHTS, format!("without {name}"), &reason));
            }
            all.insert(name);
        }
    }
    Ok(all)
}

/// Adds the keys that [`read`] reads.
pub(crate) fn put(m: &mut Metadata, c: &ModelConfig) {
    let Some(fold) = &c.fold else { return };
    let number = |n: usize| u32::try_from(n).unwrap_or(u32::MAX);
    m.set(VERSION, 1u32);
    m.set(BLOCK, number(fold.block));
    m.set(TRANSFORM, KNOWN_TRANSFORM);
    m.set(AXIS, KNOWN_AXIS);
    m.set(MODE, "explicit");
    let widths = fold.all_signs().map(|s| i32::try_from(s.len()).unwrap_or(i32::MAX)).collect();
    m.set(WIDTHS, Value::Array(Array::I32(widths)));
    m.set(VALUES, Value::Array(Array::I8(fold.all_signs().flatten().copied().collect())));
    let layers = (0..c.num_hidden_layers)
        .flat_map(|l| c.layer_projections(l).map(move |p| Names::Gguf.projection(l, p, c.mixer(l)) + ".weight"));
    let head = if c.tie_word_embeddings { Names::Gguf.embedding() } else { Names::Gguf.head() };
    let names: StringArray = layers.chain(fold.head.then_some(head)).collect();
    m.set(WEIGHTS, Value::from(names));
    let inverse: StringArray = fold.embedding.then(|| Names::Gguf.embedding()).into_iter().collect();
    m.set(INVERSE, Value::from(inverse));
    if c.has_delta() {
        m.set(GROUPED, Value::Bool(true));
    }
}
