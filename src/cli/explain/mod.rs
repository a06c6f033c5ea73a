//! `weir explain`: the cost of a query, the confidence of each number, and the verdict.

mod files;

use std::{net::SocketAddr, path::PathBuf, process::ExitCode, sync::Arc};

use clap::Args;
use form_urlencoded::Serializer;
use http::Request;
use http_body_util::{BodyExt, Empty};
use serde_json::Value;
use tokio::runtime;

use super::{
    clock::now_ms,
    exit::{BAD_INPUT, FAILED},
    output,
};
use crate::{config, cost::History, proxy::Proxy, telemetry::metrics::Metrics};

/// The query to explain, and its backend.
#[derive(Debug, Args)]
pub(super) struct Explain {
    /// The PromQL query.
    #[arg(required_unless_present = "files", conflicts_with = "files")]
    query: Option<String>,
    /// Dashboards (Grafana's JSON) and rule files in place of a query, or folders of them; exit code 1 if one of their
    /// expressions would be refused or cannot be read. For pull requests.
    #[arg(long = "file", value_name = "FILE", num_args = 1..)]
    files: Vec<PathBuf>,
    /// The time that graphs of dashboards show, in place of their own: `6h`.
    #[arg(long, requires = "files")]
    range: Option<String>,
    /// The configuration whose limits and first backend apply.
    #[arg(long, value_name = "FILE", conflicts_with = "backend")]
    config: Option<PathBuf>,
    /// A database to ask, with default limits.
    #[arg(long, value_name = "URL", default_value = "http://127.0.0.1:9090")]
    backend: String,
    /// The kind of that database.
    #[arg(long, default_value = "prometheus", requires = "backend")]
    kind: String,
    /// Start of a graph: Unix seconds or RFC 3339. Without it, the query is evaluated once, at `--end`.
    #[arg(long, requires = "step", allow_hyphen_values = true)]
    start: Option<String>,
    /// End of the graph; now when it is left out.
    #[arg(long, allow_hyphen_values = true)]
    end: Option<String>,
    /// Distance between two points of the graph: `15s`, `1m`.
    #[arg(long, requires = "start")]
    step: Option<String>,
    /// The tenant of the query.
    #[arg(long)]
    tenant: Option<String>,
    /// Print the JSON of `/api/v1/query_cost`.
    #[arg(long)]
    json: bool,
}

pub(super) fn run(args: &Explain) -> ExitCode {
    let settings = match settings(args) {
        Ok(settings) => settings,
        Err(message) => return output::err(message, BAD_INPUT),
    };
    let runtime = match runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return output::err(format_args!("no runtime: {error}"), FAILED),
    };
    runtime.block_on(explain(args, settings))
}

fn settings(args: &Explain) -> Result<crate::proxy::Settings, String> {
    let loaded = match &args.config {
        Some(file) => config::load_file(file),
        None => {
            let backend = serde_json::json!({"backends": [{"kind": args.kind, "urls": [args.backend]}]});
            config::load_text("--backend", &backend.to_string(), &|_| None)
        }
    };
    let mut settings = config::resolve(&loaded.map_err(|report| report.to_string())?.raw)?;
    if let Some(tenant) = &args.tenant {
        let unfit = || format!("`{tenant}` is not a tenant name");
        settings.attribution.default = crate::base::TenantId::new(tenant).ok_or_else(unfit)?;
    }
    Ok(settings)
}

async fn explain(args: &Explain, settings: crate::proxy::Settings) -> ExitCode {
    let asker = match Asker::new(settings).await {
        Ok(asker) => asker,
        Err(message) => return output::err(message, FAILED),
    };
    if !args.files.is_empty() {
        return files::explain(&args.files, args.range.as_deref(), args.json, &asker).await;
    }
    match one(args, &asker).await {
        Ok(text) => output::out(text, 0),
        Err(message) => output::err(message, FAILED),
    }
}

/// Asks a proxy of its own for the cost of queries.
struct Asker {
    proxy: Arc<Proxy>,
}

impl Asker {
    async fn new(settings: crate::proxy::Settings) -> Result<Self, String> {
        let tenant = settings.attribution.default.clone();
        let metrics = Metrics::new(1).map_err(|error| error.to_string())?;
        let proxy = Proxy::new(settings, Arc::new(metrics), Arc::new(History::new(1)), now_ms);
        proxy.warm().await;
        // A check that could not look must not pass.
        proxy.reachable(&tenant)?;
        Ok(Self { proxy })
    }

    /// The answer to a target below `/api/v1/`, or the message of its error.
    async fn ask(&self, target: &str) -> Result<Value, String> {
        let request = Request::get(format!("/api/v1/{target}")).body(Empty::new());
        let request = request.map_err(|error| error.to_string())?;
        let response = self.proxy.answer(request, SocketAddr::from(([127, 0, 0, 1], 0))).await;
        let body = response.into_body().collect().await.map_err(|error| error.to_string())?.to_bytes();
        let answer: Value = serde_json::from_slice(&body).map_err(|error| error.to_string())?;
        if answer["status"] == "success" { Ok(answer) } else { Err(text_of(&answer["error"])) }
    }
}

async fn one(args: &Explain, asker: &Asker) -> Result<String, String> {
    let times = match (&args.start, &args.step) {
        (Some(start), Some(step)) => {
            let end = args.end.clone().unwrap_or_else(|| (now_ms() / 1_000).to_string());
            Times::Graph { start: start.clone(), end, step: step.clone() }
        }
        _ => Times::Instant(args.end.clone()),
    };
    let answer = asker.ask(&target(args.query.as_deref().unwrap_or_default(), &times)).await?;
    if args.json {
        return serde_json::to_string_pretty(&answer).map_err(|error| error.to_string());
    }
    let verdict = &answer["data"]["verdict"];
    let verdict = match verdict["admitted"].as_bool() {
        Some(true) => "Verdict: it may run.".to_owned(),
        _ => format!("Verdict: it would be refused. {}", text_of(&verdict["message"])),
    };
    let warnings = answer["warnings"].as_array().into_iter().flatten();
    let mut text = format!("{}\n{verdict}", text_of(&answer["data"]["text"]));
    for warning in warnings {
        text = format!("{text}\nWarning: {}", text_of(warning));
    }
    Ok(text)
}

/// When a query is evaluated, as parameters of the query API.
enum Times {
    /// Once; now where nothing is said.
    Instant(Option<String>),
    /// From start to end.
    Graph { start: String, end: String, step: String },
}

/// The parameters of a query.
fn target(query: &str, times: &Times) -> String {
    let mut parameters = Serializer::new(String::new());
    parameters.append_pair("query", query);
    let path = match times {
        Times::Graph { start, end, step } => {
            parameters.append_pair("start", start).append_pair("end", end).append_pair("step", step);
            "query_range_cost"
        }
        Times::Instant(time) => {
            if let Some(time) = time {
                parameters.append_pair("time", time);
            }
            "query_cost"
        }
    };
    format!("{path}?{}", parameters.finish())
}

fn text_of(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}
