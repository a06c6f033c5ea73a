use super::{
    history::History,
    page::{State, View, document, escaped},
    *,
};
use std::collections::BTreeMap;

use crate::proxy::{ConfigState, FleetStatus, Origin, Refused};

const HOSTILE: &str = r#"{a="<script>alert('x')</script>"} & "b" </td>"#;

fn number(value: u64) -> Number {
    Number { value: Some(value), known: "learned" }
}

fn query() -> Query {
    Query {
        id: 7,
        state: "running",
        tenant: HOSTILE.into(),
        actor: HOSTILE.into(),
        origin: Origin {
            user: Some(HOSTILE.into()),
            client: Some([192, 0, 2, 1].into()),
            ..Origin::default()
        },
        start_ms: Some(1_000),
        end_ms: Some(61_000),
        step_ms: Some(15_000),
        class: HOSTILE.into(),
        backend: HOSTILE.into(),
        endpoint: "query",
        fingerprint: "00ff".into(),
        text: format!("{HOSTILE}\u{202e}\0"),
        enforced: false,
        series: number(14_000),
        blocks: number(28_000),
        samples: Number { value: None, known: "assumed" },
        points: number(56_000),
        part: 2,
        parts: 3,
        memory: number(3 << 30),
        age_ms: 61_500,
        reason: Some("turn"),
        waits_for: Some("its turn among heavy queries"),
        waited_ms: 12_340,
        bytes: 4 << 20,
    }
}

fn replica(healthy: bool) -> Replica {
    Replica { url: HOSTILE.into(), healthy, ejected: false, in_flight: 3, last_error: None }
}

fn holder() -> Holder {
    Holder {
        tenant: HOSTILE.into(),
        by: "dashboard",
        key: HOSTILE.into(),
        backend: HOSTILE.into(),
        running: 3,
        waiting: 9,
        memory: 90,
        percent: 94,
        wanted: 100,
        oldest_ms: 61_500,
        text: HOSTILE.into(),
    }
}

/// A view of a snapshot as a browser gets it.
fn page(view: View, snapshot: &Snapshot, refresh: Option<u32>) -> String {
    let mut rule = serde_json::json!({"action": "refuse", "hits": 3, "expired": true});
    for key in ["name", "source", "reason", "owner", "expires"] {
        rule[key] = HOSTILE.into();
    }
    rule["match"] = serde_json::json!({HOSTILE: HOSTILE});
    let state = State { snapshot, history: &History::default(), rules: &[rule] };
    document(view, &state.fragment(view), true, refresh)
}

fn busy() -> Snapshot {
    let backend = Backend {
        name: HOSTILE.into(),
        kind: "prometheus",
        replicas: vec![replica(true), replica(false)],
        budget_percent: 40,
        pressure: vec![("queries", 0.5), ("memory", 0.93)],
        silent: vec!["pool"],
        memory: Share { used: 95, of: Some(100) },
        queries: Share { used: 3, of: None },
        waiting: 12,
        longest_wait_ms: 6_000,
        notes: Vec::new(),
        ..Backend::default()
    };
    let refused = Refused {
        at_ms: 9_000,
        times: 7,
        tenant: HOSTILE.into(),
        actor: HOSTILE.into(),
        origin: Origin::default(),
        reason: "weir-max-series",
        shadow: true,
        status: 422,
        message: HOSTILE.into(),
        fingerprint: "00ff".into(),
        text: HOSTILE.into(),
    };
    let tenant = Tenant {
        tenant: HOSTILE.into(),
        admitted: 5,
        samples: 1_000,
        refused: vec![("weir-max-series", 7), ("weir-queue-full", 1)],
    };
    let queries = Queries { total: 51, shown: vec![query()] };
    Snapshot {
        now_ms: 10_000,
        version: "1",
        config: ConfigState { loaded_ms: 1_000, mistake: Some((4_000, HOSTILE.into())) },
        backends: vec![backend],
        holders: vec![holder()],
        running: queries.clone(),
        waiting: queries,
        recent_ms: 400_000,
        tenants_by_cost: vec![tenant.clone()],
        tenants_by_refusals: vec![tenant],
        refusals: vec![refused],
        ..Snapshot::default()
    }
}

