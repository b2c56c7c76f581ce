//! Grammars in Lark's notation as definitions: the names in each, and its shape. Only the parts of the notation that a
//! measure needs; the engine reports other errors.

use super::ConstraintError;
use super::lark_lex::{Lexeme, Token};
use super::limits::{ConstraintLimits, GROUPS, within};

/// Parts of a definition.
#[derive(Debug)]
pub(super) enum Piece<'a> {
    Text(&'a str, bool),
    /// A range of characters, or a special token.
    Class,
    Pattern(&'a str, &'a str),
    Name(&'a str),
    /// The value after `%json`, and that after `%regex`.
    Json(&'a serde_json::Value),
    Substring(&'a serde_json::Value),
    /// A grammar within.
    Lark(Vec<Definition<'a>>),
    Concat(Vec<Piece<'a>>),
    Or(Vec<Piece<'a>>),
    And(Vec<Piece<'a>>),
    Not(Box<Piece<'a>>),
    Repeat(Box<Piece<'a>>, u64, Option<u64>),
}

/// A rule, a terminal, or a statement that has a body.
#[derive(Debug)]
pub(super) struct Definition<'a> {
    pub(super) name: &'a str,
    /// Groups within groups of it.
    pub(super) levels: u64,
    pub(super) body: Piece<'a>,
    /// Texts and patterns of its attributes.
    pub(super) attributes: Vec<Piece<'a>>,
}

impl Definition<'_> {
    pub(super) fn is_terminal(&self) -> bool {
        self.name.trim_start_matches('_').starts_with(|c: char| c.is_ascii_uppercase())
    }
}

/// Reads the tokens of a grammar.
pub(super) fn parse<'a>(
    source: &'a str,
    tokens: &'a [Lexeme<'a>],
    limits: &ConstraintLimits,
) -> Result<Vec<Definition<'a>>, ConstraintError> {
    let mut parser = Parser { source, tokens, at: 0, depth: 0, deepest: 0, limits };
    let all = parser.items()?;
    if parser.peek().is_some() {
        return Err(parser.wrong("a rule, a terminal or a statement must begin here"));
    }
    Ok(all)
}

struct Parser<'a, 'l> {
    source: &'a str,
    tokens: &'a [Lexeme<'a>],
    at: usize,
    depth: usize,
    /// The deepest group of the definition.
    deepest: usize,
    limits: &'l ConstraintLimits,
}

impl<'a> Parser<'a, '_> {
    fn peek(&self) -> Option<&'a Token<'a>> {
        self.tokens.get(self.at).map(|l| &l.token)
    }
    fn mark(&mut self, mark: &str) -> bool {
        let is = matches!(self.peek(), Some(Token::Mark(m)) if *m == mark);
        self.at += usize::from(is);
        is
    }
    fn expect(&mut self, mark: &str) -> Result<(), ConstraintError> {
        if self.mark(mark) { Ok(()) } else { Err(self.wrong(&format!("`{mark}` is missing"))) }
    }

    fn wrong(&self, what: &str) -> ConstraintError {
        let start = self.tokens.get(self.at).map_or(self.source.len(), |l| l.start);
        let line = 1 + self.source[..start].matches('\n').count();
        ConstraintError::grammar(format!("line {line} of the grammar: {what}"))
    }

    /// One group deeper, while `f` runs.
    fn deeper<T>(&mut self, f: impl FnOnce(&mut Self) -> Result<T, ConstraintError>) -> Result<T, ConstraintError> {
        self.depth += 1;
        self.deepest = self.deepest.max(self.depth);
        let most = GROUPS.min(self.limits.depth) as u64;
        let found = self.depth as u64;
        within(found, most, "depth", || format!("the grammar has groups within groups, {found} levels deep"))?;
        let result = f(self);
        self.depth -= 1;
        result
    }

    /// Definitions, up to a brace that closes them.
    fn items(&mut self) -> Result<Vec<Definition<'a>>, ConstraintError> {
        let mut all = Vec::new();
        loop {
            match self.peek() {
                Some(Token::Newline) => self.at += 1,
                Some(Token::Name(name)) => {
                    self.at += 1;
                    all.push(self.definition(name)?);
                }
                Some(Token::Keyword("%ignore")) => {
                    self.at += 1;
                    self.deepest = 0;
                    let body = self.deeper(Self::expansions)?;
                    all.push(Definition { name: "%ignore", levels: self.deepest as u64, body, attributes: Vec::new() });
                }
                Some(Token::Keyword(_)) => {
                    while !matches!(self.peek(), None | Some(Token::Newline)) {
                        self.at += 1;
                    }
                }
                _ => return Ok(all),
            }
        }
    }

    fn definition(&mut self, name: &'a str) -> Result<Definition<'a>, ConstraintError> {
        self.deepest = 0;
        let mut attributes = Vec::new();
        // Parameters, a priority, attributes.
        while !self.mark(":") {
            match self.peek() {
                Some(Token::Text(text, any_case)) => attributes.push(Piece::Text(text, *any_case)),
                Some(Token::Pattern(pattern, flags)) => attributes.push(Piece::Pattern(pattern, flags)),
                Some(Token::Json(value)) => attributes.push(Piece::Substring(value)),
                Some(Token::Name(_) | Token::Number(_) | Token::Mark(_) | Token::Keyword("%regex")) => {}
                _ => return Err(self.wrong(&format!("`:` is missing after {name:?}"))),
            }
            self.at += 1;
        }
        let body = self.deeper(Self::expansions)?;
        Ok(Definition { name, levels: self.deepest as u64, body, attributes })
    }

    fn expansions(&mut self) -> Result<Piece<'a>, ConstraintError> {
        let mut all = vec![self.alternative()?];
        loop {
            let before = self.at;
            if matches!(self.peek(), Some(Token::Newline)) {
                // Several line feeds are one token of the engine.
                while matches!(self.peek(), Some(Token::Newline)) {
                    self.at += 1;
                }
            }
            if !self.mark("|") {
                self.at = before;
                return Ok(one(all, Piece::Or));
            }
            all.push(self.alternative()?);
        }
    }

    fn alternative(&mut self) -> Result<Piece<'a>, ConstraintError> {
        let mut all = vec![self.sequence()?];
        while self.mark("&") {
            all.push(self.sequence()?);
        }
        if self.mark("->") {
            self.at += 1;
        }
        if matches!(self.peek(), Some(Token::Keyword("%if"))) {
            self.at += 1;
            self.condition()?;
        }
        Ok(one(all, Piece::And))
    }

    /// A condition of a parameter, which has parentheses within parentheses.
    fn condition(&mut self) -> Result<(), ConstraintError> {
        let mut open = 0u64;
        while let Some(token) = self.peek() {
            match token {
                Token::Mark("(") => open += 1,
                Token::Mark(")") if open == 0 => break,
                Token::Mark(")") => open -= 1,
                Token::Newline | Token::Mark("|" | "}") => break,
                _ => {}
            }
            let most = GROUPS.min(self.limits.depth) as u64;
            within(open, most, "depth", || format!("a condition of the grammar is {open} levels deep"))?;
            self.at += 1;
        }
        Ok(())
    }

    fn sequence(&mut self) -> Result<Piece<'a>, ConstraintError> {
        let mut all = Vec::new();
        loop {
            match self.peek() {
                None | Some(Token::Newline | Token::Keyword("%if")) => break,
                Some(Token::Mark("|" | "->" | "}" | ")" | "]" | "&")) => break,
                _ => all.push(self.expression()?),
            }
        }
        Ok(one(all, Piece::Concat))
    }

    fn expression(&mut self) -> Result<Piece<'a>, ConstraintError> {
        let not = self.mark("~");
        let atom = if self.mark("(") {
            let inner = self.deeper(Self::expansions)?;
            self.expect(")")?;
            inner
        } else if self.mark("[") {
            let inner = self.deeper(Self::expansions)?;
            self.expect("]")?;
            Piece::Repeat(Box::new(inner), 0, Some(1))
        } else {
            self.value()?
        };
        let atom = if not { Piece::Not(Box::new(atom)) } else { atom };
        let repeat = |atom, least, most| Piece::Repeat(Box::new(atom), least, most);
        if self.mark("?") {
            Ok(repeat(atom, 0, Some(1)))
        } else if self.mark("*") {
            Ok(repeat(atom, 0, None))
        } else if self.mark("+") {
            Ok(repeat(atom, 1, None))
        } else if matches!(self.peek(), Some(Token::Mark("~")))
            && matches!(self.tokens.get(self.at + 1).map(|l| &l.token), Some(Token::Number(_)))
        {
            self.at += 1;
            let least = self.count()?;
            // `0..2` may be cut as `0.` and `.`.
            let most = if self.mark("..") || self.mark(".") { self.count()? } else { least };
            Ok(repeat(atom, least, Some(most)))
        } else if self.mark("{") {
            let least = if matches!(self.peek(), Some(Token::Mark(","))) { 0 } else { self.count()? };
            let most = match self.mark(",") {
                true if matches!(self.peek(), Some(Token::Mark("}"))) => None,
                true => Some(self.count()?),
                false => Some(least),
            };
            self.expect("}")?;
            Ok(repeat(atom, least, most))
        } else {
            Ok(atom)
        }
    }

    fn count(&mut self) -> Result<u64, ConstraintError> {
        let Some(Token::Number(number)) = self.peek() else { return Err(self.wrong("a number is missing")) };
        let count = number.trim_end_matches('.').parse::<i32>().ok().filter(|n| *n >= 0);
        let count = count.ok_or_else(|| self.wrong(&format!("{number} is not a repetition count")))?;
        self.at += 1;
        Ok(count as u64)
    }

    fn value(&mut self) -> Result<Piece<'a>, ConstraintError> {
        let Some(token) = self.peek() else { return Err(self.wrong("something is missing at the end")) };
        self.at += 1;
        Ok(match token {
            Token::Text(text, any_case) => {
                if self.mark("..") {
                    self.at += 1;
                    Piece::Class
                } else {
                    Piece::Text(text, *any_case)
                }
            }
            Token::Pattern(pattern, flags) => Piece::Pattern(pattern, flags),
            Token::Mark("<") => Piece::Class,
            Token::Keyword(keyword @ ("%json" | "%regex")) => {
                let Some(Token::Json(value)) = self.peek() else { return Err(self.wrong("a value is missing")) };
                self.at += 1;
                if *keyword == "%json" { Piece::Json(value) } else { Piece::Substring(value) }
            }
            Token::Keyword("%lark") => {
                self.expect("{")?;
                let deepest = self.deepest;
                let inner = self.deeper(Self::items)?;
                self.deepest = self.deepest.max(deepest);
                self.expect("}")?;
                Piece::Lark(inner)
            }
            Token::Name(name) => {
                let next = self.tokens.get(self.at + 1).map(|l| &l.token);
                if matches!(self.peek(), Some(Token::Mark("{")))
                    && !matches!(next, Some(Token::Number(_) | Token::Mark(",")))
                {
                    return Err(self.wrong("templates (`name{...}`) are not supported"));
                }
                if self.mark("::") {
                    // A parameter: a number, `_`, or a function of those.
                    self.at += 1;
                    if self.mark("(") {
                        while !matches!(self.peek(), None | Some(Token::Newline)) && !self.mark(")") {
                            self.at += 1;
                        }
                    }
                }
                Piece::Name(name)
            }
            Token::At(name) => {
                self.at -= 1;
                return Err(self.wrong(&format!(
                    "`@{name}` names another grammar, but there is only one; a text that is given later is `%regex {{\"substring_chars\": \
                     @{name}}}` or `substring_words`"
                )));
            }
            _ => {
                self.at -= 1;
                return Err(self.wrong("a text, a pattern, a name or a group is missing"));
            }
        })
    }
}

/// A single piece is returned unchanged.
fn one<'a>(mut all: Vec<Piece<'a>>, several: impl FnOnce(Vec<Piece<'a>>) -> Piece<'a>) -> Piece<'a> {
    match all.pop() {
        Some(piece) if all.is_empty() => piece,
        Some(piece) => {
            all.push(piece);
            several(all)
        }
        None => Piece::Concat(Vec::new()),
    }
}
