//! Small models: each thread takes whole texts, or whole pieces of a text, through all layers.
//!
//! In a large model the threads share every product, because its weights come from memory. Where all weights lie in the
//! caches, a product takes less time than the phase that shares it, and what one thread has written lies in the cache of
//! another. There, a *lane* is a thread with buffers of its own:
//!
//! - Several texts are dealt out to the lanes, and the threads meet once in a step.
//! - One text of test-time-training layers is cut into pieces. A piece needs nothing of the one before it but the state of the
//!   same layer, which is handed on like a baton: while one lane is in the second layer, the next one is in the first.
//! - A few tokens of one text are computed by the caller alone.
//!
//! No result depends on it: the value of a token never depends on what is computed with it.

use std::num::NonZeroUsize;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use smallvec::SmallVec;
use ternary_kernels::{KernelError, Team};
use ttt_layer::TttState;

use super::linear::Linear;
use super::scratch::{MAX_ROWS, Scratch};
use super::step::{INLINE_PARTS, NonFinite, StepInput};
use super::ttt::Texts;
use super::{Inner, Layer, LogitsWanted, StepOutput, Workspace, head};
use crate::ModelError;

/// Bytes of packed weights up to which a model is small: those that a core's own caches hold, with some from the shared one.
const LANES_MAX_WEIGHT_BYTES: usize = 4 << 20;
/// Tokens of a text that the caller computes alone.
const INLINE_MAX_TOKENS: usize = 4;
/// Tokens up to which looking at them takes less time than the products.
const INLINE_MAX_CONTEXT: usize = 1024;
/// Tokens of a text from which on it is cut into pieces.
const PIECES_FROM: usize = 32;
/// Tokens of a piece: more than kernels unpack weights for tile by tile (64), few enough that the buffers stay in the cache.
const PIECE: [usize; 4] = [80, 96, 112, 128];

/// Looks at a state that is another lane's before a nap: some hundred microseconds.
const LOOKS: u32 = 4096;
/// A nap.
const NAP: Duration = Duration::from_micros(20);

/// A thread with buffers of its own.
#[derive(Debug)]
pub(super) struct Lane {
    /// Of one thread.
    team: Team,
    scratch: Scratch,
    out: StepOutput,
}

impl Lane {
    pub(super) fn scratch(&self) -> &Scratch {
        &self.scratch
    }
}

/// A lane for each thread if `wanted`, or if nothing is said and the model is small; else none. `scratch` makes the buffers for
/// a number of threads.
pub(super) fn of(
    wanted: Option<bool>,
    layers: &[Layer],
    threads: usize,
    scratch: impl Fn(usize) -> Scratch,
) -> Result<Vec<Lane>, KernelError> {
    let is_small =
        || layers.iter().flat_map(Layer::linears).map(Linear::byte_len).sum::<usize>() <= LANES_MAX_WEIGHT_BYTES;
    if !wanted.unwrap_or_else(is_small) {
        return Ok(Vec::new());
    }
    let lane = |_| Ok(Lane { team: Team::new(NonZeroUsize::MIN)?, scratch: scratch(1), out: StepOutput::default() });
    (0..threads).map(lane).collect()
}

