//! Several texts in one pass over the weights.

use smallvec::SmallVec;

use super::Decoder;
use crate::engine::{HeadRequest, LogitsWanted, StepInput, StepOutput};
use crate::{Engine, ModelError};

/// What one text takes part with in a [`step`].
#[derive(Debug)]
pub struct BatchInput<'a> {
    /// The text.
    pub decoder: &'a mut Decoder,
    /// Tokens to read after the one chosen last.
    pub tokens: &'a [u32],
    /// Which logits are wanted of what follows the last token, if any.
    pub head: Option<HeadRequest>,
}

/// Reads the tokens of all inputs in one pass over the weights of `engine`. Each text is then as if it had gone alone,
/// bit for bit. `out` receives the logits; its buffers are reused between steps.
///
/// # Errors
/// [`ModelError::ForeignSequence`] for a text of another engine, and the errors of [`Engine::step`]. All texts are then
/// as before.
pub fn step(engine: &Engine, inputs: &mut [BatchInput<'_>], out: &mut StepOutput) -> Result<(), ModelError> {
    if inputs.iter().any(|i| !i.decoder.sequence.engine().is(engine)) {
        return Err(ModelError::ForeignSequence);
    }
    for BatchInput { decoder, tokens, .. } in inputs.iter_mut() {
        decoder.drop_lookahead()?;
        let Decoder { pending, draft, .. } = &mut **decoder;
        draft.clear();
        draft.extend(pending.iter().chain(*tokens));
    }
    let mut steps: SmallVec<[StepInput<'_>; 16]> = inputs
        .iter_mut()
        .map(|BatchInput { decoder, head, .. }| {
            let wanted = if head.is_some() { LogitsWanted::Last } else { LogitsWanted::None };
            let Decoder { sequence, draft, .. } = &mut **decoder;
            sequence.step_input(draft, wanted, head.unwrap_or_default())
        })
        .collect();
    out.clear();
    engine.step(&mut steps, out)?;
    drop(steps);
    let mut position = 0;
    for BatchInput { decoder, head, .. } in inputs {
        let Decoder { sequence, draft, .. } = &mut **decoder;
        if !draft.is_empty() {
            sequence.stepped(draft, head.map(|_| (&*out, position)));
            position += usize::from(head.is_some());
        }
        decoder.pending.clear();
    }
    Ok(())
}
