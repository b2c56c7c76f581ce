//! A model during training: parameters, one step of the optimizer, and its current answers.

use ternary_kernels::Ops;
use ternary_kernels::ops::AdamWStep;

use super::batch::Batch;
use super::crf;
use super::heads::{HeadRoom, Loss, Weights, mask};
use super::net::Net;
use super::params::{Places, Table, TableGradients, init};
use crate::encoder::ExtractorConfig;
use crate::encoder::once::Once;
use crate::train::{AdamW, AdamWOptions, Params, Random, Rates, TrainError, gradient_norm};

/// The answer of the model for a text.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Guess {
    /// Logits of the intents of its task.
    pub(super) logits: Vec<f32>,
    /// Tags of its words; empty in tasks without slots.
    pub(super) tags: Vec<u16>,
}

impl Guess {
    /// The likeliest intent.
    pub(super) fn intent(&self) -> usize {
        (0..self.logits.len()).fold(0, |b, i| if self.logits[i] > self.logits[b] { i } else { b })
    }
}

/// Rates of a step.
#[derive(Clone, Copy, Debug)]
pub(super) struct StepRates {
    pub(super) rates: Rates,
    /// How much faster rows of the table move.
    pub(super) table: f64,
    /// Weight decay of rows of the table.
    pub(super) table_decay: f64,
    /// Largest norm of the gradient; 0 is off.
    pub(super) clip: f64,
    /// How much of the average of the weights stays in a step; 0 keeps no average.
    pub(super) average: f64,
}

/// Parameters with their optimizer.
#[derive(Debug)]
pub(super) struct Learner {
    pub(super) config: ExtractorConfig,
    pub(super) params: Params,
    pub(super) places: Places,
    pub(super) table: Table,
    pub(super) adam: AdamW,
    adam_options: AdamWOptions,
    ops: Ops,
    /// One for each thread.
    parts: Vec<Part>,
    outside: Vec<bool>,
    /// The average of the weights over the last steps.
    pub(super) average: Option<Snapshot>,
}

/// The buffers of one thread, and the gradients of its part of a batch.
#[derive(Debug)]
struct Part {
    net: Net,
    heads: HeadRoom,
    grads: Vec<f32>,
    rows: TableGradients,
}

/// Steps after which the average of the weights is taken again: seldom, since the whole table is in it.
const AVERAGE_EVERY: u64 = 8;

/// Parameters at one time.
#[derive(Clone, Debug)]
pub(super) struct Snapshot {
    pub(super) dense: Vec<f32>,
    pub(super) table: Vec<f32>,
}

impl Learner {
    /// A model of this shape; `outside` tells which tasks know texts out of scope. A batch is cut into
    /// `threads` parts, each with a thread of its own.
    ///
    /// # Errors
    /// A configuration that cannot be; an instruction set that this CPU lacks.
    pub(super) fn new(
        config: ExtractorConfig,
        outside: Vec<bool>,
        seed: u64,
        threads: usize,
    ) -> Result<Self, TrainError> {
        config.validate()?;
        let ops = Ops::selected()?;
        let (params, places) = init(&config, seed);
        let table = Table::new(config.buckets, config.hidden_size, seed);
        let adam_options = AdamWOptions { beta2: 0.98, ..AdamWOptions::default() };
        let adam = AdamW::new(adam_options, params.values.len());
        let part = |_| Part {
            net: Net::new(&config, ops),
            heads: HeadRoom::default(),
            grads: vec![0.0; params.values.len()],
            rows: TableGradients::new(config.buckets, config.hidden_size),
        };
        let parts = (0..threads.max(1)).map(part).collect();
        Ok(Self { config, params, places, table, adam, adam_options, ops, parts, outside, average: None })
    }

    /// All parameters.
    pub(super) fn parameters(&self) -> usize {
        self.params.values.len() + self.table.values.len()
    }

