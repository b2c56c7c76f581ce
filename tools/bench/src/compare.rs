//! Ratios between two sets of figures.

use std::fmt::Write;

use crate::figure::{Figure, Results};

/// A table of all figures that both sets have: new, old, and how many times better the new one is.
///
/// The last column divides by the bandwidth that each was measured under, if bandwidth is the limit: it distinguishes a
/// faster program from a faster memory.
pub(crate) fn table(new: &Results, old: &Results, old_name: &str) -> String {
    let mut text = format!("| figure | now | {old_name} | better by | at equal bandwidth |\n|---|--:|--:|--:|--:|\n");
    let mut logs: Vec<f64> = Vec::new();
    for f in &new.figures {
        let Some(g) = old.get(&f.id) else { continue };
        let ratio = better(f, g);
        if ratio.is_finite() && ratio > 0.0 {
            logs.push(ratio.ln());
        }
        let equal = at_equal_bandwidth(f, g).map_or(String::new(), |r| format!("{r:.2}x"));
        let (a, b, unit) = (crate::report::number(f.value), crate::report::number(g.value), f.what.unit());
        let _ = writeln!(text, "| {} | {a} {unit} | {b} {unit} | {ratio:.2}x | {equal} |", f.id);
    }
    if logs.is_empty() {
        return format!("nothing in common with {old_name}\n");
    }
    let mean = (logs.iter().sum::<f64>() / logs.len() as f64).exp();
    let _ = writeln!(text, "\n{} figures in common; better by {mean:.2}x in the geometric mean.", logs.len());
    if new.machine.cpu != old.machine.cpu || new.machine.version != old.machine.version {
        let _ = writeln!(text, "Careful: the other figures are from another machine ({}).", old.machine.cpu);
    }
    text
}

/// How many times better `new` is.
fn better(new: &Figure, old: &Figure) -> f64 {
    if new.what.more_is_better() { new.value / old.value } else { old.value / new.value }
}

/// [`better`] for figures that run against the memory's speed, as if it had been equal for both.
fn at_equal_bandwidth(new: &Figure, old: &Figure) -> Option<f64> {
    let mean = |f: &Figure| f.bandwidth_gb_s.map(crate::figure::mean);
    new.what.reads_memory().then_some(())?;
    Some(better(new, old) * mean(old)? / mean(new)?)
}

/// Both rounds of the same measurement as one: each value the geometric mean.
pub(crate) fn merge(a: &Results, b: &Results) -> Results {
    let mut merged = a.clone();
    for f in &mut merged.figures {
        if let Some(g) = b.get(&f.id) {
            f.range = Some([f.value.min(g.value), f.value.max(g.value)]);
            f.value = (f.value * g.value).sqrt();
            if let (Some(x), Some(y)) = (f.bandwidth_gb_s, g.bandwidth_gb_s) {
                f.bandwidth_gb_s = Some([crate::figure::mean(x), crate::figure::mean(y)]);
            }
        }
    }
    merged
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::figure::What;
    use crate::figure::tests::figure;
    use crate::machine::Machine;

    fn results(figures: Vec<Figure>) -> Results {
        let mut r = Results::new(Machine::here());
        r.take("t", "r", figures);
        r
    }

    #[test]
    fn more_tokens_and_fewer_microseconds_are_better() {
        let new =
            results(vec![figure("d", What::Decode, 30.0), figure("k", What::Gemv, 5.0), figure("x", What::Load, 1.0)]);
        let mut slow = figure("d", What::Decode, 10.0);
        slow.bandwidth_gb_s = Some([20.0, 20.0]);
        let text = table(&new, &results(vec![slow, figure("k", What::Gemv, 10.0)]), "old");
        assert!(text.contains("| d | 30.0 tok/s | 10.0 tok/s | 3.00x | 1.50x |"), "{text}");
        assert!(text.contains("| k | 5.00 us | 10.0 us | 2.00x |  |"), "{text}");
        assert!(text.contains("2 figures in common; better by 2.45x"), "{text}");
        assert!(table(&new, &results(vec![]), "old").contains("nothing in common"));
    }

    #[test]
    fn rounds_are_merged_by_their_geometric_mean() {
        let merged =
            merge(&results(vec![figure("d", What::Decode, 4.0)]), &results(vec![figure("d", What::Decode, 9.0)]));
        assert_eq!((merged.figures[0].value, merged.figures[0].range), (6.0, Some([4.0, 9.0])));
    }
}
