//! `bitnet train --task extract`: from utterances to a file that answers, and the messages about invalid utterances.
#![cfg(feature = "train")]

mod common;

use common::Place;

/// Utterances about lights, doors and nothing.
fn utterances() -> String {
    let rooms = ["kitchen", "hall", "cellar", "garden shed", "台所"];
    let mut text = String::new();
    for room in rooms {
        for (intent, before) in
            [("on", "switch on the light in the "), ("off", "turn it off in the "), ("open", "open the door of the ")]
        {
            let (start, len) = (before.chars().count(), room.chars().count());
            text += &format!(
                "{{\"text\": \"{before}{room}\", \"intent\": \"{intent}\", \"slots\": [{{\"name\": \"room\", \"start\": {start}, \"end\": {}}}]}}\n",
                start + len
            );
        }
        text += &format!("{{\"text\": \"what do you think of {}\", \"intent\": null}}\n", room.len());
    }
    text.clone() + &text.replace("\"text\"", "\"part\": \"valid\", \"text\"")
}

const SMALL: [&str; 12] =
    ["--hidden", "32", "--heads", "2", "--buckets", "512", "--steps", "80", "--batch", "8", "--lr", "5e-3"];

fn train<'a>(data: &'a [&'a str], more: &'a [&'a str]) -> Vec<&'a str> {
    let mut args = vec!["train", "--task", "extract", "--out", "m"];
    data.iter().for_each(|d| args.extend(["--data", d]));
    args.extend(SMALL);
    args.extend(more);
    args
}

#[test]
fn an_extractor_is_trained_and_answers() {
    let p = Place::new();
    p.write("home.jsonl", utterances());
    let args = train(&["home.jsonl"], &["--json"]);
    let json = p.run(&args).json();
    assert_eq!((json["steps"].as_u64(), json["finish"].as_str()), (Some(80), Some("completed")));
    assert!(json["tasks"]["home"]["clean"]["intent"].as_f64() > Some(0.8), "{json}");
    let report = std::fs::read_to_string(p.path("m/report.md")).unwrap();
    assert!(report.contains("| room |") && report.contains("| on |"), "{report}");
    for (picture, words) in [
        ("loss.svg", "training"),
        ("home-curves.svg", "slots, F1, typing errors"),
        ("home-intents.svg", "open"),
        ("home-slots.svg", "room"),
    ] {
        let svg = std::fs::read_to_string(p.path(&format!("m/{picture}"))).unwrap();
        assert!(svg.contains(words) && svg.trim_end().ends_with("</svg>"), "{picture}: {svg}");
        assert!(report.contains(&format!("]({picture})")), "{picture}: {report}");
    }
    assert!(std::fs::read_to_string(p.path("m/log.jsonl")).unwrap().lines().count() > 80);
    let text = "switch on the light in the kitchen";
    let both = ["m/export/model.gguf", "m/export"].map(|path| bitnet::Extractor::load(p.path(path)).unwrap());
    let [gguf, folder] = both.map(|e| e.extract(text).unwrap());
    assert_eq!(gguf, folder);
    assert_eq!((gguf.intent.as_str(), gguf.slot("room")), ("on", Some("kitchen")));

    // A run that has ended is not started again by accident; missing files are written again.
    p.run(&args).fails(2, "--resume");
    let whole = std::fs::read(p.path("m/export/model.gguf")).unwrap();
    std::fs::remove_dir_all(p.path("m/export")).unwrap();
    p.run(&train(&["home.jsonl"], &["--resume"])).ok();
    assert_eq!(std::fs::read(p.path("m/export/model.gguf")).unwrap(), whole);
    p.run(&train(&["home.jsonl"], &["--resume", "--seed", "5"])).fails(1, "options and data");

    // It teaches another one.
    let mut taught = train(&["home.jsonl"], &["--teacher", "m/export/model.gguf", "--ema", "0.9", "--reach", "2"]);
    taught[4] = "n";
    p.run(&taught).ok();
    let student = bitnet::Extractor::load(p.path("n/export")).unwrap();
    assert_eq!((student.config().reach, student.extract(text).unwrap().intent.as_str()), (2, "on"));
}

#[test]
fn layers_may_read_in_two_directions_instead() {
    let p = Place::new();
    p.write("home.jsonl", utterances());
    let json = p.run(&train(&["home.jsonl"], &["--json", "--mixer", "ttt-linear,gated-delta"])).json();
    assert!(json["tasks"]["home"]["clean"]["intent"].as_f64() > Some(0.8), "{json}");
    let found = ["m/export/model.gguf", "m/export"].map(|path| {
        let extractor = bitnet::Extractor::load(p.path(path)).unwrap();
        extractor.extract("switch on the light in the kitchen").unwrap()
    });
    assert_eq!(found[0], found[1]);
    let shown = p.run(&["show", "m/export/model.gguf"]).out;
    assert!(shown.contains("TTT-Linear, forward and backward; the gated delta rule"), "{shown}");
}

#[test]
fn words_may_know_only_what_stands_before_them() {
    let p = Place::new();
    p.write("home.jsonl", utterances());
    p.run(&train(&["home.jsonl"], &["--directions", "forward", "--once"])).ok();
    let shown = p.run(&["show", "m/export/model.gguf"]).ok().out;
    assert!(shown.contains("attention over the words before and itself"), "{shown}");
    let shown = p.run(&["show", "m/export", "--json"]).json();
    assert_eq!(shown["extractor"]["directions"], "forward");
    assert_eq!(shown["extractor"]["tasks"][0]["once"], serde_json::json!(["room"]));
    let extractor = bitnet::Extractor::load(p.path("m/export")).unwrap();
    assert_eq!(extractor.config().directions, bitnet::Directions::Forward);
    assert_eq!(extractor.extract("switch on the light in the kitchen").unwrap().intent, "on");
}

#[test]
fn wrong_utterances_and_options_are_named() {
    let p = Place::new();
    p.write("home.jsonl", utterances());
    p.write(
        "bad.jsonl",
        utterances()
            + "{\"text\": \"hi\", \"intent\": \"on\", \"slots\": [{\"name\": \"room\", \"start\": 0, \"end\": 9}]}\n",
    );
    for (data, more, problem) in [
        (&["bad.jsonl"][..], &[][..], "bad.jsonl: line 41: field \"slots[0].end\": 9 is beyond the end of the text"),
        (&["none.jsonl"], &[], "none.jsonl"),
        (&["home.jsonl"], &["--tokenizer", "x.json"], "--tokenizer is about language models"),
        (&["home.jsonl"], &["--typos", "2"], "typos is 2"),
        (&["home.jsonl"], &["--mixer", "ttt-mlp"], "attention, ttt-linear or gated-delta"),
        (&["home.jsonl"], &["--mixer", "attention,ttt-linear,attention"], "3 names for 2 layers"),
        (&["home.jsonl"], &["--directions", "backward"], "possible values: both, forward"),
        (&["home.jsonl"], &["--time", "soon"], "40m"),
        (&["a=home.jsonl", "b=home.jsonl"], &["--val-data", "home.jsonl"], "one task"),
        (&[], &[], "no utterances"),
    ] {
        let done = p.run(&train(data, more));
        assert!(done.code != Some(0) && done.err.contains(problem), "{data:?} {more:?}: {done:?}");
        assert!(!done.err.contains("panicked"), "{done:?}");
    }
    let done = p.run(&["train", "--out", "m", "--data", "home.jsonl", "--buckets", "5"]);
    done.fails(2, "--buckets is about extractors");
}
