//! Sequences as bytes: to continue later, elsewhere, or twice from the same point.
//!
//! Little-endian, in this order: mark, version (u32), type of keys and values (u32), fingerprint of the model (u64),
//! number of tokens (u64), a further token that the model has not read (u32, all ones for none), whether there is a
//! residual row (u32); the tokens (u32 each); the residual row; for each layer of attention the keys and then the
//! values, head by head and token by token; for each test-time-training layer the output of `TttState::save`; a
//! checksum (FNV-1a over 64 bits).

use super::Sequence;
use crate::engine::{Engine, HeadRequest, KvType, SequenceState};
use crate::{ModelError, StateDamage};

const MARK: [u8; 8] = *b"BITNETSQ";
/// 2: the fingerprint covers the trits.
const VERSION: u32 = 2;
const HEADER_BYTES: usize = 8 + 4 + 4 + 8 + 8 + 4 + 4;
const CHECKSUM_BYTES: usize = 8;
/// Stands for no token.
const NONE: u32 = u32::MAX;

const KV_TYPES: [(u32, KvType); 5] =
    [(0, KvType::F32), (1, KvType::F16), (2, KvType::Bf16), (3, KvType::Q8), (4, KvType::Q4)];

fn checksum(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xCBF2_9CE4_8422_2325, |h, b| (h ^ u64::from(*b)).wrapping_mul(0x100_0000_01B3))
}

/// The header.
struct Head {
    kv: KvType,
    tokens: usize,
    pending: Option<u32>,
    has_last: bool,
    /// Total bytes.
    len: usize,
}

impl Head {
    /// Reads the header of `got` bytes, which begin with `bytes`.
    fn read(engine: &Engine, bytes: &[u8], got: usize) -> Result<Self, ModelError> {
        let damaged = |what| ModelError::SavedSequence(what);
        let u32_at = |at: usize| bytes.get(at..).and_then(|b| b.first_chunk()).map(|b| u32::from_le_bytes(*b));
        let u64_at = |at: usize| bytes.get(at..).and_then(|b| b.first_chunk()).map(|b| u64::from_le_bytes(*b));
        if bytes.get(..8) != Some(&MARK) {
            return Err(damaged(StateDamage::Mark));
        }
        match u32_at(8) {
            Some(VERSION) => (),
            other => return Err(damaged(StateDamage::Version { got: other.unwrap_or(0), reads: VERSION })),
        }
        let size = |expected| StateDamage::Size { expected, got };
        let (Some(ty), Some(model), Some(tokens), Some(pending), Some(has_last)) =
            (u32_at(12), u64_at(16), u64_at(24), u32_at(32), u32_at(36))
        else {
            return Err(damaged(size(HEADER_BYTES + CHECKSUM_BYTES)));
        };
        if model != engine.fingerprint() {
            return Err(damaged(StateDamage::OtherModel));
        }
        // The checksum would also detect an invalid type or number of tokens; here it must not become a size.
        let kv = KV_TYPES.iter().find(|t| t.0 == ty).map(|t| t.1).ok_or(damaged(StateDamage::Checksum))?;
        let tokens = usize::try_from(tokens).map_err(|_| damaged(size(usize::MAX)))?;
        let has_last = has_last != 0;
        let len = SequenceState::saved_bytes(engine, kv, tokens, has_last)
            .and_then(|state| state.checked_add(tokens.checked_mul(4)?)?.checked_add(HEADER_BYTES + CHECKSUM_BYTES));
        match len {
            Some(len) if len == got => {
                Ok(Self { kv, tokens, pending: (pending != NONE).then_some(pending), has_last, len })
            }
            expected => Err(damaged(size(expected.unwrap_or(usize::MAX)))),
        }
    }
}

impl Sequence {
    /// The number of bytes that [`Sequence::saved_len`] needs.
    pub const SAVED_HEAD: usize = HEADER_BYTES;

    /// The total number of bytes, from the first [`Sequence::SAVED_HEAD`] of them: for callers that read a file of
    /// `got` bytes and do not want to read more than necessary.
    ///
    /// # Errors
    /// [`ModelError::SavedSequence`] for other data, another version or model, or a number different from `got`.
    pub fn saved_len(engine: &Engine, head: &[u8], got: usize) -> Result<usize, ModelError> {
        Head::read(engine, head, got).map(|head| head.len)
    }

