//! `bitnet map` with tables that are not what they should be.

use crate::map::common::{Done, Place};
use crate::map::write_parquet;

fn map(place: &Place, from: &str, to: &str, more: &[&str]) -> Done {
    place.run(&[&["map", from, to, "--task", "extract", "-m", "a.gguf"][..], more].concat())
}

#[test]
fn lines_that_are_not_rows_are_named() {
    let p = Place::with_extractor();
    let good = "{\"text\": \"a\", \"n\": 1}\n";
    let long = format!("{{\"text\": \"{}\"}}\n", "x".repeat(17 << 20));
    let deep = format!("{{\"text\": {}1{}}}\n", "[".repeat(100_000), "]".repeat(100_000));
    let cases: [(&[u8], &str); 14] = [
        (b"{\"text\": \"\xff\"}\n", "not UTF-8"),
        (b"{\"text\": \"a\0b\"}\n", "NUL"),
        (long.as_bytes(), "longer than 16777216 bytes"),
        (deep.as_bytes(), "line 3"),
        (b"{\"text\": 7}\n", "line 3"),
        (b"{\"text\": \"a\", \"n\": \"x\"}\n", "line 3"),
        (b"{\"text\": \"a\", \"other\": 1}\n", "other"),
        (b"{\"text\": \"a\"} {\"text\": \"b\"}\n", "one JSON object on one line"),
        (b"{\"text\": \"a\",\n\"n\": 2}\n", "line 3"),
        (b"{\"text\": \"a\"\n", "line 3"),
        (b"[\"a\"]\n", "line 3"),
        (b"7\n", "line 3"),
        (b"nonsense\n", "line 3"),
        (b"{\"text\": \"\\ud800\"}\n", "line 3"),
    ];
    for (case, (bad, what)) in cases.into_iter().enumerate() {
        // An empty line is not a row, and it counts as a line.
        let table = [good.as_bytes(), b"\n", bad, good.as_bytes()].concat();
        p.write("in.jsonl", &table);
        // The types come from the first row; the faulty one is found where it stands, and where it tells the types, too.
        for infer in ["1", "1000"] {
            let done = map(&p, "in.jsonl", "out.jsonl", &["--infer", infer]);
            if infer == "1000" && what == "other" {
                // It is a column, then.
                done.ok();
                std::fs::remove_file(p.path("out.jsonl")).unwrap();
                continue;
            }
            let done = done.fails(1, "in.jsonl: line 3: ");
            assert!(infer == "1000" || done.err.contains(what), "case {case}: {}", done.err);
            assert!(done.err.len() < 1000, "case {case}: a message of {} bytes", done.err.len());
        }
        assert!(!p.path("out.jsonl").exists(), "case {case}");
    }
    // A mark at the beginning, ends of lines of another system, a last line without an end.
    p.write("in.jsonl", "\u{feff}{\"text\": \"a\"}\r\n\r\n{\"text\": \"b\"}");
    assert_eq!(map(&p, "in.jsonl", "out.jsonl", &["--json"]).json()["rows"], 2);
}

#[test]
fn values_of_csv_are_taken_as_they_stand_or_refused() {
    let p = Place::with_extractor();
    let long = format!("text,n\na,\"{}\n", "x\n".repeat(9 << 20));
    let cases: [(&[u8], &str); 10] = [
        (b"text,n\r\na,1\r\nb\r\n", "line 3: one value"),
        (b"text,n\n\"a\nb\",1\nb", "line 4: one value"),
        (b"", "line 1: there is no line with the names"),
        (b"\n\n", "there is no line with the names"),
        (b"text,n\na,1\nb\n", "line 3: one value, and there are 2 columns"),
        (b"text,n\na,1\n\nb,2,3\n", "line 4: 3 values, and there are 2 columns"),
        (b"text,n\na,\xff\n", "line 2: this is not UTF-8"),
        (b"text,n\na,\0\n", "line 2: a NUL byte"),
        (b"text,text\na,b\n", "two columns are called \"text\""),
        (long.as_bytes(), "perhaps a quote is not closed"),
    ];
    for (bad, what) in cases {
        p.write("in.csv", bad);
        map(&p, "in.csv", "out.csv", &[]).fails(1, what);
        assert!(!p.path("out.csv").exists());
    }
    let wide: String = (0..5000).map(|i| format!("c{i},")).collect();
    p.write("in.csv", wide + "text\n");
    map(&p, "in.csv", "out.csv", &[]).fails(1, "more than 4096 columns");
    // A mark, ends of lines, quotes, leading zeros; a header alone.
    p.write("in.csv", "\u{feff}text,zip\r\n\"a \"\"b\"\", c\",00123\r\n,1.10\r\n");
    map(&p, "in.csv", "out.csv", &[]).ok();
    let out = std::fs::read_to_string(p.path("out.csv")).unwrap();
    assert!(out.starts_with("text,zip,intent,") && out.contains("\n\"a \"\"b\"\", c\",00123,intent"), "{out}");
    assert!(out.ends_with("\n,1.10,,,,,,\n"), "{out}");
    p.write("in.csv", "text\n");
    assert_eq!(map(&p, "in.csv", "none.csv", &["--json"]).json()["rows"], 0);
    assert_eq!(std::fs::read_to_string(p.path("none.csv")).unwrap().lines().count(), 1);
    map(&p, "in.csv", "none.parquet", &[]).ok();
    assert_eq!(map(&p, "none.parquet", "again.csv", &["--prefix", "b_", "--json"]).json()["rows"], 0);
}

