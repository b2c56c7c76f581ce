//! Runs the patterns of tokenizer files: leftmost-first, with look-around, in bounded time and memory.
//!
//! Patterns come from untrusted files, and every known engine has patterns that never end, or that cost megabytes when
//! they are compiled. This one counts its steps: a file's patterns together may take a number of steps proportional to
//! the length of the text ([`super::limits`]), and fail with an error beyond it. Compiled patterns are as small as
//! their source.

use regex_syntax::hir::Look;

use super::class::Class;
use super::error::TokenizerError;
use super::limits::PATTERN_CODE;
use super::pattern::{Greed, Node, Patterns, shorten};

/// Ways back that may wait at once, 16 bytes each.
const STACK: usize = 4 << 20;

#[derive(Debug)]
enum Code {
    /// One character of a set.
    Class(u32),
    /// A run of characters of a set.
    Run {
        class: u32,
        min: u32,
        max: u32,
        greed: Greed,
    },
    /// Try `first`, then `second`.
    Split {
        first: u32,
        second: u32,
    },
    Jump(u32),
    Assert(Look),
    /// The body follows and ends in a match; continues at `end` if it matches (or does not).
    Around {
        behind: Option<u32>,
        negate: bool,
        end: u32,
    },
    Atomic {
        end: u32,
    },
    /// Remembers the position.
    Mark(u32),
    /// Fails if a loop has matched nothing since its mark: another round would be the same again.
    Progress(u32),
    /// Goes on after a loop whose first round has matched nothing since its mark.
    Stuck {
        slot: u32,
        exit: u32,
    },
    Match,
}

#[derive(Debug, Clone, Copy)]
enum Back {
    Try {
        pc: u32,
        at: u32,
    },
    /// A run that may give characters back, down to `low`.
    Less {
        pc: u32,
        low: u32,
        at: u32,
    },
    /// A run that may take one more, `left` times.
    More {
        pc: u32,
        left: u32,
        at: u32,
    },
    Slot {
        slot: u32,
        old: u32,
    },
}

/// Why a search ended without an answer.
#[derive(Debug)]
struct Exhausted;

/// A compiled pattern.
#[derive(Debug)]
pub(super) struct Backtrack {
    pattern: String,
    code: Vec<Code>,
    classes: Vec<Class>,
    slots: u32,
    first: Option<Class>,
}

impl Backtrack {
    /// Compiles a pattern; adds its cost to `patterns`.
    ///
    /// # Errors
    /// [`TokenizerError::Pattern`], [`TokenizerError::Limit`].
    pub(super) fn new(pattern: &str, patterns: &mut Patterns) -> Result<Self, TokenizerError> {
        let node = patterns.parse(pattern)?;
        let mut new =
            Self { pattern: shorten(pattern), code: Vec::new(), classes: Vec::new(), slots: 0, first: node.first() };
        let mut room = PATTERN_CODE.saturating_sub(patterns.code);
        new.emit(&node, &mut room)?;
        new.push(Code::Match, &mut room)?;
        patterns.code = patterns.code.saturating_add(new.code.len());
        Ok(new)
    }

    fn push(&mut self, code: Code, room: &mut usize) -> Result<usize, TokenizerError> {
        *room = room.checked_sub(1).ok_or(TokenizerError::Limit {
            what: "the split patterns, repetitions written out (steps)",
            got: PATTERN_CODE as u64 + 1,
            limit: PATTERN_CODE as u64,
        })?;
        self.code.push(code);
        Ok(self.code.len() - 1)
    }

    fn here(&self) -> u32 {
        self.code.len() as u32
    }

    fn class(&mut self, class: &Class) -> u32 {
        self.classes.push(class.clone());
        self.classes.len() as u32 - 1
    }

    fn set(&mut self, at: usize, code: Code) {
        if let Some(slot) = self.code.get_mut(at) {
            *slot = code;
        }
    }

