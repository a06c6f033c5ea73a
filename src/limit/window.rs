//! How many bytes of heavy queries a backend gets at the same time: one congestion window, as in TCP (RFC 5681).
//!
//! A budget bounds the sum of *estimates*. When those are a tenth of the truth, a burst that fits is admitted within
//! milliseconds, and no sign of distress comes in time. So the window starts at a part of the budget. It grows by the
//! bytes of heavy queries that completed (slow start), and by one step for each window of completed bytes after a cut
//! (congestion avoidance), as long as at least half of it is in use (RFC 7661). Distress that is seen while heavy
//! queries run cuts it by a factor. At any size of it one heavy query may run.
//!
//! Proxies that lease of one budget have one window over all of them: each grows and cuts its own copy, and the store of
//! leases adds the growths and passes the cuts on. So one proxy's proof is everybody's.

use std::time::Duration;

use super::fractions::{percent_of, window_step};
use crate::base::{
    distress::{Distress, FULL, HIGH, Signal, UNDERESTIMATED},
    share::SharedWindow,
};

/// The part of the window that one second at full pressure leaves.
const DECREASE_PER_SECOND: f64 = 0.5;
/// The part of that decrease that applies at the lower end of the band.
const LEAST_STRENGTH: f64 = 0.1;
/// The longest time that one look acts for.
const ELAPSED_MAX: Duration = Duration::from_secs(5);

/// The cause of a window's last cut.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Cut {
    /// The backend's distress, by this signal.
    Pressure(Signal),
    /// Queries that hold more than their estimates.
    Estimates,
    /// A signal that stays away.
    Silence,
}

impl Cut {
    /// All of them. Proxies pass a cause on as its place here, from 1 on: add at the end.
    pub(super) const ALL: [Self; 5] = [
        Self::Pressure(Signal::Memory),
        Self::Pressure(Signal::Pools),
        Self::Pressure(Signal::Saturation),
        Self::Estimates,
        Self::Silence,
    ];

    /// Its name in metrics and logs.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Pressure(signal) => signal.as_str(),
            Self::Estimates => "estimates",
            Self::Silence => "silence",
        }
    }
}

/// The congestion window of one backend's heavy lane.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Window {
    bytes: u64,
    /// Below it, growth is slow start.
    threshold: u64,
    /// The cause of its cut, and the bytes before; `None` once it is back there.
    cut: Option<(Cut, u64)>,
    /// A heavy query completed since the start or since estimates were too low.
    proven: bool,
    /// Nothing spoke against growth at the last look.
    may_grow: bool,
    /// A signal stayed away at the last look, so that no other proxy's window is taken over.
    is_silent: bool,
    /// How often it was cut, here or at another proxy, but for silence, which is this proxy's own.
    cuts: u64,
    /// Growth that the other proxies do not know of.
    grown: u64,
}

impl Window {
    /// One of `windows` over `budget` bytes, of which `percent` are open before any query completed.
    pub(super) fn new(budget: u64, percent: u8, windows: u64) -> Self {
        let bytes = if percent >= 100 { budget } else { percent_of(budget / windows.max(1), percent) };
        Self {
            bytes,
            threshold: budget,
            cut: None,
            proven: bytes >= budget,
            may_grow: true,
            is_silent: false,
            cuts: 0,
            grown: 0,
        }
    }

    pub(super) const fn bytes(&self) -> u64 {
        self.bytes
    }

    /// The cause of its cut, while it is smaller than before.
    pub(super) fn cut_by(&self) -> Option<Cut> {
        self.cut.map(|(cut, _)| cut)
    }

    /// The share, 0 to 1, that distress leaves of the window as it was before.
    pub(super) fn share(&self) -> f64 {
        self.cut.map_or(1.0, |(_, before)| if before == 0 { 1.0 } else { self.bytes as f64 / before as f64 })
    }

    /// Whether no heavy query completed yet since the start, or since estimates were too low.
    pub(super) const fn is_unproven(&self) -> bool {
        !self.proven
    }