/// The names of a page's elements, each of which is closed, by a reader that knows few exceptions.
fn elements(page: &str) -> Vec<&str> {
    let void = ["!doctype", "meta", "link", "br", "input"];
    let (mut open, mut seen) = (Vec::new(), Vec::new());
    for part in page.split('<').skip(1) {
        let (tag, _) = part.split_once('>').unwrap();
        let name = tag.split([' ', '/']).next().unwrap();
        if let Some(closed) = tag.strip_prefix('/') {
            assert_eq!(open.pop(), Some(closed), "{tag}");
        } else if !void.contains(&name) && !tag.ends_with('/') {
            open.push(name);
            seen.push(name);
        }
    }
    assert!(open.is_empty(), "{open:?}");
    seen
}

#[test]
fn what_others_wrote_is_text() {
    let written =
        "{a=&quot;&lt;script&gt;alert(&#39;x&#39;)&lt;/script&gt;&quot;} &amp; &quot;b&quot; &lt;/td&gt;";
    for (view, times) in [(View::Now, 20), (View::Refused, 8), (View::Rules, 8)] {
        let page = page(view, &busy(), None);
        let body = &page[page.find("<body>").unwrap()..];
        let scripts = elements(&page).into_iter().filter(|name| *name == "script").count();
        assert_eq!(scripts, 1, "that of the page itself");
        assert!(body.matches(written).count() >= times, "{view:?}: {body}");
        // Every mention of it is one that was escaped, or part of a query string.
        let mentions = body.matches("script").count();
        let escaped = 2 * (body.matches("&lt;script&gt;").count() + body.matches("%3Cscript%3E").count());
        assert_eq!(mentions, escaped, "{view:?}: {body}");
        for inline in ["style=", "javascript:", " onload=", " onclick=", "<style"] {
            assert!(!page.contains(inline), "{view:?}: {inline}");
        }
    }
    let body = page(View::Now, &busy(), None);
    assert!(
        body.contains("&lt;/td&gt;\u{fffd}\u{fffd}</code>"),
        "no marks of direction, no control characters"
    );
}

#[test]
fn an_attribute_cannot_be_left() {
    assert_eq!(escaped("\" onload='x").to_string(), "&quot; onload=&#39;x");
    assert_eq!(escaped("größer ✓\n").to_string(), "größer ✓\n");
}

#[test]
fn numbers_and_times_read_well() {
    let page = page(View::Now, &busy(), Some(5)) + &page(View::Refused, &busy(), None);
    for part in [
        "<noscript><meta http-equiv=\"refresh\" content=\"5\"></noscript>",
        "data-title=\"Weir: 7 findings\"",
        "1970-01-01 00:00:10 UTC",
        "14,000 <small>learned</small>",
        "3GiB <small>learned</small>",
        "unknown",
        "and 50 cheaper ones",
        "93 % <small>memory</small>",
        "queries 50 %",
        "95B of 100B",
        "3 of unlimited",
        "the last 6m40s",
        "weir-max-series <b>7</b><br>weir-queue-full <b>1</b>",
        "1.0s ago<div><small>7 times</small></div>",
        "12.3s",
        "1m1s",
    ] {
        assert!(page.contains(part), "{part} is missing: {page}");
    }
}

#[test]
fn a_fleet_is_shown_in_plain_words() {
    let mut snapshot = busy();
    (snapshot.backends[0].name, snapshot.backends[0].parts) =
        ("main".into(), Some([1 << 20, 2 << 20, 4 << 20]));
    let others = BTreeMap::from([("main".to_owned(), (3 << 20, 5))]);
    let fleet = FleetStatus {
        connected: true,
        proxies: 2,
        replicas_max: 4,
        members: vec!["one/a".into(), "two/b".into()],
        own_name: "two/b".into(),
        others,
        ..FleetStatus::default()
    };
    let mut shown = |fleet: &FleetStatus| {
        snapshot.fleet = Some(fleet.clone());
        let page = page(View::Now, &snapshot, None);
        elements(&page);
        page
    };
    let well = shown(&fleet);
    for part in [
        "<span class=\"pill good\">answers</span>",
        "2 of at most 4<div><code>one/a</code></div><div><code>two/b</code> <small>this one</small></div>",
        "1MiB",
        "2MiB",
        "4MiB",
        "3MiB <small>5 queries</small>",
    ] {
        assert!(well.contains(part), "{part} is missing: {well}");
    }
    let differing = BTreeMap::from([("main".to_owned(), 1)]);
    let gone = BTreeMap::from([("main".to_owned(), 5 << 20)]);
    let odd = FleetStatus { differing, gone, unreadable: Some("leases"), ..fleet.clone() };
    let odd = shown(&odd);
    for part in [
        "have another budget for backend main",
        "hold 5MiB of the budget of backend main",
        "an entry among the fleet&#39;s leases cannot be read",
    ] {
        assert!(odd.contains(part), "{part} is missing: {odd}");
    }
    let away =
        FleetStatus { connected: false, error: Some("refused".into()), others: BTreeMap::new(), ..fleet };
    let away = shown(&away);
    for part in [
        "<span class=\"pill bad\">does not answer</span>",
        "unknown, of at most 4<div><code>one/a</code> <small>when the store last answered</small></div>",
        "the store of leases does not answer (refused): this proxy keeps to its fixed part of every budget. Light queries run",
    ] {
        assert!(away.contains(part), "{part} is missing: {away}");
    }
}

