//! A ranking is that of the recorded queries, within the bound that it names, under any stream, clock and file.

use std::{collections::HashMap, fs};

use super::*;
use crate::promql::Fingerprint;

const NOW: i64 = 1_700_000_000_000;

fn query(tenant: &str, memory: u64) -> Observation<'_> {
    Observation {
        at_ms: NOW,
        tenant,
        query: "sum(up)",
        ran: true,
        memory: Some(memory),
        took_ms: 100,
        ..Observation::default()
    }
}

fn tenants(top: &Top, window: Window, sort: Measure, now_ms: i64) -> Ranking {
    top.ranking(window, By::Tenant, sort, usize::MAX, now_ms)
}

/// Keys of a stream: a few that come often, keys that never come twice, heavy ones that come late, or each in turn.
fn stream(kind: u64, random: &mut fastrand::Rng, i: u64) -> (u64, u64) {
    match kind {
        0 => ((1.0 / (random.f64() + 1e-4)) as u64, random.u64(1..1_000)),
        1 => (i, 1),
        2 if i.is_multiple_of(50) => (1_000_000 + i / 50 % 3, 100_000),
        2 => (i, random.u64(1..100)),
        3 => (i % (KEYS_MAX as u64 + 1), 7),
        // A heavy one, then everything that can push it out.
        _ if i % 1_000 < 5 => (i % 1_000, 1 << 20),
        _ => (random.u64(..500), 1 + i % 3),
    }
}

#[test]
fn no_number_is_too_high_and_none_lacks_more_than_is_said() {
    for kind in 0..5 {
        for seed in 0..4 {
            let (mut random, top) = (fastrand::Rng::with_seed(seed), Top::open(None, NOW));
            let mut truth: HashMap<String, [u64; 3]> = HashMap::new();
            for i in 0..4_000 {
                let (key, memory) = stream(kind, &mut random, i);
                let (key, refused) = (format!("t{key}"), random.u8(..20) == 0);
                // Over several slots of each window.
                let at_ms = NOW + i as i64 * 60;
                top.observe(&Observation { at_ms, refused, ..query(&key, memory) });
                let [sum, count, refusals] = truth.entry(key).or_default();
                (*sum, *count, *refusals) = (*sum + memory, *count + 1, *refusals + u64::from(refused));
            }
            let now = NOW + 4_000 * 60;
            for (measure, at) in [(Measure::Memory, 0), (Measure::Count, 1), (Measure::Refused, 2)] {
                let ranking = tenants(&top, Window::FiveMinutes, measure, now);
                let total: u64 = truth.values().map(|all| all[at]).sum();
                assert_eq!(ranking.total.get(measure), total);
                let rows: HashMap<&str, (u64, u64)> = ranking
                    .rows
                    .iter()
                    .map(|row| (&*row.key, (row.amounts.get(measure), row.missed.get(measure))))
                    .collect();
                for (key, all) in &truth {
                    let (seen, missed) = rows.get(&**key).copied().unwrap_or((0, total / KEYS_MAX as u64));
                    assert!(
                        seen <= all[at] && all[at] <= seen + missed,
                        "{kind} {seed} {measure:?} {key}: {seen}+{missed}, not {}",
                        all[at]
                    );
                    assert!(
                        missed <= total / KEYS_MAX as u64,
                        "{kind} {seed} {measure:?} {key}: {missed} of {total}"
                    );
                }
                let listed: Vec<u64> = ranking.rows.iter().map(|row| row.amounts.get(measure)).collect();
                assert!(listed.is_sorted_by(|a, b| a >= b));
                assert_eq!(ranking.other.get(measure), total - listed.iter().sum::<u64>());
            }
        }
    }
}

