//! Rules about the language of comments, messages and documents: words that make a sentence vague or odd, and what to
//! write instead.

use super::Finding;
use super::sources::SourceFile;

/// Words that are not used, in any case.
const DENIED: &[(&str, &str)] = &[
    ("whoever", "name the caller, the reader, the client"),
    ("nobody", "name the thread, the client, the program, or use the passive"),
    ("known are", "write `expected` or `supported:`"),
    ("taken apart", "write `unpacked`, `split` or `destructured`"),
];

/// Beginnings of comments that do not say what is meant.
const BEGINNINGS: &[(&str, &str)] = &[
    ("As [`", "write `Like [`, or below `# Errors` `The errors of [`"),
    ("Those of [`", "write `The errors of [`, or what they are"),
];

/// Where the words stand as examples.
const EXEMPT: &[&str] = &["xtask/src/tidy/words.rs"];

pub(super) fn check(file: &SourceFile, findings: &mut Vec<Finding>) {
    let source = file.path.ends_with(".rs");
    let document = file.path.starts_with("docs/") && file.path.ends_with(".md");
    if !(source || document) || EXEMPT.contains(&file.path.as_str()) {
        return;
    }
    for (i, line) in file.text.lines().enumerate() {
        let lower = line.to_lowercase();
        let denied = DENIED.iter().filter(|(word, _)| holds(&lower, word));
        let comment = line.trim_start().trim_start_matches(['/', '!']).trim_start();
        let is_comment = source && line.trim_start().starts_with("//");
        let beginnings = BEGINNINGS.iter().filter(|(words, _)| is_comment && comment.starts_with(words));
        for (words, instead) in denied.chain(beginnings) {
            let place = format!("{}:{}", file.path, i + 1);
            findings.push(Finding::new(place, format!("says \"{words}\": {instead}")));
        }
    }
}

/// Whether `words` stand in `text`, not as a part of a longer word.
fn holds(text: &str, words: &str) -> bool {
    text.match_indices(words).any(|(at, _)| {
        let before = text[..at].chars().next_back();
        let after = text[at + words.len()..].chars().next();
        let inner = |c: Option<char>| c.is_some_and(|c| c.is_alphanumeric());
        !inner(before) && !inner(after)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn vague_words_are_found_where_they_stand() {
        let count = |path: &str, text: &str| {
            let mut findings = Vec::new();
            check(&SourceFile { path: path.into(), text: text.into() }, &mut findings);
            findings.len()
        };
        assert_eq!(count("a.rs", "/// Removes what nobody waits for.\n"), 1);
        assert_eq!(count("a.rs", "//! For whoever calls; known are a and b.\n"), 2);
        assert_eq!(count("a.rs", "    /// As [`f`].\n    /// Those of [`f`].\n"), 2);
        assert_eq!(count("a.rs", "/// Just as [`f`]; unknown areas, Anybody.\nlet x = \"As [`f`]\";\n"), 0);
        assert_eq!(count("docs/a.md", "Nobody knows.\n"), 1);
        assert_eq!(count("testdata/a.md", "Nobody knows.\n"), 0);
        assert_eq!(count("xtask/src/tidy/words.rs", "nobody\n"), 0);
    }
}
