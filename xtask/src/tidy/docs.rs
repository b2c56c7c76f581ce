//! Rules about documents: every dependency has its reason, every link leads somewhere.

use std::collections::BTreeSet;
use std::path::Path;

use super::Finding;
use super::sources::SourceFile;
use super::workspace::Workspace;
use crate::error::XtaskError;

const DEPENDENCIES: &str = "docs/dependencies.md";

/// Every dependency has a line with its reason in `docs/dependencies.md`, and no line is left over.
pub(super) fn check_dependencies(workspace: &Workspace, findings: &mut Vec<Finding>) -> Result<(), XtaskError> {
    let text = std::fs::read_to_string(DEPENDENCIES).map_err(XtaskError::io(DEPENDENCIES))?;
    let all = workspace.members.iter().flat_map(|p| &p.dependencies);
    let used: BTreeSet<&str> = all.filter(|d| !d.local).map(|d| d.name.as_str()).collect();
    compare(&used, &text, findings);
    Ok(())
}

fn compare(used: &BTreeSet<&str>, text: &str, findings: &mut Vec<Finding>) {
    // | `name` | used by | reason |
    let rows = text.lines().filter_map(|l| l.strip_prefix("| `")).filter_map(|l| {
        let (name, rest) = l.split_once('`')?;
        let reason = rest.split('|').nth(2).unwrap_or_default().trim();
        Some((name, reason))
    });
    let rows: Vec<(&str, &str)> = rows.collect();
    for name in used.iter().filter(|name| !rows.iter().any(|(n, _)| n == *name)) {
        findings.push(Finding::new(DEPENDENCIES, format!("lacks a line `| {name} | used by | reason |`")));
    }
    for (name, reason) in rows {
        // The fuzz package is a separate workspace, unknown to this one.
        if !used.contains(name) && name != "libfuzzer-sys" {
            findings.push(Finding::new(DEPENDENCIES, format!("{name} is not a dependency any more")));
        }
        if reason.is_empty() {
            findings.push(Finding::new(DEPENDENCIES, format!("{name} has no reason")));
        }
    }
}

/// Every document is a chapter of the book, but for the decisions, whose list is.
pub(super) fn check_chapters(paths: &[&str], summary: &str, findings: &mut Vec<Finding>) {
    let chapters = links(summary);
    let documents = paths.iter().filter_map(|path| path.strip_prefix("docs/")).filter(|path| path.ends_with(".md"));
    let decision = |path: &&str| path.starts_with("adr/") && *path != "adr/README.md";
    for path in documents.filter(|path| *path != "SUMMARY.md" && !decision(path)) {
        if !chapters.contains(&path) {
            findings
                .push(Finding::new(format!("docs/{path}"), "is not a chapter of the book: name it in docs/SUMMARY.md"));
        }
    }
}

/// Links from one document to another file of the repository lead to a file that is there.
pub(super) fn check_links(file: &SourceFile, findings: &mut Vec<Finding>) {
    if !file.path.ends_with(".md") {
        return;
    }
    let folder = Path::new(&file.path).parent().unwrap_or(Path::new(""));
    for target in links(&file.text) {
        if !folder.join(target).exists() {
            findings.push(Finding::new(&file.path, format!("links to {target}, which does not exist")));
        }
    }
}

/// Targets of `[text](target)` that are files, without their `#anchor`; code is skipped.
fn links(text: &str) -> Vec<&str> {
    let mut in_code = false;
    let mut found = Vec::new();
    for line in text.lines() {
        if line.trim_start().starts_with("```") {
            in_code = !in_code;
        }
        if in_code {
            continue;
        }
        // An odd number of backticks before it: a part of inline code.
        let outside = line.match_indices("](").filter(|(at, _)| line[..*at].matches('`').count() % 2 == 0);
        let targets =
            outside.filter_map(|(at, open)| line[at + open.len()..].split_once(')')).map(|(target, _)| target);
        let files = targets.map(|t| t.split('#').next().unwrap_or_default());
        found.extend(files.filter(|t| !t.is_empty() && !t.contains("://") && !t.starts_with("mailto:")));
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dependencies_without_reason_and_reasons_without_dependency_are_found() {
        let used = BTreeSet::from(["half", "rayon"]);
        let count = |text: &str| {
            let mut findings = Vec::new();
            compare(&used, text, &mut findings);
            findings.len()
        };
        assert_eq!(count("| `half` | kernels | f16 |\n| `rayon` | kernels | threads |\n"), 0);
        assert_eq!(count("| `half` | kernels | f16 |\n"), 1);
        assert_eq!(count("| `half` | kernels |  |\n| `rayon` | kernels | threads |\n"), 1);
        assert_eq!(count("| `half` | k | r |\n| `rayon` | k | r |\n| `tokio` | k | r |\n"), 1);
    }

    #[test]
    fn documents_that_are_no_chapters_are_found() {
        let paths = ["docs/a.md", "docs/b/c.md", "docs/adr/1.md", "docs/SUMMARY.md", "README.md", "docs/x.svg"];
        let missing = |summary: &str| {
            let mut findings = Vec::new();
            check_chapters(&paths, summary, &mut findings);
            findings.into_iter().map(|f| f.place).collect::<Vec<_>>()
        };
        assert_eq!(missing("- [A](a.md)\n  - [C](b/c.md)\n"), Vec::<String>::new());
        assert_eq!(missing("- [A](a.md)\n"), ["docs/b/c.md"]);
    }

    #[test]
    fn links_to_files_are_taken_and_others_are_not() {
        let text = "[a](b.md#c) [d](https://e.org) [f](#g)\n```\n[h](i.md)\n```\n[j](k/l.rs) `[m](n)` [`o`](p)";
        assert_eq!(links(text), ["b.md", "k/l.rs", "p"]);
    }
}
