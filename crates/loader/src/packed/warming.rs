//! Mapped weights that are read ahead, or move to huge pages, while they are used.
//!
//! A mapped file lies in pages of 4 KiB, and streams over huge pages are faster (see
//! `ternary_kernels::AlignedBuf::for_weights`) where the system does not keep files in large folios. Copying takes some
//! tenths of a second for each gigabyte, which a start should not wait for: weights are read from the mapping until their
//! copy is there. The bytes are the same, so a product that began with the ones may go on with the others.

use std::cmp::Reverse;
use std::sync::{Arc, OnceLock, Weak};

use ternary_kernels::{AlignedBuf, ByteOwner, SharedBytes};

/// Most bytes between two tensors that are read ahead together: scales of rows and groups.
const MOST_BETWEEN: usize = 2 << 20;

/// Bytes of a mapping, and their copy as soon as there is one.
struct Warming {
    mapped: SharedBytes,
    copy: OnceLock<AlignedBuf<u8>>,
}

impl Warming {
    fn fill(&self) {
        if self.copy.get().is_some() {
            return;
        }
        let mut copy = AlignedBuf::<u8>::for_weights(self.mapped.len());
        copy.copy_from_slice(&self.mapped);
        // If two threads fill it, both copies are the same.
        let _ = self.copy.set(copy);
        self.mapped.release();
    }
}

/// The part of it that [`SharedBytes`] own.
struct Handle(Arc<Warming>);

impl ByteOwner for Handle {
    fn bytes(&self) -> &[u8] {
        match self.0.copy.get() {
            Some(copy) => copy,
            None => &self.0.mapped,
        }
    }
}

/// Tensors of a mapped file that may move.
#[derive(Clone)]
pub(super) struct Movable {
    tensors: Arc<[(String, Arc<Warming>)]>,
}

impl Movable {
    pub(super) fn new(tensors: Vec<(String, SharedBytes)>) -> Self {
        let one = |(name, mapped)| (name, Arc::new(Warming { mapped, copy: OnceLock::new() }));
        Self { tensors: tensors.into_iter().map(one).collect() }
    }

    /// The bytes of a tensor, from the copy or the mapping.
    pub(super) fn get(&self, name: &str) -> Option<SharedBytes> {
        let (_, warming) = self.tensors.iter().find(|(n, _)| n == name)?;
        Some(SharedBytes::of(Handle(warming.clone())))
    }

    /// Has a thread copy the tensors one after the other; it ends early if they are no longer used. Without a
    /// thread, or if the system has no huge pages, they stay mapped.
    pub(super) fn start(&self) {
        if !has_huge_pages() {
            return self.prefetch();
        }
        let mut cold: Vec<Weak<Warming>> = self.tensors.iter().map(|(_, warming)| Arc::downgrade(warming)).collect();
        // The largest first: they gain most.
        cold.sort_by_key(|warming| Reverse(warming.upgrade().map_or(0, |warming| warming.mapped.len())));
        let fill = move || cold.iter().filter_map(Weak::upgrade).for_each(|warming| warming.fill());
        in_background("huge pages", fill);
    }

    /// Has a thread ask for all pages of the mapping, in the order of the file, which is that of the layers: a disk
    /// reads in one stream, ahead of the first token.
    pub(super) fn prefetch(&self) {
        let mut runs: Vec<SharedBytes> = Vec::new();
        for (_, warming) in self.tensors.iter() {
            let longer = runs.last().and_then(|run| run.through(&warming.mapped, MOST_BETWEEN));
            match (runs.last_mut(), longer) {
                (Some(run), Some(longer)) => *run = longer,
                _ => runs.push(warming.mapped.clone()),
            }
        }
        in_background("prefetch", move || runs.iter().for_each(SharedBytes::prefetch));
    }
}

impl std::fmt::Debug for Movable {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_list().entries(self.tensors.iter().map(|(name, _)| name)).finish()
    }
}

fn in_background(name: &str, work: impl FnOnce() + Send + 'static) {
    if let Err(error) = std::thread::Builder::new().name(name.to_owned()).spawn(work) {
        tracing::debug!(%error, name, "no thread");
    }
}

/// Whether the system gives huge pages to programs that ask for them.
fn has_huge_pages() -> bool {
    const SETTING: &str = "/sys/kernel/mm/transparent_hugepage/enabled";
    cfg!(target_os = "linux") && std::fs::read_to_string(SETTING).is_ok_and(|setting| !setting.contains("[never]"))
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::indexing_slicing)] // A test may.
mod tests {
    use super::*;

    #[test]
    fn tensors_are_the_same_wherever_they_lie() {
        let values: Vec<u8> = (0..100_000u32).map(|i| i.to_le_bytes()[0] ^ i.to_le_bytes()[1]).collect();
        let movable = Movable::new(vec![("a".to_owned(), values.clone().into()), ("b".to_owned(), vec![1; 3].into())]);
        let (a, b) = (movable.get("a").unwrap(), movable.get("b").unwrap());
        assert!(movable.get("c").is_none());
        let part = a.slice(10..50_000).unwrap();
        let before = (a.as_ptr(), part.as_ptr());
        for (_, warming) in movable.tensors.iter() {
            warming.fill();
            warming.fill();
        }
        assert!(a.as_ptr() != before.0 && part.as_ptr() != before.1);
        assert!(a[..] == values[..] && part[..] == values[10..50_000] && b[..] == [1; 3]);
    }
}
