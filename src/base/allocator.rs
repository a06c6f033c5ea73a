//! Settings of the allocator: the one place of this module with `unsafe`. They act where jemalloc is the process' allocator.

#![allow(unsafe_code)]

use std::marker::PhantomData;
#[cfg(target_os = "linux")]
use std::sync::OnceLock;

#[cfg(target_os = "linux")]
use tikv_jemalloc_ctl::{arenas, background_thread, raw};

/// When the allocator gives back memory that a burst has freed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum GiveBack {
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
pub fn set_give_back(when: GiveBack) {
    if let Err(error) = set_delay(if when == GiveBack::AtOnce { 0 } else { SOON_MS }) {
        tracing::warn!(%error, "the allocator keeps freed memory for ten seconds");
    }
    if let Err(error) = background_thread::write(true) {
        tracing::warn!(%error, "the allocator gives memory back only while it is used");
    }
}

/// Sets the delay of all arenas. The thread that writes the log is there already, and one that started before has an arena with
/// the delay of its time, in which a share of all later threads allocates.
#[cfg(target_os = "linux")]
fn set_delay(milliseconds: isize) -> tikv_jemalloc_ctl::Result<()> {
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
pub fn cache_little() {
    if let Err(error) = limit_cache() {
        tracing::warn!(%error, "the allocator keeps up to 5 MiB for a thread");
    }
}

#[cfg(target_os = "linux")]
fn limit_cache() -> tikv_jemalloc_ctl::Result<()> {
    raw::write_str(b"thread.tcache.ncached_max.write\0", THREAD_CACHE)
}

/// While it lives, its thread allocates where freed memory is kept for a second. The buffers of a write have the sizes of those
/// of the write before; where their pages are given back in between, half of the time of a write is the kernel's.
#[derive(Debug)]
pub struct ForWrites {
    /// The arena of this thread before.
    #[cfg(target_os = "linux")]
    before: Option<u32>,
    _of_this_thread: PhantomData<*const ()>,
}

#[cfg(target_os = "linux")]
impl ForWrites {
    /// Takes the arena of writes. Where that fails, the thread allocates as before.
    pub fn begin() -> Self {
        static ARENA: OnceLock<Option<u32>> = OnceLock::new();
        let of_writes = *ARENA.get_or_init(|| {
            arena_of_writes()
                .inspect_err(|error| tracing::warn!(%error, "writes give back each buffer at once"))
                .ok()
        });
        Self { before: of_writes.and_then(use_arena), _of_this_thread: PhantomData }
    }
}

#[cfg(target_os = "linux")]
impl Drop for ForWrites {
    fn drop(&mut self) {
        self.before.and_then(use_arena);
    }
}

/// Makes an arena that gives memory back after a second.
#[cfg(target_os = "linux")]
fn arena_of_writes() -> tikv_jemalloc_ctl::Result<u32> {
    // SAFETY: the names end with a zero; the first is an `unsigned`, the second an `ssize_t`.
    let arena: u32 = unsafe { raw::read(b"arenas.create\0") }?;
    let name = format!("arena.{arena}.dirty_decay_ms\0");
    // SAFETY: the same.
    unsafe { raw::write(name.as_bytes(), SOON_MS) }?;
    Ok(arena)
}

/// Has this thread allocate from an arena; gives the arena before.
#[cfg(target_os = "linux")]
fn use_arena(arena: u32) -> Option<u32> {
    // SAFETY: the name ends with a zero and stands for an `unsigned`.
    unsafe { raw::update(b"thread.arena\0", arena) }.ok()
}

/// The system's allocator has no such settings.
#[cfg(not(target_os = "linux"))]
mod elsewhere {
    impl super::ForWrites {
        /// Does nothing.
        pub fn begin() -> Self {
            Self { _of_this_thread: super::PhantomData }
        }
    }

    /// Does nothing.
    pub fn set_give_back(_when: super::GiveBack) {}

    /// Does nothing.
    pub fn cache_little() {}
}

#[cfg(not(target_os = "linux"))]
pub use elsewhere::{cache_little, set_give_back};

#[cfg(all(test, target_os = "linux"))]
mod tests {
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
    fn a_write_has_the_arena_of_writes_until_its_end() {
        // SAFETY: the name ends with a zero and stands for an `unsigned`.
        let arena = || unsafe { raw::read::<u32>(b"thread.arena\0") }.unwrap();
        let before = arena();
        let write = ForWrites::begin();
        let of_writes = arena();
        assert_ne!(of_writes, before);
        let within = ForWrites::begin();
        drop(within);
        assert_eq!(arena(), of_writes);
        drop(write);
        assert_eq!(arena(), before);
    }

    #[test]
    fn the_cache_of_a_thread_is_limited() {
        std::thread::spawn(|| limit_cache().unwrap()).join().unwrap();
    }
}
