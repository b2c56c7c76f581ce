//! Variables: scopes with their enclosing scopes.

use super::ast::NameId;
use super::fail::R;
use super::meter::{self, Held};
use super::value::{ITEM, Value};

#[derive(Debug)]
struct Scope {
    vars: Vec<(NameId, Value)>,
    parent: Option<usize>,
    /// Whether a macro can still see it when its block is over.
    kept: bool,
    held: Held,
}

/// All scopes of a rendering.
#[derive(Debug)]
pub(super) struct Scopes {
    scopes: Vec<Scope>,
    pub(super) current: usize,
}

impl Scopes {
    pub(super) fn new() -> Self {
        let root = Scope { vars: Vec::new(), parent: None, kept: true, held: Held::default() };
        Self { scopes: vec![root], current: 0 }
    }

    /// Enters a new scope inside of another one; gives the one that was current.
    pub(super) fn enter(&mut self, parent: usize) -> R<usize> {
        let held = Held::new(3 * ITEM)?;
        self.scopes.push(Scope { vars: Vec::new(), parent: Some(parent), kept: false, held });
        Ok(std::mem::replace(&mut self.current, self.scopes.len() - 1))
    }

    /// Leaves the current scope for an earlier one.
    pub(super) fn leave(&mut self, back_to: usize) {
        if self.current + 1 == self.scopes.len() && self.scopes.last().is_some_and(|scope| !scope.kept) {
            self.scopes.pop();
        }
        self.current = back_to;
    }

    /// Keeps the current scope and those around it: a macro sees them.
    pub(super) fn keep(&mut self) -> usize {
        let mut at = Some(self.current);
        while let Some(scope) = at.and_then(|at| self.scopes.get_mut(at)) {
            if scope.kept {
                break;
            }
            scope.kept = true;
            at = scope.parent;
        }
        self.current
    }

    pub(super) fn set(&mut self, name: NameId, value: Value) -> R<()> {
        let Some(scope) = self.scopes.get_mut(self.current) else { return Ok(()) };
        meter::work(scope.vars.len())?;
        if let Some(var) = scope.vars.iter_mut().find(|(known, _)| *known == name) {
            var.1 = value;
            return Ok(());
        }
        if scope.vars.len() == scope.vars.capacity() {
            let more = scope.vars.len().max(2);
            scope.held.grow(more * 2 * ITEM)?;
            scope.vars.reserve_exact(more);
        }
        scope.vars.push((name, value));
        Ok(())
    }

    pub(super) fn get(&self, name: NameId) -> R<Option<&Value>> {
        let mut at = Some(self.current);
        while let Some(scope) = at.and_then(|at| self.scopes.get(at)) {
            meter::work(scope.vars.len() + 4)?;
            if let Some((_, value)) = scope.vars.iter().find(|(known, _)| *known == name) {
                return Ok(Some(value));
            }
            at = scope.parent;
        }
        Ok(None)
    }
}
