//! The admin page in a browser, with load in progress.

mod browser;
mod endpoints;
mod views;

use std::time::Duration;

use http::{Request, StatusCode};
use http_body_util::{BodyExt as _, Full};
use tokio::task::JoinHandle;

use crate::{
    proxy::forward::database,
    support::{
        fake_upstream::{Act, FakeUpstream, Seen},
        weir::Weir,
    },
};
use browser::Browser;

/// Text that would run if it were markup.
const HOSTILE: &str = "hang{a=\"<script>alert(1)</script><img src=x onerror=alert(2)>\"}";

/// A proxy before a database that never answers what hangs, and its admin address.
async fn started(server: &str) -> (FakeUpstream, Weir, String) {
    let upstream = FakeUpstream::start(|seen: &Seen| {
        let query = seen.params("query").first().cloned().unwrap_or_default();
        if query.contains("hang") && !query.starts_with("count(") { Act::hang() } else { database(seen) }
    })
    .await;
    let yaml = format!(
        "server: {{trusted_proxies: [127.0.0.0/8]{server}}}\n\
         backends: [{{name: main, urls: [\"{}\"], budget: {{memory: 4GiB, queries: 12, unproven: 100%}}}}]\n\
         limits:\n  \
           default: {{queue: {{wait: 10m}}, per_query: {{series: 50_000, timeout: 10m}}, modes: {{steps: shadow}}}}\n  \
           tenants: {{payments: {{in_flight: {{queries: 4}}}}, \"data-*\": {{per_query: {{range: 7d}}}}}}\n\
         rules: [{{name: no-federation, match: {{metric: \"federate:*\"}}, reason: use the recording rules, owner: platform}}]",
        upstream.url()
    );
    let weir = Weir::start(&yaml).await;
    weir.proxy.warm().await;
    let admin = format!("http://{}", weir.admin().await);
    (upstream, weir, admin)
}

/// Asks a query in the background; gives the status and the body of its answer.
fn ask(weir: &Weir, tenant: &str, dashboard: &str, query: &str) -> JoinHandle<(StatusCode, String)> {
    let query: String = form_urlencoded::byte_serialize(query.as_bytes()).collect();
    let request = Request::get(weir.url(&format!("/api/v1/query?query={query}")))
        .header("x-scope-orgid", tenant)
        .header("x-dashboard-uid", dashboard)
        .header("x-panel-id", "3")
        .header("user-agent", "Grafana/12.1");
    let asked = weir.client.request(request.body(Full::default()).unwrap());
    tokio::spawn(async move {
        let (head, body) = asked.await.unwrap().into_parts();
        let body = body.collect().await.unwrap().to_bytes();
        (head.status, String::from_utf8_lossy(&body).into_owned())
    })
}

/// Eight queries of one dashboard, of which four run, and one of another.
async fn load(weir: &Weir) -> Vec<JoinHandle<(StatusCode, String)>> {
    let heavy =
        (0..8).map(|n| ask(weir, "payments", "kube-capacity", &format!("sum by (job) (hang{{n=\"{n}\"}})")));
    let mut asked: Vec<_> = heavy.collect();
    asked.push(ask(weir, "checkout", "latency", HOSTILE));
    weir.until_load(5, 4).await;
    asked
}

/// The row of a dashboard among those that hold the budget.
const HOLDER: &str = "tr[data-key=\"payments dashboard kube-capacity\"]";

#[tokio::test]
async fn the_dashboard_that_drowns_the_database_is_stopped_in_two_clicks() {
    let Some(mut browser) = Browser::start("stop").await else { return };
    let (_upstream, weir, admin) = started("").await;
    let asked = load(&weir).await;
    browser.open(&admin).await;
    let first = "document.querySelector('main tbody tr').innerText";
    browser.until(&format!("{first}.includes('kube-capacity') && {first}.includes('payments')")).await;
    browser.click(&format!("{HOLDER} .danger")).await;
    let what = browser.value("document.querySelector('#stop h2').textContent").await;
    assert_eq!(what, "Stop 8 queries of dashboard kube-capacity, tenant payments?");
    browser.click("#stop .danger").await;
    browser.until("document.getElementById('said').textContent.includes('8 queries were stopped')").await;
    browser.until(&format!("document.querySelector('{HOLDER}') === null")).await;
    for (n, asked) in asked.into_iter().enumerate() {
        if n < 8 {
            let (status, body) = asked.await.unwrap();
            assert_eq!(status, StatusCode::UNPROCESSABLE_ENTITY, "{body}");
            assert!(body.contains("weir-killed") && body.contains("it overloads the database"), "{body}");
        } else {
            asked.abort();
        }
    }
    assert_eq!(browser.faults(&admin).await, Vec::<String>::new());
}

