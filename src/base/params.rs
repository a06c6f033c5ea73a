//! Parameters as Prometheus reads them: URL query and form body merged, the form's first; times and steps.
//!
//! Read more strictly than any database does. Input that two programs could read differently (a parameter given twice
//! with two values, a broken escape, a bare semicolon) is refused: the query that is priced must be the query that
//! runs.

use std::{borrow::Cow, fmt};

use super::TimeDialect;

/// Most parameters of one request.
const PARAMS_MAX: usize = 1_000;

/// Why the parameters of a request cannot be used; shown after `invalid parameter …` as Prometheus does.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ParamError {
    /// A value that is missing or cannot be read.
    Invalid {
        /// The parameter's name.
        name: &'static str,
        /// The problem.
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

    /// All parameters, decoded, those of the form first.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.pairs.iter().map(|(name, value)| (&**name, &**value))
    }

    /// The names of all parameters.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.pairs.iter().map(|(name, _)| &**name)
    }

    /// The value that counts where a parameter is given several times.
    pub fn first(&self, name: &str) -> Option<&str> {
        self.pairs.iter().find(|(known, _)| known == name).map(|(_, value)| &**value)
    }

    /// A time in milliseconds since the epoch, as Prometheus reads it.
    pub fn time(&self, name: &'static str) -> Result<Option<i64>, ParamError> {
        self.time_in(name, TimeDialect::Prometheus, 0)
    }

    /// The same as a database of this dialect reads it at `now_ms`.
    pub fn time_in(
        &self,
        name: &'static str,
        dialect: TimeDialect,
        now_ms: i64,
    ) -> Result<Option<i64>, ParamError> {
        let Some(text) = self.one(name)? else { return Ok(None) };
        let why = || ParamError::invalid(name, format!("cannot parse {text:?} to a valid timestamp"));
        dialect.time(text, now_ms).map(Some).ok_or_else(why)
    }

    /// A duration in milliseconds as Prometheus reads it: seconds as a number, or `5m`.
    pub fn duration(&self, name: &'static str) -> Result<Option<i64>, ParamError> {
        self.duration_in(name, TimeDialect::Prometheus)
    }

    /// The same as a database of this dialect reads it.
    pub fn duration_in(&self, name: &'static str, dialect: TimeDialect) -> Result<Option<i64>, ParamError> {
        let Some(text) = self.one(name)? else { return Ok(None) };
        let why = || ParamError::invalid(name, format!("cannot parse {text:?} to a valid duration"));
        dialect.duration(text).map(Some).ok_or_else(why)
    }
}

/// Writes the parameters `first`, then those of `text` that have none of the names in `except`, byte for byte.
pub fn write(out: &mut String, first: &[(&str, &str)], text: &str, except: &[(&str, &str)]) {
    let is_kept = |part: &&str| {
        let name = part.split('=').next().unwrap_or_default();
        !decode(name).is_ok_and(|name| except.iter().any(|(other, _)| name == *other))
    };
    let mut separator = "";
    for (name, value) in first {
        out.extend([separator, name, "=", value]);
        separator = "&";
    }
    for part in text.split('&').filter(|_| !text.is_empty()).filter(is_kept) {
        out.extend([separator, part]);
        separator = "&";
    }
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
}
