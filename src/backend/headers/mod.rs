//! The headers that pass between client and backend, and those that do not.

mod m3;
mod tenant;
mod untrusted;

use http::{
    HeaderMap, HeaderName, HeaderValue,
    header::{self, AsHeaderName},
};

pub use m3::{Exceeded, M3Limits, exceeded, m3_push_down};
pub use tenant::{Tenancy, is_of_weir};
pub use untrusted::keep_known;

/// Headers that concern one connection only (RFC 9110, 7.6.1).
const HOP_BY_HOP: [&str; 8] = [
    "keep-alive",
    "proxy-connection",
    "proxy-authenticate",
    "proxy-authorization",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
];

/// Headers that identify client and tenant: naming these in `Connection` is an attempt to lose them on the way.
const NEVER_BY_NAME: [HeaderName; 6] = [
    header::AUTHORIZATION,
    header::COOKIE,
    header::HOST,
    header::CONTENT_TYPE,
    header::CONTENT_LENGTH,
    HeaderName::from_static("x-scope-orgid"),
];

/// Removes the headers that concern one connection only, those named in `Connection` included.
///
/// A tenant in a header of another name is read after this, or a client could drop it by naming it.
pub fn strip_hop_by_hop(headers: &mut HeaderMap) {
    // Most messages have at most `Connection`: one look at each name costs less than a lookup for each.
    let (mut names_some, mut has_others) = (false, false);
    for name in headers.keys() {
        names_some |= *name == header::CONNECTION;
        has_others |= HOP_BY_HOP.contains(&name.as_str());
    }
    if names_some {
        for name in named_in_connection(headers) {
            headers.remove(name);
        }
        headers.remove(header::CONNECTION);
    }
    for name in HOP_BY_HOP.iter().filter(|_| has_others) {
        headers.remove(*name);
    }
}

fn named_in_connection(headers: &HeaderMap) -> Vec<HeaderName> {
    let values = headers.get_all(header::CONNECTION).iter().filter_map(|v| v.to_str().ok());
    // `close` is for the next hop alone; `Keep-Alive` is removed by its own name.
    let is_option =
        |name: &str| name.eq_ignore_ascii_case("keep-alive") || name.eq_ignore_ascii_case("close");
    values
        .flat_map(|v| v.split(','))
        .map(str::trim)
        .filter(|name| !is_option(name))
        .filter_map(|name| name.parse().ok())
        .filter(|name| !NEVER_BY_NAME.contains(name))
        .collect()
}

/// The headers for the backend, from those of the client. The body is sent whole, so that its length is written anew,
/// and only encodings are asked for that the meter can read.
pub(super) fn to_backend(headers: &mut HeaderMap) {
    strip_hop_by_hop(headers);
    headers.remove(header::CONTENT_LENGTH);
    headers.remove(header::EXPECT);
    let encoding = if accepts_gzip(headers) { "gzip" } else { "identity" };
    headers.insert(header::ACCEPT_ENCODING, HeaderValue::from_static(encoding));
}

/// Whether the client takes gzip: named, or covered by `*`, and not with a quality of zero.
pub fn accepts_gzip(headers: &HeaderMap) -> bool {
    let (mut named, mut any) = (None, None);
    for item in items(headers, header::ACCEPT_ENCODING) {
        let (coding, parameters) = item.split_once(';').unwrap_or((item, ""));
        let wanted = !is_zero_quality(parameters);
        match coding.trim() {
            c if c.eq_ignore_ascii_case("gzip") || c.eq_ignore_ascii_case("x-gzip") => named = Some(wanted),
            "*" => any = Some(wanted),
            _ => {}
        }
    }
    named.or(any).unwrap_or(false)
}

fn items(headers: &HeaderMap, name: impl AsHeaderName) -> impl Iterator<Item = &str> {
    headers.get_all(name).iter().filter_map(|v| v.to_str().ok()).flat_map(|v| v.split(','))
}

fn is_zero_quality(parameters: &str) -> bool {
    let quality = parameters.split(';').find_map(|p| {
        let (name, value) = p.split_once('=')?;
        name.trim().eq_ignore_ascii_case("q").then(|| value.trim())
    });
    quality.and_then(|q| q.parse::<f32>().ok()).is_some_and(|q| q <= 0.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(pairs: &[(&'static str, &str)]) -> HeaderMap {
        pairs.iter().map(|(n, v)| (HeaderName::from_static(n), v.parse().unwrap())).collect()
    }

    #[test]
    fn what_concerns_one_connection_stays_on_it() {
        let mut all = headers(&[
            ("connection", "close, X-Hop , authorization"),
            ("x-hop", "1"),
            ("keep-alive", "timeout=5"),
            ("te", "trailers"),
            ("transfer-encoding", "chunked"),
            ("upgrade", "h2c"),
            ("proxy-authorization", "Basic x"),
            ("authorization", "Bearer y"),
            ("traceparent", "00-1-2-01"),
            ("x-scope-orgid", "team"),
        ]);
        strip_hop_by_hop(&mut all);
        let mut left: Vec<&str> = all.keys().map(HeaderName::as_str).collect();
        left.sort_unstable();
        assert_eq!(left, ["authorization", "traceparent", "x-scope-orgid"]);
    }

    #[test]
    fn only_encodings_that_can_be_metered_are_asked_for() {
        let cases = [
            (None, "identity"),
            (Some(""), "identity"),
            (Some("gzip, deflate, br"), "gzip"),
            (Some("br, zstd"), "identity"),
            (Some("GZIP;q=0.5"), "gzip"),
            (Some("gzip;q=0, *"), "identity"),
            (Some("*"), "gzip"),
            (Some("*;q=0.0"), "identity"),
            (Some("x-gzip"), "gzip"),
        ];
        for (client, sent) in cases {
            let mut all = client.map_or_else(HeaderMap::new, |c| headers(&[("accept-encoding", c)]));
            to_backend(&mut all);
            assert_eq!(all["accept-encoding"], sent, "{client:?}");
        }
    }
}
