//! The distribution of the work of a forward step among threads.
//!
//! In a large model the threads [share](shared) every product, because its weights come from memory. If all weights are
//! in the caches, a product takes less time than sharing it, and the results of one thread are in another core's cache.
//! Then each thread takes [whole sequences](per_sequence), or pieces of one. Results do not depend on it: the value of
//! a token never depends on what is computed with it.

mod per_sequence;
mod shared;

use smallvec::SmallVec;
use ternary_kernels::Team;
use ttt_layer::{Scratch as HeadScratch, TttState};

use super::blocks::lm_head::StepOutput;
use super::input::StepInput;
use super::limits::INLINE_PARTS;
use super::network::Network;
use super::workspace::Workspace;
use crate::ModelError;

/// Tokens of a text that the caller computes alone.
const INLINE_MAX_TOKENS: usize = 4;
/// Tokens up to which attention to them takes less time than the products.
const INLINE_MAX_CONTEXT: usize = 1024;
/// Tokens of a text from which on it is split into pieces.
const PIECES_FROM: usize = 32;

/// Passes the tokens of all inputs through the model, on workers if there are some and they are faster.
pub(super) fn run(
    network: &Network,
    workspace: &mut Workspace,
    inputs: &mut [StepInput<'_>],
    out: &mut StepOutput,
) -> Result<(), ModelError> {
    let Workspace { team, buffers, workers, .. } = workspace;
    let config = &network.config;
    let only_ttt = config.attention_layers() == 0 && !config.has_delta();
    // Whether attention to the text so far, if any, is not worth sharing.
    let is_short = |input: &StepInput<'_>| config.attention_layers() == 0 || input.state.len() < INLINE_MAX_CONTEXT;
    match inputs {
        // Within a part of another team's job there is one thread. Rows after the last layer are not collected from
        // workers.
        _ if workers.is_empty() || Team::is_nested() || out.keeps_hidden() => {
            shared::run(network, team, buffers, inputs, out)
        }
        [input] if workers.len() == 1 || (input.tokens.len() <= INLINE_MAX_TOKENS && is_short(input)) => {
            let worker = &mut workers[0];
            shared::run(network, &worker.team, &mut worker.buffers, inputs, out)
        }
        [input] if input.tokens.len() >= PIECES_FROM && only_ttt => {
            per_sequence::in_pieces(network, team, workers, input, out)
        }
        [_] => shared::run(network, team, buffers, inputs, out),
        inputs => per_sequence::whole(network, team, workers, inputs, out),
    }
}

/// Saves what a step of several texts will overwrite and rewinding cannot restore. Each thread reads the states of the texts that
/// it usually computes, which are in its cache.
pub(super) fn remember(workspace: &mut Workspace, inputs: &[StepInput<'_>]) {
    let Workspace { team, undo, .. } = workspace;
    if undo.len() < inputs.len() {
        undo.resize_with(inputs.len(), Vec::new);
    }
    let per = inputs.len().div_ceil(team.threads());
    let mut parts: SmallVec<[_; INLINE_PARTS]> = inputs.chunks(per).zip(undo.chunks_mut(per)).collect();
    team.run_parts(&mut parts, |_, (inputs, undo)| {
        let texts = inputs.iter().zip(undo.iter_mut());
        texts.for_each(|(input, undo)| input.state.layers.remember(input.tokens.len(), undo));
    });
}

/// Applies the inner updates of mini-batches that ended with the last tokens of `inputs`: nothing can fail any more.
pub(super) fn complete(network: &Network, workspace: &mut Workspace, inputs: &mut [StepInput<'_>]) {
    let Workspace { team, buffers, workers, .. } = workspace;
    let Some(ttt) = &mut buffers.blocks.ttt else { return };
    if !inputs.iter().any(|i| i.state.layers.ttt.iter().any(TttState::is_due)) {
        return;
    }
    let one = |first: usize, states: &mut [TttState], scratch: &mut HeadScratch| {
        let layers = network.ttt_layers().skip(first);
        layers.zip(states).for_each(|(layer, state)| layer.complete(state, scratch));
    };
    match inputs {
        // Small models run on one thread.
        [input] if !workers.is_empty() => one(0, &mut input.state.layers.ttt, &mut ttt.threads[0]),
        [input] => {
            let states = &mut input.state.layers.ttt;
            let per = states.len().div_ceil(team.threads());
            let mut parts: SmallVec<[_; INLINE_PARTS]> = states.chunks_mut(per).zip(&mut ttt.threads).collect();
            team.run_parts(&mut parts, |i, (states, scratch)| one(i * per, states, scratch));
        }
        inputs => {
            let per = inputs.len().div_ceil(team.threads());
            let mut parts: SmallVec<[_; INLINE_PARTS]> = inputs.chunks_mut(per).zip(&mut ttt.threads).collect();
            team.run_parts(&mut parts, |_, (inputs, scratch)| {
                inputs.iter_mut().for_each(|input| one(0, &mut input.state.layers.ttt, scratch));
            });
        }
    }
}
