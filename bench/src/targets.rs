//! The proxies that are compared, and a trivial upstream; each in a configuration that holds nothing back.

use crate::client::{Client, Request};
use crate::data::Data;
use crate::process::{Scratch, Service, command, free_port};
use crate::{Options, Result};
use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

/// The small query of the overhead runs.
pub(crate) fn small() -> Request {
    Request::get(SMALL, &[], "bench")
}

pub(crate) const SMALL: &str = "/api/v1/query?query=up&time=1700000000";

/// The label table that Weir asks an upstream for.
pub(crate) const LABEL_TABLE: &str = r#"{"status":"success","data":{"headStats":{"numSeries":1000,"minTime":0},
"seriesCountByMetricName":[{"name":"up","value":10},{"name":"heavy","value":500}],
"seriesCountByLabelValuePair":[{"name":"job=a","value":10}]}}"#;

/// An instant vector of 10 series, about 1 kB.
pub(crate) fn small_answer() -> String {
    let mut series = String::new();
    for n in 0..10 {
        let comma = if n == 0 { "" } else { "," };
        let _ = write!(
            series,
            r#"{comma}{{"metric":{{"__name__":"up","instance":"10.0.0.{n}:9100","job":"a"}},"value":[1700000000,"1"]}}"#
        );
    }
    format!(r#"{{"status":"success","data":{{"resultType":"vector","result":[{series}]}}}}"#)
}

/// nginx with fixed answers; `big` is answered to range queries.
pub(crate) fn upstream(scratch: &Scratch) -> Result<Service> {
    scratch.write("table.json", LABEL_TABLE)?;
    let dir = scratch.dir().display();
    let locations = format!(
        "location = /api/v1/status/tsdb {{ alias {dir}/table.json; }}
  location = /api/v1/query_range {{ alias {dir}/big.json; }}
  location / {{ return 200 '{}'; }}",
        small_answer()
    );
    fixed("upstream", scratch, &locations)
}

/// The same without a label table, and without an answer to probes: queries alone are answered, those that count not.
pub(crate) fn unknown_upstream(scratch: &Scratch) -> Result<Service> {
    let locations = format!(
        "location = /api/v1/query {{ if ($arg_query ~ count) {{ return 404; }} return 200 '{}'; }}
  location / {{ return 404; }}",
        small_answer()
    );
    fixed("unknown", scratch, &locations)
}

fn fixed(name: &'static str, scratch: &Scratch, locations: &str) -> Result<Service> {
    let port = free_port()?;
    let dir = scratch.dir().display();
    let text = format!(
        "worker_processes 1; pid {dir}/{name}.pid; error_log stderr; daemon off;
events {{ worker_connections 4096; }}
http {{ access_log off; default_type application/json; keepalive_requests 100000000; keepalive_timeout 1000s;
 sendfile on; open_file_cache max=10;
 server {{ listen 127.0.0.1:{port} backlog=4096;
  {locations} }} }}\n"
    );
    nginx(name, scratch, port, &text)
}

fn nginx(name: &'static str, scratch: &Scratch, port: u16, text: &str) -> Result<Service> {
    let file = scratch.write(&format!("{name}.conf"), text)?;
    let mut start = command("nginx");
    start.arg("-p").arg(scratch.dir()).arg("-e").arg("stderr").arg("-c").arg(file);
    Service::start(name, port, scratch.dir(), start, &small())
}

/// A proxy by its name, in front of `upstream`.
pub(crate) fn proxy(name: &str, scratch: &Scratch, options: &Options, upstream: u16) -> Result<Service> {
    match name {
        "weir" => weir(scratch, options, &open_weir(upstream)),
        "nginx" => {
            let port = free_port()?;
            let dir = scratch.dir().display();
            let text = format!(
                "worker_processes 2; pid {dir}/nginx.pid; error_log stderr; daemon off;
events {{ worker_connections 4096; }}
http {{ access_log off; keepalive_requests 100000000;
 upstream u {{ server 127.0.0.1:{upstream}; keepalive 256; keepalive_requests 100000000; }}
 server {{ listen 127.0.0.1:{port} reuseport; location / {{
  proxy_pass http://u; proxy_http_version 1.1; proxy_set_header Connection \"\"; }} }} }}\n"
            );
            nginx("nginx", scratch, port, &text)
        }
        "haproxy" => haproxy(scratch, upstream, 4000, None),
        "vmauth" => vmauth(scratch, upstream, None),
        "hyper" => {
            let port = free_port()?;
            let mut start = Command::new(std::env::current_exe()?);
            start.args(["floor".to_owned(), port.to_string(), upstream.to_string()]);
            Service::start("hyper", port, scratch.dir(), start, &small())
        }
        other => Err(format!("no such proxy: {other}").into()),
    }
}

/// haproxy with a cap on concurrent requests, of all or of one tenant alone; the others wait in its queue.
pub(crate) fn haproxy(
    scratch: &Scratch,
    upstream: u16,
    concurrency: u32,
    capped: Option<&str>,
) -> Result<Service> {
    let port = free_port()?;
    let whole = || " default_backend b\n".to_owned();
    let frontend = capped.map_or_else(whole, |tenant| {
        format!(
            " use_backend b if {{ req.hdr(X-Scope-OrgID) {tenant} }}
 default_backend others
backend others
 server s 127.0.0.1:{upstream} pool-max-conn 256\n"
        )
    });
    let text = format!(
        "global
 nbthread 2
 maxconn 4000
defaults
 mode http
 timeout connect 5s
 timeout queue 120s
 timeout client 120s
 timeout server 120s
 http-reuse always
frontend f
 bind 127.0.0.1:{port}
{frontend}backend b
 server s 127.0.0.1:{upstream} maxconn {concurrency} pool-max-conn 256\n"
    );
    let mut start = command("haproxy");
    start.arg("-db").arg("-f").arg(scratch.write("haproxy.cfg", &text)?);
    Service::start("haproxy", port, scratch.dir(), start, &small())
}

/// vmauth, with a cap on concurrent requests if it is new enough to have one; 1.79 (Debian 12) wants a user as well.
pub(crate) fn vmauth(scratch: &Scratch, upstream: u16, concurrency: Option<u32>) -> Result<Service> {
    let port = free_port()?;
    let users = format!("users:\n- username: u\n  password: p\n  url_prefix: http://127.0.0.1:{upstream}/\n");
    let file = scratch.write("vmauth.yml", &users)?;
    let mut start = command("vmauth");
    start.arg(format!("-auth.config={}", file.display()));
    start.arg(format!("-httpListenAddr=127.0.0.1:{port}"));
    if let Some(concurrency) = concurrency {
        let help = command("vmauth").arg("-help").output()?;
        if !String::from_utf8_lossy(&[help.stdout, help.stderr].concat()).contains("maxConcurrentRequests") {
            return Err(
                "this vmauth cannot cap concurrent requests; try a newer one, or --guard haproxy".into()
            );
        }
        start.arg(format!("-maxConcurrentRequests={concurrency}"));
    }
    Service::start("vmauth", port, scratch.dir(), start, &small())
}

/// Weir with every limit enforced, and too high to be met.
pub(crate) fn open_weir(upstream: u16) -> String {
    format!(
        "backends: [{{name: main, urls: [\"http://127.0.0.1:{upstream}\"], max_connections: 256,
  budget: {{memory: 64GiB, queries: 1000}}}}]
limits:
  default:
    per_query: {{points: 500M, samples: 500M}}
    in_flight: {{queries: 500, memory: 32GiB}}
    rate: {{queries: 10M/s, samples: 1000M/s}}\n"
    )
}

/// Weir with a configuration that names neither addresses nor logs.
pub(crate) fn weir(scratch: &Scratch, options: &Options, text: &str) -> Result<Service> {
    Ok(weir_with_admin(scratch, options, text)?.0)
}

/// The same with the port of its admin API.
pub(crate) fn weir_with_admin(scratch: &Scratch, options: &Options, text: &str) -> Result<(Service, u16)> {
    let file = WeirFile::new(scratch)?;
    file.write(text)?;
    Ok((file.start(options)?, file.admin))
}

/// A Weir of another binary, under a name of its own.
pub(crate) fn weir_of(name: &'static str, binary: &Path, scratch: &Scratch, text: &str) -> Result<Service> {
    let file = WeirFile { name, ..WeirFile::new(scratch)? };
    let config = file.write(text)?;
    if !Command::new(binary).arg("check-config").arg(&config).output()?.status.success() {
        // Builds before November 2026 gave no client a share of its own.
        file.write_with(text, "")?;
    }
    file.start_binary(binary)
}

/// The configuration file of a Weir on ports of its own.
#[derive(Debug)]
pub(crate) struct WeirFile<'a> {
    name: &'static str,
    scratch: &'a Scratch,
    port: u16,
    pub(crate) admin: u16,
}

impl<'a> WeirFile<'a> {
    pub(crate) fn new(scratch: &'a Scratch) -> Result<Self> {
        Ok(Self { name: "weir", scratch, port: free_port()?, admin: free_port()? })
    }

    /// Writes it; `text` names neither addresses nor logs.
    pub(crate) fn write(&self, text: &str) -> Result<PathBuf> {
        // Every client has the same address here.
        self.write_with(text, ", connections: {per_client: 100%}")
    }

    fn write_with(&self, text: &str, connections: &str) -> Result<PathBuf> {
        let Self { name, scratch, port, admin } = self;
        let text = format!(
            "server: {{listen: \"127.0.0.1:{port}\", admin_listen: \"127.0.0.1:{admin}\"{connections}}}
telemetry: {{log: warn}}\n{text}"
        );
        scratch.write(&format!("{name}.yaml"), &text)
    }

    pub(crate) fn start(&self, options: &Options) -> Result<Service> {
        self.start_binary(&options.weir)
    }

    fn start_binary(&self, binary: &Path) -> Result<Service> {
        let (name, dir) = (self.name, self.scratch.dir());
        let mut start = Command::new(binary);
        start.arg("proxy").arg("--config").arg(dir.join(format!("{name}.yaml")));
        start.arg("--data").arg(dir.join(format!("{name}-data")));
        Service::start(name, self.port, dir, start, &small())
    }
}

/// The sum over all series of a metric that begin with `name`, which may end within their labels; `None` when there is
/// none.
pub(crate) fn metric(port: u16, path: &str, name: &str) -> Result<Option<f64>> {
    let (_, body) = Client::new(port, Duration::from_secs(10)).page(&Request::get(path, &[], "bench"))?;
    let page = String::from_utf8_lossy(&body);
    let lines = page.lines().filter(|line| line.starts_with(name));
    let values = lines.filter_map(|line| line.rsplit_once(' ')?.1.parse::<f64>().ok());
    Ok(values.fold(None, |sum, value| Some(sum.unwrap_or(0.0) + value)))
}

const PROMETHEUS_CONFIG: &str = "global: {scrape_interval: 1h}\n";

/// Prometheus over a copy of the blocks.
pub(crate) fn prometheus(scratch: &Scratch, data: &Data, go_limit: Option<u64>) -> Result<Service> {
    data.copy(&scratch.dir().join("prometheus"))?;
    start_prometheus(scratch, PROMETHEUS_CONFIG, &[], go_limit)
}

/// The same with an external label, as a sidecar of Thanos wants it.
pub(crate) fn prometheus_of_a_cluster(scratch: &Scratch, data: &Data) -> Result<Service> {
    data.copy(&scratch.dir().join("prometheus"))?;
    let config = "global: {scrape_interval: 1h, external_labels: {cluster: a, replica: a}}\n";
    start_prometheus(scratch, config, &[], None)
}

/// Prometheus over a copy of the blocks, with a file of rules.
pub(crate) fn prometheus_with_rules(scratch: &Scratch, data: &Data, rules: &str) -> Result<Service> {
    data.copy(&scratch.dir().join("prometheus"))?;
    let file = scratch.write("rules.yml", rules)?;
    let config = format!("{PROMETHEUS_CONFIG}rule_files: [\"{}\"]\n", file.display());
    start_prometheus(scratch, &config, &[], None)
}

/// One without any data, unless there is some in its folder.
pub(crate) fn empty_prometheus(scratch: &Scratch, more: &[&str]) -> Result<Service> {
    start_prometheus(scratch, PROMETHEUS_CONFIG, more, None)
}

/// `go_limit`: bytes from which on its collector works harder (`GOMEMLIMIT`).
fn start_prometheus(
    scratch: &Scratch,
    config: &str,
    more: &[&str],
    go_limit: Option<u64>,
) -> Result<Service> {
    let port = free_port()?;
    let dir = scratch.dir().join("prometheus");
    let config = scratch.write("prometheus.yml", config)?;
    let mut start = command("prometheus");
    start
        .arg(format!("--config.file={}", config.display()))
        .arg(format!("--storage.tsdb.path={}", dir.display()));
    start.arg(format!("--web.listen-address=127.0.0.1:{port}"));
    // The data keeps the shape it came in, however old it is.
    start.args(["--storage.tsdb.retention.time=10y", "--storage.tsdb.min-block-duration=2h"]);
    start.arg("--storage.tsdb.max-block-duration=2h").args(more);
    if let Some(bytes) = go_limit {
        start.env("GOMEMLIMIT", bytes.to_string());
    }
    Service::start("prometheus", port, scratch.dir(), start, &Request::get("/-/ready", &[], "bench"))
}
