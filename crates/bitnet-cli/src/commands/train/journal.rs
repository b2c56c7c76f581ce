//! The log of a run: `log.jsonl` and the loss curve.

use std::fs::{File, OpenOptions};
use std::io::Write;
use std::path::{Path, PathBuf};

use bitnet::train::LayerTrits;
use loader::files::{self, FileError, Lines, Pending};
use measure::plot::{self, Curve, Frame, PlotError};
use serde_json::{Value, json};

use crate::error::CliError;

/// Longest line that is read, bytes.
const MAX_LINE: usize = 16 << 20;

/// Appends to the log and remembers the points of the curves.
#[derive(Debug)]
pub(super) struct Journal {
    path: PathBuf,
    /// `None` until the first line is written.
    file: Option<File>,
    /// Lines after this step are dropped when the first line is written, because the continued run writes them again.
    /// Until then the log does not change, however the process ends.
    rewrite: Option<u64>,
    train: Vec<(f64, f64)>,
    validation: Vec<(f64, f64)>,
}

/// The step of a line, if it is a whole one and not after `kept`.
fn kept_line(line: &[u8], kept: u64) -> Option<(u64, Value)> {
    let value: Value = serde_json::from_slice(line.strip_suffix(b"\n")?).ok()?;
    let step = value["step"].as_u64().filter(|s| *s <= kept)?;
    Some((step, value))
}

impl Journal {
    /// Opens the log of a run that continues after step `kept`, or, for `None`, that of a new one: the log of another
    /// run is kept as `log.previous.jsonl`.
    ///
    /// # Errors
    /// A file that cannot be read, or is not a regular one.
    pub(super) fn open(path: &Path, kept: Option<u64>) -> Result<Self, CliError> {
        let (mut train, mut validation, mut rewrite) = (Vec::new(), Vec::new(), None);
        match (files::replaceable(path)?, kept) {
            (false, _) => {}
            (true, None) => {
                let aside = path.with_extension("previous.jsonl");
                std::fs::rename(path, &aside).map_err(FileError::io("rename to", &aside))?;
            }
            (true, Some(kept)) => {
                let mut lines = Lines::open(path, "a log", MAX_LINE)?;
                while let Some((_, line)) = lines.next_line()? {
                    let Some((step, v)) = kept_line(line, kept) else {
                        rewrite = Some(kept);
                        continue;
                    };
                    train.extend(v["loss"].as_f64().map(|l| (step as f64, l)));
                    validation.extend(v["val_nats_per_token"].as_f64().map(|l| (step as f64, l)));
                }
            }
        }
        Ok(Self { path: path.to_path_buf(), file: None, rewrite, train, validation })
    }

    /// The log without the lines after step `kept`, or its old self.
    fn rewrite(&self, kept: u64) -> Result<(), FileError> {
        let mut pending = Pending::create(&self.path)?;
        let mut lines = Lines::open(&self.path, "a log", MAX_LINE)?;
        while let Some((_, line)) = lines.next_line()? {
            if kept_line(line, kept).is_some() {
                pending.write_all(line).map_err(|e| pending.failed(e))?;
            }
        }
        pending.commit()
    }

    fn line(&mut self, value: &Value) -> Result<(), CliError> {
        if let Some(kept) = self.rewrite {
            self.rewrite(kept)?;
            self.rewrite = None;
        }
        let failed = || FileError::io("write", &self.path);
        let file = match self.file.take() {
            Some(file) => file,
            None => OpenOptions::new().create(true).append(true).open(&self.path).map_err(failed())?,
        };
        let file = self.file.insert(file);
        let before = file.metadata().map_err(failed())?.len();
        // In one piece, so that a process that dies leaves it out or writes it whole.
        file.write_all(format!("{value}\n").as_bytes()).map_err(|e| {
            // Half a line does not count.
            let _ = file.set_len(before);
            CliError::from(failed()(e))
        })
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

    /// Changes of the ternary weights of each layer in one step.
    ///
    /// # Errors
    /// A file that cannot be written.
    pub(super) fn trits(&mut self, step: u64, layers: &[LayerTrits]) -> Result<(), CliError> {
        let each = |f: fn(&LayerTrits) -> f64| layers.iter().map(f).collect::<Vec<_>>();
        let (zeros, flips, alpha) = (each(|l| l.zeros), each(|l| l.flips), each(|l| l.alpha));
        self.line(&json!({ "step": step, "zeros": zeros, "flips": flips, "alpha": alpha }))
    }

    /// How many steps fit the time of the run, as is known after `step`.
    ///
    /// # Errors
    /// A file that cannot be written.
    pub(super) fn plan(&mut self, step: u64, steps: u64) -> Result<(), CliError> {
        self.line(&json!({ "step": step, "planned_steps": steps }))
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
    /// A file that cannot be written; [`CliError::Plot`].
    pub(super) fn plot(&self, path: &Path) -> Result<(), CliError> {
        Ok(files::write(path, picture(&self.train, &self.validation)?.as_bytes())?)
    }
}

/// Training and validation loss over the steps, as an SVG.
fn picture(train: &[(f64, f64)], validation: &[(f64, f64)]) -> Result<String, PlotError> {
    let frame = Frame { title: "Loss", x: "steps", y: "nats per token", log_x: false };
    let curve = |name: &str, points: &[(f64, f64)], colour| Curve {
        name: name.to_owned(),
        points: points.to_vec(),
        dashed: false,
        colour,
    };
    plot::svg(&frame, &[curve("training", train, 6), curve("validation", validation, 1)])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_continued_log_keeps_its_earlier_lines() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("log.jsonl");
        let text = || std::fs::read_to_string(&path).unwrap();
        let mut j = Journal::open(&path, None).unwrap();
        for step in 1..=5 {
            j.step([step, step * 10], [3.0, 0.1, 1.0, 100.0]).unwrap();
        }
        j.validation(5, 2.5).unwrap();
        drop(j);
        // A line that a dying process left.
        std::fs::write(&path, text() + "{\"step\": 6, \"lo").unwrap();
        let before = text();
        let mut j = Journal::open(&path, Some(3)).unwrap();
        assert_eq!((j.train.len(), j.validation.len()), (3, 0));
        assert_eq!(text(), before, "nothing is dropped before there is something new");
        j.step([4, 40], [2.0, 0.1, 1.0, 100.0]).unwrap();
        assert_eq!(text().lines().count(), 4);
        assert!(text().starts_with(&before[..before.len() / 2 - 20]) && text().ends_with("}\n"));
        let picture = picture(&j.train, &[(1.0, 4.0), (3.0, 2.0)]).unwrap();
        assert!(picture.starts_with("<svg") && picture.trim_end().ends_with("</svg>") && !picture.contains("NaN"));
        // A whole log is appended to, and a new run keeps the log of the one before.
        drop(j);
        let j = Journal::open(&path, Some(9)).unwrap();
        assert_eq!((j.rewrite, j.train.len()), (None, 4));
        let whole = text();
        Journal::open(&path, None).unwrap().step([1, 10], [3.0, 0.1, 1.0, 100.0]).unwrap();
        assert_eq!(text().lines().count(), 1);
        assert_eq!(std::fs::read_to_string(dir.path().join("log.previous.jsonl")).unwrap(), whole);
    }
}
