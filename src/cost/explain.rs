//! Estimates in words and in JSON: the cost of a query, the confidence of each number, and ways to a cheaper one.

use std::{fmt::Write as _, time::Duration};

use serde_json::{Value, json};

use super::{Estimated, NodeEstimate, SampleType, SelectorEstimate, UNKNOWN_SERIES};
use crate::{
    base::{Confidence, Estimate, QueryCost, duration, timestamp, units},
    promql::shape::Output,
};

/// Selectors shown one by one; a query of thousands must not make an answer of megabytes.
const SELECTORS_SHOWN: usize = 20;
/// Characters of a selector shown.
const SELECTOR_CHARS: usize = 200;
/// A step that gives a graph more points than this has more than a screen can show.
const STEPS_ENOUGH: u64 = 1_000;
/// In place of a fix.
const NOTHING_TO_SAVE: &str = "nothing to save";
/// A week: windows above it are worth shortening first.
const LONG_RANGE_SECONDS: u64 = 604_800;

/// The estimate as lines for people, the sum first, then each selector, then the cheapest fix, which a light query does not
/// need.
pub fn text(estimate: &Estimated, is_light: bool) -> String {
    let d = &estimate.cost;
    if estimate.selectors.is_empty() {
        return "This query reads no series.".to_owned();
    }
    let mut lines = vec![
        format!(
            "This query reads {} and {} {}, in {}.",
            amount(d.series, "series"),
            amount(d.samples, "samples"),
            match d.range_seconds.max(d.listing_seconds) {
                0 => "at one moment".to_owned(),
                span => format!("over {}", seconds(span)),
            },
            plural(d.steps, "step"),
        ),
        memory(estimate),
    ];
    for selector in estimate.selectors.iter().take(SELECTORS_SHOWN) {
        lines.push(format!("- {}", line(selector)));
    }
    let hidden = estimate.selectors.len().saturating_sub(SELECTORS_SHOWN);
    if hidden > 0 {
        lines.push(format!("- and {}", plural(hidden as u64, "more selector")));
    }
    if !is_light {
        lines.push(format!("Cheaper: {}.", cheapest_fix(estimate)));
    }
    lines.join("\n")
}

/// The estimated memory, and its source.
fn memory(estimate: &Estimated) -> String {
    let d = &estimate.cost;
    let whole = estimate.whole_memory.value;
    if whole == u64::MAX {
        return "How much memory the backend would need for it is unknown.".to_owned();
    }
    let (points, blocks) = (units::count(d.points.value), units::count(d.blocks.value));
    let whole = units::bytes(whole);
    let formula = format!("by a formula over {points} points and {blocks} blocks");
    match estimate.parts {
        1 => format!("The backend would hold about {whole} for it, {formula}."),
        parts => format!(
            "The backend would hold about {whole} for it as a whole, {formula}. It is sent in {parts} parts of its time, \
             one after the other: about {} at once, with the garbage of the part before.",
            units::bytes(d.memory.value),
        ),
    }
}

/// One selector: its series and how they are known, its samples, its window.
pub fn line(s: &SelectorEstimate) -> String {
    let mut out = match s.series.value {
        UNKNOWN_SERIES => {
            format!(
                "{}: an unknown number of series ({}, {}),",
                short(&s.text),
                s.series.confidence,
                s.source
            )
        }
        _ => {
            let (series, samples) = (counted(s.series), counted(s.samples));
            let how = match s.series.confidence {
                Confidence::AtLeast => format!("{}, which stopped there", s.source),
                class => format!("{class}, {}", s.source),
            };
            format!("{}: {series} series ({how}), {samples} samples", short(&s.text))
        }
    };
    // Writing to a string cannot fail.
    let _ = write!(out, " from {} to {}", timestamp::text(s.window.start), timestamp::text(s.window.end));
    if s.evaluations != 1 {
        let _ = write!(out, ", evaluated {} times", units::count(s.evaluations));
    }
    match s.series.value {
        UNKNOWN_SERIES if s.match_all => out.push_str("; it matches everything, which is not counted"),
        _ if s.match_all => out.push_str("; its matchers narrow nothing down"),
        _ => {}
    }
    if s.sample_type == SampleType::Assumed && s.series.value > 0 {
        out.push_str("; the type of its samples is unknown, and taken for native histograms");
    }
    out
}

