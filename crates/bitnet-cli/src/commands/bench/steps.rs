//! The measurements of `bitnet bench`: prefill, decode of one sequence, decode of several.

use std::time::Instant;

use bitnet::{Batch, EmbedOptions, GenerateOptions, Model, Sampler, SamplingOptions, Sequence};
use measure::Samples;

use crate::energy::EnergyMeter;
use crate::error::CliError;
use crate::progress;
use crate::ui::Ui;

/// Results of the repetitions of one measurement.
#[derive(Debug)]
pub(super) struct Measured {
    /// Tokens per second of each repetition.
    pub(super) rates: Samples,
    /// Seconds of the warm-up run.
    pub(super) first_s: f64,
    /// Energy of all repetitions, divided by their tokens.
    pub(super) joules_per_token: Option<f64>,
}

/// `rounds` repetitions of `work`, which processes `tokens` tokens and returns its seconds; one more repetition warms
/// up.
pub(super) fn measure(
    ui: &Ui,
    what: &str,
    rounds: usize,
    tokens: usize,
    mut work: impl FnMut() -> Result<f64, CliError>,
) -> Result<Measured, CliError> {
    let bar = progress::of_steps(ui, what, rounds as u64 + 1);
    let first_s = work()?;
    bar.inc(1);
    let meter = EnergyMeter::start();
    let mut rates = Vec::with_capacity(rounds);
    for _ in 0..rounds {
        rates.push(tokens as f64 / work()?);
        bar.inc(1);
    }
    let joules_per_token = meter.and_then(|m| m.joules()).map(|j| j / (rounds * tokens) as f64);
    bar.finish_and_clear();
    Ok(Measured { rates: rates.into(), first_s, joules_per_token })
}

/// Seconds for reading `n` tokens into an empty context; of an embedding model, for the vector of a text of `n` tokens.
pub(super) fn prefill(model: &Model, n: usize) -> Result<f64, CliError> {
    let tokens: Vec<u32> = (0..n).map(|i| token(model, i)).collect();
    if model.config().headless {
        let texts = [tokens];
        let began = Instant::now();
        model.embed_ids(&texts, EmbedOptions::default())?;
        return Ok(began.elapsed().as_secs_f64());
    }
    let mut sequence = Sequence::new(model.engine(), model.kv_type(), Some(n));
    let began = Instant::now();
    sequence.feed(&tokens)?;
    Ok(began.elapsed().as_secs_f64())
}

/// Rows of the head that were computed after a coarse pass, in all decode steps.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Rescored {
    rows: usize,
    pub(super) tokens: usize,
}

impl Rescored {
    pub(super) fn mean(self) -> f64 {
        self.rows as f64 / self.tokens.max(1) as f64
    }
}

/// `rounds` repetitions of `n` steps of one token each, with the choice of the next token, after `context` tokens that
/// are read once, or filled; and the bytes of the session at the end.
pub(super) fn decode(
    model: &Model,
    ui: &Ui,
    rounds: usize,
    n: usize,
    (context, fill): (usize, bool),
    rescored: &mut Rescored,
    note: &mut dyn FnMut(usize),
) -> Result<(Measured, usize), CliError> {
    let mut options = SamplingOptions::default();
    options.temperature = 0.0;
    let mut sampler = Sampler::new(options).map_err(bitnet::Error::from)?;
    let mut sequence = Sequence::new(model.engine(), model.kv_type(), Some(context + n));
    if fill {
        sequence.fill_dummy(context)?;
    } else {
        let before: Vec<u32> = (0..context).map(|i| token(model, i)).collect();
        sequence.feed(&before)?;
    }
    let first = model.config().bos_token_id.unwrap_or_else(|| token(model, 0));
    // If the model cannot be rewound, every repetition continues from a copy.
    let start = (!sequence.state().can_rewind()).then(|| sequence.fork());
    let measured = measure(ui, "decode", rounds, n, || {
        match &start {
            Some(start) => sequence = start.fork(),
            None => sequence.rewind(context)?,
        }
        let mut next = first;
        let began = Instant::now();
        for _ in 0..n {
            sequence.feed_for(&[next], &sampler, None)?;
            let position = sequence.len() as u64;
            next = sampler.choose(sequence.prediction(), position, sequence.tokens()).map_err(bitnet::Error::from)?;
            if let Some(rows) = sequence.rescored() {
                (rescored.rows, rescored.tokens) = (rescored.rows + rows, rescored.tokens + 1);
            }
        }
        Ok(began.elapsed().as_secs_f64())
    })?;
    let bytes = sequence.state().bytes();
    note(bytes);
    Ok((measured, bytes))
}

/// `rounds` repetitions of `n` tokens of each of `sessions` texts that are generated together, after `context` tokens
/// of each; `note` receives the bytes that the texts occupy.
pub(super) fn together(
    model: &Model,
    ui: &Ui,
    rounds: usize,
    [n, context, sessions]: [usize; 3],
    rescored: &mut Rescored,
    note: &mut dyn FnMut(usize),
) -> Result<Measured, CliError> {
    // A token beyond the context begins each text.
    let (prompt, all) = (context + 1, n * sessions);
    measure(ui, "decode", rounds, all, || {
        let mut batch = Batch::new(model);
        let mut tickets = Vec::with_capacity(sessions);
        for s in 0..sessions {
            let mut options = GenerateOptions::default().max_tokens(n).temperature(0.0);
            options.ignore_eos = true;
            let text: Vec<u32> = (0..prompt).map(|i| token(model, s + i * sessions)).collect();
            tickets.push(batch.join(model.session(), &text, options)?);
        }
        let mut began = Instant::now();
        while !batch.is_finished() {
            let chunks = batch.step();
            // All prompts have the same length, and the step of their last token yields the first ones of the text:
            // anything before it is not measured.
            if chunks.is_empty() {
                began = Instant::now();
            }
            for (_, chunk) in chunks {
                chunk?;
            }
        }
        let seconds = began.elapsed().as_secs_f64();
        let left: Vec<_> = tickets.into_iter().filter_map(|t| batch.leave(t)).collect();
        note(left.iter().map(|(session, _)| session.state().bytes()).sum());
        for (_, output) in left {
            rescored.rows += output.stats.rows_rescored;
            rescored.tokens += output.stats.coarse_tokens;
        }
        Ok(seconds)
    })
}

/// Tokens that are all over the vocabulary, the same in every run.
fn token(model: &Model, i: usize) -> u32 {
    let vocab = model.config().vocab_size as u64;
    // A multiple of the golden ratio jumps evenly; below `vocab`, which is far below 2^32.
    ((i as u64 + 1).wrapping_mul(0x9E37_79B9_7F4A_7C15) % vocab) as u32
}
