//! The kinds of hostile inputs, each with its generators and its limits.

mod grammars;
mod schemas;
mod templates;
mod tokenizers;

use crate::error::HostileError;

/// Reader of an input.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Reader {
    /// A grammar in Lark's notation.
    Lark,
    /// A regular expression.
    Regex,
    /// A JSON Schema.
    Schema,
    /// A chat template.
    Template,
    /// A tokenizer.json.
    Tokenizer,
}

/// Input that a generator makes for a size.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Expect {
    /// The smallest is read; larger ones until the first refusal.
    Grows,
    /// Answered or refused at any size: the size is a number in the input.
    Either,
    /// Refused at every size.
    Refused,
}

pub(crate) struct Variant {
    /// Its name within the kind.
    pub(crate) name: &'static str,
    /// An input of a size: depth, count or number.
    pub(crate) make: fn(usize) -> String,
    /// The largest size that is tried.
    pub(crate) most: usize,
    pub(crate) expect: Expect,
}

const fn grows(name: &'static str, most: usize, make: fn(usize) -> String) -> Variant {
    Variant { name, make, most, expect: Expect::Grows }
}
const fn either(name: &'static str, most: usize, make: fn(usize) -> String) -> Variant {
    Variant { name, make, most, expect: Expect::Either }
}
const fn refused(name: &'static str, make: fn(usize) -> String) -> Variant {
    Variant { name, make, most: 1, expect: Expect::Refused }
}

/// A kind of input.
pub(crate) struct Kind {
    pub(crate) name: &'static str,
    pub(crate) reader: Reader,
    /// Seconds that one reading may take, in a release build.
    pub(crate) seconds: f64,
    /// Bytes that one reading may take beyond the memory before; and bytes for each byte of the input.
    pub(crate) memory: (u64, u64),
    pub(crate) variants: &'static [Variant],
}

pub(crate) const KINDS: &[Kind] = &[
    Kind {
        name: "schema",
        reader: Reader::Schema,
        seconds: 2.0,
        memory: (256_000_000, 0),
        variants: schemas::VARIANTS,
    },
    Kind { name: "lark", reader: Reader::Lark, seconds: 2.0, memory: (256_000_000, 0), variants: grammars::LARK },
    Kind { name: "regex", reader: Reader::Regex, seconds: 2.0, memory: (256_000_000, 0), variants: grammars::REGEX },
    Kind {
        name: "template",
        reader: Reader::Template,
        seconds: 1.0,
        memory: (64_000_000, 0),
        variants: templates::VARIANTS,
    },
    Kind {
        name: "tokenizer",
        reader: Reader::Tokenizer,
        seconds: 2.0,
        memory: (200_000_000, 20),
        variants: tokenizers::VARIANTS,
    },
];

/// A kind by its name.
pub(crate) fn named(name: &str) -> Result<&'static Kind, HostileError> {
    KINDS.iter().find(|kind| kind.name == name).ok_or_else(|| HostileError::Unknown {
        what: "kind",
        name: name.to_owned(),
        known: KINDS.iter().map(|kind| kind.name).collect::<Vec<_>>().join(", "),
    })
}

/// `n` parts, made of their numbers, with something between them.
fn joined(n: usize, between: &str, part: impl Fn(usize) -> String) -> String {
    (0..n).map(part).collect::<Vec<_>>().join(between)
}

/// `inside` in `n` pairs of `before` and `after`.
fn nested(n: usize, before: &str, inside: &str, after: &str) -> String {
    format!("{}{inside}{}", before.repeat(n), after.repeat(n))
}
