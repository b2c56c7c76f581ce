//! `bitnet map`: tables in, tables out, and on from where a run was killed.

pub(crate) mod common;

use std::fs::File;
use std::path::Path;
use std::time::Duration;

use common::{Place, keys};
use parquet::arrow::ArrowWriter;
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use serde_json::{Value, json};

/// A row of a table: numbers, a text that is null now and then, a list.
fn row(i: usize) -> Value {
    let text = match i % 11 {
        4 => Value::Null,
        5 => json!(""),
        6 => json!("青空文庫, \"quoted\"\tand a tab\n in two lines"),
        n => json!(format!("play song {i} by artist {n} naow")),
    };
    json!({ "id": i, "text": text, "share": i as f64 / 8.0, "tags": [format!("t{}", i % 3), null] })
}

fn jsonl(rows: std::ops::Range<usize>) -> String {
    rows.map(|i| format!("{}\n", row(i))).collect()
}

fn rows_of(text: &str) -> Vec<Value> {
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

fn read(place: &Place, name: &str) -> String {
    std::fs::read_to_string(place.path(name)).unwrap()
}

/// The rows of a Parquet file as JSON.
fn parquet_rows(path: &Path) -> Vec<Value> {
    let reader = ParquetRecordBatchReaderBuilder::try_new(File::open(path).unwrap()).unwrap().build().unwrap();
    let mut bytes = Vec::new();
    let mut writer = arrow_json::WriterBuilder::new()
        .with_explicit_nulls(true)
        .build::<_, arrow_json::writer::LineDelimited>(&mut bytes);
    reader.for_each(|batch| writer.write(&batch.unwrap()).unwrap());
    writer.finish().unwrap();
    rows_of(std::str::from_utf8(&bytes).unwrap())
}

const EXTRACT: [&str; 4] = ["--task", "extract", "-m", "a.gguf"];

fn map(place: &Place, from: &str, to: &str, more: &[&str]) -> common::Done {
    place.run(&[&["map", from, to][..], &EXTRACT[..], more].concat())
}

#[test]
fn rows_have_the_answers_of_the_other_commands() {
    let p = Place::with_extractor();
    p.write("in.jsonl", jsonl(0..40));
    let summary = map(&p, "in.jsonl", "out.jsonl", &["--json", "--batch", "7", "-t", "3"]).json();
    assert_eq!(
        keys(&summary),
        [
            "input",
            "output",
            "format",
            "task",
            "rows",
            "resumed_rows",
            "failed",
            "nulls",
            "columns",
            "seconds",
            "rows_per_second",
            "peak_rss_mib"
        ]
    );
    let columns = ["id", "text", "share", "tags", "intent", "probability", "out_of_scope", "slots", "cut", "error"];
    assert_eq!(summary["columns"], json!(columns));
    assert_eq!((&summary["rows"], &summary["failed"], &summary["nulls"]), (&json!(40), &json!(0), &json!(4)));
    let out = rows_of(&read(&p, "out.jsonl"));
    assert_eq!(out.len(), 40);
    for (i, out) in out.iter().enumerate() {
        assert_eq!(keys(out), columns);
        for (key, value) in row(i).as_object().unwrap() {
            assert_eq!(out[key], *value, "{key} of {i}");
        }
        let Some(text) = out["text"].as_str() else {
            assert!(columns[4..].iter().all(|column| out[column].is_null()));
            continue;
        };
        let alone = p.run(&["extract", "-m", "a.gguf", "--json", "--", text]).json();
        for key in ["intent", "out_of_scope", "slots", "cut"] {
            assert_eq!(out[key], alone[key], "{key} of {i}");
        }
        assert_eq!(out["probability"].as_f64().unwrap() as f32, alone["confidence"].as_f64().unwrap() as f32);
    }
    // Nothing is left beside the table.
    assert!(!p.path("out.jsonl.map").exists());
    let said = map(&p, "in.jsonl", "other.jsonl", &["--extractor-task", "topic"]).ok().out;
    assert!(said.starts_with("wrote other.jsonl: 40 rows, 4 without a text"), "{said}");
    assert!(rows_of(&read(&p, "other.jsonl"))[0]["intent"].as_str().unwrap().starts_with("topic"));
}

#[test]
fn every_format_becomes_every_other_with_the_same_rows() {
    let p = Place::with_extractor();
    p.write("in.jsonl", jsonl(0..25));
    for to in ["jsonl", "parquet", "csv", "tsv"] {
        map(&p, "in.jsonl", &format!("a.{to}"), &["--batch", "4"]).ok();
    }
    let expected = rows_of(&read(&p, "a.jsonl"));
    assert_eq!(parquet_rows(&p.path("a.parquet")), expected);
    // On from the tables that were written, with other columns beside the first ones.
    for from in ["a.jsonl", "a.parquet", "a.csv", "a.tsv"] {
        let more = ["--batch", "6", "--prefix", "b_"];
        let summary = map(&p, from, "b.jsonl", &[&more[..], &["--json", "--force"]].concat()).json();
        assert_eq!(summary["rows"], 25, "{from}");
        for (row, expected) in rows_of(&read(&p, "b.jsonl")).iter().zip(&expected) {
            for name in ["text", "id", "slots", "probability"] {
                let got = &row[name];
                // In CSV all are texts, and an empty text is none.
                match (from.ends_with("sv"), &expected[name]) {
                    (true, Value::String(text)) if text.is_empty() => assert!(got.is_null()),
                    (true, Value::String(text)) => assert_eq!(got, text),
                    (true, Value::Null) => assert!(got.is_null(), "{from} {name}: {got}"),
                    (true, other) => {
                        let got: Value = serde_json::from_str(got.as_str().unwrap()).unwrap();
                        assert_eq!(got.to_string(), other.to_string(), "{from} {name}");
                    }
                    (false, other) => assert_eq!(got, other, "{from} {name}"),
                }
            }
            if expected["text"] != "" {
                assert_eq!((&row["b_intent"], &row["b_slots"]), (&expected["intent"], &expected["slots"]), "{from}");
            }
        }
        map(&p, from, "b.parquet", &[&more[..], &["--force"]].concat()).ok();
        assert_eq!(parquet_rows(&p.path("b.parquet")), rows_of(&read(&p, "b.jsonl")), "{from}");
    }
    p.run(&[
        "map",
        "a.csv",
        "c.out",
        "--output-format",
        "jsonl",
        "--prefix",
        "c_",
        EXTRACT[0],
        EXTRACT[1],
        "-m",
        "a.gguf",
    ])
    .ok();
    assert_eq!(rows_of(&read(&p, "c.out")).len(), 25);
}

/// The rows that the journal of `output` vouches for.
#[cfg(unix)]
fn rows_kept(place: &Place, output: &str) -> u64 {
    let journal = std::fs::read(place.path(&format!("{output}.map/journal.json"))).unwrap_or_default();
    let journal: Value = serde_json::from_slice(&journal).unwrap_or_default();
    journal["place"]["rows"].as_u64().unwrap_or(0)
}

#[cfg(unix)]
#[test]
fn a_killed_run_is_resumed_without_losing_or_doubling_a_row() {
    let p = Place::with_extractor();
    let rows = 4000;
    p.write("in.jsonl", jsonl(0..rows));
    map(&p, "in.jsonl", "in.csv", &["--prefix", "first_"]).ok();
    map(&p, "in.jsonl", "in.parquet", &["--prefix", "first_"]).ok();
    for (from, to) in [("in.jsonl", "jsonl"), ("in.csv", "csv"), ("in.parquet", "parquet")] {
        let (whole, cut) = (format!("whole.{to}"), format!("cut.{to}"));
        map(&p, from, &whole, &["-t", "1"]).ok();
        let step = ["--batch", "16", "--sync-every", "0", "--resume", "--json"];
        let args: Vec<&str> = [&["map", from, &cut][..], &EXTRACT[..], &step].concat();
        let mut kills = 0;
        for target in [500, 1500, 2500] {
            let mut child = p.command(&args).stdout(std::process::Stdio::null()).spawn().unwrap();
            while rows_kept(&p, &cut) < target && child.try_wait().unwrap().is_none() {
                std::thread::sleep(Duration::from_micros(300));
            }
            // SIGKILL, unless it was done already.
            child.kill().unwrap();
            if !child.wait().unwrap().success() {
                kills += 1;
                assert!(!p.path(&cut).exists(), "an unfinished table is seen");
            }
        }
        assert!(kills > 0, "the run was over before it could be killed");
        let kept = rows_kept(&p, &cut);
        assert!((1..rows as u64).contains(&kept), "{kept}");
        // A half-written row that the journal does not know.
        let file = p.path(&format!("{cut}.map/rows"));
        let mut bytes = std::fs::read(&file).unwrap();
        bytes.extend(b"{\"half\": ");
        std::fs::write(&file, bytes).unwrap();
        let summary = p.run(&args).json();
        assert_eq!((&summary["rows"], &summary["resumed_rows"]), (&json!(rows), &json!(kept)));
        assert!(!p.path(&format!("{cut}.map")).exists());
        match to {
            "parquet" => assert_eq!(parquet_rows(&p.path(&cut)), parquet_rows(&p.path(&whole))),
            _ => assert_eq!(read(&p, &cut), read(&p, &whole)),
        }
    }
}

#[cfg(unix)]
#[test]
fn an_interrupted_run_says_how_to_continue() {
    let p = Place::with_extractor();
    p.write("in.jsonl", jsonl(0..20_000));
    let args = [&["map", "in.jsonl", "out.jsonl"][..], &EXTRACT].concat();
    let slow = [&args[..], &["--batch", "8", "--sync-every", "0"]].concat();
    let mut child =
        p.command(&slow).stdout(std::process::Stdio::piped()).stderr(std::process::Stdio::piped()).spawn().unwrap();
    while rows_kept(&p, "out.jsonl") < 100 {
        assert!(child.try_wait().unwrap().is_none(), "the run ended before it was interrupted");
        std::thread::sleep(Duration::from_millis(1));
    }
    let killed = std::process::Command::new("kill").args(["-INT", &child.id().to_string()]).status().unwrap();
    assert!(killed.success());
    let done = common::Done::of(child.wait_with_output().unwrap());
    assert_eq!(done.code, Some(130), "{done:?}");
    let kept = rows_kept(&p, "out.jsonl");
    assert!(done.err.contains(&format!("{kept} rows are kept; --resume continues")), "{}", done.err);
    p.run(&args).fails(2, "--resume continues it, --force begins again");
    p.run(&[&args[..], &["--resume", "--prefix", "x_"]].concat()).fails(2, "`options.prefix` of the earlier run was");
    let summary = p.run(&[&args[..], &["--resume", "--json"]].concat()).json();
    assert_eq!((&summary["rows"], &summary["resumed_rows"]), (&json!(20_000), &json!(kept)));
}

#[test]
fn a_run_is_resumed_only_with_the_same_input_model_and_options() {
    let p = Place::with_extractor();
    // The third row does not fit, so that the first batch stays.
    let broken = format!("{}{{\"id\": 2, \"text\": 7}}\n", jsonl(0..2));
    p.write("in.jsonl", &broken);
    let begin =
        |more: &[&str]| map(&p, "in.jsonl", "out.jsonl", &[&["--batch", "1", "--infer", "2"][..], more].concat());
    let failed = begin(&[]).fails(1, "line 3");
    assert!(failed.err.contains("2 rows are kept"), "{}", failed.err);
    begin(&["--resume", "--extractor-task", "topic"]).fails(2, "task.extractor-task");
    begin(&["--resume", "--on-error", "stop"]).fails(2, "options.on-error");
    let model = std::fs::read(p.path("a.gguf")).unwrap();
    p.write("b.gguf", &model);
    p.run(&["map", "in.jsonl", "out.jsonl", "--task", "extract", "-m", "b.gguf", "--infer", "2", "--resume"])
        .fails(2, "model.path");
    p.write("in.jsonl", broken.replace("song 1", "song 9"));
    begin(&["--resume"]).fails(2, "`input.");
    // The lines before are not read again, and the same error is at the same line.
    let repaired = jsonl(0..3);
    p.write("in.jsonl", &repaired);
    begin(&["--resume"]).fails(2, "`input.");
    begin(&["--force"]).ok();
    assert_eq!(rows_of(&read(&p, "out.jsonl")).len(), 3);
    begin(&[]).fails(2, "out.jsonl exists already; --force replaces it");
    begin(&["--resume"]).fails(2, "exists already");
}

#[test]
fn streams_are_read_and_written() {
    let p = Place::with_extractor();
    let run = |more: &[&str], stdin: &str| p.run_with_stdin(&[&["map", "-", "-"][..], &EXTRACT, more].concat(), stdin);
    p.write("in.jsonl", jsonl(0..30));
    map(&p, "in.jsonl", "out.jsonl", &[]).ok();
    assert_eq!(run(&["--batch", "4"], &jsonl(0..30)).ok().out, read(&p, "out.jsonl"));
    assert_eq!(run(&[], "").ok().out, "");
    let csv =
        run(&["--input-format", "csv", "--output-format", "csv", "--prefix", "x_"], "text,n\nplay jazz,007\n").ok().out;
    assert!(csv.starts_with("text,n,x_intent,") && csv.contains("\nplay jazz,007,intent"), "{csv}");
    run(&["--json"], "").fails(2, "--json");
    run(&["--resume"], "").fails(2, "--resume");
    run(&["--input-format", "parquet"], "").fails(2, "Parquet needs a file");
    // From a stream to a file: nothing to resume, and nothing stays behind.
    let done = p.run_with_stdin(&[&["map", "-", "s.jsonl"][..], &EXTRACT].concat(), &jsonl(0..30)).ok();
    assert!(done.out.contains("30 rows") && read(&p, "s.jsonl") == read(&p, "out.jsonl"));
    p.run_with_stdin(&[&["map", "-", "t.jsonl"][..], &EXTRACT].concat(), "{\"text\": \"a\"}\nx\n")
        .fails(1, "stdin: line 2");
    assert!(!p.path("t.jsonl").exists() && !p.path("t.jsonl.map").exists());
}

#[test]
fn memory_does_not_grow_with_the_table() {
    let p = Place::with_extractor();
    let line = |i: usize| format!("{{\"text\": \"play song {i} now\", \"pad\": \"{}\"}}\n", "x".repeat(300));
    let peak = |rows: usize, to: &str| {
        p.write("in.jsonl", (0..rows).map(line).collect::<String>());
        let summary = map(&p, "in.jsonl", &format!("{rows}.{to}"), &["-t", "1", "--json"]).json();
        assert_eq!(summary["rows"], rows);
        summary["peak_rss_mib"].as_f64()
    };
    for to in ["jsonl", "parquet"] {
        // 30 MiB of rows more; a row group of Parquet is as large as 2 MiB of them compressed.
        if let (Some(few), Some(many)) = (peak(5_000, to), peak(100_000, to)) {
            assert!(many < few + 16.0, "{to}: {few} and {many} MiB");
        }
    }
}

/// The other tasks, with the model within the program.
#[cfg(feature = "tiny-model")]
#[test]
fn language_models_answer_for_rows() {
    let p = Place::with_extractor();
    let texts = ["The boy was thirsty. He drank a glass of", "Once upon a time", "青空"];
    let table: String = texts.iter().map(|text| format!("{}\n", json!({ "text": text }))).collect();
    p.write("in.jsonl", table + "{\"text\": null}\n");
    let run = |task: &str, more: &[&str]| {
        let args = [&["map", "in.jsonl", "out.jsonl", "--force", "--task", task][..], more].concat();
        p.run(&args).ok();
        rows_of(&read(&p, "out.jsonl"))
    };
    let rows = run("choose", &["--choices", " stone", " water", " shoes"]);
    assert_eq!((&rows[0]["choice"], keys(&rows[0])), (&json!("water"), vec!["text", "choice", "probability", "error"]));
    assert!(rows[3]["choice"].is_null() && rows[3]["error"].is_null());
    assert_eq!(run("classify", &["--choices", " stone", " water", " shoes"]), rows);

    let rows = run("embed", &[]);
    let vectors = p.run(&["embed", "--json", texts[0], texts[1], texts[2]]).json();
    for (row, vector) in rows.iter().zip(vectors["embeddings"].as_array().unwrap()) {
        assert_eq!(row["embedding"].to_string(), vector.to_string());
    }
    let rows = run("score", &["--prompt", "One day. {text}"]);
    assert!(rows[0]["logprob"].as_f64().unwrap() < 0.0 && rows[0]["tokens"].as_u64().unwrap() > 5);

    for more in [&["--seed", "4", "--temperature", "0.8"][..], &[]] {
        let rows = run("generate", &[&["-n", "8"][..], more].concat());
        for (row, text) in rows.iter().zip(texts) {
            let more = if more.is_empty() { &["--temperature", "0"][..] } else { more };
            let alone = p.run(&[&["run", text, "-n", "8", "--json"][..], more].concat()).json();
            assert_eq!((&row["generated"], &row["finish_reason"]), (&alone["text"], &alone["finish_reason"]));
        }
    }
    let schema = r#"{"enum": ["happy", "sad"]}"#;
    let rows = run("generate", &["--schema", schema]);
    assert!(rows[..3].iter().all(|row| ["\"happy\"", "\"sad\""].contains(&row["generated"].as_str().unwrap())));
    let rows = run("generate", &["--schema", schema, "-n", "1"]);
    assert!(rows[0]["generated"].is_null() && rows[0]["error"].as_str().unwrap().contains("before it satisfied"));
    let stop = ["--task", "generate", "--schema", schema, "-n", "1", "--on-error", "stop", "--force"];
    p.run(&[&["map", "in.jsonl", "out.jsonl"][..], &stop].concat()).fails(1, "in.jsonl: line 1: ");
}

#[test]
fn options_that_do_not_belong_together_are_named() {
    let p = Place::with_extractor();
    p.write("in.jsonl", jsonl(0..2));
    p.write("c.csv", "text\nx\n");
    let run = |more: &[&str]| p.run(&[&["map", "in.jsonl", "out.jsonl"][..], more].concat());
    run(&[]).fails(2, "required arguments");
    run(&["--task", "sing"]).fails(2, "'sing'");
    run(&["--task", "extract"]).fails(2, "--model");
    run(&["--task", "choose"]).fails(2, "--choices");
    run(&["--task", "extract", "-m", "a.gguf", "--seed", "1"]).fails(2, "--seed is an option of --task generate");
    run(&["--task", "extract", "-m", "a.gguf", "--prompt", "{text}"]).fails(2, "--prompt");
    run(&["--task", "score", "-m", "a.gguf"]).fails(1, "language model");
    run(&["--task", "embed", "-m", "a.gguf", "--pooling", "mean"]).fails(1, "pooling");
    run(&["--task", "embed", "-m", "a.gguf", "--prompt", "nothing"]).fails(2, "--prompt");
    run(&["--task", "extract", "-m", "a.gguf", "--batch", "0"]).fails(2, "--batch");
    run(&["--task", "extract", "-m", "a.gguf", "--extractor-task", "weather"]).fails(1, "music, topic");
    run(&["--task", "extract", "-m", "none.gguf"]).fails(1, "none.gguf");
    map(&p, "in.jsonl", "out.xlsx", &[]).fails(2, "--output-format");
    assert!(!p.path("out.jsonl").exists() && !p.path("out.jsonl.map").exists());
    let help = p.run(&["map", "--help"]).ok().out;
    assert!(help.contains("Examples:") && help.contains("bitnet map"));
}

/// Writes a Parquet file of `rows` rows.
pub(crate) fn write_parquet(path: &Path, rows: usize) {
    use std::sync::Arc;

    use arrow_array::{ArrayRef, Int64Array, RecordBatch, StringArray};
    let texts: ArrayRef = Arc::new((0..rows).map(|i| Some(format!("play song {i}"))).collect::<StringArray>());
    let ids: ArrayRef = Arc::new((0..rows as i64).map(Some).collect::<Int64Array>());
    let batch = RecordBatch::try_from_iter([("text", texts), ("id", ids)]).unwrap();
    let mut writer = ArrowWriter::try_new(File::create(path).unwrap(), batch.schema(), None).unwrap();
    writer.write(&batch).unwrap();
    writer.close().unwrap();
}
