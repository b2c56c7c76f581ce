//! `/v1/responses`: the same texts as in a chat, as items and as events that build them.
#![cfg(feature = "constrain")]

mod common;

use bitnet::Model;
use common::{Running, ttt};
use serde_json::{Value, json};
use test_support::http::Client;

const PATH: &str = "/v1/responses";
/// Writes tools, calls and results, so that a test can see them in the number of tokens.
const TEMPLATE: &str = "{% if tools %}{% for tool in tools %}{{ tool.function.name }}: <tool_call> {% endfor %}{% endif %}\
    {% for m in messages %}{{ m.role }} {{ m.content }}{% for call in m.tool_calls or [] %}{{ call.function.name }}\
    {{ call.function.arguments.city.upper() }}{% endfor %}{{ m.tool_call_id or '' }}{% endfor %}";

fn with_tools() -> Model {
    Model::builder().threads(1).chat_template(TEMPLATE).load_bytes(bitnet::TINY_MODEL).unwrap()
}

fn tools() -> Value {
    json!([{"type": "function", "name": "weather", "description": "Tells it.", "strict": true, "parameters": {"type": "object",
        "properties": {"city": {"enum": ["Bern", "Rome"]}}, "required": ["city"], "additionalProperties": false}}])
}

/// The text of an answer.
fn text(response: &Value) -> String {
    let items = response["output"].as_array().unwrap().iter().filter(|item| item["type"] == "message");
    items.map(|item| item["content"][0]["text"].as_str().unwrap()).collect()
}

/// The events of a stream; each is named as its type, and they are numbered.
#[track_caller]
fn events(client: &Client, request: &Value) -> Vec<Value> {
    let mut request = request.clone();
    request["stream"] = true.into();
    let reply = client.stream(PATH, &request).unwrap().whole().unwrap();
    assert_eq!((reply.status, reply.header("content-type")), (200, Some("text/event-stream")), "{}", reply.text());
    let blocks = reply.text().split("\n\n").filter(|block| !block.is_empty() && !block.starts_with(':'));
    let events: Vec<Value> = blocks
        .map(|block| {
            let (name, data) = block.split_once('\n').unwrap();
            let event: Value = serde_json::from_str(data.strip_prefix("data: ").unwrap()).unwrap();
            assert_eq!(name.strip_prefix("event: "), event["type"].as_str());
            event
        })
        .collect();
    for (number, event) in events.iter().enumerate() {
        assert_eq!(event["sequence_number"], number);
    }
    events
}

fn kinds(events: &[Value]) -> Vec<&str> {
    events.iter().map(|e| e["type"].as_str().unwrap().strip_prefix("response.").unwrap()).collect()
}

/// An answer without the names that differ each time.
fn without_names(response: &Value) -> Value {
    let mut response = response.clone();
    response["id"] = Value::Null;
    response["created_at"] = Value::Null;
    for item in response["output"].as_array_mut().unwrap() {
        item["id"] = Value::Null;
        if item["call_id"].is_string() {
            item["call_id"] = Value::Null;
        }
    }
    response["usage"]["input_tokens_details"] = Value::Null;
    response
}

#[test]
fn texts_are_those_of_a_chat() {
    let server = Running::start(ttt(), |_| {});
    let said = |role: &str, text: &str| json!({"role": role, "content": text});
    let request = json!({"instructions": "You tell stories.", "input": "Of a dog!", "seed": 3, "temperature": 0.5,
        "max_output_tokens": 25, "metadata": {"a": "b"}, "store": true});
    let chat = json!({"messages": [said("system", "You tell stories."), said("user", "Of a dog!")], "seed": 3,
        "temperature": 0.5, "max_tokens": 25});
    let chat = server.client.post("/v1/chat/completions", &chat).unwrap().ok();
    let answer = server.client.post(PATH, &request).unwrap().ok();
    assert_eq!(text(&answer), common::texts(&chat)[0]);
    assert_eq!(
        (&answer["object"], &answer["store"], &answer["error"]),
        (&json!("response"), &json!(false), &Value::Null)
    );
    let cut = chat["choices"][0]["finish_reason"] == "length";
    let status = if cut { "incomplete" } else { "completed" };
    assert_eq!((&answer["status"], &answer["output"][0]["status"]), (&json!(status), &json!(status)));
    assert_eq!(answer["incomplete_details"].is_null(), !cut);
    assert_eq!(answer["usage"]["input_tokens"], chat["usage"]["prompt_tokens"]);
    assert_eq!(answer["usage"]["output_tokens"], chat["usage"]["completion_tokens"]);
    assert_eq!((&answer["temperature"], &answer["max_output_tokens"]), (&json!(0.5), &json!(25)));
    assert_eq!((&answer["metadata"], &answer["instructions"]), (&json!({"a": "b"}), &json!("You tell stories.")));
    // It may come as items, in every form that a client sends.
    let items = json!([
        {"type": "message", "role": "developer", "content": [{"type": "input_text", "text": "You tell "}, {"type": "input_text", "text": "stories."}]},
        {"role": "user", "content": "Of a dog!"}
    ]);
    let mut as_items = request.clone();
    as_items["input"] = items;
    as_items.as_object_mut().unwrap().remove("instructions");
    assert_eq!(text(&server.client.post(PATH, &as_items).unwrap().ok()), text(&answer));
    // A conversation goes on with what was answered.
    let mut next = as_items.clone();
    let all = next["input"].as_array_mut().unwrap();
    all.extend(answer["output"].as_array().unwrap().iter().cloned());
    all.push(said("user", "And a cat?"));
    let next = server.client.post(PATH, &next).unwrap().ok();
    assert!(next["usage"]["input_tokens"].as_u64() > answer["usage"]["total_tokens"].as_u64());
}

