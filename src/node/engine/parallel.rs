//! One operator's input, read by several threads.
//!
//! What an operator pulls from a selector through operators that look at one series at a time can be pulled in parts:
//! the first so many series of the selection, the next, and so on. Each part is a stream of its own with its own
//! buffers; the operator brings the results together in the order of the parts. Neither how many threads were free nor
//! which was faster shows in the answer.

use std::{
    num::NonZero,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
    thread,
};

use super::{
    error::EvalError,
    eval::Eval,
    functions,
    selector::{Lookup, Take},
    window::RangeArg,
};
use crate::{
    base::TimeRange,
    node::storage::Selection,
    promql::ast::{Expr, Matcher, NodeId, ValueType},
};

/// Threads that queries may use beside their own, all of them together.
#[derive(Clone, Debug)]
pub struct Workers(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    /// Parts that a selection is read in.
    parts: usize,
    /// Selections with fewer series are read whole: to start a thread takes longer.
    series_min: usize,
    free: AtomicUsize,
}

impl Workers {
    /// Series from which on a second thread pays.
    pub const SERIES_MIN: usize = 64;

    /// So many threads at most work for one query, and one fewer for all of them beside their own.
    pub fn new(threads: NonZero<usize>, series_min: usize) -> Self {
        let parts = threads.get();
        Self(Arc::new(Shared { parts, series_min, free: AtomicUsize::new(parts - 1) }))
    }

    /// Takes as many free threads as there are, up to `most`.
    fn borrow(&self, most: usize) -> Borrowed<'_> {
        let mut taken = 0;
        // The closure always says Some, so this does not fail.
        let _ = self.0.free.fetch_update(Relaxed, Relaxed, |free| {
            taken = free.min(most);
            Some(free - taken)
        });
        Borrowed { free: &self.0.free, taken }
    }
}

impl Default for Workers {
    /// Every query stays on its own thread.
    fn default() -> Self {
        Self::new(NonZero::<usize>::MIN, Self::SERIES_MIN)
    }
}

/// Threads in use; given back when dropped.
struct Borrowed<'w> {
    free: &'w AtomicUsize,
    taken: usize,
}

impl Drop for Borrowed<'_> {
    fn drop(&mut self) {
        self.free.fetch_add(self.taken, Relaxed);
    }
}

/// The series of a selection that one stream reads.
#[derive(Clone)]
pub(super) struct Part<'a> {
    pub(super) selection: Arc<dyn Selection + 'a>,
    pub(super) from: usize,
    pub(super) to: usize,
}

/// The only selector below a node that everything above it takes series by series.
struct Leaf<'a> {
    matchers: &'a [Matcher],
    window: TimeRange,
}

impl<'a> Eval<'a> {
    /// Runs `work`, which pulls the stream of `id`, on all of it, or on each of its parts; results in order.
    pub(super) fn in_parts<S: Send>(
        &self,
        id: NodeId,
        work: impl Fn(&Eval<'a>) -> Result<S, EvalError> + Sync,
    ) -> Result<Vec<S>, EvalError> {
        let workers = &self.cx.workers.0;
        let leaf = if workers.parts > 1 && self.part.is_none() { self.leaf(id) } else { None };
        let Some(leaf) = leaf else {
            return Ok(vec![work(self)?]);
        };
        let selection: Arc<dyn Selection + 'a> = self.cx.storage.select(leaf.matchers, leaf.window)?.into();
        let series = selection.series();
        let parts = if series < workers.series_min.max(2) { 1 } else { workers.parts.min(series) };
        let part = |number: usize| Part {
            selection: Arc::clone(&selection),
            from: series * number / parts,
            to: series * (number + 1) / parts,
        };
        let run = |number: usize| {
            let eval = Eval { part: Some(part(number)), ..self.clone() };
            work(&eval)
        };
        if parts == 1 {
            return Ok(vec![run(0)?]);
        }
        let borrowed = self.cx.workers.borrow(parts - 1);
        let results: Vec<Mutex<Option<Result<S, EvalError>>>> =
            (0..parts).map(|_| Mutex::new(None)).collect();
        let next = AtomicUsize::new(0);
        thread::scope(|scope| {
            let drain = || {
                loop {
                    let number = next.fetch_add(1, Relaxed);
                    let Some(place) = results.get(number) else { return };
                    let result = run(number);
                    *place.lock().unwrap_or_else(PoisonError::into_inner) = Some(result);
                }
            };
            for _ in 0..borrowed.taken {
                scope.spawn(drain);
            }
            drain();
        });
        let taken = |place: Mutex<Option<_>>| place.into_inner().unwrap_or_else(PoisonError::into_inner);
        results.into_iter().filter_map(taken).collect()
    }

    /// The selector that the stream of a node is read from, if nothing above it needs more than a series at a time.
    fn leaf(&self, id: NodeId) -> Option<Leaf<'a>> {
        if self.grid.count == 0 {
            return None;
        }
        if self.repeats(id) {
            return self.with_grid(self.grid.first()).leaf_here(id);
        }
        self.leaf_here(id)
    }

    fn leaf_here(&self, id: NodeId) -> Option<Leaf<'a>> {
        let reads = |id: NodeId| self.planned(id).reads;
        match self.expr(id) {
            Expr::Selector(selector) => {
                let planned = self.planned(id);
                let lookup = Lookup { at: planned.at, offset: planned.offset };
                let window = self.instant_window(lookup, Take::of(selector));
                Some(Leaf { matchers: &selector.matchers, window })
            }
            Expr::Paren(inner) | Expr::Unary { expr: inner, .. } => self.leaf(*inner),
            Expr::Binary { lhs, rhs, .. } => match (self.ty(*lhs), self.ty(*rhs)) {
                (ValueType::Vector, ValueType::Scalar) if !reads(*rhs) => self.leaf(*lhs),
                (ValueType::Scalar, ValueType::Vector) if !reads(*lhs) => self.leaf(*rhs),
                _ => None,
            },
            Expr::Call { func, args } => {
                let (first, others) = functions::by_series(self, func.name, args)?;
                if others.into_iter().any(reads) {
                    return None;
                }
                match self.range_arg(first) {
                    Some(range) => self.range_leaf(&range),
                    None => self.leaf(first),
                }
            }
            _ => None,
        }
    }

    fn range_leaf(&self, range: &RangeArg) -> Option<Leaf<'a>> {
        match self.expr(range.id) {
            Expr::Matrix { selector, .. } => match self.expr(self.unparen(*selector)) {
                Expr::Selector(selector) => {
                    Some(Leaf { matchers: &selector.matchers, window: self.range_window(range) })
                }
                _ => None,
            },
            Expr::Subquery { expr, .. } => self.with_grid(self.subquery_grid(range)).leaf(*expr),
            _ => None,
        }
    }
}
