//! Writes: remote write, the text format, and what a scrape of this process brings.

use std::sync::Arc;

use axum::{
    extract::{Request, State},
    http::{StatusCode, header},
    response::{IntoResponse, Response},
};

use super::{Node, error::Failure};
use crate::{
    base::ErrorKind,
    node::{
        db::{Appended, Db},
        head::Batch,
        ingest::{self, Defaults},
    },
};

/// Series of one batch of a text.
const TEXT_BATCH: usize = 4_096;

/// A label that every series of a scrape gets: its name and value.
pub type Label<'a> = (&'a str, &'a str);

/// What became of a request of several batches.
#[derive(Default)]
struct Total {
    appended: Appended,
}

impl Total {
    fn add(&mut self, more: Appended) {
        let all = &mut self.appended;
        all.samples += more.samples;
        all.known += more.known;
        all.refused += more.refused;
        all.series_refused += more.series_refused;
        if all.first.is_none() {
            all.first = more.first;
        }
    }

    /// Nothing to say if all of it was written. What is refused is refused for good, so that no sender tries again. Only
    /// a full node may have room later; but where anything of the request was taken, trying all of it again would hold
    /// up the newer samples of series that are known.
    fn response(self) -> Result<Response, Failure> {
        let all = &self.appended;
        let Some((_, first)) = &all.first else { return Ok(StatusCode::NO_CONTENT.into_response()) };
        let full = all.series_refused > 0 && all.samples + all.known == 0;
        let kind = if full { ErrorKind::RateLimited } else { ErrorKind::BadData };
        Err(Failure::new(kind, format!("{}; the first: {first}", self.counts())))
    }

    fn counts(&self) -> String {
        format!("{} samples were written, {} refused", self.appended.samples, self.appended.refused)
    }
}

/// Runs a write on a thread for blocking work: it waits for the disk. What the write holds is given back when the thread
/// is done, however early its sender leaves.
async fn on_thread(
    node: Arc<Node>,
    unpacked: usize,
    write: impl FnOnce(&Node) -> Result<Total, Failure> + Send + 'static,
) -> Result<Response, Failure> {
    let turn = node.writes.turn(unpacked).await;
    let work = move || {
        let _turn = turn;
        write(&node)
    };
    match tokio::task::spawn_blocking(work).await {
        Ok(total) => total?.response(),
        Err(_) => Err(Failure::new(ErrorKind::Internal, "a defect in the node; its log says more")),
    }
}

fn content_type(request: &Request) -> &str {
    request.headers().get(header::CONTENT_TYPE).and_then(|v| v.to_str().ok()).unwrap_or_default()
}

pub(super) async fn remote(State(node): State<Arc<Node>>, request: Request) -> Result<Response, Failure> {
    if content_type(&request).contains("io.prometheus.write.v2") {
        let message = "remote write 2.0 is not supported; the sender falls back to 1.0";
        return Ok((StatusCode::UNSUPPORTED_MEDIA_TYPE, message).into_response());
    }
    let packed = node.writes.read(request.into_body()).await?;
    let max = node.settings.write_bytes;
    let unpacked = ingest::unpacked_size(&packed, max)?;
    on_thread(node, unpacked, move |node| {
        let message = ingest::unpack(&packed, max)?;
        drop(packed);
        let mut total = Total::default();
        ingest::remote_write(&message, node.db.options().labels, |batch| {
            total.add(node.db.append(batch)?);
            Ok::<_, Failure>(())
        })?;
        Ok(total)
    })
    .await
}

pub(super) async fn text(State(node): State<Arc<Node>>, request: Request) -> Result<Response, Failure> {
    let open_metrics = content_type(&request).starts_with("application/openmetrics-text");
    let body = node.writes.read(request.into_body()).await?;
    on_thread(node, 0, move |node| {
        let defaults = Defaults { time_ms: node.now_ms(), open_metrics };
        let mut total = Total::default();
        let read = ingest::exposition(&body, node.db.options().labels, defaults, TEXT_BATCH, |batch| {
            total.add(node.db.append(batch)?);
            Ok::<_, Failure>(())
        });
        // What came before stays, and whoever sent it should know where to go on.
        read.map_err(|failure| Failure {
            message: format!("{}; before it {}", failure.message, total.counts()),
            ..failure
        })?;
        Ok(total)
    })
    .await
}

/// Stores metrics in the text format, taken at `time_ms`, with these labels added: a scrape of this very process.
///
/// # Errors
/// The text cannot be read, or what was refused of it.
pub fn store_metrics(db: &Db, text: &str, time_ms: i64, added: &[Label<'_>]) -> Result<u64, String> {
    let limits = db.options().labels;
    let defaults = Defaults { time_ms, open_metrics: false };
    let mut total = Total::default();
    ingest::exposition(text.as_bytes(), limits, defaults, TEXT_BATCH, |batch| {
        let mut labelled = Batch::new(limits);
        for series in batch.series() {
            let own = series.labels.iter().filter(|(name, _)| !added.iter().any(|(other, _)| other == name));
            for (name, value) in own.chain(added) {
                labelled.label(name, value);
            }
            for (time, value) in series.samples {
                labelled.sample(*time, *value);
            }
            labelled.end_series().map_err(|e| Failure::new(ErrorKind::BadData, e.to_string()))?;
        }
        total.add(db.append(&labelled)?);
        Ok::<_, Failure>(())
    })
    .map_err(|failure| failure.message)?;
    match total.appended.first {
        Some((_, first)) => Err(first),
        None => Ok(total.appended.samples),
    }
}
