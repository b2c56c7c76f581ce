//! What the engine keeps of one text: keys and values of the layers that are attention, inner models of the
//! test-time-training layers, matrices of the layers of the gated delta rule, and the residual row that the head reads.

use ttt_layer::{DeltaState, TttState};

use super::cache::KvCache;
use super::{Engine, KvType};
use crate::ModelError;
use crate::snapshots::Snapshot;

/// The state of one text in all layers.
///
/// Layers of attention keep keys and values, which grow with the text up to the context. Test-time-training layers and layers of the
/// gated delta rule keep a state of constant size, which cannot be taken back to an earlier token. A clone is a fork: both go on by themselves, and share
/// the keys and values of what they have in common, in pages that are copied only when one of them writes there.
#[derive(Clone, Debug)]
pub struct SequenceState {
    engine: Engine,
    pub(super) kv: KvCache,
    /// In the order of the layers.
    pub(super) ttt: Vec<TttState>,
    /// In the order of the layers.
    pub(super) delta: Vec<DeltaState>,
    /// Residual stream behind the last layer after the last token, `[hidden]`; what the head reads.
    last: Vec<f32>,
    /// Whether `last` belongs to the last token.
    has_last: bool,
    /// Whether a step was broken off that had begun to change `ttt` or `delta`.
    lost: bool,
}

impl SequenceState {
    /// The state before the first token, for at most `limit` tokens.
    pub fn new(engine: &Engine, kv: KvType, limit: usize) -> Self {
        Self {
            kv: KvCache::new(engine.config(), kv, limit),
            ttt: engine.ttt_layers().map(TttState::new).collect(),
            delta: engine.delta_layers().map(DeltaState::new).collect(),
            last: vec![0.0; engine.config().hidden_size],
            has_last: false,
            lost: false,
            engine: engine.clone(),
        }
    }

    /// The engine that it belongs to.
    pub fn engine(&self) -> &Engine {
        &self.engine
    }
    /// Tokens so far.
    pub fn len(&self) -> usize {
        self.kv.len()
    }
    /// Whether there is no token yet.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
    /// Most tokens that it may hold.
    pub fn limit(&self) -> usize {
        self.kv.limit()
    }
    /// How keys and values are stored.
    pub fn kv_type(&self) -> KvType {
        self.kv.kv_type()
    }
    /// Bytes of keys and values held now; they grow with the text, by pages of 256 tokens. Those that forks hold as well
    /// ([`SequenceState::shared_kv_bytes`]) are counted by each of them.
    pub fn kv_bytes(&self) -> usize {
        self.kv.byte_len()
    }
    /// Bytes of keys and values that others hold as well: after a fork all of them, later those of the common beginning.
    pub fn shared_kv_bytes(&self) -> usize {
        self.kv.shared_bytes()
    }
    /// Bytes that a fork takes when it begins to write: a page of each layer of attention, and the states of the others.
    pub(crate) fn fork_bytes(&self) -> usize {
        self.kv.writable_bytes() + self.state_bytes()
    }
    /// Bytes of the states of test-time-training layers and of layers of the gated delta rule: the same after every token.
    pub fn state_bytes(&self) -> usize {
        self.ttt_bytes() + self.delta.iter().map(DeltaState::bytes).sum::<usize>()
    }
    /// The states of the layers of the gated delta rule, in their order.
    pub fn delta_states(&self) -> &[DeltaState] {
        &self.delta
    }
    /// Those of test-time-training layers alone.
    pub fn ttt_bytes(&self) -> usize {
        self.ttt.iter().map(TttState::bytes).sum()
    }

    /// Whether it can be taken back to any earlier token: not where a layer is a test-time-training layer or one of the gated delta
    /// rule, which can only begin anew.
    pub fn can_rewind(&self) -> bool {
        self.ttt.is_empty() && self.delta.is_empty()
    }

