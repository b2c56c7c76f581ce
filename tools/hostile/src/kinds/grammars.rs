//! Grammars in Lark's notation, and regular expressions.

use super::{Variant, either, grows, joined, nested};

const DEEP: usize = 1 << 15;

pub(super) const LARK: &[Variant] = &[
    grows("rules", DEEP, |n| format!("start: r0\n{}\nr{n}: \"x\"\n", joined(n, "\n", |i| format!("r{i}: r{}", i + 1)))),
    grows("rules-backwards", DEEP, |n| {
        format!("r{n}: \"x\"\n{}\nstart: r0\n", joined(n, "\n", |i| format!("r{}: r{}", n - 1 - i, n - i)))
    }),
    grows("terminals", DEEP, |n| {
        format!("start: T0\n{}\nT{n}: \"x\"\n", joined(n, "\n", |i| format!("T{i}: T{}", i + 1)))
    }),
    grows("terminals-with-text", DEEP, |n| {
        format!("start: T0\n{}\nT{n}: \"x\"\n", joined(n, "\n", |i| format!("T{i}: \"a\" T{} \"b\"", i + 1)))
    }),
    grows("doubling-terminals", 64, |n| {
        format!("start: T0\n{}\nT{n}: \"x\"\n", joined(n, "\n", |i| format!("T{i}: T{} T{}", i + 1, i + 1)))
    }),
    grows("doubling-rules", 64, |n| {
        format!("start: r0\n{}\nr{n}: \"x\"\n", joined(n, "\n", |i| format!("r{i}: r{} r{}", i + 1, i + 1)))
    }),
    grows("parentheses", DEEP, |n| format!("start: {}\n", nested(n, "(", "\"x\"", ")"))),
    grows("brackets", DEEP, |n| format!("start: {}\n", nested(n, "[", "\"x\"", "]"))),
    grows("parentheses-in-a-terminal", DEEP, |n| format!("start: T\nT: {}\n", nested(n, "(", "\"x\"", ")"))),
    grows("stars", DEEP, |n| format!("start: {}\n", nested(n, "(", "\"x\"", ")*"))),
    grows("optionals", 1 << 16, |n| format!("start: {}\nA: \"a\"\n", joined(n, " ", |_| "A?".to_owned()))),
    grows("optional-rules", 1 << 14, |n| format!("start: {}\na: \"a\"\n", joined(n, " ", |_| "a?".to_owned()))),
    grows("optionals-in-a-terminal", 1 << 16, |n| {
        format!("start: T\nT: {}\n", joined(n, " ", |_| "\"a\"?".to_owned()))
    }),
    grows("alternatives", 1 << 16, |n| format!("start: {}\n", joined(n, " | ", |i| format!("\"word {i}\"")))),
    grows("alternatives-of-terminals", 1 << 14, |n| {
        let names = joined(n, " | ", |i| format!("T{i}"));
        format!("start: {names}\n{}\n", joined(n, "\n", |i| format!("T{i}: /[a-z]+{i}/")))
    }),
    grows("ambiguous", 1 << 12, |n| {
        format!("start: {}\n", joined(n, " ", |_| "(\"a\" | \"aa\" | \"aaa\")*".to_owned()))
    }),
    either("ambiguous-recursion", 1 << 10, |n| {
        format!("start: s\ns: {} | \"a\"\n", joined(n + 1, " ", |_| "s?".to_owned()))
    }),
    either("repetition", 1 << 30, |n| format!("start: A{{1,{n}}}\nA: \"a\"\n")),
    either("repetition-at-least", 1 << 30, |n| format!("start: A{{{n},}}\nA: \"a\"\n")),
    either("repetition-of-repetition", 1 << 20, |n| {
        format!("start: (a{{1,{n}}} \"b\"){{1,{n}}}\na: (\"a\"{{1,{n}}})\n")
    }),
    either("repetition-in-a-terminal", 1 << 30, |n| format!("start: T\nT: \"a\"{{1,{n}}}\n")),
    either("and", 1 << 8, |n| format!("start: T\nT: {}\n", joined(n, " & ", |i| format!("/(.{{{}}})*/", 2 * i + 3)))),
    either("and-of-words", 1 << 10, |n| format!("start: T\nT: {}\n", joined(n, " & ", |i| format!("/.*{i}.*/")))),
    either("not", 1 << 12, |n| format!("start: T\nT: {}\"x\"{}\n", "~(".repeat(n), ")".repeat(n))),
    either("not-long", 1 << 12, |n| format!("start: T\nT: ~/.*a.{{{n}}}/\n")),
    either("not-many", 1 << 10, |n| format!("start: T\nT: {}\n", joined(n, " & ", |i| format!("~/.*{i}.*/")))),
    either("substring", 1 << 20, |n| {
        format!(
            "start: T\nT: %regex {{ \"substring_chars\": \"{}\" }}\n",
            joined(n, "", |i| char::from(b'a' + (i * i % 26) as u8).to_string())
        )
    }),
    either("json", 1 << 12, |n| {
        format!(
            "start: j\nj: %json {{ \"type\": \"array\", \"maxItems\": {n}, \"items\": {} }}\n",
            nested(n, "{\"anyOf\": [", "{\"const\": 1}", "]}")
        )
    }),
    either("nested-lark", 1 << 8, |n| {
        format!("start: a\na: %lark {}\n", nested(n, "{\nstart: a\na: %lark ", "{\nstart: \"x\"\n}", "\n}"))
    }),
    either("long-name", 1 << 20, |n| format!("start: {0}\n{0}: \"x\"\n", "a".repeat(n))),
    either("long-text", 1 << 20, |n| format!("start: \"{}\"\n", "a".repeat(n))),
    either("expressions", 1 << 12, |n| format!("start: {}\n", joined(n, " ", |i| format!("/[a-z]{{{i},}}x/")))),
];