    /// The sequence as bytes: tokens, keys and values, states of test-time-training layers. They belong to this model
    /// (and to any other engine with the same weights, on any CPU); [`Sequence::restore`] rejects them for another. At
    /// most one token is saved unread: other pending ones are read first.
    ///
    /// ```
    /// # use bitnet_model::*;
    /// # let mut config = ModelConfig::new(96, 64, 128, 2, 2, 1);
    /// # config.mixers = vec![Mixer::TttLinear, Mixer::Attention];
    /// # let weights = ModelWeights::from_source(&SyntheticWeights::new(config, 7))?;
    /// # let engine = Engine::new(&weights, &EngineOptions::default().threads(1))?;
    /// let mut sequence = Sequence::new(&engine, KvType::F16, None);
    /// sequence.feed(&[1, 2, 3])?;
    /// let bytes = sequence.save()?;
    /// let mut later = Sequence::restore(&engine, None, &bytes)?;
    /// assert_eq!(later.feed(&[4])?, sequence.feed(&[4])?);
    /// # Ok::<(), ModelError>(())
    /// ```
    ///
    /// # Errors
    /// [`ModelError::StateLost`] for a sequence that a failed step has left inconsistent; the errors of a step.
    pub fn save(&mut self) -> Result<Vec<u8>, ModelError> {
        self.drop_lookahead()?;
        if self.len > self.state.len() + 1 {
            self.read(self.len - 1, HeadRequest::Top(1), None)?;
        }
        let state = &self.state;
        state.usable()?;
        let ty = KV_TYPES.iter().find(|t| t.1 == state.kv_type()).map_or(u32::MAX, |t| t.0);
        let (read, pending) = self.tokens.split_at(state.len());
        let mut bytes = Vec::new();
        bytes.extend(MARK);
        bytes.extend(VERSION.to_le_bytes());
        bytes.extend(ty.to_le_bytes());
        bytes.extend(state.engine().fingerprint().to_le_bytes());
        bytes.extend((read.len() as u64).to_le_bytes());
        bytes.extend(pending.last().copied().unwrap_or(NONE).to_le_bytes());
        bytes.extend(u32::from(state.last().is_some()).to_le_bytes());
        read.iter().for_each(|t| bytes.extend(t.to_le_bytes()));
        state.save_into(&mut bytes);
        let checksum = checksum(&bytes);
        bytes.extend(checksum.to_le_bytes());
        Ok(bytes)
    }

    /// Restores a sequence from the bytes of [`Sequence::save`], to continue with `engine` up to `limit` tokens
    /// (`None`: the model's context length, if it has one). Logits are not part of it; [`Sequence::require`] computes
    /// them. Nothing is allocated before the size has been checked.
    ///
    /// # Errors
    /// [`ModelError::SavedSequence`] for bytes that are damaged, truncated, or from another version or model;
    /// [`ModelError::ContextFull`] if it is longer than `limit`.
    pub fn restore(engine: &Engine, limit: Option<usize>, bytes: &[u8]) -> Result<Self, ModelError> {
        let damaged = |what| ModelError::SavedSequence(what);
        let Head { kv, tokens, pending, has_last, .. } = Head::read(engine, bytes, bytes.len())?;
        let (body, sum) = bytes.split_at(bytes.len() - CHECKSUM_BYTES);
        if checksum(body).to_le_bytes() != sum {
            return Err(damaged(StateDamage::Checksum));
        }
        let (text, state) = body[HEADER_BYTES..].split_at(tokens * 4);
        let mut text: Vec<u32> = text.as_chunks().0.iter().map(|b| u32::from_le_bytes(*b)).collect();
        text.extend(pending);
        engine.check_tokens(&text)?;
        let mut sequence = Sequence::new(engine, kv, limit);
        let most = sequence.remaining();
        if tokens > most {
            return Err(ModelError::ContextFull { limit: most, used: 0, more: tokens });
        }
        sequence.state.restore_from(tokens, has_last, state)?;
        sequence.len = text.len();
        sequence.tokens = text;
        Ok(sequence)
    }
}
