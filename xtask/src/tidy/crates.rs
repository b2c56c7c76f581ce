//! Rules about crates: their dependencies, packages that may never be in the tree, crates without unsafe code.

use std::path::Path;

use super::Finding;
use super::workspace::{INTERNAL, Package, Workspace};
use crate::error::XtaskError;
use crate::shell::output;

/// The straight line of the crates: each may depend on those before it and on none after it.
const LINE: &[&str] = &[
    "measure",
    "ternary-kernels",
    "ttt-layer",
    "bitnet-model",
    "loader",
    "bitnet",
    "bitnet-backend",
    "bitnet-arrow",
    "bitnet-server",
    "bitnet-cli",
];

/// Crates whose whole code is safe.
const FORBID_UNSAFE: &[&str] = &[
    "measure",
    "ttt-layer",
    "bitnet-model",
    "bitnet",
    "bitnet-backend",
    "bitnet-arrow",
    "bitnet-server",
    "bitnet-cli",
];

/// Crates that deny unsafe code and allow it in one module.
const DENY_UNSAFE: &[&str] = &["loader"];

/// The crate of the kernels, which knows nothing of tensors, files and models.
const KERNELS: &str = "ternary-kernels";

/// The only dependencies of [`KERNELS`].
const KERNEL_DEPENDENCIES: &[&str] = &["bytemuck", "half", "measure", "memmap2", "rayon", "thiserror"];

/// Crates that the facade's default tree must not hold: asynchronous runtimes, foreign C code, and tools that build C.
const BANNED: &[(&str, &str)] = &[
    ("tokio", "the library is synchronous"),
    ("async-std", "the library is synchronous"),
    ("reqwest", "it brings an asynchronous runtime"),
    ("openssl", "it is C"),
    ("openssl-sys", "it is C"),
    ("native-tls", "it is C"),
    ("onig", "it is C; tokenizers works with fancy-regex"),
    ("onig_sys", "it is C; tokenizers works with fancy-regex"),
    ("cc", "something in the tree builds C"),
    ("cmake", "something in the tree builds C++"),
    ("bindgen", "something in the tree needs clang"),
    ("pkg-config", "something in the tree looks for a system library"),
    ("candle-core", "inference needs no tensor library; candle is a feature"),
    ("hf-hub", "nothing goes over the network unless asked"),
];

pub(super) fn check(workspace: &Workspace, findings: &mut Vec<Finding>) -> Result<(), XtaskError> {
    for package in &workspace.members {
        arrows(package, findings);
        inherits_lints(package, findings)?;
        package_files(package, findings);
    }
    for name in FORBID_UNSAFE {
        attribute(workspace, name, "#![forbid(unsafe_code)]", findings)?;
    }
    for name in DENY_UNSAFE {
        attribute(workspace, name, "#![deny(unsafe_code)]", findings)?;
    }
    // Normal and build edges: what is linked, and what builds it.
    let args = ["tree", "-p", "bitnet", "-e", "normal,build", "--prefix", "none", "--format", "{p}"];
    banned(&output("cargo", &args, &[])?, findings);
    Ok(())
}

/// The rank of each crate in [`LINE`] must grow along every dependency that is built into the library.
fn arrows(package: &Package, findings: &mut Vec<Finding>) {
    let rank = |name: &str| LINE.iter().position(|n| *n == name);
    if rank(&package.name).is_none() && !INTERNAL.contains(&package.name.as_str()) {
        findings.push(Finding::new(&package.name, "has no place in the line of crates; give it one in the tidy rules"));
    }
    for dependency in package.dependencies.iter().filter(|d| d.normal) {
        let name = dependency.name.as_str();
        match (rank(&package.name), rank(name)) {
            (Some(own), Some(other)) if other >= own => {
                findings.push(Finding::new(&package.name, format!("may not depend on {name}: the arrow points back")));
            }
            (Some(_), None) if INTERNAL.contains(&name) => {
                findings.push(Finding::new(&package.name, format!("may use {name} in its tests only")));
            }
            _ => {}
        }
        if package.name == KERNELS && !KERNEL_DEPENDENCIES.contains(&name) {
            findings.push(Finding::new(&package.name, format!("may not know {name}")));
        }
    }
}

