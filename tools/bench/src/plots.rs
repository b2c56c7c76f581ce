//! Pictures of the figures, as SVG.

mod context;
mod growth;
mod kv;
mod labels;
mod prefill;
mod roofline;

use std::ops::Range;
use std::path::Path;

use measure::Samples;
use plotters::chart::MeshStyle;
use plotters::coord::Shift;
use plotters::coord::types::RangedCoordf64;
use plotters::prelude::*;
use plotters::style::text_anchor::{HPos, Pos, VPos};

use crate::error::BenchError;
use crate::figure::{Figure, Results};

/// A canvas of SVG text.
pub(crate) type Canvas<'a> = DrawingArea<SVGBackend<'a>, Shift>;
/// The area between [`axes`].
type Chart<'a> = ChartContext<'a, SVGBackend<'a>, Cartesian2d<RangedCoordf64, RangedCoordf64>>;
/// Result of the drawing library.
pub(crate) type Drawn = Result<(), Box<dyn std::error::Error>>;
/// Draws one picture.
type Draw = fn(&Results, &Canvas<'_>) -> Drawn;

pub(crate) const INK: RGBColor = RGBColor(0x22, 0x2b, 0x38);
pub(crate) const DIM: RGBColor = RGBColor(0x6b, 0x76, 0x85);
pub(crate) const GRID: RGBColor = RGBColor(0xe7, 0xea, 0xee);
/// This project's figures: deep with all threads, light with one.
pub(crate) const OURS: RGBColor = RGBColor(0x1c, 0x5f, 0xb8);
pub(crate) const OURS_LIGHT: RGBColor = RGBColor(0x7f, 0xb2, 0xec);
/// Baselines, likewise.
pub(crate) const OTHERS: RGBColor = RGBColor(0xc9, 0x6a, 0x12);
pub(crate) const OTHERS_LIGHT: RGBColor = RGBColor(0xf0, 0xb9, 0x7c);
const FONT: &str = "Helvetica, Arial, sans-serif";

/// The file of a picture: `NAME-roofline.svg`.
pub(crate) fn file_name(name: &str, which: &str) -> String {
    format!("{name}-{which}.svg")
}

/// Draws every picture for which there are figures, and returns the file names.
///
/// # Errors
/// If one cannot be drawn or written.
pub(crate) fn draw_all(results: &Results, folder: &Path, name: &str) -> Result<Vec<String>, BenchError> {
    let pictures: [(&str, (u32, u32), bool, Draw); 5] = [
        ("roofline", (920, 600), roofline::has_any(results), roofline::draw),
        ("prefill", prefill::size(results), prefill::has_any(results), prefill::draw),
        ("context", (920, 480), context::has_any(results), context::draw),
        ("kv", (920, 480), kv::has_any(results), kv::draw),
        ("growth", (920, 480), growth::has_any(results), growth::draw),
    ];
    let mut files = Vec::new();
    for (which, size, wanted, draw) in pictures {
        if !wanted {
            continue;
        }
        let file = file_name(name, which);
        let svg = svg(size, |canvas| draw(results, canvas))
            .map_err(|e| BenchError::Picture { picture: file.clone(), problem: e.to_string() })?;
        let path = folder.join(&file);
        std::fs::write(&path, svg).map_err(BenchError::io(&path))?;
        files.push(file);
    }
    Ok(files)
}

/// A picture as SVG.
pub(crate) fn svg(
    size: (u32, u32),
    draw: impl FnOnce(&Canvas<'_>) -> Drawn,
) -> Result<String, Box<dyn std::error::Error>> {
    let mut svg = String::new();
    {
        let canvas = SVGBackend::with_string(&mut svg, size).into_drawing_area();
        canvas.fill(&WHITE)?;
        draw(&canvas)?;
        canvas.present()?;
    }
    Ok(svg)
}

/// Text of a size and colour, its anchor to the left of it and at half its height.
pub(crate) fn text(size: u32, colour: RGBColor) -> TextStyle<'static> {
    let style = TextStyle::from((FONT, size).into_font()).pos(Pos::new(HPos::Left, VPos::Center));
    TextStyle { color: colour.to_backend_color(), ..style }
}

/// Draws a headline and its explanation below; returns the rest of the canvas.
pub(crate) fn headed<'a>(
    canvas: &Canvas<'a>,
    title: &str,
    subtitle: &str,
) -> Result<Canvas<'a>, Box<dyn std::error::Error>> {
    let title_style = TextStyle::from((FONT, 20, FontStyle::Bold).into_font()).color(&INK);
    canvas.draw(&Text::new(title.to_owned(), (24, 18), title_style.pos(Pos::new(HPos::Left, VPos::Top))))?;
    canvas.draw(&Text::new(subtitle.to_owned(), (24, 58), text(13, DIM)))?;
    Ok(canvas.split_vertically(80).1)
}