#[test]
fn a_stream_builds_what_comes_whole() {
    let server = Running::start(ttt(), |_| {});
    let request = json!({"input": "Of a dog!", "seed": 5, "max_output_tokens": 20, "temperature": 0.8,
        "logit_bias": {"0": -100, "1": -100}});
    let whole = server.client.post(PATH, &request).unwrap().ok();
    let events = events(&server.client, &request);
    let kinds = kinds(&events);
    assert_eq!(kinds[..4], ["created", "in_progress", "output_item.added", "content_part.added"]);
    let end = if whole["status"] == "completed" { "completed" } else { "incomplete" };
    assert_eq!(kinds[kinds.len() - 4..], ["output_text.done", "content_part.done", "output_item.done", end]);
    let deltas = &events[4..events.len() - 4];
    assert!(deltas.len() > 5 && deltas.iter().all(|e| e["type"] == "response.output_text.delta"));
    let told: String = deltas.iter().map(|e| e["delta"].as_str().unwrap()).collect();
    assert_eq!(told, text(&whole));
    let [done, part, item, last] = &events[events.len() - 4..] else { unreachable!("four") };
    assert_eq!((&done["text"], &part["part"]["text"]), (&json!(told), &json!(told)));
    assert_eq!((&item["item"], &item["output_index"]), (&last["response"]["output"][0], &json!(0)));
    assert_eq!(without_names(&last["response"]), without_names(&whole));
    assert!(
        events[..2]
            .iter()
            .all(|e| e["response"]["status"] == "in_progress" && e["response"]["id"] == last["response"]["id"])
    );
    assert!(
        events[2..events.len() - 1]
            .iter()
            .all(|e| e["item_id"] == item["item"]["id"] || e["item"]["id"] == item["item"]["id"])
    );
}

#[test]
fn tools_are_called_by_items() {
    let server = Running::start(with_tools(), |_| {});
    let request = json!({"input": "Is it warm?", "tools": tools(), "tool_choice": {"type": "function", "name": "weather"}, "seed": 2});
    let answer = server.client.post(PATH, &request).unwrap().ok();
    let [call] = &answer["output"].as_array().unwrap()[..] else { panic!("{answer}") };
    assert_eq!(
        (&call["type"], &call["name"], &call["status"]),
        (&json!("function_call"), &json!("weather"), &json!("completed"))
    );
    let arguments: Value = serde_json::from_str(call["arguments"].as_str().unwrap()).unwrap();
    assert!(["Bern", "Rome"].contains(&arguments["city"].as_str().unwrap()));
    assert_eq!((&answer["tools"], &answer["tool_choice"]), (&request["tools"], &request["tool_choice"]));
    let told = events(&server.client, &request);
    assert_eq!(
        kinds(&told)[2..],
        [
            "output_item.added",
            "function_call_arguments.delta",
            "function_call_arguments.done",
            "output_item.done",
            "completed"
        ]
    );
    assert_eq!(without_names(&told.last().unwrap()["response"]), without_names(&answer));
    // Text comes before calls, in an item of its own.
    let regex = r#"One moment\. <tool_call>\{"name": "weather", "arguments": \{"city": "(Bern|Rome)"\}\}</tool_call>"#;
    let free = json!({"input": "Is it warm?", "tools": tools(), "regex": regex});
    let items = |response: &Value| -> Vec<String> {
        response["output"].as_array().unwrap().iter().map(|i| i["type"].as_str().unwrap().to_owned()).collect()
    };
    assert_eq!(items(&server.client.post(PATH, &free).unwrap().ok()), ["message", "function_call"]);
    let told = events(&server.client, &free);
    let indexes: Vec<u64> = told.iter().filter_map(|e| e["output_index"].as_u64()).collect();
    assert!(indexes.is_sorted() && indexes.last() == Some(&1), "{indexes:?}");
    assert_eq!(items(&told.last().unwrap()["response"]), ["message", "function_call"]);
    // The result of a tool reaches the template, and the arguments of the call do as values.
    let result = json!({"type": "function_call_output", "call_id": call["call_id"], "output": "12 degrees"});
    let next = json!({"input": [{"role": "user", "content": "Is it warm?"}, call, result], "tools": tools(), "max_output_tokens": 2});
    let next = server.client.post(PATH, &next).unwrap().ok();
    assert!(next["usage"]["input_tokens"].as_u64().unwrap() > answer["usage"]["input_tokens"].as_u64().unwrap() + 8);
}

