//! The order of measurements, and the storage of their results.

use std::path::Path;

use crate::error::BenchError;
use crate::figure::{Figure, Results};
use crate::programs::Programs;

/// The effort of a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Effort {
    /// Everything, as long as it takes.
    Full,
    /// Some figures in about a minute.
    Quick,
}

/// Runs one measurement with the programs of a revision.
type Run = Box<dyn Fn(&Programs) -> Result<Vec<Figure>, BenchError>>;

/// A measurement that can fail without the others.
pub(crate) struct Task {
    /// Its name, which begins with its part: `kernels/...`, `model/...`, `candle/...`, `v2/...`, `ttt/...`.
    pub(crate) name: String,
    pub(crate) run: Run,
}

impl Task {
    /// A task called `name`.
    pub(crate) fn new(
        name: impl Into<String>,
        run: impl Fn(&Programs) -> Result<Vec<Figure>, BenchError> + 'static,
    ) -> Self {
        Self { name: name.into(), run: Box::new(run) }
    }
}

/// Runs `tasks` one after the other, keeping `results` in `file` after each. With `resume`, a task that succeeded with
/// this revision and effort is left out.
///
/// # Errors
/// If the file cannot be written. A task that fails is remembered in the results.
pub(crate) fn run(
    tasks: &[Task],
    programs: &Programs,
    results: &mut Results,
    file: &Path,
    effort: Effort,
    resume: bool,
) -> Result<(), BenchError> {
    let measured = format!("{}{}", programs.revision, if effort == Effort::Quick { ", quick run" } else { "" });
    for (i, task) in tasks.iter().enumerate() {
        let place = format!("[{}/{}] {}", i + 1, tasks.len(), task.name);
        if resume && results.has(&task.name, &measured) {
            println!("{place}: measured already");
            continue;
        }
        match (task.run)(programs) {
            Ok(figures) => {
                println!("{place}");
                for f in &figures {
                    println!("      {}", crate::report::line(f));
                }
                results.take(&task.name, &measured, figures);
            }
            Err(e) => {
                println!("{place}: FAILED, {e}");
                results.fail(&task.name, e.to_string());
            }
        }
        results.save(file)?;
    }
    Ok(())
}
