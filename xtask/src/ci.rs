//! `cargo xtask ci`: everything that a change has to pass.

use crate::error::XtaskError;
use crate::jobs::{Job, side_by_side};
use crate::shell::{BUILT_FOR_ONE_RUN, Outcome, Steps, cargo, in_ci, run, works};
use crate::tidy::workspace::Workspace;
use crate::{c, desktop, foreign, fuzz, isas, page, programs, python, test, tidy, web};

/// Seconds for each fuzz target.
const FUZZ_SECONDS: u32 = 10;
/// Seconds for each fuzz target with `--thorough`.
const FUZZ_SECONDS_THOROUGH: u32 = 600;

/// All checks, cheapest to understand first: the first failure ends the run. With `thorough`, fuzzing goes on for
/// longer, and every test of the kernels runs on every emulated ARM CPU.
///
/// # Errors
/// The first step that fails.
pub(crate) fn all(steps: &mut Steps, thorough: bool) -> Result<(), XtaskError> {
    test::all(steps)?;
    steps.run("tidy", tidy::check)?;
    steps.run("format", || cargo(&["fmt", "--all", "--check"], &[]))?;
    steps.run("format of fuzz", || cargo(&["fmt", "--manifest-path", "fuzz/Cargo.toml", "--check"], &[]))?;
    let bindings =
        ["fmt", "--manifest-path", "bindings/wasm/Cargo.toml", "-p", "bitnet-wasm", "-p", "bindgen", "--check"];
    steps.run("format of bindings", || cargo(&bindings, &[]))?;
    steps.run("clippy", || cargo(&["clippy", "--workspace", "--all-targets", "--", "-D", "warnings"], &[]))?;
    steps.try_run("book", book)?;
    steps.run("docs", || cargo(&["doc", "--workspace", "--no-deps"], &[("RUSTDOCFLAGS", "-D warnings")]))?;
    steps.run("features alone", features_alone)?;
    steps.run("packages", || packages(thorough))?;
    steps.run("programs", programs::build)?;
    steps.run("the README's first command", programs::story)?;
    steps.try_run("the official clients of the server", programs::server_clients)?;
    page::sources(steps)?;
    page::browser(steps)?;
    steps.run("hostile inputs", programs::hostile_side_by_side)?;
    for fixtures in programs::FIXTURES {
        steps.try_run(&format!("parity with {fixtures}"), || programs::parity_if_present(fixtures))?;
    }
    steps.run("parity is able to fail", programs::parity_fails_on_damage)?;
    steps.run("guard of speed", programs::guard)?;
    steps.run("the guard is able to fail", programs::guard_fails_on_damage)?;
    isas::forced_sets(steps, true)?;
    emulated(steps, thorough)?;
    foreign::webassembly(steps)?;
    web::check(steps)?;
    python::check(steps)?;
    c::test(steps)?;
    desktop::test(steps)?;
    steps.try_run("licences, bans, sources", deny)?;
    steps.try_run("address sanitizer", address_sanitizer)?;
    fuzz::all(steps, if thorough { FUZZ_SECONDS_THOROUGH } else { FUZZ_SECONDS }, None)?;
    Ok(())
}

/// Each published crate by itself without its default features, then with each feature alone: features may only add
/// code. One that a crate above turns on is compiled with that crate's feature. With the package `host-features` beside
/// it, the procedural macros are those of the whole workspace, which are built; the crate's own dependencies stay as
/// they are.
fn features_alone() -> Result<(), XtaskError> {
    let workspace = Workspace::load()?;
    for package in workspace.published() {
        let check = ["check", "--no-default-features", "-p", &package.name, "-p", "host-features"];
        cargo(&check, &[])?;
        for (feature, _) in package.features.iter().filter(|(f, _)| f != "default") {
            if workspace.is_turned_on_elsewhere(package, feature) {
                println!("{}: `{feature}` is compiled with the crate that turns it on", package.name);
                continue;
            }
            cargo(&[&check[..], &["--features", feature]].concat(), &[])?;
        }
    }
    Ok(())
}

