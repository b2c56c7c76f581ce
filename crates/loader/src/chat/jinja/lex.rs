//! Jinja's lexer, with `trim_blocks` and `lstrip_blocks` as transformers sets them.

use super::escape::unescape;

/// Python's `str.isspace` of one character.
pub(super) fn is_space(c: char) -> bool {
    c.is_whitespace() || ('\u{1c}'..='\u{1f}').contains(&c)
}

/// A problem in a source.
#[derive(Debug, Clone, PartialEq)]
pub(in super::super) enum Flaw {
    /// It is not Jinja.
    Syntax { line: usize, detail: String },
    /// Something is nested too deeply.
    Deep { line: usize, what: &'static str, limit: usize },
}

impl Flaw {
    pub(super) fn new(line: usize, detail: impl Into<String>) -> Self {
        Self::Syntax { line, detail: detail.into() }
    }
}

/// A token.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Token<'s> {
    /// Text between tags.
    Data(&'s str),
    VariableBegin,
    VariableEnd,
    BlockBegin,
    BlockEnd,
    Name(&'s str),
    Str(String),
    Int(i128),
    Float(f64),
    Op(&'static str),
    End,
}

impl Token<'_> {
    /// The name of the token in messages.
    pub(super) fn describe(&self) -> String {
        match self {
            Token::Data(_) => "template data / text".to_owned(),
            Token::VariableBegin => "begin of print statement".to_owned(),
            Token::VariableEnd => "end of print statement".to_owned(),
            Token::BlockBegin => "begin of statement block".to_owned(),
            Token::BlockEnd => "end of statement block".to_owned(),
            Token::Name(name) => cut(name),
            Token::Str(text) => cut(text),
            Token::Int(i) => i.to_string(),
            Token::Float(f) => f.to_string(),
            Token::Op(op) => (*op).to_owned(),
            Token::End => "end of template".to_owned(),
        }
    }
}

/// A part of the source that a message can show.
pub(super) fn cut(text: &str) -> String {
    shortened(text, 60)
}

/// The first characters of a text that is longer than so many.
pub(super) fn shortened(text: &str, most: usize) -> String {
    match text.char_indices().nth(most) {
        None => text.to_owned(),
        Some(_) => text.chars().take(most.saturating_sub(3)).chain("...".chars()).collect(),
    }
}

/// Line ends as Jinja reads them, and without the last one.
pub(super) fn normalized(source: &str) -> String {
    let mut text = source.replace("\r\n", "\n").replace('\r', "\n");
    if text.ends_with('\n') {
        text.pop();
    }
    text
}

/// The operators, the longest first.
const OPERATORS: &[&str] = &[
    "//", "**", "==", "!=", ">=", "<=", "+", "-", "/", "*", "%", "~", "[", "]", "(", ")", "{", "}", ">", "<", "=", ".",
    ":", "|", ",", ";",
];

#[derive(Debug, Clone, Copy, PartialEq)]
enum State {
    Root,
    Variable,
    Block,
}

/// Token after a piece of data.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Pending<'s> {
    Tag(State),
    /// The text of a raw block.
    Raw(&'s str),
}

/// Gives one token after the other.
#[derive(Debug)]
pub(super) struct Lexer<'s> {
    source: &'s str,
    position: usize,
    state: State,
    /// The token after the data given last.
    pending: Option<Pending<'s>>,
    /// The line of the position up to which lines are counted.
    line: usize,
    counted: usize,
    /// Closing brackets that are awaited.
    open: Vec<&'static str>,
}

impl<'s> Lexer<'s> {
    /// A lexer of a source that is [`normalized`].
    pub(super) fn new(source: &'s str) -> Self {
        Self { source, position: 0, state: State::Root, pending: None, line: 1, counted: 0, open: Vec::new() }
    }

    fn rest(&self) -> &'s str {
        self.source.get(self.position..).unwrap_or_default()
    }

