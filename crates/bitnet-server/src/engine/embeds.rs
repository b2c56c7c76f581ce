//! Requests for embeddings, and their order.

use super::Embed;

/// Requests whose texts may be read in part at once: the state of such a text takes memory.
const UNDER_WAY: usize = 4;

/// The requests, in the order in which they came.
///
/// The first one and the one with the fewest tokens take turns: a short text does not wait for a long one that came
/// before it, and a long one progresses however many short ones come.
#[derive(Debug, Default)]
pub(super) struct Embeds {
    all: Vec<Embed>,
    /// Whether the turn is the first one's.
    first: bool,
    /// The index from which the current one was taken.
    taken: usize,
}

impl Embeds {
    pub(super) fn is_empty(&self) -> bool {
        self.all.is_empty()
    }
    pub(super) fn len(&self) -> usize {
        self.all.len()
    }
    pub(super) fn extend(&mut self, embeds: Vec<Embed>) {
        self.all.extend(embeds);
    }

    /// Removes those whose client is gone, and returns how many.
    pub(super) fn drop_gone(&mut self) -> usize {
        let before = self.all.len();
        self.all.retain(|embed| !embed.answer.is_closed());
        before - self.all.len()
    }

    /// Takes the one that has its turn.
    pub(super) fn next(&mut self) -> Option<Embed> {
        self.first = !self.first;
        let crowded = self.all.iter().filter(|e| e.embedding.is_under_way()).count() >= UNDER_WAY;
        let may = |embed: &Embed| !crowded || embed.embedding.is_under_way();
        let mut candidates = self.all.iter().enumerate().filter(|(_, embed)| may(embed));
        let least = |(_, embed): &(usize, &Embed)| embed.embedding.tokens_left();
        self.taken = if self.first { candidates.next() } else { candidates.min_by_key(least) }?.0;
        Some(self.all.remove(self.taken))
    }

    /// Returns it to its place.
    pub(super) fn put_back(&mut self, embed: Embed) {
        self.all.insert(self.taken.min(self.all.len()), embed);
    }

    pub(super) fn drain(&mut self) -> impl Iterator<Item = Embed> {
        self.all.drain(..)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use bitnet::{EmbedOptions, Model};
    use tokio::sync::oneshot;

    /// The requests have different lengths.
    fn embed(model: &Model, tokens: usize) -> Embed {
        let (answer, kept) = oneshot::channel();
        // The client stays.
        std::mem::forget(kept);
        Embed { embedding: model.embedding(vec![vec![5; tokens]], EmbedOptions::default()).unwrap(), answer }
    }

    #[test]
    fn short_ones_pass_and_the_first_one_goes_on() {
        let model = Model::tiny().unwrap();
        let mut embeds = Embeds::default();
        embeds.extend([1000, 900, 64, 130].map(|n| embed(&model, n)).into());
        let mut turns = Vec::new();
        while let Some(mut next) = embeds.next() {
            turns.push(next.embedding.tokens_left());
            next.embedding.step(64).unwrap();
            if !next.embedding.is_finished() {
                embeds.put_back(next);
            }
            if turns.len() == 10 {
                break;
            }
        }
        assert_eq!(turns, [1000, 64, 936, 130, 872, 66, 808, 2, 744, 680]);
    }

    #[test]
    fn no_more_than_a_few_are_under_way() {
        let model = Model::tiny().unwrap();
        let mut embeds = Embeds::default();
        // Each one is shorter than all before it.
        for n in 0..20 {
            embeds.extend(vec![embed(&model, 5000 - n * 100)]);
            let mut next = embeds.next().unwrap();
            next.embedding.step(16).unwrap();
            embeds.put_back(next);
            assert!(embeds.all.iter().filter(|e| e.embedding.is_under_way()).count() <= UNDER_WAY);
        }
        let gone = embeds.drop_gone();
        assert_eq!((gone, embeds.len()), (0, 20));
    }
}
