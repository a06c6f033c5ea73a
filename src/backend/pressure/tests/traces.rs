//! Recorded and synthetic traces: how far the share may swing, how fast it must move, and what must not move it.

use std::time::Duration;

use fastrand::Rng;
use tokio::time::Instant;

use super::super::{
    Controller, Expected, HIGH, LOW, Look, Monitor, OnStale, Settings, Sight, Signal, Silence,
    controller::{FLOOR, FULL},
};
use crate::{backend::Kind, base::Allowance};

/// Resident MiB of Prometheus 2.42 in the incident that `docs/incident.md` tells, once a second, with no guard: it was
/// killed at 4,096 MiB less than a second later.
const UNGUARDED: &[u64] =
    &[51, 53, 54, 56, 56, 55, 56, 56, 57, 56, 89, 426, 728, 1061, 1445, 1971, 2425, 2777, 3387];
/// The same behind a proxy that let one query through at a time, until it was killed.
const ONE_AT_A_TIME: &[u64] = &[
    51, 52, 52, 53, 54, 54, 54, 53, 54, 54, 67, 389, 845, 1228, 1589, 1818, 2125, 2389, 2773, 3084, 3396,
    3785,
];
/// The same behind Weir, which it survived.
const GUARDED: &[u64] = &[
    54, 54, 54, 54, 54, 54, 54, 54, 54, 54, 87, 195, 552, 927, 954, 1077, 1450, 1465, 1466, 1698, 1769, 1906,
    2242, 2291, 2307, 2343, 2235, 2185, 2195, 2140, 2145, 2014, 1999, 1997, 1810, 1612, 1510, 1497, 1497,
    1497, 1571, 1668, 1668, 1614, 1522, 1522, 1522, 1522,
];

/// What a monitor leaves of the budget at each second of a recorded trace, with the limit that the process had.
fn replay(trace: &[u64]) -> Vec<Look> {
    let start = Instant::now();
    let settings = Settings { memory_limit: Some(4096 << 20), ..Settings::default() };
    let mut monitor = Monitor::new(Kind::Prometheus, settings, start);
    let pages = trace.iter().map(|mib| format!("process_resident_memory_bytes {}\n", mib << 20));
    let times = (1..).map(|second| start + Duration::from_secs(second));
    pages.zip(times).map(|(page, at)| monitor.look(&[Some(&page)], Expected::default(), at)).collect()
}

#[test]
fn the_recorded_incident_is_seen_seconds_before_its_end() {
    for (trace, name) in [(UNGUARDED, "unguarded"), (ONE_AT_A_TIME, "one at a time")] {
        let looks = replay(trace);
        let shares: Vec<_> = looks.iter().map(|look| look.left.share()).collect();
        let first = shares.iter().position(|share| *share < 1.0).expect("it is seen");
        assert!(trace.len() - first >= 2, "{name}: {shares:?}");
        assert!(shares.last().is_some_and(|share| *share < 0.6), "{name}: {shares:?}");
        assert!(shares[..10].iter().all(|share| *share == 1.0), "{name}: {shares:?}");
    }
    let shares: Vec<_> = replay(GUARDED).iter().map(|look| look.left.share()).collect();
    assert!(shares.iter().all(|share| *share == 1.0), "what was survived is no distress: {shares:?}");
}

/// A database whose memory follows, after a while, what runs: the demand as far as the share allows, and noise.
struct Database {
    idle: f64,
    /// What all of the budget adds.
    gain: f64,
    /// The part of the way to go in a second.
    lag: f64,
    noise: f64,
    memory: f64,
}

impl Database {
    fn second(&mut self, demand: f64, share: f64, rng: &mut Rng) -> f64 {
        let wanted = self.idle + demand.min(share) * self.gain;
        self.memory += (wanted - self.memory) * self.lag;
        (self.memory + (rng.f64() * 2.0 - 1.0) * self.noise).clamp(0.0, 1.0)
    }
}

/// What the share swings by at most under constant load, once two minutes have passed: one last step back up.
const SWING: f64 = 0.03;

