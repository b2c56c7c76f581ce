//! Asking a model, and judging its answers.

use std::time::Instant;

use bitnet::{ConstraintError, Error, GenerateOptions, Model, Stats};

use crate::answer::{Answer, prompt};
use crate::error::IntentError;
use crate::grammar::constraint;
use crate::metrics::{Guess, Share, Slots};
use crate::utterance::{OUT_OF_SCOPE, Utterance};

/// Tokens of an answer at most.
pub const MOST_TOKENS: usize = 160;

/// A model's answer.
#[derive(Clone, Debug, Default)]
pub struct Reply {
    /// Its text; if the answer did not end, its first part.
    pub text: String,
    /// The probability that the model gave to all chosen tokens.
    pub probability: f64,
    /// Its statistics.
    pub stats: Stats,
    /// Time from the call to the answer.
    pub seconds: f64,
}

/// Asks for the likeliest continuation of `prompt` under a grammar for `text`, or without one.
///
/// # Errors
/// Errors of the model; an answer that is too long is not one of them.
pub fn ask(model: &Model, grammar: Option<&str>, prompt: &str, text: &str) -> Result<Reply, IntentError> {
    ask_with(model, grammar, prompt, text, GenerateOptions::default().logprobs(0))
}

/// Like [`ask`], with options of one's own; a probability comes only with log-probabilities.
///
/// # Errors
/// The errors of [`ask`].
pub fn ask_with(
    model: &Model,
    grammar: Option<&str>,
    prompt: &str,
    text: &str,
    options: GenerateOptions,
) -> Result<Reply, IntentError> {
    let began = Instant::now();
    let mut options = options.temperature(0.0).max_tokens(MOST_TOKENS);
    if let Some(grammar) = grammar {
        options = options.constraint(constraint(grammar, text));
    }
    let mut session = model.session();
    let output = match session.generate(prompt, options)?.finish() {
        Ok(output) => output,
        Err(Error::Constraint(ConstraintError::Unfinished { text, .. })) => {
            return Ok(Reply { text, seconds: began.elapsed().as_secs_f64(), ..Reply::default() });
        }
        Err(e) => return Err(e.into()),
    };
    let seconds = began.elapsed().as_secs_f64();
    let sum: f64 = output.logprobs.iter().filter_map(|p| p.logprob).sum();
    Ok(Reply { text: output.text.unwrap_or_default(), probability: sum.exp(), stats: output.stats, seconds })
}

/// Figures of a set of utterances.
#[derive(Clone, Debug, Default)]
pub struct Figures {
    /// Intents that are right.
    pub intents: Share,
    /// Slots.
    pub slots: Slots,
    /// Utterances with everything right.
    pub whole: Share,
    /// For utterances that may be out of scope.
    pub guesses: Vec<Guess>,
    /// Answers that were no answer.
    pub unreadable: usize,
}

impl Figures {
    /// Judges an answer; whether all of it is right.
    pub fn add(&mut self, u: &Utterance, answer: Option<&Answer>, sure: f64) -> bool {
        let nothing = Answer::default();
        self.unreadable += usize::from(answer.is_none());
        let answer = answer.unwrap_or(&nothing);
        let right = answer.intent == u.intent;
        let slots = self.slots.add(&answer.pairs(), &u.pairs());
        self.intents.add(right);
        self.whole.add(right && slots);
        let says_out = answer.intent == OUT_OF_SCOPE;
        self.guesses.push(Guess { right, says_out, sure, is_out: u.intent == OUT_OF_SCOPE });
        right && slots
    }
}

/// Asks about every utterance; `see` gets each with its answer and whether it is right.
///
/// # Errors
/// Errors of the model.
pub fn evaluate(
    model: &Model,
    grammar: Option<&str>,
    utterances: &[Utterance],
    see: &mut dyn FnMut(&Utterance, &Reply, bool),
) -> Result<Figures, IntentError> {
    let mut figures = Figures::default();
    for u in utterances {
        let text = u.said.text();
        let reply = ask(model, grammar, &prompt(u.task, &text), &text)?;
        let right = figures.add(u, Answer::read(&reply.text).ok().as_ref(), reply.probability);
        see(u, &reply, right);
    }
    Ok(figures)
}
