//! How many unsafe sites each crate has. None is added unnoticed: more than are listed here are refused, and if fewer
//! remain, the list must follow.

use std::collections::BTreeMap;

use super::Finding;
use super::sources::{SourceFile, code};

/// Blocks, functions, implementations and foreign items that are unsafe, by the folder of their crate. Others have
/// none.
///
/// `bindings/c`: each of the 46 functions that C calls with a pointer is one, because its caller makes promises that no code
/// can check; the other 15 are in `border.rs` and its tests, the only place that follows such a pointer.
const SITES: &[(&str, usize)] = &[("bindings/c", 61), ("crates/loader", 2), ("crates/ternary-kernels", 42)];

/// The token after the word at a site.
const KINDS: [&str; 4] = ["{", "fn", "impl", "extern"];

/// Sites of a source file.
fn sites(text: &str) -> usize {
    let of_line = |line| {
        let after = code(line).split(concat!("un", "safe ")).skip(1);
        after.filter(|rest| KINDS.iter().any(|kind| rest.starts_with(kind))).count()
    };
    text.lines().map(of_line).sum()
}

/// The folder of the crate that a file belongs to.
fn crate_of(path: &str) -> &str {
    let nested = ["apps/", "bindings/", "crates/", "tools/", "xtask/"];
    let depth = if nested.iter().any(|folder| path.starts_with(folder)) { 2 } else { 1 };
    let end = path.match_indices('/').nth(depth - 1).map_or(path.len(), |(at, _)| at);
    &path[..end]
}

pub(super) fn check(files: &[SourceFile], findings: &mut Vec<Finding>) {
    check_against(SITES, files, findings);
}

fn check_against(listed: &[(&str, usize)], files: &[SourceFile], findings: &mut Vec<Finding>) {
    let mut counts: BTreeMap<&str, usize> = listed.iter().map(|(folder, _)| (*folder, 0)).collect();
    for file in files.iter().filter(|file| file.path.ends_with(".rs")) {
        let found = sites(&file.text);
        if found > 0 {
            *counts.entry(crate_of(&file.path)).or_default() += found;
        }
    }
    for (folder, found) in counts {
        let most = listed.iter().find(|(name, _)| *name == folder).map_or(0, |(_, most)| *most);
        let message = match found.cmp(&most) {
            std::cmp::Ordering::Equal => continue,
            std::cmp::Ordering::Greater => format!(
                "unsafe sites: {found}, and {most} so far; write it with `simd::load`, `isa::compiled!` or slices, or argue for \
                 the new number in `xtask/src/tidy/unsafe_sites.rs`"
            ),
            std::cmp::Ordering::Less => {
                format!("unsafe sites: {found} remain of {most}; lower the number in `xtask/src/tidy/unsafe_sites.rs`")
            }
        };
        findings.push(Finding::new(folder, message));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(path: &str, text: &str) -> SourceFile {
        SourceFile { path: path.into(), text: text.replace("UNSAFE", concat!("un", "safe")) }
    }

    #[test]
    fn sites_are_counted_and_words_in_comments_are_not() {
        let text =
            file("", "UNSAFE impl A for B {}\nf(UNSAFE { g() }, UNSAFE { h() }) // UNSAFE { x }\nUNSAFE trait T {}\n")
                .text;
        assert_eq!(sites(&text), 3);
    }

    #[test]
    fn more_sites_than_listed_are_refused_and_fewer_want_the_list_lowered() {
        let files = [
            file("crates/a/src/lib.rs", "UNSAFE { f() }\nUNSAFE { f() }\n"),
            file("crates/a/tests/t.rs", "UNSAFE { f() }\n"),
            file("xtask/src/main.rs", "UNSAFE { f() }\n"),
            file("docs/a.md", "UNSAFE { f() }\n"),
        ];
        let places = |listed: &[(&str, usize)]| {
            let mut findings = Vec::new();
            check_against(listed, &files, &mut findings);
            findings.into_iter().map(|f| f.place).collect::<Vec<_>>()
        };
        assert_eq!(places(&[("crates/a", 3), ("xtask/src", 1)]), [""; 0]);
        assert_eq!(places(&[("crates/a", 2), ("xtask/src", 1)]), ["crates/a"]);
        assert_eq!(places(&[("crates/a", 4), ("crates/b", 1), ("xtask/src", 1)]), ["crates/a", "crates/b"]);
        assert_eq!(places(&[("crates/a", 3)]), ["xtask/src"]);
    }
}
