//! `tools`, `tool_choice` and `parallel_tool_calls`: the tools that a model may call, and whether it must.

use loader::chat::{ChatTemplate, ToolForm};
use serde_json::{Value, json};

use super::held::Calling;
use super::{ApiError, Fields, GenerationParams, quoted};
use crate::state::App;

/// Most tools; OpenAI's limit.
const MAX_TOOLS: usize = 128;
/// Longest name of a tool in bytes.
const MAX_NAME: usize = 128;
pub(super) const NO_TOOLS: &str = "the chat template of this model does not support tools";

/// Tools that the model may call.
pub(super) struct Tools {
    /// Their descriptions, for the template.
    pub(super) list: Value,
    /// The format of calls.
    pub(super) calling: Calling,
}

/// `tool_choice`.
pub(super) enum Choice {
    /// The model decides.
    Auto,
    /// No call.
    Never,
    /// A call of any tool.
    Any,
    /// A call of this tool.
    One(String),
}

/// How the model calls tools; `None` if it was not made for them.
pub(super) fn form(app: &App) -> Option<ToolForm> {
    app.model.chat_template().and_then(ChatTemplate::tool_form)
}

impl Choice {
    /// Takes `tool_choice`; `named` finds the name of a tool in its object, which `example` shows.
    pub(super) fn take(
        fields: &mut Fields,
        example: &str,
        named: impl FnOnce(&Value) -> Option<&str>,
    ) -> Result<Self, ApiError> {
        let Some(value) = fields.take("tool_choice") else { return Ok(Self::Auto) };
        match value.as_str() {
            Some("auto") => return Ok(Self::Auto),
            Some("none") => return Ok(Self::Never),
            Some("required") => return Ok(Self::Any),
            _ => {}
        }
        match named(&value).filter(|_| value["type"] == "function") {
            Some(name) => Ok(Self::One(name.to_owned())),
            None => Err(fields.wrong("tool_choice", format!("it must be auto, none, required, or {example}"))),
        }
    }
}

impl Tools {
    /// Takes the fields of a chat; `None` if the model may call none. If it must call one, its text is constrained.
    pub(super) fn take(
        fields: &mut Fields,
        app: &App,
        params: &mut GenerationParams,
    ) -> Result<Option<Self>, ApiError> {
        let example = "{\"type\": \"function\", \"function\": {\"name\": ...}}";
        let choice = Choice::take(fields, example, |value| value["function"]["name"].as_str())?;
        let list = list(fields)?;
        let several = fields.boolean_or("parallel_tool_calls", true)?;
        Self::new(app, params, choice, list, several)
    }

    /// Tools in the form of a chat; with `several`, an answer may call more than one.
    pub(super) fn new(
        app: &App,
        params: &mut GenerationParams,
        choice: Choice,
        list: Vec<Value>,
        several: bool,
    ) -> Result<Option<Self>, ApiError> {
        if list.is_empty() {
            return match choice {
                Choice::Auto | Choice::Never => Ok(None),
                Choice::Any | Choice::One(_) => Err(ApiError::field("tool_choice", "there are no tools to call")),
            };
        }
        let Some(form) = form(app) else { return Err(ApiError::unsupported("tools", NO_TOOLS)) };
        list.iter().enumerate().try_for_each(|(i, tool)| check(i, tool))?;
        let callable: Vec<&Value> = match &choice {
            Choice::Never => return Ok(None),
            Choice::Auto => Vec::new(),
            Choice::Any => list.iter().collect(),
            Choice::One(wanted) => {
                let one = list.iter().find(|tool| name(tool) == Some(wanted.as_str()));
                let unknown =
                    || ApiError::field("tool_choice", format!("there is no tool {} in tools", quoted(wanted)));
                vec![one.ok_or_else(unknown)?]
            }
        };
        if !callable.is_empty() {
            must_call(&callable, form, params)?;
        }
        Ok(Some(Self { list: list.into(), calling: Calling { form, several } }))
    }
}

/// `tools`: a list of them.
pub(super) fn list(fields: &mut Fields) -> Result<Vec<Value>, ApiError> {
    match fields.take("tools") {
        None => Ok(Vec::new()),
        Some(Value::Array(all)) if all.len() <= MAX_TOOLS => Ok(all),
        Some(_) => Err(fields.wrong("tools", format!("it must be a list of at most {MAX_TOOLS} tools"))),
    }
}

/// The name of a tool.
fn name(tool: &Value) -> Option<&str> {
    tool["function"]["name"].as_str()
}

/// Refuses tools that templates and grammars cannot take.
fn check(i: usize, tool: &Value) -> Result<(), ApiError> {
    let wrong = |message: String| Err(ApiError::field(format!("tools[{i}]"), message));
    let Some(name) = name(tool).filter(|name| !name.is_empty() && tool["type"] == "function") else {
        let must = "it must be {\"type\": \"function\", \"function\": {\"name\": ..., \"description\": ..., \"parameters\": ...}}";
        return wrong(must.to_owned());
    };
    if name.len() > MAX_NAME {
        return wrong(format!("its name has {} bytes, at most {MAX_NAME} are allowed", name.len()));
    }
    match &tool["function"]["parameters"] {
        Value::Null | Value::Object(_) => Ok(()),
        _ => wrong(format!("the parameters of {} must be a JSON schema, which is an object", quoted(name))),
    }
}

