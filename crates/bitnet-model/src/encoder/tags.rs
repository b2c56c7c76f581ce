//! The tag head: scores of tags for each word, the best sequence of them, and the slots that it makes.

use std::ops::Range;

use ternary_kernels::Ops;

use super::config::{ExtractorConfig, TAG_OUTSIDE, TaskConfig, tag_begin, tag_inside};
use super::forward::sized;
use super::heads::{finite, largest, transposed};
use super::once::Once;
use super::weights::TaskWeights;
use super::words::Word;
use crate::ModelError;

/// The tag head and its transitions.
#[derive(Debug)]
pub(super) struct Tagger {
    /// `[2 * hidden, tags]`
    weight: Vec<f32>,
    bias: Vec<f32>,
    /// From each tag to those that may follow every tag: `O`, `B-0`, `B-1` ..., `[tags, 1 + slots]`.
    to_free: Vec<f32>,
    /// To `I-x` from `B-x` and from `I-x`, the only tags that it may follow, `[slots]`.
    to_inside: Vec<[f32; 2]>,
    /// `[tags]`
    start: Vec<f32>,
    /// `[tags]`
    end: Vec<f32>,
    /// Slots that are found at most once.
    once: Vec<usize>,
}

/// Buffers of a tag head, and its results.
#[derive(Debug, Default)]
pub(super) struct TagScratch {
    /// Hidden state and vector of each word, `[n, 2 * hidden]`.
    input: Vec<f32>,
    /// `[n, tags]`
    pub(super) emissions: Vec<f32>,
    viterbi: ViterbiScratch,
    once: Once,
    pub(super) tags: Vec<u16>,
    pub(super) spans: Vec<Span>,
}

impl TagScratch {
    /// Forgets the results of an earlier text.
    pub(super) fn clear(&mut self) {
        self.emissions.clear();
        self.tags.clear();
        self.spans.clear();
    }
}

#[derive(Debug, Default)]
struct ViterbiScratch {
    score: Vec<f32>,
    next: Vec<f32>,
    /// Best scores of the tags that may follow every tag, and the tags that they come from, `[1 + slots]`.
    best: Vec<f32>,
    from: Vec<u16>,
    /// The tag before, for each tag of each word, `[n, tags]`.
    back: Vec<u16>,
}

/// A slot that was found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Span {
    /// Index into the slots of the task.
    pub slot: usize,
    /// Its words.
    pub words: Range<usize>,
    /// Its position in the text, in bytes, from its first to its last word; both ends are on borders of characters.
    pub range: Range<usize>,
}

/// The slots that the tags of `words` make: a beginning and what continues it.
fn spans(tags: &[u16], words: &[Word], spans: &mut Vec<Span>) {
    let mut t = 0;
    while t < tags.len() {
        let (tag, start) = (usize::from(tags[t]), t);
        t += 1;
        if tag == TAG_OUTSIDE {
            continue;
        }
        let slot = (tag - 1) / 2;
        while t < tags.len() && usize::from(tags[t]) == tag_inside(slot) {
            t += 1;
        }
        let range = words[start].range.start..words[t - 1].range.end;
        spans.push(Span { slot, words: start..t, range });
    }
}

impl Tagger {
    pub(super) fn new(config: &ExtractorConfig, task: &TaskConfig, w: &TaskWeights) -> Self {
        let (tags, slots) = (task.tags(), task.slots.len());
        let row = |from: usize| &w.transitions[from * tags..(from + 1) * tags];
        let free =
            |from: usize| std::iter::once(TAG_OUTSIDE).chain((0..slots).map(tag_begin)).map(move |to| row(from)[to]);
        Self {
            weight: transposed(&w.tags_weight, tags, config.tag_input_size()),
            bias: w.tags_bias.clone(),
            to_free: (0..tags).flat_map(free).collect(),
            to_inside: (0..slots).map(|s| [tag_begin(s), tag_inside(s)].map(|from| row(from)[tag_inside(s)])).collect(),
            start: row(tags).to_vec(),
            end: row(tags + 1).to_vec(),
            once: task.once.clone(),
        }
    }

