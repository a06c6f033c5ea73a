//! `weir suggest`.

use std::{
    path::{Path, PathBuf},
    process::ExitCode,
    sync::Arc,
};

use clap::Args;

use super::{
    exit::{BAD_INPUT, FAILED},
    output,
    records::{self, Since},
};
use crate::{
    admin,
    base::timestamp,
    journal::FOLDER,
    replay::suggest::{Observed, yaml},
};

/// How many times the largest ordinary query a limit allows.
const HEADROOM: f64 = 1.5;

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
    #[arg(long, default_value_t = HEADROOM)]
    headroom: f64,
    /// Only this tenant.
    #[arg(long)]
    tenant: Option<String>,
}

pub(super) fn run(args: &SuggestArgs) -> ExitCode {
    if !(args.headroom > 1.0 && args.headroom.is_finite()) {
        return output::err("--headroom must be above 1", BAD_INPUT);
    }
    match suggest(&args.files, args.since, args.headroom, args.tenant.as_deref()) {
        Ok((patch, notes)) => {
            for note in notes {
                output::err(note, 0);
            }
            output::out(patch.trim_end(), 0)
        }
        Err(message) => output::err(message, FAILED),
    }
}

/// Suggestions for a tenant, as the command gives them, from the journal below a data folder.
pub(super) fn from_journal(data: &Path) -> admin::Suggest {
    let files = [data.join(FOLDER)];
    Arc::new(move |tenant| suggest(&files, Since::WEEK, HEADROOM, Some(tenant)).map(|(patch, _)| patch))
}

/// Limits for the tenants of a journal, or for one of them, as a patch to the configuration, and the records that could not be read.
fn suggest(
    files: &[PathBuf],
    since: Since,
    headroom: f64,
    tenant: Option<&str>,
) -> Result<(String, Vec<String>), String> {
    let since = since.start();
    let wanted = |name: &str| tenant.is_none_or(|only| only == name);
    let mut observed = Observed::default();
    let notes = records::each(files, None, Some(since), |record| {
        if wanted(&record.tenant) {
            observed.add(record);
        }
    })?;
    let mut suggested = observed.limits(headroom);
    records::each(files, None, Some(since), |record| suggested.look_back(record))?;
    Ok((yaml(&suggested, headroom, &format!(" since {}", timestamp::text(since))), notes))
}
