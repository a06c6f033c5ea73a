//! `weir check-health`: the health check of a container, so that the image needs no HTTP client.

use std::{path::PathBuf, process::ExitCode, time::Duration};

use clap::Args;
use http::{HeaderMap, Method, uri::PathAndQuery};
use tokio::{runtime, time::Instant};

use super::{
    admin,
    exit::{BAD_INPUT, FAILED},
    output,
};
use crate::{
    backend::{Backend, Outgoing, Settings},
    base::TenantId,
};

/// Longest wait for the answer: health is answered from memory, under any load.
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
    let backend = match url(args).and_then(|url| admin::settings(&url)) {
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
    args.config.as_ref().map_or_else(|| Ok(args.url.clone()), |file| admin::url_of(file))
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
