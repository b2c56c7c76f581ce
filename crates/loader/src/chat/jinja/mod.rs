//! Jinja as in Python's jinja2, in a sandbox: the memory, time and stack of a template are bounded.
//!
//! - Source: at most [`MAX_NESTING`] brackets and blocks in each other; chains of operators, filters, attributes and
//!   branches are flat and may be as long as the source.
//! - Run: calls and blocks at most [`MAX_CALLS`] deep, values at most [`MAX_DEPTH`] deep; every step and every byte
//!   that is read or written is paid out of the fuel, every byte that a value holds out of the memory ([`meter`]).
//! - Only namespaces change, and nothing but the interpreter owns them: values form no cycles.
//! - Compiling and rendering happen on a separate thread ([`stack`]).

mod args;
mod ast;
mod attr;
mod call;
mod case;
mod checks;
mod convert;
mod dict;
mod escape;
mod eval;
mod exec;
mod fail;
mod filters;
mod filters_seq;
mod format;
mod json;
mod lex;
mod meter;
mod methods;
mod number;
mod ops;
mod parse;
mod parse_expr;
mod percent;
mod scope;
mod stack;
mod strings;
mod text;
mod value;
mod wrap;

use std::time::SystemTime;

use serde_json::Value as Json;

pub(super) use ast::Program;
pub(super) use fail::Fail;
pub(super) use lex::Flaw;

/// Deepest nesting of brackets and blocks in a source.
const MAX_NESTING: usize = 100;
/// Deepest nesting of lists and dictionaries.
const MAX_DEPTH: usize = 200;
/// Deepest nesting of macros, blocks and expressions while rendering.
const MAX_CALLS: usize = 2000;

/// Limits of a rendering.
#[derive(Debug, Clone, Copy)]
pub(super) struct Limits {
    /// Steps.
    pub(super) fuel: u64,
    /// Bytes in addition to the variables.
    pub(super) memory: usize,
}

/// Position and reason of a failed rendering.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Stop {
    /// The line, from 1; 0 if unknown.
    pub(super) line: usize,
    /// Why.
    pub(super) fail: Fail,
}

/// The message if no thread can be started.
const NO_THREAD: &str = "the thread for the template could not be started, or ended early";

impl Program {
    /// Compiles a template.
    ///
    /// # Errors
    /// The problem in the source.
    pub(super) fn compile(source: &str) -> Result<Self, Flaw> {
        let compiled = stack::on_own_stack(|| {
            let mut program = parse::parse(&lex::normalized(source))?;
            program.loop_name = program.names.iter().position(|name| &**name == "loop").map(|at| at as u32);
            Ok(program)
        });
        compiled.unwrap_or_else(|| Err(Flaw::new(0, NO_THREAD)))
    }

    /// Renders the template with these variables.
    ///
    /// # Errors
    /// Position and reason of the failure.
    pub(super) fn render(&self, variables: &[(&str, &Json)], now: SystemTime, limits: Limits) -> Result<String, Stop> {
        let rendered = stack::on_own_stack(|| {
            meter::open(u64::MAX >> 8);
            let mut interp = eval::Interp::new(self, now);
            let result = interp.run(variables, limits);
            result.map_err(|fail| Stop { line: interp.line as usize, fail: fail.shortened() })
        });
        rendered.unwrap_or_else(|| Err(Stop { line: 0, fail: Fail::new(NO_THREAD) }))
    }
}

/// About how many bytes the variables have.
pub(super) fn size(variables: &[(&str, &Json)]) -> usize {
    variables.iter().map(|(name, value)| name.len() + convert::size(value)).sum()
}

impl eval::Interp<'_> {
    fn run(&mut self, variables: &[(&str, &Json)], limits: Limits) -> Result<String, Fail> {
        for (name, value) in variables {
            // A variable that the template does not name need not exist.
            if let Some(id) = self.program.names.iter().position(|known| &**known == *name) {
                self.scopes.set(id as u32, convert::from_json(value, 0)?)?;
            }
        }
        meter::refuel(limits.fuel);
        meter::limit_memory(limits.memory);
        let program = self.program;
        self.block(&program.root)?;
        Ok(self.out.drain(..1).next().map(value::Buf::into_text).unwrap_or_default())
    }
}
