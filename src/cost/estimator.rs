//! The estimate of one query as a state machine without I/O: it prices with the numbers at hand, from the cheapest
//! source to the most expensive, and asks for more only while a limit is in doubt.
//!
//! ```text
//! label table ─▶ within? ─ no ─▶ history ─▶ within? ─ no ─▶ probes, in waves ─▶ done
//!                   └─ yes ─▶ done   └─ yes ─▶ done             └─ refused whatever is left ─▶ done
//! ```
//!
//! A query that is not refused is priced again with the types of its samples.

use std::collections::HashMap;

use super::{
    CostLimits, Estimated, LabelTable, Remembered, SampleType, SeriesKnowledge, Source, Subject,
    UNKNOWN_SERIES, Unknown, ValuesNeed, Verdict, distinct,
    label_table::USUAL_SET_BYTES,
    limits::{REFERENCE_SERIES, fewest, of_cost, of_selector},
};
use crate::{
    base::{Confidence, Estimate, LabelSize, QueryCost},
    promql::{function, shape::SelectorShape},
};

/// Selectors of one query that are counted by the backend; those beyond are priced without a count.
const PROBES_MAX: usize = 64;
/// Probes that one query has at the backend at a time.
const WAVE: usize = 8;
/// Where a probe stops counting when no limit refuses the query however many there are.
const PROBE_SERIES: u64 = 100_000;
/// A count that stopped at a limit and does not refuse the query is repeated up to this multiple of the limit.
const RECOUNT_FACTOR: u64 = 16;
/// The most such repetitions.
const RECOUNTS_MAX: u8 = 2;
/// A query in the most parts holds a sixteenth of the whole (32 parts, of which two count).
const SPLIT_FACTOR: u64 = 16;
/// A bound books at most a sixteenth of the query's limit without a count: it may be many times the truth, and would
/// keep others waiting. A count is cheaper then.
const LOOSE_PART: u64 = 16;
/// The series assumed for an unknown selector that may not be refused, when no limit on series gives a number.
const HEAVY_SERIES: u64 = 50_000;

/// Functions that write labels into other ones.
const COPYING: [&str; 3] = ["label_join", "label_replace", function::UNKNOWN.name];
/// The longest value of a label that VictoriaMetrics takes by default, bytes.
const LONGEST_VALUE: u64 = 4 << 10;

/// Selectors with more series than this are taken for histograms: to ask for their type reads a sample of each.
const TYPED_SERIES_MAX: u64 = 50_000;

/// The next need of the estimator.
#[derive(Clone, Debug)]
pub enum Need {
    /// The observed cost of earlier runs: [`Estimator::supply_history`].
    History,
    /// Counts by the backend, all at the same time: [`Estimator::supply_count`] for each.
    Probes(Vec<ProbeNeed>),
    /// The types of these selectors' samples: [`Estimator::supply_type`] for each.
    Types(Vec<TypeNeed>),
    /// The different values of these operands of `count_values`: [`Estimator::supply_values`] for each.
    Values(Vec<ValuesNeed>),
    /// Nothing.
    Done(Estimated),
}

/// A selector that is to be counted in its window.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ProbeNeed {
    /// Its index in the shape.
    pub selector: usize,
    /// A count may stop here: with more series the query is refused.
    pub limit: u64,
    /// A probe may answer with the count at one instant if that is at most this: no limit is in doubt then.
    pub enough: u64,
}

/// A selector whose samples may be native histograms.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TypeNeed {
    /// Its index in the shape.
    pub selector: usize,
    /// Its series, as far as they are known.
    pub series: u64,
}

/// A backend's answer to a probe.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Count {
    /// It counted.
    Series {
        /// How many there are.
        series: Estimate,
        /// Counting stopped over the limit: the number is a lower bound.
        truncated: bool,
        /// The sizes of their label sets, where they were listed.
        labels: Option<LabelSize>,
    },
    /// It cannot count this selector.
    Unknown,
}

