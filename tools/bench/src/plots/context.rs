//! Decode speed by context, next to the limit that the added keys and values set.

use plotters::prelude::*;

use super::{Canvas, DIM, Drawn, INK, axes, colour, headed, is_ours, text, thread_counts, threads};
use crate::figure::{Figure, Results, What};
use crate::report::{allowed, number};

/// Figures of the best set that was measured with a context, in the order of the context.
fn series(results: &Results, threads: usize) -> Vec<&Figure> {
    let decode = || results.figures.iter().filter(|f| f.what == What::Decode && is_ours(f) && f.threads == threads);
    let Some(isa) = decode().filter(|f| f.tokens > 0).map(|f| &f.isa).next() else { return Vec::new() };
    let mut figures: Vec<&Figure> = decode().filter(|f| f.isa == *isa).collect();
    figures.sort_by_key(|f| f.tokens);
    figures
}

pub(super) fn has_any(results: &Results) -> bool {
    thread_counts(results.figures.iter()).iter().any(|&t| series(results, t).len() > 1)
}

pub(super) fn draw(results: &Results, canvas: &Canvas<'_>) -> Drawn {
    let all: Vec<Vec<&Figure>> =
        thread_counts(results.figures.iter()).iter().map(|&t| series(results, t)).filter(|s| s.len() > 1).collect();
    let area = headed(
        canvas,
        "Decoding after a context",
        "Tokens per second by the number of tokens before. Dashed: the speed from an empty context times the ratio of the bytes, and of the bandwidths around the runs.",
    )?;
    let most = all.iter().flatten().map(|f| f.value).fold(0.0, f64::max) * 1.22;
    let longest = all.iter().flatten().map(|f| f.tokens).max().unwrap_or(1) as f64;
    let across = -0.02 * longest..longest * 1.02;
    let mut chart = axes(&area, 110, (across, "tokens before"), (0.0..most, "tokens per second", 0))?;
    for line in &all {
        let (first, colour) = (line[0], colour(line[0]));
        let points: Vec<(f64, f64)> = line.iter().map(|f| (f.tokens as f64, f.value)).collect();
        let limit: Vec<(f64, f64)> = line.iter().filter_map(|f| Some((f.tokens as f64, allowed(first, f)?))).collect();
        chart.draw_series(DashedLineSeries::new(limit, 6, 5, colour.stroke_width(1)))?;
        chart.draw_series(LineSeries::new(points.clone(), colour.stroke_width(3)))?;
        chart.draw_series(points.iter().map(|&p| Circle::new(p, 5, colour.filled())))?;
        let base = area.get_base_pixel();
        for (i, (f, &p)) in line.iter().zip(&points).enumerate() {
            let (x, y) = chart.backend_coord(&p);
            let (x, y) = (x - base.0, y - base.1);
            // Below the line: the dashed one is above it.
            area.draw(&Text::new(number(f.value), (x - if i == 0 { 4 } else { 24 }, y + 18), text(13, INK)))?;
            if i + 1 == line.len() {
                area.draw(&Text::new(threads(f.threads), (x + 14, y - 1), text(13, INK)))?;
                let share =
                    allowed(first, f).map(|a| format!("{:.0} % of allowed", 100.0 * f.value / a)).unwrap_or_default();
                area.draw(&Text::new(share, (x + 14, y + 17), text(12, DIM)))?;
            }
        }
    }
    Ok(())
}