    fn skip_space(&mut self) {
        let rest = self.rest();
        self.position += rest.len() - rest.trim_start_matches(is_space).len();
    }

    /// The line of the position.
    fn line(&mut self) -> usize {
        let passed = self.source.get(self.counted..self.position).unwrap_or_default();
        self.line += passed.bytes().filter(|b| *b == b'\n').count();
        self.counted = self.counted.max(self.position);
        self.line
    }

    /// The next token and its line.
    pub(super) fn next(&mut self) -> Result<(usize, Token<'s>), Flaw> {
        loop {
            let token = match (self.pending.take(), self.state) {
                (Some(Pending::Raw(text)), _) => Some(Token::Data(text)).filter(|_| !text.is_empty()),
                (Some(Pending::Tag(state)), _) => {
                    self.state = state;
                    Some(if state == State::Variable { Token::VariableBegin } else { Token::BlockBegin })
                }
                (None, State::Root) => self.root()?,
                (None, _) => self.inside()?,
            };
            if let Some(token) = token {
                return Ok((self.line(), token));
            }
        }
    }

    /// The data before a tag, without the white space that the tag strips.
    fn data_before(&self, text: &'s str, sign: &str, variable: bool, start: usize) -> &'s str {
        if sign == "-" {
            return text.trim_end_matches(is_space);
        }
        if sign.is_empty() && !variable {
            let line = text.rfind('\n').map_or(0, |at| at + 1);
            let starts = start == 0 || self.source.get(..start).is_some_and(|before| before.ends_with('\n'));
            let tail = text.get(line..).unwrap_or_default();
            if (line > 0 || starts) && tail.chars().all(is_space) {
                return text.get(..line).unwrap_or_default();
            }
        }
        text
    }

    /// Text up to the next tag; comments and raw blocks are dealt with here. `None`: ask again.
    fn root(&mut self) -> Result<Option<Token<'s>>, Flaw> {
        let (start, rest) = (self.position, self.rest());
        let tag =
            rest.match_indices('{').find(|(at, _)| matches!(rest.as_bytes().get(at + 1), Some(b'{' | b'%' | b'#')));
        let Some((at, _)) = tag else {
            self.position = self.source.len();
            return Ok(Some(if rest.is_empty() { Token::End } else { Token::Data(rest) }));
        };
        let (text, tag) = rest.split_at(at);
        let kind = tag.as_bytes().get(1).copied().unwrap_or_default();
        let sign = match tag.as_bytes().get(2) {
            Some(b'-') => "-",
            Some(b'+') => "+",
            _ => "",
        };
        let text = self.data_before(text, sign, kind == b'{', start);
        self.position = start + at + 2 + sign.len();
        match kind {
            b'{' => self.pending = Some(Pending::Tag(State::Variable)),
            b'#' => self.comment()?,
            _ => match self.raw_begin() {
                Some(body) => self.pending = Some(Pending::Raw(self.raw(body)?)),
                None => self.pending = Some(Pending::Tag(State::Block)),
            },
        }
        Ok((!text.is_empty()).then_some(Token::Data(text)))
    }

    /// Goes past the rest of a comment.
    fn comment(&mut self) -> Result<(), Flaw> {
        let rest = self.rest();
        let Some((comment, _)) = rest.split_once("#}") else {
            return Err(Flaw::new(self.line(), "Missing end of comment tag"));
        };
        self.position += comment.len() + 2;
        if comment.ends_with('-') {
            self.skip_space();
        } else if !comment.ends_with('+') && self.rest().starts_with('\n') {
            self.position += 1;
        }
        Ok(())
    }

    /// The beginning of the text of a raw block, if the current tag is `raw`.
    fn raw_begin(&self) -> Option<usize> {
        let rest = self.rest().trim_start_matches(is_space).strip_prefix("raw")?.trim_start_matches(is_space);
        let body = match rest.strip_prefix("-%}") {
            Some(body) => body.trim_start_matches(is_space),
            None => rest.strip_prefix("%}")?,
        };
        Some(self.source.len() - body.len())
    }

