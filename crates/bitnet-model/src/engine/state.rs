//! The state of one text in the layers of an engine.

use ttt_layer::{DeltaState, TttState};

use super::cache::{KvCache, KvType};
use super::handle::Engine;
use super::layer_states::{LayerStates, Snapshot};
use crate::ModelError;

/// The state of one text in all layers.
///
/// Layers of attention keep keys and values, which grow with the text up to the context. Test-time-training layers and
/// layers of the gated delta rule keep a state of constant size, which cannot be rewound to an earlier token. A clone
/// is a fork: both continue independently, and share the keys and values of their common beginning, in pages that are
/// copied only when one of them writes to them.
#[derive(Clone, Debug)]
pub struct SequenceState {
    engine: Engine,
    pub(super) layers: LayerStates,
}

impl SequenceState {
    /// The state before the first token, for at most `limit` tokens.
    pub fn new(engine: &Engine, kv: KvType, limit: usize) -> Self {
        let layers = LayerStates {
            kv: KvCache::new(engine.config(), kv, limit),
            ttt: engine.network().ttt_layers().map(TttState::new).collect(),
            delta: engine.network().delta_layers().map(DeltaState::new).collect(),
            last: vec![0.0; engine.config().hidden_size],
            has_last: false,
            lost: false,
        };
        Self { engine: engine.clone(), layers }
    }

    /// The engine of this state.
    pub fn engine(&self) -> &Engine {
        &self.engine
    }
    /// Tokens so far.
    pub fn len(&self) -> usize {
        self.layers.len()
    }
    /// Whether there is no token yet.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
    /// The maximum number of tokens.
    pub fn limit(&self) -> usize {
        self.layers.kv.limit()
    }
    /// How keys and values are stored.
    pub fn kv_type(&self) -> KvType {
        self.layers.kv.kv_type()
    }
    /// Bytes of keys and values held now; they grow with the text, by pages of 256 tokens. Each fork counts those that
    /// it shares ([`SequenceState::shared_kv_bytes`]).
    pub fn kv_bytes(&self) -> usize {
        self.layers.kv.byte_len()
    }
    /// Bytes of keys and values shared with other states: after a fork all of them, later those of the common
    /// beginning.
    pub fn shared_kv_bytes(&self) -> usize {
        self.layers.kv.shared_bytes()
    }
    /// Bytes of all layers: [`SequenceState::kv_bytes`] and [`SequenceState::constant_bytes`].
    pub fn bytes(&self) -> usize {
        self.kv_bytes() + self.constant_bytes()
    }
    /// Bytes that a fork takes when it begins to write: a page of each layer of attention, and the states of the other
    /// layers.
    pub(crate) fn fork_bytes(&self) -> usize {
        self.layers.kv.writable_bytes() + self.constant_bytes()
    }
    /// Bytes of the states of test-time-training layers and of layers of the gated delta rule, constant in the number
    /// of tokens.
    pub fn constant_bytes(&self) -> usize {
        self.ttt_bytes() + self.layers.delta.iter().map(DeltaState::bytes).sum::<usize>()
    }
    /// The states of the layers of the gated delta rule, in layer order.
    pub fn delta_states(&self) -> &[DeltaState] {
        &self.layers.delta
    }
    /// Bytes of the states of test-time-training layers only.
    pub fn ttt_bytes(&self) -> usize {
        self.layers.ttt.iter().map(TttState::bytes).sum()
    }

    /// Whether it can be rewound to any earlier token: not if a layer is a test-time-training layer or one of the gated
    /// delta rule, which can only start again.
    pub fn can_rewind(&self) -> bool {
        self.layers.can_rewind()
    }

    /// Removes all tokens from position `len` on. Does nothing if there are fewer.
    ///
    /// # Errors
    /// [`ModelError::CannotRewind`] if a layer is a test-time-training layer and `len` is neither 0 nor beyond the last
    /// token; [`ModelError::StateLost`] if a step of such a model failed, until `len` is 0. Then nothing has changed.
    pub fn rewind(&mut self, len: usize) -> Result<(), ModelError> {
        let layers = &mut self.layers;
        if len > 0 {
            layers.usable()?;
            if len < layers.len() && !layers.can_rewind() {
                return Err(ModelError::CannotRewind { len: layers.len(), to: len });
            }
        } else if !layers.can_rewind() {
            let network = self.engine.network();
            layers.ttt.iter_mut().zip(network.ttt_layers()).for_each(|(state, layer)| state.reset(layer));
            layers.delta.iter_mut().for_each(DeltaState::reset);
            layers.lost = false;
        }
        if len < layers.len() {
            layers.kv.rewind(len);
            layers.has_last = false;
        }
        Ok(())
    }

