//! One forward step for a caller: checked before anything changes, and undone if it fails.

use smallvec::SmallVec;

use super::blocks::lm_head::{HeadRequest, StepOutput};
use super::handle::Engine;
use super::input::{LogitsWanted, StepInput};
use super::limits::{INLINE_PARTS, MAX_ROWS};
use super::schedule;
use super::segment::Segment;
use super::state::SequenceState;
use super::workspace::Workspace;
use crate::ModelError;

impl Engine {
    /// Passes tokens of several sequences through the model in one pass over the weights, and appends the requested
    /// predictions to `out`, in the order of the inputs.
    ///
    /// The result for each sequence is the same, bit for bit, as if it had been fed alone, token by token.
    ///
    /// # Errors
    /// [`ModelError::TokenOutOfRange`], [`ModelError::ContextFull`], [`ModelError::ForeignSequence`],
    /// [`ModelError::StateLost`] and [`ModelError::NoHead`] before anything is computed; [`ModelError::Diverged`] if an
    /// activation is not finite. After an error the states are as before, with one exception: the state of a text that
    /// went alone through a model with test-time-training layers is lost, and rejected from then on.
    pub fn step(&self, inputs: &mut [StepInput<'_>], out: &mut StepOutput) -> Result<(), ModelError> {
        inputs.iter().try_for_each(|input| self.check(input.state, input.tokens))?;
        if self.config().headless && inputs.iter().any(|input| input.wanted != LogitsWanted::None) {
            return Err(ModelError::NoHead);
        }
        let before: SmallVec<[usize; INLINE_PARTS]> = inputs.iter().map(|i| i.state.len()).collect();
        let mut workspace = self.lock();
        // Several texts must not lose their states because of one. A single one would fail again, and the data that the
        // end of a mini-batch overwrites is as large as the state.
        let several = inputs.len() > 1;
        if several {
            schedule::remember(&mut workspace, inputs);
        }
        inputs.iter_mut().for_each(|input| input.state.layers.begin_step());
        let result = schedule::run(self.network(), &mut workspace, inputs, out);
        match result {
            Ok(()) => {
                schedule::complete(self.network(), &mut workspace, inputs);
                inputs.iter_mut().for_each(|input| input.state.layers.end_step());
            }
            Err(_) => {
                for (i, (input, len)) in inputs.iter_mut().zip(before).enumerate() {
                    let undo = several.then(|| &workspace.undo[i][..]);
                    input.state.layers.fail_step(len, input.tokens.len(), undo);
                }
            }
        }
        result
    }

    /// Reads `tokens` like [`Engine::step`], without predictions, and returns for each test-time-training layer its
    /// inner losses `|f(k; W) - v|^2 / 2`, `[tokens, heads]` f32, each at the inner weights of the beginning of its
    /// mini-batch: how well the state predicted a token before it read it. For analysis; it takes longer than a step.
    ///
    /// # Errors
    /// The errors of [`Engine::step`]; the state of a text whose step fails is lost.
    pub fn inner_losses(&self, state: &mut SequenceState, tokens: &[u32]) -> Result<Vec<Vec<f32>>, ModelError> {
        self.check(state, tokens)?;
        let (network, state) = (self.network(), &mut state.layers);
        let mut losses = vec![Vec::new(); state.ttt.len()];
        let mut workspace = self.lock();
        let Workspace { team, buffers, .. } = &mut *workspace;
        let before = state.len();
        state.begin_step();
        for tokens in tokens.chunks(MAX_ROWS) {
            state.kv.reserve(state.len() + tokens.len());
            let head = HeadRequest::default();
            let mut block = [Segment { state: &mut *state, tokens, first_row: 0, wanted: 0..0, head }];
            let mut out = StepOutput::default();
            let result = network.forward(team, buffers, &mut block, tokens.len(), Some(&mut losses), &mut out);
            if let Err(error) = result {
                state.fail_step(before, 0, None);
                return Err(error);
            }
            network.complete(state, buffers.blocks.ttt.as_mut());
        }
        state.end_step();
        Ok(losses)
    }

    /// Predicts again what follows the last token of `state`, for another `request`; appended to `out` as one position.
    /// Nothing is read again: the state keeps the input of the head. Returns `false` if it does not, because it was
    /// rewound.
    ///
    /// # Errors
    /// [`ModelError::ForeignSequence`], [`ModelError::StateLost`], [`ModelError::NoHead`].
    pub fn predict(
        &self,
        state: &SequenceState,
        request: HeadRequest,
        out: &mut StepOutput,
    ) -> Result<bool, ModelError> {
        self.check(state, &[])?;
        if self.config().headless {
            return Err(ModelError::NoHead);
        }
        let Some(last) = state.last() else { return Ok(false) };
        let mut workspace = self.lock();
        let Workspace { team, buffers, .. } = &mut *workspace;
        buffers.reserve(self.config(), 1);
        buffers.residual[..last.len()].copy_from_slice(last);
        self.network().logits(team, buffers, std::iter::once((0, request)), out);
        Ok(true)
    }

    /// Whether `tokens` may follow what `state` holds.
    pub(crate) fn check(&self, state: &SequenceState, tokens: &[u32]) -> Result<(), ModelError> {
        if !state.engine().is(self) {
            return Err(ModelError::ForeignSequence);
        }
        state.usable()?;
        self.check_tokens(tokens)?;
        let (limit, used, more) = (state.limit(), state.len(), tokens.len());
        if used.saturating_add(more) > limit {
            return Err(ModelError::ContextFull { limit, used, more });
        }
        Ok(())
    }
}
