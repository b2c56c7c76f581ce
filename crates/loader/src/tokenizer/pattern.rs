//! Reads the patterns of tokenizer files, look-around included.
//!
//! The structure (groups, alternatives, repetitions, look-around) is parsed here; `regex-syntax` parses what matches
//! one character or asserts a position (`[^\s\p{L}]`, `\d`, `\b`, `$`), so that it has the same meaning as in every
//! Rust program. The total cost of a file's patterns is bounded ([`Patterns`]).

use std::collections::HashMap;
use std::iter::Peekable;
use std::str::CharIndices;
use std::sync::Arc;

use regex_syntax::hir::{Class as HirClass, HirKind, Look};

use super::class::Class;
use super::error::TokenizerError;
use super::limits::{PATTERN_BYTES, PATTERN_DEPTH, PATTERN_RANGES, at_most};
use super::linear::Linear;

/// The counts of a repetition, and the order in which they are tried.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Greed {
    /// As often as possible, then less.
    Greedy,
    /// As rarely as possible, then more.
    Lazy,
    /// As often as possible and never less.
    Possessive,
}

/// A pattern.
#[derive(Debug, Clone)]
pub(super) enum Node {
    /// Matches the empty text.
    Empty,
    /// One character.
    Class(Class),
    /// Something about a position.
    Assert(Look),
    /// One after the other.
    Concat(Vec<Node>),
    /// The first that leads to a match.
    Alt(Vec<Node>),
    /// Repetition.
    Repeat { node: Box<Node>, min: u32, max: Option<u32>, greed: Greed },
    /// Look-ahead, or look-behind.
    Around { node: Box<Node>, behind: bool, negate: bool },
    /// A group that is not entered again once it has matched.
    Atomic(Box<Node>),
}

impl Node {
    /// Whether the empty text matches it, or may.
    pub(super) fn may_be_empty(&self) -> bool {
        match self {
            Self::Empty | Self::Assert(_) | Self::Around { .. } => true,
            Self::Class(_) => false,
            Self::Concat(nodes) => nodes.iter().all(Self::may_be_empty),
            Self::Alt(nodes) => nodes.iter().any(Self::may_be_empty),
            Self::Repeat { node, min, .. } => *min == 0 || node.may_be_empty(),
            Self::Atomic(node) => node.may_be_empty(),
        }
    }

    /// The number of characters of every match, if it is constant.
    pub(super) fn width(&self) -> Option<u32> {
        match self {
            Self::Empty | Self::Assert(_) | Self::Around { .. } => Some(0),
            Self::Class(_) => Some(1),
            Self::Concat(nodes) => nodes.iter().try_fold(0u32, |sum, node| sum.checked_add(node.width()?)),
            Self::Alt(nodes) => {
                let mut widths = nodes.iter().map(Self::width);
                let first = widths.next()??;
                widths.all(|width| width == Some(first)).then_some(first)
            }
            Self::Repeat { node, min, max, .. } if Some(*min) == *max => node.width()?.checked_mul(*min),
            Self::Repeat { .. } => None,
            Self::Atomic(node) => node.width(),
        }
    }

    /// Possible first characters of a match; without a value it may begin with any.
    pub(super) fn first(&self) -> Option<Class> {
        let mut found = Vec::new();
        let known = self.firsts(&mut found) && found.iter().map(|class| class.size()).sum::<usize>() <= FIRST_RANGES;
        known.then(|| Class::union(found))
    }

    /// Collects the possible first characters of a match; false if a match may be empty, or begin with any character.
    fn firsts<'n>(&'n self, found: &mut Vec<&'n Class>) -> bool {
        match self {
            Self::Class(class) => {
                found.push(class);
                true
            }
            Self::Alt(nodes) => nodes.iter().all(|node| node.firsts(found)),
            Self::Concat(nodes) => {
                for node in nodes {
                    match node {
                        Self::Assert(_) | Self::Around { .. } | Self::Empty => {}
                        Self::Repeat { node, min: 0, .. } if !node.may_be_empty() => {
                            if !node.firsts(found) {
                                return false;
                            }
                        }
                        node => return node.firsts(found),
                    }
                }
                false
            }
            Self::Repeat { node, min, .. } => *min > 0 && node.firsts(found),
            Self::Atomic(node) => node.firsts(found),
            Self::Empty | Self::Assert(_) | Self::Around { .. } => false,
        }
    }
}

