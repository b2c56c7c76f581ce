//! From `--model` to a loaded model.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use bitnet::{KvType, Model, ModelConfig, SamplingOptions, SamplingOverrides, Speculation, UseTuning};
use bitnet_model::WeightSource;
use clap::Args;
use loader::files::{self, Kind};
use loader::synthetic::{Spec, cache_dir};
use loader::{Checkpoint, PackedCache};

use crate::args::{EngineArgs, KernelArg, ModelArgs, SamplingArgs};
use crate::error::CliError;
use crate::explain;
use crate::hub;
use crate::model_spec::{HubSpec, ModelSpec};
use crate::progress;
use crate::ui::Ui;

/// File name of the built-in small model; if the program does not contain it, a file with that name is searched for in
/// the current folder.
const SHIPPED: &str = "tiny-stories-ttt.gguf";

/// The message if no model is named.
const NO_MODEL: &str = "no --model given: this is tiny-stories-ttt, a small model that tells simple stories";

/// The name that stands for no kernel, but for leaving tunings out.
const DEFAULT: &str = "default";

/// A model and how long loading it took.
pub(crate) struct Loaded {
    pub(crate) model: Model,
    pub(crate) load_time: Duration,
}

/// The file or folder that a model argument stands for; downloads or generates it if requested.
///
/// # Errors
/// No model, a path that does not exist, a download or a generation that fails.
pub(crate) fn locate(spec: Option<&ModelSpec>, ui: &Ui) -> Result<PathBuf, CliError> {
    match spec {
        Some(ModelSpec::Path(path)) => existing(path),
        Some(ModelSpec::Hub(spec)) => hub::fetch(spec, ui),
        Some(ModelSpec::Synthetic(name)) => synthetic(&named(name)?, ui),
        Some(ModelSpec::SyntheticFile(file)) => synthetic(&Spec::from_config_file(&existing(file)?)?, ui),
        None => {
            let path = shipped()?;
            ui.note(NO_MODEL);
            Ok(path)
        }
    }
}

/// The model within the program, where none is asked for: it needs no file to be loaded, and its pages are the program's.
#[cfg(feature = "tiny-model")]
fn embedded(spec: Option<&ModelSpec>, ui: &Ui) -> Option<&'static [u8]> {
    spec.is_none().then(|| {
        ui.note(NO_MODEL);
        bitnet::TINY_MODEL
    })
}

#[cfg(not(feature = "tiny-model"))]
fn embedded(_: Option<&ModelSpec>, _: &Ui) -> Option<&'static [u8]> {
    None
}

/// The model within the program as a file in the cache, for commands that read files.
#[cfg(feature = "tiny-model")]
fn shipped() -> Result<PathBuf, CliError> {
    let folder = cache_dir();
    let path = folder.join(SHIPPED);
    let kind = Kind::new("a model", bitnet::TINY_MODEL.len() as u64);
    if files::read(&path, kind).is_ok_and(|bytes| bytes == bitnet::TINY_MODEL) {
        return Ok(path);
    }
    std::fs::create_dir_all(&folder).map_err(CliError::io("create", folder.to_string_lossy()))?;
    files::write(&path, bitnet::TINY_MODEL)?;
    Ok(path)
}

#[cfg(not(feature = "tiny-model"))]
fn shipped() -> Result<PathBuf, CliError> {
    let path = PathBuf::from(SHIPPED);
    if path.is_file() { Ok(path) } else { Err(CliError::NoModel { looked_for: path }) }
}

/// Name and shape of the model that `args` name; its weights are not looked at, and a synthetic one is not made.
///
/// # Errors
/// The errors of [`locate`]; errors in the headers.
pub(crate) fn shape(args: &ModelArgs, ui: &Ui) -> Result<(String, ModelConfig), CliError> {
    let of_spec = |spec: Spec| Ok((format!("synthetic:{}", spec.name), spec.config));
    match &args.model {
        Some(ModelSpec::Synthetic(name)) => of_spec(named(name)?),
        Some(ModelSpec::SyntheticFile(file)) => of_spec(Spec::from_config_file(&existing(file)?)?),
        spec => {
            let path = locate(spec.as_ref(), ui)?;
            let checkpoint = Checkpoint::open(&path, &args.files.load_options())?;
            Ok((path.display().to_string(), checkpoint.config().clone()))
        }
    }
}

