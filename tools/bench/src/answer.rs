//! One call of `bitnet bench` and its answer.

use std::time::Duration;

use serde_json::Value;
use ternary_kernels::Isa;

use crate::error::BenchError;
use crate::figure::{Figure, What};
use crate::limits::Bracketed;
use crate::programs::Programs;

/// How long one call may take.
const TIMEOUT: Duration = Duration::from_secs(900);

/// Something that `bitnet bench` did not answer as it should.
pub(crate) fn wrong(problem: impl std::fmt::Display) -> BenchError {
    BenchError::unreadable("bitnet bench", problem.to_string())
}

/// Runs `bitnet bench` with `args` and `numbers` (an option and its value), with one instruction set or the default.
///
/// # Errors
/// If it fails, or prints no JSON.
pub(crate) fn ask(
    programs: &Programs,
    args: &[&str],
    numbers: &[(&str, u64)],
    isa: Option<Isa>,
    threads: usize,
) -> Result<(Value, Bracketed), BenchError> {
    let mut all: Vec<String> =
        ["bench", "--quiet", "--json"].into_iter().chain(args.iter().copied()).map(str::to_owned).collect();
    let numbers = numbers.iter().copied().chain([("-t", threads as u64)]);
    all.extend(numbers.flat_map(|(name, n)| [name.to_owned(), n.to_string()]));
    all.extend(isa.into_iter().flat_map(|isa| ["--isa".to_owned(), isa.name().to_owned()]));
    let out = programs.bracketed(&programs.bitnet, &all, threads, &[], TIMEOUT)?;
    let json = serde_json::from_str(&out.stdout).map_err(wrong)?;
    Ok((json, out))
}

/// Checks that the answer fits the request: otherwise every comparison would be wrong.
///
/// # Errors
/// The first key with another value.
pub(crate) fn check(json: &Value, asked: &[(&str, Value)]) -> Result<(), BenchError> {
    match asked.iter().find(|(key, expected)| json[*key] != *expected) {
        Some((key, expected)) => Err(wrong(format!("{key} is {}, not {expected}", json[*key]))),
        None => Ok(()),
    }
}

/// Adds values that the figures of one call share: the revision, and the peak of the dot products to prefill figures.
pub(crate) fn complete(mut figures: Vec<Figure>, programs: &Programs, isa: Isa, out: &Bracketed) -> Vec<Figure> {
    let peak = out.peak(isa.name());
    for figure in &mut figures {
        figure.revision.clone_from(&programs.revision);
        if matches!(figure.what, What::Prefill | What::V2Prefill | What::FamilyPrefill) {
            figure.peak_gop_s = peak;
        }
    }
    figures
}

/// Two numbers: the form of ranges, and of bandwidths before and after.
pub(crate) fn pair(value: &Value) -> Option<[f64; 2]> {
    Some([value[0].as_f64()?, value[1].as_f64()?])
}
