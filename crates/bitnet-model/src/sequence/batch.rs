//! Several texts in one pass over the weights.

use smallvec::SmallVec;

use super::Sequence;
use crate::engine::{HeadRequest, LogitsWanted, StepInput, StepOutput};
use crate::{Engine, ModelError};

/// The input of one text to a [`step`].
#[derive(Debug)]
pub struct BatchInput<'a> {
    /// The text.
    pub sequence: &'a mut Sequence,
    /// Tokens to read after those that are pending.
    pub tokens: &'a [u32],
    /// The requested logits after the last token, if any.
    pub head: Option<HeadRequest>,
}

/// Reads the tokens of all inputs in one pass over the weights of `engine`. The result for each text is the same, bit
/// for bit, as if it had gone alone. `out` receives the logits; its buffers are reused between steps.
///
/// # Errors
/// [`ModelError::ForeignSequence`] for a text of another engine, and the errors of [`Engine::step`]. Then no text has
/// changed.
pub fn step(engine: &Engine, inputs: &mut [BatchInput<'_>], out: &mut StepOutput) -> Result<(), ModelError> {
    if inputs.iter().any(|i| !i.sequence.engine().is(engine)) {
        return Err(ModelError::ForeignSequence);
    }
    inputs.iter_mut().try_for_each(|input| input.sequence.drop_lookahead())?;
    inputs.iter_mut().for_each(|input| input.sequence.tokens.extend_from_slice(input.tokens));
    let mut steps: SmallVec<[StepInput<'_>; 16]> = inputs
        .iter_mut()
        .map(|BatchInput { sequence, head, .. }| {
            let wanted = if head.is_some() { LogitsWanted::Last } else { LogitsWanted::None };
            let Sequence { state, tokens, .. } = &mut **sequence;
            // A lost state may have read more; the engine rejects it.
            let unread = &tokens[state.len().min(tokens.len())..];
            StepInput { state, tokens: unread, wanted, head: head.unwrap_or_default() }
        })
        .collect();
    let read: SmallVec<[bool; 16]> = steps.iter().map(|step| !step.tokens.is_empty()).collect();
    out.clear();
    let result = engine.step(&mut steps, out);
    drop(steps);
    let mut position = 0;
    for (BatchInput { sequence, head, .. }, read) in inputs.iter_mut().zip(read) {
        if result.is_err() {
            sequence.tokens.truncate(sequence.len);
        } else if read {
            sequence.stepped(&[], head.map(|_| (&*out, position)));
            position += usize::from(head.is_some());
        }
    }
    result
}
