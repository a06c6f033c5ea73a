//! The summary as JSON.

use serde_json::{Value, json};

use super::{rows, tables};
use crate::replay::{Summary, Tally};

/// The summary as one JSON object. The names of its fields stay.
pub fn json(summary: &Summary) -> Value {
    let mut out = json!({
        "total": tally(&summary.total),
        "firstMs": summary.span.map(|(first, _)| first),
        "lastMs": summary.span.map(|(_, last)| last),
    });
    for (heading, groups) in tables(summary) {
        let name = heading.split(' ').next_back().unwrap_or(heading);
        let key = if name == heading { format!("{name}s") } else { "notReplayed".to_owned() };
        let rows = rows(groups).into_iter().map(|(name, sums)| {
            let mut row = tally(&sums);
            row["name"] = name.into();
            row
        });
        out[key] = rows.collect();
    }
    let worst = summary.worst().into_iter().map(|case| {
        json!({
            "limit": case.limit.id(),
            "observed": case.observed.known(),
            "known": case.observed.confidence.as_str(),
            "max": case.max,
            "times": case.times,
            "answeredBefore": case.ran,
            "tenant": case.tenant,
            "origin": case.origin,
            "query": case.query,
        })
    });
    out["worst"] = worst.collect();
    out
}

fn tally(of: &Tally) -> Value {
    json!({
        "queries": of.queries,
        "admitted": of.admitted,
        "refused": of.refused,
        "newlyRefused": of.newly_refused,
        "unknown": of.unknown,
        "newlyAdmitted": of.newly_admitted,
        "shadowed": of.shadowed,
        "slow": of.slow,
        "clamped": of.clamped,
    })
}
