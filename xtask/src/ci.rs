//! `cargo xtask ci`: everything that a change has to pass.

use crate::error::XtaskError;
use crate::shell::{Outcome, Steps, cargo, in_ci, works};
use crate::tidy::workspace::Workspace;
use crate::{foreign, fuzz, isas, programs, test, tidy};

/// Seconds for each fuzz target.
const FUZZ_SECONDS: u32 = 10;
/// The same with `--thorough`.
const FUZZ_SECONDS_THOROUGH: u32 = 600;

/// All checks, cheapest to understand first: the first failure ends the run. With `thorough`, fuzzing goes on for longer,
/// and the kernels run on emulated ARM CPUs.
///
/// # Errors
/// The first step that fails.
pub(crate) fn all(steps: &mut Steps, thorough: bool) -> Result<(), XtaskError> {
    test::all(steps)?;
    steps.run("tidy", tidy::check)?;
    steps.run("format", || cargo(&["fmt", "--all", "--check"], &[]))?;
    steps.run("format of fuzz", || cargo(&["fmt", "--manifest-path", "fuzz/Cargo.toml", "--check"], &[]))?;
    steps.run("clippy", || cargo(&["clippy", "--workspace", "--all-targets", "--", "-D", "warnings"], &[]))?;
    steps.run("docs", || cargo(&["doc", "--workspace", "--no-deps"], &[("RUSTDOCFLAGS", "-D warnings")]))?;
    steps.run("features alone", features_alone)?;
    steps.run("programs", programs::build)?;
    steps.run("the README's first command", programs::story)?;
    for fixtures in programs::FIXTURES {
        steps.try_run(&format!("parity with {fixtures}"), || programs::parity_if_present(fixtures))?;
    }
    steps.run("parity is able to fail", programs::parity_fails_on_damage)?;
    steps.run("guard of speed", programs::guard)?;
    steps.run("the guard is able to fail", programs::guard_fails_on_damage)?;
    isas::all(steps)?;
    foreign::webassembly(steps)?;
    if thorough {
        foreign::neon(steps)?;
    }
    steps.try_run("licences, bans, sources", deny)?;
    steps.try_run("address sanitizer", address_sanitizer)?;
    fuzz::all(steps, if thorough { FUZZ_SECONDS_THOROUGH } else { FUZZ_SECONDS }, None)?;
    Ok(())
}

/// Each published crate without its default features, and with each feature alone: a feature may only add.
fn features_alone() -> Result<(), XtaskError> {
    for package in Workspace::load()?.published() {
        let check = ["check", "--no-default-features", "-p", &package.name];
        cargo(&check, &[])?;
        for feature in package.features.iter().filter(|f| *f != "default") {
            let mut args = check.to_vec();
            args.extend(["--features", feature]);
            cargo(&args, &[])?;
        }
    }
    Ok(())
}

/// The tests of the crate that holds the unsafe code, with every access checked.
fn address_sanitizer() -> Result<Outcome, XtaskError> {
    if !works("cargo", &["+nightly", "--version"]) {
        return Ok(Outcome::Skipped("needs a nightly toolchain".into()));
    }
    let env = [("RUSTFLAGS", "-Zsanitizer=address"), ("ASAN_OPTIONS", "detect_leaks=0"), ("PROPTEST_CASES", "16")];
    let mut args = vec!["+nightly", "test", "--target", "x86_64-unknown-linux-gnu", "--target-dir", "target/asan"];
    args.extend(["-p", "ternary-kernels", "--lib", "--tests"]);
    cargo(&args, &env)?;
    Ok(Outcome::Done)
}

/// Licences, forbidden crates and registries of every dependency.
fn deny() -> Result<Outcome, XtaskError> {
    if !works("cargo", &["deny", "--version"]) {
        let remedy = "install it with `cargo install cargo-deny --locked`";
        let missing = XtaskError::Missing { what: "cargo-deny".into(), remedy };
        return if in_ci() { Err(missing) } else { Ok(Outcome::Skipped(missing.to_string())) };
    }
    cargo(&["deny", "--workspace", "check", "licenses", "bans", "sources"], &[])?;
    Ok(Outcome::Done)
}
