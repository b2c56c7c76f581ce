//! `bitnet train`: from text to a model that runs.

#![cfg(feature = "train")]

mod common;

use common::Place;
use serde_json::Value;

const RUN: [&str; 24] = [
    "train",
    "--json",
    "--out",
    "m",
    "--data",
    "text.txt",
    "--train-tokenizer",
    "300",
    "--hidden",
    "128",
    "--ffn",
    "128",
    "--layers",
    "1",
    "--heads",
    "2",
    "--context",
    "32",
    "--batch",
    "4",
    "--steps",
    "12",
    "--threads",
    "2",
];

fn place() -> Place {
    let p = Place::new();
    let story =
        |i: usize| format!("The cat number {i} sat on the mat.\nThe dog number {} slept.\n<|endoftext|>\n", i * 7);
    p.write("text.txt", (0..200).map(story).collect::<String>());
    p
}

/// Text in, tokenizer, log, curve, folder and GGUF out; both run, and their perplexity is that of the trainer.
#[test]
fn text_becomes_a_model_that_runs() {
    becomes_a_model(&["--val-share", "0.2"]);
}

/// Layers of test-time training in all their parts, from text to a model.
#[test]
fn text_becomes_a_model_with_test_time_training() {
    let ttt = ["--layers", "2", "--mixer", "ttt-linear,attention", "--share-qk", "--gate", "--pre-conv"];
    becomes_a_model(&[&ttt[..], &["--inner-warmup", "4", "--val-share", "0.05"]].concat());
}

/// Layers of the gated delta rule.
#[test]
fn text_becomes_a_model_with_the_gated_delta_rule() {
    becomes_a_model(&["--layers", "2", "--mixer", "gated-delta,attention", "--val-share", "0.05"]);
}

/// Norms of heads, heads that are narrower than their share, and a scale for each 64 weights.
#[test]
fn text_becomes_a_model_with_groups() {
    becomes_a_model(&["--family", "qwen3", "--group-size", "64", "--head-dim", "32", "--val-share", "0.05"]);
}

/// Muon, another schedule, windows that grow and that are one text each, and the average of the weights, which is what
/// is exported.
#[test]
fn text_becomes_a_model_with_muon() {
    let muon = ["--optimizer", "muon", "--muon-lr", "5e-3", "--schedule", "wsd", "--ema", "0.8", "--grow-from", "8"];
    becomes_a_model(&[&muon[..], &["--warmup", "2", "--val-share", "0.05", "--across-documents"]].concat());
}

/// A run with a time instead of steps says how many it planned, and does as many.
#[test]
fn a_time_becomes_steps() {
    let p = place();
    let timed: Vec<&str> = RUN.chunks(2).filter(|o| o[0] != "--steps").flatten().copied().collect();
    p.run(&[&RUN[..], &["--time", "2s"]].concat()).fails(2, "--steps and --time");
    p.run(&[&RUN[..], &["--muon-lr", "1e-3"]].concat()).fails(1, "muon.lr");
    let done = p.run(&[&timed[..], &["--time", "2s", "--schedule", "cosine"]].concat()).json();
    let steps = done["steps"].as_u64();
    let log = std::fs::read_to_string(p.path("m/log.jsonl")).unwrap();
    let mut planned = log.lines().filter_map(|l| serde_json::from_str::<Value>(l).unwrap()["planned_steps"].as_u64());
    assert!(steps.is_some() && steps == planned.next_back(), "{done}");
    p.run(&["train", "--out", "m", "--resume", "--time", "3s"]).fails(2, "time = 2.0, now it is 3.0");
    assert_eq!(p.run(&["train", "--out", "m", "--resume", "--json"]).json()["steps"].as_u64(), steps);
}

