//! The loop that all byte-pair vocabularies share: joins the best neighbouring pair until there are none.
//!
//! Symbols are a doubly linked list in one vector; candidate pairs wait in a heap ordered by (rank, position). A
//! candidate is stale if one of its symbols has been joined since, which the lengths show: symbols only grow, and only
//! by absorbing their right neighbour. `n` symbols cost `O(n log n)` for any text, so a million spaces cost no more
//! than a million words.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

/// No neighbour.
const NONE: u32 = u32::MAX;

/// A piece of the word under way: bytes `start .. start + len`.
#[derive(Debug, Clone, Copy)]
pub(super) struct Symbol {
    /// The token, or [`Symbol::NO_ID`] while the piece is not in the vocabulary.
    pub(super) id: u32,
    /// First byte.
    pub(super) start: u32,
    /// Length in bytes; 0 once swallowed by the left neighbour.
    pub(super) len: u32,
    /// May take part in merges.
    pub(super) mergeable: bool,
    prev: u32,
    next: u32,
}

impl Symbol {
    /// The piece is not a token.
    pub(super) const NO_ID: u32 = u32::MAX;
}

/// The merged token of a pair.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Merge {
    /// Smaller is joined earlier; equal ranks are joined from left to right.
    pub(super) rank: u32,
    /// The token of the joined piece.
    pub(super) id: u32,
}

#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Candidate {
    rank: u32,
    left: u32,
    right: u32,
    len: u32,
    id: u32,
}

/// The buffers of the loop, reused from word to word.
#[derive(Debug, Default)]
pub(super) struct Merger {
    symbols: Vec<Symbol>,
    heap: BinaryHeap<Reverse<Candidate>>,
}

impl Merger {
    /// Forgets the last word.
    pub(super) fn clear(&mut self) {
        self.symbols.clear();
        self.heap.clear();
    }

    /// Appends a symbol of `len > 0` bytes at `start`.
    pub(super) fn push(&mut self, id: u32, start: u32, len: u32, mergeable: bool) {
        let at = self.symbols.len() as u32;
        let prev = at.checked_sub(1).unwrap_or(NONE);
        if let Some(last) = self.symbols.last_mut() {
            last.next = at;
        }
        self.symbols.push(Symbol { id, start, len, mergeable, prev, next: NONE });
    }

    /// The number of symbols pushed since [`Self::clear`].
    pub(super) fn len(&self) -> usize {
        self.symbols.len()
    }

    /// Joins pairs, best rank first, until `pair` returns none. `pair` gets two neighbours, left then right.
    pub(super) fn run(&mut self, pair: impl Fn(&Symbol, &Symbol) -> Option<Merge>) {
        for right in 1..self.symbols.len() as u32 {
            self.offer(right.saturating_sub(1), right, &pair);
        }
        while let Some(Reverse(best)) = self.heap.pop() {
            let (Some(left), Some(right)) = (self.get(best.left), self.get(best.right)) else { continue };
            // A swallowed right neighbour has length 0, so one comparison covers all ways of being stale.
            if left.len == 0 || right.len == 0 || left.len.saturating_add(right.len) != best.len {
                continue;
            }
            if let Some(symbol) = self.symbols.get_mut(best.left as usize) {
                symbol.id = best.id;
                symbol.len = best.len;
                symbol.next = right.next;
            }
            if let Some(symbol) = self.symbols.get_mut(best.right as usize) {
                symbol.len = 0;
            }
            if let Some(symbol) = self.symbols.get_mut(right.next as usize) {
                symbol.prev = best.left;
            }
            self.offer(left.prev, best.left, &pair);
            self.offer(best.left, right.next, &pair);
        }
    }

    /// The symbols that are left, in order.
    pub(super) fn symbols(&self) -> impl Iterator<Item = &Symbol> {
        self.symbols.iter().filter(|symbol| symbol.len > 0)
    }

    fn get(&self, at: u32) -> Option<Symbol> {
        self.symbols.get(at as usize).copied()
    }

    fn offer(&mut self, left: u32, right: u32, pair: &impl Fn(&Symbol, &Symbol) -> Option<Merge>) {
        let (Some(a), Some(b)) = (self.get(left), self.get(right)) else { return };
        if !a.mergeable || !b.mergeable {
            return;
        }
        if let Some(Merge { rank, id }) = pair(&a, &b) {
            let len = a.len.saturating_add(b.len);
            self.heap.push(Reverse(Candidate { rank, left, right, len, id }));
        }
    }
}
