//! Values to the last bit, as a threshold compares them. Everything but the functions of each language's mathematical
//! library is worked out in Prometheus' order of operations.

use std::collections::BTreeSet;

use http::Method;
use serde_json::Value;

use super::node_with;
use crate::{
    support::real::{data::remote_write, empty_prometheus, encode, raw, write},
    support::sockets::client,
};

/// Second of the first sample.
const START: i64 = 1_699_999_200;
const SAMPLES: i64 = 240;
const INTERVAL: i64 = 15;
const END: i64 = START + SAMPLES * INTERVAL;
/// Enough that several threads read.
const SERIES: i64 = 120;

/// Which Prometheus works a query out as it is done today.
#[derive(Clone, Copy, PartialEq)]
enum Since {
    /// 2.42 already.
    Long,
    /// 3.x: sums and means with compensation.
    Three,
}

/// Functions, each with a range where `R` stands.
const QUERIES: &[(Since, &str)] = &[
    (Since::Long, "rate(steady_total[R])"),
    (Since::Long, "rate(steady_total[R]) > 2"),
    (Since::Long, "rate(messy_total[R])"),
    (Since::Long, "increase(messy_total[R])"),
    (Since::Long, "irate(messy_total[R])"),
    (Since::Long, "delta(gauge[R])"),
    (Since::Long, "idelta(gauge[R])"),
    (Since::Long, "deriv(gauge[R])"),
    (Since::Long, "predict_linear(gauge[R], 3600)"),
    (Since::Long, "sum_over_time(gauge[R])"),
    (Since::Long, "sum_over_time(steady_total[R])"),
    (Since::Three, "avg_over_time(gauge[R])"),
    (Since::Three, "avg_over_time(messy_total[R])"),
    (Since::Long, "stddev_over_time(gauge[R])"),
    (Since::Long, "stdvar_over_time(gauge[R])"),
    (Since::Long, "quantile_over_time(0.37, gauge[R])"),
    (Since::Long, "min_over_time(gauge[R])"),
    (Since::Long, "max_over_time(gauge[R])"),
    (Since::Three, "sum by (job) (gauge)"),
    (Since::Three, "sum(rate(messy_total[R]))"),
    (Since::Three, "avg by (job) (gauge)"),
    (Since::Three, "avg(rate(messy_total[R]))"),
    (Since::Long, "stddev by (job) (gauge)"),
    (Since::Long, "stdvar(rate(messy_total[R]))"),
    (Since::Long, "quantile by (job) (0.61, gauge)"),
    (Since::Long, "histogram_quantile(0.9, rate(lat_bucket[R]))"),
    (Since::Three, "histogram_quantile(0.37, sum by (le, job) (rate(lat_bucket[R])))"),
    (Since::Long, "deg(gauge) + rad(gauge)"),
    (Since::Long, "round(gauge, 0.1)"),
    (Since::Long, "gauge / 3 - gauge * 7.1 + gauge % 1.3"),
    (Since::Long, "clamp(gauge, 0.1, 42.42)"),
    (Since::Three, "avg_over_time(rate(messy_total[R])[10m:45s])"),
    (Since::Long, "max_over_time(deriv(gauge[R])[10m:45s])"),
    (Since::Three, "sum by (job) (rate(messy_total[R])) / sum by (job) (increase(steady_total[R]))"),
    // Equal values: which of them stay, and how an instant query orders them. (Over values computed from a range
    // Prometheus itself gives another answer each time.)
    (Since::Three, "topk(5, tied)"),
    (Since::Three, "bottomk(7, tied)"),
    (Since::Three, "topk by (job) (3, tied)"),
    (Since::Three, "bottomk by (job) (2, tied)"),
    (Since::Three, "topk(11, tied)"),
];
const RANGES: [&str; 4] = ["5m", "127s", "1800ms", "13m7s"];

