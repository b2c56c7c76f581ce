//! Instruction sets of other architectures: NEON under an emulator with three CPU models, WebAssembly under Node.
//!
//! Debian's compiler has the standard libraries that this needs; `.ci/run` installs it with the emulator.

use std::path::Path;

use crate::error::XtaskError;
use crate::isas::{EVERYWHERE, on_emulator};
use crate::jobs::Job;
use crate::shell::{BUILT_FOR_ONE_RUN, Outcome, Steps, in_ci, run, works};

/// Debian's compiler, even if others are installed.
pub(crate) const RUSTC: &str = "/usr/bin/rustc";
const ARM: &str = "aarch64-unknown-linux-gnu";
pub(crate) const WASM: &str = "wasm32-unknown-unknown";
const ARM_DIR: &str = "target/foreign/aarch64";
const WASM_DIR: &str = "target/foreign/wasm";

/// CPU models of the emulator, the instruction sets that detection must find there, and the test files to run: all of
/// them once, those that compare every kernel with the oracle on each.
const ARM_CPUS: &[(&str, &str, &[&str])] = &[
    ("cortex-a53", "scalar,neon", EVERYWHERE),
    ("cortex-a76", "scalar,neon,neondot", EVERYWHERE),
    ("max,pauth-impdef=on", "scalar,neon,neondot,neoni8mm", &[]),
];

/// The tests of the kernels on emulated ARM CPUs, built; with `thorough`, all tests on every CPU model.
///
/// # Errors
/// If they do not build; in continuous integration also a missing tool.
pub(crate) fn neon_jobs(steps: &mut Steps, thorough: bool) -> Result<Vec<Job>, XtaskError> {
    if let Some(missing) = missing_for_arm() {
        steps.try_run("NEON", || skip_or_fail(missing))?;
        return Ok(Vec::new());
    }
    let mut jobs = Vec::new();
    steps.run("NEON: build", || {
        let binaries = arm_tests()?;
        for (cpu, expected, files) in ARM_CPUS {
            jobs.extend(on_emulator("qemu-aarch64", &binaries, cpu, expected, if thorough { &[] } else { files })?);
        }
        Ok(())
    })?;
    Ok(jobs)
}

/// WebAssembly in Node.
///
/// # Errors
/// If it does not build or a check fails; in continuous integration also a missing tool.
pub(crate) fn webassembly(steps: &mut Steps) -> Result<(), XtaskError> {
    match missing_for_wasm() {
        Some(missing) => steps.try_run("WebAssembly", || skip_or_fail(missing)),
        None => steps.run("WebAssembly", wasm),
    }
}

pub(crate) fn skip_or_fail(missing: XtaskError) -> Result<Outcome, XtaskError> {
    if in_ci() { Err(missing) } else { Ok(Outcome::Skipped(missing.to_string())) }
}

fn missing_for_arm() -> Option<XtaskError> {
    let remedy = "install Debian's rustc-web, libstd-rust-web-dev:arm64, gcc-aarch64-linux-gnu, libc6-dev-arm64-cross \
        and qemu-user, as `.ci/run` does";
    let missing = |what: &str| Some(XtaskError::Missing { what: what.into(), remedy });
    if !works("qemu-aarch64", &["--version"]) {
        return missing("qemu-aarch64");
    }
    if !works("aarch64-linux-gnu-gcc", &["--version"]) {
        return missing("aarch64-linux-gnu-gcc");
    }
    if !works(RUSTC, &["--version"]) || !Path::new("/usr/lib/rustlib").join(ARM).is_dir() {
        return missing("a compiler with the standard library of aarch64");
    }
    None
}

pub(crate) fn missing_for_wasm() -> Option<XtaskError> {
    let remedy = "install Debian's rustc-web, rust-web-src and lld, as `.ci/run` does, and Node 20";
    let missing = |what: &str| Some(XtaskError::Missing { what: what.into(), remedy });
    if !works("node", &["--version"]) {
        return missing("node");
    }
    if !works("wasm-ld", &["--version"]) {
        return missing("wasm-ld");
    }
    if !works(RUSTC, &["--version"]) || !Path::new("/usr/lib/rustlib/src/rust/library/Cargo.lock").is_file() {
        return missing("a compiler with the source of the standard library");
    }
    None
}

/// Builds the kernel tests, and returns their paths.
fn arm_tests() -> Result<Vec<String>, XtaskError> {
    let env = [
        ("RUSTC", RUSTC),
        ("CARGO_TARGET_AARCH64_UNKNOWN_LINUX_GNU_LINKER", "aarch64-linux-gnu-gcc"),
        // With a dynamic C library the emulator hangs when the first thread starts.
        ("CARGO_TARGET_AARCH64_UNKNOWN_LINUX_GNU_RUSTFLAGS", "-C target-feature=+crt-static"),
    ];
    let args = ["-p", "ternary-kernels", "--target", ARM, "--target-dir", ARM_DIR];
    crate::isas::test_binaries("ternary-kernels", &[&args[..], &BUILT_FOR_ONE_RUN].concat(), &env)
}

/// Builds the check for WebAssembly, which needs a standard library of its own, and runs it.
fn wasm() -> Result<(), XtaskError> {
    let env = [
        ("RUSTC", RUSTC),
        // A standard library from source is not stable in cargo; the code that it is linked to needs nothing of the
        // kind.
        ("RUSTC_BOOTSTRAP", "1"),
        ("RUSTFLAGS", "-C linker-flavor=wasm-ld -C target-feature=+simd128"),
        ("CARGO_TARGET_WASM32_UNKNOWN_UNKNOWN_LINKER", "wasm-ld"),
    ];
    let mut args = vec!["build", "--release", "-Z", "build-std=std,panic_abort", "--target", WASM];
    args.extend(["--manifest-path", "tools/wasm/Cargo.toml", "--target-dir", WASM_DIR]);
    run("cargo", &args, &env)?;
    run("node", &["tools/wasm/run.mjs", &format!("{WASM_DIR}/{WASM}/release/wasm-check.wasm")], &[])
}
