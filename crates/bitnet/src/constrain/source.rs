//! Sources of constraints, and when two are equal.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;

/// The notation of a source.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Kind {
    Json,
    Regex,
    Lark,
}

/// A source in its notation.
#[derive(Clone)]
pub(super) struct Source {
    pub(super) kind: Kind,
    pub(super) text: Arc<str>,
    /// So that two sources are compared in full only if they are the same.
    hash: u64,
}

impl Source {
    pub(super) fn new(kind: Kind, text: impl Into<Arc<str>>) -> Self {
        let text = text.into();
        let mut hasher = DefaultHasher::new();
        (kind, &text).hash(&mut hasher);
        Self { kind, text, hash: hasher.finish() }
    }
}

impl PartialEq for Source {
    fn eq(&self, other: &Self) -> bool {
        self.hash == other.hash
            && self.kind == other.kind
            && (Arc::ptr_eq(&self.text, &other.text) || self.text == other.text)
    }
}

impl std::fmt::Debug for Source {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:?}({:?})", self.kind, super::error::short(&self.text))
    }
}
