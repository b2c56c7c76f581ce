//! A run while it lasts: what a step sees, and what is kept for choices.

use super::augment::Variants;
use super::batch::{Batch, Goal};
use super::data::{TaskData, Utterance};
use super::heads::Loss;
use super::learner::{Learner, Snapshot};
use super::measure::{self, TaskFigures};
use super::saved::ExtractCheckpoint;
use super::teachers::Teachers;
use super::{ExtractOptions, report};
use crate::train::{Random, TrainError};

/// A run while it lasts.
pub(super) struct Run<'d> {
    tasks: &'d [TaskData],
    options: &'d ExtractOptions,
    variants: Variants<'d>,
    pub(super) learner: Learner,
    teachers: Teachers,
    /// Tasks and numbers of utterances of one pass; `None` is a mixture.
    order: Vec<(usize, Option<usize>)>,
    pub(super) steps: u64,
    pub(super) steps_per_pass: u64,
    /// The validation data, without errors and with them.
    kept: Vec<[Vec<Utterance>; 2]>,
    /// A part for each thread.
    batch: Vec<Batch>,
}

impl<'d> Run<'d> {
    pub(super) fn new(
        tasks: &'d [TaskData],
        options: &'d ExtractOptions,
        teachers: Teachers,
    ) -> Result<Self, TrainError> {
        let outside = tasks.iter().map(TaskData::has_outside).collect();
        let learner = Learner::new(options.config(tasks), outside, options.seed, options.threads)?;
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
            teachers,
            order,
            steps: steps.max(1),
            steps_per_pass,
            kept: kept.collect(),
            batch: (0..options.threads.max(1)).map(|_| Batch::default()).collect(),
        })
    }

    /// Goes on after `step` steps; returns the snapshot of the best validation.
    pub(super) fn resume(&mut self, saved: &mut ExtractCheckpoint, step: u64) -> Result<Option<Snapshot>, TrainError> {
        (0..step.div_ceil(self.steps_per_pass)).for_each(|pass| self.shuffle(pass));
        self.learner.resume(saved, step)
    }

    /// Puts what a pass sees into its order, which follows from that of the pass before.
    fn shuffle(&mut self, pass: u64) {
        let mut random = Random::new(self.options.seed, &format!("order {pass}"));
        for i in (1..self.order.len()).rev() {
            self.order.swap(i, random.below(i as u64 + 1) as usize);
        }
    }

    /// Step `step`, counted from 0, when `done` of the run is over.
    pub(super) fn step(&mut self, step: u64, done: f64) -> Result<Loss, TrainError> {
        let (o, pass) = (self.options, step / self.steps_per_pass);
        let at = (step % self.steps_per_pass) as usize;
        if at == 0 {
            self.shuffle(pass);
        }
        let mut random = Random::new(o.seed, &format!("step {step}"));
        self.gather(at, step, &mut random)?;
        if self.batch.iter().all(|part| part.all.is_empty()) {
            return Ok(Loss::default());
        }
        let quantised = done >= o.float_share;
        self.learner.step(&self.batch, o.weights(), o.rates(step, done), quantised, &mut random)
    }

    /// Fills the batch of step `step` with versions of the texts that come from place `at` of the pass on.
    fn gather(&mut self, at: usize, step: u64, random: &mut Random) -> Result<(), TrainError> {
        let o = self.options;
        let mut dropped = Random::new(o.seed, &format!("features {step}"));
        let share = o.augmentation.feature_dropout;
        let features = self.learner.config.features();
        let versions = if o.agreement > 0.0 { 2 } else { 1 };
        self.batch.iter_mut().for_each(Batch::clear);
        let threads = self.batch.len();
        for (i, (task, which)) in self.order[at * o.batch..].iter().take(o.batch).enumerate() {
            let (data, batch) = (&self.tasks[*task], &mut self.batch[i % threads]);
            let mut drop = || share > 0.0 && dropped.unit() < share;
            let Some(i) = which else {
                if let Some(said) = self.variants.mixture(*task, random)
                    && batch.push(&said, &[], (*task, features), Goal::Outside, &mut drop)
                {
                    self.teachers.say(*task, &said, &mut batch.taught)?;
                }
                continue;
            };
            let u = &data.train[*i];
            let goal = u.intent.map_or(Goal::Outside, Goal::Intent);
            let mut before = false;
            for _ in 0..versions {
                let said = self.variants.of(*task, u, random);
                let read = batch.push(&said, &u.slots, (*task, features), goal, &mut drop);
                if let Some(text) = batch.all.last_mut().filter(|_| read) {
                    text.twin = before;
                    self.teachers.say(*task, &said, &mut batch.taught)?;
                }
                before = read;
            }
        }
        Ok(())
    }

    /// Figures on what was kept, at most `most` utterances of a task, evenly taken.
    pub(super) fn validate(&mut self, most: usize) -> Vec<[TaskFigures; 2]> {
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
    pub(super) fn finish(&mut self) -> (Vec<[TaskFigures; 2]>, String) {
        for (task, [clean, _]) in self.kept.iter().enumerate() {
            let judged = measure::judge(&mut self.learner, task, clean);
            let about = &mut self.learner.config.tasks[task];
            about.temperature = measure::temperature(&judged);
            about.oos = measure::oos_rule(&judged, about.temperature, self.options.in_scope);
        }
        let figures = self.validate(usize::MAX);
        let parts = self.tasks.iter().zip(&figures).map(|(data, [clean, typos])| report::of_task(data, clean, typos));
        let report = format!("# Figures on what was kept for choices\n\n{}", parts.collect::<Vec<_>>().join("\n"));
        (figures, report)
    }
}
