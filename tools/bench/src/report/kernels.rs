//! The section of kernels: a small table for each product, formats down and instruction sets across.

use std::fmt::Write;

use ternary_kernels::registry;

use super::{number, percent, span};
use crate::figure::{Figure, Results, What};

/// Kinds of products with their descriptions.
const KINDS: [(What, &str, &str); 3] = [
    (
        What::Gemv,
        "One token, weights in the caches",
        "The same matrix repeatedly. Each cell: microseconds, GB/s of weights, operations (multiplications and additions) in \
         GOP/s.",
    ),
    (
        What::Stream,
        "One token, weights from memory",
        "Matrices in turn, more than the caches hold: as in decoding. Each cell: microseconds, GB/s of weights, share of the memory's \
         bandwidth, GOP/s.",
    ),
    (
        What::Gemm,
        "Many tokens",
        "Each cell: microseconds, GOP/s, share of the peak of the set's multipliers. Look-up tables multiply nothing: their share is \
         only a comparison with that peak.",
    ),
];

pub(super) fn kernels(results: &Results) -> String {
    let mut text = String::new();
    for (what, title, says) in KINDS {
        let mut figures: Vec<&Figure> = results.figures.iter().filter(|f| f.what == what).collect();
        if figures.is_empty() {
            continue;
        }
        let _ = writeln!(text, "\n### {title}\n\n{says}");
        figures.sort_by_key(|f| product(f));
        for same in figures.chunk_by(|a, b| product(a) == product(b)) {
            text += &table(results, what, same);
        }
    }
    if text.is_empty() { text } else { format!("\n## Kernels\n{text}") }
}

/// Key that the figures of one table share: large matrices first, baselines in the table of their matrix.
fn product(f: &Figure) -> (std::cmp::Reverse<Option<[u64; 2]>>, bool, u64, usize) {
    (std::cmp::Reverse(f.shape), f.id.contains(" from memory"), f.tokens, f.threads)
}

/// One product: a row for each format, a column for each instruction set.
fn table(results: &Results, what: What, figures: &[&Figure]) -> String {
    let first = figures[0];
    let [m, k] = first.shape.unwrap_or_default();
    let mut text = format!("\n**{m}x{k}**");
    if what == What::Gemm {
        let _ = write!(text, ", {} tokens", first.tokens);
        text += if first.id.contains(" from memory") { ", weights from memory" } else { "" };
    }
    let _ = write!(text, ", {} thread{}", first.threads, if first.threads == 1 { "" } else { "s" });
    if what == What::Stream {
        let _ = write!(text, "; bandwidth before / after {}", span(first.bandwidth_gb_s, "GB/s"));
    }
    let isas: Vec<&str> = results.machine.isas.iter().rev().map(String::as_str).collect();
    let isas: Vec<&str> =
        isas.into_iter().filter(|isa| figures.iter().any(|f| f.isa.as_deref() == Some(*isa))).collect();
    if what == What::Gemm {
        let peak = |isa: &&str| {
            let peak = figures.iter().find(|f| f.isa.as_deref() == Some(*isa)).and_then(|f| f.peak())?;
            Some(format!("{isa} {} GOP/s", number(peak)))
        };
        let peaks: Vec<String> = isas.iter().filter_map(peak).collect();
        let _ = write!(text, "; multipliers: {}", if peaks.is_empty() { "-".into() } else { peaks.join(", ") });
    }
    text += "\n\n";
    let mut formats: Vec<(usize, String)> = figures.iter().filter(|f| f.isa.is_some()).map(|f| format(f)).collect();
    formats.sort();
    formats.dedup();
    if !formats.is_empty() {
        let _ = writeln!(text, "| | {} |\n|---|{}", isas.join(" | "), "--:|".repeat(isas.len()));
    }
    for row in &formats {
        let cells = isas.iter().map(|isa| {
            let of = figures.iter().find(|f| f.isa.as_deref() == Some(*isa) && format(f) == *row);
            of.map_or("-".to_owned(), |f| cell(what, f))
        });
        let _ = writeln!(text, "| {} | {} |", row.1, cells.collect::<Vec<_>>().join(" | "));
    }
    let others: Vec<String> =
        figures.iter().filter(|f| f.isa.is_none()).map(|f| format!("{} {} us", f.subject, number(f.value))).collect();
    if !others.is_empty() {
        let _ = writeln!(text, "\nFor comparison: {}.", others.join(", "));
    }
    text
}

/// The format of a kernel and its place: that of the registry; level sets come last. `i2s_avx2, int4` is `i2s, int4`.
fn format(f: &Figure) -> (usize, String) {
    let (kernel, bits) = f.subject.split_once(", ").map_or((f.subject.as_str(), ""), |(k, _)| (k, ", int4"));
    match registry().iter().find(|e| e.name == kernel) {
        Some(entry) => {
            // The portable set, which stands last, has all formats.
            let order = registry().iter().rev().position(|e| e.format_name == entry.format_name).unwrap_or(0);
            (registry().len() - order, format!("{}{bits}", entry.format_name))
        }
        None => {
            let name = kernel.rsplit_once('_').map_or(kernel, |(set, _)| set);
            (usize::MAX, format!("{name}{bits}"))
        }
    }
}

fn cell(what: What, f: &Figure) -> String {
    let or_dash = |v: Option<f64>| v.map_or("-".to_owned(), number);
    let haste = if f.quick { "~" } else { "" };
    let time = number(f.value);
    match what {
        What::Gemm => format!("{haste}{time}, {}, {}", or_dash(f.gop_s()), percent(f.peak_share())),
        What::Stream => {
            format!("{haste}{time}, {}, {}, {}", or_dash(f.gb_s()), percent(f.bandwidth_share()), or_dash(f.gop_s()))
        }
        _ => format!("{haste}{time}, {}, {}", or_dash(f.gb_s()), or_dash(f.gop_s())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::figure::tests::figure;
    use crate::machine::Machine;

    #[test]
    fn formats_stand_in_the_order_of_the_registry_and_sets_across() {
        let mut machine = Machine::here();
        machine.isas = vec!["scalar".into(), "avx2".into()];
        let mut r = Results::new(machine);
        let one = |subject: &str, isa: Option<&str>, value: f64| Figure {
            subject: subject.into(),
            isa: isa.map(str::to_owned),
            shape: Some([32, 16]),
            tokens: 1,
            ..figure(&format!("kernels/gemv 32x16/{subject}/t1"), What::Gemv, value)
        };
        let figures = vec![
            one("elut[-1,1]x4_scalar", Some("scalar"), 7.0),
            one("tl1_scalar", Some("scalar"), 3.0),
            one("i2s_scalar, int4", Some("scalar"), 2.0),
            one("i2s_scalar", Some("scalar"), 1.0),
            one("dense f32", None, 9.0),
        ];
        r.take("kernels/gemv 32x16/t1", "r", figures);
        let text = kernels(&r);
        let at = |what: &str| text.find(what).unwrap_or_else(|| panic!("{what} is not in\n{text}"));
        let places = [
            "**32x16**, 1 thread",
            "| | scalar |",
            "| i2s | 1.00,",
            "| i2s, int4 | 2.00,",
            "| tl1 |",
            "| elut[-1,1]x4 |",
        ];
        assert!(places.map(at).is_sorted(), "{text}");
        assert!(text.contains("For comparison: dense f32 9.00 us."), "{text}");
    }
}
