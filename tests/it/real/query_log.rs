//! The query log that a real Prometheus writes is read, query by query.

use std::{fs::File, io::BufReader, time::Duration};

use tokio::time::{Instant, sleep};
use weir::{
    base::time::EvalTimes,
    journal::Record,
    replay::import::{Format, Importer},
};

use crate::support::real::{encode, prometheus_with};

/// Longest wait for the log.
const SOON: Duration = Duration::from_secs(10);

#[tokio::test]
async fn the_query_log_of_prometheus_is_read() {
    let folder = tempfile::tempdir().unwrap();
    let log = folder.path().join("query.log");
    let config = format!("global: {{scrape_interval: 1h, query_log_file: \"{}\"}}\n", log.display());
    let Some(database) = prometheus_with("the_query_log_of_prometheus_is_read", &config).await else {
        return;
    };
    let query = "sum by (job) (rate(requests_total{code!=\"500\"}[5m]))";
    let range =
        format!("/api/v1/query_range?query={}&start=1700000000&end=1700003600&step=15", encode(query));
    assert_eq!(database.get(&range).await.status, 200);
    assert_eq!(database.get("/api/v1/query?query=up&time=1700000000").await.status, 200);
    let end = Instant::now() + SOON;
    let records: Vec<Record> = loop {
        let file = BufReader::new(File::open(&log).unwrap());
        let records: Vec<_> = Importer::new(Format::Prometheus, file).map(Result::unwrap).collect();
        if records.len() >= 2 {
            break records;
        }
        assert!(Instant::now() < end, "{records:?}");
        sleep(Duration::from_millis(20)).await;
    };
    let [graph, instant] = &records[..] else { panic!("{records:?}") };
    assert_eq!((&*graph.query, &*graph.endpoint, graph.ran()), (query, "query_range", true));
    let times = EvalTimes { start: 1_700_000_000_000, end: 1_700_003_600_000, step: 15_000 };
    assert_eq!((graph.times, graph.client), (Some(times), Some([127, 0, 0, 1].into())));
    assert_eq!((&*instant.query, instant.times), ("up", Some(EvalTimes::instant(1_700_000_000_000))));
    assert!(graph.took_ms.is_some() && graph.tenant.is_empty() && graph.priced.is_none());
}
