//! Everything needed to continue a run bit for bit, in one safetensors file.

use std::collections::HashMap;
use std::io::{Read, Write};
use std::path::{Path, PathBuf};

use safetensors::tensor::{Dtype, SafeTensors, TensorView};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use super::params::Role;
use super::shape::{model_from_json, model_to_json};
use super::{AdamW, Clock, Params, TrainConfig, TrainError};
use crate::ModelConfig;
use crate::files::{self, FileError, Pending};

/// The progress of a run.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Progress {
    /// Steps done.
    pub step: u64,
    /// The part of the run, of those in which windows have different lengths.
    pub stage: u32,
    /// Windows or documents drawn from the training data in this part; with the seed it is all there is to know about random
    /// numbers.
    pub position: u64,
    /// Best validation loss so far, nats per token.
    pub best: Option<f64>,
    /// Validations since the best one.
    pub since_best: u64,
    /// The time of a run that has a limit of it.
    pub clock: Clock,
}

/// A checkpoint in memory.
#[derive(Clone, Debug, PartialEq)]
pub struct Checkpoint {
    /// The model's shape.
    pub model: ModelConfig,
    /// The run's configuration.
    pub config: TrainConfig,
    /// Master weights.
    pub params: Params,
    /// Their moving average, where the configuration has one.
    pub average: Option<Params>,
    /// Optimizer with moments and step; of what [`Muon`](super::Muon) moves, the first moments are its momentum and the
    /// second ones 0.
    pub adam: AdamW,
    /// The progress of the run.
    pub progress: Progress,
}

/// The entry of the metadata that describes the run.
const KEY: &str = "bitnet-train";
/// 2: with a checksum.
const FORMAT: u64 = 2;
/// Without a checksum.
const UNCHECKED: u64 = 1;
/// Hexadecimal digits of a checksum.
const DIGITS: usize = 64;
/// The longest header that the safetensors library accepts.
const MAX_HEADER: u64 = 100_000_000;

/// A value per parameter that a checkpoint holds.
#[derive(Clone, Copy)]
enum Part {
    Weight,
    /// The first moment, or Muon's momentum, which lies in its place.
    First,
    Second,
    Average,
}

