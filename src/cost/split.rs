//! A range query in parts of its time, one after the other: an engine then holds the share of one part at once.
//!
//! Prometheus' engine holds series × steps until the last step is known. 20,000 series over 6 h at 15 s, summed, take
//! 1,619 MiB at their peak; in eight parts, two queries at a time, 851 MiB for both and no more time than the two whole
//! ones, which take 2,317 (measured on Prometheus 2.42). A part counts twice: the collector frees the memory of the one
//! before only after the same amount was allocated again (measured: 2.1 to 2.3 times the share, in 4, 8 and 16 parts).

use std::sync::{Arc, OnceLock};

use super::{Estimated, Knowledge, Model, estimate};
use crate::{
    base::{Confidence, Estimate, Kind, time::EvalTimes},
    promql::{
        ast::Ast,
        shape::{Output, Shape},
        steps::{self, Splittable},
    },
};

/// Into how many parts a query may be split.
const PARTS: [u64; 9] = [2, 3, 4, 6, 8, 12, 16, 24, 32];
/// Each part reads the lookback of its first step again. Samples that all parts together may read, percent of those of
/// the whole: windows that are long against the parts are not worth it.
const READ_PERCENT: u64 = 125;
/// Prometheus refuses a query of more steps, and would not refuse its parts.
const STEPS_MAX: u64 = 11_001;
/// How often the memory of one part counts: itself, and the garbage of the one before.
pub const PARTS_COUNTED: usize = 2;
/// Steps of a part at least.
const STEPS_LEAST: u64 = 8;
/// An answer that is expected to be longer than this, in bytes, is not merged from parts.
pub const MERGED_MAX: usize = 4 << 20;
/// Bytes of a point as JSON.
const POINT_BYTES: u64 = 24;
/// Labels that Prometheus drops together with a series' name.
const DROPPED_WITH_NAME: [&str; 2] = ["__type__", "__unit__"];

/// A range query that can be split.
#[derive(Clone, Debug)]
pub struct QuerySplit {
    ast: Arc<Ast>,
    times: EvalTimes,
    lookback_ms: u64,
    splittable: Splittable,
    /// The client asks for all replicas: Thanos merges nothing.
    all_replicas: bool,
    /// The first part of each split, read off when it is first needed.
    firsts: [OnceLock<Shape>; PARTS.len()],
}

impl QuerySplit {
    /// `None` where a part of the time may not give a part of the answer.
    pub fn of(ast: &Arc<Ast>, times: EvalTimes, lookback_ms: u64) -> Option<Self> {
        if !(2 * STEPS_LEAST..=STEPS_MAX).contains(&times.steps()) {
            return None;
        }
        let (splittable, ast) = (steps::splittable(ast)?, Arc::clone(ast));
        Some(Self { ast, times, lookback_ms, splittable, all_replicas: false, firsts: Default::default() })
    }

    /// The request says `dedup=false`.
    #[must_use]
    pub fn of_all_replicas(self) -> Self {
        Self { all_replicas: true, ..self }
    }

    /// Whether the request says `dedup=false`.
    pub const fn asks_for_all_replicas(&self) -> bool {
        self.all_replicas
    }

    /// The estimate of the same query in the fewest parts that bring it down to `most` bytes at once, or nearest to it;
    /// unchanged where parts hold no less, may differ from the whole, or where its samples are unknown.
    ///
    /// As monotone as the estimate: a query over `most` is never booked at less than that, however small its parts are.
    pub fn split(&self, whole: Estimated, known: &Knowledge<'_>, model: &Model, most: u64) -> Estimated {
        let memory = whole.cost.memory;
        if memory.value <= most || !self.is_faithful(known, model) || answer_bytes(&whole) > MERGED_MAX as u64
        {
            return whole;
        }
        if known.series.iter().any(|known| known.series.confidence >= Confidence::AtLeast) {
            return whole;
        }
        let readable = whole.cost.samples.value.saturating_mul(READ_PERCENT) / 100;
        let mut best: Option<(u64, Estimate)> = None;
        for (parts, first) in PARTS.into_iter().zip(&self.firsts) {
            if self.times.steps() < parts * STEPS_LEAST {
                break;
            }
            let part = estimate(first.get_or_init(|| self.first_of(parts)), known, model).cost;
            if part.samples.value.saturating_mul(parts) > readable {
                break;
            }
            let memory = part.memory.times(PARTS_COUNTED as u64);
            if best.is_none_or(|(_, least)| memory.value < least.value) {
                best = Some((parts, memory));
            }
            if memory.value <= most {
                break;
            }
        }
        match best {
            Some((parts, part)) if part.value < memory.value => {
                let mut split = Estimated { parts, ..whole };
                split.cost.memory = Estimate::new(part.value.max(most), part.confidence);
                split
            }
            _ => whole,
        }
    }

    /// Whether the parts of this backend's answer make the whole.
    fn is_faithful(&self, known: &Knowledge<'_>, model: &Model) -> bool {
        // Which replica's sample Thanos takes depends on where a query starts.
        let merges_replicas = model.kind == Kind::Thanos && !self.all_replicas;
        let drops_more = || known.table.is_some_and(|table| DROPPED_WITH_NAME.iter().any(|l| table.has(l)));
        !(merges_replicas || self.splittable.drops_names && drops_more())
    }

    /// The parts, on the grid of the whole: every step is in one of them.
    pub fn times(&self, parts: u64) -> Vec<EvalTimes> {
        let EvalTimes { start, step, .. } = self.times;
        let steps = self.times.steps();
        let at = |n: u64| start.saturating_add_unsigned(n.saturating_mul(step));
        let first_step = |part: u64| (u128::from(steps) * u128::from(part) / u128::from(parts)) as u64;
        let part = |n| {
            let (from, to) = (first_step(n), first_step(n + 1));
            EvalTimes { start: at(from), end: at(to.saturating_sub(1)), step }
        };
        (0..parts).map(part).collect()
    }

    /// The length of the longest of `parts` parts.
    fn first_of(&self, parts: u64) -> Shape {
        let EvalTimes { start, step, .. } = self.times;
        let steps = self.times.steps().div_ceil(parts);
        let end = start.saturating_add_unsigned((steps - 1).saturating_mul(step));
        Shape::of(&self.ast, EvalTimes { start, end, step }, self.lookback_ms)
    }
}

/// Bytes of JSON that the answer is known to need. The number of groups is unknown until the first part is answered.
fn answer_bytes(whole: &Estimated) -> u64 {
    let series = whole.selectors.iter().map(|selector| match selector.output {
        Output::Nothing | Output::Grouped => 0,
        Output::One => 1,
        Output::Top(k) => k.min(selector.series.value),
        Output::Same => selector.series.value,
    });
    let series = series.fold(0u64, u64::saturating_add);
    series.saturating_mul(whole.cost.steps).saturating_mul(POINT_BYTES)
}
