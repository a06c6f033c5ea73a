//! The scenarios: how a balancer spreads the burst over the proxies, and what fails meanwhile.

use super::LEASE_OVER;
use super::proxies::Fleet;
use super::store::Store;
use crate::Result;
use std::time::{Duration, Instant};

/// A balancer that moves sends the burst to one proxy for this time.
const MOVES_EVERY: Duration = Duration::from_secs(5);
/// When a fault begins, from the begin of the burst, and when it ends.
const FAULT: (u64, u64) = (10, 20);
/// When the dump is made to which the store goes back.
const DUMP: u64 = 5;
/// When proxies are killed, and when as many are added.
const KILL: (u64, u64) = (5, 13);
/// For how long others may use the lease of the dead before the burst is over.
const TAKEN_FOR: Duration = Duration::from_secs(15);

/// Where the heavy queries of the burst go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Spread {
    /// To each proxy in turn.
    Even,
    /// All to one proxy.
    One,
    /// To one proxy, and to the next one five seconds later.
    Moving,
}

impl Spread {
    /// The place of the proxy for the query of this number, of `count` proxies.
    pub(super) fn place(self, number: usize, count: usize, since: Duration) -> usize {
        let turn = match self {
            Self::Even => number,
            Self::One => 0,
            Self::Moving => (since.as_secs() / MOVES_EVERY.as_secs()) as usize,
        };
        turn % count.max(1)
    }
}

/// The fault during the burst.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fault {
    Nothing,
    /// The store is killed, and started again without its data.
    StoreKilled,
    /// The store is stopped, and goes on.
    StorePaused,
    /// The store is emptied twice.
    StoreEmptied,
    /// The store is killed, and started again with a dump from before.
    StoreRestored,
    /// Half of the proxies, those that lease most, are killed; later as many are added.
    ProxiesKilled,
}

#[derive(Debug, Clone, Copy)]
pub(super) struct Scenario {
    pub(super) name: &'static str,
    pub(super) spread: Spread,
    pub(super) fault: Fault,
}

/// One proxy with the whole budget and without a store.
pub(super) const ALONE: Scenario =
    Scenario { name: "one proxy alone", spread: Spread::One, fault: Fault::Nothing };

const SCENARIOS: [Scenario; 8] = [
    Scenario { name: "even", spread: Spread::Even, fault: Fault::Nothing },
    Scenario { name: "one", spread: Spread::One, fault: Fault::Nothing },
    Scenario { name: "moving", spread: Spread::Moving, fault: Fault::Nothing },
    Scenario { name: "store-killed", spread: Spread::Even, fault: Fault::StoreKilled },
    Scenario { name: "store-paused", spread: Spread::Even, fault: Fault::StorePaused },
    Scenario { name: "store-emptied", spread: Spread::Even, fault: Fault::StoreEmptied },
    Scenario { name: "store-restored", spread: Spread::Even, fault: Fault::StoreRestored },
    Scenario { name: "proxies-killed", spread: Spread::Even, fault: Fault::ProxiesKilled },
];

impl Scenario {
    /// The length of its burst: long enough to see the lease of dead proxies used.
    pub(super) fn length(self, usual: Duration) -> Duration {
        let least = Duration::from_secs(KILL.0) + LEASE_OVER + TAKEN_FOR;
        if self.fault == Fault::ProxiesKilled { usual.max(least) } else { usual }
    }

    /// Those of the names with commas between them; all without names.
    pub(super) fn list(names: Option<&str>) -> Result<Vec<Self>> {
        let Some(names) = names else { return Ok(SCENARIOS.to_vec()) };
        let find = |name: &str| {
            let known = SCENARIOS.into_iter().find(|scenario| scenario.name == name);
            known.ok_or_else(|| {
                let known: Vec<_> = SCENARIOS.iter().map(|scenario| scenario.name).collect();
                format!("no such scenario: {name}; there are {}", known.join(", ")).into()
            })
        };
        names.split(',').map(find).collect()
    }
}

/// The death of proxies: when, and the bytes that they leased at that moment.
#[derive(Debug, Clone, Copy)]
pub(super) struct Death {
    pub(super) at: Instant,
    pub(super) leased: f64,
}

impl Fault {
    /// Does its harm at its times after `begin`.
    pub(super) fn play(self, begin: Instant, fleet: &Fleet<'_>, store: &mut Store) -> Result<Option<Death>> {
        let wait = |seconds: u64| {
            let due = begin + Duration::from_secs(seconds);
            std::thread::sleep(due.saturating_duration_since(Instant::now()));
        };
        let (from, until) = FAULT;
        match self {
            Self::Nothing => {}
            Self::StoreKilled => {
                wait(from);
                store.kill()?;
                wait(until);
                store.start()?;
            }
            Self::StorePaused => {
                wait(from);
                store.pause(true)?;
                wait(until);
                store.pause(false)?;
            }
            Self::StoreEmptied => {
                for at in [from, until] {
                    wait(at);
                    store.ask("FLUSHALL")?;
                }
            }
            Self::StoreRestored => {
                wait(DUMP);
                store.ask("SAVE")?;
                wait(from);
                store.kill()?;
                store.start()?;
            }
            Self::ProxiesKilled => {
                let (from, until) = KILL;
                wait(from);
                let count = fleet.len() / 2;
                let leased = fleet.kill(count)?;
                let death = Death { at: Instant::now(), leased };
                wait(until);
                (0..count).try_for_each(|_| fleet.add())?;
                return Ok(Some(death));
            }
        }
        Ok(None)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_balancer_goes_round_or_moves_with_time() {
        let places = |spread: Spread| -> Vec<usize> {
            (0..4).map(|n| spread.place(n, 3, Duration::from_secs(n as u64 * 4))).collect()
        };
        assert_eq!(places(Spread::Even), [0, 1, 2, 0]);
        assert_eq!(places(Spread::One), [0, 0, 0, 0]);
        assert_eq!(places(Spread::Moving), [0, 0, 1, 2]);
    }

    #[test]
    fn scenarios_are_found_by_name() {
        let names = |words| Scenario::list(words).map(|all| all.iter().map(|s| s.name).collect::<Vec<_>>());
        assert_eq!(names(Some("moving,even")).expect("both"), ["moving", "even"]);
        assert_eq!(names(None).expect("all").len(), SCENARIOS.len());
        assert!(names(Some("evening")).is_err());
    }
}
