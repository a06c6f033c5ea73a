//! Weir's own small questions to a backend, with bounded answers.

use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http::{HeaderMap, Method, StatusCode, header, uri::PathAndQuery};
use http_body_util::BodyExt;
use tokio::time::Instant;

use super::{Backend, BackendError, Body, Outgoing, Settings, endpoint::Place, error::Cause, ready};

/// Bytes of a `status/tsdb` or `metadata` that are read at most: 10,000 entries of each list are about 1 MB.
const TSDB_STATUS_MAX: usize = 16 << 20;
/// The path of the label table.
const TSDB_STATUS: &str = "/api/v1/status/tsdb";
/// Bytes of build information that are read at most.
const BUILDINFO_MAX: usize = 64 << 10;
/// The timeout of Weir's own requests.
const OWN_DEADLINE: Duration = Duration::from_secs(10);

/// Which days a table of series is about, where a backend keeps them apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Days {
    /// The running one (UTC).
    Latest,
    /// All that there are.
    All,
}

/// An answer read to its end.
#[derive(Debug)]
pub(super) struct Fetched {
    pub(super) status: StatusCode,
    pub(super) body: Bytes,
}

impl Backend {
    /// The table of series by metric name and label value, `limit` entries of each list, as JSON.
    pub async fn tsdb_status(&self, limit: usize, days: Days) -> Result<Bytes, BackendError> {
        let parameters = match (self.kind(), days) {
            (super::Kind::VictoriaMetrics, Days::Latest) => format!("topN={limit}"),
            (super::Kind::VictoriaMetrics, Days::All) => format!("topN={limit}&date=0"),
            _ => format!("limit={limit}"),
        };
        let endpoint = &self.tsdb_status;
        if endpoint.places(Place::Prefix, Instant::now()).is_empty() {
            return Err(self.error(None, Cause::Missing(TSDB_STATUS)));
        }
        let asked = self.get_ok(&format!("{TSDB_STATUS}?{parameters}"), TSDB_STATUS_MAX).await;
        match asked.as_ref().map_err(BackendError::cause) {
            Ok(_) => endpoint.found(Place::Prefix),
            Err(Cause::Status(status)) if ready::is_missing(*status) => {
                if endpoint.not_found(Instant::now()) {
                    tracing::info!(
                        backend = self.name(),
                        "the backend has no {TSDB_STATUS}: more selectors are counted by probes"
                    );
                }
            }
            Err(_) => {}
        }
        asked
    }

    /// Metadata of `limit` metrics, as JSON.
    pub async fn metadata(&self, limit: usize) -> Result<Bytes, BackendError> {
        self.get_ok(&format!("/api/v1/metadata?limit={limit}&limit_per_metric=1"), TSDB_STATUS_MAX).await
    }

    /// The backend's version and features, as JSON.
    pub async fn buildinfo(&self) -> Result<Bytes, BackendError> {
        self.get_ok("/api/v1/status/buildinfo", BUILDINFO_MAX).await
    }

    async fn get_ok(&self, target: &str, max: usize) -> Result<Bytes, BackendError> {
        let deadline = Instant::now() + OWN_DEADLINE;
        let path_and_query =
            target.parse::<PathAndQuery>().map_err(|e| self.error(None, Cause::Request(e.to_string())))?;
        let headers = HeaderMap::new();
        let request = Outgoing { method: Method::GET, path_and_query, headers, body: Bytes::new() };
        let fetched = self.fetch(request, deadline, max).await?;
        if fetched.status != StatusCode::OK {
            return Err(self.error(None, Cause::Status(fetched.status.as_u16())));
        }
        Ok(fetched.body)
    }

    /// Sends and reads at most `max` bytes of the answer, uncompressed.
    pub(super) async fn fetch(
        &self,
        mut request: Outgoing,
        deadline: Instant,
        max: usize,
    ) -> Result<Fetched, BackendError> {
        // So that the bound on the bytes read is a bound on the bytes held.
        request.headers.insert(header::ACCEPT_ENCODING, http::HeaderValue::from_static("identity"));
        let (head, body) = self.send(request, deadline, true).await?.into_parts();
        match read_at_most(body, max).await {
            Ok(body) => Ok(Fetched { status: head.status, body }),
            Err(ReadError::Backend(error)) => Err(error),
            Err(ReadError::TooLong) => Err(self.error(None, Cause::TooLong(max))),
        }
    }
}

/// Fetches something that is no database's, over a connection of its own: at most `max` bytes, with status 200.
///
/// # Errors
/// There is no such answer.
pub async fn get_once(settings: Settings, target: &str, max: usize) -> Result<Bytes, BackendError> {
    Backend::new(settings).get_ok(target, max).await
}

/// Why a body was not read to its end.
#[derive(Debug)]
pub(super) enum ReadError {
    Backend(BackendError),
    TooLong,
}

/// Reads a body to its end; gives it up, and the connection with it, beyond `max` bytes.
pub(super) async fn read_at_most(mut body: Body, max: usize) -> Result<Bytes, ReadError> {
    let mut whole = BytesMut::new();
    while let Some(frame) = body.frame().await {
        let Ok(data) = frame.map_err(ReadError::Backend)?.into_data() else { continue };
        if whole.len() + data.len() > max {
            return Err(ReadError::TooLong);
        }
        whole.extend_from_slice(&data);
    }
    Ok(whole.freeze())
}
