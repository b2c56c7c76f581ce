//! One constrained text in the making: which tokens may come next, and which must.

use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard, PoisonError};

use bitnet_model::sampling::LogitsProcessor;
use llguidance::Matcher;
use llguidance::api::TopLevelGrammar;

use super::{ConstraintError, Vocabulary};

/// How far the text has come.
pub(crate) struct Matching {
    matcher: Matcher,
    /// Tokens that must come next, because nothing else can.
    forced: VecDeque<u32>,
    /// Why no mask could be computed.
    failure: Option<ConstraintError>,
}

/// Nothing panics while it holds the lock, but for the engine, which then refuses by itself.
pub(crate) fn lock(matching: &Mutex<Matching>) -> MutexGuard<'_, Matching> {
    matching.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Matching {
    pub(super) fn new(vocabulary: &Vocabulary, grammar: TopLevelGrammar) -> Result<Self, ConstraintError> {
        let parser = vocabulary.factory.create_parser(grammar).map_err(ConstraintError::grammar)?;
        let matcher = Matcher::new(Ok(parser));
        let mut matching = Self { matcher, forced: VecDeque::new(), failure: None };
        matching.look_ahead()?;
        Ok(matching)
    }

    /// The token that must come next, if only one can.
    pub(crate) fn forced(&self) -> Option<u32> {
        self.forced.front().copied()
    }
    /// Whether the text may end here.
    pub(crate) fn is_complete(&mut self) -> bool {
        self.forced.is_empty() && self.matcher.is_accepting().unwrap_or(false)
    }
    /// Whether nothing can follow.
    pub(crate) fn is_finished(&self) -> bool {
        self.matcher.is_stopped()
    }
    /// Why no mask could be computed, once.
    pub(crate) fn take_failure(&mut self) -> Option<ConstraintError> {
        self.failure.take()
    }

    /// Takes the next token of the text.
    pub(crate) fn accept(&mut self, token: u32) -> Result<(), ConstraintError> {
        self.matcher.consume_token(token).map_err(ConstraintError::engine)?;
        if self.forced.pop_front() != Some(token) {
            self.forced.clear();
        }
        if self.forced.is_empty() { self.look_ahead() } else { Ok(()) }
    }

    fn look_ahead(&mut self) -> Result<(), ConstraintError> {
        if !self.matcher.is_stopped() {
            self.forced.extend(self.matcher.compute_ff_tokens());
        }
        match self.matcher.get_error() {
            Some(reason) => Err(ConstraintError::engine(reason)),
            None => Ok(()),
        }
    }

    /// Forbids all tokens that cannot come next.
    fn mask(&mut self, logits: &mut [f32]) -> Result<(), ConstraintError> {
        let mask = self.matcher.compute_mask_or_eos().map_err(ConstraintError::engine)?;
        for (logits, bits) in logits.chunks_mut(32).zip(mask.as_slice().iter().chain(std::iter::repeat(&0))) {
            for (i, logit) in logits.iter_mut().enumerate() {
                if (bits >> i) & 1 == 0 {
                    *logit = f32::NEG_INFINITY;
                }
            }
        }
        Ok(())
    }
}

/// The mask as the last of the processors, so that none before it can allow what it forbids.
pub(crate) struct Mask(pub(crate) std::sync::Arc<Mutex<Matching>>);

impl LogitsProcessor for Mask {
    fn process(&mut self, _tokens: &[u32], logits: &mut [f32]) {
        let mut matching = lock(&self.0);
        if let Err(error) = matching.mask(logits) {
            logits.fill(f32::NEG_INFINITY);
            matching.failure = Some(error);
        }
    }
}
