//! Training of extractors: utterances with intents and slots become a small bidirectional encoder ([`crate::encoder`]).
//!
//! [`TaskData`] reads JSON lines, [`train`] learns from them and returns the weights of the best validation, with a
//! calibrated temperature and a threshold for "out of scope". The training data is varied in each pass:
//! typing errors ([`typos`]), other values of slots ([`Augmentation`]). Gradients are written by hand and pass straight
//! through both quantisers, as in [`FusedLearner`](super::FusedLearner); of the table of features only the rows that a
//! batch touches have a gradient and are moved.

#![allow(clippy::single_range_in_vec_init, reason = "a text with one span is the usual case")]

mod attention;
mod augment;
mod batch;
mod crf;
mod data;
mod export;
mod heads;
mod learner;
mod linear;
mod losses;
mod marked;
mod measure;
mod net;
mod options;
mod params;
mod recurrent;
mod report;
mod run;
mod saved;
mod teachers;
#[cfg(test)]
mod tests;
pub mod typos;

use std::ops::ControlFlow;
use std::time::{Duration, Instant};

pub use augment::Augmentation;
pub use data::{TaskData, Utterance};
pub use marked::Marked;
pub use measure::{SlotCounts, TaskFigures, auroc};
pub use options::ExtractOptions;
pub use saved::{ExtractCheckpoint, ExtractState};

use self::learner::Snapshot;
use self::run::Run;
use self::saved::Progress;
use self::teachers::Teachers;
use super::{Finish, TrainError};
use crate::encoder::{Extractor, ExtractorWeights};

/// News of a run.
#[derive(Debug)]
#[non_exhaustive]
pub enum ExtractEvent<'a> {
    /// The run begins.
    Begin {
        /// Parameters of the model, rows of the table included.
        parameters: usize,
        /// Steps planned; a limit of time may end them earlier.
        steps: u64,
        /// Steps of one pass.
        steps_per_pass: u64,
    },
    /// A step was done.
    Step {
        /// The step, counted from 1.
        step: u64,
        /// How much of the run is done, 0 to 1.
        done: f64,
        /// Mean loss of its texts.
        loss: f64,
        /// Estimate of the remaining time.
        left: Duration,
    },
    /// The model was validated.
    Validation {
        /// The step, counted from 1.
        step: u64,
        /// Figures of each task, without typing errors and with them.
        figures: &'a [[TaskFigures; 2]],
        /// Whether it was never better.
        best: bool,
    },
    /// Where the run stands, after each validation and when it ends, before anything is exported.
    State {
        /// The parts that can be saved.
        state: ExtractState<'a>,
        /// Whether no other one follows.
        last: bool,
    },
}

/// The result of a run.
#[derive(Clone, Debug)]
pub struct Trained {
    /// The weights of the best validation.
    pub weights: ExtractorWeights,
    /// Their figures on the validation data, by task, without typing errors and with them.
    pub figures: Vec<[TaskFigures; 2]>,
    /// The report as Markdown, with tables of slots and confusions.
    pub report: String,
    /// Steps done.
    pub steps: u64,
    /// The step of the weights.
    pub best_step: u64,
    /// Why it ended.
    pub finish: Finish,
}

/// Utterances of each task that a validation looks at, at most.
const VALIDATED: usize = 1000;
/// Steps between validations at least.
const VALIDATE_EVERY: u64 = 150;

