//! *Now*: the findings, the holders of the budgets, and every query that runs or waits.

use std::{
    fmt::{self, Write as _},
    time::Duration,
};

use super::{
    escape::escaped,
    html::{Column, buttons, cell, code, filled, gauge, none, number, params, row, table, who},
    plot::plots,
};
use crate::{
    admin::{
        history::History,
        snapshot::{Backend, Holder, Queries, Query, Snapshot, Tenant, span},
    },
    base::{duration, units},
    proxy::FleetStatus,
};

/// The view of a snapshot.
pub(super) fn write(out: &mut String, snapshot: &Snapshot, history: &History) -> fmt::Result {
    findings(out, snapshot)?;
    holders(out, snapshot)?;
    if let Some(of) = &snapshot.fleet {
        fleet(out, of, &snapshot.backends)?;
    }
    out.write_str("<h2>Backends</h2><div class=\"backends\">")?;
    snapshot.backends.iter().try_for_each(|one| backend(out, one, history, snapshot.now_ms))?;
    out.write_str("</div>")?;
    queries(out, "In flight", &snapshot.running, false)?;
    queries(out, "Waiting", &snapshot.waiting, true)?;
    if snapshot.probing.total > 0 {
        queries(out, "Probing", &snapshot.probing, false)?;
    }
    quotas(out, snapshot)?;
    tenants(out, snapshot)
}

const BACKEND: Column = ("backend", "");
const FIXED: Column = ("always here", "n");
const LEASED: Column = ("leased here now", "n");
const POOL: Column = ("leased by all at most", "n");
const OTHERS: Column = ("in flight at the others", "n");

/// The other proxies before the same backends, and this one's parts of the budgets for heavy queries.
fn fleet(out: &mut String, fleet: &FleetStatus, backends: &[Backend]) -> fmt::Result {
    let (class, store) = match (fleet.connected, fleet.learning, &fleet.error) {
        (true, false, _) => ("good", "answers"),
        (true, true, _) => ("warn", "answers, and learns what is leased"),
        (false, _, Some(_)) => ("bad", "does not answer"),
        (false, _, None) => ("warn", "not asked yet"),
    };
    let (run, most) = (units::count(fleet.proxies), units::count(fleet.replicas_max));
    let run = if fleet.connected {
        format!("{run} of at most {most}")
    } else {
        format!("unknown, of at most {most}")
    };
    write!(
        out,
        "<section><h2>Fleet</h2><dl><dt>store of leases</dt><dd><span class=\"pill {class}\">{store}</span></dd>\
         <dt>proxies that run</dt><dd>{run}"
    )?;
    let known = if fleet.connected { "" } else { " <small>when the store last answered</small>" };
    for name in &fleet.members {
        let own = if *name == fleet.own_name { " <small>this one</small>" } else { known };
        write!(out, "<div><code>{}</code>{own}</div>", escaped(name))?;
    }
    out.write_str("</dd></dl>")?;
    table(out, "Memory for heavy queries", &[BACKEND, FIXED, LEASED, POOL, OTHERS], |out| {
        backends.iter().try_for_each(|one| {
            let Some([fixed, leased, pool]) = one.parts else { return Ok(()) };
            row(out, &one.name, |out| {
                cell(out, BACKEND, escaped(&one.name))?;
                for (column, bytes) in [(FIXED, fixed), (LEASED, leased), (POOL, pool)] {
                    cell(out, column, units::bytes(bytes))?;
                }
                let others = fleet.others.get(&one.name).map_or_else(
                    || "unknown".to_owned(),
                    |(bytes, queries)| {
                        format!("{} <small>{} queries</small>", units::bytes(*bytes), units::count(*queries))
                    },
                );
                cell(out, OTHERS, others)
            })
        })
    })?;
    out.write_str("</section>")
}

const QUOTA: Column = ("quota", "");
const USED: Column = ("used", "");
const LEFT: Column = ("left", "n");
const ANEW: Column = ("begins anew in", "n");

