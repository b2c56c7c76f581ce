//! The file of `--config`: sections with plain values, TOML as far as that goes, or JSON.

use std::path::Path;

use bitnet::train::TrainConfig;
use serde_json::{Map, Value};

use crate::error::CliError;
use crate::ui;

/// What a configuration file says.
#[derive(Debug, Default)]
pub(super) struct Settings {
    /// Keys of a Hugging Face `config.json`.
    pub(super) model: Map<String, Value>,
    /// The run.
    pub(super) train: TrainConfig,
}

impl Settings {
    /// Reads a file: JSON where the name ends so, TOML otherwise.
    ///
    /// # Errors
    /// A file that cannot be read, a line that is not understood, a key that does not exist.
    pub(super) fn read(path: &Path) -> Result<Self, CliError> {
        let name = path.display().to_string();
        let text = ui::text(std::fs::read(path).map_err(CliError::io("read", &name))?, &name)?;
        let json = path.extension().is_some_and(|e| e == "json");
        let value = if json {
            serde_json::from_str(&text).map_err(|e| CliError::usage(format!("{name}: {e}")))?
        } else {
            Value::Object(sections(&text).map_err(|e| CliError::usage(format!("{name}: {e}")))?)
        };
        Self::of(value).map_err(|e| CliError::usage(format!("{name}: {e}")))
    }

    fn of(value: Value) -> Result<Self, String> {
        let Value::Object(mut map) = value else { return Err("sections were expected".to_owned()) };
        let model = match map.remove("model") {
            None => Map::new(),
            Some(Value::Object(m)) => m,
            Some(_) => return Err("[model] must be a section".to_owned()),
        };
        let train = map.remove("train").unwrap_or_else(|| Value::Object(Map::new()));
        if let Some(key) = map.keys().next() {
            return Err(format!(
                "there is no section [{key}]; sections are [model], [train], [train.schedule], [train.adamw]"
            ));
        }
        let train = serde_json::from_value(train).map_err(|e| e.to_string())?;
        Ok(Self { model, train })
    }
}

/// Sections of `key = value` lines, where a value is a number, a truth value or a text in double quotes.
fn sections(text: &str) -> Result<Map<String, Value>, String> {
    let mut root = Map::new();
    let mut at: Vec<String> = Vec::new();
    for (i, line) in text.lines().enumerate() {
        let line = line.trim();
        let problem = |what: &str| format!("line {}: {what}", i + 1);
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        if let Some(name) = line.strip_prefix('[') {
            let name = name.split('#').next().unwrap_or_default().trim_end();
            let name = name.strip_suffix(']').ok_or_else(|| problem("a section ends in ]"))?;
            at = name.split('.').map(|p| p.trim().to_owned()).collect();
            continue;
        }
        let (key, rest) = line.split_once('=').ok_or_else(|| problem("neither a [section] nor key = value"))?;
        let rest = rest.trim();
        let value = match rest.strip_prefix('"') {
            Some(text) => text.split_once('"').map(|(t, _)| t.to_owned()).map(Value::String),
            None => serde_json::from_str(&rest.split('#').next().unwrap_or_default().trim().replace('_', "")).ok(),
        };
        let value = value
            .filter(|v| v.is_number() || v.is_boolean() || v.is_string())
            .ok_or_else(|| problem("the value must be a number, true, false, or a text in double quotes"))?;
        let mut section = &mut root;
        for name in &at {
            let inner = section.entry(name.clone()).or_insert_with(|| Value::Object(Map::new()));
            section = inner.as_object_mut().ok_or_else(|| problem("a section has the name of a value"))?;
        }
        if section.insert(key.trim().to_owned(), value).is_some() {
            return Err(problem("this key was set before"));
        }
    }
    Ok(root)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sections_become_settings() {
        let text = "# a comment\n[model]\nhidden_size = 256 # wide\nhidden_act = \"relu2\"\n\n[train]\nsteps = 1_000\n\
                    [train.schedule]\npeak = 2.5e-3\n";
        let s = Settings::of(Value::Object(sections(text).unwrap())).unwrap();
        assert_eq!(s.model["hidden_size"], 256);
        assert_eq!(s.model["hidden_act"], "relu2");
        assert_eq!((s.train.steps, s.train.schedule.peak, s.train.batch), (1000, 2.5e-3, 32));
        let fails = |text: &str, what: &str| {
            let e = sections(text).and_then(|s| Settings::of(Value::Object(s))).unwrap_err();
            assert!(e.contains(what), "{e}");
        };
        fails("[train]\nstepz = 1", "stepz");
        fails("[train]\nsteps = 1\nsteps = 2", "line 3");
        fails("nonsense", "line 1");
        fails("[trains]\nsteps = 1", "trains");
        fails("[train]\nsteps = [1]", "line 2");
    }
}
