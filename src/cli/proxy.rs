//! `weir proxy`: reads the configuration, binds, serves, and ends in good order.

use std::{
    io,
    net::SocketAddr,
    num::NonZeroUsize,
    path::{Path, PathBuf},
    process::ExitCode,
    sync::Arc,
    thread,
    time::Duration,
};

use tokio::{net::TcpListener, runtime, sync::watch, task::JoinHandle};

use super::{
    clock::now_ms,
    exit::{BAD_INPUT, FAILED},
    journal,
    memory::Memory,
    output,
    quotas::Quotas,
    signals::{Hangups, Signals},
    suggest::from_journal,
    system,
};
use crate::{
    admin::{self, Operations},
    base::allocator::{self, GiveBack},
    config::{self, Loaded, Reloader, raw::Raw},
    http,
    proxy::{self, Proxy, Workers},
    telemetry::{log, metrics::Metrics, otlp, profile},
};

/// Tenants with a label value of their own in metrics; the others share one.
pub(super) const TENANT_LABELS_MAX: usize = 500;

/// Longest wait at the end for the trace collector to take the last spans.
const LAST_SPANS: Duration = Duration::from_secs(2);

/// Longest wait at the end for threads that still compute; a start can deal with half done work.
const LAST_WORK: Duration = Duration::from_secs(2);

pub(super) fn run(file: &Path, data: PathBuf) -> ExitCode {
    let loaded = match config::load_file(file) {
        Ok(loaded) => loaded,
        Err(report) => return output::err(report, BAD_INPUT),
    };
    let telemetry = &loaded.raw.telemetry;
    let _flushed_at_the_end = match init_log(&telemetry.log, telemetry.log_format) {
        Ok(flush) => flush,
        Err(error) => return output::err(error, BAD_INPUT),
    };
    if telemetry.profiling.enabled {
        profile::enable();
    }
    // It accepts connections and looks after the backends; requests run on the workers.
    run_on(runtime::Builder::new_current_thread(), GiveBack::Soon, serve(file, loaded, data))
}

/// Runs to the end on a runtime with a thread per core.
pub(super) fn run_on_cores(serving: impl Future<Output = Result<(), String>>) -> ExitCode {
    run_on(runtime::Builder::new_multi_thread(), GiveBack::AtOnce, serving)
}

fn run_on(
    mut runtime: runtime::Builder,
    give_back: GiveBack,
    serving: impl Future<Output = Result<(), String>>,
) -> ExitCode {
    allocator::set_give_back(give_back);
    if give_back == GiveBack::AtOnce {
        allocator::cache_little();
        runtime.on_thread_start(allocator::cache_little);
    }
    system::take_open_files();
    let runtime = match runtime.enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return output::err(format!("no runtime: {error}"), FAILED),
    };
    let ended = runtime.block_on(serving);
    runtime.shutdown_timeout(LAST_WORK);
    match ended {
        Ok(()) => ExitCode::SUCCESS,
        Err(message) => output::err(message, FAILED),
    }
}

/// A thread per core that carries connections.
pub(super) fn workers() -> Result<Workers, String> {
    let cores = std::thread::available_parallelism().unwrap_or(NonZeroUsize::MIN);
    Workers::start(cores).map_err(|error| format!("no threads to serve on: {error}"))
}

/// Starts the log; the environment wins over the configuration's `filter`.
pub(super) fn init_log(filter: &str, format: config::raw::LogFormat) -> Result<log::Flush, log::LogError> {
    let filter = config::env::var("WEIR_LOG").unwrap_or_else(|| filter.to_owned());
    let format = match format {
        config::raw::LogFormat::Text => log::Format::Text,
        config::raw::LogFormat::Json => log::Format::Json,
    };
    log::init(&filter, format)
}

async fn serve(file: &Path, loaded: Loaded, data: PathBuf) -> Result<(), String> {
    let hangups = Hangups::listen();
    for warning in &loaded.warnings {
        tracing::warn!("{}:{warning}", file.display());
    }
    let settings = config::resolve(&loaded.raw)?;
    let scheme = if settings.tls.is_some() { "https" } else { "http" };
    let (listen, admin_listen) = (loaded.raw.server.listen.0, loaded.raw.server.admin_listen.0);
    let (listener, admin_listener) =
        (bind(listen, "server.listen")?, bind(admin_listen, "server.admin_listen")?);
    let collector = loaded.raw.telemetry.otlp.endpoint.clone();
    let metrics = Arc::new(Metrics::new(TENANT_LABELS_MAX).map_err(|error| format!("metrics: {error}"))?);
    let memory = Memory::open(data.clone())?;
    let proxy = Proxy::new(settings, Arc::clone(&metrics), Arc::clone(&memory.history), now_ms);
    proxy.keep_rules_in(&data);
    let quotas = Quotas::open(&data, &proxy);
    // Dropped at the end, with everything on disk.
    let journal = journal::keep(&loaded.raw.journal, &data, &proxy);
    let tracing = trace(collector.as_deref(), &proxy, &metrics)?;
    metrics.reloaded(true, now_ms() / 1_000);
    let reloader = Arc::new(reloader(file, loaded, &proxy, config::resolve));
    let (stop, stopped) = watch::channel(());
    let operations = Operations {
        reload: Some(reload_by(&proxy, &reloader)),
        suggest: journal.as_ref().map(|_| from_journal(&data)),
    };
    let (admin, admin_thread) = admin_lane(admin_listener, &proxy, operations, stopped)?;
    let background = [
        tokio::spawn(memory.clone().keep()),
        tokio::spawn(quotas.clone().keep()),
        tokio::spawn(reload_on_hangup(hangups, Arc::clone(&reloader), Arc::clone(&proxy))),
        tokio::spawn(reload_on_change(reloader, Arc::clone(&proxy))),
    ];
    let signals = Signals::listen();
    if let Ok(queries) = listener.local_addr() {
        tracing::info!(%queries, %admin, "ready: point Grafana or curl at {scheme}://{queries}");
    }
    signals.serve(proxy::serve(listener, Arc::clone(&proxy), workers()?, signals.first())).await;
    proxy.leave_fleet().await;
    for task in background {
        task.abort();
    }
    memory.save();
    quotas.save();
    drop(stop);
    end_of(admin_thread).await;
    if let Some((flush, exporting)) = tracing {
        drop(flush);
        // Spans that a collector does not take by then are lost.
        let _ = tokio::time::timeout(LAST_SPANS, exporting).await;
    }
    Ok(())
}

