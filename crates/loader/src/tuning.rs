//! Which kernels were measured to be the fastest for a model's shapes on this machine: kept in the cache folder as
//! small JSON files, one for each key of CPU, program version, instruction set, threads and shapes.
//!
//! A file that is damaged, or was written for something else, is ignored with a warning: tuning may make a model faster
//! and never keeps it from running, and kernels that are not exact are not taken from here.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use bitnet_model::{ModelConfig, ProjectionGroup};
use serde::{Deserialize, Serialize};
use ternary_kernels::tune::{self, TuneReport};
use ternary_kernels::{Isa, Kernel};

use crate::LoadError;
use crate::mmap::{read_bounded, write_atomically};

/// The longest file read, bytes.
const MAX_FILE: u64 = 1 << 20;
/// Form of the files.
const FORM: u32 = 1;
/// The beginning of their names.
const PREFIX: &str = "tuning-";

/// Everything that a choice depends on. Another key is another file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TuningKey {
    /// Name of the CPU, its last-level cache, and its instruction sets.
    cpu: String,
    /// Version of the kernels, and the names of those that this CPU can run.
    kernels: String,
    /// The instruction set that models are loaded with.
    isa: String,
    /// Threads that compute.
    threads: usize,
    /// Kinds of layers, with rows, columns and number of their matrices, and bits of the activations.
    shapes: Vec<(String, Vec<[usize; 4]>)>,
}

impl TuningKey {
    /// The key of a model of this shape on this machine.
    pub fn new(config: &ModelConfig, isa: Isa, threads: usize) -> Self {
        let sets: Vec<&str> = Isa::available().map(Isa::name).collect();
        let name = ternary_kernels::cpu_name().unwrap_or_else(|| std::env::consts::ARCH.to_owned());
        let available = ternary_kernels::kernels_available();
        let names: Vec<&str> = available.iter().map(|k| k.name()).collect();
        let shapes = ProjectionGroup::ALL.map(|kind| {
            let group = kind.tune_group(config);
            let bits = |int4| if int4 { 4 } else { 8 };
            (group.name, group.shapes.iter().map(|s| [s.rows, s.cols, s.count, bits(s.int4)]).collect())
        });
        Self {
            cpu: format!("{name}, {} bytes of cache, {}", ternary_kernels::last_level_cache(), sets.join(" ")),
            kernels: format!("{}.{}: {}", env!("CARGO_PKG_VERSION"), tune::GENERATION, names.join(" ")),
            isa: isa.name().to_owned(),
            threads,
            shapes: shapes.into(),
        }
    }

    /// Name of the file in the cache folder.
    pub fn file_name(&self) -> String {
        let text = serde_json::to_string(self).unwrap_or_default();
        format!("{PREFIX}{:016x}.json", crate::synthetic::fnv(text.bytes()))
    }

    /// Whether it belongs to this machine and this program, for any model.
    fn is_of_this_machine(&self) -> bool {
        let here = Self::new(&ModelConfig::new(1, 1, 1, 0, 1, 1), Isa::Scalar, 1);
        (&self.cpu, &self.kernels) == (&here.cpu, &here.kernels)
    }
}

/// The kernel of one projection group.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct TunedKernel {
    /// The group, [`ProjectionGroup::name`].
    pub kind: String,
    /// The kernel's name.
    pub kernel: String,
    /// Its time relative to the default kernel.
    pub of_default: f64,
    /// Why, for a person to read.
    pub why: String,
}

/// A projection group and its kernel.
pub type KernelOfGroup = (ProjectionGroup, Arc<dyn Kernel>);

/// Kernels chosen by measurement, as they are stored.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Tuning {
    form: u32,
    key: TuningKey,
    kernels: Vec<TunedKernel>,
}

impl Tuning {
    /// The tuning of a report for the model of `key`.
    pub fn new(key: TuningKey, report: &TuneReport) -> Self {
        let kernels = report.choices.iter().map(|c| TunedKernel {
            kind: c.group.clone(),
            kernel: c.kernel.clone(),
            of_default: c.of_default,
            why: c.why.clone(),
        });
        Self { form: FORM, key, kernels: kernels.collect() }
    }

    /// The choices.
    pub fn kernels(&self) -> &[TunedKernel] {
        &self.kernels
    }

