//! How attention is split into parts: equal shares of the (head, tile of tokens, block of keys) units.
//!
//! There are few heads of keys and values (5 in 2B4T) and texts differ in length, so whole heads cannot be shared
//! evenly. All units in the order segment, head, tile, block form one line, which is split into one range or several
//! for each thread. If tiles are many (a prompt), splits are between tiles; if they are few (generation), also between
//! the blocks of a tile: then the part that has the tile's first block merges the results of the next ones, in the
//! order of the blocks, so that splitting changes no bit.

use ternary_kernels::ops::KV_BLOCK;

use crate::engine::segment::Segment;

/// Parts of a phase on the stack: more than elsewhere, because attention is split into several parts for each thread.
pub(super) const INLINE_PARTS: usize = 64;

/// A position in the line of units.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Cut {
    pub(super) segment: usize,
    pub(super) head: usize,
    pub(super) tile: usize,
    pub(super) block: usize,
}

/// The facts about a segment that the plan needs.
#[derive(Clone, Copy, Debug)]
pub(super) struct Extent {
    /// New tokens.
    pub(super) tokens: usize,
    /// Position of the first of them.
    pub(super) base: usize,
}

impl Extent {
    pub(super) fn of(segment: &Segment<'_>) -> Self {
        Self { tokens: segment.tokens.len(), base: segment.state.len() }
    }

    pub(super) fn tiles(self, tile_tokens: usize) -> usize {
        self.tokens.div_ceil(tile_tokens)
    }

    /// Tokens of tile `tile`.
    pub(super) fn tile(self, tile: usize, tile_tokens: usize) -> std::ops::Range<usize> {
        let start = tile * tile_tokens;
        start..(start + tile_tokens).min(self.tokens)
    }

    /// Blocks of keys that the last token of `tile` sees.
    pub(super) fn blocks(self, tile: usize, tile_tokens: usize) -> usize {
        (self.base + self.tile(tile, tile_tokens).end - 1) / KV_BLOCK + 1
    }
}

/// How the attention of one forward step is shared. It is the same for every layer.
#[derive(Debug, Default)]
pub(super) struct Plan {
    /// The beginning of each part, then the end of the last.
    pub(super) cuts: Vec<Cut>,
    pub(super) extents: Vec<Extent>,
    pub(super) tile_tokens: usize,
    pub(super) heads: usize,
}

/// Below this many tiles for each thread, tiles are split, too.
const WHOLE_TILES: usize = 8;
/// The most parts for each thread if tiles are whole, and if they are split: each split leaves blocks for one thread to
/// merge.
const PARTS: [usize; 2] = [8, 2];
/// Units (blocks times tokens) that are worth a part: tens of microseconds.
const LEAST_UNITS: usize = 16;