pub(super) const REGEX: &[Variant] = &[
    grows("optionals", 1 << 17, |n| "a?".repeat(n)),
    grows("optional-groups", 1 << 15, |n| "(ab)?".repeat(n)),
    grows("groups", DEEP, |n| nested(n, "(", "x", ")")),
    grows("groups-without-capture", DEEP, |n| nested(n, "(?:", "x", ")")),
    grows("stars", 1 << 12, |n| nested(n, "(?:", "x", ")*")),
    grows("alternatives", 1 << 15, |n| joined(n, "|", |i| format!("word {i}"))),
    grows("nested-alternatives", DEEP, |n| nested(n, "(?:a|", "b", ")")),
    grows("long", 1 << 20, |n| "a".repeat(n)),
    either("repetition", 1 << 30, |n| format!("a{{1,{n}}}")),
    either("repetition-exact", 1 << 30, |n| format!("a{{{n}}}")),
    either("repetition-of-repetition", 1 << 20, |n| format!("(?:a{{1,{n}}}b){{1,{n}}}")),
    either("repetition-three-times", 1 << 16, |n| format!("(?:(?:a{{1,{n}}}b){{1,{n}}}c){{1,{n}}}")),
    either("window", 1 << 12, |n| format!(".*a.{{{n}}}")),
    either("window-of-letters", 1 << 12, |n| format!("(?:\\p{{L}}|\\d)*a\\p{{L}}{{{n}}}b")),
    either("classes", 1 << 14, |n| "\\p{L}\\p{N}".repeat(n)),
    either("class-repeated", 1 << 20, |n| format!("\\p{{L}}{{1,{n}}}")),
    either("class-of-ranges", 1 << 14, |n| {
        format!("[{}]+", joined(n, "", |i| char::from_u32(0x4e00 + 2 * i as u32).unwrap_or('x').to_string()))
    }),
    either("case-insensitive", 1 << 16, |n| {
        format!("(?i){}", joined(n, "", |i| char::from(b'a' + (i % 26) as u8).to_string()))
    }),
    either("prefixes", 1 << 10, |n| joined(n, "|", |i| "a".repeat(i) + "b")),
    either("overlapping", 1 << 10, |n| format!("(?:{})*x", joined(n, "|", |i| format!("a{{{}}}", i + 1)))),
];