#[test]
fn whatever_comes_a_table_has_a_bound() {
    let (mut random, top) = (fastrand::Rng::with_seed(5), Top::open(None, NOW));
    for i in 0..20_000_u64 {
        let (name, address) = (format!("x{i}"), std::net::Ipv4Addr::from_bits(random.u32(..)));
        top.observe(&Observation {
            at_ms: NOW + (i * 10_000) as i64,
            dashboard: &name,
            user: &name,
            rule: &name,
            client: Some(address.into()),
            fingerprint: Some(Fingerprint::from_words([i, random.u64(..)])),
            refused: random.bool(),
            shadow_refused: random.bool(),
            samples: Some(random.u64(..)),
            took_ms: random.u64(..1 << 20),
            ..query(&name, random.u64(..))
        });
    }
    let slots = top.slots.lock();
    for (window, slots) in Window::ALL.iter().zip(&slots.windows) {
        assert!(slots.len() as i64 <= window.slots() + 1);
        for table in slots.iter().flat_map(|slot| &slot.tables) {
            assert!(table.len() <= Measure::ALL.len() * KEYS_MAX, "{}", table.len());
        }
    }
}

#[test]
fn windows_move_with_the_clock() {
    let top = Top::open(None, NOW);
    top.observe(&query("a", 5));
    let seen = |window, minutes: i64| {
        let ranking = tenants(&top, window, Measure::Memory, NOW + minutes * 60_000);
        (ranking.rows.len(), ranking.total.get(Measure::Count))
    };
    for (window, last) in [(Window::FiveMinutes, 5), (Window::Hour, 60), (Window::Day, 1_440)] {
        assert_eq!(seen(window, 0), (1, 1), "{window:?}");
        assert_eq!(seen(window, last - 1), (1, 1), "{window:?}");
        assert_eq!(seen(window, last + window.slot_ms() / 60_000 + 1), (0, 0), "{window:?}");
    }
    // A clock that goes back loses nothing, and makes no more slots.
    top.observe(&Observation { at_ms: NOW - 7_200_000, ..query("a", 5) });
    assert_eq!(seen(Window::FiveMinutes, 0), (1, 2));
    assert_eq!(
        tenants(&top, Window::FiveMinutes, Measure::Memory, NOW).from_ms,
        NOW.div_euclid(60_000) * 60_000
    );
}

#[test]
fn a_row_says_everything_of_its_queries() {
    let top = Top::open(None, NOW);
    let panel = |panel, at_ms| Observation { dashboard: "d", panel, at_ms, ..query("a", 1 << 20) };
    for ms in 1..=100 {
        let text = "x".repeat(600);
        top.observe(&Observation {
            query: &text,
            took_ms: ms * 10 + 5,
            wait_ms: 5,
            series: Some(3),
            series_read: (ms == 1).then_some(9),
            ..panel("1", NOW + ms as i64)
        });
    }
    let unknown = Some(u64::MAX);
    top.observe(&Observation {
        ran: false,
        refused: true,
        memory: unknown,
        series: unknown,
        ..panel("2", NOW)
    });
    let ranking = top.ranking(Window::Hour, By::Dashboard, Measure::Count, 1, NOW + 500);
    let json = serde_json::to_value(&ranking).unwrap();
    assert_eq!(json["by"], "dashboard");
    assert_eq!(
        json["other"],
        serde_json::json!({"memory": 0, "count": 1, "samples": 0, "seconds": 0.0, "refused": 1, "shadow_refused": 0})
    );
    let row = &json["rows"][0];
    for (field, want) in [
        ("key", serde_json::json!("d")),
        ("panel", "1".into()),
        ("count", 100.into()),
        ("memory", (100_u64 << 20).into()),
        ("seconds", 50.5.into()),
        ("series", 300.into()),
        ("series_read", 9.into()),
        ("answer_bytes", serde_json::Value::Null),
        ("refused", 0.into()),
    ] {
        assert_eq!(row[field], want, "{field}");
    }
    assert_eq!(row["missed"]["count"], 0);
    let near = |got: &serde_json::Value, want: f64| (got.as_f64().unwrap() / want).ln().abs() < 0.19;
    assert!(near(&row["p50_seconds"], 0.505) && near(&row["p99_seconds"], 0.995), "{row}");
    assert_eq!(row["worst"]["query"].as_str().unwrap().len(), 500);
    let refused = top.ranking(Window::Hour, By::Dashboard, Measure::Refused, 9, NOW + 500);
    let row = serde_json::to_value(&refused.rows[0]).unwrap();
    assert_eq!(
        (&row["worst"]["memory"], &row["memory"], &row["p50_seconds"]),
        (&serde_json::Value::Null, &0.into(), &serde_json::Value::Null)
    );
    assert_eq!(refused.rows.len(), 1, "who was not refused is not ranked by it");
}

