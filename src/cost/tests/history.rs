use super::*;
use crate::{
    base::TimeRange,
    cost::{
        History, HistoryError, HistoryKey,
        history::{CLOSED_TRUST_MS, FORGET_MS, HALF_LIFE_MS, OPEN_TRUST_MS},
    },
    promql::{Fingerprint, parse},
};

const MINUTE: i64 = 60_000;

fn key_of(backend: &str, scope: &str, query: &str, times: EvalTimes, now: i64) -> HistoryKey {
    let fingerprint = Fingerprint::of(&parse(query).unwrap());
    HistoryKey::new(backend, scope, fingerprint, &shape(query, times), now)
}

fn key(query: &str, times: EvalTimes, now: i64) -> HistoryKey {
    key_of("main", "team", query, times, now)
}

/// The hours before a moment, every minute.
fn hours_before(end: i64, hours: i64) -> EvalTimes {
    EvalTimes { start: end - hours * HOUR, end, step: 60_000 }
}

/// Peak, and the bound of the window.
fn got(store: &History, key: &HistoryKey, now: i64) -> Option<(u64, Option<u64>)> {
    store.get(key, now).map(|remembered| (remembered.peak, remembered.here))
}

#[test]
fn an_empty_window_says_nothing_of_another() {
    let store = History::new(100);
    let day = |days: i64| key("sum(up)", hours_before(NOW - days * 24 * HOUR, 6), NOW);
    store.observe(&day(2), 0, true, NOW);
    // The same text over today.
    assert_eq!(got(&store, &day(0), NOW), None);
    // Another window of the same length and age.
    let beside = key("sum(up)", hours_before(NOW - 48 * HOUR - 6 * MINUTE, 6), NOW);
    assert_eq!(got(&store, &beside, NOW), Some((0, None)));
    // Offset and `@` move the window as start and end do: this is the one that was observed.
    let offset = key("sum(up offset 2d)", hours_before(NOW, 6), NOW);
    assert_ne!(offset, key("sum(up)", hours_before(NOW, 6), NOW));
    assert_eq!(got(&store, &offset, NOW), Some((0, Some(0))));
    let at = |t: i64| key(&format!("sum(up @ {})", t / 1_000), EvalTimes::instant(NOW), NOW);
    store.observe(&at(NOW - 48 * HOUR), 0, true, NOW);
    assert_eq!(got(&store, &at(NOW), NOW), None);
    assert_eq!(got(&store, &at(NOW - 48 * HOUR + 10 * MINUTE), NOW), Some((0, None)));
}

#[test]
fn the_first_instant_after_a_start_is_not_believed_four_minutes_later() {
    let store = History::new(100);
    let instant = |now| key("up", EvalTimes::instant(now), now);
    store.observe(&instant(NOW), 0, true, NOW);
    assert_eq!(got(&store, &instant(NOW), NOW), Some((0, Some(0))));
    assert_eq!(got(&store, &instant(NOW + MINUTE / 2), NOW + MINUTE / 2), Some((0, Some(0))));
    assert_eq!(got(&store, &instant(NOW + 4 * MINUTE), NOW + 4 * MINUTE), Some((0, None)));
}

#[test]
fn trust_ends_as_data_may_have_grown() {
    let store = History::new(100);
    let open = key("sum(up)", hours_before(NOW, 6), NOW);
    store.observe(&open, 70, true, NOW);
    let later = |ms: u64| NOW + ms as i64;
    assert_eq!(got(&store, &open, later(OPEN_TRUST_MS - 1)), Some((70, Some(70))));
    assert_eq!(got(&store, &open, later(OPEN_TRUST_MS)).unwrap().1, None);
    // A window that ended long before is added to by late samples only.
    let closed = key("sum(up)", hours_before(NOW - 24 * HOUR, 6), NOW);
    store.observe(&closed, 70, true, NOW);
    assert_eq!(got(&store, &closed, later(CLOSED_TRUST_MS - 1)).unwrap().1, Some(70));
    assert_eq!(got(&store, &closed, later(CLOSED_TRUST_MS)).unwrap().1, None);
    // A part of a window holds no more than the whole.
    let part = key("sum(up)", hours_before(NOW - 25 * HOUR, 5), NOW);
    assert_eq!(got(&store, &part, NOW), Some((70, Some(70))));
}

