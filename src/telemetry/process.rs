//! The process itself, read from `/proc` at the scrape. Empty elsewhere than on Linux.

use std::fs;

use prometheus::{
    IntGauge,
    core::{Collector, Desc},
    proto::MetricFamily,
};

use super::memory_limit::memory_limit;

/// Memory, file descriptors and threads, under the names that every Prometheus client uses.
#[derive(Debug)]
pub struct ProcessCollector {
    resident: IntGauge,
    fds: IntGauge,
    threads: IntGauge,
}

impl ProcessCollector {
    /// Nothing read yet.
    pub fn new() -> prometheus::Result<Self> {
        Ok(Self {
            resident: IntGauge::new("process_resident_memory_bytes", "Resident memory in bytes.")?,
            fds: IntGauge::new("process_open_fds", "Open file descriptors.")?,
            threads: IntGauge::new("process_threads", "Threads.")?,
        })
    }

    fn gauges(&self) -> [&IntGauge; 3] {
        [&self.resident, &self.fds, &self.threads]
    }
}

impl Collector for ProcessCollector {
    fn desc(&self) -> Vec<&Desc> {
        self.gauges().into_iter().flat_map(Collector::desc).collect()
    }

    fn collect(&self) -> Vec<MetricFamily> {
        let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
        let Some((resident_kib, threads)) = field(&status, "VmRSS:").zip(field(&status, "Threads:")) else {
            return Vec::new();
        };
        self.resident.set(resident_kib.saturating_mul(1024));
        self.threads.set(threads);
        // Reading the directory opens one more, which is gone again afterwards.
        self.fds.set(fs::read_dir("/proc/self/fd").map_or(0, |fds| fds.count() as i64 - 1));
        self.gauges().into_iter().flat_map(Collector::collect).collect()
    }
}

/// Memory that only the process can give back, and the memory that it may use. For a process that maps its files, whose
/// pages the system takes back by itself.
#[derive(Debug)]
pub struct MemoryCollector {
    anonymous: IntGauge,
    limit: IntGauge,
}

impl MemoryCollector {
    /// Nothing read yet.
    pub fn new() -> prometheus::Result<Self> {
        Ok(Self {
            anonymous: IntGauge::new(
                "process_resident_memory_anon_bytes",
                "Resident memory without mapped files, which the system may take back.",
            )?,
            limit: IntGauge::new(
                "process_memory_limit_bytes",
                "Memory that the process may use: that of its container, or of the machine.",
            )?,
        })
    }

    fn gauges(&self) -> [&IntGauge; 2] {
        [&self.anonymous, &self.limit]
    }
}

impl Collector for MemoryCollector {
    fn desc(&self) -> Vec<&Desc> {
        self.gauges().into_iter().flat_map(Collector::desc).collect()
    }

    fn collect(&self) -> Vec<MetricFamily> {
        let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
        let read = field(&status, "RssAnon:").zip(memory_limit().map(|limit| limit.bytes));
        let Some((anonymous_kib, limit)) = read else { return Vec::new() };
        self.anonymous.set(anonymous_kib.saturating_mul(1024));
        self.limit.set(i64::try_from(limit).unwrap_or(i64::MAX));
        self.gauges().into_iter().flat_map(Collector::collect).collect()
    }
}

fn field(status: &str, name: &str) -> Option<i64> {
    status.lines().find_map(|line| line.strip_prefix(name))?.split_whitespace().next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_are_found() {
        let status = "Name:\tweir\nVmRSS:\t   5120 kB\nThreads:\t3\n";
        assert_eq!(field(status, "VmRSS:"), Some(5120));
        assert_eq!(field(status, "Threads:"), Some(3));
        assert_eq!(field(status, "VmSwap:"), None);
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn this_process_is_seen() {
        let mut families = ProcessCollector::new().unwrap().collect();
        families.extend(MemoryCollector::new().unwrap().collect());
        assert_eq!(families.len(), 5);
        let value = |i: usize| families[i].get_metric()[0].get_gauge().get_value();
        assert!(value(0) > 100_000.0 && value(1) >= 3.0 && value(2) >= 1.0);
        assert!(value(3) > 100_000.0 && value(3) <= value(0) && value(4) > value(0));
    }
}
