//! Where the CPU spends its time: a timer of the process's CPU time sends `SIGPROF`, and whichever thread runs then
//! notes its stack.
//!
//! The one module here with `unsafe`: it talks to the system, and its handler may interrupt any code. The handler does
//! only operations that are allowed there: it loads and stores atomics in memory that was set aside before, and walks the stack
//! with the unwinder, which takes no lock and allocates nothing (glibc finds unwind tables without a lock since 2.35;
//! before, and in musl, the lock may be taken again by its holder).
#![allow(unsafe_code)]

use std::{
    io,
    sync::{
        OnceLock,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::Duration,
};

use super::stacks::{DEPTH_MAX, Profile, Stack};

/// Samples per second of CPU time.
const HERTZ: u64 = 100;
/// Nanoseconds of CPU time between two samples.
const PERIOD_NS: i64 = 1_000_000_000 / HERTZ as i64;
/// Samples of one profile: a minute of two busy cores; later ones are left out. 6 MiB, kept after the first.
const SAMPLES_MAX: usize = 12_000;
/// A sample's number of addresses, then they.
const WORDS: usize = 1 + DEPTH_MAX;

static ON: AtomicBool = AtomicBool::new(false);
/// The next free sample.
static NEXT: AtomicUsize = AtomicUsize::new(0);
/// Set aside by the first profile and kept: a signal may still be under way when a profile ends.
static SAMPLES: OnceLock<Vec<AtomicUsize>> = OnceLock::new();

/// Watches for `seconds`. Dropping the future stops it. There must be one at a time.
///
/// # Errors
/// The system does not let a timer or a signal be set.
pub(super) async fn profile(seconds: Duration) -> Result<Profile, String> {
    let running = Running::start().map_err(|error| format!("the CPU cannot be watched: {error}"))?;
    tokio::time::sleep(seconds).await;
    drop(running);
    let stacks = collect();
    Ok(Profile {
        kinds: &[("samples", "count"), ("cpu", "nanoseconds")],
        stacks,
        period: (("cpu", "nanoseconds"), PERIOD_NS),
        duration: seconds,
        own: "profile::cpu::on_signal",
        own_callers: 1,
    })
}

fn samples() -> &'static [AtomicUsize] {
    SAMPLES.get_or_init(|| std::iter::repeat_with(AtomicUsize::default).take(SAMPLES_MAX * WORDS).collect())
}

/// The timer, as long as it is held.
struct Running;

impl Running {
    fn start() -> io::Result<Self> {
        // The unwinder's set-up at its first use happens here and not in the handler.
        backtrace::trace(|_| true);
        for sample in samples().iter().step_by(WORDS) {
            sample.store(0, Ordering::Relaxed);
        }
        NEXT.store(0, Ordering::Release);
        ON.store(true, Ordering::Release);
        // From here on the drop undoes it.
        let running = Self;
        listen()?;
        tick(1_000_000 / HERTZ)?;
        Ok(running)
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // It cannot fail with these arguments; and if it did, the handler would do nothing.
        let _ = tick(0);
        ON.store(false, Ordering::Release);
    }
}

/// Has `on_signal` called. It stays: a signal that comes late would otherwise end the process.
fn listen() -> io::Result<()> {
    let handler: extern "C" fn(libc::c_int) = on_signal;
    // SAFETY: all-zero bytes are a valid `sigaction`, whose fields are set below; the call reads it and keeps no
    // pointer. The handler has the type that a `sigaction` without `SA_SIGINFO` takes.
    let result = unsafe {
        let mut action: libc::sigaction = std::mem::zeroed();
        action.sa_sigaction = handler as libc::sighandler_t;
        action.sa_flags = libc::SA_RESTART;
        libc::sigaction(libc::SIGPROF, &raw const action, std::ptr::null_mut())
    };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Sets the interval of the signal, microseconds of CPU time; 0 ends it.
fn tick(micros: u64) -> io::Result<()> {
    let time = libc::timeval { tv_sec: 0, tv_usec: micros as libc::suseconds_t };
    let timer = libc::itimerval { it_interval: time, it_value: time };
    // SAFETY: the call reads the timer and keeps no pointer.
    let result = unsafe { libc::setitimer(libc::ITIMER_PROF, &raw const timer, std::ptr::null_mut()) };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

extern "C" fn on_signal(_: libc::c_int) {
    if !ON.load(Ordering::Acquire) {
        return;
    }
    let Some(samples) = SAMPLES.get() else { return };
    // SAFETY: always points to this thread's `errno`, which the interrupted code may be about to read.
    let errno = unsafe { *libc::__errno_location() };
    let first = NEXT.fetch_add(1, Ordering::Relaxed).saturating_mul(WORDS);
    if let Some([count, addresses @ ..]) = samples.get(first..first.saturating_add(WORDS)) {
        let mut used = 0;
        // SAFETY: unsynchronized use is a hazard on Windows only; see the head of this module for the rest.
        unsafe {
            backtrace::trace_unsynchronized(|frame| match addresses.get(used) {
                Some(address) => {
                    address.store(frame.ip() as usize, Ordering::Relaxed);
                    used += 1;
                    true
                }
                None => false,
            });
        }
        count.store(used, Ordering::Release);
    }
    // SAFETY: as above.
    unsafe { *libc::__errno_location() = errno };
}

/// The samples as stacks, each once.
fn collect() -> Vec<Stack> {
    let mut seen = std::collections::HashMap::<Vec<usize>, i64>::new();
    for sample in samples().chunks_exact(WORDS).take(NEXT.load(Ordering::Acquire)) {
        let [count, addresses @ ..] = sample else { continue };
        let used = count.load(Ordering::Acquire);
        let addresses: Vec<usize> =
            addresses.iter().take(used).map(|address| address.load(Ordering::Relaxed)).collect();
        if !addresses.is_empty() {
            *seen.entry(addresses).or_default() += 1;
        }
    }
    let stack = |(addresses, count)| Stack { addresses, values: vec![count, count * PERIOD_NS] };
    seen.into_iter().map(stack).collect()
}
