//! How much slower than usual a backend is, whatever it is asked.
//!
//! Raw latency misfires: PromQL queries differ a thousandfold. So each answer counts as seconds per sample that it was
//! expected to read, against what that usually is for queries of its size: one usual value for each factor of ten in
//! cost and each way of knowing it, since an upper bound is off by another factor than a count. A change in the mix of
//! queries, from light to heavy or back, moves none of them. All in logarithms, so that a ratio of ten up weighs as much
//! as one of ten down, and one odd query little.

use std::{collections::BTreeMap, time::Duration};

use tokio::time::Instant;

use crate::base::{Confidence, Estimate};

/// The mean of now reaches back so far,
const NOW: f64 = 15.0;
/// and that of what is usual so far, in seconds.
const USUAL: f64 = 600.0;
/// Queries of a size before their usual is known, and queries of now before it is compared.
const USUAL_LEAST: f64 = 30.0;
const NOW_LEAST: f64 = 10.0;
/// Below this nobody suffers, in seconds: that a query of one millisecond takes eight is noise.
const UNFELT: f64 = 0.05;
/// The samples that are read meanwhile at an ordinary speed of 40 ns each.
const UNFELT_SAMPLES: f64 = 1_250_000.0;
/// What is usual learns this much of a time that is itself half way into distress, so that distress does not become
/// usual within minutes, but a slower disk does within hours.
const LEARNED_IN_DISTRESS: f64 = 0.1;

/// A mean that forgets.
#[derive(Clone, Copy, Debug, Default)]
struct Mean {
    sum: f64,
    /// How many values it rests on.
    weight: f64,
    at: Option<Instant>,
}

impl Mean {
    /// Forgets what is older than `reach` seconds, gently.
    fn fade(&mut self, reach: f64, now: Instant) {
        let seconds = self.at.map_or(0.0, |at| now.saturating_duration_since(at).as_secs_f64());
        let kept = (-seconds / reach).exp();
        self.sum *= kept;
        self.weight *= kept;
        self.at = Some(self.at.map_or(now, |at| at.max(now)));
    }

    fn add(&mut self, value: f64, weight: f64) {
        self.sum += value * weight;
        self.weight += weight;
    }

    fn value(&self, least: f64) -> Option<f64> {
        (self.weight >= least).then(|| self.sum / self.weight)
    }
}

/// Latency now against what is usual.
#[derive(Clone, Debug, Default)]
pub(super) struct Latency {
    /// Logarithm of the usual seconds per sample, by how the cost is known and its power of ten: at most 60 of them.
    usual: BTreeMap<(Confidence, u32), Mean>,
    /// The same of the last answers, each less its usual.
    now: Mean,
    /// Half of full distress, as last asked for.
    half: f64,
}

impl Latency {
    /// An answer that took so long and was expected to read so many samples.
    pub(super) fn add(&mut self, took: Duration, cost: Estimate, now: Instant) {
        if matches!(cost.confidence, Confidence::AtLeast | Confidence::Assumed) {
            // No yardstick: the truth may be anything.
            return;
        }
        let per_sample = (took.as_secs_f64() + UNFELT) / (cost.value as f64 + UNFELT_SAMPLES);
        let value = per_sample.ln();
        let usual = self.usual.entry((cost.confidence, cost.value.max(1).ilog10())).or_default();
        usual.fade(USUAL, now);
        let off = usual.value(USUAL_LEAST).map(|usual| value - usual);
        if let Some(off) = off {
            self.now.fade(NOW, now);
            self.now.add(off, 1.0);
        }
        let in_distress = self.half > 0.0 && self.now.value(NOW_LEAST).is_some_and(|off| off > self.half);
        usual.add(value, if in_distress { LEARNED_IN_DISTRESS } else { 1.0 });
    }

    /// How many times the usual the last answers took; 1 where there are too few to say. `full` is the ratio that is
    /// full distress.
    pub(super) fn against_usual(&mut self, full: f64, now: Instant) -> f64 {
        self.half = full.ln() / 2.0;
        self.now.fade(NOW, now);
        self.now.value(NOW_LEAST).unwrap_or(0.0).exp()
    }
}
