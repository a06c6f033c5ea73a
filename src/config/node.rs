//! The configuration of `weir node`.

use std::{num::NonZeroU64, path::Path as FilePath};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{
    connections::NodeConnections,
    defaults::lit,
    diagnostic::Report,
    diff::changes,
    env,
    load::{Loaded, START_FROM, checked_tree, load_text, read},
    pool::Pool,
    raw::{LogFormat, Profiling},
    recent::ReadQuota,
    scalar::{Count, Limit, Listen, Size, Span},
    tree,
};
use crate::node::{db::Options, engine::Limits, http::Settings, wal::SyncPolicy};

/// Configuration of the storage node.
#[derive(Clone, Debug, Deserialize, JsonSchema, PartialEq, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct RawNode {
    /// Where the node listens.
    pub listen: Listen,
    /// Client connections.
    pub connections: NodeConnections,
    /// Retention and bounds of the samples.
    pub storage: Storage,
    /// Bounds of reads.
    pub reads: Reads,
    /// Where the memory of reads comes from.
    pub pool: Pool,
    /// Bounds of all reads within a window that slides.
    pub recent: ReadQuota,
    /// Logs and profiles.
    pub telemetry: Telemetry,
}

/// Logs and profiles; the proxy's has traces too.
#[derive(Clone, Debug, Deserialize, JsonSchema, PartialEq, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct Telemetry {
    /// Log filter such as `info` or `weir=debug`; the environment variable `WEIR_LOG` overrides it.
    pub log: String,
    /// Form of a log line.
    pub log_format: LogFormat,
    /// Profiles of this process, for its developers.
    pub profiling: Profiling,
}

/// Retention and bounds of the samples.
#[derive(Clone, Debug, Deserialize, JsonSchema, PartialEq, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct Storage {
    /// How long samples are kept, behind the newest of all, which never counts beyond the clock.
    pub retention: Span,
    /// The most bytes of blocks and log on the disk; beyond it the oldest blocks go.
    pub size: Limit<Size>,
    /// How far behind the newest sample of all a late one may be.
    pub out_of_order: Span,
    /// The time that one block covers when it is sealed; larger ones are made by merging.
    pub block: Span,
    /// How far ahead of the clock a sample may be.
    pub ahead: Span,
    /// Series held at most; new ones are refused beyond it.
    pub series: Count,
    /// When the log is forced to the disk.
    pub sync: Sync,
    /// The largest body of a write, as sent and once unpacked. All writes together hold four times that of each.
    pub write: Size,
}

/// When the log is forced to the disk.
#[derive(Clone, Copy, Debug, Deserialize, JsonSchema, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Sync {
    /// Before a write is acknowledged: nothing is lost when the machine fails.
    Always,
    /// When the system likes: nothing is lost when only the process fails.
    Never,
}

/// Bounds of reads.
#[derive(Clone, Debug, Deserialize, JsonSchema, PartialEq, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct Reads {
    /// Reads that run at the same time.
    pub running: Count,
    /// Reads that run, wait to run or are being sent; more are refused.
    pub outstanding: Count,
    /// The longest that a read may take.
    pub timeout: Span,
    /// Time after which a client that takes no byte of its answer is disconnected.
    pub stall: Span,
    /// How long a sample stays visible to an instant vector.
    pub lookback: Span,
    /// Series that one query may read.
    pub series: Count,
    /// Samples that one query may read.
    pub samples: Count,
    /// Values that one query may hold at the same time.
    pub points: Count,
    /// Steps of a range query.
    pub steps: Count,
    /// Entries of a list of series, names or values.
    pub list: Count,
}

impl Default for RawNode {
    fn default() -> Self {
        Self {
            listen: lit("127.0.0.1:9097"),
            connections: NodeConnections::default(),
            storage: Storage::default(),
            reads: Reads::default(),
            pool: Pool::default(),
            recent: ReadQuota::default(),
            telemetry: Telemetry::default(),
        }
    }
}

impl Default for Telemetry {
    fn default() -> Self {
        Self { log: "info".to_owned(), log_format: LogFormat::Text, profiling: Profiling::default() }
    }
}

impl Default for Storage {
    fn default() -> Self {
        Self {
            retention: lit("15d"),
            size: Limit::Unlimited,
            out_of_order: lit("30m"),
            block: lit("2h"),
            ahead: lit("10m"),
            series: lit("2_000_000"),
            sync: Sync::Always,
            write: lit("64MiB"),
        }
    }
}

impl Default for Reads {
    fn default() -> Self {
        Self {
            running: lit("20"),
            outstanding: lit("200"),
            timeout: lit("2m"),
            stall: lit("30s"),
            lookback: lit("5m"),
            series: lit("1_000_000"),
            samples: lit("50_000_000"),
            points: lit("50_000_000"),
            steps: lit("11_001"),
            list: lit("1_000_000"),
        }
    }
}

