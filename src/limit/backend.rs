//! One backend's accounts: its lanes, its window, and shares held by queries that run no more.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use tokio::time::Instant;

use super::{
    charge::{Charge, Phase},
    fractions,
    lane::{Budget, Lane, Open},
    lane_account::{LaneAccount, Reserve},
    policy::{BackendBudget, Sharing},
    usage::Usage,
    wait::WaitReason,
    window::Window,
};
use crate::base::{
    distress::{Distress, Load},
    share::{Amount, Demand, SharedWindow},
};

/// How long a tenant counts as one of those that ask.
const ASKED_LATELY: Duration = Duration::from_secs(600);

/// This proxy's need of a backend's budget beyond its fixed part.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BackendDemand {
    /// The part of the budget that all proxies lease of, as far as the window opens it.
    pub pool: Amount,
    /// The demand.
    pub demand: Demand,
    /// Heavy bytes, and all queries, in flight here.
    pub load: Amount,
    /// The window here, for the others.
    pub window: SharedWindow,
    /// A digest of the configuration of the budget, below 2^53: all proxies should have the same.
    pub terms: u64,
}

/// The store's answer to a [`BackendDemand`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BackendLease {
    /// May be used beyond the fixed part,
    pub leased: Amount,
    /// until then.
    pub until: Instant,
    /// The window of all proxies, and heavy bytes in flight at the others; `None` if the store did not say.
    pub of_all: Option<(SharedWindow, u64)>,
}

/// One backend's accounts. They stay when the configuration drops the backend, since permits may still point here.
#[derive(Debug)]
pub(super) struct Backend {
    pub(super) name: Arc<str>,
    pub(super) budget: Budget,
    pub(super) window: Window,
    pub(super) is_alive: bool,
    light: LaneAccount,
    heavy: LaneAccount,
    /// Queries of the slow lane that run in the other two.
    pub(super) slow: Usage,
    /// Bytes of queries whose clients do not read; on top of the heavy lane, and without slots.
    pub(super) stalled: Usage,
    /// Charges of queries whose clients left, until when and by number.
    pub(super) lingering: BTreeMap<(Instant, u64), (Charge, Phase)>,
    linger: Duration,
    peak: Load,
    /// The two tenants that asked last, and when.
    askers: [Option<(usize, Instant)>; 2],
    /// When its distress was last looked at.
    looked: Option<Instant>,
    /// Queries that it runs at a time, by its own word.
    places: Option<u64>,
    /// When the lease ends, and the use of the others ends to count.
    leased_until: Option<Instant>,
    /// Heavy bytes in flight at the other proxies, as of the last answer of the store.
    others: u64,
}

impl Backend {
    pub(super) fn new(budget: &BackendBudget, sharing: Sharing) -> Self {
        let name = Arc::clone(&budget.name);
        let lanes = Budget::of(budget, sharing, Amount::NONE);
        let window = Window::new(lanes.heavy_memory().unwrap_or(0), budget.unproven_percent, lanes.windows());
        Self {
            name,
            budget: lanes,
            window,
            is_alive: true,
            light: LaneAccount::default(),
            heavy: LaneAccount::default(),
            slow: Usage::default(),
            stalled: Usage::default(),
            lingering: BTreeMap::new(),
            linger: budget.linger,
            peak: Load::default(),
            askers: [None; 2],
            looked: None,
            places: None,
            leased_until: None,
            others: 0,
        }
    }

    /// Obeys another budget from now on; the window keeps its share.
    pub(super) fn take_over(&mut self, budget: &BackendBudget, sharing: Sharing) {
        let before = self.budget.heavy_memory().unwrap_or(0);
        self.budget = Budget::of(budget, sharing, self.budget.leased);
        self.linger = budget.linger;
        let now = self.budget.heavy_memory().unwrap_or(0);
        let is_new = before == 0 || (self.window.is_unproven() && self.window.cut_by().is_none());
        if is_new {
            self.window = Window::new(now, budget.unproven_percent, self.budget.windows());
        } else if before != now {
            self.window.resize(before, now);
        }
    }

