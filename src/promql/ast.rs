//! The syntax tree, in an arena.
//!
//! Children come before their parents in [`Ast::nodes`], so a walk in index order sees every operand before its
//! operator, and neither a walk nor a drop recurses, at any nesting.

use std::sync::{Arc, OnceLock};

use smallvec::{SmallVec, smallvec};

use super::{function::FunctionId, matchers::Selection};
use crate::base::TextSize;
pub use crate::series::{MatchOp, Matcher};

/// A byte range in the query text.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default, Hash)]
pub struct Span {
    /// First byte.
    pub start: u32,
    /// One past the last byte.
    pub end: u32,
}

/// Index of a node in its [`Ast`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NodeId(pub u32);

/// A parsed, type-checked query.
#[derive(Clone, Debug)]
pub struct Ast {
    /// The text as the client sent it.
    pub text: Arc<str>,
    /// Operands before operators.
    pub nodes: Vec<Node>,
    /// The whole expression.
    pub root: NodeId,
    /// How large all of it is.
    pub size: TextSize,
}

/// One node and where it stands in the text.
#[derive(Clone, Debug)]
pub struct Node {
    /// Its kind.
    pub expr: Expr,
    /// Where it is.
    pub span: Span,
    /// The type of its value.
    pub ty: ValueType,
}

/// The type of an expression's value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ValueType {
    /// One number.
    Scalar,
    /// A string literal.
    String,
    /// One value a series.
    Vector,
    /// A window of values a series.
    Matrix,
    /// Not a value: a node of a duration expression.
    Duration,
}

impl ValueType {
    /// Its name in Prometheus' API.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Scalar => "scalar",
            Self::String => "string",
            Self::Vector => "vector",
            Self::Matrix => "matrix",
            Self::Duration => "duration",
        }
    }
}

/// An expression.
#[derive(Clone, Debug)]
pub enum Expr {
    /// A number literal (duration literals such as `5m` are numbers of seconds here).
    Number(f64),
    /// A string literal, unescaped.
    String(Box<str>),
    /// `name{matchers} @ t offset d`
    Selector(Selector),
    /// `selector[range]`; `selector` is an [`Expr::Selector`] that carries `@` and `offset`.
    Matrix { selector: NodeId, range: DurationExpr },
    /// `expr[range:step] @ t offset d`
    Subquery {
        expr: NodeId,
        range: DurationExpr,
        step: Option<DurationExpr>,
        at: Option<At>,
        offset: Option<DurationExpr>,
    },
    /// `func(args)`
    Call { func: &'static Function, args: Vec<NodeId> },
    /// `op by (labels) (param, expr)`
    Aggregate { op: AggregateOp, param: Option<NodeId>, expr: NodeId, grouping: Grouping },
    /// `lhs op rhs`
    Binary {
        op: BinaryOp,
        lhs: NodeId,
        rhs: NodeId,
        return_bool: bool,
        matching: Option<Box<VectorMatching>>,
    },
    /// `-expr`, `+expr`
    Unary { negative: bool, expr: NodeId },
    /// `(expr)`
    Paren(NodeId),
    /// Part of a duration expression: `step()`.
    DurationStep,
    /// Part of a duration expression: `range()`.
    DurationRange,
    /// Part of a duration expression: `min(a, b)` and `max(a, b)`.
    DurationMinMax { max: bool, a: NodeId, b: NodeId },
}

/// A duration in `[]`, `offset` or a subquery step.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum DurationExpr {
    /// A literal, in milliseconds (negative only in `offset`).
    Literal(i64),
    /// Computed from the query's step and range: the root of a tree of `Number`, `Unary`, `Binary`, `Paren` and
    /// `Duration*` nodes whose values are seconds.
    Computed(NodeId),
}

/// `@ <timestamp>`, `@ start()`, `@ end()`
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum At {
    /// Milliseconds since the Unix epoch.
    Timestamp(i64),
    /// The start of the query's range.
    Start,
    /// The end of the query's range.
    End,
}

/// How a selector's window treats its edges (Prometheus 3.x `anchored`, `smoothed`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum Edges {
    /// As always.
    #[default]
    Plain,
    /// `anchored`
    Anchored,
    /// `smoothed`
    Smoothed,
}

/// A vector selector.
#[derive(Clone, Debug)]
pub struct Selector {
    /// All matchers, the metric name as a `__name__` matcher first if there is one, in the order of the text.
    pub matchers: Vec<Matcher>,
    /// `@`
    pub at: Option<At>,
    /// `offset`
    pub offset: Option<DurationExpr>,
    /// `anchored` or `smoothed`.
    pub edges: Edges,
    /// The selection of the matchers, computed on first use: it is the same at any time.
    selection: OnceLock<Selection>,
}

impl Selector {
    /// A selector with these matchers alone.
    pub const fn new(matchers: Vec<Matcher>) -> Self {
        Self { matchers, at: None, offset: None, edges: Edges::Plain, selection: OnceLock::new() }
    }

    /// The selection of its matchers.
    pub fn selection(&self) -> &Selection {
        self.selection.get_or_init(|| Selection::of(&self.matchers))
    }
}

