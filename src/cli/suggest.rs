//! `weir suggest`.

use std::{path::PathBuf, process::ExitCode};

use clap::Args;

use super::{
    exit::{BAD_INPUT, FAILED},
    output,
    records::{self, Since},
};
use crate::{
    base::timestamp,
    replay::suggest::{Observed, yaml},
};

/// The records, and the headroom of the limits.
#[derive(Debug, Args)]
pub(super) struct SuggestArgs {
    /// A journal: a file, a folder of files, or a folder given as `--data`.
    #[arg(value_name = "JOURNAL", default_value = "./weir-data")]
    files: Vec<PathBuf>,
    /// Only queries of this time until now.
    #[arg(long, default_value = "7d")]
    since: Since,
    /// How many times the largest ordinary query a limit allows, above 1.
    #[arg(long, default_value = "1.5")]
    headroom: f64,
    /// Only this tenant.
    #[arg(long)]
    tenant: Option<String>,
}

pub(super) fn run(args: &SuggestArgs) -> ExitCode {
    if !(args.headroom > 1.0 && args.headroom.is_finite()) {
        return output::err("--headroom must be above 1", BAD_INPUT);
    }
    match suggest(args) {
        Ok(patch) => output::out(patch.trim_end(), 0),
        Err(message) => output::err(message, FAILED),
    }
}

fn suggest(args: &SuggestArgs) -> Result<String, String> {
    let since = args.since.start();
    let wanted = |tenant: &str| args.tenant.as_ref().is_none_or(|only| only == tenant);
    let mut observed = Observed::default();
    let notes = records::each(&args.files, None, Some(since), |record| {
        if wanted(&record.tenant) {
            observed.add(record);
        }
    })?;
    for note in notes {
        output::err(note, 0);
    }
    let mut suggested = observed.limits(args.headroom);
    records::each(&args.files, None, Some(since), |record| suggested.look_back(record))?;
    Ok(yaml(&suggested, args.headroom, &format!(" since {}", timestamp::text(since))))
}