fn existing(path: &Path) -> Result<PathBuf, CliError> {
    if path.exists() {
        if !path.is_dir() {
            // A pipe or a device is rejected before anything waits for it.
            files::regular(path, "a model")?;
        }
        return Ok(path.to_path_buf());
    }
    let text = path.to_string_lossy();
    let hint = match text.parse::<HubSpec>() {
        // `owner/repo` with nothing of a file name is more likely a repository than a typing error.
        Ok(_) if path.extension().is_none_or(|e| e != "gguf") && !text.contains('\\') => {
            format!("; for the Hugging Face repository write hf:{text}")
        }
        _ => String::new(),
    };
    Err(CliError::NoSuchModel { path: path.to_path_buf(), hint })
}

/// Which model to load, and how to compute.
#[derive(Clone, Debug, Args)]
pub(crate) struct LoadArgs {
    #[command(flatten)]
    pub(crate) model: ModelArgs,
    #[command(flatten)]
    pub(crate) engine: EngineArgs,
}

impl LoadArgs {
    /// A request to load the model; `default_kv` applies without `--kv`.
    pub(crate) fn request(&self, default_kv: KvType) -> LoadRequest<'_> {
        LoadRequest::new(&self.model, &self.engine, default_kv)
    }
}

/// A model to load, with everything that decides how.
pub(crate) struct LoadRequest<'a> {
    model: &'a ModelArgs,
    engine: &'a EngineArgs,
    default_kv: KvType,
    chat_template: Option<String>,
    context: Option<usize>,
}

impl<'a> LoadRequest<'a> {
    /// The model that `model` names, with the options of `engine`; `default_kv` applies without `--kv`.
    pub(crate) fn new(model: &'a ModelArgs, engine: &'a EngineArgs, default_kv: KvType) -> Self {
        Self { model, engine, default_kv, chat_template: None, context: None }
    }

    /// Replaces the model's chat template by Jinja source, or by the built-in template of that name.
    pub(crate) fn chat_template(mut self, template: Option<String>) -> Self {
        self.chat_template = template;
        self
    }

    /// Limits the context to this many tokens.
    #[cfg(feature = "serve")]
    pub(crate) fn context(mut self, tokens: Option<usize>) -> Self {
        self.context = tokens;
        self
    }

    /// Loads the model.
    ///
    /// # Errors
    /// The errors of [`locate`], errors in the files, and features that this CPU does not have.
    pub(crate) fn load(self, ui: &Ui) -> Result<Loaded, CliError> {
        let (args, engine) = (self.model, self.engine);
        // Report an option that this CPU cannot fulfil before anything is downloaded or read.
        let isa = engine.isa.map(bitnet::Isa::require).transpose()?;
        let embedded = embedded(args.model.as_ref(), ui);
        let path = match embedded {
            Some(_) => PathBuf::from(SHIPPED),
            None => locate(args.model.as_ref(), ui)?,
        };
        let spinner = progress::spinner(ui, &format!("loading {}", path.display()));
        let began = Instant::now();
        let mut builder = Model::builder().kv(engine.kv.unwrap_or(self.default_kv));
        for KernelArg { group, name } in &engine.kernel {
            builder = match group {
                None if name == DEFAULT => builder.tuning(UseTuning::No),
                None => builder.kernel(ternary_kernels::by_name(name)?),
                Some(group) => builder.kernel_for(*group, ternary_kernels::by_name(name)?),
            };
        }
        if let Some(threads) = engine.threads {
            builder = builder.threads(usize::from(threads));
        }
        if let Some(isa) = isa {
            builder = builder.isa(isa);
        }
        if let Some(head) = engine.head {
            builder = builder.head(head);
        }
        if let Some(bits) = engine.activations {
            builder = builder.activation_bits(bits);
        }
        if let Some(tokens) = self.context {
            builder = builder.context(tokens);
        }
        let mut files = args.files.load_options();
        files.chat_template = self.chat_template;
        files.packed_cache = (!args.files.no_packed_cache).then(|| PackedCache::new(cache_dir()));
        let builder = builder.inner_updates(!engine.no_adapt).load_options(files);
        let model = match embedded {
            Some(bytes) => builder.load_bytes(bytes),
            None => builder.load(&path),
        };
        let load_time = began.elapsed();
        spinner.finish_and_clear();
        let model = model.map_err(|e| explained(e, &path))?;
        for note in model.notes() {
            match args.model {
                Some(_) => ui.note(note),
                // Do not show load notes of the built-in model.
                None => tracing::info!("{note}"),
            }
        }
        Ok(Loaded { model, load_time })
    }
}