/// `by (…)` or `without (…)`
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct Grouping {
    /// `without` instead of `by`.
    pub without: bool,
    /// Label names.
    pub labels: Vec<Box<str>>,
}

/// Aggregation operators.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[allow(missing_docs, reason = "the names are the operators")]
pub enum AggregateOp {
    Sum,
    Avg,
    Count,
    Min,
    Max,
    Group,
    Stddev,
    Stdvar,
    Topk,
    Bottomk,
    CountValues,
    Quantile,
    Limitk,
    LimitRatio,
}

/// Binary operators.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[allow(missing_docs, reason = "the names are the operators")]
pub enum BinaryOp {
    Add,
    Sub,
    Mul,
    Div,
    Mod,
    Pow,
    Atan2,
    Eq,
    Ne,
    Gt,
    Lt,
    Ge,
    Le,
    And,
    Or,
    Unless,
    /// `</`, native histograms only
    TrimUpper,
    /// `>/`, native histograms only
    TrimLower,
}

/// How the sides of a binary operation are joined.
#[derive(Clone, Debug, PartialEq, Default)]
pub struct VectorMatching {
    /// `on` (true) or `ignoring` (false).
    pub on: bool,
    /// Labels of `on` or `ignoring`.
    pub labels: Vec<Box<str>>,
    /// `group_left` and `group_right`.
    pub group: Group,
    /// Labels copied from the "one" side.
    pub include: Vec<Box<str>>,
    /// `fill_left`: value for series missing on the left.
    pub fill_left: Option<f64>,
    /// `fill_right`: value for series missing on the right.
    pub fill_right: Option<f64>,
}

/// Which side may have many series for one of the other.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum Group {
    /// Neither.
    #[default]
    OneToOne,
    /// `group_left`
    ManyToOne,
    /// `group_right`
    OneToMany,
    /// `and`, `or`, `unless`
    ManyToMany,
}

/// A function of PromQL.
#[derive(Debug, PartialEq, Eq)]
pub struct Function {
    /// Which one.
    pub id: FunctionId,
    /// Its name.
    pub name: &'static str,
    /// Types of its arguments; the last repeats when `variadic != 0`.
    pub args: &'static [ValueType],
    /// 0: exact; n > 0: up to n optional arguments at the end; -1: any number more.
    pub variadic: i8,
    /// The type of its result.
    pub returns: ValueType,
}

impl Expr {
    /// The operands that have a value, in the order of the text.
    pub fn operands(&self) -> SmallVec<[NodeId; 2]> {
        match self {
            // The selector of a range is never evaluated by itself.
            Expr::Number(_)
            | Expr::String(_)
            | Expr::Selector(_)
            | Expr::Matrix { .. }
            | Expr::DurationStep
            | Expr::DurationRange => SmallVec::new(),
            Expr::Subquery { expr: inner, .. } | Expr::Paren(inner) => smallvec![*inner],
            Expr::Unary { expr, .. } => smallvec![*expr],
            Expr::Call { args, .. } => args.iter().copied().collect(),
            Expr::Aggregate { param, expr, .. } => param.iter().copied().chain([*expr]).collect(),
            Expr::Binary { lhs, rhs, .. } => smallvec![*lhs, *rhs],
            Expr::DurationMinMax { a, b, .. } => smallvec![*a, *b],
        }
    }
}

impl Ast {
    /// The node behind an id of this tree.
    pub fn node(&self, id: NodeId) -> &Node {
        &self.nodes[id.0 as usize]
    }

    /// The expression behind an id of this tree.
    pub fn expr(&self, id: NodeId) -> &Expr {
        &self.node(id).expr
    }

    /// The text of a node.
    pub fn text_of(&self, id: NodeId) -> &str {
        let span = self.node(id).span;
        self.text.get(span.start as usize..span.end as usize).unwrap_or_default()
    }
}

impl AggregateOp {
    /// As it is written.
    pub fn name(self) -> &'static str {
        match self {
            Self::Sum => "sum",
            Self::Avg => "avg",
            Self::Count => "count",
            Self::Min => "min",
            Self::Max => "max",
            Self::Group => "group",
            Self::Stddev => "stddev",
            Self::Stdvar => "stdvar",
            Self::Topk => "topk",
            Self::Bottomk => "bottomk",
            Self::CountValues => "count_values",
            Self::Quantile => "quantile",
            Self::Limitk => "limitk",
            Self::LimitRatio => "limit_ratio",
        }
    }
}

impl BinaryOp {
    /// As it is written.
    pub fn symbol(self) -> &'static str {
        match self {
            Self::Add => "+",
            Self::Sub => "-",
            Self::Mul => "*",
            Self::Div => "/",
            Self::Mod => "%",
            Self::Pow => "^",
            Self::Atan2 => "atan2",
            Self::Eq => "==",
            Self::Ne => "!=",
            Self::Gt => ">",
            Self::Lt => "<",
            Self::Ge => ">=",
            Self::Le => "<=",
            Self::And => "and",
            Self::Or => "or",
            Self::Unless => "unless",
            Self::TrimUpper => "</",
            Self::TrimLower => ">/",
        }
    }
}
