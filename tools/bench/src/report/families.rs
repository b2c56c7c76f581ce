//! The section of models with a scale per group, and of embedding models.

use std::fmt::Write;

use super::sections::of;
use super::{percent, with_range};
use crate::figure::{Results, What};

/// The whole section; empty if nothing was measured.
pub(super) fn section(results: &Results) -> String {
    let mut rows = String::new();
    for (what, says) in [(What::FamilyDecode, "decode"), (What::FamilyPrefill, "prefill")] {
        let mut figures = of(results, what);
        figures.sort_by_key(|f| (f.threads, f.tokens));
        for f in &figures {
            // Weights per second, so that shapes can be compared.
            let rate = |f: &crate::figure::Figure| f.value * f.operations.unwrap_or_default() as f64 / 2.0;
            let same =
                |o: &&&crate::figure::Figure| o.subject == "2b4t" && o.threads == f.threads && o.tokens == f.tokens;
            let plain = figures.iter().find(same);
            let times = plain.map_or("-".to_owned(), |o| format!("{:.2}x", rate(f) / rate(o)));
            let share = f.bandwidth_share().or_else(|| f.peak_share());
            let label = if what == What::FamilyDecode { says.to_owned() } else { format!("{says} of {}", f.tokens) };
            let (threads, weights) = (f.threads, rate(f) / 1e9);
            let _ = writeln!(
                rows,
                "| {label} | {threads} | {} | {} | {weights:.1} | {times} | {} |",
                f.subject,
                with_range(f),
                percent(share)
            );
        }
    }
    if rows.is_empty() {
        return rows;
    }
    format!(
        "\n## A scale per group, and embedding models\n\nRandom weights in the shapes of published models. `2b4t` has one scale for a \
         matrix and activations of 8 bits, Bonsai one for each 128 weights and activations of 16 bits; with the embedding model a \
         text becomes a vector. The share is that of the memory's bandwidth, for prefill of the dot-product instructions' peak; \
         16 bits are two such products.\n\n\
         | | threads | shape | tok/s | 1e9 weights/s | times 2b4t | share |\n|---|--:|---|--:|--:|--:|--:|\n{rows}"
    )
}
