//! Which trace a request belongs to: W3C Trace Context, `traceparent`.

use std::{
    collections::hash_map::RandomState,
    hash::{BuildHasher, Hasher},
    sync::{
        OnceLock,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
};

/// A span's place in a trace.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Context {
    /// The trace; never 0.
    pub trace: u128,
    /// The span; never 0.
    pub span: u64,
    /// The span that it is part of; `None` begins a trace.
    pub parent: Option<u64>,
    /// The sampled flag; set for a trace that begins here.
    pub sampled: bool,
}

impl Context {
    /// A span of its own within the trace that `traceparent` names; of a new trace without one that can be read.
    pub fn within(traceparent: Option<&str>) -> Self {
        let span = fresh();
        match traceparent.and_then(read) {
            Some((trace, parent, sampled)) => Self { trace, span, parent: Some(parent), sampled },
            None => Self {
                trace: u128::from(fresh()) << 64 | u128::from(fresh()),
                span,
                parent: None,
                sampled: true,
            },
        }
    }

    /// The header for the children of this span.
    pub fn header(&self) -> String {
        format!("00-{:032x}-{:016x}-{:02x}", self.trace, self.span, u8::from(self.sampled))
    }
}

/// Trace, parent and whether it is sampled.
fn read(header: &str) -> Option<(u128, u64, bool)> {
    let mut parts = header.trim().split('-');
    let version = hex(parts.next()?, 2)?;
    let trace = hex(parts.next()?, 32).filter(|id| *id != 0)?;
    let parent = hex(parts.next()?, 16).filter(|id| *id != 0)?;
    let flags = hex(parts.next()?, 2)?;
    // Later versions may say more behind.
    let whole = version != 0xff && (version > 0 || parts.next().is_none());
    whole.then_some((trace, parent as u64, flags & 1 == 1))
}

fn hex(text: &str, digits: usize) -> Option<u128> {
    let lower = text.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b));
    (text.len() == digits && lower).then(|| u128::from_str_radix(text, 16).ok()).flatten()
}

/// An id that nobody else has: SipHash of a counter under keys that the process drew at random. Not a secret.
fn fresh() -> u64 {
    static KEYS: OnceLock<RandomState> = OnceLock::new();
    static NEXT: AtomicU64 = AtomicU64::new(0);
    let mut hasher = KEYS.get_or_init(RandomState::new).build_hasher();
    hasher.write_u64(NEXT.fetch_add(1, Relaxed));
    hasher.finish().max(1)
}
