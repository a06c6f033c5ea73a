//! Who asks for most, over the wire.

use http::{Request, StatusCode};
use http_body_util::Full;
use weir::{
    journal::{Journal, Settings, TextKept},
    top::Top,
};

use crate::{
    proxy::forward::database,
    support::{
        fake_upstream::FakeUpstream,
        weir::{Answer, Weir, now_ms},
    },
};

#[tokio::test]
async fn the_heaviest_are_ranked_without_a_journal_on_disk() {
    let upstream = FakeUpstream::start(database).await;
    let limits = "limits: {default: {per_query: {series: 10_000}}}";
    let weir =
        Weir::start(&format!("backends: [{{name: main, urls: [\"{}\"]}}]\n{limits}", upstream.url())).await;
    weir.proxy.warm().await;
    let admin = weir.admin().await;
    let get = |target: &str| {
        let request =
            Request::get(format!("http://{admin}/api/v1/admin/top{target}")).body(Full::default()).unwrap();
        weir.ask(request)
    };
    assert_eq!(get("").await.status, StatusCode::NOT_FOUND, "nobody keeps records yet");

    let settings = Settings { folder: None, size: 1 << 20, text: TextKept::Full };
    let (journal, writer) = Journal::start(settings, Top::open(None, now_ms())).unwrap();
    weir.proxy.journal_to(journal);
    let ask = async |dashboard: &str, query: &str| -> Answer {
        let headers = [("X-Dashboard-Uid", dashboard), ("X-Panel-Id", "7"), ("X-Scope-OrgID", "a")];
        weir.get_as(&format!("/api/v1/query?query={query}"), &headers).await
    };
    for _ in 0..3 {
        assert_eq!(ask("light", "small").await.status, 200);
        assert_eq!(ask("heavy", "big").await.status, 422);
    }
    assert_eq!(ask("light", "sum(small)").await.status, 200);
    // Its end means that everything was counted.
    drop(writer);

    let data = get("?by=dashboard&sort=count&window=1h").await.json()["data"].take();
    let rows: Vec<_> = data["rows"]
        .as_array()
        .unwrap()
        .iter()
        .map(|row| (row["key"].as_str().unwrap(), row["count"].as_u64(), row["refused"].as_u64()))
        .collect();
    assert_eq!(rows, [("light", Some(4), Some(0)), ("heavy", Some(3), Some(3))], "{data}");
    assert_eq!((&data["rows"][0]["panel"], &data["rows"][1]["worst"]["query"]), (&"7".into(), &"big".into()));
    assert_eq!((&data["total"]["count"], &data["other"]["count"]), (&7.into(), &0.into()));
    let refused = get("?by=fingerprint&sort=refused&limit=1").await.json()["data"].take();
    assert_eq!((refused["rows"].as_array().unwrap().len(), &refused["rows"][0]["refused"]), (1, &3.into()));
    assert_eq!(get("?by=tenant").await.json()["data"]["rows"][0]["key"], "a");
    for bad in
        ["?by=panel", "?window=2h", "?sort=bytes", "?limit=0", "?limit=51", "?Limit=5", "?by=user&by=rule"]
    {
        let answer = get(bad).await;
        assert_eq!(answer.status, StatusCode::BAD_REQUEST, "{bad}: {}", answer.body);
    }
    assert!(
        get("?by=panel").await.error().contains("`by` is one of fingerprint, dashboard"),
        "it says what there is"
    );

    let metrics = weir.metrics();
    for line in [
        "weir_top_queries{by=\"dashboard\",key=\"light/7\"} 4",
        "weir_top_refused_queries{by=\"dashboard\",key=\"heavy/7\"} 3",
        "weir_top_refused_queries{by=\"tenant\",key=\"other\"} 0",
    ] {
        assert!(metrics.lines().any(|have| have == line), "{line}\n{metrics}");
    }
}
