//! The `weir` binary: parse arguments, run, exit. Everything else is in the library.

/// The system's allocator, sampled for profiles of the heap where they are switched on.
#[cfg(feature = "heap-profile")]
#[global_allocator]
static ALLOCATOR: weir::telemetry::profile::Sampled = weir::telemetry::profile::Sampled;

fn main() -> std::process::ExitCode {
    weir::cli::main()
}
