//! The training loop.

use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::time::Instant;

use super::{
    AdamW, Checkpoint, Event, Finish, Learner, Muon, OptimizerKind, Params, Progress, Sampler, TokenFile, TrainConfig,
    TrainError, gradient_norm, monitor,
};
use crate::ModelConfig;

/// Validation data: the file's first windows, always the same.
#[derive(Debug)]
pub struct Validation {
    file: TokenFile,
}

impl Validation {
    /// Validates with `file`.
    ///
    /// # Errors
    /// [`TrainError::TooShort`] for less than one window of `t` predictions.
    pub fn new(file: TokenFile, t: usize) -> Result<Self, TrainError> {
        // Opening a sampler checks exactly this.
        Ok(Self { file: Sampler::new(file, t, 0)?.into_file() })
    }

    /// Mean cross entropy in nats per token of at most `windows` windows of `t` tokens from the beginning, `b` at a
    /// time: window `i` predicts tokens `i t + 1 ..= (i + 1) t`, or those of record `i` of examples, and nothing is
    /// carried between windows, nor between documents where the file knows their ends.
    ///
    /// # Errors
    /// Errors of the file and of the learner.
    pub fn loss(
        &mut self,
        learner: &mut dyn Learner,
        params: &Params,
        [b, t]: [usize; 2],
        windows: u64,
    ) -> Result<f64, TrainError> {
        let windows = self.file.windows(t).min(windows.max(1));
        let (mut nats, mut predictions, mut at) = (0.0, 0.0, 0);
        while at < windows {
            let n = (b as u64).min(windows - at);
            let mut ids = Vec::new();
            for w in at..at + n {
                self.file.read(w * self.file.stride(t), t + 1, &mut ids)?;
            }
            let batch = self.file.batch(ids, n as usize, t)?;
            nats += learner.loss(params, &batch)? * batch.predictions() as f64;
            predictions += batch.predictions() as f64;
            at += n;
        }
        Ok(nats / predictions)
    }
}

/// A run: model, data, optimizer, and progress.
pub struct Trainer<L> {
    model: ModelConfig,
    config: TrainConfig,
    learner: L,
    params: Params,
    average: Option<Params>,
    adam: AdamW,
    muon: Muon,
    sampler: Sampler,
    validation: Option<Validation>,
    progress: Progress,
    path: PathBuf,
    grads: Vec<f32>,
}

impl<L> std::fmt::Debug for Trainer<L> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Trainer")
            .field("config", &self.config)
            .field("progress", &self.progress)
            .finish_non_exhaustive()
    }
}

impl<L: Learner> Trainer<L> {
    /// A run at step 0, with parameters initialised from the seed. Checkpoints go to the file `path`.
    ///
    /// # Errors
    /// An invalid configuration; data shorter than a window.
    pub fn new(
        model: &ModelConfig,
        config: &TrainConfig,
        learner: L,
        [train, validation]: [Option<TokenFile>; 2],
        path: &Path,
    ) -> Result<Self, TrainError> {
        config.validate()?;
        let params = Params::init(model, config.seed, config.init_std)?;
        let adam = AdamW::new(config.adamw, params.values.len());
        let progress = Progress::default();
        let (model, config) = (model.clone(), config.clone());
        let checkpoint = Checkpoint { model, config, params, average: None, adam, progress };
        Self::resume(checkpoint, learner, [train, validation], path)
    }