/// The state machine.
#[derive(Debug)]
pub struct Estimator<'a, V> {
    subject: Subject<'a>,
    limits: CostLimits,
    verdict: V,
    known: Vec<SeriesKnowledge>,
    /// The price of `known`, where it did not change since.
    priced: Option<Estimated>,
    state: State,
    /// Selectors still to be counted, the next wave last, and those that share their count with each.
    queue: Vec<ProbeNeed>,
    twins: HashMap<usize, Vec<usize>>,
    recounts: u8,
    /// The types of samples are still to be asked for.
    asks_types: bool,
    /// Looks at the different values that were asked for, and whether another one would tell more.
    looks: usize,
    looks_on: bool,
    /// Counts that stopped below a bound that is known: in a refusal they are the better number.
    cut: Vec<(usize, Estimate)>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Start,
    History,
    Probing,
    Finished,
}

impl<'a, V: Fn(&QueryCost) -> Verdict> Estimator<'a, V> {
    /// An estimate of `subject` with the counts in `known`; `verdict` judges a cost by all limits, of which `limits`
    /// are those that grow with the series.
    pub fn new(subject: Subject<'a>, known: Vec<SeriesKnowledge>, limits: CostLimits, verdict: V) -> Self {
        Self {
            subject,
            limits,
            verdict,
            known,
            priced: None,
            state: State::Start,
            queue: Vec::new(),
            twins: HashMap::new(),
            recounts: 0,
            asks_types: subject.asks_types,
            looks: 0,
            looks_on: true,
            cut: Vec::new(),
        }
    }

    /// The next step. After anything but [`Need::Done`] the answers are supplied before the next call; a missing answer
    /// counts as unknown.
    pub fn need(&mut self) -> Need {
        if let Some(instants) = distinct::LOOKS.get(self.looks)
            && std::mem::take(&mut self.looks_on)
        {
            self.looks += 1;
            let needs = self.unvalued(*instants);
            if !needs.is_empty() {
                return Need::Values(needs);
            }
        }
        match self.need_of_series() {
            Need::Done(done) if self.asks_types && (self.verdict)(&done.cost) != Verdict::Exceeded => {
                self.asks_types = false;
                match self.untyped() {
                    needs if !needs.is_empty() => Need::Types(needs),
                    _ if self.priced.is_some() => Need::Done(done),
                    _ => self.need_of_series(),
                }
            }
            Need::Done(done) => Need::Done(self.as_counted().unwrap_or(done)),
            need => need,
        }
    }

    /// The price with the counts that stopped, where these alone refuse the query.
    fn as_counted(&self) -> Option<Estimated> {
        let mut known = self.known.clone();
        for (i, series) in &self.cut {
            let one = known.get_mut(*i)?;
            *one = SeriesKnowledge { series: *series, source: Source::Probe, ..*one };
        }
        let priced = (!self.cut.is_empty()).then(|| self.subject.price(&known))?;
        ((self.verdict)(&priced.cost) == Verdict::Exceeded).then_some(priced)
    }

    fn need_of_series(&mut self) -> Need {
        loop {
            match self.state {
                State::Start if self.exceeds_by_shape() => return Need::Done(self.unpriced()),
                State::Start if self.subject.opaque => return Need::Done(self.price_known().clone()),
                State::Start => {
                    if self.is_settled() {
                        return Need::Done(self.price_known().clone());
                    }
                    self.state = State::History;
                    return Need::History;
                }
                State::History => {
                    if self.is_settled() {
                        return Need::Done(self.price_known().clone());
                    }
                    self.plan_probes();
                    self.state = State::Probing;
                }
                State::Probing => {
                    if !self.queue.is_empty() && !self.is_refused_anyway() {
                        let rest = self.queue.len().saturating_sub(WAVE);
                        return Need::Probes(self.queue.split_off(rest));
                    }
                    if !self.plan_recounts() {
                        self.state = State::Finished;
                    }
                }
                State::Finished => return Need::Done(self.cautious()),
            }
        }
    }

