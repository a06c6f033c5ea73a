//! The stage of one connection, its time, and the signals to it: shared by its task, its stream, its response
//! bodies and [`Connections`](super::Connections).

use std::{
    sync::atomic::{
        AtomicBool, AtomicU8, AtomicU64,
        Ordering::{AcqRel, Acquire, Relaxed},
    },
    task::{Context, Poll},
    time::Duration,
};

use futures_util::task::AtomicWaker;
use parking_lot::Mutex;
use tokio::time::Instant;

use super::{deadline::Timed, timeouts::Timeouts};

/// The stage of one connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stage {
    /// Its client has sent nothing yet, or part of a request's head.
    Head,
    /// A request is being answered.
    Answer,
    /// The last bytes of an answer wait to be sent.
    Rest,
    /// It is between two requests.
    Idle,
}

const STAGES: [Stage; 4] = [Stage::Head, Stage::Answer, Stage::Rest, Stage::Idle];
const STAGE_BITS: u32 = 2;

/// Something that a connection is asked to do, as bits.
pub(super) mod signal {
    /// Close as soon as no answer is under way.
    pub(in crate::http) const END: u8 = 1;
    /// Answer requests without an answer yet with 503.
    pub(in crate::http) const GRACE_OVER: u8 = 2;
}

#[derive(Debug)]
pub(super) struct Activity {
    born: Instant,
    /// The stage in the lowest two bits; above them when `Head` or `Idle` began, in milliseconds after `born`.
    state: AtomicU64,
    /// Since when the client takes no byte of its answer, in milliseconds after `born`, plus one; 0 if it does.
    blocked: AtomicU64,
    signals: AtomicU8,
    waker: AtomicWaker,
    /// The deadline of the response under way, until the connection's task takes it.
    deadline: Mutex<Option<Timed>>,
    /// There is one. Written and read by the connection's own task, which looks at every turn.
    has_deadline: AtomicBool,
}

impl Activity {
    /// A connection accepted now.
    pub(super) fn new() -> Self {
        Self {
            born: Instant::now(),
            state: AtomicU64::new(Stage::Head as u64),
            blocked: AtomicU64::new(0),
            signals: AtomicU8::new(0),
            waker: AtomicWaker::new(),
            deadline: Mutex::new(None),
            has_deadline: AtomicBool::new(false),
        }
    }

    fn now(&self) -> u64 {
        self.born.elapsed().as_millis() as u64
    }

    fn at(&self, ms: u64) -> Instant {
        self.born + Duration::from_millis(ms)
    }

    fn state(&self) -> (Stage, u64) {
        let state = self.state.load(Relaxed);
        (STAGES[(state & ((1 << STAGE_BITS) - 1)) as usize], state >> STAGE_BITS)
    }

    fn set(&self, stage: Stage) {
        let since = match stage {
            Stage::Head | Stage::Idle => self.now(),
            // Nobody asks: patience with a client that takes no bytes counts from `blocked`.
            Stage::Answer | Stage::Rest => 0,
        };
        self.state.store(since << STAGE_BITS | stage as u64, Relaxed);
    }

    /// Only the connection's own task changes its stage, so that this is not a race.
    fn step(&self, from: Stage, to: Stage) {
        if self.state().0 == from {
            self.set(to);
        }
    }

    /// Bytes of a request arrived.
    pub(super) fn read(&self) {
        self.step(Stage::Idle, Stage::Head);
    }

    /// A request's head is complete.
    pub(super) fn asked(&self) {
        self.set(Stage::Answer);
    }

    /// The body of an answer was dropped: its last bytes are under way.
    pub(super) fn answered(&self) {
        self.step(Stage::Answer, Stage::Rest);
    }

    /// Everything that was written is sent.
    pub(super) fn flushed(&self) {
        self.step(Stage::Rest, Stage::Idle);
    }

    /// Whether a request came whose answer is not sent to the end.
    pub(super) fn is_answering(&self) -> bool {
        matches!(self.state().0, Stage::Answer | Stage::Rest)
    }

    /// Since when the connection could be closed without breaking an answer.
    pub(super) fn unused_since(&self) -> Option<Instant> {
        let (stage, since) = self.state();
        matches!(stage, Stage::Head | Stage::Idle).then(|| self.at(since))
    }

    /// The client takes bytes, or does not.
    pub(super) fn writes(&self, takes: bool) {
        match (takes, self.blocked.load(Relaxed)) {
            (true, 1..) => self.blocked.store(0, Relaxed),
            (false, 0) => self.blocked.store(self.now() + 1, Relaxed),
            _ => {}
        }
    }

    /// When patience with the client ends, as things are now; `None` while the server itself is at work.
    pub(super) fn due(&self, timeouts: &Timeouts, idle: Duration) -> Option<Instant> {
        let (stage, since) = self.state();
        match stage {
            Stage::Head => Some(self.at(since) + timeouts.head),
            Stage::Idle => Some(self.at(since) + idle),
            Stage::Answer | Stage::Rest => {
                let blocked = self.blocked.load(Relaxed).checked_sub(1)?;
                Some(self.at(blocked) + timeouts.stalled)
            }
        }
    }

    /// The response that begins now has to end by this.
    pub(super) fn set_deadline(&self, deadline: Timed) {
        *self.deadline.lock() = Some(deadline);
        self.has_deadline.store(true, Relaxed);
    }

    pub(super) fn take_deadline(&self) -> Option<Timed> {
        if !self.has_deadline.load(Relaxed) {
            return None;
        }
        self.has_deadline.store(false, Relaxed);
        self.deadline.lock().take()
    }

    /// Asks the connection for one of [`signal`].
    pub(super) fn signal(&self, signal: u8) {
        self.signals.fetch_or(signal, AcqRel);
        self.waker.wake();
    }

    pub(super) fn is_signalled(&self, signal: u8) -> bool {
        self.signals.load(Acquire) & signal != 0
    }

    /// Wakes `cx` with the next signal.
    pub(super) fn register(&self, cx: &Context<'_>) {
        self.waker.register(cx.waker());
    }

    /// Ready once it is asked to end.
    pub(super) fn poll_end(&self, cx: &Context<'_>) -> Poll<()> {
        self.register(cx);
        if self.is_signalled(signal::END) { Poll::Ready(()) } else { Poll::Pending }
    }
}
