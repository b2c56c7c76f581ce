//! The sequence-parallel schedule: each thread takes whole texts, or whole pieces of a text, through all layers, with
//! its own buffers.
//!
//! - Several texts are distributed to the workers, and the threads synchronise once per step.
//! - One text of test-time-training layers is split into pieces. A piece only needs the state of the same layer from
//!   the previous one, which is passed on like a baton: while one worker is in the second layer, the next one is in the
//!   first.

use smallvec::SmallVec;
use ternary_kernels::Team;

use crate::ModelError;
use crate::engine::blocks::lm_head::StepOutput;
use crate::engine::handoff::{Piece, StateHandoff};
use crate::engine::input::{LogitsWanted, StepInput};
use crate::engine::limits::{INLINE_PARTS, MAX_ROWS, NonFinite};
use crate::engine::network::Network;
use crate::engine::segment::Texts;
use crate::engine::workspace::Worker;

/// Tokens of a piece: more than those for which kernels unpack weights tile by tile (64), few enough that the buffers
/// stay in the cache.
const PIECE: [usize; 4] = [80, 96, 112, 128];

/// Distributes the texts, consecutive ones to a worker.
pub(super) fn whole(
    network: &Network,
    team: &Team,
    workers: &mut [Worker],
    inputs: &mut [StepInput<'_>],
    out: &mut StepOutput,
) -> Result<(), ModelError> {
    let (total, count) = (inputs.iter().map(|i| i.tokens.len()).sum::<usize>(), workers.len());
    let (mut rest, mut dealt) = (inputs, 0);
    let mut jobs: SmallVec<[_; INLINE_PARTS]> = SmallVec::new();
    for (i, worker) in workers.iter_mut().enumerate() {
        let upto = total * (i + 1) / count;
        let mut own = 0;
        while own < rest.len() && (i + 1 == count || dealt + rest[own].tokens.len().div_ceil(2) <= upto) {
            dealt += rest[own].tokens.len();
            own += 1;
        }
        let (own, others) = rest.split_at_mut(own);
        rest = others;
        jobs.push((own, worker, Ok(())));
    }
    team.run_parts(&mut jobs, |_, (inputs, Worker { team, buffers, out }, result)| {
        out.clear();
        *result = super::shared::run(network, team, buffers, inputs, out);
    });
    for (_, worker, result) in jobs {
        result?;
        (0..worker.out.len()).for_each(|i| out.push_position(&worker.out, i));
    }
    Ok(())
}

/// Splits one text into pieces, which the workers take in turn.
pub(super) fn in_pieces(
    network: &Network,
    team: &Team,
    workers: &mut [Worker],
    input: &mut StepInput<'_>,
    out: &mut StepOutput,
) -> Result<(), ModelError> {
    let (tokens, count, hidden) = (input.tokens.len(), workers.len(), network.config.hidden_size);
    let size = piece_size(tokens, count, network.layers.len());
    let pieces = tokens.div_ceil(size);
    let state = &mut input.state.layers;
    let first = state.len();
    let handoff = StateHandoff::new(&mut state.ttt);
    let (text, wanted, head) = (input.tokens, input.wanted, input.head);
    workers.iter_mut().for_each(|worker| worker.out.clear());
    let mut rooms: SmallVec<[_; INLINE_PARTS]> = workers.iter_mut().enumerate().collect();
    let mut parts: SmallVec<[Done; INLINE_PARTS]> = SmallVec::from_elem(Done::default(), pieces);
    // In order, because each piece waits for the previous one, layer by layer.
    team.run_in_line(&mut parts, &mut rooms, |at, done, (number, worker)| {
        let tokens = &text[at * size..tokens.min((at + 1) * size)];
        let rows = match wanted {
            LogitsWanted::None => 0..0,
            LogitsWanted::Last if at + 1 < pieces => 0..0,
            LogitsWanted::Last => tokens.len() - 1..tokens.len(),
            LogitsWanted::All => 0..tokens.len(),
        };
        let guard = handoff.failing_from(at);
        let Worker { team, buffers, out } = &mut **worker;
        (done.worker, done.out) = (*number, out.len()..out.len() + rows.len());
        buffers.reserve(&network.config, tokens.len());
        network.embed(tokens, &mut buffers.residual);
        let piece = Piece { handoff: &handoff, at };
        if let Err((what, row)) = network.layers(team, buffers, &mut Texts::Piece(&piece), tokens.len()) {
            done.failed = Some((what, first + at * size + row));
            return;
        }
        guard.disarm();
        network.logits(team, buffers, rows.map(|row| (row, head)), out);
    });
    // Of the pieces that failed by themselves, the first one: it does not depend on the threads.
    if let Some((what, position)) = parts.iter().find_map(|done| done.failed) {
        return Err(ModelError::Diverged { what, position });
    }
    drop(handoff);
    drop(rooms);
    for Done { worker, out: rows, .. } in &parts {
        rows.clone().for_each(|i| out.push_position(&workers[*worker].out, i));
    }
    // The worker of the last piece did no other after it.
    let last = (tokens - 1) % size;
    let residual = &workers[parts[pieces - 1].worker].buffers.residual;
    state.advance_rest(tokens, &residual[last * hidden..(last + 1) * hidden]);
    Ok(())
}

/// The outcome of a piece.
#[derive(Clone, Debug, Default)]
struct Done {
    /// The worker that did it.
    worker: usize,
    /// Its positions in that worker's output.
    out: std::ops::Range<usize>,
    /// The operation whose result is not finite, and the position.
    failed: Option<NonFinite>,
}

/// Tokens of a piece when `count` workers share `tokens` tokens: the number with which the last worker finishes first.
/// Each worker begins later than the one before, by about three quarters of a layer.
fn piece_size(tokens: usize, count: usize, layers: usize) -> usize {
    let longest = |size: usize| {
        let rounds = tokens.div_ceil(size * count);
        let load = (tokens.saturating_sub((rounds - 1) * size * count)).min(size) + (rounds - 1) * size;
        load + 3 * size * (count - 1) / (4 * layers.max(1))
    };
    let even = tokens.div_ceil(count).next_multiple_of(16);
    if even <= PIECE[0] { even } else { PIECE.into_iter().min_by_key(|&size| longest(size)).unwrap_or(PIECE[0]) }
}
const _: () = assert!(PIECE[PIECE.len() - 1] <= MAX_ROWS);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pieces_are_dealt_out_evenly() {
        for tokens in 32..2000 {
            for count in 1..5 {
                let size = piece_size(tokens, count, 6);
                assert!(size > 0 && size <= MAX_ROWS && tokens.div_ceil(size) >= 1);
            }
        }
        assert_eq!(piece_size(1024, 2, 6), 128);
        assert_eq!(piece_size(60, 2, 6), 32);
    }
}
