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
    ("take_apart", "write `unpack`, `split` or `destructure`"),
    ("anybody", "name the caller, the reader, the client, or write `anyone`"),
    ("somebody", "name the caller, the reader, the client, or write `someone`"),
    ("in haste", "write `quickly`, or name the option"),
    ("rightly", "write `correctly`"),
    ("what is meant", "name it"),
    ("say of", "write `say about`"),
    ("says of", "write `says about`"),
    ("said of", "write `said about`"),
    ("what is left", "write `the rest`, `the remaining ...`"),
    ("for want of", "write `without`, `because there is no ...`"),
    ("anew", "write `again`"),
    ("lies behind", "write `comes after`, `is beyond the end of`"),
    ("lie behind", "write `come after`"),
    ("lies beside", "write `is next to`, `is outside of`"),
    ("lie beside", "write `are next to`"),
    ("one behind the other", "write `one after the other`"),
    ("goes on from", "write `continues from`"),
    ("hears of", "write `is told of`"),
    ("has a say", "write `counts`, `determines`"),
    ("as ever", "write `as usual`, or nothing"),
    ("all that there is", "name it"),
    ("dealt out", "write `distributed`"),
];

/// Beginnings of comments that refer to something without naming it.
const BEGINNINGS: &[(&str, &str)] = &[
    ("As [`", "write `Like [`, or below `# Errors` `The errors of [`"),
    ("Those of", "write what they are: `The errors of`, `The options of`"),
    ("The same with", "name it again"),
    ("The same for", "name it again"),
    ("The same as", "name it again"),
    ("The same in words", "name it again"),
    ("The same where", "name it again"),
    ("The same,", "name it again"),
    ("What ", "begin with a noun: `The result of`, `The values that`"),
    ("Whatever ", "begin with a noun: `Any error of`"),
    ("That of", "name it again: `The error of`"),
    ("Of these, those", "name them again"),
];

/// Words that may follow `is no` and `are no`; before others the negation belongs to the verb: `is not a file`.
const AFTER_NO: &[&str] = &["longer", "more", "such", "larger", "smaller", "better", "worse", "less", "fewer", "other"];

/// Files where the words are examples.
const EXEMPT: &[&str] = &["xtask/src/tidy/words.rs"];

pub(super) fn check(file: &SourceFile, findings: &mut Vec<Finding>) {
    let source = file.path.ends_with(".rs");
    let document = file.path.starts_with("docs/") && file.path.ends_with(".md");
    if !(source || document) || EXEMPT.contains(&file.path.as_str()) {
        return;
    }
    for (i, line) in file.text.lines().enumerate() {
        let lower = line.to_lowercase();
        let comment = line.trim_start().trim_start_matches(['/', '!']).trim_start();
        let is_comment = source && line.trim_start().starts_with("//");
        let holds = |(words, _): &&(&str, &str)| holds(&lower, words);
        let begins = |(words, _): &&(&str, &str)| is_comment && comment.starts_with(words);
        let mut found: Vec<_> = DENIED.iter().filter(holds).chain(BEGINNINGS.iter().find(begins)).collect();
        found.extend(denies_a_noun(&lower).then_some(&NO));
        for (words, instead) in found {
            let place = format!("{}:{}", file.path, i + 1);
            findings.push(Finding::new(place, format!("says \"{words}\": {instead}")));
        }
    }
}

/// The finding of [`denies_a_noun`].
const NO: (&str, &str) = ("is no", "write `is not a`");

/// Whether `text` holds `is no` or `are no` before a noun; `there is no` is fine.
fn denies_a_noun(text: &str) -> bool {
    ["is no ", "are no "].iter().any(|words| {
        text.match_indices(words).any(|(at, _)| {
            let (before, after) = (&text[..at], &text[at + words.len()..]);
            let word = after.split(|c: char| !c.is_alphanumeric()).next().unwrap_or_default();
            let begins = !before.chars().next_back().is_some_and(char::is_alphanumeric);
            begins && !before.trim_end().ends_with("there") && !word.is_empty() && !AFTER_NO.contains(&word)
        })
    })
}

/// Whether `text` contains `words`, not as a part of a longer word.
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
        assert_eq!(count("a.rs", "/// Just as [`f`]; unknown areas, snobody.\nlet x = \"As [`f`]\";\n"), 0);
        assert_eq!(count("docs/a.md", "Nobody knows.\n"), 1);
        assert_eq!(count("testdata/a.md", "Nobody knows.\n"), 0);
        assert_eq!(count("xtask/src/tidy/words.rs", "nobody\n"), 0);
    }

    #[test]
    fn every_refused_phrase_is_found() {
        let says = |path: &str, text: String| {
            let mut findings = Vec::new();
            check(&SourceFile { path: path.into(), text }, &mut findings);
            findings.into_iter().map(|f| f.message).collect::<Vec<_>>()
        };
        for (words, instead) in DENIED {
            let found = says("docs/a.md", format!("One {words} two.\n"));
            assert_eq!(found, [format!("says \"{words}\": {instead}")]);
        }
        for (words, _) in BEGINNINGS {
            assert_eq!(says("a.rs", format!("    /// {words} x.\n")).len(), 1, "{words}");
            assert_eq!(says("a.rs", format!("/// Not {words} x.\n")).len(), 0, "{words}");
        }
        for (text, count) in
            [("It is no file.", 1), ("Files are no JSON,", 1), ("There is no file.", 0), ("is no longer", 0)]
        {
            assert_eq!(says("a.rs", format!("/// {text}\n")).len(), count, "{text}");
        }
    }
}