#[test]
fn a_constant_load_does_not_make_it_swing() {
    let start = Instant::now();
    for seed in 0..200 {
        let mut rng = Rng::with_seed(seed);
        // The budget adds up to three times what there is room for: estimates that are wrong by that much.
        let gain = 0.3 + rng.f64() * 1.7;
        let lag = 0.15 + rng.f64() * 0.8;
        let (demand, noise) = (0.3 + rng.f64() * 4.0, rng.f64() * 0.03);
        let mut database = Database { idle: 0.3, gain, lag, noise, memory: 0.3 };
        let mut controller = Controller::new(OnStale::Hold, start);
        let (mut shares, mut share) = (Vec::new(), 1.0);
        for second in 1..=900 {
            let pressure = Some(database.second(demand, share, &mut rng));
            let sight = Sight { pressure, silence: Silence::None };
            share = controller.step(sight, start + Duration::from_secs(second)).share();
            shares.push(share);
        }
        let late = &shares[120..];
        let (least, most) = late.iter().fold((1.0_f64, 0.0_f64), |(a, b), s| (a.min(*s), b.max(*s)));
        assert!(
            most - least <= SWING,
            "seed {seed}: between {least} and {most}, gain {gain}, lag {lag}, demand {demand}, noise {noise}"
        );
    }
}

#[test]
fn noise_alone_never_turns_it_around() {
    let start = Instant::now();
    // Noise up to half of the band in which nothing changes, around every level.
    let noise = (HIGH - LOW) / 2.0;
    for step in 0..=50_u32 {
        let level = f64::from(step) / 50.0;
        let mut rng = Rng::with_seed(step.into());
        let mut controller = Controller::new(OnStale::Hold, start);
        let shares: Vec<_> = (1..=600)
            .map(|second| {
                let pressure =
                    Some((level + (rng.f64() * 2.0 - 1.0) * noise * 0.99).clamp(0.0, FULL - 0.001));
                let sight = Sight { pressure, silence: Silence::None };
                controller.step(sight, start + Duration::from_secs(second)).share()
            })
            .collect();
        assert!(shares.is_sorted() || shares.is_sorted_by(|a, b| a >= b), "level {level}: {shares:?}");
    }
}

#[test]
fn a_step_is_answered_within_seconds_and_a_ramp_before_its_end() {
    let start = Instant::now();
    let mut controller = Controller::new(OnStale::Hold, start);
    let mut second = 0;
    let mut go = |pressure: f64| {
        second += 1;
        let sight = Sight { pressure: Some(pressure), silence: Silence::None };
        controller.step(sight, start + Duration::from_secs(second)).share()
    };
    assert!((0..10).all(|_| go(0.5) == 1.0));
    let down = (0..3).map(|_| go(0.97)).last().unwrap();
    assert!(down < 0.25, "three seconds after a step: {down}");
    let back = (0..60).map(|_| go(0.5)).position(|share| share == 1.0).unwrap();
    assert!((35..50).contains(&back), "as slow as it is configured to be: {back}");
    // One percent a second, as far as it goes.
    let ramp: Vec<_> = (0..=100).map(|percent| (percent, go(f64::from(percent) / 100.0))).collect();
    let at = |percent: usize| ramp[percent].1;
    assert_eq!((at(84), at(100)), (1.0, 0.0));
    assert!(at(90) < 0.6 && at(95) < 0.2, "{} {}", at(90), at(95));
}

