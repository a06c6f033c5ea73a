//! `weir replay`, and the replay that `weir check-config` asks for.

use std::{
    io,
    path::{Path, PathBuf},
    process::ExitCode,
};

use clap::{Args, ValueEnum};
use serde_json::json;

use super::{
    exit::{BAD_INPUT, FAILED},
    output,
    records::{self, Since},
};
use crate::{
    config,
    journal::Record,
    proxy::{
        self,
        replay::{Replay, Replayed, Verdict},
    },
    replay::{Summary, import::Format, report},
};

/// The records, and the configuration that judges.
#[derive(Debug, Args)]
pub(super) struct ReplayArgs {
    /// The configuration that judges.
    #[arg(long, value_name = "FILE")]
    config: PathBuf,
    /// A journal: a file, a folder of files, or a folder given as `--data`. With `--format`, query logs.
    #[arg(value_name = "JOURNAL", default_value = "./weir-data")]
    files: Vec<PathBuf>,
    /// Read the query log of another program: prometheus, mimir, cortex, thanos, victoriametrics.
    #[arg(long)]
    format: Option<Format>,
    /// Only queries of this time until now: `7d`.
    #[arg(long)]
    since: Option<Since>,
    /// The form of the report.
    #[arg(long, value_enum, default_value = "text")]
    output: Form,
    /// In place of a report, a line of JSON for each query: its verdict then, and now.
    #[arg(long)]
    verdicts: bool,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Form {
    Text,
    Json,
    Html,
}

pub(super) fn run(args: &ReplayArgs) -> ExitCode {
    let settings = match settings(&args.config) {
        Ok(settings) => settings,
        Err(message) => return output::err(message, BAD_INPUT),
    };
    let (mut replay, since) = (Replay::new(settings), args.since.map(Since::start));
    if args.verdicts {
        return output::lines(|out| {
            let mut written = Ok(());
            let notes = records::each(&args.files, args.format, since, |record| {
                if written.is_ok() {
                    let line = verdict_json(record, &replay.replay(record));
                    written = writeln!(out, "{line}");
                }
            });
            notes.map_err(io::Error::other)?;
            written
        });
    }
    let mut summary = Summary::default();
    let notes = records::each(&args.files, args.format, since, |record| {
        summary.add(record, &replay.replay(record));
    });
    match notes {
        Ok(notes) => notes.iter().for_each(|note| _ = output::err(note, 0)),
        Err(message) => return output::err(message, FAILED),
    }
    match args.output {
        Form::Text => output::out(report::text(&summary), 0),
        Form::Json => output::out(report::json(&summary), 0),
        Form::Html => output::out(report::html(&summary), 0),
    }
}

fn settings(file: &Path) -> Result<proxy::Settings, String> {
    let loaded = config::load_file(file).map_err(|report| report.to_string())?;
    config::resolve(&loaded.raw)
}

/// Whether these settings refuse no answered query; else the report that names them.
pub(super) fn keeps_what_ran(settings: proxy::Settings, journal: &Path) -> Result<Summary, String> {
    let (mut replay, mut summary) = (Replay::new(settings), Summary::default());
    records::each(&[journal.to_owned()], None, None, |record| summary.add(record, &replay.replay(record)))?;
    if summary.total.newly_refused > 0 { Err(report::text(&summary)) } else { Ok(summary) }
}

/// One query: its verdict then, and now.
fn verdict_json(record: &Record, replayed: &Replayed) -> serde_json::Value {
    let (verdict, refusal) = match &replayed.verdict {
        Verdict::Admitted => ("admitted", None),
        Verdict::Refused(refusal) => ("refused", Some(refusal)),
        Verdict::Unknown(refusal) => ("unknown", refusal.as_ref()),
    };
    json!({
        "atMs": record.at_ms,
        "tenant": record.tenant.known(),
        "dashboard": record.dashboard.known(),
        "query": record.query.known(),
        "recorded": record.verdict.known(),
        "outcome": record.outcome.known(),
        "verdict": verdict,
        "limit": refusal.map(crate::limit::Refusal::id),
        "observed": refusal.and_then(|refusal| refusal.observed.known()),
        "known": refusal.filter(|refusal| refusal.observed.known().is_some()).map(|refusal| refusal.observed.confidence.as_str()),
        "max": refusal.map(|refusal| refusal.max),
        "slow": replayed.slow,
        "clamped": replayed.clamped,
        "rule": replayed.rule.as_ref().map(|rule| rule.name()),
        "reason": replayed.rule.as_ref().map(|rule| &rule.spec.reason),
        "shadowed": replayed.shadowed.iter().map(crate::limit::Refusal::id).collect::<Vec<_>>(),
    })
}