fn becomes_a_model(more: &[&str]) {
    let p = place();
    // Options that are given twice take the value in `more`.
    let own: Vec<&str> = RUN.chunks(2).filter(|o| !more.contains(&o[0])).flatten().copied().collect();
    let done = p.run(&[&own[..], more, &["--validate-every", "6"]].concat()).json();
    assert_eq!((done["steps"].as_u64(), done["finish"].as_str()), (Some(12), Some("completed")));
    let log = std::fs::read_to_string(p.path("m/log.jsonl")).unwrap();
    let lines: Vec<Value> = log.lines().map(|l| serde_json::from_str(l).unwrap()).collect();
    assert_eq!(common::keys(&lines[0]), ["step", "tokens", "loss", "lr", "grad_norm", "tok_s"]);
    assert_eq!(lines.len(), 12 + 2 * 2);
    assert_eq!(common::keys(&lines[6]), ["step", "zeros", "flips", "alpha"]);
    for share in lines[6]["zeros"].as_array().unwrap().iter().chain(lines[6]["flips"].as_array().unwrap()) {
        assert!((0.0..=1.0).contains(&share.as_f64().unwrap()), "{}", lines[6]);
    }
    assert!(lines[13]["loss"].as_f64().unwrap() < lines[0]["loss"].as_f64().unwrap());
    let last = lines[15]["val_nats_per_token"].as_f64().unwrap();
    assert!(std::fs::read_to_string(p.path("m/loss.svg")).unwrap().starts_with("<svg"));

    for model in ["m/master", "m/export", "m/export/model.gguf"] {
        let said =
            p.run(&["run", "-m", model, "--prompt", "The cat", "-n", "4", "--temperature", "0", "--json"]).json();
        assert!(said["ids"].as_array().unwrap().len() <= 4 && said["text"].is_string(), "{said}");
    }
    assert_eq!(p.run(&["show", "m/export/model.gguf", "--json"]).json()["name"], "m");
    // With equal tokens in equal windows, the engine gives the same loss as the trainer. Documents are texts of their
    // own.
    let bytes = std::fs::read(p.path("m/data/valid.u16")).unwrap();
    let ids: Vec<u32> = bytes.as_chunks().0.iter().map(|b| u32::from(u16::from_le_bytes(*b))).collect();
    let windows = ((ids.len() - 1) / 32).min(128);
    let end = ids.last().copied().filter(|_| !more.contains(&"--across-documents"));
    for model in ["m/master", "m/export", "m/export/model.gguf"] {
        let (mut nats, mut predicted) = (0.0, 0.0);
        // A few windows are enough to see a wrong scale or norm; their sum is compared with the trainer's own.
        for w in 0..windows {
            let mut targets = ids[w * 32 + 1..(w + 1) * 32 + 1].iter();
            for text in ids[w * 32..(w + 1) * 32].split_inclusive(|id| Some(*id) == end) {
                let words: Vec<String> = text.iter().map(u32::to_string).collect();
                p.run(&["logits", "-m", model, "--ids", &words.join(","), "--out", "l.safetensors"]).ok();
                let bytes = std::fs::read(p.path("l.safetensors")).unwrap();
                let file = safetensors::SafeTensors::deserialize(&bytes).unwrap();
                let logits = file.tensor("logits").unwrap();
                let values: Vec<f64> =
                    logits.data().as_chunks().0.iter().map(|b| f64::from(f32::from_le_bytes(*b))).collect();
                for ((row, id), target) in values.chunks(logits.shape()[1]).zip(text).zip(&mut targets) {
                    if Some(*id) != end {
                        nats += row.iter().map(|l| l.exp()).sum::<f64>().ln() - row[*target as usize];
                        predicted += 1.0;
                    }
                }
            }
        }
        let nats = nats / predicted;
        assert!((nats - last).abs() <= 1e-3, "{model}: {nats} nats per token, the trainer said {last}");
    }
}

/// Prompts with their completions: windows of whole examples, whose prompts are given; the model runs, and a run goes
/// on.
#[test]
fn examples_become_a_model() {
    let p = place();
    let example = |i: usize| {
        let animal = ["cat", "bird"][i % 2];
        format!("{{\"prompt\": \"What is number {i}? \", \"completion\": \"A {animal}.\"}}\n")
    };
    p.write("text.jsonl", (0..300).map(example).collect::<String>());
    let args: Vec<&str> = RUN
        .iter()
        .map(|a| match *a {
            "text.txt" => "text.jsonl",
            "12" => "60",
            a => a,
        })
        .collect();
    let done = p.run(&[&args[..], &["--val-share", "0.3", "--lr", "1e-2", "--warmup", "5"]].concat()).json();
    assert!(done["best_val_nats_per_token"].as_f64().unwrap() < 2.0, "{done}");
    let words = |name: &str| -> Vec<u32> {
        std::fs::read(p.path(name)).unwrap().as_chunks().0.iter().map(|b| u32::from_le_bytes(*b)).collect()
    };
    for file in ["m/data/train.u32", "m/data/valid.u32"] {
        let ids = words(file);
        assert!(ids.len() > 33 && ids.len().is_multiple_of(33), "{file}: {} ids", ids.len());
        // Every window begins with the beginning of a text, which is given, and holds something to learn.
        assert!(ids.chunks(33).all(|w| w[0] == 1 << 31 && w.iter().any(|id| id >> 31 == 0)), "{file}");
    }
    p.run(&["run", "-m", "m/export/model.gguf", "--prompt", "What is number 3? ", "-n", "4"]).ok();
    assert_eq!(p.run(&["train", "--out", "m", "--resume", "--json"]).json()["steps"].as_u64(), Some(60));
    // Text cannot continue a run on examples, and no window is left if all of them are too long.
    let short: Vec<&str> = args
        .iter()
        .map(|a| {
            if *a == "m" {
                "n"
            } else if *a == "32" {
                "4"
            } else {
                a
            }
        })
        .collect();
    let failed = p.run(&short);
    failed.fails(1, "tokens");
}

