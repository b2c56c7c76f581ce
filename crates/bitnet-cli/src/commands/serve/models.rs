//! The models of `bitnet serve`: one, several, or those of a folder.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use bitnet::{KvType, Model};
use bitnet_server::{LoadFailure, Models};

use super::ServeArgs;
use crate::args::{EngineArgs, ModelArgs};
use crate::error::CliError;
use crate::model_spec::ModelSpec;
use crate::process;
use crate::source::{self, LoadRequest};
use crate::ui::Ui;

/// Most models of a folder.
const MOST: usize = 1000;
/// Most parts of a file that are looked for.
const PARTS: usize = 1000;
/// The share of the machine's memory that several models may take, unless another limit is given.
const SHARE: u64 = 75;

/// The models, and the one that was loaded, if any was.
pub(super) struct Found {
    pub(super) models: Models,
    pub(super) loaded: Option<Model>,
    /// Names for the line that says where the server is, if there are several.
    pub(super) names: Vec<String>,
}

/// How a model is loaded.
struct Source {
    name: String,
    path: PathBuf,
    model: ModelArgs,
    engine: EngineArgs,
    template: Option<String>,
    context: Option<usize>,
}

impl Source {
    fn load(&self, ui: &Ui) -> Result<Model, CliError> {
        let request = LoadRequest::new(&self.model, &self.engine, KvType::F16);
        Ok(request.chat_template(self.template.clone()).context(self.context).load(ui)?.model)
    }

    /// For the server, whose clients do not learn where its files are.
    fn loader(self: &Arc<Self>) -> impl Fn() -> Result<Model, LoadFailure> + Send + Sync + 'static {
        let source = self.clone();
        move || {
            let hide = |error: CliError| error.to_string().replace(&*source.path.to_string_lossy(), &source.name);
            source.load(&Ui::new(true)).map_err(|error| hide(error).into())
        }
    }
}

/// Finds the models that are given; the first one of `--model` is loaded, the others when a request names them.
///
/// # Errors
/// The errors of loading; options that do not go with several models.
pub(super) fn find(args: &ServeArgs, ui: &Ui) -> Result<Found, CliError> {
    let template = args.template.as_deref().map(source::template).transpose()?;
    let args_of = |spec: Option<ModelSpec>| ModelArgs { model: spec, files: args.files.clone() };
    if args.models.is_none() && args.model.len() <= 1 {
        let model = args_of(args.model.first().cloned());
        let request = LoadRequest::new(&model, &args.engine, KvType::F16);
        let model = request.chat_template(template).context(args.limits.context).load(ui)?.model;
        return Ok(Found { models: model.clone().into(), loaded: Some(model), names: Vec::new() });
    }
    for (given, option) in [(args.name.is_some(), "--name"), (args.files.tokenizer.is_some(), "--tokenizer")] {
        if given {
            return Err(CliError::usage(format!("{option} goes with one model; leave it out, or serve one model")));
        }
    }
    let mut sources = Vec::new();
    for spec in &args.model {
        let path = source::locate(Some(spec), ui)?;
        let name = match spec {
            // The name of its folder in the cache would mean nothing to a client.
            ModelSpec::Hub(hub) => hub.repo.clone(),
            _ => name_of(&path),
        };
        sources.push((name, path));
    }
    let known: Vec<Option<PathBuf>> = sources.iter().map(|(_, path)| path.canonicalize().ok()).collect();
    for path in args.models.as_deref().map(in_folder).transpose()?.unwrap_or_default() {
        if !known.contains(&path.canonicalize().ok()) {
            sources.push((name_of(&path), path));
        }
    }
    let mut found = Found { models: Models::new(), loaded: None, names: Vec::new() };
    for (at, (name, path)) in sources.into_iter().enumerate() {
        let bytes = bytes_of(&path);
        let source = Arc::new(Source {
            name: name.clone(),
            model: args_of(Some(ModelSpec::Path(path.clone()))),
            path,
            engine: args.engine.clone(),
            template: template.clone(),
            context: args.limits.context,
        });
        if at == 0 && !args.model.is_empty() {
            let model = source.load(ui)?;
            found.models.add_loaded(name.clone(), model.clone(), source.loader());
            found.loaded = Some(model);
        } else {
            found.models.add_on_demand(name.clone(), bytes, source.loader());
        }
        found.names.push(name);
    }
    Ok(found)
}

/// The limit of memory for several models, unless another one is given.
pub(super) fn default_limit() -> Option<u64> {
    share_of_memory(SHARE)
}

fn share_of_memory(percent: u64) -> Option<u64> {
    Some(process::memory_bytes("MemTotal")? / 100 * percent)
}

