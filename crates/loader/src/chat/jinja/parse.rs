//! Statements. Follows Jinja's own parser, so that it accepts and rejects the same templates.

use std::collections::HashMap;

use super::MAX_NESTING;
use super::ast::{Block, Expr, ExprId, For, Literal, MacroDecl, NameId, Program, Stmt, StmtId, Target};
use super::lex::{Flaw, Lexer, Token, cut};

/// Result of parsing.
pub(super) type P<T> = Result<T, Flaw>;

pub(super) struct Parser<'s> {
    lexer: Lexer<'s>,
    pub(super) token: Token<'s>,
    pub(super) line: usize,
    ahead: Option<(usize, Token<'s>)>,
    pub(super) program: Program,
    names: HashMap<&'s str, NameId>,
    depth: usize,
    /// Loops around this place that `break` can leave.
    loops: usize,
    /// Macros around this place: whether they name `varargs`, `kwargs`, `caller`.
    special: Vec<[bool; 3]>,
}

/// Compiles a normalized source.
pub(super) fn parse(source: &str) -> P<Program> {
    let mut lexer = Lexer::new(source);
    let (line, token) = lexer.next()?;
    let mut parser = Parser {
        lexer,
        token,
        line,
        ahead: None,
        program: Program::default(),
        names: HashMap::new(),
        depth: 0,
        loops: 0,
        special: Vec::new(),
    };
    parser.program.root = parser.block(&[])?;
    Ok(parser.program)
}

