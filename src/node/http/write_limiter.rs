//! Bounds on the memory of writes at every stage, from the first byte of a body to the log.
//!
//! A body is read before its write takes one of the few slots, so that a slow sender keeps nobody waiting.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use axum::body::{Body, Bytes, HttpBody as _};
use futures_util::StreamExt as _;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::error::Failure;
use crate::{
    base::{ErrorKind, allocator::ForWrites},
    http::{ByteBudget, ByteShare},
};

/// Writes whose bodies are being read, or wait for a slot.
const BODIES_MAX: usize = 1_024;
/// Writes that are worked on at the same time; more wait, which holds back their senders.
const SLOTS: usize = 16;
/// Bytes of all bodies, and again of all that is unpacked, in times of the largest one.
const LARGEST_HELD: usize = 4;
/// A sender that takes longer for a body than this is given up: others wait for its room.
const BODY_WAIT: Duration = Duration::from_secs(30);
/// Room made for a body whose length is not known.
const FIRST_BYTES: usize = 8 << 10;

/// Room for writes.
#[derive(Debug)]
pub(super) struct WriteLimiter {
    /// The largest body, bytes.
    largest: usize,
    places: Arc<Semaphore>,
    bodies: ByteBudget,
    slots: Arc<Semaphore>,
    unpacked: ByteBudget,
    refused: AtomicU64,
}

/// A body, and the room that it takes until this is dropped.
#[derive(Debug)]
pub(super) struct Held {
    bytes: Vec<u8>,
    _place: OwnedSemaphorePermit,
    room: Option<ByteShare>,
}

impl std::ops::Deref for Held {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.bytes
    }
}

/// A write's turn, with the room for its unpacked bytes.
#[derive(Debug)]
pub(super) struct Turn {
    _slot: Option<OwnedSemaphorePermit>,
    _unpacked: ByteShare,
}

impl WriteLimiter {
    /// A limiter for bodies of at most `largest` bytes.
    pub(super) fn new(largest: usize) -> Self {
        let held = largest.saturating_mul(LARGEST_HELD);
        Self {
            largest,
            places: Arc::new(Semaphore::new(BODIES_MAX)),
            bodies: ByteBudget::new(held),
            slots: Arc::new(Semaphore::new(SLOTS)),
            unpacked: ByteBudget::new(held),
            refused: AtomicU64::new(0),
        }
    }

    /// Reads a body.
    pub(super) async fn read(&self, body: Body) -> Result<Held, Failure> {
        let announced = body.size_hint().exact().map(|bytes| usize::try_from(bytes).unwrap_or(usize::MAX));
        if announced.is_some_and(|bytes| bytes > self.largest) {
            return Err(self.too_large());
        }
        let Ok(place) = Arc::clone(&self.places).try_acquire_owned() else {
            return Err(self.refuse(ErrorKind::QueueFull, "too many writes are on their way"));
        };
        let mut held = Held { bytes: Vec::new(), _place: place, room: None };
        let reading = self.fill(&mut held, body, announced.unwrap_or(self.largest));
        match tokio::time::timeout(BODY_WAIT, reading).await {
            Ok(read) => read.map(|()| held),
            // Not the sender's fault for good: with a 4xx Prometheus would drop the samples.
            Err(_) => Err(self.refuse(ErrorKind::QueueTimeout, "the body came too slowly")),
        }
    }

    async fn fill(&self, held: &mut Held, body: Body, most: usize) -> Result<(), Failure> {
        let mut pieces = body.into_data_stream();
        while let Some(piece) = pieces.next().await {
            let piece: Bytes = piece.map_err(|_| Failure::new(ErrorKind::BadData, "the body was cut off"))?;
            let bytes = held.bytes.len().saturating_add(piece.len());
            if bytes > self.largest {
                return Err(self.too_large());
            }
            if bytes > held.bytes.capacity() {
                // Twice the size each time, but no more than the whole.
                let room = held.bytes.capacity().saturating_mul(2).max(FIRST_BYTES).min(most).max(bytes);
                self.charge(held, room)?;
                let _arena = ForWrites::begin();
                held.bytes.reserve_exact(room - held.bytes.len());
            }
            held.bytes.extend_from_slice(&piece);
        }
        Ok(())
    }

    /// Takes room for these bytes, at once or not at all.
    fn charge(&self, held: &mut Held, bytes: usize) -> Result<(), Failure> {
        let taken = held.room.as_ref().map_or(0, ByteShare::bytes);
        let Some(more) = self.bodies.try_take(bytes.saturating_sub(taken)) else {
            return Err(self.refuse(ErrorKind::QueueFull, "the bodies of writes take all the room they may"));
        };
        match &mut held.room {
            Some(room) => room.merge(more),
            none => *none = Some(more),
        }
        Ok(())
    }