    /// Tokens of a mini-batch of the test-time-training layers, of the longest if they differ; for layers of the gated
    /// delta rule, which have none, the usual number; 0 without such layers.
    pub(crate) fn mini_batch(&self) -> usize {
        const USUAL: usize = 16;
        let delta = if self.layers.delta.is_empty() { 0 } else { USUAL };
        self.layers.ttt.iter().map(|state| state.config().mini_batch_size).max().unwrap_or(delta)
    }
    /// A copy of the parts that cannot be rewound.
    pub(crate) fn snapshot(&self) -> Snapshot {
        self.layers.snapshot()
    }
    /// Restores the state that was copied.
    pub(crate) fn rewind_to(&mut self, snapshot: &Snapshot) {
        self.layers.rewind_to(snapshot);
    }
    /// Rejects a state that a failed step has left inconsistent.
    pub(crate) fn usable(&self) -> Result<(), ModelError> {
        self.layers.usable()
    }
    /// The residual row after the last token, if it is known.
    pub(crate) fn last(&self) -> Option<&[f32]> {
        self.layers.last()
    }

    /// Length in bytes of [`SequenceState::save_into`] with `tokens` tokens; `None` if it overflows.
    pub(crate) fn saved_bytes(engine: &Engine, kv: KvType, tokens: usize, has_last: bool) -> Option<usize> {
        let config = engine.config();
        let mut bytes = KvCache::saved_bytes(config, kv, tokens)?;
        if has_last {
            bytes = bytes.checked_add(config.hidden_size.checked_mul(4)?)?;
        }
        for layer in engine.network().ttt_layers() {
            bytes = bytes.checked_add(layer.config().saved_state_bytes().ok()?)?;
        }
        for layer in engine.network().delta_layers() {
            bytes = bytes.checked_add(layer.config().saved_state_bytes().ok()?)?;
        }
        Some(bytes)
    }

    /// Appends the residual row if it is known, keys and values, states of test-time-training layers, states of layers
    /// of the gated delta rule.
    pub(crate) fn save_into(&self, bytes: &mut Vec<u8>) {
        self.last().into_iter().flatten().for_each(|v| bytes.extend(v.to_le_bytes()));
        self.layers.kv.save_into(bytes);
        let model = self.engine.fingerprint();
        self.layers.ttt.iter().for_each(|state| bytes.extend(state.save(model)));
        self.layers.delta.iter().for_each(|state| bytes.extend(state.save(model)));
    }

    /// The inverse of [`SequenceState::save_into`], for an empty state; `bytes` must have the length of
    /// [`SequenceState::saved_bytes`].
    pub(crate) fn restore_from(&mut self, tokens: usize, has_last: bool, bytes: &[u8]) -> Result<(), ModelError> {
        let (engine, layers) = (&self.engine, &mut self.layers);
        let (last, mut rest) = bytes.split_at(if has_last { layers.last.len() * 4 } else { 0 });
        for (v, b) in layers.last.iter_mut().zip(last.as_chunks().0) {
            *v = f32::from_le_bytes(*b);
        }
        layers.has_last = has_last;
        layers.kv.reserve(tokens);
        rest = layers.kv.restore_from(tokens, rest);
        for (state, layer) in layers.ttt.iter_mut().zip(engine.network().ttt_layers()) {
            let (saved, others) = rest.split_at(layer.config().saved_state_bytes()?.min(rest.len()));
            *state = TttState::restore(layer, engine.fingerprint(), saved)?;
            if state.position() != tokens as u64 {
                return Err(ModelError::SavedSequence(ttt_layer::StateDamage::Checksum));
            }
            rest = others;
        }
        for (state, layer) in layers.delta.iter_mut().zip(engine.network().delta_layers()) {
            let (saved, others) = rest.split_at(layer.config().saved_state_bytes()?.min(rest.len()));
            *state = DeltaState::restore(layer, engine.fingerprint(), saved)?;
            if state.position() != tokens as u64 {
                return Err(ModelError::SavedSequence(ttt_layer::StateDamage::Checksum));
            }
            rest = others;
        }
        Ok(())
    }

    /// For measurements, see [`Sequence::fill_dummy`](crate::Sequence::fill_dummy).
    pub(crate) fn fill_dummy(&mut self, tokens: usize) {
        self.layers.kv.fill(tokens);
        self.layers.has_last = false;
    }
}
