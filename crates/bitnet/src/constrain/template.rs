//! Grammars with a text that is given later: `%regex {"substring_words": @TEXT}`.
//!
//! Everything but the text is compiled once. The terminal of the text is a lexeme of the engine's lexer, and no other
//! part of the grammar depends on it if the terminal is a separate one; so for each text that lexeme replaces the one
//! of a sample. If the terminal is part of another (`"a" TEXT`, `TEXT & /x/`), the text is put into the source, and
//! that is compiled.

use std::sync::Arc;

use llguidance::TokenParser;
use llguidance::derivre::{ExprRef, RegexAst};
use llguidance::earley::Grammar;
use llguidance::earley::lexerspec::{LexemeClass, LexerSpec};
use llguidance::substring::{chunk_into_chars, chunk_into_words, substring};

use super::compile::{self, Compiled};
use super::guard::{Phase, guarded};
use super::lark_lex::{Hole, Pieces, lex};
use super::limits::{ConstraintLimits, within};
use super::source::{Kind, Source};
use super::{ConstraintError, Vocabulary};

/// The texts that were given, by name.
pub(super) type Texts = [(Arc<str>, Arc<str>)];

/// A grammar whose text comes later.
pub(super) struct Template {
    /// With the sample's lexemes, including the slices of the vocabulary.
    lexer: LexerSpec,
    grammar: Grammar,
    fresh: TokenParser,
    places: Vec<Place>,
}

/// A lexeme that a text makes.
struct Place {
    name: String,
    pieces: Pieces,
    class: LexemeClass,
    lexeme: usize,
}

/// The source with its texts in place; an error if one is missing or superfluous.
pub(super) fn filled(source: &Source, texts: &Texts) -> Result<Source, ConstraintError> {
    let (_, holes) = lex(&source.text)?;
    if let Some((name, _)) = texts.iter().find(|(name, _)| holes.iter().all(|h| h.name != &**name)) {
        return Err(ConstraintError::grammar(format!("the grammar has no place `@{name}` for the text of this name")));
    }
    fill(&source.text, &holes, |hole| {
        let text = texts.iter().find(|(name, _)| hole.name == &**name).map(|(_, text)| text.to_string());
        text.ok_or_else(|| {
            ConstraintError::grammar(format!("the text for `@{}` is missing (Constraint::with_text)", hole.name))
        })
    })
}

