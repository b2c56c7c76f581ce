//! Values of `--model`: paths, repositories, short names and synthetic models.

use std::path::{Path, PathBuf};
use std::str::FromStr;

use clap::builder::{OsStringValueParser, TypedValueParser};
use loader::synthetic::Spec;

use crate::names;

/// The source of a model, as typed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum ModelSpec {
    /// A file or a folder.
    Path(PathBuf),
    /// A repository of the Hugging Face hub.
    Hub(HubSpec),
    /// Random weights in a shape that has a name, one of [`Spec::NAMES`].
    Synthetic(String),
    /// Random weights in the shape of a `config.json`.
    SyntheticFile(PathBuf),
}

/// `OWNER/REPO[:FILE]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct HubSpec {
    /// `OWNER/REPO`.
    pub(crate) repo: String,
    /// One of its files; otherwise all files that a model needs.
    pub(crate) file: Option<String>,
}

impl HubSpec {
    fn of_known(known: &names::Known) -> Self {
        let file = known.hub.split_once(':').map(|(_, file)| file.to_owned());
        Self { repo: known.repo().to_owned(), file }
    }
}

impl FromStr for HubSpec {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if let Some(known) = names::find(text) {
            return Ok(Self::of_known(known));
        }
        let text = text.strip_prefix("hf:").unwrap_or(text);
        let (repo, file) = match text.split_once(':') {
            Some((repo, file)) if !file.is_empty() => (repo, Some(file.to_owned())),
            Some(_) => return Err("the file name after the colon is missing".into()),
            None => (text, None),
        };
        let legal = |part: &str| {
            let allowed = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
            !part.is_empty() && part != "." && part != ".." && part.chars().all(allowed)
        };
        match repo.split_once('/') {
            Some((owner, name)) if legal(owner) && legal(name) => Ok(Self { repo: repo.to_owned(), file }),
            _ => Err("a repository is named OWNER/REPO, as in microsoft/bitnet-b1.58-2B-4T; `bitnet list --known` shows short names".into()),
        }
    }
}

impl ModelSpec {
    /// For options: a name that is not text is a path.
    pub(crate) fn parser() -> impl TypedValueParser<Value = Self> {
        OsStringValueParser::new().try_map(|name| match name.into_string() {
            Ok(text) => text.parse(),
            Err(path) => Ok::<_, String>(ModelSpec::Path(path.into())),
        })
    }
}

impl FromStr for ModelSpec {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if text.is_empty() {
            return Err("the name is empty".into());
        }
        if let Some(rest) = text.strip_prefix("hf:") {
            return rest.parse().map(ModelSpec::Hub);
        }
        match text.strip_prefix("synthetic:") {
            Some(name) if Spec::NAMES.contains(&name) => Ok(ModelSpec::Synthetic(name.to_owned())),
            Some(file) if file.ends_with(".json") => Ok(ModelSpec::SyntheticFile(file.into())),
            Some(_) => {
                let names: Vec<String> = Spec::NAMES.iter().map(|n| format!("synthetic:{n}, ")).collect();
                Err(format!("synthetic models are {}and synthetic:FILE.json", names.concat()))
            }
            // An existing path takes precedence.
            None => match names::find(text).filter(|_| !Path::new(text).exists()) {
                Some(known) => Ok(ModelSpec::Hub(HubSpec::of_known(known))),
                None => Ok(ModelSpec::Path(text.into())),
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_models_are_understood() {
        let hub = |repo: &str, file: Option<&str>| {
            ModelSpec::Hub(HubSpec { repo: repo.into(), file: file.map(str::to_owned) })
        };
        assert_eq!("a/b.gguf".parse(), Ok(ModelSpec::Path("a/b.gguf".into())));
        assert_eq!("synthetic:2b4t".parse(), Ok(ModelSpec::Synthetic("2b4t".into())));
        assert_eq!("synthetic:2b4t-v2".parse(), Ok(ModelSpec::Synthetic("2b4t-v2".into())));
        assert_eq!("synthetic:x/y.json".parse(), Ok(ModelSpec::SyntheticFile("x/y.json".into())));
        assert_eq!("hf:o/r".parse(), Ok(hub("o/r", None)));
        assert_eq!("Falcon3-1B".parse(), Ok(hub("tiiuae/Falcon3-1B-Instruct-1.58bit", None)));
        assert_eq!("hf:o/r:f.gguf".parse(), Ok(hub("o/r", Some("f.gguf"))));
        for known in names::KNOWN {
            assert_eq!(known.name.to_uppercase().parse(), known.hub.parse::<HubSpec>());
        }
        for bad in ["", "synthetic:3b", "hf:o", "hf:o/r:", "hf:o/../r", "hf:/r", "hf:../r"] {
            assert!(bad.parse::<ModelSpec>().is_err(), "{bad}");
        }
    }
}
