//! Heads of several sequences, shared among threads: for mixers whose heads each carry a state through their tokens.

use std::ops::Range;

use smallvec::SmallVec;

use crate::engine::limits::INLINE_PARTS;

/// All (sequence, head) pairs of a step as one line, whose length counts tokens; each thread gets an equal share of it,
/// in whole heads.
pub(super) struct HeadLine {
    heads: usize,
    threads: usize,
    total: usize,
    /// The beginning of the next sequence.
    begin: usize,
}

impl HeadLine {
    /// The line of sequences with `tokens` in total, with `heads` each.
    pub(super) fn new(tokens: usize, heads: usize, threads: usize) -> Self {
        Self { heads, threads, total: tokens * heads, begin: 0 }
    }

    /// The heads of the next sequence, of `tokens`, with the thread that computes them; threads ascend, also from one
    /// sequence to the next.
    pub(super) fn next(&mut self, tokens: usize) -> SmallVec<[(usize, Range<usize>); INLINE_PARTS]> {
        // The head with which thread `t` begins.
        let cut = |t: usize| {
            let at = (self.total * t / self.threads).saturating_sub(self.begin) + tokens / 2;
            at.checked_div(tokens).unwrap_or(0).min(self.heads)
        };
        let shares =
            (0..self.threads).map(|t| (t, cut(t)..cut(t + 1))).filter(|(_, heads)| !heads.is_empty()).collect();
        self.begin += tokens * self.heads;
        shares
    }
}

/// The next `len` numbers of `from`.
pub(super) fn take<'a>(from: &mut &'a mut [f32], len: usize) -> &'a mut [f32] {
    from.split_off_mut(..len).expect("the segments' rows lie one after the other in buffers of all rows")
}