    /// A heavy query of `bytes` completed while `in_use` bytes at most, its own among them, were in flight of late. The
    /// window binds where half of it was `needed`.
    pub(super) fn completed(&mut self, bytes: u64, in_use: u128, needed: u128, budget: u64) {
        let binds = needed.saturating_mul(2) >= u128::from(self.bytes);
        if !self.may_grow || !binds {
            return;
        }
        let (before, growth) = if self.bytes < self.threshold {
            // A query that ran alone may be larger than the window: its size is proven as well.
            let held = u64::try_from(in_use).unwrap_or(u64::MAX).min(self.threshold);
            (self.bytes.max(held), bytes)
        } else {
            (self.bytes, window_step(budget, bytes, self.bytes))
        };
        let now = before.saturating_add(growth).min(budget);
        self.grown = self.grown.saturating_add(now.saturating_sub(before));
        self.grow_to(now, budget);
    }

    fn grow_to(&mut self, bytes: u64, budget: u64) {
        (self.bytes, self.proven) = (bytes, true);
        if self.cut.is_some_and(|(_, before)| bytes >= before.min(budget)) {
            self.cut = None;
        }
    }

    /// The window as the other proxies get it; its growth is passed on once.
    pub(super) fn offer(&mut self) -> SharedWindow {
        let cause = self.cut.and_then(|(cut, _)| Cut::ALL.iter().position(|known| *known == cut));
        SharedWindow {
            cuts: self.cuts,
            cause: cause.map_or(0, |at| at as u64 + 1),
            bytes: self.bytes,
            grown: std::mem::take(&mut self.grown),
        }
    }

    /// Takes over the window of all proxies: a later cut replaces this one, and without one the larger is proven. Says
    /// whether it was another proxy's cut.
    pub(super) fn adopt(&mut self, of_all: SharedWindow, budget: u64) -> bool {
        let bytes = of_all.bytes.min(budget);
        if of_all.cuts > self.cuts {
            let before = self.cut.map_or(self.bytes, |(_, before)| before);
            let cause = of_all.cause.checked_sub(1).and_then(|at| Cut::ALL.get(at as usize).copied());
            self.cut = cause.filter(|_| bytes < before).map(|cause| (cause, before));
            (self.bytes, self.threshold, self.cuts, self.grown) = (bytes, bytes, of_all.cuts, 0);
            self.proven = cause != Some(Cut::Estimates);
            return true;
        }
        if of_all.cuts == self.cuts && bytes > self.bytes && !self.is_silent {
            self.grow_to(bytes, budget);
        }
        false
    }

    /// Takes an observation of the backend; `in_use` is the most heavy bytes in flight since the one before. With none,
    /// Weir's own queries are not the cause, and nothing is cut.
    pub(super) fn observe(&mut self, distress: &Distress, in_use: u128, budget: u64, elapsed: Duration) {
        self.may_grow = distress.is_ease();
        self.is_silent = distress.ceiling.is_some();
        let seconds = elapsed.min(ELAPSED_MAX).as_secs_f64();
        if let Some(share) = distress.ceiling {
            let least = (budget as f64 * share.clamp(0.0, 1.0)) as u64;
            let sunk = (self.bytes as f64 * DECREASE_PER_SECOND.powf(seconds)) as u64;
            self.cut_to(sunk.max(least), Cut::Silence);
        }
        if in_use == 0 {
            return;
        }
        if distress.underestimate > UNDERESTIMATED {
            self.cut_to((budget as f64 / distress.underestimate) as u64, Cut::Estimates);
            self.proven = false;
        }
        let Some((signal, pressure)) = distress.pressure.filter(|(_, pressure)| *pressure >= HIGH) else {
            return;
        };
        if pressure >= FULL {
            return self.cut_to(0, Cut::Pressure(signal));
        }
        let excess = ((pressure - HIGH) / (FULL - HIGH)).clamp(0.0, 1.0);
        let kept = DECREASE_PER_SECOND.powf((LEAST_STRENGTH + (1.0 - LEAST_STRENGTH) * excess) * seconds);
        let used = u64::try_from(in_use).unwrap_or(u64::MAX).min(self.bytes);
        self.cut_to((used as f64 * kept) as u64, Cut::Pressure(signal));
    }

