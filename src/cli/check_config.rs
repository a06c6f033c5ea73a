//! `weir check-config`.

use super::{exit::BAD_INPUT, output};
use crate::config::{self, Checked};
use std::{path::Path, process::ExitCode};

pub(super) fn run(file: &Path) -> ExitCode {
    match config::check_file(file) {
        Ok(Checked::Node) => output::out(format_args!("{}: good, for `weir node`", file.display()), 0),
        Ok(Checked::Proxy(loaded)) => {
            for warning in &loaded.warnings {
                output::err(format_args!("{}:{warning} (warning)", file.display()), 0);
            }
            output::out(format_args!("{}: good", file.display()), 0)
        }
        Err(report) => output::err(report, BAD_INPUT),
    }
}

pub(super) fn print_default() -> ExitCode {
    output::out(config::DEFAULT_FILE.trim_end(), 0)
}
