//! Pictures as SVG: curves over one axis, matrices of confusions, bars.

mod bars;
mod matrix;

use std::error::Error;
use std::fmt::{Display, Formatter};
use std::ops::Range;

use plotters::coord::Shift;
use plotters::coord::ranged1d::{DefaultFormatting, KeyPointHint, Ranged};
use plotters::coord::types::RangedCoordf64;
use plotters::prelude::*;
use plotters::style::text_anchor::{HPos, Pos, VPos};

pub use bars::{Bar, bars_svg};
pub use matrix::matrix_svg;

/// A curve with its entry in the legend.
#[derive(Clone, Debug, PartialEq)]
pub struct Curve {
    /// Name in the legend.
    pub name: String,
    /// In ascending order of the first number. Points that are not finite are left out.
    pub points: Vec<(f64, f64)>,
    /// Whether it is a comparison, drawn dashed.
    pub dashed: bool,
    /// Index into the palette; curves of one number have one colour.
    pub colour: usize,
}

/// Title and axes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Frame<'a> {
    /// Title of the picture.
    pub title: &'a str,
    /// Name of the horizontal axis.
    pub x: &'a str,
    /// Name of the vertical axis.
    pub y: &'a str,
    /// Whether distances on the horizontal axis are ratios; values below 1 then count as 1.
    pub log_x: bool,
}

/// The drawing library failed; its message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PlotError(String);

impl Display for PlotError {
    fn fmt(&self, f: &mut Formatter<'_>) -> std::fmt::Result {
        write!(f, "the picture cannot be drawn: {}", self.0)
    }
}

impl Error for PlotError {}

const SIZE: (u32, u32) = (860, 420);
/// Pixels at the right for the legend.
const LEGEND: u32 = 230;
const FONT: &str = "Helvetica, Arial, sans-serif";
const INK: RGBColor = RGBColor(0x22, 0x2b, 0x38);
const GRID: RGBColor = RGBColor(0xdd, 0xdd, 0xdd);
/// Colours that colour-blind readers can distinguish (Okabe and Ito).
const PALETTE: [RGBColor; 8] = [
    RGBColor(0x00, 0x72, 0xb2),
    RGBColor(0xd5, 0x5e, 0x00),
    RGBColor(0x00, 0x9e, 0x73),
    RGBColor(0xcc, 0x79, 0xa7),
    RGBColor(0x56, 0xb4, 0xe9),
    RGBColor(0xe6, 0x9f, 0x00),
    RGBColor(0x55, 0x55, 0x55),
    RGBColor(0x00, 0x00, 0x00),
];

/// Draws `curves` with a legend at their right.
///
/// # Errors
/// If the drawing library fails.
pub fn svg(frame: &Frame<'_>, curves: &[Curve]) -> Result<String, PlotError> {
    let mut svg = String::new();
    draw(frame, curves, &SVGBackend::with_string(&mut svg, SIZE).into_drawing_area())
        .map_err(|e| PlotError(e.to_string()))?;
    Ok(svg)
}

/// The range of `values`, widened by `share` of it at both ends; never empty.
fn range(values: impl Iterator<Item = f64>, share: f64) -> Range<f64> {
    let (low, high) = values.fold((f64::INFINITY, f64::NEG_INFINITY), |(l, h), v| (l.min(v), h.max(v)));
    let margin = share * (high - low);
    match (low < high, low.is_finite()) {
        (true, _) => low - margin..high + margin,
        (false, true) => low - 0.5..low + 0.5,
        (false, false) => 0.0..1.0,
    }
}

/// An axis with its own ticks.
struct Axis {
    coordinates: RangedCoordf64,
    ticks: Vec<f64>,
}

impl Ranged for Axis {
    type FormatOption = DefaultFormatting;
    type ValueType = f64;

    fn map(&self, value: &f64, limit: (i32, i32)) -> i32 {
        self.coordinates.map(value, limit)
    }

    fn key_points<H: KeyPointHint>(&self, hint: H) -> Vec<f64> {
        if hint.weight().allow_light_points() { Vec::new() } else { self.ticks.clone() }
    }

    fn range(&self) -> Range<f64> {
        self.coordinates.range()
    }
}

fn label(size: u32) -> TextStyle<'static> {
    let style = TextStyle::from((FONT, size).into_font()).pos(Pos::new(HPos::Left, VPos::Center));
    TextStyle { color: INK.to_backend_color(), ..style }
}

/// A name that is not too long, with a mark where something is missing.
fn short(name: &str, most: usize) -> String {
    match name.char_indices().nth(most) {
        Some((end, _)) => format!("{}…", &name[..end]),
        None => name.to_owned(),
    }
}

/// About how many pixels wide a text is; the width of letters is not known here.
fn width(text: &str, size: u32) -> i32 {
    let em = |c: char| if c < '\u{2e80}' { 0.52 } else { 0.85 };
    (text.chars().map(em).sum::<f64>() * f64::from(size)).ceil() as i32
}

