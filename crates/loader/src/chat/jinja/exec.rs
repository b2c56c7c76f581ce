//! Runs statements.

use std::cell::{Cell, RefCell};
use std::rc::Rc;

use super::ast::{ExprId, For, Post, Stmt, StmtId, Target};
use super::call::set_attr;
use super::eval::Interp;
use super::fail::{R, fail};
use super::meter::{self, Held};
use super::ops::iterate;
use super::text::write_str;
use super::value::{ITEM, Items, Loop, Value, depth_of};

/// How a statement ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Flow {
    Next,
    Break,
    Continue,
}

impl<'p> Interp<'p> {
    /// Runs statements one after the other.
    pub(super) fn block(&mut self, block: &'p [StmtId]) -> R<Flow> {
        self.deeper(|interp| {
            for id in block {
                let flow = interp.stmt(*id)?;
                if flow != Flow::Next {
                    return Ok(flow);
                }
            }
            Ok(Flow::Next)
        })
    }

    /// Runs statements in a separate scope.
    fn scoped(&mut self, parent: usize, block: &'p [StmtId]) -> R<Flow> {
        let before = self.scopes.enter(parent)?;
        let flow = self.block(block);
        self.scopes.leave(before);
        flow
    }

    fn write(&mut self, value: &Value) -> R<()> {
        self.out.last_mut().map_or(Ok(()), |out| write_str(out, value))
    }

    fn stmt(&mut self, id: StmtId) -> R<Flow> {
        meter::step()?;
        let Some((line, stmt)) = self.program.stmts.get(id as usize) else { fail!("no such statement") };
        self.line = *line;
        match stmt {
            Stmt::Data(text) => {
                let text = self.program.texts.get(*text as usize).map_or("", |text| text);
                self.out.last_mut().map_or(Ok(()), |out| out.push_str(text))?;
            }
            Stmt::Print(values) => {
                for value in values {
                    let value = self.eval(*value)?;
                    self.write(&value)?;
                }
            }
            Stmt::If { branches, otherwise } => {
                for (test, body) in branches {
                    if self.eval(*test)?.truth() {
                        return self.block(body);
                    }
                }
                return self.block(otherwise);
            }
            Stmt::For(_) => return self.for_(id),
            Stmt::Set(target, value) => {
                let value = self.eval(*value)?;
                self.assign(target, value)?;
            }
            Stmt::SetBlock { target, filters, body } => return self.set_block(target, filters, body),
            Stmt::With { targets, body } => return self.with(targets, body),
            Stmt::Macro(decl) => {
                let value = self.macro_value(*decl)?;
                if let Some(name) = self.program.macros.get(*decl).and_then(|decl| decl.name_id) {
                    self.scopes.set(name, value)?;
                }
            }
            Stmt::Call { call, caller } => self.call_block(*call, *caller)?,
            Stmt::Filter { filters, body } => {
                let parent = self.scopes.current;
                let mut flow = Flow::Next;
                let text = self.captured(|interp| interp.scoped(parent, body).map(|ended| flow = ended))?;
                if flow != Flow::Next {
                    return Ok(flow);
                }
                let value = self.posts(text, filters)?;
                self.write(&value)?;
            }
            Stmt::Block { scoped, body } => {
                // A block sees the variables of the template, not those of loops around it.
                let parent = if *scoped { self.scopes.current } else { 0 };
                return self.scoped(parent, body);
            }
            Stmt::Scope(body) => return self.scoped(self.scopes.current, body),
            Stmt::Break => return Ok(Flow::Break),
            Stmt::Continue => return Ok(Flow::Continue),
            Stmt::Loader => fail!("a chat template cannot include, import or extend others"),
        }
        Ok(Flow::Next)
    }

    fn assign(&mut self, target: &'p Target, value: Value) -> R<()> {
        match target {
            Target::Name(name) => self.scopes.set(*name, value),
            Target::Attr(name, attr) => {
                let namespace = match self.scopes.get(*name)? {
                    Some(Value::Namespace(namespace)) => namespace.upgrade(),
                    _ => None,
                };
                let Some(namespace) = namespace else { fail!("cannot assign attribute on non-namespace object") };
                set_attr(&namespace, self.name(*attr), value)
            }
            Target::Tuple(targets) => {
                let items = iterate(&value)?;
                let items = items.as_slice();
                if items.len() < targets.len() {
                    fail!("not enough values to unpack (expected {}, got {})", targets.len(), items.len());
                }
                if items.len() > targets.len() {
                    fail!("too many values to unpack (expected {})", targets.len());
                }
                targets.iter().zip(items).try_for_each(|(target, item)| self.assign(target, item.clone()))
            }
        }
    }

