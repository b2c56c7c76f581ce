//! Training of extractors: utterances with intents and slots become a small bidirectional encoder ([`crate::encoder`]).
//!
//! [`TaskData`] reads JSON lines, [`train`] learns from them and returns the weights of the best validation, with a
//! calibrated temperature and a threshold for what is out of scope. What is learned from is varied anew in each pass:
//! typing errors ([`typos`]), other values of slots ([`Augmentation`]). Gradients are written by hand and pass straight
//! through both quantisers, as in [`FusedLearner`](super::FusedLearner); of the table of features only the rows that a
//! batch touches have a gradient and are moved.

#![allow(clippy::single_range_in_vec_init, reason = "a text with one span is the usual case")]

mod attention;
mod augment;
mod batch;
mod crf;
mod data;
mod heads;
mod learner;
mod linear;
mod marked;
mod measure;
mod net;
mod options;
mod params;
mod report;
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

use self::augment::Variants;
use self::batch::{Batch, Goal};
use self::heads::Loss;
use self::learner::{Learner, Snapshot};
use super::{Finish, Random, TrainError};
use crate::encoder::ExtractorWeights;

/// News of a run.
#[derive(Clone, Debug)]
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
        /// Time that is left, as far as one can tell.
        left: Duration,
    },
    /// What was kept for choices was looked at.
    Validation {
        /// The step, counted from 1.
        step: u64,
        /// Figures of each task, without typing errors and with them.
        figures: &'a [[TaskFigures; 2]],
        /// Whether it was never better.
        best: bool,
    },
}

/// What a run made.
#[derive(Clone, Debug)]
pub struct Trained {
    /// The weights of the best validation.
    pub weights: ExtractorWeights,
    /// Their figures on what was kept for choices, of each task, without typing errors and with them.
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

/// Learns tasks. `see` hears of every step and may end the run; what was best so far is then the result.
///
/// # Errors
/// Options or names that cannot be; [`TrainError::NotFinite`].
pub fn train(
    tasks: &[TaskData],
    options: &ExtractOptions,
    see: &mut dyn FnMut(ExtractEvent<'_>) -> ControlFlow<()>,
) -> Result<Trained, TrainError> {
    options.validate()?;
    let mut run = Run::new(tasks, options)?;
    let begun = ExtractEvent::Begin {
        parameters: run.learner.parameters(),
        steps: run.steps,
        steps_per_pass: run.steps_per_pass,
    };
    let mut finish = match see(begun) {
        ControlFlow::Continue(()) => Finish::Completed,
        ControlFlow::Break(()) => Finish::Interrupted,
    };
    let began = Instant::now();
    let (mut best, mut since): (Option<(f64, Snapshot, u64)>, u64) = (None, 0);
    let mut step = 0;
    let mut done = 0.0;
    while finish == Finish::Completed && done < 1.0 {
        let loss = run.step(step, done)?;
        step += 1;
        let elapsed = began.elapsed().as_secs_f64();
        let by_time = options.time.map_or(0.0, |t| elapsed / t.as_secs_f64());
        done = f64::max(step as f64 / run.steps as f64, by_time).min(1.0);
        let left = Duration::try_from_secs_f64(elapsed * (1.0 - done) / done).unwrap_or_default();
        let news = ExtractEvent::Step { step, done, loss: loss.mean(options.tag_weight), left };
        if see(news).is_break() {
            finish = Finish::Interrupted;
        }
        if finish == Finish::Completed && done < 1.0 && !step.is_multiple_of(run.steps_per_pass.max(VALIDATE_EVERY)) {
            continue;
        }
        let figures = run.validate(VALIDATED);
        let score = score(&figures);
        let is_best = best.as_ref().is_none_or(|b| score >= b.0);
        if is_best {
            best = Some((score, run.learner.snapshot(), step));
            since = 0;
        } else {
            since += 1;
        }
        if see(ExtractEvent::Validation { step, figures: &figures, best: is_best }).is_break() {
            finish = Finish::Interrupted;
        }
        if options.patience > 0 && since >= options.patience && finish == Finish::Completed && done < 1.0 {
            finish = Finish::EarlyStop;
        }
    }
    let best_step = best.as_ref().map_or(0, |b| b.2);
    if let Some((_, snapshot, _)) = best {
        run.learner.restore(snapshot);
    }
    let (figures, report) = run.finish();
    Ok(Trained { weights: run.learner.export()?, figures, report, steps: step, best_step, finish })
}

/// What a validation is judged by: the mean over tasks of the shares of utterances that are all right, without and with
/// errors. What is out of scope is too little of most data to choose by.
fn score(figures: &[[TaskFigures; 2]]) -> f64 {
    let of = |[clean, typos]: &[TaskFigures; 2]| clean.all_right() + typos.all_right();
    figures.iter().map(of).sum::<f64>() / (2 * figures.len().max(1)) as f64
}

/// A run while it lasts.
struct Run<'d> {
    tasks: &'d [TaskData],
    options: &'d ExtractOptions,
    variants: Variants<'d>,
    learner: Learner,
    /// Tasks and numbers of utterances of one pass; `None` is a mixture.
    order: Vec<(usize, Option<usize>)>,
    steps: u64,
    steps_per_pass: u64,
    /// What is validated, without errors and with them.
    kept: Vec<[Vec<Utterance>; 2]>,
    batch: Batch,
}

impl<'d> Run<'d> {
    fn new(tasks: &'d [TaskData], options: &'d ExtractOptions) -> Result<Self, TrainError> {
        let outside = tasks.iter().map(TaskData::has_outside).collect();
        let learner = Learner::new(options.config(tasks), outside, options.seed)?;
        let mut order = Vec::new();
        for (t, task) in tasks.iter().enumerate() {
            for (i, u) in task.train.iter().enumerate() {
                let times = if u.intent.is_none() { options.augmentation.outside_repeats } else { 1 };
                order.extend(std::iter::repeat_n((t, Some(i)), times));
            }
            if task.has_outside() {
                let mixtures = (options.augmentation.mixtures * task.train.len() as f64) as usize;
                order.extend(std::iter::repeat_n((t, None), mixtures));
            }
        }
        let steps_per_pass = order.len().div_ceil(options.batch).max(1) as u64;
        let steps = options.steps.unwrap_or_else(|| (options.passes * steps_per_pass).max(options.least_steps));
        let kept = tasks.iter().map(|task| {
            let typed = measure::misspelt(&task.valid, options.seed);
            [task.valid.clone(), typed]
        });
        Ok(Self {
            tasks,
            options,
            variants: Variants::new(tasks, options.augmentation),
            learner,
            order,
            steps: steps.max(1),
            steps_per_pass,
            kept: kept.collect(),
            batch: Batch::default(),
        })
    }

