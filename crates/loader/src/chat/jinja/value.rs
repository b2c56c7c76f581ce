//! Values as templates see them: those of Python.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::rc::{Rc, Weak};
use std::sync::Arc;

use super::MAX_DEPTH;
use super::dict::Dict;
use super::fail::{Fail, R};
use super::meter::Held;

/// Bytes of one value in a sequence.
pub(super) const ITEM: usize = size_of::<Value>();
/// The cost of an allocation in addition to its content.
pub(super) const OVERHEAD: usize = 48;

/// A value. Cheap to clone; only namespaces can change, and nothing owns a namespace but the interpreter, so values
/// form no cycles and are dropped to a bounded depth.
#[derive(Debug, Clone)]
pub(super) enum Value {
    /// Jinja's `Undefined`, with the name of the missing value.
    Undefined(Option<Rc<Missing>>),
    /// `None`.
    None,
    /// `True`, `False`.
    Bool(bool),
    /// An integer. Python's have no end; these have 128 bits, and an overflow is an error.
    Int(i128),
    Float(f64),
    /// A text.
    Str(Str),
    /// A list, a tuple, a view of a dictionary.
    Seq(Rc<Seq>),
    /// A dictionary.
    Dict(Rc<Dict>),
    /// `range(start, stop, step)`.
    Range(Rc<Range>),
    /// A generator: gives its items once.
    Gen(Rc<Gen>),
    /// `namespace()`.
    Namespace(Weak<Namespace>),
    /// A method of a value.
    Method(Rc<Method>),
    /// A function of the environment.
    Global(Global),
    /// A macro, or the `caller` of a call block.
    Macro(Rc<Macro>),
    /// `loop`.
    Loop(Rc<Loop>),
    /// `cycler(...)`.
    Cycler(Rc<Cycler>),
    /// `joiner(...)`.
    Joiner(Rc<Joiner>),
}

/// Name of the undefined value.
#[derive(Debug)]
pub(super) struct Missing {
    /// The type of the object that lacks it; empty for variables.
    pub(super) of: &'static str,
    pub(super) name: Arc<str>,
    _held: Held,
}

/// A text, its bytes on the account.
#[derive(Debug, Clone)]
pub(super) struct Str(Rc<Text>);

#[derive(Debug)]
struct Text {
    text: Box<str>,
    ascii: bool,
    _held: Held,
}

impl Str {
    /// A copy of a text.
    pub(super) fn new(text: &str) -> R<Self> {
        let held = Held::new(text.len() + OVERHEAD)?;
        Ok(Self(Rc::new(Text { ascii: text.is_ascii(), text: text.into(), _held: held })))
    }

    /// Whether every character is one byte.
    pub(super) fn ascii(&self) -> bool {
        self.0.ascii
    }

    /// The number of characters.
    pub(super) fn count_chars(&self) -> R<usize> {
        if self.ascii() {
            return Ok(self.len());
        }
        super::meter::work(self.len() / 8)?;
        Ok(self.0.text.chars().count())
    }

    pub(super) fn same(&self, other: &Self) -> bool {
        Rc::ptr_eq(&self.0, &other.0)
    }
}

impl std::ops::Deref for Str {
    type Target = str;

    fn deref(&self) -> &str {
        &self.0.text
    }
}

/// A text that grows; pays before it grows.
#[derive(Debug, Default)]
pub(super) struct Buf {
    text: String,
    held: Held,
    paid: usize,
}

impl Buf {
    pub(super) fn push_str(&mut self, text: &str) -> R<()> {
        let needed = self.text.len() + text.len();
        if needed > self.paid {
            let target = needed.max(self.paid * 2).max(32);
            // Near the limit only the necessary bytes are taken.
            let target = match self.held.grow(target - self.paid) {
                Ok(()) => target,
                Err(Fail::Memory) => {
                    self.held.grow(needed - self.paid)?;
                    needed
                }
                Err(fail) => return Err(fail),
            };
            self.paid = target;
            self.text.reserve_exact(target - self.text.len());
        }
        super::meter::copy(text.len())?;
        self.text.push_str(text);
        Ok(())
    }

    pub(super) fn push(&mut self, c: char) -> R<()> {
        self.push_str(c.encode_utf8(&mut [0; 4]))
    }

    /// A character, repeated.
    pub(super) fn fill(&mut self, c: char, count: usize) -> R<()> {
        self.repeat(c.encode_utf8(&mut [0; 4]), count)
    }

    /// A text, repeated.
    pub(super) fn repeat(&mut self, text: &str, count: usize) -> R<()> {
        if text.is_empty() || count == 0 {
            return Ok(());
        }
        // Sizes above the limit are rejected before anything is written.
        drop(Held::new(text.len().checked_mul(count).ok_or(Fail::Memory)?)?);
        // In pieces of some size: most repeated texts are one character.
        let block = text.repeat((4096 / text.len()).clamp(1, count));
        let each = block.len() / text.len();
        for _ in 0..count / each {
            self.push_str(&block)?;
        }
        self.push_str(block.get(..text.len() * (count % each)).unwrap_or_default())
    }