    /// Forgets all tokens from position `len` on. Nothing happens if there are fewer.
    ///
    /// # Errors
    /// [`ModelError::CannotRewind`] if a layer is a test-time-training layer and `len` is neither 0 nor beyond the last
    /// token; [`ModelError::StateLost`] if a step of such a model failed, until `len` is 0. Nothing has changed then.
    pub fn truncate(&mut self, len: usize) -> Result<(), ModelError> {
        if len > 0 {
            self.usable()?;
            if len < self.len() && !self.can_rewind() {
                return Err(ModelError::CannotRewind { len: self.len(), to: len });
            }
        } else if !self.can_rewind() {
            let engine = self.engine.clone();
            self.ttt.iter_mut().zip(engine.ttt_layers()).for_each(|(state, layer)| state.reset(layer));
            self.delta.iter_mut().for_each(DeltaState::reset);
            self.lost = false;
        }
        if len < self.len() {
            self.kv.truncate(len);
            self.has_last = false;
        }
        Ok(())
    }

    /// Tokens of a mini-batch of the test-time-training layers, of the longest where they differ; for layers of the gated delta rule,
    /// which have none, as many as are usual there; 0 without such layers.
    pub(crate) fn mini_batch(&self) -> usize {
        const USUAL: usize = 16;
        let delta = if self.delta.is_empty() { 0 } else { USUAL };
        self.ttt.iter().map(|state| state.config().mini_batch_size).max().unwrap_or(delta)
    }
    /// A copy of what cannot be taken back.
    pub(crate) fn snapshot(&self) -> Snapshot {
        Snapshot { len: self.len(), ttt: self.ttt.clone(), delta: self.delta.clone() }
    }
    /// Takes the state back to where it was copied.
    pub(crate) fn go_back(&mut self, to: &Snapshot) {
        self.ttt.clone_from_slice(&to.ttt);
        self.delta.clone_from_slice(&to.delta);
        self.kv.truncate(to.len);
        (self.has_last, self.lost) = (false, false);
    }

    /// Bytes that [`SequenceState::save_into`] makes of `tokens` tokens; `None` if there is no such number.
    pub(crate) fn saved_bytes(engine: &Engine, kv: KvType, tokens: usize, has_last: bool) -> Option<usize> {
        let c = engine.config();
        let mut bytes = KvCache::saved_bytes(c, kv, tokens)?;
        if has_last {
            bytes = bytes.checked_add(c.hidden_size.checked_mul(4)?)?;
        }
        for layer in engine.ttt_layers() {
            bytes = bytes.checked_add(layer.config().saved_state_bytes().ok()?)?;
        }
        for layer in engine.delta_layers() {
            bytes = bytes.checked_add(layer.config().saved_state_bytes().ok()?)?;
        }
        Some(bytes)
    }

    /// Appends the residual row if it is known, keys and values, states of test-time-training layers, of layers of the gated delta rule.
    pub(crate) fn save_into(&self, bytes: &mut Vec<u8>) {
        self.last().into_iter().flatten().for_each(|v| bytes.extend(v.to_le_bytes()));
        self.kv.save_into(bytes);
        let model = self.engine.fingerprint();
        self.ttt.iter().for_each(|state| bytes.extend(state.save(model)));
        self.delta.iter().for_each(|state| bytes.extend(state.save(model)));
    }

