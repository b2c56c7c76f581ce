//! Labels next to points, placed so that they hide neither each other nor a point.

/// A rectangle in pixels: left, top, right, bottom.
type Rect = [f64; 4];

/// The labels and points placed so far.
#[derive(Debug, Default)]
pub(super) struct Labels {
    taken: Vec<Rect>,
    /// Better not covered either, but a thin line can be read through.
    lines: Vec<Rect>,
    bounds: Option<Rect>,
}

impl Labels {
    /// Labels that stay within `bounds`.
    pub(super) fn within(bounds: Rect) -> Self {
        Self { bounds: Some(bounds), ..Self::default() }
    }

    /// Keeps the place of a point free.
    pub(super) fn point(&mut self, (x, y): (i32, i32), radius: i32) {
        let (x, y, r) = (f64::from(x), f64::from(y), f64::from(radius));
        self.taken.push([x - r, y - r, x + r, y + r]);
    }

    /// Notes a point of a line.
    pub(super) fn line(&mut self, (x, y): (i32, i32)) {
        let (x, y) = (f64::from(x), f64::from(y));
        self.lines.push([x - 3.0, y - 3.0, x + 3.0, y + 3.0]);
    }

    /// The position of a label of `text` in letters of `size` that belongs to the point at `(x, y)`: left end and
    /// middle height.
    pub(super) fn place(&mut self, text: &str, size: u32, (x, y): (i32, i32)) -> (i32, i32) {
        let (width, height) = (text_width(text, size), f64::from(size) + 2.0);
        let (x, y) = (f64::from(x), f64::from(y));
        let mut candidates = Vec::new();
        for step in 0..8 {
            let dy = f64::from(step) * 9.0;
            for dy in [-dy, dy] {
                candidates.push((x + 11.0, y + dy));
                candidates.push((x - 11.0 - width, y + dy));
            }
        }
        candidates.push((x - width / 2.0, y - 16.0));
        candidates.push((x - width / 2.0, y + 16.0));
        let rect = |(left, middle): (f64, f64)| [left, middle - height / 2.0, left + width, middle + height / 2.0];
        let badness = |&at: &(f64, f64)| {
            let r = rect(at);
            let hidden: f64 = self.taken.iter().map(|t| overlap(&r, t)).sum();
            let crossed: f64 = self.lines.iter().map(|t| overlap(&r, t)).sum();
            let outside = self.bounds.map_or(0.0, |b| {
                let out = [b[0] - r[0], b[1] - r[1], r[2] - b[2], r[3] - b[3]];
                out.iter().map(|o| o.max(0.0)).sum::<f64>()
            });
            let far = (at.1 - y).abs();
            hidden * 10.0 + outside * 100.0 + crossed * 0.2 + far
        };
        let best = candidates.iter().copied().min_by(|a, b| badness(a).total_cmp(&badness(b))).unwrap_or((x, y));
        self.taken.push(rect(best));
        (best.0.round() as i32, best.1.round() as i32)
    }
}

/// About how wide a text is.
pub(super) fn text_width(text: &str, size: u32) -> f64 {
    text.chars().count() as f64 * f64::from(size) * 0.54
}

fn overlap(a: &Rect, b: &Rect) -> f64 {
    let side = |low: usize, high: usize| (a[high].min(b[high]) - a[low].max(b[low])).max(0.0);
    side(0, 2) * side(1, 3)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_of_neighbours_do_not_meet() {
        let mut labels = Labels::within([0.0, 0.0, 400.0, 200.0]);
        for p in [(100, 100), (104, 103), (98, 97)] {
            labels.point(p, 4);
        }
        for p in [(100, 100), (104, 103), (98, 97), (395, 100)] {
            labels.place("a label", 12, p);
        }
        for (i, a) in labels.taken.iter().enumerate() {
            for b in &labels.taken[i + 1..] {
                // The points themselves do overlap.
                let points = i < 3 && labels.taken[..3].contains(b);
                assert!(points || overlap(a, b) == 0.0, "{a:?} {b:?}");
            }
            assert!(a[2] <= 400.0);
        }
    }
}
