//! Whole models: logits of every position, greedy continuation.

use std::path::Path;

use bitnet_model::{Engine, EngineOptions, KvType, ModelWeights, Sequence};
use loader::{Checkpoint, LoadOptions};
use serde_json::Value;

use crate::compare::{argmax, max_abs, std};
use crate::files::{self, Tensors};
use crate::projections;
use crate::report::{Measured, Report};
use crate::{Options, ParityError};

/// Largest absolute error of logits; derived by the makers of the vectors from f32 against f64.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Tolerance(pub f32);

impl Tolerance {
    /// Cases whose name begins with `stable` were drawn so that no activation is near a rounding boundary of its
    /// int8 code: 1e-4. In larger ones no code flips either, but sums are longer: 1e-3.
    pub fn of_case(name: &str) -> Self {
        if name.starts_with("stable") { Tolerance(1e-4) } else { Tolerance(1e-3) }
    }
}

/// Greedy tokens count as long as the reference's own lead is above this share of the deviation of its logits.
const CLEAR_LEAD: f32 = 0.15;

/// Which tensors of `expected.safetensors` belong to a case.
pub(crate) struct Keys {
    pub(crate) logits: &'static str,
    pub(crate) greedy: Option<&'static str>,
    /// Whether the traces were made with these weights.
    pub(crate) traced: bool,
}

pub(crate) const PACKED: Keys = Keys { logits: "logits_packed_f32", greedy: Some("greedy_packed"), traced: true };
const MASTER: Keys = Keys { logits: "logits_master_f32", greedy: Some("greedy_master"), traced: false };
const BITLINEAR: Keys = Keys { logits: "logits_f32", greedy: None, traced: false };

/// `bitnet/NAME/{packed,master,packed_bitlinear}`.
pub(crate) fn folder_cases(fixtures: &Path, name: &str, options: &Options, report: &mut Report) {
    let dir = fixtures.join("bitnet").join(name);
    for (variant, keys) in [("packed", PACKED), ("master", MASTER), ("packed_bitlinear", BITLINEAR)] {
        let model = dir.join(variant);
        let own = model.join("expected.safetensors");
        let expected = if own.is_file() { own } else { dir.join("expected.safetensors") };
        if model.is_dir() {
            let case = format!("bitnet/{name}/{variant}");
            compare(&case, name, &keys, &expected, options, report, || load(&model));
        }
    }
}

/// `gguf/CASE.TYPE.gguf`, whose logits are those of `bitnet/CASE`.
pub(crate) fn gguf_case(fixtures: &Path, file: &str, options: &Options, report: &mut Report) {
    let manifest = files::json(&fixtures.join("gguf/manifest.json")).unwrap_or(Value::Null);
    let stem = file.split('.').next().unwrap_or(file);
    let name = manifest[file]["case"].as_str().unwrap_or(stem);
    let expected = fixtures.join("bitnet").join(name).join("expected.safetensors");
    let path = fixtures.join("gguf").join(file);
    compare(&format!("gguf/{file}"), name, &PACKED, &expected, options, report, || load(&path));
}

/// Reads a model with the loader's defaults.
pub(crate) fn load(path: &Path) -> Result<ModelWeights, ParityError> {
    Ok(Checkpoint::open(path, &LoadOptions::default())?.weights()?)
}

/// The rows of one model.
pub(crate) fn compare(
    case: &str,
    name: &str,
    keys: &Keys,
    path: &Path,
    options: &Options,
    report: &mut Report,
    load: impl FnOnce() -> Result<ModelWeights, ParityError>,
) {
    if !options.wants(case) {
        return;
    }
    let prepared = || -> Result<(ModelWeights, Engine, Tensors), ParityError> {
        let expected = Tensors::load(path)?;
        let mut weights = load()?;
        if let Some(sabotage) = options.sabotage {
            weights = sabotage.apply(&weights)?;
        }
        let engine = Engine::new(&weights, &EngineOptions::default())?;
        Ok((weights, engine, expected))
    };
    let (weights, engine, expected) = match prepared() {
        Ok(prepared) => prepared,
        Err(e) => return report.check(&format!("{case} load"), || Err(e)),
    };
    let tolerance = Tolerance::of_case(name);
    report.check(&format!("{case} logits"), || logits(&engine, &expected, keys.logits, tolerance));
    if let Some(greedy_ids) = keys.greedy.filter(|k| expected.has(k)) {
        report.check(&format!("{case} greedy"), || greedy(&engine, &expected, greedy_ids));
    }
    if keys.traced && projections::traced(&expected) {
        report.check(&format!("{case} projections"), || projections::compare(&weights, &expected));
    }
}

fn logits(engine: &Engine, expected: &Tensors, key: &str, tolerance: Tolerance) -> Result<Measured, ParityError> {
    let ids = expected.ids("input_ids")?;
    let got = Sequence::new(engine, KvType::F32, None).feed_each(&ids)?;
    let want = expected.f32(key)?;
    let error = max_abs(&got, &want);
    let vocab = engine.config().vocab_size;
    let within = |(g, w): (&[f32], &[f32])| max_abs(g, w) <= tolerance.0;
    let strict = got.chunks_exact(vocab).zip(want.chunks_exact(vocab)).filter(|pair| within(*pair)).count();
    let detail = format!("{strict} of {} positions within {:.0e}, max abs {error:.2e}", ids.len(), tolerance.0);
    Ok(Measured { pass: error <= tolerance.0, detail })
}

/// Greedy tokens equal up to the first step at which the reference's lead is not clear. Later ones are counted, too,
/// but they prove nothing.
fn greedy(engine: &Engine, expected: &Tensors, key: &str) -> Result<Measured, ParityError> {
    let mut sequence = Sequence::new(engine, KvType::F32, None);
    let (ids, margins) = (expected.ids(key)?, expected.f32(&format!("{key}_margin"))?);
    let mut logits = sequence.feed(&expected.ids("prompt_ids").or_else(|_| expected.ids("input_ids"))?)?.to_vec();
    let (mut equal, mut clear) = (0, None);
    for (step, (id, margin)) in ids.iter().zip(&margins).enumerate() {
        if clear.is_none() && *margin < CLEAR_LEAD * std(&logits) {
            clear = Some(step);
        }
        let got = argmax(&logits) as u32;
        if got != *id {
            if clear.is_none() {
                let detail = format!("step {step}: token {got}, expected {id} with a clear lead of {margin:.3}");
                return Ok(Measured { pass: false, detail });
            }
            break;
        }
        equal += 1;
        logits = sequence.feed(&[got])?.to_vec();
    }
    let clear = clear.unwrap_or(ids.len());
    let detail = format!("{equal} of {} equal; the reference's lead is clear in the first {clear}", ids.len());
    Ok(Measured { pass: true, detail })
}
