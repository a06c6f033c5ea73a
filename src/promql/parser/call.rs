//! Function calls and aggregations.

use super::{Parsed, Parser};
use crate::promql::{
    ast::{AggregateOp, Expr, Grouping, NodeId, Span, ValueType},
    error::{ParseError, Reason},
    function,
    lexer::{Kind, Word},
};

impl Parser<'_> {
    /// `(args)` behind a name.
    pub(super) fn call(&mut self, name: Span) -> Parsed<NodeId> {
        let text = self.text_at(name);
        let args = self.args("", text == "info")?;
        let span = self.since(name.start);
        // Keywords are functions in any case, other names only where the database has functions of its own: MetricsQL's
        // names have no case.
        let func = function::find(text).or_else(|| {
            let lower = text.to_ascii_lowercase();
            let is_keyword = matches!(&*lower, "start" | "end" | "step" | "range" | "max_of" | "min_of");
            function::find(&lower).filter(|_| is_keyword || self.limits.unknown_functions)
        });
        let Some(func) = func else {
            if self.limits.unknown_functions {
                let func = &function::UNKNOWN;
                return self.push(Expr::Call { func, args }, span, func.returns);
            }
            let error = ParseError::new(self.text, name, format!("unknown function with name {text:?}"));
            return Err(ParseError { reason: Reason::UnknownFunction, ..error });
        };
        self.check_call(func, &args, span);
        self.push(Expr::Call { func, args }, span, func.returns)
    }

    /// `info`'s second argument may be a selector that matches everything.
    fn args(&mut self, context: &str, info: bool) -> Parsed<Vec<NodeId>> {
        self.nest()?;
        self.need(Kind::LeftParen, context, "")?;
        let mut args = Vec::new();
        if self.token.kind != Kind::RightParen {
            loop {
                self.data_labels = info && args.len() == 1;
                args.push(self.expr()?);
                let comma = self.token.span;
                if !self.eat(Kind::Comma)? {
                    break;
                }
                if self.token.kind == Kind::RightParen {
                    return self.fail(comma, "trailing commas not allowed in function call args");
                }
            }
        }
        self.need(Kind::RightParen, context, "")?;
        self.depth -= 1;
        Ok(args)
    }

    /// An aggregation whose operator was just read.
    pub(super) fn aggregate(&mut self, op: AggregateOp, op_span: Span) -> Parsed<NodeId> {
        let before = self.grouping()?;
        let args = self.args("aggregation", false)?;
        let grouping = match before {
            Some(grouping) => grouping,
            None => self.grouping()?.unwrap_or_default(),
        };
        let span = self.since(op_span.start);
        let (param, expr) = match (has_param(op), &*args) {
            (_, []) => return self.fail(span, "no arguments for aggregate expression provided"),
            (false, [expr]) => (None, *expr),
            (true, [param, expr]) => (Some(*param), *expr),
            (needs, _) => {
                let (expected, got) = (1 + usize::from(needs), args.len());
                let text = "wrong number of arguments for aggregate expression provided";
                return self.fail(span, format!("{text}, expected {expected}, got {got}"));
            }
        };
        self.check_aggregate(op, param, expr);
        self.push(Expr::Aggregate { op, param, expr, grouping }, span, ValueType::Vector)
    }

    /// `by (…)` or `without (…)`, if there is one.
    fn grouping(&mut self) -> Parsed<Option<Grouping>> {
        let Kind::Word(word @ (Word::By | Word::Without)) = self.token.kind else { return Ok(None) };
        self.advance()?;
        let labels = self.grouping_labels()?;
        Ok(Some(Grouping { without: word == Word::Without, labels }))
    }
}

fn has_param(op: AggregateOp) -> bool {
    matches!(
        op,
        AggregateOp::Topk
            | AggregateOp::Bottomk
            | AggregateOp::CountValues
            | AggregateOp::Quantile
            | AggregateOp::Limitk
            | AggregateOp::LimitRatio
    )
}
