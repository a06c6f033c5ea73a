//! The pool is the bound: every query, whatever it is, is lent its memory before it allocates.

use std::{
    fmt::Write as _,
    sync::{Arc, atomic::AtomicBool},
    time::Duration,
};

use weir::{
    base::{TimeRange, time::EvalTimes},
    node::{
        db::{Db, Options},
        engine::{self, EvalError, Limits},
        http::store_metrics,
        index::status_bytes,
    },
    promql,
    series::Labels,
};

use crate::support::{memory::peak_of, pools::pools_waiting};

const END: i64 = 1_700_000_000;
const SAMPLES: i64 = 40;
/// Memory without a loan: the plan, annotations, matchers.
const BESIDE: u64 = 16 << 10;
/// All of time.
const EVER: TimeRange = TimeRange { start: i64::MIN, end: i64::MAX };

/// 800 series over ten minutes; a quarter of them `half_`, forty buckets.
fn database() -> Db {
    let db = Db::in_memory(Options { clock: || END * 1_000, ..Options::default() });
    for sample in 0..SAMPLES {
        let time = END - (SAMPLES - sample) * 15;
        let mut text = String::new();
        for number in 0..800 {
            let name = if number % 4 == 0 { "half_total" } else { "other_total" };
            let value = number * 3 + sample * 7;
            writeln!(
                text,
                "{name}{{job=\"job{}\",instance=\"10.0.0.{}:9100\",path=\"/p{number}\"}} {value} {time}",
                number % 5,
                number % 40
            )
            .unwrap();
        }
        for le in ["0.1", "0.5", "1", "+Inf"] {
            for job in 0..10 {
                writeln!(text, "req_dur_bucket{{job=\"job{job}\",le=\"{le}\"}} {sample} {time}").unwrap();
            }
        }
        writeln!(text, "target_info{{job=\"job1\",instance=\"10.0.0.1:9100\",version=\"1\"}} 1 {time}")
            .unwrap();
        let text = timestamps_in_ms(&text);
        store_metrics(&db, &text, time * 1_000, &[]).unwrap();
    }
    db
}

/// The text format has milliseconds.
fn timestamps_in_ms(text: &str) -> String {
    text.lines().flat_map(|line| [line, "000\n"]).collect()
}

struct Case {
    query: String,
    times: EvalTimes,
}

fn cases() -> Vec<Case> {
    let file = include_str!("../../data/pool_queries.txt");
    let lines = file.lines().filter(|line| !line.starts_with('#')).filter_map(|line| line.split_once(' '));
    let case = |(how, query): (&str, &str)| {
        let query = query
            .replace("ALL", r#"{__name__=~".+"}"#)
            .replace("HALF", "half_total")
            .replace("SOME", r#"half_total{instance="10.0.0.4:9100"}"#);
        let end = END * 1_000;
        let times = match how {
            "range" => EvalTimes { start: end - 600_000, end, step: 15_000 },
            _ => EvalTimes::instant(end),
        };
        Case { query, times }
    };
    lines.filter(|(how, _)| *how != "list").map(case).collect()
}

#[test]
fn what_a_query_allocates_is_lent_first() {
    let db = database();
    let mut wrong = Vec::new();
    for Case { query, times } in cases() {
        let (pools, cap) = pools_waiting(256 << 20, Duration::ZERO);
        let ast = promql::parse(&query).unwrap_or_else(|error| panic!("{query}: {error}"));
        let options = engine::Options {
            pools: Some(pools),
            limits: Limits { points: u64::MAX, ..Limits::default() },
            ..engine::Options::default()
        };
        let canceled = AtomicBool::new(false);
        let (answer, allocated) = peak_of(|| engine::evaluate(&ast, times, &db, &options, &canceled));
        let allowed = cap.peak() + BESIDE;
        if let Err(error) = &answer
            && !matches!(error, EvalError::Exhausted(_))
        {
            wrong.push(format!("{query}: {error}"));
        }
        if allocated as u64 > allowed {
            wrong.push(format!("{} {query}: {allocated} bytes, {} lent", times.step, cap.peak()));
        }
        drop(answer);
        assert_eq!(cap.lent(), 0, "{query}");
    }
    assert!(wrong.is_empty(), "{} queries:\n{}", wrong.len(), wrong.join("\n"));
}

#[test]
fn a_list_allocates_no_more_than_its_entries() {
    // The series that are looked at between two locks.
    const VISITED: usize = 4 << 10;
    let db = database();
    let all = db.candidates(&[]).unwrap();
    for limit in [7, 10_000] {
        let most =
            |entries: usize, each: usize| entries.min(limit + 1) * each + db.set_bytes() as usize + VISITED;
        let (series, allocated) = peak_of(|| db.series(&all, EVER, limit));
        assert!(allocated <= most(all.series(), size_of::<Labels>()), "{allocated}");
        let (names, allocated) = peak_of(|| db.label_names(&all, EVER, limit));
        assert!(allocated <= most(db.labels(None), size_of::<Arc<str>>()), "{allocated}");
        let (values, allocated) = peak_of(|| db.label_values("path", &all, EVER, limit));
        assert!(allocated <= most(db.labels(Some("path")), size_of::<Arc<str>>()), "{allocated}");
        let found = (series.items.len(), names.items.len(), values.items.len());
        assert_eq!(found, (841.min(limit), 6.min(limit), 800.min(limit)));
        let (_, allocated) = peak_of(|| db.query_cost(&[], EVER).unwrap());
        assert!(allocated <= 2 * db.set_bytes() as usize + VISITED, "{allocated}");
    }
    let (_, allocated) = peak_of(|| db.tsdb_status(&[], 1_000).unwrap());
    assert!(allocated as u64 <= status_bytes(1_000), "{allocated}");
}

#[test]
fn a_burst_of_strings_does_not_pass_the_pool() {
    let db = database();
    let (pools, cap) = pools_waiting(64 << 20, Duration::ZERO);
    let options = engine::Options { pools: Some(pools), ..engine::Options::default() };
    // Each level makes the label forty times as long: 200 series of 25 MB.
    let many = "$1".repeat(40);
    let query = (0..4).fold("half_total".to_owned(), |inner, _| {
        format!("label_replace({inner}, \"job\", \"{many}\", \"job\", \"(.*)\")")
    });
    let ast = promql::parse(&query).unwrap();
    let canceled = AtomicBool::new(false);
    let (answer, allocated) =
        peak_of(|| engine::evaluate(&ast, EvalTimes::instant(END * 1_000), &db, &options, &canceled));
    assert!(matches!(answer, Err(EvalError::Exhausted(_))), "{answer:?}");
    assert!(allocated < 80 << 20, "{allocated}");
    assert_eq!(cap.lent(), 0);
}
