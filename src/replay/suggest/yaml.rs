//! Suggested limits as a patch to the configuration, with the queries that each would have refused beside it.

use std::{cmp::Reverse, collections::HashMap, fmt::Write as _};

use super::{QUERIES_MIN, Suggested, Suggestion, TenantLimits};
use crate::base::{TenantPattern, units};

/// Senders of refused queries that a comment names.
const NAMED_MAX: usize = 3;
/// Characters of each.
const NAME_CHARS: usize = 80;

/// A configuration with nothing but these limits; merged into another, it replaces the limits of these tenants.
pub fn yaml(suggested: &Suggested, headroom: f64, span: &str) -> String {
    let tenants = suggested.sorted();
    let queries: u64 = tenants.iter().map(|limits| limits.queries).sum();
    let mut out = format!(
        "# Suggested by `weir suggest` from {} answered queries{span}: the largest ordinary number times {headroom}.\n\
         # Ordinary is every query up to a tenant's 99th percentile, and each larger one of at most twice the one before.\n",
        units::count(queries),
    );
    if tenants.is_empty() {
        let _ = writeln!(out, "# No tenant has {QUERIES_MIN} answered queries.\nlimits: {{}}");
        return out;
    }
    out.push_str("limits:\n  tenants:\n");
    for limits in tenants {
        tenant(&mut out, limits);
    }
    out
}

fn tenant(out: &mut String, limits: &TenantLimits) {
    // A name that the configuration reads as that of others cannot be written there.
    let is_name = matches!(TenantPattern::new(&limits.tenant), Some(TenantPattern::Name(_)));
    if !is_name {
        let _ = writeln!(out, "    # {:?} has no form in a configuration", limits.tenant);
        return;
    }
    let _ = writeln!(out, "    # {} answered queries", units::count(limits.queries));
    // A JSON string is a YAML string.
    let _ = writeln!(out, "    {}:\n      per_query:", serde_json::Value::from(limits.tenant.as_str()));
    for suggestion in &limits.suggestions {
        comment(out, suggestion);
        let Suggestion { dimension, max, .. } = suggestion;
        let _ = writeln!(out, "        {}: {}", dimension.key, (dimension.write)(*max));
    }
}

fn comment(out: &mut String, suggestion: &Suggestion) {
    let limit = suggestion.dimension.limit;
    let refused = match suggestion.refused {
        0 => "would have refused nothing".to_owned(),
        n => format!("would have refused {}: {}", units::count(n), whom(&suggestion.whom)),
    };
    let stays = suggestion.heaviest.as_ref().map(|(value, origin)| {
        format!("; the heaviest that stays: {} {} ({})", limit.show(*value), limit.noun(), one_line(origin))
    });
    let _ = writeln!(out, "        # {refused}{}", stays.unwrap_or_default());
}

fn whom(whom: &HashMap<String, u64>) -> String {
    let mut senders: Vec<_> = whom.iter().collect();
    senders.sort_by_key(|(name, count)| (Reverse(**count), *name));
    let named = senders.iter().take(NAMED_MAX).map(|(name, count)| format!("{} ({count})", one_line(name)));
    let mut text = named.collect::<Vec<_>>().join(", ");
    if senders.len() > NAMED_MAX {
        let _ = write!(text, " and {} more", senders.len() - NAMED_MAX);
    }
    text
}

/// A text that cannot end its comment.
fn one_line(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { ' ' } else { c }).take(NAME_CHARS).collect()
}