    fn emit(&mut self, node: &Node, room: &mut usize) -> Result<(), TokenizerError> {
        match node {
            Node::Empty => {}
            Node::Class(class) => {
                let class = self.class(class);
                self.push(Code::Class(class), room)?;
            }
            Node::Assert(look) => {
                self.push(Code::Assert(*look), room)?;
            }
            Node::Concat(nodes) => nodes.iter().try_for_each(|node| self.emit(node, room))?,
            Node::Alt(nodes) => {
                let mut ends = Vec::new();
                for (index, node) in nodes.iter().enumerate() {
                    if index + 1 == nodes.len() {
                        self.emit(node, room)?;
                        break;
                    }
                    let split = self.push(Code::Jump(0), room)?;
                    self.emit(node, room)?;
                    ends.push(self.push(Code::Jump(0), room)?);
                    let second = self.here();
                    self.set(split, Code::Split { first: split as u32 + 1, second });
                }
                let end = self.here();
                ends.into_iter().for_each(|at| self.set(at, Code::Jump(end)));
            }
            Node::Repeat { node, min, max, greed } => self.repeat(node, *min, *max, *greed, room)?,
            Node::Around { node, behind, negate } => {
                let at = self.push(Code::Match, room)?;
                self.emit(node, room)?;
                self.push(Code::Match, room)?;
                let end = self.here();
                let behind = behind.then(|| node.width().unwrap_or(0));
                self.set(at, Code::Around { behind, negate: *negate, end });
            }
            Node::Atomic(node) => self.atomic(room, |new, room| new.emit(node, room))?,
        }
        Ok(())
    }

    fn atomic(
        &mut self,
        room: &mut usize,
        body: impl FnOnce(&mut Self, &mut usize) -> Result<(), TokenizerError>,
    ) -> Result<(), TokenizerError> {
        let at = self.push(Code::Match, room)?;
        body(self, room)?;
        self.push(Code::Match, room)?;
        let end = self.here();
        self.set(at, Code::Atomic { end });
        Ok(())
    }

    fn repeat(
        &mut self,
        node: &Node,
        min: u32,
        max: Option<u32>,
        greed: Greed,
        room: &mut usize,
    ) -> Result<(), TokenizerError> {
        if let Node::Class(class) = node {
            let class = self.class(class);
            self.push(Code::Run { class, min, max: max.unwrap_or(u32::MAX), greed }, room)?;
            return Ok(());
        }
        if greed == Greed::Possessive {
            return self.atomic(room, |new, room| new.repeat(node, min, max, Greed::Greedy, room));
        }
        let split = |first: u32, second: u32| match greed {
            Greed::Lazy => Code::Split { first: second, second: first },
            _ => Code::Split { first, second },
        };
        if max.is_none() && node.may_be_empty() {
            return self.repeat_empty(node, min, split, room);
        }
        for _ in 0..min {
            self.emit(node, room)?;
        }
        match max {
            None => {
                let at = self.push(Code::Jump(0), room)?;
                self.emit(node, room)?;
                self.push(Code::Jump(at as u32), room)?;
                let exit = self.here();
                self.set(at, split(at as u32 + 1, exit));
            }
            Some(max) => {
                let mut splits = Vec::new();
                for _ in min..max {
                    splits.push(self.push(Code::Jump(0), room)?);
                    self.emit(node, room)?;
                }
                let exit = self.here();
                splits.into_iter().for_each(|at| self.set(at, split(at as u32 + 1, exit)));
            }
        }
        Ok(())
    }

    /// A loop whose body may match nothing, as the `regex` crate has it: the first round may, and ends the loop then; a
    /// later one may not.
    fn repeat_empty(
        &mut self,
        node: &Node,
        min: u32,
        split: impl Fn(u32, u32) -> Code,
        room: &mut usize,
    ) -> Result<(), TokenizerError> {
        for _ in 1..min {
            self.emit(node, room)?;
        }
        let skip = if min == 0 { Some(self.push(Code::Jump(0), room)?) } else { None };
        let slot = self.slots;
        self.slots += 1;
        self.push(Code::Mark(slot), room)?;
        self.emit(node, room)?;
        let stuck = self.push(Code::Jump(0), room)?;
        let again = self.push(Code::Jump(0), room)?;
        self.push(Code::Mark(slot), room)?;
        self.emit(node, room)?;
        self.push(Code::Progress(slot), room)?;
        self.push(Code::Jump(again as u32), room)?;
        let exit = self.here();
        self.set(stuck, Code::Stuck { slot, exit });
        for at in [Some(again), skip].into_iter().flatten() {
            self.set(at, split(at as u32 + 1, exit));
        }
        Ok(())
    }

    /// A searcher with the buffers that searches share.
    pub(super) fn searcher(&self) -> Searcher<'_> {
        Searcher { pattern: self, stack: Vec::new(), slots: vec![0; self.slots as usize] }
    }
}

/// Searches with one pattern.
#[derive(Debug)]
pub(super) struct Searcher<'p> {
    pattern: &'p Backtrack,
    stack: Vec<Back>,
    slots: Vec<u32>,
}

