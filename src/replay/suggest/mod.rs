//! Limits for each tenant, from the cost of its queries.
//!
//! The limit is a factor (the headroom) above the ordinary queries. Ordinary is everything up to the 99th percentile,
//! and from there on each larger value that is at most twice the one before: a tail that thins out is ordinary, values
//! beyond a gap are not.

mod sketch;
mod yaml;

use std::collections::HashMap;

use self::sketch::Sketch;
use super::summary::origin;
use crate::{base::units, journal::Record, limit::LimitName};

pub use yaml::yaml;

/// Tenants with numbers of their own; the others get the limits of all.
const TENANTS_MAX: usize = 1_000;
/// The senders of refused queries, by limit.
const ORIGINS_MAX: usize = 1_000;
/// Queries of a tenant below which nothing is suggested.
pub const QUERIES_MIN: u64 = 100;

/// A number of a query that has a limit.
#[derive(Clone, Copy, Debug)]
pub struct Dimension {
    /// The key below `per_query`.
    pub key: &'static str,
    /// The limit.
    pub limit: LimitName,
    /// How the configuration writes it.
    write: fn(u64) -> String,
    of: fn(&Record) -> Option<u64>,
}

impl Dimension {
    /// The number of a query, where it is known.
    fn value(&self, record: &Record) -> Option<u64> {
        // A number that stands for "more than any limit" is none.
        (self.of)(record).filter(|value| *value < u64::MAX)
    }
}

/// Every number for which a limit is suggested, in the order of the configuration.
pub const DIMENSIONS: [Dimension; 7] = [
    Dimension {
        key: "series",
        limit: LimitName::MaxSeries,
        write: count,
        of: |r| cost(r).map(|c| c.series.value),
    },
    Dimension {
        key: "samples",
        limit: LimitName::MaxSamples,
        write: count,
        of: |r| cost(r).map(|c| c.samples.value),
    },
    Dimension {
        key: "points",
        limit: LimitName::MaxPoints,
        write: count,
        of: |r| cost(r).map(|c| c.points.value),
    },
    Dimension {
        key: "memory",
        limit: LimitName::MaxMemory,
        write: bytes,
        of: |r| cost(r).map(|c| c.memory.value),
    },
    Dimension {
        key: "range",
        limit: LimitName::MaxRange,
        write: seconds,
        of: |r| cost(r).map(|c| c.range_seconds),
    },
    Dimension { key: "steps", limit: LimitName::MaxSteps, write: count, of: |r| cost(r).map(|c| c.steps) },
    Dimension { key: "response", limit: LimitName::MaxResponse, write: bytes, of: |r| r.actual.answer_bytes },
];

fn cost(record: &Record) -> Option<&crate::base::QueryCost> {
    record.priced.as_ref().map(|priced| &priced.cost)
}

fn count(n: u64) -> String {
    units::count(n).replace(',', "_")
}

fn bytes(n: u64) -> String {
    format!("{}MiB", n.div_ceil(1 << 20))
}

fn seconds(n: u64) -> String {
    format!("{n}s")
}

/// The suggestion for one number of one tenant.
#[derive(Clone, Debug)]
pub struct Suggestion {
    /// Which number.
    pub dimension: Dimension,
    /// The limit.
    pub max: u64,
    /// Queries over it.
    pub refused: u64,
    /// Their senders, and the number of each.
    pub whom: HashMap<String, u64>,
    /// The largest number that stays, and the sender of that query.
    pub heaviest: Option<(u64, String)>,
}

/// The limits of one tenant.
#[derive(Clone, Debug)]
pub struct TenantLimits {
    /// Its name.
    pub tenant: String,
    /// Queries that were looked at.
    pub queries: u64,
    /// In the order of the configuration.
    pub suggestions: Vec<Suggestion>,
}

/// The observations of every tenant: the first pass over the records.
#[derive(Debug, Default)]
pub struct Observed {
    tenants: HashMap<Box<str>, [Sketch; DIMENSIONS.len()]>,
    /// Queries whose tenant is one too many, or not known.
    pub left_out: u64,
}

impl Observed {
    /// Adds a query, if it was answered: a refused query shows a wish and not ordinary work.
    pub fn add(&mut self, record: &Record) {
        if !record.ran() || record.priced.is_none() {
            return;
        }
        if !self.tenants.contains_key(&*record.tenant) && self.tenants.len() < TENANTS_MAX {
            self.tenants.insert(Box::from(&*record.tenant), Default::default());
        }
        let Some(sketches) = self.tenants.get_mut(&*record.tenant) else {
            self.left_out += 1;
            return;
        };
        for (sketch, dimension) in sketches.iter_mut().zip(&DIMENSIONS) {
            if let Some(value) = dimension.value(record) {
                sketch.add(value);
            }
        }
    }

    /// The limits that follow, without the queries that they would have refused.
    pub fn limits(&self, headroom: f64) -> Suggested {
        let mut tenants = HashMap::new();
        for (tenant, sketches) in &self.tenants {
            let queries = sketches.iter().map(Sketch::count).max().unwrap_or(0);
            if queries < QUERIES_MIN {
                continue;
            }
            let suggestion = |(sketch, dimension): (&Sketch, &Dimension)| {
                let max = rounded((sketch.ordinary()? as f64 * headroom).ceil() as u64, dimension);
                let (refused, whom, heaviest) = (0, HashMap::new(), None);
                Some(Suggestion { dimension: *dimension, max, refused, whom, heaviest })
            };
            let suggestions = sketches.iter().zip(&DIMENSIONS).filter_map(suggestion).collect();
            tenants.insert(tenant.clone(), TenantLimits { tenant: tenant.to_string(), queries, suggestions });
        }
        Suggested { tenants }
    }
}

/// A limit as the configuration can write it: whole mebibytes, two digits of a count.
fn rounded(max: u64, dimension: &Dimension) -> u64 {
    match dimension.key {
        "memory" | "response" => max.max(1).div_ceil(1 << 20) << 20,
        _ => {
            let unit = 10_u64.pow(max.max(1).ilog10().saturating_sub(1));
            max.max(1).div_ceil(unit).saturating_mul(unit)
        }
    }
}

/// Suggested limits, and the queries that they would have refused: the second pass over the records.
#[derive(Debug)]
pub struct Suggested {
    tenants: HashMap<Box<str>, TenantLimits>,
}

impl Suggested {
    /// Looks at a query of the first pass again.
    pub fn look_back(&mut self, record: &Record) {
        if !record.ran() {
            return;
        }
        let Some(limits) = self.tenants.get_mut(&*record.tenant) else { return };
        for suggestion in &mut limits.suggestions {
            let Some(value) = suggestion.dimension.value(record) else { continue };
            if value > suggestion.max {
                suggestion.refused += 1;
                let (whom, origin) = (&mut suggestion.whom, origin(record));
                if whom.len() < ORIGINS_MAX || whom.contains_key(&origin) {
                    *whom.entry(origin).or_default() += 1;
                }
            } else if suggestion.heaviest.as_ref().is_none_or(|(most, _)| value > *most) {
                suggestion.heaviest = Some((value, origin(record)));
            }
        }
    }

    /// By tenant.
    pub fn sorted(&self) -> Vec<&TenantLimits> {
        let mut tenants: Vec<_> = self.tenants.values().collect();
        tenants.sort_by(|a, b| a.tenant.cmp(&b.tenant));
        tenants
    }
}
