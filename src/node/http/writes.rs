//! Room for writes: what is held of them is bounded at every stage, from the first byte of a body to the log.
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
use crate::base::ErrorKind;

/// Writes whose bodies are being read, or wait for a slot.
const BODIES_MAX: usize = 1_024;
/// Writes that are worked on at the same time; more wait, which holds back their senders.
const SLOTS: usize = 16;
/// Bytes of all bodies, and again of all that is unpacked, in times of the largest one.
const LARGEST_HELD: usize = 4;
/// What permits count.
const UNIT: usize = 1_024;
/// A sender that takes longer for a body than this is given up: others wait for its room.
const BODY_WAIT: Duration = Duration::from_secs(30);
/// Room made for a body whose length is not known.
const FIRST_BYTES: usize = 8 << 10;

/// Room for writes.
#[derive(Debug)]
pub(super) struct Writes {
    /// The largest body, bytes.
    largest: usize,
    /// Units of bodies, and of what is unpacked.
    units: usize,
    places: Arc<Semaphore>,
    bodies: Arc<Semaphore>,
    slots: Arc<Semaphore>,
    unpacked: Arc<Semaphore>,
    refused: AtomicU64,
}

/// A body, and the room that it takes until this is dropped.
#[derive(Debug)]
pub(super) struct Held {
    bytes: Vec<u8>,
    _place: OwnedSemaphorePermit,
    room: Option<OwnedSemaphorePermit>,
}

impl std::ops::Deref for Held {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.bytes
    }
}

/// A write's turn, with the room for what it unpacks.
#[derive(Debug)]
pub(super) struct Turn {
    _slot: Option<OwnedSemaphorePermit>,
    _unpacked: Option<OwnedSemaphorePermit>,
}

impl Writes {
    /// Room for bodies of at most so many bytes.
    pub(super) fn new(largest: usize) -> Self {
        let units = units(largest).saturating_mul(LARGEST_HELD).clamp(1, Semaphore::MAX_PERMITS);
        let semaphore = |permits| Arc::new(Semaphore::new(permits));
        Self {
            largest,
            units,
            places: semaphore(BODIES_MAX),
            bodies: semaphore(units),
            slots: semaphore(SLOTS),
            unpacked: semaphore(units),
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
                // Twice as much each time, but no more than there will be.
                let room = held.bytes.capacity().saturating_mul(2).max(FIRST_BYTES).min(most).max(bytes);
                self.charge(held, room)?;
                held.bytes.reserve_exact(room - held.bytes.len());
            }
            held.bytes.extend_from_slice(&piece);
        }
        Ok(())
    }

    /// Takes as much room as so many bytes need, at once or not at all.
    fn charge(&self, held: &mut Held, bytes: usize) -> Result<(), Failure> {
        let taken = held.room.as_ref().map_or(0, OwnedSemaphorePermit::num_permits);
        let more = permits(units(bytes).saturating_sub(taken));
        let Ok(more) = Arc::clone(&self.bodies).try_acquire_many_owned(more) else {
            return Err(self.refuse(ErrorKind::QueueFull, "the bodies of writes take all the room they may"));
        };
        match &mut held.room {
            Some(room) => room.merge(more),
            none => *none = Some(more),
        }
        Ok(())
    }

    /// Waits for a slot and for room for as many bytes as will be unpacked.
    pub(super) async fn turn(&self, unpacked: usize) -> Turn {
        // Neither is ever closed. Whoever waits for room has a slot, and those that have room wait for nothing.
        let slot = Arc::clone(&self.slots).acquire_owned().await.ok();
        let units = permits(units(unpacked).min(self.units));
        let room = Arc::clone(&self.unpacked).acquire_many_owned(units).await.ok();
        Turn { _slot: slot, _unpacked: room }
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
        self.taken(&self.bodies)
    }

    /// Bytes that unpacked writes take.
    pub(super) fn unpacked_bytes(&self) -> u64 {
        self.taken(&self.unpacked)
    }

    fn taken(&self, of: &Semaphore) -> u64 {
        (self.units.saturating_sub(of.available_permits()).saturating_mul(UNIT)) as u64
    }

    /// Writes refused for their bodies: too large, too slow, or no room for them.
    pub(super) fn refused(&self) -> u64 {
        self.refused.load(Ordering::Relaxed)
    }
}

fn units(bytes: usize) -> usize {
    bytes.div_ceil(UNIT)
}

/// A number of permits; 4 TiB of them are more than there are.
fn permits(units: usize) -> u32 {
    u32::try_from(units).unwrap_or(u32::MAX)
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
        let writes = Arc::new(Writes::new(MIB));
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
        let writes = Writes::new(MIB);
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
        let writes = Writes::new(MIB);
        let first = writes.turn(LARGEST_HELD * MIB - 10).await;
        assert!(writes.turn(UNIT).now_or_never().is_none(), "there is no room");
        assert_eq!(writes.unpacked_bytes(), (LARGEST_HELD * MIB) as u64);
        drop(first);
        let slots: Vec<_> = (0..SLOTS).map(|_| writes.turn(0).now_or_never().unwrap()).collect();
        assert!(writes.turn(0).now_or_never().is_none(), "there is no slot");
        drop(slots);
        assert_eq!(writes.unpacked_bytes(), 0);
    }
}