#[test]
fn the_largest_run_of_late_raises_and_fades() {
    let store = History::new(10);
    let (at, half) = (key("up", EvalTimes::instant(NOW), NOW), HALF_LIFE_MS as i64);
    store.observe(&at, 1_000, true, NOW);
    store.observe(&at, 100, true, NOW + half);
    assert_eq!(store.get(&at, NOW + half).unwrap().peak, 500);
    store.observe(&at, 800, true, NOW + half);
    assert_eq!(store.get(&at, NOW + half).unwrap().peak, 800);
    assert_eq!(store.get(&at, NOW + 3 * half).unwrap().peak, 200);
    assert!(store.get(&at, NOW + half + FORGET_MS as i64 + 1).is_none());
}

#[test]
fn a_part_of_what_was_touched_lowers_nothing() {
    let store = History::new(10);
    let at = key("foo > 5", EvalTimes::instant(NOW), NOW);
    store.observe(&at, 0, false, NOW);
    assert_eq!(got(&store, &at, NOW), Some((0, None)));
    store.observe(&at, 90, false, NOW);
    assert_eq!(got(&store, &at, NOW), Some((90, None)));
}

#[test]
fn a_run_that_saw_a_part_displaces_none_that_saw_the_whole() {
    let store = History::new(10);
    let closed = |hours: i64| key("sum(up)", hours_before(NOW - 48 * HOUR, hours), NOW);
    let (six, seven) = (closed(6), closed(7));
    store.observe(&six, 60, true, NOW);
    store.observe(&seven, 70, true, NOW);
    for _ in 0..5 {
        store.observe(&six, 10, false, NOW + 1);
    }
    assert_eq!(
        got(&store, &six, NOW + 1).unwrap().1,
        Some(70),
        "the longer window has the shorter one in it"
    );
    assert_eq!(got(&store, &seven, NOW + 1).unwrap().1, Some(70));
}

#[test]
fn backends_scopes_and_the_windows_of_selectors_learn_apart() {
    let store = History::new(100);
    let times = hours_before(NOW, 6);
    store.observe(&key("rate(a[5m]) / rate(b[1d])", times, NOW), 5, true, NOW);
    assert!(got(&store, &key("rate(a[5m]) / rate(b[1d])", times, NOW), NOW).is_some());
    for other in [
        key_of("other", "team", "rate(a[5m]) / rate(b[1d])", times, NOW),
        key_of("main", "another", "rate(a[5m]) / rate(b[1d])", times, NOW),
        // The same fingerprint and the same window in all.
        key("rate(a[1d]) / rate(b[5m])", times, NOW),
    ] {
        assert_eq!(got(&store, &other, NOW), None, "{other:?}");
    }
    // Neighbouring strings cannot trade characters.
    assert_ne!(key_of("a", "bc", "up", times, NOW), key_of("ab", "c", "up", times, NOW));
}

#[test]
fn the_store_is_bounded_and_keeps_what_is_used() {
    let store = History::new(160);
    let number = |n: u64| {
        let id = Fingerprint::of_bytes(b"test", &[&n.to_le_bytes()]);
        HistoryKey { id, window: TimeRange { start: 0, end: 1 } }
    };
    store.observe(&number(0), 1, true, 0);
    for n in 1..10_000 {
        store.observe(&number(n), n, true, n as i64);
        assert!(store.get(&number(0), n as i64).is_some(), "evicted at {n}");
    }
    assert_eq!(store.len(), 160);
    for n in 0..10_000 {
        let _ = store.get(&number(n), 10_000);
    }
    store.observe(&number(77_777), 1, true, 10_000);
    assert!(store.get(&number(77_777), 10_000).is_some() && store.len() == 160);
    let least = History::new(0);
    least.observe(&number(1), 1, true, 0);
    assert_eq!(least.len(), 1);
}

#[test]
fn it_comes_back_from_its_bytes() {
    let store = History::new(100);
    let (one, two) = (key("up", EvalTimes::instant(NOW), NOW), key("down", EvalTimes::instant(NOW), NOW));
    store.observe(&one, 1_000, true, NOW);
    store.observe(&two, 3, true, NOW);
    let bytes = store.to_bytes();
    let back = History::from_bytes(&bytes, 100, NOW).unwrap();
    assert_eq!((back.len(), got(&back, &one, NOW)), (2, Some((1_000, Some(1_000)))));
    assert!(History::from_bytes(&bytes, 100, NOW + FORGET_MS as i64 + 1).unwrap().is_empty());
    // A clock that was ahead makes no entry immortal.
    let early = NOW - FORGET_MS as i64;
    let back = History::from_bytes(&bytes, 100, early).unwrap();
    assert!(back.get(&one, early + FORGET_MS as i64 + 1).is_none());
}

