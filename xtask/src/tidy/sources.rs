//! Rules about single files.

use std::path::Path;

use super::Finding;
use crate::error::XtaskError;
use crate::shell::{self, output};

/// A file of the repository.
pub(super) struct SourceFile {
    /// Path from the root, with `/`.
    pub(super) path: String,
    /// Its text; empty for binary files.
    pub(super) text: String,
}

/// Lines that a source file may have; above it the topic wants to be split.
const MAX_LINES: usize = 600;

/// Longer files, each with the reason why splitting would not make it clearer.
const LONG_FILES: &[(&str, &str)] = &[];

/// The only places that may hold unsafe code, as prefixes of paths.
const UNSAFE_ALLOWED: &[&str] =
    &["bindings/c/src/", "crates/ternary-kernels/src/", "crates/ternary-kernels/tests/", "crates/loader/src/mmap.rs"];

/// All files that git knows or would take.
pub(super) fn tracked() -> Result<Vec<SourceFile>, XtaskError> {
    let list = output("git", &["ls-files", "--cached", "--others", "--exclude-standard"], &[])?;
    let mut files = Vec::new();
    for path in list.lines().filter(|p| Path::new(p).is_file()) {
        let bytes = std::fs::read(path).map_err(XtaskError::io(path))?;
        let text = if bytes.contains(&0) { String::new() } else { String::from_utf8(bytes).unwrap_or_default() };
        files.push(SourceFile { path: path.to_owned(), text });
    }
    if files.is_empty() {
        return Err(XtaskError::Missing { what: "the list of files".into(), remedy: "run this in a git checkout" });
    }
    Ok(files)
}

pub(super) fn check(file: &SourceFile, findings: &mut Vec<Finding>) {
    machine_paths(file, &shell::root(), findings);
    one_cpu(file, findings);
    if file.path.ends_with(".rs") {
        module_docs(file, findings);
        length(file, findings);
        unsafe_place(file, findings);
        switched_off(file, findings);
    }
}

fn module_docs(file: &SourceFile, findings: &mut Vec<Finding>) {
    let first = file.text.lines().find(|l| !l.trim().is_empty() && !l.starts_with("#!["));
    if !first.is_some_and(|l| l.starts_with("//!")) {
        findings.push(Finding::new(&file.path, "begins without a `//!` line that describes the module"));
    }
}

fn length(file: &SourceFile, findings: &mut Vec<Finding>) {
    let lines = file.text.lines().count();
    let allowed = LONG_FILES.iter().any(|(path, _)| *path == file.path);
    if lines > MAX_LINES && !allowed {
        findings.push(Finding::new(&file.path, format!("{lines} lines, more than {MAX_LINES}: split it by topic")));
    } else if lines <= MAX_LINES && allowed {
        findings.push(Finding::new(&file.path, "is no longer long: take it off the list of long files"));
    }
}

/// The code of a line, without a comment after `//`; good enough for words that no string here holds.
pub(super) fn code(line: &str) -> &str {
    line.split("//").next().unwrap_or_default()
}

fn unsafe_place(file: &SourceFile, findings: &mut Vec<Finding>) {
    if UNSAFE_ALLOWED.iter().any(|p| file.path.starts_with(p)) {
        return;
    }
    for (i, line) in file.text.lines().enumerate() {
        let words = code(line).split(|c: char| !c.is_alphanumeric() && c != '_');
        let quoted = code(line).contains("\"unsafe") || code(line).contains("unsafe\"");
        if words.clone().any(|w| w == "unsafe") && !quoted {
            let place = format!("{}:{}", file.path, i + 1);
            findings.push(Finding::new(place, "unsafe code outside of the places that may hold it"));
        }
    }
}

/// How a test is switched off; in pieces, so that searches for such tests do not end here.
const SWITCHED_OFF: &str = concat!("#[", "ignore");

fn switched_off(file: &SourceFile, findings: &mut Vec<Finding>) {
    for (i, line) in file.text.lines().enumerate() {
        let code = code(line).trim();
        if code.starts_with(SWITCHED_OFF) {
            findings.push(Finding::new(
                format!("{}:{}", file.path, i + 1),
                "a test that never runs; assert today's behaviour instead",
            ));
        }
    }
}

