//! *Refused*: the latest refusals, each with its tenant, its limit and the whole explanation.

use std::fmt::{self, Write as _};

use super::{
    escape::escaped,
    html::{Column, buttons, cell, code, none, params, row, table, who},
    now::tenant_table,
};
use crate::{
    admin::snapshot::{Snapshot, span},
    base::units,
    proxy::Refused,
};

const WHEN: Column = ("when", "n");
const WHO: Column = ("tenant, actor", "who");
const REASON: Column = ("reason", "r");
const QUERY: Column = ("query", "q");
const ACTS: Column = ("", "buttons");

/// The view of a snapshot.
pub(super) fn write(out: &mut String, snapshot: &Snapshot) -> fmt::Result {
    out.write_str("<section><h2>Latest refusals and failures</h2>")?;
    refusals(out, &snapshot.refusals, snapshot.now_ms)?;
    let recent = span(snapshot.recent_ms);
    write!(out, "</section><section><h2>Tenants by refusals <small>the last {recent}</small></h2>")?;
    tenant_table(out, "Tenants by refusals", &snapshot.tenants_by_refusals)?;
    out.write_str("</section>")
}

/// Refusals and failures, the newest first.
pub(super) fn refusals(out: &mut String, refusals: &[Refused], now_ms: i64) -> fmt::Result {
    if refusals.is_empty() {
        return none(out, "none");
    }
    let columns = [WHEN, WHO, REASON, QUERY, ACTS];
    table(out, "Latest refusals and failures", &columns, |out| {
        refusals.iter().try_for_each(|one| refusal(out, one, now_ms))
    })
}

fn refusal(out: &mut String, one: &Refused, now_ms: i64) -> fmt::Result {
    let Refused { tenant, actor, reason, fingerprint, .. } = one;
    row(out, format_args!("{tenant} {actor} {reason} {} {fingerprint}", one.shadow), |out| {
        let ago = span(now_ms.saturating_sub(one.at_ms).max(0) as u64);
        let times = match one.times {
            0 | 1 => String::new(),
            n => format!("<div><small>{} times</small></div>", units::count(n)),
        };
        cell(out, WHEN, format_args!("{ago} ago{times}"))?;
        cell(out, WHO, who(tenant, actor, &one.origin, &[]))?;
        let shadow = if one.shadow { " <span class=\"pill\">shadow</span>" } else { "" };
        let (name, status, message) = (escaped(reason), one.status, escaped(&one.message));
        cell(out, REASON, format_args!("<b>{name}</b> <small>{status}</small>{shadow}<div>{message}</div>"))?;
        let (text, short) = (code(&one.text), escaped(fingerprint));
        cell(out, QUERY, format_args!("{text}<div><small>fingerprint {short}</small></div>"))?;
        let block = params([("tenant", &**tenant), ("fingerprint", &**fingerprint)]);
        cell(out, ACTS, buttons(&format!("this query of tenant {tenant}"), "", &block))
    })
}