/// Reads and checks a file, with `${NAME}` taken from the environment.
pub fn load_node_file(path: &FilePath) -> Result<RawNode, Report> {
    let (name, text) = read(path, "without --config the defaults apply")?;
    load_node_text(&name, &text, &env::var).map_err(|report| match keys(&text) {
        [of_node, of_proxy] if of_proxy > of_node => {
            Report::of_file(&name, "this is a configuration of `weir proxy`, not of `weir node`")
        }
        _ => report,
    })
}

/// The difference of two configurations of a node: the keys that a running one takes over ([`Node::set_read_limits`]),
/// and those that wait for its next start.
///
/// [`Node::set_read_limits`]: crate::node::http::Node::set_read_limits
pub fn node_changes(old: &RawNode, new: &RawNode) -> (Vec<String>, Vec<String>) {
    const LIVE: [&str; 7] = ["series", "samples", "points", "steps", "list", "timeout", "lookback"];
    let is_live = |line: &String| {
        let key = line.strip_prefix("reads.").and_then(|rest| rest.split_once(':'));
        key.is_some_and(|(key, _)| LIVE.contains(&key))
    };
    changes(old, new).into_iter().partition(is_live)
}

/// The result of reading a file.
#[derive(Debug)]
pub enum Checked {
    /// The configuration of a proxy, with warnings.
    Proxy(Box<Loaded>),
    /// That of a storage node.
    Node,
}

/// Reads and checks a file of either kind.
///
/// # Errors
/// All of its mistakes.
pub fn check_file(path: &FilePath) -> Result<Checked, Report> {
    let (name, text) = read(path, START_FROM)?;
    if is_node(&text) {
        load_node_text(&name, &text, &env::var).map(|_| Checked::Node)
    } else {
        load_text(&name, &text, &env::var).map(|loaded| Checked::Proxy(Box::new(loaded)))
    }
}

/// Whether a file is the node's configuration rather than the proxy's: it has more of the node's keys than of the
/// proxy's.
pub(super) fn is_node(text: &str) -> bool {
    let [of_node, of_proxy] = keys(text);
    of_node > of_proxy
}

/// Keys of a file that the node knows, and those that the proxy knows; none of a file that is not YAML.
fn keys(text: &str) -> [usize; 2] {
    let Ok(written) = tree::parse(text) else { return [0; 2] };
    let written = written.to_json();
    let keys_of = |schema: serde_json::Value| {
        let known = schema.get("properties").and_then(serde_json::Value::as_object);
        let known = |key: &&String| known.is_some_and(|known| known.contains_key(*key));
        written.as_object().map_or(0, |written| written.keys().filter(known).count())
    };
    [schemars::schema_for!(RawNode).to_value(), super::raw::schema()].map(keys_of)
}

/// Checks a configuration held in memory; `lookup` answers for `${NAME}`.
pub fn load_node_text(
    file: &str,
    text: &str,
    lookup: &dyn Fn(&str) -> Option<String>,
) -> Result<RawNode, Report> {
    let node = checked_tree(file, text, &schemars::schema_for!(RawNode).to_value(), lookup)?;
    // The schema has passed, so that this fails only if the two disagree.
    let raw: RawNode =
        serde_json::from_value(node.to_json()).map_err(|error| Report::of_file(file, error.to_string()))?;
    let wrong: Vec<_> = [raw.pool.check(&node), raw.recent.check(&node)].into_iter().flatten().collect();
    if wrong.is_empty() { Ok(raw) } else { Err(Report::new(file, wrong)) }
}

