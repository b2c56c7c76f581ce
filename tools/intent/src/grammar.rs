//! Grammars of the answers: only known intents, only slots of the intent, and only values that occur in the utterance.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;

use bitnet::Constraint;

use crate::utterance::Utterance;

/// Placeholder of the utterance in a grammar: [`Constraint::with_text_in_json`] fills it, since the answer is JSON.
pub const TEXT: &str = "@TEXT";
/// More slots than any utterance of the data has.
const MOST_SLOTS: usize = 12;

/// The intents of these utterances, as a grammar in Lark's notation.
pub fn of_intents(utterances: &[Utterance]) -> String {
    let intents: BTreeSet<&str> = utterances.iter().map(|u| u.intent.as_str()).collect();
    let names: Vec<String> = intents.iter().map(|name| format!("\"{name}\"")).collect();
    format!("start: \"{{\\\"intent\\\":\\\"\" INTENT \"\\\"}}\"\nINTENT: {}\n", names.join(" | "))
}

/// The intents of these utterances with the slots of each; values are consecutive words of the text at
/// [`TEXT`].
pub fn of_slots(utterances: &[Utterance]) -> String {
    let mut slots: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
    for u in utterances {
        slots.entry(&u.intent).or_default().extend(u.slots.iter().map(String::as_str));
    }
    let mut grammar = String::from("start: \"{\\\"intent\\\":\\\"\" answer \"}}\"\nanswer: ");
    let one_of: Vec<String> = slots
        .keys()
        .enumerate()
        .map(|(i, intent)| format!("\"{intent}\\\",\\\"slots\\\":{{\" (slot{i} (\",\" slot{i}){{0,{MOST_SLOTS}}})?"))
        .collect();
    grammar += &one_of.join("\n  | ");
    grammar.push('\n');
    for (i, names) in slots.values().enumerate() {
        let names: Vec<String> = names.iter().map(|name| format!("\"\\\"{name}\\\":\\\"\"")).collect();
        let _ = writeln!(grammar, "slot{i}: ({}) VALUE \"\\\"\"", names.join(" | "));
    }
    let _ = writeln!(grammar, "VALUE: %regex {{ \"substring_words\": {TEXT} }}");
    grammar
}

/// A grammar for one utterance, in Lark's notation, for those who have no place to give the text at.
pub fn lark(grammar: &str, text: &str) -> String {
    // The answer is JSON, so values stand in it as JSON writes them; and the grammar takes a JSON string of that.
    let escaped = json(text);
    grammar.replace(TEXT, &json(&escaped[1..escaped.len() - 1]))
}

/// A grammar for one utterance, as a constraint: all but the utterance is compiled once.
pub fn constraint(grammar: &str, text: &str) -> Constraint {
    let constraint = Constraint::lark(grammar);
    match grammar.contains(TEXT) {
        true => constraint.with_text_in_json("TEXT", text),
        false => constraint,
    }
}

fn json(text: &str) -> String {
    serde_json::Value::from(text).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::answer::completion;
    use crate::utterance::Task;
    use bitnet::train::extract::Marked;

    fn utterances() -> Vec<Utterance> {
        let of = |text: &str, spans, intent: &str, slots: &[&str]| Utterance {
            task: Task::Slots,
            said: Marked::new(text, spans),
            intent: intent.into(),
            slots: slots.iter().map(|s| (*s).to_owned()).collect(),
        };
        vec![
            of("rate \"It\" 5 stars", vec![5..9, 10..11], "RateBook", &["object_name", "rating_value"]),
            of("weather in Oslo", vec![11..15], "GetWeather", &["city"]),
            of("weather", vec![], "GetWeather", &[]),
        ]
    }

    #[test]
    fn grammars_say_what_there_is() {
        let all = utterances();
        assert_eq!(
            of_intents(&all),
            "start: \"{\\\"intent\\\":\\\"\" INTENT \"\\\"}\"\nINTENT: \"GetWeather\" | \"RateBook\"\n"
        );
        let grammar = of_slots(&all);
        assert!(grammar.contains(r#"slot1: ("\"object_name\":\"" | "\"rating_value\":\"") VALUE "\"""#), "{grammar}");
        assert!(grammar.contains(TEXT));
    }

    /// Every answer of the data can be written under its own grammar, and no other value can: a model with other
    /// preferences is held to it by the grammar alone.
    #[test]
    fn right_answers_are_allowed_and_invented_values_are_not() {
        let all = utterances();
        let grammar = of_slots(&all);
        for u in &all {
            let text = u.said.text();
            let right = completion(u);
            assert!(crate::tests::accepts(&constraint(&grammar, &text), &right), "{right}");
            for wrong in [
                right.replace("Book", "Boot"),
                right.replace("Oslo", "Osl"),
                right.replace("\\\"It\\\"", "They"),
                right.replace("city", "town"),
            ] {
                assert!(wrong == right || !crate::tests::accepts(&constraint(&grammar, &text), &wrong), "{wrong}");
            }
        }
    }
}
