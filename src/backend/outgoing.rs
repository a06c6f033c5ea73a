//! A request on its way to a backend.

use bytes::Bytes;
use http::{HeaderMap, Method, header, uri::PathAndQuery};

use crate::base::params;

/// Bytes that the parameters set of a query take: its times, or its timeout.
const TIMES_BYTES: usize = 64;

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
    /// Sets parameters, in place of those of the same names in URL and form: a database reads the form before the URL,
    /// and a strict reader of both must not find two values. Everything else stays byte for byte.
    ///
    /// # Errors
    /// The target would be too long for a URL.
    pub fn set_params(&mut self, set: &[(&str, &str)]) -> Result<(), http::uri::InvalidUri> {
        let form = self.form().map(|form| {
            let mut changed = String::with_capacity(form.len() + TIMES_BYTES);
            params::write(&mut changed, set, form, set);
            changed
        });
        let (path, query) = (self.path_and_query.path(), self.path_and_query.query().unwrap_or_default());
        let mut target = String::with_capacity(path.len() + query.len() + TIMES_BYTES);
        target.extend([path, "?"]);
        params::write(&mut target, if form.is_some() { &[] } else { set }, query, set);
        if target.len() == path.len() + 1 {
            target.pop();
        }
        self.path_and_query = PathAndQuery::try_from(target)?;
        if let Some(form) = form {
            self.body = form.into();
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
