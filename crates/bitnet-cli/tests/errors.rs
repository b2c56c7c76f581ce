//! Errors are reported in one line with a way out and the right exit code; closed streams do no harm.

mod common;

use std::io::Read;
use std::process::Stdio;

use common::{Done, Place, arg};

#[test]
fn wrong_usage_is_exit_code_2() {
    let p = Place::new();
    for args in [
        &[][..],
        &["sing"],
        &["run", "--nonsense"],
        &["run", "--ids", "1,x"],
        &["run", "-m", "synthetic:3b", "--ids", "1"],
        &["run", "-m", "hf:nonsense", "--ids", "1"],
        &["run", "--ids", "1", "hello"],
        &["run", "-t", "0", "--ids", "1"],
        &["run", "--kv", "f8", "--ids", "1"],
        &["bench", "-r", "1"],
        &["logits", "--ids", "1"],
    ] {
        let done = p.run(args);
        assert_eq!(done.code, Some(2), "{args:?}: {done:?}");
        assert!(done.out.is_empty() && !done.err.contains("panicked"), "{args:?}: {done:?}");
    }
    let unknown = p.run(&["run", "--isa", "sse9", "--ids", "1"]);
    assert_eq!(unknown.code, Some(2));
    assert!(unknown.err.contains("sse9") && unknown.err.contains("scalar"), "{unknown:?}");
    p.run(&["bench", "-m", "synthetic:shape.json", "-p", "0", "-n", "0"]).fails(2, "nothing");
    p.run(&["logits", "--ids", "", "--out", "x", "-m", "synthetic:shape.json"]).fails(2, "--ids");
    let folder = ["convert", "synthetic:shape.json", "folder", "--to", "hf-packed", "--name", "x"];
    p.run(&folder).fails(2, "--name is for GGUF files");
}

#[test]
fn what_cannot_be_done_is_exit_code_1_with_a_way_out() {
    let p = Place::new();
    if cfg!(not(feature = "tiny-model")) {
        p.run(&["run", "--ids", "1"]).fails(1, "--model");
    }
    p.run(&["run", "-m", "no-such.gguf", "--ids", "1"]).fails(1, "no-such.gguf");
    p.run(&["run", "-m", "owner/repo", "--ids", "1"]).fails(1, "hf:owner/repo");
    let small = &["-m", "synthetic:shape.json"];
    let run = |more: &[&str]| p.run(&[&["run"][..], small, more].concat());
    run(&["--ids", "1,300"]).fails(1, "300");
    run(&["--ids", ""]).fails(1, "empty");
    run(&["--prompt", "hello"]).fails(1, "tokenizer");
    run(&["--ids", "1", "--top-p", "1.5"]).fails(1, "top_p");
    run(&["--ids", "1", "--tokenizer", "none.json"]).fails(1, "none.json");
    p.run(&["ppl", "-m", "synthetic:shape.json", "--file", "none.txt"]).fails(1, "none.txt");
    p.run(&["logits", "-m", "synthetic:shape.json", "--ids", "1,2,999", "--out", "x"]).fails(1, "999");
    assert!(!p.path("x").exists());
    p.run(&["logits", "-m", "synthetic:shape.json", "--ids", "1", "--out", "no/x"]).fails(1, "no/x");
    let mut c = p.command(&["run", "-m", "synthetic:shape.json", "--ids", "1"]);
    Done::of(c.env("BITNET_ISA", "sse9").output().unwrap()).fails(1, "sse9");
}

#[test]
fn damaged_files_are_named() {
    let p = Place::new();
    let made: serde_json::Value = p.run(&["show", "synthetic:shape.json", "--json"]).json();
    let bytes = std::fs::read(made["path"].as_str().unwrap()).unwrap();
    let short = p.write("short.gguf", &bytes[..bytes.len() / 2]);
    let none = p.write("none.gguf", b"");
    let text = p.write("text.gguf", b"this is not a model at all");
    let empty = p.path("empty");
    std::fs::create_dir(&empty).unwrap();
    for (file, what) in [(&short, "short.gguf"), (&none, "none.gguf"), (&text, "text.gguf"), (&empty, "empty")] {
        for args in [
            &["run", "--ids", "1", "-m", arg(file)][..],
            &["show", arg(file)],
            &["convert", arg(file), "o", "--to", "i2_s"],
        ] {
            p.run(args).fails(1, what);
        }
    }
    p.run(&["run", "--ids", "1", "-m", arg(&short)]).fails(1, "incomplete");
}

#[test]
fn nothing_is_coloured_in_a_pipe() {
    let p = Place::new();
    for args in [
        &["--help"][..],
        &["run", "--help"],
        &["doctor", "--no-bandwidth"],
        &["show", "synthetic:shape.json", "--tensors"],
        &["run", "-m", "synthetic:shape.json", "--ids", "1", "-n", "3", "-v"],
    ] {
        let done = p.run(args).ok();
        assert!(!done.out.is_empty() && !done.out.contains('\x1b') && !done.err.contains('\x1b'), "{done:?}");
    }
    assert!(!p.run(&["sing"]).err.contains('\x1b'));
    // `--quiet` leaves stderr to errors.
    assert_eq!(p.run(&["-q", "run", "-m", "synthetic:shape.json", "--ids", "1", "-n", "3"]).ok().err, "");
}

#[test]
fn every_command_explains_itself_with_examples() {
    let p = Place::new();
    for command in ["run", "chat", "logits", "tokenize", "show", "convert", "pull", "ppl", "bench", "doctor"] {
        let help = p.run(&[command, "--help"]).ok().out;
        assert!(help.contains("Examples:") && help.contains(&format!("bitnet {command}")), "{command}: {help}");
    }
    let help = p.run(&["--help"]).ok().out;
    assert!(help.contains("Exit codes") && help.contains("BITNET_ISA") && !help.contains("__bandwidth"), "{help}");
}

#[test]
fn a_reader_that_goes_away_is_no_panic() {
    let p = Place::new();
    for args in
        [&["show", "synthetic:shape.json"][..], &["run", "-m", "synthetic:shape.json", "--ids", "1", "--ignore-eos"]]
    {
        p.run(&["show", "synthetic:shape.json"]).ok();
        // The reader is closed from the beginning: however fast the command is, its first write fails.
        let (reader, writer) = std::io::pipe().unwrap();
        drop(reader);
        let child = p.command(args).stdout(writer).stderr(Stdio::piped()).spawn().unwrap();
        let done = Done::of(child.wait_with_output().unwrap());
        assert_eq!((done.code, done.err.as_str()), (Some(141), ""), "{args:?}");
    }
}

#[cfg(unix)]
#[test]
fn an_interruption_keeps_what_was_made() {
    let p = Place::new();
    let args = ["-q", "run", "-m", "synthetic:shape.json", "--ids", "1", "--ignore-eos"];
    let mut child = p.command(&args).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mut out = child.stdout.take().unwrap();
    let mut begun = [0; 8];
    out.read_exact(&mut begun).unwrap();
    let killed = std::process::Command::new("kill").args(["-INT", &child.id().to_string()]).status().unwrap();
    assert!(killed.success());
    let mut rest = String::new();
    out.read_to_string(&mut rest).unwrap();
    let done = Done::of(child.wait_with_output().unwrap());
    assert_eq!((done.code, done.err.as_str()), (Some(130), ""));
    // Whole ids, and fewer than the context would hold.
    assert!(rest.ends_with('\n') && rest.trim_end().split(',').count() < 3990, "{rest}");
}
