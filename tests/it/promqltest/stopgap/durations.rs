//! Durations, plain and computed.

use weir::promql::ast::{BinaryOp, DurationExpr, Expr, NodeId, ValueType};

use super::parser::Parser;

impl Parser<'_> {
    /// Between brackets: a whole expression.
    pub(super) fn duration(&mut self) -> Result<DurationExpr, String> {
        let id = self.duration_expr(0)?;
        Ok(self.duration_of(id))
    }

    /// After `offset`: one term, or anything in parentheses.
    pub(super) fn offset(&mut self) -> Result<DurationExpr, String> {
        let id = self.duration_sign(false)?;
        Ok(self.duration_of(id))
    }

    fn duration_of(&self, id: NodeId) -> DurationExpr {
        let (mut at, mut sign) = (id, 1.0);
        loop {
            match &self.nodes[at.0 as usize].expr {
                Expr::Number(seconds) => return DurationExpr::Literal((sign * seconds * 1e3).round() as i64),
                Expr::Unary { negative, expr } => {
                    sign = if *negative { -sign } else { sign };
                    at = *expr;
                }
                _ => return DurationExpr::Computed(id),
            }
        }
    }

    fn duration_expr(&mut self, least: u8) -> Result<NodeId, String> {
        const OPS: [(&str, u8, BinaryOp); 6] = [
            ("+", 1, BinaryOp::Add),
            ("-", 1, BinaryOp::Sub),
            ("*", 2, BinaryOp::Mul),
            ("/", 2, BinaryOp::Div),
            ("%", 2, BinaryOp::Mod),
            ("^", 3, BinaryOp::Pow),
        ];
        let start = self.here();
        let mut lhs = self.duration_sign(true)?;
        loop {
            let found = OPS.iter().find(|(token, level, _)| *level >= least && self.cursor.starts(token));
            let Some((token, level, op)) = found else { return Ok(lhs) };
            self.cursor.need(token)?;
            let rhs = self.duration_expr(if *level == 3 { 3 } else { level + 1 })?;
            let expr = Expr::Binary { op: *op, lhs, rhs, return_bool: false, matching: None };
            lhs = self.node(expr, start, ValueType::Duration);
        }
    }

    /// A term with an optional sign, which `^` binds tighter than if `powers`.
    fn duration_sign(&mut self, powers: bool) -> Result<NodeId, String> {
        let start = self.here();
        for (token, negative) in [("-", true), ("+", false)] {
            if self.cursor.eat(token) {
                let expr = if powers { self.duration_expr(3)? } else { self.duration_term()? };
                return Ok(self.node(Expr::Unary { negative, expr }, start, ValueType::Duration));
            }
        }
        self.duration_term()
    }

    fn duration_term(&mut self) -> Result<NodeId, String> {
        let start = self.here();
        if self.cursor.eat("(") {
            let inner = self.duration_expr(0)?;
            self.cursor.need(")")?;
            return Ok(self.node(Expr::Paren(inner), start, ValueType::Duration));
        }
        let name = self.cursor.peek_name(false).unwrap_or_default().to_ascii_lowercase();
        let expr = match name.as_str() {
            "step" | "range" => {
                self.cursor.pos += name.len();
                self.cursor.need("(")?;
                self.cursor.need(")")?;
                if name == "step" { Expr::DurationStep } else { Expr::DurationRange }
            }
            "min_of" | "max_of" => {
                self.cursor.pos += name.len();
                self.cursor.need("(")?;
                let a = self.duration_expr(0)?;
                self.cursor.need(",")?;
                let b = self.duration_expr(0)?;
                self.cursor.need(")")?;
                Expr::DurationMinMax { max: name == "max_of", a, b }
            }
            _ => Expr::Number(self.cursor.number().ok_or("expected a duration")?),
        };
        Ok(self.node(expr, start, ValueType::Duration))
    }
}
