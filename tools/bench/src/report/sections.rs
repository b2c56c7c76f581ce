//! The sections of the report, each empty if nothing was measured for it.

use std::fmt::Write;

use super::{number, percent, span, with_range};
use crate::energy::Computed;
use crate::figure::{Figure, Results, What};
use crate::model::shape;

/// Figures of one kind, the fastest instruction set first, others after it.
pub(super) fn of(results: &Results, what: What) -> Vec<&Figure> {
    let isas = &results.machine.isas;
    let rank = |f: &Figure| {
        let at = f.isa.as_ref().and_then(|isa| isas.iter().position(|i| i == isa));
        at.map_or(usize::MAX, |at| isas.len() - at)
    };
    let mut figures: Vec<&Figure> = results.figures.iter().filter(|f| f.what == what).collect();
    figures.sort_by(|a, b| (rank(a), &a.subject, a.threads, a.tokens).cmp(&(rank(b), &b.subject, b.threads, b.tokens)));
    figures
}

/// `bitnet, avx2` or `candle f32`.
pub(crate) fn who(f: &Figure) -> String {
    match &f.isa {
        Some(isa) if f.subject == "bitnet" => format!("{}, {isa}", f.subject),
        _ => f.subject.clone(),
    }
}

pub(super) fn decode(results: &Results, picture: &str) -> String {
    let figures = of(results, What::Decode);
    let figures: Vec<_> = figures.into_iter().filter(|f| f.tokens == 0).collect();
    if figures.is_empty() {
        return String::new();
    }
    let mut text =
        "\n## Decode, from an empty context\n\nTokens per second for one text. Each needs all its bytes from memory, \
                    so the share of the read bandwidth, measured before and after, shows how near the limit it is.\n"
            .to_owned();
    text += picture;
    text += "\n| | threads | tok/s | MB per token | GB/s | bandwidth before / after | share |\n|---|--:|--:|--:|--:|--:|--:|\n";
    for f in &figures {
        let mb = f.bytes.map_or("-".to_owned(), |b| format!("{:.0}", b as f64 / 1e6));
        let gb_s = f.gb_s().map_or("-".to_owned(), number);
        let bandwidth = span(f.bandwidth_gb_s, "GB/s");
        let share = percent(f.bandwidth_share());
        let _ = writeln!(
            text,
            "| {} | {} | {} | {mb} | {gb_s} | {bandwidth} | {share} |",
            who(f),
            f.threads,
            with_range(f)
        );
    }
    text += &notes(&figures);
    text
}

/// Notes of figures, each once.
fn notes(figures: &[&Figure]) -> String {
    let mut notes: Vec<String> =
        figures.iter().filter_map(|f| Some(format!("- {}: {}\n", who(f), f.note.as_ref()?))).collect();
    notes.dedup();
    if notes.is_empty() { String::new() } else { format!("\n{}", notes.concat()) }
}

pub(super) fn context(results: &Results, picture: &str) -> String {
    let figures: Vec<_> = of(results, What::Decode).into_iter().filter(|f| f.subject == "bitnet").collect();
    if !figures.iter().any(|f| f.tokens > 0) {
        return String::new();
    }
    let mut text = "\n## Decode after a context\n\nKeys and values of all earlier tokens are read as well. `allowed` is the \
                    speed from an empty context times the ratio of the bytes, and of the bandwidths around the two runs.\n"
        .to_owned();
    text += picture;
    text += "\n| | threads | context | tok/s | MB per token | share of bandwidth | allowed | of allowed |\n\
             |---|--:|--:|--:|--:|--:|--:|--:|\n";
    for f in figures.iter().filter(|f| f.tokens > 0) {
        let empty = figures.iter().find(|e| e.tokens == 0 && e.isa == f.isa && e.threads == f.threads);
        let allowed = empty.and_then(|e| allowed(e, f));
        let _ = writeln!(
            text,
            "| {} | {} | {} | {} | {} | {} | {} | {} |",
            who(f),
            f.threads,
            f.tokens,
            with_range(f),
            f.bytes.map_or("-".to_owned(), |b| format!("{:.0}", b as f64 / 1e6)),
            percent(f.bandwidth_share()),
            allowed.map_or("-".to_owned(), number),
            percent(allowed.map(|a| f.value / a)),
        );
    }
    text
}

pub(super) fn together(results: &Results) -> String {
    let figures = of(results, What::Together);
    if figures.is_empty() {
        return String::new();
    }
    let mut text =
        "\n## Several texts together\n\nTokens per second of all texts, which step through one pass over the \
                    weights.\n\n| | threads | texts | tok/s in all | times one text | share of bandwidth |\n\
                    |---|--:|--:|--:|--:|--:|\n"
            .to_owned();
    for f in &figures {
        let one = results.figures.iter().find(|o| {
            o.what == What::Decode
                && o.tokens == 0
                && o.subject == f.subject
                && o.isa == f.isa
                && o.threads == f.threads
        });
        let times = one.map_or("-".to_owned(), |o| format!("{}x", number(f.value / o.value)));
        let share = percent(f.bandwidth_share());
        let _ = writeln!(text, "| {} | {} | {} | {} | {times} | {share} |", who(f), f.threads, f.tokens, with_range(f));
    }
    text
}

/// The speed that `f` would have if it had the same share of the bandwidth as `empty`, which reads fewer bytes.
pub(crate) fn allowed(empty: &Figure, f: &Figure) -> Option<f64> {
    Some(f.value * empty.bandwidth_share()? / f.bandwidth_share()?)
}

