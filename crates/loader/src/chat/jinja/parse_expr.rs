//! Expressions. Operators of one precedence become one flat node, however many there are, so only brackets,
//! `else` values and blocks nest.

use super::MAX_NESTING;
use super::ast::{Args, BinOp, CmpOp, Expr, ExprId, Literal, Post};
use super::lex::{Flaw, Token};
use super::parse::{P, Parser};

type Posts = Vec<(u32, Post)>;

/// Operators of one precedence.
type Operators = &'static [(&'static str, BinOp)];
const SUMS: Operators = &[("+", BinOp::Add), ("-", BinOp::Sub)];
const PRODUCTS: Operators = &[("*", BinOp::Mul), ("/", BinOp::Div), ("//", BinOp::FloorDiv), ("%", BinOp::Mod)];
const POWERS: Operators = &[("**", BinOp::Pow)];
const COMPARISONS: &[(&str, CmpOp)] =
    &[("==", CmpOp::Eq), ("!=", CmpOp::Ne), ("<", CmpOp::Lt), ("<=", CmpOp::Le), (">", CmpOp::Gt), (">=", CmpOp::Ge)];

impl<'s> Parser<'s> {
    /// An expression, or several as a tuple. `end` is a name that ends it.
    pub(super) fn tuple(&mut self, with_cond: bool, end: Option<&str>, explicit: bool) -> P<ExprId> {
        let (mut items, mut is_tuple) = (Vec::new(), false);
        loop {
            if !items.is_empty() {
                self.expect_op(",")?;
            }
            let over = matches!(self.token, Token::VariableEnd | Token::BlockEnd) || self.is_op(")");
            if over || end.is_some_and(|end| self.is_name(end)) {
                break;
            }
            items.push(if with_cond { self.expression()? } else { self.deeper(Self::or)? });
            if !self.is_op(",") {
                break;
            }
            is_tuple = true;
        }
        match items.as_slice() {
            [only] if !is_tuple => Ok(*only),
            [] if !explicit => Err(self.flaw(format!("Expected an expression, got '{}'", self.token.describe()))),
            _ => Ok(self.expr(Expr::Tuple(items.into()))),
        }
    }

    /// An expression, one level deeper than its parent.
    pub(super) fn expression(&mut self) -> P<ExprId> {
        self.deeper(Self::cond)
    }

    fn cond(&mut self) -> P<ExprId> {
        let (mut arms, mut wraps) = (Vec::new(), 0);
        let mut value = self.or()?;
        while self.skip_name("if")? {
            arms.push((value, self.or()?));
            if self.skip_name("else")? {
                value = self.or()?;
                continue;
            }
            // Without `else` the whole expression becomes the value of what follows.
            wraps += 1;
            if wraps > MAX_NESTING {
                let what = "conditions without else";
                return Err(Flaw::Deep { line: self.line, what, limit: MAX_NESTING });
            }
            let arms = std::mem::take(&mut arms).into();
            value = self.expr(Expr::Cond { arms, otherwise: None });
        }
        if arms.is_empty() {
            return Ok(value);
        }
        Ok(self.expr(Expr::Cond { arms: arms.into(), otherwise: Some(value) }))
    }

    fn or(&mut self) -> P<ExprId> {
        let first = self.and()?;
        if !self.is_name("or") {
            return Ok(first);
        }
        let mut items = vec![first];
        while self.skip_name("or")? {
            items.push(self.and()?);
        }
        Ok(self.expr(Expr::Or(items.into())))
    }

    fn and(&mut self) -> P<ExprId> {
        let first = self.not()?;
        if !self.is_name("and") {
            return Ok(first);
        }
        let mut items = vec![first];
        while self.skip_name("and")? {
            items.push(self.not()?);
        }
        Ok(self.expr(Expr::And(items.into())))
    }

    fn not(&mut self) -> P<ExprId> {
        let mut count = 0_usize;
        while self.skip_name("not")? {
            count += 1;
        }
        let mut value = self.compare()?;
        // Two of them do not cancel out: they make a truth value of any value.
        for _ in 0..if count == 0 { 0 } else { 2 - count % 2 } {
            value = self.expr(Expr::Not(value));
        }
        Ok(value)
    }

    fn compare(&mut self) -> P<ExprId> {
        let first = self.binary(SUMS)?;
        let mut rest = Vec::new();
        loop {
            let symbol = COMPARISONS.iter().find(|(symbol, _)| self.is_op(symbol)).map(|(_, op)| *op);
            let op = if let Some(op) = symbol {
                op
            } else if self.is_name("in") {
                CmpOp::In
            } else if self.is_name("not") && matches!(self.peek()?, Token::Name("in")) {
                self.advance()?;
                CmpOp::NotIn
            } else {
                break;
            };
            self.advance()?;
            rest.push((op, self.binary(SUMS)?));
        }
        if rest.is_empty() {
            return Ok(first);
        }
        Ok(self.expr(Expr::Compare(first, rest.into())))
    }

