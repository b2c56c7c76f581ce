//! `cargo xtask tidy`: rules of the repository that no compiler checks.
//!
//! Each rule is a function from its input to findings, so that its tests can show it a broken case.

mod crates;
mod docs;
mod layers;
mod sources;
mod unsafe_sites;
mod words;
pub(crate) mod workspace;

use crate::error::XtaskError;
use workspace::Workspace;

/// One broken rule.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Finding {
    /// File or crate.
    place: String,
    /// The problem and the remedy.
    message: String,
}

impl Finding {
    fn new(place: impl Into<String>, message: impl Into<String>) -> Self {
        Self { place: place.into(), message: message.into() }
    }
}

/// Applies every rule.
///
/// # Errors
/// [`XtaskError::Findings`] if a rule is broken; all findings have been printed.
pub(crate) fn check() -> Result<(), XtaskError> {
    let workspace = Workspace::load()?;
    let files = sources::tracked()?;
    let mut findings = Vec::new();
    for file in &files {
        sources::check(file, &mut findings);
        words::check(file, &mut findings);
        layers::check(file, &mut findings);
        docs::check_links(file, &mut findings);
    }
    unsafe_sites::check(&files, &mut findings);
    if let Some(summary) = files.iter().find(|file| file.path == "docs/SUMMARY.md") {
        let paths: Vec<&str> = files.iter().map(|file| file.path.as_str()).collect();
        docs::check_chapters(&paths, &summary.text, &mut findings);
    }
    crates::check(&workspace, &mut findings)?;
    docs::check_dependencies(&workspace, &mut findings)?;
    for f in &findings {
        println!("{}: {}", f.place, f.message);
    }
    match findings.len() {
        0 => {
            println!("{} files, {} crates: nothing to complain about", files.len(), workspace.members.len());
            Ok(())
        }
        count => Err(XtaskError::Findings { count }),
    }
}