    /// Takes the answer of the store.
    pub(super) fn lease(&mut self, lease: &BackendLease, now: Instant) {
        self.budget.leased = lease.leased;
        self.leased_until = Some(lease.until);
        let Some((window, others)) = lease.of_all else { return };
        self.others = others;
        // The next cut here covers the time from that one on.
        if self.window.adopt(window, self.budget.heavy_memory().unwrap_or(0)) {
            self.looked = Some(now);
        }
    }

    /// Gives the lease up when its time is over.
    pub(super) fn end_lease(&mut self, now: Instant) {
        if self.leased_until.is_some_and(|until| until <= now) {
            self.budget.leased = Amount::NONE;
            (self.leased_until, self.others) = (None, 0);
        }
    }

    /// Whether a round is worth it: something is leased, or needs to be.
    pub(super) fn needs_lease(&self) -> bool {
        self.budget.leased != Amount::NONE
            || self.heavy.used.bytes() > self.budget.fixed().bytes
            || !self.heavy.queue.is_open()
    }

    /// Draws the lease in to what its queries hold; gives its demand for a round. `None` where nothing is leased.
    pub(super) fn draw_in(&mut self) -> Option<BackendDemand> {
        let fixed = self.budget.fixed();
        let heavy = self.heavy.used.and(self.stalled);
        let used = Amount { bytes: heavy.bytes(), queries: self.heavy.used.queries };
        let (waiting, tenants) = self.heavy.queue.waiting();
        let first = self.heavy.queue.first_turn();
        let first = first.map(|(since, first)| (since.elapsed(), first.charge.bytes));
        // More than the window lets run is of no use, but for one query that runs alone.
        let useful = self.window.bytes().max(used.bytes).max(first.map_or(0, |(_, bytes)| bytes));
        let wants = used.plus(waiting).min(Amount { bytes: useful, queries: u64::MAX });
        let with = |bytes: u64| used.bytes.saturating_add(bytes).min(useful).saturating_sub(fixed.bytes);
        let demand = Demand {
            held: used.less(fixed),
            wants: wants.less(fixed),
            claim: first.map_or((0, 0), |(waited, bytes)| (waited.as_millis() as u64, with(bytes))),
            weight: tenants.max(1),
        };
        let alone = first.map_or(0, |(_, bytes)| bytes.saturating_sub(fixed.bytes));
        let pool = self.budget.pool_within(self.window.bytes(), alone, self.places)?;
        self.budget.leased = self.budget.leased.min(demand.held);
        let load = Amount { bytes: self.heavy.used.bytes(), queries: self.used().queries };
        Some(BackendDemand { pool, demand, load, window: self.window.offer(), terms: self.budget.digest() })
    }

    /// Whether more is in use than the lease allows, so that others wait for its end.
    pub(super) fn owes(&self) -> bool {
        let here = self.budget.whole(Lane::Heavy).memory;
        self.budget.pool().is_some() && here.is_some_and(|here| self.heavy.used.bytes() > here)
    }

    /// Makes room for this number of classes.
    pub(super) fn with_classes(&mut self, classes: usize) {
        for lane in [&mut self.light, &mut self.heavy] {
            lane.by_class.resize(classes, Usage::default());
            lane.waiting_by_class.resize(classes, 0);
        }
    }

    pub(super) const fn lane(&self, lane: Lane) -> &LaneAccount {
        match lane {
            Lane::Light => &self.light,
            Lane::Heavy => &self.heavy,
        }
    }

    pub(super) const fn lane_mut(&mut self, lane: Lane) -> &mut LaneAccount {
        match lane {
            Lane::Light => &mut self.light,
            Lane::Heavy => &mut self.heavy,
        }
    }

