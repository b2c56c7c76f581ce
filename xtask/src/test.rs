//! `cargo xtask test`: the command that the README tells a stranger to run.

use crate::error::XtaskError;
use crate::shell::{Steps, cargo, works};

/// Unit tests, integration tests and examples of all crates, then the doctests.
///
/// # Errors
/// The first step that fails.
pub(crate) fn all(steps: &mut Steps) -> Result<(), XtaskError> {
    steps.run("tests", || {
        if works("cargo", &["nextest", "--version"]) {
            cargo(&["nextest", "run", "--workspace", "--no-fail-fast"], &[])
        } else {
            cargo(&["test", "--workspace", "--lib", "--bins", "--tests", "--examples", "--no-fail-fast"], &[])
        }
    })?;
    steps.run("doctests", || cargo(&["test", "--workspace", "--doc", "--no-fail-fast"], &[]))
}
