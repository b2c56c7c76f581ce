//! Options of a run.

use std::time::Duration;

use super::augment::Augmentation;
use super::data::TaskData;
use super::heads::Weights;
use super::learner::StepRates;
use crate::Activation;
use crate::encoder::{Directions, EncoderMixer, ExtractorConfig, TaskConfig};
use crate::train::{Rates, TrainError};

/// Shape of the model and how it learns.
#[derive(Clone, Debug, PartialEq)]
pub struct ExtractOptions {
    /// Width.
    pub hidden: usize,
    /// Layers.
    pub layers: usize,
    /// Heads of attention.
    pub heads: usize,
    /// Width of the feed-forward blocks.
    pub ffn: usize,
    /// The mixer of each layer; one for all, or none for attention everywhere.
    pub mixers: Vec<EncoderMixer>,
    /// Whether words know what stands behind them.
    pub directions: Directions,
    /// Rows of the table of features.
    pub buckets: usize,
    /// Whether runs of characters are features of words.
    pub runs: bool,
    /// How many words on each side a word makes pairs with.
    pub reach: usize,
    /// Between gate and up.
    pub activation: Activation,
    /// Passes over the training data.
    pub passes: u64,
    /// Steps at least, for few utterances.
    pub least_steps: u64,
    /// Steps, instead of passes.
    pub steps: Option<u64>,
    /// The run ends after this time at the latest, and its learning rate falls accordingly. Then it depends on the
    /// speed of the machine, and is not the same twice.
    pub time: Option<Duration>,
    /// Texts of a step.
    pub batch: usize,
    /// Threads, each with a part of the texts of a step. Their number is part of what decides the bits: other parts are
    /// other sums.
    pub threads: usize,
    /// Learning rate after the warm-up; from there it falls to 0 in a line.
    pub lr: f64,
    /// How much faster rows of the table of features move.
    pub table_lr: f64,
    /// Steps of warm-up.
    pub warmup: u64,
    /// Weight decay of the projections.
    pub weight_decay: f64,
    /// Weight decay of the rows of the table.
    pub table_decay: f64,
    /// How much of the average of the weights stays in a step; what is validated and exported is the average. 0 takes
    /// none.
    pub average: f64,
    /// Weight of the divergence of two versions of each utterance, which then are seen side by side; 0 is off.
    pub agreement: f64,
    /// Share of the elements of word vectors that is left out.
    pub word_dropout: f64,
    /// How much of what is right is what teachers say, where there are some.
    pub taught: f64,
    /// Largest norm of the gradient; 0 is off.
    pub clip: f64,
    /// Share of the inputs of heads that is left out.
    pub dropout: f64,
    /// Probability that goes to all intents alike.
    pub smoothing: f64,
    /// Weight of the loss of tags relative to that of intents.
    pub tag_weight: f32,
    /// Whether scores of transitions between tags are learned; otherwise they are all 0, and only forbidden ones differ.
    pub transitions: bool,
    /// Share of the run in which nothing is quantised.
    pub float_share: f64,
    /// Validations without a better one after which the run ends; 0 is never.
    pub patience: u64,
    /// The share of utterances in scope that shall get their right intent, whatever is out of scope that then is not
    /// noticed; without it the threshold balances the two.
    pub in_scope: Option<f64>,
    /// Whether only slots that were seen with an intent are found with it.
    pub slots_of_intents: bool,
    /// Whether slots that no utterance has twice are found at most once.
    pub once: bool,
    /// How the training data is varied.
    pub augmentation: Augmentation,
    /// Seed of the parameters, the order, the errors and everything else that is random.
    pub seed: u64,
}

impl Default for ExtractOptions {
    fn default() -> Self {
        Self {
            hidden: 128,
            layers: 2,
            heads: 4,
            ffn: 384,
            mixers: Vec::new(),
            directions: Directions::Both,
            buckets: 16384,
            runs: true,
            reach: 1,
            activation: Activation::Silu,
            passes: 30,
            least_steps: 2000,
            steps: None,
            time: None,
            batch: 64,
            threads: 1,
            lr: 2e-3,
            table_lr: 2.0,
            warmup: 100,
            weight_decay: 0.05,
            table_decay: 0.0,
            average: 0.0,
            agreement: 0.0,
            word_dropout: 0.0,
            taught: 0.7,
            clip: 1.0,
            dropout: 0.2,
            smoothing: 0.05,
            tag_weight: 0.5,
            transitions: true,
            float_share: 0.0,
            patience: 12,
            in_scope: None,
            slots_of_intents: true,
            once: false,
            augmentation: Augmentation::default(),
            seed: 1,
        }
    }
}

