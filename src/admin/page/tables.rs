//! The tables of the page. Every cell carries its heading, since on a narrow screen a row becomes a list.

use std::fmt::{self, Display, Write as _};

use super::escape::escaped;
use crate::{
    admin::snapshot::{Backend, Number, Queries, Query, Share, Snapshot, Tenant, span},
    base::units,
    proxy::Refused,
};

/// One cell; `class` says how it is aligned, `value` is HTML.
fn cell(out: &mut String, heading: &str, class: &str, value: impl Display) -> fmt::Result {
    write!(out, "<td class=\"{class}\" data-h=\"{heading}\"><div>{value}</div></td>")
}

fn table(
    out: &mut String,
    headings: &[(&str, &str)],
    rows: impl FnOnce(&mut String) -> fmt::Result,
) -> fmt::Result {
    out.write_str("<table><thead><tr>")?;
    for (heading, class) in headings {
        write!(out, "<th class=\"{class}\">{heading}</th>")?;
    }
    out.write_str("</tr></thead><tbody>")?;
    rows(out)?;
    out.write_str("</tbody></table>")
}

/// A bar that is full to a share, with its numbers.
fn meter(share: Share, show: impl Fn(u64) -> String) -> String {
    let used = show(share.used);
    let Some((of, percent)) = share.of.zip(share.percent()) else { return format!("{used} of unlimited") };
    bar(percent, &format!("{used} of {}", show(of)))
}

fn bar(percent: u64, text: &str) -> String {
    let level = match percent {
        0..70 => "low",
        70..90 => "mid",
        _ => "high",
    };
    let width = percent.min(100);
    format!(
        "<span class=\"bar {level}\"><i style=\"width:{width}%\"></i></span><span class=\"of\">{text}</span>"
    )
}

/// A row for each database.
pub(super) fn backends(out: &mut String, snapshot: &Snapshot) -> fmt::Result {
    out.write_str("<section><h2>Backends</h2>")?;
    let headings = [
        ("backend", ""),
        ("replicas", ""),
        ("pressure", ""),
        ("budget left", "n"),
        ("memory", ""),
        ("slots", ""),
        ("waiting", "n"),
        ("longest wait", "n"),
    ];
    table(out, &headings, |out| snapshot.backends.iter().try_for_each(|one| backend(out, one)))?;
    out.write_str("</section>")
}

fn backend(out: &mut String, one: &Backend) -> fmt::Result {
    out.write_str("<tr>")?;
    cell(
        out,
        "backend",
        "",
        format_args!("<b>{}</b> <small>{}</small>", escaped(&one.name), escaped(one.kind)),
    )?;
    let mut replicas = String::new();
    for replica in &one.replicas {
        let (class, state) = match (replica.healthy, replica.ejected) {
            (_, true) => ("bad", "left alone"),
            (false, _) => ("bad", "down"),
            _ => ("good", "up"),
        };
        let (url, n) = (escaped(&replica.url), replica.in_flight);
        write!(
            replicas,
            "<div><span class=\"pill {class}\">{state}</span> {url} <small>{n} under way</small></div>"
        )?;
    }
    cell(out, "replicas", "", replicas)?;
    let worst = one.worst_signal();
    let mut pressure = match worst {
        None => "<small>none</small>".to_owned(),
        Some((signal, value)) => {
            let percent = (value * 100.0).round() as u64;
            bar(percent, &format!("{percent} % <small>{signal}</small>"))
        }
    };
    let others =
        one.pressure.iter().filter(|(signal, value)| *value > 0.0 && worst.is_none_or(|w| w.0 != *signal));
    for (signal, value) in others {
        write!(pressure, "<div><small>{signal} {:.0} %</small></div>", value * 100.0)?;
    }
    for signal in &one.silent {
        write!(pressure, "<div><span class=\"pill bad\">silent</span> <small>{signal}</small></div>")?;
    }
    cell(out, "pressure", "", pressure)?;
    let class = if one.budget_percent < 100 { "n warn" } else { "n" };
    cell(out, "budget left", class, format_args!("{} %", one.budget_percent))?;
    cell(out, "memory", "", meter(one.memory, units::bytes))?;
    cell(out, "slots", "", meter(one.queries, units::count))?;
    cell(out, "waiting", "n", units::count(one.waiting))?;
    let wait = if one.waiting == 0 { "–".to_owned() } else { span(one.longest_wait_ms) };
    cell(out, "longest wait", "n", wait)?;
    out.write_str("</tr>")
}

fn number(number: Number, show: fn(u64) -> String) -> String {
    match number.value {
        Some(value) => format!("{} <small>{}</small>", show(value), number.known),
        None => "unknown".to_owned(),
    }
}

/// Queries in flight or waiting.
pub(super) fn queries(out: &mut String, title: &str, queries: &Queries, waiting: bool) -> fmt::Result {
    let (total, shown) = (queries.total, queries.shown.len());
    write!(out, "<section><h2>{title} <small>{}</small></h2>", units::count(total as u64))?;
    if shown == 0 {
        return out.write_str("<p class=\"none\">none</p></section>");
    }
    let mut headings = vec![
        ("tenant, actor", ""),
        ("query", "q"),
        ("memory", "n"),
        ("series", "n"),
        ("samples", "n"),
        ("age", "n"),
    ];
    headings.extend(if waiting { &[("waits", "n"), ("for", "")][..] } else { &[("received", "n")] });
    table(out, &headings, |out| queries.shown.iter().try_for_each(|one| query(out, one, waiting)))?;
    if total > shown {
        let left = units::count((total - shown) as u64);
        write!(out, "<p class=\"none\">and {left} cheaper ones</p>")?;
    }
    out.write_str("</section>")
}

