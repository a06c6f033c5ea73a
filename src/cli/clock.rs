//! The one place that reads the wall clock.

use std::{
    fs,
    path::PathBuf,
    sync::LazyLock,
    time::{SystemTime, UNIX_EPOCH},
};

/// For tests alone: names a file with the milliseconds by which the clock of this process is off.
const TEST_OFFSET: &str = "WEIR_TEST_CLOCK_OFFSET_FILE";

/// Milliseconds since the Unix epoch.
pub(super) fn now_ms() -> i64 {
    static OFFSET: LazyLock<Option<PathBuf>> =
        LazyLock::new(|| std::env::var_os(TEST_OFFSET).map(PathBuf::from));
    let offset = OFFSET.as_ref().and_then(|file| fs::read_to_string(file).ok()?.trim().parse().ok());
    let now = match SystemTime::now().duration_since(UNIX_EPOCH) {
        Ok(since) => i64::try_from(since.as_millis()).unwrap_or(i64::MAX),
        // A clock before 1970 is wrong anyway: any time serves.
        Err(_) => 0,
    };
    now.saturating_add(offset.unwrap_or(0))
}
