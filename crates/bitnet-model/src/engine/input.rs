//! What a forward step is given.

use super::blocks::lm_head::HeadRequest;
use super::state::SequenceState;

/// Which positions of a [`StepInput`] the logits are computed for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogitsWanted {
    /// None: the tokens only enter the state.
    None,
    /// The last token.
    Last,
    /// Every token.
    All,
}

/// Tokens that continue one sequence.
#[derive(Debug)]
pub struct StepInput<'a> {
    /// The sequence's state, which goes on by the new tokens.
    pub state: &'a mut SequenceState,
    /// The new tokens.
    pub tokens: &'a [u32],
    /// Which positions to compute logits for.
    pub wanted: LogitsWanted,
    /// Which logits of these positions.
    pub head: HeadRequest,
}
