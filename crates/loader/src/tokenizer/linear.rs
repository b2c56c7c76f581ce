//! Known split patterns on the engine that never backtracks, compiled when a text needs them.
//!
//! Classes of all of Unicode take most of the time of a start to compile, and a short text in ASCII needs nothing of them: for such
//! texts every class is cut down to ASCII first. Where all characters are ASCII, both programs match the same.

use std::sync::OnceLock;

use regex_automata::meta::Regex;
use regex_syntax::hir::{Capture, Class, ClassUnicode, ClassUnicodeRange, Hir, HirKind, Repetition};

use super::error::TokenizerError;

/// Alternatives that are looked for together.
#[derive(Debug)]
pub(super) struct Linear {
    patterns: Vec<String>,
    ascii: OnceLock<Regex>,
    all: OnceLock<Regex>,
}

impl Linear {
    /// Patterns without look-around; which one has matched is told by its index.
    pub(super) fn new(patterns: Vec<String>) -> Self {
        Self { patterns, ascii: OnceLock::new(), all: OnceLock::new() }
    }

    /// The program for texts like this one.
    ///
    /// # Errors
    /// [`TokenizerError::Pattern`] for a pattern that cannot be compiled.
    pub(super) fn regex(&self, text: &str) -> Result<&Regex, TokenizerError> {
        let ascii = text.is_ascii();
        let program = if ascii { &self.ascii } else { &self.all };
        match program.get() {
            Some(regex) => Ok(regex),
            None => {
                let made = self.compile(ascii)?;
                // Two threads make the same.
                Ok(program.get_or_init(|| made))
            }
        }
    }

    fn compile(&self, ascii: bool) -> Result<Regex, TokenizerError> {
        let bad = |reason: String| TokenizerError::Pattern { pattern: self.patterns.join("|"), reason };
        let mut parsed = Vec::with_capacity(self.patterns.len());
        for pattern in &self.patterns {
            let all = regex_syntax::parse(pattern).map_err(|e| bad(e.to_string()))?;
            parsed.push(if ascii { of_ascii(&all) } else { all });
        }
        // By default the number of CPUs, which takes ten files to find out.
        let config = Regex::config().pool_capacity(8);
        Regex::builder().configure(config).build_many_from_hir(&parsed).map_err(|e| bad(e.to_string()))
    }
}

/// A pattern that matches as `hir` does in texts of only ASCII.
fn of_ascii(hir: &Hir) -> Hir {
    match hir.kind() {
        HirKind::Class(Class::Unicode(class)) => {
            let mut class = class.clone();
            class.intersect(&ClassUnicode::new([ClassUnicodeRange::new('\0', '\x7f')]));
            Hir::class(Class::Unicode(class))
        }
        HirKind::Literal(literal) if !literal.0.is_ascii() => Hir::fail(),
        HirKind::Empty | HirKind::Literal(_) | HirKind::Class(Class::Bytes(_)) | HirKind::Look(_) => hir.clone(),
        HirKind::Repetition(all) => Hir::repetition(Repetition { sub: Box::new(of_ascii(&all.sub)), ..all.clone() }),
        HirKind::Capture(all) => Hir::capture(Capture { sub: Box::new(of_ascii(&all.sub)), ..all.clone() }),
        HirKind::Concat(all) => Hir::concat(all.iter().map(of_ascii).collect()),
        HirKind::Alternation(all) => Hir::alternation(all.iter().map(of_ascii).collect()),
    }
}

#[cfg(test)]
mod tests {
    use super::super::pre;
    use super::*;

    #[test]
    fn both_programs_cut_ascii_alike() {
        let texts =
            ["Once upon a time, there's 12345 x\r\n\n  y!?  ", "", "a", "\t\0\x7f_-'S 'lL", "   ", "A1b2 C-3's"];
        for pattern in [pre::LLAMA3, pre::GPT2, pre::GPT4O, pre::KIMI, pre::BLOOM, pre::LETTERS, pre::HAN_HANGUL] {
            let head = pattern.strip_suffix(r"|\s+(?!\S)|\s+").unwrap_or(pattern);
            let linear = Linear::new(vec![head.to_owned(), r"\s+".to_owned()]);
            let all = linear.compile(false).expect("pattern");
            for text in texts {
                let cut = |regex: &Regex| regex.find_iter(text).map(|m| (m.pattern(), m.range())).collect::<Vec<_>>();
                assert_eq!(cut(linear.regex(text).expect("pattern")), cut(&all), "{pattern} on {text:?}");
            }
            assert!(linear.all.get().is_none(), "ASCII needs no more");
            linear.regex("é").expect("pattern");
            assert!(linear.all.get().is_some());
        }
    }
}
