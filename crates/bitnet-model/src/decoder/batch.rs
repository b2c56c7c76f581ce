//! Several texts in one pass over the weights.

use smallvec::SmallVec;

use super::Decoder;
use crate::engine::{LogitsWanted, StepInput};
use crate::{Engine, ModelError};

/// What one text takes part with in a [`step`].
#[derive(Debug)]
pub struct BatchInput<'a> {
    /// The text.
    pub decoder: &'a mut Decoder,
    /// Tokens to read after the one chosen last.
    pub tokens: &'a [u32],
    /// Whether the next token is to be chosen from what follows.
    pub choose: bool,
}

/// Reads the tokens of all inputs in one pass over the weights of `engine`. Each text is then as if it had gone alone, bit for
/// bit. `logits` is working memory, kept between steps.
///
/// # Errors
/// [`ModelError::ForeignSequence`] for a text of another engine, and those of [`Engine::step`]. All texts are then as before.
pub fn step(engine: &Engine, inputs: &mut [BatchInput<'_>], logits: &mut Vec<f32>) -> Result<(), ModelError> {
    if inputs.iter().any(|i| !i.decoder.sequence.engine().is(engine)) {
        return Err(ModelError::ForeignSequence);
    }
    for BatchInput { decoder, tokens, .. } in inputs.iter_mut() {
        decoder.settle();
        let pending = decoder.pending;
        decoder.draft.clear();
        decoder.draft.extend(pending.into_iter().chain(tokens.iter().copied()));
    }
    let mut steps: SmallVec<[StepInput<'_>; 16]> = inputs
        .iter_mut()
        .map(|BatchInput { decoder, choose, .. }| {
            let wanted = if *choose { LogitsWanted::Last } else { LogitsWanted::None };
            let Decoder { sequence, draft, .. } = &mut **decoder;
            sequence.step_input(draft, wanted)
        })
        .collect();
    logits.clear();
    engine.step(&mut steps, logits)?;
    drop(steps);
    let mut rows = logits.chunks_exact(engine.config().vocab_size);
    for BatchInput { decoder, choose, .. } in inputs {
        let Decoder { sequence, draft, .. } = &mut **decoder;
        if !draft.is_empty() {
            let row = if *choose { rows.next().unwrap_or_default() } else { &[] };
            sequence.stepped(draft, row);
        }
        decoder.pending = None;
    }
    Ok(())
}