/// Whatever is heard, missed or late, and whatever the clock does.
#[test]
fn nothing_makes_it_jump_up_or_open_unheard() {
    for seed in 0..200 {
        let mut rng = Rng::with_seed(seed);
        let on_stale = [OnStale::Hold, OnStale::SHRINK, OnStale::ShrinkTo(0.4)][rng.usize(0..3)];
        let base = Instant::now() + Duration::from_secs(1_000_000);
        let mut controller = Controller::new(on_stale, base);
        let (mut now, mut latest) = (base, base);
        let mut before = Allowance::Share(1.0);
        let (mut level, mut held) = (rng.f64(), 1.0);
        for _ in 0..500 {
            now = match rng.u32(0..10) {
                0 => now - Duration::from_secs(rng.u64(0..100)),
                1 => now + Duration::from_secs(rng.u64(0..100)),
                _ => now + Duration::from_millis(rng.u64(500..1_500)),
            };
            let passed = now.saturating_duration_since(latest).min(Duration::from_secs(5)).as_secs_f64();
            latest = latest.max(now);
            level = (level + (rng.f64() - 0.5) * 0.3).clamp(0.0, 1.0);
            let silence = [Silence::None, Silence::None, Silence::Short, Silence::Stale][rng.usize(0..4)];
            let pressure = (rng.u32(0..8) > 0).then_some(level);
            let pressure = if rng.u32(0..50) == 0 { Some(f64::NAN) } else { pressure };
            let after = controller.step(Sight { pressure, silence }, now);
            let heard = pressure.filter(|p| p.is_finite());
            let context =
                format!("seed {seed}: {before:?}, {pressure:?}, {silence:?}, {passed} s: {after:?}");
            if let (Allowance::Share(before), Allowance::Share(after)) = (before, after) {
                assert!((FLOOR..=1.0).contains(&after), "{context}");
                assert!(after <= before + 0.02 * passed + 1e-9, "{context}");
                assert!(after <= before || heard.is_some(), "{context}");
            }
            // While something is silent, what was left when it was last heard is the most.
            if let Allowance::Share(share) = after {
                assert!(silence == Silence::None || share <= held, "{context}, at most {held}");
                held = if silence == Silence::None { share } else { held };
            }
            if heard.is_some_and(|p| p >= FULL) {
                assert_eq!(after.share(), 0.0, "{context}");
            }
            if before.share() == 0.0 && silence == Silence::Short {
                assert_eq!(after.share(), 0.0, "{context}");
            }
            before = after;
        }
    }
}

#[test]
fn gaps_resets_and_silence_of_a_node_that_is_at_ease_take_nothing() {
    let start = Instant::now();
    let mut monitor = Monitor::new(Kind::Weir, Settings::default(), start);
    let mut rng = Rng::with_seed(9);
    let (mut misses, mut reads) = (1_000_000, 5_000_000);
    for second in 1..2_000 {
        // A steady trickle of empty Gets; now and then the node starts anew, or a page is lost.
        (misses, reads) = if rng.u32(0..100) == 0 { (0, 0) } else { (misses + 500, reads + 40) };
        let page = format!(
            "weir_pool_get_on_empty_total{{bucket=\"4096\",pool=\"bytes\"}} {misses}\n\
             weir_pool_total{{bucket=\"4096\",pool=\"bytes\"}} 8192\n\
             weir_pool_outstanding_bytes{{bucket=\"4096\",pool=\"bytes\"}} 1000\n\
             weir_pool_cap_bytes 0\nweir_node_reads_total {reads}\n\
             weir_pool_exhausted_total{{pool=\"bytes\"}} {}\n",
            reads / 100
        );
        let pages = [(rng.u32(0..4) > 0).then_some(page.as_str())];
        let look = monitor.look(&pages, Expected::default(), start + Duration::from_secs(second));
        assert_eq!((look.left, look.stale), (Allowance::Share(1.0), vec![]), "second {second}");
    }
}

#[test]
fn a_node_whose_pools_run_away_loses_its_budget_and_gets_it_back() {
    let start = Instant::now();
    let mut monitor = Monitor::new(Kind::Weir, Settings::default(), start);
    let mut misses = 0;
    let mut shares = Vec::new();
    for second in 1..=180 {
        misses += if (30..90).contains(&second) { 40_000 } else { 100 };
        let page = format!(
            "weir_pool_get_on_empty_total{{bucket=\"4096\",pool=\"bytes\"}} {misses}\n\
             weir_pool_total{{bucket=\"4096\",pool=\"bytes\"}} 8192\n\
             weir_pool_outstanding_bytes 0\nweir_pool_cap_bytes 0\n"
        );
        let look = monitor.look(&[Some(&page)], Expected::default(), start + Duration::from_secs(second));
        assert!(look.stale.is_empty());
        assert!(look.readings.iter().any(|reading| reading.signal == Signal::PoolGetOnEmpty));
        shares.push(look.left.share());
    }
    assert_eq!(shares[28], 1.0);
    assert!(shares[45] < 0.1, "{}", shares[45]);
    assert!(shares.iter().all(|share| *share >= FLOOR));
    assert!(shares[179] > 0.9, "{}", shares[179]);
}
