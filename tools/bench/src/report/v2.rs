//! The section of BitNet v2: activations of 4 bits, keys and values in few bits, memory of several texts.

use std::fmt::Write;

use super::sections::of;
use super::{number, percent, with_range};
use crate::figure::{Figure, Results, What};
use crate::v2::{TEXT, mib};

/// The whole section; empty if nothing was measured.
pub(super) fn section(results: &Results, picture: &str) -> String {
    let text = [activations(results), transforms(results), keys_and_values(results, picture), memory(results)].concat();
    if text.is_empty() { text } else { format!("\n## BitNet v2\n{text}") }
}

fn activations(results: &Results) -> String {
    let mut rows = String::new();
    let kinds = [(What::V2Decode, "decode"), (What::V2Together, "texts together"), (What::V2Prefill, "prefill")];
    for (what, says) in kinds {
        let mut figures = of(results, what);
        // Eight bits before four.
        figures.sort_by_key(|f| (f.threads, f.tokens, std::cmp::Reverse(f.subject.clone())));
        for f in &figures {
            let eight = figures.iter().find(|o| o.subject == "A8" && o.threads == f.threads && o.tokens == f.tokens);
            let times = eight.map_or("-".to_owned(), |o| format!("{}x", number(f.value / o.value)));
            let of_limit = f.bandwidth_share().or_else(|| f.peak_share());
            let count = if what == What::V2Decode { String::new() } else { format!("{} ", f.tokens) };
            let says = if what == What::V2Prefill { "prefill of ".to_owned() + count.trim() } else { count + says };
            let _ = writeln!(
                rows,
                "| {says} | {} | {} | {} | {times} | {} |",
                f.threads,
                f.subject,
                with_range(f),
                percent(of_limit)
            );
        }
    }
    if rows.is_empty() {
        return rows;
    }
    format!(
        "\n### Activations of 4 and of 8 bits\n\nThe shape of BitNet b1.58 2B4T with the same weights: `A8` is the model as it is, `A4` \
         has Hadamard transforms before the output and the down projection and activations of 4 bits everywhere. Each pair was \
         measured in a row. The share is that of the memory's bandwidth, for prefill of the dot-product instructions' peak.\n\n\
         | | threads | activations | tok/s | times A8 | share |\n|---|--:|---|--:|--:|--:|\n{rows}"
    )
}

fn transforms(results: &Results) -> String {
    let mut text = String::new();
    for f in of(results, What::Hadamard) {
        let threads = if f.threads == 1 { "1 thread".to_owned() } else { format!("{} threads", f.threads) };
        let note = f.note.as_deref().unwrap_or("-");
        let mark = if f.quick { "~" } else { "" };
        let _ = writeln!(text, "| {threads} | {note} | {mark}{} % |", number(f.value));
    }
    if text.is_empty() {
        return text;
    }
    format!(
        "\n### Hadamard transforms\n\nThe time that they add to a layer while one token is generated: norm, transform and quantisation of the inputs \
         of the output and the down projection, less the same without transforms. The layers' weights may be in a cache, so the \
         share in a whole model is smaller.\n\n| | transforms of a layer | share |\n|---|--:|--:|\n{text}"
    )
}

/// Context and figures of one type and number of threads: the shortest and the longest.
pub(crate) fn ends<'a>(figures: &[&'a Figure], kv: &str, threads: usize) -> Option<[&'a Figure; 2]> {
    let of_type = || figures.iter().copied().filter(|f| f.subject == kv && f.threads == threads);
    let (short, long) = (of_type().min_by_key(|f| f.tokens)?, of_type().max_by_key(|f| f.tokens)?);
    (short.tokens < long.tokens).then_some([short, long])
}

/// Types of keys and values that were measured, the largest first.
pub(crate) fn kv_types(figures: &[&Figure]) -> Vec<String> {
    let bytes = |kv: &str| figures.iter().filter(|f| f.subject == kv).filter_map(|f| f.bytes).max();
    let mut types: Vec<String> = figures.iter().map(|f| f.subject.clone()).collect();
    types.sort_by_key(|kv| (std::cmp::Reverse(bytes(kv)), kv.clone()));
    types.dedup();
    types
}

