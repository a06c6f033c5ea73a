//! Free memory goes back to the system after a burst: of connections, of answers, of whatever it was.

use std::{fs, time::Duration};

use super::system::{allocated_bytes, give_back_memory};

/// Time between two looks: a burst of queries that takes its memory in other pieces than the one before finds the free ones
/// given back.
const EVERY: Duration = Duration::from_secs(1);
/// Free bytes that are worth the milliseconds which giving them back takes.
const WORTH: u64 = 8 << 20;
/// The same for a node, as a part of its pool's size.
const WORTH_OF_POOL: u64 = 16;

/// Gives memory back whenever enough of it is free, until the future is dropped; `pool` is what a pool in the process lends.
pub(super) async fn whenever_worth_it(pool: Option<u64>) {
    let worth = pool.map_or(WORTH, |bytes| (bytes / WORTH_OF_POOL).min(WORTH));
    let Some(unused) = unused_bytes() else { return };
    let mut watch = Watch { least: unused, worth };
    loop {
        tokio::time::sleep(EVERY).await;
        if !unused_bytes().is_some_and(|unused| watch.is_worth_it(unused)) {
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
}

impl Watch {
    fn is_worth_it(&mut self, unused: u64) -> bool {
        self.least = self.least.min(unused);
        unused - self.least >= self.worth
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_became_free_since_is_given_back() {
        let mut watch = Watch { least: 50 << 20, worth: 16 << 20 };
        let looks = [(50, false), (30, false), (45, false), (46, true), (46, true)];
        for (mib, worth) in looks {
            assert_eq!(watch.is_worth_it(mib << 20), worth, "{mib}");
        }
        // Memory that could not be given back is no reason to try again.
        watch.least = 46 << 20;
        assert!(!watch.is_worth_it(61 << 20) && watch.is_worth_it(62 << 20));
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
