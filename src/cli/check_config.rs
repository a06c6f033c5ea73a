//! `weir check-config`.

use super::{
    exit::{BAD_INPUT, FAILED},
    output, replay,
};
use crate::{
    base::units,
    config::{self, Checked, Loaded},
};
use std::{path::Path, process::ExitCode};

pub(super) fn run(file: &Path, journal: Option<&Path>) -> ExitCode {
    match config::check_file(file) {
        Ok(Checked::Node) if journal.is_some() => {
            output::err("a storage node has no limits on queries to replay", BAD_INPUT)
        }
        Ok(Checked::Node) => output::out(format_args!("{}: good, for `weir node`", file.display()), 0),
        Ok(Checked::Proxy(loaded)) => {
            for warning in &loaded.warnings {
                output::err(format_args!("{}:{warning} (warning)", file.display()), 0);
            }
            match journal {
                Some(journal) => replayed(file, &loaded, journal),
                None => output::out(format_args!("{}: good", file.display()), 0),
            }
        }
        Err(report) => output::err(report, BAD_INPUT),
    }
}

/// A change that would refuse answered queries fails.
fn replayed(file: &Path, loaded: &Loaded, journal: &Path) -> ExitCode {
    let settings = match config::resolve(&loaded.raw) {
        Ok(settings) => settings,
        Err(message) => return output::err(message, BAD_INPUT),
    };
    match replay::keeps_what_ran(settings, journal) {
        Ok(summary) => {
            let [queries, unknown] = [summary.total.queries, summary.total.unknown].map(units::count);
            let name = file.display();
            output::out(
                format_args!(
                    "{name}: good; of {queries} queries it refuses none that was answered, {unknown} are unknown"
                ),
                0,
            )
        }
        Err(report) => output::err(report, FAILED),
    }
}

pub(super) fn print_default() -> ExitCode {
    output::out(config::DEFAULT_FILE.trim_end(), 0)
}