/// A run that was stopped early and one that was not end with the same file; wrong use is said.
#[test]
fn runs_go_on_where_they_were() {
    let p = place();
    p.run(&RUN).json();
    let args: Vec<&str> = RUN.iter().map(|a| if *a == "m" { "n" } else { a }).collect();
    p.run(&args).json();
    let file = |name: &str| std::fs::read(p.path(name)).unwrap();
    assert!(file("m/checkpoint.safetensors") == file("n/checkpoint.safetensors"), "the same seed gives the same bytes");
    p.run(&args).fails(2, "--resume");
    p.run(&["train", "--out", "o", "--resume"]).fails(2, "there is no");
    p.run(&["train", "--out", "q"]).fails(2, "--data");
    p.run(&["train", "--out", "q", "--data", "text.txt"]).fails(2, "tokenizer");
    // Settings that differ from the beginning of the run are rejected; equal ones may be repeated.
    p.run(&["train", "--out", "m", "--resume", "--batch", "8"]).fails(2, "batch = 4, now it is 8");
    p.run(&["train", "--out", "m", "--resume", "--mixer", "ttt-linear"]).fails(2, "--resume: the run was started with");
    p.write("c.toml", "[train]\nsteps = 12\n[train.schedule]\nwarmup = 5\n");
    p.run(&["train", "--out", "m", "--resume", "--config", "c.toml"]).fails(2, "schedule.warmup = 100, now it is 5");
    p.run(&["train", "--out", "m", "--resume", "--batch", "4", "--steps", "12"]).ok();
    // Nothing is left to do: the finished model is written again.
    assert_eq!(p.run(&["train", "--out", "m", "--resume", "--json"]).json()["steps"].as_u64(), Some(12));
}

/// Eight bits after Hadamard transforms, then four bits with the optimizer of the first stage; both stages leave models
/// that describe their forms, and run.
#[test]
fn bitnet_v2_is_trained_in_two_stages() {
    let p = place();
    p.run(&[&RUN[..], &["--hadamard"]].concat()).json();
    let second =
        ["train", "--out", "n", "--from", "m", "--data", "text.txt", "--tokenizer", "m/tokenizer.json", "--json"];
    p.run(&[&second[..], &["--activations", "4"]].concat()).fails(1, "steps");
    p.run(&[&second[..], &["--activations", "5", "--steps", "20"]].concat()).fails(1, "activation_bits");
    p.run(&[&second[..], &["--hidden", "64", "--steps", "20"]].concat()).fails(1, "parameters");
    let done = p.run(&[&second[..], &["--activations", "4", "--steps", "20"]].concat()).json();
    assert_eq!(done["steps"].as_u64(), Some(20));
    let log = std::fs::read_to_string(p.path("n/log.jsonl")).unwrap();
    let first: Value = serde_json::from_str(log.lines().next().unwrap()).unwrap();
    assert_eq!(first["step"].as_u64(), Some(13));
    for (model, bits) in
        [("m/export", 8), ("m/export/model.gguf", 8), ("n/export", 4), ("n/export/model.gguf", 4), ("n/master", 4)]
    {
        let shown = p.run(&["show", model, "--json"]).json();
        let forms = &shown["config"]["input_forms"];
        assert_eq!(
            (shown["architecture"].as_str(), forms["o_proj"]["hadamard_block"].as_u64()),
            (Some("bitnet-v2"), Some(128))
        );
        assert_eq!(
            (forms["q_proj"]["activation_bits"].as_u64(), forms["q_proj"]["hadamard_block"].as_u64()),
            (Some(bits), None)
        );
        p.run(&["run", "-m", model, "--prompt", "The cat", "-n", "4", "--temperature", "0"]).ok();
        let text = p.run(&["show", model]).ok().out;
        assert!(text.contains(&format!("down: hadamard block 128, {bits} bits")), "{text}");
    }
    // The second stage is a run as any other.
    assert_eq!(p.run(&["train", "--out", "n", "--resume", "--json"]).json()["steps"].as_u64(), Some(20));
}
