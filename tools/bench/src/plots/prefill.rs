//! Prefill as bars, each with a mark where the dot-product instructions of its set end.

use plotters::prelude::*;

use super::{Canvas, DIM, Drawn, GRID, INK, colour, headed, is_ours, text, threads, tick};
use crate::figure::{Figure, Results, What};
use crate::report::{number, who};

/// Pixels of a bar with the gap below it.
const BAR: i32 = 22;
/// Gap between two subjects.
const GAP: i32 = 14;
/// Above the first bar and below the last one.
const FRAME: i32 = 80 + 44 + 24;

/// Bars in groups of one subject each: the best set first, then baselines.
fn groups(results: &Results) -> Vec<(String, Vec<&Figure>)> {
    let isas = &results.machine.isas;
    let mut figures: Vec<&Figure> =
        results.figures.iter().filter(|f| f.what == What::Prefill && f.value > 0.0).collect();
    let rank = |f: &Figure| isas.iter().rev().position(|isa| f.isa.as_ref() == Some(isa)).unwrap_or(usize::MAX);
    figures.sort_by(|a, b| (rank(a), &a.subject, a.threads, a.tokens).cmp(&(rank(b), &b.subject, b.threads, b.tokens)));
    let mut groups: Vec<(String, Vec<&Figure>)> = Vec::new();
    for f in figures {
        match groups.last_mut() {
            Some((name, group)) if *name == who(f) => group.push(f),
            _ => groups.push((who(f), vec![f])),
        }
    }
    groups
}

pub(super) fn has_any(results: &Results) -> bool {
    !groups(results).is_empty()
}

pub(super) fn size(results: &Results) -> (u32, u32) {
    let groups = groups(results);
    let bars: usize = groups.iter().map(|g| g.1.len()).sum();
    (920, (FRAME + BAR * bars as i32 + GAP * groups.len() as i32).max(200) as u32)
}

/// Tokens per second at which the dot-product instructions would be busy all the time.
fn limit(f: &Figure) -> Option<f64> {
    Some(f.peak()? * 1e9 / f.operations? as f64)
}

pub(super) fn draw(results: &Results, canvas: &Canvas<'_>) -> Drawn {
    let groups = groups(results);
    let area = headed(
        canvas,
        "Reading a prompt: how far from the multiplier's limit",
        "Tokens per second. The mark is the peak of the set's dot-product instructions, measured without loads; attention and the rest are in the time.",
    )?;
    let all = || groups.iter().flat_map(|g| &g.1);
    let most = all().map(|f| f.value.max(limit(f).unwrap_or(0.0))).fold(0.0, f64::max) * 1.12;
    let (left, right, top) = (190.0, 880.0, 16);
    let bottom = size(results).1 as i32 - 80 - 44;
    let x = |rate: f64| (left + (right - left) * rate / most) as i32;
    let step = nice_step(most / 7.0);
    for i in 0.. {
        let value = step * f64::from(i);
        if value > most {
            break;
        }
        area.draw(&PathElement::new(vec![(x(value), top), (x(value), bottom)], GRID.stroke_width(1)))?;
        let says = tick(value);
        let half = says.len() as i32 * 7 / 2;
        area.draw(&Text::new(says, (x(value) - half, bottom + 14), text(12, DIM)))?;
    }
    area.draw(&Text::new("tokens per second", (x(most) - 110, bottom + 32), text(13, INK)))?;
    let mut y = top + GAP / 2;
    for (name, group) in &groups {
        let middle = y + (BAR * group.len() as i32) / 2 - 3;
        area.draw(&Text::new(name.clone(), (24, middle), text(13, INK)))?;
        for f in group {
            let bar = [(x(0.0), y), (x(f.value).max(x(0.0) + 1), y + BAR - 6)];
            area.draw(&Rectangle::new(bar, colour(f).filled()))?;
            let share =
                f.peak_share().filter(|_| is_ours(f)).map(|s| format!(", {:.0} %", s * 100.0)).unwrap_or_default();
            let says = format!("{}{share}  ({} tokens, {})", number(f.value), f.tokens, threads(f.threads));
            let end = x(f.value) + 8;
            let width = super::labels::text_width(&says, 12) as i32;
            let mark = limit(f).map(x);
            if let Some(m) = mark {
                area.draw(&PathElement::new(vec![(m, y - 2), (m, y + BAR - 4)], INK.stroke_width(2)))?;
            }
            // Next to the bar, or next to the mark if the mark would cross the text, or within the bar if nothing else
            // is free.
            let crossed = mark.is_some_and(|m| m > end - 6 && m < end + width + 6);
            let at = match mark {
                Some(m) if crossed && m + 8 + width < 912 => (m + 8, INK),
                _ if end + width < 912 && !crossed => (end, INK),
                _ => (x(f.value) - width - 8, WHITE),
            };
            area.draw(&Text::new(says, (at.0, y + (BAR - 6) / 2), text(12, at.1)))?;
            y += BAR;
        }
        y += GAP;
    }
    Ok(())
}

/// 1, 2 or 5 times a power of ten, at least `least`.
fn nice_step(least: f64) -> f64 {
    let power = 10f64.powf(least.max(1e-9).log10().floor());
    [1.0, 2.0, 5.0, 10.0].map(|m| m * power).into_iter().find(|s| *s >= least).unwrap_or(least)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn steps_are_round() {
        assert_eq!([0.7, 3.0, 20.0, 51.0].map(nice_step), [1.0, 5.0, 20.0, 100.0]);
    }
}
