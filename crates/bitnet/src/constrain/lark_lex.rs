//! The tokens of a grammar in Lark's notation, as the engine cuts them.

use serde_json::Value;

use super::ConstraintError;
use super::error::short;

/// A token; tokens that no measure needs are a [`Token::Mark`].
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Token<'a> {
    /// A rule or a terminal, without its modifiers (`!`, `?`).
    Name(&'a str),
    /// A text, decoded, and whether upper and lower case are the same in it.
    Text(String, bool),
    /// A pattern and its flags.
    Pattern(&'a str, &'a str),
    Number(&'a str),
    /// `%ignore`, `%import`, ...
    Keyword(&'a str),
    /// The value after `%json`, `%regex` or `%llguidance`.
    Json(Value),
    /// `@name`.
    At(&'a str),
    Newline,
    Mark(&'a str),
}

/// A token, and its position in the source.
#[derive(Clone, Debug)]
pub(super) struct Lexeme<'a> {
    pub(super) token: Token<'a>,
    pub(super) start: usize,
}

/// How a text is split into the pieces that may follow each other.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Pieces {
    Words,
    Chars,
}

/// `@name` in place of the text of a `%regex`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Hole<'a> {
    pub(super) name: &'a str,
    pub(super) pieces: Pieces,
    pub(super) start: usize,
    pub(super) end: usize,
}

/// All tokens of `source`, and the places in it for texts that are given later ([`super::template`]).
pub(super) fn lex(source: &str) -> Result<(Vec<Lexeme<'_>>, Vec<Hole<'_>>), ConstraintError> {
    let mut lexer = Lexer { source, at: 0 };
    let mut holes = Vec::new();
    let mut all = Vec::new();
    while let Some((token, start)) = lexer.next()? {
        let value = matches!(token, Token::Keyword("%json" | "%regex" | "%llguidance"));
        all.push(Lexeme { token, start });
        if value {
            let start = lexer.at;
            let token = match lexer.hole() {
                Some(hole) => {
                    holes.push(hole);
                    Token::Json(Value::Null)
                }
                None => Token::Json(lexer.json()?),
            };
            all.push(Lexeme { token, start });
        }
    }
    Ok((all, holes))
}

struct Lexer<'a> {
    source: &'a str,
    at: usize,
}

const MARKS: &[&str] =
    &["->", "..", "::", ":", ",", ".", "(", ")", "{", "}", "[", "]", "~", "|", "&", "=", "#", "_", "+", "*", "?"];

