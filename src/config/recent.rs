//! The `recent:` section of the node's configuration.

use http::HeaderName;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{
    defaults::lit,
    diagnostic::{Diagnostic, Path, Position},
    scalar::{Count, Limit, Size, Span},
    tree,
};
use crate::node::http::{QuotaLimit, QuotaSettings};

/// Bounds of all reads within a window that slides.
#[derive(Clone, Debug, Deserialize, JsonSchema, PartialEq, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct ReadQuota {
    /// How far back the window reaches.
    pub window: Span,
    /// The header that names the reader; without it, the client's address does.
    pub header: String,
    /// Of one source.
    pub source: Amounts,
    /// Of all together.
    pub all: Amounts,
}

/// Most of each.
#[derive(Clone, Copy, Debug, Deserialize, JsonSchema, PartialEq, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct Amounts {
    /// Series, once for every selector that reads them.
    pub series: Limit<Count>,
    /// Samples.
    pub samples: Limit<Count>,
    /// Bytes of them as they are stored.
    pub bytes: Limit<Size>,
}

impl Default for ReadQuota {
    fn default() -> Self {
        Self {
            window: lit("15s"),
            header: "X-Scope-OrgID".to_owned(),
            source: Amounts::default(),
            all: Amounts::default(),
        }
    }
}

impl Default for Amounts {
    fn default() -> Self {
        Self { series: Limit::Unlimited, samples: Limit::Unlimited, bytes: Limit::Unlimited }
    }
}

impl Amounts {
    fn resolve(self) -> QuotaLimit {
        let count = |limit: Limit<Count>| limit.at().map_or(u64::MAX, |count| count.0.get());
        QuotaLimit {
            series: count(self.series),
            samples: count(self.samples),
            bytes: self.bytes.at().map_or(u64::MAX, |size| size.0.get()),
        }
    }
}

impl ReadQuota {
    /// Mistakes of the section as a whole.
    pub(super) fn check(&self, root: &tree::Node) -> Option<Diagnostic> {
        HeaderName::try_from(self.header.as_str()).err().map(|_| {
            let node = root.get("recent").and_then(|recent| recent.get("header"));
            let position = node.map_or(Position::default(), |node| node.position);
            let path = Path::default().key("recent").key("header");
            Diagnostic::new(position, &path, format!("`{}` is not the name of a header", self.header))
        })
    }

    pub(super) fn resolve(&self) -> QuotaSettings {
        QuotaSettings {
            window: self.window.duration(),
            header: self.header.clone(),
            source: self.source.resolve(),
            all: self.all.resolve(),
        }
    }
}
