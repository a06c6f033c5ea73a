//! The plan of every node before anything is read: durations, `@`, step invariance.

use super::error::{EvalError, execution};
use crate::{
    base::time::EvalTimes,
    promql::{
        ast::{Ast, At, BinaryOp, DurationExpr, Expr, NodeId},
        function::FunctionId,
    },
};

/// Deeper trees are refused: evaluation recurses.
const DEPTH_MAX: usize = 256;

/// Longest duration in milliseconds: Prometheus' signed 64 bits of nanoseconds.
const DURATION_MAX_MS: f64 = 9.223e15;

/// One node, resolved. Times and durations are milliseconds.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct Planned {
    /// The time that `@` fixes.
    pub(super) at: Option<i64>,
    pub(super) offset: i64,
    pub(super) range: i64,
    /// Of a subquery.
    pub(super) step: i64,
    /// The value is the same at every step.
    pub(super) invariant: bool,
    /// A selector is in it.
    pub(super) reads: bool,
}

/// All nodes of a query, by [`NodeId`].
#[derive(Debug)]
pub(super) struct Plan(Vec<Planned>);

impl Plan {
    pub(super) fn new(ast: &Ast, times: EvalTimes, subquery_step_ms: u64) -> Result<Self, EvalError> {
        let mut plan = Self(Vec::with_capacity(ast.nodes.len()));
        let mut depths: Vec<usize> = Vec::with_capacity(ast.nodes.len());
        let planner = Planner { ast, times, subquery_step_ms };
        for node in &ast.nodes {
            let mut planned = planner.node(&plan, &node.expr)?;
            let operands = operands(&node.expr);
            planned.reads = matches!(node.expr, Expr::Selector(_))
                || operands.iter().any(|operand| plan.get(*operand).reads);
            plan.0.push(planned);
            let below = operands.into_iter().filter_map(|id| depths.get(id.0 as usize)).max();
            let depth = below.map_or(1, |d| d + 1);
            if depth > DEPTH_MAX {
                return execution(format!("the query is nested deeper than {DEPTH_MAX} levels"));
            }
            depths.push(depth);
        }
        Ok(plan)
    }

    pub(super) fn get(&self, id: NodeId) -> Planned {
        self.0.get(id.0 as usize).copied().unwrap_or_default()
    }
}

struct Planner<'a> {
    ast: &'a Ast,
    times: EvalTimes,
    subquery_step_ms: u64,
}

