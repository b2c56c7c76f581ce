//! `bitnet train` when it is killed, runs twice, or writes to a bad disk: nothing is lost that was kept.
#![cfg(all(unix, feature = "train"))]

mod common;

use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use common::{Done, Place};
use serde_json::Value;

fn place() -> Place {
    let p = Place::new();
    let story = |i: usize| format!("The cat number {i} sat on the mat.\nThe dog {} slept.\n<|endoftext|>\n", i * 7);
    p.write("text.txt", (0..200).map(story).collect::<String>());
    p
}

/// A small run of so many steps into the folder.
fn train<'a>(out: &'a str, steps: &'a str, more: &[&'a str]) -> Vec<&'a str> {
    let shape = "--hidden 64 --ffn 128 --layers 1 --heads 1 --context 16 --batch 2 --threads 1 --train-tokenizer 300";
    let run = ["train", "--out", out, "--data", "text.txt", "--steps", steps];
    run.into_iter().chain(shape.split(' ')).chain(more.iter().copied()).collect()
}

fn spawn(p: &Place, args: &[&str]) -> Child {
    p.command(args).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap()
}

/// The steps of all whole lines of the log.
fn steps(p: &Place) -> Vec<u64> {
    let text = std::fs::read_to_string(p.path("m/log.jsonl")).unwrap_or_default();
    let whole = text.rfind('\n').map_or("", |end| &text[..=end]);
    let line = |l: &str| serde_json::from_str::<Value>(l).expect("a whole line is JSON");
    whole.lines().map(line).filter(|v| v["loss"].is_f64()).map(|v| v["step"].as_u64().unwrap()).collect()
}

/// The step of the checkpoint.
fn saved(p: &Place) -> u64 {
    let Ok(bytes) = std::fs::read(p.path("m/checkpoint.safetensors")) else { return 0 };
    let (_, header) = safetensors::SafeTensors::read_metadata(&bytes).expect("a checkpoint is whole");
    let about: Value = serde_json::from_str(&header.metadata().as_ref().unwrap()["bitnet-train"]).unwrap();
    about["progress"]["step"].as_u64().unwrap()
}