fn keys_and_values(results: &Results, picture: &str) -> String {
    let figures = of(results, What::KvDecode);
    let mut threads: Vec<usize> = figures.iter().map(|f| f.threads).collect();
    threads.sort_unstable();
    threads.dedup();
    let mut rows = String::new();
    for &t in &threads {
        for kv in kv_types(&figures) {
            let Some([short, long]) = ends(&figures, &kv, t) else { continue };
            let mb = |f: &Figure| f.bytes.map_or("-".to_owned(), |b| format!("{:.0}", b as f64 / 1e6));
            let _ = writeln!(
                rows,
                "| {kv} | {t} | {} | {} | {} | {} | {} | {} |",
                with_range(short),
                long.tokens,
                with_range(long),
                percent(Some(long.value / short.value)),
                mb(long),
                percent(long.bandwidth_share()),
            );
        }
    }
    if rows.is_empty() {
        return rows;
    }
    format!(
        "\n### Keys and values in few bits\n\nDecoding with 8-bit activations from an empty context and after a long one. `kept` is the share \
         of the speed that remains.\n{picture}\n| keys and values | threads | tok/s, empty | context | tok/s | kept | MB per token | share of \
         bandwidth |\n|---|--:|--:|--:|--:|--:|--:|--:|\n{rows}"
    )
}

fn memory(results: &Results) -> String {
    let mut figures = of(results, What::TextMemory);
    figures.sort_by_key(|f| (f.tokens, std::cmp::Reverse(f.bytes), std::cmp::Reverse(f.subject.clone())));
    let mut rows = String::new();
    for f in &figures {
        let counted = f.bytes.map_or("-".to_owned(), |b| number(mib(b)));
        let note = f.note.as_deref().unwrap_or("-");
        let _ = writeln!(rows, "| {} | {} | {counted} | {note} | {:.0} |", f.subject, f.tokens, f.value);
    }
    if rows.is_empty() {
        return rows;
    }
    format!(
        "\n### Memory of texts that are generated together\n\nEach after a context of {TEXT} tokens, with room for 256. Keys and values, codes of activations and \
         other buffers are counted; anonymous memory is the private memory of the process during that time, packed weights \
         included.\n\n| activations, keys and values | texts | keys and values, MiB | buffers | anonymous memory, MiB |\n\
         |---|--:|--:|---|--:|\n{rows}"
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::figure::tests::figure;
    use crate::machine::Machine;

    #[test]
    fn pairs_stand_next_to_each_other() {
        let mut r = Results::new(Machine::here());
        assert_eq!(section(&r, ""), "");
        let of = |id: &str, what, subject: &str, tokens, value| {
            let mut f = figure(id, what, value);
            (f.subject, f.tokens) = (subject.to_owned(), tokens);
            f
        };
        let mut share = of("h", What::Hadamard, "A4", 1, 1.25);
        share.note = Some("8.0 us of 640 us".into());
        r.take(
            "t",
            "r",
            vec![
                of("a", What::V2Decode, "A4", 0, 19.0),
                of("b", What::V2Decode, "A8", 0, 20.0),
                of("c", What::KvDecode, "q8", 0, 20.0),
                of("d", What::KvDecode, "q8", 4080, 16.0),
                of("e", What::KvDecode, "q4", 0, 20.0),
                of("f", What::TextMemory, "A4, q8", 8, 700.0),
                share,
            ],
        );
        let text = section(&r, "![picture](p.svg)\n");
        for row in [
            "| decode | 1 | A4 | 19.0 | 0.95x |",
            "| 1 thread | 8.0 us of 640 us | 1.25 % |",
            "| q8 | 1 | 20.0 | 4080 | 16.0 | 80 % | 1000 |",
            "| A4, q8 | 8 | 954 | - | 700 |",
        ] {
            assert!(text.contains(row), "{row} is not in\n{text}");
        }
        let at = |row: &str| text.find(row).unwrap();
        assert!(at("| A8 | 20.0") < at("| A4 | 19.0"), "{text}");
        // One end is not a pair.
        assert!(!text.contains("| q4 |"), "{text}");
    }
}