    /// Sums of concatenations of products of powers.
    fn binary(&mut self, operators: Operators) -> P<ExprId> {
        let first = self.operand(operators)?;
        let mut rest = Vec::new();
        while let Some((_, op)) = operators.iter().find(|(symbol, _)| self.is_op(symbol)) {
            self.advance()?;
            rest.push((*op, self.operand(operators)?));
        }
        if rest.is_empty() {
            return Ok(first);
        }
        Ok(self.expr(Expr::Arith(first, rest.into())))
    }

    fn operand(&mut self, operators: Operators) -> P<ExprId> {
        match operators.first().map(|(_, op)| *op) {
            Some(BinOp::Add) => self.concat(),
            Some(BinOp::Mul) => self.binary(POWERS),
            _ => self.signed(true),
        }
    }

    fn concat(&mut self) -> P<ExprId> {
        let first = self.binary(PRODUCTS)?;
        if !self.is_op("~") {
            return Ok(first);
        }
        let mut items = vec![first];
        while self.skip_op("~")? {
            items.push(self.binary(PRODUCTS)?);
        }
        Ok(self.expr(Expr::Concat(items.into())))
    }

    /// A primary with its signs and suffixes.
    fn signed(&mut self, with_filters: bool) -> P<ExprId> {
        let (mut signs, mut minus) = (0_u32, 0_u32);
        while self.is_op("-") || self.is_op("+") {
            signs += 1;
            minus += u32::from(self.is_op("-"));
            self.advance()?;
        }
        let mut value = self.primary()?;
        let mut posts = Posts::new();
        self.postfix(&mut posts)?;
        if signs > 0 {
            value = self.with_posts(value, std::mem::take(&mut posts));
            value = self.expr(Expr::Sign { minus, of: value });
        }
        if with_filters {
            self.filter_chain(&mut posts)?;
        }
        Ok(self.with_posts(value, posts))
    }

    fn with_posts(&mut self, value: ExprId, posts: Posts) -> ExprId {
        if posts.is_empty() { value } else { self.expr(Expr::Postfix(value, posts.into())) }
    }

    fn primary(&mut self) -> P<ExprId> {
        let line = self.line;
        let expr = match self.advance()? {
            Token::Name("true" | "True") => Expr::Literal(Literal::Bool(true)),
            Token::Name("false" | "False") => Expr::Literal(Literal::Bool(false)),
            Token::Name("none" | "None") => Expr::Literal(Literal::None),
            Token::Name(name) => {
                self.note_special(name);
                Expr::Name(self.name_id(name))
            }
            Token::Str(mut text) => {
                while let Token::Str(more) = &self.token {
                    text.push_str(more);
                    self.advance()?;
                }
                Expr::Literal(Literal::Str(self.text(&text)))
            }
            Token::Int(i) => Expr::Literal(Literal::Int(i)),
            Token::Float(f) => Expr::Literal(Literal::Float(f)),
            Token::Op("(") => {
                let value = self.tuple(true, None, true)?;
                self.expect_op(")")?;
                return Ok(value);
            }
            Token::Op("[") => Expr::List(self.list()?.into()),
            Token::Op("{") => self.dict()?,
            other => return Err(Flaw::new(line, format!("unexpected '{}'", other.describe()))),
        };
        Ok(self.expr(expr))
    }

    fn list(&mut self) -> P<Vec<ExprId>> {
        let mut items = Vec::new();
        while !self.is_op("]") {
            if !items.is_empty() {
                self.expect_op(",")?;
                if self.is_op("]") {
                    break;
                }
            }
            items.push(self.expression()?);
        }
        self.expect_op("]")?;
        Ok(items)
    }

    fn dict(&mut self) -> P<Expr> {
        let mut items = Vec::new();
        while !self.is_op("}") {
            if !items.is_empty() {
                self.expect_op(",")?;
                if self.is_op("}") {
                    break;
                }
            }
            let key = self.expression()?;
            self.expect_op(":")?;
            items.push((key, self.expression()?));
        }
        self.expect_op("}")?;
        Ok(Expr::Dict(items.into()))
    }

    /// Attributes, items and calls.
    fn postfix(&mut self, posts: &mut Posts) -> P<()> {
        loop {
            let line = self.line as u32;
            let post = if self.skip_op(".")? {
                match self.advance()? {
                    Token::Name(name) => Post::Attr(self.name_id(name)),
                    Token::Int(i) => Post::Item(self.expr(Expr::Literal(Literal::Int(i)))),
                    _ => return Err(Flaw::new(line as usize, "expected name or number")),
                }
            } else if self.skip_op("[")? {
                self.subscript()?
            } else if self.is_op("(") {
                Post::Call(Box::new(self.args()?))
            } else {
                return Ok(());
            };
            posts.push((line, post));
        }
    }

