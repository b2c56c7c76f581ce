//! Bytes per token against tokens per second, both logarithmic: the bandwidth of the memory is a straight line that no
//! decoding can cross.

use plotters::prelude::*;

use super::labels::{Labels, text_width};
use super::{Canvas, DIM, Drawn, GRID, INK, bandwidth, colour, headed, text, thread_counts, threads, tick};
use crate::figure::{Figure, Results, What};
use crate::report::{number, who};

fn figures(results: &Results) -> Vec<&Figure> {
    let decode = results.figures.iter().filter(|f| f.what == What::Decode && f.bytes.is_some_and(|b| b > 0));
    // Contexts have a separate picture.
    decode.filter(|f| f.value > 0.0 && f.tokens == 0).collect()
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
        "Lines: the read bandwidth, median of all probes. Dash above a point: what the bandwidth around that very run allows; the share is of that.",
    )?;
    let fold = |values: &dyn Fn(&Figure) -> f64| {
        figures.iter().fold((f64::INFINITY, 0.0f64), |(low, high), f| (low.min(values(f)), high.max(values(f))))
    };
    let ((x0, x1), (y0, y1)) = (fold(&gb), fold(&|f| f.value));
    let limits = figures.iter().filter_map(|f| Some(f.value / f.bandwidth_share()?));
    let top = limits.fold(y1, f64::max);
    let (x0, x1, y0, y1) = (x0 / 3.4, x1 * 1.9, y0 / 1.6, top * 1.35);
    let mut chart = ChartBuilder::on(&area)
        .margin(8)
        .margin_right(24)
        .margin_left(16)
        .x_label_area_size(48)
        .y_label_area_size(56)
        .build_cartesian_2d((x0..x1).log_scale(), (y0..y1).log_scale())?;
    chart
        .configure_mesh()
        .disable_mesh()
        .axis_style(DIM)
        .axis_desc_style(text(13, INK))
        .x_desc("gigabytes that a token reads")
        .y_desc("tokens per second")
        .set_all_tick_mark_size(0)
        .x_label_formatter(&|_| String::new())
        .y_label_formatter(&|_| String::new())
        .draw()?;

    let (across, down) =
        (chart.plotting_area().get_x_axis_pixel_range(), chart.plotting_area().get_y_axis_pixel_range());
    let (right, top) = (across.end, down.start);
    let mut labels = Labels::within([across.start, top, right, down.end].map(f64::from));
    let base = area.get_base_pixel();
    let points: Vec<(i32, i32)> = figures.iter().map(|f| chart.backend_coord(&(gb(f), f.value))).collect();
    for &p in &points {
        labels.point(p, 6);
    }
    // The library's own marks leave too much out on a logarithmic axis.
    for x in marks(x0, x1) {
        chart.draw_series([PathElement::new(vec![(x, y0), (x, y1)], GRID.stroke_width(1))])?;
        let (says, (px, py)) = (tick(x), chart.backend_coord(&(x, y0)));
        let half = text_width(&says, 12) as i32 / 2;
        area.draw(&Text::new(says, (px - base.0 - half, py - base.1 + 14), text(12, DIM)))?;
    }
    for y in marks(y0, y1) {
        chart.draw_series([PathElement::new(vec![(x0, y), (x1, y)], GRID.stroke_width(1))])?;
        let (says, (px, py)) = (tick(y), chart.backend_coord(&(x0, y)));
        let width = text_width(&says, 12) as i32;
        area.draw(&Text::new(says, (px - base.0 - width - 8, py - base.1), text(12, DIM)))?;
    }
    let mut texts: Vec<(String, (i32, i32), TextStyle<'_>)> = Vec::new();
    for &t in &counts {
        let Some(bandwidth) = bandwidth(results, t) else { continue };
        // From edge to edge of the picture: the library does not clip, and a line needs only its two ends.
        let (from, to) = ((bandwidth / y1).max(x0), (bandwidth / y0).min(x1));
        let line = |x: f64| (x, bandwidth / x);
        chart.draw_series([PathElement::new(vec![line(from), line(to)], DIM.stroke_width(1))])?;
        for i in 0..=80 {
            labels.line(chart.backend_coord(&line(from * (to / from).powf(f64::from(i) / 80.0))));
        }
        // The name at the upper end, outside the area that the lines enclose.
        let p = chart.backend_coord(&line(from * 1.05));
        let says = format!("{} GB/s, {}", number(bandwidth), threads(t));
        let left = p.0 - 12 - text_width(&says, 12) as i32;
        let at = (if t == counts[0] && left >= 0 { left } else { p.0 + 14 }, p.1);
        texts.push((says, at, text(12, DIM)));
    }
    // The limit of each point by the bandwidth around its run.
    for f in &figures {
        let Some(limit) = f.bandwidth_share().map(|s| f.value / s).filter(|l| (y0..y1).contains(l)) else { continue };
        let thin = colour(f).stroke_width(1);
        chart.draw_series([PathElement::new(vec![(gb(f), f.value), (gb(f), limit)], thin)])?;
        let (x, y) = chart.backend_coord(&(gb(f), limit));
        let (_, from) = chart.backend_coord(&(gb(f), f.value));
        (y..from).step_by(6).for_each(|y| labels.line((x, y)));
        let (x, y) = (x - base.0, y - base.1);
        area.draw(&PathElement::new(vec![(x - 6, y), (x + 6, y)], colour(f).stroke_width(2)))?;
    }
    for (f, &p) in figures.iter().zip(&points) {
        let share = f.bandwidth_share().map_or(String::new(), |s| format!(", {:.0} %", s * 100.0));
        let says = format!("{}: {}{share}", who(f), number(f.value));
        let at = labels.place(&says, 12, p);
        texts.push((says, at, text(12, INK)));
    }
    chart.draw_series(figures.iter().map(|f| Circle::new((gb(f), f.value), 5, colour(f).filled())))?;
    chart.draw_series(figures.iter().map(|f| Circle::new((gb(f), f.value), 5, WHITE.stroke_width(1))))?;
    for (says, (x, y), style) in texts {
        area.draw(&Text::new(says, (x - base.0, y - base.1), style))?;
    }
    legend(&area, &figures, (right - base.0 - 12, top - base.1 + 14))
}

/// 1, 2 and 5 times powers of ten between `low` and `high`.
fn marks(low: f64, high: f64) -> Vec<f64> {
    let powers = (low.log10().floor() as i32)..=(high.log10().ceil() as i32);
    let all = powers.flat_map(|p| [1.0, 2.0, 5.0].map(|m| m * 10f64.powi(p)));
    all.filter(|m| (low..high).contains(m)).collect()
}

/// The colours and their subjects, ending at `right`.
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn marks_are_round_and_inside() {
        assert_eq!(marks(0.7, 21.0), [1.0, 2.0, 5.0, 10.0, 20.0]);
    }
}
