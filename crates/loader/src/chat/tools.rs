//! Tool calls in the output of a model.
//!
//! A template tells a model which tools there are ([`RenderOptions::tools`](super::RenderOptions::tools)); how the
//! model calls one depends on its training, which its template reveals.

use serde_json::{Map, Value};

use super::ChatTemplate;

/// The maximum number of calls in one answer; anything beyond is text.
const MAX_CALLS: usize = 128;

/// A call of a tool.
#[derive(Debug, Clone, PartialEq)]
pub struct ToolCall {
    /// The tool.
    pub name: String,
    /// The arguments.
    pub arguments: Map<String, Value>,
}

/// Parts of an answer.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Answered {
    /// Text.
    pub content: String,
    /// The tools that are called, in order.
    pub calls: Vec<ToolCall>,
}

/// The format of calls of a family of models.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum ToolForm {
    /// `<tool_call>{"name": ..., "arguments": {...}}</tool_call>`, any number of them within a text: Qwen, Hermes,
    /// Falcon.
    Tags,
    /// The whole answer is `{"name": ..., "parameters": {...}}`, with `<|python_tag|>` before it or not: Llama 3.
    Whole,
    /// `[TOOL_CALLS] [{"name": ..., "arguments": {...}}, ...]`, possibly after a text: Mistral.
    List,
}

const OPEN: &str = "<tool_call>";
const CLOSE: &str = "</tool_call>";
const PYTHON: &str = "<|python_tag|>";
const LIST: &str = "[TOOL_CALLS]";

impl ChatTemplate {
    /// How models with this template call tools; `None` if it does not mention tools.
    pub fn tool_form(&self) -> Option<ToolForm> {
        let has = |part: &str| self.source().contains(part);
        match () {
            () if !has("tools") => None,
            () if has(OPEN) => Some(ToolForm::Tags),
            () if has(LIST) => Some(ToolForm::List),
            () if has(PYTHON) || has(r#""parameters": "#) => Some(ToolForm::Whole),
            () => None,
        }
    }
}

/// A call in JSON; `None` for anything else.
fn call(value: Value) -> Option<ToolCall> {
    let Value::Object(mut map) = value else { return None };
    let Some(Value::String(name)) = map.remove("name") else { return None };
    let arguments = match map.remove("arguments").or_else(|| map.remove("parameters")) {
        Some(Value::Object(arguments)) => arguments,
        // Some write it as text.
        Some(Value::String(text)) => serde_json::from_str(&text).ok()?,
        None | Some(Value::Null) => Map::new(),
        Some(_) => return None,
    };
    (!name.is_empty()).then_some(ToolCall { name, arguments })
}

/// Calls in JSON, one after the other, with `between` between two of them; `None` if there is anything else.
fn calls(text: &str, between: char) -> Option<Vec<ToolCall>> {
    let mut rest = text.trim();
    let mut all = Vec::new();
    while !rest.is_empty() && all.len() < MAX_CALLS {
        let mut stream = serde_json::Deserializer::from_str(rest).into_iter::<Value>();
        all.push(call(stream.next()?.ok()?)?);
        rest = rest.get(stream.byte_offset()..)?.trim_start().trim_start_matches(between).trim_start();
    }
    (rest.is_empty() && !all.is_empty()).then_some(all)
}

/// Whether `text` may become one that begins with `whole`.
fn may_become(text: &str, whole: &str) -> bool {
    text.starts_with(whole) || whole.starts_with(text)
}

/// Bytes of `text` before `mark`, or before a possible beginning of it.
fn before(text: &str, mark: &str) -> usize {
    match text.find(mark) {
        Some(at) => at,
        None => (0..mark.len()).rev().find(|n| text.ends_with(&mark[..*n])).map_or(text.len(), |n| text.len() - n),
    }
}

impl ToolForm {
    /// The parts of a whole answer. Anything that looks like a call but is not is text.
    pub fn read(self, text: &str) -> Answered {
        let read = match self {
            Self::Tags => return tags(text),
            Self::Whole => {
                let trimmed = text.trim_start();
                calls(trimmed.strip_prefix(PYTHON).unwrap_or(trimmed), ';').map(|calls| (String::new(), calls))
            }
            Self::List => text.split_once(LIST).and_then(|(content, list)| {
                let all: Vec<Value> = serde_json::from_str(list.trim()).ok()?;
                let calls = all.into_iter().map(call).collect::<Option<Vec<_>>>()?;
                (1..=MAX_CALLS).contains(&calls.len()).then(|| (content.trim().to_owned(), calls))
            }),
        };
        match read {
            Some((content, calls)) => Answered { content, calls },
            None => Answered { content: text.to_owned(), calls: Vec::new() },
        }
    }