/// Quiet lines across, and letters as everywhere.
fn plain<'m, 'a, 'b, 'c, X: Ranged, Y: Ranged>(
    mesh: &'m mut MeshStyle<'a, 'b, X, Y, SVGBackend<'c>>,
) -> &'m mut MeshStyle<'a, 'b, X, Y, SVGBackend<'c>> {
    mesh.disable_x_mesh()
        .bold_line_style(GRID)
        .light_line_style(TRANSPARENT)
        .axis_style(DIM)
        .label_style(text(12, DIM))
        .axis_desc_style(text(13, INK))
}

/// Linear axes from left to right and from below upwards, with room for labels at the ends of lines; numbers of the
/// upright axis with `digits` after the point.
pub(crate) fn axes<'a>(
    area: &Canvas<'a>,
    margin_right: u32,
    (x, x_says): (Range<f64>, &str),
    (y, y_says, digits): (Range<f64>, &str, usize),
) -> Result<Chart<'a>, Box<dyn std::error::Error>> {
    let mut chart = ChartBuilder::on(area)
        .margin(8)
        .margin_right(margin_right)
        .margin_left(16)
        .x_label_area_size(48)
        .y_label_area_size(56)
        .build_cartesian_2d(x, y)?;
    plain(&mut chart.configure_mesh())
        .x_desc(x_says)
        .y_desc(y_says)
        .x_label_formatter(&|v| format!("{v:.0}"))
        .y_label_formatter(&|v| format!("{v:.digits$}"))
        .draw()?;
    Ok(chart)
}

/// Whether a figure is ours and not a baseline.
fn is_ours(f: &Figure) -> bool {
    f.subject == "bitnet"
}

/// A colour for the program of a figure and for one thread or several.
fn colour(f: &Figure) -> RGBColor {
    match (is_ours(f), f.threads) {
        (true, 1) => OURS_LIGHT,
        (true, _) => OURS,
        (false, 1) => OTHERS_LIGHT,
        (false, _) => OTHERS,
    }
}

/// `1 thread`, `2 threads`.
fn threads(n: usize) -> String {
    if n == 1 { "1 thread".to_owned() } else { format!("{n} threads") }
}

/// Numbers of threads that occur, fewest first.
fn thread_counts<'a>(figures: impl Iterator<Item = &'a Figure>) -> Vec<usize> {
    let mut counts: Vec<usize> = figures.map(|f| f.threads).collect();
    counts.sort_unstable();
    counts.dedup();
    counts
}

/// The median of the bandwidths that were measured with `threads` threads, in GB/s.
fn bandwidth(results: &Results, threads: usize) -> Option<f64> {
    let with = results.figures.iter().filter(|f| f.threads == threads);
    let all: Samples = with.filter_map(|f| f.bandwidth_gb_s).flatten().collect();
    Some(all.median()).filter(|b| *b > 0.0)
}

/// A tick label without needless digits.
fn tick(value: f64) -> String {
    if value > 0.0 && value < 1.0 { format!("{value:.1}") } else { format!("{value:.0}") }
}
