//! Utterances with their intents and slots, from files of JSON lines.
//!
//! ```text
//! {"text": "play So What by Miles", "intent": "PlayMusic", "slots": [{"name": "track", "start": 5, "end": 12}]}
//! ```
//!
//! `start` and `end` count characters (Unicode scalar values), `end` is exclusive. `intent` is `null` for
//! utterances out of scope. `slots` may be left out, and so may `part`, which is `train` or `valid`.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use serde_json::Value;

use super::Marked;
use crate::files::{FileError, Lines};
use crate::train::{Random, TrainError};

/// Longest line, bytes.
const MAX_LINE: usize = 1 << 20;
const WHAT: &str = "a file of utterances";
/// Intents and slots of a task at most.
const MAX_INTENTS: usize = 4096;
const MAX_SLOTS: usize = 1024;

/// An utterance and its meaning, with numbers in place of names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Utterance {
    /// The text; its spans are the values of slots.
    pub said: Marked,
    /// The intent, an index into [`TaskData::intents`]; `None` if it is out of scope.
    pub intent: Option<usize>,
    /// For each span its slot, an index into [`TaskData::slots`].
    pub slots: Vec<usize>,
}

/// The data of one task.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TaskData {
    /// Its name.
    pub name: String,
    /// The intents, in alphabetical order.
    pub intents: Vec<String>,
    /// The slots, in alphabetical order.
    pub slots: Vec<String>,
    /// Utterances to learn from.
    pub train: Vec<Utterance>,
    /// Utterances kept for validation.
    pub valid: Vec<Utterance>,
}

/// A line of a file.
struct Line {
    said: Marked,
    intent: Option<String>,
    slots: Vec<String>,
    valid: Option<bool>,
}

impl TaskData {
    /// Reads the files of one task. Lines say themselves which part they belong to; of lines that do not, all of
    /// `valid` and the share `share` of `train`, chosen by `seed` and text, are kept for choices.
    ///
    /// # Errors
    /// [`FileError::Line`] names file, line and field of an invalid entry; also fails if there is nothing to learn.
    pub fn read(name: &str, train: &[PathBuf], valid: &[PathBuf], share: f64, seed: u64) -> Result<Self, TrainError> {
        let mut lines = Vec::new();
        for (files, kept) in [(train, false), (valid, true)] {
            for path in files {
                read(path, kept, &mut lines)?;
            }
        }
        let names = |all: BTreeSet<&str>| all.into_iter().map(str::to_owned).collect::<Vec<String>>();
        let intents = names(lines.iter().filter_map(|l| l.0.intent.as_deref()).collect());
        let slots = names(lines.iter().flat_map(|l| l.0.slots.iter().map(String::as_str)).collect());
        let nothing = |problem: &str| TrainError::File {
            path: train.first().cloned().unwrap_or_default(),
            problem: format!("there is nothing to learn: {problem}"),
        };
        if intents.is_empty() {
            return Err(nothing("no utterance has an intent"));
        }
        let too_many =
            |what: &'static str, n: usize, must| TrainError::Option { option: what, value: n.to_string(), must };
        if intents.len() > MAX_INTENTS {
            return Err(too_many("the number of intents", intents.len(), "at most 4096"));
        }
        if slots.len() > MAX_SLOTS {
            return Err(too_many("the number of slots", slots.len(), "at most 1024"));
        }
        let mut data = Self { name: name.to_owned(), intents, slots, ..Self::default() };
        for (line, kept) in lines {
            // The names are in the lists, which were made of them.
            let number = |all: &[String], name: &String| all.binary_search(name).unwrap_or(0);
            let valid = line.valid.unwrap_or_else(|| kept || Random::new(seed, &line.said.text()).unit() < share);
            let utterance = Utterance {
                intent: line.intent.as_ref().map(|i| number(&data.intents, i)),
                slots: line.slots.iter().map(|s| number(&data.slots, s)).collect(),
                said: line.said,
            };
            if valid { data.valid.push(utterance) } else { data.train.push(utterance) }
        }
        if data.train.iter().all(|u| u.intent.is_none()) {
            return Err(nothing("every utterance with an intent is kept for validation"));
        }
        Ok(data)
    }

    /// Whether something to learn from is out of scope.
    pub fn has_outside(&self) -> bool {
        self.train.iter().any(|u| u.intent.is_none())
    }

    /// Every value of each slot, as it occurs in the training data.
    pub(super) fn values(&self) -> Vec<Vec<Vec<char>>> {
        let mut values = vec![Vec::new(); self.slots.len()];
        for u in &self.train {
            for (span, slot) in u.said.spans.iter().zip(&u.slots) {
                values[*slot].push(u.said.chars[span.clone()].to_vec());
            }
        }
        values
    }