fn fill(
    source: &str,
    holes: &[Hole<'_>],
    text: impl Fn(&Hole<'_>) -> Result<String, ConstraintError>,
) -> Result<Source, ConstraintError> {
    let mut whole = String::with_capacity(source.len());
    let mut at = 0;
    for hole in holes {
        whole.push_str(&source[at..hole.start]);
        whole.push_str(&serde_json::Value::from(text(hole)?).to_string());
        at = hole.end;
    }
    whole.push_str(&source[at..]);
    Ok(Source::new(Kind::Lark, whole))
}

/// A text of one piece that no grammar has: a character for private use, another for each place.
fn sample(at: usize) -> String {
    char::from_u32(0x10_f000 + at as u32).unwrap_or('\u{10ffff}').to_string()
}

impl Template {
    /// Compiles everything but the texts; `None` if they cannot be kept apart. To be called on a large stack.
    pub(super) fn new(
        vocabulary: &Vocabulary,
        source: &Source,
        limits: &ConstraintLimits,
    ) -> Result<Option<Self>, ConstraintError> {
        let (_, holes) = lex(&source.text)?;
        let mut kinds: Vec<(&str, Pieces)> = holes.iter().map(|h| (h.name, h.pieces)).collect();
        kinds.sort();
        kinds.dedup();
        let of = |hole: &Hole<'_>| kinds.iter().position(|k| *k == (hole.name, hole.pieces)).unwrap_or(0);
        if kinds.len() > 256 || (0..kinds.len()).any(|i| source.text.contains(&sample(i))) {
            return Ok(None);
        }
        let read = compile::read(&fill(&source.text, &holes, |hole| Ok(sample(of(hole))))?, limits)?;
        let (grammar, mut lexer) = compile::internal(vocabulary, read.grammar, limits)?;
        let mut places = Vec::new();
        for (i, (name, pieces)) in kinds.into_iter().enumerate() {
            let Some(found) = places_of(&mut lexer, &sample(i), limits)? else { return Ok(None) };
            places.extend(found.into_iter().map(|(class, lexeme)| Place {
                name: name.to_owned(),
                pieces,
                class,
                lexeme,
            }));
        }
        places.sort_by_key(|p| p.lexeme);
        // Parts that do not depend on texts are tried with the sample's.
        let fresh = compile::fresh(vocabulary, grammar.clone(), lexer.clone(), limits)?;
        guarded(limits, Phase::Compile, || {
            lexer.add_extra_lexemes(&vocabulary.factory.extra_lexemes());
            Ok(Some(Self { lexer, grammar: grammar.optimize(), fresh, places }))
        })
    }

    /// Approximate memory in bytes.
    pub(super) fn bytes(&self) -> usize {
        4 * self.fresh.parser.lexer_stats().num_bytes + 512 * self.grammar.num_symbols()
    }

    /// A parser for these texts; `None` if one of them would make the grammar another.
    pub(super) fn with(
        &self,
        vocabulary: &Vocabulary,
        texts: &Texts,
        limits: &ConstraintLimits,
    ) -> Result<Option<Compiled>, ConstraintError> {
        if texts.iter().any(|(name, _)| self.places.iter().all(|p| *p.name != **name)) {
            return Ok(None);
        }
        let mut lexer = self.lexer.clone();
        for place in &self.places {
            let Some((_, text)) = texts.iter().find(|(name, _)| **name == *place.name) else { return Ok(None) };
            if !replace(&mut lexer, place, text, limits)? {
                return Ok(None);
            }
        }
        let parser = guarded(limits, Phase::Compile, || {
            let engine = limits.engine();
            let mut parser = self.fresh.clone();
            let grammar = Arc::new(self.grammar.compile(lexer, &engine)?);
            let counters = vocabulary.factory.perf_counters();
            let env = vocabulary.factory.tok_env().clone();
            parser.parser = llguidance::earley::Parser::new(env, grammar, engine, counters)?;
            Ok(parser)
        })?;
        compile::begun(parser, limits).map(Some)
    }
}

/// Puts the lexeme of a text in its place; whether that could be done.
fn replace(
    lexer: &mut LexerSpec,
    place: &Place,
    text: &str,
    limits: &ConstraintLimits,
) -> Result<bool, ConstraintError> {
    let chunks = place.pieces.of(text);
    let found = chunks.len() as u64;
    within(found, limits.pieces as u64, "pieces", || format!("the text for `@{}` has {found} pieces", place.name))?;
    if chunks.is_empty() {
        return Ok(false);
    }
    guarded(limits, Phase::Compile, || {
        let rest = lexer.lexemes.split_off(place.lexeme);
        lexer.current_class = place.class;
        let expression = substring(&mut lexer.regex_builder, chunks)?;
        let lexeme = lexer.add_greedy_lexeme(String::new(), RegexAst::ExprRef(expression), false, None, usize::MAX)?;
        // Another lexeme may be the same as that of this text.
        let placed = lexeme.as_usize() == place.lexeme && lexer.lexemes.len() == place.lexeme + 1;
        lexer.lexemes.extend(rest.into_iter().skip(1));
        Ok(placed)
    })
}

impl Pieces {
    fn of(self, text: &str) -> Vec<&str> {
        match self {
            Self::Words => chunk_into_words(text),
            Self::Chars => chunk_into_chars(text),
        }
    }
}

/// The lexemes that are the substrings of `sample` and nothing else; `None` if it is also a part of another.
fn places_of(
    lexer: &mut LexerSpec,
    sample: &str,
    limits: &ConstraintLimits,
) -> Result<Option<Vec<(LexemeClass, usize)>>, ConstraintError> {
    guarded(limits, Phase::Compile, || {
        let before = lexer.regex_builder.exprset().len();
        let whole = substring(&mut lexer.regex_builder, vec![sample])?;
        let expressions = lexer.regex_builder.exprset();
        if whole.as_usize() >= before {
            return Ok(None);
        }
        let parts: Vec<ExprRef> = std::iter::once(whole)
            .chain(expressions.get_args(whole).iter().copied())
            .filter(|e| *e != ExprRef::EMPTY_STRING)
            .collect();
        let uses = (0..before as u32).map(ExprRef::new).filter(|e| *e != whole && *e != ExprRef::INVALID);
        let part_of_another = uses.flat_map(|e| expressions.get_args(e)).any(|arg| parts.contains(arg));
        if part_of_another {
            return Ok(None);
        }
        let mut classes: Vec<LexemeClass> = lexer.lexemes.iter().map(|l| l.class()).collect();
        classes.sort_by_key(|c| c.as_usize());
        classes.dedup();
        let mut found = Vec::new();
        let count = lexer.lexemes.len();
        for class in classes {
            lexer.current_class = class;
            let lexeme = lexer.add_greedy_lexeme(String::new(), RegexAst::ExprRef(whole), false, None, usize::MAX)?;
            if lexeme.as_usize() < count {
                found.push((class, lexeme.as_usize()));
            }
            lexer.lexemes.truncate(count);
        }
        Ok((!found.is_empty()).then_some(found))
    })
}

#[cfg(all(test, feature = "tiny-model"))]
mod tests {
    use crate::Model;
    use crate::constrain::{Constraint, Matching, prepared};

    fn begun(model: &Model, constraint: &Constraint) -> Matching {
        let compiled = prepared::compiled(constraint, &model.vocabulary().unwrap()).unwrap();
        Matching::new(&compiled, constraint.limits.clone()).unwrap()
    }

    /// At each place of many texts the same tokens are allowed as under the grammar with the text in it.
    #[test]
    fn masks_are_those_of_the_whole_grammar() {
        let model = Model::tiny().unwrap();
        let size = model.config().vocab_size;
        let grammars = [
            include_str!("../../../../models/intent/slots.lark"),
            include_str!("../../../../models/intent/topic.lark"),
            "start: (A | \"the\" | /[a-z]+/) \"!\" A\nA: %regex {\"substring_chars\": @TEXT}",
        ];
        for (g, grammar) in grammars.iter().enumerate() {
            for text in ["play sme \"jazz\" by the the", "青空文庫 の 話", "aabab the"] {
                let template = Constraint::lark(*grammar).with_text_in_json("TEXT", text);
                let quoted = serde_json::Value::from(text).to_string();
                let again = serde_json::Value::from(&quoted[1..quoted.len() - 1]).to_string();
                let whole = Constraint::lark(grammar.replace("@TEXT", &again));
                for seed in 0..6usize {
                    let (mut a, mut b) = (begun(&model, &template), begun(&model, &whole));
                    for step in 0..40 {
                        assert_eq!((a.is_finished(), a.is_complete()), (b.is_finished(), b.is_complete()));
                        if a.is_finished() {
                            break;
                        }
                        assert_eq!(a.forced(), b.forced(), "{grammar}: {text}");
                        let token = match a.forced() {
                            Some(token) => token,
                            None => {
                                let allowed = a.allowed(size).unwrap();
                                assert_eq!(allowed, b.allowed(size).unwrap(), "{grammar}: {text}");
                                allowed[(step * 7919 + seed * 104_729 + g) % allowed.len()]
                            }
                        };
                        if model.is_eos(token) {
                            break;
                        }
                        a.accept(token).unwrap();
                        b.accept(token).unwrap();
                    }
                }
            }
        }
    }
}
