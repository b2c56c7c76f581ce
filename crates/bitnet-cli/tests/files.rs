//! Unusual files, names and endings: nothing blocks the process, nothing but files is replaced, and nothing of a dead
//! process remains.
#![cfg(all(unix, feature = "tiny-model"))]

mod common;

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use common::{Done, Place, arg};

fn fifo(place: &Place, name: &str) -> PathBuf {
    let path = place.path(name);
    assert!(Command::new("mkfifo").arg(&path).status().unwrap().success());
    path
}

/// Runs with at most 4 GB of address space, and with a time limit: a process that waits ends with code 124.
fn bounded(place: &Place, args: &[&str]) -> Done {
    let inner = place.command(args);
    let mut c = Command::new("sh");
    c.args(["-c", "ulimit -v 4000000; exec timeout 60 \"$0\" \"$@\""]).arg(inner.get_program()).args(inner.get_args());
    for (name, value) in inner.get_envs() {
        match value {
            Some(value) => c.env(name, value),
            None => c.env_remove(name),
        };
    }
    Done::of(c.current_dir(place.path("")).stdin(Stdio::null()).output().unwrap())
}

fn names(folder: &Path) -> Vec<String> {
    let mut names: Vec<String> =
        std::fs::read_dir(folder).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

#[test]
fn pipes_and_devices_are_refused_wherever_a_file_is_read() {
    let p = Place::new();
    let pipe = fifo(&p, "pipe.json");
    p.write("text.txt", "Once upon a time.\n");
    for (file, what) in [(arg(&pipe), "a named pipe"), ("/dev/zero", "a device"), ("/dev/full", "a device")] {
        for args in [
            &["run", "x", "-m", file][..],
            &["show", file],
            &["run", "x", "--tokenizer", file],
            &["tokenize", "x", "--tokenizer", file],
            &["tokenize", "--file", file],
            &["ppl", "--file", file],
            &["embed", "--file", file],
            &["eval", file],
            &["run", "x", "--chat", "--template", file],
            &["serve", "--port", "0", "--api-key-file", file],
            &["convert", file, "out.gguf", "--to", "i2_s"],
            #[cfg(feature = "constrain")]
            &["run", "x", "--grammar", file],
            #[cfg(feature = "constrain")]
            &["run", "x", "--json-schema", file],
            #[cfg(feature = "train")]
            &["train", "--out", "m", "--train-tokenizer", "300", "--data", file],
            #[cfg(feature = "train")]
            &["train", "--out", "m", "--data", "text.txt", "--tokenizer", file],
            #[cfg(feature = "train")]
            &["train", "--out", "m", "--data", "text.txt", "--train-tokenizer", "300", "--val-data", file],
            #[cfg(feature = "train")]
            &["train", "--out", "m", "--data", "text.txt", "--config", file],
        ] {
            bounded(&p, args).fails(1, what);
        }
    }
    // The pipe ends in .json, as a shape does.
    bounded(&p, &["plan", arg(&pipe)]).fails(1, "a named pipe");
    bounded(&p, &["run", "x", "-m", "synthetic:pipe.json"]).fails(1, "a named pipe");
    let folder = p.path("folder");
    std::fs::create_dir(&folder).unwrap();
    for name in ["config.json", "model.safetensors"] {
        fifo(&p, &format!("folder/{name}"));
    }
    bounded(&p, &["show", "folder"]).fails(1, "folder");
}

/// Descriptors that the caller passes are read, within bounds.
#[test]
fn standard_input_stays_usable() {
    let p = Place::new();
    let ids = p.run(&["tokenize", "Once upon a time"]).ok().out;
    assert_eq!(p.run_with_stdin(&["tokenize", "--file", "/dev/stdin"], "Once upon a time").ok().out, ids);
    assert_eq!(p.run_with_stdin(&["tokenize"], "Once upon a time").ok().out, ids);
    let run = |line: &str| {
        let exe = env!("CARGO_BIN_EXE_bitnet");
        Done::of(p.shell(&format!("ulimit -v 4000000; {}", line.replace("bitnet", exe))).output().unwrap())
    };
    for line in [
        "timeout 60 bitnet tokenize < /dev/zero",
        "timeout 60 bitnet run < /dev/zero",
        "timeout 60 bitnet tokenize --file /dev/stdin < /dev/zero",
    ] {
        run(line).fails(1, "268435456");
    }
    run("timeout 60 bitnet chat < /dev/zero").fails(2, "a message is longer");
}

#[test]
fn force_replaces_files_and_nothing_else() {
    let p = Place::new();
    let pipe = fifo(&p, "pipe");
    std::os::unix::fs::symlink("pipe", p.path("link")).unwrap();
    std::fs::create_dir(p.path("folder")).unwrap();
    for (name, what) in [("pipe", "a named pipe"), ("link", "a named pipe"), ("folder", "a folder")] {
        bounded(&p, &["convert", "synthetic:shape.json", name, "--to", "i2_s", "--force"]).fails(1, what);
        bounded(&p, &["logits", "--ids", "1", "--out", name]).fails(1, what);
    }
    bounded(&p, &["convert", "synthetic:shape.json", "pipe", "--to", "hf-packed", "--force"]).fails(2, "not a folder");
    assert!(!std::fs::metadata(&pipe).unwrap().is_file());
    assert_eq!(names(&p.path("")), ["folder", "link", "pipe", "shape.json"]);
    // A link to a file is followed, and stays.
    p.write("old.gguf", "old");
    std::os::unix::fs::symlink("old.gguf", p.path("new.gguf")).unwrap();
    p.run(&["convert", "synthetic:shape.json", "new.gguf", "--to", "i2_s"]).fails(2, "--force");
    p.run(&["convert", "synthetic:shape.json", "new.gguf", "--to", "i2_s", "--force"]).ok();
    assert!(std::fs::symlink_metadata(p.path("new.gguf")).unwrap().is_symlink());
    p.run(&["show", "old.gguf"]).ok();
}

/// Conversions that are killed leave nothing under their name, and the next one removes the rest.
#[test]
fn what_a_killed_conversion_left_goes_with_the_next() {
    let p = Place::new();
    p.run(&["show", "synthetic:shape.json"]).ok();
    let model = names(&p.path("cache/bitnet")).into_iter().find(|n| n.starts_with("synthetic")).unwrap();
    let source = format!("cache/bitnet/{model}");
    for (to, out) in [("i2_s", "out.gguf"), ("hf-packed", "out")] {
        for round in 0..8u64 {
            let args = ["convert", &source, out, "--to", to, "--round-scales"];
            let mut child = p.command(&args).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
            std::thread::sleep(Duration::from_millis(round * round * 3));
            child.kill().unwrap();
            child.wait().unwrap();
            if p.path(out).exists() {
                // It was faster.
                p.run(&["show", out]).ok();
                let _ = std::fs::remove_file(p.path(out)).or_else(|_| std::fs::remove_dir_all(p.path(out)));
            }
        }
        // Like a file left by a kill in the middle, in case none of these was.
        p.write(".tmp-1-0-0.partial", "half");
        p.run(&["convert", &source, out, "--to", to, "--round-scales"]).ok();
        assert!(names(&p.path("")).iter().all(|n| !n.starts_with(".tmp-")), "{:?}", names(&p.path("")));
        p.run(&["show", out]).ok();
    }
}

#[test]
fn a_full_disk_is_named_by_its_name() {
    let p = Place::new();
    let disk = p.path("disk");
    std::fs::create_dir(&disk).unwrap();
    let mount = Command::new("mount").args(["-t", "tmpfs", "-o", "size=64k", "tmpfs"]).arg(&disk).output();
    if !mount.is_ok_and(|o| o.status.success()) {
        println!("skipped: mounting a small disk is not permitted here");
        return;
    }
    let told = p.run(&["convert", "synthetic:shape.json", "disk/m.gguf", "--to", "i2_s"]);
    let folder = p.run(&["convert", "synthetic:shape.json", "disk/m", "--to", "hf-packed", "--round-scales"]);
    let left = names(&disk);
    assert!(Command::new("umount").arg(&disk).status().unwrap().success());
    told.fails(1, "no space for disk/m.gguf, which needs");
    folder.fails(1, "no space for disk/m/model.safetensors, which needs");
    assert!(left.is_empty(), "{left:?}");
}

#[test]
fn texts_may_begin_with_hyphens() {
    let p = Place::new();
    for args in [
        &["run", "- item", "-n", "3"][..],
        &["run", "-p", "- item", "-n", "3"],
        &["run", "Once", "-n", "3", "--stop", "---"],
        &["run", "Once", "--choose", "- a", "- b"],
        &["tokenize", "- item"],
    ] {
        assert!(!p.run(args).ok().out.is_empty(), "{args:?}");
    }
    let unknown = p.run(&["run", "--jsn", "x"]);
    assert!(unknown.code == Some(2) && unknown.err.contains("--json"), "{unknown:?}");
}

#[test]
fn the_environment_is_read_as_other_tools_read_it() {
    let p = Place::new();
    let with = |args: &[&str], env: &[(&str, &str)]| {
        let mut c = p.command(args);
        Done::of(c.env_remove("HF_HUB_CACHE").envs(env.iter().copied()).output().unwrap())
    };
    with(&["tokenize", "x"], &[("BITNET_MODEL", "")]).ok();
    p.run(&["tokenize", "x", "-m", ""]).fails(2, "empty");
    #[cfg(feature = "hub")]
    {
        let blob = p.path("x/hub/models--o--n/blobs/e");
        std::fs::create_dir_all(blob.parent().unwrap()).unwrap();
        std::fs::write(blob, "1234").unwrap();
        let home = p.path("");
        let listed = with(&["list", "--json"], &[("HF_HOME", "~/x"), ("HOME", arg(&home))]).json();
        assert!(listed["models"].as_array().unwrap().iter().any(|m| m["name"] == "o/n"), "{listed}");
        for name in ["HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE"] {
            with(&["pull", "o/other"], &[(name, "1"), ("HF_HOME", "~/x"), ("HOME", arg(&home))]).fails(1, "OFFLINE");
        }
    }
}

#[test]
fn names_that_are_not_utf8_work() {
    use std::os::unix::ffi::OsStrExt;
    let p = Place::new();
    let name = std::ffi::OsStr::from_bytes(b"m\xff.gguf");
    let with = |before: &[&str], after: &[&str]| {
        let mut c = p.command(before);
        Done::of(c.arg(name).args(after).output().unwrap())
    };
    with(&["convert", "synthetic:shape.json"], &["--to", "i2_s"]).ok();
    with(&["show"], &[]).ok();
    with(&["run", "--ids", "1", "-n", "2", "-m"], &[]).ok();
    with(&["convert"], &["o.gguf", "--to", "i2_s"]).ok();
    let told = with(&["run"], &[]);
    assert!(told.code == Some(2) && told.err.contains("UTF-8") && told.err.contains("xFF"), "{told:?}");
}

/// The file is reported once, and a session's versions are right.
#[test]
fn errors_name_the_file_once() {
    let p = Place::new();
    std::fs::create_dir(p.path("folder")).unwrap();
    for (name, text) in [("config.json", "{"), ("tokenizer.json", "{"), ("tokenizer_config.json", "{")] {
        p.run(&["convert", "synthetic:shape.json", "folder", "--to", "hf-packed", "--round-scales"]).ok();
        p.write(&format!("folder/{name}"), text);
        let told = p.run(&["run", "--ids", "1", "-n", "1", "-m", "folder"]);
        assert_eq!((told.code, told.err.matches("folder").count()), (Some(1), 1), "{name}: {told:?}");
        std::fs::remove_file(p.path(&format!("folder/{name}"))).unwrap();
        std::fs::create_dir(p.path(&format!("folder/{name}"))).unwrap();
        let told = p.run(&["run", "--ids", "1", "-n", "1", "-m", "folder"]);
        let named = told.err.matches("folder/").count() <= 1;
        assert!(matches!(told.code, Some(0 | 1)) && named, "{name}: {told:?}");
        std::fs::remove_dir_all(p.path("folder")).unwrap();
        std::fs::create_dir(p.path("folder")).unwrap();
    }
    let chat = |lines: &str| p.run_with_stdin(&["chat", "-n", "4"], lines).ok();
    chat("Hello.\n/save talk\n");
    let mut bytes = std::fs::read(p.path("talk")).unwrap();
    bytes[8] = 1;
    std::fs::write(p.path("talk"), bytes).unwrap();
    let told = chat("/load talk\n").err;
    assert!(told.contains("version 1") && told.contains("reads version 2"), "{told}");
}