    /// For each intent the slots that were seen with it, in ascending order.
    pub fn slots_of_intents(&self) -> Vec<Vec<usize>> {
        let mut seen: BTreeMap<usize, BTreeSet<usize>> = BTreeMap::new();
        for u in self.train.iter().chain(&self.valid) {
            if let Some(intent) = u.intent {
                seen.entry(intent).or_default().extend(&u.slots);
            }
        }
        (0..self.intents.len()).map(|i| seen.remove(&i).unwrap_or_default().into_iter().collect()).collect()
    }

    /// The slots that no utterance has twice, in ascending order.
    pub fn slots_seen_once(&self) -> Vec<usize> {
        let mut once = vec![true; self.slots.len()];
        for u in self.train.iter().chain(&self.valid) {
            for (i, slot) in u.slots.iter().enumerate() {
                once[*slot] &= !u.slots[..i].contains(slot);
            }
        }
        once.iter().enumerate().filter(|(_, once)| **once).map(|(slot, _)| slot).collect()
    }
}

/// Appends the lines of a file.
fn read(path: &Path, kept: bool, to: &mut Vec<(Line, bool)>) -> Result<(), TrainError> {
    let mut lines = Lines::open(path, WHAT, MAX_LINE)?;
    while let Some((number, text)) = lines.next_text()? {
        if text.trim_ascii().is_empty() {
            continue;
        }
        let bad = |problem| FileError::Line { path: path.to_path_buf(), line: number, problem };
        to.push((Line::parse(text).map_err(bad)?, kept));
    }
    Ok(())
}

/// A name or value out of a file for a message, shortened.
fn shown(text: &str) -> String {
    let mut shown: String = text.chars().take(40).flat_map(char::escape_debug).collect();
    if text.chars().nth(40).is_some() {
        shown.push('…');
    }
    shown
}

impl Line {
    fn parse(text: &str) -> Result<Self, String> {
        let value: Value = serde_json::from_str(text).map_err(|e| format!("not JSON: {e}"))?;
        let Value::Object(fields) = value else { return Err("not an object with the field \"text\"".to_owned()) };
        if let Some(unknown) = fields.keys().find(|k| !["text", "intent", "slots", "part"].contains(&k.as_str())) {
            return Err(format!("unknown field \"{}\"; expected text, intent, slots or part", shown(unknown)));
        }
        let text = match fields.get("text") {
            Some(Value::String(text)) => text,
            Some(_) => return Err("field \"text\" is not a string".to_owned()),
            None => return Err("the field \"text\" is missing".to_owned()),
        };
        let intent = match fields.get("intent") {
            Some(Value::String(name)) => Some(checked_name(name, "intent")?),
            Some(Value::Null) => None,
            Some(_) => return Err("field \"intent\" is neither a string nor null".to_owned()),
            None => return Err("the field \"intent\" is missing; null means out of scope".to_owned()),
        };
        let valid = match fields.get("part").map(|p| p.as_str()) {
            None => None,
            Some(Some("train")) => Some(false),
            Some(Some("valid")) => Some(true),
            Some(_) => return Err("field \"part\" is neither \"train\" nor \"valid\"".to_owned()),
        };
        let length = text.chars().count();
        let mut spans = Vec::new();
        let mut slots = Vec::new();
        let none = Vec::new();
        let all = match fields.get("slots") {
            None => &none,
            Some(Value::Array(all)) => all,
            Some(_) => return Err("field \"slots\" is not a list".to_owned()),
        };
        for (i, slot) in all.iter().enumerate() {
            let Value::Object(slot) = slot else { return Err(format!("field \"slots[{i}]\" is not an object")) };
            if let Some(unknown) = slot.keys().find(|k| !["name", "start", "end"].contains(&k.as_str())) {
                let problem = "expected name, start or end";
                return Err(format!("unknown field \"slots[{i}].{}\"; {problem}", shown(unknown)));
            }
            let name = slot.get("name").and_then(Value::as_str);
            let name = name.ok_or_else(|| format!("field \"slots[{i}].name\" is missing or not a string"))?;
            let place = |key: &str| {
                let at = slot.get(key).and_then(Value::as_u64).and_then(|at| usize::try_from(at).ok());
                at.ok_or_else(|| format!("field \"slots[{i}].{key}\" is missing or not a whole number of characters"))
            };
            let (start, end) = (place("start")?, place("end")?);
            if end > length {
                let s = if length == 1 { "" } else { "s" };
                return Err(format!(
                    "field \"slots[{i}].end\": {end} is beyond the end of the text, which has {length} character{s}"
                ));
            }
            if start >= end {
                return Err(format!("field \"slots[{i}].start\": {start} is not before the end, {end}"));
            }
            let covers = |s: &std::ops::Range<usize>| s.start < end && start < s.end;
            if let Some(other) = spans.iter().position(covers) {
                return Err(format!("field \"slots[{i}]\": {start}..{end} overlaps \"slots[{other}]\""));
            }
            spans.push(start..end);
            slots.push(checked_name(name, &format!("slots[{i}].name"))?);
        }
        let said = Marked::new(text, spans).trimmed();
        if said.chars.is_empty() {
            return Err("field \"text\" is empty".to_owned());
        }
        if let Some(i) = said.spans.iter().position(|s| s.is_empty()) {
            return Err(format!("field \"slots[{i}]\": only white space"));
        }
        Ok(Self { said, intent, slots, valid })
    }
}

