//! System settings of the process at its start: the one place of this module with `unsafe`.

#![allow(unsafe_code)]

/// Arenas of glibc's allocator for all threads together. By itself it takes eight for each core; memory that one thread
/// allocates and another frees stays in the first one's, and the resident set with it.
#[cfg(all(target_os = "linux", target_env = "gnu"))]
const ARENAS: libc::c_int = 2;

/// Bytes from which on an allocation is mapped for itself and unmapped when it is freed. By itself glibc raises this up
/// to 32 MiB with each free; the lists of one query then lie between those of others, and the gaps made the node take
/// 1.4 times its pool where it takes 1.2 now.
#[cfg(all(target_os = "linux", target_env = "gnu"))]
const MAPPED_FROM: libc::c_int = 128 << 10;

/// Raises the limit on open files to the hard limit, as Go's programs do by themselves: the usual soft limit of 1,024
/// is for programs that use `select`.
pub(super) fn take_open_files() {
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: both calls read or write this one struct, which lives until they return.
    unsafe {
        if libc::getrlimit(libc::RLIMIT_NOFILE, &raw mut limit) == 0 && limit.rlim_cur < limit.rlim_max {
            limit.rlim_cur = limit.rlim_max;
            // Where it is refused, the limit stays.
            libc::setrlimit(libc::RLIMIT_NOFILE, &raw const limit);
        }
    }
}

/// Gives free memory back to the system, wherever it lies: by itself glibc's allocator gives back only the end of its
/// heap, and a single object behind thousands of freed ones keeps them all. Blocks for some milliseconds.
pub(super) fn give_back_memory() {
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    // SAFETY: it takes a number and touches nothing that is allocated.
    unsafe {
        libc::malloc_trim(0);
    }
}

/// Bytes that the allocator has handed out and not got back; `None` where it does not say.
#[allow(clippy::unnecessary_wraps, reason = "only this allocator says")]
pub(super) fn allocated_bytes() -> Option<u64> {
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    {
        // SAFETY: it takes nothing and returns numbers.
        let info = unsafe { libc::mallinfo2() };
        Some((info.uordblks + info.hblkhd) as u64)
    }
    #[cfg(not(all(target_os = "linux", target_env = "gnu")))]
    None
}

/// Has the allocator keep little: for a process whose large allocations pass from thread to thread.
pub(super) fn keep_allocator_small() {
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    // SAFETY: both take two numbers and change nothing that was allocated before.
    unsafe {
        libc::mallopt(libc::M_ARENA_MAX, ARENAS);
        libc::mallopt(libc::M_MMAP_THRESHOLD, MAPPED_FROM);
    }
}
