//! `weir` alone: the proxy before a storage node, both in this process, and the node holding Weir's own metrics.

use std::{net::SocketAddr, num::NonZeroU64, path::PathBuf, process::ExitCode, sync::Arc, time::Duration};

use clap::Args;
use tokio::{sync::watch, task::JoinSet, time::MissedTickBehavior};

use super::{
    clock::now_ms,
    exit::BAD_INPUT,
    journal,
    memory::Memory,
    node::open,
    output,
    proxy::{
        TENANT_LABELS_MAX, admin_lane, bind, end_of, init_log, reload_by, reload_on_change, reload_on_hangup,
        reloader, run_on_cores, workers,
    },
    quotas::Quotas,
    signals::{Hangups, Signals},
    suggest::from_journal,
};
use crate::{
    admin::Operations,
    base::Kind,
    config::{
        self, Loaded,
        raw::{self, Raw},
        scalar::Size,
    },
    node::{
        db::Options,
        http::{self, Node},
    },
    proxy::{self, Proxy},
    telemetry::{metrics::Metrics, profile},
};

/// Time between two scrapes of Weir's own metrics.
const SCRAPE_EVERY: Duration = Duration::from_secs(15);

/// Where the all-in-one listens and keeps its data.
#[derive(Debug, Args)]
pub(super) struct AllInOne {
    /// The configuration, with the keys of `weir proxy` and those of the storage node below `node:`. Where it names no
    /// backends, the storage node is the one.
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Folder for samples, learned costs and the journal of queries.
    #[arg(long, value_name = "DIR", default_value = "./weir-data")]
    data: PathBuf,
    /// Address of the query API; port 0 takes a free one.
    ///
    /// 127.0.0.1:9099, or that of the configuration.
    #[arg(long, value_name = "ADDRESS")]
    listen: Option<SocketAddr>,
    /// Address of metrics and health: 127.0.0.1:9098, or that of the configuration.
    #[arg(long, value_name = "ADDRESS")]
    admin_listen: Option<SocketAddr>,
    /// Address of the storage node: remote write, imports, and queries without limits.
    ///
    /// 127.0.0.1:9097, or that of the configuration.
    #[arg(long, value_name = "ADDRESS")]
    node_listen: Option<SocketAddr>,
    /// Answer with profiles on `/debug/pprof/` of the admin address.
    #[arg(long)]
    profiling: bool,
}

pub(super) fn run(args: AllInOne) -> ExitCode {
    let loaded = match &args.config {
        Some(file) => config::load_file(file),
        None => config::load_text("built in", "", &|_| None),
    };
    let loaded = match loaded {
        Ok(loaded) => loaded,
        Err(report) => return output::err(report, BAD_INPUT),
    };
    let telemetry = &loaded.raw.telemetry;
    // Without a file the log is read on a terminal.
    let filter = if args.config.is_some() { &telemetry.log } else { "warn" };
    let _flushed_at_the_end = match init_log(filter, telemetry.log_format) {
        Ok(flush) => flush,
        Err(error) => return output::err(error, BAD_INPUT),
    };
    if args.profiling || telemetry.profiling.enabled {
        profile::enable();
    }
    run_on_cores(serve(args, loaded))
}

