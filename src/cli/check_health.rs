//! `weir check-health`: the health check of a container, so that the image needs no HTTP client.

use std::{net::IpAddr, path::PathBuf, process::ExitCode, time::Duration};

use clap::Args;
use http::{HeaderMap, Method, uri::PathAndQuery};
use tokio::{runtime, time::Instant};

use super::{
    exit::{BAD_INPUT, FAILED},
    output,
};
use crate::{
    backend::{Backend, BaseUrl, Outgoing, Settings, Tls, TlsSettings},
    base::{Kind, TenantId},
    config,
};

/// Longest wait for the answer: health is answered from memory, whatever the load.
const PATIENCE: Duration = Duration::from_secs(2);

/// The address to ask.
#[derive(Debug, Args)]
pub(super) struct CheckHealth {
    /// Address of the admin API, or of a storage node.
    #[arg(default_value = "http://127.0.0.1:9098")]
    url: String,
    /// The configuration that names the admin address, and whether it speaks TLS.
    #[arg(long, value_name = "FILE", conflicts_with = "url")]
    config: Option<PathBuf>,
}

pub(super) fn run(args: &CheckHealth) -> ExitCode {
    let backend = match url(args).and_then(|url| settings(&url)) {
        Ok(settings) => settings,
        Err(message) => return output::err(message, BAD_INPUT),
    };
    let runtime = match runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return output::err(format_args!("no runtime: {error}"), FAILED),
    };
    match runtime.block_on(ask(backend)) {
        Ok(()) => output::out("healthy", 0),
        Err(message) => output::err(message, FAILED),
    }
}

fn url(args: &CheckHealth) -> Result<String, String> {
    let Some(file) = &args.config else { return Ok(args.url.clone()) };
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

fn settings(url: &str) -> Result<Settings, String> {
    let url = BaseUrl::parse(url)?;
    // It is asked for its health on this machine, and its certificate is for the names that others know it by.
    let anybody = TlsSettings { insecure_skip_verify: true, ..TlsSettings::default() };
    let tls = url.secure().then(|| Tls::load(&anybody)).transpose().map_err(|error| error.to_string())?;
    Ok(Settings { tls, ..Settings::new("weir", Kind::Weir, vec![url]) })
}

async fn ask(settings: Settings) -> Result<(), String> {
    let request = Outgoing {
        method: Method::GET,
        path_and_query: PathAndQuery::from_static("/-/healthy"),
        headers: HeaderMap::new(),
        body: bytes::Bytes::new(),
    };
    let answer =
        Backend::new(settings).send_light(&TenantId::other(), request, Instant::now() + PATIENCE).await;
    let status = answer.map_err(|error| error.to_string())?.status();
    if status.is_success() { Ok(()) } else { Err(format!("the answer is {status}")) }
}