fn series() -> Vec<(Vec<(String, String)>, Vec<(f64, i64)>)> {
    let mut rng = fastrand::Rng::with_seed(77);
    let mut all = Vec::new();
    let mut add = |name: &str, labels: &[(&str, &str)], values: &mut dyn FnMut(i64) -> (f64, i64)| {
        let mut own = vec![("__name__".to_owned(), name.to_owned())];
        own.extend(labels.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())));
        all.push((own, (0..SAMPLES).map(values).collect()));
    };
    // No window begins or ends at a sample, where versions before 3.0 take one more in.
    let at = |sample: i64, jitter: i64| (START + sample * INTERVAL) * 1_000 + 137 + jitter;
    for number in 0..SERIES {
        let instance = format!("h{number:03}");
        let labels = [("job", ["api", "web", "db"][number as usize % 3]), ("instance", instance.as_str())];
        add("steady_total", &labels, &mut |i| (1e6 + (i * 30) as f64, at(i, 0)));
        let (mut counter, mut level) = (rng.f64() * 1e6 + 1e5, rng.f64() * 100.0);
        let mut jitter = rng.fork();
        add("messy_total", &labels, &mut |i| {
            counter = if rng.u8(..60) == 0 { rng.f64() * 1e4 } else { counter + rng.f64() * 17.3 };
            (counter, at(i, jitter.i64(-90..90)))
        });
        add("gauge", &labels, &mut |i| {
            level += rng.f64() - 0.5;
            ((level * 1e3).round() / 1e3, at(i, 0))
        });
        let tied = f64::from(rng.u8(..4));
        add("tied", &labels, &mut |i| (tied, at(i, 0)));
    }
    for job in ["api", "web", "db"] {
        let mut counts = [1e5; 5];
        let mut rows = Vec::new();
        for _ in 0..SAMPLES {
            let mut more = 0.0;
            for count in &mut counts {
                more += rng.f64() * 3.0;
                *count += more;
            }
            rows.push(counts);
        }
        for (place, le) in ["0.1", "0.25", "1", "2.5", "+Inf"].into_iter().enumerate() {
            add("lat_bucket", &[("job", job), ("le", le)], &mut |i| (rows[i as usize][place], at(i, 0)));
        }
    }
    all
}

/// The rows of an answer: in order where the query gives them one.
fn rows(answer: &Value, ordered: bool) -> Vec<String> {
    let rows = answer["data"]["result"].as_array().unwrap_or_else(|| panic!("{answer}"));
    let rows = rows.iter().map(Value::to_string);
    if ordered { rows.collect() } else { rows.collect::<BTreeSet<_>>().into_iter().collect() }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn values_are_those_of_prometheus_to_the_last_bit() {
    let test = "values_are_those_of_prometheus_to_the_last_bit";
    let Some(prometheus) = empty_prometheus(test).await else { return };
    let node = node_with(3).await;
    let series = series();
    for from in (0..SAMPLES).step_by(60) {
        let part = |samples: &[(f64, i64)]| samples[from as usize..(from + 60) as usize].to_vec();
        let body = remote_write(series.iter().map(|(labels, samples)| (&**labels, part(samples))));
        write(&prometheus.url, body.clone()).await;
        write(&node, body).await;
    }
    let client = client();
    let get = async |url: &str, target: &str| {
        let answer = raw(&client, Method::GET, &format!("{url}{target}"), "", false).await;
        assert_eq!(answer.status, 200, "{target}: {:?}", answer.body);
        answer.json()
    };
    let build = get(&prometheus.url, "/api/v1/status/buildinfo").await;
    let version = build["data"]["version"].as_str().unwrap_or_default().to_owned();
    let mut different = Vec::new();
    for (since, query) in QUERIES {
        if *since == Since::Three && version.starts_with("2.") {
            continue;
        }
        for range in RANGES {
            let text = encode(&query.replace('R', range));
            let targets = [
                format!("/api/v1/query?query={text}&time={}", END - 7),
                format!("/api/v1/query_range?query={text}&start={}&end={}&step=60", END - 1_807, END - 7),
            ];
            for (target, instant) in targets.iter().zip([true, false]) {
                let ordered = instant && (query.starts_with("topk") || query.starts_with("bottomk"));
                let (ours, theirs) = (get(&node, target).await, get(&prometheus.url, target).await);
                let (ours, theirs) = (rows(&ours, ordered), rows(&theirs, ordered));
                if ours != theirs {
                    let pair = ours.iter().zip(&theirs).find(|(a, b)| a != b);
                    let (ours, theirs) = (ours.len(), theirs.len());
                    different.push(format!("{query} {range} {ours} rows of {theirs}: {pair:?}"));
                }
            }
            if !query.contains('R') {
                break;
            }
        }
    }
    let shown = different.join("\n");
    assert!(different.is_empty(), "beside Prometheus {version} {} differ:\n{shown}", different.len());
}
