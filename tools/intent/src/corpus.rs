//! The English sets: training data with typing errors and other values of slots, and test data.

use std::collections::BTreeMap;
use std::path::Path;

use bitnet::train::Random;
use bitnet::train::extract::typos;

use crate::answer::{completion, example, prompt};
use crate::error::IntentError;
use crate::utterance::{OUT_OF_SCOPE, Parts, Task, Utterance, clinc, hash, snips};

/// Versions of each utterance to learn from.
pub const VARIANTS: usize = 4;
/// How often the few utterances out of scope are repeated, each time with other errors.
const REPEATED: usize = 5;
/// Share of words with an error in the tests with errors.
pub const TEST_RATE: f64 = 0.2;
/// Share of slots that get another value.
const OTHER_VALUES: f64 = 0.5;

/// Both sets.
#[derive(Clone, Debug, Default)]
pub struct Corpus {
    /// Seven intents with slots.
    pub snips: Parts,
    /// 150 intents and utterances with none of them.
    pub clinc: Parts,
    /// Seed of all random choices.
    pub seed: u64,
}

impl Corpus {
    /// Reads `snips/` and `clinc150/` in a folder.
    ///
    /// # Errors
    /// Files that are not there or have another form.
    pub fn read(folder: &Path, seed: u64) -> Result<Self, IntentError> {
        Ok(Self { snips: snips(&folder.join("snips"))?, clinc: clinc(&folder.join("clinc150"))?, seed })
    }

    /// Everything to learn from, in random order: `rounds` times the four versions of each utterance, with other errors
    /// and values each time.
    pub fn train(&self, rounds: usize) -> Vec<Utterance> {
        let values = values(&self.snips.train);
        let mut all = Vec::new();
        for u in self.snips.train.iter().chain(&self.clinc.train) {
            let times = rounds * if u.intent == OUT_OF_SCOPE { REPEATED } else { 1 };
            all.extend((0..VARIANTS * times).map(|i| self.variant(u, i, &values)));
        }
        shuffle(&mut all, &mut Random::new(self.seed, "order"));
        all
    }

    /// Validation set for training, without errors, in random order.
    pub fn validation(&self) -> Vec<Utterance> {
        let mut all: Vec<Utterance> = self.snips.dev.iter().chain(self.clinc.dev.iter().step_by(5)).cloned().collect();
        shuffle(&mut all, &mut Random::new(self.seed, "validation"));
        all
    }

    /// These utterances with typing errors.
    pub fn with_typos(&self, utterances: &[Utterance]) -> Vec<Utterance> {
        let with = |u: &Utterance| {
            let mut u = u.clone();
            let mut random = Random::new(self.seed ^ hash(&u.said.text()), "test");
            typos::english(&mut u.said, TEST_RATE, &mut random);
            u
        };
        utterances.iter().map(with).collect()
    }

    /// Version `i` of an utterance: as it is, with errors, with other values, with both.
    fn variant(&self, u: &Utterance, i: usize, values: &BTreeMap<&str, Vec<String>>) -> Utterance {
        let mut u = u.clone();
        let mut random = Random::new(self.seed ^ hash(&u.said.text()), &format!("variant {i}"));
        if i % VARIANTS >= 2 {
            for slot in 0..u.slots.len() {
                let all = values.get(u.slots[slot].as_str()).map(Vec::as_slice).unwrap_or_default();
                if !all.is_empty() && random.unit() < OTHER_VALUES {
                    let other = &all[random.below(all.len() as u64) as usize];
                    u.said.replace(u.said.spans[slot].clone(), &other.chars().collect::<Vec<char>>());
                }
            }
        }
        // Without slots there is nothing else to vary.
        let errors = i % 2 == 1 || (u.task == Task::Intent && !i.is_multiple_of(VARIANTS));
        if errors {
            let rate = 0.1 * (1 + random.below(3)) as f64;
            typos::english(&mut u.said, rate, &mut random);
        }
        u
    }

    /// The test set in small, for the repository: `n` utterances of each task, evenly taken, each clean and with
    /// errors.
    pub fn sample(&self, n: usize) -> Vec<Utterance> {
        let mut all = Vec::new();
        for test in [&self.snips.test, &self.clinc.test] {
            let some: Vec<Utterance> = test.iter().step_by(test.len().div_ceil(n).max(1)).take(n).cloned().collect();
            all.extend(self.with_typos(&some));
            all.extend(some);
        }
        all
    }

