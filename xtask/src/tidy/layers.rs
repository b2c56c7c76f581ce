//! Parts of the crate of the kernels that are not ternary kernels have separate folders, which know nothing of ternary
//! weights: they may name only the parts of the crate that are listed here. See
//! `docs/adr/0032-homes-in-the-kernels-crate.md`.

use super::Finding;
use super::sources::{SourceFile, code};

const CRATE: &str = "crates/ternary-kernels/src/";

/// Memory, instruction sets, registers: the properties of this machine.
const MACHINE: &[&str] =
    &["machine", "isa", "simd", "available_cpus", "Isa", "Cpu", "AlignedBuf", "SharedBytes", "KernelError"];
/// Threads, and how outputs are shared out to them.
const THREADS: &[&str] = &["threads", "team", "Team", "ColsMut", "split_cols"];
/// Quantised activations.
const ACTIVATIONS: &[&str] = &[
    "activations",
    "ROW_ALIGN",
    "INT16_MAX",
    "Int4Batch",
    "Int4RowMut",
    "Int8Batch",
    "Int8RowMut",
    "Int8GroupRowMut",
    "Int16Batch",
    "Int16RowMut",
];
/// Float operations, and how weights become trits, which they do as well.
const OPS: &[&str] = &["ops", "Ops", "RopeTable", "quantize"];

/// A folder, and the lists of names that it may use.
const FOLDERS: &[(&str, &[&[&str]])] = &[
    ("machine/", &[MACHINE]),
    ("threads/", &[MACHINE, THREADS]),
    ("probe/", &[MACHINE, THREADS]),
    ("activations/", &[MACHINE, ACTIVATIONS]),
    ("ops/", &[MACHINE, THREADS, ACTIVATIONS, OPS]),
];

pub(super) fn check(file: &SourceFile, findings: &mut Vec<Finding>) {
    let Some(inside) = file.path.strip_prefix(CRATE) else { return };
    let Some((folder, allowed)) = FOLDERS.iter().find(|(folder, _)| inside.starts_with(folder)) else { return };
    for name in named(&file.text) {
        if !allowed.iter().any(|list| list.contains(&name.as_str())) {
            let message =
                format!("names `crate::{name}`, which `{folder}` must not know: see `xtask/src/tidy/layers.rs`");
            findings.push(Finding::new(&file.path, message));
        }
    }
}

/// The first names after `crate::` in a file, those in braces too, outside of comments.
fn named(text: &str) -> Vec<String> {
    let text: String = text.lines().map(|line| format!("{}\n", code(line))).collect();
    let word = |text: &str| {
        text.trim_start().split(|c: char| !c.is_alphanumeric() && c != '_').next().unwrap_or("").to_owned()
    };
    let mut names = Vec::new();
    for rest in text.split("crate::").skip(1) {
        let Some(group) = rest.strip_prefix('{') else {
            names.push(word(rest));
            continue;
        };
        let (mut depth, mut item) = (0usize, String::new());
        for c in group.chars() {
            match c {
                '}' if depth == 0 => break,
                ',' if depth == 0 => names.push(word(&std::mem::take(&mut item))),
                _ => item.push(c),
            }
            depth = match c {
                '{' => depth + 1,
                '}' => depth - 1,
                _ => depth,
            };
        }
        names.push(word(&item));
    }
    names.retain(|name| !name.is_empty());
    names
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_stand_alone_and_in_braces() {
        let text = "use crate::a::b; // crate::no\nuse crate::{\n    c::{d, e}, F,\n};\nlet x = $crate::g::h!();\n";
        assert_eq!(named(text), ["a", "c", "F", "g"]);
    }

    #[test]
    fn a_folder_that_names_a_kernel_is_found() {
        let findings = |path: &str, text: &str| {
            let mut findings = Vec::new();
            check(&SourceFile { path: path.into(), text: text.into() }, &mut findings);
            findings.len()
        };
        let text = "use crate::{AlignedBuf, TernaryMatrix};\n";
        assert_eq!(findings("crates/ternary-kernels/src/ops/norm.rs", text), 1);
        assert_eq!(findings("crates/ternary-kernels/src/machine/isa.rs", "use crate::ops::Ops;\n"), 1);
        assert_eq!(findings("crates/ternary-kernels/src/threads/mod.rs", "use crate::AlignedBuf;\n"), 0);
        assert_eq!(findings("crates/ternary-kernels/src/i2s/mod.rs", text), 0);
    }
}
