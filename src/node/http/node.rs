//! The node: its database, and the limits and pools of its API.

use std::{net::IpAddr, sync::Arc};

use arc_swap::ArcSwap;
use axum::http::HeaderMap;

use super::{
    Settings,
    connections::ClientConnections,
    error::Failure,
    metrics::Metrics,
    pools::Pools,
    read_limiter::ReadLimiter,
    read_quota::{Counted, ReadQuota},
    write_limiter::WriteLimiter,
};
use crate::{
    node::{db::Db, engine::Workers},
    promql,
};

/// Parsed queries that are kept.
const CACHED_QUERIES: u64 = 1_000;

/// Longer names of sources are no names.
const SOURCE_NAME_MAX: usize = 256;

/// A database, and the limits and pools by which it is served.
#[derive(Debug)]
pub struct Node {
    pub(super) db: Arc<Db>,
    pub(super) settings: ArcSwap<Settings>,
    pub(super) cache: promql::Cache,
    pub(super) reads: ReadLimiter,
    pub(super) workers: Workers,
    pub(super) writes: WriteLimiter,
    pub(super) metrics: Metrics,
    pub(super) pools: Arc<Pools>,
    pub(super) recent: Arc<ReadQuota>,
    pub(super) connections: ClientConnections,
    pub(super) started_ms: i64,
}

impl Node {
    /// A node over a database.
    ///
    /// # Errors
    /// Its metrics cannot be registered.
    pub fn new(db: Arc<Db>, settings: Settings) -> prometheus::Result<Arc<Self>> {
        let started_ms = (db.options().clock)();
        let metrics = Metrics::new()?;
        let pools = Pools::new(&settings.pool, metrics.registry())?;
        Ok(Arc::new(Self {
            reads: ReadLimiter::new(&settings, Arc::clone(&pools.cap)),
            pools: Arc::new(pools),
            recent: ReadQuota::new(settings.recent.clone()),
            workers: Workers::new(settings.query_threads, Workers::SERIES_MIN),
            writes: WriteLimiter::new(settings.write_bytes),
            connections: ClientConnections::new(settings.connections, metrics.registry())?,
            metrics,
            cache: promql::Cache::new(CACHED_QUERIES),
            db,
            settings: ArcSwap::from_pointee(settings),
            started_ms,
        }))
    }

    /// The settings of this moment.
    pub(super) fn settings(&self) -> Arc<Settings> {
        self.settings.load_full()
    }

    /// Replaces the limits of a single read. All else stays as at the start.
    pub fn set_read_limits(&self, new: &Settings) {
        let &Settings { limits, lookback_ms, timeout, steps, list_entries, .. } = new;
        self.settings.rcu(|old| {
            let old = Settings::clone(old);
            Settings { limits, lookback_ms, timeout, steps, list_entries, ..old }
        });
    }

    /// The database.
    pub fn db(&self) -> &Arc<Db> {
        &self.db
    }

    /// Keeps the node small, until the future is dropped: pools that nobody uses shrink.
    pub async fn shrink_pools(self: Arc<Self>) {
        loop {
            tokio::time::sleep(self.settings().pool.idle).await;
            let freed = self.pools.shrink();
            if freed > 0 {
                tracing::debug!(freed, "pools were idle and gave buffers back");
            }
        }
    }

    /// How much memory queries share, and why: a sentence.
    pub fn pool_size(&self) -> &str {
        &self.pools.said
    }

    /// Most bytes that its pools lend; `None` where nothing bounds them.
    pub fn pool_bytes(&self) -> Option<u64> {
        self.pools.lent_at_most()
    }

    /// Logs the memory that queries never gave back; to be asked when none is left. Returns whether all is back.
    pub fn check_pools(&self) -> bool {
        let mut whole = true;
        for (pool, leaked) in self.pools.leaked() {
            tracing::error!(pool, objects = leaked.objects, bytes = leaked.bytes, "a pool leaks");
            whole = false;
        }
        whole
    }

    /// The node's metrics in Prometheus' text format, those of its process included.
    pub fn metrics_text(&self) -> prometheus::Result<String> {
        self.metrics.encode(self)
    }

    pub(super) fn metrics_page(&self) -> prometheus::Result<String> {
        Ok(self.metrics_text()? + &self.metrics.encode_process()?)
    }

    pub(super) fn now_ms(&self) -> i64 {
        (self.db.options().clock)()
    }

    /// Counts a read against the recent reads of its source and of all: by the header that names the source, which
    /// passes through Weir, or else by its address.
    pub(super) fn counted(
        &self,
        headers: &HeaderMap,
        peer: Option<IpAddr>,
    ) -> Result<Option<Arc<Counted>>, Failure> {
        let named = headers.get(self.settings().recent.header.as_str()).and_then(|name| name.to_str().ok());
        let named = named.filter(|name| !name.is_empty() && name.len() <= SOURCE_NAME_MAX).map(str::to_owned);
        let source = named.or_else(|| Some(peer?.to_string())).unwrap_or_default();
        self.recent.begin(&source)
    }
}
