//! System settings of the process at its start: the one place of this module with `unsafe`.

#![allow(unsafe_code)]

/// When the allocator gives back memory that a burst has freed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum GiveBack {
    /// With the free that empties a page: for a node, whose queries may hold no more than its pool. jemalloc with a delay of
    /// 0.2 s took a quarter more than the pool where it takes a twentieth without.
    AtOnce,
    /// After a second, by a thread of the allocator: for a proxy, whose buffers are soon used again.
    Soon,
}

#[cfg(target_os = "linux")]
const SOON_MS: isize = 1_000;

/// Sets when the allocator gives memory back.
#[cfg(target_os = "linux")]
pub(super) fn set_give_back(when: GiveBack) {
    if let Err(error) = set_delay(if when == GiveBack::AtOnce { 0 } else { SOON_MS }) {
        tracing::warn!(%error, "the allocator keeps freed memory for ten seconds");
    }
    if when == GiveBack::Soon
        && let Err(error) = tikv_jemalloc_ctl::background_thread::write(true)
    {
        tracing::warn!(%error, "the allocator gives memory back only while it is used");
    }
}

/// Sets the delay of all arenas. The thread that writes the log is there already, and one that started before has an arena with
/// the delay of its time, in which a share of all later threads allocates.
#[cfg(target_os = "linux")]
fn set_delay(milliseconds: isize) -> tikv_jemalloc_ctl::Result<()> {
    use tikv_jemalloc_ctl::{arenas, raw};

    // SAFETY: the name ends with a zero and stands for an `ssize_t`, which is an `isize`.
    unsafe { raw::write(b"arenas.dirty_decay_ms\0", milliseconds) }?;
    for number in 0..arenas::narenas::read()? {
        let name = format!("arena.{number}.dirty_decay_ms\0");
        // SAFETY: the same. It fails for an arena that is not there yet, which takes the delay of all when it is made.
        let _not_there = unsafe { raw::write(name.as_bytes(), milliseconds) };
    }
    Ok(())
}

/// The cache of a thread of a node: by range of sizes in bytes, how many freed objects of each size it keeps, 0.4 MiB in all.
/// jemalloc's own is up to 5 MiB, also while the thread sleeps, and each object in it keeps a page from being given back.
#[cfg(target_os = "linux")]
const THREAD_CACHE: &[u8] = b"0-8192:8|8193-32768:0\0";

/// Has the allocator keep little for this thread.
#[cfg(target_os = "linux")]
pub(super) fn cache_little() {
    if let Err(error) = limit_cache() {
        tracing::warn!(%error, "the allocator keeps up to 5 MiB for a thread");
    }
}

#[cfg(target_os = "linux")]
fn limit_cache() -> tikv_jemalloc_ctl::Result<()> {
    tikv_jemalloc_ctl::raw::write_str(b"thread.tcache.ncached_max.write\0", THREAD_CACHE)
}

/// The system's allocator has no such setting.
#[cfg(not(target_os = "linux"))]
pub(super) fn set_give_back(_when: GiveBack) {}

/// The system's allocator has no such setting.
#[cfg(not(target_os = "linux"))]
pub(super) fn cache_little() {}

/// Takes as many open files as the process may have, as Go's programs do by themselves: the usual soft limit of 1,024 is for
/// programs that use `select`.
pub(super) fn take_open_files() {
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: both calls read or write this one struct, which lives until they return.
    unsafe {
        if libc::getrlimit(libc::RLIMIT_NOFILE, &raw mut limit) == 0 && limit.rlim_cur < limit.rlim_max {
            limit.rlim_cur = limit.rlim_max;
            // Where it is refused, what there is has to do.
            libc::setrlimit(libc::RLIMIT_NOFILE, &raw const limit);
        }
    }
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use tikv_jemalloc_ctl::raw;

    use super::*;

    #[test]
    fn an_arena_that_was_there_before_gives_back_at_once_too() {
        // SAFETY: jemalloc's names of an `unsigned` and of `ssize_t`s.
        let (arena, delay) = unsafe {
            let arena: u32 = raw::read(b"arenas.create\0").unwrap();
            set_give_back(GiveBack::AtOnce);
            let name = format!("arena.{arena}.dirty_decay_ms\0");
            (arena, raw::read::<isize>(name.as_bytes()).unwrap())
        };
        assert!(arena > 0);
        assert_eq!(delay, 0);
    }

    #[test]
    fn the_cache_of_a_thread_is_limited() {
        std::thread::spawn(|| limit_cache().unwrap()).join().unwrap();
    }
}
