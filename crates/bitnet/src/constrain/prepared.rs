//! Constraints compiled for a vocabulary, and kept for the next call.

use std::sync::Arc;

use super::cache::Cache;
use super::compile::{self, Compiled, on_large_stack};
use super::source::{Kind, Source};
use super::template::{self, Template};
use super::{Constraint, ConstraintError, ConstraintLimits, Vocabulary};

/// Constraints of a model that are kept, and bytes that they may take.
const MAX_COMPILED: usize = 64;
const BYTES: usize = 64 << 20;
/// Grammars with places for texts, and grammars with texts in them, which seldom come again.
const MAX_TEMPLATES: usize = 16;
/// Bytes charged for an error.
const ERROR_BYTES: usize = 1 << 10;

type Outcome<T> = Result<T, ConstraintError>;
type Text = (Arc<str>, Arc<str>);
type Key = (Source, Arc<ConstraintLimits>);
type KeyWithTexts = (Source, Arc<ConstraintLimits>, Vec<Text>);

/// Cache of a vocabulary, including errors: a rejected source is rejected immediately the next time.
pub(super) struct CompiledCaches {
    compiled: Cache<Key, Outcome<Arc<Compiled>>>,
    templates: Cache<Key, Outcome<Option<Template>>>,
    with_texts: Cache<KeyWithTexts, Outcome<Arc<Compiled>>>,
}

impl Default for CompiledCaches {
    fn default() -> Self {
        Self {
            compiled: Cache::new(MAX_COMPILED, BYTES),
            templates: Cache::new(MAX_TEMPLATES, BYTES / 2),
            with_texts: Cache::new(MAX_TEMPLATES, BYTES / 4),
        }
    }
}

/// A parser before the first token, from the cache if it is there.
pub(super) fn compiled(constraint: &Constraint, vocabulary: &Vocabulary) -> Outcome<Arc<Compiled>> {
    let Constraint { source, limits, texts } = constraint;
    let key = (source.clone(), limits.clone());
    if texts.is_empty() {
        return get(&vocabulary.kept.compiled, key, source, || made(constraint, vocabulary));
    }
    get(&vocabulary.kept.with_texts, (key.0, key.1, texts.clone()), source, || made(constraint, vocabulary))
}

fn get<K: PartialEq>(
    cache: &Cache<K, Outcome<Arc<Compiled>>>,
    key: K,
    source: &Source,
    make: impl FnOnce() -> Outcome<Compiled>,
) -> Outcome<Arc<Compiled>> {
    if let Some(kept) = cache.get(&key) {
        return (*kept).clone();
    }
    let made = make().map(Arc::new);
    if !matches!(made, Err(ConstraintError::Engine { .. })) {
        let bytes = made.as_ref().map_or(ERROR_BYTES, |c| c.bytes) + source.text.len();
        cache.put(key, made.clone(), bytes);
    }
    made
}

fn made(constraint: &Constraint, vocabulary: &Vocabulary) -> Outcome<Compiled> {
    let Constraint { source, limits, texts } = constraint;
    if source.kind != Kind::Lark && !texts.is_empty() {
        return Err(ConstraintError::grammar("only a grammar has places for texts (`@NAME`)"));
    }
    if texts.is_empty() {
        return on_large_stack(|| match source.kind {
            Kind::Lark => compile::compile(vocabulary, &template::filled(source, texts)?, limits),
            _ => compile::compile(vocabulary, source, limits),
        });
    }
    let key = (source.clone(), limits.clone());
    let template = vocabulary.kept.templates.get(&key).unwrap_or_else(|| {
        let made = on_large_stack(|| Template::new(vocabulary, source, limits));
        // A fresh parser and a lexer of about the same size.
        let bytes = match &made {
            Ok(Some(template)) => template.bytes(),
            _ => ERROR_BYTES,
        };
        vocabulary.kept.templates.put(key, made, bytes + source.text.len())
    });
    if let Some(template) = template.as_ref().as_ref().map_err(Clone::clone)?
        && let Some(compiled) = template.with(vocabulary, texts, limits)?
    {
        return Ok(compiled);
    }
    on_large_stack(|| compile::compile(vocabulary, &template::filled(source, texts)?, limits))
}

/// Warnings for the author of a source.
pub(super) fn notes(constraint: &Constraint) -> Result<Vec<String>, ConstraintError> {
    let Constraint { source, limits, .. } = constraint;
    on_large_stack(|| match source.kind {
        Kind::Lark => Ok(Vec::new()),
        _ => compile::read(source, limits).map(|read| read.notes),
    })
}
