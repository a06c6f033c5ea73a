//! Values that people write with units: sizes, counts, durations, rates, shares, and the word `unlimited`.
//!
//! Zero is refused everywhere: it reads as "nothing may run" to one person and as "no limit" to the next.

use crate::base::{duration, units};
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error as _};
use std::{
    borrow::Cow,
    fmt,
    net::{IpAddr, SocketAddr},
    num::NonZeroU64,
    str::FromStr,
    time::Duration,
};

/// The word for "no limit".
pub const UNLIMITED: &str = "unlimited";

fn not_zero(n: u64) -> Result<NonZeroU64, String> {
    NonZeroU64::new(n).ok_or_else(|| "0 is refused: write a number above 0".to_owned())
}

/// Bytes: `4GiB`, `512MB`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd)]
pub struct Size(pub NonZeroU64);

impl FromStr for Size {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let n = units::parse_bytes(text).ok_or("expected a size such as `4GiB` or `512MB`")?;
        not_zero(n).map(Self)
    }
}

impl fmt::Display for Size {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&units::bytes(self.0.get()))
    }
}

/// A number of things: `50_000`, `50k`, `5M`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd)]
pub struct Count(pub NonZeroU64);

impl FromStr for Count {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let n = units::parse_count(text).ok_or("expected a whole number such as `50_000` or `5M`")?;
        not_zero(n).map(Self)
    }
}

impl fmt::Display for Count {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&units::count(self.0.get()))
    }
}

/// A length of time in Prometheus' form: `15s`, `1h30m`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd)]
pub struct Span(NonZeroU64);

impl Span {
    /// Milliseconds, at least 1.
    pub const fn ms(self) -> NonZeroU64 {
        self.0
    }

    /// The same as a [`Duration`].
    pub const fn duration(self) -> Duration {
        Duration::from_millis(self.0.get())
    }
}

impl FromStr for Span {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let ms = duration::parse(text.trim()).ok().ok_or("expected a duration such as `15s` or `1h30m`")?;
        not_zero(ms).map(Self)
    }
}

impl fmt::Display for Span {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&duration::text(self.duration()))
    }
}

/// A count per second, minute or hour: `50/s`, `1M/m`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rate {
    /// How many.
    pub count: NonZeroU64,
    /// In which time.
    pub per: Duration,
}

/// A count per hour or day of the clock: `1M/h`, `10G/d`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Quota {
    /// How many.
    pub count: NonZeroU64,
    /// In which time.
    pub per: Duration,
}

/// Units of time, with their seconds.
const PER: [(&str, u64); 4] = [("s", 1), ("m", 60), ("h", 3_600), ("d", 86_400)];

/// A count in one of these times, such as `50/s`.
fn count_per(text: &str, times: &[(&str, u64)]) -> Option<(u64, Duration)> {
    let (count, unit) = text.split_once('/')?;
    let (_, seconds) = times.iter().find(|(name, _)| *name == unit.trim())?;
    Some((units::parse_count(count)?, Duration::from_secs(*seconds)))
}

fn show_per(f: &mut fmt::Formatter<'_>, count: NonZeroU64, per: Duration) -> fmt::Result {
    let unit = PER.iter().find(|(_, seconds)| *seconds == per.as_secs()).map_or("s", |(name, _)| name);
    write!(f, "{}/{unit}", units::count(count.get()))
}

impl FromStr for Rate {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let parts = count_per(text, &PER[..3]);
        let (count, per) = parts.ok_or("expected a rate such as `50/s`, `600/m` or `1M/h`")?;
        Ok(Self { count: not_zero(count)?, per })
    }
}

impl fmt::Display for Rate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        show_per(f, self.count, self.per)
    }
}

impl FromStr for Quota {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let parts = count_per(text, &PER[2..]);
        let (count, per) = parts.ok_or("expected a quota such as `1M/h` or `10G/d`")?;
        Ok(Self { count: not_zero(count)?, per })
    }
}

impl fmt::Display for Quota {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        show_per(f, self.count, self.per)
    }
}

