//! `weir check-config`.

use super::{BAD_INPUT, output};
use crate::config;
use std::{path::Path, process::ExitCode};

pub(super) fn run(file: &Path) -> ExitCode {
    if config::is_node_file(file) {
        return match config::load_node_file(file) {
            Ok(_) => output::out(format_args!("{}: good, for `weir node`", file.display()), 0),
            Err(report) => output::err(report, BAD_INPUT),
        };
    }
    match config::load_file(file) {
        Ok(loaded) => {
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
