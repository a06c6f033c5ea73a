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

/// Sets when the allocator gives memory back; to be called before other threads start.
#[cfg(target_os = "linux")]
pub(super) fn set_give_back(when: GiveBack) {
    use tikv_jemalloc_ctl::{background_thread, raw};

    let delay_ms = if when == GiveBack::AtOnce { 0 } else { SOON_MS };
    // The first arena is there already; the others take the default when they are made.
    for setting in [&b"arena.0.dirty_decay_ms\0"[..], b"arenas.dirty_decay_ms\0"] {
        // SAFETY: both names end with a zero and stand for an `ssize_t`, which is an `isize`.
        let set = unsafe { raw::write(setting, delay_ms) };
        if let Err(error) = set {
            tracing::warn!(%error, "the allocator keeps freed memory for ten seconds");
        }
    }
    if when == GiveBack::Soon
        && let Err(error) = background_thread::write(true)
    {
        tracing::warn!(%error, "the allocator gives memory back only while it is used");
    }
}

/// The system's allocator has no such setting.
#[cfg(not(target_os = "linux"))]
pub(super) fn set_give_back(_when: GiveBack) {}

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
