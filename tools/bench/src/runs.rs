//! `cargo xtask bench runs`: training runs side by side, from the logs that `bitnet train` leaves.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use plotters::prelude::*;
use serde_json::Value;

use crate::error::BenchError;
use crate::plots::{Canvas, Drawn, INK, OTHERS, OTHERS_LIGHT, OURS, OURS_LIGHT, axes, headed, svg, text};
use crate::report::number;

/// Steps of training whose mean loss is shown.
const LAST: usize = 50;

/// A run and its label, as `NAME=FOLDER`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Named {
    name: String,
    folder: PathBuf,
}

impl FromStr for Named {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text.split_once('=') {
            Some((name, folder)) if !name.is_empty() && !folder.is_empty() => {
                Ok(Self { name: name.to_owned(), folder: folder.into() })
            }
            _ => Err("a run is given as NAME=FOLDER".into()),
        }
    }
}

/// Contents of a log.
#[derive(Clone, Debug, Default, PartialEq)]
struct Log {
    /// Steps and losses in nats per token.
    train: Vec<(f64, f64)>,
    validation: Vec<(f64, f64)>,
    /// Tokens at the last step.
    tokens: u64,
}

impl Log {
    fn read(path: &Path) -> Result<Self, BenchError> {
        let text = std::fs::read_to_string(path).map_err(BenchError::io(path))?;
        let log = Self::parse(&text).map_err(|e| BenchError::unreadable(path.display().to_string(), e))?;
        match log.train.is_empty() && log.validation.is_empty() {
            true => Err(BenchError::unreadable(path.display().to_string(), "no step and no validation")),
            false => Ok(log),
        }
    }

    fn parse(text: &str) -> Result<Self, serde_json::Error> {
        let mut log = Self::default();
        for line in text.lines().filter(|l| !l.trim().is_empty()) {
            let v: Value = serde_json::from_str(line)?;
            let Some(step) = v["step"].as_f64() else { continue };
            log.train.extend(v["loss"].as_f64().map(|l| (step, l)));
            log.validation.extend(v["val_nats_per_token"].as_f64().map(|l| (step, l)));
            log.tokens = v["tokens"].as_u64().unwrap_or(log.tokens);
        }
        Ok(log)
    }

    /// The mean loss of the last steps.
    fn last_loss(&self) -> Option<f64> {
        let last = &self.train[self.train.len().saturating_sub(LAST)..];
        (!last.is_empty()).then(|| last.iter().map(|p| p.1).sum::<f64>() / last.len() as f64)
    }
}

/// A table of the runs on stdout, and their curves in `picture` if it is given.
///
/// # Errors
/// A log that cannot be read or holds nothing; a picture that cannot be drawn.
pub(crate) fn compare(runs: &[Named], picture: Option<&Path>) -> Result<(), BenchError> {
    let read = |run: &Named| Ok((run.name.clone(), Log::read(&run.folder.join("log.jsonl"))?));
    let runs = runs.iter().map(read).collect::<Result<Vec<_>, BenchError>>()?;
    println!("{}", table(&runs));
    let Some(path) = picture else { return Ok(()) };
    let text = svg((920, 480), |canvas| draw(&runs, canvas))
        .map_err(|e| BenchError::Picture { picture: path.display().to_string(), problem: e.to_string() })?;
    std::fs::write(path, text).map_err(BenchError::io(path))
}

fn table(runs: &[(String, Log)]) -> String {
    let mut text = format!(
        "| run | steps | tokens seen | training, last {LAST} steps | validation | perplexity | against the first |\n\
         |---|--:|--:|--:|--:|--:|--:|\n"
    );
    let valid = |log: &Log| log.validation.last().map(|p| p.1);
    let first = runs.first().and_then(|r| valid(&r.1));
    for (name, log) in runs {
        let nats = |v: Option<f64>| v.map_or("-".to_owned(), |v| format!("{v:.4}"));
        let steps = match (log.train.first(), log.train.last()) {
            (Some((from, _)), Some((to, _))) if *from > 1.0 => format!("{from} to {to}"),
            (_, Some((to, _))) => to.to_string(),
            _ => "-".to_owned(),
        };
        let more = valid(log).zip(first).map_or("-".to_owned(), |(v, f)| format!("{:+.4}", v - f));
        let ppl = valid(log).map_or("-".to_owned(), |v| number(v.exp()));
        let _ = writeln!(
            text,
            "| {name} | {steps} | {:.2} M | {} | {} | {ppl} | {more} |",
            log.tokens as f64 / 1e6,
            nats(log.last_loss()),
            nats(valid(log)),
        );
    }
    text
}

/// Each loss as the mean of those around it.
fn smooth(points: &[(f64, f64)]) -> Vec<(f64, f64)> {
    const REACH: usize = 8;
    let mean = |i: usize| {
        let near = &points[i.saturating_sub(REACH)..(i + REACH + 1).min(points.len())];
        near.iter().map(|p| p.1).sum::<f64>() / near.len() as f64
    };
    points.iter().enumerate().map(|(i, p)| (p.0, mean(i))).collect()
}

