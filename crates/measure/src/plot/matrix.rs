//! Which names were taken for which, as a matrix.

use std::collections::BTreeMap;
use std::error::Error;

use plotters::coord::Shift;
use plotters::prelude::*;
use plotters::style::text_anchor::{HPos, Pos, VPos};

use super::{FONT, GRID, INK, PALETTE, PlotError, short, width};

/// Rows and columns that can still be read.
const MOST: usize = 25;
const CELL: i32 = 30;
const TOP: i32 = 64;
const SIZE: u32 = 13;

/// Draws how often each of `names` (first of a pair: a row) was taken for another or for itself (second: a column).
/// Cells are coloured by their share of the row. Of more than 25 names the 24 with the most mistakes have rows of their
/// own, and the last one holds the others together.
///
/// # Errors
/// [`PlotError`] from the drawing library.
pub fn matrix_svg(
    title: &str,
    names: &[String],
    counts: &BTreeMap<(usize, usize), usize>,
) -> Result<String, PlotError> {
    let (names, counts) = readable(names, counts);
    let n = names.len() as i32;
    let left = 24 + names.iter().map(|name| width(name, SIZE)).max().unwrap_or(0) + 48;
    let bottom = 40 + names.iter().map(|name| width(name, SIZE)).max().unwrap_or(0);
    // Room for the title above few columns.
    let across = (left + n * CELL + 24).max(32 + width(title, 16)).max(360);
    let size = (across.unsigned_abs(), (TOP + n * CELL + bottom).unsigned_abs());
    let mut svg = String::new();
    draw(title, &names, &counts, left, &SVGBackend::with_string(&mut svg, size).into_drawing_area())
        .map_err(|e| PlotError(e.to_string()))?;
    Ok(svg)
}

type Counts = BTreeMap<(usize, usize), usize>;

/// The names with the most mistakes, in their order, and the rest as one.
fn readable(names: &[String], counts: &Counts) -> (Vec<String>, Counts) {
    let shown = |name: &String| short(name, 30);
    if names.len() <= MOST {
        return (names.iter().map(shown).collect(), counts.clone());
    }
    let mut mistakes = vec![0usize; names.len()];
    for (&(row, column), n) in counts.iter().filter(|((row, column), _)| row != column) {
        for at in [row, column] {
            mistakes[at] += n;
        }
    }
    let mut order: Vec<usize> = (0..names.len()).collect();
    order.sort_by_key(|i| (std::cmp::Reverse(mistakes[*i]), *i));
    let mut kept = order[..MOST - 1].to_vec();
    kept.sort_unstable();
    let place = |name: usize| kept.binary_search(&name).unwrap_or(MOST - 1);
    let mut together = Counts::new();
    for ((row, column), n) in counts {
        *together.entry((place(*row), place(*column))).or_default() += n;
    }
    let rest = format!("{} others", names.len() - kept.len());
    (kept.iter().map(|i| shown(&names[*i])).chain([rest]).collect(), together)
}

fn text(size: u32, at: HPos) -> TextStyle<'static> {
    let style = TextStyle::from((FONT, size).into_font()).pos(Pos::new(at, VPos::Center));
    TextStyle { color: INK.to_backend_color(), ..style }
}

fn draw(
    title: &str,
    names: &[String],
    counts: &Counts,
    left: i32,
    canvas: &DrawingArea<SVGBackend<'_>, Shift>,
) -> Result<(), Box<dyn Error>> {
    canvas.fill(&WHITE)?;
    canvas.draw(&Text::new(title.to_owned(), (16, 20), text(16, HPos::Left)))?;
    canvas.draw(&Text::new("rows: right, with their number; columns: taken for", (16, 42), text(12, HPos::Left)))?;
    let n = names.len() as i32;
    let (edge, end) = (left + n * CELL, TOP + n * CELL);
    for (i, name) in names.iter().enumerate() {
        let at = i as i32 * CELL + CELL / 2;
        let there: usize = counts.range((i, 0)..=(i, usize::MAX)).map(|(_, n)| n).sum();
        canvas.draw(&Text::new(name.clone(), (left - 48, TOP + at), text(SIZE, HPos::Right)))?;
        canvas.draw(&Text::new(there.to_string(), (left - 8, TOP + at), text(11, HPos::Right)))?;
        // Turned around its end, so that it hangs down from the matrix.
        let upright = text(SIZE, HPos::Right).transform(FontTransform::Rotate270);
        canvas.draw(&Text::new(name.clone(), (left + at, end + 8), upright))?;
        for (column, n) in counts.range((i, 0)..=(i, usize::MAX)).map(|((_, column), n)| (*column, *n)) {
            // Rare errors must be visible, too.
            let share = n as f64 / there.max(1) as f64;
            let right = column == i;
            let (colour, alpha) = if right { (PALETTE[0], 0.75 * share) } else { (PALETTE[1], 0.2 + 0.8 * share) };
            let (x, y) = (left + column as i32 * CELL, TOP + i as i32 * CELL);
            let cell = [(x + 1, y + 1), (x + CELL, y + CELL)];
            canvas.draw(&Rectangle::new(cell, colour.mix(alpha).filled()))?;
            let size = if n < 1000 { 12 } else { 10 };
            let style = text(size, HPos::Center);
            let style = TextStyle { color: (if alpha > 0.6 { WHITE } else { INK }).to_backend_color(), ..style };
            canvas.draw(&Text::new(n.to_string(), (x + CELL / 2, y + CELL / 2), style))?;
        }
    }
    for i in 0..=n {
        let at = i * CELL;
        canvas.draw(&PathElement::new(vec![(left, TOP + at), (edge, TOP + at)], GRID))?;
        canvas.draw(&PathElement::new(vec![(left + at, TOP), (left + at, end)], GRID))?;
    }
    canvas.present()?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(n: usize) -> Vec<String> {
        (0..n).map(|i| format!("name{i}")).collect()
    }

    #[test]
    fn every_count_is_written() {
        let counts = Counts::from([((0, 0), 17), ((0, 1), 3), ((1, 1), 1234)]);
        let picture = matrix_svg("a < b", &names(2), &counts).unwrap();
        assert!(picture.starts_with("<svg") && picture.trim_end().ends_with("</svg>"));
        for words in ["a &lt; b", "name0", "name1", "17", "3", "1234", "20", "rotate(270"] {
            assert!(picture.contains(&format!("{words}\n")) || picture.contains(words), "{words}: {picture}");
        }
        for empty in [matrix_svg("t", &[], &Counts::new()), matrix_svg("t", &names(1), &Counts::new())] {
            assert!(empty.unwrap().trim_end().ends_with("</svg>"));
        }
    }

    #[test]
    fn of_many_names_those_with_mistakes_are_shown() {
        let names = names(150);
        let mut counts: Counts = (0..150).map(|i| ((i, i), 10)).collect();
        for i in 0..30 {
            counts.insert((100 + i, 99 - i), 30 - i);
        }
        let (shown, together) = readable(&names, &counts);
        assert_eq!((shown.len(), shown[24].as_str()), (25, "126 others"));
        // The twelve most frequent pairs, both names of each.
        let pairs: Vec<String> = (88..112).map(|i| format!("name{i}")).collect();
        assert_eq!(shown[..24], pairs);
        assert_eq!(together.values().sum::<usize>(), counts.values().sum::<usize>());
        assert_eq!(together[&(12, 11)], 30);
        assert_eq!(together[&(24, 24)], 126 * 10 + (1..=18).sum::<usize>());
    }
}