pub(super) fn prefill(results: &Results, picture: &str) -> String {
    let figures = of(results, What::Prefill);
    if figures.is_empty() {
        return String::new();
    }
    let mut text =
        "\n## Prefill\n\nTokens of a prompt read per second. GOP/s counts the multiplications and additions of the \
                    ternary products only, although attention is in the time. The peak is the rate of the \
                    set's dot-product instructions without any load, the better of before and after.\n"
            .to_owned();
    text += picture;
    text += "\n| | threads | prompt | tok/s | GOP/s | peak | share of peak |\n|---|--:|--:|--:|--:|--:|--:|\n";
    for f in &figures {
        let gop_s = f.gop_s().map_or("-".to_owned(), number);
        let (peak, share) = (f.peak().map_or("-".to_owned(), number), percent(f.peak_share()));
        let _ = writeln!(
            text,
            "| {} | {} | {} | {} | {gop_s} | {peak} | {share} |",
            who(f),
            f.threads,
            f.tokens,
            with_range(f)
        );
    }
    text += &notes(&figures);
    text
}

pub(super) fn against_candle(results: &Results) -> String {
    let mut rows = String::new();
    for (what, says) in [(What::Decode, "decode"), (What::Prefill, "prefill")] {
        let figures = of(results, what);
        for candle in figures.iter().filter(|f| f.subject.starts_with("candle")) {
            // `figures` has the best set first.
            let ours = figures
                .iter()
                .find(|f| f.subject == "bitnet" && f.threads == candle.threads && f.tokens == candle.tokens);
            let Some(ours) = ours else { continue };
            let times = number(ours.value / candle.value);
            let length = if what == What::Prefill { format!(" of {}", candle.tokens) } else { String::new() };
            let _ = writeln!(rows, "| {says}{length} | {} | {} | {times}x |", candle.threads, candle.subject);
        }
    }
    if rows.is_empty() {
        return String::new();
    }
    format!(
        "\n## Against candle\n\nHow many times faster than a Llama of the same shape in candle-transformers: dense (`Llama`) and \
         block-quantised (`QMatMul`). candle's models have no ternary weights and so read more bytes, which is the point \
         of the comparison.\n\n\
         | | threads | candle | times faster |\n|---|--:|---|--:|\n{rows}"
    )
}

pub(super) fn start(results: &Results) -> String {
    let (load, first, memory) = (of(results, What::Load), of(results, What::FirstToken), of(results, What::Memory));
    let mut rows = String::new();
    for f in &load {
        let same = |g: &&&Figure| g.isa == f.isa && g.threads == f.threads;
        let first = first.iter().filter(same).map(|g| format!("{} s ({} tokens)", number(g.value), g.tokens));
        let memory = memory.iter().find(same).map_or("-".to_owned(), |g| format!("{:.0} MiB", g.value));
        let first = first.collect::<Vec<_>>().join(", ");
        let _ = writeln!(rows, "| {} | {} | {} s | {first} | {memory} |", who(f), f.threads, number(f.value));
    }
    if rows.is_empty() {
        return String::new();
    }
    format!(
        "\n## Start and memory\n\nThe file is in the page cache. Time to the first token is loading plus the first reading of a \
         prompt. Memory is the private memory of the process while it decodes; the mapped file is not counted.\n\n\
         | | threads | load | first token | anonymous memory |\n|---|--:|--:|--:|--:|\n{rows}"
    )
}

pub(super) fn energy(results: &Results) -> String {
    let mut text = "\n## Energy\n\n".to_owned();
    let metered: Vec<&Figure> = results.figures.iter().filter(|f| f.joules.is_some()).collect();
    if metered.is_empty() {
        text += "This machine does not meter its energy (no readable RAPL counter), so nothing here is measured.\n";
    } else {
        text += "Measured: joules per token of all CPU packages as they meter themselves (RAPL), idle share included.\n\n\
                 | figure | joules per token |\n|---|--:|\n";
        for f in &metered {
            let _ = writeln!(text, "| {} | {:.3} |", f.id, f.joules.unwrap_or_default());
        }
    }
    text += "\nBelow is **computed**, not measured: operations of one token of the 2B4T shape times the picojoules of the \
             BitNet b1.58 report (7 nm: int8 addition 0.007; f16 multiplication 0.34, addition 0.16). It counts arithmetic only; \
             moving the bytes, which the last columns count, costs a CPU far more than this.\n\n\
             | context | ternary layers | the same in f16 | f16 head | weights read, 2 bits / f16 |\n|--:|--:|--:|--:|--:|\n";
    for context in [1, 512, 4096] {
        let c = Computed::token(&shape(), context);
        let _ = writeln!(
            text,
            "| {context} | {:.3} mJ | {:.3} mJ | {:.3} mJ | {:.0} / {:.0} MB |",
            c.ternary_joules() * 1e3,
            c.dense_joules() * 1e3,
            c.head_joules() * 1e3,
            c.weights as f64 / 4e6,
            c.weights as f64 * 2.0 / 1e6,
        );
    }
    text
}

pub(super) fn failures(results: &Results) -> String {
    if results.failures.is_empty() {
        return String::new();
    }
    let mut text = "\n## What could not be measured\n\n| measurement | reason |\n|---|---|\n".to_owned();
    for f in &results.failures {
        let _ = writeln!(text, "| {} | {} |", f.task, f.problem.replace('\n', " ").replace('|', "\\|"));
    }
    text
}
