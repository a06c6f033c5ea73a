//! One operator's input, read ahead by several threads.
//!
//! Operators that look at one series at a time are applied to batches of series between the selector and the operator
//! that pulls from them. Threads read batches ahead; the operator takes them in the order of the series, so that it
//! adds up the same numbers in the same order with any number of threads.

use std::{collections::BTreeMap, sync::Arc, thread};

use parking_lot::{Condvar, Mutex, MutexGuard};

use super::{
    error::EvalError,
    eval::{Eval, Sink},
    functions,
    selector::{Lookup, Take},
    value::Matrix,
    window::RangeArg,
    workers::Part,
};
use crate::{
    base::TimeRange,
    promql::ast::{Expr, Matcher, NodeId, ValueType},
};

/// Series of a batch: enough that handing it over costs little beside reading it.
const BATCH: usize = 32;
/// Batches that each thread may be ahead of the operator.
const AHEAD: usize = 2;

/// The only selector below a node that everything above it takes series by series.
struct Leaf<'a> {
    matchers: &'a [Matcher],
    window: TimeRange,
}

/// Batches on their way from the threads that read them to the operator.
struct Ahead<'a> {
    state: Mutex<State<'a>>,
    changed: Condvar,
    batches: usize,
    /// Batches that may be claimed beyond those that the operator took.
    most: usize,
}

struct State<'a> {
    claimed: usize,
    taken: usize,
    stopped: bool,
    ready: BTreeMap<usize, Result<Matrix<'a>, EvalError>>,
}

impl<'a> Ahead<'a> {
    fn new(batches: usize, threads: usize) -> Self {
        let state = State { claimed: 0, taken: 0, stopped: false, ready: BTreeMap::new() };
        Self { state: Mutex::new(state), changed: Condvar::new(), batches, most: AHEAD * threads }
    }

    fn state(&self) -> MutexGuard<'_, State<'a>> {
        self.state.lock()
    }

    /// The next batch to be read, unless it would be too far ahead.
    fn claim(&self, state: &mut State<'a>) -> Option<usize> {
        let number = state.claimed;
        let free = !state.stopped && number < self.batches && number < state.taken + self.most;
        free.then(|| {
            state.claimed += 1;
            number
        })
    }

    fn put(&self, number: usize, batch: Result<Matrix<'a>, EvalError>) {
        self.state().ready.insert(number, batch);
        self.changed.notify_all();
    }

    /// Reads batches until there are no more.
    fn work(&self, read: impl Fn(usize) -> Result<Matrix<'a>, EvalError>) {
        let mut state = self.state();
        while !state.stopped && state.claimed < self.batches {
            let Some(number) = self.claim(&mut state) else {
                self.changed.wait(&mut state);
                continue;
            };
            drop(state);
            self.put(number, read(number));
            state = self.state();
        }
    }

    /// The batch that is next in order; reads others while it is not there.
    fn take(&self, read: impl Fn(usize) -> Result<Matrix<'a>, EvalError>) -> Result<Matrix<'a>, EvalError> {
        let mut state = self.state();
        loop {
            let next = state.taken;
            if let Some(batch) = state.ready.remove(&next) {
                state.taken += 1;
                self.changed.notify_all();
                return batch;
            }
            if let Some(number) = self.claim(&mut state) {
                drop(state);
                self.put(number, read(number));
                state = self.state();
            } else {
                self.changed.wait(&mut state);
            }
        }
    }
}

/// Ends the threads, however the operator ends.
struct StopOnDrop<'s, 'a>(&'s Ahead<'a>);

impl Drop for StopOnDrop<'_, '_> {
    fn drop(&mut self) {
        self.0.state().stopped = true;
        self.0.changed.notify_all();
    }
}

impl<'a> Eval<'a> {
    /// The series of a node in the order of [`stream`](Self::stream), read ahead by other threads where that is
    /// possible.
    pub(super) fn stream_ahead(&self, id: NodeId, sink: Sink<'_>) -> Result<(), EvalError> {
        let workers = &self.cx.workers;
        let leaf = if workers.threads() > 1 && self.part.is_none() { self.leaf(id) } else { None };
        let Some(leaf) = leaf else { return self.stream(id, sink) };
        let mut held = self.cx.meter.hold();
        let selection = self.select(leaf.matchers, leaf.window, &mut held)?;
        let series = selection.series();
        let among = |from: usize, to: usize| {
            let part = Part { selection: Arc::clone(&selection), from, to };
            Eval { part: Some(part), ..self.clone() }
        };
        let batches = series.div_ceil(BATCH);
        let most =
            if series < workers.series_min() { 0 } else { batches.min(workers.threads()).saturating_sub(1) };
        let borrowed = workers.borrow(most);
        if borrowed.taken == 0 {
            return among(0, series).stream(id, sink);
        }
        let read = |number: usize| {
            let from = number * BATCH;
            let mut batch = Matrix { series: Vec::new(), held: self.cx.meter.hold() };
            among(from, series.min(from + BATCH)).stream(id, &mut |series| batch.push(series))?;
            Ok(batch)
        };
        let ahead = Ahead::new(batches, borrowed.taken + 1);
        thread::scope(|scope| {
            let _stop = StopOnDrop(&ahead);
            for _ in 0..borrowed.taken {
                scope.spawn(|| ahead.work(read));
            }
            for _ in 0..batches {
                let mut batch = ahead.take(read)?;
                batch.series.iter_mut().try_for_each(&mut *sink)?;
            }
            Ok(())
        })
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
                let (first, others) = functions::by_series(self, func.id, args)?;
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
