//! `weir node`: the storage node alone.

use std::{
    path::{Path, PathBuf},
    process::ExitCode,
    sync::Arc,
    time::Duration,
};

use clap::Args;

use super::{
    clock::now_ms,
    exit::BAD_INPUT,
    output,
    proxy::{bind, init_log, run_on_cores},
    signals::{Hangups, Signals},
};
use crate::{
    config,
    node::{
        db::{Db, Options},
        http::{self, Node},
    },
    telemetry::profile,
};

/// Time between two rounds of upkeep; a round that finds nothing due is cheap, and the log grows in between.
const MAINTAIN_EVERY: Duration = Duration::from_secs(5);

/// How the node is set up.
#[derive(Debug, Args)]
pub(super) struct NodeArgs {
    /// The configuration; without it, the defaults apply.
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Folder for samples.
    #[arg(long, value_name = "DIR", default_value = "./weir-data")]
    data: PathBuf,
}

pub(super) fn run(args: &NodeArgs) -> ExitCode {
    let loaded = match &args.config {
        Some(file) => config::load_node_file(file),
        None => Ok(config::RawNode::default()),
    };
    let raw = match loaded {
        Ok(raw) => raw,
        Err(report) => return output::err(report, BAD_INPUT),
    };
    let _flushed_at_the_end = match init_log(&raw.telemetry.log, raw.telemetry.log_format) {
        Ok(flush) => flush,
        Err(error) => return output::err(error, BAD_INPUT),
    };
    if raw.telemetry.profiling.enabled {
        profile::enable();
    }
    run_on_cores(serve(&raw, args))
}

async fn serve(raw: &config::RawNode, args: &NodeArgs) -> Result<(), String> {
    let (hangups, data) = (Hangups::listen(), &args.data);
    let listener = bind(raw.listen.0, "listen")?;
    let address = listener.local_addr().map_err(|error| error.to_string())?;
    let (options, settings) = config::resolve_node(raw);
    let db = open(&data.join("node"), Options { clock: now_ms, ..options })?;
    let node = Node::new(Arc::clone(&db), settings).map_err(|error| format!("metrics: {error}"))?;
    tracing::info!("{}", node.pool_size());
    let reloading = reload(hangups, args.config.clone(), raw.clone(), Arc::clone(&node));
    let reloading = tokio::spawn(reloading);
    let maintaining = tokio::spawn(maintain(Arc::clone(&node)));
    let signals = Signals::listen();
    tracing::info!(%address, "ready: remote write to http://{address}/api/v1/write");
    let whole = signals.serve(http::serve(listener, Arc::clone(&node), signals.first())).await;
    maintaining.abort();
    reloading.abort();
    // Threads may still hold the answers that were cut.
    if whole {
        node.check_pools();
    }
    Ok(())
}

/// Reads the file again at each SIGHUP; a file with a mistake changes nothing.
async fn reload(mut hangups: Hangups, file: Option<PathBuf>, mut raw: config::RawNode, node: Arc<Node>) {
    let Some(file) = file else { return hangups.ignore().await };
    while hangups.next().await.is_some() {
        let again = file.clone();
        let new = match tokio::task::spawn_blocking(move || config::load_node_file(&again)).await {
            Ok(Ok(new)) => new,
            Ok(Err(report)) => {
                tracing::warn!("the configuration stays as it was:\n{report}");
                continue;
            }
            Err(error) => {
                tracing::warn!(%error, "the configuration was not read");
                continue;
            }
        };
        let (changed, waiting) = config::node_changes(&raw, &new);
        node.set_read_limits(&config::resolve_node(&new).1);
        tracing::info!(changed = changed.join(", "), "configuration reloaded");
        if !waiting.is_empty() {
            tracing::warn!(settings = waiting.join(", "), "these settings change at the next start");
        }
        raw = new;
    }
}

/// Opens the database in a folder, and logs its state.
pub(super) fn open(folder: &Path, options: Options) -> Result<Arc<Db>, String> {
    let failed = |error| format!("no samples can be kept in {}: {error}", folder.display());
    let (db, replayed) = Db::open(folder, options).map_err(failed)?;
    if replayed.damaged > 0 {
        let (places, bytes) = (replayed.damaged, replayed.damaged_bytes);
        let damage = replayed.damage.join("; ");
        tracing::warn!(places, bytes, damage, "parts of the log are lost");
    }
    if !replayed.gaps.is_empty() {
        let missing = replayed.gaps.join(", ");
        tracing::warn!(missing, "files of the log are missing, and their samples are lost");
    }
    if replayed.torn_bytes > 0 {
        let bytes = replayed.torn_bytes;
        tracing::warn!(bytes, "the end of the log could not be read and was cut off");
    }
    tracing::info!(records = replayed.records, bytes = replayed.bytes, "read the log back");
    Ok(Arc::new(db))
}

/// Keeps the node small, until the future is dropped.
pub(super) async fn maintain(node: Arc<Node>) {
    let database = maintain_database(Arc::clone(node.db()));
    tokio::join!(database, node.shrink_pools());
}

async fn maintain_database(db: Arc<Db>) {
    loop {
        let round = Arc::clone(&db);
        match tokio::task::spawn_blocking(move || round.maintain()).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => tracing::warn!(%error, "part of the upkeep failed, and is tried again"),
            Err(error) => tracing::warn!(%error, "the database was not maintained"),
        }
        tokio::time::sleep(MAINTAIN_EVERY).await;
    }
}
