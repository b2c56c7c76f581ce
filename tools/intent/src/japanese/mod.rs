//! The topic of a question in Japanese: "青空文庫って知ってる?" is about 青空文庫. This script makes the set from
//! titles and patterns of questions; both are divided, so that the test data was never seen.

mod patterns;
mod topics;

use std::path::Path;

use bitnet::train::Random;
use bitnet::train::extract::Marked;
use bitnet::train::extract::typos::japanese as make_typos;

use patterns::Patterns;

use crate::answer::example;
use crate::corpus::shuffle;
use crate::error::IntentError;
use crate::utterance::hash;

/// The grammar of answers: a topic is a piece of the question.
pub const GRAMMAR: &str =
    "start: \"{\\\"topic\\\":\\\"\" TOPIC \"\\\"}\"\nTOPIC: %regex { \"substring_chars\": @TEXT }\n";

/// A question and its topic.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Question {
    /// The question; its only span is the topic.
    pub said: Marked,
}

impl Question {
    fn new(pattern: &str, topic: &str) -> Self {
        let before = pattern.split("{}").next().unwrap_or_default();
        let start = before.chars().count();
        let span = start..start + topic.chars().count();
        Self { said: Marked::new(&pattern.replace("{}", topic), vec![span]) }
    }

    /// The topic, as it occurs in the question.
    pub fn topic(&self) -> String {
        self.said.value(0)
    }

    /// The prompt: the question and a line feed.
    pub fn prompt(&self) -> String {
        format!("{}\n", self.said.text())
    }

    /// The answer that is right.
    pub fn completion(&self) -> String {
        format!("{{\"topic\":{}}}", serde_json::Value::from(self.topic()))
    }
}

/// Questions to learn from and questions to report, with patterns that were written one by one, or with those that are
/// composed of frames as well ([`Questions::composed`]).
#[derive(Clone, Debug, Default)]
pub struct Questions {
    /// Topics to learn from.
    pub topics: Vec<String>,
    /// Topics that are never learned.
    pub held_out_topics: Vec<String>,
    patterns: Patterns,
    seed: u64,
}

/// Differences between the questions of a test and those of training.
pub const TESTS: [&str; 4] = ["nothing new but the pair", "new topics", "new patterns", "new topics and patterns"];

impl Questions {
    /// Reads titles out of `aozora_works.tsv` and `databricks-dolly-15k-ja.jsonl` in a folder.
    ///
    /// # Errors
    /// Files that are not there or have another form.
    pub fn read(folder: &Path, seed: u64) -> Result<Self, IntentError> {
        let all = topics::read(folder)?;
        // One in eight, by a hash of the title alone.
        let (held_out_topics, topics) = all.into_iter().partition(|t| hash(t).is_multiple_of(8));
        Ok(Self { topics, held_out_topics, patterns: Patterns::written(), seed })
    }

    /// The same topics with more patterns, learned and held out.
    #[must_use]
    pub fn composed(self) -> Self {
        Self { patterns: Patterns::composed(), ..self }
    }

    /// How many patterns there are to learn and how many held out.
    pub fn patterns(&self) -> [usize; 2] {
        [self.patterns.learned.len(), self.patterns.held_out.len()]
    }

    /// `n` questions to learn from without errors, as extractors make their own.
    pub fn clean(&self, n: usize) -> Vec<Question> {
        let mut random = Random::new(self.seed, "ja clean");
        (0..n).map(|_| draw(&self.topics, &self.patterns.learned, &mut random)).collect()
    }

    /// `n` questions to choose by, with patterns that are neither learned nor reported.
    pub fn kept(&self, n: usize) -> Vec<Question> {
        let mut random = Random::new(self.seed, "ja kept");
        (0..n).map(|_| draw(&self.topics, &self.patterns.kept, &mut random)).collect()
    }

    /// `n` questions to learn from: half of them with errors.
    pub fn train(&self, n: usize) -> Vec<Question> {
        let mut random = Random::new(self.seed, "ja train");
        let mut all: Vec<Question> = (0..n)
            .map(|i| {
                let mut q = draw(&self.topics, &self.patterns.learned, &mut random);
                if i % 2 == 1 {
                    make_typos(&mut q.said, &mut random);
                }
                q
            })
            .collect();
        shuffle(&mut all, &mut random);
        all
    }