fn quotas(out: &mut String, snapshot: &Snapshot) -> fmt::Result {
    if snapshot.quotas.is_empty() {
        return Ok(());
    }
    out.write_str("<section><h2>Quotas</h2>")?;
    table(out, "Quotas of this hour or day", &[TENANT, QUOTA, USED, LEFT, ANEW], |out| {
        snapshot.quotas.iter().try_for_each(|one| {
            row(out, format_args!("{} {}", one.tenant, one.kind), |out| {
                cell(out, TENANT, escaped(&one.tenant))?;
                let max = one.share.of.map_or_else(String::new, units::count);
                let per = duration::text(Duration::from_millis(one.length_ms));
                cell(out, QUOTA, format_args!("{max} {} <small>in {per}</small>", one.kind))?;
                let percent = one.share.percent().unwrap_or(0);
                let used = format!("{} <small>{percent} %</small>", units::count(one.share.used));
                cell(out, USED, filled("share of the quota", percent.min(100), &used))?;
                cell(out, LEFT, units::count(one.left))?;
                cell(out, ANEW, span(one.ends_ms.saturating_sub(snapshot.now_ms.max(0) as u64)))
            })
        })
    })?;
    out.write_str("</section>")
}

fn findings(out: &mut String, snapshot: &Snapshot) -> fmt::Result {
    let findings = snapshot.findings();
    out.write_str("<div class=\"findings\" role=\"status\">")?;
    if findings.is_empty() {
        out.write_str("<p class=\"ok\">All is well.</p>")?;
    }
    for finding in &findings {
        let severity = finding.severity.as_str();
        write!(out, "<p class=\"{severity}\"><b>{severity}</b> {}</p>", escaped(&finding.text))?;
    }
    if let Some((_, mistake)) = &snapshot.config.mistake {
        write!(out, "<pre>{}</pre>", escaped(mistake))?;
    }
    out.write_str("</div>")
}

const WHO: Column = ("who", "");
const HOLDS: Column = ("holds", "");
const RUNNING: Column = ("run", "n");
const WAITING: Column = ("wait", "n");
const OLDEST: Column = ("oldest", "n");
const HEAVIEST: Column = ("heaviest query", "q");
const ACTS: Column = ("", "buttons");

fn holders(out: &mut String, snapshot: &Snapshot) -> fmt::Result {
    out.write_str("<section><h2>Who holds the budget</h2>")?;
    if snapshot.holders.is_empty() {
        none(out, "nobody: no query runs or waits")?;
        return out.write_str("</section>");
    }
    let columns = [WHO, HOLDS, RUNNING, WAITING, OLDEST, HEAVIEST, ACTS];
    table(out, "Who holds the budget", &columns, |out| {
        snapshot.holders.iter().try_for_each(|one| holder(out, one))
    })?;
    out.write_str("</section>")
}

fn holder(out: &mut String, one: &Holder) -> fmt::Result {
    let Holder { tenant, by, key, .. } = one;
    let whose = [("tenant", tenant.as_str()), (*by, key.as_str())];
    row(out, format_args!("{tenant} {by} {key}"), |out| {
        let named = format!("<b>{}</b> of {}", escaped(key), escaped(tenant));
        let name = if key.is_empty() { escaped(tenant).to_string() } else { named };
        cell(out, WHO, format_args!("{name}<div><small>{by} on {}</small></div>", escaped(&one.backend)))?;
        let holds = format!("{} <small>{} % of what runs</small>", units::bytes(one.memory), one.percent);
        cell(out, HOLDS, filled("share of the memory in use", one.percent, &holds))?;
        cell(out, RUNNING, units::count(one.running))?;
        cell(out, WAITING, units::count(one.waiting))?;
        cell(out, OLDEST, span(one.oldest_ms))?;
        cell(out, HEAVIEST, code(&one.text))?;
        // Without a key the tenant alone would be named, and with it more than is shown.
        let stop = if key.is_empty() { String::new() } else { params(whose) };
        cell(out, ACTS, buttons(&one.sentence(), &stop, &params(whose)))
    })
}

