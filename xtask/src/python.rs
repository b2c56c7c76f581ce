//! The Python package: its wheel, and its tests in an environment that has nothing but the wheel and what tests need.

use std::path::{Path, PathBuf};

use crate::error::XtaskError;
use crate::foreign::skip_or_fail;
use crate::programs;
use crate::shell::{Outcome, Steps, cargo, root, run, works};

/// The crate, which is a workspace of its own, and the folders that everything of it is built into.
const FOLDER: &str = "bindings/python";
const CRATE: &str = "bindings/python/Cargo.toml";
const TARGET: &str = "target/python/build";
const WHEELS: &str = "target/python/wheels";
/// The environment that builds, and the one that tests.
const TOOLS: &str = "target/python/tools";
const TESTS: &str = "target/python/venv";
/// The Python that tests are run with, another than the system's if that is named.
const PYTHON: &str = "PYTHON";

/// Builds the wheel and says where it is.
///
/// # Errors
/// If a tool is missing or something does not build.
pub(crate) fn wheel(steps: &mut Steps) -> Result<(), XtaskError> {
    if let Some(missing) = missing() {
        return Err(missing);
    }
    steps.run("python: wheel", build)?;
    println!("pip install {} installs it", newest()?.display());
    Ok(())
}

/// The wheel, installed into a fresh environment and tested there.
///
/// # Errors
/// If something does not build or a test fails; in continuous integration also a missing tool.
pub(crate) fn check(steps: &mut Steps) -> Result<(), XtaskError> {
    if let Some(missing) = missing() {
        return steps.try_run("python", || skip_or_fail(missing));
    }
    steps.run("python: format", || cargo(&["fmt", "--manifest-path", CRATE, "--check"], &[]))?;
    steps.try_run("python: licences", || {
        if !works("cargo", &["deny", "--version"]) {
            let remedy = "install it with `cargo install cargo-deny --locked`";
            return skip_or_fail(XtaskError::Missing { what: "cargo-deny".into(), remedy });
        }
        // It reads the `deny.toml` next to the manifest.
        cargo(&["deny", "--manifest-path", CRATE, "check", "licenses", "bans", "sources"], &[]).map(|()| Outcome::Done)
    })?;
    steps.run("python: wheel", build)?;
    steps.try_run("python: install and test", install_and_test)
}

fn python() -> String {
    std::env::var(PYTHON).unwrap_or_else(|_| "python3".into())
}

fn missing() -> Option<XtaskError> {
    let remedy = "install Debian's python3 and python3-venv, as `.ci/run` does, or name a Python with PYTHON";
    let can = works(&python(), &["-c", "import ensurepip, sys; sys.exit(sys.version_info < (3, 10))"]);
    (!can).then(|| XtaskError::Missing { what: "python3 with venv, at least 3.10".into(), remedy })
}

/// The interpreter of an environment.
fn of(environment: &str) -> String {
    let program = if cfg!(windows) { "Scripts/python.exe" } else { "bin/python" };
    root().join(environment).join(program).display().to_string()
}

/// Installs what a file names, without the network if that is installed already.
fn install(python: &str, args: &[&str]) -> Result<(), XtaskError> {
    run(python, &[&["-m", "pip", "install", "--quiet", "--disable-pip-version-check"], args].concat(), &[])
}

fn build() -> Result<(), XtaskError> {
    let tools = of(TOOLS);
    let requirements = format!("{FOLDER}/tests/requirements-build.txt");
    if !works(&tools, &["-m", "maturin", "--version"]) {
        run(&python(), &["-m", "venv", "--clear", TOOLS], &[])?;
    }
    install(&tools, &["-r", &requirements])?;
    // The wheel of an earlier build must not be taken for the new one.
    if Path::new(WHEELS).is_dir() {
        std::fs::remove_dir_all(WHEELS).map_err(XtaskError::io(WHEELS))?;
    }
    let target = root().join(TARGET).display().to_string();
    let interpreter = python();
    let args = ["-m", "maturin", "build", "--release", "--locked", "--manifest-path", CRATE, "--out", WHEELS];
    run(&tools, &[&args[..], &["--interpreter", &interpreter]].concat(), &[("CARGO_TARGET_DIR", &target)])
}

/// The wheel that was built.
fn newest() -> Result<PathBuf, XtaskError> {
    let mut wheels: Vec<PathBuf> = std::fs::read_dir(WHEELS)
        .map_err(XtaskError::io(WHEELS))?
        .filter_map(|entry| entry.ok().map(|entry| entry.path()))
        .filter(|path| path.extension().is_some_and(|ending| ending == "whl"))
        .collect();
    wheels.sort();
    wheels.pop().ok_or_else(|| XtaskError::Unexpected {
        what: format!("the wheels in {WHEELS}"),
        expected: "one".into(),
        got: "none".into(),
    })
}

fn install_and_test() -> Result<Outcome, XtaskError> {
    let wheel = newest()?.display().to_string();
    let tests = of(TESTS);
    run(&python(), &["-m", "venv", "--clear", TESTS], &[])?;
    // The wheel first and alone: it must need nothing.
    install(&tests, &["--no-index", &wheel])?;
    let alone =
        "import ternary_lm; print(ternary_lm.Model().generate('Once upon a time', max_tokens=16, temperature=0.0))";
    run(&tests, &["-I", "-c", alone], &[])?;
    let requirements = format!("{FOLDER}/tests/requirements.txt");
    if install(&tests, &["-r", &requirements]).is_err() {
        let missing = XtaskError::Missing {
            what: "the Python packages of the tests".into(),
            remedy: "let pip reach a package registry, once",
        };
        return skip_or_fail(missing);
    }
    let program = root().join(programs::built("debug", "bitnet")).display().to_string();
    let env = [("BITNET", program.as_str()), ("PYTHONDONTWRITEBYTECODE", "1")];
    run(&tests, &["-m", "pytest", "-p", "no:cacheprovider", "--rootdir", FOLDER, &format!("{FOLDER}/tests")], &env)?;
    run(
        &tests,
        &[
            "-m",
            "mypy",
            "--config-file",
            &format!("{FOLDER}/pyproject.toml"),
            "--cache-dir",
            "target/python/mypy",
            &format!("{FOLDER}/tests/typed.py"),
        ],
        &[],
    )?;
    Ok(Outcome::Done)
}
