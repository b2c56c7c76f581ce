//! Memory: what a model needs, asked for before it is used.
//!
//! WebAssembly has an address space of 4 GiB, one allocation may have 2 GiB, and an allocation that fails ends the
//! instance. So everything large is tried first: memory that was taken once stays with the instance, and what tries it
//! leaves it to what follows.

use bitnet::{ActivationBits, KvType, ModelConfig};
use sha2::{Digest, Sha256};
use wasm_bindgen::prelude::wasm_bindgen;

use crate::Failure;

/// Bytes that WebAssembly can address.
const ADDRESS_SPACE: u64 = 1 << 32;
/// The largest allocation in bytes, `isize::MAX`.
const LARGEST: u64 = (1 << 31) - 1;
/// Bytes that are tried at a time.
const PIECE: u64 = 256 << 20;
/// A cache line: tables that begin there are read in place.
const LINE: usize = 64;

/// Bytes of memory that this instance has taken.
#[wasm_bindgen]
pub fn memory_bytes() -> f64 {
    taken() as f64
}

#[cfg(target_arch = "wasm32")]
fn taken() -> u64 {
    core::arch::wasm32::memory_size(0) as u64 * 65_536
}

#[cfg(not(target_arch = "wasm32"))]
fn taken() -> u64 {
    0
}

fn short(what: &str, needed: u64, way_out: &str) -> Failure {
    let available = ADDRESS_SPACE.saturating_sub(taken());
    let mib = |bytes: u64| bytes.div_ceil(1 << 20);
    let message = format!(
        "{what} needs {} MiB of memory, and at most {} MiB are left (WebAssembly has 4 GiB, and a browser may allow less): {way_out}",
        mib(needed),
        mib(available)
    );
    let (needed, available) = (Some(needed as f64), Some(available as f64));
    Failure { needed, available, ..Failure::new("out-of-memory", message) }
}

/// Makes sure that `bytes` can be taken, in pieces, by what follows.
///
/// # Errors
/// `out-of-memory` with the bytes needed and left.
pub(crate) fn reserve(what: &str, bytes: u64) -> Result<(), Failure> {
    let mut pieces: Vec<Vec<u8>> = Vec::new();
    let mut left = bytes;
    while left > 0 {
        let len = left.min(PIECE);
        let mut piece = Vec::new();
        if piece.try_reserve_exact(len as usize).is_err() {
            return Err(short(what, bytes, "take a smaller model or a shorter context, or close other tabs"));
        }
        pieces.push(piece);
        left -= len;
    }
    Ok(())
}

/// Bytes that a model takes in addition to its file: packed matrices, the coarse plane of the head, working memory, and
/// keys and values of one full context.
pub(crate) fn beyond_file(config: &ModelConfig, kv: KvType, context: usize) -> u64 {
    let groups = config.inputs.mixer.bits == ActivationBits::Sixteen;
    // A scale in half precision for at least 64 weights.
    let bits = if groups { 2.25 } else { 2.0 };
    let packed = config.ternary_weights() as f64 * bits / 8.0;
    let table = config.vocab_size as u64 * config.hidden_size as u64;
    let head = if groups { table * 9 / 32 } else { table * 6 / 8 };
    let context = context.min(config.context_limit().unwrap_or(0)) as u64;
    let session = kv.token_bytes(config) as u64 * context + config.state_bytes().unwrap_or(0) as u64;
    // Padding of panels, buffers of a step, the vocabulary.
    let rest = (packed / 16.0) as u64 + config.vocab_size as u64 * 128 + (16 << 20);
    packed as u64 + head + session + rest
}

/// A file on its way into memory: one buffer of its size, which the model then keeps.
#[wasm_bindgen]
#[derive(Debug)]
pub struct Upload {
    bytes: Vec<u8>,
    /// Where the file begins: at a cache line.
    start: usize,
    len: usize,
}

#[wasm_bindgen]
impl Upload {
    /// Room for a file of `len` bytes.
    ///
    /// # Errors
    /// `out-of-memory` with the bytes needed and left; `model` for a length that no file has.
    #[wasm_bindgen(constructor)]
    pub fn new(len: f64) -> Result<Self, Failure> {
        if !(0.0..9e15).contains(&len) || len.fract() != 0.0 {
            return Err(Failure::request("bytes", format!("{len} is not the length of a file")));
        }
        let needed = len as u64 + LINE as u64;
        if needed > LARGEST {
            return Err(short("the file", needed, "one file may have 2 GiB here; take a smaller model"));
        }
        let mut bytes: Vec<u8> = Vec::new();
        if bytes.try_reserve_exact(needed as usize).is_err() {
            return Err(short("the file", needed, "take a smaller model, or close other tabs"));
        }
        let start = bytes.as_ptr().align_offset(LINE).min(LINE);
        bytes.resize(start, 0);
        Ok(Self { bytes, start, len: len as usize })
    }

    /// Adds the next bytes of the file.
    ///
    /// # Errors
    /// `model` if there are more than were announced.
    pub fn append(&mut self, chunk: &[u8]) -> Result<(), Failure> {
        if chunk.len() > self.missing() {
            return Err(Failure::new(
                "model",
                format!("the file has more than the {} bytes that were announced", self.len),
            ));
        }
        self.bytes.extend_from_slice(chunk);
        Ok(())
    }

    /// The SHA-256 of what has come, in hexadecimal.
    pub fn sha256(&self) -> String {
        Sha256::digest(self).iter().map(|byte| format!("{byte:02x}")).collect()
    }

    /// Bytes that have not come yet.
    pub fn missing(&self) -> usize {
        self.len + self.start - self.bytes.len()
    }
}

impl Upload {
    /// Refuses a file that is not complete.
    pub(crate) fn complete(self) -> Result<Self, Failure> {
        match self.missing() {
            0 => Ok(self),
            missing => Err(Failure::new("model", format!("{missing} of {} bytes of the file did not come", self.len))),
        }
    }
}

impl AsRef<[u8]> for Upload {
    fn as_ref(&self) -> &[u8] {
        &self.bytes[self.start..]
    }
}