/// One database: its address, its health, and the used part of its budget.
fn backend(out: &mut String, one: &Backend, history: &History, now_ms: i64) -> fmt::Result {
    let name = escaped(&one.name);
    write!(
        out,
        "<section data-key=\"{name}\" aria-label=\"backend {name}\"><h3>{name} <small>{}</small></h3><div class=\"backend\"><dl>",
        escaped(one.kind)
    )?;
    out.write_str("<dt>replicas</dt><dd>")?;
    for replica in &one.replicas {
        let (class, state) = match (replica.healthy, replica.ejected) {
            (_, true) => ("bad", "left alone"),
            (false, _) => ("bad", "down"),
            _ => ("good", "up"),
        };
        let (url, n) = (escaped(&replica.url), replica.in_flight);
        write!(
            out,
            "<div><span class=\"pill {class}\">{state}</span> {url} <small>{n} under way</small></div>"
        )?;
    }
    write!(out, "</dd><dt>pressure</dt><dd>{}</dd>", pressure(one))?;
    if one.budget_percent < 100 {
        write!(out, "<dt>window</dt><dd class=\"warn\">cut to {} %</dd>", one.budget_percent)?;
    }
    let open = one.open_of.as_ref().map_or_else(String::new, |open| format!(" <small>{open}</small>"));
    write!(out, "<dt>memory</dt><dd>{}{open}</dd>", gauge("memory", one.memory, units::bytes))?;
    write!(out, "<dt>slots</dt><dd>{}</dd>", gauge("slots", one.queries, units::count))?;
    for (lane, queries, memory) in &one.lanes {
        let (name, n) = (format!("{lane} lane"), units::count(queries.used));
        let queries = if queries.used == 1 { "query" } else { "queries" };
        let gauge = gauge(&name, *memory, units::bytes);
        write!(out, "<dt>{name}</dt><dd>{gauge} <small>{n} {queries}</small></dd>")?;
    }
    write!(out, "<dt>waiting</dt><dd>{}", units::count(one.waiting))?;
    if one.waiting > 0 {
        write!(out, " <small>the longest for {}</small>", span(one.longest_wait_ms))?;
    }
    let reasons =
        one.reasons.iter().map(|(reason, n)| format!("{} {}", reason.replace('_', " "), units::count(*n)));
    let reasons = reasons.collect::<Vec<_>>().join(" · ");
    write!(out, "<div><small>{reasons}</small></div></dd></dl>")?;
    plots(out, &one.name, &history.of(&one.name), now_ms)?;
    out.write_str("</div></section>")
}

fn pressure(one: &Backend) -> String {
    let worst = one.worst_signal();
    let mut html = match worst {
        None => "<small>none</small>".to_owned(),
        Some((signal, value)) => {
            let percent = (value * 100.0).round() as u64;
            filled("pressure", percent, &format!("{percent} % <small>{signal}</small>"))
        }
    };
    let others =
        one.pressure.iter().filter(|(signal, value)| *value > 0.0 && worst.is_none_or(|w| w.0 != *signal));
    // Writing to a string does not fail.
    for (signal, value) in others {
        let _ = write!(html, "<div><small>{signal} {:.0} %</small></div>", value * 100.0);
    }
    for signal in &one.silent {
        let _ = write!(html, "<div><span class=\"pill bad\">silent</span> <small>{signal}</small></div>");
    }
    html
}

const TENANT_ACTOR: Column = ("tenant, actor", "who");
const QUERY: Column = ("query", "q");
const MEMORY: Column = ("memory", "n");
const SERIES: Column = ("series", "n");
const SAMPLES: Column = ("samples", "n");
const AGE: Column = ("age", "n");
const WAITS: Column = ("waits", "n");
const FOR: Column = ("for", "");
const RECEIVED: Column = ("received", "n");

