//! Configuration of a run, in a file and in checkpoints.

use serde::{Deserialize, Serialize};

use super::{AdamWOptions, MuonOptions, OptimizerKind, Rates, Schedule, TrainError};
use crate::ModelConfig;

/// Everything that determines the computation of a run, except the model's shape and the data.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct TrainConfig {
    /// Optimizer steps; of no use where there is a `time`.
    pub steps: u64,
    /// Seconds after which the run ends, at about: it has as many steps as fit, and the learning rate falls in these.
    /// Then its bits depend on how fast the machine is.
    pub time: Option<f64>,
    /// Windows of a batch.
    pub batch: usize,
    /// Batches of a step, whose gradients are averaged.
    pub accumulate: usize,
    /// Predicted tokens of a window.
    pub context: usize,
    /// Predicted tokens of the first windows, which double in equal parts of the run until they are `context`; a step
    /// always has as many tokens (arXiv:2108.06084, arXiv:2310.00576). 0 for windows of one length.
    pub context_start: usize,
    /// Whether the data are examples, a prompt and its completion each: windows then hold whole examples only, and
    /// prompts are read, but not learned.
    pub examples: bool,
    /// The token that ends a document of the data: what follows it in a window is a text of its own, which sees nothing
    /// of what was before, and whose first token is not learned. `None` for windows that are one text each.
    pub document_end: Option<u32>,
    /// Whether batches are made of whole documents instead of windows that cut them: of as many as have about as many
    /// tokens. Documents of more than `context` predictions come in parts.
    pub whole_documents: bool,
    /// Seed of initialisation and data order.
    pub seed: u64,
    /// Deviation of the initial matrices.
    pub init_std: f64,
    /// Largest norm of the gradient; larger ones are scaled down. 0 for no clipping.
    pub clip: f64,
    /// Lanes of the fused learner, one thread each; they affect the bits of the result.
    pub threads: usize,
    /// Steps between validations; 0 for only the last.
    pub validate_every: u64,
    /// At most this many windows of validation.
    pub validate_windows: u64,
    /// Steps between checkpoints; 0 for only the last.
    pub checkpoint_every: u64,
    /// Steps over which the inner learning rate of test-time-training layers rises to its full value; 0 for none.
    pub inner_warmup: u64,
    /// The share of the inner learning rate that the warm-up begins with, above 0.
    pub inner_start: f64,
    /// Stop after this many validations without a better one; 0 for never.
    pub patience: u64,
    /// Share of the moving average of the weights that stays in a step; it is what is validated and exported. 0 for
    /// the weights themselves.
    pub ema: f64,
    /// Learning rate and weight decay.
    pub schedule: Schedule,
    /// The optimizer of the ternary projections.
    pub optimizer: OptimizerKind,
    /// Constants of AdamW.
    pub adamw: AdamWOptions,
    /// Constants of Muon.
    pub muon: MuonOptions,
}

impl Default for TrainConfig {
    fn default() -> Self {
        Self {
            inner_warmup: 0,
            inner_start: 0.1,
            steps: 1000,
            time: None,
            batch: 32,
            accumulate: 1,
            context: 256,
            context_start: 0,
            examples: false,
            document_end: None,
            whole_documents: false,
            seed: 1,
            init_std: 0.02,
            clip: 1.0,
            threads: ternary_kernels::available_cpus().get().min(1024),
            validate_every: 100,
            validate_windows: 128,
            checkpoint_every: 100,
            patience: 0,
            ema: 0.0,
            schedule: Schedule::default(),
            optimizer: OptimizerKind::default(),
            adamw: AdamWOptions::default(),
            muon: MuonOptions::default(),
        }
    }
}

impl TrainConfig {
    /// Checks that every number is valid.
    ///
    /// # Errors
    /// [`TrainError::Option`] naming the first invalid one.
    pub fn validate(&self) -> Result<(), TrainError> {
        let s = &self.schedule;
        let (o, muon) = (&self.adamw, &self.muon);
        let rate = |v: f64| v.is_finite() && (0.0..=10.0).contains(&v);
        let beta = |v: f64| (0.0..1.0).contains(&v);
        let start = self.inner_start;
        let checks: [(&'static str, String, bool, &'static str); 24] = [
            ("steps", self.steps.to_string(), self.steps > 0, "at least 1"),
            (
                "time",
                format!("{} s", self.time.unwrap_or(0.0)),
                self.time.is_none_or(|t| t > 0.0 && t <= 1e9),
                "above 0 and at most 1e9",
            ),
            ("ema", self.ema.to_string(), beta(self.ema), "0 or more and below 1"),
            ("cooldown", s.cooldown.to_string(), (0.0..=1.0).contains(&s.cooldown), "0 to 1"),
            ("batch", self.batch.to_string(), (1..=1 << 20).contains(&self.batch), "1 to 1048576"),
            ("accumulate", self.accumulate.to_string(), (1..=1 << 20).contains(&self.accumulate), "1 to 1048576"),
            ("context", self.context.to_string(), (1..=1 << 20).contains(&self.context), "1 to 1048576"),
            (
                "context_start",
                self.context_start.to_string(),
                self.stages().is_some_and(|stages| stages == 1 || !self.examples),
                "0, or context divided by a power of two, and 0 with examples, whose windows are made for one length",
            ),
            (
                "whole_documents",
                self.whole_documents.to_string(),
                !self.whole_documents || (self.document_end.is_some() && !self.examples),
                "false, or with document_end, and not with examples, whose windows are made beforehand",
            ),
            ("threads", self.threads.to_string(), (1..=1024).contains(&self.threads), "1 to 1024"),
            ("init_std", self.init_std.to_string(), rate(self.init_std), "0 to 10"),
            ("clip", self.clip.to_string(), self.clip.is_finite() && self.clip >= 0.0, "0 or more"),
            ("inner_start", start.to_string(), start > 0.0 && start <= 1.0, "above 0, at most 1"),
            ("peak", s.peak.to_string(), rate(s.peak), "0 to 10"),
            ("peak2", s.peak2.to_string(), rate(s.peak2), "0 to 10"),
            ("boundary", s.boundary.to_string(), (0.0..=1.0).contains(&s.boundary), "0 to 1"),
            ("weight_decay", s.weight_decay.to_string(), rate(s.weight_decay), "0 to 10"),
            ("weight_decay2", s.weight_decay2.to_string(), rate(s.weight_decay2), "0 to 10"),
            ("beta1", o.beta1.to_string(), beta(o.beta1), "0 or more and below 1"),
            ("beta2", o.beta2.to_string(), beta(o.beta2), "0 or more and below 1"),
            ("eps", o.eps.to_string(), o.eps.is_finite() && o.eps > 0.0, "above 0"),
            ("muon.momentum", muon.momentum.to_string(), beta(muon.momentum), "0 or more and below 1"),
            ("muon.steps", muon.steps.to_string(), (1..=100).contains(&muon.steps), "1 to 100"),
            (
                "muon.lr",
                muon.lr.unwrap_or(0.0).to_string(),
                muon.lr.is_none_or(|lr| rate(lr) && s.peak > 0.0 && self.optimizer == OptimizerKind::Muon),
                "0 to 10, with optimizer muon and a peak above 0, with which it rises and falls",
            ),
        ];
        match checks.into_iter().find(|c| !c.2) {
            Some((option, value, _, must)) => Err(TrainError::Option { option, value, must }),
            None => Ok(()),
        }
    }

