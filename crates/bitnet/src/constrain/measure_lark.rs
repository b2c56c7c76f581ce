//! A grammar, before the engine reads it: the depth of its definitions, and the cost of its terminals.

use std::collections::HashMap;

use llguidance::substring::{chunk_into_chars, chunk_into_words};
use serde_json::Value;

use super::error::short;
use super::graph::{Node, deepest};
use super::lark_lex::lex;
use super::lark_parse::{Definition, Piece, parse};
use super::limits::{ConstraintLimits, within};
use super::measure_regex::Patterns;
use super::shape::Shape;
use super::{ConstraintError, measure_schema, schema};

/// Rejects grammars that are too deep, too large or too expensive. Recurses as deeply as the limits allow for a
/// grammar.
pub(super) fn measure(source: &str, limits: &ConstraintLimits) -> Result<(), ConstraintError> {
    is_not_gbnf(source)?;
    let (tokens, _) = lex(source)?;
    let definitions = parse(source, &tokens, limits)?;
    Meter { limits, patterns: Patterns::new(limits), pieces: 0 }.grammar(&definitions)
}

/// Whether the grammar is one of llama.cpp.
fn is_not_gbnf(source: &str) -> Result<(), ConstraintError> {
    let defines = |line: &str| {
        let line = line.trim_start();
        let name = line.find(|c: char| !(c.is_ascii_alphanumeric() || c == '-' || c == '_')).unwrap_or(line.len());
        name > 0 && line[name..].trim_start().starts_with("::=")
    };
    if source.lines().any(defines) {
        return Err(ConstraintError::grammar(
            "this grammar is in GBNF, the notation of llama.cpp (`root ::= ...`); Lark's notation is needed: `start: ...`, rules in lower \
             case, terminals in upper case, patterns between slashes (`/[0-9]+/`)",
        ));
    }
    Ok(())
}

/// Levels that a terminal counts for.
const TERMINAL: u64 = 8;

struct Meter<'l> {
    limits: &'l ConstraintLimits,
    patterns: Patterns<'l>,
    /// Pieces of the texts of all substrings.
    pieces: u64,
}

/// Shapes of terminals; `None` while one is being found out.
type Known<'a> = HashMap<&'a str, Option<Shape>>;