async fn serve(args: AllInOne, loaded: Loaded) -> Result<(), String> {
    let hangups = Hangups::listen();
    let raw = &loaded.raw;
    let listener = bind(args.listen.unwrap_or(raw.server.listen.0), "--listen")?;
    let admin_listener = bind(args.admin_listen.unwrap_or(raw.server.admin_listen.0), "--admin-listen")?;
    let node_listener = bind(args.node_listen.unwrap_or(raw.node.listen.0), "--node-listen")?;
    let address = |listener: &tokio::net::TcpListener| listener.local_addr().map_err(|e| e.to_string());
    let (queries, node_address) = (address(&listener)?, address(&node_listener)?);

    let (stop, stopped) = watch::channel(());
    let (options, node_settings) = config::resolve_node(&raw.node);
    let db = open(&args.data.join("node"), Options { clock: now_ms, ..options })?;
    let node = Node::new(db, node_settings).map_err(|error| format!("metrics: {error}"))?;
    let metrics = Arc::new(Metrics::new(TENANT_LABELS_MAX).map_err(|error| format!("metrics: {error}"))?);
    let memory = Memory::open(args.data.clone())?;
    let lends = node.pool_bytes();
    let settings = proxy_settings(raw, node_address, lends)?;

    // The settings are in force; without this a fresh process would look like one with a broken file.
    metrics.reloaded(true, now_ms() / 1_000);
    let mut background = JoinSet::new();
    background.spawn(super::node::maintain(Arc::clone(&node)));
    background.spawn(memory.clone().keep());
    let ended = stopped.clone();
    let serving = tokio::spawn(http::serve(node_listener, Arc::clone(&node), until(ended)));
    let proxy = Proxy::new(settings, metrics, Arc::clone(&memory.history), now_ms);
    proxy.keep_rules_in(&args.data);
    let quotas = Quotas::open(&args.data, &proxy);
    background.spawn(quotas.clone().keep());
    // Dropped at the end, with everything on disk.
    let journal = journal::keep(&raw.journal, &args.data, &proxy);
    let mut scrape =
        Scrape { proxy: Arc::clone(&proxy), node: Arc::clone(&node), instance: queries.to_string() };
    // Before the addresses are printed: the first query finds data.
    scrape.once().await;
    // After it: the label table of the node then includes the scraped series.
    proxy.warm().await;
    background.spawn(scrape.forever());
    let reload = match &args.config {
        Some(file) => {
            let resolve = move |raw: &Raw| proxy_settings(raw, node_address, lends);
            let reloader = Arc::new(reloader(file, loaded, &proxy, resolve));
            background.spawn(reload_on_hangup(hangups, Arc::clone(&reloader), Arc::clone(&proxy)));
            background.spawn(reload_on_change(Arc::clone(&reloader), Arc::clone(&proxy)));
            Some(reload_by(&proxy, &reloader))
        }
        None => {
            background.spawn(hangups.ignore());
            None
        }
    };
    let operations = Operations { reload, suggest: journal.as_ref().map(|_| from_journal(&args.data)) };
    let (admin, admin_thread) = admin_lane(admin_listener, &proxy, operations, stopped)?;
    let signals = Signals::listen();
    output::out(greeting(queries, admin, node_address, node.pool_size()), 0);

    signals.serve(proxy::serve(listener, proxy, workers()?, signals.first())).await;
    background.shutdown().await;
    memory.save();
    quotas.save();
    drop(stop);
    end_of(admin_thread).await;
    // The node ends after the proxy, whose queries it answers; nobody waits for the rest of its answers.
    if tokio::time::timeout(Duration::from_secs(2), serving).await.is_err() {
        tracing::debug!("connections to the node were still open");
    } else {
        node.check_pools();
    }
    Ok(())
}

/// Ends when the sender is gone.
pub(super) async fn until(mut stopped: watch::Receiver<()>) {
    // The sender's end is the signal.
    let _ = stopped.changed().await;
}

/// The configuration; where it names no backends, with the node for one, and the bytes that its pools lend for a
/// budget.
fn proxy_settings(raw: &Raw, node: SocketAddr, lends: Option<u64>) -> Result<proxy::Settings, String> {
    let mut raw = raw.clone();
    if raw.backends == Raw::default().backends {
        let mut backend = raw::Backend {
            name: "node".to_owned(),
            kind: Kind::Weir,
            urls: vec![format!("http://{node}")],
            ..raw::Backend::default()
        };
        if let Some(bytes) = lends.and_then(NonZeroU64::new) {
            backend.budget.memory = Size(bytes);
        }
        raw.backends = vec![backend];
    }
    config::resolve(&raw)
}

fn greeting(queries: SocketAddr, admin: SocketAddr, node: SocketAddr, pool: &str) -> String {
    format!(
        "Weir serves
  queries         http://{queries}   (point Grafana here: data source type Prometheus)
  metrics, health http://{admin}
  storage node    http://{node}   (remote write: /api/v1/write)
On the node {pool}.
It stores its own metrics every {} s. Try:
  curl -s 'http://{queries}/api/v1/query?query=process_resident_memory_bytes'",
        SCRAPE_EVERY.as_secs(),
    )
}

/// Puts Weir's own metrics into the node.
struct Scrape {
    proxy: Arc<Proxy>,
    node: Arc<Node>,
    instance: String,
}

impl Scrape {
    async fn forever(mut self) {
        let mut tick = tokio::time::interval(SCRAPE_EVERY);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        // The first comes at once, and was made before.
        tick.tick().await;
        loop {
            tick.tick().await;
            self.once().await;
        }
    }

    async fn once(&mut self) {
        let (proxy, node, instance) =
            (Arc::clone(&self.proxy), Arc::clone(&self.node), self.instance.clone());
        let scrape = move || {
            let texts = [proxy.metrics_text(), node.metrics_text()];
            let mut text = "up 1\n".to_owned();
            for one in texts {
                text += &one.map_err(|error| error.to_string())?;
            }
            let added = [("instance", instance.as_str()), ("job", "weir")];
            http::store_metrics(node.db(), &text, now_ms(), &added)
        };
        // Writing waits for the disk.
        match tokio::task::spawn_blocking(scrape).await {
            Ok(Ok(samples)) => tracing::debug!(samples, "stored Weir's own metrics"),
            Ok(Err(error)) => tracing::warn!(error, "Weir's own metrics are not stored"),
            Err(error) => tracing::warn!(%error, "Weir's own metrics are not stored"),
        }
    }
}