/// Checks a name from a file.
fn checked_name(name: &str, field: &str) -> Result<String, String> {
    if name.is_empty() || name.len() > 256 || name.chars().any(char::is_control) {
        return Err(format!(
            "field \"{field}\": \"{}\" is not a name of 1 to 256 bytes without control characters",
            shown(name)
        ));
    }
    Ok(name.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_makes_no_sense_is_named() {
        for (line, problem) in [
            ("[1]", "not an object"),
            ("{\"text\"", "not JSON"),
            (r#"{"text": "a", "intent": "b", "intents": 1}"#, "unknown field \"intents\""),
            (r#"{"intent": "b"}"#, "field \"text\" is missing"),
            (r#"{"text": 5, "intent": "b"}"#, "\"text\" is not a string"),
            (r#"{"text": "  ", "intent": "b"}"#, "\"text\" is empty"),
            (r#"{"text": "a"}"#, "field \"intent\" is missing"),
            (r#"{"text": "a", "intent": 3}"#, "neither a string nor null"),
            (r#"{"text": "a", "intent": ""}"#, "\"intent\": \"\" is not a name"),
            (r#"{"text": "a", "intent": "b", "part": "test"}"#, "\"part\""),
            (r#"{"text": "a", "intent": "b", "slots": {}}"#, "\"slots\" is not a list"),
            (r#"{"text": "a", "intent": "b", "slots": [1]}"#, "\"slots[0]\" is not an object"),
            (r#"{"text": "a", "intent": "b", "slots": [{"slot": "x"}]}"#, "\"slots[0].slot\""),
            (r#"{"text": "a", "intent": "b", "slots": [{"name": "x", "start": 0}]}"#, "\"slots[0].end\""),
            (r#"{"text": "a", "intent": "b", "slots": [{"name": "x", "start": -1, "end": 1}]}"#, "\"slots[0].start\""),
            (r#"{"text": "青空", "intent": "b", "slots": [{"name": "x", "start": 0, "end": 3}]}"#, "has 2 characters"),
            (r#"{"text": "ab", "intent": "b", "slots": [{"name": "x", "start": 1, "end": 1}]}"#, "not before the end"),
            (r#"{"text": "a b", "intent": "b", "slots": [{"name": "x", "start": 1, "end": 2}]}"#, "only white space"),
            (
                r#"{"text": "abc", "intent": "b", "slots": [{"name": "x", "start": 0, "end": 2}, {"name": "y", "start": 1, "end": 3}]}"#,
                "\"slots[1]\": 1..3 overlaps \"slots[0]\"",
            ),
        ] {
            let error = Line::parse(line).map(drop).unwrap_err();
            assert!(error.contains(problem), "{line}: {error}");
        }
    }

    #[test]
    fn files_become_numbers() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.jsonl");
        let good = concat!(
            r#"{"text": " play 青空 ", "intent": "play", "slots": [{"name": "what", "start": 6, "end": 9}]}"#,
            "\n\n",
            r#"{"text": "stop", "intent": "halt", "part": "valid"}"#,
            "\n",
            r#"{"text": "what?", "intent": null, "slots": []}"#,
        );
        std::fs::write(&path, good).unwrap();
        let read = || TaskData::read("t", std::slice::from_ref(&path), &[], 0.0, 1);
        let data = read().unwrap();
        assert_eq!((data.intents.join(" "), data.slots.join(" ")), ("halt play".to_owned(), "what".to_owned()));
        assert_eq!((data.train.len(), data.valid.len(), data.has_outside()), (2, 1, true));
        assert_eq!(data.train[0].said.value(0), "青空");
        assert_eq!((data.train[0].intent, data.valid[0].intent, data.train[1].intent), (Some(1), Some(0), None));
        assert_eq!(data.slots_of_intents(), [vec![], vec![0]]);
        assert_eq!(data.slots_seen_once(), [0]);
        let mut twice = data.clone();
        twice.valid[0].slots = vec![0, 0];
        assert!(twice.slots_seen_once().is_empty());
        std::fs::write(&path, format!("{good}\n{{\"text\": \"a\", \"intent\": 1}}\n")).unwrap();
        let error = read().unwrap_err().to_string();
        assert!(error.contains("a.jsonl: line 5: field \"intent\""), "{error}");
        std::fs::write(&path, "").unwrap();
        assert!(read().unwrap_err().to_string().contains("nothing to learn"));
    }
}
