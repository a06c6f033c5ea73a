//! Long texts are read on a thread beside the workers, one at a time: while a megabyte of text is read, the other connections
//! of its worker do not wait for it.

use std::{panic::resume_unwind, sync::Arc};

use tokio::{
    sync::Semaphore,
    task::{JoinError, spawn_blocking},
};

/// A request of up to this many bytes is read by its own worker, in a millisecond or two.
pub(in crate::proxy) const INLINE_BYTES_MAX: usize = 64 << 10;

/// The thread for long texts.
#[derive(Clone, Debug)]
pub(in crate::proxy) struct LongTexts(Arc<Semaphore>);

impl LongTexts {
    pub(in crate::proxy) fn new() -> Self {
        Self(Arc::new(Semaphore::new(1)))
    }

    /// The result of `read`, which reads a long text.
    pub(in crate::proxy) async fn read<T: Send + 'static>(
        &self,
        read: impl FnOnce() -> T + Send + 'static,
    ) -> T {
        let turn = Arc::clone(&self.0).acquire_owned().await;
        let reading = spawn_blocking(move || {
            // To its end, whether its client still waits or not.
            let _turn = turn;
            read()
        });
        match reading.await.map_err(JoinError::try_into_panic) {
            Ok(done) => done,
            Err(Ok(panic)) => resume_unwind(panic),
            // The runtime ends, and this future with it.
            Err(Err(_)) => std::future::pending().await,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{
        sync::atomic::{AtomicUsize, Ordering::SeqCst},
        thread,
    };

    use futures_util::future::join_all;

    use super::*;

    #[tokio::test]
    async fn long_texts_are_read_beside_the_worker_and_one_at_a_time() {
        let (texts, worker) = (LongTexts::new(), thread::current().id());
        let under_way = Arc::new(AtomicUsize::new(0));
        let one = |_| {
            let under_way = Arc::clone(&under_way);
            texts.read(move || {
                let others = under_way.fetch_add(1, SeqCst);
                thread::yield_now();
                under_way.fetch_sub(1, SeqCst);
                (others, thread::current().id() == worker)
            })
        };
        assert_eq!(join_all((0..20).map(one)).await, [(0, false); 20]);
    }

    #[tokio::test]
    #[should_panic(expected = "as the reader did")]
    async fn a_panic_comes_back() {
        LongTexts::new().read(|| panic!("as the reader did")).await;
    }
}