    /// Step `step`, counted from 0, when `done` of the run is over.
    fn step(&mut self, step: u64, done: f64) -> Result<Loss, TrainError> {
        let (o, pass) = (self.options, step / self.steps_per_pass);
        let at = (step % self.steps_per_pass) as usize;
        if at == 0 {
            let mut random = Random::new(o.seed, &format!("order {pass}"));
            for i in (1..self.order.len()).rev() {
                self.order.swap(i, random.below(i as u64 + 1) as usize);
            }
        }
        let mut random = Random::new(o.seed, &format!("step {step}"));
        let mut dropped = Random::new(o.seed, &format!("features {step}"));
        let share = o.augmentation.feature_dropout;
        self.batch.clear();
        for (task, which) in self.order[at * o.batch..].iter().take(o.batch) {
            let data = &self.tasks[*task];
            let (said, slots, goal): (_, &[usize], _) = match which {
                Some(i) => {
                    let u = &data.train[*i];
                    (self.variants.of(*task, u, &mut random), &u.slots, u.intent.map_or(Goal::Outside, Goal::Intent))
                }
                None => match self.variants.mixture(*task, &mut random) {
                    Some(said) => (said, &[], Goal::Outside),
                    None => continue,
                },
            };
            let buckets = self.learner.config.buckets;
            self.batch.push(&said, slots, [*task, buckets], goal, &mut || share > 0.0 && dropped.unit() < share);
        }
        if self.batch.all.is_empty() {
            return Ok(Loss::default());
        }
        let quantised = done >= o.float_share;
        self.learner.step(&self.batch, o.weights(), o.rates(step, done), quantised, &mut random)
    }

    /// Figures on what was kept, at most `most` utterances of a task, evenly taken.
    fn validate(&mut self, most: usize) -> Vec<[TaskFigures; 2]> {
        let Self { kept, learner, .. } = self;
        let mut of = |(task, all): (usize, &[Vec<Utterance>; 2])| {
            all.each_ref().map(|all| {
                let some: Vec<Utterance> = all.iter().step_by(all.len().div_ceil(most).max(1)).cloned().collect();
                let judged = measure::judge(learner, task, &some);
                let about = &learner.config.tasks[task];
                measure::figures(&judged, about.slots.len(), about.oos, about.temperature)
            })
        };
        kept.iter().enumerate().map(&mut of).collect()
    }

    /// Calibrates, and measures all that was kept.
    fn finish(&mut self) -> (Vec<[TaskFigures; 2]>, String) {
        for (task, [clean, _]) in self.kept.iter().enumerate() {
            let judged = measure::judge(&mut self.learner, task, clean);
            let about = &mut self.learner.config.tasks[task];
            about.temperature = measure::temperature(&judged);
            about.oos = measure::oos_rule(&judged, about.temperature);
        }
        let figures = self.validate(usize::MAX);
        let parts = self.tasks.iter().zip(&figures).map(|(data, [clean, typos])| report::of_task(data, clean, typos));
        let report = format!("# Figures on what was kept for choices\n\n{}", parts.collect::<Vec<_>>().join("\n"));
        (figures, report)
    }
}
