//! States as bytes: the parts that all kinds of layers share.

use crate::checksum::Fnv;
use crate::{StateDamage, TttError};

/// Mark, version, four bytes of zeros, configuration, model, position.
const HEADER_BYTES: usize = 8 + 4 + 4 + 8 + 8 + 8;
const CHECKSUM_BYTES: usize = 8;
/// Bytes of a saved state in addition to its numbers.
pub(crate) const EXTRA_BYTES: usize = HEADER_BYTES + CHECKSUM_BYTES;

/// Header of a kind of state.
pub(crate) struct Form {
    pub(crate) mark: [u8; 8],
    pub(crate) version: u32,
    /// Fingerprint of the configuration, see [`fingerprint`].
    pub(crate) fingerprint: u64,
}

/// A number that differs if a field of the configuration does.
pub(crate) fn fingerprint(identity: &[u64]) -> u64 {
    identity.iter().fold(Fnv::new(), |hash, field| hash.add(&field.to_le_bytes())).0
}

impl Form {
    /// The header, the numbers and a checksum, little-endian; equal states give equal bytes.
    pub(crate) fn seal(&self, model: u64, position: u64, data: &[f32]) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(size_of_val(data) + EXTRA_BYTES);
        bytes.extend(self.mark);
        bytes.extend(self.version.to_le_bytes());
        bytes.extend([0; 4]);
        for field in [self.fingerprint, model, position] {
            bytes.extend(field.to_le_bytes());
        }
        for x in data {
            bytes.extend(x.to_le_bytes());
        }
        let checksum = Fnv::new().add(&bytes).0;
        bytes.extend(checksum.to_le_bytes());
        bytes
    }

    /// Position and numbers of sealed bytes, of which there must be `expected`. Allocates nothing.
    ///
    /// # Errors
    /// [`TttError::SavedState`] for bytes that are damaged, cut off, or from another version, configuration or model.
    pub(crate) fn open<'a>(
        &self,
        model: u64,
        expected: usize,
        bytes: &'a [u8],
    ) -> Result<(u64, impl Iterator<Item = f32> + use<'a>), TttError> {
        let damaged = |what| Err(TttError::SavedState { what });
        let field = |at: usize| bytes.get(at..)?.first_chunk().map(|b| u64::from_le_bytes(*b));
        if bytes.get(..8) != Some(&self.mark) {
            return damaged(StateDamage::Mark);
        }
        match bytes.get(8..12).and_then(|b| b.first_chunk()).map(|b| u32::from_le_bytes(*b)) {
            Some(version) if version == self.version => (),
            other => return damaged(StateDamage::Version { got: other.unwrap_or(0), reads: self.version }),
        }
        if field(16) != Some(self.fingerprint) {
            return damaged(StateDamage::OtherConfig);
        }
        if field(24) != Some(model) {
            return damaged(StateDamage::OtherModel);
        }
        if bytes.len() != expected {
            return damaged(StateDamage::Size { expected, got: bytes.len() });
        }
        let (body, checksum) = bytes.split_at(expected - CHECKSUM_BYTES);
        if checksum != Fnv::new().add(body).0.to_le_bytes() {
            return damaged(StateDamage::Checksum);
        }
        let (numbers, _) = body[HEADER_BYTES..].as_chunks();
        Ok((field(32).unwrap_or(0), numbers.iter().map(|b| f32::from_le_bytes(*b))))
    }
}
