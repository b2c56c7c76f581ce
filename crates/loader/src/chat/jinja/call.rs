//! Calls: functions of the environment, methods, macros, recursive loops.

use std::cell::RefCell;
use std::rc::Rc;
use std::sync::Arc;

use super::args::{Passed, required, text};
use super::ast::MacroDecl;
use super::dict::Dict;
use super::eval::Interp;
use super::fail::{Fail, R, fail};
use super::meter::{self, Held};
use super::ops::iterate;
use super::text::to_str;
use super::value::{Buf, Global, Macro, Namespace, OVERHEAD, Value};
use super::{filters_seq, methods};

impl<'p> Interp<'p> {
    /// Calls a value.
    pub(super) fn call(&mut self, value: &Value, passed: Passed) -> R<Value> {
        meter::step()?;
        match value {
            Value::Global(global) => self.global(*global, passed),
            Value::Method(method) => methods::call(method, passed),
            Value::Macro(declared) => self.deeper(|interp| interp.macro_call(declared, passed)),
            Value::Loop(state) => {
                let [items] = passed.bind("loop", ["iterable"])?;
                let items = required(items, "loop", "iterable")?;
                let Some((stmt, scope)) = state.recursive else {
                    fail!("The loop must have the 'recursive' marker to be called recursively.");
                };
                let level = state.level + 1;
                self.captured(|interp| {
                    let before = std::mem::replace(&mut interp.scopes.current, scope);
                    let flow = interp.deeper(|interp| interp.run_loop(stmt, &items, level));
                    interp.scopes.current = before;
                    flow.map(drop)
                })
            }
            Value::Joiner(joiner) => {
                let [] = passed.bind("joiner", [])?;
                if joiner.used.replace(true) { Ok(joiner.separator.clone()) } else { Value::str("") }
            }
            Value::Undefined(Some(missing)) if missing.of.starts_with("safe ") => {
                fail!(
                    "access to attribute '{}' of '{}' is unsafe",
                    missing.name,
                    missing.of.trim_start_matches("safe ")
                )
            }
            Value::Undefined(_) => Err(value.undefined_error()),
            other => fail!("'{}' object is not callable", other.type_name()),
        }
    }

    /// Output that is captured while something runs, as a value.
    pub(super) fn captured(&mut self, run: impl FnOnce(&mut Self) -> R<()>) -> R<Value> {
        let depth = self.out.len();
        self.out.push(Buf::default());
        let result = run(self);
        let text = self.out.pop().unwrap_or_default();
        self.out.truncate(depth);
        result?;
        text.done().map(Value::Str)
    }

    /// The value of a macro that is defined here.
    pub(super) fn macro_value(&mut self, decl: usize) -> R<Value> {
        let name = self.program.macros.get(decl).map_or_else(|| Arc::from(""), |decl| decl.name.clone());
        let scope = self.scopes.keep();
        Ok(Value::Macro(Rc::new(Macro { decl, name, scope, _held: Held::new(2 * OVERHEAD)? })))
    }

    fn macro_call(&mut self, declared: &Macro, passed: Passed) -> R<Value> {
        let Some(decl) = self.program.macros.get(declared.decl) else { fail!("no such macro") };
        let before = self.scopes.enter(declared.scope)?;
        let result = match self.bind_macro(decl, passed) {
            Ok(()) => self.captured(|interp| interp.block(&decl.body).map(drop)),
            Err(fail) => Err(fail),
        };
        self.scopes.leave(before);
        result
    }

