//! With a trained model: text in and out, the reference's tokens and perplexity.

mod common;

use common::{Place, arg, keys, tinystories};
use serde_json::Value;
use test_support::Tensors;

fn expected() -> Option<(std::path::PathBuf, Value)> {
    let folder = tinystories()?;
    let text = std::fs::read_to_string(folder.join("expected.json")).unwrap();
    Some((folder, serde_json::from_str(&text).unwrap()))
}

#[test]
fn greedy_text_is_the_references() {
    let Some((folder, expected)) = expected() else { return };
    let p = Place::new();
    let model = folder.join("packed");
    for case in expected["greedy"].as_array().unwrap() {
        let prompt = case["prompt"].as_str().unwrap();
        let numbers = |v: &Value| v.as_array().unwrap().iter().map(|v| v.as_u64().unwrap()).collect::<Vec<u64>>();
        let (before, wanted) = (numbers(&case["prompt_ids"]), numbers(&case["greedy_ids"]));
        let n = wanted.len().to_string();
        let args =
            ["run", "-m", arg(&model), "--prompt", prompt, "--temperature", "0", "-n", &n, "--kv", "f32", "--json"];
        let a = p.run(&args).json();
        let got = numbers(&a["ids"]);
        assert_eq!(a["stats"]["prompt_tokens"].as_u64().unwrap() as usize, before.len());
        assert_eq!(got.len(), wanted.len());
        let Some(step) = got.iter().zip(&wanted).position(|(a, b)| a != b) else { continue };
        // An int8 code on a rounding boundary moves the logits of this model by up to 0.15 each, so only tokens that
        // are nearer to each other than twice that may change places.
        let ids: Vec<String> = before.iter().chain(&got[..step]).map(u64::to_string).collect();
        p.run(&["logits", "-m", arg(&model), "--ids", &ids.join(","), "--out", "l.safetensors"]).ok();
        let values = Tensors::open(p.path("l.safetensors")).f32("logits");
        let last = &values[values.len() - 2048..];
        let logit = |id: u64| last[id as usize];
        let gap = logit(got[step]) - logit(wanted[step]);
        assert!(gap < 0.3, "{prompt}: step {step} gives {} instead of {}, ahead by {gap}", got[step], wanted[step]);
    }
}

#[test]
fn prompts_come_from_everywhere() {
    let Some(folder) = tinystories() else { return };
    let p = Place::new();
    let gguf = folder.join("model.I2_S.gguf");
    let tokenizer = folder.join("packed/tokenizer.json");
    let model = ["-m", arg(&gguf), "--tokenizer", arg(&tokenizer), "--temperature", "0", "-n", "12"];
    let text = p.run(&[&["run", "Once upon a time"][..], &model].concat()).ok();
    assert!(text.out.ends_with('\n') && text.out.len() > 20, "{text:?}");
    assert_eq!(p.run(&[&["run", "--prompt", "Once upon a time"][..], &model].concat()).ok().out, text.out);
    assert_eq!(p.run_with_stdin(&[&["run"][..], &model].concat(), "Once upon a time\n").ok().out, text.out);
    let mut by_env =
        p.command(&["run", "Once upon a time", "--tokenizer", arg(&tokenizer), "--temperature", "0", "-n", "12"]);
    assert_eq!(common::Done::of(by_env.env("BITNET_MODEL", &gguf).output().unwrap()).ok().out, text.out);
    // Stop strings end the text and are not part of it.
    let a = p.run(&[&["run", "Once upon a time", "--stop", " a", "--json"][..], &model].concat()).json();
    assert_eq!(a["finish_reason"], "stop");
    let (stopped, whole) = (a["text"].as_str().unwrap(), text.out.as_str());
    assert_eq!(Some(stopped), whole.split_once(" a").map(|s| s.0));
    // Bytes that are not text are rejected.
    let mut c = p.command(&[&["run"][..], &model].concat());
    let bad = p.write("bad", [b'a', 0xff, b'b']);
    let done = common::Done::of(c.stdin(std::fs::File::open(bad).unwrap()).output().unwrap());
    done.fails(1, "byte at 1");
}

