//! `weir completions` and `weir man`: made from the command line itself.

use std::{io, process::ExitCode};

use clap::{Command, CommandFactory as _};
use clap_complete::Shell;

use super::{
    Args,
    exit::{BAD_INPUT, FAILED},
    output,
};

/// Prints the script by which a shell completes commands and options.
pub(super) fn completions(shell: Shell) -> ExitCode {
    let mut text = Vec::new();
    clap_complete::generate(shell, &mut Args::command(), "weir", &mut text);
    output::out(String::from_utf8_lossy(&text).trim_end(), 0)
}

/// Prints the manual page, of one command where it is named.
pub(super) fn man(name: Option<&str>) -> ExitCode {
    let mut command = Args::command();
    command.build();
    let found = match name {
        None => Some(command),
        Some(name) => command.find_subcommand(name).cloned(),
    };
    let Some(found) = found else { return output::err("there is no such command", BAD_INPUT) };
    match page(found) {
        Ok(text) => output::out(text.trim_end(), 0),
        Err(error) => output::err(error, FAILED),
    }
}

fn page(command: Command) -> io::Result<String> {
    let mut text = Vec::new();
    clap_mangen::Man::new(command).render(&mut text)?;
    Ok(String::from_utf8_lossy(&text).into_owned())
}
