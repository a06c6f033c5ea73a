//! The fuzz targets over their seeds, and over seeded random changes of them: nothing panics, grows without bound or
//! takes long, and sound input is accepted.

#[path = "../../fuzz/src/targets/mod.rs"]
#[allow(unreachable_pub, reason = "public in the package for fuzzing")]
mod targets;

use std::{
    fs,
    panic::{AssertUnwindSafe, catch_unwind},
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use targets::{TARGETS, Target};

use crate::support::memory::peak_of;

/// Far above the need of any of them, for a machine that is busy with other things.
const TIME_MAX: Duration = Duration::from_secs(5);
/// Most memory that one small input may take at a time, bytes.
const MEMORY_MAX: usize = 16 << 20;
/// Longer seeds are run as they are only.
const CHANGED_MAX: usize = 1 << 10;

fn committed(name: &str) -> Vec<(PathBuf, Vec<u8>)> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/seeds").join(name);
    let mut found: Vec<_> = fs::read_dir(&folder)
        .unwrap_or_else(|error| panic!("{}: {error}", folder.display()))
        .map(|entry| entry.unwrap().path())
        .map(|path| (path.clone(), fs::read(path).unwrap()))
        .collect();
    found.sort();
    found
}

/// Runs one input; on a defect the input is part of the message.
fn run(target: &Target, input: &[u8]) -> bool {
    let started = Instant::now();
    let (outcome, memory) = peak_of(|| catch_unwind(AssertUnwindSafe(|| (target.run)(input))));
    let (name, shown) = (target.name, input.escape_ascii());
    assert!(outcome.is_ok(), "{name}: a panic on b\"{shown}\"");
    assert!(memory < MEMORY_MAX, "{name}: {memory} bytes for b\"{shown}\"");
    assert!(started.elapsed() < TIME_MAX, "{name}: {:?} for b\"{shown}\"", started.elapsed());
    outcome.unwrap_or_default()
}

/// A bit flipped, bytes replaced, cut off, repeated, or a part of another seed put in.
fn changed(seeds: &[Vec<u8>], random: &mut fastrand::Rng) -> Vec<u8> {
    let mut input = seeds[random.usize(..seeds.len())].clone();
    for _ in 0..random.usize(1..4) {
        let at = random.usize(..=input.len());
        let to = (at + random.usize(1..16)).min(input.len());
        match random.u8(..6) {
            0 | 1 if at < input.len() => input[at] ^= 1 << random.u8(..8),
            2 => input[at..to].fill_with(|| random.u8(..)),
            3 => input.truncate(at),
            4 => {
                let part = input[at..to].to_vec();
                input.splice(at..at, part);
            }
            _ => {
                let other = &seeds[random.usize(..seeds.len())];
                let from = random.usize(..=other.len());
                let part = &other[from..(from + random.usize(1..64)).min(other.len())];
                input.splice(at..to, part.iter().copied());
            }
        }
    }
    input
}

fn fuzz(name: &str) {
    let target = TARGETS.iter().find(|target| target.name == name).unwrap();
    let mut seeds = (target.seeds)();
    for seed in &seeds {
        assert!(run(target, seed), "{name}: refused: b\"{}\"", seed.escape_ascii());
    }
    for (_, seed) in committed(name) {
        run(target, &seed);
        if seed.len() <= CHANGED_MAX {
            seeds.push(seed);
        }
    }
    let mut random = fastrand::Rng::with_seed(20);
    for _ in 0..target.rounds {
        run(target, &changed(&seeds, &mut random));
    }
}

macro_rules! each {
    ($($name:ident)*) => {
        $(#[test]
        fn $name() {
            fuzz(stringify!($name));
        })*

        #[test]
        fn every_target_is_run_and_has_a_binary() {
            let run = [$(stringify!($name)),*];
            assert_eq!(TARGETS.iter().map(|target| target.name).collect::<Vec<_>>(), run);
            let manifest = include_str!("../../fuzz/Cargo.toml");
            for name in run {
                assert!(manifest.contains(&format!("path = \"fuzz_targets/{name}.rs\"")), "{name}");
            }
        }
    };
}

each! { log log_record block block_signed chunk remote_write remote_read snappy exposition promql pattern enforcement enforcement_read }

#[test]
#[ignore = "writes the seeds of the targets into fuzz/seeds again, for cargo fuzz to begin with"]
fn write_seeds() {
    for target in TARGETS {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/seeds").join(target.name);
        fs::create_dir_all(&folder).unwrap();
        for (i, seed) in (target.seeds)().iter().enumerate() {
            fs::write(folder.join(format!("sound-{i}")), seed).unwrap();
        }
    }
}
