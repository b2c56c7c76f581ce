//! Further families of models: `FAMILY/VARIANT` with one or several files of the same weights and
//! `expected.safetensors`, which transformers made, and single blocks of the formats with a scale per group.
//!
//! | folder holds | comparison |
//! |---|---|
//! | `logits_f32` in `expected.safetensors` | logits, greedy continuation, rotary frequencies, decoded weights; all files of a variant bit for bit |
//! | `text0.ids` in `expected.safetensors` | texts to tokens, hidden states, vectors; all files of a variant bit for bit |
//! | `units.safetensors` | blocks of every format, damaged ones, GGUF files of one matrix |
//!
//! Tolerances are those of the folder's README, restated at each constant.

mod blocks;
mod blocks_gguf;
mod embedding;
mod language;
mod states;
mod weights;

use std::path::{Path, PathBuf};

use bitnet_model::{Engine, EngineOptions, ModelWeights};

use crate::files::{self, Tensors};
use crate::report::Report;
use crate::{Options, ParityError, model};

/// Folders of the older sets, which have other layouts.
const OTHERS: [&str; 6] = ["bitnet", "midsize", "gguf", "units", "tokenizer", "ttt"];

/// Every family below `fixtures`.
pub(crate) fn cases(fixtures: &Path, options: &Options, report: &mut Report) {
    let families = match files::names(fixtures) {
        Ok(names) => names,
        Err(e) => return report.check("families", || Err(e)),
    };
    for family in families.iter().filter(|name| !OTHERS.contains(&name.as_str())) {
        let dir = fixtures.join(family);
        if dir.join("units.safetensors").is_file() {
            blocks::cases(&dir, family, options, report);
            blocks_gguf::cases(&dir, family, options, report);
        }
        for variant in files::names(&dir).unwrap_or_default() {
            let dir = dir.join(&variant);
            if dir.join("expected.safetensors").is_file() {
                one(&dir, &format!("{family}/{variant}"), options, report);
            }
        }
    }
}

/// One variant of one family.
fn one(dir: &Path, case: &str, options: &Options, report: &mut Report) {
    let expected = match Tensors::load(&dir.join("expected.safetensors")) {
        Ok(expected) => expected,
        Err(e) => return report.check(case, || Err(e)),
    };
    let containers = match containers(dir) {
        Ok(found) if !found.is_empty() => found,
        Ok(_) => return report.check(case, || Err(ParityError::Missing { what: format!("file in {case}") })),
        Err(e) => return report.check(case, || Err(e)),
    };
    if expected.has("text0.ids") {
        embedding::cases(dir, &containers, &expected, case, options, report);
    } else {
        language::cases(&containers, &expected, case, options, report);
    }
}

/// A file or folder that holds the weights of a variant.
struct Container {
    name: String,
    path: PathBuf,
}

/// All GGUF files, and the folder itself if it has a configuration and weights.
fn containers(dir: &Path) -> Result<Vec<Container>, ParityError> {
    let mut all: Vec<Container> = Vec::new();
    if dir.join("config.json").is_file() && dir.join("model.safetensors").is_file() {
        all.push(Container { name: "safetensors".to_owned(), path: dir.to_owned() });
    }
    for name in files::names(dir)?.into_iter().filter(|n| n.ends_with(".gguf")) {
        all.push(Container { path: dir.join(&name), name });
    }
    Ok(all)
}

/// Weights, damaged if that is asked for, and their model.
fn prepared(container: &Container, options: &Options) -> Result<(ModelWeights, Engine), ParityError> {
    let mut weights = model::load(&container.path)?;
    if let Some(sabotage) = options.sabotage {
        weights = sabotage.apply(&weights)?;
    }
    let engine = Engine::new(&weights, &EngineOptions::default())?;
    Ok((weights, engine))
}

/// Bits of numbers, for comparisons that allow no difference.
fn bits(values: &[f32]) -> Vec<u32> {
    values.iter().map(|v| v.to_bits()).collect()
}
