//! Patterns, before the engine reads them: their cost, and parts that no automaton supports.

use std::collections::HashSet;
use std::hash::{DefaultHasher, Hash, Hasher};

use regex_syntax::ast::ErrorKind;
use regex_syntax::hir::{Class, Hir, HirKind, Look};

use super::ConstraintError;
use super::error::short;
use super::limits::{ConstraintLimits, within};
use super::shape::Shape;

/// Measures the patterns of one source.
pub(super) struct Patterns<'a> {
    limits: &'a ConstraintLimits,
    /// The classes so far: each is built once.
    classes: HashSet<u64>,
    ranges: u64,
    branches: u64,
}

impl<'a> Patterns<'a> {
    pub(super) fn new(limits: &'a ConstraintLimits) -> Self {
        Self { limits, classes: HashSet::new(), ranges: 0, branches: 0 }
    }

    /// Reads a pattern as the engine will. Its recursion goes as deep as groups in groups, of which there are at most
    /// 250.
    pub(super) fn measure(&mut self, pattern: &str) -> Result<Shape, ConstraintError> {
        let hir = regex_syntax::ParserBuilder::new().build().parse(pattern).map_err(|e| refusal(pattern, &e))?;
        if let Some(word) = looks_within(&hir) {
            return Err(ConstraintError::grammar(format!(
                "the pattern {:?} has {word}, which cannot be kept while a text grows; a pattern matches the whole text anyway",
                short(pattern)
            )));
        }
        let shape = self.shape(&hir)?;
        self.add(shape, pattern)?;
        Ok(shape)
    }

    /// Takes a shape into the sums of the source.
    pub(super) fn add(&mut self, shape: Shape, name: &str) -> Result<(), ConstraintError> {
        shape.check(self.limits, name)?;
        self.branches = self.branches.saturating_add(shape.branches);
        let all = self.branches;
        within(all, self.limits.branches, "branches", || {
            format!("the patterns together have {all} possible continuations, many optional parts in a row")
        })
    }

    fn shape(&mut self, hir: &Hir) -> Result<Shape, ConstraintError> {
        Ok(match hir.kind() {
            HirKind::Empty | HirKind::Look(_) => Shape::EMPTY,
            HirKind::Literal(text) => Shape::text(text.0.len()),
            HirKind::Class(class) => {
                self.class(class)?;
                Shape::class()
            }
            HirKind::Repetition(r) => self.shape(&r.sub)?.repeat(r.min.into(), r.max.map(u64::from)),
            HirKind::Capture(c) => self.shape(&c.sub)?,
            HirKind::Concat(all) => Shape::concat(self.shapes(all)?.into_iter()),
            HirKind::Alternation(all) => Shape::or(self.shapes(all)?.into_iter()),
        })
    }

    fn shapes(&mut self, all: &[Hir]) -> Result<Vec<Shape>, ConstraintError> {
        all.iter().map(|one| self.shape(one)).collect()
    }

    fn class(&mut self, class: &Class) -> Result<(), ConstraintError> {
        let Class::Unicode(class) = class else { return Ok(()) };
        let mut hasher = DefaultHasher::new();
        class.ranges().iter().for_each(|r| (r.start(), r.end()).hash(&mut hasher));
        if self.classes.insert(hasher.finish()) {
            self.ranges += class.ranges().len() as u64;
        }
        let found = self.ranges;
        within(found, self.limits.class_ranges, "class_ranges", || {
            format!("the different classes of characters (`\\w`, `\\p{{L}}`, ...) in its patterns have {found} ranges")
        })
    }
}

/// Look-around that is not an anchor.
fn looks_within(hir: &Hir) -> Option<&'static str> {
    let looks = hir.properties().look_set();
    let word =
        |l: Look| !matches!(l, Look::Start | Look::End | Look::StartLF | Look::EndLF | Look::StartCRLF | Look::EndCRLF);
    if looks.iter().any(word) {
        return Some("a word boundary (`\\b`, `\\B`, `\\<`, `\\>`)");
    }
    let line = |l: Look| !matches!(l, Look::Start | Look::End);
    looks.iter().any(line).then_some("an anchor of lines (`(?m)^`, `(?m)$`)")
}

/// Why a pattern cannot be read, in the words of its author.
fn refusal(pattern: &str, error: &regex_syntax::Error) -> ConstraintError {
    let name = short(pattern);
    let reason = match error {
        regex_syntax::Error::Parse(e) => match e.kind() {
            ErrorKind::UnsupportedLookAround => format!(
                "the pattern {name:?} has a look-around (`(?=`, `(?!`, `(?<=`, `(?<!`), which no automaton can keep; say what may stand \
                 there instead of what may not"
            ),
            ErrorKind::UnsupportedBackreference => {
                format!("the pattern {name:?} has a back reference (`\\1`), which no automaton can keep")
            }
            ErrorKind::NestLimitExceeded(limit) => {
                return ConstraintError::Limit {
                    what: format!("the pattern {name:?} has too many groups within groups"),
                    limit: u64::from(*limit),
                    name: "depth",
                };
            }
            kind => format!("the pattern {name:?} cannot be read: {kind}"),
        },
        regex_syntax::Error::Translate(e) => format!("the pattern {name:?} cannot be read: {}", e.kind()),
        _ => format!("the pattern {name:?} cannot be read"),
    };
    ConstraintError::grammar(reason)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn measure(pattern: &str) -> Result<Shape, ConstraintError> {
        Patterns::new(&ConstraintLimits::default()).measure(pattern)
    }

    #[test]
    fn ordinary_patterns_pass_and_rows_of_options_do_not() {
        for pattern in [
            r"^\d{4}-\d{2}-\d{2}$",
            r"(?i)[\w.+-]+@[\w-]+\.[\w.]{2,}",
            r"(yes|no), it is",
            ".{0,10000}",
            "",
            &(0..3000).map(|i| format!("w{i}")).collect::<Vec<_>>().join("|"),
        ] {
            measure(pattern).unwrap_or_else(|e| panic!("{pattern}: {e}"));
        }
        assert_eq!(measure(&"a?".repeat(100)).unwrap().branches, 4950);
        assert!(matches!(measure(&"a?".repeat(20_000)), Err(ConstraintError::Limit { name: "branches", .. })));
        assert!(matches!(measure("((x{1000}){1000}){1000}"), Err(ConstraintError::Limit { name: "least_bytes", .. })));
        let deep = "(".repeat(300) + "a" + &")".repeat(300);
        assert!(matches!(measure(&deep), Err(ConstraintError::Limit { name: "depth", .. })));
        let classes: String = (0..200).map(|i| format!("[\\w--{}]", char::from_u32(0x4e00 + i).unwrap())).collect();
        assert!(matches!(measure(&classes), Err(ConstraintError::Limit { name: "class_ranges", .. })));
    }

    #[test]
    fn what_no_automaton_can_do_is_named() {
        for (pattern, word) in [
            (r"^(?!foo)bar$", "look-around"),
            (r"(?<=a)b", "look-around"),
            (r"(a)\1", "back reference"),
            (r"\bword\b", "word boundary"),
            (r"(?m)^a$", "anchor of lines"),
            ("(unclosed", "unclosed group"),
        ] {
            let error = measure(pattern).unwrap_err().to_string();
            assert!(error.contains(word) && error.lines().count() == 1, "{pattern}: {error}");
        }
    }
}