impl<'a> Lexer<'a> {
    fn rest(&self) -> &'a str {
        &self.source[self.at..]
    }

    fn wrong(&self, what: &str) -> ConstraintError {
        let line = 1 + self.source[..self.at].matches('\n').count();
        ConstraintError::grammar(format!("line {line} of the grammar: {what}"))
    }

    /// Goes on by the characters that `keep` accepts.
    fn take(&mut self, keep: impl Fn(char) -> bool) -> &'a str {
        let rest = self.rest();
        let end = rest.find(|c| !keep(c)).unwrap_or(rest.len());
        self.at += end;
        &rest[..end]
    }

    fn next(&mut self) -> Result<Option<(Token<'a>, usize)>, ConstraintError> {
        loop {
            self.take(|c| c == ' ' || c == '\t');
            if self.rest().starts_with('#') || self.rest().starts_with("//") {
                self.take(|c| c != '\n');
            } else {
                break;
            }
        }
        let start = self.at;
        let Some(first) = self.rest().chars().next() else { return Ok(None) };
        let after = |n: usize| self.rest().chars().nth(n);
        let token = match first {
            '\n' => {
                self.at += 1;
                Token::Newline
            }
            '\r' if after(1) == Some('\n') => {
                self.at += 2;
                Token::Newline
            }
            '"' => self.text()?,
            '/' => self.pattern()?,
            '%' => {
                self.at += 1;
                self.take(|c| c.is_ascii_alphabetic());
                Token::Keyword(&self.source[start..self.at])
            }
            '@' => {
                self.at += 1;
                let name = self.take(|c| c.is_ascii_alphanumeric() || c == '_' || c == '-');
                if name.is_empty() {
                    return Err(self.wrong("a name must follow `@`"));
                }
                Token::At(name)
            }
            '<' => {
                self.at += 1;
                self.take(|c| !c.is_whitespace() && c != '<' && c != '>');
                if !self.rest().starts_with('>') {
                    return Err(self.wrong("unterminated special token `<...>`"));
                }
                self.at += 1;
                Token::Mark("<")
            }
            c if c.is_ascii_digit() || ((c == '+' || c == '-') && after(1).is_some_and(|c| c.is_ascii_digit())) => {
                self.at += 1;
                if self.rest().starts_with(['x', 'X']) && c == '0' {
                    self.at += 1;
                    self.take(|c| c.is_ascii_hexdigit());
                } else {
                    self.number();
                }
                Token::Number(&self.source[start..self.at])
            }
            _ => match self.name() {
                Some(name) => Token::Name(name),
                None => {
                    let mark = MARKS.iter().find(|m| self.rest().starts_with(**m));
                    let Some(mark) = mark else {
                        return Err(self.wrong(&format!("unexpected {first:?}")));
                    };
                    self.at += mark.len();
                    Token::Mark(mark)
                }
            },
        };
        Ok(Some((token, start)))
    }

    /// Digits, a fraction, an exponent; `1..3` are two numbers.
    fn number(&mut self) {
        self.take(|c| c.is_ascii_digit());
        if self.rest().starts_with('.') && !self.rest().starts_with("..") {
            self.at += 1;
            self.take(|c| c.is_ascii_digit());
        }
        let exponent = self.rest().strip_prefix(['e', 'E']);
        if let Some(tail) = exponent {
            let digits = tail.strip_prefix(['+', '-']).unwrap_or(tail);
            if digits.starts_with(|c: char| c.is_ascii_digit()) {
                self.at += 1 + (tail.len() - digits.len());
                self.take(|c| c.is_ascii_digit());
            }
        }
    }

    /// `!?[_?]?[a-z][_a-z0-9-]*` or `_?[A-Z][_A-Z0-9-]*`.
    fn name(&mut self) -> Option<&'a str> {
        let rest = self.rest();
        let bare = rest.strip_prefix('!').unwrap_or(rest);
        let bare = bare.strip_prefix('?').unwrap_or(bare);
        let head = bare.strip_prefix('_').unwrap_or(bare).chars().next()?;
        let upper = match head {
            'A'..='Z' if bare.len() == rest.len() => true,
            'a'..='z' => false,
            _ => return None,
        };
        // One mark of the two before a name, and only an underscore before a terminal.
        if rest.starts_with('?') && bare.starts_with('_') {
            return None;
        }
        let keep = |c: char| {
            c == '_'
                || c == '-'
                || c.is_ascii_digit()
                || if upper { c.is_ascii_uppercase() } else { c.is_ascii_lowercase() }
        };
        let end = bare.find(|c| !keep(c)).unwrap_or(bare.len());
        self.at += rest.len() - bare.len() + end;
        Some(&bare[..end])
    }

    fn text(&mut self) -> Result<Token<'a>, ConstraintError> {
        let rest = self.rest();
        let mut end = None;
        let mut escaped = false;
        for (i, c) in rest.char_indices().skip(1) {
            match c {
                _ if escaped => escaped = false,
                '\\' => escaped = true,
                '"' => {
                    end = Some(i + 1);
                    break;
                }
                '\n' => break,
                _ => {}
            }
        }
        let Some(end) = end else { return Err(self.wrong("unterminated string")) };
        let json = rest[..end].replace("\\x", "\\u00");
        // Read like in the engine; two backslashes before an x would be three characters too many, which does not harm
        // a measure.
        let text = serde_json::from_str(&json).or_else(|_| serde_json::from_str(&rest[..end]));
        let text: String = text.map_err(|_| self.wrong(&format!("invalid string {}", short(&rest[..end]))))?;
        self.at += end;
        let any_case = self.rest().starts_with('i');
        self.at += usize::from(any_case);
        Ok(Token::Text(text, any_case))
    }

    fn pattern(&mut self) -> Result<Token<'a>, ConstraintError> {
        let rest = self.rest();
        let mut escaped = false;
        for (i, c) in rest.char_indices().skip(1) {
            match c {
                _ if escaped => escaped = false,
                '\\' => escaped = true,
                '/' => {
                    self.at += i + 1;
                    let flags = self.take(|c| "imslux".contains(c));
                    return Ok(Token::Pattern(&rest[1..i], flags));
                }
                _ => {}
            }
        }
        Err(self.wrong("unterminated pattern `/.../`"))
    }

    /// `{"substring_words": @NAME}`, which is not JSON.
    fn hole(&mut self) -> Option<Hole<'a>> {
        let source = self.source;
        let rest = self.rest().trim_start().strip_prefix('{')?.trim_start();
        let (pieces, rest) = [("\"substring_words\"", Pieces::Words), ("\"substring_chars\"", Pieces::Chars)]
            .into_iter()
            .find_map(|(key, pieces)| Some((pieces, rest.strip_prefix(key)?)))?;
        let rest = rest.trim_start().strip_prefix(':')?.trim_start();
        let name = rest.strip_prefix('@')?;
        let len = name.find(|c: char| !(c.is_ascii_alphanumeric() || c == '_' || c == '-')).unwrap_or(name.len());
        let after = name[len..].trim_start().strip_prefix('}').filter(|_| len > 0)?;
        let start = source.len() - rest.len();
        self.at = source.len() - after.len();
        Some(Hole { name: &name[..len], pieces, start, end: start + 1 + len })
    }

    fn json(&mut self) -> Result<Value, ConstraintError> {
        let mut stream = serde_json::Deserializer::from_str(self.rest()).into_iter::<Value>();
        let value = stream.next().ok_or_else(|| self.wrong("a value as JSON is missing"))?;
        let value = value.map_err(|e| self.wrong(&format!("invalid JSON: {e}")))?;
        self.at += stream.byte_offset();
        Ok(value)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_are_those_of_the_engine() {
        let source = "start: \"a\\\"b\"i A? ?x!y // no\n%ignore /[ \\/]+/s # no\nA: \"x\"{2,3} ~ 1..2 | %json {\"a\": [1]} @T <x> -> z";
        let tokens: Vec<Token<'_>> = lex(source).unwrap().0.into_iter().map(|l| l.token).collect();
        let mark = Token::Mark;
        assert_eq!(
            tokens,
            [
                Token::Name("start"),
                mark(":"),
                Token::Text("a\"b".into(), true),
                Token::Name("A"),
                mark("?"),
                Token::Name("x"),
                Token::Name("y"),
                Token::Newline,
                Token::Keyword("%ignore"),
                Token::Pattern("[ \\/]+", "s"),
                Token::Newline,
                Token::Name("A"),
                mark(":"),
                Token::Text("x".into(), false),
                mark("{"),
                Token::Number("2"),
                mark(","),
                Token::Number("3"),
                mark("}"),
                mark("~"),
                Token::Number("1"),
                mark(".."),
                Token::Number("2"),
                mark("|"),
                Token::Keyword("%json"),
                Token::Json(serde_json::json!({"a": [1]})),
                Token::At("T"),
                mark("<"),
                mark("->"),
                Token::Name("z"),
            ]
        );
        let source = "start: A\nA: %regex { \"substring_chars\" : @T-1 } | %regex {\"substring_words\":@T}";
        let holes = lex(source).unwrap().1;
        let at: Vec<&str> = holes.iter().map(|h| &source[h.start..h.end]).collect();
        assert_eq!((at, holes[1].pieces, holes[1].name), (vec!["@T-1", "@T"], Pieces::Words, "T"));
        for wrong in ["start: \"a", "start: /a", "start: $", "start: %json {", "start: <a b>", "start: @"] {
            assert!(lex(wrong).unwrap_err().to_string().contains("line 1"), "{wrong}");
        }
    }
}
