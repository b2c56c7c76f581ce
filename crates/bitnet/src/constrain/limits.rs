//! Limits of constraints, so that no schema or grammar can exhaust a program's memory, stack or time.

use super::ConstraintError;

/// Limits of the size, depth and cost of a constraint; beyond them is [`ConstraintError::Limit`].
///
/// Everything is counted before the engine sees the source, or is fuel that the engine counts: the same source is
/// rejected or accepted on every machine. The defaults leave room for schemas of more than a thousand properties, for
/// enumerations of thousands of texts and for hundreds of patterns; a constraint within them is ready, or rejected,
/// well within two seconds and 256 MB, and a mask takes tens of milliseconds at worst. A program that trusts its
/// sources may raise them.
///
/// ```
/// use bitnet::{Constraint, ConstraintLimits};
///
/// let limits = ConstraintLimits { symbols: 40_000, ..ConstraintLimits::default() };
/// let constraint = Constraint::regex("[0-9]{4}").limits(limits);
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct ConstraintLimits {
    /// Bytes of a source: a schema as JSON without spaces, a pattern, a grammar. 256 KiB.
    pub source_bytes: usize,
    /// Levels: values within values, schemas within schemas with all references followed, rules and terminals that name
    /// each other, groups. 1,000. Patterns always have at most 250 nested groups, and grammars 28.
    pub depth: usize,
    /// Values of a schema, those of `enum` and `const` included. 60,000.
    pub values: usize,
    /// Schemas that are copied to merge `allOf`, `anyOf`, `oneOf`, `enum` and references with their neighbouring
    /// keywords. 500,000.
    pub merged: u64,
    /// Patterns and formats of a schema, counted again for each reference with other keywords that repeats them. 400.
    pub patterns: u64,
    /// Bytes that a pattern or a text of the source demands at least (`"..."`, `x{1000}`). 32,768.
    pub least_bytes: u64,
    /// Ways on after a character, over all places of all patterns: `a?` n times in a row has n²/2 of them. 200,000.
    pub branches: u64,
    /// Ranges of all different classes of characters (`\w` has some 770). 60,000.
    pub class_ranges: u64,
    /// Places of patterns that must fit at once (`&`, several patterns of a value), multiplied with each other.
    /// 100,000; and no more than four of them at once.
    pub intersections: u64,
    /// Pieces of the text of a `substring`: words or characters. 10,000.
    pub pieces: usize,
    /// Symbols of the grammar that the engine makes of a source. 10,000.
    pub symbols: usize,
    /// Fuel to build the automata of a source. 1,000,000; some 20,000 a millisecond.
    pub compile_fuel: u64,
    /// Fuel for one mask. 200,000; some 10,000 a millisecond.
    pub step_fuel: u64,
    /// Items of the parser for one mask. 50,000.
    pub step_items: usize,
    /// Items of the parser at one place of a text. 4,000.
    pub row_items: usize,
    /// States of the automata of one text. 100,000.
    pub states: usize,
    /// Bytes of the automata of one text. 128 MiB.
    pub automata_bytes: usize,
}

impl Default for ConstraintLimits {
    fn default() -> Self {
        Self {
            source_bytes: 256 << 10,
            depth: 1000,
            values: 60_000,
            merged: 500_000,
            patterns: 400,
            least_bytes: 32_768,
            branches: 200_000,
            class_ranges: 60_000,
            intersections: 100_000,
            pieces: 10_000,
            symbols: 10_000,
            compile_fuel: 1_000_000,
            step_fuel: 200_000,
            step_items: 50_000,
            row_items: 4_000,
            states: 100_000,
            automata_bytes: 128 << 20,
        }
    }
}

/// Nested groups of a grammar: the engine rejects 30.
pub(super) const GROUPS: usize = 28;
/// Patterns that must fit at once.
pub(super) const AT_ONCE: u64 = 4;

impl ConstraintLimits {
    /// The limits that the engine itself enforces.
    pub(super) fn engine(&self) -> llguidance::api::ParserLimits {
        llguidance::api::ParserLimits {
            max_items_in_row: self.row_items,
            initial_lexer_fuel: self.compile_fuel,
            step_lexer_fuel: self.step_fuel,
            step_max_items: self.step_items,
            max_lexer_states: self.states,
            max_grammar_size: self.symbols,
            precompute_large_lexemes: true,
            verbose_errors: false,
        }
    }
}

/// Rejects values beyond `limit`, the field `name` of the limits.
pub(super) fn within(
    found: u64,
    limit: u64,
    name: &'static str,
    what: impl FnOnce() -> String,
) -> Result<(), ConstraintError> {
    if found <= limit { Ok(()) } else { Err(ConstraintError::Limit { what: what(), limit, name }) }
}
