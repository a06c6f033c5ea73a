use super::*;
use crate::{
    base::TenantId,
    cost::{CONTRADICTIONS, FORGET_MS, HALF_LIFE_MS, LearnKey, Learned, LearnedError, Observed},
};

fn key(fingerprint: u64) -> LearnKey {
    LearnKey { tenant: TenantId::new("a").unwrap(), fingerprint, range_bucket: 12 }
}

fn series(series: u64) -> Observed {
    Observed { series, samples: series * 10, bytes: 7, memory: None }
}

#[test]
fn the_largest_recent_run_counts_and_fades() {
    let store = Learned::new(10);
    let now = || store.get(&key(1), HALF_LIFE_MS).map(|o| o.series);
    assert_eq!(now(), None);
    store.observe(key(1), series(1000), 0);
    // A smaller run does not hide the larger one, but lets it fade.
    store.observe(key(1), series(100), HALF_LIFE_MS);
    assert_eq!(now(), Some(500));
    store.observe(key(1), series(800), HALF_LIFE_MS);
    assert_eq!(now(), Some(800));
    store.observe(key(1), series(100), 3 * HALF_LIFE_MS);
    assert_eq!(store.get(&key(1), 3 * HALF_LIFE_MS), Some(Observed { bytes: 7, ..series(200) }));
}

#[test]
fn rare_small_runs_let_an_old_peak_fade() {
    let store = Learned::new(10);
    store.observe(key(1), series(1000), 0);
    for day in 1..=4 {
        store.observe(key(1), series(10), day * HALF_LIFE_MS);
    }
    assert_eq!(store.get(&key(1), 4 * HALF_LIFE_MS).map(|o| o.series), Some(63));
}

#[test]
fn a_poisoned_entry_is_corrected_both_ways() {
    let store = Learned::new(10);
    let expected = || store.get(&key(1), 1_000).map(|o| o.series);
    // Ten times too small: one run.
    store.observe(key(1), series(100), 1_000);
    store.observe(key(1), series(1000), 1_000);
    assert_eq!(expected(), Some(1000));
    // Ten times too large: not by a few runs, which may have met an empty window, but by many.
    store.observe(key(1), series(10_000), 1_000);
    for _ in 1..CONTRADICTIONS {
        store.observe(key(1), series(1000), 1_000);
    }
    assert_eq!(expected(), Some(10_000));
    for _ in 0..3 * u32::from(CONTRADICTIONS) {
        store.observe(key(1), series(1000), 1_000);
    }
    assert!(expected().is_some_and(|n| n < 2_000), "{:?}", expected());
    // A full run between the empty ones keeps the peak.
    store.observe(key(2), series(1000), 1_000);
    for run in 0..200 {
        store.observe(key(2), series(if run % 10 == 9 { 900 } else { 0 }), 1_000);
    }
    assert_eq!(store.get(&key(2), 1_000).map(|o| o.series), Some(1000));
}

#[test]
fn what_is_too_old_is_forgotten() {
    let store = Learned::new(10);
    store.observe(key(1), series(1000), 0);
    assert!(store.get(&key(1), FORGET_MS).is_some());
    assert!(store.get(&key(1), FORGET_MS + 1).is_none());
}

#[test]
fn tenants_and_ranges_learn_apart() {
    let store = Learned::new(10);
    store.observe(key(1), series(5), 0);
    let other = LearnKey { tenant: TenantId::new("b").unwrap(), ..key(1) };
    assert!(store.get(&other, 0).is_none());
    let bucket = |times| LearnKey::new(TenantId::new("a").unwrap(), 1, &shape("foo", times)).range_bucket;
    assert_ne!(bucket(EvalTimes::instant(NOW)), bucket(six_hours(15)));
    assert_eq!(bucket(six_hours(60)), bucket(six_hours(15)));
}

#[test]
fn the_store_is_bounded_and_keeps_what_is_used() {
    let store = Learned::new(100);
    store.observe(key(0), series(1), 0);
    for i in 1..10_000 {
        store.observe(key(i), series(i), i);
        assert!(store.get(&key(0), i).is_some(), "evicted at {i}");
    }
    assert_eq!(store.len(), 100);
    // Even when every slot is in use, room is made.
    for i in 0..10_000 {
        let _ = store.get(&key(i), 10_000);
    }
    store.observe(key(77_777), series(1), 10_000);
    assert_eq!(store.len(), 100);
    assert!(store.get(&key(77_777), 10_000).is_some());
    let none = Learned::new(0);
    none.observe(key(1), series(1), 0);
    assert_eq!(none.len(), 1);
}

#[test]
fn it_comes_back_from_its_bytes() {
    let store = Learned::new(10);
    store.under(7);
    store.observe(key(1), series(1000), 50);
    store.observe(key(u64::MAX), Observed { memory: Some(9), ..series(3) }, 60);
    let bytes = store.to_bytes();
    let back = Learned::from_bytes(&bytes, 10, 100).unwrap();
    assert_eq!(back.len(), 2);
    assert_eq!(back.get(&key(1), 100), Some(series(1000)));
    assert_eq!(back.get(&key(u64::MAX), 100).and_then(|o| o.memory), Some(9));
    back.under(7);
    assert_eq!(back.len(), 2);
    back.under(8);
    assert!(back.is_empty(), "learned under other limits");
    // Into less room, and long after.
    assert_eq!(Learned::from_bytes(&bytes, 1, 100).unwrap().len(), 1);
    assert!(Learned::from_bytes(&bytes, 10, 100 + FORGET_MS).unwrap().is_empty());
    // A clock that was ahead does not make an entry immortal.
    assert!(Learned::from_bytes(&bytes, 10, 0).unwrap().get(&key(1), FORGET_MS + 1).is_none());
}

#[test]
fn damaged_bytes_are_refused_not_believed() {
    let store = Learned::new(10);
    store.observe(key(1), series(1000), 50);
    let good = store.to_bytes();
    let mut rng = fastrand::Rng::with_seed(7);
    for _ in 0..500 {
        let mut bytes = good.clone();
        if rng.bool() {
            bytes.truncate(rng.usize(..bytes.len()));
        } else {
            let at = rng.usize(..bytes.len());
            bytes[at] ^= 1 << rng.u8(..8);
        }
        assert!(Learned::from_bytes(&bytes, 10, 100).is_err());
    }
    let refused = |bytes: &[u8]| Learned::from_bytes(bytes, 10, 100).unwrap_err();
    assert_eq!(refused(b"weir-learned 1 00000000\n[]"), LearnedError::Header);
    assert_eq!(refused(b""), LearnedError::Header);
    assert_eq!(refused(&vec![b'x'; 2 << 20]), LearnedError::TooLarge);
    // A right checksum over wrong things.
    let signed =
        |body: &str| format!("weir-learned 2 {:08x}\n{body}", crc32fast::hash(body.as_bytes())).into_bytes();
    assert_eq!(refused(&signed("{}")), LearnedError::Corrupt);
    let row =
        |tenant: &str, n: u64| format!(r#"[0,[["{tenant}",1,12,{{"series":{n},"samples":1,"bytes":1}},5]]]"#);
    assert!(Learned::from_bytes(&signed(&row("", 1)), 10, 100).unwrap().is_empty());
    let huge = Learned::from_bytes(&signed(&row("a", u64::MAX)), 10, 100).unwrap();
    assert_eq!(huge.get(&key(1), 100).map(|o| o.series), Some(1 << 53));
}
