//! The database that is to survive.

use super::real::{self, Database};
use crate::client::Request;
use crate::data::{Data, copy_tree, generated, times};
use crate::process::{Scratch, Service, command, free_port, need};
use crate::{Options, Result, remote, targets};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Target {
    Prometheus,
    VictoriaMetrics,
    M3,
    /// A querier over a Prometheus with a sidecar.
    Thanos,
    /// A querier over a store gateway, whose statistics say nothing of its series.
    ThanosStore,
    Cortex,
    /// Weir's own node, with this `pool.mode`.
    Node(&'static str),
}

/// Data in the form of one target, copied for every run.
#[derive(Debug)]
pub(crate) enum Seed<'a> {
    Blocks(&'a Data),
    Folder(PathBuf),
}

/// Samples of a series in one request.
const LOADED: usize = 240;

impl Target {
    pub(crate) fn parse(word: &str) -> Result<Self> {
        match word {
            "prometheus" => Ok(Self::Prometheus),
            "victoriametrics" => Ok(Self::VictoriaMetrics),
            "m3" => Ok(Self::M3),
            "thanos" => Ok(Self::Thanos),
            "thanos-store" => Ok(Self::ThanosStore),
            "cortex" => Ok(Self::Cortex),
            "weir-node" | "weir-node:bounded" => Ok(Self::Node("bounded")),
            "weir-node:unbounded" => Ok(Self::Node("unbounded")),
            _ => Err(format!("no such target: {word}").into()),
        }
    }

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Prometheus => "prometheus",
            Self::VictoriaMetrics => "victoriametrics",
            Self::M3 => "m3",
            Self::Thanos => "thanos",
            Self::ThanosStore => "thanos-store",
            Self::Cortex => "cortex",
            Self::Node("unbounded") => "weir-node-unbounded",
            Self::Node(_) => "weir-node-bounded",
        }
    }

    /// The backend's kind in Weir's configuration.
    pub(crate) fn kind(self) -> &'static str {
        match self {
            Self::Prometheus => "prometheus",
            Self::VictoriaMetrics => "victoriametrics",
            Self::M3 => "m3",
            Self::Thanos | Self::ThanosStore => "thanos",
            Self::Cortex => "cortex",
            Self::Node(_) => "weir",
        }
    }

    /// It is given with `--binary` and begins empty.
    pub(super) fn is_built(self) -> bool {
        matches!(self, Self::M3 | Self::Thanos | Self::ThanosStore | Self::Cortex)
    }

    /// The program whose version the report shows.
    pub(crate) fn program(self) -> &'static str {
        match self {
            Self::Prometheus => "prometheus",
            Self::VictoriaMetrics => "victoria-metrics",
            Self::M3 => "m3dbnode",
            Self::Thanos | Self::ThanosStore => "thanos",
            Self::Cortex => "cortex",
            Self::Node(_) => "weir",
        }
    }

    pub(crate) fn need(self) -> Result<()> {
        match self {
            Self::Prometheus | Self::Thanos => need(&["prometheus", "promtool"]),
            Self::VictoriaMetrics => need(&["victoria-metrics", "promtool"]),
            Self::M3 | Self::ThanosStore | Self::Cortex | Self::Node(_) => need(&["promtool"]),
        }
    }

    /// Its counters of reads, and of gets that found a pool empty.
    pub(crate) fn counters(self) -> (&'static str, Option<&'static str>) {
        match self {
            Self::Prometheus => ("prometheus_engine_query_samples_total", None),
            Self::M3 => ("coordinator_fetch_success", Some("bytes_pool_get_on_empty")),
            Self::Thanos | Self::ThanosStore => ("thanos_query_concurrent_gate_queries_total", None),
            Self::Cortex => ("cortex_querier_fetched_series_per_query_sum", None),
            Self::VictoriaMetrics => ("vm_rows_read_per_query_sum", None),
            Self::Node(_) => ("weir_node_reads_total", Some("weir_pool_get_on_empty_total")),
        }
    }

    /// Its counter of range queries, as far as the label that picks them.
    pub(crate) fn range_queries(self) -> &'static str {
        match self {
            Self::Prometheus => "prometheus_http_requests_total{code=\"200\",handler=\"/api/v1/query_range\"",
            Self::VictoriaMetrics => "vm_http_requests_total{path=\"/api/v1/query_range\"",
            Self::M3 | Self::Thanos | Self::ThanosStore | Self::Cortex => "http_requests_total",
            Self::Node(_) => "weir_node_reads_total",
        }
    }

    /// The unit of its counter of reads.
    pub(crate) fn reads(self) -> &'static str {
        match self {
            Self::Prometheus | Self::VictoriaMetrics => "samples read per second",
            Self::Cortex => "series read per second",
            Self::M3 | Self::Thanos | Self::ThanosStore | Self::Node(_) => "reads per second",
        }
    }

    /// The data in its form: kept between runs, made if there is nothing.
    pub(crate) fn seed<'a>(self, options: &Options, data: &'a Data) -> Result<Seed<'a>> {
        if self == Self::Prometheus || self.is_built() {
            return Ok(Seed::Blocks(data));
        }
        let (dir, done) =
            (options.data.join(self.kind()), options.data.join(format!("{}.done", self.kind())));
        if done.is_file() {
            return Ok(Seed::Folder(dir));
        }
        eprintln!("loading 28.8 million samples into {}, once", self.name());
        // An unfinished load is made anew.
        let _ = fs::remove_dir_all(&dir);
        let scratch = Scratch::new()?;
        let service = self.serve(&scratch, options, &dir)?;
        let series = generated()?;
        let all: Vec<u64> = times(data.end).collect();
        for start in (0..all.len()).step_by(LOADED) {
            remote::send(
                service.port,
                &remote::requests(remote::PROMETHEUS, &series, start..start + LOADED, &all)?,
            )?;
        }
        drop(service);
        fs::write(done, "")?;
        Ok(Seed::Folder(dir))
    }

    /// Starts it, with all that it asks, over data that no other run has seen.
    pub(super) fn database(self, scratch: &Scratch, options: &Options, seed: &Seed<'_>) -> Result<Database> {
        match seed {
            Seed::Blocks(data) if self.is_built() => real::start(self, scratch, options, data),
            _ => Ok(Database::alone(self.start(scratch, options, seed)?)),
        }
    }

    /// Starts it over a copy of the data, so that no run sees the files of another.
    pub(crate) fn start(self, scratch: &Scratch, options: &Options, seed: &Seed<'_>) -> Result<Service> {
        match seed {
            Seed::Blocks(data) => targets::prometheus(scratch, data, options.go_limit()),
            Seed::Folder(from) => {
                let dir = scratch.dir().join("data");
                copy_tree(from, &dir)?;
                self.serve(scratch, options, &dir)
            }
        }
    }

    fn serve(self, scratch: &Scratch, options: &Options, dir: &Path) -> Result<Service> {
        let port = free_port()?;
        let Self::Node(mode) = self else {
            let mut start = command("victoria-metrics");
            start.arg(format!("-storageDataPath={}", dir.display()));
            start.arg(format!("-httpListenAddr=127.0.0.1:{port}")).arg("-retentionPeriod=120");
            start.args(["-search.latencyOffset=0s", "-search.disableCache"]);
            // As an operator would say of a machine of that size; left out, it takes 60 % of this one.
            start.arg(format!("-memory.allowedBytes={}MiB", options.limit_mib * 3 / 5));
            let ready = Request::get("/health", &[], "bench");
            return Service::start("victoriametrics", port, scratch.dir(), start, &ready);
        };
        // Half of the process' limit, as Weir's budget is; an unbounded pool knows no bound.
        let memory =
            if mode == "bounded" { format!(", memory: {}MiB", options.limit_mib / 2) } else { String::new() };
        let text = format!("listen: 127.0.0.1:{port}\npool: {{mode: {mode}{memory}}}\n");
        let config = scratch.write("node.yaml", &text)?;
        let mut start = Command::new(&options.weir);
        start.arg("node").arg("--config").arg(config).arg("--data").arg(dir);
        Service::start("node", port, scratch.dir(), start, &Request::get("/-/ready", &[], "bench"))
    }
}
