//! `bitnet tune`, its stored result, and where that is shown.

mod common;

use common::{Place, keys};
use serde_json::{Value, json};

const MODEL: [&str; 2] = ["-m", "synthetic:shape.json"];

fn run(p: &Place, args: &[&str]) -> Value {
    p.run(&[args, &MODEL[..]].concat()).json()
}

const QUICK: [&str; 8] = ["tune", "-t", "2", "--budget", "0", "-p", "4", "--json"];

fn tunings(p: &Place) -> Vec<std::path::PathBuf> {
    let Ok(entries) = std::fs::read_dir(p.path("cache/bitnet")) else { return Vec::new() };
    entries.map(|e| e.unwrap().path()).filter(|f| f.extension().is_some_and(|e| e == "json")).collect()
}

#[test]
fn a_dry_run_measures_and_stores_nothing() {
    let p = Place::new();
    let a = run(&p, &[&QUICK[..], &["--dry-run"]].concat());
    assert_eq!(
        keys(&a),
        [
            "model",
            "ternary_weights",
            "threads",
            "isa",
            "default",
            "from_memory",
            "prefill_tokens",
            "prompt_per_token",
            "rounds",
            "seconds",
            "measurements",
            "left_out",
            "choices",
            "stored"
        ]
    );
    assert_eq!(
        (&a["threads"], &a["rounds"], &a["stored"], &a["from_memory"]),
        (&json!(2), &json!(3), &Value::Null, &json!(false))
    );
    let kinds: Vec<&str> = a["choices"].as_array().unwrap().iter().map(|c| c["kind"].as_str().unwrap()).collect();
    assert_eq!(kinds, ["qkv", "o", "gate-up", "down"]);
    // Four shapes in two phases, and as many kernels for each.
    let rows = a["measurements"].as_array().unwrap();
    assert!(!rows.is_empty() && rows.len().is_multiple_of(8));
    assert!(rows.iter().all(|r| r["seconds"].as_f64() > Some(0.0) && r["gb_s"].as_f64() > Some(0.0)));
    for kind in kinds {
        assert!(rows.iter().any(|r| r["used_by"].as_array().unwrap().contains(&json!(kind))), "{kind}");
    }
    // Neither the model nor a choice was written.
    assert!(!p.path("cache/bitnet").exists());
    let text = p.run(&["tune", "--budget", "0", "-p", "4", "--dry-run", MODEL[0], MODEL[1]]).ok().out;
    assert!(text.contains("used by") && text.contains("gate-up") && text.contains("GOP/s"), "{text}");
}

#[test]
fn what_is_stored_is_used_and_shown() {
    let p = Place::new();
    let run_ids = ["run", "--ids", "1,5,9", "-n", "4", "--temperature", "0", "--ignore-eos", "--json"];
    let show = || p.run(&["show", MODEL[1], "--json"]).json()["kernels"].clone();
    let untuned = run(&p, &run_ids)["ids"].clone();
    assert_eq!(show()["gate-up"]["by"], "default");

    let stored = run(&p, &["tune", "--budget", "0", "-p", "4", "--json"])["stored"].as_str().unwrap().to_owned();
    assert_eq!(tunings(&p), [std::path::PathBuf::from(&stored)]);
    // Other kernels than the defaults, so that their use can be seen.
    let mut file: Value = serde_json::from_str(&std::fs::read_to_string(&stored).unwrap()).unwrap();
    for (entry, kernel) in
        file["kernels"].as_array_mut().unwrap().iter_mut().zip(["base3_scalar", "i2s_scalar"].iter().cycle())
    {
        entry["kernel"] = json!(kernel);
    }
    std::fs::write(&stored, file.to_string()).unwrap();
    assert_eq!(show()["qkv"], json!({ "kernel": "base3_scalar", "by": "tuning" }));
    let text = p.run(&["show", MODEL[1]]).ok().out;
    assert!(text.contains("down i2s_scalar (tuned)"), "{text}");
    let doctor = p.run(&["doctor", "--json", "--no-bandwidth"]).json();
    assert_eq!(doctor["tuned"][0]["kernels"]["down"], "i2s_scalar");
    let a = run(&p, &["bench", "-p", "0", "-n", "2", "--json", "--details"]);
    assert_eq!(a["details"]["kernels"]["o"], json!({ "kernel": "i2s_scalar", "by": "tuning" }));
    assert_eq!(a["kernel"], "base3_scalar; o, down: i2s_scalar");

    // The kernels that the engine reports; the ids are the same each time.
    let log = |more: &[&str]| {
        let done = p.run(&[&run_ids[..], &["-vv"], more, &MODEL[..]].concat()).ok();
        let log = done.err.clone();
        assert_eq!(done.json()["ids"], untuned);
        log
    };
    assert!(log(&[]).contains("base3_scalar; o, down: i2s_scalar"));
    // Asked for, one kind or all; and left out.
    assert!(log(&["--kernel", "down=base3_scalar"]).contains("base3_scalar; o: i2s_scalar"));
    let asked = log(&["--kernel", "i2s_scalar", "--kernel", "gate-up=base3_scalar"]);
    assert!(asked.contains("base3_scalar; qkv, o, down: i2s_scalar"), "{asked}");
    assert!(!log(&["--kernel", "default"]).contains("base3_scalar; o"));
    // A damaged file is not an error, but it is said.
    std::fs::write(&stored, "{ \"form\": 1,").unwrap();
    assert!(log(&[]).contains("the stored tuning is ignored"));
}

#[test]
fn nonsense_is_refused() {
    let p = Place::new();
    for (args, what) in [
        (["tune", "--budget", "x"], "seconds"),
        (["tune", "--prompt-per-token", "x"], "\"x\""),
        (["run", "--kernel", "head=i2s_scalar"], "gate-up"),
        (["run", "--kernel", "i3s"], "i2s_scalar"),
        (["run", "--kernel", "down=i3s"], "i2s_scalar"),
        (["show", "--tl", "bm=1"], "bk is missing"),
    ] {
        let done = p.run(&[&args[..], &MODEL[..]].concat());
        assert!(matches!(done.code, Some(1 | 2)) && done.err.contains(what), "{what}: {done:?}");
    }
}
