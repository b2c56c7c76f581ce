//! The commands with models whose layers are not all attention.

mod common;

use common::{Place, arg};
use serde_json::json;

/// A TTT-Linear layer and one of attention; and a model of TTT layers only.
fn place() -> Place {
    let p = Place::new();
    let shape = |mixers: &str| common::SHAPE.replacen('{', &format!("{{\"mixers\": {mixers}, "), 1);
    p.write("hybrid.json", shape(r#"["ttt_linear", "attention"]"#));
    p.write("pure.json", shape(r#""ttt_mlp""#));
    p
}

/// Bytes of one layer's state: four heads of 32 with mini-batches of 16.
const LINEAR: u64 = 4 * (32 * 32 + 32 + 2 * 16 * 32) * 4;
const MLP: u64 = 4 * (8 * 32 * 32 + 5 * 32 + 10 * 16 * 32) * 4;

#[test]
fn show_prints_both_laws_of_growth() {
    let p = place();
    let a = p.run(&["show", "synthetic:hybrid.json", "--json"]).json();
    assert_eq!((&a["runs"], &a["architecture"]), (&json!(true), &json!("bit-ttt")), "{}", a["problem"]);
    assert_eq!(a["config"]["mixers"], json!(["ttt_linear", "attention"]));
    // Keys and values of one layer: two heads of 32, f16.
    let per_token = 2 * 64 * 2;
    assert_eq!(a["session"], json!({ "bytes_per_token": per_token, "constant_bytes": LINEAR }));
    let rows = a["memory"].as_array().unwrap();
    let total = |i: usize| rows[i]["total_bytes"].as_u64().unwrap() - rows[i]["kv_bytes"].as_u64().unwrap();
    assert_eq!(total(0), total(rows.len() - 1));
    let text = p.run(&["show", "synthetic:hybrid.json", "--brief"]).ok().out;
    for says in ["1 ttt_linear, 1 attention", "256 B for each token", "at any length", "at 4000 tokens"] {
        assert!(text.contains(says), "{says}: {text}");
    }

    let a = p.run(&["show", "synthetic:pure.json", "--json"]).json();
    assert_eq!(a["session"], json!({ "bytes_per_token": 0, "constant_bytes": 2 * MLP }));
    let text = p.run(&["show", "synthetic:pure.json", "--brief"]).ok().out;
    assert!(text.contains("2 ttt_mlp") && text.contains("at any number of tokens"), "{text}");
    let text = p.run(&["show", "synthetic:shape.json", "--brief"]).ok().out;
    assert!(!text.contains("mixers") && text.contains("512 B for each token"), "{text}");
}

#[test]
fn run_logits_bench_and_convert_work() {
    let p = place();
    for model in ["synthetic:hybrid.json", "synthetic:pure.json"] {
        let run = ["run", "-m", model, "--ids", "1,5,9", "--temperature", "0", "-n", "20", "--ignore-eos", "--json"];
        let ids = p.run(&run).json()["ids"].clone();
        assert_eq!(ids.as_array().unwrap().len(), 20);
        assert_eq!(p.run(&[&run[..], &["-t", "3"]].concat()).json()["ids"], ids);

        let logits = |model: &str, out: &str| {
            p.run(&["logits", "-m", model, "--ids", "7,8,9,10", "--out", out, "--json"]).ok();
            std::fs::read(p.path(out)).unwrap()
        };
        let packed = model.replace("synthetic:", "").replace(".json", "");
        let convert = |from: &str, to: &str, form: &str| {
            p.run(&["convert", from, to, "--to", form, "--round-scales", "--json"]).json();
        };
        convert(model, &packed, "hf-packed");
        convert(&packed, "back.gguf", "i2_s");
        assert!(logits(&packed, "a") == logits(arg(&p.path("back.gguf")), "b"), "{model}");
        std::fs::remove_file(p.path("back.gguf")).unwrap();

        let bench = |more: &[&str]| {
            p.run(&[&["bench", "-m", model, "-p", "4", "-n", "2", "-t", "1", "--json"], more].concat()).json()
        };
        let bytes = |more: &[&str]| bench(more)["bytes_per_token"].as_u64().unwrap();
        let after = bytes(&["--context", "10"]);
        if model.contains("pure") {
            assert!(after > 2 * MLP, "{after}");
        } else {
            let plain = bytes(&[]);
            assert!(plain > LINEAR, "{plain}");
            assert_eq!(after - plain, 10 * 2 * 64 * 2);
        }
    }
}

#[test]
fn what_learning_is_worth_and_what_a_session_takes_can_be_measured() {
    let p = place();
    let logits = |model: &str, more: &[&str]| {
        let run = [&["logits", "-m", model, "--ids", "7,8,9,10,11,12", "--out", "a", "--json"], more].concat();
        p.run(&run).ok();
        std::fs::read(p.path("a")).unwrap()
    };
    assert!(logits("synthetic:pure.json", &[]) != logits("synthetic:pure.json", &["--no-adapt"]));
    assert!(logits("synthetic:shape.json", &[]) == logits("synthetic:shape.json", &["--no-adapt"]));

    let details = |model: &str, more: &[&str]| {
        let run = ["bench", "-m", model, "-p", "0", "-n", "2", "-t", "1", "--json", "--details"];
        p.run(&[&run[..], more].concat()).json()["details"].clone()
    };
    // Keys and values of two layers: two heads of 32, f16; slabs of 256 tokens.
    let filled = details("synthetic:shape.json", &["--context", "300", "--fill"]);
    assert_eq!(filled["session_bytes"], 2 * 2 * 64 * 2 * 512);
    assert_eq!(details("synthetic:pure.json", &["--context", "300"])["session_bytes"], 2 * MLP);
    assert!(filled["parameters"].as_u64().unwrap() > 0 && filled["vocabulary"].as_u64().unwrap() > 0);
    p.run(&["bench", "-m", "synthetic:pure.json", "--context", "9", "--fill"]).fails(2, "--fill");
}
