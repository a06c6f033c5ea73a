//! System settings of the process at its start.

/// Takes as many open files as the process may have, as Go's programs do by themselves: the usual soft limit of 1,024 is for
/// programs that use `select`.
#[allow(unsafe_code)]
pub(super) fn take_open_files() {
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: both calls read or write this one struct, which lives until they return.
    unsafe {
        if libc::getrlimit(libc::RLIMIT_NOFILE, &raw mut limit) == 0 && limit.rlim_cur < limit.rlim_max {
            limit.rlim_cur = limit.rlim_max;
            // Where it is refused, the limit stays as it is.
            libc::setrlimit(libc::RLIMIT_NOFILE, &raw const limit);
        }
    }
}