/// Constrains the text to one call of one of `tools`.
#[cfg(feature = "constrain")]
fn must_call(tools: &[&Value], form: ToolForm, params: &mut GenerationParams) -> Result<(), ApiError> {
    const FIELD: &str = "tool_choice";
    if let Some(other) = params.constrained() {
        return Err(ApiError::field(FIELD, format!("a call that is required and {other} cannot be used together")));
    }
    let Some(grammar) = grammar(tools, form) else {
        return Err(ApiError::unsupported(FIELD, "this server cannot make this model call a tool"));
    };
    params.constrain(FIELD, bitnet::Constraint::lark(grammar));
    Ok(())
}

/// Without the feature a text cannot be constrained.
#[cfg(not(feature = "constrain"))]
fn must_call(_: &[&Value], _: ToolForm, _: &mut GenerationParams) -> Result<(), ApiError> {
    Err(ApiError::unsupported("tool_choice", "this server was built without constraints"))
}

/// The schema of a tool's arguments, with the spacing of JSON: with white space of any length, the engine's default, a
/// model may write white space forever.
#[cfg_attr(not(feature = "constrain"), allow(dead_code, reason = "only constraints need it"))]
fn arguments(tool: &Value) -> Value {
    let mut schema = match &tool["function"]["parameters"] {
        Value::Object(schema) => schema.clone(),
        // No description of parameters means that there are none.
        _ => json!({"type": "object", "properties": {}, "additionalProperties": false})
            .as_object()
            .cloned()
            .unwrap_or_default(),
    };
    let spacing = json!({"whitespace_flexible": false, "item_separator": ", ", "key_separator": ": "});
    schema.entry("x-guidance").or_insert(spacing);
    schema.into()
}

/// A grammar of one call: every tool is a rule, whose arguments follow the schema of its parameters.
#[cfg(feature = "constrain")]
fn grammar(tools: &[&Value], form: ToolForm) -> Option<String> {
    // A text in the grammar is written like one in JSON.
    let text = |text: &str| json!(text).to_string();
    let (begin, field, end) = match form {
        ToolForm::Tags => ("<tool_call>\n", "arguments", "\n</tool_call>"),
        ToolForm::Whole => ("", "parameters", ""),
        ToolForm::List => ("[TOOL_CALLS] [", "arguments", "]"),
        _ => return None,
    };
    let calls: Vec<String> = (0..tools.len()).map(|i| format!("call{i}")).collect();
    let mut grammar = format!("start: {}\n", calls.join(" | "));
    for (i, tool) in tools.iter().enumerate() {
        let before = format!("{begin}{{\"name\": {}, \"{field}\": ", tool["function"]["name"]);
        let (before, after) = (text(&before), text(&format!("}}{end}")));
        grammar.push_str(&format!("call{i}: {before} args{i} {after}\nargs{i}: %json {}\n", arguments(tool)));
    }
    Some(grammar)
}

#[cfg(all(test, feature = "constrain"))]
mod tests {
    use super::*;

    #[test]
    fn a_grammar_has_a_rule_for_each_tool() {
        let tools = [
            json!({"function": {"name": "a \"b\"", "parameters": {"type": "object"}}}),
            json!({"function": {"name": "c"}}),
        ];
        let tools: Vec<&Value> = tools.iter().collect();
        let lines: Vec<String> = grammar(&tools, ToolForm::Tags).unwrap().lines().map(str::to_owned).collect();
        assert_eq!(lines[0], "start: call0 | call1");
        assert_eq!(
            lines[1],
            r#"call0: "<tool_call>\n{\"name\": \"a \\\"b\\\"\", \"arguments\": " args0 "}\n</tool_call>""#
        );
        assert!(lines[2].starts_with(r#"args0: %json {"type":"object","x-guidance":{"#), "{}", lines[2]);
        assert!(lines[4].contains(r#""additionalProperties":false"#) && lines.len() == 5);
        assert!(grammar(&tools, ToolForm::List).unwrap().contains(r#""[TOOL_CALLS] [{"#));
        assert!(grammar(&tools, ToolForm::Whole).unwrap().contains(r#"\"parameters\": " args1 "}""#));
    }

    #[test]
    fn tools_that_cannot_be_called_are_named() {
        let tool = |name: &str, parameters: Value| json!({"type": "function", "function": {"name": name, "parameters": parameters}});
        assert!(check(0, &tool("a", Value::Null)).is_ok() && check(0, &tool(&"n".repeat(128), json!({}))).is_ok());
        for wrong in [tool("", json!({})), tool(&"n".repeat(129), json!({})), tool("a", json!([])), json!({}), json!(1)]
        {
            let error = check(7, &wrong).unwrap_err();
            assert_eq!(error.json()["error"]["param"], "tools[7]", "{wrong}");
        }
    }
}
