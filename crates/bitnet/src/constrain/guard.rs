//! Calls into the engine: its panics are caught, and its messages are translated to the terms of authors of
//! constraints.

use std::panic::AssertUnwindSafe;

use super::ConstraintError;
use super::limits::ConstraintLimits;

/// When something goes wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Phase {
    /// While a source is compiled.
    Compile,
    /// While a text is made.
    Step,
}

/// The message of the engine, for any type of error.
pub(super) struct EngineMessage(String);

impl<E: std::fmt::Display> From<E> for EngineMessage {
    fn from(error: E) -> Self {
        Self(error.to_string())
    }
}

/// Runs `f`, a call into the engine. Nothing of it reaches stderr, and no text of a panic reaches anyone.
pub(super) fn guarded<T>(
    limits: &ConstraintLimits,
    phase: Phase,
    f: impl FnOnce() -> Result<T, EngineMessage>,
) -> Result<T, ConstraintError> {
    // The engine's own guard prevents the panic's message from being printed; it requires errors of its own type, so
    // ours are returned as values.
    match llguidance::panic_utils::catch_unwind(AssertUnwindSafe(|| Ok(f()))) {
        Ok(Ok(value)) => Ok(value),
        Ok(Err(EngineMessage(error))) => Err(translated(&error, limits, phase)),
        Err(_) => Err(ConstraintError::fault()),
    }
}

impl ConstraintError {
    /// The engine broke a promise of its own.
    pub(super) fn fault() -> Self {
        Self::Engine { reason: "the grammar's engine failed at it; please report the constraint".into() }
    }

    /// Compiling a source takes too much.
    pub(super) fn too_expensive(limits: &ConstraintLimits) -> Self {
        Self::Limit {
            what: "its automata are too expensive to build (large counts, `multipleOf`, `&`, `~`, many patterns at one place)".into(),
            limit: limits.compile_fuel,
            name: "compile_fuel",
        }
    }
}

/// The message of the engine as an error that names the way out.
pub(super) fn translated(message: &str, limits: &ConstraintLimits, phase: Phase) -> ConstraintError {
    let has = |any: &[&str]| any.iter().any(|part| message.contains(part));
    let limit = |what: &str, limit: u64, name| ConstraintError::Limit { what: what.into(), limit, name };
    if has(&["panic: "]) {
        return ConstraintError::fault();
    }
    if has(&["too many expressions"]) {
        return limit("the next token takes too much work", limits.step_fuel, "step_fuel");
    }
    if has(&["too many states"]) {
        return limit("the automata of the text have grown too large", limits.states as u64, "states");
    }
    if has(&["Too many items"]) {
        return limit("the next token has too many possible continuations", limits.step_items as u64, "step_items");
    }
    if has(&["Current row has"]) {
        return limit(
            "the text has too many possible continuations at one place; many optional parts, or recursion on the right that could be on the left",
            limits.row_items as u64,
            "row_items",
        );
    }
    if has(&["initial lexer configuration", "fuel exhausted", "check fuel", "precomputation failed", "DNF too large"])
        || has(&["determine if regex is empty", "can't determine if patternProperty"])
    {
        return ConstraintError::too_expensive(limits);
    }
    if has(&["grammar size"]) {
        return limit("its grammar has too many symbols", limits.symbols as u64, "symbols");
    }
    if has(&["schema too large"]) {
        return limit("merging its parts makes more than 50,000 schemas", 50_000, "merged");
    }
    if has(&["stack level exceeded"]) {
        return limit("merging its parts goes more than 128 levels deep", 128, "depth");
    }
    if has(&["too deeply nested"]) {
        return limit("it has groups within groups", 30, "depth");
    }
    if has(&["NoExtension"]) {
        return ConstraintError::engine("no token of the vocabulary can come next");
    }
    if has(&["lookarounds not supported"]) {
        return ConstraintError::grammar(
            "a pattern has an anchor (`^`, `$`) within, where nothing can match it; anchors belong at its ends",
        );
    }
    if let Some((_, name)) = message.split_once("circular references with sibling keys are not supported: ") {
        let name = name.lines().next().unwrap_or_default();
        return ConstraintError::grammar(format!(
            "the reference {name} leads back to itself and has other keywords, which cannot be merged; put these into its target"
        ));
    }
    if let Some((_, keys)) = message.split_once("Unimplemented keys: ") {
        return ConstraintError::grammar(format!("the schema has keywords that are not supported: {keys}"));
    }
    match phase {
        Phase::Compile => ConstraintError::grammar(message),
        Phase::Step => ConstraintError::engine(message),
    }
}
