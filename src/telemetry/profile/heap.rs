//! The heap profile, by the stack that allocated: an allocator that hands every request on to another, and, once
//! switched on, notes the stack of one allocation in about every half MiB.
//!
//! `unsafe` to be an allocator and to walk the stack: every method passes its arguments on to the inner allocator
//! unchanged, under the contract that its own caller keeps. Off, that and one relaxed load is all it does.
#![allow(unsafe_code)]

use std::{
    alloc::{GlobalAlloc, Layout},
    cell::Cell,
    collections::HashMap,
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering},
    },
    time::Duration,
};

use super::stacks::{DEPTH_MAX, Profile, Stack};

/// Mean bytes between two samples; Go's number.
const EVERY: usize = 512 << 10;
/// Samples of memory that is held: 64 GiB at the mean. More are left out.
const HELD_MAX: usize = 1 << 17;
/// Counters by which most addresses that were not sampled are skipped without the lock.
const MARKS: usize = 1 << 16;

static ON: AtomicBool = AtomicBool::new(false);
static SEED: AtomicU64 = AtomicU64::new(0);
/// The number of sampled addresses on each mark; one that has reached the end stays there.
static HELD_AT: [AtomicU8; MARKS] = [const { AtomicU8::new(0) }; MARKS];
/// The samples by address.
static HELD: Mutex<Option<HashMap<usize, Sample>>> = Mutex::new(None);

thread_local! {
    /// Bytes to the next sample of this thread.
    static LEFT: Cell<usize> = const { Cell::new(EVERY / 2) };
    /// The profiler itself allocates: that is not sampled, nor looked up, since the lock may be held.
    static INSIDE: Cell<bool> = const { Cell::new(false) };
    static DICE: Cell<u64> = const { Cell::new(0) };
}

struct Sample {
    size: usize,
    depth: usize,
    addresses: [usize; DEPTH_MAX],
}

/// An allocator whose allocations can be sampled. For `#[global_allocator]`.
#[derive(Clone, Copy, Debug, Default)]
pub struct Sampled<A>(pub A);

// SAFETY: every method hands its arguments to the inner allocator unchanged and returns its result; the accounting beside that
// neither frees nor touches the memory. Nothing here unwinds: no arithmetic overflows, no index is out of bounds, and
// the profiler's own allocations come back here with `INSIDE` set.
unsafe impl<A: GlobalAlloc> GlobalAlloc for Sampled<A> {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        // SAFETY: the caller keeps the contract of `alloc`.
        let pointer = unsafe { self.0.alloc(layout) };
        given(pointer, layout.size());
        pointer
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        // SAFETY: the caller keeps the contract of `alloc_zeroed`.
        let pointer = unsafe { self.0.alloc_zeroed(layout) };
        given(pointer, layout.size());
        pointer
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // Before it is freed: afterwards another thread may be given the same address.
        taken(pointer);
        // SAFETY: the caller keeps the contract of `dealloc`.
        unsafe { self.0.dealloc(pointer, layout) }
    }

    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, new_size: usize) -> *mut u8 {
        // As above. If it then fails, one sample is lost.
        taken(pointer);
        // SAFETY: the caller keeps the contract of `realloc`.
        let pointer = unsafe { self.0.realloc(pointer, layout, new_size) };
        given(pointer, new_size);
        pointer
    }
}

/// Samples from now on.
pub(super) fn enable() {
    ON.store(true, Ordering::Relaxed);
}

fn given(pointer: *mut u8, size: usize) {
    if !ON.load(Ordering::Relaxed) || pointer.is_null() {
        return;
    }
    LEFT.with(|left| match left.get().checked_sub(size) {
        Some(rest) => left.set(rest),
        None => {
            left.set(next());
            note(pointer as usize, size);
        }
    });
}

/// Bytes to the next sample, exponentially distributed: which allocation is sampled does not depend on a pattern.
fn next() -> usize {
    DICE.with(|dice| {
        let mut x = dice.get();
        if x == 0 {
            x = SEED.fetch_add(1, Ordering::Relaxed).wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
        }
        // Marsaglia's xorshift.
        x ^= x << 13;
        x ^= x >> 7;
        x ^= x << 17;
        dice.set(x);
        let uniform = ((x >> 11) + 1) as f64 / (1u64 << 53) as f64;
        (-uniform.ln() * EVERY as f64) as usize
    })
}

const fn mark(address: usize) -> usize {
    (address >> 4).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 48 & (MARKS - 1)
}

/// Runs with this thread's own allocations left alone; `None` when they already are.
fn inside<T>(act: impl FnOnce() -> T) -> Option<T> {
    INSIDE.with(|inside| {
        if inside.replace(true) {
            return None;
        }
        let done = act();
        inside.set(false);
        Some(done)
    })
}

#[inline(never)]
fn note(address: usize, size: usize) {
    inside(|| {
        let mut sample = Sample { size, depth: 0, addresses: [0; DEPTH_MAX] };
        // SAFETY: unsynchronized use is a hazard on Windows only. The lock of the safe way is held while names are
        // looked up, for which no allocation may wait.
        unsafe {
            backtrace::trace_unsynchronized(|frame| match sample.addresses.get_mut(sample.depth) {
                Some(place) => {
                    *place = frame.ip() as usize;
                    sample.depth += 1;
                    true
                }
                None => false,
            });
        }
        let mut held = HELD.lock().unwrap_or_else(PoisonError::into_inner);
        let held = held.get_or_insert_default();
        if held.len() < HELD_MAX && held.insert(address, sample).is_none() {
            count(address, |n| n.checked_add(1));
        }
    });
}

fn taken(pointer: *mut u8) {
    // A thread that frees an address got it from the thread that allocated it, and so sees its mark.
    if !ON.load(Ordering::Relaxed) || HELD_AT[mark(pointer as usize)].load(Ordering::Relaxed) == 0 {
        return;
    }
    inside(|| {
        let mut held = HELD.lock().unwrap_or_else(PoisonError::into_inner);
        if held.as_mut().is_some_and(|held| held.remove(&(pointer as usize)).is_some()) {
            count(pointer as usize, |n| if n == u8::MAX { None } else { n.checked_sub(1) });
        }
    });
}

fn count(address: usize, change: impl FnMut(u8) -> Option<u8>) {
    // One that does not change stays as it is.
    let _ = HELD_AT[mark(address)].fetch_update(Ordering::Relaxed, Ordering::Relaxed, change);
}

/// The live part of all allocations since the start. A sample counts with the inverse of its probability.
pub(super) fn profile() -> Profile {
    let stacks = inside(|| {
        let held = HELD.lock().unwrap_or_else(PoisonError::into_inner);
        let mut seen = HashMap::<&[usize], (f64, f64)>::new();
        for sample in held.iter().flat_map(HashMap::values) {
            let likely = 1.0 - (-(sample.size as f64) / EVERY as f64).exp();
            let (objects, bytes) = seen.entry(&sample.addresses[..sample.depth]).or_default();
            *objects += 1.0 / likely;
            *bytes += sample.size as f64 / likely;
        }
        let stack = |(addresses, (objects, bytes)): (&&[usize], &(f64, f64))| Stack {
            addresses: addresses.to_vec(),
            values: vec![objects.round() as i64, bytes.round() as i64],
        };
        seen.iter().map(stack).collect()
    });
    Profile {
        kinds: &[("inuse_objects", "count"), ("inuse_space", "bytes")],
        stacks: stacks.unwrap_or_default(),
        period: (("space", "bytes"), EVERY as i64),
        duration: Duration::ZERO,
        own: "profile::heap::",
        own_callers: 0,
    }
}