    /// The text of a raw block that begins there.
    fn raw(&mut self, body: usize) -> Result<&'s str, Flaw> {
        let text = self.source.get(body..).unwrap_or_default();
        for (at, _) in text.match_indices("{%") {
            let (before, tag) = text.split_at(at);
            let tag = tag.get(2..).unwrap_or_default();
            let sign = tag.get(..1).filter(|sign| ["-", "+"].contains(sign)).unwrap_or_default();
            let tag = tag.get(sign.len()..).unwrap_or_default().trim_start_matches(is_space);
            let Some(tag) = tag.strip_prefix("endraw") else { continue };
            let tag = tag.trim_start_matches(is_space);
            let rest = if let Some(rest) = tag.strip_prefix("-%}") {
                rest.trim_start_matches(is_space)
            } else if let Some(rest) = tag.strip_prefix("+%}") {
                rest
            } else if let Some(rest) = tag.strip_prefix("%}") {
                rest.strip_prefix('\n').unwrap_or(rest)
            } else {
                continue;
            };
            self.position = self.source.len() - rest.len();
            return Ok(self.data_before(before, sign, false, body));
        }
        Err(Flaw::new(self.line(), "Missing end of raw directive"))
    }

    /// A token inside of a tag; `None` for white space.
    fn inside(&mut self) -> Result<Option<Token<'s>>, Flaw> {
        if self.open.is_empty()
            && let Some(end) = self.tag_end()
        {
            self.state = State::Root;
            return Ok(Some(end));
        }
        let rest = self.rest();
        let Some(first) = rest.chars().next() else { return Ok(Some(Token::End)) };
        if is_space(first) {
            self.skip_space();
            return Ok(None);
        }
        if first.is_ascii_digit() {
            return self.number(rest).map(Some);
        }
        if first.is_alphanumeric() || first == '_' {
            let name = rest.split(|c: char| !c.is_alphanumeric() && c != '_').next().unwrap_or_default();
            self.position += name.len();
            if first.is_numeric() {
                return Err(Flaw::new(self.line(), "Invalid character in identifier"));
            }
            return Ok(Some(Token::Name(name)));
        }
        if first == '\'' || first == '"' {
            return self.string(rest, first).map(Some);
        }
        let Some(op) = OPERATORS.iter().find(|op| rest.starts_with(**op)) else {
            let line = self.line();
            return Err(Flaw::new(line, format!("unexpected char {first:?} at {}", self.position)));
        };
        self.brackets(op)?;
        self.position += op.len();
        Ok(Some(Token::Op(op)))
    }

    /// The end of the tag, if it is here.
    fn tag_end(&mut self) -> Option<Token<'s>> {
        let rest = self.rest();
        let (end, token) = match self.state {
            State::Variable => ("}}", Token::VariableEnd),
            _ => ("%}", Token::BlockEnd),
        };
        if let Some(after) = rest.strip_prefix('-').and_then(|rest| rest.strip_prefix(end)) {
            self.position += rest.len() - after.len();
            self.skip_space();
            return Some(token);
        }
        let block = self.state == State::Block;
        if block && let Some(after) = rest.strip_prefix('+').and_then(|rest| rest.strip_prefix(end)) {
            self.position += rest.len() - after.len();
            return Some(token);
        }
        let after = rest.strip_prefix(end)?;
        self.position += end.len() + usize::from(block && after.starts_with('\n'));
        Some(token)
    }

    fn brackets(&mut self, op: &'static str) -> Result<(), Flaw> {
        match op {
            "{" => self.open.push("}"),
            "(" => self.open.push(")"),
            "[" => self.open.push("]"),
            "}" | ")" | "]" => match self.open.pop() {
                None => return Err(Flaw::new(self.line(), format!("unexpected '{op}'"))),
                Some(expected) if expected != op => {
                    return Err(Flaw::new(self.line(), format!("unexpected '{op}', expected '{expected}'")));
                }
                Some(_) => {}
            },
            _ => {}
        }
        Ok(())
    }

    fn string(&mut self, rest: &'s str, quote: char) -> Result<Token<'s>, Flaw> {
        let mut escaped = false;
        for (at, c) in rest.char_indices().skip(1) {
            if escaped {
                escaped = false;
            } else if c == '\\' {
                escaped = true;
            } else if c == quote {
                let line = self.line();
                self.position += at + 1;
                let text = rest.get(1..at).unwrap_or_default();
                return unescape(text).map(Token::Str).map_err(|detail| Flaw::new(line, detail));
            }
        }
        let line = self.line();
        Err(Flaw::new(line, format!("unexpected char {quote:?} at {}", self.position)))
    }

    fn number(&mut self, rest: &'s str) -> Result<Token<'s>, Flaw> {
        let line = self.line();
        let float =
            self.source.get(..self.position).is_none_or(|before| !before.ends_with('.')).then(|| float_len(rest));
        if let Some(Some(length)) = float {
            self.position += length;
            let digits = rest.get(..length).unwrap_or_default().replace('_', "");
            return digits.parse().map(Token::Float).map_err(|_| Flaw::new(line, "not a number"));
        }
        let (length, radix) = int_len(rest);
        self.position += length;
        let digits = rest.get(if radix == 10 { 0 } else { 2 }..length).unwrap_or_default().replace('_', "");
        let value = i128::from_str_radix(&digits, radix);
        value.map(Token::Int).map_err(|_| Flaw::new(line, format!("the number {} is too large", cut(&digits))))
    }
}

/// The length of digits with single underscores between them.
fn digits_len(text: &str, digit: impl Fn(u8) -> bool) -> usize {
    let (mut length, bytes) = (0, text.as_bytes());
    loop {
        let next = length + usize::from(length > 0 && bytes.get(length) == Some(&b'_'));
        match bytes.get(next) {
            Some(b) if digit(*b) => length = next + 1,
            _ => return length,
        }
    }
}

/// The length of a float at the beginning of a text.
fn float_len(text: &str) -> Option<usize> {
    let digits = |text: &str| digits_len(text, |b| b.is_ascii_digit());
    let from = |at: usize| text.get(at..).unwrap_or_default();
    let whole = digits(text);
    let fraction = from(whole).strip_prefix('.').map(digits).filter(|length| *length > 0);
    let mantissa = whole + fraction.map_or(0, |length| length + 1);
    let exponent = from(mantissa).strip_prefix(['e', 'E']).and_then(|tail| {
        let sign = usize::from(tail.starts_with(['+', '-']));
        let length = digits(tail.get(sign..).unwrap_or_default());
        (length > 0).then_some(1 + sign + length)
    });
    match (fraction, exponent) {
        (None, None) => None,
        (_, exponent) => Some(mantissa + exponent.unwrap_or(0)),
    }
}

/// The length of an integer at the beginning of a text, and its base.
fn int_len(text: &str) -> (usize, u32) {
    let prefixed = |letter: char, radix: u32| {
        let rest = text.strip_prefix('0')?.strip_prefix([letter, letter.to_ascii_uppercase()])?;
        let skipped = usize::from(rest.starts_with('_'));
        let length = digits_len(rest.get(skipped..).unwrap_or_default(), |b| char::from(b).is_digit(radix));
        (length > 0).then_some((2 + skipped + length, radix))
    };
    let based = prefixed('b', 2).or_else(|| prefixed('o', 8)).or_else(|| prefixed('x', 16));
    based.unwrap_or_else(|| match text.starts_with('0') {
        true => (digits_len(text, |b| b == b'0'), 10),
        false => (digits_len(text, |b| b.is_ascii_digit()), 10),
    })
}
