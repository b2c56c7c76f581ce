//! `bitnet extract`, and other commands with an extractor.

mod common;

use common::{Place, keys};
use serde_json::{Value, json};

#[test]
fn utterances_get_answers_in_both_forms() {
    let p = Place::with_extractor();
    let text = "plya 青空 by\tmiles";
    let a = p.run(&["extract", "-m", "a.gguf", text, "--json"]).json();
    assert_eq!(keys(&a), ["text", "intent", "confidence", "out_of_scope", "slots", "cut"]);
    assert_eq!((&a["text"], &a["out_of_scope"], &a["cut"]), (&json!(text), &json!(false), &json!(false)));
    for slot in a["slots"].as_array().unwrap() {
        assert_eq!(keys(slot), ["name", "value", "start", "end"]);
        let at = |key: &str| slot[key].as_u64().unwrap() as usize;
        assert_eq!(slot["value"], text[at("start")..at("end")]);
    }
    let plain = p.run(&["extract", "-m", "a.gguf", text]).ok().out;
    assert!(plain.starts_with(&format!("{} (", a["intent"].as_str().unwrap())), "{plain}");
    assert_eq!(plain.lines().count(), 1 + a["slots"].as_array().unwrap().len());
    // Lines of a pipe are texts; an empty one is, too.
    let done =
        p.run_with_stdin(&["extract", "-m", "a.gguf", "--json", "--task", "topic"], "one\n\ntwo three\r\nlast").ok();
    let lines: Vec<Value> = done.out.lines().map(|l| serde_json::from_str(l).unwrap()).collect();
    let texts: Vec<&Value> = lines.iter().map(|l| &l["text"]).collect();
    assert_eq!(texts, ["one", "", "two three", "last"]);
    assert!(lines.iter().all(|l| l["intent"].as_str().unwrap().starts_with("topic") && l["slots"] == json!([])));
    assert_eq!(lines[1]["out_of_scope"], true);
    assert_eq!(p.run_with_stdin(&["extract", "-m", "a.gguf"], "").ok().out, "");
}

#[test]
fn bad_calls_are_told_the_way_out() {
    let p = Place::with_extractor();
    p.run(&["extract", "-m", "a.gguf", "--task", "weather", "x"]).fails(1, "music, topic");
    p.run(&["extract", "-m", "none.gguf", "x"]).fails(1, "none.gguf");
    p.run(&["extract", "x"]).fails(2, "required arguments");
    p.run(&["run", "-m", "a.gguf", "x"]).fails(1, "bitnet extract");
    let bytes = std::fs::read(p.path("a.gguf")).unwrap();
    p.write("cut.gguf", &bytes[..bytes.len() / 2]);
    p.run(&["extract", "-m", "cut.gguf", "x"]).fails(1, "cut.gguf");
    let language_model = test_support::shared_dir().map(|shared| shared.join("models/tinystories_5m"));
    if let Some(folder) = language_model.filter(|folder| folder.exists()) {
        p.run(&["extract", "-m", folder.to_str().unwrap(), "x"]).fails(1, "Model::load");
    }
}

#[test]
fn vectors_of_texts_are_those_of_the_library() {
    let p = Place::with_extractor();
    let a = p.run(&["embed", "-m", "a.gguf", "play jazz", "青空", "--json"]).json();
    assert_eq!((a["dimensions"].as_u64(), a["pooling"].as_str()), (Some(96), Some("extractor")));
    let extractor = bitnet::Extractor::load(p.path("a.gguf")).unwrap();
    for (text, vector) in ["play jazz", "青空"].iter().zip(a["embeddings"].as_array().unwrap()) {
        let numbers: Vec<f32> = vector.as_array().unwrap().iter().map(|v| v.as_f64().unwrap() as f32).collect();
        assert_eq!(numbers, extractor.embed(text).unwrap());
    }
    p.run(&["embed", "-m", "a.gguf", "--pooling", "mean", "x"]).fails(2, "--pooling");
    let plain = p.run(&["embed", "-m", "a.gguf", "--no-normalize", "--json", "play jazz"]).json();
    assert_ne!(plain["embeddings"][0], a["embeddings"][0]);
}

#[test]
fn show_explains_an_extractor() {
    let p = Place::with_extractor();
    let text = p.run(&["show", "a.gguf"]).ok().out;
    for part in ["an extractor", "music: 3 intents", "2 slots", "topic: 2 intents", "Q8_0", "I2_S", "extractor.config"]
    {
        assert!(text.contains(part), "{part} is not in {text}");
    }
    let a = p.run(&["show", "a.gguf", "--json"]).json();
    assert_eq!(
        (&a["architecture"], &a["runs"], &a["problem"]),
        (&json!("bitnet-extractor"), &json!(true), &Value::Null)
    );
    assert_eq!(a["extractor"]["tasks"][1]["intents"], json!(["topic0", "topic1"]));
    let mut bytes = std::fs::read(p.path("a.gguf")).unwrap();
    let at = bytes.windows(9).position(|w| w == b"\"buckets\"").unwrap();
    bytes[at + 1] = b'x';
    p.write("bad.gguf", &bytes);
    assert!(p.run(&["show", "bad.gguf"]).ok().out.contains("cannot be run"));
}