impl<'s> Parser<'s> {
    /// Goes on by one token and gives the one before.
    pub(super) fn advance(&mut self) -> P<Token<'s>> {
        let (line, token) = match self.ahead.take() {
            Some(next) => next,
            None => self.lexer.next()?,
        };
        self.line = line;
        Ok(std::mem::replace(&mut self.token, token))
    }

    pub(super) fn peek(&mut self) -> P<&Token<'s>> {
        let next = match self.ahead.take() {
            Some(next) => next,
            None => self.lexer.next()?,
        };
        Ok(&self.ahead.insert(next).1)
    }

    pub(super) fn is_op(&self, op: &str) -> bool {
        matches!(self.token, Token::Op(known) if known == op)
    }

    pub(super) fn is_name(&self, name: &str) -> bool {
        matches!(self.token, Token::Name(known) if known == name)
    }

    pub(super) fn skip_op(&mut self, op: &str) -> P<bool> {
        let found = self.is_op(op);
        if found {
            self.advance()?;
        }
        Ok(found)
    }

    pub(super) fn skip_name(&mut self, name: &str) -> P<bool> {
        let found = self.is_name(name);
        if found {
            self.advance()?;
        }
        Ok(found)
    }

    pub(super) fn flaw(&self, detail: impl Into<String>) -> Flaw {
        Flaw::new(self.line, detail)
    }

    fn unexpected(&self, expected: &str) -> Flaw {
        match self.token {
            Token::End => self.flaw(format!("unexpected end of template, expected '{expected}'")),
            _ => self.flaw(format!("expected token '{expected}', got '{}'", self.token.describe())),
        }
    }

    pub(super) fn expect_op(&mut self, op: &str) -> P<()> {
        if self.skip_op(op)? { Ok(()) } else { Err(self.unexpected(op)) }
    }

    pub(super) fn expect_name(&mut self) -> P<&'s str> {
        let Token::Name(name) = self.token else { return Err(self.unexpected("name")) };
        self.advance()?;
        Ok(name)
    }

    fn expect(&mut self, token: &Token<'static>) -> P<()> {
        if self.token != *token {
            return Err(self.unexpected(&token.describe()));
        }
        self.advance()?;
        Ok(())
    }

    /// Parses an item that is nested one level deeper.
    pub(super) fn deeper<T>(&mut self, parse: impl FnOnce(&mut Self) -> P<T>) -> P<T> {
        if self.depth >= MAX_NESTING {
            let what = "brackets and blocks";
            return Err(Flaw::Deep { line: self.line, what, limit: MAX_NESTING });
        }
        self.depth += 1;
        let result = parse(self);
        self.depth -= 1;
        result
    }

    pub(super) fn name_id(&mut self, name: &'s str) -> NameId {
        let next = self.program.names.len() as NameId;
        let id = *self.names.entry(name).or_insert(next);
        if id == next {
            self.program.names.push(name.into());
        }
        id
    }

    pub(super) fn text(&mut self, text: &str) -> u32 {
        self.program.texts.push(text.into());
        self.program.texts.len() as u32 - 1
    }

    pub(super) fn expr(&mut self, expr: Expr) -> ExprId {
        self.program.exprs.push(expr);
        self.program.exprs.len() as ExprId - 1
    }

    /// Notes that a macro's body looks at one of its special names.
    pub(super) fn note_special(&mut self, name: &str) {
        let Some(at) = ["varargs", "kwargs", "caller"].iter().position(|special| *special == name) else { return };
        for flags in &mut self.special {
            if let Some(flag) = flags.get_mut(at) {
                *flag = true;
            }
        }
    }

    /// Statements up to one of these tags, whose name is then the current token; up to the end if no tags are given.
    fn block(&mut self, ends: &[&str]) -> P<Block> {
        let mut body = Vec::new();
        loop {
            let line = self.line as u32;
            let stmt = match self.token {
                Token::Data(data) => {
                    self.advance()?;
                    Stmt::Data(self.text(data))
                }
                Token::VariableBegin => {
                    self.advance()?;
                    let value = self.tuple(true, None, false)?;
                    self.expect(&Token::VariableEnd)?;
                    Stmt::Print(Box::new([value]))
                }
                Token::BlockBegin => {
                    self.advance()?;
                    if ends.iter().any(|end| self.is_name(end)) {
                        return Ok(body.into());
                    }
                    let stmt = self.deeper(|parser| parser.statement(ends))?;
                    self.expect(&Token::BlockEnd)?;
                    stmt
                }
                _ if ends.is_empty() => return Ok(body.into()),
                _ => {
                    let wanted = ends.join("' or '");
                    return Err(self.flaw(format!("unexpected end of template; Jinja was looking for '{wanted}'")));
                }
            };
            body.push(self.program.stmts.len() as StmtId);
            self.program.stmts.push((line, stmt));
        }
    }

    /// The body of a statement, up to one of these tags.
    fn body(&mut self, ends: &[&str]) -> P<Block> {
        self.skip_op(":")?;
        self.expect(&Token::BlockEnd)?;
        self.block(ends)
    }

    /// The body of a statement with one end, which is passed.
    fn whole_body(&mut self, end: &str) -> P<Block> {
        let body = self.body(&[end])?;
        self.advance()?;
        Ok(body)
    }

    /// Like [`Self::whole_body`], for bodies that cannot leave outer loops.
    fn closed_body(&mut self, end: &str) -> P<Block> {
        let loops = std::mem::take(&mut self.loops);
        let body = self.whole_body(end);
        self.loops = loops;
        body
    }

    fn statement(&mut self, ends: &[&str]) -> P<Stmt> {
        let Token::Name(tag) = self.token else { return Err(self.flaw("tag name expected")) };
        let line = self.line;
        self.advance()?;
        Ok(match tag {
            "if" => self.if_()?,
            "for" => self.for_()?,
            "set" => self.set()?,
            "with" => self.with()?,
            "macro" => self.macro_()?,
            "call" => self.call()?,
            "filter" => {
                let filters = self.filters(true)?;
                Stmt::Filter { filters, body: self.whole_body("endfilter")? }
            }
            "block" => self.named_block()?,
            "print" => self.print()?,
            "generation" => Stmt::Scope(self.closed_body("endgeneration")?),
            "autoescape" => {
                let on = self.expression()?;
                if !matches!(self.program.exprs.get(on as usize), Some(Expr::Literal(Literal::Bool(false)))) {
                    return Err(Flaw::new(line, "autoescape is not supported: a prompt is not HTML"));
                }
                Stmt::Scope(self.whole_body("endautoescape")?)
            }
            "break" | "continue" if self.loops == 0 => {
                return Err(Flaw::new(line, format!("'{tag}' outside of a loop")));
            }
            "break" => Stmt::Break,
            "continue" => Stmt::Continue,
            "include" | "import" | "from" | "extends" => {
                while !matches!(self.token, Token::BlockEnd | Token::End) {
                    self.advance()?;
                }
                Stmt::Loader
            }
            unknown => {
                let mut detail = format!("unknown tag '{}'", cut(unknown));
                if !ends.is_empty() {
                    detail.push_str(&format!("; Jinja was looking for '{}'", ends.join("' or '")));
                }
                return Err(Flaw::new(line, detail));
            }
        })
    }

    fn if_(&mut self) -> P<Stmt> {
        let mut branches = Vec::new();
        loop {
            let test = self.tuple(false, None, false)?;
            branches.push((test, self.body(&["elif", "else", "endif"])?));
            match self.advance()? {
                Token::Name("elif") => {}
                Token::Name("else") => {
                    let otherwise = self.whole_body("endif")?;
                    return Ok(Stmt::If { branches: branches.into(), otherwise });
                }
                _ => return Ok(Stmt::If { branches: branches.into(), otherwise: Box::default() }),
            }
        }
    }

    fn for_(&mut self) -> P<Stmt> {
        let target = self.target(false)?;
        if !self.skip_name("in")? {
            return Err(self.unexpected("in"));
        }
        let iter = self.tuple(false, Some("recursive"), false)?;
        let test = if self.skip_name("if")? { Some(self.expression()?) } else { None };
        let recursive = self.skip_name("recursive")?;
        self.loops += 1;
        let body = self.body(&["endfor", "else"]);
        self.loops -= 1;
        let body = body?;
        let otherwise = match self.advance()? {
            Token::Name("else") => self.whole_body("endfor")?,
            _ => Box::default(),
        };
        Ok(Stmt::For(Box::new(For { target, iter, test, recursive, body, otherwise })))
    }

    fn set(&mut self) -> P<Stmt> {
        let target = self.target(true)?;
        if self.skip_op("=")? {
            return Ok(Stmt::Set(target, self.tuple(true, None, false)?));
        }
        let filters = self.filters(false)?;
        Ok(Stmt::SetBlock { target, filters, body: self.whole_body("endset")? })
    }

    fn with(&mut self) -> P<Stmt> {
        let mut targets = Vec::new();
        while self.token != Token::BlockEnd {
            if !targets.is_empty() {
                self.expect_op(",")?;
            }
            let target = self.target_atom(false)?;
            self.expect_op("=")?;
            targets.push((target, self.expression()?));
        }
        Ok(Stmt::With { targets: targets.into(), body: self.whole_body("endwith")? })
    }

    fn signature(&mut self) -> P<Vec<(NameId, Option<ExprId>)>> {
        let mut params = Vec::new();
        self.expect_op("(")?;
        while !self.is_op(")") {
            if !params.is_empty() {
                self.expect_op(",")?;
            }
            let name = self.expect_name()?;
            let id = self.name_id(name);
            let default = if self.skip_op("=")? { Some(self.expression()?) } else { None };
            if default.is_none() && params.last().is_some_and(|(_, default): &(_, Option<ExprId>)| default.is_some()) {
                return Err(self.flaw("non-default argument follows default argument"));
            }
            params.push((id, default));
        }
        self.expect_op(")")?;
        Ok(params)
    }

    /// The body of a macro that has these parameters.
    fn macro_body(&mut self, name: &'s str, params: Vec<(NameId, Option<ExprId>)>, end: &str) -> P<usize> {
        self.special.push([false; 3]);
        let body = self.closed_body(end);
        let [varargs, kwargs, caller] = self.special.pop().unwrap_or_default();
        let name_id = (!name.is_empty()).then(|| self.name_id(name));
        let body = body?;
        self.program.macros.push(MacroDecl { name: name.into(), name_id, params, body, varargs, kwargs, caller });
        Ok(self.program.macros.len() - 1)
    }

    fn macro_(&mut self) -> P<Stmt> {
        let name = self.expect_name()?;
        let params = self.signature()?;
        Ok(Stmt::Macro(self.macro_body(name, params, "endmacro")?))
    }

    fn call(&mut self) -> P<Stmt> {
        let params = if self.is_op("(") { self.signature()? } else { Vec::new() };
        let line = self.line;
        let call = self.expression()?;
        if !self.ends_in_call(call) {
            return Err(Flaw::new(line, "expected call"));
        }
        Ok(Stmt::Call { call, caller: self.macro_body("", params, "endcall")? })
    }

    fn named_block(&mut self) -> P<Stmt> {
        let name = self.expect_name()?;
        let scoped = self.skip_name("scoped")?;
        self.skip_name("required")?;
        let body = self.closed_body("endblock")?;
        self.skip_name(name)?;
        Ok(Stmt::Block { scoped, body })
    }

    fn print(&mut self) -> P<Stmt> {
        let mut values = Vec::new();
        while self.token != Token::BlockEnd {
            if !values.is_empty() {
                self.expect_op(",")?;
            }
            values.push(self.expression()?);
        }
        Ok(Stmt::Print(values.into()))
    }

    /// Parses the target of an assignment; several, separated by commas, are a tuple.
    fn target(&mut self, with_namespace: bool) -> P<Target> {
        let first = self.target_atom(with_namespace)?;
        if !self.is_op(",") {
            return Ok(first);
        }
        let mut targets = vec![first];
        while self.skip_op(",")? {
            if matches!(self.token, Token::BlockEnd) || self.is_op(")") || self.is_op("=") || self.is_name("in") {
                break;
            }
            targets.push(self.target_atom(with_namespace)?);
        }
        Ok(Target::Tuple(targets))
    }

    fn target_atom(&mut self, with_namespace: bool) -> P<Target> {
        if self.skip_op("(")? {
            let target = self.deeper(|parser| parser.target(with_namespace))?;
            self.expect_op(")")?;
            return Ok(target);
        }
        let name = self.expect_name()?;
        if ["true", "false", "none", "True", "False", "None"].contains(&name) {
            return Err(self.flaw("can't assign to 'const'"));
        }
        let id = self.name_id(name);
        if with_namespace && self.skip_op(".")? {
            let attr = self.expect_name()?;
            return Ok(Target::Attr(id, self.name_id(attr)));
        }
        Ok(Target::Name(id))
    }
}