    fn cut_to(&mut self, bytes: u64, cut: Cut) {
        if bytes < self.bytes {
            let before = self.cut.map_or(self.bytes, |(_, before)| before);
            self.cut = Some((cut, before));
            self.bytes = bytes;
            self.threshold = bytes;
            if cut != Cut::Silence {
                (self.cuts, self.grown) = (self.cuts + 1, 0);
            }
        }
    }

    /// The same share of a budget that was `from` bytes, more than 0.
    pub(super) fn resize(&mut self, from: u64, to: u64) {
        let scaled = |bytes: u64| (u128::from(bytes) * u128::from(to) / u128::from(from)) as u64;
        (self.bytes, self.threshold) = (scaled(self.bytes), scaled(self.threshold));
        self.cut = self.cut.map(|(cut, before)| (cut, scaled(before)));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn pressure(of: f64) -> Distress {
        Distress { pressure: Some((Signal::Memory, of)), ..Distress::NONE }
    }

    fn underestimate(times: f64) -> Distress {
        Distress { underestimate: times, ..Distress::NONE }
    }

    #[test]
    fn it_grows_by_what_completed_while_it_binds() {
        let mut window = Window::new(1000, 10, 1);
        assert!(window.bytes() == 100 && window.is_unproven());
        window.completed(20, 20, 20, 1000);
        assert_eq!(window.bytes(), 100, "far from the window, nothing is proved");
        window.completed(60, 90, 90, 1000);
        assert_eq!(window.bytes(), 160);
        window.completed(300, 310, 310, 1000);
        assert_eq!(window.bytes(), 610, "one that ran alone makes room for another");
        window.completed(5000, 5000, 5000, 1000);
        assert_eq!((window.bytes(), window.share()), (1000, 1.0), "never more than the budget");
        assert_eq!(Window::new(u64::MAX, 100, 1).bytes(), u64::MAX);
    }

    #[test]
    fn a_cut_is_by_a_factor_of_what_was_in_use_and_growth_after_it_is_additive() {
        let mut window = Window::new(1600, 100, 1);
        window.observe(&pressure(0.9), 800, 1600, SECOND);
        let cut = window.bytes();
        assert!(cut < 700 && cut > 400, "{cut}");
        assert_eq!(window.cut_by(), Some(Cut::Pressure(Signal::Memory)));
        window.completed(500, 600, 600, 1600);
        assert_eq!(window.bytes(), cut, "nothing grows under pressure");
        window.observe(&pressure(0.6), 600, 1600, SECOND);
        window.completed(cut, 600, 600, 1600);
        assert_eq!(window.bytes(), cut + 100);
        while window.bytes() < 1600 {
            window.completed(500, window.bytes().into(), window.bytes().into(), 1600);
        }
        assert_eq!((window.cut_by(), window.share()), (None, 1.0));
    }

    #[test]
    fn nothing_that_is_seen_while_nothing_heavy_runs_cuts_it() {
        let mut window = Window::new(1000, 10, 1);
        window.completed(100, 100, 100, 1000);
        let before = window.bytes();
        for distress in [pressure(1.0), underestimate(15.5)] {
            window.observe(&distress, 0, 1000, SECOND);
            assert_eq!((window.bytes(), window.cut_by()), (before, None));
        }
    }

    #[test]
    fn at_the_limit_one_is_left_and_every_one_that_ends_well_opens_it_again() {
        let mut window = Window::new(1600, 10, 1);
        window.observe(&pressure(1.0), 100, 1600, SECOND);
        assert_eq!((window.bytes(), window.share()), (0, 0.0));
        window.observe(&Distress::NONE, 0, 1600, SECOND);
        window.completed(40, 40, 40, 1600);
        assert_eq!(window.bytes(), 100);
    }

    #[test]
    fn estimates_that_are_too_low_leave_as_much_less_and_have_to_be_proved_again() {
        let mut window = Window::new(1000, 100, 1);
        assert!(!window.is_unproven());
        window.observe(&underestimate(1.2), 500, 1000, SECOND);
        assert_eq!(window.bytes(), 1000, "as expected");
        window.observe(&underestimate(8.0), 500, 1000, SECOND);
        assert!(window.bytes() == 125 && window.is_unproven() && window.cut_by() == Some(Cut::Estimates));
        window.completed(100, 120, 120, 1000);
        assert_eq!(window.bytes(), 125, "what ends meanwhile proves nothing");
        window.observe(&Distress::NONE, 100, 1000, SECOND);
        window.completed(125, 125, 125, 1000);
        assert!(window.bytes() > 125 && !window.is_unproven());
    }

    #[test]
    fn silence_holds_it_or_lets_it_sink() {
        let mut window = Window::new(1000, 100, 1);
        let silent = Distress { silent: true, ..Distress::NONE };
        window.observe(&silent, 0, 1000, SECOND);
        window.completed(900, 900, 900, 1000);
        assert_eq!(window.bytes(), 1000);
        for _ in 0..5 {
            window.observe(&Distress { ceiling: Some(0.3), ..silent }, 0, 1000, SECOND);
        }
        assert_eq!((window.bytes(), window.cut_by()), (300, Some(Cut::Silence)));
    }

    #[test]
    fn several_proxies_open_together_what_one_does() {
        assert_eq!(Window::new(1000, 10, 4).bytes(), 25);
        assert_eq!(Window::new(1000, 100, 4).bytes(), 1000, "nothing needs proof");
    }

    #[test]
    fn another_budget_gets_the_same_share() {
        let mut window = Window::new(1000, 10, 1);
        window.resize(1000, 500);
        assert_eq!(window.bytes(), 50);
        window.resize(500, 2000);
        assert_eq!(window.bytes(), 200);
    }

    /// One round trip of a proxy, as the store merges windows.
    fn exchange(store: &mut SharedWindow, window: &mut Window, budget: u64) {
        let own = window.offer();
        if own.cuts > store.cuts {
            *store = own;
        } else if own.cuts == store.cuts {
            store.bytes = own.bytes.max(store.bytes + own.grown);
        }
        window.adopt(*store, budget);
    }

    #[test]
    fn growth_at_two_proxies_adds_up_and_a_cut_at_one_is_a_cut_at_both() {
        let (mut store, [mut one, mut two]) = (SharedWindow::default(), [Window::new(1000, 10, 1); 2]);
        for window in [&mut one, &mut two] {
            window.completed(60, 60, 60, 1000);
            exchange(&mut store, window, 1000);
        }
        exchange(&mut store, &mut one, 1000);
        assert_eq!((one.bytes(), two.bytes()), (220, 220), "each proved 60 beside the 100 at the start");
        let mut idle = Window::new(1000, 10, 1);
        exchange(&mut store, &mut idle, 1000);
        assert!(idle.bytes() == 220 && !idle.is_unproven(), "a new one needs no proof of its own");
        one.observe(&pressure(1.0), 200, 1000, SECOND);
        two.completed(100, 200, 200, 1000);
        for window in [&mut one, &mut two, &mut idle] {
            exchange(&mut store, window, 1000);
            assert_eq!((window.bytes(), window.cut_by()), (0, Some(Cut::Pressure(Signal::Memory))));
        }
        two.observe(&underestimate(8.0), 200, 1000, SECOND);
        assert_eq!(two.cut_by(), Some(Cut::Pressure(Signal::Memory)), "it was lower already");
    }

    #[test]
    fn silence_is_a_proxys_own() {
        let (mut store, [mut one, mut two]) = (SharedWindow::default(), [Window::new(1000, 100, 1); 2]);
        let silent = Distress { silent: true, ceiling: Some(0.3), ..Distress::NONE };
        for _ in 0..5 {
            one.observe(&silent, 0, 1000, SECOND);
            exchange(&mut store, &mut one, 1000);
            exchange(&mut store, &mut two, 1000);
        }
        assert_eq!((one.bytes(), two.bytes()), (300, 1000));
        one.observe(&Distress::NONE, 0, 1000, SECOND);
        exchange(&mut store, &mut one, 1000);
        assert_eq!((one.bytes(), one.cut_by()), (1000, None));
    }
}
