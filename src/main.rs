//! The `weir` binary: parse arguments, run, exit. Everything else is in the library.

/// The system's allocator; profiles of the heap come from it, where they are switched on.
#[global_allocator]
static ALLOCATOR: weir::telemetry::profile::Sampled = weir::telemetry::profile::Sampled;

fn main() -> std::process::ExitCode {
    weir::cli::main()
}