    pub(super) fn as_str(&self) -> &str {
        &self.text
    }

    pub(super) fn done(mut self) -> R<Str> {
        self.held.grow(OVERHEAD)?;
        self.held.shrink_to(self.text.len() + OVERHEAD);
        let ascii = self.text.is_ascii();
        Ok(Str(Rc::new(Text { text: self.text.into_boxed_str(), ascii, _held: self.held })))
    }

    /// The plain text, no longer counted.
    pub(super) fn into_text(self) -> String {
        self.text
    }
}

/// Items that become a sequence; pays before it grows.
#[derive(Debug, Default)]
pub(super) struct Items {
    items: Vec<Value>,
    held: Held,
}

impl Items {
    pub(super) fn with_capacity(count: usize) -> R<Self> {
        let held = Held::new(count.checked_mul(ITEM).ok_or(Fail::Memory)?)?;
        Ok(Self { items: Vec::with_capacity(count), held })
    }

    /// Items of a vector that was small or paid for elsewhere.
    pub(super) fn of(items: Vec<Value>) -> R<Self> {
        Ok(Self { held: Held::new(items.capacity().saturating_mul(ITEM))?, items })
    }

    pub(super) fn push(&mut self, value: Value) -> R<()> {
        super::meter::step()?;
        if self.items.len() == self.items.capacity() {
            let more = self.items.len().max(4);
            self.held.grow(more * ITEM)?;
            self.items.reserve_exact(more);
        }
        self.items.push(value);
        Ok(())
    }

    pub(super) fn extend(&mut self, values: &[Value]) -> R<()> {
        values.iter().try_for_each(|value| self.push(value.clone()))
    }

    pub(super) fn as_slice(&self) -> &[Value] {
        &self.items
    }

    pub(super) fn as_mut_slice(&mut self) -> &mut [Value] {
        &mut self.items
    }

    pub(super) fn done(mut self, kind: Kind) -> R<Value> {
        let mut items = std::mem::take(&mut self.items);
        items.shrink_to_fit();
        let mut held = std::mem::take(&mut self.held);
        held.shrink_to(items.len() * ITEM);
        held.grow(OVERHEAD)?;
        let depth = depth_of(items.iter())?;
        Ok(Value::Seq(Rc::new(Seq { items, kind, depth, _held: held })))
    }

    pub(super) fn list(self) -> R<Value> {
        self.done(Kind::List)
    }

    pub(super) fn tuple(self) -> R<Value> {
        self.done(Kind::Tuple)
    }

    pub(super) fn generator(mut self) -> R<Value> {
        let items = std::mem::take(&mut self.items);
        let mut held = std::mem::take(&mut self.held);
        held.grow(OVERHEAD)?;
        let depth = depth_of(items.iter())?;
        Ok(Value::Gen(Rc::new(Gen { items: RefCell::new(items.into()), depth, _held: held })))
    }
}

/// The depth of a value that holds these.
pub(super) fn depth_of<'a>(values: impl Iterator<Item = &'a Value>) -> R<usize> {
    let depth = 1 + values.map(Value::depth).max().unwrap_or(0);
    if depth > MAX_DEPTH {
        return Err(Fail::Deep { what: "lists and dictionaries", limit: MAX_DEPTH });
    }
    Ok(depth)
}

/// Kind of sequence.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    List,
    Tuple,
    Keys,
    Values,
    Pairs,
}

#[derive(Debug)]
pub(super) struct Seq {
    pub(super) items: Vec<Value>,
    pub(super) kind: Kind,
    pub(super) depth: usize,
    _held: Held,
}

/// A range; at most 100,000 items, as in Jinja's sandbox.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Range {
    pub(super) start: i128,
    pub(super) stop: i128,
    pub(super) step: i128,
}

impl Range {
    pub(super) fn len(&self) -> i128 {
        let (from, to, by) =
            if self.step > 0 { (self.start, self.stop, self.step) } else { (self.stop, self.start, -self.step) };
        if from >= to { 0 } else { (to - from - 1) / by + 1 }
    }

    pub(super) fn get(&self, index: i128) -> i128 {
        self.start + index * self.step
    }
}

#[derive(Debug)]
pub(super) struct Gen {
    pub(super) items: RefCell<VecDeque<Value>>,
    depth: usize,
    _held: Held,
}

/// The attributes of a `namespace()`.
#[derive(Debug)]
pub(super) struct Namespace {
    pub(super) attrs: RefCell<Vec<(Arc<str>, Value)>>,
    pub(super) held: RefCell<Held>,
}

#[derive(Debug)]
pub(super) struct Method {
    pub(super) this: Value,
    pub(super) name: &'static str,
    _held: Held,
}

/// Functions that every template can call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Global {
    Range,
    Dict,
    Namespace,
    Cycler,
    Joiner,
    Raise,
    Now,
}

#[derive(Debug)]
pub(super) struct Macro {
    /// Which of the program's macros.
    pub(super) decl: usize,
    pub(super) name: Arc<str>,
    /// The scope in which it was defined.
    pub(super) scope: usize,
    pub(super) _held: Held,
}