    /// Threads that it was measured with.
    pub fn threads(&self) -> usize {
        self.key.threads
    }

    /// Ternary weights of the model.
    pub fn weights(&self) -> usize {
        let sizes = self.key.shapes.iter().flat_map(|(_, shapes)| shapes);
        let weights = sizes.map(|[rows, cols, count, _]| rows.saturating_mul(*cols).saturating_mul(*count));
        weights.fold(0, usize::saturating_add)
    }

    /// Writes it into `folder`, which is created if needed; the file appears when it is complete.
    ///
    /// # Errors
    /// [`LoadError::Io`] and [`LoadError::Write`].
    pub fn store(&self, folder: &Path) -> Result<PathBuf, LoadError> {
        std::fs::create_dir_all(folder).map_err(LoadError::io("create", folder))?;
        let path = folder.join(self.key.file_name());
        let json = |source| LoadError::Json { what: "a tuning", source };
        let text = serde_json::to_vec_pretty(self).map_err(json)?;
        let what = || path.display().to_string();
        write_atomically(&path, |out| {
            out.write_all(&text).map_err(|source| LoadError::Write { what: what(), source })
        })?;
        Ok(path)
    }

    /// The tuning for `key` in `folder`, if there is one that can be used: every kind once, with a kernel that
    /// [`ternary_kernels::select::tuned`] finds. What cannot be used is ignored with a warning.
    pub fn find(folder: &Path, key: &TuningKey) -> Option<Self> {
        let path = folder.join(key.file_name());
        if !path.is_file() {
            return None;
        }
        let ignored = |reason: &str| {
            tracing::warn!(file = %path.display(), "the stored tuning is ignored: {reason}; `bitnet tune` replaces it");
            None
        };
        let tuning = match read(&path) {
            Ok(tuning) => tuning,
            Err(error) => return ignored(&error.to_string()),
        };
        if tuning.form != FORM || tuning.key != *key {
            return ignored("it was written for another model or machine");
        }
        match tuning.resolve() {
            Ok(_) => Some(tuning),
            Err(reason) => ignored(&reason),
        }
    }

    /// The kernels by kind.
    ///
    /// # Errors
    /// The reason why it is not used.
    pub fn resolve(&self) -> Result<Vec<KernelOfGroup>, String> {
        let one = |kind: ProjectionGroup| {
            let mut of_kind = self.kernels.iter().filter(|k| k.kind == kind.name());
            let (Some(tuned), None) = (of_kind.next(), of_kind.next()) else {
                return Err(format!("it does not name one kernel for {kind}"));
            };
            let kernel = ternary_kernels::select::tuned(&tuned.kernel).map_err(|e| e.to_string())?;
            Ok((kind, kernel))
        };
        ProjectionGroup::ALL.into_iter().map(one).collect()
    }

    /// Whether `folder` holds any tuning. To look is faster than to describe this machine, which a key needs: a virtual machine answers
    /// each question about its CPU in some microseconds.
    pub fn are_in(folder: &Path) -> bool {
        paths(folder).next().is_some()
    }

    /// All tunings in `folder` that hold on this machine with this program; others are passed over.
    pub fn all(folder: &Path) -> Vec<Self> {
        let mut paths: Vec<PathBuf> = paths(folder).collect();
        paths.sort();
        let usable = |t: &Self| t.form == FORM && t.key.is_of_this_machine() && t.resolve().is_ok();
        paths.iter().filter_map(|p| read(p).ok()).filter(usable).collect()
    }
}

/// The files in `folder` whose names are those of tunings.
fn paths(folder: &Path) -> impl Iterator<Item = PathBuf> {
    let ours = |name: &str| name.starts_with(PREFIX) && name.ends_with(".json");
    let entries = std::fs::read_dir(folder).into_iter().flatten();
    let paths = entries.filter_map(|entry| Some(entry.ok()?.path()));
    paths.filter(move |path| path.file_name().and_then(|name| name.to_str()).is_some_and(ours))
}

fn read(path: &Path) -> Result<Tuning, LoadError> {
    let bytes = read_bounded(path, "a tuning", MAX_FILE)?;
    serde_json::from_slice(&bytes).map_err(|source| LoadError::Json { what: "a tuning", source })
}