impl Plan {
    /// Shares `segments` out to `threads`.
    pub(super) fn make(&mut self, segments: &[Segment<'_>], heads: usize, tile_tokens: usize, threads: usize) {
        self.extents.clear();
        self.extents.extend(segments.iter().map(Extent::of));
        (self.heads, self.tile_tokens) = (heads, tile_tokens);
        let tiles: usize = self.extents.iter().map(|e| e.tiles(self.tile_tokens)).sum::<usize>() * heads;
        let whole = tiles >= WHOLE_TILES * threads;
        let most = if whole { PARTS[0] } else { PARTS[1] };
        let parts = match threads {
            1 => 1,
            _ => threads * (self.total() / (LEAST_UNITS * threads)).clamp(1, most),
        };
        self.share_out(parts, whole);
    }

    /// Parts of the last plan.
    pub(super) fn parts(&self) -> usize {
        self.cuts.len().saturating_sub(1)
    }

    /// Units of all heads.
    fn total(&self) -> usize {
        self.extents.iter().map(|e| self.cost(*e)).sum::<usize>() * self.heads
    }

    fn share_out(&mut self, parts: usize, whole: bool) {
        let total = self.total();
        self.cuts.clear();
        for p in 0..parts {
            let cut = self.find(total * p / parts, whole);
            self.cuts.push(cut);
        }
        self.cuts.push(Cut { segment: self.extents.len(), ..Cut::default() });
    }

    /// Blocks times tokens of one head of a segment.
    fn cost(&self, e: Extent) -> usize {
        (0..e.tiles(self.tile_tokens)).map(|i| self.tile_cost(e, i)).sum()
    }

    fn tile_cost(&self, e: Extent, tile: usize) -> usize {
        e.blocks(tile, self.tile_tokens) * e.tile(tile, self.tile_tokens).len()
    }

    /// The unit at which `goal` is reached; with `whole` the first tile that begins there or later.
    fn find(&self, goal: usize, whole: bool) -> Cut {
        let mut rest = goal;
        for (segment, &e) in self.extents.iter().enumerate() {
            let cost = self.cost(e);
            let Some(head) = rest.checked_div(cost) else { continue };
            if head >= self.heads {
                rest -= cost * self.heads;
                continue;
            }
            rest -= cost * head;
            for tile in 0..e.tiles(self.tile_tokens) {
                let cost = self.tile_cost(e, tile);
                if rest < cost {
                    let block = rest / e.tile(tile, self.tile_tokens).len();
                    return match whole && block > 0 {
                        false => Cut { segment, head, tile, block },
                        true => self.next_tile(Cut { segment, head, tile, block: 0 }),
                    };
                }
                rest -= cost;
            }
        }
        Cut { segment: self.extents.len(), ..Cut::default() }
    }

    /// The tile after that of `cut`, from its first block.
    pub(super) fn next_tile(&self, cut: Cut) -> Cut {
        let Cut { segment, head, tile, .. } = cut;
        if tile + 1 < self.extents[segment].tiles(self.tile_tokens) {
            return Cut { tile: tile + 1, block: 0, ..cut };
        }
        if head + 1 < self.heads {
            return Cut { segment, head: head + 1, tile: 0, block: 0 };
        }
        let after = |s: &usize| self.extents[*s].tokens > 0;
        let segment = (segment + 1..self.extents.len()).find(after).unwrap_or(self.extents.len());
        Cut { segment, ..Cut::default() }
    }

    /// Blocks of the tile at `cut`.
    pub(super) fn blocks(&self, cut: Cut) -> usize {
        self.extents[cut.segment].blocks(cut.tile, self.tile_tokens)
    }

    /// Tokens before the tile at `cut` in the output, which is stored segment by segment, head by head, token by token:
    /// `(tokens of whole segments, tokens within the segment counted once for each head)`. A cut within a tile counts
    /// the tile as before it, because it belongs to the previous part.
    pub(super) fn offset(&self, cut: Cut) -> usize {
        let whole: usize = self.extents[..cut.segment].iter().map(|e| e.tokens * self.heads).sum();
        let Some(e) = self.extents.get(cut.segment) else { return whole };
        let tiles = e.tile(cut.tile, self.tile_tokens);
        whole + cut.head * e.tokens + if cut.block == 0 { tiles.start } else { tiles.end }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Units from `a` up to `b`, exclusive.
    fn units(plan: &Plan, a: Cut, b: Cut) -> Vec<Cut> {
        let (mut at, mut all) = (a, Vec::new());
        while at < b {
            all.push(at);
            at = match at.block + 1 < plan.blocks(at) {
                true => Cut { block: at.block + 1, ..at },
                false => plan.next_tile(at),
            };
        }
        all
    }

    proptest! {
        #[test]
        fn every_unit_belongs_to_one_part(
            extents in prop::collection::vec((0usize..40, 0usize..700), 1..5),
            heads in 1usize..6, tile_tokens in 1usize..9, parts in 1usize..20, whole: bool,
        ) {
            let extents: Vec<_> = extents.into_iter().map(|(tokens, base)| Extent { tokens, base }).collect();
            let mut plan = Plan { cuts: vec![], extents: extents.clone(), tile_tokens, heads };
            plan.share_out(parts, whole);
            prop_assert_eq!(plan.parts(), parts);
            let mut expected = Vec::new();
            for (segment, e) in extents.iter().enumerate() {
                for head in 0..heads {
                    for tile in 0..e.tiles(tile_tokens) {
                        for block in 0..e.blocks(tile, tile_tokens) {
                            expected.push(Cut { segment, head, tile, block });
                        }
                    }
                }
            }
            let ranges: Vec<Vec<Cut>> = plan.cuts.windows(2).map(|w| units(&plan, w[0], w[1])).collect();
            prop_assert_eq!(ranges.concat(), expected);
            // Offsets ascend and end with the whole output.
            let offsets: Vec<_> = plan.cuts.iter().map(|&c| plan.offset(c)).collect();
            prop_assert!(offsets.is_sorted(), "{:?}", offsets);
            prop_assert_eq!(*offsets.last().unwrap(), extents.iter().map(|e| e.tokens).sum::<usize>() * heads);
        }
    }

    #[test]
    fn five_heads_are_equal_work_for_two_threads() {
        let mut plan = Plan { cuts: vec![], extents: vec![Extent { tokens: 1, base: 4095 }], tile_tokens: 8, heads: 5 };
        plan.share_out(2, false);
        assert_eq!(plan.cuts[1], Cut { segment: 0, head: 2, tile: 0, block: 32 });
    }
}
