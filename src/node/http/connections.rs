//! The connections of clients, and their metrics.

use std::{net::IpAddr, sync::Arc};

use prometheus::{IntCounterVec, IntGauge, Opts, Registry};

use crate::http::{ConnectionLimits, Connections, Counts};

/// The other end of a connection.
#[derive(Clone, Copy, Debug)]
pub(super) struct Peer(pub(super) IpAddr);

/// The connections of clients, and their metrics.
#[derive(Debug)]
pub(super) struct ClientConnections {
    pub(super) connections: Arc<Connections>,
    open: IntGauge,
    max: IntGauge,
    lost: IntCounterVec,
}

impl ClientConnections {
    /// Connections within `limits`, counted in `registry`.
    pub(super) fn new(limits: ConnectionLimits, registry: &Registry) -> prometheus::Result<Self> {
        let open = IntGauge::new("weir_node_connections", "Open connections of clients.")?;
        let max = IntGauge::new("weir_node_connections_max", "Most connections of clients.")?;
        let help = "Unused connections closed to make room, and connections refused because all were in use.";
        let lost = IntCounterVec::new(Opts::new("weir_node_connections_lost_total", help), &["outcome"])?;
        registry.register(Box::new(open.clone()))?;
        registry.register(Box::new(max.clone()))?;
        registry.register(Box::new(lost.clone()))?;
        Ok(Self { connections: Connections::new(limits), open, max, lost })
    }

    /// Brings the metrics up to date.
    pub(super) fn show(&self) {
        let Counts { open, max, evicted, refused } = self.connections.counts();
        self.open.set(open as i64);
        self.max.set(max as i64);
        for (outcome, total) in [("evicted", evicted), ("refused", refused)] {
            let counter = self.lost.with_label_values(&[outcome]);
            counter.inc_by(total.saturating_sub(counter.get()));
        }
    }
}
