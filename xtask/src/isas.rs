//! `cargo xtask isas`: the tests of kernels and models on every instruction set.
//!
//! First each set that this CPU has is forced with `BITNET_ISA`. Then the kernel tests run under an emulated CPU
//! without SSE4.1, under one without AVX and under one with nothing newer than AVX2, where detection itself has to find
//! out what is there.

use std::path::Path;

use crate::error::XtaskError;
use crate::jobs::Job;
use crate::programs::built;
use crate::shell::{Steps, cargo, in_ci, output, works};

/// Emulated CPUs, what detection must find on them, and the test files to run: all of them on the oldest and on the
/// newest, those that compare every kernel with the oracle on each.
const EMULATED: &[(&str, &str, &[&str])] =
    &[("Conroe", "scalar", &[]), ("Nehalem", "scalar sse41", EVERYWHERE), ("Haswell", "scalar sse41 avx2", &[])];
/// Test files that compare products with the oracle.
pub(crate) const EVERYWHERE: &[&str] = &["oracle", "extremes", "elut", "group"];

/// The packages whose results depend on the instruction set.
const PACKAGES: [&str; 3] = ["ternary-kernels", "bitnet-model", "bitnet"];

/// Files of tests in [`PACKAGES`] that hold for any logits, and need not run again on each instruction set: texts that a
/// constraint allows whatever the model prefers, and bytes of files. nextest refuses a name that is none.
const WHATEVER_SET: [&str; 4] = [
    "binary_id(bitnet::constrain)",
    "binary_id(bitnet::constrain_limits)",
    "binary_id(bitnet::constrain_templates)",
    "binary_id(bitnet-model::it) & test(/^train_files::/)",
];

/// Prints the sets that this CPU has, worst first, on one line.
///
/// # Errors
/// If the program that detects them does not build.
pub(crate) fn print_available() -> Result<(), XtaskError> {
    println!("{}", detected(&[])?);
    Ok(())
}

/// The sets that detection finds if it is started through `emulator`, or on this CPU. The program is an example of
/// the kernels, so that this command does not have to be built with them.
fn detected(emulator: &[&str]) -> Result<String, XtaskError> {
    const NAME: &str = "instruction_sets";
    output("cargo", &["build", "--workspace", "--example", NAME], &[])?;
    let program = built("debug", &format!("examples/{NAME}"));
    let command = [emulator, &[program.as_str()]].concat();
    Ok(output(command[0], &command[1..], &[])?.trim().to_owned())
}

/// Runs the tests on each set that is here. The best set is left out if it was `tested`: it is the one used if
/// nothing is forced.
///
/// # Errors
/// The first step that fails.
pub(crate) fn forced_sets(steps: &mut Steps, tested: bool) -> Result<(), XtaskError> {
    let available = detected(&[])?;
    println!("instruction sets here: {available}");
    let mut forced_sets: Vec<&str> = available.split_whitespace().collect();
    if tested && std::env::var_os("BITNET_ISA").is_none() {
        forced_sets.pop();
    }
    for isa in forced_sets {
        steps.run(&format!("isa {isa}"), || forced(isa))?;
    }
    Ok(())
}

/// The tests of the kernels on emulated x86 CPUs, after a check of the sets detected there; with `thorough`, all tests
/// on each.
///
/// # Errors
/// Detection that finds something else than the CPU has; in continuous integration also a missing emulator.
pub(crate) fn emulated_jobs(thorough: bool) -> Result<Vec<Job>, XtaskError> {
    let mut jobs = Vec::new();
    for (cpu, expected, files) in EMULATED {
        jobs.extend(emulated(cpu, expected, if thorough { &[] } else { files })?);
    }
    Ok(jobs)
}

fn forced(isa: &str) -> Result<(), XtaskError> {
    let env = [("BITNET_ISA", isa)];
    let nextest = works("cargo", &["nextest", "--version"]);
    // The whole workspace is named so that features, and with them the built dependencies, stay those of the test
    // step; a filter picks the packages.
    if nextest {
        let (packages, files) = (PACKAGES.map(|p| format!("package({p})")), WHATEVER_SET.map(|f| format!("({f})")));
        let filter = format!("({}) - ({})", packages.join(" + "), files.join(" + "));
        cargo(&["nextest", "run", "--workspace", "--no-tests", "pass", "-E", &filter], &env)
    } else {
        cargo(&["test", "--workspace", "--tests"], &env)
    }
}

