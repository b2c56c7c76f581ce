//! Slots that a text has at most once: the best tags among those in which none of them begins twice.

use std::ops::Range;

use super::config::{TAG_OUTSIDE, tag_begin, tag_inside};

/// Rounds at most, so that a hostile file cannot ask for a search without end; what is still there twice then is left
/// out. Nearly always one round is enough, and then the tags are the best ones.
const ROUNDS: usize = 4;

/// Buffers of [`Once::choose`].
#[derive(Debug, Default)]
pub(crate) struct Once {
    emissions: Vec<f32>,
    kept: Vec<f32>,
    other: Vec<u16>,
}

/// The first word that begins a slot of `once` which has begun before, and the slot.
fn second(tags: &[u16], once: &[usize]) -> Option<(usize, usize)> {
    once.iter()
        .filter_map(|slot| {
            let begins = |(at, tag): (usize, &u16)| (usize::from(*tag) == tag_begin(*slot)).then_some((at, *slot));
            tags.iter().enumerate().filter_map(begins).nth(1)
        })
        .min()
}

impl Once {
    /// Chooses `tags`, the best ones for `emissions` `[n, width]`, again as long as a slot of `once` begins twice. It
    /// begins either before its second beginning or from there on, so the better one of the two sequences without the
    /// other takes its place. `best` writes the best tags for emissions and returns their score. Returns how often
    /// they were chosen again.
    pub(crate) fn choose(
        &mut self,
        once: &[usize],
        emissions: &[f32],
        width: usize,
        tags: &mut Vec<u16>,
        mut best: impl FnMut(&[f32], &mut Vec<u16>) -> f32,
    ) -> usize {
        let Self { emissions: now, kept, other } = self;
        for round in 0..ROUNDS {
            let Some((at, slot)) = second(tags, once) else { return round };
            if round == 0 {
                now.clear();
                now.extend_from_slice(emissions);
            }
            let begin = tag_begin(slot);
            let column = |words: &Range<usize>| words.start * width + begin..words.end * width;
            let forbid = |now: &mut [f32], words: &Range<usize>| {
                now[column(words)].iter_mut().step_by(width).for_each(|e| *e = f32::NEG_INFINITY);
            };
            let (before, behind) = (0..at, at..tags.len());
            kept.clear();
            kept.extend(now[column(&before)].iter().step_by(width));
            forbid(now, &before);
            let without_first = best(now, other);
            now[column(&before)].iter_mut().step_by(width).zip(&*kept).for_each(|(e, kept)| *e = *kept);
            kept.clear();
            kept.extend(now[column(&behind)].iter().step_by(width));
            forbid(now, &behind);
            let without_second = best(now, tags);
            if without_first > without_second {
                now[column(&behind)].iter_mut().step_by(width).zip(&*kept).for_each(|(e, kept)| *e = *kept);
                forbid(now, &before);
                std::mem::swap(tags, other);
            }
        }
        while let Some((at, slot)) = second(tags, once) {
            tags[at] = TAG_OUTSIDE as u16;
            let inside = tag_inside(slot) as u16;
            tags[at + 1..].iter_mut().take_while(|tag| **tag == inside).for_each(|tag| *tag = TAG_OUTSIDE as u16);
        }
        ROUNDS
    }
}
