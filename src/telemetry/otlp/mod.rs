//! One span per query, sent to a collector in batches: OTLP over HTTP in its JSON form
//! (opentelemetry.io/docs/specs/otlp, "OTLP/HTTP").
//!
//! A query never waits for it: spans go through a queue of a fixed length; one that finds no place is dropped and
//! counted. A collector that does not answer costs a connection attempt per batch, a metric and one line in the log;
//! nothing is sent twice.

mod span;
#[cfg(test)]
mod tests;
mod traceparent;

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use http::{Request, Uri, header};
use http_body_util::{BodyExt, Full, Limited};
use hyper_util::{
    client::legacy::{Client, connect::HttpConnector},
    rt::TokioExecutor,
};
use tokio::{
    sync::mpsc,
    time::{Instant, timeout, timeout_at},
};

pub use span::{Span, Value};
pub use traceparent::Context;

use super::metrics::Metrics;

/// Spans that wait to be sent.
const QUEUE: usize = 4_096;
/// Spans sent at a time.
const BATCH: usize = 512;
/// Longest time that a span waits for others.
const GATHER: Duration = Duration::from_secs(2);
/// Longest wait for the collector to take a batch.
const POST_WAIT: Duration = Duration::from_secs(5);
/// Bytes of the collector's answer that are read, so that its connection can be used again.
const ANSWER_MAX: usize = 64 << 10;

/// Takes spans; cheap to clone.
#[derive(Clone, Debug)]
pub struct Sender {
    queue: mpsc::Sender<Span>,
    metrics: Arc<Metrics>,
}

impl Sender {
    /// Hands a span over, or drops it when too many wait.
    pub fn send(&self, span: Span) {
        if self.queue.try_send(span).is_err() {
            self.metrics.spans("dropped", 1);
        }
    }
}

/// Sends the spans of its [`Sender`]s.
#[derive(Debug)]
pub struct Exporter {
    queue: mpsc::Receiver<Span>,
    endpoint: Uri,
    client: Client<HttpConnector, Full<Bytes>>,
    metrics: Arc<Metrics>,
    /// The last batch was taken, or none was sent yet.
    well: bool,
}

/// The address that spans are posted to, below a collector's base URL.
///
/// # Errors
/// The problem with the URL.
pub fn endpoint(base: &str) -> Result<Uri, String> {
    let uri: Uri = base.parse().map_err(|error| format!("not a URL: {error}"))?;
    if uri.scheme_str() != Some("http") || uri.authority().is_none() {
        return Err("expected the base URL of a collector such as `http://127.0.0.1:4318`; no TLS".to_owned());
    }
    if uri.query().is_some() {
        return Err("a base URL has no query".to_owned());
    }
    format!("{}/v1/traces", base.trim_end_matches('/')).parse().map_err(|error| format!("not a URL: {error}"))
}

impl Exporter {
    /// An exporter to [`endpoint`], and the sender for its spans.
    pub fn new(endpoint: Uri, metrics: Arc<Metrics>) -> (Sender, Self) {
        let (queue, waiting) = mpsc::channel(QUEUE);
        let client = Client::builder(TokioExecutor::new()).pool_max_idle_per_host(1).build_http();
        let sender = Sender { queue, metrics: Arc::clone(&metrics) };
        (sender, Self { queue: waiting, endpoint, client, metrics, well: true })
    }

    /// Sends batches until `stop`, and then the waiting spans.
    pub async fn run(mut self, stop: impl Future<Output = ()>) {
        let mut stop = std::pin::pin!(stop);
        let mut batch = Vec::new();
        loop {
            let stopped = tokio::select! {
                biased;
                () = &mut stop => true,
                () = gather(&mut self.queue, &mut batch) => false,
            };
            if stopped {
                break;
            }
            self.post(&mut batch).await;
        }
        self.queue.close();
        while let Ok(span) = self.queue.try_recv() {
            batch.push(span);
        }
        self.post(&mut batch).await;
    }

    async fn post(&mut self, batch: &mut Vec<Span>) {
        if batch.is_empty() {
            return;
        }
        let count = batch.len() as u64;
        let body = span::request(batch);
        batch.clear();
        let taken = match timeout(POST_WAIT, self.try_post(body)).await {
            Ok(taken) => taken,
            Err(_) => Err("it did not answer in time".to_owned()),
        };
        self.metrics.spans(if taken.is_ok() { "sent" } else { "failed" }, count);
        match &taken {
            Err(why) if self.well => {
                tracing::warn!(endpoint = %self.endpoint, why, "the trace collector takes no spans; they are lost");
            }
            Ok(()) if !self.well => tracing::info!("the trace collector takes spans again"),
            _ => {}
        }
        self.well = taken.is_ok();
    }

    async fn try_post(&self, body: String) -> Result<(), String> {
        let request = Request::post(self.endpoint.clone())
            .header(header::CONTENT_TYPE, "application/json")
            .body(Full::from(body))
            .map_err(|error| error.to_string())?;
        let answer = self.client.request(request).await.map_err(|error| error.to_string())?;
        let status = answer.status();
        // The rest of the response is of no use here.
        drop(Limited::new(answer.into_body(), ANSWER_MAX).collect().await);
        if status.is_success() { Ok(()) } else { Err(format!("it answered {status}")) }
    }
}

/// Waits for a span, and a little longer for others. Spans in `batch` stay there when this is dropped.
async fn gather(queue: &mut mpsc::Receiver<Span>, batch: &mut Vec<Span>) {
    if batch.is_empty() && queue.recv_many(batch, BATCH).await == 0 {
        // All senders are gone.
        return std::future::pending().await;
    }
    let end = Instant::now() + GATHER;
    while batch.len() < BATCH {
        match timeout_at(end, queue.recv_many(batch, BATCH - batch.len())).await {
            Ok(0) | Err(_) => break,
            Ok(_) => {}
        }
    }
}