    fn set_block(&mut self, target: &'p Target, filters: &'p [(u32, Post)], body: &'p [StmtId]) -> R<Flow> {
        let parent = self.scopes.current;
        let mut flow = Flow::Next;
        let text = self.captured(|interp| interp.scoped(parent, body).map(|ended| flow = ended))?;
        if flow == Flow::Next {
            let value = self.posts(text, filters)?;
            self.assign(target, value)?;
        }
        Ok(flow)
    }

    fn with(&mut self, targets: &'p [(Target, ExprId)], body: &'p [StmtId]) -> R<Flow> {
        let mut values = Vec::new();
        for (_, value) in targets {
            values.push(self.eval(*value)?);
        }
        let before = self.scopes.enter(self.scopes.current)?;
        let mut result = Ok(Flow::Next);
        for ((target, _), value) in targets.iter().zip(values) {
            result = result.and_then(|flow| self.assign(target, value).map(|()| flow));
        }
        let result = result.and_then(|_| self.block(body));
        self.scopes.leave(before);
        result
    }

    fn call_block(&mut self, call: ExprId, caller: usize) -> R<()> {
        let caller = self.macro_value(caller)?;
        let (first, posts) = match self.program.exprs.get(call as usize) {
            Some(super::ast::Expr::Postfix(first, posts)) => (*first, posts),
            _ => fail!("expected call"),
        };
        let Some(((line, Post::Call(args)), posts)) = posts.split_last() else { fail!("expected call") };
        let value = self.eval(first)?;
        let function = self.posts(value, posts)?;
        let mut passed = self.passed(args)?;
        passed.named.push(("caller".into(), caller));
        self.line = *line;
        let value = self.call(&function, passed)?;
        self.write(&value)
    }

    fn for_(&mut self, id: StmtId) -> R<Flow> {
        let Some((_, Stmt::For(parts))) = self.program.stmts.get(id as usize) else { fail!("no such loop") };
        let items = self.eval(parts.iter)?;
        if parts.recursive {
            self.scopes.keep();
        }
        self.run_loop(id, &items, 0)
    }

    /// The items that pass the loop's own condition.
    fn loop_items(&mut self, parts: &'p For, items: &Value) -> R<Items> {
        let items = iterate(items)?;
        let Some(test) = parts.test else { return Ok(items) };
        let mut kept = Items::default();
        for item in items.as_slice() {
            let before = self.scopes.enter(self.scopes.current)?;
            let fits = self.assign(&parts.target, item.clone()).and_then(|()| self.eval(test));
            self.scopes.leave(before);
            if fits?.truth() {
                kept.push(item.clone())?;
            }
        }
        Ok(kept)
    }

    /// Runs a `for` statement over items.
    pub(super) fn run_loop(&mut self, id: StmtId, items: &Value, level: usize) -> R<Flow> {
        let Some((_, Stmt::For(parts))) = self.program.stmts.get(id as usize) else { fail!("no such loop") };
        let items = self.loop_items(parts, items)?;
        let scope = self.scopes.current;
        if items.as_slice().is_empty() {
            return self.scoped(scope, &parts.otherwise);
        }
        let depth = depth_of(items.as_slice().iter())?;
        let held = Held::new(items.as_slice().len() * ITEM + 3 * ITEM)?;
        let state = Rc::new(Loop {
            items: items.as_slice().to_vec(),
            index: Cell::new(0),
            level,
            changed: RefCell::default(),
            recursive: parts.recursive.then_some((id, scope)),
            depth,
            _held: held,
        });
        drop(items);
        let name = self.program.loop_name;
        let mut result = Ok(Flow::Next);
        for (at, item) in state.items.iter().enumerate() {
            state.index.set(at);
            let before = self.scopes.enter(scope)?;
            let bound = match name {
                Some(name) => self.scopes.set(name, Value::Loop(state.clone())),
                None => Ok(()),
            };
            let flow =
                bound.and_then(|()| self.assign(&parts.target, item.clone())).and_then(|()| self.block(&parts.body));
            self.scopes.leave(before);
            match flow {
                Ok(Flow::Break) => break,
                Ok(_) => {}
                Err(fail) => {
                    result = Err(fail);
                    break;
                }
            }
        }
        // The remembered value could be the loop itself.
        state.changed.take();
        result
    }
}