/// Learns tasks. `see` is told of every step and may end the run; the best model so far is then the result.
///
/// # Errors
/// Options or names that cannot be; [`TrainError::NotFinite`].
pub fn train(
    tasks: &[TaskData],
    options: &ExtractOptions,
    see: &mut dyn FnMut(ExtractEvent<'_>) -> ControlFlow<()>,
) -> Result<Trained, TrainError> {
    train_from(tasks, options, Beginning::default(), see)
}

/// The inputs of a run in addition to its data.
#[derive(Debug, Default)]
pub struct Beginning {
    /// Extractors that know tasks of these names and their intents. What is learned of intents is then a mixture of what
    /// the data and what they say, in the mean, about each version of an utterance.
    pub teachers: Vec<Extractor>,
    /// Where an earlier run of the same options, data and teachers stood. From there it goes on as if it had never
    /// ended.
    pub checkpoint: Option<ExtractCheckpoint>,
}

/// [`train`] with teachers, or from a checkpoint on.
///
/// # Errors
/// The errors of [`train`]; a teacher that knows none of the tasks, or a task without one of its intents; a checkpoint of
/// another run.
pub fn train_from(
    tasks: &[TaskData],
    options: &ExtractOptions,
    beginning: Beginning,
    see: &mut dyn FnMut(ExtractEvent<'_>) -> ControlFlow<()>,
) -> Result<Trained, TrainError> {
    options.validate()?;
    let Beginning { teachers, checkpoint } = beginning;
    let name = saved::run_of(tasks, options, &teachers);
    let mut run = Run::new(tasks, options, Teachers::new(tasks, teachers)?)?;
    let begun = ExtractEvent::Begin {
        parameters: run.learner.parameters(),
        steps: run.steps,
        steps_per_pass: run.steps_per_pass,
    };
    let mut finish = match see(begun) {
        ControlFlow::Continue(()) => Finish::Completed,
        ControlFlow::Break(()) => Finish::Interrupted,
    };
    let (mut at, mut best): (Progress, Option<Snapshot>) = (Progress::default(), None);
    if let Some(mut saved) = checkpoint {
        saved.expect_run(&name)?;
        at = saved.progress.clone();
        best = run.resume(&mut saved, at.step)?;
    }
    let impatient = |at: &Progress| options.patience > 0 && at.since >= options.patience && at.done < 1.0;
    if impatient(&at) && finish == Finish::Completed {
        finish = Finish::EarlyStop;
    }
    let (began, before) = (Instant::now(), at.seconds);
    while finish == Finish::Completed && at.done < 1.0 {
        let loss = run.step(at.step, at.done)?;
        at.step += 1;
        at.seconds = before + began.elapsed().as_secs_f64();
        let by_time = options.time.map_or(0.0, |t| at.seconds / t.as_secs_f64());
        at.done = f64::max(at.step as f64 / run.steps as f64, by_time).min(1.0);
        let left = Duration::try_from_secs_f64(at.seconds * (1.0 - at.done) / at.done).unwrap_or_default();
        let news = ExtractEvent::Step { step: at.step, done: at.done, loss: loss.mean(options.tag_weight), left };
        if see(news).is_break() {
            finish = Finish::Interrupted;
            // As if nothing had happened: the validation that follows is none of the run.
            let state = ExtractState { run: &name, progress: &at, tensors: run.learner.state(best.as_ref()) };
            see(ExtractEvent::State { state, last: true }).is_break();
        } else if at.done < 1.0 && !at.step.is_multiple_of(run.steps_per_pass.max(VALIDATE_EVERY)) {
            continue;
        }
        run.learner.swap_average();
        let figures = run.validate(VALIDATED);
        let score = score(&figures);
        let is_best = at.best.is_none_or(|b| score >= b);
        if is_best {
            best = Some(run.learner.snapshot());
            (at.best, at.best_step, at.since) = (Some(score), at.step, 0);
        } else {
            at.since += 1;
        }
        run.learner.swap_average();
        let interrupted = finish == Finish::Interrupted;
        if see(ExtractEvent::Validation { step: at.step, figures: &figures, best: is_best }).is_break() {
            finish = Finish::Interrupted;
        } else if impatient(&at) && !interrupted {
            finish = Finish::EarlyStop;
        }
        if !interrupted {
            let state = ExtractState { run: &name, progress: &at, tensors: run.learner.state(best.as_ref()) };
            let last = finish != Finish::Completed || at.done >= 1.0;
            if see(ExtractEvent::State { state, last }).is_break() {
                finish = Finish::Interrupted;
            }
        }
    }
    if let Some(snapshot) = best {
        run.learner.restore(snapshot);
    }
    let (figures, report) = run.finish();
    let weights = run.learner.export()?;
    Ok(Trained { weights, figures, report, steps: at.step, best_step: at.best_step, finish })
}

/// The criterion of a validation: the mean over tasks of the shares of utterances that are all right, without and with
/// errors. Most data has too few utterances out of scope to choose by them.
fn score(figures: &[[TaskFigures; 2]]) -> f64 {
    let of = |[clean, typos]: &[TaskFigures; 2]| clean.all_right() + typos.all_right();
    figures.iter().map(of).sum::<f64>() / (2 * figures.len().max(1)) as f64
}