    /// Forward and backward pass over the parts of a batch: losses, and gradients in the first part. `random` has a stream
    /// for each part; without it nothing is left out.
    fn gradients(&mut self, batch: &[Batch], weights: Weights, quantised: bool, random: Option<&mut [Random]>) -> Loss {
        let Self { params, places, table, parts, outside, ops, .. } = self;
        let (values, places, table, outside) = (&params.values, &*places, &*table, &**outside);
        let texts = batch.iter().map(|b| b.all.len()).sum();
        let mut random = random.map_or_else(Vec::new, |all| all.iter_mut().map(Some).collect());
        random.resize_with(batch.len(), || None);
        let one = |(part, (batch, random)): (&mut Part, (&Batch, Option<&mut Random>))| {
            part.learn(values, places, table, batch, outside, (weights, texts), quantised, random)
        };
        let mut each = parts.iter_mut().zip(batch.iter().zip(random));
        let first = each.next();
        let mut loss = Loss::default();
        std::thread::scope(|scope| {
            let others: Vec<_> = each.map(|part| scope.spawn(move || one(part))).collect();
            loss.add(first.map_or_else(Loss::default, one));
            // In their order, so that sums do not hang on which is ready first.
            for other in others {
                loss.add(other.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)));
            }
        });
        if let Some((sum, others)) = parts.split_first_mut() {
            for other in &others[..batch.len().saturating_sub(1).min(others.len())] {
                ops.add_assign(&mut sum.grads, &other.grads);
                sum.rows.add(*ops, &other.rows);
            }
        }
        loss
    }

    /// One step, over the parts of a batch.
    ///
    /// # Errors
    /// [`TrainError::NotFinite`]; nothing was changed then.
    pub(super) fn step(
        &mut self,
        batch: &[Batch],
        weights: Weights,
        rates: StepRates,
        quantised: bool,
        random: &mut Random,
    ) -> Result<Loss, TrainError> {
        let mut streams: Vec<Random> = match batch.len() {
            1 => Vec::new(),
            _ => batch.iter().map(|_| Random::new(random.next_u64(), "part")).collect(),
        };
        let streams = if streams.is_empty() { std::slice::from_mut(random) } else { &mut streams };
        let loss = self.gradients(batch, weights, quantised, Some(streams));
        let (step, lr) = (self.adam.step + 1, rates.rates.lr);
        let mean = loss.mean(weights.tags);
        if !mean.is_finite() {
            return Err(TrainError::NotFinite { what: "loss", value: mean, step, lr });
        }
        let Some(Part { grads, rows, .. }) = self.parts.first() else { return Ok(loss) };
        let norm = gradient_norm(grads).hypot(gradient_norm(rows.all()));
        if !norm.is_finite() {
            return Err(TrainError::NotFinite { what: "gradient", value: norm, step, lr });
        }
        let scale = if rates.clip > 0.0 && norm > rates.clip { (rates.clip / norm) as f32 } else { 1.0 };
        self.adam.step(&mut self.params, grads, scale, rates.rates, 1)?;
        let o = self.adam_options;
        let power = i32::try_from(step).unwrap_or(i32::MAX);
        let table = AdamWStep {
            lr: (lr * rates.table) as f32,
            beta1: o.beta1 as f32,
            beta2: o.beta2 as f32,
            eps: o.eps as f32,
            weight_decay: rates.table_decay as f32,
            gradient_scale: scale,
            correction1: (1.0 - o.beta1.powi(power)) as f32,
            correction2: (1.0 - o.beta2.powi(power)) as f32,
        };
        self.table.step(self.ops, table, rows);
        if rates.average > 0.0 && step.is_multiple_of(AVERAGE_EVERY) {
            self.take_average(rates.average, step);
        }
        Ok(loss)
    }

    /// Moves the average of the weights towards those of now. It forgets no faster than it has seen steps, so that it
    /// does not hang on how they began.
    fn take_average(&mut self, stays: f64, step: u64) {
        let now = [&self.params.values, &self.table.values];
        let Some(average) = &mut self.average else {
            self.average = Some(Snapshot { dense: now[0].clone(), table: now[1].clone() });
            return;
        };
        let seen = step as f64 / AVERAGE_EVERY as f64;
        let share = (1.0 - stays.powi(AVERAGE_EVERY as i32)).max(1.0 / (1.0 + seen)).min(1.0) as f32;
        for (average, now) in [&mut average.dense, &mut average.table].into_iter().zip(now) {
            average.iter_mut().zip(now).for_each(|(a, n)| *a += share * (n - *a));
        }
    }

    /// Puts the average of the weights in the place of those that are learned, and back when it is called again; without
    /// an average nothing happens.
    pub(super) fn swap_average(&mut self) {
        if let Some(average) = &mut self.average {
            std::mem::swap(&mut average.dense, &mut self.params.values);
            std::mem::swap(&mut average.table, &mut self.table.values);
        }
    }

    /// The answers for the texts of a batch, in their order. Slots that an intent cannot have are not found.
    pub(super) fn guess(&mut self, batch: &Batch) -> Vec<Guess> {
        let Self { parts, params, places, table, config, .. } = self;
        let Some(Part { net, heads, .. }) = parts.first_mut() else { return Vec::new() };
        let values = &params.values;
        net.mask.clear();
        net.prepare(values, places, true);
        net.forward(values, places, table, batch, true);
        let mut guesses = vec![Guess::default(); batch.all.len()];
        for (task, about) in config.tasks.iter().enumerate() {
            let texts: Vec<usize> = (0..batch.all.len()).filter(|t| batch.all[*t].task == task).collect();
            if texts.is_empty() {
                continue;
            }
            let logits = heads.intents(net, values, places, batch, task, &texts);
            for (text, logits) in texts.iter().zip(logits.chunks_exact(about.intents.len())) {
                guesses[*text].logits = logits.to_vec();
            }
            let Some([.., transitions]) = &places.tasks[task].tags else { continue };
            let tags = about.tags();
            let mut scores = heads.tags(net, values, places, batch, task, &texts).to_vec();
            let mut rest = scores.as_mut_slice();
            for text in &texts {
                let (scores, more) = rest.split_at_mut(batch.all[*text].words.len() * tags);
                rest = more;
                if let Some(slots) = about.intent_slots.as_ref().map(|all| &all[guesses[*text].intent()]) {
                    let other = |tag: &usize| *tag > 0 && !slots.contains(&((tag - 1) / 2));
                    for tag in (0..tags).filter(other) {
                        scores.iter_mut().skip(tag).step_by(tags).for_each(|s| *s = f32::NEG_INFINITY);
                    }
                }
                let transitions = &values[transitions.clone()];
                let mut chosen = crf::best(transitions, scores, tags).1;
                Once::default().choose(&about.once, scores, tags, &mut chosen, |scores, out| {
                    let (sum, tags) = crf::best(transitions, scores, tags);
                    *out = tags;
                    sum
                });
                guesses[*text].tags = chosen;
            }
        }
        guesses
    }
}