/// Ranges up to which the beginning of a match is looked for.
const FIRST_RANGES: usize = 1 << 14;

/// Cost of the patterns of one file so far.
#[derive(Debug, Default)]
pub(super) struct Patterns {
    bytes: usize,
    ranges: usize,
    /// Instructions, counted by who compiles.
    pub(super) code: usize,
    /// Known patterns on the linear engine.
    pub(super) linear: HashMap<String, Arc<Linear>>,
    atoms: HashMap<(String, Flags), Node>,
}

impl Patterns {
    /// Reads a pattern.
    ///
    /// # Errors
    /// [`TokenizerError::Pattern`] for a malformed or unsupported pattern; [`TokenizerError::Limit`].
    pub(super) fn parse(&mut self, pattern: &str) -> Result<Node, TokenizerError> {
        self.bytes = self.bytes.saturating_add(pattern.len());
        at_most("the patterns of the tokenizer (bytes)", self.bytes, PATTERN_BYTES)?;
        let chars = pattern.char_indices().peekable();
        let mut parser = Parser { pattern, chars, patterns: self, depth: 0 };
        let node = parser.alternatives(Flags::default())?;
        match parser.chars.peek() {
            None => Ok(node),
            Some(_) => Err(parser.bad("there is a ) without a (")),
        }
    }

    fn count_ranges(&mut self, size: usize) -> Result<(), TokenizerError> {
        self.ranges = self.ranges.saturating_add(size);
        at_most("ranges of characters in the split patterns", self.ranges, PATTERN_RANGES)
    }
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
struct Flags {
    ignore_case: bool,
    multi_line: bool,
    dot_all: bool,
    lazy: bool,
    spaced: bool,
}

struct Parser<'p> {
    pattern: &'p str,
    chars: Peekable<CharIndices<'p>>,
    patterns: &'p mut Patterns,
    depth: usize,
}