#[tokio::test]
async fn a_rule_is_made_beside_a_query_and_removed_again() {
    let Some(mut browser) = Browser::start("block").await else { return };
    let (_upstream, weir, admin) = started("").await;
    let asked = load(&weir).await;
    browser.open(&admin).await;
    browser.click(&format!("{HOLDER} button[data-block]")).await;
    browser.value("document.querySelector('#block [name=rule]').value = 'no-capacity'").await;
    let filled = "['tenant', 'dashboard', 'user'].map(name => document.querySelector(`#block [name='match.${name}']`).value)";
    let filled = filled.replace("='match.${name}'", "=\"match.${name}\"");
    assert_eq!(browser.value(&filled).await, serde_json::json!(["payments", "kube-capacity", ""]));
    // With the keyboard: the button has the focus.
    browser.press("Enter", 13).await;
    let said = "document.getElementById('said').textContent";
    browser.until(&format!("{said} === 'Rule no-capacity is set. 8 queries were stopped.'")).await;
    let (status, body) = ask(&weir, "payments", "kube-capacity", "hang").await.unwrap();
    assert_eq!(status, StatusCode::UNPROCESSABLE_ENTITY);
    assert!(body.contains("weir-blocked") && body.contains("it overloads the database"), "{body}");

    browser.open(&format!("{admin}/rules")).await;
    browser.until("document.querySelector('main').innerText.includes('no-federation')").await;
    browser
        .until("[...document.querySelectorAll('tbody tr')][0].querySelector('td.n').innerText === '1'")
        .await;
    browser.click("button[data-remove=no-capacity]").await;
    browser.click("#remove .danger").await;
    browser.until("!document.querySelector('main').innerText.includes('no-capacity')").await;
    let again = ask(&weir, "payments", "kube-capacity", "hang");
    weir.until_load(2, 0).await;
    for asked in asked.into_iter().chain([again]) {
        asked.abort();
    }
    assert_eq!(browser.faults(&admin).await, Vec::<String>::new());
}

#[tokio::test]
async fn the_page_asks_for_a_token_and_keeps_it_for_its_tab() {
    let Some(mut browser) = Browser::start("token").await else { return };
    let auth = ", admin_auth: {tokens: {alice: wonderland-0123456789}, protect: everything}";
    let (_upstream, weir, admin) = started(auth).await;
    let asked = load(&weir).await;
    browser.open(&admin).await;
    browser.until("document.getElementById('token').open").await;
    assert_eq!(browser.value("document.querySelector(\"tbody\")").await, serde_json::Value::Null);
    browser.write("queen-of-hearts").await;
    browser.press("Enter", 13).await;
    browser.until("document.querySelector('#token .error').textContent !== ''").await;
    browser.value("document.querySelector('#token input').value = ''; document.querySelector('#token input').focus()").await;
    browser.write("wonderland-0123456789").await;
    browser.press("Enter", 13).await;
    browser.click(&format!("{HOLDER} .danger")).await;
    browser.click("#stop .danger").await;
    browser.until("document.getElementById('said').textContent.includes('8 queries were stopped')").await;
    let (_, body) = asked.into_iter().next().unwrap().await.unwrap();
    assert!(body.contains("alice"), "{body}");
    // It goes along to the other views, and nowhere that outlives the tab.
    browser.open(&format!("{admin}/refused")).await;
    browser.until("document.querySelector('#view[data-live]')").await;
    assert_eq!(browser.value("[localStorage.length, document.cookie]").await, serde_json::json!([0, ""]));
}

/// Longest time in which the page may show a change.
const SOON: Duration = Duration::from_secs(10);

#[tokio::test]
async fn the_page_follows_what_happens_and_stands_still_when_it_is_paused() {
    let Some(mut browser) = Browser::start("live").await else { return };
    let (_upstream, weir, admin) = started("").await;
    browser.open(&admin).await;
    browser.until("document.title === 'Weir: all is well'").await;
    browser.until("document.getElementById('live').textContent === 'live'").await;
    browser.value("document.querySelector('nav a').focus()").await;
    let asked = load(&weir).await;
    let began = tokio::time::Instant::now();
    browser.until(&format!("document.querySelector('{HOLDER}')")).await;
    assert!(began.elapsed() < SOON, "{:?}", began.elapsed());
    // Whoever reads with the keyboard is not thrown out of his place.
    assert_eq!(browser.value("document.activeElement.textContent").await, "Now");
    browser.click("#pause").await;
    browser.until("document.getElementById('live').textContent === 'paused'").await;
    for asked in asked {
        asked.abort();
    }
    weir.until_load(0, 0).await;
    assert_eq!(browser.value(&format!("document.querySelector('{HOLDER}') !== null")).await, true);
    browser.click("#pause").await;
    browser.until(&format!("document.querySelector('{HOLDER}') === null")).await;
    assert_eq!(browser.faults(&admin).await, Vec::<String>::new());
}
