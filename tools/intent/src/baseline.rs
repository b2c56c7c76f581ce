//! Baselines: linear classifiers of the same sets, and a linear tagger for the slots.

use std::collections::BTreeSet;

use crate::answer::Answer;
use crate::ask::Figures;
use crate::linear::{Features, Linear, add, of_characters, of_text};
use crate::utterance::{Task, Utterance};

/// Passes over the training data.
const EPOCHS: usize = 5;
/// Learning rate, chosen on the validation data.
const RATE: f32 = 0.5;
/// The tag of a word without a slot.
const OUTSIDE: &str = "O";

/// Classifier and tagger of one task.
#[derive(Clone, Debug)]
pub struct Baseline {
    intents: Linear,
    tags: Option<Linear>,
}

impl Baseline {
    /// Learns the utterances of one task.
    pub fn learn(utterances: &[Utterance], task: Task, seed: u64) -> Self {
        let of_task: Vec<&Utterance> = utterances.iter().filter(|u| u.task == task).collect();
        let cases = of_task.iter().map(|u| (of_text(&u.said.text()), u.intent.clone()));
        let intents = classifier(cases.collect(), seed);
        let tags = (task == Task::Slots).then(|| {
            let mut cases = Vec::new();
            for u in &of_task {
                let words = words(&u.said.chars);
                let tags = tags(u, &words);
                for i in 0..words.len() {
                    let before = if i == 0 { OUTSIDE } else { &tags[i - 1] };
                    cases.push((of_word(&words, i, before, &u.intent), tags[i].clone()));
                }
            }
            classifier(cases, seed)
        });
        Self { intents, tags }
    }

    /// The answer to an utterance, and how sure the intent is.
    pub fn answer(&self, text: &str) -> (Answer, f64) {
        let (intent, sure) = self.intents.best(&of_text(text));
        let mut answer = Answer { intent: intent.to_owned(), ..Answer::default() };
        if let Some(linear) = &self.tags {
            let chars: Vec<char> = text.chars().collect();
            let words = words(&chars);
            let mut tags: Vec<String> = Vec::new();
            for i in 0..words.len() {
                let before = tags.last().map_or(OUTSIDE, String::as_str);
                tags.push(linear.best(&of_word(&words, i, before, intent)).0.to_owned());
            }
            for (name, from, to) in spans(&words, &tags) {
                answer.slots.entry(name).or_insert_with(|| chars[from..to].iter().collect());
            }
        }
        (answer, sure)
    }

    /// Judges answers to utterances of this task.
    pub fn evaluate(&self, utterances: &[Utterance]) -> Figures {
        let mut figures = Figures::default();
        for u in utterances {
            let (answer, sure) = self.answer(&u.said.text());
            figures.add(u, Some(&answer), sure);
        }
        figures
    }
}

/// Learns cases with labels as names.
fn classifier(cases: Vec<(Features, String)>, seed: u64) -> Linear {
    let names: BTreeSet<&str> = cases.iter().map(|c| c.1.as_str()).collect();
    let names: Vec<String> = names.into_iter().map(str::to_owned).collect();
    let number = |name: &String| names.binary_search(name).unwrap_or(0);
    let cases: Vec<(Features, usize)> = cases.iter().map(|(f, name)| (f.clone(), number(name))).collect();
    let mut linear = Linear::new(names);
    linear.learn(&cases, EPOCHS, RATE, seed);
    linear
}

/// A word or a sign with its place in the text.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Word {
    text: String,
    lower: String,
    start: usize,
}

impl Word {
    fn end(&self) -> usize {
        self.start + self.text.chars().count()
    }
}

/// Runs of letters and digits are words, and every other character is a word by itself.
fn words(chars: &[char]) -> Vec<Word> {
    let mut words: Vec<Word> = Vec::new();
    let mut open = false;
    for (i, c) in chars.iter().enumerate() {
        match words.last_mut().filter(|_| open && c.is_alphanumeric()) {
            Some(word) => word.text.push(*c),
            None if c.is_whitespace() => {}
            None => words.push(Word { text: c.to_string(), lower: String::new(), start: i }),
        }
        open = c.is_alphanumeric();
    }
    words.iter_mut().for_each(|w| w.lower = w.text.to_lowercase());
    words
}

/// For each word whether it begins a slot (`B name`), goes on with one (`I name`) or is outside.
fn tags(u: &Utterance, words: &[Word]) -> Vec<String> {
    let tag = |word: &Word| {
        let slot = u.said.spans.iter().zip(&u.slots).find(|(span, _)| span.start < word.end() && word.start < span.end);
        slot.map_or_else(
            || OUTSIDE.to_owned(),
            |(span, name)| format!("{} {name}", if word.start <= span.start { "B" } else { "I" }),
        )
    };
    words.iter().map(tag).collect()
}

