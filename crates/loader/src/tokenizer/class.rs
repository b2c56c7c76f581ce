//! Sets of characters.

use std::sync::Arc;

/// A set of characters: a bitmap for ASCII, sorted ranges for the rest.
#[derive(Debug, Clone)]
pub(super) struct Class {
    ascii: u128,
    ranges: Arc<[(char, char)]>,
}

impl Class {
    /// From ranges, both ends inclusive, sorted and without overlaps.
    pub(super) fn new(ranges: impl IntoIterator<Item = (char, char)>) -> Self {
        let ranges: Vec<(char, char)> = ranges.into_iter().collect();
        let mut ascii = 0;
        for code in 0u8..128 {
            let c = char::from(code);
            if ranges.iter().take_while(|(low, _)| *low <= c).any(|(_, high)| c <= *high) {
                ascii |= 1 << code;
            }
        }
        Self { ascii, ranges: ranges.into() }
    }

    /// One character.
    pub(super) fn one(c: char) -> Self {
        Self::new([(c, c)])
    }

    /// All sets together.
    pub(super) fn union<'c>(classes: impl IntoIterator<Item = &'c Self>) -> Self {
        let mut all: Vec<(char, char)> = classes.into_iter().flat_map(|class| class.ranges.iter().copied()).collect();
        all.sort_unstable();
        let mut merged: Vec<(char, char)> = Vec::with_capacity(all.len());
        for (low, high) in all {
            match merged.last_mut() {
                Some((_, end)) if low <= *end => *end = (*end).max(high),
                _ => merged.push((low, high)),
            }
        }
        Self::new(merged)
    }

    /// Whether a character is in it.
    pub(super) fn has(&self, c: char) -> bool {
        match c.is_ascii() {
            true => self.ascii >> u32::from(c) & 1 == 1,
            false => self
                .ranges
                .binary_search_by(|(low, high)| match () {
                    () if c < *low => std::cmp::Ordering::Greater,
                    () if c > *high => std::cmp::Ordering::Less,
                    () => std::cmp::Ordering::Equal,
                })
                .is_ok(),
        }
    }

    /// The number of ranges, which is its size.
    pub(super) fn size(&self) -> usize {
        self.ranges.len()
    }
}