#[test]
fn findings_name_the_worst_first() {
    let told = |snapshot: &Snapshot| -> Vec<_> {
        snapshot.findings().into_iter().map(|finding| (finding.severity, finding.text)).collect()
    };
    assert_eq!(told(&Snapshot::default()), []);
    let mut snapshot = busy();
    snapshot.backends[0].name = "main".into();
    snapshot.stopping = true;
    let holder = &mut snapshot.holders[0];
    (holder.tenant, holder.key, holder.backend) = ("a".into(), "abc".into(), "main".into());
    let expected = [
        (Severity::Critical, "Weir is shutting down: new queries are refused"),
        (Severity::Warning, "the configuration file has had mistakes for 6.0s; the settings before it stay"),
        (
            Severity::Warning,
            "12 queries of dashboard abc, tenant a: 3 run and hold 94 % of the memory in use on backend main, 9 wait; the oldest came 1m1s ago",
        ),
        (Severity::Warning, "1 of 2 replicas of backend main does not answer"),
        (Severity::Warning, "the budget of backend main is cut to 40 %: memory says 93 % of its limit"),
        (Severity::Warning, "backend main no longer reports its pool"),
        (Severity::Warning, "95 % of the memory of backend main is in use"),
        (Severity::Warning, "12 queries wait for backend main, the longest for 6.0s"),
    ];
    assert_eq!(told(&snapshot), expected.map(|(severity, text)| (severity, text.to_owned())));

    // Nobody waits between two bursts, and all of it is refused nevertheless.
    let mut quiet = snapshot.clone();
    (quiet.stopping, quiet.config.mistake) = (false, None);
    let backend = &mut quiet.backends[0];
    (backend.longest_wait_ms, backend.waiting, backend.memory.used) = (0, 0, 40);
    assert!(!told(&quiet).iter().any(|(_, text)| text.contains("dashboard abc")));
    let refused = &mut quiet.refusals[0];
    (refused.reason, refused.shadow) = ("weir-queue-timeout", false);
    (refused.origin.dashboard, refused.message) = (Some("abc".into()), "timed out".to_owned());
    let now = told(&quiet);
    let text = "queries were refused for want of room in the last minute, of dashboard abc: timed out";
    assert_eq!(now[0], (Severity::Warning, text.to_owned()));
    assert!(now[1].1.starts_with("12 queries of dashboard abc, tenant a: 3 run and hold 94 %"), "{now:?}");
    quiet.refusals[0].at_ms = quiet.now_ms - 60_000;
    assert!(!told(&quiet).iter().any(|(_, text)| text.contains("dashboard abc")));

    snapshot.backends[0].replicas.truncate(1);
    snapshot.backends[0].budget_percent = 0;
    let shed = "nothing new runs on backend main: memory says 93 % of its limit";
    assert_eq!(told(&snapshot)[1], (Severity::Critical, shed.to_owned()));
    snapshot.backends[0].replicas[0].ejected = true;
    let down = "backend main is down: none of its replicas answers";
    assert_eq!(told(&snapshot)[1], (Severity::Critical, down.to_owned()));
    assert!(!told(&snapshot).iter().any(|(_, text)| text == shed));
}

#[test]
fn machines_get_the_same() {
    let json: serde_json::Value = serde_json::from_str(&busy().json().unwrap()).unwrap();
    assert_eq!(json["findings"].as_array().unwrap().len(), 7);
    assert_eq!(json["findings"][0]["severity"], "warning");
    assert_eq!(json["running"]["shown"][0]["text"], query().text);
    assert_eq!(json["backends"][0]["memory"], serde_json::json!({"used": 95, "of": 100}));
    assert_eq!(
        json["waiting"]["shown"][0]["samples"],
        serde_json::json!({"value": null, "known": "assumed"})
    );
}
