//! Bytes per token against tokens per second, both logarithmic: the bandwidth of the memory is a straight line that no
//! decoding can cross.

use plotters::prelude::*;

use super::labels::Labels;
use super::{Canvas, DIM, Drawn, GRID, INK, bandwidths, colour, headed, text, thread_counts, threads, tick};
use crate::figure::{Figure, Results, What};
use crate::report::{number, who};

fn figures(results: &Results) -> Vec<&Figure> {
    let decode = results.figures.iter().filter(|f| f.what == What::Decode && f.bytes.is_some_and(|b| b > 0));
    decode.filter(|f| f.value > 0.0).collect()
}

pub(super) fn has_any(results: &Results) -> bool {
    !figures(results).is_empty()
}

/// Gigabytes of a token.
fn gb(f: &Figure) -> f64 {
    f.bytes.unwrap_or_default() as f64 / 1e9
}

pub(super) fn draw(results: &Results, canvas: &Canvas<'_>) -> Drawn {
    let figures = figures(results);
    let counts = thread_counts(figures.iter().copied());
    let area = headed(
        canvas,
        "Decoding: how far from the memory's limit",
        "Upper right is better. A line is the bandwidth probed around each run (a band where it varied); no token can come faster than its bytes.",
    )?;
    let fold = |values: &dyn Fn(&Figure) -> f64| {
        figures.iter().fold((f64::INFINITY, 0.0f64), |(low, high), f| (low.min(values(f)), high.max(values(f))))
    };
    let ((x0, x1), (y0, y1)) = (fold(&gb), fold(&|f| f.value));
    let top = counts.iter().filter_map(|&t| Some(bandwidths(results, t)?[1] / x0)).fold(y1, f64::max);
    let (x0, x1, y0, y1) = (x0 / 1.6, x1 * 1.6, y0 / 1.7, top * 1.25);
    let mut chart = ChartBuilder::on(&area)
        .margin(8)
        .margin_right(24)
        .margin_left(16)
        .x_label_area_size(48)
        .y_label_area_size(56)
        .build_cartesian_2d((x0..x1).log_scale(), (y0..y1).log_scale())?;
    chart
        .configure_mesh()
        .bold_line_style(GRID)
        .light_line_style(TRANSPARENT)
        .axis_style(DIM)
        .label_style(text(12, DIM))
        .axis_desc_style(text(13, INK))
        .x_desc("gigabytes that a token reads")
        .y_desc("tokens per second")
        .x_label_formatter(&|v| tick(*v))
        .y_label_formatter(&|v| tick(*v))
        .draw()?;

    let (across, down) = (chart.plotting_area().get_x_axis_pixel_range(), chart.plotting_area().get_y_axis_pixel_range());
    let (right, top) = (across.end, down.start);
    let mut labels = Labels::within([across.start, top, right, down.end].map(f64::from));
    let base = area.get_base_pixel();
    let points: Vec<(i32, i32)> = figures.iter().map(|f| chart.backend_coord(&(gb(f), f.value))).collect();
    for &p in &points {
        labels.point(p, 6);
    }
    let mut texts: Vec<(String, (i32, i32), TextStyle<'_>)> = Vec::new();
    for &t in &counts {
        let Some([low, high]) = bandwidths(results, t) else { continue };
        let shade = if t == 1 { 0.10 } else { 0.16 };
        // Clipped to the picture by hand: a polygon is not clipped by the library.
        let at = |x: f64, bandwidth: f64| (x, (bandwidth / x).clamp(y0, y1));
        let steps = 64;
        let xs = (0..=steps).map(|i| x0 * (x1 / x0).powf(f64::from(i) / f64::from(steps)));
        let xs: Vec<f64> = xs.collect();
        let upper = xs.iter().map(|&x| at(x, high));
        let lower = xs.iter().rev().map(|&x| at(x, low));
        chart.draw_series([Polygon::new(upper.chain(lower).collect::<Vec<_>>(), DIM.mix(shade))])?;
        chart.draw_series([PathElement::new(xs.iter().map(|&x| at(x, high)).collect::<Vec<_>>(), DIM.stroke_width(1))])?;
        // The name of the line where it is free: near its right end.
        let x = x1 / 1.9;
        let says = format!("{} GB/s, {}", number(high), threads(t));
        let p = chart.backend_coord(&(x, (high / x).clamp(y0, y1)));
        let at = labels.place(&says, 12, (p.0 + 2, p.1 - 12));
        texts.push((says, at, text(12, DIM)));
    }
    for (f, &p) in figures.iter().zip(&points) {
        let says = if f.tokens > 0 { format!("after {}", f.tokens) } else { format!("{}, {}", who(f), number(f.value)) };
        let at = labels.place(&says, 12, p);
        texts.push((says, at, text(12, if f.tokens > 0 { DIM } else { INK })));
    }
    chart.draw_series(figures.iter().map(|f| Circle::new((gb(f), f.value), 5, colour(f).filled())))?;
    chart.draw_series(figures.iter().map(|f| Circle::new((gb(f), f.value), 5, WHITE.stroke_width(1))))?;
    for (says, (x, y), style) in texts {
        area.draw(&Text::new(says, (x - base.0, y - base.1), style))?;
    }
    legend(&area, &figures, (right - base.0 - 12, top - base.1 + 14))
}

/// Who has which colour, ending at `right`.
fn legend(area: &Canvas<'_>, figures: &[&Figure], (right, top): (i32, i32)) -> Drawn {
    let mut seen: Vec<(String, RGBColor)> = Vec::new();
    for f in figures {
        let name = format!("{}, {}", if super::is_ours(f) { "bitnet" } else { "candle" }, threads(f.threads));
        if !seen.iter().any(|(n, _)| *n == name) {
            seen.push((name, colour(f)));
        }
    }
    seen.sort_by(|a, b| a.0.cmp(&b.0));
    for (i, (name, colour)) in seen.into_iter().enumerate() {
        let y = top + 20 * i as i32;
        area.draw(&Circle::new((right - 140, y), 5, colour.filled()))?;
        area.draw(&Text::new(name, (right - 126, y), text(12, INK)))?;
    }
    Ok(())
}