impl Planner<'_> {
    fn node(&self, plan: &Plan, expr: &Expr) -> Result<Planned, EvalError> {
        let invariant = |id: &NodeId| plan.get(*id).invariant;
        let mut planned = Planned::default();
        match expr {
            Expr::Number(_) | Expr::String(_) => planned.invariant = true,
            Expr::Selector(selector) => {
                planned.at = self.at(selector.at);
                planned.offset = self.offset(selector.offset)?;
                planned.invariant = planned.at.is_some();
            }
            Expr::Matrix { selector, range } => {
                planned = Planned { range: self.positive(range)?, ..plan.get(*selector) };
            }
            Expr::Subquery { range, step, at, offset, .. } => {
                planned.at = self.at(*at);
                planned.offset = self.offset(*offset)?;
                planned.range = self.positive(range)?;
                planned.step = match step {
                    Some(step) => self.positive(step)?,
                    None => (self.subquery_step_ms as i64).max(1),
                };
                planned.invariant = planned.at.is_some();
            }
            Expr::Call { func, args } => {
                let over_selector =
                    |id: &NodeId| matches!(self.ast.expr(unparen(self.ast, *id)), Expr::Selector(_));
                let depends = func.id.depends_on_time()
                    && !(func.id == FunctionId::Timestamp && args.iter().all(over_selector));
                planned.invariant = !depends && args.iter().all(invariant);
            }
            Expr::Aggregate { param, expr, .. } => {
                planned.invariant = invariant(expr) && param.as_ref().is_none_or(invariant);
            }
            Expr::Binary { lhs, rhs, .. } => planned.invariant = invariant(lhs) && invariant(rhs),
            Expr::Unary { expr, .. } | Expr::Paren(expr) => planned.invariant = invariant(expr),
            Expr::DurationStep | Expr::DurationRange | Expr::DurationMinMax { .. } => {}
        }
        Ok(planned)
    }

    fn at(&self, at: Option<At>) -> Option<i64> {
        at.map(|at| match at {
            At::Timestamp(ms) => ms,
            At::Start => self.times.start,
            At::End => self.times.end,
        })
    }

    fn offset(&self, offset: Option<DurationExpr>) -> Result<i64, EvalError> {
        offset.map_or(Ok(0), |duration| self.millis(&duration))
    }

    fn positive(&self, duration: &DurationExpr) -> Result<i64, EvalError> {
        let ms = self.millis(duration)?;
        if ms > 0 { Ok(ms) } else { execution("duration must be greater than 0") }
    }

    fn millis(&self, duration: &DurationExpr) -> Result<i64, EvalError> {
        let seconds = match duration {
            DurationExpr::Literal(ms) => return Ok(*ms),
            DurationExpr::Computed(id) => self.seconds(*id)?,
        };
        if !seconds.is_finite() {
            return execution("duration is NaN or infinite");
        }
        if seconds.abs() > DURATION_MAX_MS / 1e3 {
            return execution("duration is out of range");
        }
        Ok((seconds * 1e3) as i64)
    }

    /// Seconds of a duration expression. Its depth is bounded by the parser.
    fn seconds(&self, id: NodeId) -> Result<f64, EvalError> {
        Ok(match self.ast.expr(id) {
            Expr::Number(n) => *n,
            Expr::Paren(inner) => self.seconds(*inner)?,
            Expr::Unary { negative, expr } => {
                let value = self.seconds(*expr)?;
                if *negative { -value } else { value }
            }
            Expr::DurationStep => self.times.step as f64 / 1e3,
            Expr::DurationRange => self.times.end.saturating_sub(self.times.start) as f64 / 1e3,
            Expr::DurationMinMax { max, a, b } => {
                let (a, b) = (self.seconds(*a)?, self.seconds(*b)?);
                if *max { a.max(b) } else { a.min(b) }
            }
            Expr::Binary { op, lhs, rhs, .. } => {
                let (a, b) = (self.seconds(*lhs)?, self.seconds(*rhs)?);
                match op {
                    BinaryOp::Add => a + b,
                    BinaryOp::Sub => a - b,
                    BinaryOp::Mul => a * b,
                    BinaryOp::Pow => a.powf(b),
                    BinaryOp::Div if b == 0.0 => return execution("division by zero"),
                    BinaryOp::Mod if b == 0.0 => return execution("modulo by zero"),
                    BinaryOp::Div => a / b,
                    BinaryOp::Mod => a % b,
                    _ => return execution("unexpected operator in a duration"),
                }
            }
            _ => return execution("unexpected expression in a duration"),
        })
    }
}

/// The expression inside any parentheses.
pub(super) fn unparen(ast: &Ast, mut id: NodeId) -> NodeId {
    while let Expr::Paren(inner) = ast.expr(id) {
        id = *inner;
    }
    id
}

fn operands(expr: &Expr) -> Vec<NodeId> {
    let computed = |duration: &DurationExpr| match duration {
        DurationExpr::Computed(id) => Some(*id),
        DurationExpr::Literal(_) => None,
    };
    match expr {
        Expr::Matrix { selector, range } => {
            [Some(*selector), computed(range)].into_iter().flatten().collect()
        }
        Expr::Selector(selector) => selector.offset.as_ref().and_then(computed).into_iter().collect(),
        Expr::Subquery { expr, range, step, offset, .. } => {
            let durations = [Some(range), step.as_ref(), offset.as_ref()];
            let durations = durations.into_iter().flatten().filter_map(computed);
            std::iter::once(*expr).chain(durations).collect()
        }
        Expr::Call { args, .. } => args.clone(),
        Expr::Aggregate { param, expr, .. } => param.iter().copied().chain([*expr]).collect(),
        Expr::Binary { lhs, rhs, .. } => vec![*lhs, *rhs],
        Expr::Unary { expr, .. } | Expr::Paren(expr) => vec![*expr],
        Expr::DurationMinMax { a, b, .. } => vec![*a, *b],
        Expr::Number(_) | Expr::String(_) | Expr::DurationStep | Expr::DurationRange => Vec::new(),
    }
}