#[test]
fn a_text_may_be_json_of_a_schema() {
    let server = Running::start(ttt(), |_| {});
    let schema = json!({"type": "object", "properties": {"kind": {"enum": ["cat", "dog"]}}, "required": ["kind"], "additionalProperties": false});
    let format = json!({"type": "json_schema", "name": "animal", "strict": true, "schema": schema});
    let request = json!({"input": "An animal?", "text": {"format": format}});
    let answer = server.client.post(PATH, &request).unwrap().ok();
    let value: Value = serde_json::from_str(&text(&answer)).unwrap();
    assert!(["cat", "dog"].contains(&value["kind"].as_str().unwrap()));
    assert_eq!(answer["text"]["format"], format);
    // A long request is not repeated.
    let long = json!({"input": "x", "metadata": {"a": "b".repeat(70_000)}, "max_output_tokens": 1});
    let answer = server.client.post(PATH, &long).unwrap().ok();
    assert_eq!((&answer["metadata"], &answer["max_output_tokens"]), (&json!({}), &json!(1)));
}

#[test]
fn what_is_missing_here_is_named() {
    let server = Running::start(ttt(), |_| {});
    let item = |item: Value| ("input", json!([item]));
    let image = json!({"role": "user", "content": [{"type": "input_image", "image_url": "x"}]});
    for ((field, value), param) in [
        (("previous_response_id", json!("resp_1")), "previous_response_id"),
        (("conversation", json!("conv_1")), "conversation"),
        (("prompt", json!({"id": "x"})), "prompt"),
        (("background", json!(true)), "background"),
        (("include", json!(["message.output_text.logprobs"])), "include"),
        (("reasoning", json!({"effort": "high"})), "reasoning"),
        (("truncation", json!("auto")), "truncation"),
        (("top_logprobs", json!(2)), "top_logprobs"),
        (("max_tool_calls", json!(2)), "max_tool_calls"),
        (("n", json!(2)), "n"),
        (("response_format", json!({"type": "text"})), "response_format"),
        (("max_output_tokens", json!(0)), "max_output_tokens"),
        (("metadata", json!("x")), "metadata"),
        (("colour", json!("red")), "colour"),
        (("text", json!({"format": {"type": "xml"}})), "text.format.type"),
        (("text", json!({"format": {"type": "json_schema"}})), "text.format.schema"),
        (("text", json!({"format": {"type": "json_schema", "schema": {"type": "strange"}}})), "text.format"),
        (("text", json!({"verbosity": "high"})), "text.verbosity"),
        (("tools", json!([{"type": "web_search"}])), "tools[0].type"),
        (("tools", json!([{"type": "function", "name": "f"}])), "tools"),
        (("input", json!([])), "input"),
        (("input", json!(5)), "input"),
        (("input", json!(null)), "input"),
        (item(image), "input[0].content[0].type"),
        (item(json!({"type": "reasoning", "summary": []})), "input[0].type"),
        (item(json!({"type": "item_reference", "id": "x"})), "input[0].type"),
        (item(json!({"type": "function_call", "call_id": "1", "name": "f", "arguments": "{}"})), "input[0].type"),
        (item(json!({"role": "tool", "content": "x"})), "input[0].role"),
        (item(json!({"role": "user", "content": 5})), "input[0].content"),
        (item(json!({"role": "user", "content": "x", "odd": 1})), "input[0].odd"),
    ] {
        let mut request = json!({"input": "Of a dog!", "max_output_tokens": 3});
        request[field] = value;
        let reply = server.client.post(PATH, &request).unwrap();
        assert_eq!(
            (reply.status, &reply.json()["error"]["param"]),
            (400, &json!(param)),
            "{request}: {}",
            reply.text()
        );
    }
    // Values that ask for nothing are not refused.
    let nothing = json!({"input": "x", "previous_response_id": null, "background": false, "include": [], "reasoning": {"effort": null, "summary": null},
        "truncation": "disabled", "text": {"format": {"type": "text"}, "verbosity": "medium"}, "tools": [], "tool_choice": "auto",
        "parallel_tool_calls": true, "top_logprobs": 0, "user": "u", "store": false, "max_output_tokens": 1});
    server.client.post(PATH, &nothing).unwrap().ok();
}
