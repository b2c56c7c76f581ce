//! Files of BitNet v2 that contradict themselves, through the commands that read them: each is rejected with the
//! reason, and `show` still describes it.

mod common;

use std::path::Path;

use common::{Place, arg};
use serde_json::{Value, json};

/// Like the shared shape, with transforms and four bits.
fn forms() -> Value {
    let form = |block: u32| json!({"hadamard_block": block, "activation_bits": 4});
    json!({"q_proj": form(0), "k_proj": form(0), "v_proj": form(0), "o_proj": form(128), "gate_proj": form(0),
        "up_proj": form(0), "down_proj": form(256)})
}

fn shape(ffn: u32, change: impl FnOnce(&mut Value)) -> String {
    let mut shape: Value = serde_json::from_str(common::SHAPE).unwrap();
    shape["intermediate_size"] = ffn.into();
    shape["input_forms"] = forms();
    change(&mut shape);
    shape.to_string()
}

/// A fault, and the words that must report it.
type Case<'a> = (&'a str, &'a dyn Fn(&mut Value), [&'a str; 2]);

const CASES: [Case<'_>; 7] = [
    ("a block larger than the row", &|f| f["o_proj"]["hadamard_block"] = 256.into(), ["o_proj", "rows of 128"]),
    (
        "a block that is not a power of two",
        &|f| f["down_proj"]["hadamard_block"] = 96.into(),
        ["down_proj", "power of two"],
    ),
    ("a block of one", &|f| f["down_proj"]["hadamard_block"] = 1.into(), ["down_proj", "a power of two from 2 on"]),
    ("two bits", &|f| f["down_proj"]["activation_bits"] = 2.into(), ["down_proj", "8 or 4"]),
    ("one row, two forms", &|f| f["up_proj"]["activation_bits"] = 8.into(), ["up_proj", "same row"]),
    ("a projection that is not described", &|f| drop(f.as_object_mut().unwrap().remove("v_proj")), ["v_proj", ""]),
    ("no forms at all", &|f| *f = Value::Null, ["input_forms", ""]),
];

/// The commands that read a model, and their messages about `model`.
#[track_caller]
fn refused(p: &Place, model: &str, what: &str, words: [&str; 2]) {
    for args in [
        &["run", "-m", model, "--ids", "1,2", "-n", "1"][..],
        &["ppl", "-m", model, "--file", "text.txt", "--window", "8"],
        &["convert", model, "out", "--to", "tq2_0"],
        &["bench", "-m", model, "-p", "1", "-n", "1"],
    ] {
        let done = p.run(args);
        let says = words.iter().all(|w| done.err.contains(w));
        assert!(done.code == Some(1) && says && !done.err.contains("panicked"), "{what}: {args:?}: {done:?}");
    }
    let shown = p.run(&["show", model, "--json"]).json();
    assert_eq!(shown["runs"], json!(false), "{what}");
    assert!(words.iter().all(|w| shown["problem"].as_str().unwrap().contains(w)), "{what}: {shown}");
}

#[test]
fn folders_that_contradict_themselves_are_refused() {
    let p = Place::new();
    p.write("text.txt", "Once upon a time");
    p.write("good.json", shape(256, |_| ()));
    let gguf = p.run(&["show", "synthetic:good.json", "--json"]).json()["path"].as_str().unwrap().to_owned();
    p.run(&["convert", &gguf, "folder", "--to", "hf-packed", "--round-scales"]).ok();
    p.run(&["run", "-m", "folder", "--ids", "1,2", "-n", "2"]).ok();
    let path = p.path("folder").join("config.json");
    let good: Value = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
    for (what, change, words) in CASES {
        let mut config = good.clone();
        change(&mut config["input_forms"]);
        std::fs::write(&path, config.to_string()).unwrap();
        refused(&p, "folder", what, words);
    }
    let mut other = good.clone();
    other["model_type"] = "bitnet".into();
    std::fs::write(&path, other.to_string()).unwrap();
    refused(&p, "folder", "another type", ["input_forms", "contradicts"]);
}

#[test]
fn gguf_files_that_contradict_themselves_are_refused() {
    let p = Place::new();
    p.write("text.txt", "Once upon a time");
    p.write("good.json", shape(256, |_| ()));
    let gguf = p.run(&["show", "synthetic:good.json", "--json"]).json()["path"].as_str().unwrap().to_owned();
    p.run(&["run", "-m", &gguf, "--ids", "1,2", "-n", "2"]).ok();
    let bytes = std::fs::read(Path::new(&gguf)).unwrap();
    let with = |key: &str, value: u32| {
        let mut changed = bytes.clone();
        let key = format!("bitnet-v2.{key}");
        let at = changed.windows(key.len()).position(|w| w == key.as_bytes()).expect("the key is there") + key.len();
        // An unsigned integer of 32 bits is of type 4.
        assert_eq!(changed[at..at + 4], 4u32.to_le_bytes());
        changed[at + 4..at + 8].copy_from_slice(&value.to_le_bytes());
        p.write("changed.gguf", changed)
    };
    for (key, value, words) in [
        ("o_proj.hadamard_block", 256, ["o_proj", "rows of 128"]),
        ("down_proj.hadamard_block", 96, ["down_proj", "power of two"]),
        ("down_proj.hadamard_block", 1, ["down_proj", "a power of two from 2 on"]),
        ("down_proj.hadamard_block", u32::MAX, ["down_proj", "power of two"]),
        ("down_proj.activation_bits", 2, ["down_proj", "8 or 4"]),
        ("up_proj.activation_bits", 8, ["up_proj", "same row"]),
        ("k_proj.hadamard_block", 2, ["k_proj", "same row"]),
    ] {
        let file = with(key, value);
        refused(&p, arg(&file), key, words);
    }
}

#[test]
fn odd_widths_have_no_transform() {
    let p = Place::new();
    // The placement of the paper in training, and a block that a shape gives.
    p.write("text.txt", "Once upon a time there was a cat. ".repeat(200));
    let train =
        ["train", "--data", "text.txt", "--train-tokenizer", "260", "--out", "m", "--hidden", "32", "--ffn", "77"];
    let rest = ["--layers", "1", "--heads", "2", "--context", "16", "--batch", "2", "--steps", "2", "--hadamard"];
    let done = p.run(&[&train[..], &rest].concat());
    if cfg!(feature = "train") {
        done.fails(1, "down_proj");
        let done = p.run(&[&train[..], &rest].concat());
        assert!(done.err.contains("rows of 77") && done.err.contains("power of two"), "{done:?}");
        assert!(!p.path("m/checkpoint.safetensors").exists());
    }
    p.write("odd.json", shape(257, |s| s["input_forms"]["down_proj"]["hadamard_block"] = 2.into()));
    p.run(&["run", "-m", "synthetic:odd.json", "--ids", "1"]).fails(1, "rows of 257");
    p.write("plain.json", shape(256, |s| s["model_type"] = "bitnet".into()));
    p.run(&["run", "-m", "synthetic:plain.json", "--ids", "1"]).fails(1, "contradicts");
}
