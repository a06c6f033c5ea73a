//! Trees for tests of what comes after the parser, made by an independent one.

use std::time::{Duration, UNIX_EPOCH};

use promql_parser::{
    label,
    parser::{self, AtModifier, Offset, VectorMatchCardinality},
};

use super::ast::{
    AggregateOp, Ast, At, BinaryOp, DurationExpr, Edges, Expr, Function, Group, Grouping, MatchOp, Matcher,
    Node, NodeId, Selector, Span, ValueType, VectorMatching,
};

/// The tree of a query that Prometheus 2.x would accept. Every span is the whole text.
pub(crate) fn parse(text: &str) -> Ast {
    let expr = parser::parse(text).unwrap_or_else(|error| panic!("{text}: {error}"));
    let mut builder = Builder { nodes: Vec::new() };
    let root = builder.expr(&expr);
    Ast { text: text.into(), nodes: builder.nodes, root }
}

/// An arena under construction: for trees that only newer syntax has.
pub(crate) struct Builder {
    pub(crate) nodes: Vec<Node>,
}

impl Builder {
    pub(crate) fn push(&mut self, expr: Expr, ty: ValueType) -> NodeId {
        let id = NodeId(self.nodes.len() as u32);
        self.nodes.push(Node { expr, span: Span::default(), ty });
        id
    }

    fn expr(&mut self, expr: &parser::Expr) -> NodeId {
        let ty = value_type(expr.value_type());
        let made = match expr {
            parser::Expr::NumberLiteral(n) => Expr::Number(n.val),
            parser::Expr::StringLiteral(s) => Expr::String(s.val.as_str().into()),
            parser::Expr::Paren(p) => Expr::Paren(self.expr(&p.expr)),
            parser::Expr::Unary(u) => Expr::Unary { negative: true, expr: self.expr(&u.expr) },
            parser::Expr::VectorSelector(s) => Expr::Selector(selector(s)),
            parser::Expr::MatrixSelector(m) => {
                let selector = self.push(Expr::Selector(selector(&m.vs)), ValueType::Vector);
                Expr::Matrix { selector, range: duration(m.range) }
            }
            parser::Expr::Subquery(s) => Expr::Subquery {
                expr: self.expr(&s.expr),
                range: duration(s.range),
                step: s.step.map(duration),
                at: s.at.as_ref().map(at),
                offset: s.offset.as_ref().map(offset),
            },
            parser::Expr::Call(c) => {
                let args = c.args.args.iter().map(|a| self.expr(a)).collect();
                Expr::Call { func: function(&c.func), args }
            }
            parser::Expr::Aggregate(a) => {
                let param = a.param.as_ref().map(|p| self.expr(p));
                let expr = self.expr(&a.expr);
                let grouping = a.modifier.as_ref().map_or_else(Grouping::default, |m| Grouping {
                    without: !m.is_include(),
                    labels: labels(&m.labels().labels),
                });
                Expr::Aggregate { op: aggregate(&a.op.to_string()), param, expr, grouping }
            }
            parser::Expr::Binary(b) => {
                let (lhs, rhs) = (self.expr(&b.lhs), self.expr(&b.rhs));
                let matching = b.modifier.as_ref().map(|m| Box::new(matching(m)));
                Expr::Binary {
                    op: binary(&b.op.to_string()),
                    lhs,
                    rhs,
                    return_bool: b.return_bool(),
                    matching,
                }
            }
            parser::Expr::Extension(_) => panic!("no extensions"),
        };
        self.push(made, ty)
    }
}

/// A function by name, for hand-made calls.
pub(crate) fn named_function(name: &'static str, args: &'static [ValueType]) -> &'static Function {
    Box::leak(Box::new(Function { name, args, variadic: 0, returns: ValueType::Vector }))
}

fn function(f: &parser::Function) -> &'static Function {
    let args: Vec<_> = f.arg_types.iter().map(|t| value_type(*t)).collect();
    Box::leak(Box::new(Function {
        name: f.name,
        args: args.leak(),
        variadic: f.variadic as i8,
        returns: value_type(f.return_type),
    }))
}