#[test]
fn tokens_there_and_back() {
    let Some(folder) = tinystories() else { return };
    let p = Place::new();
    let tokenizer = folder.join("packed/tokenizer.json");
    let t = ["--tokenizer", arg(&tokenizer)];
    let tokenize = |more: &[&str]| p.run(&[&["tokenize"][..], &t, more].concat());
    assert_eq!(tokenize(&["Once upon a time"]).ok().out, "431,442,261,403\n");
    let a = tokenize(&["Once upon a time", "--json"]).json();
    assert_eq!(keys(&a), ["ids", "tokens"]);
    assert_eq!(a["tokens"], serde_json::json!(["Once", " upon", " a", " time"]));
    assert_eq!(tokenize(&["--decode", "431,442,261,403"]).ok().out, "Once upon a time\n");
    assert_eq!(
        p.run_with_stdin(&["tokenize", "--tokenizer", arg(&tokenizer), "--decode"], "431 442\n").ok().out,
        "Once upon\n"
    );
    assert_eq!(tokenize(&["--decode", "431", "--json"]).json()["text"], "Once");
    assert_eq!(tokenize(&["--pieces", "Once"]).ok().out, "    431 \"Once\"\n");
    tokenize(&["--decode", "99999"]).fails(2, "99999");
    let model = folder.join("packed");
    assert_eq!(p.run(&["tokenize", "-m", arg(&model), "--bos", "Once"]).ok().out, "0,431\n");
}

#[test]
fn chat_works_through_a_pipe() {
    let Some(folder) = tinystories() else { return };
    let p = Place::new();
    let model = folder.join("packed");
    let args = ["chat", "-m", arg(&model), "--plain", "--temperature", "0", "-n", "5"];
    let done = p
        .run_with_stdin(
            &args,
            "Once upon a time\n/stats\n/set max_tokens 2\nOnce upon a time\n/nonsense\n/bye\nnot read\n",
        )
        .ok();
    let lines: Vec<&str> = done.out.lines().collect();
    assert_eq!(lines.len(), 2, "{done:?}");
    assert!(lines[0].starts_with(lines[1]) && lines[0].len() > lines[1].len(), "{lines:?}");
    assert!(done.err.contains("context") && done.err.contains("/nonsense") && !done.out.contains(">>>"), "{done:?}");
    // A template makes it a conversation.
    let template = p.write("t.jinja", "{% for m in messages %}{{ m.content }}{% endfor %}");
    let args = ["chat", "-m", arg(&model), "--template", arg(&template), "--temperature", "0", "-n", "5"];
    let with = p.run_with_stdin(&args, "Once upon a time\n/regen\n").ok();
    assert_eq!(with.out.lines().count(), 2, "{with:?}");
    assert!(with.err.contains("same answer"), "{with:?}");
}

#[test]
fn perplexity_is_the_references() {
    let Some((folder, expected)) = expected() else { return };
    let p = Place::new();
    let text = folder.parent().unwrap().join("valid-200k.txt");
    let model = folder.join("packed");
    let a = p.run(&["ppl", "-m", arg(&model), "--file", arg(&text), "--window", "256", "--json"]).json();
    assert_eq!(a["tokens"], expected["predictions"]);
    let (got, wanted) = (a["perplexity"].as_f64().unwrap(), expected["perplexity_packed"].as_f64().unwrap());
    assert!((got / wanted - 1.0).abs() < 1e-3, "{got} instead of {wanted}");
}

/// Without a model's name the one within the program is used, and that is said. It needs no file; for commands that read
/// files one is made in the cache.
#[test]
#[cfg(feature = "tiny-model")]
fn the_model_within_the_program_tells_a_story() {
    let p = Place::new();
    let told = p.run(&["run", "Once upon a time", "--temperature", "0", "-n", "24"]).ok();
    assert!(told.err.contains("tiny-stories-ttt"), "{told:?}");
    assert!(told.out.contains("there was"), "{told:?}");
    let copy = p.path("cache/bitnet/tiny-stories-ttt.gguf");
    assert!(!copy.exists());
    let shown = p.run(&["show"]).ok();
    assert!(shown.err.contains("tiny-stories-ttt"), "{shown:?}");
    assert_eq!(std::fs::read(&copy).unwrap(), bitnet::TINY_MODEL);
    // A damaged copy is replaced.
    p.write("cache/bitnet/tiny-stories-ttt.gguf", b"GGUF");
    assert_eq!(p.run(&["show"]).ok().out, shown.out);
    // Its perplexity is that of the trainer.
    if let Some(folder) = test_support::shared_dir() {
        let file = folder.join("models/valid-200k.txt");
        let ppl = p.run(&["ppl", "-f", arg(&file), "--window", "256", "--json"]).json();
        let nats = ppl["nats_per_token"].as_f64().unwrap();
        assert!((nats - 2.33161).abs() < 1e-3, "{nats}");
    }
}
