//! The commands that the documents show are run: every line of a block marked `sh` in `docs` that begins with `bitnet`.

mod common;

use std::path::{Path, PathBuf};

use common::Place;

/// Commands that the checks of the repository run by themselves.
const RUN_ELSEWHERE: &[&str] = &["cargo story", "cargo xtask test"];

fn documents() -> Vec<PathBuf> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let mut found: Vec<_> = ["README.md", "README.ja.md"].iter().map(|name| root.join(name)).collect();
    for entry in std::fs::read_dir(root.join("docs")).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_some_and(|e| e == "md") {
            found.push(path);
        }
    }
    found
}

/// Lines of the blocks marked `sh`, those that a backslash continues in one.
fn commands(text: &str) -> Vec<String> {
    let mut found = Vec::new();
    let mut within = false;
    let mut open = String::new();
    for line in text.lines() {
        match line.trim_start() {
            "```sh" => within = true,
            fence if fence.starts_with("```") => within = false,
            line if within => match line.strip_suffix('\\') {
                Some(part) => open.push_str(part),
                None => found.push(std::mem::take(&mut open) + line),
            },
            _ => {}
        }
    }
    found
}

#[test]
fn lines_of_shell_blocks_are_found() {
    let text = "a\n```sh\nbitnet one \\\n  two\nbitnet three\n```\nb\n```text\nbitnet no\n```\n";
    assert_eq!(commands(text), ["bitnet one two", "bitnet three"]);
}

#[test]
fn every_command_in_the_documents_works() {
    let place = Place::new();
    let bin = Path::new(env!("CARGO_BIN_EXE_bitnet")).parent().unwrap();
    let path = format!("{}:{}", bin.display(), std::env::var("PATH").unwrap());
    let mut count = 0;
    for document in documents() {
        for line in commands(&std::fs::read_to_string(&document).unwrap()) {
            if RUN_ELSEWHERE.iter().any(|known| line.starts_with(known)) {
                continue;
            }
            let at = document.display();
            assert!(line.starts_with("bitnet "), "{at}: mark `{line}` as text, or have it run by a check");
            let mut shell = place.shell(&line);
            let out = shell.env("PATH", &path).output().unwrap();
            assert!(out.status.success(), "{at}: `{line}` fails:\n{}", String::from_utf8_lossy(&out.stderr));
            assert!(!out.stdout.is_empty(), "{at}: `{line}` prints nothing");
            count += 1;
        }
    }
    assert!(count >= 5, "only {count} commands were found");
}
