//! The workspace as `cargo metadata` describes it.

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
    pub(crate) name: String,
    /// Folder of its `Cargo.toml`.
    pub(crate) dir: PathBuf,
    /// Whether its `Cargo.toml` lets it be published.
    pub(crate) publishable: bool,
    /// Its features, each with the features that it turns on.
    pub(crate) features: Vec<(String, Vec<String>)>,
    /// Its dependencies, development and build included.
    pub(crate) dependencies: Vec<Dependency>,
}

/// A dependency as a `Cargo.toml` states it.
pub(crate) struct Dependency {
    /// Name of the package.
    pub(crate) name: String,
    /// Whether it belongs to the built library, not only to its tests or its build script.
    pub(crate) normal: bool,
    /// Whether it is in this repository.
    pub(crate) local: bool,
    /// Features of it that are asked for, with the default ones if they are not refused.
    pub(crate) features: Vec<String>,
    /// Whether its default features are on.
    pub(crate) defaults: bool,
}

/// Packages that only this repository uses.
pub(crate) const INTERNAL: &[&str] =
    &["xtask", "parity", "bench", "hostile", "host-features", "intent", "benches", "test-support"];

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
        let texts = |v: &Value| list(v).iter().filter_map(|s| s.as_str().map(str::to_owned)).collect::<Vec<_>>();
        let name = |v: &Value| v["name"].as_str().unwrap_or_default().to_owned();
        let mut members: Vec<Package> = list(&metadata["packages"])
            .iter()
            .map(|p| Package {
                name: name(p),
                dir: PathBuf::from(p["manifest_path"].as_str().unwrap_or_default()).with_file_name(""),
                publishable: p["publish"].is_null(),
                features: p["features"]
                    .as_object()
                    .map(|f| f.iter().map(|(name, on)| (name.clone(), texts(on))).collect())
                    .unwrap_or_default(),
                dependencies: list(&p["dependencies"])
                    .iter()
                    .map(|d| Dependency {
                        name: name(d),
                        normal: d["kind"].is_null(),
                        local: d["path"].is_string(),
                        features: texts(&d["features"]),
                        defaults: d["uses_default_features"] == true,
                    })
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

    /// Whether another published crate turns on this feature by its own one, or by depending on the package: then it
    /// is compiled with it there.
    pub(crate) fn is_turned_on_elsewhere(&self, package: &Package, feature: &str) -> bool {
        let by_feature = |p: &Package| {
            let on = format!("{}/{feature}", package.name);
            p.features.iter().any(|(_, turns_on)| turns_on.contains(&on))
        };
        let default = package.features.iter().any(|(f, on)| f == "default" && on.iter().any(|f| f == feature));
        let by_dependency = |p: &Package| {
            let of = p.dependencies.iter().filter(|d| d.normal && d.name == package.name);
            of.into_iter().any(|d| d.features.iter().any(|f| f == feature) || (d.defaults && default))
        };
        self.published().any(|p| by_feature(p) || by_dependency(p))
    }
}

impl Package {
    /// A package for tests of the rules.
    #[cfg(test)]
    pub(super) fn example(name: &str, dependencies: &[&str]) -> Self {
        let dependency = |d: &&str| Dependency {
            name: (*d).to_owned(),
            normal: true,
            local: !d.contains('-'),
            features: Vec::new(),
            defaults: true,
        };
        Self {
            name: name.to_owned(),
            dir: PathBuf::new(),
            publishable: !INTERNAL.contains(&name),
            features: Vec::new(),
            dependencies: dependencies.iter().map(dependency).collect(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn features_that_a_crate_above_turns_on_are_told_from_others() {
        let mut below = Package::example("below", &[]);
        below.features = ["default", "fast", "net", "json", "alone"].map(|f| (f.to_owned(), Vec::new())).into();
        below.features[0].1 = vec!["fast".to_owned()];
        let mut above = Package::example("above", &["below"]);
        above.features = vec![("net".to_owned(), vec!["below/net".to_owned()])];
        above.dependencies[0].features = vec!["json".to_owned()];
        let mut internal = Package::example("xtask", &["below"]);
        internal.features = vec![("alone".to_owned(), vec!["below/alone".to_owned()])];
        let workspace = Workspace { members: vec![above, below, internal] };
        let on = |feature: &str| workspace.is_turned_on_elsewhere(&workspace.members[1], feature);
        assert_eq!(["fast", "net", "json", "alone"].map(on), [true, true, true, false]);
        assert!(!workspace.is_turned_on_elsewhere(&workspace.members[0], "net"));
    }
}