/// The state of a `for` loop.
#[derive(Debug)]
pub(super) struct Loop {
    pub(super) items: Vec<Value>,
    pub(super) index: Cell<usize>,
    /// The number of recursive loops around this one.
    pub(super) level: usize,
    pub(super) changed: RefCell<Option<Vec<Value>>>,
    /// Which statement it runs, if it is recursive, and in which scope.
    pub(super) recursive: Option<(u32, usize)>,
    pub(super) depth: usize,
    pub(super) _held: Held,
}

#[derive(Debug)]
pub(super) struct Cycler {
    pub(super) items: Vec<Value>,
    pub(super) position: Cell<usize>,
    depth: usize,
    _held: Held,
}

#[derive(Debug)]
pub(super) struct Joiner {
    pub(super) separator: Value,
    pub(super) used: Cell<bool>,
    depth: usize,
    _held: Held,
}

impl Value {
    /// A text.
    pub(super) fn str(text: &str) -> R<Self> {
        Str::new(text).map(Self::Str)
    }

    /// An undefined value.
    pub(super) fn missing(of: &'static str, name: &str) -> R<Self> {
        let held = Held::new(2 * OVERHEAD + name.len())?;
        Ok(Self::Undefined(Some(Rc::new(Missing { of, name: name.into(), _held: held }))))
    }

    pub(super) fn method(this: &Self, name: &'static str) -> R<Self> {
        depth_of(std::iter::once(this))?;
        let held = Held::new(ITEM + OVERHEAD)?;
        Ok(Self::Method(Rc::new(Method { this: this.clone(), name, _held: held })))
    }

    pub(super) fn cycler(items: Vec<Value>) -> R<Self> {
        let (depth, held) = (depth_of(items.iter())?, Held::new(items.len() * ITEM + OVERHEAD)?);
        Ok(Self::Cycler(Rc::new(Cycler { items, position: Cell::new(0), depth, _held: held })))
    }

    pub(super) fn joiner(separator: Value) -> R<Self> {
        let (depth, held) = (depth_of(std::iter::once(&separator))?, Held::new(ITEM + OVERHEAD)?);
        Ok(Self::Joiner(Rc::new(Joiner { separator, used: Cell::new(false), depth, _held: held })))
    }

    pub(super) fn list(items: Vec<Value>) -> R<Self> {
        Items::of(items)?.list()
    }

    pub(super) fn tuple(items: Vec<Value>) -> R<Self> {
        Items::of(items)?.tuple()
    }

    /// The nesting depth of the values in it.
    pub(super) fn depth(&self) -> usize {
        match self {
            Self::Seq(seq) => seq.depth,
            Self::Dict(dict) => dict.depth(),
            Self::Gen(generator) => generator.depth,
            Self::Method(method) => method.this.depth() + 1,
            Self::Loop(state) => state.depth,
            Self::Cycler(cycler) => cycler.depth,
            Self::Joiner(joiner) => joiner.depth,
            _ => 0,
        }
    }

    pub(super) fn is_undefined(&self) -> bool {
        matches!(self, Self::Undefined(_))
    }

    /// The error of using an undefined value.
    pub(super) fn undefined_error(&self) -> Fail {
        Fail::new(match self {
            Self::Undefined(Some(missing)) if missing.of.is_empty() => format!("'{}' is undefined", missing.name),
            Self::Undefined(Some(missing)) => format!("'{}' has no attribute '{}'", missing.of, missing.name),
            _ => "the value is undefined".to_owned(),
        })
    }

    /// The name of the type, as Python's messages have it.
    pub(super) fn type_name(&self) -> &'static str {
        match self {
            Self::Undefined(_) => "Undefined",
            Self::None => "NoneType",
            Self::Bool(_) => "bool",
            Self::Int(_) => "int",
            Self::Float(_) => "float",
            Self::Str(_) => "str",
            Self::Seq(seq) => match seq.kind {
                Kind::List => "list",
                Kind::Tuple => "tuple",
                Kind::Keys => "dict_keys",
                Kind::Values => "dict_values",
                Kind::Pairs => "dict_items",
            },
            Self::Dict(_) => "dict",
            Self::Range(_) => "range",
            Self::Gen(_) => "generator",
            Self::Namespace(_) => "Namespace",
            Self::Method(_) => "method",
            Self::Global(_) => "function",
            Self::Macro(_) => "Macro",
            Self::Loop(_) => "LoopContext",
            Self::Cycler(_) => "Cycler",
            Self::Joiner(_) => "Joiner",
        }
    }

    /// Python's truth.
    pub(super) fn truth(&self) -> bool {
        match self {
            Self::Undefined(_) | Self::None => false,
            Self::Bool(b) => *b,
            Self::Int(i) => *i != 0,
            Self::Float(f) => *f != 0.0,
            Self::Str(s) => !s.is_empty(),
            Self::Seq(seq) => !seq.items.is_empty(),
            Self::Dict(dict) => dict.len() > 0,
            Self::Range(range) => range.len() > 0,
            Self::Loop(state) => !state.items.is_empty(),
            _ => true,
        }
    }
}