fn query(out: &mut String, one: &Query, waiting: bool) -> fmt::Result {
    out.write_str("<tr>")?;
    who(out, &one.tenant, &one.actor, &[&one.class, &one.backend])?;
    what(out, &one.text, &one.fingerprint, one.endpoint)?;
    cell(out, "memory", "n", number(one.memory, units::bytes))?;
    cell(out, "series", "n", number(one.series, units::count))?;
    cell(out, "samples", "n", number(one.samples, units::count))?;
    cell(out, "age", "n", span(one.age_ms))?;
    if waiting {
        cell(out, "waits", "n", span(one.waited_ms))?;
        cell(out, "for", "", one.waits_for.unwrap_or("–"))?;
    } else {
        cell(out, "received", "n", units::bytes(one.bytes))?;
    }
    out.write_str("</tr>")
}

fn who(out: &mut String, tenant: &str, actor: &str, more: &[&str]) -> fmt::Result {
    let mut html = format!("<b>{}</b> {}", escaped(tenant), escaped(actor));
    if !more.is_empty() {
        let more = more.join(" · ");
        write!(html, "<div><small>{}</small></div>", escaped(&more))?;
    }
    cell(out, "tenant, actor", "", html)
}

fn what(out: &mut String, text: &str, fingerprint: &str, more: &str) -> fmt::Result {
    let (text, fingerprint, more) = (escaped(text), escaped(fingerprint), escaped(more));
    let html = format!("<code>{text}</code><div><small>{more} · {fingerprint}</small></div>");
    cell(out, "query", "q", html)
}

/// The tenants with the highest recent cost, and those with the most refusals.
pub(super) fn tenants(out: &mut String, snapshot: &Snapshot) -> fmt::Result {
    let recent = span(snapshot.recent_ms);
    out.write_str("<div class=\"pair\">")?;
    let admitted = ("Tenants by admitted cost", &snapshot.tenants_by_cost);
    let refused = ("Tenants by refusals", &snapshot.tenants_by_refusals);
    for (title, rows) in [admitted, refused] {
        write!(out, "<section><h2>{title} <small>the last {recent}</small></h2>")?;
        if rows.is_empty() {
            out.write_str("<p class=\"none\">none</p></section>")?;
            continue;
        }
        let headings = [("tenant", ""), ("admitted", "n"), ("samples", "n"), ("refused by", "")];
        table(out, &headings, |out| rows.iter().try_for_each(|row| tenant(out, row)))?;
        out.write_str("</section>")?;
    }
    out.write_str("</div>")
}

fn tenant(out: &mut String, one: &Tenant) -> fmt::Result {
    out.write_str("<tr>")?;
    cell(out, "tenant", "", format_args!("<b>{}</b>", escaped(&one.tenant)))?;
    cell(out, "admitted", "n", units::count(one.admitted))?;
    cell(out, "samples", "n", units::count(one.samples))?;
    let refused: Vec<_> =
        one.refused.iter().map(|(limit, n)| format!("{limit} <b>{}</b>", units::count(*n))).collect();
    cell(out, "refused by", "", if refused.is_empty() { "–".to_owned() } else { refused.join("<br>") })?;
    out.write_str("</tr>")
}

/// The latest refusals.
pub(super) fn refusals(out: &mut String, snapshot: &Snapshot) -> fmt::Result {
    out.write_str("<section><h2>Latest refusals and failures</h2>")?;
    if snapshot.refusals.is_empty() {
        return out.write_str("<p class=\"none\">none</p></section>");
    }
    let headings = [("when", "n"), ("tenant, actor", ""), ("reason", "r"), ("query", "q")];
    table(out, &headings, |out| {
        snapshot.refusals.iter().try_for_each(|one| refusal(out, one, snapshot.now_ms))
    })?;
    out.write_str("</section>")
}

fn refusal(out: &mut String, one: &Refused, now_ms: i64) -> fmt::Result {
    out.write_str("<tr>")?;
    let ago = span(now_ms.saturating_sub(one.at_ms).max(0) as u64);
    let times = match one.times {
        0 | 1 => String::new(),
        n => format!("<div><small>{} times</small></div>", units::count(n)),
    };
    cell(out, "when", "n", format_args!("{ago} ago{times}"))?;
    who(out, &one.tenant, &one.actor, &[])?;
    let shadow = if one.shadow { " <span class=\"pill\">shadow</span>" } else { "" };
    let (reason, message) = (escaped(one.reason), escaped(&one.message));
    cell(
        out,
        "reason",
        "r",
        format_args!("<b>{reason}</b> <small>{}</small>{shadow}<div>{message}</div>", one.status),
    )?;
    what(out, &one.text, &one.fingerprint, "fingerprint")?;
    out.write_str("</tr>")
}