fn emulated(cpu: &str, expected: &str, files: &[&str]) -> Result<Vec<Job>, XtaskError> {
    const EMULATOR: &str = "qemu-x86_64";
    if !cfg!(all(target_arch = "x86_64", target_os = "linux")) {
        println!("emulated {cpu}: skipped, x86-64 CPUs are emulated on x86-64 Linux only");
        return Ok(Vec::new());
    }
    if !works(EMULATOR, &["--version"]) {
        let missing = XtaskError::Missing { what: EMULATOR.into(), remedy: "install Debian's package qemu-user" };
        if in_ci() {
            return Err(missing);
        }
        println!("emulated {cpu}: skipped, {missing}");
        return Ok(Vec::new());
    }
    let found = detected(&[EMULATOR, "-cpu", cpu])?;
    println!("detected on {cpu}: {found}");
    if found != expected {
        return Err(XtaskError::Unexpected {
            what: format!("instruction sets on {cpu}"),
            expected: expected.into(),
            got: found,
        });
    }
    // The whole workspace, as above: the build of the test step.
    let binaries = test_binaries("ternary-kernels", &["--workspace"], &[])?;
    on_emulator(EMULATOR, &binaries, cpu, &expected.replace(' ', ","), files)
}

/// The tests on one CPU model of an emulator: the files that are named, or all.
///
/// # Errors
/// A named file that is not among `binaries`.
pub(crate) fn on_emulator(
    emulator: &str,
    binaries: &[String],
    cpu: &str,
    expected: &str,
    files: &[&str],
) -> Result<Vec<Job>, XtaskError> {
    let env = [SMALLER[0], SMALLER[1], ("BITNET_EXPECT_ISA", expected)];
    let mut jobs = Vec::new();
    for binary in binaries {
        let name = Path::new(binary).file_name().map(|n| n.to_string_lossy().into_owned()).unwrap_or_default();
        if files.is_empty() || files.iter().any(|f| name.starts_with(&format!("{f}-"))) {
            let args = ["-cpu", cpu, binary, "--skip", LONG];
            jobs.push(Job::new(format!("{emulator} {cpu}"), emulator, &args, &env));
        }
    }
    if jobs.len() < files.len().max(1) {
        let (what, got) = (format!("test files on {cpu}"), format!("{} files", jobs.len()));
        return Err(XtaskError::Unexpected { what, expected: files.join(", "), got });
    }
    Ok(jobs)
}

/// A test that needs rows of 2^23 columns, too long for an emulated CPU.
const LONG: &str = "very_long_rows";

/// An emulated CPU is some twenty times slower, so random cases are fewer there, and large ones smaller.
const SMALLER: [(&str, &str); 2] = [("PROPTEST_CASES", "8"), ("BITNET_EMULATED", "1")];

/// Compiles the tests of the packages that `args` name, and returns the paths of those of `package`.
///
/// # Errors
/// Errors of the compiler; a package without tests.
pub(crate) fn test_binaries(package: &str, args: &[&str], env: &[(&str, &str)]) -> Result<Vec<String>, XtaskError> {
    let mut all = vec!["test", "--tests", "--no-run", "--message-format=json-render-diagnostics"];
    all.extend(args);
    let messages = output("cargo", &all, env)?;
    let folder = format!("/{package}#");
    let binaries: Vec<String> = messages
        .lines()
        .filter_map(|line| serde_json::from_str::<serde_json::Value>(line).ok())
        .filter(|m| m["profile"]["test"] == true)
        .filter(|m| m["package_id"].as_str().is_some_and(|id| id.contains(&folder)))
        .filter_map(|m| m["executable"].as_str().map(str::to_owned))
        .collect();
    if binaries.is_empty() {
        return Err(XtaskError::Unexpected {
            what: format!("test binaries of {package}"),
            expected: "at least one".into(),
            got: "none".into(),
        });
    }
    Ok(binaries)
}