#[test]
fn damaged_bytes_and_those_of_earlier_versions_are_refused() {
    let store = History::new(10);
    store.observe(&key("up", EvalTimes::instant(NOW), NOW), 1_000, true, NOW);
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
        assert!(History::from_bytes(&bytes, 10, NOW).is_err());
    }
    let refused = |bytes: &[u8]| History::from_bytes(bytes, 10, NOW).unwrap_err();
    assert_eq!(refused(b"weir-learned 2 00000000\n[]"), HistoryError::Header);
    assert_eq!(refused(b""), HistoryError::Header);
    assert_eq!(refused(&vec![b'x'; 2 << 20]), HistoryError::TooLarge);
    // A right checksum over wrong things.
    let signed =
        |body: &str| format!("weir-learned 3 {:08x}\n{body}", crc32fast::hash(body.as_bytes())).into_bytes();
    assert_eq!(refused(&signed("{}")), HistoryError::Corrupt);
    let row = format!(r#"[{{"id":[1,1],"peak":{},"peak_ms":5,"runs":[[1,{NOW},0,0],[0,0,0,0]]}}]"#, u64::MAX);
    let id = Fingerprint::from_words([1, 1]);
    let huge = History::from_bytes(&signed(&row), 10, NOW).unwrap();
    let key = HistoryKey { id, window: TimeRange { start: 0, end: 1 } };
    assert!(huge.get(&key, 5).unwrap().peak <= 1 << 53);
}

#[test]
fn a_run_at_another_proxy_counts_as_one_here_whatever_its_clock_says() {
    let times = EvalTimes::instant(NOW);
    let [a, b] = ["sum(a)", "sum(b)"].map(|query| key(query, times, NOW));
    for skew in [0, -3_600_000, 3_600_000] {
        let (there, here) = (History::new(100), History::new(100));
        let then = NOW + skew;
        there.observe(&a, 500, true, then - 60_000);
        there.offer(&a);
        there.offer(&a);
        here.observe(&a, 700, true, NOW - HALF_LIFE_MS as i64 * 2);
        let offers = there.take_offers(10, then);
        assert_eq!(offers.len(), 1);
        assert!(there.take_offers(10, then).is_empty(), "each once");
        assert!(here.take(&offers[0].1, 2_000, NOW) && here.take(&offers[0].1, 2_000, NOW));
        assert_eq!(got(&here, &a, NOW), Some((500, Some(500))), "skew {skew}");
        let trust = OPEN_TRUST_MS as i64 - 62_000;
        assert!(got(&here, &a, NOW + trust - 1).unwrap().1.is_some(), "skew {skew}");
        assert!(
            got(&here, &a, NOW + trust).unwrap().1.is_none(),
            "it is trusted no longer than there, {skew}"
        );
        here.observe(&a, 900, false, NOW);
        assert!(here.take(&offers[0].1, 2_000, NOW));
        assert_eq!(got(&here, &a, NOW).unwrap().0, 900, "the larger peak stays");
        assert_eq!((got(&here, &b, NOW), here.len()), (None, 1));
    }
}

#[test]
fn an_offer_that_makes_no_sense_is_refused_and_offers_are_bounded() {
    let store = History::new(100);
    let all: Vec<_> = (0..200).map(|n| key(&format!("sum(m{n})"), EvalTimes::instant(NOW), NOW)).collect();
    for key in &all {
        store.observe(key, 1, true, NOW);
        store.offer(key);
    }
    let offers = store.take_offers(32, NOW);
    assert_eq!(offers.len(), 32);
    let good = String::from_utf8(offers[0].1.clone()).unwrap();
    let other = History::new(100);
    for bad in [
        "",
        "{}",
        "[]",
        &good[1..],
        &format!("{good} "),
        &good.replace("peak\"", "peek\""),
        &"x".repeat(9_999),
    ] {
        let is_padded = bad.ends_with(' ');
        assert_eq!(other.take(bad.as_bytes(), 0, NOW), is_padded, "{bad}");
    }
    let odd = good.replace("\"peak\":1", &format!("\"peak\":{}", u64::MAX));
    assert!(other.take(odd.as_bytes(), u64::MAX, NOW) && other.take(odd.as_bytes(), 0, NOW));
    assert!(offers.iter().all(|(name, _)| name.len() == 32) && other.len() == 1);
}
