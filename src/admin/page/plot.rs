//! The last quarter of an hour of a backend, as a small picture with its numbers in words.

use std::fmt::{self, Write as _};

use super::escape::escaped;
use crate::{
    admin::history::{SPAN_MS, Sample},
    base::units,
};

/// The picture in its own units; the style sheet says how large it is shown.
const WIDTH: f64 = 300.0;
const HEIGHT: f64 = 48.0;

/// A line of values over time, below the line of their bound.
struct Plot<'a> {
    name: &'static str,
    samples: &'a [Sample],
    now_ms: i64,
    used: fn(&Sample) -> u64,
    most: fn(&Sample) -> Option<u64>,
    show: fn(u64) -> String,
}

/// Memory held and its budget, and queries that wait.
pub(super) fn plots(out: &mut String, backend: &str, samples: &[Sample], now_ms: i64) -> fmt::Result {
    if samples.len() < 2 {
        return Ok(());
    }
    let memory = Plot {
        name: "memory held",
        samples,
        now_ms,
        used: |sample| sample.memory,
        most: |sample| sample.memory_open,
        show: units::bytes,
    };
    let waiting = Plot {
        name: "queries waiting",
        samples,
        now_ms,
        used: |sample| sample.waiting,
        most: |_| None,
        show: units::count,
    };
    out.write_str("<div class=\"plots\">")?;
    memory.write(out, backend)?;
    waiting.write(out, backend)?;
    out.write_str("</div>")
}

impl Plot<'_> {
    fn write(&self, out: &mut String, backend: &str) -> fmt::Result {
        let used = || self.samples.iter().map(self.used);
        let most = self.samples.iter().filter_map(self.most).max();
        let peak = used().max().unwrap_or(0);
        let top = most.unwrap_or(0).max(peak).max(1);
        let (name, now, peak) = (self.name, (self.show)(used().next_back().unwrap_or(0)), (self.show)(peak));
        write!(
            out,
            "<figure><figcaption>{name} <small>now {now}, at most {peak} in 15 minutes</small></figcaption>\
             <svg role=\"img\" viewBox=\"0 0 {WIDTH} {HEIGHT}\" preserveAspectRatio=\"none\" \
             aria-label=\"{name} of backend {}: now {now}, at most {peak} in 15 minutes\">",
            escaped(backend)
        )?;
        let first = self.samples.first().map_or(WIDTH, |sample| self.x(sample));
        write!(out, "<polygon class=\"area\" points=\"{first:.0},{HEIGHT} ")?;
        self.points(out, top, |sample| Some((self.used)(sample)))?;
        write!(out, "{WIDTH},{HEIGHT}\"/>")?;
        if most.is_some() {
            out.write_str("<polyline class=\"most\" points=\"")?;
            self.points(out, top, self.most)?;
            out.write_str("\"/>")?;
        }
        out.write_str("</svg></figure>")
    }

    fn x(&self, sample: &Sample) -> f64 {
        let ago = self.now_ms.saturating_sub(sample.at_ms).clamp(0, SPAN_MS);
        WIDTH * (1.0 - ago as f64 / SPAN_MS as f64)
    }

    fn points(&self, out: &mut String, top: u64, of: impl Fn(&Sample) -> Option<u64>) -> fmt::Result {
        for sample in self.samples {
            if let Some(value) = of(sample) {
                // The line stays whole where it runs along the edge.
                let y = (HEIGHT - 2.0).mul_add(-(value.min(top) as f64 / top as f64), HEIGHT - 1.0);
                write!(out, "{:.0},{y:.1} ", self.x(sample))?;
            }
        }
        Ok(())
    }
}
