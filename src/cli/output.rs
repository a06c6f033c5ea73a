//! The one place that writes to the terminal.

use super::exit::FAILED;
use std::{
    fmt::Display,
    io::{self, Write},
    process::ExitCode,
};

/// Writes a line to standard output, then exits with `code`; with 1 when nobody can read it.
pub(super) fn out(line: impl Display, code: u8) -> ExitCode {
    finish(writeln!(io::stdout().lock(), "{line}"), code)
}

/// Writes a line to standard error, then exits with `code`.
pub(super) fn err(line: impl Display, code: u8) -> ExitCode {
    finish(writeln!(io::stderr().lock(), "{line}"), code)
}

/// Writes many lines to standard output, then exits with 0.
pub(super) fn lines(write: impl FnOnce(&mut dyn Write) -> io::Result<()>) -> ExitCode {
    let mut out = io::BufWriter::new(io::stdout().lock());
    finish(write(&mut out).and_then(|()| out.flush()), 0)
}

fn finish(written: io::Result<()>, code: u8) -> ExitCode {
    match written {
        Ok(()) => ExitCode::from(code),
        // `weir … | head` closes the pipe; that is no failure.
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => ExitCode::from(code),
        Err(_) => ExitCode::from(FAILED),
    }
}