/// The change that would save most, as an imperative without a full stop.
pub fn cheapest_fix(estimate: &Estimated) -> String {
    let d = &estimate.cost;
    let Some(worst) = worst(estimate) else { return NOTHING_TO_SAVE.to_owned() };
    if worst.match_all {
        return format!("name a metric or a label value in {}", short(&worst.text));
    }
    if d.range_seconds > LONG_RANGE_SECONDS {
        return format!("ask for less than {}, or use a recording rule", seconds(d.range_seconds));
    }
    if d.steps > STEPS_ENOUGH {
        return format!(
            "raise the step: {} points a series are more than a graph shows",
            units::count(d.steps)
        );
    }
    if worst.output == Output::Same {
        return format!("aggregate {} with sum by (...), or add matchers to it", short(&worst.text));
    }
    format!("add matchers to {}, or use a recording rule", short(&worst.text))
}

/// The change that would bring down the number of series, as an imperative without a full stop.
pub fn fewer_series(estimate: &Estimated) -> String {
    match estimate.selectors.iter().max_by_key(|s| s.series.value) {
        Some(worst) if worst.match_all => format!("name a metric or a label value in {}", short(&worst.text)),
        Some(worst) => format!("add matchers to {}, or use a recording rule", short(&worst.text)),
        None => NOTHING_TO_SAVE.to_owned(),
    }
}

/// The most expensive selector: in memory, then in series.
pub fn worst(estimate: &Estimated) -> Option<&SelectorEstimate> {
    estimate.selectors.iter().max_by_key(|s| (s.memory.value, s.series.value))
}

/// The answer of `query_cost` and `query_range_cost`: `data.estimate` has the two fields that Prometheus proposes,
/// `seriesTouched` and `samplesScanned`, and Weir's own beside them. `class` is `known` under its former name.
pub fn json(estimate: &Estimated, is_light: bool) -> Value {
    let QueryCost { series, blocks, samples, points, memory, range_seconds, steps, selectors, .. } =
        estimate.cost;
    let shown: Vec<Value> = estimate.selectors.iter().take(SELECTORS_SHOWN).map(selector_json).collect();
    json!({
        "status": "success",
        "data": {
            "estimate": {
                "seriesTouched": series.value,
                "samplesScanned": samples.value,
                "known": series.confidence.as_str(),
                "class": series.confidence.as_str(),
                "blocks": blocks.value,
                "points": points.value,
                "memoryBytes": memory.value,
                "rangeSeconds": range_seconds,
                "steps": steps,
                "selectorCount": selectors,
                "pieces": estimate.parts,
            },
            "selectors": shown,
            "text": text(estimate, is_light),
            "cheapestFix": if is_light { NOTHING_TO_SAVE.to_owned() } else { cheapest_fix(estimate) },
        },
    })
}

/// The nodes of a query as `query_cost` shows them.
pub fn tree_json(nodes: &[NodeEstimate]) -> Value {
    let node = |node: &NodeEstimate| {
        json!({
            "depth": node.depth,
            "node": node.name,
            "span": [node.span.start, node.span.end],
            "series": node.series.value,
            "points": node.points.value,
            "memoryBytes": node.memory.value,
            "samples": node.samples.map(|samples| samples.value),
            "known": node.memory.confidence.as_str(),
            "class": node.memory.confidence.as_str(),
        })
    };
    nodes.iter().map(node).collect()
}

fn selector_json(s: &SelectorEstimate) -> Value {
    json!({
        "selector": &*s.text,
        "span": [s.span.start, s.span.end],
        "series": s.series.value,
        "known": s.series.confidence.as_str(),
        "class": s.series.confidence.as_str(),
        "source": s.source.as_str(),
        "blocks": s.blocks.value,
        "samples": s.samples.value,
        "points": s.points.value,
        "memoryBytes": s.memory.value,
        "windowStart": s.window.start as f64 / 1e3,
        "windowEnd": s.window.end as f64 / 1e3,
        "evaluations": s.evaluations,
        "matchAll": s.match_all,
    })
}

fn amount(n: Estimate, what: &str) -> String {
    match n.value {
        UNKNOWN_SERIES => format!("an unknown number of {what} ({})", n.confidence),
        _ if n.confidence == Confidence::AtLeast => format!("{} {what}", counted(n)),
        _ => format!("{} {what} ({})", counted(n), n.confidence),
    }
}

/// A number as far as it is known.
fn counted(n: Estimate) -> String {
    let least = if n.confidence == Confidence::AtLeast { "at least " } else { "" };
    format!("{least}{}", units::count(n.value))
}

fn seconds(n: u64) -> String {
    duration::text(Duration::from_secs(n))
}

fn plural(n: u64, what: &str) -> String {
    format!("{} {what}{}", units::count(n), if n == 1 { "" } else { "s" })
}

fn short(text: &str) -> String {
    match text.char_indices().nth(SELECTOR_CHARS) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text.to_owned(),
    }
}
