//! The estimate is wrong by a factor of ten: the means that keep the database alive then, and the correction of the
//! estimate.

use std::{
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use tokio::task::JoinSet;

use crate::support::{
    fake_upstream::{self, Act, FakeUpstream},
    simulation::{MIB, Process, Proxy, Setup, Tells},
    weir::Weir,
};

const ANSWER: &str = r#"{"status":"success","data":{"resultType":"vector","result":[]}}"#;

/// No label table and no probes: only the backend's answers show their cost.
#[tokio::test]
async fn a_learned_number_ten_times_off_comes_right() {
    let truth = Arc::new(AtomicU64::new(100));
    let tells = Arc::clone(&truth);
    let upstream = FakeUpstream::start(move |seen: &fake_upstream::Seen| {
        if !seen.path().ends_with("/query") {
            return Act::answer(404, &[], b"");
        }
        let series = tells.load(Ordering::SeqCst).to_string();
        Act::answer(
            200,
            &[("content-type", "application/json"), ("m3-series-count", &series)],
            ANSWER.as_bytes(),
        )
    })
    .await;
    let weir = Weir::start(&format!(
        "backends: [{{name: main, kind: m3, urls: [\"{}\"]}}]\nlimits: {{default: {{rate: {{queries: unlimited}}}}}}",
        upstream.url()
    ))
    .await;
    let estimate = async || {
        let answer = weir.get("/api/v1/query?query=sum(foo)").await;
        assert_eq!(answer.status, 200, "{}", answer.body);
        let header = answer.headers["weir-estimate"].to_str().unwrap().to_owned();
        let series = header.split([';', '=']).nth(1).unwrap().parse::<u64>().unwrap();
        // Costs are learned at the end of the answer.
        weir.until_idle().await;
        (series, header)
    };
    let _nothing_known = estimate().await;
    let (series, header) = estimate().await;
    assert!(series == 100 && header.contains("known=learned"), "{header}");

    // The store says a tenth of the truth: one run puts it right.
    truth.store(1_000, Ordering::SeqCst);
    assert_eq!(estimate().await.0, 100);
    assert_eq!(estimate().await.0, 1_000);

    // It says ten times the truth: careful at first, right in the end, as the window is the same.
    truth.store(100, Ordering::SeqCst);
    assert_eq!(estimate().await.0, 1_000);
    for _ in 0..2 {
        estimate().await;
    }
    let (series, header) = estimate().await;
    assert_eq!(series, 100, "{header}");
}

const LIMIT: u64 = 5120 * MIB;
const SETUP: Setup =
    Setup { budget: 800 * MIB, queries: 80, unproven_percent: 100, wait: Duration::from_secs(10) };
/// A heavy query, which holds ten times this.
const HEAVY: (u64, Duration) = (40 * MIB, Duration::from_secs(40));
const LIGHT: (u64, Duration) = (MIB, Duration::from_millis(50));

/// The sums of ten minutes of one heavy query a second and five light ones.
#[derive(Default)]
struct Seen {
    /// The most bytes in use.
    alive: u64,
    heavy_done: usize,
    light_refused: usize,
}

async fn ten_minutes(obeys_pressure: bool) -> Seen {
    let process = Arc::new(Mutex::new(Process::new(LIMIT)));
    process.lock().unwrap().error = 10.0;
    let proxy = Proxy::new(SETUP, &process);
    if obeys_pressure {
        // By resident memory alone: no estimate is seen to be wrong.
        tokio::spawn(proxy.clone().watch(Tells { next_gc: false, idle: true, queries: false }));
    }
    let (mut queries, mut seen) = (JoinSet::new(), Seen::default());
    for tick in 0..6_000_u64 {
        tokio::time::sleep(Duration::from_millis(100)).await;
        let asked = [(tick % 10 == 0, "heavy", HEAVY), (tick % 2 == 0, "light", LIGHT)];
        for (at, (_, tenant, query)) in asked.into_iter().enumerate().filter(|(_, (asks, ..))| *asks) {
            let proxy = proxy.clone();
            let number = tick * 2 + at as u64;
            queries.spawn(async move { (tenant, proxy.query(tenant, query, number).await) });
        }
        while let Some(ended) = queries.try_join_next() {
            match ended.unwrap() {
                ("heavy", Ok(_)) => seen.heavy_done += 1,
                ("light", Err(_)) => seen.light_refused += 1,
                _ => {}
            }
        }
        seen.alive = seen.alive.max(process.lock().unwrap().alive());
        let held = proxy.admission.snapshot().backends[0].memory;
        assert!(held <= SETUP.budget, "what is in flight is bounded, whatever it really costs: {held}");
    }
    seen
}

#[tokio::test(start_paused = true)]
async fn pressure_keeps_a_database_alive_whose_queries_cost_ten_times_the_estimate() {
    // The counter-test: by estimates alone it dies.
    let deceived = ten_minutes(false).await;
    assert!(deceived.alive > LIMIT, "{} of {} MiB", deceived.alive / MIB, LIMIT / MIB);

    let seen = ten_minutes(true).await;
    assert!(seen.alive < LIMIT, "{} of {} MiB", seen.alive / MIB, LIMIT / MIB);
    // Whatever the pressure is, light ones have their lane.
    assert_eq!(seen.light_refused, 0, "light queries were refused");
    assert!(seen.heavy_done > 60, "{}", seen.heavy_done);
}

/// VictoriaMetrics does not say how long the values of its labels are: an answer does, and the next one is priced by it.
#[tokio::test]
async fn the_length_of_values_is_learned_from_answers() {
    let values: Vec<String> = (0..100).map(|n| format!("\"{n}-{}\"", "x".repeat(2_000))).collect();
    let answer = format!(r#"{{"status":"success","data":[{}]}}"#, values.join(","));
    let upstream = FakeUpstream::start(move |seen: &fake_upstream::Seen| match seen.path() {
        path if path.ends_with("/label/sql/values") => Act::json(&answer),
        _ => Act::answer(404, &[], b""),
    })
    .await;
    let weir = Weir::start(&format!(
        "backends: [{{name: main, kind: victoriametrics, urls: [\"{}\"]}}]",
        upstream.url()
    ))
    .await;
    let mut booked = Vec::new();
    for _ in 0..2 {
        let answer = weir.get("/api/v1/label/sql/values?start=0&end=600").await;
        assert_eq!(answer.status, 200, "{}", answer.body);
        let header = answer.headers["weir-estimate"].to_str().unwrap().to_owned();
        let memory = header.split("memory=").nth(1).and_then(|rest| rest.split("MiB").next()).unwrap();
        booked.push(memory.parse::<f64>().unwrap());
        weir.until_idle().await;
    }
    assert!(booked[1] > 10.0 * booked[0], "{booked:?}");
}
