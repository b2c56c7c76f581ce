//! Texts that follow a form, choices, vectors, evaluation, plans, pages and the list of models; with the model within
//! the program.

mod common;

use common::{Place, arg, keys};
use serde_json::{Value, json};

const SCHEMA: &str = r#"{"type": "object", "properties": {"mood": {"enum": ["happy", "sad"]}, "age": {"type": "integer",
    "minimum": 0, "maximum": 99}}, "required": ["mood", "age"], "additionalProperties": false}"#;

#[test]
fn json_follows_its_schema_or_there_is_none() {
    let p = Place::new();
    let schema = p.write("s.json", SCHEMA);
    let run = ["run", "Tom is", "--seed", "3", "--json-schema"];
    let text = p.run(&[&run[..], &[arg(&schema)]].concat()).ok().out;
    let value: Value = serde_json::from_str(&text).unwrap();
    assert_eq!(keys(&value), ["mood", "age"]);
    // The schema itself may be given, and scripts get everything in one object.
    let whole = p.run(&[&run[..], &[SCHEMA, "--json"]].concat()).json();
    assert_eq!(whole["text"].as_str().unwrap(), text.trim_end());
    assert!(whole["stats"]["forced_tokens"].as_u64().unwrap() > 0);
    // Nothing half: neither on stdout nor as success.
    let cut = p.run(&[&run[..], &[SCHEMA, "-n", "3"]].concat()).fails(1, "before it satisfied");
    assert_eq!(cut.out, "");
    p.run(&[&run[..], &["{\"type\": \"array\", \"uniqueItems\": true}"]].concat()).fails(1, "uniqueItems");
    p.run(&[&run[..], &["{no json"]].concat()).fails(2, "invalid JSON");
    let date = p.run(&["run", "On", "--regex", "[0-9]{4}-[0-9]{2}"]).ok().out;
    assert_eq!((date.len(), date.as_bytes()[4]), (8, b'-'));
    let grammar = p.write("g.lark", "start: \"yes\" | \"no\"\n");
    assert!(["yes\n", "no\n"].contains(&&p.run(&["run", "Well?", "--grammar", arg(&grammar)]).ok().out[..]));
}

#[test]
fn the_likeliest_text_is_chosen() {
    let p = Place::new();
    let run = ["run", "The boy was thirsty. He drank a glass of", "--choose", " stone", " water", " shoes"];
    assert_eq!(p.run(&run).ok().out, " water\n");
    let a = p.run(&[&run[..], &["--json"]].concat()).json();
    assert_eq!((&a["choice"], &a["index"]), (&json!(" water"), &json!(1)));
    let sum: f64 = a["scores"].as_array().unwrap().iter().map(|s| s["probability"].as_f64().unwrap()).sum();
    assert!((sum - 1.0).abs() < 1e-9);
    assert_eq!(p.run(&[&run[..], &["--choose-by", "byte"]].concat()).ok().out, " water\n");
    p.run(&["run", "x", "--choose-by", "byte"]).fails(2, "required arguments");
}

#[test]
fn texts_become_vectors() {
    let p = Place::new();
    let a = p.run(&["embed", "a dog", "a train", "--json"]).json();
    let n = a["dimensions"].as_u64().unwrap() as usize;
    let lengths: Vec<usize> = a["embeddings"].as_array().unwrap().iter().map(|v| v.as_array().unwrap().len()).collect();
    assert_eq!(lengths, [n, n]);
    let lines = p.write("t.txt", "a dog\n\na train\n");
    let text = p.run(&["embed", "--file", arg(&lines)]).ok().out;
    let first: Vec<f64> = text.lines().next().unwrap().split(' ').map(|v| v.parse().unwrap()).collect();
    assert_eq!((text.lines().count(), first.len()), (2, n));
    let same =
        a["embeddings"][0].as_array().unwrap().iter().zip(&first).all(|(a, b)| a.as_f64().unwrap() as f32 == *b as f32);
    assert!(same);
    p.run(&["embed"]).fails(2, "no text given");
}

/// The set that `testdata/eval/make.py` generates: a model that knows simple stories is well above chance.
#[test]
fn questions_are_asked_and_counted() {
    let p = Place::new();
    let set = test_support::testdata("eval/stories.jsonl");
    let a = p.run(&["eval", arg(&set), "--details", "d.jsonl", "--json"]).json();
    let of = |key: &str| a[key].as_f64().unwrap();
    let n = a["questions"].as_u64().unwrap() as usize;
    assert_eq!(std::fs::read_to_string(&set).unwrap().lines().count(), n);
    // The rank of the right answer, counted again from the details.
    let details = std::fs::read_to_string(p.path("d.jsonl")).unwrap();
    let right = details.lines().filter(|line| {
        let d: Value = serde_json::from_str(line).unwrap();
        let scores: Vec<f64> = d["logprobs"].as_array().unwrap().iter().map(|v| v.as_f64().unwrap()).collect();
        let answer = d["answer"].as_u64().unwrap() as usize;
        scores.iter().enumerate().all(|(i, s)| i == answer || *s < scores[answer])
    });
    assert_eq!(right.count() as f64 / n as f64, of("accuracy"));
    let low = a["accuracy_interval"][0].as_f64().unwrap();
    assert!(low > of("chance"), "{a}");
    assert_eq!(p.run(&["eval", arg(&set), "--limit", "4", "--json"]).json()["questions"], 4);
    let bad = p.write("bad.jsonl", "{\"prompt\": \"x\", \"choices\": [\"a\"], \"answer\": 0}\n");
    p.run(&["eval", arg(&bad)]).fails(2, "line 1");
}