/// A size with its unit (`6GiB`, `800M`), or a share of the machine's memory (`60%`).
pub(super) fn memory(text: &str) -> Result<u64, String> {
    let must = || {
        "it must be a size with a unit, as in 6GiB or 800MiB, or a share of the machine's memory, as in 60%".to_owned()
    };
    let unit = text.find(|c: char| !c.is_ascii_digit()).ok_or_else(must)?;
    let (number, unit) = text.split_at(unit);
    let number: u64 = number.parse().map_err(|_| must())?;
    let shift = match unit.to_ascii_lowercase().as_str() {
        "%" if (1..=100).contains(&number) => {
            return share_of_memory(number)
                .ok_or_else(|| "this system does not tell its memory: give a size".to_owned());
        }
        "k" | "kib" => 10,
        "m" | "mib" => 20,
        "g" | "gib" => 30,
        "t" | "tib" => 40,
        _ => return Err(must()),
    };
    number.checked_mul(1 << shift).filter(|bytes| *bytes > 0).ok_or_else(must)
}

/// The name of a file for clients: without its extension, and without the number of a part.
fn name_of(path: &Path) -> String {
    let name = path.file_name().map_or_else(String::new, |name| name.to_string_lossy().into_owned());
    let stem = name.strip_suffix(".gguf").unwrap_or(&name);
    part(stem).map_or(stem, |(base, ..)| base).to_owned()
}

/// The parts of a name like `model-00001-of-00003`: the base, the number and how many there are.
fn part(stem: &str) -> Option<(&str, usize, usize)> {
    let (before, count) = stem.rsplit_once("-of-")?;
    let (base, number) = before.rsplit_once('-')?;
    let read = |digits: &str| (digits.len() == 5).then(|| digits.parse().ok()).flatten();
    Some((base, read(number)?, read(count)?))
}

/// The models of a folder by their names: GGUF files, and folders with a configuration.
fn in_folder(folder: &Path) -> Result<Vec<PathBuf>, CliError> {
    let failed = || CliError::io("read", folder.to_string_lossy());
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder).map_err(failed())? {
        let path = entry.map_err(failed())?.path();
        let Some(name) = path.file_name().and_then(|name| name.to_str()).filter(|name| !name.starts_with('.')) else {
            continue;
        };
        let is_model = match name.strip_suffix(".gguf") {
            Some(stem) => path.is_file() && part(stem).is_none_or(|(_, number, _)| number == 1),
            None => path.join("config.json").is_file(),
        };
        if is_model {
            found.push(path);
        }
        if found.len() > MOST {
            return Err(CliError::usage(format!("--models: {} has more than {MOST} models", folder.display())));
        }
    }
    if found.is_empty() {
        let problem =
            format!("--models: there is no GGUF file in {}, and no folder with a config.json", folder.display());
        return Err(CliError::usage(problem));
    }
    found.sort();
    Ok(found)
}

/// Bytes of a model's files.
fn bytes_of(path: &Path) -> u64 {
    let size = |path: &Path| std::fs::metadata(path).map_or(0, |m| m.len());
    if path.is_dir() {
        let files = std::fs::read_dir(path).into_iter().flatten().flatten().map(|entry| entry.path());
        let weights = files.filter(|file| file.extension().is_some_and(|e| e == "safetensors" || e == "gguf"));
        return weights.map(|file| size(&file)).sum();
    }
    let stem = path.file_stem().and_then(|stem| stem.to_str()).unwrap_or_default();
    match part(stem) {
        Some((base, _, count)) => {
            let name = |number: usize| path.with_file_name(format!("{base}-{number:05}-of-{count:05}.gguf"));
            (1..=count.min(PARTS)).map(|number| size(&name(number))).sum()
        }
        None => size(path),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_need_a_unit() {
        assert_eq!((memory("6GiB"), memory("800M"), memory("2tib")), (Ok(6 << 30), Ok(800 << 20), Ok(2 << 40)));
        for wrong in ["", "6", "GiB", "6 GiB", "0G", "-1G", "101%", "0%", "6X", "99999999999999999999G", "99999999T"] {
            assert!(memory(wrong).is_err(), "{wrong}");
        }
        if let (Ok(half), Some(all)) = (memory("50%"), process::memory_bytes("MemTotal")) {
            assert_eq!(half, all / 100 * 50);
        }
    }

    #[test]
    fn a_folder_is_searched_for_models() {
        let folder = tempfile::tempdir().unwrap();
        let write = |name: &str, bytes: usize| std::fs::write(folder.path().join(name), vec![0; bytes]).unwrap();
        assert!(in_folder(folder.path()).is_err());
        for (name, bytes) in [
            ("b.gguf", 3),
            ("a.gguf", 1),
            ("big-00001-of-00002.gguf", 5),
            ("big-00002-of-00002.gguf", 7),
            ("readme.md", 9),
            (".c.gguf", 1),
        ] {
            write(name, bytes);
        }
        for name in ["hf", "other"] {
            std::fs::create_dir(folder.path().join(name)).unwrap();
        }
        write("hf/config.json", 2);
        write("hf/model.safetensors", 11);
        let found = in_folder(folder.path()).unwrap();
        let told: Vec<(String, u64)> = found.iter().map(|path| (name_of(path), bytes_of(path))).collect();
        let expected = [("a", 1), ("b", 3), ("big", 12), ("hf", 11)].map(|(name, bytes)| (name.to_owned(), bytes));
        assert_eq!(told, expected);
    }
}