    /// The topic by rule: the rest of a question without the longest learned pattern that fits. `None`
    /// if none fits.
    pub fn by_rule<'t>(&self, text: &'t str) -> Option<&'t str> {
        let fits = |pattern: &String| {
            let (before, after) = pattern.split_once("{}")?;
            let topic = text.strip_prefix(before)?.strip_suffix(after).filter(|t| !t.is_empty())?;
            Some((before.len() + after.len(), topic))
        };
        self.patterns.learned.iter().filter_map(fits).max_by_key(|f| f.0).map(|f| f.1)
    }

    /// `n` questions of one of the [`TESTS`], without errors and the same with errors.
    pub fn test(&self, which: usize, n: usize) -> [Vec<Question>; 2] {
        let topics = if which % 2 == 1 { &self.held_out_topics } else { &self.topics };
        let patterns = if which / 2 == 1 { &self.patterns.held_out } else { &self.patterns.learned };
        let mut random = Random::new(self.seed, &format!("ja test {which}"));
        let clean: Vec<Question> = (0..n).map(|_| draw(topics, patterns, &mut random)).collect();
        let mut wrong = clean.clone();
        wrong.iter_mut().for_each(|q| make_typos(&mut q.said, &mut random));
        [clean, wrong]
    }
}

fn draw(topics: &[String], patterns: &[String], random: &mut Random) -> Question {
    let pattern = patterns.get(random.below(patterns.len().max(1) as u64) as usize).map_or("{}", String::as_str);
    let mut any = || topics.get(random.below(topics.len().max(1) as u64) as usize).map_or("", String::as_str);
    let topic = any();
    match pattern.contains(patterns::OTHER) {
        true => Question::new(&pattern.replace(patterns::OTHER, any()), topic),
        false => Question::new(pattern, topic),
    }
}

/// Questions as examples for `bitnet train`, one on each line.
pub fn examples(questions: &[Question]) -> String {
    questions.iter().map(|q| example(&q.prompt(), &q.completion()) + "\n").collect()
}

/// Text for a tokenizer to learn from, every character on a line of its own: so a token is a character or a part of
/// one, and no token crosses the border of a topic.
pub fn tokenizer_texts(questions: &[Question]) -> Vec<String> {
    let lines = |q: &Question| q.said.chars.iter().flat_map(|c| [*c, '\n']).collect::<String>();
    let mut texts: Vec<String> = questions.iter().map(lines).collect();
    // The frame of every answer, as whole tokens.
    texts.extend((0..100).map(|_| "{\"topic\":\"\n\"}\n".to_owned()));
    texts
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_example_of_the_article() {
        let q = Question::new("{}って知ってる?", "青空文庫");
        assert_eq!((q.prompt().as_str(), q.topic().as_str()), ("青空文庫って知ってる?\n", "青空文庫"));
        assert_eq!(q.completion(), "{\"topic\":\"青空文庫\"}");
        assert_eq!(tokenizer_texts(&[q])[0].chars().take(4).collect::<String>(), "青\n空\n");
    }

    #[test]
    fn the_longest_pattern_that_fits_is_the_rule() {
        let q = Questions { patterns: Patterns::written(), ..Questions::default() };
        assert_eq!(q.by_rule("青空文庫って知ってる?"), Some("青空文庫"));
        assert_eq!(q.by_rule("ねえ、青空文庫って知ってる？"), Some("青空文庫"));
        assert_eq!(q.by_rule("青空文庫?"), Some("青空文庫"));
        assert_eq!(q.by_rule("青空文庫って知つてる"), None);
    }

    #[test]
    fn nothing_that_is_held_out_is_learned() {
        // Very different titles: no error turns one into another.
        let all: Vec<String> = (0..400).map(|i| format!("題{:016x}", hash(&format!("{i}")))).collect();
        let (held_out_topics, topics): (Vec<String>, Vec<String>) =
            all.into_iter().partition(|t| hash(t).is_multiple_of(8));
        assert!(held_out_topics.len() > 20);
        let q = Questions { topics, held_out_topics, patterns: Patterns::written(), seed: 3 };
        nothing_is_learned_of(&q);
        nothing_is_learned_of(&q.composed());
    }

    fn nothing_is_learned_of(q: &Questions) {
        let learned = [q.train(2000), q.clean(2000)].concat();
        assert_eq!(learned, [q.train(2000), q.clean(2000)].concat());
        let whole = |q: &Question| q.said.text();
        for (which, name) in TESTS.iter().enumerate() {
            let [clean, wrong] = q.test(which, 200);
            for (c, w) in clean.iter().zip(&wrong) {
                assert_ne!(c.said, w.said, "{name}");
                let new = which % 2 == 1;
                assert_eq!(q.held_out_topics.contains(&c.topic()), new, "{name}");
                assert!(!new || learned.iter().all(|l| l.topic() != c.topic()), "{name}: {}", c.topic());
            }
            if which > 0 {
                assert!(clean.iter().all(|c| learned.iter().all(|l| whole(l) != whole(c))), "{name}");
            }
        }
    }
}