    /// Number of floats.
    pub(super) fn floats(&self) -> usize {
        let lists = [&self.weight, &self.bias, &self.to_free, &self.start, &self.end];
        lists.map(Vec::len).iter().sum::<usize>() + 2 * self.to_inside.len()
    }

    /// Computes emissions, the best tags and their slots from the hidden states and the vectors of `words`, `[n, hidden]`
    /// each; tags that are `forbidden` are not taken.
    ///
    /// # Errors
    /// [`ModelError::Diverged`] if a score is not finite.
    pub(super) fn tag(
        &self,
        ops: Ops,
        (h, e): (&[f32], &[f32]),
        words: &[Word],
        forbidden: &[u16],
        s: &mut TagScratch,
    ) -> Result<(), ModelError> {
        let (n, tags) = (words.len(), self.bias.len());
        let width = self.weight.len() / tags / 2;
        let input = sized(&mut s.input, n * 2 * width);
        for ((row, h), e) in input.chunks_exact_mut(2 * width).zip(h.chunks_exact(width)).zip(e.chunks_exact(width)) {
            row[..width].copy_from_slice(h);
            row[width..].copy_from_slice(e);
        }
        let emissions = sized(&mut s.emissions, n * tags);
        ops.affine(input, &self.weight, &self.bias, emissions);
        finite(emissions, "the score of a tag")?;
        for row in emissions.chunks_exact_mut(tags) {
            forbidden.iter().for_each(|tag| row[usize::from(*tag)] = f32::NEG_INFINITY);
        }
        let TagScratch { emissions, viterbi, once, tags: chosen, .. } = &mut *s;
        self.viterbi(emissions, n, viterbi, chosen);
        once.choose(&self.once, emissions, tags, chosen, |emissions, out| self.viterbi(emissions, n, viterbi, out));
        spans(&s.tags, words, &mut s.spans);
        Ok(())
    }

    /// The sequence of tags with the largest sum of emissions `[n, tags]` and transitions, among those in which `I-x`
    /// follows `B-x` or `I-x`. Sums go from left to right, `(score + transition) + emission`, and of equal ones the
    /// lower tag before wins. Returns the sum.
    fn viterbi(&self, emissions: &[f32], n: usize, s: &mut ViterbiScratch, out: &mut Vec<u16>) -> f32 {
        let (tags, slots) = (self.bias.len(), self.to_inside.len());
        sized(out, n);
        if n == 0 {
            return 0.0;
        }
        let (score, next) = (sized(&mut s.score, tags), sized(&mut s.next, tags));
        let (best, from) = (sized(&mut s.best, 1 + slots), sized(&mut s.from, 1 + slots));
        let back = sized(&mut s.back, n * tags);
        for (tag, score) in score.iter_mut().enumerate() {
            let inside = tag != TAG_OUTSIDE && tag.is_multiple_of(2);
            *score = if inside { f32::NEG_INFINITY } else { self.start[tag] + emissions[tag] };
        }
        let rows = emissions.chunks_exact(tags).zip(back.chunks_exact_mut(tags)).skip(1);
        for (emission, back) in rows {
            best.fill(f32::NEG_INFINITY);
            from.fill(TAG_OUTSIDE as u16);
            for (tag, (score, to)) in score.iter().zip(self.to_free.chunks_exact(1 + slots)).enumerate() {
                let tag = tag as u16;
                for ((best, from), to) in best.iter_mut().zip(from.iter_mut()).zip(to) {
                    let sum = score + to;
                    let better = sum > *best;
                    *best = if better { sum } else { *best };
                    *from = if better { tag } else { *from };
                }
            }
            (next[TAG_OUTSIDE], back[TAG_OUTSIDE]) = (best[0] + emission[TAG_OUTSIDE], from[0]);
            for slot in 0..slots {
                let (begin, inside) = (tag_begin(slot), tag_inside(slot));
                (next[begin], back[begin]) = (best[1 + slot] + emission[begin], from[1 + slot]);
                let [after_begin, after_inside] = self.to_inside[slot];
                let (after_begin, after_inside) = (score[begin] + after_begin, score[inside] + after_inside);
                let (sum, before) =
                    if after_inside > after_begin { (after_inside, inside) } else { (after_begin, begin) };
                (next[inside], back[inside]) = (sum + emission[inside], before as u16);
            }
            score.copy_from_slice(next);
        }
        score.iter_mut().zip(&self.end).for_each(|(score, end)| *score += end);
        let mut tag = largest(score) as u16;
        let sum = score[usize::from(tag)];
        for (t, out) in out.iter_mut().enumerate().rev() {
            *out = tag;
            tag = back[t * tags + usize::from(tag)];
        }
        sum
    }
}