/// A running exporter, and the sender whose drop ends it.
type Exporting = (watch::Sender<()>, JoinHandle<()>);

/// Lets queries leave spans with a collector, if one is named. Dropping the sender sends the last and ends the task.
fn trace(
    endpoint: Option<&str>,
    proxy: &Arc<Proxy>,
    metrics: &Arc<Metrics>,
) -> Result<Option<Exporting>, String> {
    let Some(endpoint) = endpoint else { return Ok(None) };
    let (spans, exporter) = otlp::Exporter::new(otlp::endpoint(endpoint)?, Arc::clone(metrics));
    proxy.trace_to(spans);
    let (flush, mut flushed) = watch::channel(());
    let exporting = tokio::spawn(exporter.run(async move {
        // The sender's end is the signal.
        let _ = flushed.changed().await;
    }));
    Ok(Some((flush, exporting)))
}

/// Listens on an address, which `setting` names.
pub(super) fn bind(address: SocketAddr, setting: &str) -> Result<TcpListener, String> {
    http::bind(address).map_err(|error| {
        let hint = match error.kind() {
            io::ErrorKind::AddrInUse => "another program listens there, perhaps another Weir; ",
            io::ErrorKind::PermissionDenied => "ports below 1024 need a privilege; ",
            _ => "",
        };
        format!("cannot listen on {address}: {error}; {hint}`{setting}` names the address")
    })
}

/// A reloader of a file; `resolve` makes settings of its content.
pub(super) fn reloader(
    file: &Path,
    loaded: Loaded,
    proxy: &Arc<Proxy>,
    resolve: impl Fn(&Raw) -> Result<proxy::Settings, String> + Send + Sync + 'static,
) -> Reloader {
    let applied = Arc::clone(proxy);
    let runtime = runtime::Handle::current();
    Reloader::new(file.to_owned(), loaded, move |loaded| {
        let _entered = runtime.enter();
        applied.reload(resolve(&loaded.raw)?);
        Ok(())
    })
}

fn reload(reloader: &Reloader, proxy: &Proxy) -> Result<Vec<String>, String> {
    let outcome = reloader.reload().map_err(|report| report.to_string());
    proxy.note_reload(outcome.as_ref().err().map(String::as_str));
    outcome
}

pub(super) fn reload_by(proxy: &Arc<Proxy>, reloader: &Arc<Reloader>) -> admin::Reload {
    let (proxy, reloader) = (Arc::clone(proxy), Arc::clone(reloader));
    Arc::new(move || reload(&reloader, &proxy))
}

/// The admin API on a thread and a runtime of its own, so that no load of queries keeps it from answering. Returns
/// its address, and the thread, which ends soon after `stopped`.
pub(super) fn admin_lane(
    listener: TcpListener,
    proxy: &Arc<Proxy>,
    operations: Operations,
    mut stopped: watch::Receiver<()>,
) -> Result<(SocketAddr, thread::JoinHandle<()>), String> {
    let address = listener.local_addr().map_err(|error| error.to_string())?;
    let listener = listener.into_std().map_err(|error| error.to_string())?;
    let proxy = Arc::clone(proxy);
    let lane = move || {
        let runtime = runtime::Builder::new_current_thread().enable_all().build()?;
        let served = runtime.block_on(async move {
            let stopped = async move {
                // The sender's end is the signal.
                let _ = stopped.changed().await;
            };
            admin::serve_admin(TcpListener::from_std(listener)?, proxy, operations, stopped).await;
            Ok::<_, io::Error>(())
        });
        // A profile under way is nobody's any more.
        runtime.shutdown_background();
        served
    };
    let spawned = thread::Builder::new().name("admin".to_owned()).spawn(move || {
        if let Err(error) = lane() {
            tracing::error!(%error, "the admin API ended");
        }
    });
    spawned.map(|thread| (address, thread)).map_err(|error| format!("no thread for the admin API: {error}"))
}

/// Waits for the thread of the admin API, which finishes its requests before.
pub(super) async fn end_of(admin: thread::JoinHandle<()>) {
    // A panic in it is in the log.
    let _ = tokio::task::spawn_blocking(move || admin.join()).await;
}

pub(super) async fn reload_on_hangup(mut hangups: Hangups, reloader: Arc<Reloader>, proxy: Arc<Proxy>) {
    while hangups.next().await.is_some() {
        let (reloader, proxy) = (Arc::clone(&reloader), Arc::clone(&proxy));
        // The outcome is logged there; reading a file blocks.
        let _ = tokio::task::spawn_blocking(move || reload(&reloader, &proxy)).await;
    }
}

pub(super) async fn reload_on_change(reloader: Arc<Reloader>, proxy: Arc<Proxy>) {
    let changed = || {
        // Already logged and counted; the next change is another chance.
        let _ = reload(&reloader, &proxy);
    };
    if let Err(error) = reloader.watch(changed).await {
        tracing::warn!(%error, "the configuration file is not watched; use SIGHUP or POST /-/reload");
    }
}
