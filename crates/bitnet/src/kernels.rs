//! Which kernels a model is computed with, and who said so: the caller, a tuning of this machine, or the defaults.

use std::num::NonZeroUsize;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bitnet_model::{EngineOptions, ModelConfig, ModelError, ProjectionGroup};
use loader::tuning::{KernelOfGroup, Tuning, TuningKey};
use ternary_kernels::select::{self, Wishes};
use ternary_kernels::tune::{TuneOptions, TuneReport};
use ternary_kernels::{GroupKernel, Isa, Kernel};

use crate::Error;

/// Whether a model is loaded with the kernels that [`tune`] found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum UseTuning {
    /// Yes, from the cache folder ([`loader::synthetic::cache_dir`]).
    #[default]
    FromCache,
    /// Yes, from this folder.
    FromFolder(PathBuf),
    /// No: the kernels that the caller requests, else the defaults.
    No,
}

impl UseTuning {
    fn folder(&self) -> Option<PathBuf> {
        match self {
            UseTuning::FromCache => Some(loader::synthetic::cache_dir()),
            UseTuning::FromFolder(folder) => Some(folder.clone()),
            UseTuning::No => None,
        }
    }
}

pub use ternary_kernels::select::ChosenBy;

/// The kernel of one projection group.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct LayerKernel {
    /// The group.
    pub group: ProjectionGroup,
    /// The kernel's name.
    pub kernel: String,
    /// The origin of the choice.
    pub by: ChosenBy,
}

/// The kernels that the caller requested.
#[derive(Clone, Debug, Default)]
pub(crate) struct KernelRequest {
    pub(crate) all: Option<Arc<dyn Kernel>>,
    pub(crate) of_group: Vec<KernelOfGroup>,
    pub(crate) tuning: UseTuning,
}

impl KernelRequest {
    /// The kernels of a model of this shape, with the options that make an engine use them.
    pub(crate) fn resolve(
        &self,
        config: &ModelConfig,
        mut options: EngineOptions,
    ) -> Result<(EngineOptions, Vec<LayerKernel>), Error> {
        let isa = options.isa.map_or_else(Isa::selected, Isa::require).map_err(ModelError::from)?;
        let tuned = match (&self.all, self.tuning.folder()) {
            (None, Some(folder)) if Tuning::are_in(&folder) => {
                Tuning::find(&folder, &TuningKey::new(config, isa, threads(options.threads)))
            }
            _ => None,
        };
        // Tunings that `find` returns can be resolved.
        let tuned = tuned.and_then(|t| t.resolve().ok()).unwrap_or_default();
        let weights = usize::try_from(config.ternary_weights()).unwrap_or(usize::MAX);
        let by_isa = GroupKernel::for_isa(isa).map_err(ModelError::from)?;
        let mut chosen = Vec::new();
        for group in ProjectionGroup::ALL {
            let of =
                |list: &[KernelOfGroup]| list.iter().rev().find(|(g, _)| *g == group).map(|(_, kernel)| kernel.clone());
            let wishes = Wishes { for_group: of(&self.of_group), for_model: self.all.clone(), tuned: of(&tuned) };
            let workload = group.workload(config, isa, weights);
            let (kernel, by) = select::choose(wishes, workload).map_err(ModelError::from)?;
            // The group kernel always reads such inputs (`select::only_by_group`).
            let by_group = |p| options.activation_bits.unwrap_or(config.input_form(p).bits).is_wide();
            chosen.push(match group.projections().any(by_group) {
                true => LayerKernel { group, kernel: by_isa.name().to_owned(), by: ChosenBy::Default },
                false => LayerKernel { group, kernel: kernel.name().to_owned(), by },
            });
            options = options.kernel_for(group, kernel);
        }
        Ok((options, chosen))
    }
}

/// The number of threads of an engine by default.
fn threads(asked: Option<NonZeroUsize>) -> usize {
    asked.unwrap_or_else(ternary_kernels::default_threads).get()
}

/// The kernels of a model of this shape if the caller requests none.
///
/// # Errors
/// [`Error::Model`] for an instruction set that this CPU does not have.
///
/// ```
/// use bitnet::{ModelConfig, UseTuning};
/// let kernels = bitnet::kernels_for(&ModelConfig::new(96, 64, 128, 2, 2, 1), None, None, &UseTuning::No)?;
/// assert!(kernels.iter().all(|k| k.by == bitnet::ChosenBy::Default));
/// # Ok::<(), bitnet::Error>(())
/// ```
pub fn kernels_for(
    config: &ModelConfig,
    isa: Option<Isa>,
    threads: Option<NonZeroUsize>,
    tuning: &UseTuning,
) -> Result<Vec<LayerKernel>, Error> {
    let mut options = EngineOptions::default();
    (options.isa, options.threads) = (isa, threads);
    let asked = KernelRequest { tuning: tuning.clone(), ..KernelRequest::default() };
    Ok(asked.resolve(config, options)?.1)
}

/// Measures which kernels are the fastest for a model of this shape on this machine. Give the result to [`store_tuning`],
/// and models of this shape are loaded with them from then on.
///
/// # Errors
/// [`Error::Model`] with the errors of [`ternary_kernels::tune::tune`].
pub fn tune(
    config: &ModelConfig,
    options: &TuneOptions,
    progress: &mut dyn FnMut(f64) -> ControlFlow<()>,
) -> Result<TuneReport, Error> {
    let groups = ProjectionGroup::ALL.map(|group| group.tune_group(config));
    Ok(ternary_kernels::tune::tune(&groups, options, progress).map_err(ModelError::from)?)
}

/// Stores the result of [`tune`], in `folder` or in the cache folder, and returns the file. It is used for models of
/// the same shape on the same CPU, with the same kernels, instruction set and number of threads.
///
/// # Errors
/// [`Error::Load`] if the file cannot be written, [`Error::Model`] for an instruction set that this CPU does not have.
pub fn store_tuning(
    config: &ModelConfig,
    options: &TuneOptions,
    report: &TuneReport,
    folder: Option<&Path>,
) -> Result<PathBuf, Error> {
    let isa = options.isa.map_or_else(Isa::selected, Isa::require).map_err(ModelError::from)?;
    let key = TuningKey::new(config, isa, options.threads.get());
    let folder = folder.map_or_else(loader::synthetic::cache_dir, Path::to_path_buf);
    Ok(Tuning::new(key, report).store(&folder)?)
}
