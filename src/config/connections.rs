//! The `connections:` of each listener.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{
    defaults::lit,
    scalar::{Count, Share, Span},
};
use crate::http::{ConnectionLimits, within_open_files};

/// Declares the connections of one listener, since each has a default of its own for the keys that are not written.
macro_rules! connections {
    ($($(#[$doc:meta])* $name:ident: $max:literal;)*) => {$(
        $(#[$doc])*
        #[derive(Clone, Debug, Deserialize, JsonSchema, PartialEq, Serialize)]
        #[serde(default, deny_unknown_fields)]
        pub struct $name {
            /// Most connections, within half of the files that the process may open. Where all are in use, the longest
            /// unused one is closed.
            pub max: Count,
            /// The share of them that one client address may have; of one /64 network for IPv6.
            pub per_client: Share,
            /// A connection on which no request begins for this long is closed.
            pub idle: Span,
        }

        impl Default for $name {
            fn default() -> Self {
                Self { max: lit($max), per_client: lit("25%"), idle: lit("95s") }
            }
        }

        impl $name {
            /// The limits of the listener.
            pub fn resolve(&self) -> ConnectionLimits {
                let max = within_open_files(usize::try_from(self.max.0.get()).unwrap_or(usize::MAX));
                let per_client = max.saturating_mul(self.per_client.percent().into()).div_ceil(100);
                ConnectionLimits { max, per_client, idle: self.idle.duration() }
            }
        }
    )*};
}

connections! {
    /// Client connections of the query API.
    Connections: "8_192";
    /// Client connections of the admin API: a scraper, some people and their browsers.
    AdminConnections: "256";
    /// Client connections of the storage node.
    NodeConnections: "4_096";
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_share_is_at_least_one_connection() {
        let written = NodeConnections { max: lit("3"), ..NodeConnections::default() };
        let expected = ConnectionLimits { max: 3, per_client: 1, idle: ConnectionLimits::IDLE };
        assert_eq!(written.resolve(), expected);
        assert_eq!(AdminConnections::default().resolve(), ConnectionLimits::of(256));
    }
}