    /// Parses the contents of brackets: an item, a slice, or several as a tuple.
    fn subscript(&mut self) -> P<Post> {
        let mut items = Vec::new();
        while !self.is_op("]") {
            if !items.is_empty() {
                self.expect_op(",")?;
            }
            if !self.is_op(":") {
                let item = self.expression()?;
                if !self.is_op(":") {
                    items.push(item);
                    continue;
                }
                if items.is_empty() {
                    return self.slice(Some(item));
                }
            } else if items.is_empty() {
                return self.slice(None);
            }
            return Err(self.flaw("slices in a tuple of subscripts are not supported"));
        }
        self.expect_op("]")?;
        Ok(Post::Item(match items.as_slice() {
            [only] => *only,
            _ => self.expr(Expr::Tuple(items.into())),
        }))
    }

    /// A slice after its first part, up to the bracket.
    fn slice(&mut self, start: Option<ExprId>) -> P<Post> {
        let mut parts = [start, None, None];
        for part in parts.iter_mut().skip(1) {
            if !self.skip_op(":")? {
                break;
            }
            if !self.is_op(":") && !self.is_op("]") {
                *part = Some(self.expression()?);
            }
        }
        self.expect_op("]")?;
        Ok(Post::Slice(parts))
    }

    /// Arguments in parentheses.
    fn args(&mut self) -> P<Args> {
        let mut args = Args::default();
        let line = self.line;
        let ensure = |holds: bool| match holds {
            true => Ok(()),
            false => Err(Flaw::new(line, "invalid syntax for function call expression")),
        };
        self.expect_op("(")?;
        let mut first = true;
        while !self.is_op(")") {
            if !std::mem::take(&mut first) {
                self.expect_op(",")?;
                if self.is_op(")") {
                    break;
                }
            }
            if self.skip_op("*")? {
                ensure(args.star.is_none() && args.stars.is_none())?;
                args.star = Some(self.expression()?);
            } else if self.skip_op("**")? {
                ensure(args.stars.is_none())?;
                args.stars = Some(self.expression()?);
            } else if let Token::Name(name) = self.token
                && matches!(self.peek()?, Token::Op("="))
            {
                ensure(args.stars.is_none())?;
                self.advance()?;
                self.advance()?;
                let id = self.name_id(name);
                args.named.push((id, self.expression()?));
            } else {
                ensure(args.star.is_none() && args.stars.is_none() && args.named.is_empty())?;
                args.positional.push(self.expression()?);
            }
        }
        self.expect_op(")")?;
        Ok(args)
    }

    /// Filters, tests and calls.
    fn filter_chain(&mut self, posts: &mut Posts) -> P<()> {
        loop {
            let line = self.line as u32;
            let post = if self.skip_op("|")? {
                self.filter()?
            } else if self.skip_name("is")? {
                self.test()?
            } else if self.is_op("(") {
                Post::Call(Box::new(self.args()?))
            } else {
                return Ok(());
            };
            posts.push((line, post));
        }
    }

    /// The filters of a `set` or `filter` block; the first one of the latter has no bar.
    pub(super) fn filters(&mut self, inline: bool) -> P<Box<[(u32, Post)]>> {
        let mut posts = Posts::new();
        if inline {
            posts.push((self.line as u32, self.filter()?));
        }
        while self.skip_op("|")? {
            posts.push((self.line as u32, self.filter()?));
        }
        Ok(posts.into())
    }

    fn filter(&mut self) -> P<Post> {
        let name = self.expect_name()?;
        if self.is_op(".") {
            return Err(self.flaw(format!("No filter named '{name}.'")));
        }
        let args = if self.is_op("(") { self.args()? } else { Args::default() };
        Ok(Post::Filter(self.name_id(name), Box::new(args)))
    }

    fn test(&mut self) -> P<Post> {
        let negated = self.skip_name("not")?;
        let name = self.expect_name()?;
        let id = self.name_id(name);
        let starts_value = match &self.token {
            Token::Name("is") => return Err(self.flaw("You cannot chain multiple tests with is")),
            Token::Name(name) => !["else", "or", "and"].contains(name),
            Token::Str(_) | Token::Int(_) | Token::Float(_) => true,
            Token::Op(op) => ["[", "{"].contains(op),
            _ => false,
        };
        let args = if self.is_op("(") {
            self.args()?
        } else if starts_value {
            let value = self.primary()?;
            let mut posts = Posts::new();
            self.postfix(&mut posts)?;
            Args { positional: vec![self.with_posts(value, posts)], ..Args::default() }
        } else {
            Args::default()
        };
        Ok(Post::Test { name: id, args: Box::new(args), negated })
    }

    /// Whether an expression is a call.
    pub(super) fn ends_in_call(&self, expr: ExprId) -> bool {
        matches!(self.program.exprs.get(expr as usize), Some(Expr::Postfix(_, posts)) if matches!(posts.last(), Some((_, Post::Call(_)))))
    }
}
