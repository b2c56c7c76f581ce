//! The report: tables in Markdown, with the pictures next to them.

mod families;
mod kernels;
mod readme;
mod sections;
mod ttt;
mod v2;

pub(crate) use readme::update as update_readme;
pub(crate) use sections::{allowed, who};
pub(crate) use v2::{ends, kv_types};

use std::fmt::Write;
use std::path::Path;

use crate::error::BenchError;
use crate::figure::{Figure, Results};
use crate::plots;

/// Writes `NAME.md` and the pictures of `results` into `folder`.
///
/// # Errors
/// If a file cannot be written.
pub(crate) fn write(results: &Results, folder: &Path, name: &str) -> Result<(), BenchError> {
    std::fs::create_dir_all(folder).map_err(BenchError::io(folder))?;
    let pictures = plots::draw_all(results, folder, name)?;
    let path = folder.join(format!("{name}.md"));
    std::fs::write(&path, markdown(results, name, &pictures)).map_err(BenchError::io(&path))?;
    println!("wrote {} and {} picture(s)", path.display(), pictures.len());
    Ok(())
}

/// The whole document. `pictures` are the file names that were drawn.
fn markdown(results: &Results, name: &str, pictures: &[String]) -> String {
    let m = &results.machine;
    let mut text = format!("# Measured on {}\n\n", m.cpu);
    let version = m.version.as_ref().map_or(String::new(), |v| format!(" ({v})"));
    let _ = writeln!(
        text,
        "{}{version}, {} CPUs, {} GiB, {}; {}; instruction sets {}.",
        m.cpu,
        m.cpus,
        m.memory_gib,
        m.system,
        m.rustc,
        m.isas.join(", ")
    );
    let list = |mut all: Vec<&str>| {
        all.sort_unstable();
        all.dedup();
        all.join(", ")
    };
    let _ = writeln!(
        text,
        "Revision {}; measured on {}. Figures as numbers: [{name}.json]({name}.json). How to read and reproduce this: \
         [README.md](README.md).",
        list(results.figures.iter().map(|f| f.revision.as_str()).collect()),
        list(results.figures.iter().map(|f| f.date.as_str()).collect()),
    );
    if results.figures.iter().any(|f| f.quick) {
        text.push_str("\n**Some figures were measured with `--quick` and are marked with `~`.**\n");
    }
    let picture = |which: &str, says: &str| {
        let file = plots::file_name(name, which);
        if pictures.contains(&file) { format!("\n![{says}]({file})\n") } else { String::new() }
    };
    text += &sections::decode(results, &picture("roofline", "Bytes per token against tokens per second"));
    text += &sections::context(results, &picture("context", "Decode speed by context"));
    text += &sections::together(results);
    text += &sections::prefill(results, &picture("prefill", "Prefill speed against the limit of the instructions"));
    text += &families::section(results);
    text += &v2::section(results, &picture("kv", "Decode speed by context for types of keys and values"));
    text += &ttt::growth(results, &picture("growth", "Memory and time by context: test-time training and attention"));
    text += &ttt::shipped(results);
    text += &sections::against_candle(results);
    text += &kernels::kernels(results);
    text += &sections::start(results);
    text += &sections::energy(results);
    text += &sections::failures(results);
    text
}

/// One figure on one line of the terminal.
pub(crate) fn line(f: &Figure) -> String {
    let mut text = format!("{:<58} {:>8} {}", f.id, number(f.value), f.what.unit());
    if let Some(share) = f.bandwidth_share() {
        let _ = write!(text, ", {:.0} % of {}", share * 100.0, span(f.bandwidth_gb_s, "GB/s"));
    }
    if let Some(share) = f.peak_share() {
        let _ = write!(text, ", {:.0} % of {:.0} GOP/s", share * 100.0, f.peak().unwrap_or_default());
    }
    text
}

/// Three digits that matter.
pub(crate) fn number(value: f64) -> String {
    match value.abs() {
        v if v < 9.995 => format!("{value:.2}"),
        v if v < 99.95 => format!("{value:.1}"),
        _ => format!("{value:.0}"),
    }
}

/// Before and after, `-` if nothing was measured.
fn span(pair: Option<[f64; 2]>, unit: &str) -> String {
    pair.map_or("-".to_owned(), |[a, b]| format!("{} / {} {unit}", number(a), number(b)))
}

/// A share as a percentage, `-` if there is none.
fn percent(share: Option<f64>) -> String {
    share.map_or("-".to_owned(), |s| format!("{:.0} %", s * 100.0))
}

/// A value with its spread, and `~` in front if it was measured with `--quick`.
fn with_range(f: &Figure) -> String {
    let range = f.range.map_or(String::new(), |[low, high]| format!(" ({} to {})", number(low), number(high)));
    format!("{}{}{range}", if f.quick { "~" } else { "" }, number(f.value))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::figure::What;
    use crate::figure::tests::figure;
    use crate::machine::Machine;

    #[test]
    fn a_report_of_anything_can_be_written() {
        let dir = tempfile::tempdir().unwrap();
        let mut r = Results::new(Machine::here());
        // Nothing at all, then one of each.
        write(&r, dir.path(), "m").unwrap();
        let whats = [
            What::Gemv,
            What::Stream,
            What::Gemm,
            What::Decode,
            What::Together,
            What::Prefill,
            What::Load,
            What::FirstToken,
            What::Memory,
            What::V2Decode,
            What::V2Together,
            What::V2Prefill,
            What::FamilyDecode,
            What::FamilyPrefill,
            What::KvDecode,
            What::TextMemory,
            What::Hadamard,
            What::SessionMemory,
            What::TokenTime,
            What::ShippedPrefill,
            What::ShippedDecode,
        ];
        let mut figures = whats.map(|w| figure(&format!("{w:?}"), w, 7.25)).to_vec();
        let mut long = figure("long", What::KvDecode, 3.5);
        long.tokens = 4080;
        figures.push(long);
        r.take("t", "r", figures);
        r.fail("broken", "it | said\nno".into());
        write(&r, dir.path(), "m").unwrap();
        let text = std::fs::read_to_string(dir.path().join("m.md")).unwrap();
        for expected in ["7.25", "broken", "it \\| said no", "m-roofline.svg", "m-prefill.svg", "m-kv.svg", "computed"]
        {
            assert!(text.contains(expected), "{expected} is not in\n{text}");
        }
        let svg = std::fs::read_to_string(dir.path().join("m-roofline.svg")).unwrap();
        assert!(svg.contains("<svg") && svg.trim_end().ends_with("</svg>") && !svg.contains("NaN"), "{svg}");
    }

    #[test]
    fn numbers_have_three_digits() {
        assert_eq!([0.123, 9.999, 12.345, 1234.5].map(number), ["0.12", "10.0", "12.3", "1234"]);
    }
}
