//! The sections about test-time training.

use std::fmt::Write;

use super::{number, with_range};
use crate::figure::{Figure, Results, What};

fn of(results: &Results, what: What) -> Vec<&Figure> {
    let mut figures: Vec<&Figure> = results.figures.iter().filter(|f| f.what == what).collect();
    figures.sort_by(|a, b| (&a.isa, a.tokens, a.threads).cmp(&(&b.isa, b.tokens, b.threads)));
    figures
}

/// Memory and time by context.
pub(super) fn growth(results: &Results, picture: &str) -> String {
    let (memory, time) = (of(results, What::SessionMemory), of(results, What::TokenTime));
    let mut contexts: Vec<u64> = time.iter().map(|f| f.tokens).collect();
    contexts.dedup();
    if contexts.is_empty() {
        return String::new();
    }
    let find = |all: &[&Figure], subject: &str, context: u64| -> Option<Figure> {
        all.iter().find(|f| f.subject == subject && f.tokens == context).map(|f| (*f).clone())
    };
    let mut text = "\n## Test-time training and attention\n\nTwo models of the shape of the one that comes with the program (hidden 256, \
                    6 layers, 4 heads), whose layers differ only in how they mix the tokens: memory of a session, and time of the next \
                    token, after a text of that many tokens. One text. Attention keeps keys and values in f16; beyond 16 thousand tokens \
                    they are filled with numbers instead of being computed, which costs the same afterwards.\n"
        .to_owned();
    text += picture;
    text +=
        "\n| tokens before | TTT-Linear, KiB | us per token | attention, KiB | us per token |\n|--:|--:|--:|--:|--:|\n";
    for &context in &contexts {
        let cell = |all: &[&Figure], subject: &str| match find(all, subject, context) {
            Some(f) if f.what == What::TokenTime => with_range(&f),
            Some(f) => number(f.value),
            None => "-".to_owned(),
        };
        let [a, b] = ["TTT-Linear", "attention"].map(|s| [cell(&memory, s), cell(&time, s)]);
        let _ = writeln!(text, "| {context} | {} | {} | {} | {} |", a[0], a[1], b[0], b[1]);
    }
    let times: Vec<f64> = time.iter().filter(|f| f.subject == "TTT-Linear").map(|f| f.value).collect();
    let (low, high) = times.iter().fold((f64::MAX, 0.0f64), |(l, h), t| (l.min(*t), h.max(*t)));
    if times.len() > 1 {
        let _ = writeln!(
            text,
            "\nThe slowest of the TTT-Linear medians is {:.1} % above the fastest.",
            (high / low - 1.0) * 100.0
        );
    }
    text
}

/// Speed of the model that comes with the program.
pub(super) fn shipped(results: &Results) -> String {
    let (prefill, decode) = (of(results, What::ShippedPrefill), of(results, What::ShippedDecode));
    if decode.is_empty() {
        return String::new();
    }
    let mut text = "\n## The model that comes with the program\n\nTokens per second, of all texts together; with the choice of the next \
                    token and its text.\n\n| | instructions | threads | tok/s |\n|---|---|--:|--:|\n"
        .to_owned();
    let mut row = |what: String, f: &Figure| {
        let isa = f.isa.as_deref().unwrap_or("-");
        let _ = writeln!(text, "| {what} | {isa} | {} | {} |", f.threads, with_range(f));
    };
    for f in &prefill {
        row(format!("prompt of {}", f.tokens), f);
    }
    for f in &decode {
        row(if f.tokens == 1 { "one text".to_owned() } else { format!("{} texts together", f.tokens) }, f);
    }
    let mut notes: Vec<&String> = decode.iter().filter_map(|f| f.note.as_ref()).collect();
    notes.sort_unstable();
    notes.dedup();
    for note in notes {
        let _ = writeln!(text, "\n{note}; the head is in all figures.");
    }
    text
}
