//! Operators.

use super::{Parsed, Parser};
use crate::promql::{
    ast::{BinaryOp, Expr, Group, NodeId, Span, ValueType, VectorMatching},
    error::Part,
    lexer::{Kind, Word},
};

/// An operator that waits for its right operand.
pub(super) enum Pending {
    Unary { negative: bool, start: u32 },
    Binary(Binary),
}

/// A binary operation without its right operand.
pub(super) struct Binary {
    pub(super) op: BinaryOp,
    pub(super) op_span: Span,
    pub(super) lhs: NodeId,
    pub(super) return_bool: bool,
    pub(super) matching: VectorMatching,
}

/// `-a * b` is `(-a) * b`, `-a ^ b` is `-(a ^ b)`.
const UNARY_LEVEL: u8 = 5;

fn level(op: BinaryOp) -> u8 {
    match op {
        BinaryOp::Or => 1,
        BinaryOp::And | BinaryOp::Unless => 2,
        BinaryOp::Eq
        | BinaryOp::Ne
        | BinaryOp::Gt
        | BinaryOp::Lt
        | BinaryOp::Ge
        | BinaryOp::Le
        | BinaryOp::TrimUpper
        | BinaryOp::TrimLower => 3,
        BinaryOp::Add | BinaryOp::Sub => 4,
        BinaryOp::Mul | BinaryOp::Div | BinaryOp::Mod | BinaryOp::Atan2 => UNARY_LEVEL,
        BinaryOp::Pow => 6,
    }
}

impl Pending {
    /// Whether this takes the operand between it and `next`.
    fn binds_before(&self, next: BinaryOp) -> bool {
        let own = match self {
            Self::Unary { .. } => UNARY_LEVEL,
            Self::Binary(binary) => level(binary.op),
        };
        own > level(next) || (own == level(next) && next != BinaryOp::Pow)
    }
}

