//! Programs of this workspace that commands and checks run: the command line and the comparison with references.
//!
//! Both are built as tests are, with optimised dependencies and kernels, so that checks share one build.

use std::path::Path;

use crate::error::XtaskError;
use crate::jobs::{Job, side_by_side};
use crate::shell::{Outcome, cargo, in_ci, output, run, works};

/// Folders of reference vectors: the small ones of the repository, and a large set next to it.
pub(crate) const FIXTURES: &[&str] =
    &["testdata", "testdata/families", "../shared/fixtures", "../shared/fixtures/families"];

/// Prompt of the README's first command.
const STORY: &[&str] = &["run", "Once upon a time"];

/// Builds the programs with the features that the tests have, so that a build of the tests is not repeated with others.
///
/// # Errors
/// If they do not build.
pub(crate) fn build() -> Result<(), XtaskError> {
    cargo(&["build", "--workspace", "--bins", "--tests"], &[])
}

/// Builds the command, with the features that it has in the whole workspace.
///
/// # Errors
/// If it does not build.
pub(crate) fn command() -> Result<(), XtaskError> {
    cargo(&["build", "--workspace", "--bin", "bitnet"], &[])
}

/// Lets the test that compares the tables of docs/models.md with those of the program write them.
///
/// # Errors
/// If it does not build; if a table has no place in the page.
pub(crate) fn tables() -> Result<(), XtaskError> {
    let test = ["test", "--workspace", "--bin", "bitnet", "--", "the_page_of_models_is_what_the_program_knows"];
    cargo(&test, &[("BITNET_WRITE_DOCS", "1")])
}

fn program(name: &str) -> String {
    built("debug", name)
}

fn release(name: &str) -> String {
    built("release", name)
}

/// The path of a program that was built.
pub(crate) fn built(profile: &str, name: &str) -> String {
    let target = std::env::var("CARGO_TARGET_DIR").unwrap_or_else(|_| "target".into());
    format!("{target}/{profile}/{name}")
}

/// Runs a program that has to fail.
fn fails(what: &str, program: &str, args: &[&str]) -> Result<(), XtaskError> {
    if works(program, args) {
        let (expected, got) = ("a failure".to_owned(), "success".to_owned());
        return Err(XtaskError::Unexpected { what: what.to_owned(), expected, got });
    }
    println!("{what}: it fails, as it must");
    Ok(())
}

/// Runs the comparison with the given arguments.
///
/// # Errors
/// If a case fails, or no case ran.
pub(crate) fn parity(args: &[String]) -> Result<(), XtaskError> {
    build()?;
    run(&program("parity"), &args.iter().map(String::as_str).collect::<Vec<_>>(), &[])
}

/// Hostile inputs against the library, the command and the server, built as tests are.
///
/// # Errors
/// If something does not build, or a check fails.
pub(crate) fn hostile(args: &[String]) -> Result<(), XtaskError> {
    build()?;
    let bitnet = program("bitnet");
    let args = args.iter().map(String::as_str);
    run(&program("hostile"), &["--program", &bitnet].into_iter().chain(args).collect::<Vec<_>>(), &[])
}

/// Hostile inputs of the server, beside those of the library and the command: neither keeps more than one core busy.
///
/// # Errors
/// The errors of [`hostile`].
pub(crate) fn hostile_side_by_side() -> Result<(), XtaskError> {
    build()?;
    let bitnet = program("bitnet");
    // The longest work comes first.
    let jobs = ["server", "library", "command"].map(|against| {
        let args = ["--program", bitnet.as_str(), "--against", against];
        Job::new(format!("hostile inputs against the {against}"), &program("hostile"), &args, &[])
    });
    side_by_side(&jobs)
}

/// Measures, in release mode; the guard runs as tests are built.
///
/// # Errors
/// If something does not build, cannot be measured, or a check of the guard fails.
pub(crate) fn bench(args: &[String]) -> Result<(), XtaskError> {
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    if args.contains(&"--guard") {
        build()?;
        return run(&program("bench"), &args, &[]);
    }
    // With the benchmarks, so that all measured programs are of one build.
    let mut build: Vec<&str> = "build --release --workspace --bin bench --bin bitnet".split(' ').collect();
    build.extend(["gemv", "gemm"].iter().flat_map(|name| ["--bench", name]));
    cargo(&build, &[])?;
    run(&release("bench"), &args, &[])
}

/// The use case with its data, in release mode.
///
/// # Errors
/// If it does not build or fails.
pub(crate) fn intent(args: &[String]) -> Result<(), XtaskError> {
    cargo(&["build", "--release", "--workspace", "--bin", "intent", "--bin", "bitnet"], &[])?;
    run(&release("intent"), &args.iter().map(String::as_str).collect::<Vec<_>>(), &[])
}

