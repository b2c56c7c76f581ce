//! Texts as the net reads them: rows of features of each word, and the right answers.

use std::ops::Range;

use super::Marked;
use crate::encoder::{FeatureConfig, TAG_OUTSIDE, Utterance as Reader, tag_begin, tag_inside};

/// The expected intent of a text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Goal {
    /// This intent of its task.
    Intent(usize),
    /// None of them.
    Outside,
}

/// A text of a batch.
#[derive(Clone, Debug)]
pub(super) struct Text {
    pub(super) task: usize,
    pub(super) words: Range<usize>,
    pub(super) goal: Goal,
    /// Whether it is another version of the text before it.
    pub(super) twin: bool,
}

/// Several texts, their words one after the other.
#[derive(Debug, Default)]
pub(super) struct Batch {
    rows: Vec<u32>,
    /// End of the features of each word in `rows`.
    ends: Vec<usize>,
    pub(super) all: Vec<Text>,
    /// The right tag of each word; 0 in tasks without slots.
    pub(super) tags: Vec<u16>,
    /// Teachers' answers for the intent of each text, a probability for each intent and then for out of scope; empty
    /// if none teaches its task.
    pub(super) taught: Vec<Vec<f32>>,
    reader: Reader,
}

impl Batch {
    pub(super) fn clear(&mut self) {
        self.rows.clear();
        self.ends.clear();
        self.all.clear();
        self.tags.clear();
        self.taught.clear();
    }

    /// Words of all texts.
    pub(super) fn words(&self) -> usize {
        self.ends.len()
    }

    /// Words of each text.
    pub(super) fn texts(&self) -> impl Iterator<Item = Range<usize>> {
        self.all.iter().map(|t| t.words.clone())
    }

    /// Rows of the features of a word.
    pub(super) fn features(&self, word: usize) -> &[u32] {
        let start = word.checked_sub(1).map_or(0, |w| self.ends[w]);
        &self.rows[start..self.ends[word]]
    }

    /// Adds a text; `slots` are numbers of slots, one for each span of `said`. `drop` says for each feature of a word
    /// whether it is left out, which one of them never is. A text without words is not added, and the answer is
    /// `false`.
    pub(super) fn push(
        &mut self,
        said: &Marked,
        slots: &[usize],
        (task, features): (usize, FeatureConfig),
        goal: Goal,
        drop: &mut dyn FnMut() -> bool,
    ) -> bool {
        let text = said.text();
        self.reader.read(&text, features);
        let words = self.reader.words();
        if words.is_empty() {
            return false;
        }
        let start = self.ends.len();
        for i in 0..words.len() {
            let first = self.rows.len();
            let features = self.reader.features(i);
            self.rows.extend(features.iter().filter(|_| !drop()));
            if self.rows.len() == first {
                self.rows.extend(features.first());
            }
            self.ends.push(self.rows.len());
        }
        self.tags.resize(start + words.len(), TAG_OUTSIDE as u16);
        mark(&text, said, slots, words.iter().map(|w| &w.range), &mut self.tags[start..]);
        self.all.push(Text { task, words: start..self.ends.len(), goal, twin: false });
        true
    }
}

/// Writes the tags of words at these byte ranges: a word that overlaps a span is of its slot.
fn mark<'w>(
    text: &str,
    said: &Marked,
    slots: &[usize],
    words: impl Iterator<Item = &'w Range<usize>>,
    tags: &mut [u16],
) {
    if said.spans.is_empty() {
        return;
    }
    let mut places: Vec<usize> = text.char_indices().map(|(at, _)| at).collect();
    places.push(text.len());
    let mut spans: Vec<(Range<usize>, usize, bool)> = said
        .spans
        .iter()
        .zip(slots)
        .filter_map(|(s, slot)| Some((*places.get(s.start)?..*places.get(s.end)?, *slot, false)))
        .collect();
    for (word, tag) in words.zip(tags) {
        let over = spans.iter_mut().find(|(s, ..)| s.start < word.end && word.start < s.end);
        if let Some((_, slot, begun)) = over {
            *tag = if *begun { tag_inside(*slot) } else { tag_begin(*slot) } as u16;
            *begun = true;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_have_the_tags_of_their_spans() {
        let said = Marked::new("add Kind of Blue to Lela's 東京, now", vec![4..16, 20..24, 27..29]);
        let mut batch = Batch::default();
        for _ in 0..2 {
            assert!(batch.push(&said, &[1, 0, 2], (0, FeatureConfig::new(64)), Goal::Intent(3), &mut || true));
        }
        // add Kind of Blue to Lela 's 東 京 , now
        let tags = [0, 3, 4, 4, 0, 1, 0, 5, 6, 0, 0];
        assert_eq!(batch.tags, [tags, tags].concat());
        assert_eq!(batch.texts().collect::<Vec<_>>(), [0..11, 11..22]);
        assert!((0..22).all(|w| batch.features(w).len() == 1), "one feature stays");
        assert!(!batch.push(&Marked::new(" ", vec![]), &[], (0, FeatureConfig::new(64)), Goal::Outside, &mut || false));
        assert_eq!(batch.words(), 22);
        batch.clear();
        assert!(batch.push(&said, &[1, 0, 2], (0, FeatureConfig::new(64)), Goal::Outside, &mut || false));
        assert!(batch.features(1).len() > 10 && batch.features(1).iter().all(|row| *row < 64));
    }
}
