//! One constrained text in the making: which tokens may come next, and which must.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bitnet_model::sampling::LogitsProcessor;
use llguidance::TokenParser;

use super::ConstraintError;
use super::compile::Compiled;
use super::guard::{Phase, guarded};
use super::limits::{ConstraintLimits, within};

/// The progress of the text.
pub(crate) struct Matching {
    parser: TokenParser,
    limits: Arc<ConstraintLimits>,
    /// Tokens that must come next, because nothing else can.
    forced: VecDeque<u32>,
    /// Why no mask could be computed.
    failure: Option<ConstraintError>,
}

/// Nothing panics while it holds the lock: the engine's panics are caught.
pub(crate) fn lock(matching: &Mutex<Matching>) -> MutexGuard<'_, Matching> {
    matching.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Matching {
    /// Begins a text; the automata that it derives are not shared, so that failures do not depend on other texts.
    pub(super) fn new(compiled: &Compiled, limits: Arc<ConstraintLimits>) -> Result<Self, ConstraintError> {
        let parser = guarded(&limits, Phase::Step, || Ok(compiled.parser.deep_clone()))?;
        Ok(Self { parser, limits, forced: compiled.forced.iter().copied().collect(), failure: None })
    }

    /// The token that must come next, if only one can.
    pub(crate) fn forced(&self) -> Option<u32> {
        self.forced.front().copied()
    }
    /// Whether the text may end here.
    pub(crate) fn is_complete(&mut self) -> bool {
        let Self { parser, limits, forced, .. } = self;
        forced.is_empty() && guarded(limits, Phase::Step, || Ok(parser.is_accepting())).unwrap_or(false)
    }
    /// Approximate memory of its automata, in bytes. It grows with the text.
    pub(crate) fn bytes(&self) -> usize {
        // The automata, and the expressions that they are derived from.
        2 * self.parser.parser.lexer_stats().num_bytes
    }
    /// Whether nothing can follow.
    pub(crate) fn is_finished(&self) -> bool {
        self.parser.stopped()
    }
    /// Why no mask could be computed, once.
    pub(crate) fn take_failure(&mut self) -> Option<ConstraintError> {
        self.failure.take()
    }

    /// Takes the next token of the text.
    pub(crate) fn accept(&mut self, token: u32) -> Result<(), ConstraintError> {
        let Self { parser, limits, .. } = self;
        let back = guarded(limits, Phase::Step, || {
            let back = parser.consume_token(token)?;
            parser.check_stop()?;
            Ok(back)
        })?;
        if back != 0 {
            return Err(ConstraintError::engine("a `stop` of the grammar would take tokens back; use `suffix`"));
        }
        if self.forced.pop_front() != Some(token) {
            self.forced.clear();
        }
        if self.forced.is_empty() { self.look_ahead() } else { Ok(()) }
    }

    fn look_ahead(&mut self) -> Result<(), ConstraintError> {
        let Self { parser, limits, forced, .. } = self;
        if !parser.stopped() {
            forced.extend(guarded(limits, Phase::Step, || Ok(parser.compute_ff_tokens()))?);
        }
        self.check()
    }

    /// Whether the automata have broken down or grown too large.
    fn check(&self) -> Result<(), ConstraintError> {
        let Self { parser, limits, .. } = self;
        let bytes = guarded(limits, Phase::Step, || match parser.parser.get_error() {
            Some(error) => Err(error.message().into()),
            None => Ok(parser.parser.lexer_stats().num_bytes as u64),
        })?;
        within(bytes, limits.automata_bytes as u64, "automata_bytes", || {
            format!("the automata of the text take {bytes} bytes")
        })
    }

    /// Forbids all tokens that cannot come next.
    fn mask(&mut self, logits: &mut [f32]) -> Result<(), ConstraintError> {
        let Self { parser, limits, .. } = self;
        let mask = guarded(limits, Phase::Step, || match parser.stopped() {
            true if parser.stop_reason().is_ok() => Ok(parser.token_env.tok_trie().eos_token_set()),
            true => Err(parser.error_message().unwrap_or_else(|| parser.stop_reason().to_string()).into()),
            false => Ok(parser.compute_mask()?),
        })?;
        self.check()?;
        for (logits, bits) in logits.chunks_mut(32).zip(mask.as_slice().iter().chain(std::iter::repeat(&0))) {
            for (i, logit) in logits.iter_mut().enumerate() {
                if (bits >> i) & 1 == 0 {
                    *logit = f32::NEG_INFINITY;
                }
            }
        }
        Ok(())
    }

    /// The tokens that may come next.
    #[cfg(all(test, feature = "tiny-model"))]
    pub(super) fn allowed(&mut self, vocabulary: usize) -> Result<Vec<u32>, ConstraintError> {
        let mut logits = vec![0.0; vocabulary];
        self.mask(&mut logits)?;
        Ok((0..vocabulary as u32).filter(|i| logits[*i as usize] == 0.0).collect())
    }
}

/// The mask as the last of the processors, so that no other can allow what it forbids.
pub(crate) struct Mask(pub(crate) Arc<Mutex<Matching>>);

impl LogitsProcessor for Mask {
    fn process(&mut self, _tokens: &[u32], logits: &mut [f32]) {
        let mut matching = lock(&self.0);
        if let Err(error) = matching.mask(logits) {
            logits.fill(f32::NEG_INFINITY);
            matching.failure = Some(error);
        }
    }
}
