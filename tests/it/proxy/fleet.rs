//! Proxies of one fleet over a real store: orders and rules of operators reach all of them.

use std::time::Duration;

use http::{Method, Request};
use http_body_util::Full;
use serde_json::{Value, json};
use tokio::{
    task::JoinHandle,
    time::{Instant, sleep},
};

use crate::support::{
    fake_upstream::{Act, FakeUpstream, Seen},
    real::redis_server::Server,
    weir::{Answer, Weir},
};

/// The time in which an order reaches every proxy: a second until their next look, and a slow machine.
const SOON: Duration = Duration::from_secs(3);

fn database(seen: &Seen) -> Act {
    let query = seen.params("query").first().cloned().unwrap_or_default();
    if query.contains("hang") && !query.starts_with("count(") {
        return Act::hang();
    }
    crate::proxy::forward::database(seen)
}

struct Proxy {
    weir: Weir,
    admin: String,
}

impl Proxy {
    async fn start(upstream: &FakeUpstream, server: &Server) -> Self {
        let yaml = format!(
            "backends: [{{name: main, urls: [\"{}\"], budget: {{memory: 64GiB, queries: 300, unproven: 100%}}}}]\n\
             fleet: {{replicas_max: 4, store: \"{}\"}}\n\
             limits: {{default: {{rate: {{queries: unlimited}}, per_query: {{memory: 512MiB}}}}}}",
            upstream.url(),
            server.url()
        );
        let weir = Weir::start(&yaml).await;
        weir.proxy.warm().await;
        let admin = format!("http://{}/api/v1/admin", weir.admin().await);
        let proxy = Self { weir, admin };
        proxy.until("the store answers", || async { proxy.is_connected() }).await;
        proxy
    }

    fn is_connected(&self) -> bool {
        self.weir.proxy.fleet().is_some_and(|fleet| fleet.connected)
    }

    async fn until<T: Future<Output = bool>>(&self, what: &str, is_so: impl Fn() -> T) {
        let end = Instant::now() + SOON;
        while !is_so().await {
            assert!(Instant::now() < end, "not in {SOON:?}: {what}");
            sleep(Duration::from_millis(10)).await;
        }
    }

    async fn admin(&self, method: Method, path: &str, body: &Value) -> Answer {
        let body = if body.is_null() { String::new() } else { body.to_string() };
        let request = Request::builder().method(method).uri(format!("{}{path}", self.admin));
        self.weir.ask(request.body(Full::from(body)).unwrap()).await
    }

    /// A query that its database never answers.
    fn hang(&self, query: &str, tenant: &'static str) -> JoinHandle<(u16, String)> {
        let request = Request::get(self.weir.url(&format!("/api/v1/query?query={query}")));
        let sent =
            self.weir.client.request(request.header("X-Scope-OrgID", tenant).body(Full::default()).unwrap());
        tokio::spawn(async move {
            let (head, body) = sent.await.unwrap().into_parts();
            let body = http_body_util::BodyExt::collect(body).await.unwrap().to_bytes();
            (head.status.as_u16(), String::from_utf8_lossy(&body).into_owned())
        })
    }

    async fn ids(&self) -> Vec<u64> {
        let listed = self.admin(Method::GET, "/queries", &Value::Null).await.json();
        let queries = listed["data"]["queries"].as_array().unwrap().clone();
        queries.iter().map(|query| query["id"].as_u64().unwrap()).collect()
    }

    async fn rules(&self) -> Vec<String> {
        let listed = self.admin(Method::GET, "/rules", &Value::Null).await.json();
        let rules = listed["data"]["rules"].as_array().unwrap().clone();
        rules.iter().map(|rule| rule["name"].as_str().unwrap().to_owned()).collect()
    }

    async fn add(&self, name: &str) -> Value {
        let rule = json!({"name": name, "match": {"metric": name}, "reason": "x", "expires": "2h"});
        self.admin(Method::POST, "/rules?by=ann", &rule).await.json()["data"].clone()
    }

    async fn until_rules(&self, expected: &[&str]) {
        let end = Instant::now() + SOON;
        loop {
            let rules = self.rules().await;
            if rules == expected {
                return;
            }
            assert!(Instant::now() < end, "{rules:?} and not {expected:?}");
            sleep(Duration::from_millis(10)).await;
        }
    }
}

#[tokio::test]
async fn a_kill_reaches_every_proxy_and_a_number_is_that_of_one_query() {
    let test = "a_kill_reaches_every_proxy_and_a_number_is_that_of_one_query";
    let Some(server) = Server::start(test) else { return };
    let upstream = FakeUpstream::start(database).await;
    let (a, b) = (Proxy::start(&upstream, &server).await, Proxy::start(&upstream, &server).await);
    let here = a.hang("hang_a", "red");
    let there = [b.hang("hang_b", "red"), b.hang("hang_c", "red")];
    let other = b.hang("hang_d", "blue");
    a.weir.until_load(1, 0).await;
    b.weir.until_load(3, 0).await;
    let ids = [a.ids().await, b.ids().await];
    assert!(ids[0].iter().all(|id| !ids[1].contains(id) && *id < 1 << 53), "{ids:?}");

    let killed =
        a.admin(Method::DELETE, "/queries?tenant=red&reason=drill&by=ann", &Value::Null).await.json();
    assert_eq!(killed["data"]["killed"].as_array().unwrap().len(), 1, "{killed}");
    assert_eq!(killed["data"]["fleet"], json!({"passed_on": true}));
    // One that comes afterwards is not meant.
    let later = a.hang("hang_e", "red");
    for query in there.into_iter().chain([here]) {
        let (status, body) = tokio::time::timeout(SOON, query).await.expect("stopped in time").unwrap();
        assert!(status == 422 && body.contains("drill") && body.contains("ann"), "{status} {body}");
    }
    sleep(Duration::from_millis(1_500)).await;
    assert_eq!((a.weir.load(), b.weir.load()), ((1, 0), (1, 0)));

    let id = b.ids().await[0];
    let killed = a.admin(Method::DELETE, &format!("/queries/{id}"), &Value::Null).await.json();
    assert_eq!(killed["data"], json!({"killed": [], "fleet": {"passed_on": true}}));
    assert_eq!(tokio::time::timeout(SOON, other).await.expect("stopped in time").unwrap().0, 422);
    let id = a.ids().await[0];
    let killed = a.admin(Method::DELETE, &format!("/queries/{id}"), &Value::Null).await.json();
    assert!(killed["data"].get("fleet").is_none() && killed["data"]["killed"][0]["id"] == id, "{killed}");
    assert_eq!(later.await.unwrap().0, 422);

    drop(server);
    let killed = a.admin(Method::DELETE, "/queries?tenant=red", &Value::Null).await.json();
    assert_eq!(killed["data"]["fleet"]["passed_on"], false, "{killed}");
}