    /// The open part of a lane now.
    pub(super) fn open(&self, lane: Lane) -> Open {
        let whole = self.budget.whole(lane);
        match lane {
            Lane::Light => whole,
            Lane::Heavy => {
                let memory = whole.memory.map(|_| self.budget.open_within(self.window.bytes()));
                Open { memory, ..whole }
            }
        }
    }

    /// Heavy queries that may run at once.
    pub(super) fn heavy_slots(&self) -> Option<u64> {
        self.budget.heavy_queries(self.places)
    }

    /// Everything that is held here.
    pub(super) fn used(&self) -> Usage {
        self.light.used.and(self.heavy.used).and(self.stalled)
    }

    pub(super) fn waiting(&self) -> usize {
        Lane::ALL.iter().map(|lane| self.lane(*lane).queue.len()).sum()
    }

    /// Whether the slow lane has room for a charge; an empty one takes any.
    pub(super) fn fits_slow(&self, charge: &Charge) -> Result<(), WaitReason> {
        let Open { memory, slots } = self.budget.slow();
        let fits =
            !charge.slow || self.slow.is_nothing() || self.slow.plus(charge.bytes).within(memory, slots);
        if fits { Ok(()) } else { Err(WaitReason::SlowLane) }
    }

    /// Whether a charge fits a lane now, or else the first reason why not.
    pub(super) fn fits(&self, charge: &Charge, lane: Lane, reserves: &[Reserve]) -> Result<(), WaitReason> {
        match lane {
            Lane::Light => {
                self.light.fits(charge, self.open(lane), reserves).map_err(|reason| match reason {
                    WaitReason::Reserve => reason,
                    _ => WaitReason::LightLane,
                })
            }
            Lane::Heavy => self.fits_heavy(charge, reserves),
        }
    }

    /// Whether light queries may use the heavy lane: nobody waits for it, or it has the only slot.
    pub(super) fn lends_slots(&self) -> bool {
        self.heavy.queue.is_open() || self.budget.whole(Lane::Light).slots == Some(0)
    }

    fn fits_heavy(&self, charge: &Charge, reserves: &[Reserve]) -> Result<(), WaitReason> {
        let whole = self.budget.whole(Lane::Heavy).memory;
        if !self.heavy.used.and(self.stalled).plus(charge.bytes).within(whole, None) {
            // More than may ever run beside slow readers, or beside the running queries.
            let is_theirs = self.heavy.used.plus(charge.bytes).within(whole, None);
            return Err(match self.budget.pool() {
                _ if is_theirs => WaitReason::Budget,
                Some(_) => WaitReason::Lease,
                None => WaitReason::Window,
            });
        }
        if !charge.light && self.heavy_slots().is_some_and(|slots| self.heavy.own() >= slots) {
            return Err(WaitReason::Slots);
        }
        self.heavy.fits(charge, self.open(Lane::Heavy), reserves).map_err(|reason| match reason {
            WaitReason::Window => self.window.cut_by().map_or(reason, WaitReason::Cut),
            other => other,
        })
    }

    /// A tenant asks to run a query here.
    pub(super) fn asked(&mut self, tenant: usize, now: Instant) {
        let [last, before] = &mut self.askers;
        if last.is_some_and(|(known, _)| known != tenant) {
            *before = *last;
        }
        *last = Some((tenant, now));
    }

    /// Whether other tenants ask here as well, so that one must not fill a lane.
    pub(super) fn is_shared(&self, payers: &[usize], now: Instant) -> bool {
        let is_recent = |at: Instant| now.saturating_duration_since(at) < ASKED_LATELY;
        self.askers.iter().flatten().any(|(tenant, at)| !payers.contains(tenant) && is_recent(*at))
    }

    /// Whether a heavy query can only run alone, as the window is.
    pub(super) fn runs_alone(&self, charge: &Charge) -> bool {
        // Not the leased part: a query that needs more of that gives way to nobody.
        let is_bound = self.budget.whole(Lane::Heavy).memory.is_some();
        !charge.light && is_bound && charge.bytes > self.window.bytes()
    }

