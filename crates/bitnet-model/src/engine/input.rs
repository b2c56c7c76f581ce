//! The input of a forward step.

use super::blocks::lm_head::HeadRequest;
use super::state::SequenceState;

/// The positions of a [`StepInput`] whose logits are computed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogitsWanted {
    /// None: the tokens only update the state.
    None,
    /// The last token.
    Last,
    /// Every token.
    All,
}

/// Tokens that continue one sequence.
#[derive(Debug)]
pub struct StepInput<'a> {
    /// The sequence's state, which the new tokens advance.
    pub state: &'a mut SequenceState,
    /// The new tokens.
    pub tokens: &'a [u32],
    /// The positions to compute logits for.
    pub wanted: LogitsWanted,
    /// The requested logits of these positions.
    pub head: HeadRequest,
}
