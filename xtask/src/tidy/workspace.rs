//! What `cargo metadata` says of the workspace.

use std::path::PathBuf;

use serde_json::Value;

use crate::error::XtaskError;
use crate::shell::output;

/// The members of the workspace.
pub(crate) struct Workspace {
    /// In the order of their names.
    pub(crate) members: Vec<Package>,
}

/// A member of the workspace.
pub(crate) struct Package {
    /// Its name.
    pub(crate) name: String,
    /// Folder of its `Cargo.toml`.
    pub(crate) dir: PathBuf,
    /// Names of its features.
    pub(crate) features: Vec<String>,
    /// What it depends on, development and build included.
    pub(crate) dependencies: Vec<Dependency>,
}

/// A dependency as a `Cargo.toml` states it.
pub(crate) struct Dependency {
    /// Name of the package.
    pub(crate) name: String,
    /// Whether it belongs to the built library, not only to its tests or its build script.
    pub(crate) normal: bool,
    /// Whether it lies in this repository.
    pub(crate) local: bool,
}

/// Packages that only this repository uses.
pub(crate) const INTERNAL: &[&str] = &["xtask", "parity", "bench", "benches", "test-support"];

impl Workspace {
    /// Asks cargo.
    ///
    /// # Errors
    /// If cargo fails or its answer is not JSON.
    pub(crate) fn load() -> Result<Self, XtaskError> {
        let text = output("cargo", &["metadata", "--no-deps", "--format-version", "1"], &[])?;
        Self::parse(&text)
    }

    fn parse(text: &str) -> Result<Self, XtaskError> {
        let metadata: Value = serde_json::from_str(text).map_err(|e| XtaskError::Unexpected {
            what: "cargo metadata".into(),
            expected: "JSON".into(),
            got: e.to_string(),
        })?;
        let list = |v: &Value| v.as_array().cloned().unwrap_or_default();
        let name = |v: &Value| v["name"].as_str().unwrap_or_default().to_owned();
        let mut members: Vec<Package> = list(&metadata["packages"])
            .iter()
            .map(|p| Package {
                name: name(p),
                dir: PathBuf::from(p["manifest_path"].as_str().unwrap_or_default()).with_file_name(""),
                features: p["features"].as_object().map(|f| f.keys().cloned().collect()).unwrap_or_default(),
                dependencies: list(&p["dependencies"])
                    .iter()
                    .map(|d| Dependency { name: name(d), normal: d["kind"].is_null(), local: d["path"].is_string() })
                    .collect(),
            })
            .collect();
        members.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(Self { members })
    }

    /// The crates that others may use.
    pub(crate) fn published(&self) -> impl Iterator<Item = &Package> {
        self.members.iter().filter(|p| !INTERNAL.contains(&p.name.as_str()))
    }
}

impl Package {
    /// A package for tests of the rules.
    #[cfg(test)]
    pub(super) fn example(name: &str, dependencies: &[&str]) -> Self {
        let dependency = |d: &&str| Dependency { name: (*d).to_owned(), normal: true, local: !d.contains('-') };
        Self {
            name: name.to_owned(),
            dir: PathBuf::new(),
            features: Vec::new(),
            dependencies: dependencies.iter().map(dependency).collect(),
        }
    }
}
