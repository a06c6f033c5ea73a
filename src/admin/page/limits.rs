//! *Limits*: the limits of a tenant, each with its source and its use, and the latest refusals.

use std::fmt::{self, Write as _};

use super::{
    escape::escaped,
    html::{Column, cell, none, params, row, table},
    refused::refusals,
};
use crate::{
    admin::limits::{Suggestion, TenantLimits},
    base::units,
    limit::EffectiveLimit,
};

const LIMIT: Column = ("limit", "");
const VALUE: Column = ("value", "n");
const USED: Column = ("in use", "n");
const MODE: Column = ("mode", "");
const SOURCE: Column = ("written in", "");

/// The form, and the limits of the tenant that it names.
pub(super) fn write(out: &mut String, limits: Option<&TenantLimits>, now_ms: i64) -> fmt::Result {
    let name = limits.map_or("", |limits| limits.tenant.as_str());
    write!(
        out,
        "<section><h2>Limits of a tenant</h2><form action=\"/limits\" method=\"get\" class=\"line\">\
         <label>Tenant <input name=\"tenant\" required value=\"{}\"></label> <button>Show</button></form></section>",
        escaped(name)
    )?;
    let Some(limits) = limits else { return Ok(()) };
    out.write_str("<section><h2>In force</h2>")?;
    table(out, "Limits in force", &[LIMIT, VALUE, USED, MODE, SOURCE], |out| {
        limits.limits.iter().filter(|one| is_told(one)).try_for_each(|one| limit(out, one, limits))
    })?;
    out.write_str("</section><section><h2>Latest refusals, those in shadow mode included</h2>")?;
    refusals(out, &limits.refusals, now_ms)?;
    out.write_str("</section><section><h2>Suggestion</h2>")?;
    match &limits.suggestion {
        None => {
            let ask = params([("tenant", name), ("suggest", "true")]);
            write!(
                out,
                "<p><a href=\"/limits?{}\">Suggest limits from the journal of the last seven days</a> <small>as \
                 <code>weir suggest</code> does; takes seconds</small></p>",
                escaped(&ask)
            )?;
        }
        Some(Suggestion::None(why)) => none(out, &escaped(why).to_string())?,
        Some(Suggestion::Patch(patch)) => write!(
            out,
            "<pre id=\"patch\">{}</pre><p class=\"acts\"><button type=\"button\" data-copy=\"patch\">Copy</button></p>",
            escaped(patch)
        )?,
    }
    out.write_str("</section>")
}

/// Soft limits that nobody has written say nothing.
fn is_told(one: &EffectiveLimit) -> bool {
    one.source.is_some() || !one.key.starts_with("soft.")
}

fn limit(out: &mut String, one: &EffectiveLimit, limits: &TenantLimits) -> fmt::Result {
    let EffectiveLimit { class, key, value, mode, source } = one;
    let class = class.as_deref();
    row(out, format_args!("{} {key}", class.unwrap_or_default()), |out| {
        let of_class = class.map(|class| format!(" <small>class {}</small>", escaped(class)));
        cell(out, LIMIT, format_args!("<code>{}</code>{}", escaped(key), of_class.unwrap_or_default()))?;
        cell(out, VALUE, escaped(value))?;
        let used = match key.as_str() {
            "in_flight.queries" => units::count(limits.running),
            "in_flight.memory" => units::bytes(limits.memory),
            "queue.length" => units::count(limits.waiting),
            key => {
                let quota = key.strip_prefix("quota.").and_then(|kind| limits.quotas_used.get(kind));
                quota.map_or_else(String::new, |used| units::count(*used))
            }
        };
        cell(out, USED, used)?;
        cell(out, MODE, escaped(mode.as_deref().unwrap_or("")))?;
        match source {
            Some(source) => cell(out, SOURCE, format_args!("<code>{}</code>", escaped(source))),
            None => cell(out, SOURCE, "<small>built in</small>"),
        }
    })
}
