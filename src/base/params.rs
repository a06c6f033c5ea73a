//! Parameters as Prometheus reads them: URL query and form body merged, the form's first; times and steps.
//!
//! Read more strictly than any database does. What two programs could read differently (a parameter given twice with
//! two values, a broken escape, a bare semicolon) is refused: else a query could be weighed that never runs while
//! another one runs that was never weighed.

use std::{borrow::Cow, fmt};

use super::units;

/// Most parameters of one request.
const PARAMS_MAX: usize = 1_000;
/// Times further from the epoch than this are the ends of time: year 5138, milliseconds.
const TIME_MAX_MS: f64 = 1e14;

/// Why the parameters of a request cannot be used; shown after `invalid parameter …` as Prometheus does.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ParamError {
    /// A value that is missing or cannot be read.
    Invalid {
        /// The parameter's name.
        name: &'static str,
        /// What is wrong with it.
        why: String,
    },
    /// The query string or the form is damaged.
    Malformed(&'static str),
}

impl ParamError {
    /// A value that cannot be used.
    pub fn invalid(name: &'static str, why: impl Into<String>) -> Self {
        Self::Invalid { name, why: why.into() }
    }
}

impl fmt::Display for ParamError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Invalid { name, why } => write!(f, "invalid parameter {name:?}: {why}"),
            Self::Malformed(why) => f.write_str(why),
        }
    }
}

impl std::error::Error for ParamError {}

/// The parameters of one request.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Params<'a> {
    pairs: Vec<(Cow<'a, str>, Cow<'a, str>)>,
}

impl<'a> Params<'a> {
    /// Reads the query string of the URL and the form body.
    pub fn parse(url_query: &'a str, form: &'a str) -> Result<Self, ParamError> {
        let mut pairs = Vec::with_capacity(8);
        for part in form.split('&').chain(url_query.split('&')).filter(|part| !part.is_empty()) {
            if pairs.len() == PARAMS_MAX {
                return Err(ParamError::Malformed("too many parameters"));
            }
            let (name, value) = part.split_once('=').unwrap_or((part, ""));
            pairs.push((decode(name)?, decode(value)?));
        }
        Ok(Self { pairs })
    }

    /// The value of a parameter that may be given once; an empty one counts as missing, as in Prometheus.
    pub fn one(&self, name: &'static str) -> Result<Option<&str>, ParamError> {
        let mut values = self.all(name);
        let first = values.next();
        match values.find(|value| Some(*value) != first) {
            Some(_) => Err(ParamError::invalid(name, "given twice, with different values")),
            None => Ok(first.filter(|value| !value.is_empty())),
        }
    }

    /// All values of a parameter.
    pub fn all<'s>(&'s self, name: &'s str) -> impl Iterator<Item = &'s str> {
        self.pairs.iter().filter(move |(known, _)| known == name).map(|(_, value)| &**value)
    }

    /// Whether a time is written as every database reads it: a number, or RFC 3339 to the letter.
    pub fn is_plain_time(&self, name: &str) -> bool {
        let strict = |text: &str| {
            let seconds =
                text.get(10..19).is_some_and(|time| time.starts_with('T') && time.matches(':').count() == 2);
            seconds
                && text
                    .bytes()
                    .all(|byte| matches!(byte, b'0'..=b'9' | b'-' | b'+' | b':' | b'.' | b'T' | b'Z'))
        };
        self.first(name).is_some_and(|text| text.parse::<f64>().is_ok() || strict(text))
    }

    /// The names of all parameters.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.pairs.iter().map(|(name, _)| &**name)
    }

    /// The value that counts where a parameter is given several times.
    pub fn first(&self, name: &str) -> Option<&str> {
        self.pairs.iter().find(|(known, _)| known == name).map(|(_, value)| &**value)
    }

    /// A time in milliseconds since the epoch.
    pub fn time(&self, name: &'static str) -> Result<Option<i64>, ParamError> {
        let Some(text) = self.one(name)? else { return Ok(None) };
        let why = || ParamError::invalid(name, format!("cannot parse {text:?} to a valid timestamp"));
        parse_time(text).map(Some).ok_or_else(why)
    }

    /// A duration in milliseconds: seconds as a number, or `5m`.
    pub fn duration(&self, name: &'static str) -> Result<Option<i64>, ParamError> {
        let Some(text) = self.one(name)? else { return Ok(None) };
        let why = || ParamError::invalid(name, format!("cannot parse {text:?} to a valid duration"));
        parse_duration(text).map(Some).ok_or_else(why)
    }
}

/// Unix seconds with a fraction, or RFC 3339.
fn parse_time(text: &str) -> Option<i64> {
    if let Ok(seconds) = text.parse::<f64>() {
        // Go's extremes come from clients that mean "all of time"; what is beyond is a mistake.
        let is_time = seconds.is_finite() && (seconds * 1e3).abs() < TIME_MAX_MS;
        // As Prometheus: the fraction to the nearest millisecond, then down to a whole one.
        let fraction = (seconds.fract() * 1e3).round() / 1e3;
        return is_time.then(|| seconds.trunc() as i64 * 1_000 + whole_ms(fraction));
    }
    match text {
        "-292273086-05-16T16:47:06Z" => return Some(-(TIME_MAX_MS as i64)),
        "292277025-08-18T07:12:54.999999999Z" => return Some(TIME_MAX_MS as i64),
        _ => {}
    }
    text.parse::<jiff::Timestamp>().ok().map(jiff::Timestamp::as_millisecond)
}

