//! Evaluates expressions.

use std::rc::Rc;
use std::sync::Arc;
use std::time::SystemTime;

use super::args::Passed;
use super::ast::{Args, Expr, ExprId, Literal, Post, Program};
use super::attr::{attr, item, slice};
use super::dict::Dict;
use super::fail::{Fail, R, fail};
use super::meter;
use super::scope::Scopes;
use super::value::{Buf, Global, Items, Namespace, Str, Value};
use super::{MAX_CALLS, checks, filters, ops, text};

/// One rendering.
pub(super) struct Interp<'p> {
    pub(super) program: &'p Program,
    pub(super) scopes: Scopes,
    /// The output, and around it the captured outputs.
    pub(super) out: Vec<Buf>,
    /// The texts of the program as values, made when they are first needed.
    texts: Vec<Option<Str>>,
    /// Namespaces live as long as the rendering; values only point at them.
    pub(super) namespaces: Vec<Rc<Namespace>>,
    pub(super) depth: usize,
    pub(super) line: u32,
    pub(super) now: SystemTime,
}

impl<'p> Interp<'p> {
    pub(super) fn new(program: &'p Program, now: SystemTime) -> Self {
        let texts = vec![None; program.texts.len()];
        Self {
            program,
            scopes: Scopes::new(),
            out: vec![Buf::default()],
            texts,
            namespaces: Vec::new(),
            depth: 0,
            line: 0,
            now,
        }
    }

    /// Does something one level deeper.
    pub(super) fn deeper<T>(&mut self, run: impl FnOnce(&mut Self) -> R<T>) -> R<T> {
        if self.depth >= MAX_CALLS {
            return Err(Fail::Deep { what: "macros, blocks and expressions", limit: MAX_CALLS });
        }
        self.depth += 1;
        let result = run(self);
        self.depth -= 1;
        result
    }

    pub(super) fn literal_text(&mut self, at: u32) -> R<Str> {
        let at = at as usize;
        if let Some(Some(text)) = self.texts.get(at) {
            return Ok(text.clone());
        }
        let text = Str::new(self.program.texts.get(at).map_or("", |text| text))?;
        if let Some(slot) = self.texts.get_mut(at) {
            *slot = Some(text.clone());
        }
        Ok(text)
    }