/// A build tied to one CPU hides the effect of run-time dispatch.
fn one_cpu(file: &SourceFile, findings: &mut Vec<Finding>) {
    let build_file = [".rs", ".toml", ".sh", ".yml"].iter().any(|e| file.path.ends_with(e)) || file.path == ".ci/run";
    // The word is joined here, or this file would break its own rule.
    let word = ["target-cpu", "native"].join("=");
    if build_file && file.text.contains(&word) {
        findings.push(Finding::new(&file.path, format!("`{word}` ties the build to one CPU")));
    }
}

/// Absolute paths of one machine: home folders, and the place where this checkout is.
fn machine_paths(file: &SourceFile, root: &Path, findings: &mut Vec<Finding>) {
    let mut prefixes = ["root", "Users"].map(|p| format!("/{p}/")).to_vec();
    let home = std::env::home_dir();
    let own = root.ancestors().chain(home.as_deref()).filter_map(Path::to_str);
    // `/home` itself belongs to no machine: tests may make up a user there.
    prefixes.extend(own.filter(|p| !matches!(*p, "" | "/" | "/home" | "/tmp")).map(|p| format!("{p}/")));
    for (i, line) in file.text.lines().enumerate() {
        for prefix in &prefixes {
            let found = line.match_indices(prefix.as_str()).any(|(at, _)| {
                // `docs/home/x` and `https://example.org/home/` are not absolute paths.
                let before = line[..at].chars().next_back();
                before.is_none_or(|c| c.is_whitespace() || "\"'`(=:<".contains(c))
            });
            if found {
                let place = format!("{}:{}", file.path, i + 1);
                findings.push(Finding::new(place, format!("holds {prefix}, a path of one machine")));
                break;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn findings(rule: impl Fn(&SourceFile, &mut Vec<Finding>), path: &str, text: &str) -> usize {
        let mut findings = Vec::new();
        rule(&SourceFile { path: path.into(), text: text.into() }, &mut findings);
        findings.len()
    }

    #[test]
    fn a_module_without_docs_is_found() {
        assert_eq!(findings(module_docs, "a.rs", "//! What it is.\nfn f() {}\n"), 0);
        assert_eq!(findings(module_docs, "a.rs", "#![no_main]\n//! What it is.\n"), 0);
        assert_eq!(findings(module_docs, "a.rs", "fn f() {}\n"), 1);
        assert_eq!(findings(module_docs, "a.rs", ""), 1);
    }

    #[test]
    fn a_long_file_is_found() {
        assert_eq!(findings(length, "a.rs", &"x\n".repeat(MAX_LINES)), 0);
        assert_eq!(findings(length, "a.rs", &"x\n".repeat(MAX_LINES + 1)), 1);
    }

    #[test]
    fn unsafe_code_in_the_wrong_place_is_found() {
        let text = &format!("fn f() {{ {} {{ g() }} }}\n", "unsafe");
        assert_eq!(findings(unsafe_place, "crates/ternary-kernels/src/i2s/avx2.rs", text), 0);
        assert_eq!(findings(unsafe_place, "crates/bitnet/src/lib.rs", text), 1);
        assert_eq!(findings(unsafe_place, "crates/bitnet/src/lib.rs", "#![forbid(unsafe_code)] // no unsafe\n"), 0);
    }

    #[test]
    fn paths_of_one_machine_are_found() {
        let rule = |f: &SourceFile, out: &mut Vec<Finding>| machine_paths(f, Path::new("/builds/here"), out);
        assert_eq!(findings(rule, "a.md", "see /builds/here/target or \"/builds/x\"\n"), 1);
        assert_eq!(findings(rule, "a.md", "see docs/home/x and ~/models\n"), 0);
        assert_eq!(findings(rule, "a.md", &format!("see /{}/me/x\n", "Users")), 1);
    }

    #[test]
    fn tests_that_never_run_are_found() {
        assert_eq!(findings(switched_off, "a.rs", &format!("{SWITCHED_OFF} = \"slow\"]\n")), 1);
        assert_eq!(findings(switched_off, "a.rs", &format!("// `{SWITCHED_OFF}]` is not used\n")), 0);
    }

    #[test]
    fn builds_tied_to_one_cpu_are_found() {
        let word = ["target-cpu", "native"].join("=");
        assert_eq!(findings(one_cpu, ".cargo/config.toml", &format!("rustflags = [\"-C{word}\"]\n")), 1);
        assert_eq!(findings(one_cpu, "docs/a.md", &format!("never `{word}`\n")), 0);
    }
}