/// The slots that the tags mark: name and range in the text.
fn spans(words: &[Word], tags: &[String]) -> Vec<(String, usize, usize)> {
    let mut spans: Vec<(String, usize, usize)> = Vec::new();
    let mut before = OUTSIDE;
    for (word, tag) in words.iter().zip(tags) {
        if let Some((kind, name)) = tag.split_once(' ') {
            let goes_on = kind == "I" && before.split_once(' ').is_some_and(|(_, n)| n == name);
            match spans.last_mut().filter(|_| goes_on) {
                Some(span) => span.2 = word.end(),
                None => spans.push((name.to_owned(), word.start, word.end())),
            }
        }
        before = tag;
    }
    spans
}

/// The word, two words on either side, parts of it, the tag before, the intent.
fn of_word(words: &[Word], i: usize, before: &str, intent: &str) -> Features {
    let at = |offset: isize| {
        let i = i.checked_add_signed(offset);
        i.and_then(|i| words.get(i)).map_or("^", |w| w.lower.as_str())
    };
    let mut features = Vec::new();
    for offset in -2..=2 {
        add(&mut features, &format!("{offset} {}", at(offset)));
    }
    add(&mut features, &format!("-1 0 {} {}", at(-1), at(0)));
    add(&mut features, &format!("0 1 {} {}", at(0), at(1)));
    add(&mut features, &format!("t {before}"));
    add(&mut features, &format!("t0 {before} {}", at(0)));
    add(&mut features, &format!("t1 {before} {}", at(1)));
    add(&mut features, &format!("i {intent}"));
    add(&mut features, &format!("i0 {intent} {}", at(0)));
    add(&mut features, &format!("it {intent} {before}"));
    let text = &words[i].text;
    let shape = match text.chars().next() {
        Some(c) if c.is_uppercase() => "A",
        Some(c) if c.is_numeric() => "0",
        Some(c) if c.is_alphabetic() => "a",
        _ => ".",
    };
    add(&mut features, &format!("s {shape} {before}"));
    of_characters(&mut features, &words[i].lower);
    features
}

#[cfg(test)]
mod tests {
    use super::*;
    use bitnet::train::extract::Marked;

    fn utterance(text: &str, spans: Vec<std::ops::Range<usize>>, intent: &str, slots: &[&str]) -> Utterance {
        let slots = slots.iter().map(|s| (*s).to_owned()).collect();
        Utterance { task: Task::Slots, said: Marked::new(text, spans), intent: intent.into(), slots }
    }

    #[test]
    fn tags_and_spans_are_the_same_thing() {
        let u = utterance(
            "add lela's so what to my list",
            vec![4..10, 11..18, 22..24],
            "Add",
            &["owner", "track", "whose"],
        );
        let words = words(&u.said.chars);
        assert_eq!(
            words.iter().map(|w| w.text.as_str()).collect::<Vec<_>>(),
            ["add", "lela", "'", "s", "so", "what", "to", "my", "list"]
        );
        let tags = tags(&u, &words);
        assert_eq!(tags[..6], ["O", "B owner", "I owner", "I owner", "B track", "I track"]);
        let found = spans(&words, &tags);
        assert_eq!(found, [("owner".into(), 4, 10), ("track".into(), 11, 18), ("whose".into(), 22, 24)]);
        // Adjacent slots of one name stay separate; a continuation without a beginning begins a slot.
        let tags = ["B a", "B a", "I a", "O", "I b", "I a"].map(str::to_owned);
        assert_eq!(spans(&words[..6], &tags).len(), 4);
    }

    #[test]
    fn slots_are_learned_from_their_surroundings() {
        let mut all = Vec::new();
        for city in ["Oslo", "Paris", "Rome", "Lima"] {
            let end = 11 + city.len();
            all.push(utterance(&format!("weather in {city}"), vec![11..end], "GetWeather", &["city"]));
            all.push(utterance(&format!("play {city} now"), vec![5..5 + city.len()], "PlayMusic", &["track"]));
        }
        let all: Vec<Utterance> = (0..10).flat_map(|_| all.clone()).collect();
        let (answer, sure) = Baseline::learn(&all, Task::Slots, 1).answer("weather in Berlin");
        assert_eq!((answer.intent.as_str(), answer.pairs()), ("GetWeather", vec![("city".into(), "Berlin".into())]));
        assert!(sure > 0.8, "{sure}");
    }
}
