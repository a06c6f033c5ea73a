//! The text in a Grafana panel for every way in which a request can fail.

use std::time::Duration;

use http::Response;
use http_body_util::BodyExt;
use serde_json::Value;
use weir::{
    base::ErrorKind,
    proxy::respond::{self, Body, Extra},
};

use crate::support::sockets::{Server, client};

const MESSAGE: &str = "the query would touch 60,000 series (upper_bound), the limit is 50,000 for tenant team-a; \
    narrow {job=\"api\",path=~\"/a/\\\\d+\"} (weir-max-series, err-mimir-max-series-per-query)";

/// The text that Grafana's Prometheus data source shows: the parsed error of these statuses, the first KiB of any
/// other.
fn rendered(status: u16, body: &str) -> String {
    if !matches!(status, 200..=299 | 400 | 422 | 503) {
        let end = body.floor_char_boundary(1024);
        return format!("unexpected response with status code {status}: {}", &body[..end]);
    }
    match serde_json::from_str::<Value>(body) {
        Ok(parsed) => {
            let text = |key: &str| parsed[key].as_str().unwrap_or_default().to_owned();
            format!("{}: {}", text("errorType"), text("error"))
        }
        Err(_) => format!("response from prometheus couldn't be parsed. it is non-json: {body}"),
    }
}

fn failing(path: &str) -> Response<Body> {
    let index: usize = path.trim_start_matches('/').parse().unwrap();
    let extra = Extra {
        limit: Some("weir-max-series; observed=60000; max=50000".to_owned()),
        retry_after: Some(Duration::from_millis(2500)),
        ..Extra::default()
    };
    respond::error(ErrorKind::ALL[index], MESSAGE, extra)
}

#[tokio::test]
async fn every_failure_can_be_read_in_a_panel() {
    let server = Server::start(|request| async move { failing(request.uri().path()) }).await;
    let client = client();
    for (index, kind) in ErrorKind::ALL.iter().enumerate() {
        let (parts, body) = client.request(server.get(&format!("/{index}"))).await.unwrap().into_parts();
        let body = String::from_utf8(body.collect().await.unwrap().to_bytes().to_vec()).unwrap();
        let status = parts.status.as_u16();
        assert_eq!(status, kind.status());
        assert_eq!(parts.headers["content-type"], "application/json");
        assert_eq!(parts.headers["retry-after"], "3");
        assert_eq!(parts.headers["weir-limit"], "weir-max-series; observed=60000; max=50000");
        let head = format!(r#"{{"status":"error","errorType":"{}","error":""#, kind.error_type());
        assert!(body.starts_with(&head), "{kind:?}: {body}");
        let shown = rendered(status, &body);
        if matches!(status, 400 | 422 | 503) {
            assert_eq!(shown, format!("{}: {MESSAGE}", kind.error_type()), "{kind:?}");
        } else {
            assert!(body.len() <= 1024, "{kind:?} is cut by Grafana: {body}");
            let first: String = body.chars().take(200).collect();
            assert!(
                first.contains("retry in 3s: the query would touch 60,000 series (upper_bound)"),
                "{first}"
            );
            assert!(shown.contains("narrow {job='api',path=~'/a/"), "{kind:?}: {shown}");
        }
        // On this id, Grafana alerting does not try again.
        assert!(shown.contains("err-mimir-max-series-per-query"), "{kind:?}: {shown}");
    }
}