/// The parts of a parameter, and the prefixes of the names under which they are written.
fn parts(config: &TrainConfig, role: Role) -> impl Iterator<Item = (&'static str, Part)> {
    let parts: &[(&'static str, Part)] = match config.optimizer.is_muon(role) {
        true => &[("", Part::Weight), ("muon.m.", Part::First)],
        false => &[("", Part::Weight), ("adam.m.", Part::First), ("adam.v.", Part::Second)],
    };
    parts.iter().copied().chain((config.ema > 0.0).then_some(("ema.", Part::Average)))
}

impl Checkpoint {
    /// Writes the file; it gets its name when it is complete and on disk, so a crash leaves the old one. The file that
    /// had the name before is kept as [`Checkpoint::previous`].
    ///
    /// # Errors
    /// A file that cannot be written.
    pub fn save(&self, path: &Path) -> Result<(), TrainError> {
        put(path, &self.to_bytes(path)?)
    }

    /// The path under which [`Checkpoint::save`] keeps the checkpoint that it replaces:
    /// `checkpoint.previous.safetensors` for `checkpoint.safetensors`.
    pub fn previous(path: &Path) -> PathBuf {
        path.with_extension("previous.safetensors")
    }

    /// The file: its checksum is the SHA-256 of all its bytes with zeros in place of the digits.
    fn to_bytes(&self, path: &Path) -> Result<Vec<u8>, TrainError> {
        let mut views = Vec::new();
        for e in &self.params.entries {
            for (prefix, part) in parts(&self.config, e.role) {
                let values = match part {
                    Part::Weight => &self.params.values,
                    Part::First => &self.adam.m,
                    Part::Second => &self.adam.v,
                    Part::Average => &self.average.as_ref().unwrap_or(&self.params).values,
                };
                let bytes = bytemuck::cast_slice(&values[e.range.clone()]);
                let view = TensorView::new(Dtype::F32, e.shape.clone(), bytes).map_err(|e| bad(path, &e))?;
                views.push((format!("{prefix}{}", e.name), view));
            }
        }
        let about = json!({
            "format": FORMAT,
            "model": model_to_json(&self.model)?,
            "config": self.config,
            "progress": self.progress,
        });
        sealed(path, KEY, about, views)
    }

    /// Continues the run as another one: with `model`, whose parameters have the same shapes but may be used
    /// differently (four bits instead of eight), and with `config`. Master weights, moments, step and data position
    /// stay; only the best validation loss is dropped, as it belongs to another model. So the optimizer and its
    /// schedule are not affected.
    ///
    /// Paper: arXiv:2504.18415, section 2.2: training ends with four bits, and reuses the states of the optimizer.
    ///
    /// # Errors
    /// Parameters of other shapes; another optimizer; a configuration that cannot be, or that ends before the run stands.
    pub fn second_stage(self, model: ModelConfig, config: TrainConfig) -> Result<Self, TrainError> {
        model.validate()?;
        config.validate()?;
        let shapes = |c: &ModelConfig| super::params::layout(c).into_iter().map(|(name, shape, _)| (name, shape));
        if !shapes(&self.model).eq(shapes(&model)) {
            let what = "parameters of the second stage".to_owned();
            let count = |c: &ModelConfig| format!("{} parameters", c.parameters());
            return Err(TrainError::Mismatch { what, expected: count(&self.model), got: count(&model) });
        }
        if config.time.is_none() && config.steps <= self.progress.step {
            let must = "more than the steps that the first stage has done; they count from its beginning";
            return Err(TrainError::Option { option: "steps", value: config.steps.to_string(), must });
        }
        if config.optimizer != self.config.optimizer {
            let must = "that of the first stage, whose moments are of no use to another";
            return Err(TrainError::Option { option: "optimizer", value: format!("{:?}", config.optimizer), must });
        }
        let mut adam = AdamW::new(config.adamw, 0);
        (adam.m, adam.v, adam.step) = (self.adam.m, self.adam.v, self.adam.step);
        let progress = Progress { best: None, since_best: 0, clock: Clock::default(), ..self.progress };
        Ok(Self { model, config, params: self.params, average: self.average, adam, progress })
    }

    /// Reads a file that [`Checkpoint::save`] wrote. A file of an earlier program without a checksum is read with a
    /// warning.
    ///
    /// # Errors
    /// A file that cannot be read; [`TrainError::Damaged`] if a single bit has changed since it was written.
    pub fn load(path: &Path) -> Result<Self, TrainError> {
        let bytes = read(path)?;
        let damaged = |problem: String| {
            let previous = Some(Self::previous(path)).filter(|p| p != path && p.is_file());
            TrainError::Damaged { path: path.to_path_buf(), problem, previous }
        };
        Self::of_bytes(path, &bytes).map_err(|e| match e {
            TrainError::File { problem, .. } => damaged(problem),
            TrainError::Model(e) => damaged(e.to_string()),
            e => e,
        })
    }

    fn of_bytes(path: &Path, bytes: &[u8]) -> Result<Self, TrainError> {
        let (_, header) = SafeTensors::read_metadata(bytes).map_err(|e| bad(path, &e))?;
        let file = SafeTensors::deserialize(bytes).map_err(|e| bad(path, &e))?;
        let about = header.metadata().as_ref().and_then(|m| m.get(KEY));
        let about =
            about.ok_or_else(|| bad(path, &format!("no {KEY} in the metadata, which checkpoints of a run have")))?;
        let mut about: Value = serde_json::from_str(about).map_err(|e| bad(path, &e))?;
        let format = about["format"].as_u64();
        match about.get("sha256").map(|sum| sum.as_str().unwrap_or_default()) {
            Some(sum) => {
                let at = digits_at(bytes, sum).ok_or_else(|| bad(path, &"its checksum is malformed"))?;
                if checksum(bytes, at) != sum {
                    return Err(bad(path, &"the checksum does not match; the file has changed since it was written"));
                }
                if format != Some(FORMAT) {
                    return Err(bad(path, &format!("format {}, this program reads {FORMAT}", about["format"])));
                }
            }
            None if format == Some(UNCHECKED) => tracing::warn!(
                "{} has no checksum, so damage to it cannot be seen; the checkpoints that this run writes have one",
                path.display()
            ),
            None => return Err(bad(path, &format!("format {} without a checksum", about["format"]))),
        }
        let model = model_from_json(&about["model"])?;
        let config: TrainConfig = serde_json::from_value(about["config"].take()).map_err(|e| bad(path, &e))?;
        config.validate()?;
        let progress: Progress = serde_json::from_value(about["progress"].take()).map_err(|e| bad(path, &e))?;
        if !(0.0..=1e12).contains(&progress.clock.seconds) {
            return Err(bad(path, &format!("its clock says {} seconds", progress.clock.seconds)));
        }
        // Shapes are checked against the file before anything of their size is allocated.
        let layout = super::params::layout(&model);
        for (name, shape, role) in &layout {
            for (prefix, _) in parts(&config, *role) {
                let t = file.tensor(&format!("{prefix}{name}")).map_err(|e| bad(path, &e))?;
                if t.dtype() != Dtype::F32 || t.shape() != shape {
                    return Err(bad(
                        path,
                        &format!("{prefix}{name} is {:?} {:?}, not F32 {shape:?}", t.dtype(), t.shape()),
                    ));
                }
            }
        }
        let mut params = Params::zeros(layout);
        let mut adam = AdamW::new(config.adamw, params.values.len());
        adam.step = progress.step;
        let mut average = (config.ema > 0.0).then(|| params.clone());
        for e in params.entries.clone() {
            for (prefix, part) in parts(&config, e.role) {
                let values = match part {
                    Part::Weight => &mut params.values[..],
                    Part::First => &mut adam.m,
                    Part::Second => &mut adam.v,
                    Part::Average => average.as_mut().map_or(&mut [][..], |a| &mut a.values),
                };
                let t = file.tensor(&format!("{prefix}{}", e.name)).map_err(|e| bad(path, &e))?;
                for (value, bytes) in values[e.range.clone()].iter_mut().zip(t.data().as_chunks().0) {
                    *value = f32::from_le_bytes(*bytes);
                }
            }
        }
        Ok(Self { model, config, params, average, adam, progress })
    }
}

/// Writes a file of these bytes; it gets its name when it is complete and on disk. What had the name before stays as
/// [`Checkpoint::previous`].
pub(super) fn put(path: &Path, bytes: &[u8]) -> Result<(), TrainError> {
    let mut pending = Pending::create(path)?;
    pending.expect(bytes.len() as u64);
    pending.write_all(bytes).map_err(|e| pending.failed(e))?;
    pending.sync()?;
    keep_previous(path)?;
    Ok(pending.commit()?)
}

/// A safetensors file of `views` with `about`, an object, as the entry `key` of its metadata, and with a checksum.
pub(super) fn sealed(
    path: &Path,
    key: &str,
    mut about: Value,
    views: Vec<(String, TensorView<'_>)>,
) -> Result<Vec<u8>, TrainError> {
    let blank = "0".repeat(DIGITS);
    about["sha256"] = Value::String(blank.clone());
    // One entry, because several would come in any order, and equal runs are to give equal files.
    let metadata = HashMap::from([(key.to_owned(), about.to_string())]);
    let mut bytes = safetensors::serialize(views, Some(metadata)).map_err(|e| bad(path, &e))?;
    let at = digits_at(&bytes, &blank).ok_or_else(|| bad(path, &"no place for the checksum"))?;
    let sum = checksum(&bytes, at);
    bytes[at..at + DIGITS].copy_from_slice(sum.as_bytes());
    Ok(bytes)
}

/// The entry `key` of the metadata of a file that [`sealed`] made, if not a bit of the file has changed.
pub(super) fn unsealed(path: &Path, key: &str, bytes: &[u8]) -> Result<Value, TrainError> {
    let (_, header) = SafeTensors::read_metadata(bytes).map_err(|e| bad(path, &e))?;
    let about = header.metadata().as_ref().and_then(|m| m.get(key));
    let about = about.ok_or_else(|| bad(path, &format!("no {key} in its metadata")))?;
    let about: Value = serde_json::from_str(about).map_err(|e| bad(path, &e))?;
    let sum = about["sha256"].as_str().unwrap_or_default();
    let at = digits_at(bytes, sum).ok_or_else(|| bad(path, &"its checksum is malformed"))?;
    if checksum(bytes, at) != sum {
        return Err(bad(path, &"the checksum does not match; the file has changed since it was written"));
    }
    Ok(about)
}

pub(super) fn bad(path: &Path, problem: &dyn std::fmt::Display) -> TrainError {
    TrainError::File { path: path.to_path_buf(), problem: problem.to_string() }
}

/// The bytes of a file that begins as safetensors files do; nothing else is read to its end.
pub(super) fn read(path: &Path) -> Result<Vec<u8>, TrainError> {
    const WHAT: &str = "a checkpoint";
    let (mut file, len) = files::open(path, WHAT)?;
    let failed = || TrainError::io("read", path);
    let mut head = Vec::new();
    (&mut file).take(9).read_to_end(&mut head).map_err(failed())?;
    let header = head.first_chunk().map_or(0, |n| u64::from_le_bytes(*n));
    let begins = head.get(8) == Some(&b'{') && header <= MAX_HEADER && header <= len;
    if !begins {
        let previous = Some(Checkpoint::previous(path)).filter(|p| p.is_file());
        let problem = "it does not begin as safetensors files do".to_owned();
        return Err(TrainError::Damaged { path: path.to_path_buf(), problem, previous });
    }
    let mut bytes = Vec::new();
    let more = usize::try_from(len).unwrap_or(usize::MAX);
    bytes.try_reserve_exact(more).map_err(|e| failed()(std::io::Error::new(std::io::ErrorKind::OutOfMemory, e)))?;
    bytes.extend(head);
    file.take(len).read_to_end(&mut bytes).map_err(failed())?;
    Ok(bytes)
}

/// The position of the digits of the checksum: once, in the header.
fn digits_at(bytes: &[u8], digits: &str) -> Option<usize> {
    // The entry is JSON within JSON.
    let before = br#"\"sha256\":\""#;
    let header = bytes.first_chunk().map(|n| u64::from_le_bytes(*n)).and_then(|n| usize::try_from(n).ok())?;
    let header = bytes.get(8..8usize.checked_add(header)?)?;
    let mut found =
        header.windows(before.len()).enumerate().filter(|(_, w)| w == before).map(|(i, _)| 8 + i + before.len());
    let (at, None) = (found.next()?, found.next()) else { return None };
    let fits = digits.len() == DIGITS && bytes.get(at..at + DIGITS) == Some(digits.as_bytes());
    fits.then_some(at)
}

/// The checksum of a file whose digits are at `at`.
fn checksum(bytes: &[u8], at: usize) -> String {
    let mut hash = Sha256::new();
    hash.update(&bytes[..at]);
    hash.update([b'0'; DIGITS]);
    hash.update(&bytes[at + DIGITS..]);
    hash.finalize().iter().map(|b| format!("{b:02x}")).collect()
}

/// Also keeps the file at `path` under another name; at every moment there is a checkpoint under each name that had
/// one.
fn keep_previous(path: &Path) -> Result<(), FileError> {
    if !path.is_file() {
        return Ok(());
    }
    let (current, previous) = (files::resolve(path), Checkpoint::previous(path));
    files::replaceable(&previous)?;
    // A second name costs nothing; on file systems without hard links a copy replaces it.
    files::replace_with(&previous, |temporary| {
        std::fs::hard_link(&current, temporary).or_else(|_| std::fs::copy(&current, temporary).map(drop))
    })
}