fn wait_until(what: &str, child: &mut Child, done: impl Fn() -> bool) {
    let began = Instant::now();
    while !done() {
        assert!(began.elapsed() < Duration::from_secs(120), "{what} does not come");
        assert!(child.try_wait().unwrap().is_none(), "it ended before {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// Killed at any moment, a run has the log of every step up to its checkpoint, each once, and the next one goes on.
#[test]
fn kills_lose_nothing_that_was_kept() {
    let p = place();
    let mut child = spawn(&p, &train("m", "1000000", &["--checkpoint-every", "20", "--validate-every", "0"]));
    wait_until("a checkpoint", &mut child, || saved(&p) >= 20);
    child.kill().unwrap();
    child.wait().unwrap();
    let mut before = saved(&p);
    // Moments from the start of the program to beyond its first steps.
    for round in 0..20u64 {
        let mut child = spawn(&p, &["train", "--out", "m", "--resume"]);
        std::thread::sleep(Duration::from_millis(10 + round * 89 % 490));
        child.kill().unwrap();
        child.wait().unwrap();
        let (now, steps) = (saved(&p), steps(&p));
        assert!(now >= before, "round {round}: the checkpoint went back from {before} to {now}");
        assert!(steps.len() as u64 >= now, "round {round}: {} lines, the checkpoint is at {now}", steps.len());
        assert!(steps.iter().enumerate().all(|(i, s)| *s == i as u64 + 1), "round {round}: {steps:?}");
        before = now;
    }
    // Of all these, one lock file remains, which no process holds, and the unfinished file of the last one, which the
    // next one removes.
    let mut child = spawn(&p, &["train", "--out", "m", "--resume"]);
    wait_until("the next checkpoint", &mut child, || saved(&p) > before);
    // A second process gets an error with the holder.
    let told = p.run(&["train", "--out", "m", "--resume"]).fails(1, "in use by process");
    assert!(told.err.contains(&child.id().to_string()), "{told:?}");
    assert!(Command::new("kill").args(["-INT", &child.id().to_string()]).status().unwrap().success());
    assert_eq!(child.wait().unwrap().code(), Some(130));
    let names: Vec<String> =
        std::fs::read_dir(p.path("m")).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
    assert!(names.iter().all(|n| !n.contains("partial")), "{names:?}");
}

#[test]
fn a_damaged_checkpoint_is_refused_and_the_one_before_goes_on() {
    let p = place();
    p.run(&train("m", "4", &["--checkpoint-every", "2"])).ok();
    let whole = std::fs::read(p.path("m/checkpoint.safetensors")).unwrap();
    let mut bytes = whole.clone();
    let at = bytes.len() / 2;
    bytes[at] ^= 4;
    p.write("m/checkpoint.safetensors", &bytes);
    let told = p.run(&["train", "--out", "m", "--resume"]).fails(1, "is damaged");
    assert!(told.err.contains("--resume --previous") && told.err.contains("checkpoint.previous"), "{told:?}");
    assert_eq!(p.run(&["train", "--out", "m", "--previous"]).code, Some(2), "it is about what --resume takes");
    // It goes on to the same bits, and the damaged one is not lost either.
    p.run(&["train", "--out", "m", "--resume", "--previous"]).ok();
    assert!(std::fs::read(p.path("m/checkpoint.safetensors")).unwrap() == whole);
    assert!(std::fs::read(p.path("m/checkpoint.aside.safetensors")).unwrap() == bytes);
    std::fs::remove_file(p.path("m/checkpoint.safetensors")).unwrap();
    p.run(&["train", "--out", "m", "--resume"]).fails(2, "--resume --previous");
    p.run(&train("m", "4", &[])).fails(2, "checkpoint.previous.safetensors exists");
}

#[test]
fn a_picture_is_no_reason_to_lose_a_run() {
    let p = place();
    std::fs::create_dir_all(p.path("m/loss.svg")).unwrap();
    let done = p.run(&train("m", "4", &["--json"]));
    assert!(done.err.contains("warning: cannot write loss.svg") && done.err.contains("loss.svg"), "{done:?}");
    assert_eq!(done.json()["steps"].as_u64(), Some(4));
    p.run(&["show", "m/export"]).ok();
}

#[cfg(target_os = "linux")]
#[test]
fn a_full_disk_is_named_and_the_run_goes_on_later() {
    let p = place();
    let disk = p.path("disk");
    std::fs::create_dir(&disk).unwrap();
    let mount = Command::new("mount").args(["-t", "tmpfs", "-o", "size=900k", "tmpfs"]).arg(&disk).output();
    if !mount.is_ok_and(|o| o.status.success()) {
        println!("skipped: mounting a small disk is not permitted here");
        return;
    }
    // Room for one checkpoint and not for two.
    let told = p.run(&train("disk/m", "8", &["--checkpoint-every", "2"]));
    let mut left: Vec<String> = Vec::new();
    for folder in ["disk/m", "disk/m/data"] {
        left.extend(std::fs::read_dir(p.path(folder)).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap()));
    }
    assert!(Command::new("cp").args(["-r", "disk/m", "copy"]).current_dir(p.path("")).status().unwrap().success());
    assert!(Command::new("umount").arg(&disk).status().unwrap().success());
    let told = told.fails(1, "no space for disk/m/");
    assert!(told.err.contains("needs") && told.err.contains("No space left"), "{told:?}");
    assert!(left.iter().all(|n| !n.contains("partial")), "{left:?}");
    // With enough space it continues.
    assert!(left.contains(&"checkpoint.safetensors".to_owned()), "{left:?}");
    p.run(&["train", "--out", "copy", "--resume"]).ok();
}

#[test]
fn shares_and_data_that_make_no_sense_are_refused() {
    let p = place();
    for share in ["-0.5", "NaN", "1.5", "inf", "x"] {
        let told = p.run(&train("m", "4", &["--val-share", share]));
        assert!(told.code == Some(2) && told.err.contains("from 0 to 1"), "{share}: {told:?}");
    }
    p.write("nothing.jsonl", "{\"prompt\": \"\", \"completion\": \"\"}\n".repeat(50));
    let args: Vec<&str> = train("m", "4", &["--val-share", "0"])
        .iter()
        .map(|a| if *a == "text.txt" { "nothing.jsonl" } else { *a })
        .collect();
    p.run(&args).fails(1, "nothing to learn");
    assert!(!p.path("m/export").exists());

    // A line of 200 MB, no UTF-8, NULs.
    let bounded = |bytes: Vec<u8>, what: &str| {
        p.write("odd.txt", bytes);
        let exe = env!("CARGO_BIN_EXE_bitnet");
        let line = format!("ulimit -v 2000000; timeout 60 {exe} train --out o --data odd.txt --train-tokenizer 300");
        Done::of(p.shell(&line).output().unwrap()).fails(1, what);
    };
    bounded(vec![b'x'; 200 << 20], "line 1: it is longer than");
    bounded(vec![0; 1 << 20], "line 1: a NUL byte");
    bounded(b"fine\n\xff\n".to_vec(), "line 2: this is not UTF-8");
}
