//! Settings of the program, a file of JSON. Anything damaged in it becomes the default.

use std::path::{Path, PathBuf};

use loader::files::{self, FileError, Kind};
use serde::{Deserialize, Serialize};

use crate::memory::{Damage, Found, set_aside};

/// More than any settings.
const MAX: u64 = 1 << 20;
/// Most threads that can be set.
pub const MAX_THREADS: usize = 1024;

/// A language of the page and of the tray's menu.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[allow(missing_docs, reason = "their names say it")]
pub enum Language {
    En,
    Ja,
}

/// The settings, apart from the start with the system, which the system keeps.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct Settings {
    /// A model file; without one the model within the program.
    pub model: Option<PathBuf>,
    /// Threads to compute with; 0 takes those of the machine.
    pub threads: usize,
    /// The language; without one that of the system.
    pub language: Option<Language>,
    /// Keys that show and hide the bubble, from anywhere; none if empty.
    pub shortcut: String,
    /// Where the character stands: its lower right corner, in pixels of the screen.
    pub place: Option<(i32, i32)>,
}

impl Default for Settings {
    fn default() -> Self {
        let shortcut = "CmdOrCtrl+Shift+Space".to_owned();
        Self { model: None, threads: 0, language: None, shortcut, place: None }
    }
}

impl Settings {
    /// The settings of a file. What cannot be used is set aside.
    pub fn read(path: &Path) -> Found<Self> {
        let text = match files::read_text(path, Kind::new("settings", MAX)) {
            Ok(text) => text,
            Err(e) if e.is_absent() => return Found::Nothing,
            Err(e) => return set_aside(path.to_owned(), Damage::Unreadable(e.to_string())),
        };
        match serde_json::from_str::<Self>(&text) {
            Ok(settings) => Found::Good(Self { threads: settings.threads.min(MAX_THREADS), ..settings }),
            Err(e) => set_aside(path.to_owned(), Damage::Unreadable(e.to_string())),
        }
    }

    /// Writes them.
    ///
    /// # Errors
    /// A full disk, a folder that cannot be written to.
    pub fn write(&self, path: &Path) -> Result<(), FileError> {
        if let Some(folder) = path.parent() {
            std::fs::create_dir_all(folder).map_err(FileError::io("make the folder", folder))?;
        }
        files::write(path, &serde_json::to_vec_pretty(self).unwrap_or_default())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_come_back_as_they_were() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("new/settings.json");
        assert_eq!(Settings::read(&path), Found::Nothing);
        let settings = Settings {
            model: Some("/models/日本.gguf".into()),
            threads: 3,
            language: Some(Language::Ja),
            shortcut: "Alt+B".into(),
            place: Some((-5, 900)),
        };
        settings.write(&path).unwrap();
        assert_eq!(Settings::read(&path), Found::Good(settings));
    }

    #[test]
    fn missing_fields_are_defaults_and_damage_is_set_aside() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("settings.json");
        std::fs::write(&path, r#"{"threads": 2}"#).unwrap();
        assert_eq!(Settings::read(&path), Found::Good(Settings { threads: 2, ..Settings::default() }));
        for bad in ["", "{", r#"{"threads": -1}"#, r#"{"unknown": 1}"#, "\u{0}"] {
            std::fs::write(&path, bad).unwrap();
            let Found::SetAside(aside, _) = Settings::read(&path) else { panic!("taken: {bad:?}") };
            assert_eq!(std::fs::read_to_string(aside).unwrap(), bad);
            assert_eq!(Settings::read(&path), Found::Nothing);
        }
        std::fs::write(&path, r#"{"threads": 99999}"#).unwrap();
        assert_eq!(Settings::read(&path), Found::Good(Settings { threads: MAX_THREADS, ..Settings::default() }));
    }

    /// The program never starts with the system unless it was told to: that is not a setting of this file.
    #[test]
    fn the_default_is_quiet() {
        let text = serde_json::to_string(&Settings::default()).unwrap();
        assert!(!text.contains("autostart"), "{text}");
    }
}
