//! From a source to a parser before its first token.
//!
//! The engine recurses as deeply as its source, so it runs on a separate thread with a stack for the depth that the
//! limits allow, whatever the stack of the caller; untouched stack memory is not used. Work that it cannot interrupt is
//! rejected before it sees the source (`measure_*`) or, if only the engine can tell, first tried with fuel.

use llguidance::api::{GrammarInit, ParserLimits, TopLevelGrammar};
use llguidance::earley::Grammar;
use llguidance::earley::lexerspec::LexerSpec;
use llguidance::toktrie::InferenceCapabilities;
use llguidance::{Logger, TokenParser};

use super::guard::{Phase, guarded, translated};
use super::limits::{ConstraintLimits, within};
use super::measure_regex::Patterns;
use super::source::{Kind, Source};
use super::{ConstraintError, Vocabulary, measure_lark, measure_schema, schema, write};

/// Stack of the thread that compiles: a quarter of a megabyte for each level of the default limit on depth. The engine
/// takes some nine kilobytes of it when optimised.
const STACK: usize = if cfg!(target_pointer_width = "64") { 256 << 20 } else { 32 << 20 };

/// A source in the form for the engine, and notes for its author.
pub(super) struct Read {
    pub(super) grammar: TopLevelGrammar,
    pub(super) notes: Vec<String>,
}

/// A parser before the first token.
pub(super) struct Compiled {
    pub(super) parser: TokenParser,
    /// Tokens that must come first.
    pub(super) forced: Vec<u32>,
    pub(super) notes: Vec<String>,
    /// Approximate memory in bytes.
    pub(super) bytes: usize,
}

/// Runs `f` on a stack on which it may recurse: that of a thread, or, in WebAssembly, that of the caller.
pub(super) fn on_large_stack<T: Send>(
    f: impl FnOnce() -> Result<T, ConstraintError> + Send,
) -> Result<T, ConstraintError> {
    if cfg!(target_family = "wasm") {
        return f();
    }
    std::thread::scope(|scope| {
        let thread = std::thread::Builder::new().name("constraint".into()).stack_size(STACK);
        let thread = thread
            .spawn_scoped(scope, f)
            .map_err(|e| ConstraintError::engine(format!("no thread for the constraint: {e}")))?;
        thread.join().unwrap_or_else(|_| Err(ConstraintError::fault()))
    })
}

/// Reads and measures a source; to be called on a large stack.
pub(super) fn read(source: &Source, limits: &ConstraintLimits) -> Result<Read, ConstraintError> {
    let text: &str = &source.text;
    let (grammar, notes) = match source.kind {
        Kind::Json => {
            write::check(text, limits)?;
            let ready = schema::ready(write::read(text)?)?;
            measure_schema::measure(&ready.schema, limits)?;
            (TopLevelGrammar::from_json_schema(ready.schema), ready.notes)
        }
        Kind::Regex => {
            write::source(text.len(), limits)?;
            Patterns::new(limits).measure(text)?;
            (TopLevelGrammar::from_regex(text), Vec::new())
        }
        Kind::Lark => {
            write::source(text.len(), limits)?;
            measure_lark::measure(text, limits)?;
            (TopLevelGrammar::from_lark(text.to_owned()), Vec::new())
        }
    };
    Ok(Read { grammar, notes })
}

/// Compiles a source for a vocabulary; to be called on a large stack.
pub(super) fn compile(
    vocabulary: &Vocabulary,
    source: &Source,
    limits: &ConstraintLimits,
) -> Result<Compiled, ConstraintError> {
    let read = read(source, limits)?;
    let (grammar, lexer) = internal(vocabulary, read.grammar, limits)?;
    let symbols = grammar.num_symbols();
    let mut compiled = begun(fresh(vocabulary, grammar, lexer, limits)?, limits)?;
    compiled.notes = read.notes;
    compiled.bytes += 256 * symbols;
    Ok(compiled)
}

/// The engine's grammar and lexer of a source.
pub(super) fn internal(
    vocabulary: &Vocabulary,
    grammar: TopLevelGrammar,
    limits: &ConstraintLimits,
) -> Result<(Grammar, LexerSpec), ConstraintError> {
    let env = vocabulary.factory.tok_env().clone();
    let engine = limits.engine();
    guarded(limits, Phase::Compile, || Ok(GrammarInit::Serialized(grammar).to_internal(Some(env), engine)?))
}

/// A fresh parser of a grammar.
pub(super) fn fresh(
    vocabulary: &Vocabulary,
    grammar: Grammar,
    lexer: LexerSpec,
    limits: &ConstraintLimits,
) -> Result<TokenParser, ConstraintError> {
    let engine = limits.engine();
    try_lexer(&lexer, &engine, limits)?;
    let factory = &vocabulary.factory;
    guarded(limits, Phase::Compile, || {
        let caps = InferenceCapabilities::default();
        let init = GrammarInit::Internal(grammar, lexer);
        Ok(factory.create_parser_from_init_ext(init, Logger::new(0, 0), caps, engine)?)
    })
}

/// A fresh parser with its first tokens and its first mask computed.
pub(super) fn begun(mut parser: TokenParser, limits: &ConstraintLimits) -> Result<Compiled, ConstraintError> {
    let items = parser.parser.stats().all_items as u64;
    within(items, limits.row_items as u64, "row_items", || {
        format!("the grammar has {items} ways to begin, many alternatives or optional parts")
    })?;
    let forced = guarded(limits, Phase::Step, || {
        parser.start_without_prompt();
        Ok(parser.compute_ff_tokens())
    })?;
    if let Some(error) = parser.parser.get_error() {
        return Err(translated(&error.message(), limits, Phase::Step));
    }
    if forced.is_empty() && !parser.stopped() {
        // Kept in the parser and its copies.
        guarded(limits, Phase::Step, || Ok(parser.compute_mask().map(drop)?))?;
    }
    let bytes = 2 * parser.parser.lexer_stats().num_bytes;
    Ok(Compiled { parser, forced, notes: Vec::new(), bytes })
}

/// The engine takes the first steps of a lexer without fuel; the same steps with fuel, first.
fn try_lexer(lexer: &LexerSpec, engine: &ParserLimits, limits: &ConstraintLimits) -> Result<(), ConstraintError> {
    let failed = guarded(limits, Phase::Compile, || {
        let mut left = engine.clone();
        let mut automaton = lexer.to_regex_vec(&mut left)?;
        automaton.set_fuel(engine.initial_lexer_fuel);
        automaton.set_max_states(engine.max_lexer_states);
        let start = automaton.initial_state(&lexer.all_lexemes());
        for byte in 0..=u8::MAX {
            automaton.transition(start, byte);
        }
        Ok(automaton.has_error())
    })?;
    if failed { Err(ConstraintError::too_expensive(limits)) } else { Ok(()) }
}