#[test]
fn a_restart_loses_nothing_and_damage_is_not_read() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join(FILE);
    let mut random = fastrand::Rng::with_seed(8);
    let top = Top::open(Some(file.clone()), NOW);
    for i in 0..3_000 {
        let (name, memory) = stream(0, &mut random, i);
        let name = name.to_string();
        top.observe(&Observation { dashboard: &name, at_ms: NOW + i as i64 * 1_000, ..query("a", memory) });
    }
    let now = NOW + 3_000_000;
    let shown = |top: &Top| {
        let rankings = Window::ALL
            .iter()
            .flat_map(|window| By::ALL.iter().map(|by| top.ranking(*window, *by, Measure::Memory, 30, now)));
        rankings.map(|ranking| serde_json::to_string(&ranking).unwrap()).collect::<Vec<_>>()
    };
    top.save().unwrap();
    let again = Top::open(Some(file.clone()), now);
    assert_eq!(shown(&again), shown(&top));
    // It goes on as if nothing had been.
    for top in [&top, &again] {
        for i in 0..200 {
            top.observe(&Observation { dashboard: &i.to_string(), at_ms: now, ..query("b", i) });
        }
    }
    let shown =
        [&top, &again].map(|top| top.ranking(Window::Hour, By::Dashboard, Measure::Count, 5, now).total);
    assert_eq!(shown[0], shown[1]);

    let bytes = fs::read(&file).unwrap();
    let total = |bytes: &[u8]| {
        fs::write(&file, bytes).unwrap();
        tenants(&Top::open(Some(file.clone()), now), Window::Day, Measure::Count, now)
            .total
            .get(Measure::Count)
    };
    assert_eq!(total(&bytes), 3_000);
    for _ in 0..50 {
        let mut damaged = bytes.clone();
        let at = random.usize(..damaged.len());
        damaged[at] ^= 1 << random.u32(..8);
        assert_eq!(total(&damaged), 0, "a flipped bit at {at}");
        assert_eq!(total(&bytes[..random.usize(..bytes.len())]), 0);
    }
    assert_eq!(total(b"weir-top 2 00000000\n{}"), 0, "another version");
    // After a day nothing of it is left.
    let later = Top::open(Some(file), now + 2 * 86_400_000);
    assert!(Window::ALL.iter().all(|window| tenants(&later, *window, Measure::Count, now).rows.is_empty()));
}

#[test]
fn a_query_that_still_runs_and_one_that_was_only_refused_have_their_rows() {
    let top = Top::open(None, NOW);
    let of = |dashboard| Observation { dashboard, tenant: "a", at_ms: NOW, ..Observation::default() };
    top.observe(&Observation { refused: true, memory: Some(9), ..of("refused") });
    let running = [Observation { ran: true, memory: Some(5 << 30), took_ms: 13_800, ..of("culprit") }];
    let rank = || {
        let (window, by) = (Window::FiveMinutes, By::Dashboard);
        top.ranking_with(&running, window, by, Measure::Memory, 9, NOW + 13_800)
    };
    for _ in 0..2 {
        let ranking = rank();
        let rows: Vec<_> =
            ranking.rows.iter().map(|row| (&*row.key, row.amounts.get(Measure::Memory))).collect();
        assert_eq!(rows, [("culprit", 5 << 30), ("refused", 0)], "counted once, however often it is asked");
        assert_eq!((ranking.running, ranking.total.get(Measure::Count)), (1, 2));
    }
}
