//! Dictionaries: entries in the order of their insertion, keys equal as Python's are.

use std::borrow::Borrow;
use std::collections::HashMap;
use std::hash::{Hash, Hasher};
use std::rc::Rc;

use super::fail::{Fail, R, fail};
use super::meter::{self, Held};
use super::value::{ITEM, Kind, OVERHEAD, Str, Value, depth_of};

/// From this many entries on there is an index.
const INDEXED: usize = 9;
/// A tuple that is a key may have so many parts, those of its parts included.
const MAX_PARTS: usize = 1000;
/// Charge of an entry: key, value, and its places in the index.
const ENTRY: usize = 2 * ITEM + 64;

/// A key that can be hashed.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) enum Key {
    Undefined,
    None,
    Int(i128),
    /// A float that is not an integer, by its bits.
    Float(u64),
    Str(StrKey),
    Tuple(Vec<Key>),
    /// Any value that is only equal to itself.
    Identity(usize),
}

/// A text as a key.
#[derive(Debug, Clone)]
pub(super) struct StrKey(Str);

impl PartialEq for StrKey {
    fn eq(&self, other: &Self) -> bool {
        self.0.same(&other.0) || *self.0 == *other.0
    }
}

impl Eq for StrKey {}

impl Hash for StrKey {
    fn hash<H: Hasher>(&self, state: &mut H) {
        str::hash(&self.0, state);
    }
}

impl Borrow<str> for StrKey {
    fn borrow(&self) -> &str {
        &self.0
    }
}

impl Key {
    /// The key of a value.
    pub(super) fn of(value: &Value) -> R<Self> {
        Self::within(value, &mut { MAX_PARTS })
    }

    /// Memory in addition to its texts.
    pub(super) fn bytes(&self) -> usize {
        match self {
            Self::Tuple(parts) => ITEM + parts.iter().map(Self::bytes).sum::<usize>(),
            _ => ITEM,
        }
    }

    fn within(value: &Value, parts: &mut usize) -> R<Self> {
        meter::step()?;
        let deep = Fail::Deep { what: "parts of a tuple that is a key", limit: MAX_PARTS };
        *parts = parts.checked_sub(1).ok_or(deep)?;
        Ok(match value {
            Value::Undefined(_) => Self::Undefined,
            Value::None => Self::None,
            Value::Bool(b) => Self::Int(i128::from(*b)),
            Value::Int(i) => Self::Int(*i),
            Value::Float(f) if f.fract() == 0.0 && f.abs() < 1e38 => Self::Int(*f as i128),
            Value::Float(f) => Self::Float(f.to_bits()),
            Value::Str(s) => {
                meter::work(s.len())?;
                Self::Str(StrKey(s.clone()))
            }
            Value::Seq(seq) if seq.kind == Kind::Tuple => {
                if seq.items.len() > *parts {
                    return Err(Fail::Deep { what: "parts of a tuple that is a key", limit: MAX_PARTS });
                }
                Self::Tuple(seq.items.iter().map(|item| Self::within(item, parts)).collect::<R<_>>()?)
            }
            Value::Seq(_) | Value::Dict(_) => fail!("unhashable type: '{}'", value.type_name()),
            Value::Range(range) => {
                let part = |i| Self::Int(i);
                Self::Tuple(vec![Self::None, part(range.start), part(range.stop), part(range.step)])
            }
            Value::Gen(p) => Self::Identity(Rc::as_ptr(p).addr()),
            Value::Namespace(p) => Self::Identity(p.as_ptr().addr()),
            Value::Method(p) => Self::Identity(Rc::as_ptr(p).addr()),
            Value::Global(g) => Self::Identity(*g as usize),
            Value::Macro(p) => Self::Identity(Rc::as_ptr(p).addr()),
            Value::Loop(p) => Self::Identity(Rc::as_ptr(p).addr()),
            Value::Cycler(p) => Self::Identity(Rc::as_ptr(p).addr()),
            Value::Joiner(p) => Self::Identity(Rc::as_ptr(p).addr()),
        })
    }
}

/// A dictionary; does not change once a value holds it.
#[derive(Debug, Default)]
pub(super) struct Dict {
    entries: Vec<(Value, Value)>,
    strings: HashMap<StrKey, usize>,
    others: HashMap<Key, usize>,
    depth: usize,
    held: Held,
}

impl Dict {
    pub(super) fn len(&self) -> usize {
        self.entries.len()
    }

    pub(super) fn depth(&self) -> usize {
        self.depth
    }

    pub(super) fn entries(&self) -> &[(Value, Value)] {
        &self.entries
    }

    fn find(&self, key: &Value) -> R<Option<usize>> {
        Ok(match Key::of(key)? {
            Key::Str(key) => self.find_str(&key.0),
            other => self.others.get(&other).copied(),
        })
    }

    fn find_str(&self, key: &str) -> Option<usize> {
        if self.entries.len() < INDEXED {
            return self.entries.iter().position(|(known, _)| matches!(known, Value::Str(known) if **known == *key));
        }
        self.strings.get(key).copied()
    }

    pub(super) fn get(&self, key: &Value) -> R<Option<&Value>> {
        Ok(self.find(key)?.and_then(|at| self.entries.get(at)).map(|(_, value)| value))
    }

    pub(super) fn get_str(&self, key: &str) -> R<Option<&Value>> {
        meter::work(key.len())?;
        Ok(self.find_str(key).and_then(|at| self.entries.get(at)).map(|(_, value)| value))
    }

    /// Adds an entry, or replaces the value of one.
    pub(super) fn insert(&mut self, key: Value, value: Value) -> R<()> {
        meter::step()?;
        let depth = depth_of([&key, &value].into_iter())?;
        self.depth = self.depth.max(depth);
        if let Some(at) = self.find(&key)? {
            if let Some(entry) = self.entries.get_mut(at) {
                entry.1 = value;
            }
            return Ok(());
        }
        if self.entries.len() == self.entries.capacity() {
            let more = self.entries.len().max(2);
            self.held.grow(more * ENTRY)?;
            self.entries.reserve_exact(more);
        }
        let at = self.entries.len();
        if at + 1 == INDEXED {
            for (at, (known, _)) in self.entries.iter().enumerate() {
                if let Value::Str(known) = known {
                    self.strings.insert(StrKey(known.clone()), at);
                }
            }
        }
        match Key::of(&key)? {
            Key::Str(text) if at + 1 >= INDEXED => {
                self.strings.insert(text, at);
            }
            Key::Str(_) => {}
            other => {
                self.held.grow(other.bytes())?;
                self.others.insert(other, at);
            }
        }
        self.entries.push((key, value));
        Ok(())
    }

    pub(super) fn copy(&self) -> R<Self> {
        let mut copy = Self::default();
        self.entries.iter().try_for_each(|(key, value)| copy.insert(key.clone(), value.clone()))?;
        Ok(copy)
    }

    pub(super) fn done(mut self) -> R<Value> {
        self.held.grow(OVERHEAD + 128)?;
        self.depth = self.depth.max(1);
        Ok(Value::Dict(Rc::new(self)))
    }
}
