//! Durations, plain and computed.

use super::{Parsed, Parser};
use crate::promql::{
    ast::{AggregateOp, BinaryOp, DurationExpr, Expr, NodeId, Span, ValueType},
    error::Part,
    lexer::{Kind, Token, Word, is_duration},
};

/// Terms and operators of one duration expression: few enough that a walk over them may recurse.
const PARTS_MAX: usize = 128;

/// `-a * b` is `(-a) * b`.
const POWER: u8 = 3;

/// A part of a duration expression; literals go into the tree only beneath an operator.
#[derive(Clone, Copy)]
enum Term {
    Literal(f64, Span),
    Computed(NodeId),
}

impl Parser<'_> {
    /// Between brackets.
    pub(super) fn positive_duration(&mut self, context: &str, expected: &str) -> Parsed<DurationExpr> {
        self.duration_parts = 0;
        let starts = matches!(
            self.token.kind,
            Kind::Number
                | Kind::Duration
                | Kind::LeftParen
                | Kind::Word(_)
                | Kind::Aggregate(_)
                | Kind::Op(BinaryOp::Add | BinaryOp::Sub)
        );
        if !starts {
            return self.unexpected(context, expected);
        }
        let term = self.duration_operators(0)?;
        if let Term::Literal(seconds, span) = term
            && seconds <= 0.0
        {
            return self.fail(span, "duration must be greater than 0");
        }
        Ok(finished(term))
    }

    /// After `offset`: one term, so that in `foo offset 5m + 3` the sum is that of the selector; parentheses take
    /// operators along.
    pub(super) fn offset_duration(&mut self) -> Parsed<DurationExpr> {
        self.duration_parts = 0;
        let start = self.token.span.start;
        let bare = self.token.kind == Kind::LeftParen;
        let sign = match self.token.kind {
            Kind::Op(op @ (BinaryOp::Add | BinaryOp::Sub)) => {
                self.advance()?;
                Some(op == BinaryOp::Sub)
            }
            _ => None,
        };
        let mut term = self.duration_term("offset")?;
        if let Some(negative) = sign {
            term = self.duration_sign(term, negative, start)?;
        }
        if bare {
            term = self.duration_operators_after(term, 0)?;
        }
        Ok(finished(term))
    }

    fn duration_operators(&mut self, least: u8) -> Parsed<Term> {
        let first = match self.token.kind {
            Kind::Op(op @ (BinaryOp::Add | BinaryOp::Sub)) => {
                let start = self.token.span.start;
                self.nest()?;
                self.advance()?;
                let term = self.duration_operators(POWER)?;
                self.depth -= 1;
                self.duration_sign(term, op == BinaryOp::Sub, start)?
            }
            _ => self.duration_term("")?,
        };
        self.duration_operators_after(first, least)
    }

    fn duration_operators_after(&mut self, mut lhs: Term, least: u8) -> Parsed<Term> {
        loop {
            let Token { kind: Kind::Op(op), span } = self.token else { return Ok(lhs) };
            let level = match op {
                BinaryOp::Add | BinaryOp::Sub => 1,
                BinaryOp::Mul | BinaryOp::Div | BinaryOp::Mod => 2,
                BinaryOp::Pow => POWER,
                _ => return Ok(lhs),
            };
            if level < least {
                return Ok(lhs);
            }
            self.nest()?;
            self.advance()?;
            let rhs = self.duration_operators(if level == POWER { POWER } else { level + 1 })?;
            self.depth -= 1;
            if let Term::Literal(0.0, _) = rhs {
                match op {
                    BinaryOp::Div => return self.fail(span, "division by zero"),
                    BinaryOp::Mod => return self.fail(span, "modulo by zero"),
                    _ => {}
                }
            }
            let (lhs_id, rhs_id) = (self.duration_node(lhs)?, self.duration_node(rhs)?);
            let span = Span { start: self.span(lhs_id).start, end: self.span(rhs_id).end };
            let expr = Expr::Binary { op, lhs: lhs_id, rhs: rhs_id, return_bool: false, matching: None };
            lhs = self.computed(expr, span)?;
        }
    }

    fn duration_term(&mut self, context: &str) -> Parsed<Term> {
        const EXPECTED: &str = "number, duration, step(), or range()";
        let Token { kind, span } = self.token;
        self.duration_part()?;
        match kind {
            Kind::Number | Kind::Duration => {
                let seconds = self.number()?.unwrap_or(f64::NAN);
                if !is_duration(seconds) {
                    return self.fail(span, "duration out of range");
                }
                Ok(Term::Literal(seconds, span))
            }
            Kind::LeftParen => {
                self.nest()?;
                self.advance()?;
                let inner = self.duration_operators(0)?;
                self.need(Kind::RightParen, context, "")?;
                self.depth -= 1;
                let inner = self.duration_node(inner)?;
                self.computed(Expr::Paren(inner), self.since(span.start))
            }
            Kind::Word(word @ (Word::Step | Word::Range)) => {
                self.advance()?;
                self.need(Kind::LeftParen, context, EXPECTED)?;
                self.need(Kind::RightParen, context, EXPECTED)?;
                let expr = if word == Word::Step { Expr::DurationStep } else { Expr::DurationRange };
                self.computed(expr, self.since(span.start))
            }
            Kind::Word(Word::MinOf) | Kind::Aggregate(AggregateOp::Min) => self.least_or_most(false),
            Kind::Word(Word::MaxOf) | Kind::Aggregate(AggregateOp::Max) => self.least_or_most(true),
            _ => self.unexpected(context, EXPECTED),
        }
    }

    /// `min_of(a, b)`, `max_of(a, b)`
    fn least_or_most(&mut self, max: bool) -> Parsed<Term> {
        let start = self.token.span.start;
        self.nest()?;
        self.advance()?;
        self.need(Kind::LeftParen, "", "")?;
        let a = self.duration_operators(0)?;
        let a = self.duration_node(a)?;
        self.need(Kind::Comma, "", "")?;
        let b = self.duration_operators(0)?;
        let b = self.duration_node(b)?;
        self.need(Kind::RightParen, "", "")?;
        self.depth -= 1;
        self.computed(Expr::DurationMinMax { max, a, b }, self.since(start))
    }

    fn duration_sign(&mut self, term: Term, negative: bool, start: u32) -> Parsed<Term> {
        match term {
            Term::Literal(seconds, span) => {
                let seconds = if negative { -seconds } else { seconds };
                Ok(Term::Literal(seconds, Span { start, ..span }))
            }
            Term::Computed(expr) if negative => {
                let span = Span { start, end: self.span(expr).end };
                self.computed(Expr::Unary { negative, expr }, span)
            }
            Term::Computed(_) => Ok(term),
        }
    }

    fn duration_part(&mut self) -> Parsed<()> {
        self.duration_parts += 1;
        if self.duration_parts > PARTS_MAX {
            let message = format!("duration expression has more than {PARTS_MAX} parts");
            return self.beyond(self.token.span, Part::Nodes, PARTS_MAX, message);
        }
        Ok(())
    }

    fn computed(&mut self, expr: Expr, span: Span) -> Parsed<Term> {
        self.push(expr, span, ValueType::Duration).map(Term::Computed)
    }

    fn duration_node(&mut self, term: Term) -> Parsed<NodeId> {
        match term {
            Term::Literal(seconds, span) => self.push(Expr::Number(seconds), span, ValueType::Duration),
            Term::Computed(id) => Ok(id),
        }
    }
}

fn finished(term: Term) -> DurationExpr {
    match term {
        Term::Literal(seconds, _) => DurationExpr::Literal((seconds * 1e3).round() as i64),
        Term::Computed(id) => DurationExpr::Computed(id),
    }
}
