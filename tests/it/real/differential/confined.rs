//! A query that is confined to labels, asked of all series, has the answer of the client's own query where there are no
//! other series. On the node, and on a real Prometheus.

use std::sync::Arc;

use futures_util::{StreamExt as _, stream};
use weir::promql::{self, enforce::LabelEnforcement};

use super::{AT_ONCE, Asked, Said, ask, data, difference, generate::Generator, node_with, seed};
use crate::{
    support::real::{empty_prometheus, write},
    support::sockets::client,
};

const QUERIES: usize = 1_500;

/// Selectors that reach for other series, as somebody would write them.
const BOLD: [&str; 12] = [
    r#"{__name__=~".+"}"#,
    r#"count by (job) ({__name__=~".+",job!="api"})"#,
    r#"count by (job) ({__name__=~"m.+",job=~".*"})"#,
    r#"mem{job="web"} or mem"#,
    r#"absent(mem{job="web"})"#,
    r#"label_replace(mem, "job", "web", "", "") + on(job) group_left mem{job="web"}"#,
    r#"sum({__name__="mem",job!~""})"#,
    r#"max_over_time(sum({job=~"a.*|web"})[10m:1m] offset 5m)"#,
    r#"count({'job'!="x",'mem'} @ end()) or count({job=`web`}) # {job="web"}"#,
    r#"group({job="web"}) unless mem"#,
    r#"count_values("job", mem)"#,
    r#"topk(3, {__name__=~"mem|rank"}) or {job=~"web|db"}"#,
];

fn bold() -> impl Iterator<Item = Asked> {
    let at = data::END - 600;
    BOLD.into_iter().map(move |query| Asked { query: query.to_owned(), start: at, end: at, step: 0 })
}

async fn has_the_answers_of_its_own_series(all: &str, own: &str) {
    let values = ["api".to_owned()];
    let labels = Arc::new(LabelEnforcement::new([("job", values.as_slice())], false));
    let mut generator = Generator::new(seed() + 100);
    let asked: Vec<Asked> = bold().chain((0..QUERIES).map(|_| generator.asked())).collect();
    let (client, labels) = (&client(), &labels);
    let differences = stream::iter(&asked).map(|asked| async move {
        let ast = promql::parse(&asked.query).unwrap();
        let confined = Asked { query: labels.confine(&ast).unwrap(), ..asked.clone() };
        // `absent` makes labels of its selector's matchers: those of the confined query are others than the client's.
        let own_asked = if asked.query.contains("absent") { &confined } else { asked };
        let (of_all, of_own) = tokio::join!(ask(client, all, &confined), ask(client, own, own_asked));
        let found =
            matches!(&of_own, Said::Value(v) if v["result"].as_array().is_some_and(|r| !r.is_empty()));
        (difference(asked, &of_all, &of_own).map(|why| format!("{confined:?}\n    {why}")), found)
    });
    let differences: Vec<_> = differences.buffered(AT_ONCE).collect().await;
    let found = differences.iter().filter(|(_, found)| *found).count();
    assert!(found > QUERIES / 4, "only {found} questions say something");
    let different: Vec<_> = differences.into_iter().filter_map(|(difference, _)| difference).collect();
    assert!(
        different.is_empty(),
        "{} differ:\n{}",
        different.len(),
        different[..different.len().min(10)].join("\n")
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn confined_queries_read_their_own_series_alone_on_the_node() {
    let (all, own) = (node_with(1).await, node_with(1).await);
    for (url, job) in [(&all, None), (&own, Some("api"))] {
        for body in data::writes_of(job) {
            write(url, body).await;
        }
    }
    has_the_answers_of_its_own_series(&all, &own).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn confined_queries_read_their_own_series_alone_on_prometheus() {
    let test = "confined_queries_read_their_own_series_alone_on_prometheus";
    let Some(all) = empty_prometheus(test).await else { return };
    let Some(own) = empty_prometheus(test).await else { return };
    for (database, job) in [(&all, None), (&own, Some("api"))] {
        for body in data::writes_of(job) {
            write(&database.url, body).await;
        }
    }
    has_the_answers_of_its_own_series(&all.url, &own.url).await;
}