#[test]
fn plans_need_no_weights() {
    let p = Place::new();
    let plan = p.run(&["plan", "70b", "--bandwidth", "20", "-t", "2", "--context", "2048", "--json"]).json();
    let n = |key: &str| plan[key].as_u64().unwrap();
    assert!((70e9..71e9).contains(&(n("parameters") as f64)));
    assert_eq!(n("total_bytes"), n("weight_bytes") + n("table_bytes") + n("coarse_head_bytes") + n("session_bytes"));
    let rate = plan["decode_tok_s_at_most"][0].as_f64().unwrap();
    assert!((rate - 20e9 / plan["bytes_per_token"][0].as_f64().unwrap()).abs() < 1e-9);
    let config = p.write(
        "c.json",
        r#"{"vocab_size": 300, "hidden_size": 128, "intermediate_size": 256,
        "num_hidden_layers": 2, "num_attention_heads": 2, "num_key_value_heads": 1}"#,
    );
    let small = p.run(&["plan", arg(&config), "--bandwidth", "20", "--json"]).json();
    assert_eq!((&small["fits"], &small["weights_fit_cache"]), (&json!(true), &json!(true)));
    let text = p.run(&["plan", "2b4t", "--bandwidth", "20"]).ok().out;
    assert!(text.contains("tokens/s") && text.lines().count() < 12, "{text}");
    p.run(&["plan", "2b4t", "--bandwidth", "0"]).fails(2, "above 0");
    p.run(&["plan", "no-such-model.gguf", "--bandwidth", "1"]).fails(1, "no file or folder");
}

#[test]
fn shells_and_manuals_are_served() {
    let p = Place::new();
    for shell in ["bash", "zsh", "fish", "elvish", "powershell"] {
        let script = p.run(&["completions", shell]).ok().out;
        assert!(script.contains("choose-by") && script.contains("completions"), "{shell}");
    }
    let page = p.run(&["man"]).ok().out;
    assert!(page.contains(".TH") && page.contains("completions"));
    p.run(&["man", "--out", "pages"]).ok();
    let run = std::fs::read_to_string(p.path("pages/bitnet-run.1")).unwrap();
    assert!(run.contains("json\\-schema"));
    assert!(p.path("pages/bitnet.1").is_file() && !p.path("pages/bitnet-__bandwidth.1").exists());
}

#[test]
fn models_on_disk_are_listed_and_removed() {
    let p = Place::new();
    let file = |name: &str, len: usize| {
        let path = p.path("hub").join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, vec![0; len]).unwrap();
    };
    file("models--tiiuae--Falcon3-1B-Instruct-1.58bit/blobs/e", 3000);
    file("models--tiiuae--Falcon3-1B-Instruct-1.58bit/snapshots/c/model.safetensors", 0);
    file("models--o--n/blobs/e", 500);
    let run = |args: &[&str]| {
        let mut command = p.command(args);
        command.env("HF_HUB_CACHE", p.path("hub"));
        common::Done::of(command.output().unwrap())
    };
    let list = run(&["list", "--json"]).json();
    let hub: Vec<&Value> = list["models"].as_array().unwrap().iter().filter(|m| m["hub"] == true).collect();
    assert_eq!(hub.iter().map(|m| m["bytes"].as_u64().unwrap()).collect::<Vec<_>>(), [500, 3000]);
    assert_eq!(hub[1]["short"], "falcon3-1b");
    assert!(run(&["list"]).ok().out.contains("falcon3-1b: 1 file of weights"));
    assert!(run(&["list", "--known"]).ok().out.contains("2b4t"));
    assert_eq!(run(&["rm", "falcon3-1b", "--dry-run", "--json"]).json()["bytes"], 3000);
    assert_eq!(run(&["rm", "falcon3-1b", "o/n", "--json"]).json()["bytes"], 3500);
    run(&["rm", "falcon3-1b"]).fails(2, "was not found");
    assert!(!p.path("hub/models--o--n").exists());
}

#[test]
fn conversations_are_kept_and_taken_up() {
    let p = Place::new();
    let template = "{% for m in messages %}{{ m.role }}: {{ m.content }}\n{% endfor %}assistant: ";
    p.write("t.jinja", template);
    let args = ["chat", "--template", "t.jinja", "--temperature", "0", "-n", "8"];
    let chat = |lines: &str| p.run_with_stdin(&args, lines).ok();
    let whole = chat("Hello.\nAnd then?\n").out;
    let first = chat("Hello.\n/save talk\n");
    assert!(first.err.contains("saved to talk") && p.path("talk").is_file() && p.path("talk.json").is_file());
    let second = chat("/load talk\nAnd then?\n");
    assert_eq!(first.out + &second.out, whole);
    assert!(second.err.contains("2 messages"), "{}", second.err);
    // A damaged state is rejected; the conversation is still there.
    std::fs::write(p.path("talk"), b"nonsense").unwrap();
    let again = chat("/load talk\nAnd then?\n");
    assert!(again.err.contains("reads the conversation again"), "{}", again.err);
    assert_eq!(again.out, second.out);
    assert!(chat("/load nowhere\n").err.contains("nowhere.json"));
}