    fn bind_macro(&mut self, decl: &'p MacroDecl, passed: Passed) -> R<()> {
        let Passed { positional, mut named } = passed;
        let mut positional = positional.into_iter();
        for (id, default) in &decl.params {
            let name = self.name(*id);
            let given = match positional.next() {
                Some(value) => Some(value),
                None => named.iter().position(|(known, _)| known == name).map(|at| named.swap_remove(at).1),
            };
            let value = match (given, default) {
                (Some(value), _) => value,
                (None, Some(default)) => self.eval(*default)?,
                (None, None) => Value::missing("", name)?,
            };
            self.scopes.set(*id, value)?;
        }
        meter::work(self.program.names.len())?;
        let special = |interp: &Self, name: &str| {
            interp.program.names.iter().position(|known| **known == *name).and_then(|at| u32::try_from(at).ok())
        };
        if decl.caller
            && let Some(id) = special(self, "caller")
            && !decl.params.iter().any(|(known, _)| *known == id)
        {
            let at = named.iter().position(|(name, _)| &**name == "caller");
            let caller = match at {
                Some(at) => named.swap_remove(at).1,
                None => Value::missing("", "caller")?,
            };
            self.scopes.set(id, caller)?;
        }
        if decl.kwargs
            && let Some(id) = special(self, "kwargs")
        {
            let mut dict = Dict::default();
            named.drain(..).try_for_each(|(name, value)| dict.insert(Value::str(&name)?, value))?;
            self.scopes.set(id, dict.done()?)?;
        } else if let Some((name, _)) = named.first() {
            fail!("macro '{}' takes no keyword argument '{name}'", decl.name);
        }
        let rest: Vec<Value> = positional.collect();
        if decl.varargs
            && let Some(id) = special(self, "varargs")
        {
            self.scopes.set(id, Value::tuple(rest)?)?;
        } else if !rest.is_empty() {
            fail!("macro '{}' takes not more than {} argument(s)", decl.name, decl.params.len());
        }
        Ok(())
    }

    fn global(&mut self, global: Global, passed: Passed) -> R<Value> {
        match global {
            Global::Range => filters_seq::range(passed),
            Global::Dict => self.dict("dict", passed)?.done(),
            Global::Namespace => {
                let dict = self.dict("namespace", passed)?;
                let namespace = Namespace { attrs: RefCell::default(), held: RefCell::new(Held::new(3 * OVERHEAD)?) };
                for (key, value) in dict.entries() {
                    let Value::Str(key) = key else { continue };
                    set_attr(&namespace, &(**key).into(), value.clone())?;
                }
                let namespace = Rc::new(namespace);
                let value = Value::Namespace(Rc::downgrade(&namespace));
                self.namespaces.push(namespace);
                Ok(value)
            }
            Global::Cycler => {
                if passed.positional.is_empty() || !passed.named.is_empty() {
                    fail!("at least one item has to be provided");
                }
                Value::cycler(passed.positional)
            }
            Global::Joiner => {
                let [separator] = passed.bind("joiner", ["sep"])?;
                Value::joiner(separator.map_or_else(|| Value::str(", "), Ok)?)
            }
            Global::Raise => {
                let [message] = passed.bind("raise_exception", ["message"])?;
                let message = to_str(&required(message, "raise_exception", "message")?)?;
                Err(Fail::Raised(super::lex::shortened(&message, 4000)))
            }
            Global::Now => {
                let [format] = passed.bind("strftime_now", ["format"])?;
                let format = text(&required(format, "strftime_now", "format")?, "strftime() argument 1")?;
                meter::steps(format.matches('%').count())?;
                // The longest directive makes some 25 bytes of two, a padded one 64 of four.
                let _held = Held::new(format.len().saturating_mul(16))?;
                Value::str(&super::super::time::strftime(&format, self.now))
            }
        }
    }

    /// `dict(mapping or pairs, **named)`.
    fn dict(&mut self, function: &str, passed: Passed) -> R<Dict> {
        let mut dict = Dict::default();
        if passed.positional.len() > 1 {
            fail!("{function} expected at most 1 argument, got {}", passed.positional.len());
        }
        match passed.positional.first() {
            None => {}
            Some(Value::Dict(other)) => dict = other.copy()?,
            Some(pairs) => {
                for pair in iterate(pairs)?.as_slice() {
                    let pair = iterate(pair)?;
                    let [key, value] = pair.as_slice() else { fail!("{function} needs pairs of key and value") };
                    dict.insert(key.clone(), value.clone())?;
                }
            }
        }
        for (name, value) in passed.named {
            dict.insert(Value::str(&name)?, value)?;
        }
        Ok(dict)
    }
}

/// Sets an attribute of a namespace.
pub(super) fn set_attr(namespace: &Namespace, name: &Arc<str>, value: Value) -> R<()> {
    let mut attrs = namespace.attrs.borrow_mut();
    meter::work(attrs.len() * 8)?;
    // The old value is dropped when nothing is borrowed any more.
    let old = match attrs.iter_mut().find(|(known, _)| known == name) {
        Some((_, known)) => Some(std::mem::replace(known, value)),
        None => {
            namespace.held.borrow_mut().grow(3 * OVERHEAD + name.len())?;
            attrs.push((name.clone(), value));
            None
        }
    };
    drop(attrs);
    drop(old);
    Ok(())
}
