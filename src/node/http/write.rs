//! Writes: remote write, the text format, and scrapes of this process.

use std::{borrow::Cow, io::Read as _, sync::Arc};

use axum::{
    extract::{Request, State},
    http::{HeaderName, StatusCode, header},
    response::{IntoResponse, Response},
};
use flate2::read::MultiGzDecoder;

use super::{Node, error::Failure};
use crate::{
    base::{
        ErrorKind,
        allocator::ForWrites,
        params::{ParamError, Params},
    },
    node::{
        db::{Appended, Db},
        ingest::{self, Strings, TextOptions},
    },
};

/// Bytes that one byte of gzip stands for at most.
const GZIP_RATIO_MAX: usize = 1_032;

/// A label that every series of a scrape gets: its name and value.
pub type Label<'a> = (&'a str, &'a str);

/// The outcome of a request of several batches.
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
        all.exemplars_refused += more.exemplars_refused;
        if all.first.is_none() {
            all.first = more.first;
        }
    }

    /// No error if all of it was written. A refused series is refused for good, so that no sender tries again. Only a
    /// full node may have room later; but where anything of the request was taken, trying all of it again would hold up
    /// the newer samples of known series.
    fn response(self) -> Result<Response, Failure> {
        let all = &self.appended;
        let Some((_, first)) = &all.first else {
            return match all.exemplars_refused {
                0 => Ok(StatusCode::NO_CONTENT.into_response()),
                _ => Err(Failure::new(ErrorKind::BadData, self.counts())),
            };
        };
        let full = all.series_refused > 0 && all.samples + all.known == 0;
        let kind = if full { ErrorKind::RateLimited } else { ErrorKind::BadData };
        Err(Failure::new(kind, format!("{}; the first: {first}", self.counts())))
    }

    fn counts(&self) -> String {
        let all = &self.appended;
        let exemplars = match all.exemplars_refused {
            0 => String::new(),
            count => format!("; {count} exemplars were refused: this node stores none"),
        };
        format!("{} samples were written, {} refused{exemplars}", all.samples, all.refused)
    }
}

/// Runs a write on a thread for blocking work: it waits for the disk. The memory of the write is given back when the
/// thread is done, however early its sender leaves.
async fn on_thread(
    node: Arc<Node>,
    unpacked: usize,
    write: impl FnOnce(&Node) -> Result<Total, Failure> + Send + 'static,
) -> Result<Response, Failure> {
    let turn = node.writes.turn(unpacked).await;
    let work = move || {
        let _turn = turn;
        let _arena = ForWrites::begin();
        write(&node)
    };
    match tokio::task::spawn_blocking(work).await {
        Ok(total) => total?.response(),
        Err(_) => Err(Failure::new(ErrorKind::Internal, "a defect in the node; its log says more")),
    }
}

/// A header in small letters, with the part after a `;` apart.
fn header_of(request: &Request, name: HeaderName) -> (String, String) {
    let value = request.headers().get(name).and_then(|v| v.to_str().ok()).unwrap_or_default();
    let (value, parameters) = value.split_once(';').unwrap_or((value, ""));
    (value.trim().to_ascii_lowercase(), parameters.to_ascii_lowercase())
}

fn unsupported(message: String) -> Failure {
    Failure::new(ErrorKind::UnsupportedMediaType, message)
}

/// An error for a request that is no remote write 1.0.
fn check_remote_write(request: &Request) -> Result<(), Failure> {
    let (media_type, parameters) = header_of(request, header::CONTENT_TYPE);
    if parameters.contains("io.prometheus.write.v2") {
        return Err(unsupported(
            "remote write 2.0 is not supported; the sender falls back to 1.0".to_owned(),
        ));
    }
    if !matches!(media_type.as_str(), "" | "application/x-protobuf") {
        return Err(unsupported(format!("remote write is application/x-protobuf, not {media_type}")));
    }
    match header_of(request, header::CONTENT_ENCODING).0.as_str() {
        "" | "snappy" => Ok(()),
        other => Err(unsupported(format!("remote write is compressed with snappy, not with {other}"))),
    }
}