    /// How many bytes of an unfinished answer are certainly not part of a call; the rest is decided when it is
    /// complete.
    pub fn certain(self, text: &str) -> usize {
        match self {
            Self::Tags => before(text, OPEN),
            Self::List => before(text, LIST),
            Self::Whole => {
                let begin = text.trim_start();
                if may_become(begin, "{") || may_become(begin, PYTHON) { 0 } else { text.len() }
            }
        }
    }
}

fn tags(text: &str) -> Answered {
    let mut answered = Answered::default();
    let mut rest = text;
    while let Some((content, after)) = rest.split_once(OPEN) {
        // The last one may have been cut off before its end, which does not make its content invalid.
        let (inner, next) = after.split_once(CLOSE).unwrap_or((after, ""));
        match calls(inner, '\n').filter(|calls| answered.calls.len() + calls.len() <= MAX_CALLS) {
            Some(calls) => {
                answered.content.push_str(content);
                answered.calls.extend(calls);
            }
            None => answered.content.push_str(&rest[..rest.len() - next.len()]),
        }
        rest = next;
    }
    answered.content.push_str(rest);
    if !answered.calls.is_empty() {
        answered.content = answered.content.trim().to_owned();
    }
    answered
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn read(form: ToolForm, text: &str) -> (String, Vec<(String, Value)>) {
        let Answered { content, calls } = form.read(text);
        (content, calls.into_iter().map(|c| (c.name, Value::Object(c.arguments))).collect())
    }

    #[test]
    fn each_family_is_read() {
        let weather = || ("weather".to_owned(), json!({"city": "Bern", "days": [1, 2]}));
        let json = r#"{"name": "weather", "arguments": {"city": "Bern", "days": [1, 2]}}"#;
        let tagged = format!("<tool_call>\n{json}\n</tool_call>");
        assert_eq!(read(ToolForm::Tags, &tagged), (String::new(), vec![weather()]));
        let several = format!("Let me see. {tagged}\n{tagged} Done.");
        assert_eq!(read(ToolForm::Tags, &several), ("Let me see. \n Done.".into(), vec![weather(), weather()]));
        assert_eq!(read(ToolForm::Tags, &format!("<tool_call>{json}\n{json}")), (String::new(), vec![weather(); 2]));
        let texts = r#"<tool_call>{"name": "a", "arguments": "{\"b\": 1}"}</tool_call>"#;
        assert_eq!(read(ToolForm::Tags, texts).1, [("a".to_owned(), json!({"b": 1}))]);
        let llama = json.replace("arguments", "parameters");
        for text in [llama.clone(), format!("<|python_tag|>{llama}"), format!(" {llama}\n")] {
            assert_eq!(read(ToolForm::Whole, &text), (String::new(), vec![weather()]));
        }
        assert_eq!(read(ToolForm::Whole, &format!("{llama}; {llama}")).1.len(), 2);
        assert_eq!(
            read(ToolForm::List, &format!("Yes.[TOOL_CALLS] [{json}, {json}]")),
            ("Yes.".into(), vec![weather(); 2])
        );
        assert_eq!(read(ToolForm::List, r#"[TOOL_CALLS][{"name": "now"}]"#).1, [("now".to_owned(), json!({}))]);
    }

    #[test]
    fn what_is_no_call_is_text() {
        let deep = format!("<tool_call>{}</tool_call>", "[".repeat(100_000));
        let many = "<tool_call>".repeat(50_000);
        for text in [
            "no call",
            "<tool_call>",
            "<tool_call></tool_call>",
            "<tool_call>{\"name\": 1}</tool_call> x",
            "a <tool_call>{\"name\": \"a\", \"arguments\": [1]}</tool_call>",
            &deep,
            &many,
            "<tool_call>{\"name\": \"a\"} and</tool_call>",
        ] {
            assert_eq!(ToolForm::Tags.read(text), Answered { content: text.to_owned(), calls: vec![] });
        }
        for text in ["{\"name\"", "{\"name\": \"a\"} is a name", "[1]", "", "text"] {
            assert_eq!(read(ToolForm::Whole, text), (text.to_owned(), vec![]));
        }
        for text in ["[TOOL_CALLS]", "[TOOL_CALLS] []", "[TOOL_CALLS] [1]", "x"] {
            assert_eq!(read(ToolForm::List, text), (text.to_owned(), vec![]));
        }
    }

    #[test]
    fn what_may_become_a_call_is_held_back() {
        for (form, text, certain) in [
            (ToolForm::Tags, "a < b <to", 6),
            (ToolForm::Tags, "a <tool_call>{", 2),
            (ToolForm::Tags, "é", 2),
            (ToolForm::Tags, "<", 0),
            (ToolForm::List, "ok [", 3),
            (ToolForm::List, "ok [x", 5),
            (ToolForm::Whole, "", 0),
            (ToolForm::Whole, " {", 0),
            (ToolForm::Whole, "<|py", 0),
            (ToolForm::Whole, "<b>", 3),
            (ToolForm::Whole, "No", 2),
        ] {
            assert_eq!(form.certain(text), certain, "{text:?}");
        }
    }

    #[test]
    fn the_form_is_that_of_the_template() {
        let form = |source: &str| ChatTemplate::from_source(source).unwrap().tool_form();
        assert_eq!(form("{{ messages[0].content }}"), None);
        assert_eq!(form("{% if tools %}<tool_call>{% endif %}"), Some(ToolForm::Tags));
        assert_eq!(form("{% if tools %}[TOOL_CALLS]{% endif %}"), Some(ToolForm::List));
        assert_eq!(form("{% if tools %}<|python_tag|>{% endif %}"), Some(ToolForm::Whole));
        assert_eq!(form("{% if tools %}{% endif %}"), None);
    }
}