impl Parser<'_> {
    pub(super) fn expr(&mut self) -> Parsed<NodeId> {
        let base = self.pending.len();
        loop {
            while let Kind::Op(op @ (BinaryOp::Add | BinaryOp::Sub)) = self.token.kind {
                let start = self.token.span.start;
                self.data_labels = false;
                self.wait(Pending::Unary { negative: op == BinaryOp::Sub, start })?;
                self.advance()?;
            }
            let mut operand = self.operand()?;
            let next = if let Kind::Op(op) = self.token.kind { Some(op) } else { None };
            while self.pending.len() > base
                && let Some(top) = self.pending.pop_if(|top| next.is_none_or(|next| top.binds_before(next)))
            {
                operand = self.complete(top, operand)?;
            }
            let Some(op) = next else { return Ok(operand) };
            let op_span = self.token.span;
            self.advance()?;
            let (return_bool, matching) = self.modifiers()?;
            self.wait(Pending::Binary(Binary { op, op_span, lhs: operand, return_bool, matching }))?;
        }
    }

    fn wait(&mut self, pending: Pending) -> Parsed<()> {
        // A bracket adds a level or two: `(1 + (1 + …`
        let max = self.limits.depth * 2;
        if self.pending.len() >= max {
            let message = format!("more than {max} operators wait for an operand");
            return self.beyond(self.token.span, Part::Depth, max, message);
        }
        self.pending.push(pending);
        Ok(())
    }

    fn complete(&mut self, pending: Pending, operand: NodeId) -> Parsed<NodeId> {
        match pending {
            Pending::Unary { negative, start } => self.unary(negative, start, operand),
            Pending::Binary(binary) => self.binary(binary, operand),
        }
    }

    fn unary(&mut self, negative: bool, start: u32, expr: NodeId) -> Parsed<NodeId> {
        let span = Span { start, end: self.span(expr).end };
        let ty = self.ty(expr);
        if let Some(node) = self.nodes.get_mut(expr.0 as usize)
            && let Expr::Number(value) = &mut node.expr
        {
            *value = if negative { -*value } else { *value };
            node.span = span;
            return Ok(expr);
        }
        if !matches!(ty, ValueType::Scalar | ValueType::Vector) {
            self.mistyped(span, || {
                let got = super::types::documented(ty);
                format!("unary expression only allowed on expressions of type scalar or instant vector, got {got:?}")
            });
        }
        self.push(Expr::Unary { negative, expr }, span, ty)
    }

    fn binary(&mut self, binary: Binary, rhs: NodeId) -> Parsed<NodeId> {
        let Binary { op, lhs, return_bool, .. } = binary;
        let span = Span { start: self.span(lhs).start, end: self.span(rhs).end };
        self.check_binary(&binary, rhs, span);
        let scalar = |id| self.ty(id) == ValueType::Scalar;
        let ty = if scalar(lhs) && scalar(rhs) { ValueType::Scalar } else { ValueType::Vector };
        let mut matching = None;
        if !scalar(lhs) && !scalar(rhs) {
            let set = matches!(op, BinaryOp::And | BinaryOp::Or | BinaryOp::Unless);
            let group = if set { Group::ManyToMany } else { binary.matching.group };
            matching = Some(Box::new(VectorMatching { group, ..binary.matching }));
        }
        self.push(Expr::Binary { op, lhs, rhs, return_bool, matching }, span, ty)
    }

    /// `bool on (…) group_left (…) fill (…)`
    fn modifiers(&mut self) -> Parsed<(bool, VectorMatching)> {
        let mut matching = VectorMatching::default();
        let return_bool = self.eat(Kind::Word(Word::Bool))?;
        if let Kind::Word(word @ (Word::On | Word::Ignoring)) = self.token.kind {
            self.advance()?;
            matching.on = word == Word::On;
            matching.labels = self.grouping_labels()?;
            if let Kind::Word(word @ (Word::GroupLeft | Word::GroupRight)) = self.token.kind {
                self.advance()?;
                matching.group = if word == Word::GroupLeft { Group::ManyToOne } else { Group::OneToMany };
                if self.token.kind == Kind::LeftParen {
                    matching.include = self.grouping_labels()?;
                }
            }
        }
        if self.eat(Kind::Word(Word::Fill))? {
            matching.fill_left = Some(self.fill_value()?);
            matching.fill_right = matching.fill_left;
            return Ok((return_bool, matching));
        }
        while let Kind::Word(word @ (Word::FillLeft | Word::FillRight)) = self.token.kind {
            let taken = if word == Word::FillLeft { matching.fill_left } else { matching.fill_right };
            if taken.is_some() {
                break;
            }
            self.advance()?;
            let value = Some(self.fill_value()?);
            if word == Word::FillLeft {
                matching.fill_left = value;
            } else {
                matching.fill_right = value;
            }
        }
        Ok((return_bool, matching))
    }

    fn fill_value(&mut self) -> Parsed<f64> {
        self.need(Kind::LeftParen, "", "")?;
        let value = self.signed_number()?;
        let Some(value) = value else { return self.unexpected("", "") };
        self.need(Kind::RightParen, "", "")?;
        Ok(value)
    }

    /// A number or duration with an optional sign; `None`, with the sign consumed, if there is something else.
    pub(super) fn signed_number(&mut self) -> Parsed<Option<f64>> {
        let negative = self.token.kind == Kind::Op(BinaryOp::Sub);
        if negative || self.token.kind == Kind::Op(BinaryOp::Add) {
            self.advance()?;
        }
        let Some(value) = self.number()? else { return Ok(None) };
        Ok(Some(if negative { -value } else { value }))
    }

    /// `(a, b, "c.d")`
    pub(super) fn grouping_labels(&mut self) -> Parsed<Vec<Box<str>>> {
        const CONTEXT: &str = "grouping opts";
        let mut labels: Vec<Box<str>> = Vec::new();
        self.need(Kind::LeftParen, CONTEXT, "\"(\"")?;
        while !self.eat(Kind::RightParen)? {
            let span = self.token.span;
            let label = match self.token.kind {
                Kind::Str => self.unquoted(span)?,
                Kind::Ident | Kind::MetricIdent | Kind::Aggregate(_) => self.text_at(span).into(),
                Kind::Op(BinaryOp::And | BinaryOp::Or | BinaryOp::Unless | BinaryOp::Atan2) => {
                    self.text_at(span).into()
                }
                Kind::Word(word) if word != Word::Without => self.text_at(span).into(),
                _ => return self.unexpected(CONTEXT, "label"),
            };
            if label.is_empty() {
                return self.fail(span, "invalid label name for grouping: \"\"");
            }
            labels.push(label);
            self.advance()?;
            if !self.eat(Kind::Comma)? && self.token.kind != Kind::RightParen {
                return self.unexpected(CONTEXT, "\",\" or \")\"");
            }
        }
        Ok(labels)
    }
}
