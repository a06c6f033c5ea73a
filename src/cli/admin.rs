//! Asks the admin API of a running Weir.

use std::{net::IpAddr, path::PathBuf, sync::Arc, time::Duration};

use clap::Args;
use http::{HeaderMap, HeaderValue, Method, header, uri::PathAndQuery};
use http_body_util::{BodyExt as _, Limited};
use serde_json::Value;
use tokio::{runtime, time::Instant};

use crate::{
    backend::{Backend, BackendError, BaseUrl, Outgoing, Settings, Tls, TlsSettings},
    base::{Kind, TenantId},
    config,
};

/// Longest wait for an answer: it is made from memory, under any load.
const PATIENCE: Duration = Duration::from_secs(5);
/// Bytes of an answer.
const ANSWER_MAX: usize = 64 << 20;
/// Where a token is read from that is not on the command line, which others can see.
const TOKEN: &str = "WEIR_ADMIN_TOKEN";

/// Which Weir is asked. A token is read from the environment variable `WEIR_ADMIN_TOKEN`.
#[derive(Debug, Args)]
pub(super) struct AdminAddress {
    /// Address of the admin API.
    #[arg(long, value_name = "URL", default_value = "http://127.0.0.1:9098")]
    admin: String,
    /// The configuration that names the admin address, and whether it speaks TLS.
    #[arg(long, value_name = "FILE", conflicts_with = "admin")]
    config: Option<PathBuf>,
}

/// A connection to the admin API.
#[derive(Debug)]
pub(super) struct Admin {
    backend: Arc<Backend>,
    url: String,
    headers: HeaderMap,
}

impl AdminAddress {
    /// # Errors
    /// The address, the configuration or the token cannot be used.
    pub(super) fn open(&self) -> Result<Admin, String> {
        let url = match &self.config {
            Some(file) => url_of(file)?,
            None => self.admin.clone(),
        };
        let mut headers = HeaderMap::new();
        if let Some(token) = config::env::var(TOKEN) {
            let value = HeaderValue::try_from(format!("Bearer {}", token.trim()));
            let mut value = value.map_err(|_| format!("{TOKEN} has characters that no header can hold"))?;
            value.set_sensitive(true);
            headers.insert(header::AUTHORIZATION, value);
        }
        Ok(Admin { backend: Backend::new(settings(&url)?), url, headers })
    }
}

/// The admin address of a configuration, as it is reached from this machine.
pub(super) fn url_of(file: &std::path::Path) -> Result<String, String> {
    let server = config::load_file(file).map_err(|report| report.to_string())?.raw.server;
    let scheme = if server.admin_tls.cert_file.is_some() { "https" } else { "http" };
    let mut address = server.admin_listen.0;
    if address.ip().is_unspecified() {
        let local = if address.is_ipv4() {
            IpAddr::from([127, 0, 0, 1])
        } else {
            IpAddr::from([0, 0, 0, 0, 0, 0, 0, 1])
        };
        address.set_ip(local);
    }
    Ok(format!("{scheme}://{address}"))
}

/// How the admin API at a URL is reached.
pub(super) fn settings(url: &str) -> Result<Settings, String> {
    let url = BaseUrl::parse(url)?;
    // It is asked on this machine, and its certificate is for the names that others know it by.
    let anybody = TlsSettings { insecure_skip_verify: true, ..TlsSettings::default() };
    let tls = url.secure().then(|| Tls::load(&anybody)).transpose().map_err(|error| error.to_string())?;
    Ok(Settings { tls, ..Settings::new("weir", Kind::Weir, vec![url]) })
}

impl Admin {
    /// Not in the words of a database's failure: an operator would look for the fault there.
    fn unanswered(&self, error: &BackendError) -> String {
        format!(
            "Weir at {} {}. Is it the admin address? --admin or --config names another",
            self.url,
            error.reason()
        )
    }

    /// The answer to a request, which is its `data` where it has such.
    pub(super) async fn ask(
        &self,
        method: Method,
        target: &str,
        body: Option<&Value>,
    ) -> Result<Value, String> {
        let path_and_query = PathAndQuery::try_from(target).map_err(|error| error.to_string())?;
        let mut headers = self.headers.clone();
        if body.is_some() {
            headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
        }
        let body = body.map(Value::to_string).unwrap_or_default().into();
        let request = Outgoing { method, path_and_query, headers, body };
        let answer = self.backend.send_light(&TenantId::other(), request, Instant::now() + PATIENCE).await;
        let (head, body) = answer.map_err(|error| self.unanswered(&error))?.into_parts();
        let body = Limited::new(body, ANSWER_MAX).collect().await.map_err(|error| error.to_string())?;
        let text = body.to_bytes();
        let json: Option<Value> = serde_json::from_slice(&text).ok();
        if !head.status.is_success() {
            let error = json.as_ref().and_then(|json| json["error"].as_str());
            return Err(error.map_or_else(|| format!("the answer is {}", head.status), str::to_owned));
        }
        let mut json = json.ok_or("the answer is no JSON; is this the admin address?")?;
        Ok(if json["data"].is_null() { json } else { json["data"].take() })
    }
}

/// Runs a command to its end.
pub(super) fn block_on<T>(command: impl Future<Output = Result<T, String>>) -> Result<T, String> {
    let runtime = runtime::Builder::new_current_thread().enable_all().build();
    runtime.map_err(|error| format!("no runtime: {error}"))?.block_on(command)
}
