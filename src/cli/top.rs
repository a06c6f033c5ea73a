//! `weir top`: budgets, lanes, queue and the heaviest queries of a running Weir, live in a terminal; or a ranking of the heaviest.

use std::{
    fmt::Write as _,
    io::{self, IsTerminal as _, Write as _},
    process::ExitCode,
    time::Duration,
};

use clap::Args;
use http::Method;
use serde_json::Value;
use tokio::time::sleep;

use super::{
    admin::{Admin, AdminAddress, block_on},
    exit::{BAD_INPUT, FAILED},
    output,
    ranking::{self, Ranking},
    text::{clean, duration_ms, number, size},
};

/// Columns and lines where the output is no terminal.
const PLAIN: (usize, usize) = (500, 60);
/// Cells of a bar.
const BAR: usize = 20;

/// How to show it.
#[derive(Debug, Args)]
pub(super) struct Top {
    /// Print once and end: for scripts.
    #[arg(long)]
    once: bool,
    /// Seconds between two looks.
    #[arg(long, value_name = "SECONDS", default_value_t = 2, value_parser = clap::value_parser!(u64).range(1..=60))]
    every: u64,
    #[command(flatten)]
    ranking: Ranking,
    #[command(flatten)]
    address: AdminAddress,
}

pub(super) fn run(args: &Top) -> ExitCode {
    let admin = match args.address.open() {
        Ok(admin) => admin,
        Err(message) => return output::err(message, BAD_INPUT),
    };
    if args.once || !io::stdout().is_terminal() {
        return match block_on(look(&admin, args, PLAIN)) {
            Ok(frame) => output::out(frame, 0),
            Err(message) => output::err(message, FAILED),
        };
    }
    match block_on(live(&admin, args)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(message) => output::err(message, FAILED),
    }
}

/// One frame of at most this many columns and lines.
async fn look(admin: &Admin, args: &Top, size: (usize, usize)) -> Result<String, String> {
    Ok(match args.ranking.target() {
        Some(target) => fit(&ranking::table(&admin.ask(Method::GET, &target, None).await?), size),
        None => frame(&admin.ask(Method::GET, "/status.json", None).await?, size),
    })
}

/// Shows one frame after the other until Ctrl-C.
async fn live(admin: &Admin, args: &Top) -> Result<(), String> {
    let _screen = Screen::enter().map_err(|error| error.to_string())?;
    let every = Duration::from_secs(args.every);
    loop {
        let size = rustix::termios::tcgetwinsize(io::stdout()).ok();
        let size = size.map_or(PLAIN, |size| (usize::from(size.ws_col), usize::from(size.ws_row)));
        let looked = tokio::select! {
            looked = look(admin, args, size) => looked,
            _ = tokio::signal::ctrl_c() => return Ok(()),
        };
        let text = looked.unwrap_or_else(|why| format!("{why}\n"));
        Screen::show(&text).map_err(|error| error.to_string())?;
        tokio::select! {
            () = sleep(every) => {}
            _ = tokio::signal::ctrl_c() => return Ok(()),
        }
    }
}

/// The terminal's second screen, left when this is dropped.
struct Screen;

impl Screen {
    fn enter() -> io::Result<Self> {
        write!(io::stdout().lock(), "\x1b[?1049h\x1b[?25l")?;
        Ok(Self)
    }

    /// Writes over the frame before; each line is cleared behind its end.
    fn show(text: &str) -> io::Result<()> {
        let mut out = io::stdout().lock();
        write!(out, "\x1b[H{}\x1b[J", text.replace('\n', "\x1b[K\r\n"))?;
        out.flush()
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        let mut out = io::stdout().lock();
        // Nobody reads any more.
        let _ = write!(out, "\x1b[?25h\x1b[?1049l").and_then(|()| out.flush());
    }
}

/// The state of the proxy.
fn frame(status: &Value, size: (usize, usize)) -> String {
    let mut out = String::new();
    findings(status, &mut out);
    for backend in status["backends"].as_array().into_iter().flatten() {
        self::backend(backend, &mut out);
    }
    for (title, key) in [("RUNNING", "running"), ("WAITING", "waiting"), ("PROBING", "probing")] {
        queries(title, &status[key], &mut out);
    }
    fit(&out, size)
}

/// As many columns and lines of a text as there are.
fn fit(text: &str, (columns, lines): (usize, usize)) -> String {
    let cut = text.lines().take(lines.max(2) - 1).map(|line| clean(line, columns.max(20)));
    cut.collect::<Vec<_>>().join("\n")
}

