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

/// How far logits may be off, in absolute numbers; derived by the makers of the vectors from f32 against f64.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Tolerance(pub f32);

impl Tolerance {
    /// Cases whose name begins with `stable` were drawn so that no activation lies near a rounding boundary of its
    /// int8 code: 1e-4. In larger ones no code flips either, but sums are longer: 1e-3.
    pub fn of_case(name: &str) -> Self {
        if name.starts_with("stable") { Tolerance(1e-4) } else { Tolerance(1e-3) }
    }
}

/// Greedy tokens count as long as the reference's own lead is above this share of the deviation of its logits.
const CLEAR_LEAD: f32 = 0.15;
/// How far logits may be off behind a flipped code, as a share of their length.
const FLIPPED: f32 = 3e-2;

/// Which tensors of `expected.safetensors` belong to a case.
pub(crate) struct Keys {
    pub(crate) logits: &'static str,
    pub(crate) greedy: Option<&'static str>,
    /// Whether the traces were made with these weights.
    pub(crate) traced: bool,
    /// The form that the summary of the reference's own differences calls it.
    pub(crate) form: &'static str,
}

pub(crate) const PACKED: Keys =
    Keys { logits: "logits_packed_f32", greedy: Some("greedy_packed"), traced: true, form: "packed" };
const MASTER: Keys = Keys { logits: "logits_master_f32", greedy: Some("greedy_master"), traced: false, form: "master" };
const BITLINEAR: Keys = Keys { logits: "logits_f32", greedy: None, traced: false, form: "packed" };

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
    let own = own_difference(path, name, keys.form);
    report.check(&format!("{case} logits"), || logits(&engine, &expected, keys.logits, tolerance, own));
    if let Some(greedy_ids) = keys.greedy.filter(|k| expected.has(k)) {
        report.check(&format!("{case} greedy"), || greedy(&engine, &expected, greedy_ids));
    }
    if keys.traced && projections::traced(&expected) {
        report.check(&format!("{case} projections"), || projections::compare(&weights, &expected));
    }
}

/// How far the reference's own runs of a case with and without a cache differ, by the summary beside the cases; 0 where
/// nothing is known.
fn own_difference(expected: &Path, name: &str, form: &str) -> f32 {
    let summary = expected.ancestors().nth(2).map(|dir| dir.join("bitnet_summary.json"));
    let summary = summary.filter(|p| p.is_file()).and_then(|p| files::json(&p).ok()).unwrap_or(Value::Null);
    summary["configs"][name][form]["cached_vs_full_maxdiff"].as_f64().unwrap_or(0.0) as f32
}

/// All positions within the tolerance; where the reference's own runs differ by more, the rule of [`flipped`].
fn logits(
    engine: &Engine,
    expected: &Tensors,
    key: &str,
    tolerance: Tolerance,
    own_difference: f32,
) -> Result<Measured, ParityError> {
    let ids = expected.ids("input_ids")?;
    let got = Sequence::new(engine, KvType::F32, None).push_all(&ids)?;
    let want = expected.f32(key)?;
    let error = max_abs(&got, &want);
    let detail = format!("{} positions, max abs {error:.2e} (at most {:.0e})", ids.len(), tolerance.0);
    if error > tolerance.0 && own_difference > tolerance.0 && got.len() == want.len() {
        return Ok(flipped(&got, &want, engine.config().vocab_size, tolerance, own_difference));
    }
    Ok(Measured { pass: error <= tolerance.0, detail })
}

/// Two runs of the reference itself, with and without a cache, differ here by more than the tolerance: some activation
/// lies nearer to a rounding boundary than f32 can tell, so one code may be the other neighbour. Then the positions
/// before the first that is off, at least half of all, have to be within the tolerance; those after it may differ by 3 %
/// of their length, with the same first choice wherever the reference's lead is clear.
fn flipped(got: &[f32], want: &[f32], vocab: usize, tolerance: Tolerance, own_difference: f32) -> Measured {
    let positions: Vec<(&[f32], &[f32])> = got.chunks_exact(vocab).zip(want.chunks_exact(vocab)).collect();
    let strict = positions.iter().take_while(|(g, w)| max_abs(g, w) <= tolerance.0).count();
    let mut worst = 0f32;
    let mut choices = true;
    for (g, w) in &positions[strict..] {
        let length = |v: &mut dyn Iterator<Item = f32>| v.map(|x| f64::from(x).powi(2)).sum::<f64>().sqrt();
        let distance = length(&mut g.iter().zip(*w).map(|(g, w)| g - w)) / length(&mut w.iter().copied());
        worst = worst.max(if distance.is_nan() { f32::INFINITY } else { distance as f32 });
        let best = argmax(w);
        let second = w.iter().enumerate().filter(|(i, _)| *i != best).map(|(_, v)| *v).fold(f32::MIN, f32::max);
        choices &= argmax(g) == best || w[best] - second <= CLEAR_LEAD * std(w);
    }
    let detail = format!(
        "{strict} of {} positions within {:.0e}, then one code falls on the other side of a tie: at most {worst:.1e} of \
         the length (the reference's own runs differ by {own_difference:.1e})",
        positions.len(),
        tolerance.0
    );
    Measured { pass: 2 * strict >= positions.len() && worst <= FLIPPED && choices, detail }
}

/// Greedy tokens equal up to the first step at which the reference's lead is not clear. Later ones are counted, too, but
/// they prove nothing.
fn greedy(engine: &Engine, expected: &Tensors, key: &str) -> Result<Measured, ParityError> {
    let mut sequence = Sequence::new(engine, KvType::F32, None);
    let (ids, margins) = (expected.ids(key)?, expected.f32(&format!("{key}_margin"))?);
    let mut logits = sequence.push(&expected.ids("prompt_ids").or_else(|_| expected.ids("input_ids"))?)?.to_vec();
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
        logits = sequence.push(&[got])?.to_vec();
    }
    let clear = clear.unwrap_or(ids.len());
    let detail = format!("{equal} of {} equal; the reference's lead is clear in the first {clear}", ids.len());
    Ok(Measured { pass: true, detail })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn passes(got: &[f32], want: &[f32]) -> bool {
        flipped(got, want, 2, Tolerance(1e-3), 0.1).pass
    }

    #[test]
    fn a_flipped_code_is_tolerated_late_and_small_only() {
        let want = [1.0, 0.0, 1.0, 0.0, 1.0, 0.0, 1.0, 0.0];
        assert!(passes(&[1.0, 0.0, 1.0, 0.0, 1.01, 0.0, 1.01, 0.0], &want));
        // Off from the second of four positions on.
        assert!(!passes(&[1.0, 0.0, 1.01, 0.0, 1.01, 0.0, 1.01, 0.0], &want));
        // Off by more than 3 %.
        assert!(!passes(&[1.0, 0.0, 1.0, 0.0, 1.0, 0.0, 1.04, 0.0], &want));
        // Another first choice, and something that is not a number.
        assert!(!passes(&[1.0, 0.0, 1.0, 0.0, 1.0, 0.0, 0.0, 1.0], &want));
        assert!(!passes(&[1.0, 0.0, 1.0, 0.0, 1.0, 0.0, f32::NAN, 0.0], &want));
    }
}