    pub(super) fn name(&self, id: u32) -> &'p Arc<str> {
        // Every id was given out together with its name.
        self.program.names.get(id as usize).unwrap_or(&self.program.empty)
    }

    pub(super) fn eval(&mut self, id: ExprId) -> R<Value> {
        meter::step()?;
        let Some(expr) = self.program.exprs.get(id as usize) else { fail!("no such expression") };
        match expr {
            Expr::Literal(literal) => self.literal(*literal),
            Expr::Name(name) => self.variable(*name),
            compound => self.deeper(|interp| interp.compound(compound)),
        }
    }

    fn literal(&mut self, literal: Literal) -> R<Value> {
        Ok(match literal {
            Literal::None => Value::None,
            Literal::Bool(b) => Value::Bool(b),
            Literal::Int(i) => Value::Int(i),
            Literal::Float(f) => Value::Float(f),
            Literal::Str(at) => Value::Str(self.literal_text(at)?),
        })
    }

    fn variable(&mut self, id: u32) -> R<Value> {
        if let Some(value) = self.scopes.get(id)? {
            return Ok(value.clone());
        }
        let name = self.name(id);
        Ok(Value::Global(match &**name {
            "range" => Global::Range,
            "dict" => Global::Dict,
            "namespace" => Global::Namespace,
            "cycler" => Global::Cycler,
            "joiner" => Global::Joiner,
            "raise_exception" => Global::Raise,
            "strftime_now" => Global::Now,
            _ => return Value::missing("", name),
        }))
    }

    fn compound(&mut self, expr: &'p Expr) -> R<Value> {
        match expr {
            Expr::Literal(literal) => self.literal(*literal),
            Expr::Name(name) => self.variable(*name),
            Expr::Tuple(items) => self.items(items)?.tuple(),
            Expr::List(items) => self.items(items)?.list(),
            Expr::Dict(entries) => {
                let mut dict = Dict::default();
                for (key, value) in entries {
                    let key = self.eval(*key)?;
                    dict.insert(key, self.eval(*value)?)?;
                }
                dict.done()
            }
            Expr::Not(of) => Ok(Value::Bool(!self.eval(*of)?.truth())),
            Expr::Sign { minus, of } => {
                let value = self.eval(*of)?;
                let value = ops::negative(&value, *minus > 0)?;
                if *minus > 0 && minus.is_multiple_of(2) { ops::negative(&value, true) } else { Ok(value) }
            }
            Expr::Arith(first, rest) => {
                let mut value = self.eval(*first)?;
                for (op, other) in rest {
                    let other = self.eval(*other)?;
                    value = ops::binary(*op, &value, &other)?;
                }
                Ok(value)
            }
            Expr::Concat(items) => {
                let mut out = Buf::default();
                for item in items {
                    text::write_str(&mut out, &self.eval(*item)?)?;
                }
                out.done().map(Value::Str)
            }
            Expr::Compare(first, rest) => {
                let mut left = self.eval(*first)?;
                for (op, right) in rest {
                    let right = self.eval(*right)?;
                    if !ops::compare(*op, &left, &right)? {
                        return Ok(Value::Bool(false));
                    }
                    left = right;
                }
                Ok(Value::Bool(true))
            }
            Expr::And(items) => self.first_with(items, false),
            Expr::Or(items) => self.first_with(items, true),
            Expr::Cond { arms, otherwise } => {
                for (value, test) in arms {
                    if self.eval(*test)?.truth() {
                        return self.eval(*value);
                    }
                }
                match otherwise {
                    Some(value) => self.eval(*value),
                    None => Value::missing("", "the value of a condition without else"),
                }
            }
            Expr::Postfix(first, posts) => {
                let value = self.eval(*first)?;
                self.posts(value, posts)
            }
        }
    }

    /// The first of these with this truth, else the last one.
    fn first_with(&mut self, items: &[ExprId], truth: bool) -> R<Value> {
        let mut value = Value::None;
        for item in items {
            value = self.eval(*item)?;
            if value.truth() == truth {
                break;
            }
        }
        Ok(value)
    }

    fn items(&mut self, ids: &[ExprId]) -> R<Items> {
        let mut items = Items::with_capacity(ids.len())?;
        for id in ids {
            items.push(self.eval(*id)?)?;
        }
        Ok(items)
    }

    /// Postfixes of a value.
    pub(super) fn posts(&mut self, mut value: Value, posts: &'p [(u32, Post)]) -> R<Value> {
        for (line, post) in posts {
            self.line = *line;
            value = self.post(value, post)?;
        }
        Ok(value)
    }

    fn post(&mut self, value: Value, post: &'p Post) -> R<Value> {
        match post {
            Post::Attr(name) => attr(&value, self.name(*name)),
            Post::Item(key) => {
                let key = self.eval(*key)?;
                item(&value, &key)
            }
            Post::Slice(parts) => {
                let mut values = [None, None, None];
                for (slot, part) in values.iter_mut().zip(parts) {
                    *slot = part.map(|part| self.eval(part)).transpose()?;
                }
                slice(&value, values)
            }
            Post::Call(args) => {
                let passed = self.passed(args)?;
                self.call(&value, passed)
            }
            Post::Filter(name, args) => {
                let passed = self.passed(args)?;
                filters::call(self.name(*name), &value, passed)
            }
            Post::Test { name, args, negated } => {
                let passed = self.passed(args)?;
                Ok(Value::Bool(checks::call(self.name(*name), &value, passed)? != *negated))
            }
        }
    }

    /// Evaluates arguments.
    pub(super) fn passed(&mut self, args: &Args) -> R<Passed> {
        let mut passed = Passed::default();
        for id in &args.positional {
            passed.positional.push(self.eval(*id)?);
        }
        for (name, id) in &args.named {
            let value = self.eval(*id)?;
            passed.named.push((self.name(*name).clone(), value));
        }
        if let Some(star) = args.star {
            let items = ops::iterate(&self.eval(star)?)?;
            if items.as_slice().len() > 1000 {
                fail!("more than 1000 arguments");
            }
            passed.positional.extend_from_slice(items.as_slice());
        }
        if let Some(stars) = args.stars {
            let Value::Dict(dict) = self.eval(stars)? else { fail!("argument after ** must be a mapping") };
            if dict.len() > 1000 {
                fail!("more than 1000 arguments");
            }
            for (key, value) in dict.entries() {
                let Value::Str(key) = key else { fail!("keywords must be strings") };
                if passed.named.iter().any(|(known, _)| **known == **key) {
                    fail!("got multiple values for keyword argument '{}'", super::lex::cut(key));
                }
                passed.named.push(((**key).into(), value.clone()));
            }
        }
        Ok(passed)
    }
}
