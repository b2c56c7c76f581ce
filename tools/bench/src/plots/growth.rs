//! Memory of a session and time of a token by context, for test-time training and attention.

use plotters::prelude::*;

use super::{Canvas, Drawn, INK, OTHERS, OURS, headed, plain, text};
use crate::figure::{Figure, Results, What};
use crate::report::number;

fn series<'a>(results: &'a Results, what: What, subject: &str) -> Vec<&'a Figure> {
    let mut figures: Vec<&Figure> = results.figures.iter().filter(|f| f.what == what && f.subject == subject).collect();
    figures.sort_by_key(|f| f.tokens);
    figures
}

pub(super) fn has_any(results: &Results) -> bool {
    series(results, What::TokenTime, "TTT-Linear").len() > 1
}

/// `16k`, `1M`.
fn short(tokens: f64) -> String {
    match tokens {
        t if t >= (1 << 20) as f64 => format!("{:.0}M", t / (1 << 20) as f64),
        t => format!("{:.0}k", t / 1024.0),
    }
}

pub(super) fn draw(results: &Results, canvas: &Canvas<'_>) -> Drawn {
    let area = headed(
        canvas,
        "After a long text",
        "Memory of a session in KiB, and microseconds for the next token, by the number of tokens before; both axes in ratios.",
    )?;
    let (left, right) = area.split_horizontally(50.percent_width());
    for (area, what, label) in [(left, What::SessionMemory, "KiB"), (right, What::TokenTime, "us per token")] {
        let both = ["TTT-Linear", "attention"].map(|s| (s, series(results, what, s)));
        let values = || both.iter().flat_map(|(_, f)| f).map(|f| f.value);
        let (low, high) = values().fold((f64::MAX, 0.0f64), |(l, h), v| (l.min(v), h.max(v)));
        let all = || both.iter().flat_map(|(_, f)| f).map(|f| f.tokens as f64);
        let (first, last) = all().fold((f64::MAX, 0.0f64), |(l, h), v| (l.min(v), h.max(v)));
        let mut chart = ChartBuilder::on(&area)
            .margin(8)
            .margin_right(28)
            .x_label_area_size(48)
            .y_label_area_size(72)
            .build_cartesian_2d((first * 0.8..last * 1.25).log_scale(), (low / 2.0..high * 3.0).log_scale())?;
        plain(&mut chart.configure_mesh())
            .x_desc("tokens before")
            .y_desc(label)
            .x_labels(6)
            .x_label_formatter(&|v| short(*v))
            .y_label_formatter(&|v| number(*v))
            .draw()?;
        for ((name, figures), colour) in both.iter().zip([OURS, OTHERS]) {
            let points: Vec<(f64, f64)> = figures.iter().map(|f| (f.tokens as f64, f.value)).collect();
            chart.draw_series(LineSeries::new(points.clone(), colour.stroke_width(3)))?;
            chart.draw_series(points.iter().map(|&p| Circle::new(p, 5, colour.filled())))?;
            let base = area.get_base_pixel();
            for (i, p) in points.iter().enumerate() {
                let (x, y) = chart.backend_coord(p);
                let (x, y) = (x - base.0, y - base.1);
                let says = if i == 0 { format!("{name}: {}", number(p.1)) } else { number(p.1) };
                let (dx, dy) = if *name == "attention" { (-20, -16) } else { (-10, 18) };
                area.draw(&Text::new(says, ((x + dx).max(76), y + dy), text(12, INK)))?;
            }
        }
    }
    Ok(())
}
