//! Chat templates against Python's jinja2: every case of `testdata/chat/jinja.json`.

use std::time::{Duration, SystemTime};

use loader::chat::{ChatTemplate, RenderOptions, SpecialTokens};
use serde_json::{Map, Value};

fn render(template: &str, vars: &Map<String, Value>, now: u64) -> Result<String, String> {
    let mut options = RenderOptions::default();
    options.extra = vars.clone();
    options.now = Some(SystemTime::UNIX_EPOCH + Duration::from_secs(now));
    let messages = vars.get("messages").and_then(Value::as_array).cloned().unwrap_or_default();
    let template = ChatTemplate::from_source(template).map_err(|error| error.to_string())?;
    template.render_json(messages, &SpecialTokens::default(), &options).map_err(|error| error.to_string())
}

/// The failures of a file's cases.
fn differences(cases: &[Value], vars: Option<&Map<String, Value>>, now: u64) -> Vec<String> {
    let mut wrong = Vec::new();
    for case in cases {
        let template = case["template"].as_str().expect("template");
        let vars = vars.or(case["vars"].as_object()).expect("vars");
        let got = render(template, vars, now);
        match (&got, case["want"].as_str()) {
            (Ok(got), Some(want)) if got == want => {}
            (Err(_), None) => {}
            (_, want) => wrong.push(format!("{template}\n   got {got:?}\n  want {want:?}")),
        }
    }
    wrong
}

#[test]
fn templates_render_as_jinja2_renders_them() {
    let file = std::fs::read(test_support::testdata("chat/jinja.json")).expect("chat/jinja.json");
    let file: Value = serde_json::from_slice(&file).expect("JSON");
    let cases = file["cases"].as_array().expect("cases");
    assert!(cases.len() > 400, "{} cases", cases.len());
    let wrong = differences(cases, file["vars"].as_object(), file["now"].as_u64().expect("now"));
    assert!(wrong.is_empty(), "{} of {} differ:\n{}", wrong.len(), cases.len(), wrong.join("\n"));
}

#[test]
fn reported_templates_render_as_jinja2_renders_them() {
    let Some(shared) = test_support::shared_dir() else { return };
    let file = std::fs::read(shared.join("reports/jinja_cases.json")).expect("jinja_cases.json");
    let cases: Vec<Value> = serde_json::from_slice(&file).expect("JSON");
    let wrong = differences(&cases, None, 0);
    assert!(wrong.is_empty(), "{} differ:\n{}", wrong.len(), wrong.join("\n"));
    let vars = serde_json::json!({ "tools": null, "messages": [{ "role": "user", "content": "Hi" }] });
    for (name, want) in [("crlf", "<|user|>\nHi\n"), ("iterable", "Hi")] {
        let source = std::fs::read_to_string(shared.join(format!("reports/{name}.jinja"))).expect(name);
        assert_eq!(render(&source, vars.as_object().expect("vars"), 0).as_deref(), Ok(want), "{name}");
    }
}

#[test]
fn tools_and_tool_calls_reach_the_template() {
    let source = "{% for t in tools %}{{ t.function.name }}:{{ t|tojson }}{% endfor %}\
        {% for m in messages %}{% for c in m.tool_calls %}{{ c.function.name }}({{ c.function.arguments|tojson }}){% endfor %}{{ m.tool_call_id }}{% endfor %}";
    let mut options = RenderOptions::default();
    options.tools = Some(serde_json::json!([{ "type": "function", "function": { "name": "f", "parameters": {} } }]));
    let messages = serde_json::json!([
        { "role": "assistant", "content": "", "tool_calls": [{ "function": { "name": "f", "arguments": { "x": 1 } } }] },
        { "role": "tool", "content": "2", "tool_call_id": "c1" },
    ]);
    let messages: Vec<loader::chat::Message> = serde_json::from_value(messages).expect("messages");
    let template = ChatTemplate::from_source(source).expect("template");
    let text = template.render(&messages, &SpecialTokens::default(), &options).expect("render");
    let tool = r#"{"type": "function", "function": {"name": "f", "parameters": {}}}"#;
    assert_eq!(text, format!("f:{tool}f({{\"x\": 1}})c1"));
}
