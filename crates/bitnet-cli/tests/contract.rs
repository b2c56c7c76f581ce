//! The interface for scripts: JSON formats, exit codes, and the use of streams. Runs on a synthetic model, so
//! everywhere.

mod common;

use common::{Place, arg, keys};
use serde_json::{Value, json};
use test_support::Tensors;

const MODEL: [&str; 2] = ["-m", "synthetic:shape.json"];

fn with<'a>(args: &[&'a str], more: &[&'a str]) -> Vec<&'a str> {
    [args, more].concat()
}

#[test]
fn run_has_the_promised_form() {
    let p = Place::new();
    let args =
        with(&["run", "--ids", "1,5,9", "--temperature", "0", "--max-tokens", "6", "--ignore-eos", "--json"], &MODEL);
    let a = p.run(&args).json();
    assert_eq!(keys(&a), ["ids", "text", "finish_reason", "stats"]);
    assert_eq!(a["ids"].as_array().unwrap().len(), 6);
    assert_eq!((&a["text"], &a["finish_reason"]), (&Value::Null, &json!("length")));
    let stats = &a["stats"];
    assert_eq!((&stats["prompt_tokens"], &stats["new_tokens"]), (&json!(3), &json!(6)));
    assert!(stats["prefill_tok_s"].as_f64().unwrap() > 0.0 && stats["decode_tok_s"].as_f64().unwrap() > 0.0);

    // Greedy does not depend on threads, instruction set or seed.
    for more in [&["-t", "3"][..], &["--isa", "scalar"], &["--seed", "5"]] {
        assert_eq!(p.run(&with(&args, more)).json()["ids"], a["ids"], "{more:?}");
    }
    // Without a tokenizer the ids are the text.
    let ids: Vec<String> = a["ids"].as_array().unwrap().iter().map(Value::to_string).collect();
    let plain: Vec<&str> = args.iter().copied().filter(|a| *a != "--json").collect();
    assert_eq!(p.run(&plain).ok().out, ids.join(",") + "\n");
}

#[test]
fn sampling_repeats_with_its_seed_and_stops_are_obeyed() {
    let p = Place::new();
    let args = with(&["run", "--ids", "1", "-n", "12", "--temperature", "1.5", "--json", "--ignore-eos"], &MODEL);
    let ids = |seed: &str| p.run(&with(&args, &["--seed", seed])).json()["ids"].clone();
    assert_eq!(ids("1"), ids("1"));
    assert_ne!(ids("1"), ids("2"));
    // A run without a seed reports the one it used.
    let free = p.run(&args).json();
    assert_eq!(ids(&free["stats"]["seed"].to_string()), free["ids"]);
}

#[test]
fn no_new_tokens_are_none() {
    let p = Place::new();
    let a = p.run(&with(&["run", "--ids", "1,5", "--max-tokens", "0", "--json"], &MODEL)).json();
    assert_eq!((&a["ids"], &a["finish_reason"], &a["stats"]["new_tokens"]), (&json!([]), &json!("length"), &json!(0)));
}

#[test]
fn logits_are_a_safetensors_file_of_all_positions() {
    let p = Place::new();
    let args = with(&["logits", "--ids", "7,8,9,10", "--out", "l.safetensors", "--json"], &MODEL);
    assert_eq!(p.run(&args).json()["tokens"], 4);
    let file = Tensors::open(p.path("l.safetensors"));
    assert_eq!(file.names().collect::<Vec<_>>(), ["logits"]);
    assert_eq!((file.dtype("logits"), file.shape("logits")), (safetensors::Dtype::F32, &[4usize, 300][..]));
    let values = file.f32("logits");
    assert!(values.iter().all(|v| v.is_finite()) && values.iter().any(|v| v.abs() > 0.1));
    // No token is added: the row of the first id is the same without the others.
    p.run(&with(&["logits", "--ids", "7", "--out", "one.safetensors"], &MODEL)).ok();
    let one = Tensors::open(p.path("one.safetensors"));
    assert_eq!(one.bytes("logits"), &file.bytes("logits")[..1200]);
    p.run(&with(&["logits", "--ids", "7", "--out", "x.safetensors", "--kv", "f16"], &MODEL)).fails(2, "--kv");
}

#[test]
fn bench_adds_details_only_where_asked_and_counts_the_context() {
    let p = Place::new();
    let bench = |more: &[&str]| {
        let args = [&["bench", "-p", "4", "-n", "2", "-t", "1", "--json"][..], more].concat();
        p.run(&with(&args, &MODEL)).json()
    };
    let plain = bench(&[]);
    let after = bench(&["--context", "10", "--details"]);
    assert_eq!(keys(&after).last().copied(), Some("details"));
    assert_eq!((after["details"]["context"].as_u64(), after["details"]["sessions"].as_u64()), (Some(10), Some(1)));
    for key in ["prefill_range", "decode_range"] {
        let [low, high] = [0, 1].map(|i| after["details"][key][i].as_f64().unwrap());
        assert!(0.0 < low && low <= high, "{key}");
    }
    assert!(after["details"]["first_token_s"].as_f64().unwrap() > after["load_s"].as_f64().unwrap());
    // Two layers of two times 64 f16 values for each of ten tokens.
    let bytes = |v: &serde_json::Value| v["bytes_per_token"].as_u64().unwrap();
    assert_eq!(bytes(&after) - bytes(&plain), 10 * 2 * 2 * 64 * 2);
    // Two texts share the weights, and each has 1.5 tokens of its own in the mean of two steps.
    let kv = 2 * 2 * 64 * 2 * 3 / 2;
    assert_eq!(bytes(&bench(&["--sessions", "2"])) - kv, (bytes(&plain) - kv) / 2);
    // Each of two texts keeps room for 256 tokens.
    let both = bench(&["--sessions", "2", "--context", "64", "--details"]);
    assert_eq!(both["details"]["memory"]["state_bytes"].as_u64(), Some(2 * 256 * 2 * 2 * 64 * 2));
    // 128 rows of 256 codes with a sum and a scale passed together.
    assert_eq!(both["details"]["memory"]["activation_bytes"].as_u64(), Some(128 * (256 + 8)));
    assert!(both["details"]["memory"]["working_bytes"].as_u64().unwrap() > 128 * 4 * (3 * 128 + 2 * 64 + 256));
    p.run(&with(&["bench", "--sessions", "2", "--context", "1"], &MODEL)).fails(2, "--context");
    p.run(&with(&["bench", "--details"], &MODEL)).fails(2, "required arguments");
}

#[test]
fn bench_has_exactly_the_promised_keys() {
    let p = Place::new();
    let a = p.run(&with(&["bench", "-p", "16", "-n", "8", "-t", "2", "--json"], &MODEL)).json();
    let promised = [
        "prefill_tok_s",
        "decode_tok_s",
        "bytes_per_token",
        "read_bandwidth_gb_s",
        "bandwidth_share",
        "rss_anonymous_mib",
        "peak_rss_mib",
        "load_s",
        "kernel",
        "head",
        "kv",
        "isa",
        "threads",
        "rows_rescored_mean",
    ];
    assert_eq!(keys(&a), promised);
    let number = |key: &str| a[key].as_f64().unwrap_or_else(|| panic!("{key}: {}", a[key]));
    for key in ["prefill_tok_s", "decode_tok_s", "bytes_per_token", "bandwidth_share", "rss_anonymous_mib", "load_s"] {
        assert!(number(key) > 0.0, "{key}");
    }
    // A mapped file counts at the peak, the probe's 512 MiB do not.
    assert!(number("peak_rss_mib") >= number("rss_anonymous_mib") && number("peak_rss_mib") < 400.0);
    let bandwidth: Vec<f64> =
        a["read_bandwidth_gb_s"].as_array().unwrap().iter().map(|v| v.as_f64().unwrap()).collect();
    assert_eq!(bandwidth.len(), 2);
    let share = number("bytes_per_token") * number("decode_tok_s") / ((bandwidth[0] + bandwidth[1]) / 2.0 * 1e9);
    assert!((number("bandwidth_share") / share - 1.0).abs() < 1e-9);
    // Per layer: q and o 128x128, k and v 64x128, gate, up and down 256x128, at two bits, of rows that fill whole
    // panels; the f16 head; f16 keys and values of 4.5 tokens in the mean of 8 steps.
    let packed = 2 * (2 * 128 * 128 + 2 * 64 * 128 + 3 * 256 * 128) / 4;
    assert_eq!(number("bytes_per_token"), f64::from(packed + 300 * 128 * 2) + 4.5 * f64::from(2 * 2 * 64 * 2));
    assert_eq!((&a["threads"], &a["kv"], &a["head"]), (&json!(2), &json!("f16"), &json!("f16")));
}

#[test]
fn bench_beside_busy_processes_tells_the_shares() {
    let p = Place::new();
    let a = p.run(&with(&["bench", "-p", "16", "-n", "8", "-t", "2", "--beside", "1", "--json"], &MODEL)).json();
    let beside = &a["beside"];
    let promised = ["busy", "prefill_tok_s", "decode_tok_s", "prefill_share", "decode_share", "fair_share"];
    assert_eq!(keys(beside), promised);
    let number = |of: &Value, key: &str| of[key].as_f64().unwrap_or_else(|| panic!("{key}: {of}"));
    for (share, rate) in [("prefill_share", "prefill_tok_s"), ("decode_share", "decode_tok_s")] {
        let of_alone = number(beside, rate) / number(&a, rate);
        assert!(of_alone > 0.0 && (number(beside, share) / of_alone - 1.0).abs() < 1e-9, "{share}: {beside}");
    }
    assert_eq!(beside["busy"], json!(1));
    let fair = number(beside, "fair_share");
    assert!(0.0 < fair && fair <= 1.0, "{fair}");
}

#[test]
fn bench_with_a_slow_worker_tells_the_shares() {
    let p = Place::new();
    let bench = ["bench", "-p", "16", "-n", "8", "--slow-worker", "2.5"];
    let a = p.run(&with(&with(&bench, &MODEL), &["-t", "2", "--json"])).json();
    let slow = &a["slow_worker"];
    assert_eq!(keys(slow), ["times", "prefill_tok_s", "decode_tok_s", "prefill_share", "decode_share"]);
    for key in keys(slow) {
        let value = slow[key].as_f64().unwrap_or_else(|| panic!("{key}: {slow}"));
        assert!(value > 0.0, "{key}: {slow}");
    }
    assert_eq!(slow["times"], json!(2.5));
    p.run(&with(&with(&bench, &MODEL), &["-t", "1"])).fails(2, "-t 2");
    p.run(&with(&["bench", "--slow-worker", "0.5"], &MODEL)).fails(2, "from 1 to 100");
}

#[test]
fn ppl_has_the_promised_form() {
    let Some(shared) = test_support::shared_dir() else { return };
    let p = Place::new();
    p.write("big.json", common::SHAPE.replace("300", "2048"));
    let text = p.write("t.txt", "Once upon a time there was a cat. The cat sat on a mat.\n".repeat(4));
    let tokenizer = shared.join("models/tiny_ternary/tokenizer.json");
    let args =
        ["ppl", "-m", "synthetic:big.json", "--tokenizer", arg(&tokenizer), "--file", arg(&text), "--window", "16"];
    let a = p.run(&with(&args, &["--json"])).json();
    assert_eq!(keys(&a), ["nats_per_token", "perplexity", "tokens"]);
    let nats = a["nats_per_token"].as_f64().unwrap();
    assert!((a["perplexity"].as_f64().unwrap() / nats.exp() - 1.0).abs() < 1e-12);
    let ids = p.run(&["tokenize", "--tokenizer", arg(&tokenizer), "--file", arg(&text), "--json"]).json();
    assert_eq!(a["tokens"].as_u64().unwrap() as usize, ids["ids"].as_array().unwrap().len() - 1);
    // A model with random weights predicts nothing.
    assert!(nats > (2048f64).ln() - 0.5, "{nats}");
}

#[test]
fn doctor_checks_the_kernels() {
    let p = Place::new();
    let a = p.run(&["doctor", "--json", "-t", "2"]).json();
    assert_eq!(a["ok"], true);
    let kernels = a["kernels"].as_array().unwrap();
    let checked: Vec<&Value> = kernels.iter().filter(|k| k["status"] == "ok").collect();
    assert!(checked.iter().any(|k| k["isa"] == "scalar") && checked.iter().all(|k| k["products"].as_u64() > Some(10)));
    assert!(a["isas"].as_array().unwrap().iter().any(|i| i["name"] == "scalar" && i["available"] == true));
    let threads: Vec<&Value> = a["bandwidth_gb_s"].as_array().unwrap().iter().map(|b| &b["threads"]).collect();
    assert_eq!(threads, [&json!(1), &json!(2)]);
}

#[test]
fn show_tells_what_is_there() {
    let p = Place::new();
    let a = p.run(&["show", "synthetic:shape.json", "--json"]).json();
    assert_eq!((&a["runs"], &a["architecture"], &a["problem"]), (&json!(true), &json!("bitnet-b1.58"), &Value::Null));
    assert_eq!(a["config"]["hidden_size"], 128);
    assert_eq!(a["ternary_format"], "I2_S");
    assert_eq!(a["tensors"].as_array().unwrap().len(), 2 + 2 * 11);
    assert_eq!(a["metadata"]["bitnet-b1.58.block_count"], 2);
    let memory = a["memory"].as_array().unwrap().last().unwrap();
    assert_eq!((&memory["context"], &memory["kv_bytes"]), (&json!(4000), &json!(2 * 2 * 64 * 2 * 4000)));
    let text = p.run(&["show", "synthetic:shape.json", "--tensors"]).ok().out;
    assert!(text.contains("blk.1.ffn_down.weight") && text.contains("I2_S"), "{text}");
}

#[test]
fn show_works_on_types_that_are_unknown() {
    let p = Place::new();
    let made = p.run(&["show", "synthetic:shape.json", "--json"]).json();
    let mut bytes = std::fs::read(made["path"].as_str().unwrap()).unwrap();
    // The type follows name (length-prefixed), number of dimensions and two dimensions.
    let name = b"blk.0.attn_q.weight";
    let at = bytes.windows(name.len()).position(|w| w == name).unwrap() + name.len() + 4 + 16;
    assert_eq!(bytes[at..at + 4], 36u32.to_le_bytes());
    bytes[at..at + 4].copy_from_slice(&999u32.to_le_bytes());
    let odd = p.write("odd.gguf", &bytes);
    let a = p.run(&["show", arg(&odd), "--json"]).json();
    assert_eq!(a["runs"], false);
    assert!(a["problem"].as_str().unwrap().contains("999"), "{}", a["problem"]);
    let text = p.run(&["show", arg(&odd)]).ok().out;
    assert!(text.contains("unknown type 999") && text.contains("cannot be run"), "{text}");
    p.run(&["run", "-m", arg(&odd), "--ids", "1"]).fails(1, "999");
}

#[test]
fn convert_reads_back_and_refuses() {
    let p = Place::new();
    let a =
        p.run(&["convert", "synthetic:shape.json", "packed", "--to", "hf-packed", "--round-scales", "--json"]).json();
    assert_eq!((&a["to"], &a["projections"]), (&json!("hf-packed"), &json!(14)));
    let ids = |model: &str| {
        p.run(&["run", "-m", model, "--ids", "1,2", "--temperature", "0", "-n", "4", "--ignore-eos", "--json"]).json()["ids"].clone()
    };
    assert_eq!(ids("packed").as_array().unwrap().len(), 4);
    // Back into GGUF nothing is lost, so the two run alike; `repack` is another name.
    p.run(&["repack", "packed", "again.gguf", "--to", "i2_s"]).ok();
    assert_eq!(ids("again.gguf"), ids("packed"));
    p.run(&["convert", "packed", "again.gguf", "--to", "i2_s"]).fails(2, "--force");
    p.run(&["convert", "packed", "again.gguf", "--to", "i2_s", "--force"]).ok();
    // Rows of 128 are not blocks of 256.
    p.run(&["convert", "packed", "no.gguf", "--to", "tq1_0"]).fails(1, "256");
    assert!(!p.path("no.gguf").exists());
    p.run(&["convert", "synthetic:shape.json", "no", "--to", "hf-packed"]).fails(1, "scale");
    p.run(&["convert", "packed", "x", "--to", "q4_0"]).code.map(|c| assert_eq!(c, 2)).unwrap();
}

#[test]
fn synthetic_models_are_made_once() {
    let p = Place::new();
    let first = p.run(&with(&["run", "--ids", "1", "-n", "1", "--temperature", "0"], &MODEL)).ok();
    assert!(first.err.contains("with random weights"), "{first:?}");
    let second = p.run(&with(&["run", "--ids", "1", "-n", "1", "--temperature", "0"], &MODEL)).ok();
    assert!(!second.err.contains("with random weights") && second.out == first.out, "{second:?}");
    assert_eq!(std::fs::read_dir(p.path("cache/bitnet")).unwrap().count(), 1);
    p.write("odd.json", common::SHAPE.replace("\"hidden_size\": 128", "\"hidden_size\": 96"));
    p.run(&["run", "-m", "synthetic:odd.json", "--ids", "1"]).fails(1, "128");
    p.run(&["run", "-m", "synthetic:none.json", "--ids", "1"]).fails(1, "none.json");
}