impl Meter<'_> {
    fn grammar(&mut self, definitions: &[Definition<'_>]) -> Result<(), ConstraintError> {
        let places: HashMap<&str, usize> = definitions.iter().enumerate().map(|(i, d)| (d.name, i)).collect();
        let nodes: Vec<Node> = definitions
            .iter()
            .map(|d| {
                let mut names = Vec::new();
                names_of(&d.body, &mut names);
                // Terminals within terminals are walked again while a text is made, on the stack of the caller.
                let weight = if d.is_terminal() { TERMINAL } else { 1 };
                Node {
                    levels: weight * d.levels,
                    names: names.iter().filter_map(|n| places.get(*n).copied()).collect(),
                }
            })
            .collect();
        let found = deepest(&nodes);
        within(found, self.limits.depth as u64, "depth", || {
            format!(
                "rules and terminals of the grammar name each other {found} levels deep (a terminal counts for {TERMINAL})"
            )
        })?;
        let mut known = Known::new();
        for definition in definitions {
            for attribute in &definition.attributes {
                let shape = self.shape(attribute, definitions, &places, &mut known)?;
                self.patterns.add(shape, definition.name)?;
            }
            if definition.is_terminal() || definition.name.starts_with('%') {
                self.terminal(definition, definitions, &places, &mut known)?;
            } else {
                self.rule(&definition.body, definitions, &places, &mut known)?;
            }
        }
        Ok(())
    }

    fn terminal<'a>(
        &mut self,
        definition: &'a Definition<'a>,
        all: &'a [Definition<'a>],
        places: &HashMap<&str, usize>,
        known: &mut Known<'a>,
    ) -> Result<Shape, ConstraintError> {
        if let Some(known) = known.get(definition.name) {
            // The engine rejects one that names itself.
            return Ok(known.unwrap_or(Shape::EMPTY));
        }
        known.insert(definition.name, None);
        let shape = self.shape(&definition.body, all, places, known)?;
        self.patterns.add(shape, &format!("the terminal {}", definition.name))?;
        known.insert(definition.name, Some(shape));
        Ok(shape)
    }

    /// The parts of a rule that the engine treats as terminals, each separately.
    fn rule<'a>(
        &mut self,
        piece: &'a Piece<'a>,
        all: &'a [Definition<'a>],
        places: &HashMap<&str, usize>,
        known: &mut Known<'a>,
    ) -> Result<(), ConstraintError> {
        match piece {
            Piece::Concat(inner) | Piece::Or(inner) => {
                inner.iter().try_for_each(|one| self.rule(one, all, places, known))
            }
            Piece::Repeat(inner, ..) => self.rule(inner, all, places, known),
            Piece::Name(_) | Piece::Class => Ok(()),
            Piece::Json(value) => self.json(value),
            Piece::Lark(definitions) => self.grammar(definitions),
            Piece::Text(..) | Piece::Pattern(..) | Piece::Substring(_) | Piece::And(_) | Piece::Not(_) => {
                let shape = self.shape(piece, all, places, known)?;
                self.patterns.add(shape, "a rule")
            }
        }
    }

    fn shape<'a>(
        &mut self,
        piece: &'a Piece<'a>,
        all: &'a [Definition<'a>],
        places: &HashMap<&str, usize>,
        known: &mut Known<'a>,
    ) -> Result<Shape, ConstraintError> {
        let mut shapes = |inner: &'a [Piece<'a>]| -> Result<Vec<Shape>, ConstraintError> {
            inner.iter().map(|one| self.shape(one, all, places, known)).collect()
        };
        Ok(match piece {
            Piece::Concat(inner) => Shape::concat(shapes(inner)?.into_iter()),
            Piece::Or(inner) => Shape::or(shapes(inner)?.into_iter()),
            Piece::And(inner) => {
                let inner = shapes(inner)?;
                Shape::and(inner.into_iter(), self.limits, || "a terminal (`&`)".into())?
            }
            Piece::Not(inner) => self.shape(inner, all, places, known)?.not(),
            Piece::Repeat(inner, least, most) => self.shape(inner, all, places, known)?.repeat(*least, *most),
            Piece::Class => Shape::class(),
            Piece::Text(text, false) => Shape::text(text.len()),
            Piece::Text(text, true) => self.patterns.measure(&format!("(?i){}", regex_syntax::escape(text)))?,
            Piece::Pattern(pattern, "") => self.patterns.measure(pattern)?,
            Piece::Pattern(pattern, flags) => self.patterns.measure(&format!("(?{flags}){pattern}"))?,
            Piece::Substring(value) => self.substring(value)?,
            Piece::Name(name) => match places.get(*name).map(|i| &all[*i]) {
                Some(definition) if definition.is_terminal() => self.terminal(definition, all, places, known)?,
                // An imported one is small.
                _ => Shape::class(),
            },
            // The engine rejects these in terminals.
            Piece::Json(_) | Piece::Lark(_) => Shape::EMPTY,
        })
    }

    fn substring(&mut self, value: &Value) -> Result<Shape, ConstraintError> {
        let text = |key: &str| value.get(key).and_then(Value::as_str);
        let pieces = if let Some(text) = text("substring_words") {
            chunk_into_words(text).len()
        } else if let Some(text) = text("substring_chars") {
            chunk_into_chars(text).len()
        } else {
            value.get("substring_chunks").and_then(Value::as_array).map_or(0, Vec::len)
        };
        self.pieces += pieces as u64;
        let found = self.pieces;
        within(found, self.limits.pieces as u64, "pieces", || {
            format!("the texts of its substrings have {found} pieces, beginning with {}", short(&value.to_string()))
        })?;
        Ok(Shape::substring(pieces))
    }

    /// A schema within a grammar. The engine reads it unchanged.
    fn json(&self, value: &Value) -> Result<(), ConstraintError> {
        schema::no_loops(value)?;
        measure_schema::measure(value, self.limits)
    }
}

