//! Curves as an SVG, for the examples that show something.
#![allow(dead_code, reason = "each example uses a part")]

use std::fmt::Write;

/// One curve.
pub(crate) struct Curve {
    /// What it is.
    pub(crate) name: String,
    /// In ascending order of the first number.
    pub(crate) points: Vec<(f64, f64)>,
    /// Whether it is a comparison, drawn dashed.
    pub(crate) dashed: bool,
    /// Curves of the same number have the same colour.
    pub(crate) colour: usize,
}

/// What stands around the curves.
pub(crate) struct Frame<'a> {
    pub(crate) title: &'a str,
    pub(crate) x: &'a str,
    pub(crate) y: &'a str,
    /// Whether distances on the x axis are ratios.
    pub(crate) log_x: bool,
}

/// Colours that stay apart for those who see few.
const COLOURS: [&str; 8] = ["#0072b2", "#d55e00", "#009e73", "#cc79a7", "#56b4e9", "#e69f00", "#555555", "#000000"];
const LEFT: f64 = 70.0;
const RIGHT: f64 = 620.0;
const TOP: f64 = 40.0;
const BOTTOM: f64 = 360.0;

/// Steps of an axis from `low` to `high`: about six, with few digits.
fn ticks(low: f64, high: f64) -> Vec<f64> {
    let rough = (high - low) / 6.0;
    let unit = 10f64.powf(rough.log10().floor());
    let step = [1.0, 2.0, 5.0, 10.0].map(|m| m * unit).into_iter().find(|s| *s >= rough).unwrap_or(10.0 * unit);
    let first = (low / step).ceil();
    (0..20).map(|i| (first + f64::from(i)) * step).take_while(|t| *t <= high + step * 1e-9).collect()
}

/// The picture.
pub(crate) fn svg(frame: &Frame<'_>, curves: &[Curve]) -> String {
    let all = || curves.iter().flat_map(|c| &c.points);
    let across = |x: f64| if frame.log_x { x.max(1.0).ln() } else { x };
    let range = |values: &mut dyn Iterator<Item = f64>| {
        let (low, high) = values.fold((f64::MAX, f64::MIN), |(l, h), v| (l.min(v), h.max(v)));
        if low < high { (low, high) } else { (low.min(1e9) - 0.5, low.min(1e9) + 0.5) }
    };
    let (x0, x1) = range(&mut all().map(|p| across(p.0)));
    let (y0, y1) = range(&mut all().map(|p| p.1));
    let (y0, y1) = (y0 - 0.05 * (y1 - y0), y1 + 0.05 * (y1 - y0));
    let place = |x: f64, y: f64| {
        (LEFT + (RIGHT - LEFT) * (across(x) - x0) / (x1 - x0), BOTTOM - (BOTTOM - TOP) * (y - y0) / (y1 - y0))
    };
    let mut out = String::from(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"860\" height=\"420\" font-family=\"sans-serif\" font-size=\"12\">\n\
         <rect width=\"860\" height=\"420\" fill=\"white\"/>\n",
    );
    let _ = writeln!(out, "<text x=\"{LEFT}\" y=\"22\" font-size=\"15\">{}</text>", frame.title);
    for y in ticks(y0, y1) {
        let at = place(if frame.log_x { x0.exp() } else { x0 }, y).1;
        let _ = writeln!(
            out,
            "<path d=\"M{LEFT} {at:.1}H{RIGHT}\" stroke=\"#ddd\"/><text x=\"{}\" y=\"{:.1}\" text-anchor=\"end\">{}</text>",
            LEFT - 8.0,
            at + 4.0,
            (y * 1e6).round() / 1e6
        );
    }
    let columns = match frame.log_x {
        true => all()
            .map(|p| p.0.round() as u64)
            .collect::<std::collections::BTreeSet<_>>()
            .into_iter()
            .map(|x| x as f64)
            .collect(),
        false => ticks(x0, x1),
    };
    for x in columns {
        let at = place(x, y0).0;
        let _ = writeln!(
            out,
            "<path d=\"M{at:.1} {BOTTOM}v5\" stroke=\"#555\"/><text x=\"{at:.1}\" y=\"{}\" text-anchor=\"middle\">{x}</text>",
            BOTTOM + 19.0
        );
    }
    let _ = writeln!(
        out,
        "<text x=\"{}\" y=\"{}\" text-anchor=\"middle\">{}</text>\n\
         <text transform=\"translate(18 {}) rotate(-90)\" text-anchor=\"middle\">{}</text>",
        (LEFT + RIGHT) / 2.0,
        BOTTOM + 42.0,
        frame.x,
        (TOP + BOTTOM) / 2.0,
        frame.y
    );
    for (i, curve) in curves.iter().enumerate() {
        let colour = COLOURS[curve.colour % COLOURS.len()];
        let dashes = if curve.dashed { " stroke-dasharray=\"6 4\"" } else { "" };
        let points: Vec<String> =
            curve.points.iter().map(|p| place(p.0, p.1)).map(|(x, y)| format!("{x:.1},{y:.1}")).collect();
        let y = TOP + 12.0 + 18.0 * i as f64;
        let _ = writeln!(
            out,
            "<polyline points=\"{}\" fill=\"none\" stroke=\"{colour}\" stroke-width=\"2\"{dashes}/>\n\
             <path d=\"M{} {y}h26\" stroke=\"{colour}\" stroke-width=\"2\"{dashes}/><text x=\"{}\" y=\"{}\">{}</text>",
            points.join(" "),
            RIGHT + 12.0,
            RIGHT + 44.0,
            y + 4.0,
            curve.name
        );
    }
    out + "</svg>\n"
}
