//! Variants of the training data: other values of slots, typing errors, mixtures that mean nothing.

use super::data::{TaskData, Utterance};
use super::{Marked, typos};
use crate::train::Random;

/// How utterances are varied while they are learned from, a new version in each pass.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Augmentation {
    /// Share of utterances with typing errors, which have them in a tenth to three tenths of their words.
    pub typos: f64,
    /// Share of utterances in which half of the slots get another value of the same slot.
    pub exchange: f64,
    /// Share of the features of a word that is left out.
    pub feature_dropout: f64,
    /// How often an utterance out of scope is seen in a pass, each time with other errors.
    pub outside_repeats: usize,
    /// Share of the words that are left out, of those that belong to no slot.
    pub left_out: f64,
    /// Share of the words in whose place stands the sign U+FFFD.
    pub masked: f64,
    /// Share of utterances without slots whose second half is that of another one of the same intent.
    pub crossed: f64,
    /// Halves of two utterances of different intents, taken as out of scope: as a share of what is in scope. Only in
    /// tasks that know what is out of scope.
    pub mixtures: f64,
}

impl Default for Augmentation {
    fn default() -> Self {
        Self {
            typos: 0.5,
            exchange: 0.5,
            feature_dropout: 0.1,
            outside_repeats: 5,
            left_out: 0.0,
            masked: 0.0,
            crossed: 0.0,
            mixtures: 0.0,
        }
    }
}

/// Share of the slots of an utterance that get another value, in utterances where some do.
const OTHER_VALUES: f64 = 0.5;

/// Makes versions.
#[derive(Debug)]
pub(super) struct Variants<'d> {
    tasks: &'d [TaskData],
    options: Augmentation,
    /// By task and slot.
    values: Vec<Vec<Vec<Vec<char>>>>,
    /// Of each task and intent the numbers of its utterances.
    alike: Vec<Vec<Vec<usize>>>,
}

impl<'d> Variants<'d> {
    pub(super) fn new(tasks: &'d [TaskData], options: Augmentation) -> Self {
        let alike = |task: &TaskData| {
            let mut alike = vec![Vec::new(); task.intents.len()];
            for (i, u) in task.train.iter().enumerate() {
                if let Some(intent) = u.intent {
                    alike[intent].push(i);
                }
            }
            alike
        };
        let values = tasks.iter().map(TaskData::values).collect();
        Self { tasks, options, values, alike: tasks.iter().map(alike).collect() }
    }

    /// A version of an utterance of a task.
    pub(super) fn of(&self, task: usize, u: &Utterance, random: &mut Random) -> Marked {
        let mut said = u.said.clone();
        if !u.slots.is_empty() && random.unit() < self.options.exchange {
            for (i, slot) in u.slots.iter().enumerate() {
                let all = &self.values[task][*slot];
                if !all.is_empty() && random.unit() < OTHER_VALUES {
                    let other = &all[random.below(all.len() as u64) as usize];
                    said.replace(said.spans[i].clone(), other);
                }
            }
        }
        let crosses = self.options.crossed > 0.0 && u.slots.is_empty() && random.unit() < self.options.crossed;
        if let Some(intent) = u.intent.filter(|_| crosses) {
            let alike = &self.alike[task][intent];
            let other = &self.tasks[task].train[alike[random.below(alike.len() as u64) as usize]];
            if other.slots.is_empty() {
                said = crossed(&said, &other.said);
            }
        }
        self.thin(&mut said, random);
        self.misspell(&mut said, random);
        said
    }

