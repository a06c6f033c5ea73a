//! Every view: whole, in light and dark, on a phone, for keyboards and screen readers, and with hostile text in it.

use std::path::PathBuf;

use weir::{
    journal::{Journal, Settings, TextKept},
    top::Top,
};

use super::{
    HOSTILE, ask,
    browser::{Browser, axe},
    load, started,
};
use crate::support::weir::now_ms;

/// Bytes of a picture in the documents.
const PICTURE_MAX: usize = 100 << 10;

/// Name, path, and an expression that is true when it is there.
const VIEWS: [(&str, &str, &str); 6] = [
    ("now", "/", "document.querySelectorAll('svg').length > 0"),
    ("top", "/top", "document.querySelectorAll('tbody tr').length >= 3"),
    ("refused", "/refused", "document.querySelectorAll('tbody tr').length >= 3"),
    (
        "explain",
        "/explain?query=sum+by+(job)+(rate(big[5m]))+/+sum(small)&range=6h&step=1m&tenant=payments",
        "document.querySelectorAll('td.node').length === 6",
    ),
    ("limits", "/limits?tenant=data-science", "document.querySelectorAll('tbody tr').length > 10"),
    ("rules", "/rules", "document.querySelectorAll('tbody tr').length >= 1"),
];

/// Width, height, dark, and the name of a picture.
const LOOKS: [(u32, u32, bool, &str); 3] =
    [(1280, 900, false, "light"), (1280, 900, true, "dark"), (390, 844, false, "phone")];

/// `WEIR_TEST_BLESS=1` takes the pictures of the documents anew.
#[tokio::test]
async fn every_view_is_whole_usable_and_quiet() {
    let Some(mut browser) = Browser::start("views").await else { return };
    let axe = axe("views");
    let (_upstream, weir, admin) = started("").await;
    let settings = Settings { folder: None, size: 1 << 20, text: TextKept::Full };
    let (journal, writer) = Journal::start(settings, Top::open(None, now_ms())).unwrap();
    weir.proxy.journal_to(journal);
    let asked = load(&weir).await;
    for (tenant, dashboard, query) in [
        ("data-science", "exploration", "max_over_time(small[8d])"),
        ("checkout", "latency", "{__name__=~\".+\"}"),
        ("payments", "kube-capacity", "federate:requests"),
    ] {
        assert_eq!(ask(&weir, tenant, dashboard, query).await.unwrap().0, 422, "{query}");
    }
    for (tenant, dashboard, times) in
        [("checkout", "latency", 9), ("infra", "overview", 40), ("finance", "billing", 20)]
    {
        for _ in 0..times {
            assert_eq!(ask(&weir, tenant, dashboard, "sum by (job) (rate(small[5m]))").await.unwrap().0, 200);
        }
    }
    // Its end means that everything so far was counted.
    drop(writer);
    let hostile: String = form_urlencoded::byte_serialize(HOSTILE.as_bytes()).collect();
    let blesses = std::env::var_os("WEIR_TEST_BLESS").is_some();
    for (name, path, is_there) in VIEWS {
        for (width, height, dark, look) in LOOKS {
            browser.look(width, height, dark).await;
            browser.open(&format!("{admin}{path}")).await;
            browser.until(is_there).await;
            let overflow = browser.value("document.documentElement.scrollWidth - innerWidth").await;
            assert!(overflow.as_i64() <= Some(0), "{name} {look}: the page is {overflow} too wide");
            if let Some(axe) = &axe {
                browser.value(axe).await;
                let run = "axe.run({resultTypes: ['violations']}).then(found => found.violations \
                           .filter(one => ['serious', 'critical'].includes(one.impact)) \
                           .map(one => `${one.id}: ${one.nodes.map(node => node.html).join(' | ')}`))";
                assert_eq!(browser.value(run).await, serde_json::json!([]), "{name} {look}");
            }
            let picture = browser.picture().await;
            assert!(picture.len() < PICTURE_MAX, "{name} {look}: {} bytes", picture.len());
            if blesses {
                let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("docs/images");
                std::fs::create_dir_all(&folder).unwrap();
                std::fs::write(folder.join(format!("{name}-{look}.webp")), picture).unwrap();
            }
        }
    }
    for path in ["/", "/refused", &format!("/explain?query={hostile}")] {
        browser.open(&format!("{admin}{path}")).await;
        if path != "/refused" {
            browser
                .until("document.querySelector('main').innerText.includes('<script>alert(1)</script>')")
                .await;
        }
        let markup = browser.value("document.querySelectorAll('main script, main img').length").await;
        assert_eq!(markup, 0, "{path}");
    }
    assert_eq!(browser.faults(&admin).await, Vec::<String>::new());
    for asked in asked {
        asked.abort();
    }
}
