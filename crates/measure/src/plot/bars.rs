//! Shares of things that have names, as bars.

use std::error::Error;

use plotters::coord::Shift;
use plotters::prelude::*;
use plotters::style::text_anchor::{HPos, Pos, VPos};

use super::{FONT, GRID, INK, PALETTE, PlotError, short, width};

/// A row: a name, a note beside it, and a share of each series.
#[derive(Clone, Debug, PartialEq)]
pub struct Bar {
    /// Its name.
    pub name: String,
    /// How often it was there, for example.
    pub note: String,
    /// From 0 to 1, one of each series; others are drawn as the nearest of these.
    pub shares: Vec<f64>,
}

const TOP: i32 = 70;
/// Length of a bar of 100 %.
const WHOLE: i32 = 400;
const THICK: i32 = 11;
const SIZE: u32 = 13;

/// Draws bars from 0 to 100 % with their numbers; `series` names those of a row.
///
/// # Errors
/// [`PlotError`] from the drawing library.
pub fn bars_svg(title: &str, series: &[&str], bars: &[Bar]) -> Result<String, PlotError> {
    let wide = |f: &dyn Fn(&Bar) -> &str| bars.iter().map(|b| width(&short(f(b), 30), SIZE)).max().unwrap_or(0);
    let (names, notes) = (wide(&|b| &b.name), wide(&|b| &b.note));
    let row = series.len().max(1) as i32 * THICK + 8;
    let across = (48 + names + notes + WHOLE + 56).max(32 + width(title, 16));
    let size = (across.unsigned_abs(), (TOP + bars.len() as i32 * row + 32).unsigned_abs());
    let mut svg = String::new();
    draw(title, series, bars, [24 + names, notes, row], &SVGBackend::with_string(&mut svg, size).into_drawing_area())
        .map_err(|e| PlotError(e.to_string()))?;
    Ok(svg)
}

fn text(size: u32, at: HPos) -> TextStyle<'static> {
    let style = TextStyle::from((FONT, size).into_font()).pos(Pos::new(at, VPos::Center));
    TextStyle { color: INK.to_backend_color(), ..style }
}

fn draw(
    title: &str,
    series: &[&str],
    bars: &[Bar],
    [names, notes, row]: [i32; 3],
    canvas: &DrawingArea<SVGBackend<'_>, Shift>,
) -> Result<(), Box<dyn Error>> {
    canvas.fill(&WHITE)?;
    canvas.draw(&Text::new(title.to_owned(), (16, 20), text(16, HPos::Left)))?;
    let mut x = 16;
    for (i, name) in series.iter().enumerate() {
        let colour = PALETTE[i % PALETTE.len()];
        canvas.draw(&Rectangle::new([(x, 38), (x + 14, 38 + THICK)], colour.filled()))?;
        canvas.draw(&Text::new((*name).to_owned(), (x + 20, 43), text(12, HPos::Left)))?;
        x += 44 + width(name, 12);
    }
    let left = names + notes + 16;
    let end = TOP + bars.len() as i32 * row;
    for percent in [0, 25, 50, 75, 100] {
        let x = left + WHOLE * percent / 100;
        canvas.draw(&PathElement::new(vec![(x, TOP - 4), (x, end)], GRID))?;
        canvas.draw(&Text::new(format!("{percent} %"), (x, end + 14), text(11, HPos::Center)))?;
    }
    for (i, bar) in bars.iter().enumerate() {
        let y = TOP + i as i32 * row;
        let middle = y + (row - 8) / 2;
        canvas.draw(&Text::new(short(&bar.name, 30), (names, middle), text(SIZE, HPos::Right)))?;
        canvas.draw(&Text::new(short(&bar.note, 30), (left - 8, middle), text(11, HPos::Right)))?;
        for (s, share) in bar.shares.iter().enumerate() {
            let share = if share.is_finite() { share.clamp(0.0, 1.0) } else { 0.0 };
            let (x, y) = (left + (f64::from(WHOLE) * share).round() as i32, y + s as i32 * THICK);
            let colour = PALETTE[s % PALETTE.len()];
            canvas.draw(&Rectangle::new([(left, y), (x, y + THICK - 1)], colour.filled()))?;
            let number = format!("{:.1}", 100.0 * share);
            canvas.draw(&Text::new(number, (x + 5, y + THICK / 2 - 1), text(10, HPos::Left)))?;
        }
    }
    canvas.present()?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_bar_has_its_name_and_number() {
        let bar = |name: &str, shares: &[f64]| Bar { name: name.into(), note: "7".into(), shares: shares.to_vec() };
        let bars = [bar("a & b", &[0.5, 0.25]), bar("odd", &[f64::NAN, 7.0])];
        let picture = bars_svg("Slots", &["clean", "typed"], &bars).unwrap();
        for words in ["Slots", "a &amp; b", "clean", "typed", "50.0", "25.0", "0.0", "100.0", "75 %"] {
            assert!(picture.contains(words), "{words}: {picture}");
        }
        assert!(picture.trim_end().ends_with("</svg>") && !picture.contains("NaN"));
        assert!(bars_svg("none", &[], &[]).unwrap().trim_end().ends_with("</svg>"));
    }
}
