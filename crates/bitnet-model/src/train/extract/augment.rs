//! Other versions of what is learned from: other values of slots, typing errors, mixtures that mean nothing.

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
    /// How often what is out of scope is seen in a pass, each time with other errors.
    pub outside_repeats: usize,
    /// Halves of two utterances of different intents, taken as out of scope: as a share of what is in scope. Only in
    /// tasks that know what is out of scope.
    pub mixtures: f64,
}

impl Default for Augmentation {
    fn default() -> Self {
        Self { typos: 0.5, exchange: 0.5, feature_dropout: 0.1, outside_repeats: 5, mixtures: 0.0 }
    }
}

/// Share of the slots of an utterance that get another value, where some do.
const OTHER_VALUES: f64 = 0.5;

/// Makes versions.
#[derive(Debug)]
pub(super) struct Variants<'d> {
    tasks: &'d [TaskData],
    options: Augmentation,
    /// Of each task and slot.
    values: Vec<Vec<Vec<Vec<char>>>>,
}

impl<'d> Variants<'d> {
    pub(super) fn new(tasks: &'d [TaskData], options: Augmentation) -> Self {
        Self { tasks, options, values: tasks.iter().map(TaskData::values).collect() }
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
        self.misspell(&mut said, random);
        said
    }

    fn misspell(&self, said: &mut Marked, random: &mut Random) {
        if random.unit() < self.options.typos {
            let rate = 0.1 * (1 + random.below(3)) as f64;
            typos::of_any_script(said, rate, random);
        }
    }

    /// The first half of an utterance and the second half of one of another intent, without slots. `None` where chance
    /// found no two.
    pub(super) fn mixture(&self, task: usize, random: &mut Random) -> Option<Marked> {
        let all = &self.tasks[task].train;
        let mut any = || &all[random.below(all.len() as u64) as usize];
        let (a, b) = (any(), any());
        if a.intent == b.intent || a.intent.is_none() || b.intent.is_none() {
            return None;
        }
        let half = |chars: &[char]| {
            let middle = chars.len() / 2;
            // At a space, if there is one; a text without spaces is cut in its middle.
            chars[middle..].iter().position(|c| *c == ' ').map_or(middle, |at| middle + at)
        };
        let (a, b) = (&a.said.chars, &b.said.chars);
        let chars = [&a[..half(a)], &b[half(b)..]].concat();
        let mut said = Marked { chars, spans: Vec::new() }.trimmed();
        self.misspell(&mut said, random);
        (!said.chars.is_empty()).then_some(said)
    }
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