    /// The reverse of [`SequenceState::save_into`], for an empty state; `bytes` have the length of
    /// [`SequenceState::saved_bytes`].
    pub(crate) fn restore_from(&mut self, tokens: usize, has_last: bool, bytes: &[u8]) -> Result<(), ModelError> {
        let (last, mut rest) = bytes.split_at(if has_last { self.last.len() * 4 } else { 0 });
        for (v, b) in self.last.iter_mut().zip(last.as_chunks().0) {
            *v = f32::from_le_bytes(*b);
        }
        self.has_last = has_last;
        self.kv.reserve(tokens);
        rest = self.kv.restore_from(tokens, rest);
        let engine = self.engine.clone();
        for (state, layer) in self.ttt.iter_mut().zip(engine.ttt_layers()) {
            let (saved, behind) = rest.split_at(layer.config().saved_state_bytes()?.min(rest.len()));
            *state = TttState::restore(layer, engine.fingerprint(), saved)?;
            if state.position() != tokens as u64 {
                return Err(ModelError::SavedSequence(ttt_layer::StateDamage::Checksum));
            }
            rest = behind;
        }
        for (state, layer) in self.delta.iter_mut().zip(engine.delta_layers()) {
            let (saved, behind) = rest.split_at(layer.config().saved_state_bytes()?.min(rest.len()));
            *state = DeltaState::restore(layer, engine.fingerprint(), saved)?;
            if state.position() != tokens as u64 {
                return Err(ModelError::SavedSequence(ttt_layer::StateDamage::Checksum));
            }
            rest = behind;
        }
        Ok(())
    }

    /// Refuses a state that a failed step has left in between.
    pub(crate) fn usable(&self) -> Result<(), ModelError> {
        if self.lost { Err(ModelError::StateLost) } else { Ok(()) }
    }

    /// A step begins to change the state; if it never ends, the state is lost.
    pub(super) fn begin(&mut self) {
        self.lost = !self.can_rewind();
    }

    /// The step has ended well.
    pub(super) fn end(&mut self) {
        self.lost = false;
    }

    /// Notes in `undo` what the next `tokens` tokens will overwrite and cannot be taken back otherwise.
    pub(super) fn remember(&self, tokens: usize, undo: &mut Vec<f32>) {
        if !self.can_rewind() {
            self.ttt.iter().for_each(|state| state.remember(tokens, undo));
            self.delta.iter().for_each(|state| state.remember(undo));
            undo.extend_from_slice(&self.last);
        }
    }

    /// The step failed: goes back to `len` tokens, with what [`SequenceState::remember`] noted in front of `undo`, or is
    /// lost if nothing was noted and that is needed. The rest of `undo` belongs to others.
    pub(super) fn undo<'u>(&mut self, len: usize, tokens: usize, undo: Option<&'u [f32]>) -> Option<&'u [f32]> {
        // Blocks that went well have moved it.
        self.has_last &= self.len() == len;
        self.kv.truncate(len);
        let mut rest = undo?;
        if !self.can_rewind() {
            for state in &mut self.ttt {
                rest = state.take_back(len as u64, tokens, rest);
            }
            for state in &mut self.delta {
                rest = state.take_back(len as u64, rest);
            }
            let (last, behind) = rest.split_at(self.last.len());
            self.last.copy_from_slice(last);
            (self.has_last, self.lost, rest) = (len > 0, false, behind);
        }
        Some(rest)
    }

    /// Counts `n` tokens that all layers have read; `last` is the residual row of the last of them.
    pub(super) fn advance(&mut self, n: usize, last: &[f32]) {
        self.kv.advance(n);
        self.ttt.iter_mut().for_each(|state| state.advance(n));
        self.delta.iter_mut().for_each(|state| state.advance(n));
        self.last.copy_from_slice(last);
        self.has_last = true;
    }

    /// For measurements, see [`Sequence::fill_dummy`](crate::Sequence::fill_dummy).
    pub(crate) fn fill_dummy(&mut self, tokens: usize) {
        self.kv.fill(tokens);
        self.has_last = false;
    }

    /// Like [`SequenceState::advance`], where the test-time-training layers have counted the tokens already.
    pub(super) fn advance_rest(&mut self, n: usize, last: &[f32]) {
        self.kv.reserve(self.kv.len() + n);
        self.kv.advance(n);
        self.last.copy_from_slice(last);
        self.has_last = true;
    }

    /// The residual row after the last token, if it is known.
    pub(crate) fn last(&self) -> Option<&[f32]> {
        self.has_last.then_some(&self.last[..])
    }
}
