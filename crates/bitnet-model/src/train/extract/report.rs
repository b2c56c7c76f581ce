//! The result of a run, as Markdown.

use std::fmt::Write;

use super::data::TaskData;
use super::measure::TaskFigures;

/// Intents up to which the matrix of confusions is written out; of more, the most frequent confusions are.
const MATRIX: usize = 20;
/// Most frequent confusions.
const CONFUSIONS: usize = 30;

/// A name in a cell of a table.
fn cell(name: &str) -> String {
    name.replace('\\', "\\\\").replace('|', "\\|")
}

/// Figures of a task on the validation data, without errors and with them: a table of shares, one of slots, and
/// which intents were taken for which others.
pub(super) fn of_task(data: &TaskData, clean: &TaskFigures, typos: &TaskFigures) -> String {
    let mut out = format!("## {}\n\n", cell(&data.name));
    let _ = writeln!(
        out,
        "{} utterances learned, {} kept for choices, of which the figures are; {} intents, {} slots.\n",
        data.train.len(),
        data.valid.len(),
        data.intents.len(),
        data.slots.len()
    );
    let _ = writeln!(out, "| | clean | with typing errors |\n|---|--:|--:|");
    let mut row = |what: &str, of: &dyn Fn(&TaskFigures) -> String| {
        let _ = writeln!(out, "| {what} | {} | {} |", of(clean), of(typos));
    };
    let percent = |share: f64| format!("{:.2} %", 100.0 * share);
    row("intent", &|f| percent(f.accuracy()));
    if !data.slots.is_empty() {
        row("slots, F1", &|f| format!("{:.2}", 100.0 * f.slot_counts().f1()));
        row("all right", &|f| percent(f.all_right()));
    }
    if clean.auroc.is_some() {
        row("out of scope, AUROC", &|f| f.auroc.map_or_else(String::new, |a| format!("{a:.4}")));
    }
    if !data.slots.is_empty() {
        out.push_str("\n| slot | there | found | right | F1 | with typing errors |\n|---|--:|--:|--:|--:|--:|\n");
        for ((name, c), t) in data.slots.iter().zip(&clean.slots).zip(&typos.slots) {
            let (c1, t1) = (100.0 * c.f1(), 100.0 * t.f1());
            let _ = writeln!(out, "| {} | {} | {} | {} | {c1:.1} | {t1:.1} |", cell(name), c.there, c.found, c.right);
        }
    }
    out.push('\n');
    if data.intents.len() <= MATRIX {
        out.push_str("Intents (rows) and what they were taken for (columns), without errors:\n\n| |");
        for name in &data.intents {
            let _ = write!(out, " {} |", cell(name));
        }
        out.push_str("\n|---|");
        out.push_str(&"--:|".repeat(data.intents.len()));
        for (right, name) in data.intents.iter().enumerate() {
            let _ = write!(out, "\n| {} |", cell(name));
            for said in 0..data.intents.len() {
                match clean.confusion.get(&(right, said)) {
                    Some(n) => write!(out, " {n} |"),
                    None => write!(out, " |"),
                }
                .unwrap_or_default();
            }
        }
        out.push('\n');
        return out;
    }
    let mut wrong: Vec<_> = clean.confusion.iter().filter(|((right, said), _)| right != said).collect();
    wrong.sort_by_key(|(pair, n)| (std::cmp::Reverse(**n), **pair));
    if wrong.is_empty() {
        out.push_str("No intent was taken for another one.\n");
        return out;
    }
    out.push_str("The most frequent confusions, without errors:\n\n| intent | taken for | times |\n|---|---|--:|\n");
    for ((right, said), n) in wrong.into_iter().take(CONFUSIONS) {
        let _ = writeln!(out, "| {} | {} | {n} |", cell(&data.intents[*right]), cell(&data.intents[*said]));
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::train::extract::measure::SlotCounts;

    #[test]
    fn tables_have_as_many_cells_as_heads() {
        let data = TaskData {
            name: "home".into(),
            intents: vec!["a|b".into(), "c".into()],
            slots: vec!["s".into()],
            ..TaskData::default()
        };
        let mut f = TaskFigures { texts: 3, intents: 2, whole: 1, auroc: Some(0.5), ..TaskFigures::default() };
        f.slots.push(SlotCounts { right: 1, found: 2, there: 2 });
        f.confusion.extend([((0, 0), 2), ((0, 1), 1)]);
        let text = of_task(&data, &f, &f);
        for part in [
            "| intent | 66.67 % | 66.67 % |",
            "| s | 2 | 2 | 1 | 50.0 | 50.0 |",
            "| a\\|b | 2 | 1 |",
            "| c | | |",
            "0.5000",
        ] {
            assert!(text.contains(part), "{part}: {text}");
        }
    }
}
