//! Questions as the public sets write them.

use std::path::Path;

use loader::files::{self, Kind};
use serde_json::{Map, Value};

use crate::error::CliError;

/// A prompt, its possible continuations, and the correct one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Question {
    /// Text before every choice.
    pub(super) prompt: String,
    /// The choices, without the space between prompt and choice.
    pub(super) choices: Vec<String>,
    /// Which of them is right, counted from 0.
    pub(super) answer: usize,
}

/// The questions in a file of JSON lines; empty lines are left out.
///
/// # Errors
/// A file that cannot be read, a line that is not a question; it names the line.
pub(super) fn read(path: &Path) -> Result<Vec<Question>, CliError> {
    let name = path.display().to_string();
    let text = files::read_text(path, Kind::QUESTIONS)?;
    let mut questions = Vec::new();
    for (i, line) in text.lines().enumerate().filter(|(_, l)| !l.trim().is_empty()) {
        let object: Result<Map<String, Value>, _> = serde_json::from_str(line);
        let question = object.map_err(|e| e.to_string()).and_then(|o| parse(&o));
        questions.push(question.map_err(|problem| CliError::usage(format!("{name}, line {}: {problem}", i + 1)))?);
    }
    Ok(questions)
}

fn parse(object: &Map<String, Value>) -> Result<Question, String> {
    let question = if object.contains_key("endings") {
        hellaswag(object)?
    } else if object.get("choices").is_some_and(Value::is_object) {
        arc(object)?
    } else {
        plain(object)?
    };
    match question.choices.len() {
        0 | 1 => Err("a question needs at least two choices".into()),
        n if question.answer >= n => {
            Err(format!("the answer is {}, but there are {n} choices, counted from 0", question.answer))
        }
        _ => Ok(question),
    }
}

fn text<'a>(object: &'a Map<String, Value>, key: &str) -> Result<&'a str, String> {
    object.get(key).and_then(Value::as_str).ok_or_else(|| format!("the string {key:?} is missing"))
}

fn texts(value: Option<&Value>, key: &str) -> Result<Vec<String>, String> {
    let missing = || format!("the list of strings {key:?} is missing");
    let list = value.and_then(Value::as_array).ok_or_else(missing)?;
    list.iter().map(|v| v.as_str().map(str::to_owned).ok_or_else(missing)).collect()
}

/// A number, or one in quotes.
fn number(object: &Map<String, Value>, key: &str) -> Result<usize, String> {
    let value = object.get(key);
    let number = value.and_then(Value::as_u64).and_then(|n| usize::try_from(n).ok());
    number
        .or_else(|| value.and_then(Value::as_str)?.trim().parse().ok())
        .ok_or_else(|| format!("{key:?} must be the number of the right choice"))
}

fn plain(object: &Map<String, Value>) -> Result<Question, String> {
    let prompt = text(object, "prompt").or_else(|_| text(object, "query"))?.to_owned();
    let choices = texts(object.get("choices"), "choices")?;
    let answer = number(object, "answer").or_else(|_| number(object, "gold"))?;
    Ok(Question { prompt, choices, answer })
}

/// AI2's Reasoning Challenge and its kin: lettered choices.
fn arc(object: &Map<String, Value>) -> Result<Question, String> {
    let question = match object.get("question") {
        // The original files nest it.
        Some(Value::Object(inner)) => text(inner, "stem")?,
        _ => text(object, "question").or_else(|_| text(object, "question_stem"))?,
    };
    let choices = object.get("choices").and_then(Value::as_object);
    let of = |key: &str| texts(choices.and_then(|c| c.get(key)), key);
    let (texts, labels) = (of("text")?, of("label")?);
    let key = text(object, "answerKey")?;
    let answer = labels.iter().position(|l| l == key).ok_or_else(|| format!("no choice has the label {key:?}"))?;
    Ok(Question { prompt: format!("Question: {question}\nAnswer:"), choices: texts, answer })
}

/// HellaSwag: texts from subtitles and how-to pages; square brackets contain annotations.
fn hellaswag(object: &Map<String, Value>) -> Result<Question, String> {
    let context = match (text(object, "ctx_a"), text(object, "ctx_b")) {
        (Ok(a), Ok(b)) => format!("{a} {}", capitalized(b)),
        _ => text(object, "ctx")?.to_owned(),
    };
    let prompt = match text(object, "activity_label") {
        Ok(label) => format!("{label}: {context}"),
        Err(_) => context,
    };
    let choices = texts(object.get("endings"), "endings")?.iter().map(|e| cleaned(e)).collect();
    Ok(Question { prompt: cleaned(&prompt), choices, answer: number(object, "label")? })
}

/// The first letter large, all others small, as the public harness has it.
fn capitalized(text: &str) -> String {
    let mut chars = text.chars();
    match chars.next() {
        None => String::new(),
        Some(first) => first.to_uppercase().chain(chars.flat_map(char::to_lowercase)).collect(),
    }
}

/// Titles end sentences, other brackets and double spaces vanish.
fn cleaned(text: &str) -> String {
    let text = text.trim().replace(" [title]", ". ");
    let (mut out, mut rest) = (String::new(), text.as_str());
    while let Some((before, after)) = rest.split_once('[') {
        out.push_str(before);
        match after.split_once(']') {
            Some((_, after)) => rest = after,
            None => {
                out.push('[');
                rest = after;
            }
        }
    }
    out.push_str(rest);
    out.replace("  ", " ")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(line: &str) -> Result<Question, String> {
        parse(&serde_json::from_str(line).unwrap())
    }

    #[test]
    fn the_forms_of_the_public_sets_are_read() {
        let arc = r#"{"id": "x", "question": "Why?", "choices": {"text": ["a", "b", "c"], "label": ["1", "2", "3"]}, "answerKey": "2"}"#;
        let arc = of(arc).unwrap();
        assert_eq!((arc.prompt.as_str(), arc.choices.len(), arc.answer), ("Question: Why?\nAnswer:", 3, 1));
        let swag = r#"{"activity_label": "Cooking", "ctx": "x", "ctx_a": "A man cooks [substeps] soup.", "ctx_b": "he THEN",
            "endings": ["eats it.", "[header] How to eat [title] Sit."], "label": "1"}"#;
        let swag = of(swag).unwrap();
        assert_eq!(swag.prompt, "Cooking: A man cooks soup. He then");
        assert_eq!((&swag.choices[1][..], swag.answer), (" How to eat. Sit.", 1));
        let plain = of(r#"{"prompt": "2+2 =", "choices": ["4", "5"], "answer": 0}"#).unwrap();
        assert_eq!((plain.choices.len(), plain.answer), (2, 0));
    }

    #[test]
    fn what_is_no_question_is_named() {
        for (line, problem) in [
            (r#"{"prompt": "x", "choices": ["a", "b"], "answer": 2}"#, "counted from 0"),
            (r#"{"prompt": "x", "choices": ["a"], "answer": 0}"#, "at least two"),
            (r#"{"choices": ["a", "b"], "answer": 0}"#, "query"),
            (r#"{"question": "x", "choices": {"text": ["a", "b"], "label": ["A", "B"]}, "answerKey": "C"}"#, "\"C\""),
            (r#"{"ctx": "x", "endings": ["a", "b"], "label": ""}"#, "number"),
        ] {
            assert!(of(line).unwrap_err().contains(problem), "{line}");
        }
    }
}
