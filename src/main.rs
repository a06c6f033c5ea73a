//! The `weir` binary: parse arguments, run, exit. Everything else is in the library.

#[cfg(not(target_os = "linux"))]
use std::alloc::System as Base;
#[cfg(target_os = "linux")]
use tikv_jemallocator::Jemalloc as Base;

/// jemalloc packs what one query frees closer than glibc does, and gives it back page by page; `base::allocator` says when.
#[cfg(not(feature = "heap-profile"))]
#[global_allocator]
static ALLOCATOR: Base = Base;

/// The same, sampled for profiles of the heap where they are switched on.
#[cfg(feature = "heap-profile")]
#[global_allocator]
static ALLOCATOR: weir::telemetry::profile::Sampled<Base> = weir::telemetry::profile::Sampled(Base);

/// jemalloc's settings, which it reads before `main`: one arena a core instead of four, since memory between the objects of one
/// arena is lost to the others.
// SAFETY: jemalloc declares a `const char *` of this name, and reads the text up to its zero.
#[cfg(target_os = "linux")]
#[allow(unsafe_code)]
#[unsafe(export_name = "_rjem_malloc_conf")]
static SETTINGS: &[u8; 16] = b"narenas_ratio:1\0";

fn main() -> std::process::ExitCode {
    weir::cli::main()
}