impl Part {
    /// Forward and backward pass over a part of a batch of `texts` texts.
    #[expect(clippy::too_many_arguments, reason = "parameters, places, batch and what to do with them")]
    fn learn(
        &mut self,
        values: &[f32],
        places: &Places,
        table: &Table,
        batch: &Batch,
        outside: &[bool],
        (weights, texts): (Weights, usize),
        quantised: bool,
        mut random: Option<&mut Random>,
    ) -> Loss {
        let Self { net, heads, grads, rows } = self;
        mask(&mut net.mask, batch.words() * table.width, weights.word_dropout, random.as_deref_mut());
        net.prepare(values, places, quantised);
        net.forward(values, places, table, batch, quantised);
        grads.fill(0.0);
        rows.clear();
        let loss = heads.learn(net, values, places, batch, outside, (weights, texts), random, grads);
        net.backward(values, places, rows, batch, grads);
        loss
    }
}

#[cfg(test)]
impl Learner {
    /// All parameters, the table after the dense ones.
    pub(super) fn flat(&self) -> Vec<f32> {
        [self.params.values.as_slice(), &self.table.values].concat()
    }

    pub(super) fn set_flat(&mut self, all: &[f32]) {
        let (dense, table) = all.split_at(self.params.values.len());
        self.params.values.copy_from_slice(dense);
        self.set_table(table);
    }

    pub(super) fn set_table(&mut self, values: &[f32]) {
        self.table.values.copy_from_slice(values);
    }

    /// Names and places of all tensors in [`Learner::flat`].
    pub(super) fn tensors(&self) -> Vec<(String, std::ops::Range<usize>)> {
        let n = self.params.values.len();
        let table = ("features.weight".to_owned(), n..n + self.table.values.len());
        self.params.entries.iter().map(|e| (e.name.clone(), e.range.clone())).chain([table]).collect()
    }

    /// Shapes of [`Learner::tensors`].
    pub(super) fn shapes(&self) -> Vec<Vec<usize>> {
        let table = vec![self.config.buckets, self.table.width];
        self.params.entries.iter().map(|e| e.shape.clone()).chain([table]).collect()
    }

    /// The gradient of the loss without quantisers, in the order of [`Learner::flat`].
    pub(super) fn flat_gradient(&mut self, batch: &Batch, weights: Weights) -> Vec<f32> {
        self.gradients(std::slice::from_ref(batch), weights, false, None);
        self.all_gradients()
    }

    /// Loss and gradient with quantisers.
    pub(super) fn quantised_gradient(&mut self, batch: &[Batch], weights: Weights) -> (f64, Vec<f32>) {
        let loss = self.gradients(batch, weights, true, None).mean(weights.tags);
        (loss, self.all_gradients())
    }

    fn all_gradients(&self) -> Vec<f32> {
        let Part { grads, rows, .. } = &self.parts[0];
        let mut all = grads.clone();
        for bucket in 0..self.config.buckets {
            match rows.get(bucket as u32) {
                Some(grad) => all.extend_from_slice(grad),
                None => all.resize(all.len() + self.table.width, 0.0),
            }
        }
        all
    }

    /// The loss without quantisers.
    pub(super) fn loss(&mut self, batch: &Batch, weights: Weights) -> f64 {
        self.gradients(std::slice::from_ref(batch), weights, false, None).mean(weights.tags)
    }
}
