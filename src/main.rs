//! The `weir` binary: parse arguments, run, exit. Everything else is in the library.

#[cfg(not(target_os = "linux"))]
use std::alloc::System as Base;
#[cfg(target_os = "linux")]
use tikv_jemallocator::Jemalloc as Base;

/// jemalloc packs what one query frees closer than glibc does, and gives it back page by page; `cli::system` says when.
#[cfg(not(feature = "heap-profile"))]
#[global_allocator]
static ALLOCATOR: Base = Base;

/// The same, sampled for profiles of the heap where they are switched on.
#[cfg(feature = "heap-profile")]
#[global_allocator]
static ALLOCATOR: weir::telemetry::profile::Sampled<Base> = weir::telemetry::profile::Sampled(Base);

fn main() -> std::process::ExitCode {
    weir::cli::main()
}