/// All names in a piece, without those of nested grammars, which are separate.
fn names_of<'a>(piece: &Piece<'a>, names: &mut Vec<&'a str>) {
    match piece {
        Piece::Name(name) => names.push(name),
        Piece::Concat(all) | Piece::Or(all) | Piece::And(all) => all.iter().for_each(|one| names_of(one, names)),
        Piece::Not(inner) | Piece::Repeat(inner, ..) => names_of(inner, names),
        Piece::Text(..) | Piece::Class | Piece::Pattern(..) | Piece::Json(_) | Piece::Substring(_) | Piece::Lark(_) => {
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(source: &str) -> &'static str {
        match measure(source, &ConstraintLimits::default()) {
            Err(ConstraintError::Limit { name, .. }) => name,
            Err(error) => panic!("{error}"),
            Ok(()) => "",
        }
    }

    fn wrong(source: &str) -> String {
        match measure(source, &ConstraintLimits::default()) {
            Err(error @ ConstraintError::Grammar { .. }) => error.to_string(),
            other => panic!("{source}: {other:?}"),
        }
    }

    #[test]
    fn grammars_of_all_notations_pass() {
        for source in [
            "start: group\ngroup: \"(\" group? \")\"",
            "?start: expr\n?expr: term (\"+\" term)* -> sum\n  | \"-\" expr\n!term: NUMBER | \"(\" expr \")\"\n%import common.NUMBER\n%ignore / +/",
            "start: A{2,3} B~1..2 [C] x::0\nx::_: \"a\" x::incr(_) %if lt(_, 3)\n | \"\"\nA: \"a\"..\"z\" & ~\"q\"\nB.2: /b/i\nC: \"x\"i",
            "start: %json {\"type\": \"object\", \"properties\": {\"a\": {}}} <eos> text\ntext[stop=\"\\n\", max_tokens=5]: /.*/",
            "start: %lark {\n start: A\n A: \"x\"\n} \"y\"\n",
            include_str!("../../../../models/intent/intent.lark"),
        ] {
            assert_eq!(refused(source), "", "{source}");
        }
    }

    #[test]
    fn what_is_too_much_is_named() {
        let chain = |n: usize, name: &str| {
            let rules: String = (0..n).map(|i| format!("{name}{i}: {name}{}\n", i + 1)).collect();
            format!("start: {name}0\n{rules}{name}{n}: \"a\"\n")
        };
        assert_eq!((refused(&chain(400, "r")), refused(&chain(1100, "r"))), ("", "depth"));
        assert_eq!((refused(&chain(100, "T")), refused(&chain(200, "T"))), ("", "depth"));
        let nested = |n: usize| format!("start: {}\"a\"{}", "(".repeat(n), ")".repeat(n));
        assert_eq!((refused(&nested(20)), refused(&nested(40)), refused(&nested(100_000))), ("", "depth", "depth"));
        let condition = format!("start: x::0\nx::_: \"a\" %if {}true{}", "not(".repeat(5000), ")".repeat(5000));
        assert_eq!(refused(&condition), "depth");
        assert_eq!(refused(&format!("start: T\nT: {}\nA: \"a\"", "A? ".repeat(18_000))), "branches");
        let and: Vec<String> = [7, 11, 13, 17, 19].iter().map(|p| format!("/(.{{{p}}})*/")).collect();
        assert_eq!(refused(&format!("start: T\nT: {}", and.join(" & "))), "intersections");
        let long = format!("start: %regex {{\"substring_chars\": \"{}\"}}", "ab".repeat(20_000));
        assert_eq!(refused(&long), "pieces");
        assert_eq!(refused(&format!("start: \"{}\"", "a".repeat(40_000))), "least_bytes");
        assert!(wrong(&format!("start: {}", "a{".repeat(50_000))).contains("templates"));
    }

    #[test]
    fn other_notations_and_mistakes_are_named() {
        assert!(wrong("root ::= \"a\" | [a-z]+\n").contains("GBNF"));
        assert!(wrong("# x\nroot   ::= item\nitem ::= \"- \" [^\\n]+").contains("GBNF"));
        assert!(wrong("start: @other").contains("another grammar"));
        assert!(wrong("start: \"a\"\nA \"b\"").contains("line 2"));
        assert!(wrong("start: /(?!a)b/").contains("look-around"));
    }
}
