//! The short table of the project's README: written from figures, never by hand.

use std::fmt::Write;
use std::path::Path;

use super::number;
use crate::error::BenchError;
use crate::figure::{Figure, Results, What};

/// Marks before and after the table in the README.
const MARKS: [&str; 2] = ["<!-- speed: written by `cargo xtask bench` -->\n", "<!-- /speed -->"];

/// Puts a summary of `results` between the marks in `readme`; it links to `page`. Without marks, or without
/// figures of decoding, nothing changes.
///
/// # Errors
/// If the file cannot be read or written.
pub(crate) fn update(results: &Results, readme: &Path, page: &str) -> Result<(), BenchError> {
    let Some(table) = table(results, page) else { return Ok(()) };
    let text = std::fs::read_to_string(readme).map_err(BenchError::io(readme))?;
    match between(&text, &table) {
        Some(new) if new != text => std::fs::write(readme, new).map_err(BenchError::io(readme)),
        _ => Ok(()),
    }
}

/// `text` with `table` between the marks.
fn between(text: &str, table: &str) -> Option<String> {
    let (before, rest) = text.split_once(MARKS[0])?;
    let (_, after) = rest.split_once(MARKS[1])?;
    Some([before, MARKS[0], table, MARKS[1], after].concat())
}

/// The set that most x86 computers stop at: it has a row even where the CPU can do more.
const COMMON: &str = "avx2";

/// One row for each program, for ours one with the best instruction set and one with [`COMMON`]: decode and prefill
/// with the fewest and the most threads.
fn table(results: &Results, page: &str) -> Option<String> {
    let figures = || results.figures.iter().filter(|f| !f.quick);
    let decode = || figures().filter(|f| f.what == What::Decode && f.tokens == 0);
    let measured = |isa: &str| decode().any(|f| f.isa.as_deref() == Some(isa));
    let best = results.machine.isas.iter().map(String::as_str).rev().find(|isa| measured(isa))?;
    let mut isas = vec![best];
    isas.extend((best != COMMON && measured(COMMON)).then_some(COMMON));
    let (one, all) = (decode().map(|f| f.threads).min()?, decode().map(|f| f.threads).max()?);
    let threads = if one == all { vec![one] } else { vec![one, all] };
    let mut subjects: Vec<&str> = decode().map(|f| f.subject.as_str()).filter(|s| *s != "bitnet").collect();
    subjects.sort_unstable();
    subjects.dedup();
    let ours = isas.into_iter().map(|isa| ("bitnet", Some(isa)));
    let rows: Vec<(&str, Option<&str>)> = ours.chain(subjects.into_iter().map(|s| (s, None))).collect();

    let mut text = format!(
        "Tokens per second with weights of the shape of BitNet b1.58 2B4T on {} ([all figures]({page})); in parentheses the share of the \
         memory bandwidth measured around each run. candle runs a Llama of the same shape without ternary weights.\n\n| |",
        results.machine.cpu
    );
    for what in ["decode", "prefill of 128"] {
        for t in &threads {
            let _ = write!(text, " {what}, {t} thread{} |", if *t == 1 { "" } else { "s" });
        }
    }
    let _ = writeln!(text, "\n|---|{}", "--:|".repeat(2 * threads.len()));
    for (subject, isa) in rows {
        let cell = |what: What, tokens: u64, t: usize| -> String {
            let is = |f: &&Figure| {
                f.what == what
                    && f.tokens == tokens
                    && f.threads == t
                    && f.subject == subject
                    && (isa.is_none() || f.isa.as_deref() == isa)
            };
            let Some(f) = figures().find(is) else { return "-".to_owned() };
            let share = f.bandwidth_share().map_or(String::new(), |s| format!(" ({:.0} %)", s * 100.0));
            let mark = if f.note.as_ref().is_some_and(|n| n.starts_with("extrapolated")) { "about " } else { "" };
            format!("{mark}{}{share}", number(f.value))
        };
        let _ = write!(text, "| {} |", isa.map_or(subject.to_owned(), |isa| format!("**{subject}**, {isa}")));
        for (what, tokens) in [(What::Decode, 0), (What::Prefill, 128)] {
            for &t in &threads {
                let _ = write!(text, " {} |", cell(what, tokens, t));
            }
        }
        text.push('\n');
    }
    Some(text)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::figure::tests::figure;
    use crate::machine::Machine;

    #[test]
    fn the_table_stands_between_its_marks_and_holds_no_hasty_figure() {
        let mut r = Results::new(Machine { isas: vec!["scalar".into(), "avx2".into()], ..Machine::here() });
        assert_eq!(table(&r, "p.md"), None);
        let (mut two, mut hasty) = (figure("b", What::Decode, 20.0), figure("c", What::Prefill, 99.0));
        (two.threads, two.subject) = (2, "candle f32".into());
        two.note = Some("extrapolated".into());
        (hasty.tokens, hasty.quick) = (128, true);
        r.take("t", "r", vec![figure("a", What::Decode, 10.0), two, hasty]);
        let table = table(&r, "p.md").unwrap();
        assert!(table.contains("| **bitnet**, avx2 | 10.0 (25 %) | - | - | - |"), "{table}");
        assert!(table.contains("| candle f32 | - | about 20.0 (50 %) | - | - |"), "{table}");

        r.machine.isas.push("avx512vnni".into());
        let mut wide = figure("d", What::Decode, 30.0);
        wide.isa = Some("avx512vnni".into());
        r.take("w", "r", vec![wide]);
        let both = super::table(&r, "p.md").unwrap();
        assert!(
            both.contains("| **bitnet**, avx512vnni | 30.0 (75 %) | - | - | - |\n| **bitnet**, avx2 | 10.0"),
            "{both}"
        );

        let text = format!("a\n{}old\n{}\nz", MARKS[0], MARKS[1]);
        let new = between(&text, &table).unwrap();
        assert_eq!(new, format!("a\n{}{table}{}\nz", MARKS[0], MARKS[1]));
        assert_eq!(between(&new, &table), Some(new.clone()));
        assert_eq!(between("no marks", &table), None);
    }
}