#[cfg(test)]
#[allow(clippy::unwrap_used)] // A test may.
mod tests {
    use super::*;

    fn config() -> ModelConfig {
        ModelConfig::new(96, 64, 128, 2, 2, 1)
    }

    fn key() -> TuningKey {
        TuningKey::new(&config(), Isa::Scalar, 2)
    }

    fn tuning(kernels: [&str; 4]) -> Tuning {
        let kernels = ProjectionGroup::ALL.iter().zip(kernels).map(|(kind, kernel)| TunedKernel {
            kind: kind.name().to_owned(),
            kernel: kernel.to_owned(),
            of_default: 0.9,
            why: "so".to_owned(),
        });
        Tuning { form: FORM, key: key(), kernels: kernels.collect() }
    }

    const MIXED: [&str; 4] = ["i2s_scalar", "base3_scalar", "i2s_scalar", "base3_scalar"];

    #[test]
    fn what_is_stored_is_found_under_its_key_only() {
        let dir = tempfile::tempdir().unwrap();
        let folder = dir.path().join("made");
        assert_eq!(Tuning::find(&folder, &key()), None);
        let path = tuning(MIXED).store(&folder).unwrap();
        assert_eq!(Tuning::find(&folder, &key()), Some(tuning(MIXED)));
        let names: Vec<_> = tuning(MIXED).resolve().unwrap().iter().map(|(_, k)| k.name().to_owned()).collect();
        assert_eq!(names, MIXED);
        assert_eq!(Tuning::all(&folder), [tuning(MIXED)]);
        assert_eq!(tuning(MIXED).weights(), 2 * (2 * 64 * 64 + 2 * 32 * 64 + 3 * 128 * 64));
        let mut int4 = config();
        int4.inputs.down.bits = bitnet_model::ActivationBits::Four;
        let others = [
            TuningKey::new(&config(), Isa::Scalar, 3),
            TuningKey::new(&ModelConfig::new(96, 64, 192, 2, 2, 1), Isa::Scalar, 2),
            TuningKey::new(&int4, Isa::Scalar, 2),
            TuningKey { cpu: "another".into(), ..key() },
            TuningKey { kernels: "newer".into(), ..key() },
            TuningKey { isa: "avx2".into(), ..key() },
        ];
        for other in others {
            assert_ne!(other.file_name(), key().file_name());
            assert_eq!(Tuning::find(&folder, &other), None);
        }
        // Nothing but the file remains of writing it, twice.
        tuning(MIXED).store(&folder).unwrap();
        assert_eq!(std::fs::read_dir(&folder).unwrap().map(|e| e.unwrap().path()).collect::<Vec<_>>(), [path]);
    }

    #[test]
    fn what_cannot_be_used_is_ignored() {
        let dir = tempfile::tempdir().unwrap();
        let path = tuning(MIXED).store(dir.path()).unwrap();
        let good = std::fs::read_to_string(&path).unwrap();
        let put = |text: &str| {
            std::fs::write(&path, text).unwrap();
            assert_eq!(Tuning::find(dir.path(), &key()), None, "{text}");
            assert_eq!(Tuning::all(dir.path()), [], "{text}");
        };
        for n in [0, 1, good.len() / 2, good.len() - 2] {
            put(good.get(..n).unwrap());
        }
        put("[]");
        put(&"9".repeat(2 << 20));
        put(&good.replace("\"form\": 1", "\"form\": 2"));
        put(&good.replace("base3_scalar", "base4_scalar"));
        // A kernel that exists and rounds.
        put(&good.replace("base3_scalar", "tl1_0_scalar"));
        put(&good.replace("\"kind\": \"down\"", "\"kind\": \"o\""));
        put(&good.replace("\"kind\": \"down\"", "\"kind\": \"head\""));
        put(&good.replace("bytes of cache", "bytes of cash"));
        std::fs::write(&path, &good).unwrap();
        assert!(Tuning::find(dir.path(), &key()).is_some());
        // A folder under the name of the file.
        std::fs::remove_file(&path).unwrap();
        std::fs::create_dir(&path).unwrap();
        assert_eq!(Tuning::find(dir.path(), &key()), None);
    }
}
