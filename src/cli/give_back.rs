//! Gives free memory back to the system after a burst.

use std::{
    fs,
    time::{Duration, Instant},
};

use super::system::{allocated_bytes, give_back_memory};

/// Time between two looks: a burst of queries that takes its memory in other pieces than the one before finds the free
/// ones given back.
const EVERY: Duration = Duration::from_secs(1);
/// Time until memory is given back once more: a burst that ends frees for a while, and the first time comes in its
/// midst.
const AGAIN: Duration = Duration::from_secs(5);
/// Free bytes that are worth the milliseconds which giving them back takes.
const WORTH: u64 = 8 << 20;
/// The same for a node, as a part of its pool's size.
const WORTH_OF_POOL: u64 = 16;

/// Gives memory back whenever enough of it is free, until the future is dropped; `pool` is the bytes that a pool in the
/// process lends.
pub(super) async fn whenever_worth_it(pool: Option<u64>) {
    let worth = pool.map_or(WORTH, |bytes| (bytes / WORTH_OF_POOL).min(WORTH));
    let Some(unused) = unused_bytes() else { return };
    let mut watch = Watch { least: unused, worth, again: None };
    loop {
        tokio::time::sleep(EVERY).await;
        if !unused_bytes().is_some_and(|unused| watch.is_worth_it(unused, Instant::now())) {
            continue;
        }
        // A panic in it is in the log.
        let _ = tokio::task::spawn_blocking(give_back_memory).await;
        watch.least = unused_bytes().unwrap_or(watch.least);
    }
}

/// Bytes resident and not allocated: free memory, and the process' code and stacks.
fn unused_bytes() -> Option<u64> {
    let status = fs::read_to_string("/proc/self/status").ok()?;
    let resident = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    let kib: u64 = resident.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some((kib << 10).saturating_sub(allocated_bytes()?))
}

/// Compares with the least that was unused: part of it is never free, and part of it cannot be given back.
struct Watch {
    least: u64,
    worth: u64,
    /// When memory is given back once more.
    again: Option<Instant>,
}

impl Watch {
    fn is_worth_it(&mut self, unused: u64, now: Instant) -> bool {
        self.least = self.least.min(unused);
        if unused - self.least >= self.worth {
            self.again = Some(now + AGAIN);
            return true;
        }
        self.again.take_if(|at| *at <= now).is_some()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_became_free_since_is_given_back() {
        let start = Instant::now();
        let mut watch = Watch { least: 50 << 20, worth: 16 << 20, again: None };
        let looks = [(0, 50, false), (1, 30, false), (2, 45, false), (3, 46, true), (4, 46, true)];
        for (second, mib, worth) in looks {
            assert_eq!(watch.is_worth_it(mib << 20, start + Duration::from_secs(second)), worth, "{mib}");
        }
        // Memory that could not be given back is no reason to try again, but for once, when a burst is surely over.
        watch.least = 46 << 20;
        let looks = [
            (5, 61, false),
            (8, 61, false),
            (9, 61, true),
            (10, 61, false),
            (99, 61, false),
            (100, 62, true),
        ];
        for (second, mib, worth) in looks {
            assert_eq!(watch.is_worth_it(mib << 20, start + Duration::from_secs(second)), worth, "{second}");
        }
    }

    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    #[test]
    fn the_allocator_says_what_it_handed_out() {
        let before = allocated_bytes().unwrap();
        let held = vec![1_u8; 64 << 20];
        assert!(allocated_bytes().unwrap() >= before + (48 << 20) && unused_bytes().is_some());
        drop(held);
    }
}
