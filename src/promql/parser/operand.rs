//! Operands: literals, names, brackets, and their modifiers.

use super::{Parsed, Parser};
use crate::promql::{
    ast::{At, BinaryOp, DurationExpr, Edges, Expr, NodeId, Selector, Span, ValueType},
    lexer::{Kind, Token, Word, duration, number},
};

/// An operand that modifiers may still change. Not yet in the tree: computed durations come before it there.
pub(super) enum Held {
    Node(NodeId),
    Selector(Selector, Span),
    Matrix { selector: Selector, inner: Span, range: DurationExpr, span: Span },
    Subquery { expr: NodeId, range: DurationExpr, step: Option<DurationExpr>, shift: Shift, span: Span },
}

#[derive(Default)]
pub(super) struct Shift {
    at: Option<At>,
    offset: Option<DurationExpr>,
}

impl Parser<'_> {
    pub(super) fn operand(&mut self) -> Parsed<NodeId> {
        let data_labels = std::mem::take(&mut self.data_labels);
        let mut held = self.primary()?;
        loop {
            held = match self.token.kind {
                Kind::LeftBracket => self.range(held)?,
                Kind::At => self.at(held)?,
                Kind::Word(Word::Offset) => self.offset(held)?,
                Kind::Word(Word::Anchored) => self.edges(held, Edges::Anchored)?,
                Kind::Word(Word::Smoothed) => self.edges(held, Edges::Smoothed)?,
                _ => return self.settle(held, data_labels),
            };
        }
    }

    fn primary(&mut self) -> Parsed<Held> {
        let Token { kind, span } = self.token;
        match kind {
            Kind::Number | Kind::Duration => {
                let value = self.number()?.unwrap_or(f64::NAN);
                self.push(Expr::Number(value), span, ValueType::Scalar).map(Held::Node)
            }
            Kind::Str => {
                let value = self.unquoted(span)?;
                self.advance()?;
                self.push(Expr::String(value), span, ValueType::String).map(Held::Node)
            }
            Kind::LeftParen => {
                self.nest()?;
                self.advance()?;
                let inner = self.expr()?;
                self.need(Kind::RightParen, "", "")?;
                self.depth -= 1;
                let ty = self.ty(inner);
                self.push(Expr::Paren(inner), self.since(span.start), ty).map(Held::Node)
            }
            Kind::LeftBrace => self.selector(None),
            Kind::Ident => {
                self.advance()?;
                self.name(span)
            }
            Kind::Aggregate(op) => {
                self.advance()?;
                match self.token.kind {
                    Kind::LeftParen | Kind::Word(Word::By | Word::Without) => {
                        self.aggregate(op, span).map(Held::Node)
                    }
                    Kind::Ident | Kind::MetricIdent | Kind::Number | Kind::Str | Kind::Duration => {
                        self.unexpected("aggregation", "")
                    }
                    _ => self.selector(Some(span)),
                }
            }
            Kind::Word(Word::Start | Word::End | Word::Step | Word::Range | Word::MaxOf | Word::MinOf) => {
                self.advance()?;
                self.name(span)
            }
            Kind::Word(Word::On | Word::Ignoring | Word::GroupLeft | Word::GroupRight | Word::Bool) => {
                self.unexpected("", "")
            }
            Kind::MetricIdent | Kind::Word(_) | Kind::Op(BinaryOp::And | BinaryOp::Or | BinaryOp::Unless) => {
                self.advance()?;
                self.selector(Some(span))
            }
            _ => self.unexpected("", ""),
        }
    }

    /// A name that may be a function's or a metric's.
    fn name(&mut self, span: Span) -> Parsed<Held> {
        if self.token.kind == Kind::LeftParen {
            self.call(span).map(Held::Node)
        } else {
            self.selector(Some(span))
        }
    }

    /// A number or duration, if it is next.
    pub(super) fn number(&mut self) -> Parsed<Option<f64>> {
        let Token { kind, span } = self.token;
        let value = match kind {
            Kind::Number => number(self.text_at(span)),
            Kind::Duration => duration(self.text_at(span)),
            _ => return Ok(None),
        };
        let value = value.or_else(|message| self.fail(span, message))?;
        self.advance()?;
        Ok(Some(value))
    }

    fn held_span(&self, held: &Held) -> Span {
        match held {
            Held::Node(id) => self.span(*id),
            Held::Selector(_, span) | Held::Matrix { span, .. } | Held::Subquery { span, .. } => *span,
        }
    }

    /// Puts an operand into the tree.
    fn settle(&mut self, held: Held, data_labels: bool) -> Parsed<NodeId> {
        match held {
            Held::Node(id) => Ok(id),
            Held::Selector(selector, span) => {
                if !data_labels {
                    self.check_selector(&selector, span);
                }
                self.push(Expr::Selector(selector), span, ValueType::Vector)
            }
            Held::Matrix { selector, inner, range, span } => {
                self.check_selector(&selector, inner);
                let selector = self.push(Expr::Selector(selector), inner, ValueType::Vector)?;
                self.push(Expr::Matrix { selector, range }, span, ValueType::Matrix)
            }
            Held::Subquery { expr, range, step, shift, span } => {
                let ty = self.ty(expr);
                if ty != ValueType::Vector {
                    self.mistyped(span, || {
                        let got = ty.as_str();
                        format!("subquery is only allowed on instant vector, got {got} instead")
                    });
                }
                let Shift { at, offset } = shift;
                let subquery = Expr::Subquery { expr, range, step, at, offset };
                self.push(subquery, span, ValueType::Matrix)
            }
        }
    }

    /// `[range]` or `[range:step]`
    fn range(&mut self, held: Held) -> Parsed<Held> {
        let bracket = self.token.span.start;
        let start = self.held_span(&held).start;
        self.advance()?;
        let range =
            self.positive_duration("subquery or range selector", "number, duration, step(), or range()")?;
        if self.eat(Kind::Colon)? {
            let mut step = None;
            if self.token.kind != Kind::RightBracket {
                let expected = "number, duration, step(), range(), or \"]\"";
                step = Some(self.positive_duration("subquery selector", expected)?);
            }
            self.need(Kind::RightBracket, "subquery selector", "\"]\"")?;
            let expr = self.settle(held, false)?;
            let span = self.since(start);
            return Ok(Held::Subquery { expr, range, step, shift: Shift::default(), span });
        }
        self.need(Kind::RightBracket, "subquery or range", "\":\" or \"]\"")?;
        let brackets = self.since(bracket);
        match held {
            Held::Selector(selector, inner) if selector.offset.is_none() && selector.at.is_none() => {
                Ok(Held::Matrix { selector, inner, range, span: self.since(start) })
            }
            Held::Selector(selector, _) if selector.offset.is_some() => {
                self.fail(brackets, "no offset modifiers allowed before range")
            }
            Held::Selector(..) => self.fail(brackets, "no @ modifiers allowed before range"),
            _ => self.fail(brackets, "ranges only allowed for vector selectors"),
        }
    }

    fn offset(&mut self, mut held: Held) -> Parsed<Held> {
        let span = self.held_span(&held);
        self.advance()?;
        let duration = self.offset_duration()?;
        let offset = match &mut held {
            Held::Selector(selector, _) | Held::Matrix { selector, .. } => &mut selector.offset,
            Held::Subquery { shift, .. } => &mut shift.offset,
            Held::Node(_) => return self.misplaced(span, "offset"),
        };
        if offset.is_some_and(|before| before != DurationExpr::Literal(0)) {
            return self.fail(span, "offset may not be set multiple times");
        }
        *offset = Some(duration);
        Ok(self.extended(held))
    }

    fn misplaced<T>(&self, span: Span, modifier: &str) -> Parsed<T> {
        let places = "an instant vector selector or range vector selector or a subquery";
        self.fail(span, format!("{modifier} modifier must be preceded by {places}"))
    }

    /// The operand with the modifier that was just read.
    fn extended(&self, mut held: Held) -> Held {
        match &mut held {
            Held::Selector(_, span) | Held::Matrix { span, .. } | Held::Subquery { span, .. } => {
                span.end = self.closed;
            }
            Held::Node(_) => {}
        }
        held
    }

    fn at(&mut self, mut held: Held) -> Parsed<Held> {
        let span = self.held_span(&held);
        self.advance()?;
        let time = match self.token.kind {
            Kind::Word(word @ (Word::Start | Word::End)) => {
                self.advance()?;
                self.need(Kind::LeftParen, "@", "timestamp")?;
                self.need(Kind::RightParen, "@", "timestamp")?;
                if word == Word::Start { At::Start } else { At::End }
            }
            _ => match self.signed_number()? {
                Some(seconds) if seconds.is_finite() && seconds.abs() < i64::MAX as f64 => {
                    At::Timestamp((seconds * 1e3).round() as i64)
                }
                Some(seconds) => {
                    let seconds = match seconds {
                        s if s.is_nan() => "NaN".to_owned(),
                        s if s.is_infinite() => (if s > 0.0 { "+Inf" } else { "-Inf" }).to_owned(),
                        s => format!("{s:.6}"),
                    };
                    return self.fail(span, format!("timestamp out of bounds for @ modifier: {seconds}"));
                }
                None => return self.unexpected("@", "timestamp"),
            },
        };
        let at = match &mut held {
            Held::Selector(selector, _) | Held::Matrix { selector, .. } => &mut selector.at,
            Held::Subquery { shift, .. } => &mut shift.at,
            Held::Node(_) => return self.misplaced(span, "@"),
        };
        if at.is_some() {
            return self.fail(span, "@ <timestamp> may not be set multiple times");
        }
        *at = Some(time);
        Ok(self.extended(held))
    }

    fn edges(&mut self, mut held: Held, edges: Edges) -> Parsed<Held> {
        let span = self.held_span(&held);
        let word = self.text_at(self.token.span);
        match &mut held {
            Held::Selector(selector, _) | Held::Matrix { selector, .. } => {
                if selector.edges != Edges::Plain && selector.edges != edges {
                    return self.fail(span, "anchored and smoothed modifiers cannot be used together");
                }
                selector.edges = edges;
            }
            Held::Subquery { .. } => {
                return self.fail(span, format!("{word} modifier is not supported for subqueries"));
            }
            Held::Node(_) => return self.fail(span, format!("{word} modifier not implemented")),
        }
        self.advance()?;
        Ok(self.extended(held))
    }
}
