//! Where a run stands, in a file from which it goes on as if it had never ended.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use safetensors::tensor::{Dtype, SafeTensors, TensorView};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use super::data::{TaskData, Utterance};
use super::options::ExtractOptions;
use crate::encoder::Extractor;
use crate::train::TrainError;
use crate::train::checkpoint::{Checkpoint, bad, put, read, sealed, unsealed};

/// The entry of the metadata that says what run this is.
const KEY: &str = "bitnet-train-extract";
const FORMAT: u64 = 1;

/// Where a run stands but for its numbers.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Progress {
    /// Steps done.
    pub(super) step: u64,
    /// How much of the run is done, 0 to 1.
    pub(super) done: f64,
    /// Time that it took.
    pub(super) seconds: f64,
    /// The best validation, and its step.
    pub(super) best: Option<f64>,
    pub(super) best_step: u64,
    /// Validations since then.
    pub(super) since: u64,
}

/// A run of an extractor that goes on later.
#[derive(Clone, Debug)]
pub struct ExtractCheckpoint {
    path: PathBuf,
    run: String,
    pub(super) progress: Progress,
    pub(super) tensors: BTreeMap<String, Vec<f32>>,
}

/// Where a run stands now, to be saved.
#[derive(Debug)]
pub struct ExtractState<'a> {
    pub(super) run: &'a str,
    pub(super) progress: &'a Progress,
    pub(super) tensors: Vec<(&'static str, &'a [f32])>,
}

impl ExtractState<'_> {
    /// Writes a file from which [`ExtractCheckpoint::load`] reads; one of this name stays under the name of
    /// [`Checkpoint::previous`].
    ///
    /// # Errors
    /// A file that cannot be written.
    pub fn save(&self, path: &Path) -> Result<(), TrainError> {
        let views = self.tensors.iter().map(|(name, values)| {
            let view = TensorView::new(Dtype::F32, vec![values.len()], bytemuck::cast_slice(values));
            Ok(((*name).to_owned(), view.map_err(|e| bad(path, &e))?))
        });
        let views = views.collect::<Result<_, TrainError>>()?;
        let about = json!({ "format": FORMAT, "run": self.run, "progress": self.progress });
        put(path, &sealed(path, KEY, about, views)?)
    }
}

impl ExtractCheckpoint {
    /// Reads a file that [`ExtractState::save`] wrote.
    ///
    /// # Errors
    /// A file that cannot be read; [`TrainError::Damaged`] where a single bit is another one than was written.
    pub fn load(path: &Path) -> Result<Self, TrainError> {
        let bytes = read(path)?;
        Self::of_bytes(path, &bytes).map_err(|e| match e {
            TrainError::File { problem, .. } => {
                let previous = Some(Checkpoint::previous(path)).filter(|p| p != path && p.is_file());
                TrainError::Damaged { path: path.to_path_buf(), problem, previous }
            }
            e => e,
        })
    }

    fn of_bytes(path: &Path, bytes: &[u8]) -> Result<Self, TrainError> {
        let mut about = unsealed(path, KEY, bytes)?;
        if about["format"] != FORMAT {
            return Err(bad(path, &format!("format {}, this program reads {FORMAT}", about["format"])));
        }
        let Value::String(run) = about["run"].take() else { return Err(bad(path, &"it names no run")) };
        let progress = serde_json::from_value(about["progress"].take()).map_err(|e| bad(path, &e))?;
        let file = SafeTensors::deserialize(bytes).map_err(|e| bad(path, &e))?;
        let tensors = file.iter().map(|(name, t)| {
            if t.dtype() != Dtype::F32 {
                return Err(bad(path, &format!("{name} is {:?}, not F32", t.dtype())));
            }
            Ok((name.to_owned(), t.data().as_chunks().0.iter().map(|b| f32::from_le_bytes(*b)).collect()))
        });
        let tensors = tensors.collect::<Result<_, TrainError>>()?;
        Ok(Self { path: path.to_path_buf(), run, progress, tensors })
    }

    /// # Errors
    /// [`TrainError::Mismatch`] if it belongs to a run of other options or data.
    pub(super) fn expect_run(&self, run: &str) -> Result<(), TrainError> {
        if self.run == run {
            return Ok(());
        }
        let what = format!("the run of {}, which is told by its options and data", self.path.display());
        let short = |run: &str| run.chars().take(16).collect();
        Err(TrainError::Mismatch { what, expected: short(run), got: short(&self.run) })
    }

    /// Takes a tensor of this many elements out.
    ///
    /// # Errors
    /// [`TrainError::NoTensor`], [`TrainError::Mismatch`].
    pub(super) fn take(&mut self, name: &str, len: usize) -> Result<Vec<f32>, TrainError> {
        let tensor = self.tensors.remove(name).ok_or_else(|| TrainError::NoTensor { tensor: name.to_owned() })?;
        if tensor.len() == len {
            return Ok(tensor);
        }
        let what = format!("elements of {name}");
        Err(TrainError::Mismatch { what, expected: len.to_string(), got: tensor.len().to_string() })
    }
}

/// The identity of a run: everything that affects its results.
pub(super) fn run_of(tasks: &[TaskData], options: &ExtractOptions, teachers: &[Extractor]) -> String {
    let mut hash = Sha256::new();
    hash.update(format!("{options:?}"));
    for teacher in teachers {
        hash.update(format!("{:?}", teacher.config()));
    }
    for task in tasks {
        hash.update(format!("{:?} {:?} {:?}", task.name, task.intents, task.slots));
        for u in task.train.iter().chain(&task.valid) {
            let Utterance { said, intent, slots } = u;
            hash.update(format!("{} {:?} {intent:?} {slots:?}\n", said.text(), said.spans));
        }
    }
    hash.finalize().iter().map(|b| format!("{b:02x}")).collect()
}