fn value_type(ty: parser::value::ValueType) -> ValueType {
    match ty {
        parser::value::ValueType::Vector => ValueType::Vector,
        parser::value::ValueType::Scalar => ValueType::Scalar,
        parser::value::ValueType::Matrix => ValueType::Matrix,
        parser::value::ValueType::String => ValueType::String,
    }
}

fn selector(s: &parser::VectorSelector) -> Selector {
    let name = s.name.iter().map(|n| Matcher {
        name: "__name__".into(),
        op: MatchOp::Equal,
        value: n.as_str().into(),
    });
    let rest = s.matchers.matchers.iter().map(|m| Matcher {
        name: m.name.as_str().into(),
        op: match m.op {
            label::MatchOp::Equal => MatchOp::Equal,
            label::MatchOp::NotEqual => MatchOp::NotEqual,
            label::MatchOp::Re(_) => MatchOp::Regex,
            label::MatchOp::NotRe(_) => MatchOp::NotRegex,
        },
        value: m.value.as_str().into(),
    });
    Selector {
        matchers: name.chain(rest).collect(),
        at: s.at.as_ref().map(at),
        offset: s.offset.as_ref().map(offset),
        edges: Edges::Plain,
    }
}

fn duration(d: Duration) -> DurationExpr {
    DurationExpr::Literal(d.as_millis() as i64)
}

fn offset(o: &Offset) -> DurationExpr {
    match o {
        Offset::Pos(d) => duration(*d),
        Offset::Neg(d) => DurationExpr::Literal(-(d.as_millis() as i64)),
    }
}

fn at(a: &AtModifier) -> At {
    match a {
        AtModifier::Start => At::Start,
        AtModifier::End => At::End,
        AtModifier::At(t) => At::Timestamp(t.duration_since(UNIX_EPOCH).unwrap().as_millis() as i64),
    }
}

fn labels(names: &[String]) -> Vec<Box<str>> {
    names.iter().map(|n| n.as_str().into()).collect()
}

fn matching(m: &parser::BinModifier) -> VectorMatching {
    let group = match m.card {
        VectorMatchCardinality::OneToOne => Group::OneToOne,
        VectorMatchCardinality::ManyToOne(_) => Group::ManyToOne,
        VectorMatchCardinality::OneToMany(_) => Group::OneToMany,
        VectorMatchCardinality::ManyToMany => Group::ManyToMany,
    };
    VectorMatching {
        on: m.is_matching_on(),
        labels: m.matching.as_ref().map(|l| labels(&l.labels().labels)).unwrap_or_default(),
        group,
        ..VectorMatching::default()
    }
}

fn aggregate(op: &str) -> AggregateOp {
    match op {
        "sum" => AggregateOp::Sum,
        "avg" => AggregateOp::Avg,
        "count" => AggregateOp::Count,
        "min" => AggregateOp::Min,
        "max" => AggregateOp::Max,
        "group" => AggregateOp::Group,
        "stddev" => AggregateOp::Stddev,
        "topk" => AggregateOp::Topk,
        "bottomk" => AggregateOp::Bottomk,
        "count_values" => AggregateOp::CountValues,
        "quantile" => AggregateOp::Quantile,
        other => panic!("no case needs {other} yet"),
    }
}

fn binary(op: &str) -> BinaryOp {
    match op {
        "+" => BinaryOp::Add,
        "-" => BinaryOp::Sub,
        "*" => BinaryOp::Mul,
        "/" => BinaryOp::Div,
        ">" => BinaryOp::Gt,
        "<" => BinaryOp::Lt,
        "==" => BinaryOp::Eq,
        "and" => BinaryOp::And,
        "or" => BinaryOp::Or,
        "unless" => BinaryOp::Unless,
        other => panic!("no case needs {other} yet"),
    }
}