/// Checks the packages that would be published, as `cargo publish --dry-run` makes them; with `thorough` also built
/// from the packages alone.
fn packages(thorough: bool) -> Result<(), XtaskError> {
    let workspace = Workspace::load()?;
    let mut args = vec!["package", "--quiet", "--allow-dirty"];
    args.extend(workspace.published().flat_map(|package| ["-p", &package.name]));
    if !thorough {
        args.push("--no-verify");
    }
    cargo(&args, &[])
}

/// The tests of the kernels on every emulated CPU, side by side: each keeps one core busy.
///
/// # Errors
/// The first that fails; in continuous integration also a missing emulator.
pub(crate) fn emulated(steps: &mut Steps, thorough: bool) -> Result<(), XtaskError> {
    // The longest jobs come first, so that no core waits for it at the end.
    let mut jobs = valgrind()?;
    jobs.extend(isas::emulated_jobs(thorough)?);
    jobs.extend(foreign::neon_jobs(steps, thorough)?);
    jobs.sort_by_key(|job| !job.args.iter().any(|arg| arg.contains("/ternary_kernels-")));
    steps.run("emulated CPUs, valgrind among them", || side_by_side(&jobs))
}

/// Products and operations on exact buffers, every access checked in the program as users have it. Valgrind's CPU has
/// AVX2 and nothing newer, and detection finds that.
fn valgrind() -> Result<Vec<Job>, XtaskError> {
    if !cfg!(all(target_arch = "x86_64", target_os = "linux")) {
        println!("valgrind: skipped, kernels for x86-64 are run on x86-64 Linux only");
        return Ok(Vec::new());
    }
    if !works("valgrind", &["--version"]) {
        let missing = XtaskError::Missing { what: "valgrind".into(), remedy: "install Debian's package valgrind" };
        if in_ci() {
            return Err(missing);
        }
        println!("valgrind: skipped, {missing}");
        return Ok(Vec::new());
    }
    let binaries = isas::test_binaries("ternary-kernels", &["--workspace"], &[])?;
    let Some(bounds) = binaries.iter().find(|b| b.contains("/bounds-")) else {
        let (what, expected) = ("tests of ternary-kernels".into(), "one named bounds".into());
        return Err(XtaskError::Unexpected { what, expected, got: binaries.join(", ") });
    };
    let args = ["--quiet", "--error-exitcode=9", "--leak-check=no", bounds, "--test-threads=1"];
    Ok(vec![Job::new("valgrind", "valgrind", &args, &[("BITNET_EXPECT_ISA", "scalar,sse41,avx2")])])
}

/// The tests of the crate that holds the unsafe code, with every access checked.
fn address_sanitizer() -> Result<Outcome, XtaskError> {
    if !works("cargo", &["+nightly", "--version"]) {
        return Ok(Outcome::Skipped("needs a nightly toolchain".into()));
    }
    let env = [("RUSTFLAGS", "-Zsanitizer=address"), ("ASAN_OPTIONS", "detect_leaks=0"), ("PROPTEST_CASES", "16")];
    let mut args = vec!["+nightly", "test", "--target", "x86_64-unknown-linux-gnu", "--target-dir", "target/asan"];
    args.extend(["-p", "ternary-kernels", "--lib", "--tests"]);
    args.extend(BUILT_FOR_ONE_RUN);
    cargo(&args, &env)?;
    Ok(Outcome::Done)
}

/// The documents as a book: every page of `docs` but decisions is a chapter, and it builds.
fn book() -> Result<Outcome, XtaskError> {
    if !works("mdbook", &["--version"]) {
        let remedy = "install it with `cargo install mdbook --locked`";
        let missing = XtaskError::Missing { what: "mdbook".into(), remedy };
        return if in_ci() { Err(missing) } else { Ok(Outcome::Skipped(missing.to_string())) };
    }
    run("mdbook", &["build", "docs"], &[])?;
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
