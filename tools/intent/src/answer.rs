//! The form of prompts and completions.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::utterance::{Task, Utterance};

/// An answer as a program reads it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Answer {
    /// The intent.
    pub intent: String,
    /// Slots with their values, as they occur in the utterance.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub slots: BTreeMap<String, String>,
}

impl Answer {
    /// Parses the output of a model.
    ///
    /// # Errors
    /// Text that is no such JSON.
    pub fn read(text: &str) -> Result<Self, serde_json::Error> {
        serde_json::from_str(text)
    }

    /// Slots with their values.
    pub fn pairs(&self) -> Vec<(String, String)> {
        self.slots.iter().map(|(name, value)| (name.clone(), value.clone())).collect()
    }
}

/// The prompt: which task, a line feed, the utterance, a line feed.
pub fn prompt(task: Task, text: &str) -> String {
    let task = match task {
        Task::Slots => "slots",
        Task::Intent => "intent",
    };
    format!("{task}\n{text}\n")
}

/// The answer that is right, slots in the order of the utterance.
pub fn completion(utterance: &Utterance) -> String {
    let mut answer = Map::new();
    answer.insert("intent".into(), Value::from(utterance.intent.as_str()));
    if utterance.task == Task::Slots {
        let slots = utterance.pairs().into_iter().map(|(name, value)| (name, Value::from(value)));
        answer.insert("slots".into(), Value::Object(slots.collect()));
    }
    Value::Object(answer).to_string()
}

/// A line of a file of examples for `bitnet train`.
pub fn example(prompt: &str, completion: &str) -> String {
    let mut line = Map::new();
    line.insert("prompt".into(), prompt.into());
    line.insert("completion".into(), completion.into());
    Value::Object(line).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;
    use bitnet::train::extract::Marked;

    #[test]
    fn answers_are_what_they_were_made_of() {
        let said = Marked::new("play \"So What\" by Miles", vec![5..14, 18..23]);
        let u = Utterance {
            task: Task::Slots,
            said,
            intent: "PlayMusic".into(),
            slots: vec!["track".into(), "artist".into()],
        };
        let text = completion(&u);
        assert_eq!(text, r#"{"intent":"PlayMusic","slots":{"track":"\"So What\"","artist":"Miles"}}"#);
        let answer = Answer::read(&text).unwrap();
        let mut pairs = u.pairs();
        pairs.sort();
        assert_eq!((answer.intent.as_str(), answer.pairs()), ("PlayMusic", pairs));
        let u = Utterance { task: Task::Intent, intent: "oos".into(), slots: vec![], ..u };
        assert_eq!(completion(&u), r#"{"intent":"oos"}"#);
        assert_eq!(Answer::read(&completion(&u)).unwrap().slots.len(), 0);
        assert!(Answer::read("{").is_err());
    }
}
