//! `cargo xtask fuzz`: every target of `fuzz/` for some seconds.
//!
//! `libfuzzer-sys` alone is enough: coverage needs only stable compiler flags, so this works wherever a C++ compiler
//! is. With a nightly toolchain the address sanitizer is added.

use std::path::Path;

use crate::error::XtaskError;
use crate::jobs::{Job, side_by_side};
use crate::shell::{self, Outcome, Steps, in_ci, output, works};

/// Flags for the coverage that libFuzzer needs.
const COVERAGE: &str = "--cfg fuzzing -Cpasses=sancov-module -Cllvm-args=-sanitizer-coverage-level=4 \
    -Cllvm-args=-sanitizer-coverage-inline-8bit-counters -Cllvm-args=-sanitizer-coverage-pc-table \
    -Cllvm-args=-sanitizer-coverage-trace-compares";

/// Naming the target keeps build scripts and procedural macros free of these flags.
const TARGET: &str = "x86_64-unknown-linux-gnu";

/// A reader may not allocate more than the file's size justifies; inputs here have at most 256 KiB.
const LIMITS: &[&str] = &["-rss_limit_mb=1024", "-malloc_limit_mb=64", "-timeout=10", "-max_len=262144"];

/// Folders of reference files for each target; files above the longest input are cut by libFuzzer.
const SEEDS: &[(&str, &str)] = &[
    ("gguf", "testdata/tokenizer"),
    ("gguf", "testdata/gguf"),
    ("constraint", "testdata/constraints"),
    ("extractor", "testdata/extractor"),
    ("extractor", "testdata/extractor_recurrent"),
    ("http_body", "testdata/http"),
    ("safetensors", "testdata/bitnet/sharded_tiny/packed"),
    ("template", "crates/loader/src/chat/templates"),
    ("tokenizer", "testdata/tokenizer"),
    ("tokenizer_json", "testdata/tokenizer"),
];

/// Builds the targets and runs each, or only the one called `only`.
///
/// # Errors
/// The first input that crashes, hangs or allocates too much; its bytes are in `fuzz/artifacts`.
pub(crate) fn all(steps: &mut Steps, seconds: u32, only: Option<&str>) -> Result<(), XtaskError> {
    if !cfg!(all(target_arch = "x86_64", target_os = "linux")) || !works("c++", &["--version"]) {
        let why = "libFuzzer is built here by a C++ compiler on x86-64 Linux";
        return steps.try_run("fuzz", || match in_ci() {
            true => Err(XtaskError::Missing { what: "a C++ compiler".into(), remedy: why }),
            false => Ok(Outcome::Skipped(why.into())),
        });
    }
    let asan = works("cargo", &["+nightly", "--version"]);
    let (flags, target_dir) = if asan {
        (format!("-Zsanitizer=address {COVERAGE}"), "fuzz/target/asan")
    } else {
        (COVERAGE.to_owned(), "fuzz/target/stable")
    };
    let binaries = targets()?;
    if let Some(name) = only
        && !binaries.iter().any(|b| b == name)
    {
        return Err(XtaskError::Unexpected {
            what: "fuzz target".into(),
            expected: binaries.join(", "),
            got: name.into(),
        });
    }
    let label = if asan { "with the address sanitizer" } else { "without sanitizer" };
    steps.run(&format!("fuzz: build {label}"), || {
        let mut args = if asan { vec!["+nightly"] } else { vec![] };
        args.extend(["build", "--release", "--manifest-path", "fuzz/Cargo.toml", "--target", TARGET]);
        args.extend(["--target-dir", target_dir]);
        shell::cargo(&args, &[("RUSTFLAGS", &flags)])
    })?;
    steps.run(&format!("fuzz: {seconds} s for each target, side by side"), || {
        let names = binaries.iter().filter(|name| only.is_none_or(|o| o == *name));
        let job = |name: &String| smoke(name, &format!("{target_dir}/{TARGET}/release/{name}"), seconds);
        side_by_side(&names.map(job).collect::<Result<Vec<_>, _>>()?)
    })
}

fn smoke(name: &str, binary: &str, seconds: u32) -> Result<Job, XtaskError> {
    let (corpus, artifacts) = (format!("fuzz/corpus/{name}"), format!("fuzz/artifacts/{name}/"));
    for dir in [&corpus, &artifacts] {
        std::fs::create_dir_all(dir).map_err(XtaskError::io(dir))?;
    }
    let (time, prefix) = (format!("-max_total_time={seconds}"), format!("-artifact_prefix={artifacts}"));
    let mut args = vec![time.as_str(), prefix.as_str(), "-print_final_stats=1", "-verbosity=0"];
    args.extend(LIMITS);
    args.push(&corpus);
    // Small valid files are the best inputs to begin with.
    args.extend(SEEDS.iter().filter(|(target, dir)| *target == name && Path::new(dir).is_dir()).map(|(_, dir)| dir));
    Ok(Job::new(format!("fuzz {name}"), binary, &args, &[("ASAN_OPTIONS", "detect_leaks=0")]))
}

/// Names of the targets, as `fuzz/Cargo.toml` lists them.
fn targets() -> Result<Vec<String>, XtaskError> {
    let args = ["metadata", "--no-deps", "--format-version", "1", "--manifest-path", "fuzz/Cargo.toml"];
    let metadata: serde_json::Value = serde_json::from_str(&output("cargo", &args, &[])?).unwrap_or_default();
    let packages = metadata["packages"].as_array().into_iter().flatten();
    let targets = packages.flat_map(|p| p["targets"].as_array().into_iter().flatten());
    let names: Vec<String> =
        targets.filter(|t| t["kind"][0] == "bin").filter_map(|t| t["name"].as_str().map(str::to_owned)).collect();
    if names.is_empty() {
        return Err(XtaskError::Unexpected {
            what: "fuzz targets".into(),
            expected: "some".into(),
            got: "none".into(),
        });
    }
    Ok(names)
}