impl Inner {
    /// The step, by lanes where they pay.
    pub(super) fn share(
        &self,
        ws: &mut Workspace,
        inputs: &mut [StepInput<'_>],
        out: &mut StepOutput,
    ) -> Result<(), ModelError> {
        let Workspace { team, scratch, lanes } = ws;
        match inputs {
            // Within a part of another team's job there is one thread. Nor are rows behind the last layer brought together from lanes.
            _ if lanes.is_empty() || Team::is_nested() || out.keeps_hidden() => self.step(team, scratch, inputs, out),
            [input] if lanes.len() == 1 || (input.tokens.len() <= INLINE_MAX_TOKENS && self.is_short(input)) => {
                let lane = &mut lanes[0];
                self.step(&lane.team, &mut lane.scratch, inputs, out)
            }
            [input] if input.tokens.len() >= PIECES_FROM && self.only_learns() => {
                self.in_pieces(team, lanes, input, out)
            }
            [_] => self.step(team, scratch, inputs, out),
            inputs => self.by_text(team, lanes, inputs, out),
        }
    }

    /// Whether all layers are test-time-training layers.
    fn only_learns(&self) -> bool {
        self.config.attention_layers() == 0 && !self.config.has_delta()
    }

    /// Whether attention to the text so far, if there is any, is not worth sharing.
    fn is_short(&self, input: &StepInput<'_>) -> bool {
        self.config.attention_layers() == 0 || input.state.len() < INLINE_MAX_CONTEXT
    }

    /// Deals out the texts, consecutive ones to a lane.
    fn by_text(
        &self,
        team: &Team,
        lanes: &mut [Lane],
        inputs: &mut [StepInput<'_>],
        out: &mut StepOutput,
    ) -> Result<(), ModelError> {
        let (total, count) = (inputs.iter().map(|i| i.tokens.len()).sum::<usize>(), lanes.len());
        let (mut rest, mut dealt) = (inputs, 0);
        let mut jobs: SmallVec<[_; INLINE_PARTS]> = SmallVec::new();
        for (i, lane) in lanes.iter_mut().enumerate() {
            let upto = total * (i + 1) / count;
            let mut own = 0;
            while own < rest.len() && (i + 1 == count || dealt + rest[own].tokens.len().div_ceil(2) <= upto) {
                dealt += rest[own].tokens.len();
                own += 1;
            }
            let (own, behind) = rest.split_at_mut(own);
            rest = behind;
            jobs.push((own, lane, Ok(())));
        }
        team.run_parts(&mut jobs, |_, (inputs, lane, result)| {
            lane.out.clear();
            *result = self.step(&lane.team, &mut lane.scratch, inputs, &mut lane.out);
        });
        for (_, lane, result) in jobs {
            result?;
            (0..lane.out.len()).for_each(|i| out.push_position(&lane.out, i));
        }
        Ok(())
    }

    /// Cuts one text into pieces, which the lanes take in turn.
    fn in_pieces(
        &self,
        team: &Team,
        lanes: &mut [Lane],
        input: &mut StepInput<'_>,
        out: &mut StepOutput,
    ) -> Result<(), ModelError> {
        let (n, count, hidden) = (input.tokens.len(), lanes.len(), self.config.hidden_size);
        let size = piece_size(n, count, self.layers.len());
        let pieces = n.div_ceil(size);
        let first = input.state.len();
        let handoff = StateHandoff::new(&mut input.state.ttt);
        let (tokens, wanted, head) = (input.tokens, input.wanted, input.head);
        lanes.iter_mut().for_each(|lane| lane.out.clear());
        let mut rooms: SmallVec<[_; INLINE_PARTS]> = lanes.iter_mut().enumerate().collect();
        let mut parts: SmallVec<[Done; INLINE_PARTS]> = SmallVec::from_elem(Done::default(), pieces);
        // In line, because each piece waits for the one before it, layer by layer.
        team.run_in_line(&mut parts, &mut rooms, |at, done, (number, lane)| {
            let tokens = &tokens[at * size..n.min((at + 1) * size)];
            let rows = match wanted {
                LogitsWanted::None => 0..0,
                LogitsWanted::Last if at + 1 < pieces => 0..0,
                LogitsWanted::Last => tokens.len() - 1..tokens.len(),
                LogitsWanted::All => 0..tokens.len(),
            };
            let piece = Piece { handoff: &handoff, at };
            let guard = handoff.failing_from(at);
            let Lane { team, scratch, out } = &mut **lane;
            (done.lane, done.out) = (*number, out.len()..out.len() + rows.len());
            if let Err((what, row)) = self.piece(team, scratch, tokens, &piece) {
                done.failed = Some((what, first + at * size + row));
                return;
            }
            guard.disarm();
            head::run(self, team, scratch, rows.map(|row| (row, head)), out);
        });
        // Of the pieces that failed by themselves, the first one: which that is does not depend on the threads.
        if let Some((what, position)) = parts.iter().find_map(|done| done.failed) {
            return Err(ModelError::Diverged { what, position });
        }
        drop(handoff);
        drop(rooms);
        for Done { lane, out: rows, .. } in &parts {
            rows.clone().for_each(|i| out.push_position(&lanes[*lane].out, i));
        }
        // The lane that did the last piece did no other after it.
        let last = (n - 1) % size;
        let x = &lanes[parts[pieces - 1].lane].scratch.x;
        input.state.advance_rest(n, &x[last * hidden..(last + 1) * hidden]);
        Ok(())
    }

    /// One piece through all layers; its residual stream is in `s.x` then.
    fn piece(&self, team: &Team, s: &mut Scratch, tokens: &[u32], piece: &Piece<'_, '_>) -> Result<(), NonFinite> {
        s.reserve(&self.config, tokens.len());
        self.embed(tokens, &mut s.x);
        self.layers(team, s, &mut Texts::Piece(piece), tokens.len())
    }
}

/// What became of a piece.
#[derive(Clone, Debug, Default)]
struct Done {
    /// Who did it.
    lane: usize,
    /// Its positions in that lane's output.
    out: std::ops::Range<usize>,
    /// What is not finite, and the position.
    failed: Option<NonFinite>,
}

/// Tokens of a piece when `count` lanes share `n` tokens: what lets the last lane finish first. Lane after lane begins later, by
/// about three quarters of a layer.
fn piece_size(n: usize, count: usize, layers: usize) -> usize {
    let longest = |size: usize| {
        let rounds = n.div_ceil(size * count);
        let load = (n.saturating_sub((rounds - 1) * size * count)).min(size) + (rounds - 1) * size;
        load + 3 * size * (count - 1) / (4 * layers.max(1))
    };
    let even = n.div_ceil(count).next_multiple_of(16);
    if even <= PIECE[0] { even } else { PIECE.into_iter().min_by_key(|&size| longest(size)).unwrap_or(PIECE[0]) }
}
const _: () = assert!(PIECE[PIECE.len() - 1] <= MAX_ROWS);

/// The states of one text, handed from piece to piece, layer by layer.
struct StateHandoff<'a> {
    layers: SmallVec<[(Mutex<&'a mut TttState>, AtomicUsize); INLINE_PARTS]>,
    /// The first piece that failed.
    failed: AtomicUsize,
}

impl<'a> StateHandoff<'a> {
    fn new(states: &'a mut [TttState]) -> Self {
        let layers = states.iter_mut().map(|state| (Mutex::new(state), AtomicUsize::new(0))).collect();
        Self { layers, failed: AtomicUsize::new(usize::MAX) }
    }

    /// Until it is told otherwise, piece `at` counts as failed when the guard is dropped, also by a panic.
    fn failing_from(&self, at: usize) -> Failing<'_> {
        Failing { failed: &self.failed, at }
    }
}

struct Failing<'a> {
    failed: &'a AtomicUsize,
    at: usize,
}

impl Failing<'_> {
    fn disarm(self) {
        std::mem::forget(self);
    }
}

