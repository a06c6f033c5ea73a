//! Observations of the database: its memory and processor time from outside, its reads and its pool by its own metrics.

use super::target::Target;
use crate::Result;
use crate::client::{Client, Request};
use crate::process::{Service, rss, times};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

/// Time between two looks at the memory.
const LOOK: Duration = Duration::from_millis(10);
/// Looks between two at the processor time.
const CPU_EVERY: usize = 20;
/// Time between two looks at the counters.
const SCRAPE: Duration = Duration::from_millis(500);

/// Times are in seconds since the start of the run.
#[derive(Debug, Default)]
pub(crate) struct Watched {
    /// Resident bytes.
    pub(crate) rss: Vec<(f64, u64)>,
    /// Seconds of processor time so far, in user and in system mode.
    pub(super) cpu: Vec<(f64, [f64; 2])>,
    pub(super) counters: Vec<Counters>,
    /// When it was killed, or ended by itself.
    pub(crate) died: Option<f64>,
}

/// The counters of the database so far.
#[derive(Debug, Clone, Copy)]
pub(super) struct Counters {
    pub(super) at: f64,
    /// Samples read by queries.
    pub(super) reads: Option<f64>,
    /// Gets that found a pool empty.
    pub(super) on_empty: Option<f64>,
}

/// Looks at the resident set every 10 ms, and kills the process above the limit.
pub(crate) fn memory(
    database: &mut Service,
    limit: u64,
    start: Instant,
    stop: &AtomicBool,
) -> Result<Watched> {
    let mut watched = Watched::default();
    while !stop.load(Ordering::Relaxed) {
        let now = start.elapsed().as_secs_f64();
        let bytes = rss(database.pid());
        if let Some(bytes) = bytes {
            watched.rss.push((now, bytes));
        }
        if bytes.is_none_or(|bytes| bytes > limit) {
            database.kill()?;
            watched.died = Some(now);
            return Ok(watched);
        }
        if watched.rss.len() % CPU_EVERY == 1 {
            watched.cpu.push((now, times(database.pid())));
        }
        std::thread::sleep(LOOK);
    }
    Ok(watched)
}

/// Asks for the counters, as long as it answers.
pub(super) fn counters(port: u16, target: &Target, start: Instant, stop: &AtomicBool) -> Vec<Counters> {
    let mut seen = Vec::new();
    let mut client = Client::new(port, Duration::from_secs(5));
    let request = Request::get("/metrics", &[], "bench");
    while !stop.load(Ordering::Relaxed) {
        if let Ok((answer, body)) = client.page(&request)
            && answer.status == 200
        {
            let page = String::from_utf8_lossy(&body);
            let at = start.elapsed().as_secs_f64();
            let (reads, on_empty) = target.counters();
            seen.push(Counters {
                at,
                reads: sum(&page, reads),
                on_empty: on_empty.and_then(|n| sum(&page, n)),
            });
        }
        std::thread::sleep(SCRAPE);
    }
    seen
}

/// The sum over all series of a metric; `None` when it has none.
pub(crate) fn sum(page: &str, name: &str) -> Option<f64> {
    let values = page.lines().filter_map(|line| {
        let rest = line.strip_prefix(name)?;
        let value = match rest.strip_prefix('{') {
            Some(labels) => labels.rsplit_once('}')?.1,
            None => rest.strip_prefix(' ')?,
        };
        value.split_ascii_whitespace().next()?.parse::<f64>().ok()
    });
    values.fold(None, |sum, value| Some(sum.unwrap_or(0.0) + value))
}

/// Counts per second between neighbours of a growing count, at the later one's time.
pub(super) fn rates(counts: &[(f64, f64)]) -> Vec<(f64, f64)> {
    let pairs = counts.windows(2).filter_map(|pair| match pair {
        [(before, least), (at, most)] if at > before => Some((*at, (most - least).max(0.0) / (at - before))),
        _ => None,
    });
    pairs.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sums_series_and_makes_rates() {
        let page = "# TYPE a counter\na{x=\"} 1\"} 2\na{x=\"b\"} 3\na_more 100\nb 7\n";
        assert_eq!([sum(page, "a"), sum(page, "b"), sum(page, "c")], [Some(5.0), Some(7.0), None]);
        assert_eq!(rates(&[(1.0, 10.0), (3.0, 14.0), (3.0, 15.0)]), [(3.0, 2.0)]);
    }
}