    /// Answers [`Need::History`].
    pub fn supply_history(&mut self, remembered: Option<Remembered>) {
        let Some(remembered) = remembered else { return };
        let model = self.subject.model;
        let points = |shape: &SelectorShape| shape.evaluations.max(model.samples(shape.window));
        let selectors = self.subject.shape.selectors.iter();
        let heaviest = selectors.enumerate().max_by_key(|(_, shape)| points(shape)).map_or(0, |(i, _)| i);
        if SeriesKnowledge::remember(&mut self.known, remembered, heaviest) {
            self.priced = None;
        }
    }

    /// Answers one [`ProbeNeed`].
    pub fn supply_count(&mut self, probe: ProbeNeed, count: Count) {
        let Count::Series { series, truncated, labels } = count else { return };
        let twins = self.twins.get(&probe.selector).map_or(&[][..], Vec::as_slice);
        for i in std::iter::once(probe.selector).chain(twins.iter().copied()) {
            if let Some(known) = self.known.get_mut(i) {
                *known = known.labelled(labels.or(known.labels)).counted(series, truncated);
                if truncated && known.series.confidence == Confidence::UpperBound {
                    self.cut.push((i, Estimate::new(series.value, Confidence::AtLeast)));
                }
            }
        }
        self.priced = None;
    }

    /// Answers one [`TypeNeed`].
    pub fn supply_type(&mut self, need: TypeNeed, samples: SampleType) {
        let shapes = &self.subject.shape.selectors;
        let first = shapes.get(need.selector).map(|shape| shape.same_as);
        for (known, _) in self.known.iter_mut().zip(shapes).filter(|(_, shape)| Some(shape.same_as) == first)
        {
            known.samples = samples;
        }
        self.priced = None;
    }

    /// Answers one [`ValuesNeed`] with how many values were seen at one, two, … of its instants.
    pub fn supply_values(&mut self, need: &ValuesNeed, seen: &[u64]) {
        if let Some(known) = self.known.get_mut(need.selector) {
            known.values = Some(distinct::different(seen, need.steps));
            self.looks_on |= distinct::come_again(seen);
            self.priced = None;
        }
    }

    /// The operands whose values may make the query too expensive, as far as their series are known, or guessed by the table,
    /// and are not too many to ask about.
    fn unvalued(&mut self, instants: u64) -> Vec<ValuesNeed> {
        let mut needs = distinct::needs(&self.subject, instants);
        if needs.is_empty() || self.subject.opaque || self.exceeds_by_shape() || self.is_settled() {
            return Vec::new();
        }
        needs.truncate(WAVE);
        needs.retain_mut(|need| {
            let Some(known) = self.known.get(need.selector) else { return false };
            need.series = known.series.value;
            let values = need.series.saturating_mul(instants);
            (1..=distinct::VALUES_MAX).contains(&values)
        });
        needs
    }

    /// Selectors whose sample type is unknown; equal ones once. One without an answer is taken for histograms.
    fn untyped(&mut self) -> Vec<TypeNeed> {
        let mut needs = Vec::new();
        let shapes = self.subject.shape.selectors.iter();
        for (selector, (shape, known)) in shapes.zip(&mut self.known).enumerate() {
            if known.samples != SampleType::Unknown {
                continue;
            }
            let series = known.series.value;
            let is_asked = !shape.match_all && series <= TYPED_SERIES_MAX && needs.len() < PROBES_MAX;
            if is_asked && shape.same_as == selector {
                needs.push(TypeNeed { selector, series });
            }
            known.samples = SampleType::Assumed;
            self.priced = None;
        }
        needs
    }

    /// Text, steps, range, selectors: limits that are passed with any matches.
    fn exceeds_by_shape(&self) -> bool {
        (self.verdict)(&self.unpriced().cost) == Verdict::Exceeded
    }

    /// The numbers that follow from the shape alone.
    fn unpriced(&self) -> Estimated {
        let shape = self.subject.shape;
        let seconds = shape.range_seconds;
        let cost = QueryCost {
            range_seconds: if self.subject.listing { 0 } else { seconds },
            listing_seconds: if self.subject.listing { seconds } else { 0 },
            steps: shape.steps,
            selectors: shape.selectors.len() as u64,
            text: shape.size,
            series: Estimate::UNPRICED,
            blocks: Estimate::UNPRICED,
            samples: Estimate::UNPRICED,
            points: Estimate::UNPRICED,
            memory: Estimate::UNPRICED,
        };
        Estimated { cost, selectors: Vec::new(), parts: 1, whole_memory: cost.memory }
    }