pub(super) async fn remote(State(node): State<Arc<Node>>, request: Request) -> Result<Response, Failure> {
    check_remote_write(&request)?;
    let packed = node.writes.read(request.into_body()).await?;
    let max = node.settings().write_bytes;
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

/// The parameters in the URL of an import.
#[derive(Default)]
struct Import {
    time_ms: Option<i64>,
    extra_labels: Vec<(String, String)>,
}

impl Import {
    /// Reads `timestamp`, milliseconds, and `extra_label`, `name=value`, as VictoriaMetrics has them.
    fn read(query: &str) -> Result<Self, Failure> {
        let params = Params::parse(query, "")?;
        let time_ms = params.one("timestamp")?.map(|text| {
            let bad = |_| {
                ParamError::invalid("timestamp", format!("{text:?} is not a whole number of milliseconds"))
            };
            text.parse().map_err(bad)
        });
        let mut import = Self { time_ms: time_ms.transpose()?, extra_labels: Vec::new() };
        for text in params.all("extra_label") {
            let Some((name, value)) = text.split_once('=').filter(|(name, _)| !name.is_empty()) else {
                return Err(ParamError::invalid("extra_label", format!("{text:?} is not name=value")).into());
            };
            import.extra_labels.push((name.to_owned(), value.to_owned()));
        }
        Ok(import)
    }
}

pub(super) async fn text(State(node): State<Arc<Node>>, request: Request) -> Result<Response, Failure> {
    let open_metrics = header_of(&request, header::CONTENT_TYPE).0 == "application/openmetrics-text";
    let gzip = match header_of(&request, header::CONTENT_ENCODING).0.as_str() {
        "" | "identity" => false,
        "gzip" | "x-gzip" => true,
        other => return Err(unsupported(format!("a text may be compressed with gzip, not with {other}"))),
    };
    let import = Import::read(request.uri().query().unwrap_or_default())?;
    let body = node.writes.read(request.into_body()).await?;
    let max = node.settings().write_bytes;
    let unpacked = if gzip { body.len().saturating_mul(GZIP_RATIO_MAX).min(max) } else { 0 };
    on_thread(node, unpacked, move |node| {
        let text = if gzip { Cow::Owned(gunzip(&body, max)?) } else { Cow::Borrowed(&*body) };
        if let (false, Some(name)) = (gzip, ingest::compression_of(&text)) {
            let message = format!("the text is compressed with {name}, and no Content-Encoding says so");
            return Err(Failure::new(ErrorKind::BadData, message));
        }
        let labels = import.extra_labels.iter().map(|(name, value)| (name.as_str(), value.as_str()));
        let time_ms = import.time_ms.unwrap_or_else(|| node.now_ms());
        store_text(&node.db, &text, time_ms, open_metrics, labels.collect())
    })
    .await
}

/// Undoes gzip, up to `max` bytes of result.
fn gunzip(packed: &[u8], max: usize) -> Result<Vec<u8>, Failure> {
    let mut text = Vec::new();
    let limit = u64::try_from(max).unwrap_or(u64::MAX).saturating_add(1);
    MultiGzDecoder::new(packed).take(limit).read_to_end(&mut text).map_err(|error| {
        Failure::new(
            ErrorKind::BadData,
            format!("the body is said to be gzip and cannot be read as such: {error}"),
        )
    })?;
    if text.len() > max {
        return Err(Failure::new(ErrorKind::BodyTooLarge, format!("the text is larger than {max} bytes")));
    }
    Ok(text)
}

fn store_text(
    db: &Db,
    text: &[u8],
    time_ms: i64,
    open_metrics: bool,
    extra_labels: Vec<Label<'_>>,
) -> Result<Total, Failure> {
    let (limits, known) = (db.options().labels, Some(db.known_series()));
    let options = TextOptions { time_ms, open_metrics, extra_labels, limits, known };
    let strings = Strings::new();
    let mut total = Total::default();
    let read = ingest::exposition(text, &strings, &options, |batch| {
        total.add(db.append(batch)?);
        Ok::<_, Failure>(())
    });
    // The samples before it stay, and the sender learns where to go on.
    read.map_err(|failure| Failure {
        message: format!("{}; before it {}", failure.message, total.counts()),
        ..failure
    })?;
    Ok(total)
}

/// Stores metrics in the text format, taken at `time_ms`, with these labels added: a scrape of this very process.
///
/// # Errors
/// The text cannot be read, or the first refusal of a series.
pub fn store_metrics(db: &Db, text: &str, time_ms: i64, added: &[Label<'_>]) -> Result<u64, String> {
    let total =
        store_text(db, text.as_bytes(), time_ms, false, added.to_vec()).map_err(|failure| failure.message)?;
    match total.appended.first {
        Some((_, first)) => Err(first),
        None => Ok(total.appended.samples),
    }
}