/// The guard of speed.
///
/// # Errors
/// If a check fails.
pub(crate) fn guard() -> Result<(), XtaskError> {
    run(&program("bench"), &["--guard"], &[])
}

/// The guard has to fail if something is slow or wrong.
///
/// # Errors
/// If it does not.
pub(crate) fn guard_fails_on_damage() -> Result<(), XtaskError> {
    for damage in ["kernel", "engine", "threads", "batch", "halves"] {
        let args = ["--guard", "--sabotage", damage];
        fails(&format!("the guard with --sabotage {damage}"), &program("bench"), &args)?;
    }
    Ok(())
}

/// Makes a synthetic model and describes it.
///
/// # Errors
/// If it cannot be made.
pub(crate) fn synth(config: Option<&str>) -> Result<(), XtaskError> {
    build()?;
    let model = format!("synthetic:{}", config.unwrap_or("2b4t"));
    run(&program("bitnet"), &["show", "--model", &model], &[])
}

/// The README's first command, greedy and short: it must always tell the same story.
///
/// # Errors
/// If it fails or tells another story.
pub(crate) fn story() -> Result<(), XtaskError> {
    let args = [STORY, &["--temperature", "0", "--max-tokens", "40"]].concat();
    let text = output(&program("bitnet"), &args, &[])?;
    println!("{}", text.trim());
    if text.split_whitespace().count() < 10 {
        return Err(XtaskError::Unexpected { what: "story".into(), expected: "some words".into(), got: text });
    }
    Ok(())
}

/// The official clients of OpenAI's and Ollama's interfaces against `bitnet serve`, those for Python and those for
/// JavaScript; they are installed into folders of their own.
///
/// # Errors
/// If a check fails; in continuous integration also if Python is absent or the client cannot be installed.
pub(crate) fn server_clients() -> Result<Outcome, XtaskError> {
    const FOLDER: &str = "target/clients";
    const TESTS: &str = "crates/bitnet-server/tests";
    let missing = |what: &str, remedy| {
        let missing = XtaskError::Missing { what: what.into(), remedy };
        if in_ci() { Err(missing) } else { Ok(Outcome::Skipped(missing.to_string())) }
    };
    if cfg!(not(unix)) {
        return Ok(Outcome::Skipped("the check ends its server by a signal".into()));
    }
    let python = format!("{FOLDER}/bin/python");
    let requirements = format!("{TESTS}/requirements.txt");
    let install = ["-m", "pip", "install", "--quiet", "--disable-pip-version-check", "-r", &requirements];
    // Also works without the network if it is already installed: pip then finds nothing to do.
    if !works(&python, &install) {
        if !works("python3", &["-c", "import ensurepip, sys; sys.exit(sys.version_info < (3, 10))"]) {
            return missing(
                "python3 with venv, at least 3.10",
                "install Debian's python3 and python3-venv, as `.ci/run` does",
            );
        }
        run("python3", &["-m", "venv", "--clear", FOLDER], &[])?;
        if run(&python, &install, &[]).is_err() {
            return missing("the Python packages of the clients", "let pip reach a package registry, once");
        }
    }
    for script in ["openai_client.py", "ollama_client.py"] {
        run(&python, &[&format!("{TESTS}/{script}"), &program("bitnet")], &[("PYTHONDONTWRITEBYTECODE", "1")])?;
    }
    for tool in ["node", "npm"] {
        if !works(tool, &["--version"]) {
            return missing(tool, "install Node 20 with npm, as `.ci/run` does");
        }
    }
    let bitnet = crate::shell::root().join(program("bitnet")).display().to_string();
    crate::web::script(&format!("{TESTS}/js"), &["check"], &[("BITNET", &bitnet)])?;
    Ok(Outcome::Done)
}

/// The comparison with one of [`FIXTURES`].
///
/// # Errors
/// If a case fails; in continuous integration also if the folder is absent.
pub(crate) fn parity_if_present(fixtures: &str) -> Result<Outcome, XtaskError> {
    if !Path::new(fixtures).is_dir() {
        let missing = XtaskError::Missing { what: fixtures.into(), remedy: "put the reference vectors there" };
        return if in_ci() { Err(missing) } else { Ok(Outcome::Skipped(missing.to_string())) };
    }
    run(&program("parity"), &["--fixtures", fixtures], &[])?;
    Ok(Outcome::Done)
}

/// With damaged weights the same command has to fail.
///
/// # Errors
/// If it does not.
pub(crate) fn parity_fails_on_damage() -> Result<(), XtaskError> {
    for damage in ["flip-trit", "scale", "rope"] {
        let args = ["--fixtures", "testdata", "--filter", "bitnet/", "--sabotage", damage];
        fails(&format!("parity --sabotage {damage}"), &program("parity"), &args)?;
    }
    Ok(())
}