/// The error of a file that cannot be loaded, with a description of the file. If the command line asks for something
/// impossible, the file is not at fault.
fn explained(error: bitnet::Error, path: &Path) -> CliError {
    match error {
        bitnet::Error::Load(_) => {
            let what = explain::foreign(path).map(str::to_owned).or_else(|| explain::elsewhere(path));
            CliError::from(error).explained(what)
        }
        _ => error.into(),
    }
}

/// Jinja source from a file with that name, or the name itself for a built-in template.
///
/// # Errors
/// A file that cannot be read or is not text.
pub(crate) fn template(name: &str) -> Result<String, CliError> {
    let path = Path::new(name);
    match path.exists() && !path.is_dir() {
        true => Ok(files::read_text(path, Kind::TEMPLATE)?),
        false => Ok(name.to_owned()),
    }
}

/// Sampling options: the model's recommendation, changed by the command line.
pub(crate) fn sampling(model: &Model, args: &SamplingArgs) -> SamplingOptions {
    let typed = SamplingOverrides {
        temperature: args.temperature,
        top_k: args.top_k,
        top_p: args.top_p,
        min_p: args.min_p,
        repeat_penalty: args.repeat_penalty,
        repeat_last_n: None,
        presence_penalty: args.presence_penalty,
        frequency_penalty: args.frequency_penalty,
        seed: Some(args.seed.unwrap_or_else(fresh_seed)),
    };
    typed.apply(model.default_sampling())
}

/// Speculative decoding according to `--draft`.
pub(crate) fn speculation(args: &SamplingArgs) -> Speculation {
    match args.draft {
        None => Speculation::Auto,
        Some(0) => Speculation::Off,
        Some(max_draft) => Speculation::PromptLookup { max_draft },
    }
}

/// A seed that differs from run to run, small enough to be typed again.
fn fresh_seed() -> u64 {
    use std::hash::{BuildHasher, RandomState};
    RandomState::new().hash_one(std::process::id()) >> 32
}

fn named(name: &str) -> Result<Spec, CliError> {
    Spec::named(name).ok_or_else(|| CliError::usage(format!("unknown synthetic shape {name:?}")))
}

fn synthetic(spec: &Spec, ui: &Ui) -> Result<PathBuf, CliError> {
    let folder = cache_dir();
    let path = folder.join(spec.file_name());
    if path.is_file() {
        return Ok(path);
    }
    ui.note(&format!("writing {} with random weights; later runs reuse it", path.display()));
    let graceful = crate::interrupt::Graceful::begin();
    let bar = progress::of_bytes(ui, "writing", spec.data_bytes()?);
    let written = spec.write(&path, crate::process::cpus(), &mut |done| {
        bar.set_position(done);
        if graceful.cancelled() { std::ops::ControlFlow::Break(()) } else { std::ops::ControlFlow::Continue(()) }
    })?;
    bar.finish_and_clear();
    if written { Ok(path) } else { Err(CliError::Interrupted) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_missing_path_that_looks_like_a_repository_is_answered_with_a_hint() {
        let error = |p: &str| existing(Path::new(p)).unwrap_err().to_string();
        assert!(error("no-such-owner/no-such-repo").contains("hf:no-such-owner/no-such-repo"));
        assert!(!error("no-such-folder/no-such.gguf").contains("hf:"));
    }
}