fn parse_duration(text: &str) -> Option<i64> {
    if let Ok(seconds) = text.parse::<f64>() {
        return ((seconds * 1e3).abs() < TIME_MAX_MS).then(|| whole_ms(seconds));
    }
    units::parse_duration_ms(text)
        .and_then(|ms| i64::try_from(ms).ok())
        .filter(|ms| (*ms as f64) < TIME_MAX_MS)
}

/// Seconds as Go makes a duration of them: whole nanoseconds, then whole milliseconds, both towards zero. `4.1` are 4,099.
const fn whole_ms(seconds: f64) -> i64 {
    (seconds * 1e9) as i64 / 1_000_000
}

/// The text of a query string or a form without the parameters of these names; the others stay byte for byte.
pub fn without<'a>(text: &'a str, names: &[&str]) -> Cow<'a, str> {
    let is_named = |part: &&str| {
        let name = part.split('=').next().unwrap_or_default();
        decode(name).is_ok_and(|name| names.contains(&&*name))
    };
    if !text.split('&').any(|part| is_named(&part)) {
        return Cow::Borrowed(text);
    }
    Cow::Owned(text.split('&').filter(|part| !is_named(part)).collect::<Vec<_>>().join("&"))
}

/// Decodes `+` and `%XX`, and nothing that is not UTF-8.
fn decode(text: &str) -> Result<Cow<'_, str>, ParamError> {
    let Some(first) = memchr::memchr3(b'+', b'%', b';', text.as_bytes()) else {
        return Ok(Cow::Borrowed(text));
    };
    let (plain, rest) = text.split_at(first);
    let mut out = Vec::with_capacity(text.len());
    out.extend_from_slice(plain.as_bytes());
    let mut bytes = rest.bytes();
    while let Some(byte) = bytes.next() {
        out.push(match byte {
            b'+' => b' ',
            b';' => return Err(ParamError::Malformed("a semicolon in a parameter must be written %3B")),
            b'%' => {
                let digit = |byte: Option<u8>| (byte? as char).to_digit(16);
                let (high, low) = (digit(bytes.next()), digit(bytes.next()));
                let (Some(high), Some(low)) = (high, low) else {
                    return Err(ParamError::Malformed("a percent sign in a parameter must be written %25"));
                };
                (high * 16 + low) as u8
            }
            other => other,
        });
    }
    String::from_utf8(out)
        .map(Cow::Owned)
        .map_err(|_| ParamError::Malformed("a parameter is not valid UTF-8"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn url_and_form_are_one() {
        let params =
            Params::parse("time=5&query=up%7Ba%3D%22b%22%7D", "x=a+b&match[]=1&match%5B%5D=2").unwrap();
        assert_eq!(params.one("query").unwrap(), Some("up{a=\"b\"}"));
        assert_eq!(params.one("x").unwrap(), Some("a b"));
        assert_eq!(params.all("match[]").collect::<Vec<_>>(), ["1", "2"]);
        assert_eq!(params.time("time").unwrap(), Some(5_000));
        assert_eq!(params.one("none").unwrap(), None);
    }

    #[test]
    fn what_could_be_read_in_two_ways_is_refused() {
        let twice = Params::parse("query=up", "query=down").unwrap();
        assert_eq!(
            twice.one("query").unwrap_err().to_string(),
            "invalid parameter \"query\": given twice, with different values"
        );
        assert_eq!(Params::parse("query=up", "query=up").unwrap().one("query").unwrap(), Some("up"));
        for damaged in ["query=a;b", "query=%", "query=%4", "query=%zz", "query=%ff", "que%y=1"] {
            assert!(Params::parse(damaged, "").is_err(), "{damaged}");
        }
        assert!(Params::parse(&"a=1&".repeat(1_001), "").is_err());
        assert!(Params::parse(&"a=1&".repeat(1_000), "").is_ok());
    }

    #[test]
    fn times_and_durations() {
        for (text, want) in [
            ("1700000000", Some(1_700_000_000_000)),
            ("1700000000.1234", Some(1_700_000_000_123)),
            ("-1.5", Some(-1_500)),
            // Down, as Prometheus gives it.
            ("1795681350.7045", Some(1_795_681_350_704)),
            ("1e3", Some(1_000_000)),
            ("2023-11-14T22:13:20Z", Some(1_700_000_000_000)),
            ("2023-11-14T22:13:20.5+01:00", Some(1_699_996_400_500)),
            ("-292273086-05-16T16:47:06Z", Some(-100_000_000_000_000)),
            ("NaN", None),
            ("inf", None),
            ("1e300", None),
            ("now", None),
        ] {
            assert_eq!(parse_time(text), want, "{text}");
        }
        for (text, want) in [
            ("15", Some(15_000)),
            ("0.5", Some(500)),
            // In nanoseconds a little less, as Prometheus reads it.
            ("4.1", Some(4_099)),
            ("5m", Some(300_000)),
            ("-1", Some(-1_000)),
            ("1y", Some(31_536_000_000)),
            ("NaN", None),
            ("soon", None),
        ] {
            assert_eq!(parse_duration(text), want, "{text}");
        }
    }
}