fn draw(runs: &[(String, Log)], canvas: &Canvas<'_>) -> Drawn {
    let area = headed(
        canvas,
        "Training runs",
        "Nats per token. Lines: loss of training, mean of 17 steps; circles: validation. Second stages begin where their lines do.",
    )?;
    let finite = |p: &&(f64, f64)| p.1.is_finite();
    let lines: Vec<Vec<(f64, f64)>> = runs.iter().map(|r| smooth(&r.1.train)).collect();
    let all = || lines.iter().flatten().chain(runs.iter().flat_map(|r| &r.1.validation)).filter(finite);
    let last = all().map(|p| p.0).fold(1.0, f64::max);
    let least = all().map(|p| p.1).fold(f64::INFINITY, f64::min);
    // The first steps of an untrained model would press everything else to the bottom.
    let settled = all().filter(|p| p.0 > last / 10.0).map(|p| p.1).fold(least + 0.1, f64::max);
    let (low, high) = ((least * 10.0).floor() / 10.0, (settled * 10.0).ceil() / 10.0);
    let mut chart = axes(&area, 230, (0.0..last * 1.01, "steps"), (low..high, "nats per token", 1))?;
    let base = area.get_base_pixel();
    let mut taken: Vec<i32> = Vec::new();
    let mut ends: Vec<(usize, f64)> =
        runs.iter().enumerate().filter_map(|(i, r)| Some((i, r.1.validation.last().or(lines[i].last())?.1))).collect();
    ends.sort_by(|a, b| b.1.total_cmp(&a.1));
    let colours = [INK, OURS_LIGHT, OURS, OTHERS, OTHERS_LIGHT];
    for (i, end) in ends {
        let ((name, log), colour) = (&runs[i], colours[i % colours.len()]);
        let visible = lines[i].iter().copied().filter(|p| p.1 <= high);
        chart.draw_series(LineSeries::new(visible, colour.stroke_width(2)))?;
        let points = log.validation.iter().filter(|p| p.1 <= high);
        chart.draw_series(points.map(|&p| Circle::new(p, 4, colour.filled())))?;
        let (_, y) = chart.backend_coord(&(last, end.clamp(low, high)));
        let right = chart.plotting_area().get_x_axis_pixel_range().end;
        let mut y = y - base.1;
        while taken.iter().any(|at| (at - y).abs() < 18) {
            y += 3;
        }
        taken.push(y);
        area.draw(&Circle::new((right - base.0 + 16, y), 4, colour.filled()))?;
        area.draw(&Text::new(format!("{name}: {end:.3}"), (right - base.0 + 26, y), text(13, INK)))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    const FIRST: &str = r#"{"step":1,"tokens":100,"loss":4.0,"lr":0.1,"grad_norm":1.0,"tok_s":5.0}
{"step":2,"tokens":200,"loss":2.0,"lr":0.1,"grad_norm":1.0,"tok_s":5.0}
{"step":2,"zeros":[0.3],"flips":[0.1],"alpha":[0.2]}
{"step":2,"val_nats_per_token":2.5}
"#;

    #[test]
    fn logs_become_rows_and_curves() {
        let dir = tempfile::tempdir().unwrap();
        let put = |name: &str, text: &str| {
            std::fs::create_dir(dir.path().join(name)).unwrap();
            std::fs::write(dir.path().join(name).join("log.jsonl"), text).unwrap();
            format!("{name} bits={}", dir.path().join(name).display()).parse::<Named>().unwrap()
        };
        let second = r#"{"step":3,"tokens":300,"loss":2.5,"lr":0.1,"grad_norm":1.0,"tok_s":5.0}
{"step":3,"val_nats_per_token":2.75}"#;
        let runs = [put("8", FIRST), put("4", second)];
        let logs: Vec<(String, Log)> =
            runs.iter().map(|r| (r.name.clone(), Log::read(&r.folder.join("log.jsonl")).unwrap())).collect();
        let text = table(&logs);
        assert!(text.contains("| 8 bits | 2 | 0.00 M | 3.0000 | 2.5000 | 12.2 | +0.0000 |"), "{text}");
        assert!(text.contains("| 4 bits | 3 to 3 | 0.00 M | 2.5000 | 2.7500 | 15.6 | +0.2500 |"), "{text}");
        let picture = dir.path().join("p.svg");
        compare(&runs, Some(&picture)).unwrap();
        let svg = std::fs::read_to_string(&picture).unwrap();
        assert!(svg.contains("8 bits: 2.500") && svg.contains("4 bits: 2.750") && !svg.contains("NaN"), "{svg}");

        assert!(matches!(compare(&[put("empty", "")], None), Err(BenchError::Unreadable { .. })));
        assert!(matches!(compare(&[put("broken", "{")], None), Err(BenchError::Unreadable { .. })));
        let missing = Named { name: "m".into(), folder: dir.path().join("missing") };
        assert!(matches!(compare(&[missing], None), Err(BenchError::Io { .. })));
        assert!("x".parse::<Named>().is_err() && "=x".parse::<Named>().is_err());
    }
}