impl Parser<'_> {
    fn bad(&self, reason: impl Into<String>) -> TokenizerError {
        TokenizerError::Pattern { pattern: shorten(self.pattern), reason: reason.into() }
    }

    fn at(&mut self) -> usize {
        self.chars.peek().map_or(self.pattern.len(), |(at, _)| *at)
    }

    fn rest(&mut self) -> &str {
        let at = self.at();
        self.pattern.get(at..).unwrap_or_default()
    }

    fn eat(&mut self, text: &str) -> bool {
        let found = self.rest().starts_with(text);
        if found {
            for _ in text.chars() {
                self.chars.next();
            }
        }
        found
    }

    fn alternatives(&mut self, mut flags: Flags) -> Result<Node, TokenizerError> {
        self.depth += 1;
        at_most("groups within groups of a split pattern", self.depth, PATTERN_DEPTH)?;
        let mut branches = vec![self.sequence(&mut flags)?];
        while self.eat("|") {
            branches.push(self.sequence(&mut flags)?);
        }
        self.depth -= 1;
        // Single characters in a choice are one set, which needs no way back.
        fn class(node: &Node) -> Option<&Class> {
            match node {
                Node::Class(class) => Some(class),
                _ => None,
            }
        }
        if branches.len() > 1
            && let Some(classes) = branches.iter().map(class).collect::<Option<Vec<&Class>>>()
        {
            let size: usize = classes.iter().map(|class| class.size()).sum();
            self.patterns.count_ranges(size)?;
            return Ok(Node::Class(Class::union(classes)));
        }
        Ok(if branches.len() == 1 { branches.pop().unwrap_or(Node::Empty) } else { Node::Alt(branches) })
    }

    fn sequence(&mut self, flags: &mut Flags) -> Result<Node, TokenizerError> {
        let mut nodes = Vec::new();
        while let Some(&(_, c)) = self.chars.peek() {
            match c {
                '|' | ')' => break,
                _ if flags.spaced && c.is_whitespace() => {
                    self.chars.next();
                }
                '#' if flags.spaced => while self.chars.next().is_some_and(|(_, c)| c != '\n') {},
                _ => {
                    let Some(node) = self.atom(flags)? else { continue };
                    let node = self.repeated(node, *flags)?;
                    // Empty nodes are left out, so that every node costs an instruction.
                    if !matches!(node, Node::Empty) {
                        nodes.push(node);
                    }
                }
            }
        }
        Ok(if nodes.len() <= 1 { nodes.pop().unwrap_or(Node::Empty) } else { Node::Concat(nodes) })
    }

    fn repeated(&mut self, mut node: Node, flags: Flags) -> Result<Node, TokenizerError> {
        loop {
            let (min, max) = if self.eat("*") {
                (0, None)
            } else if self.eat("+") {
                (1, None)
            } else if self.eat("?") {
                (0, Some(1))
            } else if let Some((len, min, max)) = counts(self.rest()) {
                for _ in 0..len {
                    self.chars.next();
                }
                if max.is_some_and(|max| max < min) {
                    return Err(self.bad("a repetition ends before it begins"));
                }
                (min, max)
            } else {
                return Ok(node);
            };
            let greed = if self.eat("?") {
                if flags.lazy { Greed::Greedy } else { Greed::Lazy }
            } else if self.eat("+") {
                Greed::Possessive
            } else if flags.lazy {
                Greed::Lazy
            } else {
                Greed::Greedy
            };
            if !matches!(node, Node::Empty) {
                node = Node::Repeat { node: Box::new(node), min, max, greed };
            }
            if matches!(self.rest().chars().next(), Some('*' | '+' | '?')) {
                return Err(self.bad("a repetition is repeated"));
            }
        }
    }

    /// One character, an assertion or a group; nothing for flags.
    fn atom(&mut self, flags: &mut Flags) -> Result<Option<Node>, TokenizerError> {
        let start = self.at();
        let Some((_, c)) = self.chars.next() else { return Ok(None) };
        let end = match c {
            '(' => return self.group(flags),
            '*' | '+' | '?' => return Err(self.bad("a repetition has nothing to repeat")),
            '[' => self.class_end()?,
            '\\' => match self.escape_end()? {
                Escape::Node(node) => return Ok(Some(node)),
                Escape::End(end) => end,
            },
            _ => start + c.len_utf8(),
        };
        while self.at() < end {
            self.chars.next();
        }
        let text = self.pattern.get(start..end).unwrap_or_default();
        // A brace that opens no count is a brace.
        let text = if matches!(c, '{' | '}') { format!("\\{c}") } else { text.to_owned() };
        self.simple(text, *flags).map(Some)
    }

    fn group(&mut self, flags: &mut Flags) -> Result<Option<Node>, TokenizerError> {
        let around = |node, behind, negate| Node::Around { node: Box::new(node), behind, negate };
        let node = if self.eat("?=") {
            around(self.alternatives(*flags)?, false, false)
        } else if self.eat("?!") {
            around(self.alternatives(*flags)?, false, true)
        } else if self.eat("?<=") {
            self.behind(false, *flags)?
        } else if self.eat("?<!") {
            self.behind(true, *flags)?
        } else if self.eat("?>") {
            Node::Atomic(Box::new(self.alternatives(*flags)?))
        } else if self.eat("?#") {
            while self.at() < self.pattern.len() && !self.rest().starts_with(')') {
                self.chars.next();
            }
            if !self.eat(")") {
                return Err(self.bad("a comment is not closed"));
            }
            return Ok(None);
        } else if self.eat("?P<") || self.eat("?<") {
            while self.chars.next_if(|(_, c)| c.is_alphanumeric() || *c == '_').is_some() {}
            if !self.eat(">") {
                return Err(self.bad("the name of a group is malformed"));
            }
            self.alternatives(*flags)?
        } else if self.eat("?") {
            let mut inner = *flags;
            let mut on = true;
            loop {
                match self.chars.next().map(|(_, c)| c) {
                    Some('-') => on = false,
                    Some('i') => inner.ignore_case = on,
                    Some('m') => inner.multi_line = on,
                    Some('s') => inner.dot_all = on,
                    Some('U') => inner.lazy = on,
                    Some('x') => inner.spaced = on,
                    Some('u') if on => {}
                    Some(':') => break,
                    Some(')') => {
                        *flags = inner;
                        return Ok(None);
                    }
                    Some(c) => return Err(self.bad(format!("a group that begins with (?{c} is not supported"))),
                    None => return Err(self.bad("a group is not closed")),
                }
            }
            self.alternatives(inner)?
        } else {
            self.alternatives(*flags)?
        };
        if !self.eat(")") {
            return Err(self.bad("a group is not closed"));
        }
        Ok(Some(node))
    }

    /// Look-behind goes back by a number of characters, which must be the same for each alternative.
    fn behind(&mut self, negate: bool, flags: Flags) -> Result<Node, TokenizerError> {
        let node = self.alternatives(flags)?;
        let branches = match node {
            Node::Alt(branches)
                if branches.iter().any(|branch| branch.width() != branches.first().and_then(Node::width)) =>
            {
                branches
            }
            node => vec![node],
        };
        if branches.iter().any(|branch| branch.width().is_none()) {
            return Err(self.bad("look-behind of varying length is not supported"));
        }
        let mut nodes: Vec<Node> =
            branches.into_iter().map(|branch| Node::Around { node: Box::new(branch), behind: true, negate }).collect();
        Ok(match (nodes.len(), negate) {
            (1, _) => nodes.pop().unwrap_or(Node::Empty),
            (_, true) => Node::Concat(nodes),
            (_, false) => Node::Alt(nodes),
        })
    }

    /// The end of a class whose bracket has been read.
    fn class_end(&mut self) -> Result<usize, TokenizerError> {
        let at = self.at();
        let rest = self.pattern.get(at..).unwrap_or_default();
        let mut depth = 1usize;
        let mut first = true;
        let mut chars = rest.char_indices().peekable();
        while let Some((offset, c)) = chars.next() {
            match c {
                '\\' => {
                    chars.next();
                }
                '[' => {
                    depth += 1;
                    first = true;
                    continue;
                }
                '^' if first => continue,
                ']' if first => {}
                ']' => {
                    depth -= 1;
                    if depth == 0 {
                        return Ok(at + offset + 1);
                    }
                }
                _ => {}
            }
            at_most("classes within classes of a split pattern", depth, PATTERN_DEPTH)?;
            first = false;
        }
        Err(self.bad("a class is not closed"))
    }

    /// The end of an escape whose backslash has been read.
    fn escape_end(&mut self) -> Result<Escape, TokenizerError> {
        let at = self.at();
        let rest = self.pattern.get(at..).unwrap_or_default();
        let c = rest.chars().next().ok_or_else(|| self.bad("it ends in a backslash"))?;
        let braced =
            |from: usize| rest.get(from..).and_then(|tail| tail.strip_prefix('{')?.find('}')).map(|n| from + n + 2);
        let len = match c {
            'p' | 'P' => braced(1).unwrap_or_else(|| 1 + rest.chars().nth(1).map_or(0, char::len_utf8)),
            'x' | 'u' | 'U' => braced(1).unwrap_or(match c {
                'x' => 3,
                'u' => 5,
                _ => 9,
            }),
            'b' if rest.starts_with("b{start") || rest.starts_with("b{end") => braced(1).unwrap_or(1),
            'h' | 'H' | 'Z' | 'e' | 'R' | 'N' => {
                self.chars.next();
                return Ok(Escape::Node(match c {
                    'h' => self.simple("[0-9a-fA-F]".into(), Flags::default())?,
                    'H' => self.simple("[^0-9a-fA-F]".into(), Flags::default())?,
                    'e' => Node::Class(Class::one('\u{1b}')),
                    'N' => self.simple(r"[^\n]".into(), Flags::default())?,
                    'R' => Node::Alt(vec![
                        Node::Concat(vec![Node::Class(Class::one('\r')), Node::Class(Class::one('\n'))]),
                        self.simple(r"[\n-\r\x85\u2028\u2029]".into(), Flags::default())?,
                    ]),
                    _ => Node::Around {
                        node: Box::new(Node::Concat(vec![
                            Node::Repeat {
                                node: Box::new(Node::Class(Class::one('\n'))),
                                min: 0,
                                max: Some(1),
                                greed: Greed::Greedy,
                            },
                            Node::Assert(Look::End),
                        ])),
                        behind: false,
                        negate: false,
                    },
                }));
            }
            '1'..='9' | 'k' | 'g' => return Err(self.bad("references to groups are not supported")),
            'G' | 'K' => return Err(self.bad(format!("\\{c} is not supported"))),
            c => c.len_utf8(),
        };
        match rest.is_char_boundary(len) && len <= rest.len() {
            true => Ok(Escape::End(at + len)),
            false => Err(self.bad("an escape is cut off")),
        }
    }

    /// A piece that `regex-syntax` reads: one character, a class or an assertion.
    fn simple(&mut self, text: String, flags: Flags) -> Result<Node, TokenizerError> {
        let key = (text, flags);
        if let Some(node) = self.patterns.atoms.get(&key) {
            return Ok(node.clone());
        }
        let hir = regex_syntax::ParserBuilder::new()
            .nest_limit(PATTERN_DEPTH as u32 + 8)
            .case_insensitive(flags.ignore_case)
            .multi_line(flags.multi_line)
            .dot_matches_new_line(flags.dot_all)
            .build()
            .parse(&key.0)
            .map_err(|e| self.bad(reason_of(&e)))?;
        let node = match hir.kind() {
            HirKind::Class(HirClass::Unicode(class)) => {
                Node::Class(Class::new(class.ranges().iter().map(|range| (range.start(), range.end()))))
            }
            HirKind::Class(HirClass::Bytes(class)) => Node::Class(Class::new(
                class.ranges().iter().map(|range| (char::from(range.start()), char::from(range.end()))),
            )),
            HirKind::Literal(literal) => {
                let mut chars = std::str::from_utf8(&literal.0).unwrap_or_default().chars();
                match (chars.next(), chars.next()) {
                    (Some(c), None) => Node::Class(Class::one(c)),
                    _ => return Err(self.bad(format!("{:?} is not one character", key.0))),
                }
            }
            HirKind::Look(look) => Node::Assert(*look),
            HirKind::Empty => Node::Empty,
            _ => return Err(self.bad(format!("{:?} is not supported", key.0))),
        };
        if let Node::Class(class) = &node {
            self.patterns.count_ranges(class.size())?;
        }
        self.patterns.atoms.insert(key, node.clone());
        Ok(node)
    }
}