/// The settings of the database and its API.
pub fn resolve_node(raw: &RawNode) -> (Options, Settings) {
    let (storage, reads) = (&raw.storage, &raw.reads);
    let size = |n: NonZeroU64| usize::try_from(n.get()).unwrap_or(usize::MAX);
    let options = Options {
        max_series: size(storage.series.0),
        out_of_order_ms: storage.out_of_order.ms().get(),
        retention_ms: storage.retention.ms().get(),
        size_bytes: storage.size.at().map_or(u64::MAX, |size| size.0.get()),
        block_ms: storage.block.ms().get(),
        max_ahead_ms: storage.ahead.ms().get(),
        sync: match storage.sync {
            Sync::Always => SyncPolicy::Always,
            Sync::Never => SyncPolicy::Never,
        },
        ..Options::default()
    };
    let defaults = Settings::default();
    let settings = Settings {
        connections: raw.connections.resolve(),
        limits: Limits {
            series: reads.series.0.get(),
            samples: reads.samples.0.get(),
            points: reads.points.0.get(),
        },
        pool: raw.pool.resolve(),
        recent: raw.recent.resolve(),
        lookback_ms: reads.lookback.ms().get(),
        timeout: reads.timeout.duration(),
        stall: reads.stall.duration(),
        reads_running: size(reads.running.0),
        reads_outstanding: size(reads.outstanding.0),
        steps: reads.steps.0.get(),
        list_entries: size(reads.list.0),
        write_bytes: size(storage.write.0),
        ..defaults
    };
    (options, settings)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::node::pool::Buckets;

    #[test]
    fn nothing_written_is_the_default_of_the_modules() {
        let raw = load_node_text("x", "", &|_| None).unwrap();
        assert_eq!(raw, RawNode::default());
        let (options, settings) = resolve_node(&raw);
        let expected = Options::default();
        assert_eq!(settings, Settings::default());
        assert_eq!(
            (options.max_series, options.out_of_order_ms, options.retention_ms, options.max_ahead_ms),
            (expected.max_series, expected.out_of_order_ms, expected.retention_ms, expected.max_ahead_ms)
        );
        assert_eq!(options.sync, expected.sync);
    }

    #[test]
    fn the_sample_is_the_default() {
        let sample = include_str!("../../config/node.yaml");
        assert_eq!(load_node_text("node.yaml", sample, &|_| None).unwrap(), RawNode::default());
    }

    #[test]
    fn mistakes_are_named() {
        let cases = [
            ("lisen: 1", "n.yaml:1:1: lisen: unknown key; did you mean `listen`?"),
            ("reads: {steps: 0}", "reads.steps"),
            ("pool: {mod: bounded}", "n.yaml:1:8: pool.mod: unknown key; did you mean `mode`?"),
            (
                "pool: {mode: unbound}",
                "pool.mode: `unbound` is not one of the values; did you mean `unbounded`?",
            ),
            ("pool: {memory: 4GX}", "n.yaml:1:16: pool.memory: expected a size such as `4GiB` or `512MB`"),
            ("pool: {bytes: [{capacity: 16}]}", "pool.bytes[0]"),
            ("recent: {source: {serie: 1}}", "recent.source.serie: unknown key; did you mean `series`?"),
            (
                "pool: {numbers: [{capacity: 4, count: 99999999999}]}",
                "n.yaml:1:18: pool.numbers[0]: 99,999,999,999 buffers are too many: at most 1,048,576 of one size",
            ),
            (
                "pool: {bytes: [{capacity: 1, count: 1}, {capacity: 1125899906842624, count: 1}]}",
                "n.yaml:1:41: pool.bytes[1]: the buffers up to here take more than the ",
            ),
            (
                "recent: {header: bad header}",
                "n.yaml:1:18: recent.header: `bad header` is not the name of a header",
            ),
            ("pool: {low: 60%}", "n.yaml:1:13: pool.low: a refill that starts at 60% cannot stop at 60%"),
        ];
        for (text, message) in cases {
            let wrong = load_node_text("n.yaml", text, &|_| None).unwrap_err().to_string();
            assert!(wrong.contains(message), "{text}: {wrong}");
        }
        let missing = load_node_text("n.yaml", "reads:\n  series: ${MISSING}", &|_| None).unwrap_err();
        assert_eq!(missing.diagnostics.len(), 1, "a missing variable is one mistake: {missing}");
    }

    #[test]
    fn files_are_told_apart_by_what_most_of_their_keys_are() {
        for (text, node) in [
            ("listen: 127.0.0.1:1", true),
            ("listen: 127.0.0.1:1\nstorrage: {}", true),
            ("reads: {}\nlimits: {}\nrecent: {}", true),
            ("telemetry: {}", false),
            ("backends: []\nlisten: x", false),
            ("nothing: 1", false),
            ("", false),
        ] {
            assert_eq!(is_node(text), node, "{text}");
        }
    }

    #[test]
    fn limits_of_reads_change_at_once_and_the_rest_at_the_next_start() {
        let load = |text| load_node_text("n.yaml", text, &|_| None).unwrap();
        let new = load("reads: {series: 5, timeout: 3s, running: 7}\nstorage: {retention: 1d}");
        let (live, waiting) = node_changes(&RawNode::default(), &new);
        assert_eq!(live, ["reads.series: 1,000,000 -> 5", "reads.timeout: 2m -> 3s"]);
        assert_eq!(waiting, ["reads.running: 20 -> 7", "storage.retention: 15d -> 1d"]);
        assert_eq!(node_changes(&new, &new), (Vec::new(), Vec::new()));
    }

    #[test]
    fn a_pool_is_read() {
        let text =
            "pool: {mode: unbounded, memory: 64MiB, refill: unlimited, numbers: [{capacity: 8, count: 2}]}";
        let pool = resolve_node(&load_node_text("n.yaml", text, &|_| None).unwrap()).1.pool;
        assert_eq!((pool.bounded, pool.memory, pool.refill_per_second), (false, Some(64 << 20), None));
        assert_eq!(pool.numbers, Buckets::of(&[(8, 2)]));
    }
}
