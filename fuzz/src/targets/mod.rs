//! The fuzz targets, one function per kind of input. The project's own tests run the same functions over the seeds and
//! over random changes of them; `cargo fuzz run <target>` runs them for longer.

mod disk;
mod enforcement;
mod query;
mod wire;

/// One kind of input.
#[derive(Clone, Copy, Debug)]
pub struct Target {
    /// Its name: that of the binary and of the folder of its committed seeds.
    pub name: &'static str,
    /// Reads an input and panics on a defect; says whether it was taken for sound.
    pub run: fn(&[u8]) -> bool,
    /// Sound inputs.
    pub seeds: fn() -> Vec<Vec<u8>>,
    /// How many random changes the normal test tries.
    pub rounds: usize,
}

/// All of them.
pub const TARGETS: &[Target] = &[
    Target { name: "log", run: disk::log, seeds: disk::logs, rounds: 600 },
    Target { name: "log_record", run: disk::log_record, seeds: disk::log_records, rounds: 600 },
    Target { name: "block", run: disk::block, seeds: disk::blocks, rounds: 1_500 },
    Target { name: "block_signed", run: disk::block_signed, seeds: disk::blocks, rounds: 1_500 },
    Target { name: "chunk", run: wire::chunk, seeds: wire::chunks, rounds: 4_000 },
    Target { name: "remote_write", run: wire::remote_write, seeds: wire::remote_writes, rounds: 20_000 },
    Target { name: "remote_read", run: wire::remote_read, seeds: wire::remote_reads, rounds: 20_000 },
    Target { name: "snappy", run: wire::snappy, seeds: wire::snappies, rounds: 6_000 },
    Target { name: "exposition", run: wire::exposition, seeds: wire::expositions, rounds: 20_000 },
    Target { name: "promql", run: query::promql, seeds: query::queries, rounds: 20_000 },
    Target { name: "pattern", run: query::pattern, seeds: query::patterns, rounds: 2_000 },
    Target { name: "enforcement", run: enforcement::enforcement, seeds: enforcement::texts, rounds: 20_000 },
    Target {
        name: "enforcement_read",
        run: enforcement::enforcement_read,
        seeds: enforcement::reads,
        rounds: 20_000,
    },
];
