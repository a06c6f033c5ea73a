//! `weir` alone: the proxy before a storage node, both in this process, and the node holding Weir's own metrics.

use std::{net::SocketAddr, path::PathBuf, process::ExitCode, sync::Arc, time::Duration};

use clap::Args;
use tokio::{sync::watch, task::JoinSet, time::MissedTickBehavior};

use super::{
    clock::now_ms,
    exit::BAD_INPUT,
    give_back,
    memory::Memory,
    node::open,
    output,
    proxy::{TENANT_LABELS_MAX, admin_lane, bind, end_of, init_log, run_on_cores, workers},
    signals::{Hangups, Signals},
};
use crate::{
    config,
    node::{
        db::Options,
        http::{self, Node, Settings},
    },
    proxy::{self, Proxy},
    telemetry::{metrics::Metrics, profile},
};

/// Time between two scrapes of Weir's own metrics.
const SCRAPE_EVERY: Duration = Duration::from_secs(15);

/// Where the all-in-one listens and keeps its data.
#[derive(Debug, Args)]
pub(super) struct AllInOne {
    /// Folder for samples and learned costs.
    #[arg(long, value_name = "DIR", default_value = "./weir-data")]
    data: PathBuf,
    /// Address of the query API; port 0 takes a free one.
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:9099")]
    listen: SocketAddr,
    /// Address of metrics and health.
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:9098")]
    admin_listen: SocketAddr,
    /// Address of the storage node: remote write, imports, and queries that nobody weighs.
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:9097")]
    node_listen: SocketAddr,
    /// Answer with profiles on `/debug/pprof/` of the admin address.
    #[arg(long)]
    profiling: bool,
}

pub(super) fn run(args: AllInOne) -> ExitCode {
    let _flushed_at_the_end = match init_log("warn", config::raw::LogFormat::Text) {
        Ok(flush) => flush,
        Err(error) => return output::err(error, BAD_INPUT),
    };
    if args.profiling {
        profile::enable();
    }
    run_on_cores(serve(args))
}

async fn serve(args: AllInOne) -> Result<(), String> {
    let hangups = Hangups::listen();
    let listener = bind(args.listen)?;
    let admin_listener = bind(args.admin_listen)?;
    let node_listener = bind(args.node_listen)?;
    let address = |listener: &tokio::net::TcpListener| listener.local_addr().map_err(|e| e.to_string());
    let (queries, node_address) = (address(&listener)?, address(&node_listener)?);

    let (stop, stopped) = watch::channel(());
    let db = open(&args.data.join("node"), Options { clock: now_ms, ..Options::default() })?;
    let node = Node::new(db, Settings::default()).map_err(|error| format!("metrics: {error}"))?;
    let metrics = Arc::new(Metrics::new(TENANT_LABELS_MAX).map_err(|error| format!("metrics: {error}"))?);
    let memory = Memory::open(args.data.clone())?;
    let settings = proxy_settings(node_address, node.pool_bytes())?;

    // The built-in settings are in force; without this a fresh process would look like one with a broken file.
    metrics.reloaded(true, now_ms() / 1_000);
    let mut background = JoinSet::new();
    background.spawn(hangups.ignore());
    background.spawn(super::node::maintain(Arc::clone(&node)));
    background.spawn(memory.clone().keep());
    let ended = stopped.clone();
    let serving = tokio::spawn(http::serve(node_listener, Arc::clone(&node), until(ended)));
    let proxy = Proxy::new(settings, metrics, Arc::clone(&memory.history), now_ms);
    proxy.keep_rules_in(&args.data);
    let mut scrape =
        Scrape { proxy: Arc::clone(&proxy), node: Arc::clone(&node), instance: queries.to_string() };
    // Before the addresses are printed: the first query finds data.
    scrape.once().await;
    // After it: the label table of the node then includes the scraped series.
    proxy.warm().await;
    background.spawn(scrape.forever());
    background.spawn(give_back::whenever_worth_it(node.pool_bytes()));
    let (admin, admin_thread) = admin_lane(admin_listener, &proxy, None, stopped)?;
    let signals = Signals::listen();
    output::out(greeting(queries, admin, node_address, node.pool_size()), 0);

    signals.serve(proxy::serve(listener, proxy, workers()?, signals.first())).await;
    background.shutdown().await;
    memory.save();
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

/// The defaults of the configuration, with the node for a backend, and the size of its pools for a budget.
fn proxy_settings(node: SocketAddr, lends: Option<u64>) -> Result<proxy::Settings, String> {
    let budget = lends.map(|bytes| format!(", budget: {{memory: {bytes}}}")).unwrap_or_default();
    let yaml = format!("backends: [{{name: node, kind: weir, urls: [\"http://{node}\"]{budget}}}]");
    let loaded = config::load_text("built in", &yaml, &|_| None).map_err(|report| report.to_string())?;
    config::resolve(&loaded.raw)
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