    /// Utterances of the tests that also occur in the training data, as `(set, utterance)`.
    pub fn leaks(&self) -> Vec<(&'static str, String)> {
        let mut leaks = Vec::new();
        for (name, parts) in [("SNIPS", &self.snips), ("CLINC150", &self.clinc)] {
            let learned: std::collections::BTreeSet<String> = parts.train.iter().map(|u| u.said.text()).collect();
            let tested = parts.test.iter().map(|u| u.said.text());
            leaks.extend(tested.filter(|text| learned.contains(text)).map(|text| (name, text)));
        }
        leaks
    }
}

/// Every value of each slot.
fn values(utterances: &[Utterance]) -> BTreeMap<&str, Vec<String>> {
    let mut values: BTreeMap<&str, Vec<String>> = BTreeMap::new();
    for u in utterances {
        for (i, name) in u.slots.iter().enumerate() {
            values.entry(name).or_default().push(u.said.value(i));
        }
    }
    values
}

/// Puts everything in random order.
pub fn shuffle<T>(all: &mut [T], random: &mut Random) {
    for i in (1..all.len()).rev() {
        all.swap(i, random.below(i as u64 + 1) as usize);
    }
}

/// Utterances as examples for `bitnet train`, one on each line.
pub fn examples(utterances: &[Utterance]) -> String {
    let line = |u: &Utterance| example(&prompt(u.task, &u.said.text()), &completion(u)) + "\n";
    utterances.iter().map(line).collect()
}

/// Text for a tokenizer to learn from, word by word on lines of their own: so no token holds a space and the beginning
/// of a word, and a word is the same tokens wherever it stands. What is copied out of an utterance is then a copy of
/// tokens, too.
pub fn tokenizer_texts(utterances: &[Utterance]) -> Vec<String> {
    let text = |u: &Utterance| format!("{}{}", prompt(u.task, &u.said.text()), completion(u)).replace(' ', "\n");
    utterances.iter().map(text).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use bitnet::train::extract::Marked;

    fn corpus() -> Corpus {
        let utterance = |task, text: &str, spans, intent: &str, slots: &[&str]| Utterance {
            task,
            said: Marked::new(text, spans),
            intent: intent.into(),
            slots: slots.iter().map(|s| (*s).to_owned()).collect(),
        };
        let mut c = Corpus { seed: 7, ..Corpus::default() };
        for city in ["Oslo", "San Diego", "Kanagawa"] {
            let end = 20 + city.len();
            let text = format!("what weather has it {city}");
            c.snips.train.push(utterance(Task::Slots, &text, vec![20..end], "GetWeather", &["city"]));
        }
        c.clinc.train.push(utterance(Task::Intent, "how are you", vec![], "greeting", &[]));
        c.clinc.train.push(utterance(Task::Intent, "how many fish swim", vec![], OUT_OF_SCOPE, &[]));
        c.clinc.test.push(utterance(Task::Intent, "how are you", vec![], "greeting", &[]));
        c.clinc.test.push(utterance(Task::Intent, "hello you", vec![], "greeting", &[]));
        c
    }

    #[test]
    fn everything_is_there_and_the_same_each_time() {
        let c = corpus();
        let all = c.train(1);
        assert_eq!(all.len(), 4 * VARIANTS + REPEATED * VARIANTS);
        assert_eq!(all, c.train(1));
        assert_ne!(all, Corpus { seed: 8, ..c.clone() }.train(1));
        for u in &all {
            assert!(u.pairs().iter().all(|(_, value)| !value.trim().is_empty() && u.said.text().ends_with(value)));
        }
        let text = "what weather has it Oslo";
        assert!(all.iter().any(|u| u.said.text() == text), "the utterance as it is");
        let swapped = all.iter().filter(|u| u.said.text().starts_with("what weather has it ")).count();
        assert!((3..12).contains(&swapped), "{swapped} without errors");
        assert_eq!(c.leaks(), [("CLINC150", "how are you".to_owned())]);
    }

    #[test]
    fn tests_with_errors_differ_in_every_utterance_and_keep_their_meaning() {
        let c = corpus();
        for (u, wrong) in c.clinc.test.iter().zip(c.with_typos(&c.clinc.test)) {
            assert_ne!(u.said, wrong.said);
            assert_eq!((&u.intent, u.task), (&wrong.intent, wrong.task));
        }
        assert_eq!(c.sample(1).len(), 2);
    }

    #[test]
    fn examples_are_lines_of_json() {
        let c = corpus();
        let lines = examples(&c.clinc.test);
        assert_eq!(
            lines.lines().next().unwrap(),
            r#"{"prompt":"intent\nhow are you\n","completion":"{\"intent\":\"greeting\"}"}"#
        );
        assert_eq!(tokenizer_texts(&c.clinc.test)[0], "intent\nhow\nare\nyou\n{\"intent\":\"greeting\"}");
    }
}
