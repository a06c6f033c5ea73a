//! Type checks, in Prometheus' words.

use super::{Parser, expr::Binary};
use crate::promql::ast::{AggregateOp, BinaryOp, Expr, Function, Group, NodeId, Span, ValueType};

/// A type as the documentation calls it.
pub(super) fn documented(ty: ValueType) -> &'static str {
    match ty {
        ValueType::Vector => "instant vector",
        ValueType::Matrix => "range vector",
        other => other.as_str(),
    }
}

impl Parser<'_> {
    fn expect(&mut self, id: NodeId, want: ValueType, context: &str) {
        let got = self.ty(id);
        if got != want {
            self.mistyped(self.span(id), || {
                format!("expected type {} in {context}, got {}", documented(want), documented(got))
            });
        }
    }

    pub(super) fn check_aggregate(&mut self, op: AggregateOp, param: Option<NodeId>, expr: NodeId) {
        self.expect(expr, ValueType::Vector, "aggregation expression");
        if let Some(param) = param {
            let want = if op == AggregateOp::CountValues { ValueType::String } else { ValueType::Scalar };
            self.expect(param, want, "aggregation parameter");
        }
    }

    pub(super) fn check_call(&mut self, func: &'static Function, args: &[NodeId], span: Span) {
        let (want, got, name) = (func.args.len(), args.len(), func.name);
        let least = if func.variadic == 0 { want } else { want.saturating_sub(1) };
        let most = match func.variadic {
            0 => want,
            more @ 1.. => least + more as usize,
            _ => usize::MAX,
        };
        let bound = match func.variadic {
            0 if got != want => Some((String::new(), want)),
            _ if got < least => Some(("at least ".to_owned(), least)),
            _ if got > most => Some(("at most ".to_owned(), most)),
            _ => None,
        };
        if let Some((which, count)) = bound {
            self.mistyped(span, || {
                format!("expected {which}{count} argument(s) in call to {name:?}, got {got}")
            });
        }
        if name == "info"
            && let Some(data) = args.get(1)
        {
            self.check_info(*data);
        }
        for (index, arg) in args.iter().enumerate() {
            let Some(want) = func.args.get(index).or(func.args.last()) else { break };
            if self.ty(*arg) != *want {
                self.expect(*arg, *want, &format!("call to function {name:?}"));
            }
        }
    }

    fn check_info(&mut self, data: NodeId) {
        let node = self.node(data);
        let (span, ty) = (node.span, node.ty);
        let braces = self.text_at(span).starts_with('{');
        match &node.expr {
            Expr::Selector(_) if braces => {}
            Expr::Selector(_) => {
                self.mistyped(span, || {
                    "expected label selectors only, got vector selector instead".to_owned()
                });
            }
            _ if ty == ValueType::Vector => {
                self.mistyped(span, || "expected label selectors only".to_owned());
            }
            _ => {}
        }
    }

    pub(super) fn check_binary(&mut self, binary: &Binary, rhs: NodeId, span: Span) {
        let Binary { op, op_span, lhs, return_bool, matching } = binary;
        let (lt, rt) = (self.ty(*lhs), self.ty(rhs));
        let comparison = matches!(
            op,
            BinaryOp::Eq | BinaryOp::Ne | BinaryOp::Gt | BinaryOp::Lt | BinaryOp::Ge | BinaryOp::Le
        );
        if *return_bool && !comparison {
            self.mistyped(*op_span, || "bool modifier can only be used on comparison operators".to_owned());
        }
        let scalars = lt == ValueType::Scalar && rt == ValueType::Scalar;
        if comparison && !return_bool && scalars {
            self.mistyped(*op_span, || "comparisons between scalars must use BOOL modifier".to_owned());
        }
        if matching.on
            && let Some(label) = matching.labels.iter().find(|label| matching.include.contains(label))
        {
            let text = "must not occur in ON and GROUP clause at once";
            self.mistyped(*op_span, || format!("label {label:?} {text}"));
        }
        for (id, ty) in [(*lhs, lt), (rhs, rt)] {
            if !matches!(ty, ValueType::Scalar | ValueType::Vector) {
                let text = "binary expression must contain only scalar and instant vector types";
                self.mistyped(self.span(id), || text.to_owned());
            }
        }
        self.check_matching(binary, lt == ValueType::Vector && rt == ValueType::Vector, span);
    }

    fn check_matching(&mut self, binary: &Binary, vectors: bool, span: Span) {
        let matching = &binary.matching;
        let set = match binary.op {
            BinaryOp::And => "and",
            BinaryOp::Or => "or",
            BinaryOp::Unless => "unless",
            _ => "",
        };
        let fills = matching.fill_left.is_some() || matching.fill_right.is_some();
        let mut wrong = |found: bool, text: &str| {
            if found {
                self.mistyped(span, || text.to_owned());
            }
        };
        if !vectors {
            wrong(!matching.labels.is_empty(), "vector matching only allowed between instant vectors");
            wrong(fills, "filling in missing series only allowed between instant vectors");
            let text = format!("set operator {set:?} not allowed in binary scalar expression");
            wrong(!set.is_empty(), &text);
        } else if !set.is_empty() {
            let text = format!("no grouping allowed for {set:?} operation");
            wrong(matching.group != Group::OneToOne, &text);
            wrong(fills, "filling in missing series not allowed for set operators");
        }
    }
}