fn char_at(text: &str, at: usize) -> Option<char> {
    match text.as_bytes().get(at) {
        Some(byte) if byte.is_ascii() => Some(char::from(*byte)),
        Some(_) => text.get(at..)?.chars().next(),
        None => None,
    }
}

fn before(text: &str, at: usize) -> Option<char> {
    text.get(..at)?.chars().next_back()
}

impl Searcher<'_> {
    /// The first match at or after `from`. Texts are shorter than 4 GiB.
    ///
    /// # Errors
    /// [`TokenizerError::PatternTooCostly`] if the steps are used up.
    pub(super) fn find(
        &mut self,
        text: &str,
        from: usize,
        fuel: &mut u64,
    ) -> Result<Option<std::ops::Range<usize>>, TokenizerError> {
        self.search(text, from, fuel)
            .map_err(|Exhausted| TokenizerError::PatternTooCostly { pattern: self.pattern.pattern.clone() })
    }

    fn search(&mut self, text: &str, from: usize, fuel: &mut u64) -> Result<Option<std::ops::Range<usize>>, Exhausted> {
        let mut at = from;
        loop {
            let next = char_at(text, at);
            let possible = match (&self.pattern.first, next) {
                (Some(first), Some(c)) => first.has(c),
                (Some(_), None) => false,
                (None, _) => true,
            };
            *fuel = fuel.checked_sub(1).ok_or(Exhausted)?;
            if possible {
                self.stack.clear();
                if let Some(end) = self.run(text, 0, at, fuel)? {
                    return Ok(Some(at..end));
                }
            }
            match next {
                Some(c) => at += c.len_utf8(),
                None => return Ok(None),
            }
        }
    }

    fn wait(&mut self, back: Back) -> Result<(), Exhausted> {
        if self.stack.len() >= STACK {
            return Err(Exhausted);
        }
        self.stack.push(back);
        Ok(())
    }

    /// Runs from `pc` at `at`; returns the end of the match. Calls itself for look-around and atomic groups, which are
    /// nested as deeply as the pattern.
    fn run(&mut self, text: &str, pc: u32, at: usize, fuel: &mut u64) -> Result<Option<usize>, Exhausted> {
        let base = self.stack.len();
        let (mut pc, mut at) = (pc, at);
        loop {
            *fuel = fuel.checked_sub(1).ok_or(Exhausted)?;
            let mut failed = false;
            match self.pattern.code.get(pc as usize) {
                None | Some(Code::Match) => {
                    self.stack.truncate(base);
                    return Ok(Some(at));
                }
                Some(Code::Class(class)) => match char_at(text, at).filter(|c| self.has(*class, *c)) {
                    Some(c) => {
                        at += c.len_utf8();
                        pc += 1;
                    }
                    None => failed = true,
                },
                Some(&Code::Run { class, min, max, greed }) => {
                    let most = if greed == Greed::Lazy { min } else { max };
                    let (mut count, mut low) = (0, at);
                    while count < most
                        && let Some(c) = char_at(text, at).filter(|c| self.has(class, *c))
                    {
                        *fuel = fuel.checked_sub(1).ok_or(Exhausted)?;
                        at += c.len_utf8();
                        count += 1;
                        if count == min {
                            low = at;
                        }
                    }
                    if count < min {
                        failed = true;
                    } else {
                        match greed {
                            Greed::Greedy if at > low => {
                                self.wait(Back::Less { pc: pc + 1, low: low as u32, at: at as u32 })?;
                            }
                            Greed::Lazy if max > min => {
                                self.wait(Back::More { pc, left: max - min, at: at as u32 })?;
                            }
                            _ => {}
                        }
                        pc += 1;
                    }
                }
                Some(&Code::Split { first, second }) => {
                    self.wait(Back::Try { pc: second, at: at as u32 })?;
                    pc = first;
                }
                Some(&Code::Jump(to)) => pc = to,
                Some(Code::Assert(look)) => {
                    failed = !holds(*look, text, at);
                    pc += 1;
                }
                Some(&Code::Around { behind, negate, end }) => {
                    let start = match behind {
                        None => Some(at),
                        Some(back) => {
                            *fuel = fuel.checked_sub(u64::from(back)).ok_or(Exhausted)?;
                            (0..back).try_fold(at, |at, _| before(text, at).map(|c| at - c.len_utf8()))
                        }
                    };
                    let found = match start {
                        Some(start) => self.run(text, pc + 1, start, fuel)?.is_some(),
                        None => false,
                    };
                    failed = found == negate;
                    pc = end;
                }
                Some(&Code::Atomic { end }) => match self.run(text, pc + 1, at, fuel)? {
                    Some(to) => {
                        at = to;
                        pc = end;
                    }
                    None => failed = true,
                },
                Some(&Code::Mark(slot)) => {
                    if let Some(old) = self.slots.get(slot as usize).copied() {
                        self.wait(Back::Slot { slot, old })?;
                    }
                    if let Some(mark) = self.slots.get_mut(slot as usize) {
                        *mark = at as u32;
                    }
                    pc += 1;
                }
                Some(&Code::Stuck { slot, exit }) => {
                    pc = if self.slots.get(slot as usize) == Some(&(at as u32)) { exit } else { pc + 1 };
                }
                Some(&Code::Progress(slot)) => {
                    failed = self.slots.get(slot as usize).is_none_or(|mark| *mark == at as u32);
                    pc += 1;
                }
            }
            if failed {
                match self.resume(text, base, fuel)? {
                    Some(next) => (pc, at) = next,
                    None => return Ok(None),
                }
            }
        }
    }

    /// The place to continue after a failure.
    fn resume(&mut self, text: &str, base: usize, fuel: &mut u64) -> Result<Option<(u32, usize)>, Exhausted> {
        while self.stack.len() > base {
            *fuel = fuel.checked_sub(1).ok_or(Exhausted)?;
            match self.stack.pop() {
                None => break,
                Some(Back::Try { pc, at }) => return Ok(Some((pc, at as usize))),
                Some(Back::Less { pc, low, at }) => {
                    let at = at as usize - before(text, at as usize).map_or(1, char::len_utf8);
                    if at > low as usize {
                        self.stack.push(Back::Less { pc, low, at: at as u32 });
                    }
                    return Ok(Some((pc, at)));
                }
                Some(Back::More { pc, left, at }) => {
                    let Some(Code::Run { class, .. }) = self.pattern.code.get(pc as usize) else { continue };
                    let Some(c) = char_at(text, at as usize).filter(|c| self.has(*class, *c)) else { continue };
                    let at = at as usize + c.len_utf8();
                    if left > 1 {
                        self.stack.push(Back::More { pc, left: left - 1, at: at as u32 });
                    }
                    return Ok(Some((pc + 1, at)));
                }
                Some(Back::Slot { slot, old }) => {
                    if let Some(mark) = self.slots.get_mut(slot as usize) {
                        *mark = old;
                    }
                }
            }
        }
        Ok(None)
    }

    fn has(&self, class: u32, c: char) -> bool {
        self.pattern.classes.get(class as usize).is_some_and(|class| class.has(c))
    }
}