    /// A run that continues from a checkpoint, over the same data.
    ///
    /// # Errors
    /// The errors of [`Trainer::new`].
    pub fn resume(
        checkpoint: Checkpoint,
        learner: L,
        [train, validation]: [Option<TokenFile>; 2],
        path: &Path,
    ) -> Result<Self, TrainError> {
        let Checkpoint { model, config, params, average, adam, progress } = checkpoint;
        let more = config.context;
        if let Some(limit) = model.context_limit().filter(|limit| more > *limit) {
            return Err(crate::ModelError::ContextFull { limit, used: 0, more }.into());
        }
        let apart = |mut file: TokenFile| {
            file.set_document_end(config.document_end);
            file
        };
        let [train, validation] = [train.map(apart), validation.map(apart)];
        let Some(train) = train else {
            return Err(TrainError::Option { option: "data", value: "absent".into(), must: "a file of tokens" });
        };
        let draw = if config.whole_documents { Sampler::of_documents } else { Sampler::new };
        let mut sampler = draw(train, config.context, config.seed)?;
        sampler.set_window(config.windows(progress.stage)[1])?;
        sampler.position = progress.position;
        let validation = validation.map(|f| Validation::new(f, config.context)).transpose()?;
        let grads = vec![0.0; params.values.len()];
        let path = path.to_path_buf();
        let muon = Muon::new(config.muon);
        let average = (config.ema > 0.0).then(|| average.unwrap_or_else(|| params.clone()));
        Ok(Self { model, config, learner, params, average, adam, muon, sampler, validation, progress, path, grads })
    }

    /// The master weights.
    pub fn params(&self) -> &Params {
        &self.params
    }

    /// The weights to validate and export: the moving average of the master weights, or, where there is none, the
    /// master weights.
    pub fn trained(&self) -> &Params {
        self.average.as_ref().unwrap_or(&self.params)
    }

    /// Steps of the run in all; `None` where they depend on a time and too few were measured.
    pub fn steps(&self) -> Option<u64> {
        match self.config.time {
            None => Some(self.config.steps),
            Some(_) => self.progress.clock.planned,
        }
    }

    /// Where the run stands.
    pub fn progress(&self) -> &Progress {
        &self.progress
    }

    /// The run as a checkpoint.
    pub fn checkpoint(&self) -> Checkpoint {
        Checkpoint {
            model: self.model.clone(),
            config: self.config.clone(),
            params: self.params.clone(),
            average: self.average.clone(),
            adam: self.adam.clone(),
            progress: self.progress.clone(),
        }
    }

