//! The file of `--config`, TOML or JSON, and whether a continued run would be another one.

use std::path::Path;

use bitnet::ModelConfig;
use bitnet::train::{Checkpoint, TrainConfig, model_from_json, model_to_json};
use loader::files::{self, Kind};
use serde_json::{Map, Value};

use super::args::TrainArgs;
use crate::error::CliError;

/// Contents of a configuration file.
#[derive(Debug, Default)]
pub(super) struct Settings {
    /// Keys of a Hugging Face `config.json`.
    pub(super) model: Map<String, Value>,
    pub(super) train: TrainConfig,
    /// The section of the run as it was written.
    written: Map<String, Value>,
}

impl Settings {
    /// Reads a file: JSON if its name ends in `.json`, TOML otherwise.
    ///
    /// # Errors
    /// A file that cannot be read, a line that is not understood, a key that does not exist.
    pub(super) fn read(path: &Path) -> Result<Self, CliError> {
        let name = path.display().to_string();
        let text = files::read_text(path, Kind::CONFIG)?;
        let json = path.extension().is_some_and(|e| e == "json");
        let value = if json { serde_json::from_str(&text).map_err(|e| e.to_string()) } else { from_toml(&text) };
        value.and_then(Self::of).map_err(|e| CliError::usage(format!("{name}: {e}")))
    }

    fn of(value: Value) -> Result<Self, String> {
        let Value::Object(mut map) = value else { return Err("expected sections".to_owned()) };
        let mut section = |name: &str| match map.remove(name) {
            None => Ok(Map::new()),
            Some(Value::Object(m)) => Ok(m),
            Some(_) => Err(format!("[{name}] must be a section")),
        };
        let (model, written) = (section("model")?, section("train")?);
        if let Some(key) = map.keys().next() {
            return Err(format!(
                "unknown section [{key}]; expected one of: [model], [train], [train.schedule], [train.adamw], \
                 [train.muon]"
            ));
        }
        let train = serde_json::from_value(Value::Object(written.clone())).map_err(|e| e.to_string())?;
        Ok(Self { model, train, written })
    }

    /// Rejects a continued run with settings that differ from those at its beginning: it would not end with the bits of
    /// a run that was never interrupted.
    ///
    /// # Errors
    /// A usage error that names the first option that differs, and both values.
    pub(super) fn agrees(&self, args: &TrainArgs, begun: &Checkpoint) -> Result<(), CliError> {
        let (model, config) = self.asked(args, begun)?;
        let was = serde_json::to_value(&begun.config).unwrap_or_default();
        let is = serde_json::to_value(&config).unwrap_or_default();
        differs("", &was, &is).map_or(Ok(()), Err)?;
        differs("", &model_to_json(&begun.model)?, &model_to_json(&model)?).map_or(Ok(()), Err)
    }

    /// The requested settings; missing ones are taken from `begun`.
    ///
    /// # Errors
    /// Options that cannot be.
    pub(super) fn asked(&self, args: &TrainArgs, begun: &Checkpoint) -> Result<(ModelConfig, TrainConfig), CliError> {
        let mut config = serde_json::to_value(&begun.config).unwrap_or_default();
        overlay(&mut config, &self.written);
        let mut config: TrainConfig =
            serde_json::from_value(config).map_err(|e| CliError::usage(format!("--config: {e}")))?;
        args.run.put(&mut config, args.extract.time);
        let mut model = model_to_json(&begun.model)?;
        overlay(&mut model, &self.model);
        if let Some(map) = model.as_object_mut() {
            args.shape.put(map);
        }
        Ok((model_from_json(&model)?, config))
    }
}

fn from_toml(text: &str) -> Result<Value, String> {
    // Errors show the line in which they are.
    toml::from_str(text).map_err(|e| e.to_string())
}

/// Puts the values of `over` into `to`, section by section.
fn overlay(to: &mut Value, over: &Map<String, Value>) {
    let Some(map) = to.as_object_mut() else { return };
    for (key, value) in over {
        match (map.get_mut(key), value) {
            (Some(inner @ Value::Object(_)), Value::Object(over)) => overlay(inner, over),
            _ => {
                map.insert(key.clone(), value.clone());
            }
        }
    }
}

/// The first value that differs, as an error.
fn differs(within: &str, was: &Value, is: &Value) -> Option<CliError> {
    if let (Some(a), Some(b)) = (was.as_object(), is.as_object()) {
        let keys = a.keys().chain(b.keys().filter(|k| !a.contains_key(*k)));
        return keys.into_iter().find_map(|k| {
            let name = if within.is_empty() { k.clone() } else { format!("{within}.{k}") };
            differs(&name, was.get(k).unwrap_or(&Value::Null), is.get(k).unwrap_or(&Value::Null))
        });
    }
    (was != is).then(|| {
        CliError::usage(format!(
            "--resume: the run was started with {within} = {was}, now it is {is}; omit the option, or start a new run with \
                 another --out"
        ))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sections_become_settings() {
        let text = "# a comment\n[model]\nhidden_size = 256 # wide\nhidden_act = \"relu2\"\nmixers = [\"ttt_linear\", \"attention\"]\n\n\
                    [model.ttt]\nshare_qk = true\n[train]\nsteps = 1_000\n[train.schedule]\npeak = 2.5e-3\n";
        let s = from_toml(text).and_then(Settings::of).unwrap();
        assert_eq!((&s.model["hidden_size"], &s.model["hidden_act"]), (&Value::from(256), &Value::from("relu2")));
        assert_eq!(
            (s.model["mixers"][1].as_str(), &s.model["ttt"]["share_qk"]),
            (Some("attention"), &Value::from(true))
        );
        assert_eq!((s.train.steps, s.train.schedule.peak, s.train.batch), (1000, 2.5e-3, 32));
        let fails = |text: &str, what: &str| {
            let e = from_toml(text).and_then(Settings::of).unwrap_err();
            assert!(e.contains(what), "{e}");
        };
        fails("[train]\nstepz = 1", "stepz");
        fails("[train]\nsteps = 1\nsteps = 2", "line 3");
        fails("nonsense", "line 1");
        fails("[trains]\nsteps = 1", "trains");
        fails("[train]\nsteps = [1]", "u64");
    }

    #[test]
    fn the_first_difference_is_named() {
        let v = |text: &str| serde_json::from_str::<Value>(text).unwrap();
        let was = v(r#"{"a": 1, "b": {"c": 2, "d": [1]}}"#);
        assert!(differs("", &was, &was).is_none());
        let e = differs("", &was, &v(r#"{"a": 1, "b": {"c": 3, "d": [1]}}"#)).unwrap();
        assert!(e.to_string().contains("b.c = 2, now it is 3"), "{e}");
    }
}