/// Whether a character is of a word, as `\w` has it.
pub(super) fn is_word(c: char) -> bool {
    regex_syntax::try_is_word_character(c).unwrap_or_else(|_| c.is_alphanumeric() || c == '_')
}

fn holds(look: Look, text: &str, at: usize) -> bool {
    let (left, right) = (before(text, at), char_at(text, at));
    let ascii = |c: Option<char>| c.is_some_and(|c| c.is_ascii_alphanumeric() || c == '_');
    let word = |c: Option<char>| c.is_some_and(is_word);
    match look {
        Look::Start => left.is_none(),
        Look::End => right.is_none(),
        Look::StartLF => left.is_none_or(|c| c == '\n'),
        Look::EndLF => right.is_none_or(|c| c == '\n'),
        Look::StartCRLF => left.is_none_or(|c| c == '\n' || (c == '\r' && right != Some('\n'))),
        Look::EndCRLF => right.is_none_or(|c| c == '\r' || (c == '\n' && left != Some('\r'))),
        Look::WordAscii => ascii(left) != ascii(right),
        Look::WordAsciiNegate => ascii(left) == ascii(right),
        Look::WordUnicode => word(left) != word(right),
        Look::WordUnicodeNegate => word(left) == word(right),
        Look::WordStartAscii => !ascii(left) && ascii(right),
        Look::WordEndAscii => ascii(left) && !ascii(right),
        Look::WordStartUnicode => !word(left) && word(right),
        Look::WordEndUnicode => word(left) && !word(right),
        Look::WordStartHalfAscii => !ascii(left),
        Look::WordEndHalfAscii => !ascii(right),
        Look::WordStartHalfUnicode => !word(left),
        Look::WordEndHalfUnicode => !word(right),
    }
}
