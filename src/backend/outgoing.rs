//! A request on its way to a backend.

use std::borrow::Cow;

use bytes::Bytes;
use http::{HeaderMap, Method, header, uri::PathAndQuery};

use crate::base::params;

/// A request for a backend.
#[derive(Clone, Debug)]
pub struct Outgoing {
    /// The method.
    pub method: Method,
    /// The target below the replica's URL.
    pub path_and_query: PathAndQuery,
    /// The headers.
    pub headers: HeaderMap,
    /// The whole body.
    pub body: Bytes,
}

impl Outgoing {
    /// Sets parameters, in place of those of the same names wherever they stand: a database reads the form before the
    /// URL, and whoever reads both strictly must not find two values. Everything else stays byte for byte.
    ///
    /// # Errors
    /// The target would be too long for a URL.
    pub fn set_params(&mut self, set: &[(&str, &str)]) -> Result<(), http::uri::InvalidUri> {
        let names: Vec<&str> = set.iter().map(|(name, _)| *name).collect();
        let form = self.form().map(|form| params::without(form, &names));
        let query = self.path_and_query.query().map(|query| params::without(query, &names));
        let pairs: Vec<String> = set.iter().map(|(name, value)| format!("{name}={value}")).collect();
        let pairs = pairs.join("&");
        let joined = |rest: Option<Cow<'_, str>>| match rest.filter(|rest| !rest.is_empty()) {
            Some(rest) => format!("{pairs}&{rest}"),
            None => pairs.clone(),
        };
        let (query, body) = match form {
            Some(form) => (query.map(Cow::into_owned), Some(joined(Some(form)))),
            None => (Some(joined(query)), None),
        };
        let path = self.path_and_query.path();
        let target = match query.filter(|query| !query.is_empty()) {
            Some(query) => format!("{path}?{query}"),
            None => path.to_owned(),
        };
        self.path_and_query = PathAndQuery::try_from(target)?;
        if let Some(body) = body {
            self.body = body.into();
        }
        Ok(())
    }

    /// The form in its body, where a database reads one: in a POST that says so.
    fn form(&self) -> Option<&str> {
        let content_type = self.headers.get(header::CONTENT_TYPE)?.to_str().ok()?;
        let media = content_type.split(';').next().unwrap_or("").trim();
        let is_form = media.eq_ignore_ascii_case("application/x-www-form-urlencoded");
        let reads = self.method == Method::POST && is_form && !self.body.is_empty();
        reads.then(|| std::str::from_utf8(&self.body).ok())?
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn set(method: Method, target: &str, body: &str, pairs: &[(&str, &str)]) -> (String, String) {
        let form = header::HeaderValue::from_static("application/x-www-form-urlencoded; charset=utf-8");
        let mut outgoing = Outgoing {
            method,
            path_and_query: target.parse().unwrap(),
            headers: [(header::CONTENT_TYPE, form)].into_iter().collect(),
            body: Bytes::copy_from_slice(body.as_bytes()),
        };
        outgoing.set_params(pairs).unwrap();
        (outgoing.path_and_query.to_string(), String::from_utf8(outgoing.body.to_vec()).unwrap())
    }

    #[test]
    fn parameters_are_replaced_where_they_stand_and_nothing_else_changes() {
        let pair = |a: &str, b: &str| (a.to_owned(), b.to_owned());
        let timeout = [("timeout", "60000ms")];
        let times = [("start", "1.500"), ("end", "2.000"), ("step", "15000ms")];
        let get = |target, pairs| set(Method::GET, target, "", pairs);
        assert_eq!(get("/q?query=up", &timeout), pair("/q?timeout=60000ms&query=up", ""));
        assert_eq!(get("/q?timeout=2m&query=up%20", &timeout), pair("/q?timeout=60000ms&query=up%20", ""));
        assert_eq!(get("/q?timeout=2m", &timeout), pair("/q?timeout=60000ms", ""));
        assert_eq!(get("/q?%74imeout=2m&a=1", &timeout), pair("/q?timeout=60000ms&a=1", ""));
        assert_eq!(
            get("/q?query=up&start=0&end=9&step=1", &times),
            pair("/q?start=1.500&end=2.000&step=15000ms&query=up", "")
        );
        let post = |target, form, pairs| set(Method::POST, target, form, pairs);
        assert_eq!(
            post("/q?timeout=1h&stats=all", "query=up&timeout=2m", &timeout),
            pair("/q?stats=all", "timeout=60000ms&query=up")
        );
        assert_eq!(post("/q?query=up&timeout=1h", "", &timeout), pair("/q?timeout=60000ms&query=up", ""));
        assert_eq!(post("/q?start=0", "query=up&end=9", &times), {
            pair("/q", "start=1.500&end=2.000&step=15000ms&query=up")
        });
        // A database reads no form in a GET.
        assert_eq!(
            set(Method::GET, "/q?a=1", "timeout=1s", &timeout),
            pair("/q?timeout=60000ms&a=1", "timeout=1s")
        );
    }
}
