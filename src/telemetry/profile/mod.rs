//! CPU and heap profiles of this process, as `pprof` files and as flame graphs.
//!
//! | module | task |
//! |---|---|
//! | `cpu` | interrupts the threads that run, 100 times per second of CPU time, and notes where they are |
//! | `heap` | with the cargo feature `heap-profile`: keeps the stack of one allocation in about every half MiB, as long as it is held |
//! | `stacks` | addresses to names |
//! | `protobuf` | the format that `pprof`, Grafana and others read |
//! | `flame` | a picture |
//!
//! Timers and signals belong to the process, so there is one profiler, off unless [`enable`] is called at the start, and
//! one profile at a time. The proxy and the node each have a route to [`respond`].

mod cpu;
mod flame;
#[cfg(feature = "heap-profile")]
mod heap;
mod protobuf;
mod stacks;

use std::{
    fmt,
    sync::atomic::{AtomicBool, Ordering},
    time::Duration,
};

#[cfg(feature = "heap-profile")]
pub use heap::Sampled;
use http::{HeaderValue, Response, StatusCode, header};
use stacks::{Profile, Symbols};

/// Seconds of a CPU profile when the request names none.
const SECONDS_DEFAULT: u64 = 10;
/// Most seconds of a CPU profile.
const SECONDS_MAX: u64 = 60;

static ENABLED: AtomicBool = AtomicBool::new(false);
static BUSY: AtomicBool = AtomicBool::new(false);

/// Lets this process be profiled from now on; allocations are sampled from now on.
pub fn enable() {
    #[cfg(feature = "heap-profile")]
    heap::enable();
    ENABLED.store(true, Ordering::Relaxed);
}

/// The requested profile.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum What {
    /// Where the CPU spends its time, from now on for `seconds`.
    Cpu,
    /// Live memory by the stack that allocated it: with the cargo feature `heap-profile`.
    Heap,
}

/// A profile, ready to be sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    /// Of the body.
    pub content_type: &'static str,
    /// Gzipped protobuf, or SVG.
    pub body: Vec<u8>,
}

/// Why there is no profile.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// The configuration has not switched it on.
    Off,
    /// The program was built without the feature.
    NotBuilt,
    /// Another profile is being taken.
    Busy,
    /// A parameter makes no sense.
    Bad(String),
    /// The system does not give it.
    Failed(String),
}

impl Refusal {
    /// The HTTP status that says the same.
    pub const fn status(&self) -> StatusCode {
        match self {
            Self::Off => StatusCode::FORBIDDEN,
            Self::NotBuilt => StatusCode::NOT_IMPLEMENTED,
            Self::Busy => StatusCode::TOO_MANY_REQUESTS,
            Self::Bad(_) => StatusCode::BAD_REQUEST,
            Self::Failed(_) => StatusCode::INTERNAL_SERVER_ERROR,
        }
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Off => f.write_str(
                "profiling is off; write `profiling: {enabled: true}` under `telemetry` and start anew",
            ),
            Self::NotBuilt => f.write_str(
                "this program has no profiler of the heap; build it with `cargo build --release --features heap-profile`",
            ),
            Self::Busy => f.write_str("another profile is being taken; there is one at a time"),
            Self::Bad(reason) | Self::Failed(reason) => f.write_str(reason),
        }
    }
}

/// A profile as the query string `asked` wants it: `seconds=N` and `format=svg` (or `pprof`, the default).
///
/// Waits for `seconds`; dropping the future ends the profile. Names are looked up on a thread for blocking work.
///
/// # Errors
/// Profiling is off, or busy; a parameter is wrong; the system refuses.
pub async fn answer(what: What, asked: &str) -> Result<Answer, Refusal> {
    if !ENABLED.load(Ordering::Relaxed) {
        return Err(Refusal::Off);
    }
    let asked = ProfileRequest::parse(asked)?;
    let turn = Turn::take().ok_or(Refusal::Busy)?;
    let watched = match what {
        What::Cpu => Some(cpu::profile(asked.seconds).await.map_err(Refusal::Failed)?),
        What::Heap => None,
    };
    let drawn = tokio::task::spawn_blocking(move || {
        let answer = watched.or_else(of_the_heap).map(|profile| asked.format.draw(&profile));
        drop(turn);
        answer
    });
    drawn.await.map_err(|error| Refusal::Failed(error.to_string()))?.ok_or(Refusal::NotBuilt)
}

/// Live memory, where the program was built with `heap-profile`.
#[cfg(feature = "heap-profile")]
fn of_the_heap() -> Option<Profile> {
    Some(heap::profile())
}

#[cfg(not(feature = "heap-profile"))]
fn of_the_heap() -> Option<Profile> {
    None
}

/// The response to a request for a profile, `asked` being its query string: see [`answer`].
pub async fn respond(what: What, asked: Option<String>) -> Response<Vec<u8>> {
    let (status, content_type, body) = match answer(what, &asked.unwrap_or_default()).await {
        Ok(answer) => (StatusCode::OK, answer.content_type, answer.body),
        Err(refusal) => (refusal.status(), "text/plain; charset=utf-8", format!("{refusal}\n").into_bytes()),
    };
    let mut response = Response::new(body);
    *response.status_mut() = status;
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(content_type));
    response
}

/// The turn of the one profile.
struct Turn;

impl Turn {
    fn take() -> Option<Self> {
        (!BUSY.swap(true, Ordering::Acquire)).then_some(Self)
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        BUSY.store(false, Ordering::Release);
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Format {
    Pprof,
    Svg,
}

impl Format {
    fn draw(self, profile: &Profile) -> Answer {
        let symbols = Symbols::of(profile);
        match self {
            Self::Pprof => {
                Answer { content_type: "application/octet-stream", body: protobuf::encode(profile, &symbols) }
            }
            Self::Svg => {
                Answer { content_type: "image/svg+xml", body: flame::draw(profile, &symbols).into_bytes() }
            }
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct ProfileRequest {
    seconds: Duration,
    format: Format,
}

impl ProfileRequest {
    fn parse(query: &str) -> Result<Self, Refusal> {
        let mut asked = Self { seconds: Duration::from_secs(SECONDS_DEFAULT), format: Format::Pprof };
        for (name, value) in form_urlencoded::parse(query.as_bytes()) {
            match &*name {
                "seconds" => {
                    let seconds = value.parse().ok().filter(|n| (1..=SECONDS_MAX).contains(n));
                    asked.seconds = seconds.map(Duration::from_secs).ok_or_else(|| {
                        Refusal::Bad(format!("seconds must be a whole number from 1 to {SECONDS_MAX}"))
                    })?;
                }
                "format" => {
                    asked.format = match &*value {
                        "pprof" => Format::Pprof,
                        "svg" => Format::Svg,
                        _ => return Err(Refusal::Bad("format must be pprof or svg".to_owned())),
                    };
                }
                // Tools add parameters of their own.
                _ => {}
            }
        }
        Ok(asked)
    }
}

#[cfg(test)]
mod tests;
