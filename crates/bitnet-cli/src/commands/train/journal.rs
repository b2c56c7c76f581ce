//! What a run leaves behind to look at: `log.jsonl` and the loss curve.

use std::fmt::Write as _;
use std::fs::{File, OpenOptions};
use std::io::Write;
use std::path::{Path, PathBuf};

use bitnet::train::LayerTrits;
use serde_json::{Value, json};

use crate::error::CliError;

/// Appends to the log and remembers the points of the curves.
#[derive(Debug)]
pub(super) struct Journal {
    path: PathBuf,
    file: File,
    train: Vec<(f64, f64)>,
    validation: Vec<(f64, f64)>,
}

impl Journal {
    /// Opens the log; lines after step `kept` are dropped, because a continued run writes them again.
    ///
    /// # Errors
    /// A file that cannot be read or written.
    pub(super) fn open(path: &Path, kept: u64) -> Result<Self, CliError> {
        let name = path.display().to_string();
        let before = if path.is_file() {
            std::fs::read_to_string(path).map_err(CliError::io("read", &name))?
        } else {
            String::new()
        };
        let mut file = OpenOptions::new()
            .create(true)
            .write(true)
            .truncate(true)
            .open(path)
            .map_err(CliError::io("create", &name))?;
        let (mut train, mut validation) = (Vec::new(), Vec::new());
        for line in before.lines() {
            let Ok(v) = serde_json::from_str::<Value>(line) else { continue };
            let Some(step) = v["step"].as_u64().filter(|s| *s <= kept) else { continue };
            train.extend(v["loss"].as_f64().map(|l| (step as f64, l)));
            validation.extend(v["val_nats_per_token"].as_f64().map(|l| (step as f64, l)));
            writeln!(file, "{line}").map_err(CliError::io("write", &name))?;
        }
        Ok(Self { path: path.to_path_buf(), file, train, validation })
    }

    fn line(&mut self, value: &Value) -> Result<(), CliError> {
        writeln!(self.file, "{value}").map_err(CliError::io("write", self.path.display().to_string()))
    }

    /// A step.
    ///
    /// # Errors
    /// A file that cannot be written.
    pub(super) fn step(
        &mut self,
        [step, tokens]: [u64; 2],
        [loss, lr, grad_norm, tok_s]: [f64; 4],
    ) -> Result<(), CliError> {
        self.train.push((step as f64, loss));
        self.line(&json!({
            "step": step, "tokens": tokens, "loss": loss, "lr": lr, "grad_norm": grad_norm, "tok_s": tok_s,
        }))
    }

    /// What a step did to the ternary weights of each layer.
    ///
    /// # Errors
    /// A file that cannot be written.
    pub(super) fn trits(&mut self, step: u64, layers: &[LayerTrits]) -> Result<(), CliError> {
        let each = |f: fn(&LayerTrits) -> f64| layers.iter().map(f).collect::<Vec<_>>();
        let (zeros, flips, alpha) = (each(|l| l.zeros), each(|l| l.flips), each(|l| l.alpha));
        self.line(&json!({ "step": step, "zeros": zeros, "flips": flips, "alpha": alpha }))
    }

    /// A validation.
    ///
    /// # Errors
    /// A file that cannot be written.
    pub(super) fn validation(&mut self, step: u64, nats: f64) -> Result<(), CliError> {
        self.validation.push((step as f64, nats));
        self.line(&json!({ "step": step, "val_nats_per_token": nats }))
    }

    /// Writes the curves as an SVG.
    ///
    /// # Errors
    /// A file that cannot be written.
    pub(super) fn plot(&self, path: &Path) -> Result<(), CliError> {
        std::fs::write(path, svg(&self.train, &self.validation))
            .map_err(CliError::io("write", path.display().to_string()))
    }
}

/// Two curves over the steps: training loss grey, validation loss red.
fn svg(train: &[(f64, f64)], validation: &[(f64, f64)]) -> String {
    let all = || train.iter().chain(validation);
    let last = all().map(|p| p.0).fold(1.0, f64::max);
    let (low, high) = all().map(|p| p.1).fold((f64::MAX, f64::MIN), |(l, h), v| (l.min(v), h.max(v)));
    let (low, high) = if low < high { (low.floor(), high.ceil()) } else { (0.0, 1.0) };
    let place = |&(step, loss): &(f64, f64)| (60.0 + 720.0 * step / last, 370.0 - 340.0 * (loss - low) / (high - low));
    let mut out = String::from(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"800\" height=\"420\" font-family=\"sans-serif\" font-size=\"12\">\n\
         <rect width=\"800\" height=\"420\" fill=\"white\"/>\n",
    );
    let mut tick = low;
    while tick <= high {
        let (_, y) = place(&(0.0, tick));
        let _ = writeln!(
            out,
            "<path d=\"M60 {y:.1}H780\" stroke=\"#ddd\"/><text x=\"50\" y=\"{:.1}\" text-anchor=\"end\">{tick}</text>",
            y + 4.0
        );
        tick += 1.0;
    }
    for (points, colour) in [(train, "#999"), (validation, "#c22")] {
        let line: Vec<String> = points.iter().map(place).map(|(x, y)| format!("{x:.1},{y:.1}")).collect();
        let _ = writeln!(out, "<polyline points=\"{}\" fill=\"none\" stroke=\"{colour}\"/>", line.join(" "));
    }
    let _ = writeln!(
        out,
        "<text x=\"420\" y=\"405\" text-anchor=\"middle\">steps (0 to {last}); loss in nats per token: training grey, validation red</text>\n</svg>"
    );
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_continued_log_keeps_what_lies_before() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("log.jsonl");
        let mut j = Journal::open(&path, 0).unwrap();
        for step in 1..=5 {
            j.step([step, step * 10], [3.0, 0.1, 1.0, 100.0]).unwrap();
        }
        j.validation(5, 2.5).unwrap();
        drop(j);
        let j = Journal::open(&path, 3).unwrap();
        assert_eq!((j.train.len(), j.validation.len()), (3, 0));
        assert_eq!(std::fs::read_to_string(&path).unwrap().lines().count(), 3);
        let picture = svg(&j.train, &[(1.0, 4.0), (3.0, 2.0)]);
        assert!(picture.starts_with("<svg") && picture.trim_end().ends_with("</svg>") && !picture.contains("NaN"));
    }
}
