//! Mapped weights that move to huge pages while they are used.
//!
//! A mapped file lies in pages of 4 KiB, and streams over huge pages are faster (see
//! `ternary_kernels::AlignedBuf::for_weights`). Copying takes some tenths of a second for each gigabyte, which a start
//! should not wait for: weights are read from the mapping until their copy is there. The bytes are the same, so a product
//! that began with the ones may go on with the others.

use std::collections::HashMap;
use std::sync::{Arc, OnceLock, Weak};

use ternary_kernels::{AlignedBuf, ByteOwner, SharedBytes};

/// Bytes of a mapping, and their copy as soon as there is one.
struct Warming {
    mapped: SharedBytes,
    copy: OnceLock<AlignedBuf<u8>>,
}

impl Warming {
    fn fill(&self) {
        let mut copy = AlignedBuf::<u8>::for_weights(self.mapped.len());
        copy.copy_from_slice(&self.mapped);
        // Only one thread fills it.
        let _ = self.copy.set(copy);
        self.mapped.release();
    }
}

/// What [`SharedBytes`] own of it.
struct Handle(Arc<Warming>);

impl ByteOwner for Handle {
    fn bytes(&self) -> &[u8] {
        match self.0.copy.get() {
            Some(copy) => copy,
            None => &self.0.mapped,
        }
    }
}

/// The same tensors, which a thread copies one after the other, in this order; it ends early where they are not used any
/// more. Where no thread can be had, they stay mapped.
pub(super) fn start(tensors: impl Iterator<Item = (String, SharedBytes)>) -> HashMap<String, SharedBytes> {
    let mut cold: Vec<Weak<Warming>> = Vec::new();
    let mut all = HashMap::new();
    for (name, mapped) in tensors {
        let warming = Arc::new(Warming { mapped, copy: OnceLock::new() });
        cold.push(Arc::downgrade(&warming));
        all.insert(name, SharedBytes::of(Handle(warming)));
    }
    let thread = std::thread::Builder::new().name("huge pages".to_owned());
    let fill = move || cold.iter().filter_map(Weak::upgrade).for_each(|warming| warming.fill());
    if let Err(error) = thread.spawn(fill) {
        tracing::debug!(%error, "weights stay in the mapping");
    }
    all
}