#[test]
fn damaged_parquet_files_are_refused_without_a_panic() {
    let p = Place::with_extractor();
    write_parquet(&p.path("in.parquet"), 300);
    let good = std::fs::read(p.path("in.parquet")).unwrap();
    assert_eq!(map(&p, "in.parquet", "out.jsonl", &["--json"]).json()["rows"], 300);
    let mut refused = 0;
    let mut check = |bytes: &[u8], what: &str| {
        p.write("bad.parquet", bytes);
        let done = map(&p, "bad.parquet", "bad.jsonl", &["--force"]);
        assert!(matches!(done.code, Some(0 | 1)), "{what}: {done:?}");
        assert!(!done.err.contains("panicked") && !done.err.contains("memory allocation"), "{what}: {done:?}");
        refused += usize::from(done.code == Some(1));
    };
    for len in [0, 3, 4, 12, good.len() / 2, good.len() - 9, good.len() - 1] {
        check(&good[..len], "cut");
    }
    check(b"PAR1\xff\xff\xff\x7fPAR1", "a directory of 2 GiB");
    // The directory is at the end and tells where everything is; pages are at the beginning.
    for at in (4..80).step_by(4).chain((good.len() - 400..good.len()).step_by(7)) {
        for flip in [0x01, 0x80, 0xff] {
            let mut bytes = good.clone();
            bytes[at] ^= flip;
            check(&bytes, &format!("byte {at} ^ {flip}"));
        }
    }
    assert!(refused > 50, "{refused}");
}

#[test]
fn files_are_not_in_each_others_way() {
    let p = Place::with_extractor();
    p.write("in.jsonl", "{\"text\": \"a\"}\n");
    p.write("old.jsonl", "precious");
    map(&p, "in.jsonl", "old.jsonl", &[]).fails(2, "--force");
    assert_eq!(std::fs::read_to_string(p.path("old.jsonl")).unwrap(), "precious");
    map(&p, "in.jsonl", "in.jsonl", &["--force"]).fails(2, "one file");
    map(&p, "in.jsonl", "./in.jsonl", &["--force"]).fails(2, "one file");
    std::fs::create_dir(p.path("folder.jsonl")).unwrap();
    map(&p, "folder.jsonl", "out.jsonl", &[]).fails(1, "a folder");
    map(&p, "in.jsonl", "folder.jsonl", &["--force"]).fails(1, "a folder");
    map(&p, "none.jsonl", "out.jsonl", &[]).fails(1, "none.jsonl");
    map(&p, "in.jsonl", "no/out.jsonl", &[]).ok();
    map(&p, "in.jsonl", "out.jsonl", &["--column", "body"])
        .fails(1, "there is no column \"body\" (option `column`); the table has text");
    p.write("clash.jsonl", "{\"text\": \"a\", \"intent\": \"b\"}\n");
    map(&p, "clash.jsonl", "out.jsonl", &[]).fails(1, "\"intent\" already; give the new columns a prefix");
    p.write("numbers.jsonl", "{\"text\": 1}\n");
    map(&p, "numbers.jsonl", "out.jsonl", &[]).fails(1, "holds Int64, and texts are needed");
    #[cfg(unix)]
    {
        std::os::unix::fs::symlink(p.path("in.jsonl"), p.path("link.jsonl")).unwrap();
        map(&p, "in.jsonl", "link.jsonl", &["--force"]).fails(2, "one file");
        // The file behind a link is replaced, and the link stays.
        std::os::unix::fs::symlink(p.path("old.jsonl"), p.path("to-old.jsonl")).unwrap();
        map(&p, "in.jsonl", "to-old.jsonl", &["--force"]).ok();
        assert!(std::fs::symlink_metadata(p.path("to-old.jsonl")).unwrap().is_symlink());
        assert!(std::fs::read_to_string(p.path("old.jsonl")).unwrap().contains("intent"));
    }
    p.write("empty.jsonl", "");
    let summary = map(&p, "empty.jsonl", "empty.parquet", &["--json"]).json();
    assert_eq!((&summary["rows"], &summary["columns"][0]), (&serde_json::json!(0), &serde_json::json!("text")));
    map(&p, "empty.parquet", "out.csv", &["--prefix", "b_"]).ok();
}