/// A number without rounding noise.
fn number(value: f64) -> String {
    ((value * 1e6).round() / 1e6).to_string()
}

fn draw(
    frame: &Frame<'_>,
    curves: &[Curve],
    canvas: &DrawingArea<SVGBackend<'_>, Shift>,
) -> Result<(), Box<dyn Error>> {
    let across = |x: f64| if frame.log_x { x.max(1.0).ln() } else { x };
    let finite = |c: &Curve| -> Vec<(f64, f64)> {
        c.points.iter().filter(|p| p.0.is_finite() && p.1.is_finite()).map(|p| (across(p.0), p.1)).collect()
    };
    let lines: Vec<Vec<(f64, f64)>> = curves.iter().map(finite).collect();
    let all = || lines.iter().flatten();
    let (x, y) = (range(all().map(|p| p.0), 0.0), range(all().map(|p| p.1), 0.05));
    let mut ticks: Vec<f64> = match frame.log_x {
        true => all().map(|p| p.0).collect(),
        false => RangedCoordf64::from(x.clone()).key_points(8),
    };
    ticks.sort_by(f64::total_cmp);
    ticks.dedup();

    canvas.fill(&WHITE)?;
    canvas.draw(&Text::new(frame.title.to_owned(), (72, 20), label(16)))?;
    let mut chart = ChartBuilder::on(canvas)
        .margin(8)
        .margin_top(36)
        .margin_left(16)
        .margin_right(LEGEND)
        .x_label_area_size(48)
        .y_label_area_size(56)
        .build_cartesian_2d(Axis { coordinates: x.into(), ticks }, y)?;
    chart
        .configure_mesh()
        .disable_x_mesh()
        .bold_line_style(GRID)
        .light_line_style(TRANSPARENT)
        .axis_style(INK)
        .label_style(label(12))
        .axis_desc_style(label(13))
        .x_desc(frame.x)
        .y_desc(frame.y)
        .x_label_formatter(&|x| if frame.log_x { format!("{:.0}", x.exp()) } else { number(*x) })
        .y_label_formatter(&|y| number(*y))
        .draw()?;
    let right = chart.plotting_area().get_x_axis_pixel_range().end;
    for (i, (curve, line)) in curves.iter().zip(lines).enumerate() {
        let style = PALETTE[curve.colour % PALETTE.len()].stroke_width(2);
        let row = 48 + 18 * i as i32;
        let sample = vec![(right + 12, row), (right + 38, row)];
        if curve.dashed {
            chart.draw_series(DashedLineSeries::new(line, 6, 4, style))?;
            for x in [right + 12, right + 22, right + 32] {
                canvas.draw(&PathElement::new(vec![(x, row), (x + 6, row)], style))?;
            }
        } else {
            chart.draw_series(LineSeries::new(line, style))?;
            canvas.draw(&PathElement::new(sample, style))?;
        }
        canvas.draw(&Text::new(curve.name.clone(), (right + 44, row), label(12)))?;
    }
    canvas.present()?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn curve(name: &str, points: &[(f64, f64)], dashed: bool) -> Curve {
        Curve { name: name.into(), points: points.to_vec(), dashed, colour: 1 }
    }

    #[test]
    fn every_curve_is_drawn_and_named() {
        let frame = Frame { title: "Loss", x: "steps", y: "nats", log_x: false };
        let curves =
            [curve("training", &[(0.0, 4.0), (9.0, 2.0)], false), curve("a < b", &[(0.0, 3.0), (9.0, 3.0)], true)];
        let picture = svg(&frame, &curves).unwrap();
        assert!(picture.starts_with("<svg") && picture.trim_end().ends_with("</svg>"));
        for words in ["Loss", "steps", "nats", "training", "a &lt; b", "#D55E00"] {
            assert!(picture.contains(words), "{words}: {picture}");
        }
        assert!(!picture.contains("NaN") && !picture.contains("inf"));
    }

    #[test]
    fn odd_points_do_no_harm() {
        let frame = Frame { title: "t", x: "x", y: "y", log_x: true };
        let odd = [(0.0, 1.0), (f64::NAN, 2.0), (8.0, f64::INFINITY), (16.0, 1.0)];
        for points in [&odd[..], &odd[..1], &[]] {
            let picture = svg(&frame, &[curve("c", points, false)]).unwrap();
            assert!(picture.trim_end().ends_with("</svg>") && !picture.contains("NaN"), "{points:?}");
        }
        assert!(svg(&frame, &[]).unwrap().contains("<svg"));
    }

    #[test]
    fn ranges_are_never_empty() {
        assert_eq!(range([1.0, 3.0].into_iter(), 0.5), 0.0..4.0);
        assert_eq!(range([2.0].into_iter(), 0.5), 1.5..2.5);
        assert_eq!(range([].into_iter(), 0.5), 0.0..1.0);
    }
}