    /// In how many parts of the run windows have different lengths; `None` for lengths that do not double up to the
    /// last one.
    fn stages(&self) -> Option<u32> {
        if self.context_start == 0 {
            return Some(1);
        }
        let times = self.context / self.context_start;
        let doubles = self.context.is_multiple_of(self.context_start) && times.is_power_of_two();
        doubles.then(|| times.ilog2() + 1)
    }

    /// The part of the run in which step `step` of `steps` is, counted from 0.
    pub(super) fn stage(&self, step: u64, steps: u64) -> u32 {
        let stages = self.stages().unwrap_or(1);
        let stage = u128::from(step) * u128::from(stages) / u128::from(steps.max(1));
        u32::try_from(stage).unwrap_or(u32::MAX).min(stages - 1)
    }

    /// Windows of a batch and their predicted tokens in a part of the run.
    ///
    /// ```
    /// use bitnet_model::train::TrainConfig;
    /// let c = TrainConfig { batch: 4, context: 2048, context_start: 512, ..TrainConfig::default() };
    /// assert_eq!([c.windows(0), c.windows(1), c.windows(2)], [[16, 512], [8, 1024], [4, 2048]]);
    /// ```
    pub fn windows(&self, stage: u32) -> [usize; 2] {
        let halvings = self.stages().unwrap_or(1).saturating_sub(1).saturating_sub(stage);
        [self.batch << halvings, self.context >> halvings]
    }

    /// The rates of step `step`, counted from 0, of `steps`. Where a time decides how many there are, a tenth of them
    /// at most is warm-up.
    pub fn rates(&self, step: u64, steps: u64) -> Rates {
        let warmup = match self.time {
            None => self.schedule.warmup,
            Some(_) => self.schedule.warmup.min(steps / 10),
        };
        Schedule { warmup, ..self.schedule }.at(step, steps)
    }

    /// The rates of Muon where AdamW has `rates`: in the same schedule, with a peak of its own.
    ///
    /// ```
    /// use bitnet_model::train::{MuonOptions, TrainConfig};
    /// let muon = MuonOptions { lr: Some(0.02), ..MuonOptions::default() };
    /// let c = TrainConfig { muon, ..TrainConfig::default() };
    /// let half = c.schedule.at(c.steps / 4, c.steps);
    /// assert_eq!((half.lr, c.muon_rates(half).lr), (0.75 * 2.5e-3, 0.75 * 0.02));
    /// ```
    pub fn muon_rates(&self, rates: Rates) -> Rates {
        let lr = self.muon.lr.map_or(rates.lr, |peak| rates.lr * (peak / self.schedule.peak));
        Rates { lr, ..rates }
    }

    /// The share of the inner learning rate at step `step`, counted from 0.
    ///
    /// ```
    /// use bitnet_model::train::TrainConfig;
    /// let c = TrainConfig { inner_warmup: 9, inner_start: 0.1, ..TrainConfig::default() };
    /// assert_eq!((c.inner_rate(0), c.inner_rate(9), c.inner_rate(100)), (0.1, 1.0, 1.0));
    /// ```
    pub fn inner_rate(&self, step: u64) -> f64 {
        if step >= self.inner_warmup {
            return 1.0;
        }
        self.inner_start + (1.0 - self.inner_start) * step as f64 / self.inner_warmup as f64
    }

    /// The model of a run after `steps` steps: while the inner learning rate warms up, its test-time-training layers
    /// have only a share of it.
    pub fn model_after(&self, steps: u64, model: &ModelConfig) -> ModelConfig {
        let mut model = model.clone();
        let share = self.inner_rate(steps.saturating_sub(1)) as f32;
        model.ttt.base_lr_linear *= share;
        model.ttt.base_lr_mlp *= share;
        model
    }

    /// Predicted tokens of a step.
    pub fn tokens_per_step(&self) -> u64 {
        (self.batch * self.accumulate * self.context) as u64
    }
}
