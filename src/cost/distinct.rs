//! The different values that `count_values` makes series of: nobody keeps them, but a few instants tell.

use super::Subject;
use crate::promql::{
    ast::{AggregateOp, Ast, Expr, NodeId, ValueType},
    function::FunctionId,
    shape::Shape,
};

/// Instants at which the values are looked at, spread evenly from the first evaluation to the last: few at first, and more
/// while some of the values come again and the query is still too expensive.
pub(super) const LOOKS: [u64; 3] = [4, 16, 64];
/// Most values that one look brings.
pub(super) const VALUES_MAX: u64 = 200_000;
/// Longer expressions are not asked about, bytes.
const TEXT_MAX: usize = 4 << 10;

/// An expression whose different values are to be counted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ValuesNeed {
    /// The index of its selector in the shape.
    pub selector: usize,
    /// Series of that selector at most.
    pub series: u64,
    /// The operand of `count_values`.
    pub text: String,
    /// When to look, milliseconds.
    pub instants: Vec<i64>,
    /// Evaluations of the query.
    pub steps: u64,
}

/// The operands of `count_values` that may be asked about at this number of instants: a selector, under functions of its
/// values alone.
pub(super) fn needs(subject: &Subject<'_>, instants: u64) -> Vec<ValuesNeed> {
    let (shape, Some(ast)) = (subject.shape, subject.shape.ast()) else { return Vec::new() };
    let operand = |expr: &Expr| match expr {
        Expr::Aggregate { op: AggregateOp::CountValues, expr, .. } => need(shape, ast, *expr, instants),
        _ => None,
    };
    ast.nodes.iter().filter_map(|node| operand(&node.expr)).collect()
}

fn need(shape: &Shape, ast: &Ast, operand: NodeId, instants: u64) -> Option<ValuesNeed> {
    let text = ast.text_of(operand);
    let at = shape.nodes.get(plain_selector(ast, shape, operand)?.0 as usize)?;
    let selector = at.selector? as usize;
    let read = shape.selectors.get(selector)?;
    let is_graph = at.steps == shape.steps && shape.steps > instants && !read.match_all;
    if !is_graph || text.len() > TEXT_MAX {
        return None;
    }
    let last = read.window.end;
    let first =
        read.window.start.saturating_add_unsigned(read.window_per_eval_ms.saturating_sub(1)).min(last);
    let span = last.saturating_sub(first);
    let instant =
        |n: u64| first.saturating_add((i128::from(span) * i128::from(n) / i128::from(instants - 1)) as i64);
    let instants = (0..instants).map(instant).collect();
    Some(ValuesNeed { selector, series: 0, text: text.to_owned(), instants, steps: shape.steps })
}

/// The selector below functions of its values alone; without `@` and `offset`, so that the text means the same at an instant.
fn plain_selector(ast: &Ast, shape: &Shape, mut id: NodeId) -> Option<NodeId> {
    let is_number = |id: &NodeId| shape.nodes.get(id.0 as usize).is_some_and(|node| node.number.is_some());
    loop {
        let inner = match ast.expr(id) {
            Expr::Selector(selector) => {
                return (selector.at.is_none() && selector.offset.is_none()).then_some(id);
            }
            Expr::Paren(inner) | Expr::Unary { expr: inner, .. } => *inner,
            Expr::Call { func, args } if is_of_values(func.id) && args.iter().skip(1).all(is_number) => {
                *args.first()?
            }
            Expr::Binary { lhs, rhs, .. } if ast.node(*lhs).ty == ValueType::Vector && is_number(rhs) => *lhs,
            Expr::Binary { lhs, rhs, .. } if ast.node(*rhs).ty == ValueType::Vector && is_number(lhs) => *rhs,
            _ => return None,
        };
        // Operands come first: the index falls.
        id = (inner < id).then_some(inner)?;
    }
}

const fn is_of_values(id: FunctionId) -> bool {
    use FunctionId::{Abs, Ceil, Clamp, ClampMax, ClampMin, Floor, Round, Sgn};
    matches!(id, Abs | Ceil | Clamp | ClampMax | ClampMin | Floor | Round | Sgn)
}

/// How many different values there are over all steps, where `seen[n]` values were seen at n + 1 of the instants: each step
/// brings as many new ones as an instant has that no other has. Estimators of those not seen (Chao's) need values that are
/// all alike; half of the series may repeat theirs while the other half never does.
pub(super) fn different(seen: &[u64], steps: u64) -> u64 {
    let all = seen.iter().fold(0_u64, |sum, n| sum.saturating_add(*n));
    let (once, instants) = (seen.first().copied().unwrap_or(0), (seen.len() as u64).max(1));
    let unseen = once.div_ceil(instants).saturating_mul(steps.saturating_sub(instants));
    all.saturating_add(unseen)
}

/// Whether a sixteenth of the values were seen at several instants: more instants tell more of such.
pub(super) fn come_again(seen: &[u64]) -> bool {
    let (once, all) =
        (seen.first().copied().unwrap_or(0), seen.iter().fold(0_u64, |sum, n| sum.saturating_add(*n)));
    all > 0 && all - once >= all / 16
}
