//! A compiled template. Nodes are in vectors and name each other by number, and chains are flat, so that neither
//! walking past one nor dropping it goes deeper than the nesting that the parser allows.

use std::sync::Arc;

/// The number of an expression.
pub(super) type ExprId = u32;
/// The number of a statement.
pub(super) type StmtId = u32;
/// The number of a name.
pub(super) type NameId = u32;
/// Statements one after the other.
pub(super) type Block = Box<[StmtId]>;

/// A whole template.
#[derive(Default)]
pub(in super::super) struct Program {
    pub(super) exprs: Vec<Expr>,
    pub(super) stmts: Vec<(u32, Stmt)>,
    pub(super) names: Vec<Arc<str>>,
    pub(super) macros: Vec<MacroDecl>,
    /// String literals and data.
    pub(super) texts: Vec<Box<str>>,
    pub(super) root: Block,
    /// The name `loop`, if the template uses it.
    pub(super) loop_name: Option<NameId>,
    /// A name for ids that were not given out.
    pub(super) empty: Arc<str>,
}

impl std::fmt::Debug for Program {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Program({} statements)", self.stmts.len())
    }
}

/// A literal.
#[derive(Debug, Clone, Copy)]
pub(super) enum Literal {
    None,
    Bool(bool),
    Int(i128),
    Float(f64),
    /// The number of a text.
    Str(u32),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum BinOp {
    Add,
    Sub,
    Mul,
    Div,
    FloorDiv,
    Mod,
    Pow,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum CmpOp {
    Eq,
    Ne,
    Lt,
    Le,
    Gt,
    Ge,
    In,
    NotIn,
}

#[derive(Debug)]
pub(super) enum Expr {
    Literal(Literal),
    Name(NameId),
    Tuple(Box<[ExprId]>),
    List(Box<[ExprId]>),
    Dict(Box<[(ExprId, ExprId)]>),
    Not(ExprId),
    /// `-` and `+`, as often as they occur.
    Sign {
        minus: u32,
        of: ExprId,
    },
    /// Operators of one precedence from left to right.
    Arith(ExprId, Box<[(BinOp, ExprId)]>),
    Concat(Box<[ExprId]>),
    Compare(ExprId, Box<[(CmpOp, ExprId)]>),
    And(Box<[ExprId]>),
    Or(Box<[ExprId]>),
    /// `value if test else value if test else otherwise`.
    Cond {
        arms: Box<[(ExprId, ExprId)]>,
        otherwise: Option<ExprId>,
    },
    /// Postfix of a value: attribute, item, call, filter, test.
    Postfix(ExprId, Box<[(u32, Post)]>),
}

#[derive(Debug)]
pub(super) enum Post {
    Attr(NameId),
    Item(ExprId),
    Slice([Option<ExprId>; 3]),
    Call(Box<Args>),
    Filter(NameId, Box<Args>),
    Test { name: NameId, args: Box<Args>, negated: bool },
}

/// The arguments of a call.
#[derive(Debug, Default)]
pub(super) struct Args {
    pub(super) positional: Vec<ExprId>,
    pub(super) named: Vec<(NameId, ExprId)>,
    pub(super) star: Option<ExprId>,
    pub(super) stars: Option<ExprId>,
}

/// Target of an assignment.
#[derive(Debug)]
pub(super) enum Target {
    Name(NameId),
    Attr(NameId, NameId),
    Tuple(Vec<Target>),
}

#[derive(Debug)]
pub(super) enum Stmt {
    /// The number of a text.
    Data(u32),
    Print(Box<[ExprId]>),
    If {
        branches: Box<[(ExprId, Block)]>,
        otherwise: Block,
    },
    For(Box<For>),
    Set(Target, ExprId),
    SetBlock {
        target: Target,
        filters: Box<[(u32, Post)]>,
        body: Block,
    },
    With {
        targets: Box<[(Target, ExprId)]>,
        body: Block,
    },
    Macro(usize),
    /// The call and the macro that is its `caller`.
    Call {
        call: ExprId,
        caller: usize,
    },
    Filter {
        filters: Box<[(u32, Post)]>,
        body: Block,
    },
    Block {
        scoped: bool,
        body: Block,
    },
    /// A separate scope: `{% generation %}`, `{% autoescape false %}`.
    Scope(Block),
    Break,
    Continue,
    /// A tag that needs other templates.
    Loader,
}

#[derive(Debug)]
pub(super) struct For {
    pub(super) target: Target,
    pub(super) iter: ExprId,
    pub(super) test: Option<ExprId>,
    pub(super) recursive: bool,
    pub(super) body: Block,
    pub(super) otherwise: Block,
}

/// A macro as it was written.
#[derive(Debug)]
pub(super) struct MacroDecl {
    pub(super) name: Arc<str>,
    pub(super) name_id: Option<NameId>,
    pub(super) params: Vec<(NameId, Option<ExprId>)>,
    pub(super) body: Block,
    /// Whether the body looks at these.
    pub(super) varargs: bool,
    pub(super) kwargs: bool,
    pub(super) caller: bool,
}