    fn price_known(&mut self) -> &Estimated {
        let (subject, known) = (self.subject, &self.known);
        self.priced.get_or_insert_with(|| subject.price(known))
    }

    fn is_settled(&mut self) -> bool {
        if self.known.iter().any(SeriesKnowledge::is_guess) {
            return false;
        }
        let memory_share = self.limits.near.memory / LOOSE_PART;
        let is_bounded_only = self.known.iter().any(|known| known.source == Source::LabelTable);
        let cost = self.price_known().cost;
        let is_loose = is_bounded_only && cost.memory.value > memory_share;
        !is_loose && (self.verdict)(&cost) == Verdict::Within && self.longest_labels() <= memory_share
    }

    /// The memory if the labels that the query copies were as long as labels may be, where nobody said how long they are.
    fn longest_labels(&self) -> u64 {
        let Subject { shape, table, .. } = self.subject;
        let copies = shape.functions.iter().any(|name| COPYING.contains(name));
        if !copies || self.subject.listing || table.is_some_and(LabelTable::has_lengths) {
            return 0;
        }
        let usual = LabelSize { set: USUAL_SET_BYTES, longest: LONGEST_VALUE };
        let longest = |known: &SeriesKnowledge| known.labelled(known.labels.or(Some(usual)));
        let known: Vec<_> = self.known.iter().map(longest).collect();
        self.subject.price(&known).cost.memory.value
    }

    /// The selectors worth another count, the largest first, each with the limit of its probe.
    fn plan_probes(&mut self) {
        let shapes = &self.subject.shape.selectors;
        let mut first = HashMap::new();
        let mut doubtful = Vec::new();
        for (i, (shape, known)) in shapes.iter().zip(&self.known).enumerate() {
            // A probe that matches everything would itself be the attack.
            if shape.match_all || known.series.confidence == Confidence::Exact {
                continue;
            }
            match first.entry((&shape.matchers, shape.window)) {
                std::collections::hash_map::Entry::Occupied(same) => {
                    self.twins.entry(*same.get()).or_default().push(i);
                }
                std::collections::hash_map::Entry::Vacant(new) => {
                    new.insert(i);
                    doubtful.push(i);
                }
            }
        }
        doubtful.sort_by_key(|&i| std::cmp::Reverse((self.known[i].is_guess(), self.known[i].series.value)));
        doubtful.truncate(PROBES_MAX);
        let Some((limits, enough)) = self.bounds(&doubtful) else { return };
        let needs = doubtful.iter().zip(limits).rev();
        self.queue = needs.map(|(&selector, limit)| ProbeNeed { selector, limit, enough }).collect();
    }

    /// How many series each of these selectors may have at most, and how many all of them may have with no limit in
    /// doubt; `None` where the query is refused without any. Prices are taken to grow with the series: one pricing at
    /// a reference gives the price of one. A limit that is too low for that is found by the verdict, and counted again.
    fn bounds(&mut self, doubtful: &[usize]) -> Option<(Vec<u64>, u64)> {
        let none = self.price_at(doubtful, 0);
        if (self.verdict)(&none.cost) == Verdict::Exceeded {
            return None;
        }
        let many = self.price_at(doubtful, REFERENCE_SERIES);
        let mut refuse = self.limits.refuse;
        if self.subject.split.is_some() {
            refuse.memory = refuse.memory.saturating_mul(SPLIT_FACTOR);
        }
        // Memory is known for the whole only: an even share of it for each.
        let memory = fewest([refuse.memory], [none.cost.memory.value], [many.cost.memory.value]);
        let memory = memory.map(|each| each.saturating_mul(doubtful.len() as u64));
        let limit = |&i: &usize| {
            let Some(one) = many.selectors.get(i) else { return PROBE_SERIES };
            let counted = fewest(refuse.counted(), [0; 4], of_selector(one));
            memory.into_iter().chain(counted).min().unwrap_or(PROBE_SERIES)
        };
        let limits = doubtful.iter().map(limit).collect();
        let near = self.limits.near.all();
        let enough = fewest(near, of_cost(&none.cost), of_cost(&many.cost)).unwrap_or(u64::MAX);
        let is_enough = (self.verdict)(&self.price_at(doubtful, enough).cost) == Verdict::Within;
        Some((limits, if is_enough { enough } else { 0 }))
    }