    /// Leaves words out, or puts a sign in their place. One word at least stays as it is.
    fn thin(&self, said: &mut Marked, random: &mut Random) {
        let o = self.options;
        if o.left_out <= 0.0 && o.masked <= 0.0 {
            return;
        }
        let mut words: Vec<std::ops::Range<usize>> = Vec::new();
        for (i, c) in said.chars.iter().enumerate() {
            match words.last_mut() {
                _ if *c == ' ' => (),
                Some(word) if word.end == i => word.end = i + 1,
                _ => words.push(i..i + 1),
            }
        }
        let stays = random.below(words.len().max(1) as u64) as usize;
        for (i, word) in words.into_iter().enumerate().rev() {
            let drawn = random.unit();
            if i == stays {
                continue;
            }
            if drawn < o.masked {
                if said.is_within_one(&word) {
                    said.replace(word, &['\u{FFFD}']);
                }
            } else if drawn < o.masked + o.left_out
                && said.spans.iter().all(|s| s.end <= word.start || word.end <= s.start)
            {
                said.replace(word, &[]);
            }
        }
    }

    fn misspell(&self, said: &mut Marked, random: &mut Random) {
        if random.unit() < self.options.typos {
            let rate = 0.1 * (1 + random.below(3)) as f64;
            typos::of_any_script(said, rate, random);
        }
    }

    /// The first half of an utterance and the second half of one of another intent, without slots. `None` if chance
    /// found no two.
    pub(super) fn mixture(&self, task: usize, random: &mut Random) -> Option<Marked> {
        let all = &self.tasks[task].train;
        let mut any = || &all[random.below(all.len() as u64) as usize];
        let (a, b) = (any(), any());
        if a.intent == b.intent || a.intent.is_none() || b.intent.is_none() {
            return None;
        }
        let mut said = crossed(&a.said, &b.said);
        self.misspell(&mut said, random);
        (!said.chars.is_empty()).then_some(said)
    }
}

/// The first half of one text and the second half of another one, without spans.
fn crossed(a: &Marked, b: &Marked) -> Marked {
    let half = |chars: &[char]| {
        let middle = chars.len() / 2;
        // At a space, if there is one; a text without spaces is cut in its middle.
        chars[middle..].iter().position(|c| *c == ' ').map_or(middle, |at| middle + at)
    };
    let (a, b) = (&a.chars, &b.chars);
    let chars = [&a[..half(a)], &b[half(b)..]].concat();
    Marked { chars, spans: Vec::new() }.trimmed()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn task() -> TaskData {
        let u = |text: &str, intent, span: std::ops::Range<usize>| Utterance {
            said: Marked::new(text, vec![span]),
            intent: Some(intent),
            slots: vec![0],
        };
        TaskData {
            name: "t".into(),
            intents: vec!["a".into(), "b".into()],
            slots: vec!["s".into()],
            train: vec![u("play jazz now", 0, 5..9), u("stop the music in Oslo", 1, 18..22)],
            valid: vec![],
        }
    }

    #[test]
    fn values_are_exchanged_and_spans_follow() {
        let tasks = [task()];
        let options = Augmentation { typos: 0.0, exchange: 1.0, ..Augmentation::default() };
        let variants = Variants::new(&tasks, options);
        let mut random = Random::new(1, "x");
        let mut seen = std::collections::BTreeSet::new();
        for _ in 0..50 {
            let said = variants.of(0, &tasks[0].train[0], &mut random);
            assert_eq!(said.text(), format!("play {} now", said.value(0)));
            seen.insert(said.value(0));
        }
        assert_eq!(seen.into_iter().collect::<Vec<_>>(), ["Oslo", "jazz"]);
        let mixtures: std::collections::BTreeSet<String> =
            (0..50).filter_map(|_| variants.mixture(0, &mut random)).map(|m| m.text()).collect();
        assert_eq!(mixtures.into_iter().collect::<Vec<_>>(), ["play jazz in Oslo", "stop the music now"]);
    }

    #[test]
    fn errors_are_made_within_spans_that_hold_them() {
        let tasks = [task()];
        let variants = Variants::new(&tasks, Augmentation { typos: 1.0, exchange: 0.0, ..Augmentation::default() });
        for seed in 0..100 {
            let said = variants.of(0, &tasks[0].train[1], &mut Random::new(seed, "x"));
            assert!(said.text().ends_with(&said.value(0)) && said.text() != "stop the music in Oslo");
        }
    }
}
