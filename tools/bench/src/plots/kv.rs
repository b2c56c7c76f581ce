//! Decode speed after a long context, as a share, for each type of keys and values.

use plotters::prelude::*;

use super::{Canvas, Drawn, INK, OTHERS, OURS, OURS_LIGHT, axes, headed, text, thread_counts, threads};
use crate::figure::{Figure, Results, What};
use crate::report::{ends, kv_types, number};

fn figures(results: &Results) -> Vec<&Figure> {
    results.figures.iter().filter(|f| f.what == What::KvDecode && f.value > 0.0).collect()
}

/// Type, threads, and both ends of a line.
fn lines<'a>(figures: &[&'a Figure]) -> Vec<(String, usize, [&'a Figure; 2])> {
    let mut lines = Vec::new();
    for t in thread_counts(figures.iter().copied()) {
        for kv in kv_types(figures) {
            lines.extend(ends(figures, &kv, t).map(|pair| (kv, t, pair)));
        }
    }
    lines
}

pub(super) fn has_any(results: &Results) -> bool {
    !lines(&figures(results)).is_empty()
}

pub(super) fn draw(results: &Results, canvas: &Canvas<'_>) -> Drawn {
    let figures = figures(results);
    let mut lines = lines(&figures);
    // From the top, so that labels that are moved down keep their order.
    lines.sort_by(|a, b| b.2[1].value.total_cmp(&a.2[1].value));
    let area = headed(
        canvas,
        "Keys and values in few bits",
        "Tokens per second from an empty context and after a long one; the share is what remains.",
    )?;
    let most = lines.iter().flat_map(|l| l.2).map(|f| f.value).fold(0.0, f64::max) * 1.15;
    let longest = lines.iter().flat_map(|l| l.2).map(|f| f.tokens).max().unwrap_or(1) as f64;
    let across = -0.02 * longest..longest * 1.02;
    let mut chart = axes(&area, 210, (across, "tokens before"), (0.0..most, "tokens per second", 0))?;
    let types = kv_types(&figures);
    let base = area.get_base_pixel();
    // Labels of one number of threads are moved apart where their lines end close to each other.
    let mut taken: Vec<i32> = Vec::new();
    for (kv, t, [short, long]) in &lines {
        let shades = [OTHERS, OURS_LIGHT, OURS];
        let colour = shades[types.iter().position(|k| k == kv).unwrap_or(0).min(shades.len() - 1)];
        let points = [(short.tokens as f64, short.value), (long.tokens as f64, long.value)];
        chart.draw_series(LineSeries::new(points, colour.stroke_width(3)))?;
        chart.draw_series(points.iter().map(|&p| Circle::new(p, 5, colour.filled())))?;
        let (x, y) = chart.backend_coord(&points[1]);
        let (x, mut y) = (x - base.0, y - base.1);
        while taken.iter().any(|at| (at - y).abs() < 16) {
            y += 4;
        }
        taken.push(y);
        let kept = 100.0 * long.value / short.value;
        let says = format!("{kv}, {}: {}, {kept:.0} %", threads(*t), number(long.value));
        area.draw(&Text::new(says, (x + 14, y), text(13, INK)))?;
    }
    Ok(())
}