enum Escape {
    Node(Node),
    End(usize),
}

/// `{n}`, `{n,}`, `{,m}`, `{n,m}`: its length and its numbers.
fn counts(rest: &str) -> Option<(usize, u32, Option<u32>)> {
    let inner = rest.strip_prefix('{')?;
    let inner = inner.get(..inner.find('}')?)?;
    let number = |text: &str| match text.bytes().all(|c| c.is_ascii_digit()) {
        true => text.parse::<u32>().ok(),
        false => None,
    };
    let (min, max) = match inner.split_once(',') {
        None => (number(inner)?, Some(number(inner)?)),
        Some(("", "")) => return None,
        Some(("", max)) => (0, Some(number(max)?)),
        Some((min, "")) => (number(min)?, None),
        Some((min, max)) => (number(min)?, Some(number(max)?)),
    };
    Some((inner.len() + 2, min, max))
}

/// The parser's reason without its drawing of the pattern.
fn reason_of(error: &regex_syntax::Error) -> String {
    match error {
        regex_syntax::Error::Parse(error) => error.kind().to_string(),
        regex_syntax::Error::Translate(error) => error.kind().to_string(),
        _ => "it is malformed".to_owned(),
    }
}

/// A pattern as a message shows it.
pub(super) fn shorten(pattern: &str) -> String {
    match pattern.char_indices().nth(200) {
        Some((end, _)) => format!("{}...", pattern.get(..end).unwrap_or_default()),
        None => pattern.to_owned(),
    }
}
