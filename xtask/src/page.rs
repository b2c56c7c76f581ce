//! `cargo xtask page`: the page of the server. Its sources are checked, the files that the server embeds are compared with
//! a fresh build, and a browser uses them. A build of the server needs none of this.

use std::collections::BTreeMap;
use std::path::Path;

use crate::error::XtaskError;
use crate::programs;
use crate::shell::{Outcome, Steps, cargo, in_ci, root, run, works};

/// The sources, and the built files within the crate that embeds them.
const SOURCES: &str = "web";
const EMBEDDED: &str = "crates/bitnet-server/page";
/// A build to compare with.
const FRESH: &str = "target/web/page";
/// A copy of the lock file of what is installed.
const INSTALLED: &str = "web/node_modules/.installed.json";

/// Writes the embedded files, or with `check` checks everything about the page.
///
/// # Errors
/// If a check fails, or the page does not build.
pub(crate) fn all(steps: &mut Steps, check: bool) -> Result<(), XtaskError> {
    if !check {
        return steps.try_run("page: build", || with_node(|| npm(&["run", "build"], &[])));
    }
    sources(steps)?;
    steps.run("page: command", || cargo(&["build", "--workspace", "--bin", "bitnet"], &[]))?;
    browser(steps)
}

/// Format, types, lints and unit tests of the page, and whether the embedded files are those of the sources.
///
/// # Errors
/// If a check fails; in continuous integration also if Node is missing.
pub(crate) fn sources(steps: &mut Steps) -> Result<(), XtaskError> {
    steps.try_run("page: sources", || {
        with_node(|| {
            npm(&["run", "check"], &[])?;
            npm(&["run", "build:fresh"], &[])?;
            same_files()?;
            npm(&["run", "size"], &[])
        })
    })
}

/// A browser with the page of the built command; pictures of it remain in `target/web`.
///
/// # Errors
/// If a test fails; in continuous integration also if Node or the browser is missing.
pub(crate) fn browser(steps: &mut Steps) -> Result<(), XtaskError> {
    steps.try_run("page: in a browser", || {
        let chromium = std::env::var("CHROMIUM").unwrap_or_else(|_| "/usr/bin/chromium".into());
        if !works(&chromium, &["--version"]) {
            let remedy = "install Debian's package chromium, or name a browser of its kind with CHROMIUM";
            return skipped(XtaskError::Missing { what: "chromium".into(), remedy });
        }
        let program = root().join(programs::built("debug", "bitnet"));
        with_node(|| npm(&["run", "e2e"], &[("BITNET", &program.display().to_string()), ("CHROMIUM", &chromium)]))
    })
}

fn skipped(missing: XtaskError) -> Result<Outcome, XtaskError> {
    if in_ci() { Err(missing) } else { Ok(Outcome::Skipped(missing.to_string())) }
}

/// Does `f` with the packages of the lock file, if there is Node.
fn with_node(f: impl FnOnce() -> Result<(), XtaskError>) -> Result<Outcome, XtaskError> {
    for program in ["node", "npm"] {
        if !works(program, &["--version"]) {
            let remedy = "install Node 20 with npm, as `.ci/run` does";
            return skipped(XtaskError::Missing { what: program.into(), remedy });
        }
    }
    let lock = format!("{SOURCES}/package-lock.json");
    let wanted = std::fs::read(&lock).map_err(XtaskError::io(&lock))?;
    if std::fs::read(INSTALLED).ok().as_ref() != Some(&wanted) {
        npm(&["ci"], &[])?;
        std::fs::write(INSTALLED, &wanted).map_err(XtaskError::io(INSTALLED))?;
    }
    f()?;
    Ok(Outcome::Done)
}

/// `npm` in the folder of the sources.
fn npm(args: &[&str], env: &[(&str, &str)]) -> Result<(), XtaskError> {
    run("npm", &[&["--prefix", SOURCES][..], args].concat(), env)
}

/// The bytes of all files in a folder, by their paths within it.
fn files(folder: &Path) -> Result<BTreeMap<String, Vec<u8>>, XtaskError> {
    let mut found = BTreeMap::new();
    for entry in std::fs::read_dir(folder).map_err(XtaskError::io(folder))? {
        let path = entry.map_err(XtaskError::io(folder))?.path();
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        if path.is_dir() {
            found.extend(files(&path)?.into_iter().map(|(inner, bytes)| (format!("{name}/{inner}"), bytes)));
        } else {
            found.insert(name, std::fs::read(&path).map_err(XtaskError::io(&path))?);
        }
    }
    Ok(found)
}

/// Whether the embedded files are those of a fresh build, byte for byte.
fn same_files() -> Result<(), XtaskError> {
    let (embedded, fresh) = (files(Path::new(EMBEDDED))?, files(Path::new(FRESH))?);
    let name = |(name, bytes): (&String, &Vec<u8>)| format!("{name} of {} bytes", bytes.len());
    let list = |all: &BTreeMap<String, Vec<u8>>| all.iter().map(name).collect::<Vec<_>>().join(", ");
    if embedded == fresh {
        return Ok(());
    }
    let what = format!("{EMBEDDED}, which `cargo xtask page` writes from {SOURCES}");
    Err(XtaskError::Unexpected { what, expected: list(&fresh), got: list(&embedded) })
}