fn inherits_lints(package: &Package, findings: &mut Vec<Finding>) -> Result<(), XtaskError> {
    let path = package.dir.join("Cargo.toml");
    let text = std::fs::read_to_string(&path).map_err(XtaskError::io(&path))?;
    if !text.contains("[lints]\nworkspace = true") {
        findings.push(Finding::new(format!("{}/Cargo.toml", package.name), "lacks `[lints] workspace = true`"));
    }
    Ok(())
}

/// A published crate has a page and the texts of its licences; one that only this repository uses cannot be published.
fn package_files(package: &Package, findings: &mut Vec<Finding>) {
    let internal = INTERNAL.contains(&package.name.as_str());
    if package.publishable == internal {
        let problem =
            if internal { "could be published; it lacks `publish.workspace = true`" } else { "cannot be published" };
        findings.push(Finding::new(&package.name, problem));
    }
    for file in ["README.md", "LICENSE-MIT", "LICENSE-APACHE"] {
        if !internal && !package.dir.join(file).exists() {
            findings.push(Finding::new(format!("{}/{file}", package.name), "is missing; it belongs to the package"));
        }
    }
}

fn attribute(
    workspace: &Workspace,
    name: &str,
    attribute: &str,
    findings: &mut Vec<Finding>,
) -> Result<(), XtaskError> {
    let Some(package) = workspace.members.iter().find(|p| p.name == name) else {
        findings.push(Finding::new(name, "is named in the tidy rules, but is not a member of the workspace"));
        return Ok(());
    };
    let root = ["src/lib.rs", "src/main.rs"].map(|f| package.dir.join(f)).into_iter().find(|p| Path::is_file(p));
    let root = root.unwrap_or_else(|| package.dir.join("src/lib.rs"));
    let text = std::fs::read_to_string(&root).map_err(XtaskError::io(&root))?;
    if !text.contains(attribute) {
        findings.push(Finding::new(name, format!("its root lacks `{attribute}`")));
    }
    Ok(())
}

/// `tree` has one `name vVERSION` per line.
fn banned(tree: &str, findings: &mut Vec<Finding>) {
    let names: std::collections::BTreeSet<&str> = tree.lines().filter_map(|l| l.split(' ').next()).collect();
    for (name, why) in BANNED.iter().filter(|(name, _)| names.contains(name)) {
        findings.push(Finding::new("bitnet", format!("{name} is in its default dependency tree: {why}")));
    }
    // An empty answer would pass every ban.
    if !names.contains("bitnet") {
        findings.push(Finding::new("bitnet", "its dependency tree could not be read"));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn messages(package: &Package) -> Vec<String> {
        let mut findings = Vec::new();
        arrows(package, &mut findings);
        findings.into_iter().map(|f| f.message).collect()
    }

    #[test]
    fn arrows_that_point_back_are_found() {
        assert_eq!(messages(&Package::example("loader", &["bitnet-model", "serde"])), Vec::<String>::new());
        assert_eq!(messages(&Package::example("bitnet-model", &["loader"])).len(), 1);
        assert_eq!(messages(&Package::example("loader", &["loader"])).len(), 1);
        assert_eq!(messages(&Package::example("loader", &["test-support"])).len(), 1);
        assert_eq!(messages(&Package::example("ternary-kernels", &["half", "candle-core"])).len(), 1);
        assert_eq!(messages(&Package::example("unknown", &[])).len(), 1);
    }

    #[test]
    fn packages_that_lack_something_are_found() {
        let mut findings = Vec::new();
        package_files(&Package { publishable: true, ..Package::example("test-support", &[]) }, &mut findings);
        assert_eq!(findings.len(), 1);
        // No page, no licences, and not publishable.
        package_files(&Package { publishable: false, ..Package::example("nothing", &[]) }, &mut findings);
        assert_eq!(findings.len(), 5);
    }

    #[test]
    fn banned_crates_are_found_and_an_empty_tree_is_no_proof() {
        let find = |tree: &str| {
            let mut findings = Vec::new();
            banned(tree, &mut findings);
            findings.len()
        };
        assert_eq!(find("bitnet v0.1.0 (path)\nhalf v2.7.1\n"), 0);
        assert_eq!(find("bitnet v0.1.0 (path)\ntokio v1.0.0\n"), 1);
        assert_eq!(find("bitnet v0.1.0 (path)\ncc v1.0.0 (*)\nonig v6.0.0\n"), 2);
        assert_eq!(find(""), 1);
    }
}
