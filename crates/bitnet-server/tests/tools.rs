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
fn one_call_counts_where_several_are_not_wanted() {
    let server = Running::start(model(), |_| {});
    let one =
        |city: &str| format!(r#"<tool_call>\{{"name": "weather", "arguments": \{{"city": "{city}"\}}\}}</tool_call>"#);
    for (several, count) in [(true, 2), (false, 1)] {
        let mut request = request(&format!("{}{}", one("Bern"), one("Rome")));
        request["parallel_tool_calls"] = several.into();
        let choice = server.client.post(CHAT, &request).unwrap().ok()["choices"][0].clone();
        let calls = choice["message"]["tool_calls"].as_array().unwrap();
        assert_eq!(calls.len(), count);
        assert_eq!(calls[0]["function"]["arguments"], "{\"city\":\"Bern\"}");
        request["stream"] = true.into();
        let events = server.client.stream(CHAT, &request).unwrap().events().unwrap();
        let streamed: Vec<&Value> =
            events.iter().filter_map(|e| e["choices"][0]["delta"]["tool_calls"].as_array()).flatten().collect();
        assert_eq!(streamed.len(), count);
    }
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
        ("tools", json!([{"type": "function", "function": {"name": "n".repeat(129)}}]), "tools[0]"),
        ("tools", json!([{"type": "function", "function": {"name": "f", "parameters": "none"}}]), "tools[0]"),
        ("parallel_tool_calls", json!("no"), "parallel_tool_calls"),
        ("tool_choice", json!("always"), "tool_choice"),
        ("tool_choice", json!({"type": "function", "function": {"name": "time"}}), "tool_choice"),
        ("tool_choice", json!({"type": "tool", "function": {"name": "weather"}}), "tool_choice"),
        // The request has another constraint.
        ("tool_choice", json!("required"), "tool_choice"),
    ] {
        let mut request = request("x");
        request[field] = value;
        let reply = server.client.post(CHAT, &request).unwrap();
        assert_eq!((reply.status, &reply.json()["error"]["param"]), (400, &json!(param)), "{}", reply.text());
    }
}

#[test]
fn a_required_call_is_made_with_arguments_of_its_schema() {
    let city = json!({"type": "object", "properties": {"city": {"$ref": "#/$defs/city"}, "days": {"type": "integer", "minimum": 1, "maximum": 9}},
        "required": ["city", "days"], "additionalProperties": false, "$defs": {"city": {"enum": ["Bern", "Rome"]}}});
    let tools = json!([
        {"type": "function", "function": {"name": "time", "description": "Tells it."}},
        {"type": "function", "function": {"name": "weather", "description": "Tells it.", "parameters": city}},
    ]);
    // How each family writes calls.
    for mark in ["<tool_call>", "[TOOL_CALLS]", "<|python_tag|>"] {
        let template = TEMPLATE.replace("<tool_call>", mark);
        let model = Model::builder().threads(1).chat_template(template).load_bytes(bitnet::TINY_MODEL).unwrap();
        let server = Running::start(model, |_| {});
        let ask = |choice: Value, stream: bool, seed: u64| {
            json!({"messages": [{"role": "user", "content": "Is it warm?"}], "tools": tools, "tool_choice": choice,
                "stream": stream, "seed": seed, "max_tokens": 400})
        };
        let check = |calls: &Value, names: &[&str]| {
            let calls = calls.as_array().unwrap();
            assert_eq!(calls.len(), 1, "{calls:?}");
            let function = &calls[0]["function"];
            let name = function["name"].as_str().unwrap();
            assert!(names.contains(&name), "{name}");
            let arguments: Value = serde_json::from_str(function["arguments"].as_str().unwrap()).unwrap();
            if name == "weather" {
                assert!(["Bern", "Rome"].contains(&arguments["city"].as_str().unwrap()), "{arguments}");
                assert!((1..=9).contains(&arguments["days"].as_i64().unwrap()), "{arguments}");
            } else {
                assert_eq!(arguments, json!({}));
            }
        };
        let named = json!({"type": "function", "function": {"name": "weather"}});
        for (choice, names) in [(named, &["weather"][..]), (json!("required"), &["weather", "time"][..])] {
            for seed in 0..3 {
                let choice = choice.clone();
                let answer =
                    server.client.post(CHAT, &ask(choice.clone(), false, seed)).unwrap().ok()["choices"][0].clone();
                assert_eq!(answer["finish_reason"], "tool_calls", "{mark}: {answer}");
                check(&answer["message"]["tool_calls"], names);
                let events = server.client.stream(CHAT, &ask(choice, true, seed)).unwrap().events().unwrap();
                let calls: Vec<&Value> =
                    events.iter().map(|e| &e["choices"][0]["delta"]["tool_calls"]).filter(|c| c.is_array()).collect();
                assert_eq!(calls.len(), 1);
                check(calls[0], names);
                assert_eq!(calls[0][0]["function"], answer["message"]["tool_calls"][0]["function"]);
            }
        }
    }
    // Parameters that are not a schema are named, and so is a choice without tools.
    let server = Running::start(model(), |_| {});
    let odd = json!([{"type": "function", "function": {"name": "f", "parameters": {"type": "strange"}}}]);
    for tools in [odd, json!([])] {
        let request =
            json!({"messages": [{"role": "user", "content": "x"}], "tools": tools, "tool_choice": "required"});
        let reply = server.client.post(CHAT, &request).unwrap();
        assert_eq!((reply.status, &reply.json()["error"]["param"]), (400, &json!("tool_choice")), "{}", reply.text());
    }
}