    /// The price if each of these selectors, and those counted with them, has `series` series.
    fn price_at(&self, selectors: &[usize], series: u64) -> Estimated {
        let mut known = self.known.clone();
        let twins = selectors.iter().filter_map(|i| self.twins.get(i)).flatten();
        for &i in selectors.iter().chain(twins) {
            if let Some(known) = known.get_mut(i) {
                *known = SeriesKnowledge { series: Estimate::exact(series), source: Source::Probe, ..*known };
            }
        }
        self.subject.price(&known)
    }

    /// The counts so far refuse the query, without the rest.
    fn is_refused_anyway(&self) -> bool {
        let is_counted = |known: &SeriesKnowledge| {
            known.source == Source::Probe || known.series.confidence == Confidence::Exact
        };
        if !self.known.iter().any(is_counted) {
            return false;
        }
        let least = |known: &SeriesKnowledge| {
            if is_counted(known) { *known } else { SeriesKnowledge::new(Estimate::exact(0), known.source) }
        };
        let least: Vec<_> = self.known.iter().map(least).collect();
        (self.verdict)(&self.subject.price(&least).cost) == Verdict::Exceeded
    }

    /// Counts that stopped at a limit which does not refuse the query are made again; after that nobody knows.
    fn plan_recounts(&mut self) -> bool {
        let is_cut = |known: &SeriesKnowledge| known.series.confidence == Confidence::AtLeast;
        if !self.known.iter().any(is_cut) {
            return false;
        }
        let cost = self.price_known().cost;
        if (self.verdict)(&cost) == Verdict::Exceeded {
            return false;
        }
        let again = self.recounts < RECOUNTS_MAX;
        self.recounts += 1;
        for (selector, known) in self.known.iter_mut().enumerate().filter(|(_, known)| is_cut(known)) {
            if again {
                let limit = known.series.value.saturating_mul(RECOUNT_FACTOR);
                self.queue.push(ProbeNeed { selector, limit, enough: 0 });
            } else {
                known.series.confidence = Confidence::Assumed;
            }
        }
        self.priced = None;
        again
    }

    /// The estimate when there is nobody left to ask. A query that may run although nothing is known of it is booked as
    /// the heaviest query that may run: a database too busy to count must not get heavy queries as light ones.
    fn cautious(&mut self) -> Estimated {
        let selectors = self.subject.shape.selectors.iter();
        let matches_all =
            selectors.zip(&self.known).any(|(shape, known)| shape.match_all && known.is_guess());
        let is_known = !self.known.iter().any(SeriesKnowledge::is_guess);
        let needs_no_guess = is_known || matches_all || self.is_refused_anyway();
        if needs_no_guess || self.subject.model.unknown != Unknown::Allow {
            return self.price_known().clone();
        }
        let heavy = Some(self.limits.near.series.min(self.limits.refuse.series));
        let heavy = heavy.filter(|series| *series < UNKNOWN_SERIES).unwrap_or(HEAVY_SERIES);
        for guess in self.known.iter_mut().filter(|known| known.is_guess()) {
            guess.series.value = guess.series.value.max(heavy);
        }
        let mut estimated = self.subject.price(&self.known);
        let (cost, refuse) = (&mut estimated.cost, self.limits.refuse);
        for (number, most) in [
            (&mut cost.series, refuse.series),
            (&mut cost.blocks, refuse.blocks),
            (&mut cost.samples, refuse.samples),
            (&mut cost.points, refuse.points),
            (&mut cost.memory, self.limits.near.memory),
        ] {
            if number.confidence == Confidence::Assumed {
                number.value = number.value.min(most);
            }
        }
        estimated
    }
}
