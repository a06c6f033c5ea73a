//! Counts of series that one proxy of a fleet asked a backend for: the others need not ask again while they are kept.

use std::{collections::VecDeque, time::Duration};

use moka::sync::Cache;
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use tokio::time::Instant;

use crate::{
    backend::{ProbeOutcome, ProbeRequest},
    base::{Confidence, Estimate, LabelSize},
    promql::Fingerprint,
};

/// Counts of others that are kept at most.
const KEPT_MAX: u64 = 10_000;
/// Counts that wait to be passed on.
const OFFERS_MAX: usize = 64;
/// How a count may be known, as its place here on the board: add at the end.
const KNOWN: [Confidence; 4] =
    [Confidence::Exact, Confidence::UpperBound, Confidence::Learned, Confidence::AtLeast];

/// A count as it stands on the board.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Serialize)]
#[serde(deny_unknown_fields)]
struct Count {
    series: u64,
    known: usize,
    /// Counting stopped there.
    truncated: bool,
    /// The window was not over when it was counted: an observation, no more.
    open: bool,
    /// Bytes of a label set on average and of the longest value, where they were listed.
    labels: Option<(u64, u64)>,
}

/// The counts of other proxies, and those for them.
#[derive(Debug)]
pub(in crate::proxy) struct SharedCounts {
    /// Each until then.
    known: Cache<Fingerprint, (Count, Instant)>,
    offers: Mutex<VecDeque<(Fingerprint, Count, Duration)>>,
}

impl Default for SharedCounts {
    fn default() -> Self {
        Self { known: Cache::new(KEPT_MAX), offers: Mutex::default() }
    }
}

impl SharedCounts {
    /// Another proxy's answer to this request.
    pub(in crate::proxy) fn get(&self, key: Fingerprint, request: &ProbeRequest<'_>) -> Option<ProbeOutcome> {
        let (count, until) = self.known.get(&key)?;
        let Count { series, truncated, open, labels, .. } = count;
        if Instant::now() >= until || (truncated && series <= request.limit) {
            return None;
        }
        let known = *KNOWN.get(count.known)?;
        let confidence = if open { known.max(Confidence::Learned) } else { known };
        let labels = labels.map(|(set, longest)| LabelSize { set, longest });
        let series = Estimate::new(series, confidence);
        Some(ProbeOutcome { series, truncated, cached: true, took: Duration::ZERO, bytes: 0, labels })
    }

    /// Passes an answer on for as long as it is kept here. Of many in a second, the latest.
    pub(in crate::proxy) fn offer(
        &self,
        key: Fingerprint,
        outcome: &ProbeOutcome,
        open: bool,
        life: Duration,
    ) {
        let ProbeOutcome { series, truncated, labels, .. } = *outcome;
        let Some(known) = KNOWN.iter().position(|known| *known == series.confidence) else { return };
        let labels = labels.map(|LabelSize { set, longest }| (set, longest));
        let mut offers = self.offers.lock();
        if offers.len() >= OFFERS_MAX {
            offers.pop_front();
        }
        offers.push_back((key, Count { series: series.value, known, truncated, open, labels }, life));
    }

    /// The latest of those that wait, under their names, each with its life; the others are not passed on.
    pub(super) fn take_offers(&self, most: usize) -> Vec<(String, Duration, Vec<u8>)> {
        let offers = std::mem::take(&mut *self.offers.lock());
        let latest = offers.into_iter().rev().take(most);
        let posts = latest.filter_map(|(key, count, life)| {
            let [high, low] = key.to_words();
            Some((format!("{high:016x}{low:016x}"), life, serde_json::to_vec(&count).ok()?))
        });
        posts.collect()
    }

    /// Takes the count of another proxy, which is kept until then. Whether it is one.
    pub(super) fn take(&self, name: &str, value: &[u8], until: Instant) -> bool {
        let words = name.split_at_checked(16).map(|(high, low)| [high, low]);
        let words = words.map(|words| words.map(|word| u64::from_str_radix(word, 16)));
        let (Some([Ok(high), Ok(low)]), Ok(count)) = (words, serde_json::from_slice::<Count>(value)) else {
            return false;
        };
        if count.known >= KNOWN.len() {
            return false;
        }
        self.known.insert(Fingerprint::from_words([high, low]), (count, until));
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{backend::DataScope, base::TimeRange};

    #[tokio::test(start_paused = true)]
    async fn a_count_of_another_proxy_answers_the_same_request_while_it_is_kept() {
        let scope = DataScope::of(http::HeaderMap::new(), Vec::new());
        let request = |limit| ProbeRequest {
            selector: "up",
            metric: None,
            window: TimeRange { start: 0, end: 1 },
            limit,
            enough: 0,
            match_all: false,
            scope: &scope,
            tenant: "a",
            deadline: Instant::now(),
        };
        let (here, there) = (SharedCounts::default(), SharedCounts::default());
        let outcome = |series, confidence, truncated| ProbeOutcome {
            series: Estimate::new(series, confidence),
            truncated,
            cached: false,
            took: Duration::ZERO,
            bytes: 9,
            labels: Some(LabelSize { set: 40, longest: 7 }),
        };
        let keys = [1, 2, 3].map(|n| Fingerprint::from_words([u64::MAX, n]));
        let minute = Duration::from_secs(60);
        here.offer(keys[0], &outcome(20, Confidence::Exact, false), false, minute);
        here.offer(keys[1], &outcome(20, Confidence::Exact, false), true, minute);
        here.offer(keys[2], &outcome(20, Confidence::AtLeast, true), false, minute);
        let until = Instant::now() + minute;
        for (name, life, value) in here.take_offers(9) {
            assert!(there.take(&name, &value, until) && life == minute);
        }
        assert!(here.take_offers(9).is_empty());
        let known = |key: usize, limit| there.get(keys[key], &request(limit));
        let exact = known(0, 10).unwrap();
        assert!(exact.cached && exact.series == Estimate::new(20, Confidence::Exact));
        assert_eq!(exact.labels, Some(LabelSize { set: 40, longest: 7 }));
        assert_eq!(known(1, 10).unwrap().series.confidence, Confidence::Learned, "more may have come since");
        assert!(known(2, 10).is_some() && known(2, 20).is_none(), "it stopped at a lower limit");
        for (name, value) in [("up", "{}"), (&*"f".repeat(32), "{}"), (&*"é".repeat(16), "{}")] {
            assert!(!there.take(name, value.as_bytes(), until));
        }
        let odd = br#"{"series": 1, "known": 4, "truncated": false, "open": false, "labels": null}"#;
        assert!(!there.take(&"f".repeat(32), odd, until));
        tokio::time::advance(minute).await;
        assert_eq!(known(0, 10), None);
        (0..1_000).for_each(|_| here.offer(keys[0], &outcome(1, Confidence::Exact, false), false, minute));
        assert_eq!(here.take_offers(32).len(), 32);
    }
}
