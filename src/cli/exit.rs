//! Exit codes.

/// A bad command line or a bad configuration: `EX_USAGE`. Asking again will not help.
pub(super) const BAD_INPUT: u8 = 64;
/// Anything else that failed.
pub(super) const FAILED: u8 = 1;