fn findings(status: &Value, out: &mut String) {
    for finding in status["findings"].as_array().into_iter().flatten() {
        let text = |key: &str| finding[key].as_str().unwrap_or_default();
        let _ = writeln!(out, "{}: {}", text("severity"), text("text"));
    }
}

fn backend(backend: &Value, out: &mut String) {
    let text = |key: &str| backend[key].as_str().unwrap_or_default();
    // The window may be small without a cut: it opens as heavy queries complete.
    let cut = backend["budget_percent"].as_u64().filter(|percent| *percent < 100);
    let cut = cut.map_or_else(String::new, |percent| format!("   window cut to {percent} %"));
    let open = backend["open_of"].as_str().map_or_else(String::new, |open| format!(" {open}"));
    // Writing to a string does not fail.
    let _ = writeln!(
        out,
        "\n{} ({})   memory {}{open}   queries {}   waiting {} ({}){cut}",
        text("name"),
        text("kind"),
        share(&backend["memory"], size),
        share(&backend["queries"], number),
        backend["waiting"],
        duration_ms(&backend["longest_wait_ms"]),
    );
    for lane in backend["lanes"].as_array().into_iter().flatten() {
        let name = lane[0].as_str().unwrap_or_default();
        let _ = writeln!(
            out,
            "  {name:6} {}  {:>9} queries   {}",
            bar(&lane[2]),
            share(&lane[1], number),
            share(&lane[2], size)
        );
    }
    let reasons = backend["reasons"].as_array().into_iter().flatten();
    let reasons: Vec<_> =
        reasons.map(|of| format!("{} {}", of[1], of[0].as_str().unwrap_or_default())).collect();
    if !reasons.is_empty() {
        let _ = writeln!(out, "  waiting for: {}", reasons.join(", "));
    }
}

fn share(of: &Value, show: fn(&Value) -> String) -> String {
    match &of["of"] {
        Value::Null => show(&of["used"]),
        whole => format!("{}/{}", show(&of["used"]), show(whole)),
    }
}

fn bar(of: &Value) -> String {
    let used = of["used"].as_u64().unwrap_or(0) as f64;
    let whole = of["of"].as_u64().map_or(f64::INFINITY, |whole| whole.max(1) as f64);
    let cells = ((used / whole * BAR as f64).round() as usize).min(BAR);
    format!("[{}{}]", "#".repeat(cells), ".".repeat(BAR - cells))
}

fn queries(title: &str, of: &Value, out: &mut String) {
    let shown = &of["shown"];
    let _ = writeln!(out, "\n{title} {}", of["total"]);
    if shown.as_array().is_some_and(|shown| !shown.is_empty()) {
        out.push_str(&super::queries::table(shown));
        out.push('\n');
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_frame_fits_its_terminal_and_takes_no_orders_from_a_query() {
        let query = serde_json::json!({
            "id": 7, "state": "running", "age_ms": 12_000, "series": {"value": 120_000}, "memory": {"value": 1 << 30},
            "part": 2, "parts": 4, "tenant": "a", "actor": "dashboard:x", "text": "sum(\u{1b}[2Jrate(m[5m]))"
        });
        let probed = serde_json::json!({
            "id": 8, "state": "probing", "series": {"value": null}, "memory": {"value": null}, "part": 1, "parts": 1
        });
        let status = serde_json::json!({
            "findings": [{"severity": "warning", "text": "queries wait"}],
            "backends": [{
                "name": "main", "kind": "prometheus", "memory": {"used": 1 << 30, "of": 4_u64 << 30},
                "queries": {"used": 3, "of": 20}, "waiting": 2, "longest_wait_ms": 1500, "budget_percent": 100, "open_of": "open of 8GiB (unproven)",
                "lanes": [["slow", {"used": 1, "of": 2}, {"used": 1 << 29, "of": 1 << 30}]], "reasons": [["slow_lane", 2]]
            }],
            "running": {"total": 1, "shown": [query]}, "waiting": {"total": 0, "shown": []},
            "probing": {"total": 1, "shown": [probed]}
        });
        let text = frame(&status, (120, 40));
        for part in [
            "warning: queries wait",
            "main (prometheus)   memory 1GiB/4GiB open of 8GiB (unproven)   queries 3/20   waiting 2 (1.5s)\n",
            "slow   [##########..........]",
            "waiting for: 2 slow_lane",
            "RUNNING 1",
            "120.0k",
            "2/4",
            "WAITING 0",
            "PROBING 1",
        ] {
            assert!(text.contains(part), "{part}\n{text}");
        }
        assert!(!text.contains('\u{1b}'));
        let small = frame(&status, (40, 6));
        assert!(
            small.lines().count() <= 6 && small.lines().all(|line| line.chars().count() <= 40),
            "{small}"
        );
    }
}