    /// Runs until all steps are done, `see` breaks, or validations stop improving. The checkpoint is written at the
    /// end, at each interval, and when `see` breaks; never after a failed step.
    ///
    /// # Errors
    /// [`TrainError::NotFinite`] for a loss or gradient that is not finite; the errors of data, learner and files.
    pub fn run(&mut self, see: &mut dyn FnMut(Event<'_>) -> ControlFlow<()>) -> Result<Finish, TrainError> {
        let mut began = Instant::now();
        while self.steps().is_none_or(|steps| self.progress.step < steps) {
            let mut go_on = ControlFlow::Continue(());
            if let Some(steps) = self.plan() {
                go_on = see(Event::Plan { step: self.progress.step, steps });
            }
            let steps = self.steps();
            let step = self.progress.step + 1;
            let due = |every: u64| every > 0 && step.is_multiple_of(every);
            let look = due(self.config.validate_every) || steps == Some(step);
            let before = look.then(|| monitor::trits(&self.model, &self.params)).transpose()?;
            let seen = see(self.step(steps)?);
            go_on = if go_on.is_break() { go_on } else { seen };
            let mut stop = false;
            if let Some(before) = before {
                let layers = monitor::compare(&self.model, &self.params, &before)?;
                let seen = see(Event::Trits { step, layers: &layers });
                go_on = if go_on.is_break() { go_on } else { seen };
                if let Some(event) = self.validate()? {
                    go_on = if go_on.is_break() { go_on } else { see(event) };
                }
                stop = self.config.patience > 0 && self.progress.since_best >= self.config.patience;
            }
            if self.config.time.is_some() {
                // With the checkpoint of the step before.
                self.progress.clock.seconds += began.elapsed().as_secs_f64();
                self.progress.clock.steps = self.progress.clock.steps.saturating_add(1);
                began = Instant::now();
            }
            let ended = stop || go_on.is_break() || steps == Some(step);
            if ended || due(self.config.checkpoint_every) {
                self.checkpoint().save(&self.path)?;
                let saved = see(Event::Saved { path: &self.path });
                go_on = if go_on.is_break() { go_on } else { saved };
            }
            if steps == Some(step) {
                break;
            }
            if stop {
                return Ok(Finish::EarlyStop);
            }
            if go_on.is_break() {
                return Ok(Finish::Interrupted);
            }
        }
        Ok(Finish::Completed)
    }

    /// Another number of steps, if the time of the run asks for one.
    fn plan(&mut self) -> Option<u64> {
        let changed = self.progress.clock.plan(self.progress.step, self.config.time?);
        changed.then_some(self.progress.clock.planned)?
    }

    fn step(&mut self, steps: Option<u64>) -> Result<Event<'static>, TrainError> {
        let began = Instant::now();
        let c = &self.config;
        let rates = c.rates(self.progress.step, steps.unwrap_or(u64::MAX));
        // Another plan may be longer; windows do not shrink.
        let stage = c.stage(self.progress.step, steps.unwrap_or(u64::MAX)).max(self.progress.stage);
        let [windows, t] = c.windows(stage);
        if stage != self.progress.stage {
            self.sampler.set_window(t)?;
        }
        self.learner.set_inner_rate(c.inner_rate(self.progress.step) as f32);
        self.grads.fill(0.0);
        let mut loss = 0.0;
        for _ in 0..c.accumulate {
            let batch = self.sampler.next_batch(windows)?;
            loss += self.learner.accumulate(&self.params, &batch, &mut self.grads)? / c.accumulate as f64;
        }
        let grad_norm = gradient_norm(&self.grads) / c.accumulate as f64;
        let number = self.progress.step + 1;
        for (what, value) in [("loss", loss), ("gradient", grad_norm)] {
            if !value.is_finite() {
                return Err(TrainError::NotFinite { what, value, step: number, lr: rates.lr });
            }
        }
        let clip = if c.clip > 0.0 && grad_norm > c.clip { c.clip / grad_norm } else { 1.0 };
        let scale = (clip / c.accumulate as f64) as f32;
        let (params, grads) = (&mut self.params, &self.grads[..]);
        self.adam.step_where(|e| !c.optimizer.is_muon(e.role), params, grads, scale, rates, c.threads)?;
        match c.optimizer {
            OptimizerKind::AdamW => {}
            OptimizerKind::Muon => {
                self.muon.step(params, grads, &mut self.adam.m, scale, c.muon_rates(rates), c.threads)?;
            }
        }
        if let Some(average) = &mut self.average {
            // The first weights are forgotten sooner: they are random.
            let keep = c.ema.min(number as f64 / (number as f64 + 9.0)) as f32;
            for (a, w) in average.values.iter_mut().zip(&self.params.values) {
                *a = keep * *a + (1.0 - keep) * w;
            }
        }
        self.progress.step = number;
        (self.progress.stage, self.progress.position) = (stage, self.sampler.position);
        let tokens = c.tokens_per_step();
        let tok_s = tokens as f64 / began.elapsed().as_secs_f64();
        Ok(Event::Step { step: number, tokens: tokens * number, loss, lr: rates.lr, grad_norm, tok_s })
    }

    fn validate(&mut self) -> Result<Option<Event<'_>>, TrainError> {
        let Some(validation) = &mut self.validation else { return Ok(None) };
        let c = &self.config;
        let shape = [c.batch, c.context];
        let params = self.average.as_ref().unwrap_or(&self.params);
        let nats_per_token = validation.loss(&mut self.learner, params, shape, c.validate_windows)?;
        let best = self.progress.best.is_none_or(|b| nats_per_token < b);
        if best {
            self.progress.best = Some(nats_per_token);
            self.progress.since_best = 0;
        } else {
            self.progress.since_best += 1;
        }
        Ok(Some(Event::Validation { step: self.progress.step, nats_per_token, best, params: self.trained() }))
    }
}
