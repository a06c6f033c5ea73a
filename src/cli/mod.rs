//! Command line: wiring only.

/// Runs the command named on the command line.
pub fn main() -> std::process::ExitCode {
    std::process::ExitCode::SUCCESS
}