/// A share of a budget in whole percent: `20%`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Share(u8);

impl Share {
    /// 1 to 100.
    pub const fn percent(self) -> u8 {
        self.0
    }
}

impl FromStr for Share {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let number = text.strip_suffix('%').and_then(|n| n.trim().parse::<u8>().ok());
        match number {
            Some(n @ 1..=100) => Ok(Self(n)),
            _ => Err("expected a share from `1%` to `100%`".to_owned()),
        }
    }
}

impl fmt::Display for Share {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}%", self.0)
    }
}

/// A limit: a value, or the word `unlimited`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Limit<T> {
    /// At most this.
    At(T),
    /// No limit, on purpose.
    Unlimited,
}

impl<T: Copy> Limit<T> {
    /// The value; `None` when unlimited.
    pub const fn at(self) -> Option<T> {
        match self {
            Self::At(value) => Some(value),
            Self::Unlimited => None,
        }
    }
}

impl<T: FromStr<Err = String>> FromStr for Limit<T> {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if text == UNLIMITED {
            return Ok(Self::Unlimited);
        }
        T::from_str(text).map(Self::At).map_err(|message| format!("{message}, or `{UNLIMITED}`"))
    }
}

impl<T: fmt::Display> fmt::Display for Limit<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::At(value) => value.fmt(f),
            Self::Unlimited => f.write_str(UNLIMITED),
        }
    }
}

/// The treatment of an unknown query: `allow`, `deny`, or an assumed number of series.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unknown {
    /// Let it run; the meter still watches it.
    Allow,
    /// Refuse it.
    Deny,
    /// The assumed number of series of a selector.
    Series(Count),
}

impl FromStr for Unknown {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "allow" => Ok(Self::Allow),
            "deny" => Ok(Self::Deny),
            number => number
                .parse()
                .map(Self::Series)
                .map_err(|_| "expected `allow`, `deny` or a number of series above 0".to_owned()),
        }
    }
}

impl fmt::Display for Unknown {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Allow => f.write_str("allow"),
            Self::Deny => f.write_str("deny"),
            Self::Series(count) => count.fmt(f),
        }
    }
}

/// The reaction of a budget to a missing signal of pressure: `hold`, `shrink`, `ignore`, or a share to shrink to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OnStale {
    /// It does not rise.
    Hold,
    /// It shrinks to one query at a time.
    Shrink,
    /// The other signals decide alone.
    Ignore,
    /// It shrinks to this share.
    ShrinkTo(Share),
}

impl FromStr for OnStale {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "hold" => Ok(Self::Hold),
            "shrink" => Ok(Self::Shrink),
            "ignore" => Ok(Self::Ignore),
            share => share
                .parse()
                .map(Self::ShrinkTo)
                .map_err(|_| "expected `hold`, `shrink`, `ignore` or a share from `1%` to `100%`".to_owned()),
        }
    }
}

impl fmt::Display for OnStale {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Hold => f.write_str("hold"),
            Self::Shrink => f.write_str("shrink"),
            Self::Ignore => f.write_str("ignore"),
            Self::ShrinkTo(share) => share.fmt(f),
        }
    }
}

/// An address to listen on: `127.0.0.1:9099`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Listen(pub SocketAddr);

impl FromStr for Listen {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        text.parse().map(Self).map_err(|_| "expected an address such as `127.0.0.1:9099`".to_owned())
    }
}

impl fmt::Display for Listen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// A block of addresses: `10.0.0.0/8`; a single address is a block of one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cidr(pub ipnet::IpNet);

impl FromStr for Cidr {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let block = text.parse::<ipnet::IpNet>().or_else(|_| text.parse::<IpAddr>().map(ipnet::IpNet::from));
        block
            .map(Self)
            .map_err(|_| "expected an address such as `10.0.0.5`, or a block such as `10.0.0.0/8`".to_owned())
    }
}

impl fmt::Display for Cidr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// A string that never reaches a log, a diff or a page: header values, tokens.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