#[cfg(test)]
mod tests {
    use super::super::config::tag_may_follow;
    use super::super::words::WordKind;
    use super::*;

    /// Numbers in -1..1 from a seed.
    fn numbers(seed: u64) -> impl FnMut() -> f32 {
        let mut state = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1;
        move || {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (state >> 40) as f32 / (1 << 23) as f32 - 1.0
        }
    }

    fn tagger(slots: usize, seed: u64) -> (Tagger, Vec<f32>) {
        let task = TaskConfig::new("t", vec!["i".into()], (0..slots).map(|s| s.to_string()).collect());
        let config = ExtractorConfig { hidden_size: 32, ..ExtractorConfig::new(vec![task.clone()]) };
        let mut next = numbers(seed);
        let tags = task.tags();
        let transitions: Vec<f32> = (0..(tags + 2) * tags).map(|_| next()).collect();
        let w = TaskWeights {
            intent_weight: vec![],
            intent_bias: vec![],
            tags_weight: vec![0.0; tags * config.tag_input_size()],
            tags_bias: vec![0.0; tags],
            transitions: transitions.clone(),
        };
        (Tagger::new(&config, &task, &w), transitions)
    }

    /// All sequences of tags, tried one by one; slots of `once` begin at most once.
    fn exhaustive(transitions: &[f32], tags: usize, emissions: &[f32], once: &[usize]) -> (f64, Vec<u16>) {
        let n = emissions.len() / tags;
        let mut best = (f64::NEG_INFINITY, Vec::new());
        for code in 0..tags.pow(n as u32) {
            let path: Vec<usize> = (0..n).map(|t| code / tags.pow(t as u32) % tags).collect();
            let legal = (0..n).all(|t| tag_may_follow(t.checked_sub(1).map(|p| path[p]), path[t]));
            let twice = |slot: &usize| path.iter().filter(|tag| **tag == tag_begin(*slot)).count() > 1;
            if !legal || once.iter().any(twice) {
                continue;
            }
            let path: Vec<u16> = path.into_iter().map(|t| t as u16).collect();
            let sum = exhaustive_score(transitions, tags, emissions, &path);
            if sum > best.0 {
                best = (sum, path);
            }
        }
        best
    }

    fn exhaustive_score(transitions: &[f32], tags: usize, emissions: &[f32], path: &[u16]) -> f64 {
        let at = |from: u16, to: u16| f64::from(transitions[usize::from(from) * tags + usize::from(to)]);
        at(tags as u16, path[0])
            + path.windows(2).map(|p| at(p[0], p[1])).sum::<f64>()
            + path.iter().enumerate().map(|(t, tag)| f64::from(emissions[t * tags + usize::from(*tag)])).sum::<f64>()
            + at(tags as u16 + 1, path[path.len() - 1])
    }

    #[test]
    fn the_best_path_is_that_of_trying_all() {
        let mut s = ViterbiScratch::default();
        for seed in 0..60 {
            let (slots, n) = (1 + seed as usize % 2, 1 + seed as usize / 2 % 4);
            let (tagger, transitions) = tagger(slots, seed);
            let mut next = numbers(seed + 1000);
            let tags = 1 + 2 * slots;
            let mut emissions: Vec<f32> = (0..n * tags).map(|_| next()).collect();
            if seed % 3 == 0 {
                // One slot is forbidden.
                emissions.chunks_exact_mut(tags).for_each(|row| row[1..3].fill(f32::NEG_INFINITY));
            }
            let mut path = Vec::new();
            tagger.viterbi(&emissions, n, &mut s, &mut path);
            assert_eq!(path, exhaustive(&transitions, tags, &emissions, &[]).1, "seed {seed}");
        }
    }