#[tokio::test]
async fn rules_are_the_same_at_every_proxy_whatever_becomes_of_the_store() {
    let test = "rules_are_the_same_at_every_proxy_whatever_becomes_of_the_store";
    let Some(mut server) = Server::start(test) else { return };
    let upstream = FakeUpstream::start(database).await;
    let (a, b) = (Proxy::start(&upstream, &server).await, Proxy::start(&upstream, &server).await);
    for (proxy, name) in [(&a, "one"), (&b, "two"), (&a, "three")] {
        assert_eq!(proxy.add(name).await["fleet"], json!({"passed_on": true}));
    }
    let [first, second] = [["three", "two", "one"], ["three", "two", "one"]];
    a.until_rules(&first).await;
    b.until_rules(&second).await;
    assert_eq!(b.weir.get("/api/v1/query?query=one").await.status.as_u16(), 422);
    let removed = b.admin(Method::DELETE, "/rules/one", &Value::Null).await.json();
    assert_eq!(removed["data"]["fleet"], json!({"passed_on": true}), "{removed}");
    a.until_rules(&["three", "two"]).await;
    assert_eq!(a.weir.get("/api/v1/query?query=one").await.status.as_u16(), 200);

    server.kill();
    assert_eq!(a.add("four").await["fleet"]["passed_on"], false);
    b.admin(Method::DELETE, "/rules/two", &Value::Null).await;
    a.until_rules(&["four", "three", "two"]).await;
    b.until_rules(&["three"]).await;
    // It is empty: all comes from the proxies, and a proxy that is new takes it from there.
    server.start_again();
    for proxy in [&a, &b, &Proxy::start(&upstream, &server).await] {
        proxy.until_rules(&["four", "three"]).await;
    }
    server.run("FLUSHALL");
    b.add("three").await;
    for proxy in [&a, &b] {
        proxy.until_rules(&["three", "four"]).await;
    }
    assert!(a.weir.proxy.fleet().unwrap().unreadable.is_none());
}

#[tokio::test]
async fn an_entry_that_cannot_be_read_is_a_finding_and_ends_nothing() {
    let test = "an_entry_that_cannot_be_read_is_a_finding_and_ends_nothing";
    let Some(server) = Server::start(test) else { return };
    let upstream = FakeUpstream::start(database).await;
    let proxy = Proxy::start(&upstream, &server).await;
    let hanging = proxy.hang("hang_a", "red");
    proxy.weir.until_load(1, 0).await;
    let mut connection = redis::Client::open(server.url()).unwrap().get_connection().unwrap();
    let everything = r#"{"which": {}, "kill": {"by": "", "reason": ""}}"#;
    let wider = r#"{"which": {"tenant": "red", "panel": 3}, "kill": {"by": "", "reason": ""}}"#;
    let rule = r#"{"name": "r", "rule": {"name": "s"}}"#;
    for (topic, name, value) in [
        ("kills", "1/x", everything),
        ("kills", "2/x", wider),
        ("kills", "no author", everything),
        ("rules", "r", rule),
        ("pressure", "main/x", r#"{"backend": "main", "signal": "memory", "pressure": 7}"#),
        ("history", "00/x", "{}"),
    ] {
        let key = format!("weir:weir:board:{topic}");
        let entry = format!("1000 5 9000000000000 {value}");
        redis::cmd("HSET").arg(&key).arg(name).arg(entry).exec(&mut connection).unwrap();
        redis::cmd("ZADD").arg(format!("{key}:order")).arg(1_000).arg(name).exec(&mut connection).unwrap();
    }
    let unreadable = |proxy: &Proxy| {
        let metrics = proxy.weir.metrics();
        let of = |topic: &str| {
            let line = format!("weir_fleet_entries_total{{outcome=\"unreadable\",topic=\"{topic}\"}} ");
            metrics
                .lines()
                .find_map(|found| found.strip_prefix(&line))
                .map_or(0, |n| n.parse::<u64>().unwrap())
        };
        ["kills", "rules", "pressure", "history"].map(of)
    };
    let all = || async { unreadable(&proxy) == [3, 1, 1, 1] };
    proxy.until("all are counted", all).await;
    assert!(proxy.weir.proxy.fleet().unwrap().unreadable.is_some() && proxy.is_connected());
    assert_eq!(proxy.weir.load(), (1, 0), "no odd order stops a query");
    hanging.abort();
}