fn queries(out: &mut String, title: &str, queries: &Queries, waiting: bool) -> fmt::Result {
    let (total, shown) = (queries.total, queries.shown.len());
    write!(out, "<section><h2>{title} <small>{}</small></h2>", units::count(total as u64))?;
    if shown == 0 {
        none(out, "none")?;
        return out.write_str("</section>");
    }
    let mut columns = vec![TENANT_ACTOR, QUERY, MEMORY, SERIES, SAMPLES, AGE];
    columns.extend(if waiting { &[WAITS, FOR][..] } else { &[RECEIVED] });
    columns.push(ACTS);
    table(out, title, &columns, |out| queries.shown.iter().try_for_each(|one| query(out, one, waiting)))?;
    if total > shown {
        none(out, &format!("and {} cheaper ones", units::count((total - shown) as u64)))?;
    }
    out.write_str("</section>")
}

fn query(out: &mut String, one: &Query, waiting: bool) -> fmt::Result {
    row(out, one.id, |out| {
        cell(out, TENANT_ACTOR, who(&one.tenant, &one.actor, &one.origin, &[&one.class, &one.backend]))?;
        let (text, id, fingerprint) = (code(&one.text), one.id, escaped(&one.fingerprint));
        let parts =
            if one.parts > 1 { format!(" · part {} of {}", one.part, one.parts) } else { String::new() };
        let (endpoint, state) = (one.endpoint, one.state);
        let facts = format!("#{id} · {endpoint} · {state}{parts} · {fingerprint}");
        cell(out, QUERY, format_args!("{text}<div><small>{facts}</small></div>"))?;
        cell(out, MEMORY, number(one.memory, units::bytes))?;
        cell(out, SERIES, number(one.series, units::count))?;
        cell(out, SAMPLES, number(one.samples, units::count))?;
        cell(out, AGE, span(one.age_ms))?;
        if waiting {
            cell(out, WAITS, span(one.waited_ms))?;
            cell(out, FOR, one.waits_for.unwrap_or("–"))?;
        } else {
            cell(out, RECEIVED, units::bytes(one.bytes))?;
        }
        let what = format!("query {id} of tenant {}", one.tenant);
        let block = params([("tenant", &*one.tenant), ("fingerprint", &*one.fingerprint)]);
        cell(out, ACTS, buttons(&what, &format!("id={id}"), &block))
    })
}

const TENANT: Column = ("tenant", "");
const ADMITTED: Column = ("admitted", "n");
const REFUSED: Column = ("refused by", "");

/// The tenants with the highest recent cost.
fn tenants(out: &mut String, snapshot: &Snapshot) -> fmt::Result {
    let recent = span(snapshot.recent_ms);
    write!(out, "<section><h2>Tenants by admitted cost <small>the last {recent}</small></h2>")?;
    tenant_table(out, "Tenants by admitted cost", &snapshot.tenants_by_cost)?;
    out.write_str("</section>")
}

/// Tenants, with their admitted and refused queries.
pub(super) fn tenant_table(out: &mut String, name: &str, tenants: &[Tenant]) -> fmt::Result {
    if tenants.is_empty() {
        return none(out, "none");
    }
    table(out, name, &[TENANT, ADMITTED, SAMPLES, REFUSED], |out| {
        tenants.iter().try_for_each(|one| tenant(out, one))
    })
}

fn tenant(out: &mut String, one: &Tenant) -> fmt::Result {
    row(out, &one.tenant, |out| {
        let limits = params([("tenant", &*one.tenant)]);
        cell(
            out,
            TENANT,
            format_args!("<a href=\"/limits?{}\">{}</a>", escaped(&limits), escaped(&one.tenant)),
        )?;
        cell(out, ADMITTED, units::count(one.admitted))?;
        cell(out, SAMPLES, units::count(one.samples))?;
        let refused = one.refused.iter().map(|(limit, n)| format!("{limit} <b>{}</b>", units::count(*n)));
        let refused = refused.collect::<Vec<_>>().join("<br>");
        cell(out, REFUSED, if refused.is_empty() { "–" } else { &refused })
    })
}