impl Secret {
    /// The value, for the one place that sends it.
    pub fn reveal(&self) -> &str {
        &self.0
    }
}

impl FromStr for Secret {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        Ok(Self(text.to_owned()))
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl fmt::Display for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("(hidden)")
    }
}

/// How a scalar appears in the schema and which parser checks it.
struct Form {
    format: &'static str,
    #[cfg(test)]
    examples: &'static [&'static str],
    check: fn(&str) -> Result<(), String>,
}

fn checked<T: FromStr<Err = String>>(text: &str) -> Result<(), String> {
    text.parse::<T>().map(|_| ())
}

macro_rules! forms {
    ($($type:ty => $format:literal, [$($example:literal),*];)*) => {
        const FORMS: &[Form] = &[$(Form {
            format: $format,
            #[cfg(test)]
            examples: &[$($example),*],
            check: checked::<$type>,
        },)*];

        $(
            impl Serialize for $type {
                fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                    serializer.collect_str(self)
                }
            }

            impl<'de> Deserialize<'de> for $type {
                fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                    String::deserialize(deserializer)?.parse().map_err(D::Error::custom)
                }
            }

            impl JsonSchema for $type {
                fn schema_name() -> Cow<'static, str> {
                    $format.into()
                }

                fn inline_schema() -> bool {
                    true
                }

                fn json_schema(_: &mut SchemaGenerator) -> Schema {
                    json_schema!({"type": ["string", "number"], "format": $format, "examples": [$($example),*]})
                }
            }
        )*
    };
}

forms! {
    Size => "size", ["512MiB", "4GiB"];
    Count => "count", ["50_000", "5M"];
    Span => "duration", ["15s", "1h30m"];
    Share => "share", ["20%"];
    Limit<Size> => "size or unlimited", ["1GiB", "unlimited"];
    Limit<Count> => "count or unlimited", ["50_000", "unlimited"];
    Limit<Span> => "duration or unlimited", ["31d", "unlimited"];
    Limit<Share> => "share or unlimited", ["50%", "unlimited"];
    Limit<Rate> => "rate or unlimited", ["50/s", "unlimited"];
    Limit<Quota> => "quota or unlimited", ["1M/h", "10G/d", "unlimited"];
    Unknown => "allow, deny or count", ["allow", "deny", "10_000"];
    OnStale => "hold, shrink, ignore or share", ["hold", "shrink", "25%"];
    Listen => "address", ["127.0.0.1:9099"];
    Cidr => "cidr", ["10.0.0.0/8", "fd00::/8"];
    Secret => "secret", ["${TOKEN}"];
}

/// Checks a scalar of a form named in the schema; unknown forms accept everything.
pub(super) fn check(format: &str, text: &str) -> Result<(), String> {
    FORMS.iter().find(|form| form.format == format).map_or(Ok(()), |form| (form.check)(text))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_example_of_the_schema_is_accepted_and_zero_is_not() {
        for form in FORMS {
            for example in form.examples {
                assert_eq!((form.check)(example), Ok(()), "{} {example}", form.format);
            }
            if form.format != "secret" {
                assert!((form.check)("0").is_err(), "{}", form.format);
                assert!((form.check)("").is_err(), "{}", form.format);
                assert!((form.check)("-1").is_err(), "{}", form.format);
            }
        }
    }

    #[test]
    fn rates_read_both_ways_and_secrets_do_not_print() {
        for (text, printed) in [("50/s", "50/s"), ("1M/m", "1,000,000/m"), ("600 / h", "600/h")] {
            assert_eq!(text.parse::<Rate>().unwrap().to_string(), printed);
        }
        for text in ["50", "50/d", "/s", "x/s", "0/s"] {
            assert!(text.parse::<Rate>().is_err(), "{text}");
        }
        let secret: Secret = "hunter2".parse().unwrap();
        assert_eq!(format!("{secret} {secret:?}"), "(hidden) (hidden)");
        assert_eq!(serde_json::to_string(&secret).unwrap(), "\"(hidden)\"");
    }
}