    /// Waits for a slot and for room for this number of unpacked bytes.
    pub(super) async fn turn(&self, unpacked: usize) -> Turn {
        // Neither is ever closed. A write that waits for room has a slot, and one that has room waits for nothing.
        let slot = Arc::clone(&self.slots).acquire_owned().await.ok();
        Turn { _slot: slot, _unpacked: self.unpacked.take(unpacked).await }
    }

    fn too_large(&self) -> Failure {
        let message = format!("the body is larger than {} bytes", self.largest);
        self.refuse(ErrorKind::BodyTooLarge, &message)
    }

    fn refuse(&self, kind: ErrorKind, message: &str) -> Failure {
        self.refused.fetch_add(1, Ordering::Relaxed);
        Failure::new(kind, message)
    }

    /// Bytes that bodies take.
    pub(super) fn body_bytes(&self) -> u64 {
        self.bodies.taken().0 as u64
    }

    /// Bytes that unpacked writes take.
    pub(super) fn unpacked_bytes(&self) -> u64 {
        self.unpacked.taken().0 as u64
    }

    /// Writes refused for their bodies: too large, too slow, or no room for them.
    pub(super) fn refused(&self) -> u64 {
        self.refused.load(Ordering::Relaxed)
    }
}

#[cfg(test)]
mod tests {
    use futures_util::{FutureExt as _, stream};
    use tokio::time::Instant;

    use super::*;

    const MIB: usize = 1 << 20;

    fn sent(bytes: usize) -> Body {
        Body::from(vec![7; bytes])
    }

    /// Some bytes at once, and then nothing.
    fn stalled(bytes: usize) -> Body {
        let first = stream::iter([Ok::<_, std::io::Error>(Bytes::from(vec![7; bytes]))]);
        Body::from_stream(first.chain(stream::pending()))
    }

    #[tokio::test(start_paused = true)]
    async fn slow_senders_keep_nobody_waiting_and_are_asked_to_come_again() {
        let writes = Arc::new(WriteLimiter::new(MIB));
        let slow: Vec<_> = (0..SLOTS * 4)
            .map(|_| {
                let writes = Arc::clone(&writes);
                tokio::spawn(async move { writes.read(stalled(100)).await.map(drop) })
            })
            .collect();
        // Paused time moves when all of them wait.
        tokio::time::sleep(Duration::from_millis(1)).await;
        let started = Instant::now();
        assert_eq!(writes.body_bytes(), (SLOTS * 4 * FIRST_BYTES) as u64);
        let body = writes.read(sent(1_000)).await.unwrap();
        let _turn = writes.turn(body.len()).await;
        assert_eq!((body.len(), started.elapsed()), (1_000, Duration::ZERO));
        for one in slow {
            let refused = one.await.unwrap().unwrap_err();
            assert_eq!(refused.kind.status(), 503, "{refused:?}");
        }
        assert!(started.elapsed() < BODY_WAIT && writes.refused() == SLOTS as u64 * 4);
    }

    #[tokio::test]
    async fn bodies_take_no_more_than_their_room() {
        let writes = WriteLimiter::new(MIB);
        let mut held = Vec::new();
        for _ in 0..LARGEST_HELD {
            held.push(writes.read(sent(MIB)).await.unwrap());
        }
        assert_eq!(writes.body_bytes(), (LARGEST_HELD * MIB) as u64);
        let refused = writes.read(sent(1)).await.unwrap_err();
        assert_eq!(refused.kind, ErrorKind::QueueFull);
        assert!(held.iter().all(|body| body.iter().all(|byte| *byte == 7) && body.len() == MIB));
        held.pop();
        assert!(writes.read(sent(1)).await.is_ok());
        for body in [sent(MIB + 1), stalled(MIB + 1)] {
            assert_eq!(writes.read(body).await.unwrap_err().kind, ErrorKind::BodyTooLarge);
        }
        drop(held);
        assert_eq!((writes.body_bytes(), writes.refused()), (0, 3));
    }

    #[tokio::test]
    async fn what_is_unpacked_together_is_bounded() {
        let writes = WriteLimiter::new(MIB);
        let first = writes.turn(LARGEST_HELD * MIB - 10).await;
        assert!(writes.turn(1).now_or_never().is_none(), "there is no room");
        assert_eq!(writes.unpacked_bytes(), (LARGEST_HELD * MIB) as u64);
        drop(first);
        let slots: Vec<_> = (0..SLOTS).map(|_| writes.turn(0).now_or_never().unwrap()).collect();
        assert!(writes.turn(0).now_or_never().is_none(), "there is no slot");
        drop(slots);
        assert_eq!(writes.unpacked_bytes(), 0);
    }
}
