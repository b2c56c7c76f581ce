//! Tools: their descriptions for a model, and the calls in its output.
#![cfg(feature = "constrain")]

mod common;

use bitnet::Model;
use common::Running;
use serde_json::{Value, json};

const CHAT: &str = "/v1/chat/completions";
/// Writes everything about tools, so that a test can see it in the number of tokens, and nothing if there are none.
const TEMPLATE: &str = "{% if tools %}{% for tool in tools %}{{ tool.function.name }}: <tool_call> {% endfor %}{% endif %}\
    {% for m in messages %}{{ m.role }} {{ m.content }}{% for call in m.tool_calls or [] %}{{ call.function.name }}\
    {{ call.function.arguments.city.upper() }}{% endfor %}{{ m.tool_call_id or '' }}{% endfor %}";

fn model() -> Model {
    Model::builder().threads(1).chat_template(TEMPLATE).load_bytes(bitnet::TINY_MODEL).unwrap()
}

fn tools() -> Value {
    json!([{"type": "function", "function": {"name": "weather", "description": "Tells it.",
        "parameters": {"type": "object", "properties": {"city": {"type": "string"}}}}}])
}

/// A request whose answer matches the expression.
fn request(regex: &str) -> Value {
    json!({"messages": [{"role": "user", "content": "Is it warm?"}], "tools": tools(), "regex": regex, "max_tokens": 200,
        "seed": 1, "parallel_tool_calls": true, "tool_choice": "auto"})
}

const CALL: &str =
    r#"One moment\. <tool_call>\{"name": "weather", "arguments": \{"city": "(Bern|Rome)"\}\}</tool_call>"#;

#[test]
fn calls_are_told_apart_from_text() {
    let server = Running::start(model(), |_| {});
    let choice = server.client.post(CHAT, &request(CALL)).unwrap().ok()["choices"][0].clone();
    let (message, call) = (&choice["message"], &choice["message"]["tool_calls"][0]);
    assert_eq!((&choice["finish_reason"], &message["content"]), (&json!("tool_calls"), &json!("One moment.")));
    assert_eq!((&call["type"], &call["function"]["name"]), (&json!("function"), &json!("weather")));
    assert!(call["id"].as_str().unwrap().starts_with("call_"));
    let arguments: Value = serde_json::from_str(call["function"]["arguments"].as_str().unwrap()).unwrap();
    assert!(["Bern", "Rome"].contains(&arguments["city"].as_str().unwrap()));
    // Text that looks like a call but is not is text, and so is a call without tools.
    for (regex, tools) in [("<tool_call> is a tag", true), (CALL, false)] {
        let mut request = request(regex);
        if !tools {
            request["tool_choice"] = "none".into();
        }
        let choice = server.client.post(CHAT, &request).unwrap().ok()["choices"][0].clone();
        assert_eq!(choice["finish_reason"], "stop");
        assert!(choice["message"]["content"].as_str().unwrap().contains("<tool_call>"));
        assert!(choice["message"]["tool_calls"].is_null());
    }
}

#[test]
fn streams_send_text_at_once_and_calls_when_they_are_whole() {
    let server = Running::start(model(), |_| {});
    let events = |regex: &str| {
        let mut request = request(regex);
        request["stream"] = true.into();
        server.client.stream(CHAT, &request).unwrap().events().unwrap()
    };
    let choices = |events: &[Value]| events.iter().map(|e| e["choices"][0].clone()).collect::<Vec<_>>();
    let all = choices(&events(CALL));
    let text: String = all.iter().filter_map(|c| c["delta"]["content"].as_str()).collect();
    assert_eq!(text, "One moment. ");
    let calls: Vec<_> = all.iter().filter(|c| c["delta"]["tool_calls"].is_array()).collect();
    assert_eq!((calls.len(), &calls[0]["delta"]["tool_calls"][0]["index"]), (1, &json!(0)));
    assert_eq!(all.last().unwrap()["finish_reason"], "tool_calls");
    let all = choices(&events("1 < 2 <tool_call> is a tag"));
    let text: String = all.iter().filter_map(|c| c["delta"]["content"].as_str()).collect();
    assert_eq!((text.as_str(), &all.last().unwrap()["finish_reason"]), ("1 < 2 <tool_call> is a tag", &json!("stop")));
}

#[test]
fn templates_see_tools_and_calls() {
    let server = Running::start(model(), |_| {});
    let tokens = |change: &dyn Fn(&mut Value)| {
        let mut request = request("x");
        change(&mut request);
        let reply = server.client.post(CHAT, &request).unwrap();
        (reply.status == 200).then(|| reply.ok()["usage"]["prompt_tokens"].as_u64().unwrap())
    };
    let with = tokens(&|_| {}).unwrap();
    let without = tokens(&|r| r["tool_choice"] = "none".into()).unwrap();
    assert!(with > without);
    let said = |call: Value| {
        json!([{"role": "user", "content": "Is it warm?"},
            {"role": "assistant", "content": null, "tool_calls": [call]},
            {"role": "tool", "content": "12 degrees", "tool_call_id": "call_1"}])
    };
    let call = |arguments: Value| json!({"id": "call_1", "type": "function", "function": {"name": "weather", "arguments": arguments}});
    // The template uses a method of the argument: it is a value, not its text.
    let right = call(json!("{\"city\": \"Bern\"}"));
    assert!(tokens(&|r| r["messages"] = said(right.clone())).unwrap() > with);
    for (wrong, param) in [
        (call(json!("[1]")), "messages[1].tool_calls[0].function.arguments"),
        (json!({"type": "function"}), "messages[1].tool_calls[0].function"),
        (json!({"type": "other", "function": {}}), "messages[1].tool_calls[0].type"),
    ] {
        let mut request = request("x");
        request["messages"] = said(wrong);
        let reply = server.client.post(CHAT, &request).unwrap();
        assert_eq!((reply.status, &reply.json()["error"]["param"]), (400, &json!(param)), "{}", reply.text());
    }
    for (field, value, param) in [
        ("tools", json!([{"type": "function", "function": {}}]), "tools[0]"),
        ("tools", json!(vec![tools()[0].clone(); 129]), "tools"),
        ("tool_choice", json!("required"), "tool_choice"),
        ("tool_choice", json!({"type": "function", "function": {"name": "weather"}}), "tool_choice"),
    ] {
        let mut request = request("x");
        request[field] = value;
        let reply = server.client.post(CHAT, &request).unwrap();
        assert_eq!((reply.status, &reply.json()["error"]["param"]), (400, &json!(param)), "{}", reply.text());
    }
}