    /// Chosen again once, the tags are the best ones; chosen again more often, they are legal and mostly the best.
    #[test]
    fn slots_that_occur_once_begin_once() {
        let (mut s, mut once) = (ViterbiScratch::default(), Once::default());
        let (mut again, mut more, mut worse) = (0, 0, 0);
        for seed in 0..200 {
            let (slots, n, tags) = (2, 5, 5);
            let (tagger, transitions) = tagger(slots, seed);
            let mut next = numbers(seed + 5000);
            let mut emissions: Vec<f32> = (0..n * tags).map(|_| next()).collect();
            // Beginnings are likely.
            emissions.chunks_exact_mut(tags).for_each(|row| row[tag_begin(0)] += 0.7);
            let single: &[usize] = if seed % 2 == 0 { &[0] } else { &[0, 1] };
            let before = emissions.clone();
            let mut path = Vec::new();
            tagger.viterbi(&emissions, n, &mut s, &mut path);
            let rounds = once.choose(single, &emissions, tags, &mut path, |e, out| tagger.viterbi(e, n, &mut s, out));
            assert_eq!(emissions, before);
            let (best, expected) = exhaustive(&transitions, tags, &emissions, single);
            let score = exhaustive_score(&transitions, tags, &emissions, &path);
            match rounds {
                0 | 1 => assert_eq!(path, expected, "seed {seed}"),
                _ => worse += usize::from(path != expected),
            }
            (again, more) = (again + usize::from(rounds > 0), more + usize::from(rounds > 1));
            assert!(score <= best + 1e-9, "seed {seed}");
            for slot in single {
                assert!(path.iter().filter(|tag| usize::from(**tag) == tag_begin(*slot)).count() <= 1, "seed {seed}");
            }
            (0..n).for_each(|t| {
                let from = t.checked_sub(1).map(|p| usize::from(path[p]));
                assert!(tag_may_follow(from, usize::from(path[t])), "seed {seed}: {path:?}");
            });
        }
        assert!(again > 50 && more > 3 && 2 * worse < more, "{again}, {more} more than once, {worse} not the best");
    }

    #[test]
    fn absurd_scores_still_give_a_legal_path() {
        let (tagger, _) = tagger(2, 5);
        for value in [f32::MAX, f32::MIN, f32::NEG_INFINITY, f32::INFINITY, f32::NAN] {
            let mut emissions = vec![value; 6 * 5];
            emissions[7] = f32::MAX;
            emissions[13] = f32::NEG_INFINITY;
            let mut path = Vec::new();
            tagger.viterbi(&emissions, 6, &mut ViterbiScratch::default(), &mut path);
            for t in 0..6usize {
                let before = t.checked_sub(1).map(|p| usize::from(path[p]));
                assert!(tag_may_follow(before, usize::from(path[t])), "{value}: {path:?}");
            }
        }
    }

    #[test]
    fn spans_are_beginnings_and_what_goes_on() {
        let mut found = Vec::new();
        let word = |i: usize| Word { range: i * 10..i * 10 + 9, kind: WordKind::Letters };
        let words: Vec<Word> = (0..7).map(word).collect();
        // B-0 I-0 O B-0 B-0 B-1 I-1
        spans(&[1, 2, 0, 1, 1, 3, 4], &words, &mut found);
        let found: Vec<_> = found.into_iter().map(|s| (s.slot, s.words, s.range)).collect();
        assert_eq!(found, [(0, 0..2, 0..19), (0, 3..4, 30..39), (0, 4..5, 40..49), (1, 5..7, 50..69)]);
    }
}