    pub(super) fn charge(&mut self, charge: &Charge) {
        self.lane_mut(charge.lane).add(charge);
        if charge.slow {
            self.slow.add(charge.bytes);
        }
        let queries = self.light.used.queries + self.heavy.used.queries;
        self.peak.heavy_bytes = self.peak.heavy_bytes.max(self.heavy.used.bytes());
        self.peak.queries = self.peak.queries.max(queries);
    }

    /// Frees the share of a query in this phase.
    pub(super) fn give_back(&mut self, charge: &Charge, phase: Phase) {
        match phase {
            Phase::Runs => self.end_run(charge),
            Phase::Stalled => self.stalled.remove(charge.bytes),
            Phase::Done => {}
        }
    }

    fn end_run(&mut self, charge: &Charge) {
        self.lane_mut(charge.lane).remove(charge);
        if charge.slow {
            self.slow.remove(charge.bytes);
        }
    }

    /// A heavy query, or a part of one, was answered: the window may grow.
    pub(super) fn completed(&mut self, charge: &Charge) {
        if charge.light {
            return;
        }
        if let Some(budget) = self.budget.heavy_memory() {
            let here = self.heavy.used.memory.max(self.peak.heavy_bytes.into());
            let in_use = here + u128::from(self.others);
            // The fixed parts of idle proxies are not lent: one that uses its part of the window needs it all.
            let sharers = self.budget.replicas() / self.budget.windows();
            let needed = in_use.max(here * u128::from(sharers));
            self.window.completed(charge.bytes, in_use, needed, budget);
        }
    }

    /// Books a query as stalled, up to the number of slots, beside the running ones. A light one takes no memory of the heavy
    /// lane while somebody waits for that.
    pub(super) fn stall(&mut self, charge: &Charge) -> bool {
        let budget = self.budget.whole(Lane::Heavy);
        let mut heavy = self.heavy.used;
        if charge.lane == Lane::Heavy {
            heavy.remove(charge.bytes);
        }
        let slots = self.budget.queries().enforced();
        let fits = heavy.and(self.stalled).plus(charge.bytes).within(budget.memory, None)
            && self.stalled.plus(charge.bytes).within(None, slots)
            && (!charge.light || self.heavy.queue.is_open());
        if fits {
            self.completed(charge);
            self.end_run(charge);
            self.stalled.add(charge.bytes);
        }
        fits
    }

    /// How long a query's charge outlives its client: for a light query less, in proportion to its weight.
    pub(super) fn lingers(&self, charge: &Charge) -> Duration {
        match self.budget.memory().max {
            Some(max) if charge.light => {
                let light = fractions::light(max.get()).max(1);
                self.linger.mul_f64((charge.bytes as f64 / light as f64).min(1.0))
            }
            _ => self.linger,
        }
    }

    /// The most in flight since this was asked last.
    pub(super) fn take_peak(&mut self) -> Load {
        let now = Load {
            heavy_bytes: self.heavy.used.bytes(),
            queries: self.light.used.queries + self.heavy.used.queries,
            budget: None,
        };
        Load { budget: self.budget.memory().threshold(), ..std::mem::replace(&mut self.peak, now) }
    }

    /// Obeys a look at the backend's distress.
    pub(super) fn observe(&mut self, distress: &Distress, peak: Load, now: Instant) {
        let elapsed = self.looked.map_or(Duration::ZERO, |looked| now.saturating_duration_since(looked));
        self.looked = Some(now);
        self.places = distress.places.or(self.places);
        let in_use = u128::from(peak.heavy_bytes) + u128::from(self.others);
        if let Some(budget) = self.budget.windowed() {
            self.window.observe(distress, in_use, budget, elapsed);
        }
    }

    /// The share, 0 to 1, that distress leaves of the window; 0 for a dead backend.
    pub(super) fn share(&self) -> f64 {
        if self.is_alive { self.window.share() } else { 0.0 }
    }
}