impl Drop for Failing<'_> {
    fn drop(&mut self) {
        self.failed.fetch_min(self.at, Ordering::Release);
    }
}

/// A piece of a text, and when its turn is.
pub(super) struct Piece<'r, 'a> {
    handoff: &'r StateHandoff<'a>,
    at: usize,
}

/// Error of a chunk that was cancelled by an earlier failure; never returned.
const EARLIER_FAILED: NonFinite = ("an earlier piece of the text", usize::MAX / 2);

impl Piece<'_, '_> {
    /// Waits until the piece before this one is through with layer `slot`, and lets `f` change the state.
    pub(super) fn in_turn(&self, slot: usize, f: impl FnOnce(&mut TttState)) -> Result<(), NonFinite> {
        let (state, turn) = &self.handoff.layers[slot];
        let mut looks = 0u32;
        while turn.load(Ordering::Acquire) != self.at {
            if self.handoff.failed.load(Ordering::Acquire) < self.at {
                return Err(EARLIER_FAILED);
            }
            looks += 1;
            // Who is waited for so long has lost its CPU, and may need this one. Sleep keeps the claim to the CPU, beside other
            // programs, too; giving it away does not.
            if looks.is_multiple_of(LOOKS) { std::thread::sleep(NAP) } else { std::hint::spin_loop() }
        }
        f(&mut state.lock().unwrap_or_else(PoisonError::into_inner));
        Ok(())
    }

    /// The same, and lets the next piece have its turn.
    pub(super) fn pass_on(&self, slot: usize, f: impl FnOnce(&mut TttState)) -> Result<(), NonFinite> {
        self.in_turn(slot, f)?;
        self.handoff.layers[slot].1.store(self.at + 1, Ordering::Release);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pieces_are_dealt_out_evenly() {
        for n in 32..2000 {
            for count in 1..5 {
                let size = piece_size(n, count, 6);
                assert!(size > 0 && size <= MAX_ROWS && n.div_ceil(size) >= 1);
            }
        }
        assert_eq!(piece_size(1024, 2, 6), 128);
        assert_eq!(piece_size(60, 2, 6), 32);
    }
}
