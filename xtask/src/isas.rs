//! `cargo xtask isas`: the tests of kernels and models on every instruction set.
//!
//! First each set that this CPU has is forced with `BITNET_ISA`. Then the kernel tests run under an emulated CPU
//! without AVX2 and under one with nothing newer than AVX2, where detection itself has to find out what is there.

use ternary_kernels::Isa;

use crate::error::XtaskError;
use crate::shell::{Outcome, Steps, cargo, in_ci, output, run, works};

/// Emulated CPUs and what detection must find on them.
const EMULATED: &[(&str, &str)] = &[("Nehalem", "scalar"), ("Haswell", "scalar avx2")];

/// The packages whose results depend on the instruction set.
const PACKAGES: [&str; 3] = ["ternary-kernels", "bitnet-model", "bitnet"];

/// Prints the sets that this CPU has, worst first, on one line.
pub(crate) fn print_available() {
    println!("{}", available());
}

fn available() -> String {
    Isa::available().map(Isa::name).collect::<Vec<_>>().join(" ")
}

/// Runs the tests on each set that is here, then on emulated CPUs.
///
/// # Errors
/// The first step that fails; in continuous integration also a missing emulator.
pub(crate) fn all(steps: &mut Steps) -> Result<(), XtaskError> {
    println!("instruction sets here: {}", available());
    for isa in Isa::available() {
        steps.run(&format!("isa {isa}"), || forced(isa))?;
    }
    for (cpu, expected) in EMULATED {
        steps.try_run(&format!("emulated {cpu}"), || emulated(cpu, expected))?;
    }
    Ok(())
}

fn forced(isa: Isa) -> Result<(), XtaskError> {
    let env = [("BITNET_ISA", isa.name())];
    let nextest = works("cargo", &["nextest", "--version"]);
    // The whole workspace is named so that features, and with them the built dependencies, stay those of the test
    // step; a filter picks the packages.
    if nextest {
        let filter = PACKAGES.map(|p| format!("package({p})")).join(" + ");
        cargo(&["nextest", "run", "--workspace", "--no-tests", "pass", "-E", &filter], &env)
    } else {
        cargo(&["test", "--workspace", "--tests"], &env)
    }
}

fn emulated(cpu: &str, expected: &str) -> Result<Outcome, XtaskError> {
    const EMULATOR: &str = "qemu-x86_64";
    if !cfg!(all(target_arch = "x86_64", target_os = "linux")) {
        return Ok(Outcome::Skipped("emulated x86-64 CPUs are run on x86-64 Linux only".into()));
    }
    if !works(EMULATOR, &["--version"]) {
        let missing = XtaskError::Missing { what: EMULATOR.into(), remedy: "install Debian's package qemu-user" };
        return if in_ci() { Err(missing) } else { Ok(Outcome::Skipped(missing.to_string())) };
    }
    let own = std::env::current_exe().map_err(XtaskError::io("xtask"))?;
    // A build of the whole workspace may have replaced this program under the same name.
    let own = own.to_string_lossy().trim_end_matches(" (deleted)").to_owned();
    let found = output(EMULATOR, &["-cpu", cpu, &own, "isas", "--list"], &[])?;
    println!("detected on {cpu}: {}", found.trim());
    if found.trim() != expected {
        return Err(XtaskError::Unexpected {
            what: format!("instruction sets on {cpu}"),
            expected: expected.into(),
            got: found.trim().into(),
        });
    }
    // An emulated CPU is some twenty times slower, so random cases are fewer there.
    let expected = expected.replace(' ', ",");
    let env = [("PROPTEST_CASES", "8"), ("BITNET_EXPECT_ISA", expected.as_str())];
    for binary in test_binaries("ternary-kernels", &[], &[])? {
        run(EMULATOR, &["-cpu", cpu, &binary], &env)?;
    }
    Ok(Outcome::Done)
}

/// Compiles the tests of a package, and returns their paths.
///
/// # Errors
/// What the compiler reports; a package without tests.
pub(crate) fn test_binaries(package: &str, args: &[&str], env: &[(&str, &str)]) -> Result<Vec<String>, XtaskError> {
    let mut all = vec!["test", "-p", package, "--tests", "--no-run", "--message-format=json"];
    all.extend(args);
    let messages = output("cargo", &all, env)?;
    let binaries: Vec<String> = messages
        .lines()
        .filter_map(|line| serde_json::from_str::<serde_json::Value>(line).ok())
        .filter(|m| m["profile"]["test"] == true)
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
