//! Log lines on standard error, filtered and formatted as the caller says.

use std::{fmt, str::FromStr};

use tracing_subscriber::{EnvFilter, filter::ParseError, util::TryInitError};

/// The form of a log line.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Format {
    /// For people: time, level, target, fields.
    #[default]
    Text,
    /// For machines: one JSON object a line.
    Json,
}

impl FromStr for Format {
    type Err = LogError;

    fn from_str(word: &str) -> Result<Self, LogError> {
        match word {
            "text" => Ok(Self::Text),
            "json" => Ok(Self::Json),
            other => Err(LogError::Format(other.to_owned())),
        }
    }
}

/// Why logging could not be set up.
#[derive(Debug)]
pub enum LogError {
    /// Not a filter, such as `info` or `warn,weir::limit=debug`.
    Filter(String, ParseError),
    /// Neither `text` nor `json`.
    Format(String),
    /// Logging was set up before.
    Twice(TryInitError),
}

impl fmt::Display for LogError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Filter(text, error) => {
                write!(f, "log filter `{text}`: {error}; try `info` or `warn,weir::limit=debug`")
            }
            Self::Format(word) => write!(f, "log format `{word}`: use `text` or `json`"),
            Self::Twice(error) => write!(f, "logging is set up already: {error}"),
        }
    }
}

impl std::error::Error for LogError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Filter(_, error) => Some(error),
            Self::Format(_) => None,
            Self::Twice(error) => Some(error),
        }
    }
}

/// Checks a filter without setting anything up; an empty one means `info`.
///
/// # Errors
/// [`LogError::Filter`] names the text and its mistake.
pub fn parse_filter(text: &str) -> Result<EnvFilter, LogError> {
    let text = if text.trim().is_empty() { "info" } else { text };
    EnvFilter::builder().parse(text).map_err(|error| LogError::Filter(text.to_owned(), error))
}

/// Lines that may wait for a slow reader of standard error; those beyond are dropped, since a full pipe must not hold
/// up a query.
const LINES_WAITING: usize = 16_384;

/// Writes the waiting lines when it is dropped; keep it until the end of the process.
#[must_use = "dropped, it ends the log"]
#[derive(Debug)]
pub struct Flush(
    #[expect(dead_code, reason = "its drop is its use")] tracing_appender::non_blocking::WorkerGuard,
);

/// Sets up logging for the whole process; once.
///
/// # Errors
/// The filter does not parse, or logging was set up before.
pub fn init(filter: &str, format: Format) -> Result<Flush, LogError> {
    use tracing_subscriber::util::SubscriberInitExt;
    let (writer, guard) = tracing_appender::non_blocking::NonBlockingBuilder::default()
        .buffered_lines_limit(LINES_WAITING)
        .lossy(true)
        .thread_name("log")
        .finish(std::io::stderr());
    let builder = tracing_subscriber::fmt().with_env_filter(parse_filter(filter)?).with_writer(writer);
    match format {
        Format::Text => {
            builder.with_ansi(std::io::IsTerminal::is_terminal(&std::io::stderr())).finish().try_init()
        }
        Format::Json => builder.json().flatten_event(true).finish().try_init(),
    }
    .map_err(LogError::Twice)?;
    Ok(Flush(guard))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn filters_and_formats_are_checked() {
        for good in ["", "info", "warn,weir::limit=debug", "off"] {
            assert!(parse_filter(good).is_ok(), "{good}");
        }
        let error = parse_filter("weir=loud").unwrap_err().to_string();
        assert!(error.starts_with("log filter `weir=loud`: "), "{error}");
        assert_eq!("json".parse::<Format>().unwrap(), Format::Json);
        assert_eq!(
            "xml".parse::<Format>().unwrap_err().to_string(),
            "log format `xml`: use `text` or `json`"
        );
    }
}