impl ExtractOptions {
    /// Checks what the configuration of the model does not.
    ///
    /// # Errors
    /// [`TrainError::Option`].
    pub fn validate(&self) -> Result<(), TrainError> {
        let bad = |option, value: &dyn std::fmt::Display, must| {
            Err(TrainError::Option { option, value: value.to_string(), must })
        };
        if !(1..=4096).contains(&self.batch) {
            return bad("batch", &self.batch, "between 1 and 4096");
        }
        if !(1..=64).contains(&self.threads) {
            return bad("threads", &self.threads, "between 1 and 64");
        }
        if self.steps == Some(0) || self.passes == 0 {
            return bad("steps", &0, "at least 1");
        }
        if self.time.is_some_and(|t| t.is_zero()) {
            return bad("time", &"0", "more than nothing");
        }
        for (option, value) in [("lr", self.lr), ("table-lr", self.table_lr)] {
            if !(value > 0.0 && value.is_finite()) {
                return bad(option, &value, "a positive number");
            }
        }
        for (option, value) in [
            ("weight-decay", self.weight_decay),
            ("table-decay", self.table_decay),
            ("agreement", self.agreement),
            ("clip", self.clip),
            ("tag-weight", f64::from(self.tag_weight)),
        ] {
            if !(value >= 0.0 && value.is_finite()) {
                return bad(option, &value, "a number of at least 0");
            }
        }
        if !(0.0..1.0).contains(&self.average) {
            return bad("average", &self.average, "at least 0 and below 1");
        }
        let a = &self.augmentation;
        for (option, value) in [
            ("dropout", self.dropout),
            ("word-dropout", self.word_dropout),
            ("smoothing", self.smoothing),
            ("feature-dropout", a.feature_dropout),
            ("left-out", a.left_out),
            ("masked", a.masked),
        ] {
            if !(0.0..=0.9).contains(&value) {
                return bad(option, &value, "between 0 and 0.9");
            }
        }
        for (option, value) in [
            ("float-share", self.float_share),
            ("typos", a.typos),
            ("exchange", a.exchange),
            ("crossed", a.crossed),
            ("mixtures", a.mixtures),
            ("taught", self.taught),
            ("in-scope", self.in_scope.unwrap_or(0.0)),
        ] {
            if !(0.0..=1.0).contains(&value) {
                return bad(option, &value, "between 0 and 1");
            }
        }
        if !(1..=1000).contains(&a.outside_repeats) {
            return bad("outside-repeats", &a.outside_repeats, "between 1 and 1000");
        }
        Ok(())
    }

    /// The configuration of a model of these tasks.
    pub(super) fn config(&self, tasks: &[TaskData]) -> ExtractorConfig {
        let of = |data: &TaskData| {
            let mut task = TaskConfig::new(&data.name, data.intents.clone(), data.slots.clone());
            if self.slots_of_intents && !data.slots.is_empty() {
                task.intent_slots = Some(data.slots_of_intents());
            }
            if self.once {
                task.once = data.slots_seen_once();
            }
            task
        };
        let mut config = ExtractorConfig::new(tasks.iter().map(of).collect());
        config.buckets = self.buckets;
        config.runs = self.runs;
        config.reach = self.reach;
        config.hidden_size = self.hidden;
        config.num_layers = self.layers;
        config.num_heads = self.heads;
        config.intermediate_size = self.ffn;
        config.mixers = match self.mixers.as_slice() {
            [one] => vec![*one; self.layers.min(64)],
            all => all.to_vec(),
        };
        config.directions = self.directions;
        config.activation = self.activation;
        config
    }

    pub(super) fn weights(&self) -> Weights {
        Weights {
            tags: self.tag_weight,
            smoothing: self.smoothing as f32,
            dropout: self.dropout as f32,
            word_dropout: self.word_dropout as f32,
            agreement: self.agreement as f32,
            taught: self.taught as f32,
            transitions: self.transitions,
        }
    }

    /// Rates of step `step`, counted from 0, when `done` of the run is over.
    pub(super) fn rates(&self, step: u64, done: f64) -> StepRates {
        let warm = if step < self.warmup { (step + 1) as f64 / self.warmup as f64 } else { 1.0 };
        let lr = self.lr * warm * (1.0 - done);
        StepRates {
            rates: Rates { lr, weight_decay: self.weight_decay },
            table: self.table_lr,
            table_decay: self.table_decay,
            clip: self.clip,
            average: self.average,
        }
    }
}
