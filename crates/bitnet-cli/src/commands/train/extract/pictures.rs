//! Pictures of a run: learning curves, confusions and slots of each task.

use std::path::Path;

use bitnet::train::extract::{TaskData, TaskFigures};
use loader::files;
use measure::plot::{self, Bar, Curve, Frame};

use crate::error::CliError;

/// Points of a curve of losses; of more steps, means of neighbours are drawn.
const POINTS: usize = 300;

/// Measurements of a training run.
#[derive(Debug, Default)]
pub(super) struct History {
    loss: Vec<(f64, f64)>,
    /// Of each validation its step, and of each task the figures without errors and with them.
    validations: Vec<(f64, Vec<[Shares; 2]>)>,
}

/// Intents, slots, all right, out of scope; `None` where a task has none of it.
type Shares = [Option<f64>; 4];
const NAMES: [&str; 4] = ["intent", "slots, F1", "all right", "out of scope, AUROC"];

fn shares(f: &TaskFigures) -> Shares {
    let slots = |share| (!f.slots.is_empty()).then_some(share);
    [(f.confusion.len() > 1).then(|| f.accuracy()), slots(f.slot_counts().f1()), slots(f.all_right()), f.auroc]
}

impl History {
    pub(super) fn step(&mut self, step: u64, loss: f64) {
        self.loss.push((step as f64, loss));
    }

    pub(super) fn validation(&mut self, step: u64, figures: &[[TaskFigures; 2]]) {
        self.validations.push((step as f64, figures.iter().map(|f| f.each_ref().map(shares)).collect()));
    }

    /// Writes the pictures into `folder`; returns Markdown that shows them.
    ///
    /// # Errors
    /// A file that cannot be written; [`CliError::Plot`].
    pub(super) fn draw(
        &self,
        folder: &Path,
        data: &[TaskData],
        figures: &[[TaskFigures; 2]],
    ) -> Result<String, CliError> {
        let mut shown = String::from("\n# Pictures\n");
        let mut write = |name: &str, what: &str, svg: String| -> Result<(), CliError> {
            files::write(&folder.join(name), svg.as_bytes())?;
            shown += &format!("\n![{what}]({name})\n");
            Ok(())
        };
        let frame = Frame { title: "Loss while learning", x: "steps", y: "loss", log_x: false };
        let loss = Curve { name: "training".to_owned(), points: thinned(&self.loss), dashed: false, colour: 6 };
        write("loss.svg", "Loss", plot::svg(&frame, &[loss])?)?;
        for (t, (task, [clean, typos])) in data.iter().zip(figures).enumerate() {
            let name = &task.name;
            if clean.texts == 0 {
                continue;
            }
            let title = format!("{name}: what is kept for choices");
            let frame = Frame { title: &title, x: "steps", y: "share", log_x: false };
            write(&format!("{name}-curves.svg"), &format!("{name}, curves"), plot::svg(&frame, &self.curves(t))?)?;
            if task.intents.len() > 1 {
                let title = format!("{name}: intents, without typing errors");
                let svg = plot::matrix_svg(&title, &task.intents, &clean.confusion)?;
                write(&format!("{name}-intents.svg"), &format!("{name}, intents"), svg)?;
            }
            if !task.slots.is_empty() {
                let both = clean.slots.iter().zip(&typos.slots);
                let bars = task.slots.iter().zip(both).map(|(name, (c, t))| Bar {
                    name: name.clone(),
                    note: c.there.to_string(),
                    shares: vec![c.f1(), t.f1()],
                });
                let bars: Vec<Bar> = bars.filter(|b| b.note != "0").collect();
                let title = format!("{name}: slots, F1");
                let svg = plot::bars_svg(&title, &["without typing errors", "with them"], &bars)?;
                write(&format!("{name}-slots.svg"), &format!("{name}, slots"), svg)?;
            }
        }
        Ok(shown)
    }

    /// The validation curves of task `t`; those with typing errors are dashed.
    fn curves(&self, t: usize) -> Vec<Curve> {
        let mut all = Vec::new();
        for (i, name) in NAMES.iter().enumerate() {
            for (kind, typed) in ["", ", typing errors"].iter().enumerate() {
                let at = |(step, tasks): &(f64, Vec<[Shares; 2]>)| Some((*step, tasks.get(t)?[kind][i]?));
                let points: Vec<(f64, f64)> = self.validations.iter().filter_map(at).collect();
                if !points.is_empty() {
                    all.push(Curve { name: format!("{name}{typed}"), points, dashed: kind == 1, colour: i });
                }
            }
        }
        all
    }
}

/// Means of neighbours, so that there are at most [`POINTS`].
fn thinned(points: &[(f64, f64)]) -> Vec<(f64, f64)> {
    let mean = |some: &[(f64, f64)]| {
        let n = some.len() as f64;
        (some.iter().map(|p| p.0).sum::<f64>() / n, some.iter().map(|p| p.1).sum::<f64>() / n)
    };
    points.chunks(points.len().div_ceil(POINTS).max(1)).map(mean).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_curves_become_means() {
        let line: Vec<(f64, f64)> = (0..1000).map(|i| (f64::from(i), 2.0 * f64::from(i))).collect();
        let few = thinned(&line);
        assert_eq!((few.len(), few[0], few[249]), (250, (1.5, 3.0), (997.5, 1995.0)));
        assert_eq!(thinned(&line[..7]), line[..7]);
        assert!(thinned(&[]).is_empty());
    }
}
